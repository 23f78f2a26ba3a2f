// One dense quadratic assignment problem in the form of Koopmans and Beckmann, as pointers into a batch.
//
//   objective(x) = sum_ij flow[i, j] distance[x_i, x_j] + sum_i linear[i, x_i]     over permutations x
//
// Facilities i, j; locations x_i. Linear costs may be +infinity: that assignment is forbidden.
#pragma once

#include <cmath>
#include <cstdint>

namespace graphmatch {

template <class T>
struct QapProblem {
  std::int64_t nodes = 0;
  std::int64_t stride = 0;      // of all three matrices
  const T* flow = nullptr;      // nodes x nodes
  const T* distance = nullptr;  // nodes x nodes
  const T* linear = nullptr;    // nodes x nodes, or null
};

// Objective of a permutation, summed in double in a fixed order.
template <class T>
double evaluate(const QapProblem<T>& problem, const std::int64_t* assignment) {
  double total = 0.0;
  for (std::int64_t i = 0; i < problem.nodes; ++i) {
    const T* flow = problem.flow + i * problem.stride;
    const T* distance = problem.distance + assignment[i] * problem.stride;
    double row =
        problem.linear == nullptr ? 0.0 : static_cast<double>(problem.linear[i * problem.stride + assignment[i]]);
    for (std::int64_t j = 0; j < problem.nodes; ++j) {
      row += static_cast<double>(flow[j]) * static_cast<double>(distance[assignment[j]]);
    }
    total += row;
  }
  return total;
}

}  // namespace graphmatch
