// Objective of a given assignment of a sparse Lawler problem, computed by a team (team.hpp).
//
// The members share the rows and the edge pairs (e, f) in turn: member r takes number r, r + size, r + 2 size, ...
// O((rows + edge_count1 * edge_count2) / size) per member, sums in double, the same result for the same team size.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/host_device.hpp"
#include "core/lawler.hpp"

namespace graphmatch {

// Every member gets the objective. Columns and rows outside the problem are never followed: they make it NaN.
template <class T, class Team>
GRAPHMATCH_HOST_DEVICE double lawler_objective(const LawlerProblem<T>& problem, const std::int64_t* assignment,
                                               Team& team) {
  double sum = 0.0;
  const double unmatched_cost = problem.complete ? 0.0 : problem.unmatched_cost;
  for (std::int64_t i = team.rank(); i < problem.rows; i += team.size()) {
    const std::int64_t k = assignment[i];
    if (k >= problem.columns || k < -1) {
      sum = NAN;
    } else {
      sum += k < 0 ? unmatched_cost : static_cast<double>(problem.unary[i * problem.unary_stride + k]);
    }
  }
  if (problem.edge_count2 > 0) {
    // The pair number is kept as (e, f) and advanced by addition: a 64-bit division per pair would dominate.
    const std::int64_t step_e = team.size() / problem.edge_count2;
    const std::int64_t step_f = team.size() % problem.edge_count2;
    std::int64_t e = team.rank() / problem.edge_count2;
    std::int64_t f = team.rank() % problem.edge_count2;
    while (e < problem.edge_count1) {
      const std::int64_t i = problem.edges1[2 * e];
      const std::int64_t j = problem.edges1[2 * e + 1];
      if (i < 0 || i >= problem.rows || j < 0 || j >= problem.rows) {
        sum = NAN;
      } else if (assignment[i] == problem.edges2[2 * f] && assignment[j] == problem.edges2[2 * f + 1]) {
        sum += static_cast<double>(problem.quadratic[e * problem.quadratic_stride + f]);
      }
      e += step_e;
      f += step_f;
      if (f >= problem.edge_count2) {
        f -= problem.edge_count2;
        ++e;
      }
    }
  }
  return team.reduce_sum(sum);
}

}  // namespace graphmatch
