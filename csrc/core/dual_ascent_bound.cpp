// The certificate of the dual ascent: bounds in double from the messages alone, and what follows from them.
#include <algorithm>
#include <cmath>
#include <limits>

#include "core/dual_ascent.hpp"

namespace graphmatch {
namespace {

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

// min over l of row[l] + b[l], with the unmatched label of the second node.
GRAPHMATCH_INLINE double row_minimum(const float* row, const float* b, double b_unmatched, std::int64_t stride) {
  double lowest = b_unmatched;
#pragma omp simd reduction(min : lowest)
  for (std::int64_t l = 0; l < stride; ++l) {
    const double value = static_cast<double>(row[l]) + static_cast<double>(b[l]);
    lowest = value < lowest ? value : lowest;
  }
  return reduced_minimum(lowest);
}

GRAPHMATCH_MULTIVERSION double table_minimum(const float* table, std::int64_t columns, std::int64_t stride,
                                             const float* a, const float* b, double b_unmatched) {
  double lowest = kInfinity;
  for (std::int64_t k = 0; k < columns; ++k) {
    const double value = row_minimum(table + k * stride, b, b_unmatched, stride) + static_cast<double>(a[k]);
    lowest = value < lowest ? value : lowest;
  }
  return lowest;
}

// The same over the stored entries, and over all other cells at no cost.
double sparse_minimum(const PairCosts& costs, std::int64_t pair, const float* a, const float* b, double b_unmatched,
                      std::vector<std::int32_t>& by_message) {
  constexpr std::int64_t kFew = 16;
  const CostPattern& pattern = costs.pattern(pair);
  const float* values = costs.values(pair);
  by_message.resize(static_cast<std::size_t>(costs.columns));
  for (std::int32_t l = 0; l < costs.columns; ++l) by_message[l] = l;
  // Few rows need more than the first of them.
  const auto cheaper = [b](std::int32_t x, std::int32_t y) { return b[x] < b[y]; };
  const auto first = by_message.begin();
  const auto last = by_message.end();
  auto sorted = first + std::min<std::int64_t>(kFew, costs.columns);
  std::partial_sort(first, sorted, last, cheaper);
  double lowest = kInfinity;
  for (std::int64_t k = 0; k < costs.columns; ++k) {
    double best = b_unmatched;
    const auto begin = pattern.column.begin() + pattern.row_begin[k];
    const auto end = pattern.column.begin() + pattern.row_begin[k + 1];
    for (auto place = begin; place != end; ++place) {
      const double cost = static_cast<double>(values[place - pattern.column.begin()]);
      best = std::min(best, cost + static_cast<double>(b[*place]));
    }
    for (auto l = first; l != last; ++l) {
      if (l == sorted) {
        std::sort(sorted, last, cheaper);
        sorted = last;
      }
      if (*l == k || std::binary_search(begin, end, *l)) continue;
      best = std::min(best, static_cast<double>(b[*l]));
      break;
    }
    lowest = std::min(lowest, best + static_cast<double>(a[k]));
  }
  return lowest;
}

}  // namespace

double DualAscent::pair_minimum(std::int64_t pair) const {
  double& known = pair_minimum_[static_cast<std::size_t>(pair)];
  if (std::isnan(known)) known = compute_pair_minimum(pair);
  return known;
}

double DualAscent::compute_pair_minimum(std::int64_t pair) const {
  const float* a = message_first(pair);
  const float* b = message_second(pair);
  const double a_unmatched = static_cast<double>(message_first_unmatched_[pair]);
  const double b_unmatched = static_cast<double>(message_second_unmatched_[pair]);
  double lowest = a_unmatched + b_unmatched;
  for (std::int64_t l = 0; l < costs_.columns; ++l) lowest = std::min(lowest, a_unmatched + static_cast<double>(b[l]));
  if (dense_) {
    return std::min(lowest, table_minimum(tables_.table(pair), costs_.columns, costs_.stride, a, b, b_unmatched));
  }
  std::vector<std::int32_t> by_message;
  return std::min(lowest, sparse_minimum(costs_, pair, a, b, b_unmatched, by_message));
}

const DualAscent::Certificate& DualAscent::certificate() const {
  if (!is_certified_) certify();
  is_certified_ = true;
  return certificate_;
}

void DualAscent::certify() const {
  const std::int64_t rows = costs_.rows;
  const std::int64_t columns = costs_.columns;
  const std::int64_t stride = costs_.stride;
  Certificate& found = certificate_;
  found.theta.resize(rows * columns);
  found.unmatched.assign(rows, costs_.unmatched_cost);
  found.row_minimum.resize(rows);
  std::vector<double> magnitude(rows, std::fabs(costs_.unmatched_cost));  // bounds the partial sums of a row's theta
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t k = 0; k < columns; ++k) {
      const double cost = static_cast<double>(costs_.unary(i)[k]);
      found.theta[i * columns + k] = cost;
      if (blocked_[i * stride + k] == 0.0f) magnitude[i] = std::max(magnitude[i], std::fabs(cost));
    }
  }
  double bound = -static_cast<double>(std::min(rows, columns)) * costs_.unary_rounding_error();
  double error = 0.0;  // in units of the machine precision
  double total = std::fabs(bound);

  auto take_messages = [&](std::int64_t row, const float* messages, float message_unmatched) {
    double largest = unmatched_blocked_[row] ? 0.0 : std::fabs(static_cast<double>(message_unmatched));
    double* theta = found.theta.data() + row * columns;
    const float* blocked = blocked_.data() + row * stride;
    for (std::int64_t k = 0; k < columns; ++k) {
      const double message = static_cast<double>(messages[k]);
      theta[k] -= message;
      const double size = blocked[k] == 0.0f ? std::fabs(message) : 0.0;
      largest = size > largest ? size : largest;
    }
    found.unmatched[row] -= static_cast<double>(message_unmatched);
    magnitude[row] += largest;
    return largest;
  };
  for (std::size_t p = 0; p < costs_.pairs.size(); ++p) {
    const double first = take_messages(costs_.pairs[p].first, message_first(p), message_first_unmatched_[p]);
    const double second = take_messages(costs_.pairs[p].second, message_second(p), message_second_unmatched_[p]);
    const double lowest = pair_minimum(static_cast<std::int64_t>(p));
    bound += lowest - costs_.rounding_error(static_cast<std::int64_t>(p));
    total += std::fabs(lowest);
    error += 2.0 * (std::fabs(lowest) + 2.0 * (first + second)) + total;
  }

  // Any column duals v give a bound; those of the last assignment block are (nearly) the best ones. Columns that may
  // stay free need v <= 0.
  const bool column_may_stay_free = !costs_.complete || rows < columns;
  std::vector<double> column_duals(columns);
  for (std::int64_t k = 0; k < columns; ++k) {
    const double dual = static_cast<double>(potentials_[k]);
    column_duals[k] = column_may_stay_free ? std::min(dual, 0.0) : dual;
    bound += column_duals[k];
    total += std::fabs(dual);
    error += total;
  }
  for (std::int64_t i = 0; i < rows; ++i) {
    double lowest = unmatched_blocked_[i] ? kInfinity : found.unmatched[i];
    for (std::int64_t k = 0; k < columns; ++k) {
      double& theta = found.theta[i * columns + k];
      theta -= column_duals[k];
      if (blocked_[i * stride + k] == 0.0f) lowest = std::min(lowest, theta);
    }
    found.row_minimum[i] = lowest;
    bound += lowest;
    total += std::fabs(lowest);
    error += static_cast<double>(costs_.degree[i] + 2) * (magnitude[i] + std::fabs(lowest)) + total;
  }
  found.bound = bound - kEpsilon * error;
}

