// Best-improvement local search over matchings of a sparse Lawler problem.
//
// gain[i][k] = unary[i, k] + quadratic cost of i -> k against the current columns of i's neighbours, kept up to date,
// so that every move is priced in O(1):
//   move   row i to a free column, or to unmatched where that is allowed;
//   swap   the columns of two rows;
//   evict  row i takes the column of row j, which becomes unmatched.
// The steepest move is taken until none improves; ties go to the first in scan order. O(rows^2 + rows * columns) per
// step, plus O(columns) per neighbour of a changed row.
#pragma once

#include <cstdint>
#include <vector>

#include "core/pair_tables.hpp"
#include "core/stop.hpp"

namespace graphmatch {

class LocalSearch {
 public:
  LocalSearch(const PairTables& tables, bool complete);

  // Starts from a feasible matching (-1 = unmatched) and descends to a local optimum.
  void run(const std::vector<std::int64_t>& start, Stop& stop);

  const std::vector<std::int64_t>& assignment() const { return assignment_; }

  // Cost of the current matching in table units, summed in double.
  double value() const;

 private:
  struct Move {
    float delta = 0.0f;
    std::int64_t row = -1;
    std::int64_t column = -1;  // -1 = unmatched
    std::int64_t other = -1;   // row that owned `column`
    bool evicts = false;
  };

  void load(const std::vector<std::int64_t>& start);
  Move best_move() const;
  void consider_swaps(std::int64_t row, Move& best) const;
  void consider_free_columns(std::int64_t row, Move& best) const;
  void apply(const Move& move);
  void assign(std::int64_t row, std::int64_t column);
  void add_neighbour_costs(std::int64_t row, std::int64_t column, float sign);

  float gain(std::int64_t row, std::int64_t column) const {
    return column < 0 ? unmatched_cost_ : gain_[static_cast<std::size_t>(row * tables_.stride + column)];
  }
  bool allowed(std::int64_t row, std::int64_t column) const { return column < 0 || tables_.allowed(row, column); }
  float pair_cost(std::int64_t row, std::int64_t column, std::int64_t other, std::int64_t other_column) const;

  const PairTables& tables_;
  const bool complete_;
  const float unmatched_cost_;
  std::vector<std::int64_t> assignment_;
  std::vector<std::int64_t> owner_;  // row of each column, -1 = free
  AlignedVector<float> gain_;        // rows x stride
};

}  // namespace graphmatch
