#include "core/move_table.hpp"

#include <algorithm>

namespace graphmatch {
namespace {

// What the scan of all moves reads, as in MoveTable.
struct Scan {
  std::int64_t rows, row_stride, stride;
  const float *swap, *take, *extra, *leave, *current;
  const float *swap_penalty, *take_penalty, *leave_penalty;
  bool some_takes;
};

template <class V>
GRAPHMATCH_INLINE void offer(const V& price, const float* penalty, V& allowed, V& any) {
  take_minimum(any, price);
  take_minimum(allowed, price + lanes<V>(penalty));
}

// The cheapest allowed move of each row, and the cheapest of all, allowed or not. Rows are reduced four at a time:
// short ones are not worth a reduction each.
template <class V>
GRAPHMATCH_INLINE float minima_of_moves(const Scan& scan, float* row_minimum) {
  V any = V{} + kBarrier;
  for (std::int64_t group = 0; group < scan.rows; group += 4) {
    V low[4];
    for (std::int64_t member = 0; member < 4; ++member) {
      low[member] = V{} + kBarrier;
      const std::int64_t i = group + member;
      if (i >= scan.rows) continue;
      V any_of_row = low[member];
      const float* swap = scan.swap + i * scan.row_stride;
      const float* swap_penalty = scan.swap_penalty + i * scan.row_stride;
      for (std::int64_t j = 0; j < padded(i); j += kWidth<V>) {
        offer(lanes<V>(swap + j) - lanes<V>(scan.current + j), swap_penalty + j, low[member], any_of_row);
      }
      if (scan.some_takes) {
        const float* take = scan.take + i * scan.stride;
        const float* take_penalty = scan.take_penalty + i * scan.stride;
        for (std::int64_t k = 0; k < scan.stride; k += kWidth<V>) {
          offer(lanes<V>(take + k) + lanes<V>(scan.extra + k), take_penalty + k, low[member], any_of_row);
        }
      }
      take_minimum(any, any_of_row - scan.current[i]);
    }
    four_minima(low[0], low[1], low[2], low[3], quad(row_minimum + group));
  }
  for (std::int64_t i = 0; i < scan.row_stride; i += kWidth<V>) {
    V& best = lanes<V>(row_minimum + i);
    take_minimum(best, lanes<V>(scan.leave + i) + lanes<V>(scan.leave_penalty + i));
    best -= lanes<V>(scan.current + i);
    take_minimum(any, lanes<V>(scan.leave + i) - lanes<V>(scan.current + i));
  }
  return horizontal_minimum(any);
}

#define GRAPHMATCH_MOVE_VERSION(kTarget, kBytes)                       \
  kTarget float cheapest_moves(const Scan& scan, float* row_minimum) { \
    return minima_of_moves<Vector<float, kBytes>>(scan, row_minimum);  \
  }

GRAPHMATCH_FOR_EACH_WIDTH(GRAPHMATCH_MOVE_VERSION)

}  // namespace

MoveTable::MoveTable(const PairCosts& costs)
    : costs_(costs),
      partial_(!costs.complete),
      unmatched_gain_(static_cast<float>(costs.unmatched_cost)),
      row_stride_(padded(costs.rows)) {
  const std::size_t rows = static_cast<std::size_t>(costs.rows);
  assignment_.assign(rows, -1);
  owner_.assign(costs.columns, -1);
  gain_.assign(rows * costs.stride, 0.0f);
  current_.assign(row_stride_, 0.0f);
  swap_.assign(rows * row_stride_, kBarrier);
  take_.assign(rows * costs.stride, kBarrier);
  extra_.assign(costs.stride, kBarrier);
  leave_.assign(row_stride_, kBarrier);
  swap_penalty_.assign(rows * row_stride_, 0.0f);
  take_penalty_.assign(rows * costs.stride, 0.0f);
  leave_penalty_.assign(row_stride_, 0.0f);
  take_expiry_.assign(rows * costs.stride, 0);
  leave_expiry_.assign(rows, 0);
  row_minimum_.assign(row_stride_, kBarrier);
}

void MoveTable::load(const std::vector<std::int64_t>& start) {
  for (const Ban& ban : bans_) {
    penalty(ban.row, ban.column) = 0.0f;
    expiry(ban.row, ban.column) = 0;
  }
  bans_.clear();
  std::fill(owner_.begin(), owner_.end(), -1);
  std::fill_n(extra_.begin(), costs_.columns, 0.0f);
  free_columns_ = costs_.columns;
  for (std::int64_t i = 0; i < costs_.rows; ++i) {
    std::copy_n(costs_.unary(i), costs_.stride, gain_.data() + i * costs_.stride);
  }
  // The matrices are filled afterwards, all at once.
  assignment_ = start;
  for (std::int64_t i = 0; i < costs_.rows; ++i) {
    if (start[i] >= 0) add_to_gains(i, start[i]);
  }
  std::copy(gain_.begin(), gain_.end(), take_.begin());
  for (std::int64_t i = 0; i < costs_.rows; ++i) {
    leave_[i] = partial_ && start[i] >= 0 ? unmatched_gain_ : kBarrier;
    if (start[i] < 0) continue;
    owner_[start[i]] = i;
    --free_columns_;
    take_[i * costs_.stride + start[i]] = kBarrier;
  }
  for (std::int64_t i = 0; i < costs_.rows; ++i) {
    set_current(i, gain(i, start[i]));
    price_swaps(i, i);
  }
  for (std::size_t p = 0; p < costs_.pairs.size(); ++p) price_pair(static_cast<std::int64_t>(p));
}

// Keeps the price of evicting the row beside it.
void MoveTable::set_current(std::int64_t row, float gain) {
  current_[row] = gain;
  const std::int64_t column = assignment_[row];
  if (column >= 0) extra_[column] = partial_ ? unmatched_gain_ - gain : kBarrier;
}

// Adds what row -> column costs each neighbour of the row to the gains, and to nothing else.
void MoveTable::add_to_gains(std::int64_t row, std::int64_t column) {
  for (std::int64_t at = costs_.row_begin(row); at < costs_.row_begin(row + 1); ++at) {
    const std::int64_t pair = costs_.incident_pair(at);
    const CostPattern& pattern = costs_.pattern(pair);
    const float* values = costs_.values(pair);
    if (costs_.pairs[pair].first == row) {
      float* gain = gain_.data() + costs_.pairs[pair].second * costs_.stride;
      const std::int32_t end = pattern.row_begin[column + 1];
      for (std::int32_t e = pattern.row_begin[column]; e < end; ++e) gain[pattern.column[e]] += values[e];
    } else {
      float* gain = gain_.data() + costs_.pairs[pair].first * costs_.stride;
      const std::int32_t end = pattern.column_begin[column + 1];
      for (std::int32_t e = pattern.column_begin[column]; e < end; ++e)
        gain[pattern.row[e]] += values[pattern.entry[e]];
    }
  }
}

// Adds or removes what row -> column costs each neighbour of the row.
void MoveTable::add_neighbour_costs(std::int64_t row, std::int64_t column, float sign) {
  for (std::int64_t at = costs_.row_begin(row); at < costs_.row_begin(row + 1); ++at) {
    const std::int64_t pair = costs_.incident_pair(at);
    const CostPattern& pattern = costs_.pattern(pair);
    const float* values = costs_.values(pair);
    const bool is_first = costs_.pairs[pair].first == row;
    const std::int64_t neighbour = is_first ? costs_.pairs[pair].second : costs_.pairs[pair].first;
    float* gain = gain_.data() + neighbour * costs_.stride;
    float* take = take_.data() + neighbour * costs_.stride;
    const std::int64_t* owner = owner_.data();
    float* swap = swap_.data();
    const std::int64_t row_stride = row_stride_;
    auto add = [&](std::int32_t k, float cost) {
      gain[k] += cost;
      take[k] += cost;
      const std::int64_t other = owner[k];
      if (other < 0) return;
      if (other == neighbour) {
        set_current(neighbour, current_[neighbour] + cost);
      } else {
        swap[std::max(neighbour, other) * row_stride + std::min(neighbour, other)] += cost;
      }
    };
    if (is_first) {
      const std::int32_t end = pattern.row_begin[column + 1];
      for (std::int32_t e = pattern.row_begin[column]; e < end; ++e) add(pattern.column[e], sign * values[e]);
    } else {
      const std::int32_t end = pattern.column_begin[column + 1];
      for (std::int32_t e = pattern.column_begin[column]; e < end; ++e) {
        add(pattern.row[e], sign * values[pattern.entry[e]]);
      }
    }
  }
}

void MoveTable::assign(std::int64_t row, std::int64_t column) {
  const std::int64_t old = assignment_[row];
  if (old >= 0) {
    add_neighbour_costs(row, old, -1.0f);
    forget_takes(row, old);
    if (owner_[old] == row) {
      owner_[old] = -1;
      extra_[old] = 0.0f;
      ++free_columns_;
    }
  }
  assignment_[row] = column;
  leave_[row] = partial_ && column >= 0 ? unmatched_gain_ : kBarrier;
  if (column >= 0) {
    add_neighbour_costs(row, column, 1.0f);
    if (owner_[column] < 0) --free_columns_;
    owner_[column] = row;
    take_[row * costs_.stride + column] = kBarrier;
  }
  set_current(row, gain(row, column));
}

// Once the row has left the column, nobody who takes it pays the row anything.
void MoveTable::forget_takes(std::int64_t row, std::int64_t column) {
  const std::int64_t own = row * costs_.stride + column;
  take_[own] = gain_[own];
  for (std::int64_t at = costs_.row_begin(row); at < costs_.row_begin(row + 1); ++at) {
    const RowPair& pair = costs_.pairs[costs_.incident_pair(at)];
    const std::int64_t cell = (pair.first == row ? pair.second : pair.first) * costs_.stride + column;
    take_[cell] = gain_[cell];
  }
}

void MoveTable::price_neighbours(std::int64_t row, std::int64_t except) {
  for (std::int64_t at = costs_.row_begin(row); at < costs_.row_begin(row + 1); ++at) {
    const std::int64_t pair = costs_.incident_pair(at);
    if (costs_.pairs[pair].first != except && costs_.pairs[pair].second != except) price_pair(pair);
  }
}

// The current gains of two neighbours both contain what they pay each other, once too often; after a swap they pay
// something else. The price of the swap must be that of two strangers before.
void MoveTable::price_pair(std::int64_t pair) {
  const std::int64_t a = costs_.pairs[pair].first;
  const std::int64_t b = costs_.pairs[pair].second;
  const std::int64_t k = assignment_[a];
  const std::int64_t l = assignment_[b];
  const bool matched = k >= 0 && l >= 0;
  const float paid = matched ? costs_.cost(pair, k, l) : 0.0f;
  if (matched) swap_[b * row_stride_ + a] += paid + costs_.cost(pair, l, k);
  if (l >= 0) take_[a * costs_.stride + l] = gain_[a * costs_.stride + l] + paid;
  if (k >= 0) take_[b * costs_.stride + k] = gain_[b * costs_.stride + k] + paid;
}

// Prices of the swaps of this row with the first `others` rows, as if they were no neighbours.
void MoveTable::price_swaps(std::int64_t row, std::int64_t others) {
  const std::int64_t k = assignment_[row];
  const float* own_gain = gain_.data() + row * costs_.stride;
  const float* own_penalty = take_penalty_.data() + row * costs_.stride;
  for (std::int64_t other = 0; other < others; ++other) {
    if (other == row) continue;
    const std::int64_t l = assignment_[other];
    const std::int64_t cell = other * costs_.stride + k;
    const float at_others = l >= 0 ? own_gain[l] : unmatched_gain_;
    const float at_own = k >= 0 ? gain_[cell] : unmatched_gain_;
    const float others_penalty = l >= 0 ? own_penalty[l] : leave_penalty_[row];
    const float penalty_of_other = k >= 0 ? take_penalty_[cell] : leave_penalty_[other];
    const std::int64_t at = other < row ? row * row_stride_ + other : other * row_stride_ + row;
    swap_[at] = k >= 0 || l >= 0 ? at_others + at_own : kBarrier;
    swap_penalty_[at] = std::min(others_penalty, penalty_of_other);
  }
}

std::int64_t& MoveTable::expiry(std::int64_t row, std::int64_t column) {
  return column < 0 ? leave_expiry_[row] : take_expiry_[row * costs_.stride + column];
}

float& MoveTable::penalty(std::int64_t row, std::int64_t column) {
  return column < 0 ? leave_penalty_[row] : take_penalty_[row * costs_.stride + column];
}

void MoveTable::forbid(std::int64_t row, std::int64_t column, std::int64_t step) {
  if (step <= 0) return;
  bans_.push_back({row, column, step});
  expiry(row, column) = step;
  penalty(row, column) = kBarrier;
}

void MoveTable::lift_bans(std::int64_t step) {
  for (std::size_t at = 0; at < bans_.size();) {
    const Ban ban = bans_[at];
    if (ban.expiry > step) {
      ++at;
      continue;
    }
    bans_[at] = bans_.back();
    bans_.pop_back();
    if (expiry(ban.row, ban.column) != ban.expiry) continue;  // forbidden anew
    penalty(ban.row, ban.column) = 0.0f;
    if (ban.column >= 0) {
      const std::int64_t owner = owner_[ban.column];
      if (owner < 0 || owner == ban.row) continue;
      swap_penalty_[std::max(ban.row, owner) * row_stride_ + std::min(ban.row, owner)] = 0.0f;
    } else {
      for (std::int64_t other = 0; other < costs_.rows; ++other) {
        if (other == ban.row || assignment_[other] >= 0) continue;
        swap_penalty_[std::max(ban.row, other) * row_stride_ + std::min(ban.row, other)] = 0.0f;
      }
    }
  }
}

Move MoveTable::best_move(std::int64_t step, float aspiration, float limit) {
  lift_bans(step);
  const Scan scan{costs_.rows,          row_stride_,          costs_.stride,         swap_.data(),
                  take_.data(),         extra_.data(),        leave_.data(),         current_.data(),
                  swap_penalty_.data(), take_penalty_.data(), leave_penalty_.data(), partial_ || free_columns_ > 0};
  const float any = cheapest_moves(scan, row_minimum_.data());
  // A new best matching may break the rules, and the cheapest move of all is then the one that leads there.
  if (any < aspiration && any < limit) {
    for (std::int64_t row = 0; row < costs_.rows; ++row) {
      const Move move = find_move(row, any, [](float price, float) { return price; });
      if (move.row >= 0) return move;
    }
  }
  const auto cheapest = std::min_element(row_minimum_.begin(), row_minimum_.begin() + costs_.rows);
  if (!(*cheapest < limit)) return Move{};
  return find_move(cheapest - row_minimum_.begin(), *cheapest,
                   [](float price, float penalty) { return price + penalty; });
}

// The first move of a row that costs `wanted`: prices exactly as the scan computes them.
template <class Price>
Move MoveTable::find_move(std::int64_t row, float wanted, const Price& price) const {
  const float base = current_[row];
  const float* swap = swap_.data() + row * row_stride_;
  const float* swap_penalty = swap_penalty_.data() + row * row_stride_;
  for (std::int64_t j = 0; j < row; ++j) {
    if (price(swap[j] - current_[j], swap_penalty[j]) - base == wanted) {
      return Move{swap[j] - current_[j] - base, row, assignment_[j], j, false};
    }
  }
  const float* take = take_.data() + row * costs_.stride;
  const float* take_penalty = take_penalty_.data() + row * costs_.stride;
  for (std::int64_t k = 0; k < costs_.columns && (partial_ || free_columns_ > 0); ++k) {
    if (price(take[k] + extra_[k], take_penalty[k]) - base == wanted) {
      return Move{take[k] + extra_[k] - base, row, k, owner_[k], owner_[k] >= 0};
    }
  }
  if (price(leave_[row], leave_penalty_[row]) - base == wanted) return Move{leave_[row] - base, row, -1, -1, false};
  return Move{};
}

void MoveTable::apply(const Move& move, std::int64_t expiry) {
  const std::int64_t row = move.row;
  const std::int64_t other = move.other;
  const std::int64_t left = assignment_[row];
  forbid(row, left, expiry);
  if (other >= 0) {
    const std::int64_t others_left = assignment_[other];
    forbid(other, others_left, expiry);
    assign(other, -1);
    assign(row, others_left);
    if (!move.evicts) assign(other, left);
    price_swaps(other, costs_.rows);
  } else {
    assign(row, move.column);
  }
  price_swaps(row, costs_.rows);
  price_neighbours(row, -1);
  if (other >= 0) price_neighbours(other, row);
}

}  // namespace graphmatch
