#include "core/linear.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/simd.hpp"

namespace graphmatch {
namespace {

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();
// Duals beyond this are garbage: costs are far smaller, and sums of larger ones might overflow.
constexpr double kLargestDual = 1e150;

template <class T>
GRAPHMATCH_INLINE bool no_bad_cost(const T* costs, std::int64_t count) {
  int bad = 0;
  for (std::int64_t k = 0; k < count; ++k) bad |= costs[k] > -std::numeric_limits<T>::infinity() ? 0 : 1;
  return bad == 0;
}

// Whether no cost is NaN or -infinity.
GRAPHMATCH_MULTIVERSION bool are_costs(const float* costs, std::int64_t count) { return no_bad_cost(costs, count); }
GRAPHMATCH_MULTIVERSION bool are_costs(const double* costs, std::int64_t count) { return no_bad_cost(costs, count); }

template <class T>
bool is_valid(const LinearProblem<T>& problem) {
  if (!std::isfinite(problem.unmatched_cost)) return false;
  if (problem.stride == problem.columns) return are_costs(problem.costs, problem.rows * problem.columns);
  for (std::int64_t i = 0; i < problem.rows; ++i) {
    if (!are_costs(problem.costs + i * problem.stride, problem.columns)) return false;
  }
  return true;
}

// In square blocks: either side of the copy then meets whole cache lines.
template <class T>
void transpose(const T* source, std::int64_t stride, std::int64_t rows, std::int64_t columns, T* target) {
  constexpr std::int64_t kBlock = 16;
  for (std::int64_t i = 0; i < rows; i += kBlock) {
    for (std::int64_t k = 0; k < columns; k += kBlock) {
      const std::int64_t last_row = std::min(i + kBlock, rows), last_column = std::min(k + kBlock, columns);
      for (std::int64_t a = i; a < last_row; ++a) {
        for (std::int64_t b = k; b < last_column; ++b) target[b * rows + a] = source[a * stride + b];
      }
    }
  }
}

}  // namespace

template <class T>
Solution LinearSolver<T>::solve(const LinearProblem<T>& problem, const LinearStart& start, const LinearDuals& duals,
                                std::int64_t* assignment) {
  std::fill_n(assignment, problem.rows, -1);
  if (!is_valid(problem)) return invalid_solution();

  const Oriented oriented = orient(problem);
  Solution solution;
  const bool square = !oriented.columns_may_stay_free;
  if (!square || start.row_duals == nullptr || !warm(problem, oriented, start.row_duals, assignment, solution)) {
    if (!lap_.solve(oriented.rows, oriented.columns, oriented.costs, oriented.stride, oriented.unmatched)) {
      std::fill_n(assignment, problem.rows, -1);
      return infeasible_solution(1);
    }
    evaluate(problem, oriented, assignment, solution);
  }
  if (start.matching != nullptr && keeps(problem, start.matching, solution.objective)) {
    std::copy_n(start.matching, problem.rows, assignment);
    solution.stage = Stage::kWarmStart;
  }
  double* of_rows = oriented.transposed ? duals.columns : duals.rows;
  double* of_columns = oriented.transposed ? duals.rows : duals.columns;
  if (of_rows != nullptr) std::copy(lap_.u.begin(), lap_.u.end(), of_rows);
  if (of_columns != nullptr) std::copy(lap_.v.begin(), lap_.v.end(), of_columns);
  return solution;
}

template <class T>
typename LinearSolver<T>::Oriented LinearSolver<T>::orient(const LinearProblem<T>& problem) {
  if (problem.complete && problem.rows > problem.columns) {
    transposed_.resize(static_cast<std::size_t>(problem.rows * problem.columns));
    transpose(problem.costs, problem.stride, problem.rows, problem.columns, transposed_.data());
    return {true, problem.columns, problem.rows, transposed_.data(), problem.rows, nullptr, true};
  }
  if (!problem.complete) unmatched_.assign(static_cast<std::size_t>(problem.rows), problem.unmatched_cost);
  return {false,
          problem.rows,
          problem.columns,
          problem.costs,
          problem.stride,
          problem.complete ? nullptr : unmatched_.data(),
          !problem.complete || problem.rows < problem.columns};
}

// Solves a square problem from row duals. False where they were no good start: rounding may then have hidden the
// cheapest matching.
template <class T>
bool LinearSolver<T>::warm(const LinearProblem<T>& problem, const Oriented& oriented, const double* row_duals,
                           std::int64_t* assignment, Solution& solution) {
  row_duals_.resize(static_cast<std::size_t>(oriented.rows));
  for (std::int64_t i = 0; i < oriented.rows; ++i) {
    row_duals_[i] = std::fabs(row_duals[i]) < kLargestDual ? row_duals[i] : 0.0;
  }
  if (!lap_.solve(oriented.rows, oriented.columns, oriented.costs, oriented.stride, nullptr, row_duals_.data())) {
    return false;
  }
  const double gap = evaluate(problem, oriented, assignment, solution);
  double paid = 0.0;
  for (std::int64_t i = 0; i < problem.rows; ++i) {
    paid += std::fabs(static_cast<double>(problem.costs[i * problem.stride + assignment[i]]));
  }
  return gap <= 4.0 * kEpsilon * static_cast<double>(oriented.rows + oriented.columns) * paid;
}

// Turns the last solve of `lap_` into the answer and its duals into a certificate: each row then takes its cheapest
// label, so that rounding in the search cannot break it. Returns the gap between both sums as they are.
template <class T>
double LinearSolver<T>::evaluate(const LinearProblem<T>& problem, const Oriented& oriented, std::int64_t* assignment,
                                 Solution& solution) {
  if (oriented.columns_may_stay_free) {
    for (double& dual : lap_.v) dual = std::min(dual, 0.0);
  }
  lap_.tighten();
  // Compensated summation: the error is that of the last rounding, whatever the number of terms.
  double sum = 0.0, lost = 0.0, magnitude = 0.0;
  for (const std::vector<double>* duals : {&lap_.v, &lap_.u}) {
    for (const double dual : *duals) {
      const double next = sum + dual;
      lost += std::fabs(sum) >= std::fabs(dual) ? (sum - next) + dual : (dual - next) + sum;
      sum = next;
      magnitude += std::fabs(dual);
    }
  }
  const double bound = sum + lost;
  const std::vector<std::int64_t>& matched = oriented.transposed ? lap_.column_to_row : lap_.row_to_column;
  std::copy(matched.begin(), matched.end(), assignment);
  solution = Solution{};
  solution.status = Status::kOptimal;
  solution.iterations = 1;
  for (std::int64_t i = 0; i < problem.rows; ++i) {
    if (assignment[i] >= 0) {
      solution.objective += static_cast<double>(problem.costs[i * problem.stride + assignment[i]]);
    } else if (!problem.complete) {
      solution.objective += problem.unmatched_cost;
    }
  }
  // Half a unit in the last place for each row's dual, for the sum, and for this subtraction.
  solution.lower_bound = std::min(bound - 2.0 * kEpsilon * magnitude, solution.objective);
  return solution.objective - bound;
}

// Whether this is a matching of the problem that costs no more than the objective.
template <class T>
bool LinearSolver<T>::keeps(const LinearProblem<T>& problem, const std::int64_t* matching, double objective) {
  taken_.assign(static_cast<std::size_t>(problem.columns), 0);
  std::int64_t matched = 0;
  double total = 0.0;
  for (std::int64_t i = 0; i < problem.rows; ++i) {
    const std::int64_t column = matching[i];
    if (column == -1) {
      if (!problem.complete) total += problem.unmatched_cost;
      continue;
    }
    if (column < 0 || column >= problem.columns || taken_[column]) return false;
    taken_[column] = 1;
    ++matched;
    total += static_cast<double>(problem.costs[i * problem.stride + column]);
  }
  return total <= objective && (!problem.complete || matched == std::min(problem.rows, problem.columns));
}

template class LinearSolver<float>;
template class LinearSolver<double>;

}  // namespace graphmatch
