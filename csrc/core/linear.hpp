// Linear assignment problems, solved exactly in double with their dual certificates.
//
//   objective(x) = sum_i costs[i, x_i] + unmatched_cost * (number of rows with x_i = -1)
#pragma once

#include <cstdint>
#include <vector>

#include "core/lap.hpp"
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

// Duals u of the rows and v of the columns: u[i] + v[k] <= costs[i, k]. v <= 0 where columns may stay free (fewer rows
// than columns, or partial matchings), u <= 0 where rows may (more rows than columns), and u <= unmatched_cost in
// partial matchings. No matching costs less than their sum.
struct LinearDuals {
  double* rows = nullptr;
  double* columns = nullptr;
};

// What an earlier solve left: any numbers do. Good row duals save time in square problems whose rows must all be
// matched; others are solved anew, which takes no longer than to mend old duals. Null: nothing.
struct LinearStart {
  const std::int64_t* matching = nullptr;
  const double* row_duals = nullptr;
};

// Solves one problem after the other in the same memory.
template <class T>
class LinearSolver {
 public:
  // Writes the column of each row (-1 = unmatched) to `assignment`, and where there is a matching the duals to `duals`
  // if they are asked for. From a start, its matching is returned if none is cheaper.
  Solution solve(const LinearProblem<T>& problem, const LinearStart& start, const LinearDuals& duals,
                 std::int64_t* assignment);

 private:
  // The problem as `Lap` takes it: transposed where a complete matching leaves rows free.
  struct Oriented {
    bool transposed;
    std::int64_t rows, columns;
    const T* costs;
    std::int64_t stride;
    const double* unmatched;
    bool columns_may_stay_free;
  };

  Oriented orient(const LinearProblem<T>& problem);
  bool warm(const LinearProblem<T>& problem, const Oriented& oriented, const double* row_duals,
            std::int64_t* assignment, Solution& solution);
  double evaluate(const LinearProblem<T>& problem, const Oriented& oriented, std::int64_t* assignment,
                  Solution& solution);
  bool keeps(const LinearProblem<T>& problem, const std::int64_t* matching, double objective);

  Lap<double, T> lap_;
  std::vector<T> transposed_;
  std::vector<double> unmatched_, row_duals_;
  std::vector<char> taken_;
};

}  // namespace graphmatch
