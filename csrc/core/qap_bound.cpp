#include "core/qap_bound.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "core/linear.hpp"

namespace graphmatch {
namespace {

// Each row without its diagonal, sorted.
template <class Order>
std::vector<double> sorted_rows(const std::vector<double>& matrix, std::int64_t nodes, Order order) {
  std::vector<double> rows;
  rows.reserve(static_cast<std::size_t>(nodes * std::max<std::int64_t>(nodes - 1, 0)));
  for (std::int64_t i = 0; i < nodes; ++i) {
    const auto begin = static_cast<std::ptrdiff_t>(rows.size());
    for (std::int64_t j = 0; j < nodes; ++j) {
      if (j != i) rows.push_back(matrix[i * nodes + j]);
    }
    std::sort(rows.begin() + begin, rows.end(), order);
  }
  return rows;
}

}  // namespace

double rounded_bound(const QapCosts& costs, double bound) { return costs.integral ? std::ceil(bound) : bound; }

double gilmore_lawler_bound(const QapCosts& costs) {
  const std::int64_t n = costs.nodes;
  if (n == 0) return 0.0;
  const std::vector<double> flow = sorted_rows(costs.flow, n, std::less<double>());
  const std::vector<double> distance = sorted_rows(costs.distance, n, std::greater<double>());
  std::vector<double> lowest(static_cast<std::size_t>(n * n));
  double slack = 0.0;
  for (std::int64_t i = 0; i < n; ++i) {
    const double* a = flow.data() + i * (n - 1);
    double largest = 0.0;
    for (std::int64_t k = 0; k < n; ++k) {
      const double* b = distance.data() + k * (n - 1);
      double product = 0.0, magnitude = 0.0;
      for (std::int64_t j = 0; j < n - 1; ++j) {
        product += a[j] * b[j];
        magnitude += std::fabs(a[j] * b[j]);
      }
      double& cost = lowest[i * n + k];
      cost = costs.weight() * product;
      if (costs.is_forbidden(i, k)) {
        cost = std::numeric_limits<double>::infinity();
      } else if (!costs.linear.empty()) {
        cost += costs.linear[i * n + k];
        magnitude += std::fabs(costs.linear[i * n + k]);
      }
      largest = std::max(largest, magnitude);
    }
    slack += largest;
  }
  LinearProblem<double> problem;
  problem.rows = problem.columns = problem.stride = n;
  problem.costs = lowest.data();
  std::vector<std::int64_t> assignment(static_cast<std::size_t>(n));
  const Solution solution = LinearSolver<double>().solve(problem, LinearStart{}, LinearDuals{}, assignment.data());
  if (solution.status == Status::kInfeasible) return std::numeric_limits<double>::infinity();
  // Sums of integers are exact; others may be off by the rounding of n terms.
  const double rounding =
      costs.integral ? 0.0 : static_cast<double>(n + 8) * std::numeric_limits<double>::epsilon() * slack;
  return rounded_bound(costs, solution.lower_bound - rounding);
}

}  // namespace graphmatch
