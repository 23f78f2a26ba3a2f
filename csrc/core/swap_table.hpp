// A permutation of a dense problem and the change of its cost by every exchange of two facilities.
//
// The table keeps, for the present permutation x,
//   moved[u][v]  = distance[x_u, x_v]                                        (both axes permuted)
//   slope[u][v]  = cost of facility u at the location of v, all others where they are (the gradient)
//   change[u][v] = value after u and v exchange locations - value now        (v > u; +infinity elsewhere)
// With x = flow[., r] - flow[., s] and y = moved[., s] - moved[., r] (old), the exchange of r and s adds x_u y_v to
// slope before its columns r and s trade places, and (x_u - x_v)(y_v - y_u) to change[u][v] of all other pairs; the
// pairs of r and s follow from slope. So a step costs n^2 multiply-adds in rows of contiguous numbers, and n gathers.
// Without symmetry the same terms of the transposed matrices are added.
//
// With integers T = float is exact wherever `QapCosts::exact_in_float` says so.
//
// Source: E. Taillard, "Robust taboo search for the quadratic assignment problem", Parallel Computing 17 (1991), for
// the O(1) update of a pair; the slope in place of his O(n) one is ours.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "core/aligned.hpp"
#include "core/qap_costs.hpp"

namespace graphmatch {

struct Swap {
  std::int64_t first = -1;  // -1 = none
  std::int64_t second = -1;
};

template <class T>
class SwapTable {
 public:
  explicit SwapTable(const QapCosts& costs);

  void load(const std::vector<std::int64_t>& assignment);
  const std::vector<std::int64_t>& assignment() const { return assignment_; }
  T change(const Swap& swap) const { return change_[swap.first * stride_ + swap.second]; }

  // The cheapest exchange: lowest change, then lowest indices. `none` when there are fewer than two facilities.
  Swap best();

  // The cheapest exchange that is allowed at `step`: one that would bring both facilities back to where they left is
  // not, before its time is over, unless its change is below `aspiration`. None when all are banned.
  Swap best_allowed(T step, T aspiration);

  // Exchanges the locations of two facilities, in O(n^2). Neither may return to where it came from before its time.
  void apply(const Swap& swap, T ban_first, T ban_second);

  void lift_bans();

 private:
  void set_pair(std::int64_t u, std::int64_t v);
  void set_ban(std::int64_t u, std::int64_t v);

  std::int64_t nodes_, stride_;
  bool symmetric_;
  const QapCosts* costs_;
  std::vector<std::int64_t> assignment_;
  AlignedVector<T> flow_, flow_transposed_;  // the transposed ones stay empty in symmetric problems
  AlignedVector<T> moved_, moved_transposed_;
  AlignedVector<T> slope_, change_;
  AlignedVector<T> left_until_;    // [u][v]: until when u may not return to the location of v
  AlignedVector<T> banned_until_;  // [u][v], v > u: the smaller of the two of an exchange
  AlignedVector<T> x_, y_, x_transposed_, y_transposed_;
  AlignedVector<T> row_best_;
};

}  // namespace graphmatch
