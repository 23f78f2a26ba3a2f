// What a solver of Lawler problems is told.
#pragma once

#include <cstdint>

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

}  // namespace graphmatch
