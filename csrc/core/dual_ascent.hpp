// Block-coordinate ascent on the Lagrange dual of a sparse Lawler problem, with rounding and a certificate.
//
// Decomposition. Every row is a unary factor theta_i over its labels (the columns, plus "unmatched" where allowed),
// every pair of rows joined by edges is a pairwise factor C_p[k, l] + a_p[k] + b_p[l], and one linear assignment block
// keeps the columns unique. The costs C_p stay constant; only messages move:
//   theta_i = unary_i - sum of the messages of the pairs of row i.
// For any messages,
//   lower bound = sum_p min_{k,l} (C_p[k,l] + a_p[k] + b_p[l]) + LAP(theta)   <=   optimum.
//
// One iteration spreads theta evenly over the incident pairs, pushes each pair's min-marginals back (the pairs are
// independent of each other, because they only add to theta), and solves the assignment block exactly, from the duals
// it had before. Its solution is the rounded matching; its column duals keep theta and the column potentials apart.
//
// Labels that do not exist (forbidden, eliminated, padding, no unmatched label) carry the message kBarrier for ever, so
// that every minimum passes them by without a test.
//
// Cost per iteration: O(pairs * columns^2) vectorised, or O(pairs * (columns + entries)) on the stored costs only,
// whichever suits; plus the assignment. Memory: pairs * columns^2 floats, or pairs * (columns + entries).
// Source: decomposition after P. Swoboda et al., "A study of Lagrangean decompositions and dual ascent solvers for
// graph matching", CVPR 2017; pair update after S. Tourani et al., "MPLP++: fast, parallel dual block-coordinate ascent
// for dense graphical models", ECCV 2018.
#pragma once

#include <cstdint>
#include <vector>

#include "core/dual_state.hpp"
#include "core/lap.hpp"
#include "core/pair_costs.hpp"
#include "core/pair_tables.hpp"
#include "core/pair_update.hpp"

namespace graphmatch {

class DualAscent {
 public:
  // Starts from zero messages. `costs` must outlive this object.
  explicit DualAscent(const PairCosts& costs);

  // As constructed anew, after the unary costs were replaced.
  void restart();

  // Continues from stored duals, of any costs: they are feasible for all. False when there are none that fit.
  bool load(const DualState& state);
  void save(const DualState& state) const;

  // One iteration. False when no matching exists at all (or none among the labels that are left).
  bool iterate();

  // Lower bound after the last iteration as the float arithmetic sees it: for decisions only. In stored units.
  double approximate_bound() const { return approximate_bound_; }

  // A lower bound that holds whatever rounding the messages suffered: re-evaluated in double from the messages alone
  // and rounded down. After eliminations it holds for the remaining labels only. In stored units.
  double certified_bound() const;

  // Removes every label that no matching cheaper than `threshold` (stored units) can use, by the certified bound.
  // Returns the number of labels removed.
  std::int64_t eliminate(double threshold);

  // Labels that exist, "unmatched" not counted.
  std::int64_t label_count() const;

  // Matching of the last assignment block: column per row, -1 = unmatched.
  const std::vector<std::int64_t>& rounded() const { return rounded_; }

  const PairCosts& costs() const { return costs_; }
  bool exists(std::int64_t row, std::int64_t column) const { return blocked_[row * costs_.stride + column] == 0.0f; }
  bool may_be_unmatched(std::int64_t row) const { return !unmatched_blocked_[row]; }
  const float* message_first(std::int64_t pair) const { return message_first_.data() + pair * costs_.stride; }
  const float* message_second(std::int64_t pair) const { return message_second_.data() + pair * costs_.stride; }
  float message_first_unmatched(std::int64_t pair) const { return message_first_unmatched_[pair]; }
  float message_second_unmatched(std::int64_t pair) const { return message_second_unmatched_[pair]; }
  const float* potentials() const { return potentials_.data(); }
  double pair_minimum(std::int64_t pair) const;  // of the present messages

 private:
  // The bound with what it is made of, in double.
  struct Certificate {
    double bound = 0.0;
    std::vector<double> theta;        // rows x columns, less the column duals
    std::vector<double> unmatched;    // rows
    std::vector<double> row_minimum;  // rows
  };
  const Certificate& certificate() const;  // of the present messages
  void certify() const;
  double compute_pair_minimum(std::int64_t pair) const;

  void forget_bounds();
  void pass_messages();
  bool solve_assignment();
  void remove(std::int64_t row, std::int64_t column);
  void remove_unmatched(std::int64_t row);
  void recompute_theta();

  // Complete matchings of more rows than columns match every column: the block is then solved transposed.
  bool transposed() const { return costs_.complete && costs_.rows > costs_.columns; }

  const PairCosts& costs_;
  const bool dense_;
  PairTables tables_;
  SparsePairUpdate sparse_update_;

  AlignedVector<float> theta_, theta_next_;              // rows x stride, 0 at labels that do not exist
  AlignedVector<float> blocked_;                         // rows x stride: 0, or infinity at such labels
  AlignedVector<float> potentials_;                      // stride: what the assignment block holds of each column
  AlignedVector<float> message_first_, message_second_;  // pairs x stride
  AlignedVector<float> column_minima_;                   // stride
  // The unmatched label, kept apart so that rows stay whole vectors.
  std::vector<float> unmatched_, unmatched_next_;                          // per row
  std::vector<float> message_first_unmatched_, message_second_unmatched_;  // per pair
  std::vector<char> unmatched_blocked_;                                    // per row

  Lap<float> lap_;
  AlignedVector<float> lap_costs_;
  std::vector<float> unmatched_prices_;
  std::vector<std::int64_t> rounded_;
  double approximate_bound_;

  // Computed when they are asked for, and kept until the messages change.
  mutable Certificate certificate_;
  mutable bool is_certified_ = false;
  mutable std::vector<double> pair_minimum_;  // NaN = unknown
};

}  // namespace graphmatch
