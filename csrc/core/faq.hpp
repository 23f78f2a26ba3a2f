// Fast approximate quadratic assignment: Frank-Wolfe over the doubly stochastic matrices.
//
//   value(P) = 1/2 <P, H(P)> + <linear, P>,   H(P) = flow P distance' + flow' P distance   (half of it when symmetric)
//
// Each step moves towards the permutation that the gradient H(P) + linear likes best (a linear assignment), or towards
// the doubly stochastic matrix that Sinkhorn's iteration makes of it, by an exact line search. The end point is rounded
// by a linear assignment. H of a permutation costs one or two matrix products, n^3 multiply-adds each.
//
// Source: J. T. Vogelstein et al., "Fast approximate quadratic programming for graph matching", PLoS ONE 10 (2015);
// A. Saad-Eldin et al., "Graph matching via optimal transport", arXiv 2111.05366 (the Sinkhorn step).
#pragma once

#include <cstdint>
#include <vector>

#include "core/lap.hpp"
#include "core/qap_costs.hpp"
#include "core/random.hpp"
#include "core/stop.hpp"

namespace graphmatch {

struct FaqOptions {
  std::int64_t max_iterations = 30;
  double tolerance = 1e-4;    // ends when a step lowers the value by less than this, relative to its size
  bool sinkhorn = false;      // the softer step
  double temperature = 0.01;  // of that step, relative to the spread of the gradient
};

class Faq {
 public:
  Faq(const QapCosts& costs, const FaqOptions& options);

  // From the barycenter of all permutations, from a random interior point, or from a doubly stochastic matrix of the
  // caller (nodes x nodes, rows are facilities). Returns the number of iterations; the permutation is in `assignment`.
  std::int64_t run_from_barycenter(Stop& stop);
  std::int64_t run_from_random(Random& random, Stop& stop);
  std::int64_t run_from(const double* start, Stop& stop);

  const std::vector<std::int64_t>& assignment() const { return assignment_; }

 private:
  std::int64_t run(Stop& stop);
  void apply_permutation(const std::vector<std::int64_t>& x, std::vector<double>& result);
  void apply(const std::vector<double>& point, std::vector<double>& result);
  void soften(std::vector<double>& target);

  const QapCosts& costs_;
  FaqOptions options_;
  std::int64_t nodes_;
  std::vector<double> flow_transposed_, distance_transposed_;
  std::vector<double> point_, target_, at_point_, at_target_, gradient_, scratch_;
  std::vector<std::int64_t> assignment_;
  Lap<double> lap_;
};

// The permutation that a doubly stochastic matrix likes best, without forbidden assignments where that is possible.
std::vector<std::int64_t> rounded(const QapCosts& costs, const double* point);

}  // namespace graphmatch
