// Block-coordinate ascent on the Lagrange dual of a sparse Lawler problem, with primal rounding and a certificate.
//
// Decomposition. Every row is a unary factor theta_i over its labels (the columns, plus "unmatched" where allowed),
// every pair of rows joined by edges is a pairwise factor C_p[k, l] + a_p[k] + b_p[l], and one linear assignment block
// keeps the columns unique. The tables C_p stay constant; only messages move:
//   theta_i = unary_i - sum of the messages of the pairs of row i.
// For any messages,
//   lower bound = sum_p min_{k,l} (C_p[k,l] + a_p[k] + b_p[l]) + LAP(theta)   <=   optimum.
//
// One iteration spreads theta evenly over the incident pairs, pushes each pair's min-marginals back (the pairs are
// independent of each other, because they only add to theta), and solves the assignment block exactly. Its solution is
// the rounded matching; its column duals keep theta and the column potentials apart.
//
// Labels that do not exist (forbidden, padding, no unmatched label) carry the message kBarrier for ever, so that every
// minimum passes them by without a test.
//
// Cost per iteration: O(pairs * columns^2 + LAP). Memory: pairs * columns^2 floats.
// Source: decomposition after P. Swoboda et al., "A study of Lagrangean decompositions and dual ascent solvers for
// graph matching", CVPR 2017; pair update after S. Tourani et al., "MPLP++: fast, parallel dual block-coordinate ascent
// for dense graphical models", ECCV 2018.
#pragma once

#include <cstdint>
#include <vector>

#include "core/lap.hpp"
#include "core/pair_tables.hpp"

namespace graphmatch {

class DualAscent {
 public:
  // Starts from zero messages. `tables` must outlive this object.
  DualAscent(const PairTables& tables, bool complete);

  // One iteration. False when no matching exists at all.
  bool iterate();

  // Lower bound after the last iteration as the float arithmetic sees it: for decisions only. In table units.
  double approximate_bound() const { return approximate_bound_; }

  // A lower bound that holds whatever rounding the messages suffered: re-evaluated in double from the messages alone
  // and rounded down. In table units.
  double certified_bound() const;

  // Matching of the last assignment block: column per row, -1 = unmatched.
  const std::vector<std::int64_t>& rounded() const { return rounded_; }

 private:
  void pass_messages();
  bool solve_assignment();
  double pair_minimum(std::int64_t pair) const;

  // Complete matchings of more rows than columns match every column: the block is then solved transposed.
  bool transposed() const { return complete_ && tables_.rows > tables_.columns; }

  const PairTables& tables_;
  const bool complete_;

  AlignedVector<float> theta_, theta_next_;              // rows x stride, 0 at labels that do not exist
  AlignedVector<float> blocked_;                         // rows x stride: 0, or infinity at such labels
  AlignedVector<float> potentials_;                      // stride: what the assignment block holds of each column
  AlignedVector<float> message_first_, message_second_;  // pairs x stride
  AlignedVector<float> column_minima_;                   // stride
  // The unmatched label, kept apart so that rows stay whole vectors.
  std::vector<float> unmatched_, unmatched_next_;                          // per row
  std::vector<float> message_first_unmatched_, message_second_unmatched_;  // per pair

  Lap<float> lap_;
  AlignedVector<float> lap_costs_;
  std::vector<std::int64_t> rounded_;
  double approximate_bound_;
};

}  // namespace graphmatch
