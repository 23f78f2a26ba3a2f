// A matching with the price of every move away from it, kept up to date.
//
// gain[i][k] = unary[i, k] + cost of i -> k against the present columns of i's neighbours. From it follow the prices of
//   swap   rows i and j exchange their columns (one of them may be unmatched);
//   take   row i takes a free column, or, in partial matchings, that of another row, which becomes unmatched;
//   leave  row i becomes unmatched (partial matchings only).
// What swaps and takes cost beyond the gains that are lost is kept in matrices, so that all moves are priced by a
// vectorised scan: O(rows^2 + rows * columns) additions. A move changes the gains of its rows' neighbours only at the
// stored entries of the pair costs, and the matrices only there and in the rows and columns of its own rows.
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
  bool evicts = false;       // `other` becomes unmatched instead of taking the row's column
};

class MoveTable {
 public:
  explicit MoveTable(const PairCosts& costs);

  // Starts from a feasible matching (-1 = unmatched). Forgets what was forbidden.
  void load(const std::vector<std::int64_t>& start);

  // The cheapest move that is allowed at `step`, or any that changes the cost by less than `aspiration`. Its row is -1
  // when there is none below `limit`. Steps must not decrease between two loads.
  Move best_move(std::int64_t step, float aspiration, float limit);

  // Makes the move, and forbids its rows to return to the columns they left until step `expiry`.
  void apply(const Move& move, std::int64_t expiry);

  const std::vector<std::int64_t>& assignment() const { return assignment_; }

 private:
  struct Ban {
    std::int64_t row, column, expiry;  // column -1: the row may not become unmatched
  };

  void assign(std::int64_t row, std::int64_t column);
  void add_to_gains(std::int64_t row, std::int64_t column);
  void add_neighbour_costs(std::int64_t row, std::int64_t column, float sign);
  void set_current(std::int64_t row, float gain);
  void price_swaps(std::int64_t row, std::int64_t others);
  void forget_takes(std::int64_t row, std::int64_t column);
  void price_neighbours(std::int64_t row, std::int64_t except);
  void price_pair(std::int64_t pair);
  void forbid(std::int64_t row, std::int64_t column, std::int64_t expiry);
  void lift_bans(std::int64_t step);
  std::int64_t& expiry(std::int64_t row, std::int64_t column);
  float& penalty(std::int64_t row, std::int64_t column);
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
  // Prices are these less the rows' current gains; kBarrier where there is no such move.
  AlignedVector<float>
      swap_;  // rows x row_stride, below the diagonal: both new gains, with what the two pay each other
  AlignedVector<float> take_;   // rows x stride: the new gain, with what the row pays the owner
  AlignedVector<float> extra_;  // stride: what becoming unmatched costs the owner; 0 at free columns
  AlignedVector<float> leave_;  // rows
  // kBarrier for what is forbidden now, else 0. A swap is forbidden when neither row may.
  AlignedVector<float> swap_penalty_, take_penalty_, leave_penalty_;
  std::vector<Ban> bans_;
  std::vector<std::int64_t> take_expiry_, leave_expiry_;  // steps at which bans end; the last one counts
  AlignedVector<float> row_minimum_;                      // rows: scratch of the scan
};

}  // namespace graphmatch
