// The duals of a Lawler problem as they are kept from one solve to the next.
#pragma once

#include <cstdint>

namespace graphmatch {

// Where the duals of an earlier solve are read from or written to; pointers into one problem's part of a batch.
struct DualState {
  float* messages = nullptr;    // 2 * pair_capacity rows of columns + 1, the last for the unmatched label
  float* potentials = nullptr;  // columns
  double* scale = nullptr;      // of the numbers above; 0 = nothing stored
  std::int64_t columns = 0;     // leading dimension - 1 of the messages
  std::int64_t pair_capacity = 0;
};

}  // namespace graphmatch
