#include "core/lawler.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/simd.hpp"

namespace graphmatch {
namespace {

bool edges_inside(const std::int64_t* edges, std::int64_t count, std::int64_t nodes) {
  for (std::int64_t k = 0; k < 2 * count; ++k) {
    if (edges[k] < 0 || edges[k] >= nodes) return false;
  }
  return true;
}

// Largest |cost|, infinite if one of them is not finite.
template <class T>
GRAPHMATCH_INLINE T largest_magnitude(const T* costs, std::int64_t count) {
  T largest = 0;
  bool finite = true;
#pragma omp simd reduction(max : largest) reduction(& : finite)
  for (std::int64_t k = 0; k < count; ++k) {
    const T cost = std::fabs(costs[k]);
    largest = cost > largest ? cost : largest;
    finite &= cost <= std::numeric_limits<T>::max();  // false for NaN too
  }
  return finite ? largest : std::numeric_limits<T>::infinity();
}

GRAPHMATCH_MULTIVERSION float largest_of(const float* costs, std::int64_t count) {
  return largest_magnitude(costs, count);
}

GRAPHMATCH_MULTIVERSION double largest_of(const double* costs, std::int64_t count) {
  return largest_magnitude(costs, count);
}

// Largest |cost| that is finite, -1 if a cost is NaN or -infinity.
template <class T>
GRAPHMATCH_INLINE T largest_cost_but_infinity(const T* costs, std::int64_t count) {
  constexpr T kLargest = std::numeric_limits<T>::max();
  T largest = 0;
  bool valid = true;
#pragma omp simd reduction(max : largest) reduction(& : valid)
  for (std::int64_t k = 0; k < count; ++k) {
    const T size = std::fabs(costs[k]);
    const T finite = size <= kLargest ? size : T(0);
    largest = finite > largest ? finite : largest;
    valid &= costs[k] >= -kLargest;  // false for NaN too
  }
  return valid ? largest : T(-1);
}

GRAPHMATCH_MULTIVERSION float largest_finite(const float* costs, std::int64_t count) {
  return largest_cost_but_infinity(costs, count);
}

GRAPHMATCH_MULTIVERSION double largest_finite(const double* costs, std::int64_t count) {
  return largest_cost_but_infinity(costs, count);
}

}  // namespace

template <class T>
bool has_valid_unary_costs(const LawlerProblem<T>& problem, double& largest) {
  const bool in_one_piece = problem.unary_stride == problem.columns;
  const std::int64_t pieces = in_one_piece ? 1 : problem.rows;
  const std::int64_t length = in_one_piece ? problem.rows * problem.columns : problem.columns;
  for (std::int64_t piece = 0; piece < pieces; ++piece) {
    const double row_largest =
        static_cast<double>(largest_finite(problem.unary + piece * problem.unary_stride, length));
    if (row_largest < 0) return false;
    largest = std::max(largest, row_largest);
  }
  return true;
}

template <class T>
bool has_valid_edges(const LawlerProblem<T>& problem, double& largest) {
  if (!edges_inside(problem.edges1, problem.edge_count1, problem.rows)) return false;
  if (!edges_inside(problem.edges2, problem.edge_count2, problem.columns)) return false;
  if (!std::isfinite(problem.unmatched_cost)) return false;
  if (!problem.complete) largest = std::max(largest, std::fabs(problem.unmatched_cost));
  const bool in_one_piece = problem.quadratic_stride == problem.edge_count2;
  const std::int64_t pieces = in_one_piece ? 1 : problem.edge_count1;
  const std::int64_t length = in_one_piece ? problem.edge_count1 * problem.edge_count2 : problem.edge_count2;
  for (std::int64_t piece = 0; piece < pieces; ++piece) {
    const T* costs = problem.quadratic + piece * problem.quadratic_stride;
    const double row_largest = static_cast<double>(largest_of(costs, length));
    if (!std::isfinite(row_largest)) return false;
    largest = std::max(largest, row_largest);
  }
  return true;
}

template <class T>
bool is_valid(const LawlerProblem<T>& problem, double& largest) {
  largest = 0.0;
  return has_valid_edges(problem, largest) && has_valid_unary_costs(problem, largest);
}

template <class T>
bool is_valid(const LawlerProblem<T>& problem) {
  double largest;
  return is_valid(problem, largest);
}

void RightEdges::build(const std::int64_t* edges, std::int64_t count, std::int64_t columns) {
  begin_.assign(static_cast<std::size_t>(columns + 1), 0);
  for (std::int64_t f = 0; f < count; ++f) ++begin_[edges[2 * f] + 1];
  for (std::int64_t k = 0; k < columns; ++k) begin_[k + 1] += begin_[k];
  entries_.resize(static_cast<std::size_t>(count));
  std::vector<std::int64_t> place(begin_.begin(), begin_.end() - 1);
  for (std::int64_t f = 0; f < count; ++f) entries_[place[edges[2 * f]]++] = {edges[2 * f + 1], f};
}

template <class T>
double evaluate(const LawlerProblem<T>& problem, const RightEdges& right_edges, const std::int64_t* assignment) {
  double total = 0.0;
  for (std::int64_t i = 0; i < problem.rows; ++i) {
    if (assignment[i] >= 0) {
      total += static_cast<double>(problem.unary[i * problem.unary_stride + assignment[i]]);
    } else if (!problem.complete) {
      total += problem.unmatched_cost;
    }
  }
  for_each_paid_pair(problem, right_edges, assignment, [&](std::int64_t e, std::int64_t f) {
    total += static_cast<double>(problem.quadratic[e * problem.quadratic_stride + f]);
  });
  return total;
}

template <class T>
double evaluate(const LawlerProblem<T>& problem, const std::int64_t* assignment) {
  RightEdges right_edges;
  right_edges.build(problem.edges2, problem.edge_count2, problem.columns);
  return evaluate(problem, right_edges, assignment);
}

template bool is_valid(const LawlerProblem<float>&);
template bool is_valid(const LawlerProblem<double>&);
template bool is_valid(const LawlerProblem<float>&, double&);
template bool is_valid(const LawlerProblem<double>&, double&);
template bool has_valid_unary_costs(const LawlerProblem<float>&, double&);
template bool has_valid_unary_costs(const LawlerProblem<double>&, double&);
template bool has_valid_edges(const LawlerProblem<float>&, double&);
template bool has_valid_edges(const LawlerProblem<double>&, double&);
template double evaluate(const LawlerProblem<float>&, const std::int64_t*);
template double evaluate(const LawlerProblem<double>&, const std::int64_t*);
template double evaluate(const LawlerProblem<float>&, const RightEdges&, const std::int64_t*);
template double evaluate(const LawlerProblem<double>&, const RightEdges&, const std::int64_t*);

}  // namespace graphmatch
