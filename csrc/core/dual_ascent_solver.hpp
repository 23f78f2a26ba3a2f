// Dual ascent with rounding, local search and a certificate: one problem in, one matching with its bound out.
#pragma once

#include <cstdint>

#include "core/lawler.hpp"
#include "core/solution.hpp"
#include "core/stop.hpp"

namespace graphmatch {

struct DualAscentOptions {
  std::int64_t max_iterations = 500;
  double max_gap = 1e-6;  // see is_closed(); ends with Status::kOptimal when certified
};

// Writes the matching (column per row, -1 = unmatched) to `assignment`. Deterministic.
template <class T>
Solution solve_dual_ascent(const LawlerProblem<T>& problem, const DualAscentOptions& options, Stop& stop,
                           std::int64_t* assignment);

}  // namespace graphmatch
