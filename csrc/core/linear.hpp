// One linear assignment problem, solved exactly in double with its dual certificate.
//
//   objective(x) = sum_i costs[i, x_i] + unmatched_cost * (number of rows with x_i = -1)
#pragma once

#include <cstdint>

#include "core/solution.hpp"

namespace graphmatch {

template <class T>
struct LinearProblem {
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  const T* costs = nullptr;  // rows x columns, +infinity = forbidden
  std::int64_t stride = 0;
  bool complete = true;  // true: min(rows, columns) rows must be matched
  double unmatched_cost = 0.0;
};

// Writes the column of each row (-1 = unmatched) to `assignment`. Ties go to the lowest column.
template <class T>
Solution solve_linear(const LinearProblem<T>& problem, std::int64_t* assignment);

}  // namespace graphmatch
