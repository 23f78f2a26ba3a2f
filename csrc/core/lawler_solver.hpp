// One sparse Lawler problem in, one matching with its bound out, by any of the native methods.
#pragma once

#include <cstdint>

#include "core/dual_ascent.hpp"
#include "core/lawler.hpp"
#include "core/solution.hpp"
#include "core/stop.hpp"

namespace graphmatch {

enum class LawlerMethod : std::int64_t { kDualAscent = 0, kTabu = 1, kFusion = 2, kBranchAndBound = 3, kPortfolio = 4 };

struct LawlerOptions {
  LawlerMethod method = LawlerMethod::kPortfolio;
  double max_gap = 1e-6;  // see is_closed(); ends with Status::kOptimal when certified
  std::uint64_t seed = 0;
  std::int64_t max_iterations = 200;  // of the dual ascent
  std::int64_t runs = 1;              // tabu searches, or generations of fusion
  std::int64_t steps = 1000;          // of each tabu search
  std::int64_t max_nodes = 0;         // of branch and bound
  double effort = 1.0;                // of the portfolio: a factor on its budgets
};

// Writes the matching (column per row, -1 = unmatched) to `assignment`. Deterministic. A warm start continues from the
// duals and the matching of an earlier solve; `state`, if it has a scale, receives the duals of this one.
template <class T>
Solution solve_lawler(const LawlerProblem<T>& problem, const LawlerOptions& options, const DualState& warm,
                      const std::int64_t* warm_assignment, const DualState& state, Stop& stop,
                      std::int64_t* assignment);

}  // namespace graphmatch
