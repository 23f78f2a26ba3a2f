#include "core/dual_ascent.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace graphmatch {
namespace {

constexpr float kLargestDual = 1e3f;  // taken from an earlier solve, in stored units
constexpr float kForbidden = std::numeric_limits<float>::infinity();

// Full matrices as long as they are small, or so full that skipping zeros gains nothing.
bool prefers_dense(const PairCosts& costs) {
  constexpr std::int64_t kSmall = 96;
  constexpr double kFull = 0.25;
  constexpr double kLargestTables = 256e6;  // bytes
  const double bytes =
      4.0 * static_cast<double>(costs.pairs.size()) * static_cast<double>(costs.columns * costs.stride);
  return bytes <= kLargestTables && (costs.columns <= kSmall || costs.density() > kFull);
}

}  // namespace

DualAscent::DualAscent(const PairCosts& costs) : costs_(costs), dense_(prefers_dense(costs)), sparse_update_(costs) {
  if (dense_) tables_.build(costs);
  restart();
}

void DualAscent::restart() {
  const PairCosts& costs = costs_;
  const std::int64_t rows = costs.rows;
  const std::int64_t stride = costs.stride;
  const std::size_t pair_count = costs.pairs.size();
  approximate_bound_ = -std::numeric_limits<double>::infinity();
  theta_.assign(rows * stride, 0.0f);
  theta_next_.assign(rows * stride, 0.0f);
  blocked_.assign(rows * stride, 0.0f);
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t k = 0; k < stride; ++k) {
      if (k < costs.columns && costs.allowed(i, k)) {
        theta_[i * stride + k] = costs.unary(i)[k];
      } else {
        blocked_[i * stride + k] = kForbidden;
      }
    }
  }
  unmatched_.assign(rows, static_cast<float>(costs.unmatched_cost));
  unmatched_next_.assign(rows, 0.0f);
  unmatched_blocked_.assign(rows, costs.has_unmatched_label() ? 0 : 1);
  unmatched_prices_.assign(rows, 0.0f);
  potentials_.assign(stride, 0.0f);
  column_minima_.assign(stride, 0.0f);
  lap_costs_.assign(std::max(rows * stride, costs.columns * padded(rows)), 0.0f);
  rounded_.assign(rows, -1);

  message_first_.resize(pair_count * stride);
  message_second_.resize(pair_count * stride);
  for (std::size_t p = 0; p < pair_count; ++p) {
    const float* blocked_first = blocked_.data() + costs.pairs[p].first * stride;
    const float* blocked_second = blocked_.data() + costs.pairs[p].second * stride;
    for (std::int64_t k = 0; k < stride; ++k) {
      message_first_[p * stride + k] = blocked_first[k] > 0 ? kBarrier : 0.0f;
      message_second_[p * stride + k] = blocked_second[k] > 0 ? kBarrier : 0.0f;
    }
  }
  message_first_unmatched_.assign(pair_count, costs.has_unmatched_label() ? 0.0f : kBarrier);
  message_second_unmatched_ = message_first_unmatched_;
  forget_bounds();
}

void DualAscent::forget_bounds() {
  is_certified_ = false;
  pair_minimum_.assign(costs_.pairs.size(), std::numeric_limits<double>::quiet_NaN());
}

bool DualAscent::load(const DualState& state) {
  if (state.scale == nullptr || !(*state.scale > 0.0) || !std::isfinite(*state.scale)) return false;
  if (static_cast<std::int64_t>(costs_.pairs.size()) > state.pair_capacity) return false;
  const float factor = static_cast<float>(*state.scale / costs_.scale);
  const std::int64_t columns = costs_.columns;
  const std::int64_t stride = costs_.stride;
  // The bound is feasible for any numbers, but duals far larger than the costs only cost digits.
  auto take = [factor](float stored, float& message) {
    const float value = stored * factor;
    if (message < kBarrierTest) message = std::fabs(value) < kLargestDual ? value : 0.0f;
  };
  for (std::size_t p = 0; p < costs_.pairs.size(); ++p) {
    const float* first = state.messages + 2 * static_cast<std::int64_t>(p) * (state.columns + 1);
    const float* second = first + state.columns + 1;
    for (std::int64_t k = 0; k < columns; ++k) {
      take(first[k], message_first_[p * stride + k]);
      take(second[k], message_second_[p * stride + k]);
    }
    take(first[state.columns], message_first_unmatched_[p]);
    take(second[state.columns], message_second_unmatched_[p]);
  }
  const bool column_may_stay_free = !costs_.complete || costs_.rows < columns;
  for (std::int64_t k = 0; k < columns; ++k) {
    take(state.potentials[k], potentials_[k]);
    if (column_may_stay_free) potentials_[k] = std::min(potentials_[k], 0.0f);
  }
  recompute_theta();
  forget_bounds();
  return true;
}

