// Outcome of one problem of a batch. The Python enum graphmatch.Status mirrors these values.
#pragma once

#include <cstdint>

namespace graphmatch {

enum class Status : std::int64_t {
  kOptimal = 0,     // certified: gap <= max_gap
  kFeasible = 1,    // a valid matching whose gap is still open
  kInfeasible = 2,  // no matching satisfies the constraints
  kInvalid = 3,     // the numbers break the problem's contract (NaN, index out of range)
};

}  // namespace graphmatch
