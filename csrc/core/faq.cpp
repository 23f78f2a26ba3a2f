#include "core/faq.hpp"

#include <algorithm>
#include <cmath>

#include "core/simd.hpp"

namespace graphmatch {
namespace {

constexpr int kSinkhornRounds = 100;
constexpr double kSinkhornTolerance = 1e-3;

// result += a b, all of them n x n.
GRAPHMATCH_MULTIVERSION void add_product(const double* a, const double* b, std::int64_t n, double* result) {
  for (std::int64_t i = 0; i < n; ++i) {
    double* row = result + i * n;
    std::int64_t k = 0;
    for (; k + 4 <= n; k += 4) {
      const double a0 = a[i * n + k], a1 = a[i * n + k + 1], a2 = a[i * n + k + 2], a3 = a[i * n + k + 3];
      if (a0 == 0.0 && a1 == 0.0 && a2 == 0.0 && a3 == 0.0) continue;
      const double *b0 = b + k * n, *b1 = b0 + n, *b2 = b1 + n, *b3 = b2 + n;
#pragma omp simd
      for (std::int64_t j = 0; j < n; ++j) row[j] += (a0 * b0[j] + a1 * b1[j]) + (a2 * b2[j] + a3 * b3[j]);
    }
    for (; k < n; ++k) {
      const double a0 = a[i * n + k];
      const double* b0 = b + k * n;
#pragma omp simd
      for (std::int64_t j = 0; j < n; ++j) row[j] += a0 * b0[j];
    }
  }
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double total = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) total += a[i] * b[i];
  return total;
}

std::vector<double> transposed(const std::vector<double>& matrix, std::int64_t n) {
  std::vector<double> result(matrix.size());
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = 0; j < n; ++j) result[j * n + i] = matrix[i * n + j];
  }
  return result;
}

// Divides rows and columns in turn by their sums, until the rows of the last round are within the tolerance.
void scale_to_doubly_stochastic(std::vector<double>& matrix, std::int64_t n) {
  for (int round = 0; round < kSinkhornRounds; ++round) {
    double error = 0.0;
    for (std::int64_t i = 0; i < n; ++i) {
      double sum = 0.0;
      for (std::int64_t j = 0; j < n; ++j) sum += matrix[i * n + j];
      error = std::max(error, std::fabs(sum - 1.0));
      for (std::int64_t j = 0; j < n; ++j) matrix[i * n + j] /= sum;
    }
    if (round > 0 && error < kSinkhornTolerance) return;
    for (std::int64_t j = 0; j < n; ++j) {
      double sum = 0.0;
      for (std::int64_t i = 0; i < n; ++i) sum += matrix[i * n + j];
      for (std::int64_t i = 0; i < n; ++i) matrix[i * n + j] /= sum;
    }
  }
}

}  // namespace

Faq::Faq(const QapCosts& costs, const FaqOptions& options) : costs_(costs), options_(options), nodes_(costs.nodes) {
  const auto size = static_cast<std::size_t>(nodes_ * nodes_);
  distance_transposed_ = transposed(costs.distance, nodes_);
  if (!costs.symmetric) flow_transposed_ = transposed(costs.flow, nodes_);
  for (std::vector<double>* matrix : {&point_, &target_, &at_point_, &at_target_, &gradient_, &scratch_}) {
    matrix->resize(size);
  }
}

std::int64_t Faq::run_from_barycenter(Stop& stop) {
  std::fill(point_.begin(), point_.end(), 1.0 / static_cast<double>(nodes_));
  return run(stop);
}

std::int64_t Faq::run_from_random(Random& random, Stop& stop) {
  constexpr std::int64_t kGrid = 1 << 20;
  for (double& entry : point_) entry = static_cast<double>(random.below(kGrid) + 1) / static_cast<double>(kGrid);
  scale_to_doubly_stochastic(point_, nodes_);
  for (double& entry : point_) entry = 0.5 * (entry + 1.0 / static_cast<double>(nodes_));
  return run(stop);
}

std::int64_t Faq::run_from(const double* start, Stop& stop) {
  std::copy_n(start, point_.size(), point_.begin());
  return run(stop);
}

