#include "core/move_table.hpp"

#include <algorithm>
#include <cmath>

namespace graphmatch {
namespace {

// What the scan of all moves reads; matrices as in MoveTable.
struct Scan {
  std::int64_t rows, row_stride, stride;
  const float *swap, *evict, *gain, *free, *current;
  const float *swap_expiry, *evict_expiry, *expiry, *unmatched_expiry;
  const std::int64_t* assignment;
  bool some_free, partial;
  float unmatched_gain;
  float step;
};

// A forbidden move costs a barrier for each step it remains so.
GRAPHMATCH_INLINE float forbidden_cost(float expiry, float step) { return std::max(expiry - step, 0.0f) * kBarrier; }

GRAPHMATCH_INLINE void offer(const Lanes& delta, const float* expiry, const Scan& scan, Lanes& allowed, Lanes& any) {
  Lanes left = lanes(expiry) - scan.step;
  const Lanes zero = {};
  left = left < zero ? zero : left;
  take_minimum(allowed, delta + left * kBarrier);
  take_minimum(any, delta);
}

// The cheapest allowed move of each row, and the cheapest of all, allowed or not. Rows are reduced four at a time:
// short ones are not worth a reduction each.
GRAPHMATCH_MULTIVERSION float cheapest_moves(const Scan& scan, float* row_minimum) {
  Lanes any = Lanes{} + kBarrier;
  float any_unmatch = kBarrier;
  for (std::int64_t group = 0; group < scan.rows; group += 4) {
    Lanes low[4];
    for (std::int64_t member = 0; member < 4; ++member) {
      low[member] = Lanes{} + kBarrier;
      const std::int64_t i = group + member;
      if (i >= scan.rows) continue;
      const float base = scan.current[i];
      const std::int64_t at = i * scan.row_stride;
      const std::int64_t cells = i * scan.stride;
      // Below the diagonal only; the rest of the last lanes are barriers.
      for (std::int64_t j = 0; j < i; j += kLanes) {
        offer(lanes(scan.swap + at + j) - (lanes(scan.current + j) + base), scan.swap_expiry + at + j, scan,
              low[member], any);
      }
      if (scan.some_free) {
        for (std::int64_t k = 0; k < scan.stride; k += kLanes) {
          offer(lanes(scan.gain + cells + k) + lanes(scan.free + k) - base, scan.expiry + cells + k, scan, low[member],
                any);
        }
      }
      if (!scan.partial) continue;
      for (std::int64_t j = 0; j < scan.row_stride; j += kLanes) {
        offer(lanes(scan.evict + at + j) - (lanes(scan.current + j) + base), scan.evict_expiry + at + j, scan,
              low[member], any);
      }
      if (scan.assignment[i] < 0) continue;
      const float delta = scan.unmatched_gain - base;
      any_unmatch = std::min(any_unmatch, delta);
      low[member][0] = std::min(low[member][0], delta + forbidden_cost(scan.unmatched_expiry[i], scan.step));
    }
    four_minima(low[0], low[1], low[2], low[3], quad(row_minimum + group));
  }
  return std::min(any_unmatch, horizontal_minimum(any));
}

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
  free_.assign(costs.stride, 0.0f);
  swap_.assign(rows * row_stride_, kBarrier);
  swap_expiry_.assign(rows * row_stride_, 0.0f);
  if (partial_) {
    evict_.assign(rows * row_stride_, kBarrier);
    evict_expiry_.assign(rows * row_stride_, 0.0f);
  }
  expiry_.assign(rows * costs.stride, 0.0f);
  unmatched_expiry_.assign(rows, 0.0f);
  row_minimum_.assign(row_stride_, kBarrier);
}

void MoveTable::load(const std::vector<std::int64_t>& start) {
  std::fill(assignment_.begin(), assignment_.end(), -1);
  std::fill(owner_.begin(), owner_.end(), -1);
  std::fill(expiry_.begin(), expiry_.end(), 0.0f);
  std::fill(unmatched_expiry_.begin(), unmatched_expiry_.end(), 0.0f);
  std::fill(free_.begin(), free_.end(), kBarrier);
  std::fill_n(free_.begin(), costs_.columns, 0.0f);
  free_columns_ = costs_.columns;
  for (std::int64_t i = 0; i < costs_.rows; ++i) {
    std::copy_n(costs_.unary(i), costs_.stride, gain_.data() + i * costs_.stride);
  }
  // Without owners nothing but the gains is touched; the matrices are filled afterwards, all at once.
  for (std::int64_t i = 0; i < costs_.rows; ++i) {
    assignment_[i] = start[i];
    if (start[i] >= 0) add_neighbour_costs(i, start[i], 1.0f);
  }
  for (std::int64_t i = 0; i < costs_.rows; ++i) {
    if (start[i] < 0) continue;
    owner_[start[i]] = i;
    free_[start[i]] = kBarrier;
    --free_columns_;
  }
  for (std::int64_t i = 0; i < costs_.rows; ++i) refresh(i, i);
  for (std::size_t p = 0; p < costs_.pairs.size(); ++p) correct_pair(static_cast<std::int64_t>(p));
}

void MoveTable::add_to_gain(std::int64_t row, std::int64_t column, float cost) {
  gain_[row * costs_.stride + column] += cost;
  const std::int64_t owner = owner_[column];
  if (owner < 0) return;
  if (owner == row) {
    current_[row] += cost;
    return;
  }
  swap_[std::max(row, owner) * row_stride_ + std::min(row, owner)] += cost;
  if (partial_) evict_[row * row_stride_ + owner] += cost;
}

// Adds or removes what row -> column costs each neighbour of the row.
void MoveTable::add_neighbour_costs(std::int64_t row, std::int64_t column, float sign) {
  for (std::int64_t at = costs_.row_begin(row); at < costs_.row_begin(row + 1); ++at) {
    const std::int64_t pair = costs_.incident_pair(at);
    const CostPattern& pattern = costs_.pattern(pair);
    const float* values = costs_.values(pair);
    if (costs_.pairs[pair].first == row) {
      const std::int64_t neighbour = costs_.pairs[pair].second;
      for (std::int32_t e = pattern.row_begin[column]; e < pattern.row_begin[column + 1]; ++e) {
        add_to_gain(neighbour, pattern.column[e], sign * values[e]);
      }
    } else {
      const std::int64_t neighbour = costs_.pairs[pair].first;
      for (std::int32_t e = pattern.column_begin[column]; e < pattern.column_begin[column + 1]; ++e) {
        add_to_gain(neighbour, pattern.row[e], sign * values[pattern.entry[e]]);
      }
    }
  }
}

void MoveTable::assign(std::int64_t row, std::int64_t column) {
  const std::int64_t old = assignment_[row];
  if (old >= 0) {
    add_neighbour_costs(row, old, -1.0f);
    if (owner_[old] == row) {
      owner_[old] = -1;
      free_[old] = 0.0f;
      ++free_columns_;
    }
  }
  assignment_[row] = column;
  if (column >= 0) {
    add_neighbour_costs(row, column, 1.0f);
    if (owner_[column] < 0) --free_columns_;
    owner_[column] = row;
    free_[column] = kBarrier;
  }
}

// Both gains of two neighbours contain what they pay each other, once too often; after a swap they pay something else.
void MoveTable::correct_pair(std::int64_t pair) {
  const std::int64_t a = costs_.pairs[pair].first;
  const std::int64_t b = costs_.pairs[pair].second;
  const std::int64_t k = assignment_[a];
  const std::int64_t l = assignment_[b];
  if (k < 0 || l < 0) return;
  const float paid = costs_.cost(pair, k, l);
  swap_[b * row_stride_ + a] += paid + costs_.cost(pair, l, k);
  if (!partial_) return;
  evict_[a * row_stride_ + b] += paid;
  evict_[b * row_stride_ + a] += paid;
}

// Prices of the moves between this row and the first `others` rows, as if they were no neighbours.
void MoveTable::refresh(std::int64_t row, std::int64_t others) {
  const std::int64_t k = assignment_[row];
  current_[row] = gain(row, k);
  const float* own_gain = gain_.data() + row * costs_.stride;
  const float* own_expiry = expiry_.data() + row * costs_.stride;
  for (std::int64_t other = 0; other < others; ++other) {
    if (other == row) continue;
    const std::int64_t l = assignment_[other];
    const std::int64_t cell = other * costs_.stride + k;
    const float at_others = l >= 0 ? own_gain[l] : unmatched_gain_;
    const float at_own = k >= 0 ? gain_[cell] : unmatched_gain_;
    const float others_expiry = l >= 0 ? own_expiry[l] : unmatched_expiry_[row];
    const float own_expiry_of_other = k >= 0 ? expiry_[cell] : unmatched_expiry_[other];
    const std::int64_t at = other < row ? row * row_stride_ + other : other * row_stride_ + row;
    swap_[at] = k >= 0 || l >= 0 ? at_others + at_own : kBarrier;
    swap_expiry_[at] = std::min(others_expiry, own_expiry_of_other);
    if (!partial_) continue;
    const std::int64_t forth = row * row_stride_ + other;
    const std::int64_t back = other * row_stride_ + row;
    evict_[forth] = l >= 0 ? at_others + unmatched_gain_ : kBarrier;
    evict_[back] = k >= 0 ? at_own + unmatched_gain_ : kBarrier;
    evict_expiry_[forth] = others_expiry;
    evict_expiry_[back] = own_expiry_of_other;
  }
}

Move MoveTable::best_move(float step, float aspiration, float limit) {
  const Scan scan{costs_.rows,
                  row_stride_,
                  costs_.stride,
                  swap_.data(),
                  evict_.data(),
                  gain_.data(),
                  free_.data(),
                  current_.data(),
                  swap_expiry_.data(),
                  evict_expiry_.data(),
                  expiry_.data(),
                  unmatched_expiry_.data(),
                  assignment_.data(),
                  free_columns_ > 0,
                  partial_,
                  unmatched_gain_,
                  step};
  const float any = cheapest_moves(scan, row_minimum_.data());
  // A new best matching may break the rules, and the cheapest move of all is then the one that leads there.
  if (any < aspiration && any < limit) {
    for (std::int64_t row = 0; row < costs_.rows; ++row) {
      const Move move = find_move(row, any, [](float delta, float) { return delta; });
      if (move.row >= 0) return move;
    }
  }
  const auto cheapest = std::min_element(row_minimum_.begin(), row_minimum_.begin() + costs_.rows);
  if (!(*cheapest < limit)) return Move{};
  return find_move(cheapest - row_minimum_.begin(), *cheapest,
                   [step](float delta, float expiry) { return delta + forbidden_cost(expiry, step); });
}

// The first move of a row that costs `wanted`: prices exactly as the scan computes them.
template <class Price>
Move MoveTable::find_move(std::int64_t row, float wanted, const Price& price) const {
  const float base = current_[row];
  const std::int64_t at = row * row_stride_;
  for (std::int64_t j = 0; j < row; ++j) {
    const float delta = swap_[at + j] - (current_[j] + base);
    if (price(delta, swap_expiry_[at + j]) == wanted) return Move{delta, row, assignment_[j], j, false};
  }
  for (std::int64_t k = 0; k < costs_.columns && free_columns_ > 0; ++k) {
    const std::int64_t cell = row * costs_.stride + k;
    const float delta = gain_[cell] + free_[k] - base;
    if (price(delta, expiry_[cell]) == wanted) return Move{delta, row, k, -1, false};
  }
  if (!partial_) return Move{};
  for (std::int64_t j = 0; j < costs_.rows; ++j) {
    const float delta = evict_[at + j] - (current_[j] + base);
    if (price(delta, evict_expiry_[at + j]) == wanted) return Move{delta, row, assignment_[j], j, true};
  }
  const float delta = unmatched_gain_ - base;
  if (assignment_[row] >= 0 && price(delta, unmatched_expiry_[row]) == wanted) return Move{delta, row, -1, -1, false};
  return Move{};
}

void MoveTable::apply(const Move& move, float expiry) {
  const std::int64_t row = move.row;
  const std::int64_t other = move.other;
  const std::int64_t left = assignment_[row];
  auto forbid = [&](std::int64_t leaver, std::int64_t column) {
    (column < 0 ? unmatched_expiry_[leaver] : expiry_[leaver * costs_.stride + column]) = expiry;
  };
  forbid(row, left);
  if (other >= 0) {
    const std::int64_t others_left = assignment_[other];
    forbid(other, others_left);
    assign(other, -1);
    assign(row, others_left);
    if (!move.evicts) assign(other, left);
    refresh(other, costs_.rows);
  } else {
    assign(row, move.column);
  }
  refresh(row, costs_.rows);
  for (std::int64_t at = costs_.row_begin(row); at < costs_.row_begin(row + 1); ++at) {
    correct_pair(costs_.incident_pair(at));
  }
  if (other < 0) return;
  for (std::int64_t at = costs_.row_begin(other); at < costs_.row_begin(other + 1); ++at) {
    const std::int64_t pair = costs_.incident_pair(at);
    if (costs_.pairs[pair].first != row && costs_.pairs[pair].second != row) correct_pair(pair);
  }
}

}  // namespace graphmatch