double DualAscent::certified_bound() const { return certificate().bound; }

std::int64_t DualAscent::eliminate(double threshold) {
  const Certificate& found = certificate();
  const std::int64_t columns = costs_.columns;
  // A label's own bound repeats the operations of the certificate with one more difference: the margin covers it.
  const double allowance = threshold - found.bound + kEpsilon * 8.0 * (std::fabs(threshold) + std::fabs(found.bound));
  std::int64_t removed = 0;
  for (std::int64_t i = 0; i < costs_.rows; ++i) {
    for (std::int64_t k = 0; k < columns; ++k) {
      if (exists(i, k) && found.theta[i * columns + k] - found.row_minimum[i] > allowance) {
        remove(i, k);
        ++removed;
      }
    }
    // Transposed blocks price a match against staying unmatched: that label stays.
    if (!costs_.complete && may_be_unmatched(i) && found.unmatched[i] - found.row_minimum[i] > allowance) {
      remove_unmatched(i);
      ++removed;
    }
  }
  if (removed > 0) is_certified_ = false;
  return removed;
}

std::int64_t DualAscent::label_count() const {
  return static_cast<std::int64_t>(std::count(blocked_.begin(), blocked_.end(), 0.0f));
}

void DualAscent::remove(std::int64_t row, std::int64_t column) {
  const std::int64_t stride = costs_.stride;
  blocked_[row * stride + column] = std::numeric_limits<float>::infinity();
  theta_[row * stride + column] = 0.0f;
  for (std::int64_t entry = costs_.row_begin(row); entry < costs_.row_begin(row + 1); ++entry) {
    const std::int64_t pair = costs_.incident_pair(entry);
    AlignedVector<float>& messages = costs_.pairs[pair].first == row ? message_first_ : message_second_;
    messages[pair * stride + column] = kBarrier;
    pair_minimum_[pair] = kUnknown;
  }
}

void DualAscent::remove_unmatched(std::int64_t row) {
  unmatched_blocked_[row] = 1;
  unmatched_[row] = 0.0f;
  for (std::int64_t entry = costs_.row_begin(row); entry < costs_.row_begin(row + 1); ++entry) {
    const std::int64_t pair = costs_.incident_pair(entry);
    (costs_.pairs[pair].first == row ? message_first_unmatched_ : message_second_unmatched_)[pair] = kBarrier;
    pair_minimum_[pair] = kUnknown;
  }
}

}  // namespace graphmatch
