// A matching with the price of every move away from it, kept up to date.
//
// gain[i][k] = unary[i, k] + cost of i -> k against the present columns of i's neighbours. From it follow the prices of
//   swap   rows i and j exchange their columns (one of them may be unmatched);
//   move   row i goes to a free column, or to unmatched where that is allowed;
//   evict  row i takes the column of row j, which becomes unmatched (partial matchings only).
// Sums of two gains, which every swap and eviction needs, are kept in row-by-row matrices, so that all moves are priced
// by a vectorised scan: O(rows^2 + rows * columns) additions. A move changes the gains of its rows' neighbours only at
// the stored entries of the pair costs, and the two matrices only there and in the rows and columns of its own rows.
//
// A row may not return to a column it left until its tenure is over, unless that gives a new best matching. The search
// moves best-first among what is allowed; ties go to the first in scan order.
//
// Source: E. Taillard, "Robust taboo search for the quadratic assignment problem", Parallel Computing 17 (1991).
#pragma once

#include <cstdint>
#include <vector>

#include "core/aligned.hpp"
#include "core/pair_costs.hpp"

namespace graphmatch {

struct Move {
  float delta = 0.0f;
  std::int64_t row = -1;
  std::int64_t column = -1;  // -1 = unmatched
  std::int64_t other = -1;   // row that owned `column`
  bool evicts = false;
};

class MoveTable {
 public:
  explicit MoveTable(const PairCosts& costs);

  // Starts from a feasible matching (-1 = unmatched). Forgets what was forbidden.
  void load(const std::vector<std::int64_t>& start);

  // The cheapest move that is allowed at `step`, or any that changes the cost by less than `aspiration`. Its row is -1
  // when there is none below `limit`.
  Move best_move(float step, float aspiration, float limit);

  // Makes the move, and forbids its rows to return to the columns they left until step `expiry`.
  void apply(const Move& move, float expiry);

  const std::vector<std::int64_t>& assignment() const { return assignment_; }

 private:
  void assign(std::int64_t row, std::int64_t column);
  void add_neighbour_costs(std::int64_t row, std::int64_t column, float sign);
  void add_to_gain(std::int64_t row, std::int64_t column, float cost);
  void refresh(std::int64_t row, std::int64_t others);
  void correct_pair(std::int64_t pair);
  template <class Price>
  Move find_move(std::int64_t row, float wanted, const Price& price) const;
  float gain(std::int64_t row, std::int64_t column) const {
    return column < 0 ? unmatched_gain_ : gain_[row * costs_.stride + column];
  }

  const PairCosts& costs_;
  const bool partial_;  // rows may become unmatched
  const float unmatched_gain_;
  const std::int64_t row_stride_;
  std::vector<std::int64_t> assignment_;
  std::vector<std::int64_t> owner_;  // row of each column, -1 = free
  std::int64_t free_columns_ = 0;

  AlignedVector<float> gain_;     // rows x stride
  AlignedVector<float> current_;  // rows: gain of the present column
  AlignedVector<float> free_;     // stride: 0 at free columns, else kBarrier
  // Row-by-row matrices, rows x row_stride. Swaps below the diagonal only, kBarrier elsewhere.
  AlignedVector<float> swap_;   // gain of i at j's column + gain of j at i's column, with what they pay each other
  AlignedVector<float> evict_;  // gain of i at j's column + unmatched, with what they pay each other
  // Steps at which moves become allowed again; whole numbers.
  AlignedVector<float> swap_expiry_, evict_expiry_;
  AlignedVector<float> expiry_;          // rows x stride: when a row may take a column again
  std::vector<float> unmatched_expiry_;  // rows
  AlignedVector<float> row_minimum_;     // rows: scratch of the scan
};

}  // namespace graphmatch
