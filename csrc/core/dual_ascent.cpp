#include "core/dual_ascent.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace graphmatch {
namespace {

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();

// One endpoint of a pairwise factor.
struct Side {
  float weight;        // share of theta that this pair takes
  const float* theta;  // stride
  float unmatched;     // theta of the unmatched label
  float* message;      // stride
  float* message_unmatched;
  float* theta_next;  // stride, receives the min-marginals
  float* unmatched_next;
};

GRAPHMATCH_INLINE const Lanes& lanes(const float* pointer) { return *reinterpret_cast<const Lanes*>(pointer); }
GRAPHMATCH_INLINE Lanes& lanes(float* pointer) { return *reinterpret_cast<Lanes*>(pointer); }

// A label without a finite partner keeps its message: its minimum is a barrier, not a cost.
GRAPHMATCH_INLINE float finite_or_zero(float value) { return value < kBarrierTest ? value : 0.0f; }

GRAPHMATCH_INLINE void push(float value, float& message, float& theta) {
  message -= value;
  theta += value;
}

GRAPHMATCH_INLINE void spread(const Side& side, std::int64_t stride) {
  for (std::int64_t l = 0; l < stride; l += kLanes) lanes(side.message + l) += lanes(side.theta + l) * side.weight;
  *side.message_unmatched += side.unmatched * side.weight;
}

GRAPHMATCH_INLINE float smallest_message(const Side& side, std::int64_t stride) {
  Lanes best = lanes(side.message);
  for (std::int64_t l = kLanes; l < stride; l += kLanes) take_minimum(best, lanes(side.message + l));
  return std::min(horizontal_minimum(best), *side.message_unmatched);
}

// min over the second node's labels of C[k, l] + b[l]; the unmatched label costs nothing in the table.
GRAPHMATCH_INLINE float row_minimum(const float* row, const Side& second, std::int64_t stride) {
  Lanes best = lanes(row) + lanes(second.message);
  for (std::int64_t l = kLanes; l < stride; l += kLanes) take_minimum(best, lanes(row + l) + lanes(second.message + l));
  return std::min(horizontal_minimum(best), *second.message_unmatched);
}

// Sends half of the first node's min-marginals, all of the second's, then the rest of the first's. All min-marginals of
// the factor are zero afterwards.
GRAPHMATCH_MULTIVERSION void update_pair(const float* table, std::int64_t columns, std::int64_t stride,
                                         const Side& first, const Side& second, float* column_minima) {
  spread(first, stride);
  spread(second, stride);

  const float half_unmatched = 0.5f * finite_or_zero(*first.message_unmatched + smallest_message(second, stride));
  push(half_unmatched, *first.message_unmatched, *first.unmatched_next);
  for (std::int64_t l = 0; l < stride; l += kLanes) lanes(column_minima + l) = Lanes{} + *first.message_unmatched;
  for (std::int64_t k = 0; k < columns; ++k) {
    const float* row = table + k * stride;
    const float half = 0.5f * finite_or_zero(first.message[k] + row_minimum(row, second, stride));
    push(half, first.message[k], first.theta_next[k]);
    const float message = first.message[k];
    for (std::int64_t l = 0; l < stride; l += kLanes) take_minimum(lanes(column_minima + l), lanes(row + l) + message);
  }

  const float all_unmatched = finite_or_zero(*second.message_unmatched + smallest_message(first, stride));
  push(all_unmatched, *second.message_unmatched, *second.unmatched_next);
  for (std::int64_t l = 0; l < stride; l += kLanes) {
    const Lanes marginal = lanes(second.message + l) + lanes(column_minima + l);
    const Lanes all = marginal < kBarrierTest ? marginal : Lanes{};
    lanes(second.message + l) -= all;
    lanes(second.theta_next + l) += all;
  }

  const float rest_unmatched = finite_or_zero(*first.message_unmatched + smallest_message(second, stride));
  push(rest_unmatched, *first.message_unmatched, *first.unmatched_next);
  for (std::int64_t k = 0; k < columns; ++k) {
    const float rest = finite_or_zero(first.message[k] + row_minimum(table + k * stride, second, stride));
    push(rest, first.message[k], first.theta_next[k]);
  }
}

}  // namespace