void DualAscent::save(const DualState& state) const {
  if (state.scale == nullptr) return;
  *state.scale = 0.0;
  if (static_cast<std::int64_t>(costs_.pairs.size()) > state.pair_capacity) return;
  const std::int64_t columns = costs_.columns;
  const std::int64_t stride = costs_.stride;
  for (std::size_t p = 0; p < costs_.pairs.size(); ++p) {
    float* first = state.messages + 2 * static_cast<std::int64_t>(p) * (state.columns + 1);
    float* second = first + state.columns + 1;
    for (std::int64_t k = 0; k < columns; ++k) {
      first[k] = finite_or_zero(message_first_[p * stride + k]);
      second[k] = finite_or_zero(message_second_[p * stride + k]);
    }
    first[state.columns] = finite_or_zero(message_first_unmatched_[p]);
    second[state.columns] = finite_or_zero(message_second_unmatched_[p]);
  }
  std::copy_n(potentials_.data(), columns, state.potentials);
  *state.scale = costs_.scale;
}

// theta = unary - messages - potentials, at the labels that exist.
void DualAscent::recompute_theta() {
  const std::int64_t stride = costs_.stride;
  for (std::int64_t i = 0; i < costs_.rows; ++i) {
    for (std::int64_t k = 0; k < costs_.columns; ++k) {
      const std::int64_t cell = i * stride + k;
      theta_[cell] = blocked_[cell] == 0.0f ? costs_.unary(i)[k] - potentials_[k] : 0.0f;
    }
    unmatched_[i] = unmatched_blocked_[i] ? 0.0f : static_cast<float>(costs_.unmatched_cost);
  }
  auto subtract = [&](std::int64_t row, const float* messages, float unmatched) {
    for (std::int64_t k = 0; k < costs_.columns; ++k) {
      if (blocked_[row * stride + k] == 0.0f) theta_[row * stride + k] -= messages[k];
    }
    if (!unmatched_blocked_[row]) unmatched_[row] -= unmatched;
  };
  for (std::size_t p = 0; p < costs_.pairs.size(); ++p) {
    subtract(costs_.pairs[p].first, message_first(p), message_first_unmatched_[p]);
    subtract(costs_.pairs[p].second, message_second(p), message_second_unmatched_[p]);
  }
}

bool DualAscent::iterate() {
  forget_bounds();
  pass_messages();
  return solve_assignment();
}

void DualAscent::pass_messages() {
  const std::int64_t stride = costs_.stride;
  for (std::int64_t i = 0; i < costs_.rows; ++i) {
    // A row without pairs keeps its theta; all others give everything away first.
    const bool isolated = costs_.degree[i] == 0;
    float* next = theta_next_.data() + i * stride;
    if (isolated) {
      std::copy_n(theta_.data() + i * stride, stride, next);
    } else {
      std::fill_n(next, stride, 0.0f);
    }
    unmatched_next_[i] = isolated ? unmatched_[i] : 0.0f;
  }
  auto side = [&](std::int64_t row, std::size_t pair, AlignedVector<float>& messages, std::vector<float>& unmatched) {
    return PairSide{1.0f / static_cast<float>(costs_.degree[row]),
                    theta_.data() + row * stride,
                    unmatched_[row],
                    messages.data() + pair * stride,
                    unmatched.data() + pair,
                    theta_next_.data() + row * stride,
                    unmatched_next_.data() + row};
  };
  for (std::size_t p = 0; p < costs_.pairs.size(); ++p) {
    const PairSide first = side(costs_.pairs[p].first, p, message_first_, message_first_unmatched_);
    const PairSide second = side(costs_.pairs[p].second, p, message_second_, message_second_unmatched_);
    if (dense_) {
      update_pair(tables_.table(static_cast<std::int64_t>(p)), costs_.columns, stride, first, second,
                  column_minima_.data());
    } else {
      sparse_update_(static_cast<std::int64_t>(p), first, second);
    }
  }
  theta_.swap(theta_next_);
  unmatched_.swap(unmatched_next_);
}

bool DualAscent::solve_assignment() {
  const std::int64_t rows = costs_.rows;
  const std::int64_t columns = costs_.columns;
  const std::int64_t stride = costs_.stride;
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
      unmatched_prices_[i] = unmatched_blocked_[i] ? kForbidden : unmatched_[i];
    }
    lap_.v.assign(potentials_.begin(), potentials_.begin() + columns);
    feasible = lap_.resolve(rows, columns, costs, stride, costs_.complete ? nullptr : unmatched_prices_.data());
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
      theta_[cell] += blocked_[cell] == 0.0f ? potentials_[k] - column_duals[k] : 0.0f;
    }
  }
  std::copy(column_duals.begin(), column_duals.end(), potentials_.begin());
  return true;
}

}  // namespace graphmatch
