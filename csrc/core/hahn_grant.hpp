// Dual ascent on the level-1 reformulation of a dense problem (RLT-1).
//
// For every assignment (i, k) there is a matrix of the costs of all pairs with it, the pairs[i, k][j, l], and each pair
// is held twice: its cost may move between pairs[i, k][j, l] and pairs[j, l][i, k]. A round spreads the cost of (i, k)
// over its matrix, moves half of what the two copies hold together to each, and takes the linear assignment of every
// matrix out of it and into the cost of (i, k); the linear assignment of these costs is taken out into the bound. What
// is left never gets negative, so the sum taken out is a bound at any time.
//
// All numbers are integers below 2^53 held in double (costs are scaled and rounded down at the start), so that no
// operation rounds: the bound is a certificate. n^4 numbers; a round solves n^2 assignments of n - 1.
//
// Source: P. Hahn, T. Grant, "Lower bounds for the quadratic assignment problem based upon a dual formulation",
// Operations Research 46 (1998).
#pragma once

#include <cstdint>
#include <vector>

#include "core/lap.hpp"
#include "core/qap_costs.hpp"
#include "core/stop.hpp"

namespace graphmatch {

class HahnGrant {
 public:
  explicit HahnGrant(const QapCosts& costs);

  // One round. False when it moved nothing.
  bool improve(Stop& stop);

  // No permutation costs less; +infinity is left to the caller: forbidden assignments are penalties here.
  double bound() const { return taken_ / scale_; }

  // The permutation that the last round liked best.
  const std::vector<std::int64_t>& assignment() const { return outer_.row_to_column; }

 private:
  std::int64_t inner(std::int64_t index, std::int64_t omitted) const { return index - (index > omitted ? 1 : 0); }
  double& pair(std::int64_t i, std::int64_t k, std::int64_t j, std::int64_t l) {
    return pairs_[((i * nodes_ + k) * (nodes_ - 1) + inner(j, i)) * (nodes_ - 1) + inner(l, k)];
  }
  void balance();
  double take(std::int64_t size, double* costs, Lap<double>& lap);

  std::int64_t nodes_;
  double scale_ = 1.0;
  double taken_ = 0.0;
  std::vector<double> pairs_, linear_, mirrored_;
  Lap<double> lap_, outer_, mirrored_lap_;
};

}  // namespace graphmatch