DualAscent::DualAscent(const PairTables& tables, bool complete)
    : tables_(tables), complete_(complete), approximate_bound_(-std::numeric_limits<double>::infinity()) {
  const std::int64_t rows = tables.rows;
  const std::int64_t stride = tables.stride;
  const std::size_t pair_count = tables.pairs.size();
  const bool has_unmatched_label = !complete || rows > tables.columns;

  theta_.assign(rows * stride, 0.0f);
  theta_next_.assign(rows * stride, 0.0f);
  blocked_.assign(rows * stride, 0.0f);
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t k = 0; k < stride; ++k) {
      if (k < tables.columns && tables.allowed(i, k)) {
        theta_[i * stride + k] = tables.unary(i)[k];
      } else {
        blocked_[i * stride + k] = std::numeric_limits<float>::infinity();
      }
    }
  }
  unmatched_.assign(rows, static_cast<float>(tables.unmatched_cost));
  unmatched_next_.assign(rows, 0.0f);
  potentials_.assign(stride, 0.0f);
  column_minima_.assign(stride, 0.0f);
  lap_costs_.assign(std::max(rows * stride, tables.columns * padded(rows)), 0.0f);
  rounded_.assign(rows, -1);

  message_first_.assign(pair_count * stride, 0.0f);
  message_second_.assign(pair_count * stride, 0.0f);
  for (std::size_t p = 0; p < pair_count; ++p) {
    const float* blocked_first = blocked_.data() + tables.pairs[p].first * stride;
    const float* blocked_second = blocked_.data() + tables.pairs[p].second * stride;
    for (std::int64_t k = 0; k < stride; ++k) {
      if (blocked_first[k] > 0) message_first_[p * stride + k] = kBarrier;
      if (blocked_second[k] > 0) message_second_[p * stride + k] = kBarrier;
    }
  }
  message_first_unmatched_.assign(pair_count, has_unmatched_label ? 0.0f : kBarrier);
  message_second_unmatched_ = message_first_unmatched_;
}

bool DualAscent::iterate() {
  pass_messages();
  return solve_assignment();
}

void DualAscent::pass_messages() {
  const std::int64_t stride = tables_.stride;
  for (std::int64_t i = 0; i < tables_.rows; ++i) {
    // A row without pairs keeps its theta; all others give everything away first.
    const bool isolated = tables_.degree[i] == 0;
    float* next = theta_next_.data() + i * stride;
    if (isolated) {
      std::copy_n(theta_.data() + i * stride, stride, next);
    } else {
      std::fill_n(next, stride, 0.0f);
    }
    unmatched_next_[i] = isolated ? unmatched_[i] : 0.0f;
  }
  auto side = [&](std::int64_t row, std::size_t pair, AlignedVector<float>& messages, std::vector<float>& unmatched) {
    return Side{1.0f / static_cast<float>(tables_.degree[row]),
                theta_.data() + row * stride,
                unmatched_[row],
                messages.data() + pair * stride,
                unmatched.data() + pair,
                theta_next_.data() + row * stride,
                unmatched_next_.data() + row};
  };
  for (std::size_t p = 0; p < tables_.pairs.size(); ++p) {
    update_pair(tables_.table(p), tables_.columns, stride,
                side(tables_.pairs[p].first, p, message_first_, message_first_unmatched_),
                side(tables_.pairs[p].second, p, message_second_, message_second_unmatched_), column_minima_.data());
  }
  theta_.swap(theta_next_);
  unmatched_.swap(unmatched_next_);
}

bool DualAscent::solve_assignment() {
  const std::int64_t rows = tables_.rows;
  const std::int64_t columns = tables_.columns;
  const std::int64_t stride = tables_.stride;
  const std::int64_t transposed_stride = padded(rows);
  float* costs = lap_costs_.data();
  bool feasible;
  if (transposed()) {
    // Every column takes a row, the rest stays unmatched: price a match by what it adds to staying unmatched.
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t k = 0; k < columns; ++k) {
        const std::int64_t cell = i * stride + k;
        costs[k * transposed_stride + i] = theta_[cell] + potentials_[k] + blocked_[cell] - unmatched_[i];
      }
    }
    feasible = lap_.solve(columns, rows, costs, transposed_stride);
  } else {
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t k = 0; k < stride; ++k) {
        const std::int64_t cell = i * stride + k;
        costs[cell] = theta_[cell] + potentials_[k] + blocked_[cell];
      }
    }
    feasible = lap_.solve(rows, columns, costs, stride, complete_ ? nullptr : unmatched_.data());
  }
  if (!feasible) return false;

  const std::vector<float>& column_duals = transposed() ? lap_.u : lap_.v;
  const std::vector<float>& row_duals = transposed() ? lap_.v : lap_.u;
  rounded_ = transposed() ? lap_.column_to_row : lap_.row_to_column;
  approximate_bound_ = 0.0;
  for (const float dual : column_duals) approximate_bound_ += static_cast<double>(dual);
  for (const float dual : row_duals) approximate_bound_ += static_cast<double>(dual);
  for (std::int64_t i = 0; i < rows; ++i) {
    if (transposed()) approximate_bound_ += static_cast<double>(unmatched_[i]);
    for (std::int64_t k = 0; k < columns; ++k) {
      const std::int64_t cell = i * stride + k;
      if (blocked_[cell] == 0.0f) theta_[cell] += potentials_[k] - column_duals[k];
    }
  }
  std::copy(column_duals.begin(), column_duals.end(), potentials_.begin());
  return true;
}

