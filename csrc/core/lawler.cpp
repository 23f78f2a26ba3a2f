#include "core/lawler.hpp"

#include <cmath>
#include <vector>

namespace graphmatch {
namespace {

bool edges_inside(const std::int64_t* edges, std::int64_t count, std::int64_t nodes) {
  for (std::int64_t k = 0; k < 2 * count; ++k) {
    if (edges[k] < 0 || edges[k] >= nodes) return false;
  }
  return true;
}

}  // namespace

template <class T>
bool is_valid(const LawlerProblem<T>& problem) {
  if (!edges_inside(problem.edges1, problem.edge_count1, problem.rows)) return false;
  if (!edges_inside(problem.edges2, problem.edge_count2, problem.columns)) return false;
  if (!std::isfinite(problem.unmatched_cost)) return false;
  for (std::int64_t i = 0; i < problem.rows; ++i) {
    for (std::int64_t k = 0; k < problem.columns; ++k) {
      const T cost = problem.unary[i * problem.unary_stride + k];
      if (std::isnan(cost) || (std::isinf(cost) && cost < 0)) return false;
    }
  }
  for (std::int64_t e = 0; e < problem.edge_count1; ++e) {
    for (std::int64_t f = 0; f < problem.edge_count2; ++f) {
      if (!std::isfinite(problem.quadratic[e * problem.quadratic_stride + f])) return false;
    }
  }
  return true;
}

template <class T>
double largest_magnitude(const LawlerProblem<T>& problem) {
  double largest = problem.complete ? 0.0 : std::fabs(problem.unmatched_cost);
  for (std::int64_t i = 0; i < problem.rows; ++i) {
    for (std::int64_t k = 0; k < problem.columns; ++k) {
      const double cost = std::fabs(static_cast<double>(problem.unary[i * problem.unary_stride + k]));
      if (std::isfinite(cost) && cost > largest) largest = cost;
    }
  }
  for (std::int64_t e = 0; e < problem.edge_count1; ++e) {
    for (std::int64_t f = 0; f < problem.edge_count2; ++f) {
      const double cost = std::fabs(static_cast<double>(problem.quadratic[e * problem.quadratic_stride + f]));
      if (cost > largest) largest = cost;
    }
  }
  return largest;
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
template double largest_magnitude(const LawlerProblem<float>&);
template double largest_magnitude(const LawlerProblem<double>&);
template double evaluate(const LawlerProblem<float>&, const std::int64_t*);
template double evaluate(const LawlerProblem<double>&, const std::int64_t*);

}  // namespace graphmatch
