// The answers of a batch, and the duals that its problems start from or leave behind, as arrays with an entry per
// problem.
#pragma once

#include <cstdint>

#include "core/dual_state.hpp"
#include "core/host_device.hpp"
#include "core/solution.hpp"

namespace graphmatch {

struct AnswerBatch {
  std::int64_t* assignment;  // a row of the padded number of rows per problem
  double *objective, *lower_bound;
  std::int64_t *status, *iterations, *stage;

  GRAPHMATCH_HOST_DEVICE void write(std::int64_t index, const Solution& solution) const {
    objective[index] = solution.objective;
    lower_bound[index] = solution.lower_bound;
    status[index] = static_cast<std::int64_t>(solution.status);
    iterations[index] = solution.iterations;
    stage[index] = static_cast<std::int64_t>(solution.stage);
  }
};

// Problem i of a larger batch takes entry i modulo `count`: variants of the same problems share them. No entries:
// nothing.
struct DualStateBatch {
  std::int64_t count = 0;
  std::int64_t rows = 0, columns = 0, pair_capacity = 0;  // padded sizes
  float* messages = nullptr;
  float* potentials = nullptr;
  double* scale = nullptr;
  const std::int64_t* assignment = nullptr;

  GRAPHMATCH_HOST_DEVICE DualState dual(std::int64_t index) const {
    DualState state;
    if (count == 0) return state;
    const std::int64_t entry = index % count;
    state.messages = messages + entry * 2 * pair_capacity * (columns + 1);
    state.potentials = potentials + entry * columns;
    state.scale = scale + entry;
    state.columns = columns;
    state.pair_capacity = pair_capacity;
    return state;
  }
  GRAPHMATCH_HOST_DEVICE const std::int64_t* matching(std::int64_t index) const {
    return count == 0 || assignment == nullptr ? nullptr : assignment + index % count * rows;
  }
};

}  // namespace graphmatch