GRAPHMATCH_MULTIVERSION double DualAscent::pair_minimum(std::int64_t pair) const {
  const std::int64_t stride = tables_.stride;
  const float* a = message_first_.data() + pair * stride;
  const float* b = message_second_.data() + pair * stride;
  const double a_unmatched = static_cast<double>(message_first_unmatched_[pair]);
  const double b_unmatched = static_cast<double>(message_second_unmatched_[pair]);
  double lowest = a_unmatched + b_unmatched;
  for (std::int64_t k = 0; k < tables_.columns; ++k) {
    const float* row = tables_.table(pair) + k * stride;
    double row_lowest[kLanes];
    for (std::int64_t lane = 0; lane < kLanes; ++lane) row_lowest[lane] = b_unmatched;
    for (std::int64_t l = 0; l < stride; l += kLanes) {
      for (std::int64_t lane = 0; lane < kLanes; ++lane) {
        const double value = static_cast<double>(row[l + lane]) + static_cast<double>(b[l + lane]);
        row_lowest[lane] = value < row_lowest[lane] ? value : row_lowest[lane];
      }
    }
    const double message = static_cast<double>(a[k]);
    for (std::int64_t lane = 0; lane < kLanes; ++lane) lowest = std::min(lowest, row_lowest[lane] + message);
  }
  for (std::int64_t l = 0; l < tables_.columns; ++l) lowest = std::min(lowest, a_unmatched + static_cast<double>(b[l]));
  return lowest;
}

double DualAscent::certified_bound() const {
  const std::int64_t rows = tables_.rows;
  const std::int64_t columns = tables_.columns;
  const std::int64_t stride = tables_.stride;
  std::vector<double> theta(rows * columns);
  std::vector<double> unmatched(rows, tables_.unmatched_cost);
  std::vector<double> magnitude(rows, std::fabs(tables_.unmatched_cost));  // bounds the partial sums of a row's theta
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t k = 0; k < columns; ++k) {
      const double cost = static_cast<double>(tables_.unary(i)[k]);
      theta[i * columns + k] = cost;
      if (blocked_[i * stride + k] == 0.0f) magnitude[i] = std::max(magnitude[i], std::fabs(cost));
    }
  }
  double bound = -static_cast<double>(std::min(rows, columns)) * tables_.unary_rounding_error();
  double error = 0.0;  // in units of the machine precision
  double total = std::fabs(bound);

  auto take_messages = [&](std::int64_t row, const float* messages, float message_unmatched) {
    double largest = std::fabs(static_cast<double>(finite_or_zero(message_unmatched)));
    for (std::int64_t k = 0; k < columns; ++k) {
      const double message = static_cast<double>(messages[k]);
      theta[row * columns + k] -= message;
      if (blocked_[row * stride + k] == 0.0f) largest = std::max(largest, std::fabs(message));
    }
    unmatched[row] -= static_cast<double>(message_unmatched);
    magnitude[row] += largest;
    return largest;
  };
  for (std::size_t p = 0; p < tables_.pairs.size(); ++p) {
    const double first =
        take_messages(tables_.pairs[p].first, message_first_.data() + p * stride, message_first_unmatched_[p]);
    const double second =
        take_messages(tables_.pairs[p].second, message_second_.data() + p * stride, message_second_unmatched_[p]);
    const double lowest = pair_minimum(static_cast<std::int64_t>(p));
    bound += lowest - tables_.rounding_error(static_cast<std::int64_t>(p));
    total += std::fabs(lowest);
    error += 2.0 * (std::fabs(lowest) + 2.0 * (first + second)) + total;
  }

  // Any column duals v give a bound; those of the last assignment block are (nearly) the best ones. Columns that may
  // stay free need v <= 0.
  const bool column_may_stay_free = !complete_ || rows < columns;
  const bool row_may_stay_free = !complete_ || rows > columns;
  std::vector<double> column_duals(columns);
  for (std::int64_t k = 0; k < columns; ++k) {
    const double dual = static_cast<double>(potentials_[k]);
    column_duals[k] = column_may_stay_free ? std::min(dual, 0.0) : dual;
    bound += column_duals[k];
    total += std::fabs(dual);
    error += total;
  }
  for (std::int64_t i = 0; i < rows; ++i) {
    double lowest = row_may_stay_free ? unmatched[i] : std::numeric_limits<double>::infinity();
    for (std::int64_t k = 0; k < columns; ++k) {
      if (blocked_[i * stride + k] == 0.0f) lowest = std::min(lowest, theta[i * columns + k] - column_duals[k]);
    }
    bound += lowest;
    total += std::fabs(lowest);
    error += static_cast<double>(tables_.degree[i] + 2) * (magnitude[i] + std::fabs(lowest)) + total;
  }
  return bound - kEpsilon * error;
}

}  // namespace graphmatch
