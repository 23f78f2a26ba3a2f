// The costs of a dense problem in the form that its searches share: no loops, symmetric where that is possible.
//
//   value(x) = weight * sum_ij flow[i, j] distance[x_i, x_j] + sum_i linear[i, x_i]
//
// Loops become linear costs. If one matrix is symmetric the other is replaced by the sum of it and its transpose, which
// costs the same; each pair is then counted once (weight 1/2). Forbidden assignments get a penalty above the range of
// all permutations, so that a search may pass through them and never ends on one it can avoid.
//
// Costs are stored in a unit that is a power of two: the largest one that makes all of them integers, if those are
// small enough to be added without rounding, else one that brings the largest near 1.
#pragma once

#include <cstdint>
#include <vector>

#include "core/qap.hpp"

namespace graphmatch {

struct QapCosts {
  std::int64_t nodes = 0;
  bool symmetric = false;
  double unit = 1.0;
  bool integral = false;               // value(x) is an integer for every x, and all sums are exact
  bool exact_in_float = false;         // so they are in the 24 bits of float
  double largest_cost = 0.0;           // the largest |cost| that a permutation can pay: one product, or a linear cost
  double magnitude = 0.0;              // bound on the sum of |costs| that a permutation pays, without penalties
  double penalty = 0.0;                // of a forbidden assignment; 0 = there are none
  std::vector<double> flow, distance;  // nodes x nodes
  std::vector<double> linear;          // nodes x nodes; empty = none

  // False on numbers that break the contract: NaN anywhere, infinities other than +infinity in linear costs, numbers
  // whose products leave the range of double.
  template <class T>
  bool build(const QapProblem<T>& problem);

  // In stored units.
  double weight() const { return symmetric ? 0.5 : 1.0; }
  double value(const std::int64_t* assignment) const;
  bool is_forbidden(std::int64_t facility, std::int64_t location) const {
    return penalty > 0.0 && linear[facility * nodes + location] >= penalty;
  }

 private:
  bool choose_unit();
  double largest_slope() const;
};

}  // namespace graphmatch
