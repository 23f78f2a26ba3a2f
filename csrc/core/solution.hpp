// What every solver reports about one problem, beside the assignment itself.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/host_device.hpp"
#include "core/status.hpp"

namespace graphmatch {

// What found the matching. The Python enum graphmatch.Stage mirrors these values.
enum class Stage : std::int64_t {
  kNone = 0,
  kWarmStart = 1,   // the matching of an earlier solve
  kDualAscent = 2,  // rounding of the dual, improved by local search
  kTabu = 3,
  kFusion = 4,
  kBranchAndBound = 5,
  kFaq = 6,
  kMemetic = 7,  // the tabu search of a crossover
};

struct Solution {
  Status status = Status::kFeasible;
  double objective = 0.0;
  double lower_bound = 0.0;
  std::int64_t iterations = 0;
  Stage stage = Stage::kNone;
};

GRAPHMATCH_HOST_DEVICE inline Solution invalid_solution() {
  const double nan = NAN;
  return {Status::kInvalid, nan, nan, 0, Stage::kNone};
}

// The minimum over no matching is +infinity.
GRAPHMATCH_HOST_DEVICE inline Solution infeasible_solution(std::int64_t iterations) {
  const double infinity = INFINITY;
  return {Status::kInfeasible, infinity, infinity, iterations, Stage::kNone};
}

// Whether the gap is at most max_gap, relative to |objective| or to the problem's largest |cost|, whichever is larger:
// near zero the objective says nothing about the size of the numbers it was summed from.
GRAPHMATCH_HOST_DEVICE inline bool is_closed(double objective, double lower_bound, double largest_cost,
                                             double max_gap) {
  return objective - lower_bound <= max_gap * std::fmax(std::fabs(objective), largest_cost);
}

}  // namespace graphmatch
