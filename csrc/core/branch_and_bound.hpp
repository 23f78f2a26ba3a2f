// Depth-first branch and bound on the costs as the dual ascent has re-parametrised them.
//
// With the messages of the dual, every matching x costs
//   constant + sum_i r_i(x_i) + sum over unused columns of -v + sum_p R_p(x_i, x_j),   all terms >= 0,
// so a partial matching is bounded by what it pays plus, for each open row, the cheapest label that is still free. The
// bound at the root is that of the dual ascent. Rows are taken by the margin between their two cheapest labels, largest
// first; labels in ascending order.
//
// Everything is summed in double with a margin for rounding, so that a finished search is a proof; an unfinished one
// still bounds the optimum by the smallest bound it left open.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "core/dual_ascent.hpp"
#include "core/stop.hpp"

namespace graphmatch {

class BranchAndBound {
 public:
  using Evaluate = std::function<double(const std::int64_t*)>;

  explicit BranchAndBound(const DualAscent& dual);

  // Looks for matchings that cost at most `threshold` within `nodes` nodes; `evaluate` returns the exact cost of one.
  // All in stored units. A matching found lowers the threshold to its own cost less `slack`. Returns whether the tree
  // was searched to the end.
  bool search(const Evaluate& evaluate, double threshold, double slack, std::int64_t nodes, Stop& stop);

  // Cheapest matching found; empty when there is none.
  const std::vector<std::int64_t>& best() const { return best_; }
  double best_value() const { return best_value_; }

  // No matching among the labels left by the dual ascent costs less than this (stored units).
  double lower_bound() const { return open_bound_ - margin_; }

  std::int64_t nodes() const { return node_count_; }

 private:
  struct Child {
    double bound;
    std::int64_t label;  // columns = unmatched
  };
  struct Choice {
    std::int64_t row;
    double row_minimum;
    double open_minimum;  // over all open rows
  };
  void build_gains();
  void descend(std::int64_t depth, double paid);
  Choice choose_row(std::int64_t depth);
  void place(std::int64_t depth, std::int64_t row, std::int64_t label);
  void take(std::int64_t row, std::int64_t label, bool taken);
  void leaf();
  double* gain(std::int64_t depth, std::int64_t row) { return gain_[depth].data() + row * width_; }

  const DualAscent& dual_;
  const PairCosts& costs_;
  const std::int64_t rows_;
  const std::int64_t width_;                 // columns + 1, padded; label `columns` is unmatched
  std::vector<AlignedVector<double>> gain_;  // per depth, rows x width: costs of open rows against the assigned ones
  AlignedVector<double> closed_;             // width: 0, or kBarrier where a label is taken
  std::vector<double> pair_minimum_;
  std::vector<std::vector<Child>> children_;  // per depth
  std::vector<char> assigned_;
  std::vector<double> lowest_, second_;  // rows: scratch of choose_row
  std::vector<std::int64_t> assignment_;
  std::int64_t unmatched_left_ = 0;  // rows that may still stay unmatched
  double constant_ = 0.0;
  double margin_ = 0.0;  // rounding of all sums
  double threshold_ = 0.0;
  double slack_ = 0.0;
  double open_bound_ = 0.0;       // smallest bound of what was cut, left open or reached
  std::int64_t depth_limit_ = 0;  // by memory
  std::int64_t node_limit_ = 0;
  std::int64_t node_count_ = 0;
  bool finished_ = true;
  Stop* stop_ = nullptr;
  const Evaluate* evaluate_ = nullptr;
  std::vector<std::int64_t> best_;
  double best_value_ = 0.0;
};

}  // namespace graphmatch
