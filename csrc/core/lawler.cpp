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

}  // namespace

template <class T>
bool is_valid(const LawlerProblem<T>& problem, double& largest) {
  if (!edges_inside(problem.edges1, problem.edge_count1, problem.rows)) return false;
  if (!edges_inside(problem.edges2, problem.edge_count2, problem.columns)) return false;
  if (!std::isfinite(problem.unmatched_cost)) return false;
  largest = problem.complete ? 0.0 : std::fabs(problem.unmatched_cost);
  for (std::int64_t i = 0; i < problem.rows; ++i) {
    const T* costs = problem.unary + i * problem.unary_stride;
    for (std::int64_t k = 0; k < problem.columns; ++k) {
      const double cost = static_cast<double>(costs[k]);
      if (std::isnan(cost) || (std::isinf(cost) && cost < 0)) return false;
      if (std::isfinite(cost)) largest = std::max(largest, std::fabs(cost));
    }
  }
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
bool is_valid(const LawlerProblem<T>& problem) {
  double largest;
  return is_valid(problem, largest);
}

template <class T>
double evaluate(const LawlerProblem<T>& problem, const std::int64_t* assignment) {
  double total = 0.0;
  for (std::int64_t i = 0; i < problem.rows; ++i) {
    if (assignment[i] >= 0) {
      total += static_cast<double>(problem.unary[i * problem.unary_stride + assignment[i]]);
    } else if (!problem.complete) {
      total += problem.unmatched_cost;
    }
  }
  // Right edges in lists by their first node, so one left edge looks at the few right edges that can pay.
  std::vector<std::int64_t> head(static_cast<std::size_t>(problem.columns), -1);
  std::vector<std::int64_t> next(static_cast<std::size_t>(problem.edge_count2), -1);
  for (std::int64_t f = problem.edge_count2 - 1; f >= 0; --f) {
    const std::size_t k = static_cast<std::size_t>(problem.edges2[2 * f]);
    next[static_cast<std::size_t>(f)] = head[k];
    head[k] = f;
  }
  for (std::int64_t e = 0; e < problem.edge_count1; ++e) {
    const std::int64_t k = assignment[problem.edges1[2 * e]];
    const std::int64_t l = assignment[problem.edges1[2 * e + 1]];
    if (k < 0 || l < 0) continue;
    for (std::int64_t f = head[static_cast<std::size_t>(k)]; f >= 0; f = next[static_cast<std::size_t>(f)]) {
      if (problem.edges2[2 * f + 1] == l) {
        total += static_cast<double>(problem.quadratic[e * problem.quadratic_stride + f]);
      }
    }
  }
  return total;
}

template bool is_valid(const LawlerProblem<float>&);
template bool is_valid(const LawlerProblem<double>&);
template bool is_valid(const LawlerProblem<float>&, double&);
template bool is_valid(const LawlerProblem<double>&, double&);
template double evaluate(const LawlerProblem<float>&, const std::int64_t*);
template double evaluate(const LawlerProblem<double>&, const std::int64_t*);

}  // namespace graphmatch
