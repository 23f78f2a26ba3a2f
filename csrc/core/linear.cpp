#include "core/linear.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/lap.hpp"

namespace graphmatch {
namespace {

// Copies the costs to double, transposed when there are more rows than columns to fill. False on NaN or -infinity.
template <class T>
bool copy_costs(const LinearProblem<T>& problem, bool transposed, std::vector<double>& costs) {
  costs.resize(static_cast<std::size_t>(problem.rows * problem.columns));
  for (std::int64_t i = 0; i < problem.rows; ++i) {
    for (std::int64_t k = 0; k < problem.columns; ++k) {
      const double cost = static_cast<double>(problem.costs[i * problem.stride + k]);
      if (std::isnan(cost) || (std::isinf(cost) && cost < 0)) return false;
      costs[transposed ? k * problem.rows + i : i * problem.columns + k] = cost;
    }
  }
  return true;
}

// Dual objective of the column duals alone: every row then takes its cheapest label. Valid for any duals that are at
// most 0 on columns that may stay free, so rounding in the search cannot break it.
double dual_bound(const std::vector<double>& costs, std::int64_t rows, std::int64_t columns, const double* unmatched,
                  const std::vector<double>& column_duals) {
  const bool may_stay_free = unmatched != nullptr || rows < columns;
  double bound = 0.0;
  double magnitude = 0.0;
  auto add = [&](double term) {
    bound += term;
    magnitude += std::fabs(term);
  };
  for (std::int64_t k = 0; k < columns; ++k) add(may_stay_free ? std::min(column_duals[k], 0.0) : column_duals[k]);
  for (std::int64_t i = 0; i < rows; ++i) {
    double lowest = unmatched != nullptr ? unmatched[i] : std::numeric_limits<double>::infinity();
    for (std::int64_t k = 0; k < columns; ++k) {
      lowest =
          std::min(lowest, costs[i * columns + k] - (may_stay_free ? std::min(column_duals[k], 0.0) : column_duals[k]));
    }
    add(lowest);
  }
  return bound - std::numeric_limits<double>::epsilon() * static_cast<double>(rows + columns + 1) * magnitude;
}

}  // namespace

template <class T>
Solution solve_linear(const LinearProblem<T>& problem, std::int64_t* assignment) {
  std::fill_n(assignment, problem.rows, -1);
  const bool transposed = problem.complete && problem.rows > problem.columns;
  std::vector<double> costs;
  if (!copy_costs(problem, transposed, costs) || !std::isfinite(problem.unmatched_cost)) return invalid_solution();

  const std::int64_t rows = transposed ? problem.columns : problem.rows;
  const std::int64_t columns = transposed ? problem.rows : problem.columns;
  const std::vector<double> unmatched(static_cast<std::size_t>(rows), problem.unmatched_cost);
  const double* prices = problem.complete ? nullptr : unmatched.data();
  Lap<double> lap;
  if (!lap.solve(rows, columns, costs.data(), columns, prices)) return infeasible_solution(1);

  const std::vector<std::int64_t>& matched = transposed ? lap.column_to_row : lap.row_to_column;
  std::copy(matched.begin(), matched.end(), assignment);
  Solution solution;
  solution.status = Status::kOptimal;
  solution.iterations = 1;
  for (std::int64_t i = 0; i < problem.rows; ++i) {
    if (assignment[i] >= 0) {
      solution.objective += static_cast<double>(problem.costs[i * problem.stride + assignment[i]]);
    } else if (!problem.complete) {
      solution.objective += problem.unmatched_cost;
    }
  }
  solution.lower_bound = std::min(dual_bound(costs, rows, columns, prices, lap.v), solution.objective);
  return solution;
}

template Solution solve_linear(const LinearProblem<float>&, std::int64_t*);
template Solution solve_linear(const LinearProblem<double>&, std::int64_t*);

}  // namespace graphmatch
