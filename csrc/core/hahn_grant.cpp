#include "core/hahn_grant.hpp"

#include <algorithm>
#include <cmath>

namespace graphmatch {
namespace {

constexpr double kUnits = 2251799813685248.0;  // 2^51: no sum of n^2 costs reaches 2^53

}  // namespace

HahnGrant::HahnGrant(const QapCosts& costs) : nodes_(costs.nodes) {
  const std::int64_t n = nodes_;
  double largest = 0.0;
  for (const double cost : costs.linear) largest = std::max(largest, std::fabs(cost));
  double flow = 0.0, distance = 0.0;
  for (const double entry : costs.flow) flow = std::max(flow, std::fabs(entry));
  for (const double entry : costs.distance) distance = std::max(distance, std::fabs(entry));
  largest = std::max(largest, flow * distance);
  // A power of two: integers that fit are kept as they are.
  if (largest > 0.0) scale_ = std::exp2(std::floor(std::log2(kUnits / (largest * static_cast<double>(n * n)))));
  linear_.assign(static_cast<std::size_t>(n * n), 0.0);
  for (std::size_t i = 0; i < costs.linear.size(); ++i) linear_[i] = std::floor(scale_ * costs.linear[i]);
  mirrored_.resize(linear_.size());
  if (n > 1) pairs_.resize(static_cast<std::size_t>(n * n * (n - 1) * (n - 1)));
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t k = 0; k < n; ++k) {
      for (std::int64_t j = 0; j < n; ++j) {
        for (std::int64_t l = 0; l < n; ++l) {
          if (j == i || l == k) continue;
          const double cost = costs.weight() * costs.flow[i * n + j] * costs.distance[k * n + l];
          pair(i, k, j, l) = std::floor(scale_ * cost);
        }
      }
    }
  }
}

// Both copies of every pair get half of their sum.
void HahnGrant::balance() {
  for (std::int64_t i = 0; i < nodes_; ++i) {
    for (std::int64_t k = 0; k < nodes_; ++k) {
      for (std::int64_t j = i + 1; j < nodes_; ++j) {
        for (std::int64_t l = 0; l < nodes_; ++l) {
          if (l == k) continue;
          double& first = pair(i, k, j, l);
          double& second = pair(j, l, i, k);
          const double sum = first + second;
          first = std::floor(0.5 * sum);
          second = sum - first;
        }
      }
    }
  }
}

// Takes the linear assignment out of the costs: what is left are the reduced ones. Returns its value. Of the many
// optimal duals, the mean of those of rows first and of columns first leaves the costs where the next round needs them.
double HahnGrant::take(std::int64_t size, double* costs, Lap<double>& lap) {
  for (std::int64_t i = 0; i < size; ++i) {
    for (std::int64_t k = 0; k < size; ++k) mirrored_[k * size + i] = costs[i * size + k];
  }
  lap.solve(size, size, costs, size);
  mirrored_lap_.solve(size, size, mirrored_.data(), size);
  double value = 0.0;
  for (std::int64_t i = 0; i < size; ++i) {
    lap.u[i] = std::floor(0.5 * (lap.u[i] + mirrored_lap_.v[i]));
    lap.v[i] = std::floor(0.5 * (lap.v[i] + mirrored_lap_.u[i]));
    value += lap.u[i] + lap.v[i];
  }
  for (std::int64_t i = 0; i < size; ++i) {
    for (std::int64_t k = 0; k < size; ++k) costs[i * size + k] -= lap.u[i] + lap.v[k];
  }
  return value;
}

bool HahnGrant::improve(Stop& stop) {
  const std::int64_t n = nodes_;
  const std::int64_t size = (n - 1) * (n - 1);
  if (n > 1) {
    for (std::int64_t index = 0; index < n * n; ++index) {
      // Every permutation with (i, k) pays n - 1 entries of its matrix.
      const double share = std::floor(linear_[index] / static_cast<double>(n - 1));
      double* costs = pairs_.data() + index * size;
      for (std::int64_t entry = 0; entry < size; ++entry) costs[entry] += share;
      linear_[index] -= share * static_cast<double>(n - 1);
    }
    balance();
    for (std::int64_t index = 0; index < n * n; ++index) {
      if (stop.requested()) break;  // what has been moved stays a bound
      linear_[index] += take(n - 1, pairs_.data() + index * size, lap_);
    }
  }
  const double gain = take(n, linear_.data(), outer_);
  taken_ += gain;
  return gain != 0.0;  // the first one takes the negative costs
}

}  // namespace graphmatch
