#include "core/local_search.hpp"

#include <algorithm>

namespace graphmatch {
namespace {

// Improvements below this are rounding of float gains (costs have unit size).
constexpr float kNoise = 1e-6f;

}  // namespace

LocalSearch::LocalSearch(const PairTables& tables, bool complete)
    : tables_(tables), complete_(complete), unmatched_cost_(static_cast<float>(tables.unmatched_cost)) {
  assignment_.assign(tables.rows, -1);
  owner_.assign(tables.columns, -1);
  gain_.assign(tables.rows * tables.stride, 0.0f);
}

void LocalSearch::run(const std::vector<std::int64_t>& start, Stop& stop) {
  load(start);
  // Rounding of the gains can make a cycle of moves look like descent: the exact value must fall every so many steps.
  double last_value = value();
  for (std::int64_t step = 1; !stop.requested(); ++step) {
    const Move move = best_move();
    if (move.row < 0) return;
    apply(move);
    if (step % tables_.rows == 0) {
      const double new_value = value();
      if (!(new_value < last_value)) return;
      last_value = new_value;
    }
  }
}

double LocalSearch::value() const {
  double total = 0.0;
  for (std::int64_t i = 0; i < tables_.rows; ++i) {
    const std::int64_t k = assignment_[i];
    total += k < 0 ? tables_.unmatched_cost : static_cast<double>(tables_.unary(i)[k]);
  }
  for (std::size_t p = 0; p < tables_.pairs.size(); ++p) {
    const std::int64_t k = assignment_[tables_.pairs[p].first];
    const std::int64_t l = assignment_[tables_.pairs[p].second];
    if (k >= 0 && l >= 0) total += static_cast<double>(tables_.table(p)[k * tables_.stride + l]);
  }
  return total;
}

void LocalSearch::load(const std::vector<std::int64_t>& start) {
  assignment_.assign(tables_.rows, -1);
  owner_.assign(tables_.columns, -1);
  for (std::int64_t i = 0; i < tables_.rows; ++i) {
    std::copy_n(tables_.unary(i), tables_.stride, gain_.data() + i * tables_.stride);
  }
  for (std::int64_t i = 0; i < tables_.rows; ++i) assign(i, start[i]);
}

// Adds or removes what row -> column costs each neighbour of the row.
void LocalSearch::add_neighbour_costs(std::int64_t row, std::int64_t column, float sign) {
  const std::int64_t stride = tables_.stride;
  for (std::int64_t entry = tables_.row_begin(row); entry < tables_.row_begin(row + 1); ++entry) {
    const std::int64_t pair = tables_.incident_pair(entry);
    const float* table = tables_.table(pair);
    const bool is_first = tables_.pairs[pair].first == row;
    const std::int64_t neighbour = is_first ? tables_.pairs[pair].second : tables_.pairs[pair].first;
    float* gains = gain_.data() + neighbour * stride;
    const float same_column = gains[column];  // the table's diagonal is a barrier, not a cost
    if (is_first) {
      const float* costs = table + column * stride;
      for (std::int64_t l = 0; l < tables_.columns; ++l) gains[l] += sign * costs[l];
    } else {
      for (std::int64_t l = 0; l < tables_.columns; ++l) gains[l] += sign * table[l * stride + column];
    }
    gains[column] = same_column;
  }
}

void LocalSearch::assign(std::int64_t row, std::int64_t column) {
  const std::int64_t old = assignment_[row];
  if (old >= 0) {
    add_neighbour_costs(row, old, -1.0f);
    if (owner_[old] == row) owner_[old] = -1;
  }
  assignment_[row] = column;
  if (column >= 0) {
    add_neighbour_costs(row, column, 1.0f);
    owner_[column] = row;
  }
}

float LocalSearch::pair_cost(std::int64_t row, std::int64_t column, std::int64_t other,
                             std::int64_t other_column) const {
  const std::int64_t pair = tables_.find(row, other);
  if (pair < 0 || column < 0 || other_column < 0) return 0.0f;
  const bool is_first = tables_.pairs[pair].first == row;
  const std::int64_t k = is_first ? column : other_column;
  const std::int64_t l = is_first ? other_column : column;
  return tables_.table(pair)[k * tables_.stride + l];
}

LocalSearch::Move LocalSearch::best_move() const {
  Move best;
  best.delta = -kNoise;
  for (std::int64_t row = 0; row < tables_.rows; ++row) {
    consider_free_columns(row, best);
    consider_swaps(row, best);
  }
  return best;
}

void LocalSearch::consider_free_columns(std::int64_t row, Move& best) const {
  const std::int64_t current = assignment_[row];
  const float current_gain = gain(row, current);
  auto consider = [&](std::int64_t column) {
    const float delta = gain(row, column) - current_gain;
    if (delta < best.delta) best = Move{delta, row, column, -1, false};
  };
  for (std::int64_t column = 0; column < tables_.columns; ++column) {
    if (owner_[column] < 0 && allowed(row, column)) consider(column);
  }
  if (!complete_ && current >= 0) consider(-1);
}

// Swaps with later rows; evictions of any row.
void LocalSearch::consider_swaps(std::int64_t row, Move& best) const {
  const std::int64_t current = assignment_[row];
  const float current_gain = gain(row, current);
  for (std::int64_t other = 0; other < tables_.rows; ++other) {
    const std::int64_t column = assignment_[other];
    if (other == row || column < 0 || !allowed(row, column)) continue;
    // Both gains contain the pair's present cost: it may leave only once.
    const float shared =
        gain(row, column) - current_gain - gain(other, column) + pair_cost(row, current, other, column);
    if (current >= 0 && other > row && allowed(other, current)) {
      const float delta = shared + gain(other, current) + pair_cost(row, column, other, current);
      if (delta < best.delta) best = Move{delta, row, column, other, false};
    }
    if (!complete_ || current < 0) {
      const float delta = shared + unmatched_cost_;
      if (delta < best.delta) best = Move{delta, row, column, other, true};
    }
  }
}

void LocalSearch::apply(const Move& move) {
  const std::int64_t old = assignment_[move.row];
  if (move.other >= 0) assign(move.other, -1);
  assign(move.row, move.column);
  if (move.other >= 0 && !move.evicts) assign(move.other, old);
}

}  // namespace graphmatch