// H of a permutation: the product with it only moves rows.
void Faq::apply_permutation(const std::vector<std::int64_t>& x, std::vector<double>& result) {
  std::fill(result.begin(), result.end(), 0.0);
  auto add = [&](const std::vector<double>& flow, const std::vector<double>& distance) {
    for (std::int64_t j = 0; j < nodes_; ++j) {
      std::copy_n(distance.data() + x[j] * nodes_, nodes_, scratch_.data() + j * nodes_);
    }
    add_product(flow.data(), scratch_.data(), nodes_, result.data());
  };
  add(costs_.flow, distance_transposed_);
  if (!costs_.symmetric) add(flow_transposed_, costs_.distance);
}

void Faq::apply(const std::vector<double>& point, std::vector<double>& result) {
  std::fill(result.begin(), result.end(), 0.0);
  auto add = [&](const std::vector<double>& flow, const std::vector<double>& distance) {
    std::fill(scratch_.begin(), scratch_.end(), 0.0);
    add_product(point.data(), distance.data(), nodes_, scratch_.data());
    add_product(flow.data(), scratch_.data(), nodes_, result.data());
  };
  add(costs_.flow, distance_transposed_);
  if (!costs_.symmetric) add(flow_transposed_, costs_.distance);
}

// exp(-gradient / temperature), scaled to be doubly stochastic; the duals of the assignment keep it from underflowing.
void Faq::soften(std::vector<double>& target) {
  const auto [lowest, highest] = std::minmax_element(gradient_.begin(), gradient_.end());
  const double temperature = options_.temperature * (*highest - *lowest);
  for (std::int64_t i = 0; i < nodes_; ++i) {
    for (std::int64_t k = 0; k < nodes_; ++k) {
      const double reduced = gradient_[i * nodes_ + k] - lap_.u[i] - lap_.v[k];
      target[i * nodes_ + k] = temperature > 0.0 ? std::exp(-std::max(reduced, 0.0) / temperature) : 1.0;
    }
  }
  scale_to_doubly_stochastic(target, nodes_);
}

std::int64_t Faq::run(Stop& stop) {
  const bool has_linear = !costs_.linear.empty();
  bool soft = options_.sinkhorn;
  apply(point_, at_point_);
  std::int64_t iteration = 0;
  while (iteration < options_.max_iterations && !stop.requested()) {
    ++iteration;
    for (std::size_t i = 0; i < point_.size(); ++i) {
      gradient_[i] = at_point_[i] + (has_linear ? costs_.linear[i] : 0.0);
    }
    lap_.solve(nodes_, nodes_, gradient_.data(), nodes_);
    if (soft) {
      soften(target_);
      apply(target_, at_target_);
    } else {
      std::fill(target_.begin(), target_.end(), 0.0);
      for (std::int64_t i = 0; i < nodes_; ++i) target_[i * nodes_ + lap_.row_to_column[i]] = 1.0;
      apply_permutation(lap_.row_to_column, at_target_);
    }
    for (std::size_t i = 0; i < point_.size(); ++i) {
      target_[i] -= point_[i];
      at_target_[i] -= at_point_[i];
    }
    const double slope = dot(gradient_, target_);
    const double curvature = dot(target_, at_target_);
    double step = slope + 0.5 * curvature < 0.0 ? 1.0 : 0.0;
    if (curvature > 0.0) step = std::clamp(-slope / curvature, 0.0, 1.0);
    const double gain = -(step * slope + 0.5 * step * step * curvature);
    for (std::size_t i = 0; i < point_.size(); ++i) {
      point_[i] += step * target_[i];
      at_point_[i] += step * at_target_[i];
    }
    // <point, gradient> has the size of the value, without its constants.
    const double size = std::fabs(dot(point_, at_point_)) + std::fabs(slope);
    if (gain > options_.tolerance * size) continue;
    if (!soft) break;
    soft = false;  // where the soft steps end is the interior: hard ones lead to a corner
  }
  assignment_ = rounded(costs_, point_.data());
  return iteration;
}

std::vector<std::int64_t> rounded(const QapCosts& costs, const double* point) {
  const std::int64_t n = costs.nodes;
  std::vector<double> dislike(static_cast<std::size_t>(n * n));
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t k = 0; k < n; ++k) {
      const double share = std::clamp(point[i * n + k], 0.0, 1.0);
      dislike[i * n + k] = (costs.is_forbidden(i, k) ? 2.0 * static_cast<double>(n) : 0.0) - share;
    }
  }
  Lap<double> lap;
  lap.solve(n, n, dislike.data(), n);
  return lap.row_to_column;
}

}  // namespace graphmatch
