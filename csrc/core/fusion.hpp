// The best matching that takes the column of every row from one of two parents.
//
// Where the parents differ, "row r takes its column of b" obliges the row that holds this column in a to give it up,
// and so on: rows fall into cycles, whose rows all choose the same parent, and into paths, whose rows choose b from
// some row on. A cycle is one variable with two states, a path of m rows one variable with m + 1 states; the energy is
// a sum over pairs of variables. Up to 4096 states in all are enumerated, so that the result is the exact optimum;
// beyond that a one-variable descent from both parents follows. The result is never worse than either parent.
//
// Source: fusion moves after V. Lempitsky et al., PAMI 2010, for matchings after L. Hutschenreiter et al., "Fusion
// moves for graph matching", ICCV 2021; the decomposition into cycles and paths makes their inner problem exact.
#pragma once

#include <cstdint>
#include <vector>

#include "core/pair_costs.hpp"

namespace graphmatch {

class Fusion {
 public:
  explicit Fusion(const PairCosts& costs) : costs_(costs) {}

  // Returns the cost of the result in stored units, summed in double.
  double fuse(const std::vector<std::int64_t>& a, const std::vector<std::int64_t>& b);

  const std::vector<std::int64_t>& result() const { return result_; }

 private:
  void find_variables(const std::vector<std::int64_t>& a, const std::vector<std::int64_t>& b);
  void add_energies(const std::vector<std::int64_t>& a, const std::vector<std::int64_t>& b);
  bool enumerate();
  void descend(std::vector<std::int64_t> state);
  double energy(const std::vector<std::int64_t>& state) const;

  bool takes_b(std::int64_t row, std::int64_t state) const { return place_[row] >= state; }
  std::size_t count() const { return states_.size(); }
  std::vector<double>& joint(std::size_t first, std::size_t second);

  const PairCosts& costs_;
  std::vector<std::int64_t> result_;
  std::vector<std::int64_t> variable_;  // of each row, -1 where the parents agree
  std::vector<std::int64_t> place_;     // of each row in its variable: it takes b in the states up to this one
  std::vector<std::int64_t> states_;    // number of states of each variable
  std::vector<std::vector<double>> unary_;
  std::vector<std::int64_t> joint_of_;  // count x count, -1 = independent
  std::vector<std::vector<double>> joint_;
  std::vector<std::int64_t> best_;
  double best_energy_ = 0.0;
};

}  // namespace graphmatch
