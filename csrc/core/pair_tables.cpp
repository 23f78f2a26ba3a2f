#include "core/pair_tables.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace graphmatch {
namespace {

// Relative rounding error of one addition.
constexpr double kRounding = 0.5 * std::numeric_limits<double>::epsilon();

// Largest rounding error of a sum of `count` doubles of at most `largest`, added one by one.
double summation_error(std::int64_t count, double largest) {
  const double terms = static_cast<double>(count);
  return count < 2 ? 0.0 : kRounding * (terms - 1.0) * terms * largest;
}

}  // namespace

template <class T>
void PairTables::build(const LawlerProblem<T>& problem) {
  rows = problem.rows;
  columns = problem.columns;
  stride = padded(columns);
  int exponent = 0;
  const double largest = largest_magnitude(problem);
  std::frexp(largest, &exponent);                              // 0 gives exponent 0
  scale = std::ldexp(1.0, std::clamp(exponent, -1000, 1000));  // its inverse stays a normal number
  largest_cost = largest / scale;
  unmatched_cost = problem.complete ? 0.0 : problem.unmatched_cost / scale;
  list_pairs(problem.edges1, problem.edge_count1);
  fold_unary(problem);
  fold_pairs(problem);
}

void PairTables::list_pairs(const std::int64_t* edges, std::int64_t edge_count) {
  pairs.clear();
  pair_of_.assign(static_cast<std::size_t>(rows * rows), -1);
  degree.assign(static_cast<std::size_t>(rows), 0);
  for (std::int64_t e = 0; e < edge_count; ++e) {
    const std::int64_t i = std::min(edges[2 * e], edges[2 * e + 1]);
    const std::int64_t j = std::max(edges[2 * e], edges[2 * e + 1]);
    if (i == j || find(i, j) >= 0) continue;
    const std::int64_t pair = static_cast<std::int64_t>(pairs.size());
    pair_of_[static_cast<std::size_t>(i * rows + j)] = pair;
    pair_of_[static_cast<std::size_t>(j * rows + i)] = pair;
    pairs.push_back({i, j});
    ++degree[static_cast<std::size_t>(i)];
    ++degree[static_cast<std::size_t>(j)];
  }
  row_begin_.assign(static_cast<std::size_t>(rows + 1), 0);
  for (std::int64_t i = 0; i < rows; ++i) row_begin_[i + 1] = row_begin_[i] + degree[i];
  incident_.resize(2 * pairs.size());
  std::vector<std::int64_t> fill(row_begin_.begin(), row_begin_.end() - 1);
  for (std::size_t p = 0; p < pairs.size(); ++p) {
    incident_[fill[pairs[p].first]++] = static_cast<std::int64_t>(p);
    incident_[fill[pairs[p].second]++] = static_cast<std::int64_t>(p);
  }
}

template <class T>
void PairTables::fold_unary(const LawlerProblem<T>& problem) {
  const double inverse = 1.0 / scale;
  unary_.assign(static_cast<std::size_t>(rows * stride), kBarrier);
  unary_error_ = 0.0;
  std::vector<double> loops, sum_errors;
  for (std::int64_t e = 0; e < problem.edge_count1; ++e) {
    const std::int64_t i = problem.edges1[2 * e];
    if (i != problem.edges1[2 * e + 1]) continue;
    loops.resize(static_cast<std::size_t>(rows * columns), 0.0);
    sum_errors.resize(static_cast<std::size_t>(rows * columns), 0.0);
    for (std::int64_t f = 0; f < problem.edge_count2; ++f) {
      const std::int64_t k = problem.edges2[2 * f];
      if (k != problem.edges2[2 * f + 1]) continue;
      const double cost = static_cast<double>(problem.quadratic[e * problem.quadratic_stride + f]);
      if (cost == 0.0) continue;
      double& sum = loops[i * columns + k];
      sum += cost;
      sum_errors[i * columns + k] += kRounding * std::fabs(sum);
    }
  }
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t k = 0; k < columns; ++k) {
      double cost = static_cast<double>(problem.unary[i * problem.unary_stride + k]);
      if (std::isinf(cost)) continue;
      double error = 0.0;
      if (!loops.empty()) {
        cost += loops[i * columns + k];
        error = (sum_errors[i * columns + k] + kRounding * std::fabs(cost)) * inverse;
      }
      cost *= inverse;
      const float rounded = static_cast<float>(cost);
      unary_[i * stride + k] = rounded;
      unary_error_ = std::max(unary_error_, std::fabs(cost - static_cast<double>(rounded)) + error);
    }
  }
}

template <class T>
void PairTables::fold_pairs(const LawlerProblem<T>& problem) {
  const double inverse = 1.0 / scale;
  const std::size_t table_size = static_cast<std::size_t>(columns * stride);
  tables_.assign(pairs.size() * table_size, 0.0f);
  pair_error_.assign(pairs.size(), 0.0);

  // Left edges grouped by pair, so that one double-precision table is enough.
  std::vector<std::int64_t> head(pairs.size(), -1);
  std::vector<std::int64_t> next(static_cast<std::size_t>(problem.edge_count1), -1);
  for (std::int64_t e = problem.edge_count1 - 1; e >= 0; --e) {
    const std::int64_t i = problem.edges1[2 * e];
    const std::int64_t j = problem.edges1[2 * e + 1];
    if (i == j) continue;
    const std::int64_t pair = find(i, j);
    next[e] = head[pair];
    head[pair] = e;
  }
  // Where a right edge lands in a table, and where its reverse does. Loops join a column with itself: never paid here.
  struct RightEdge {
    std::int64_t index, forward, backward;
  };
  std::vector<RightEdge> right_edges;
  right_edges.reserve(static_cast<std::size_t>(problem.edge_count2));
  for (std::int64_t f = 0; f < problem.edge_count2; ++f) {
    const std::int64_t k = problem.edges2[2 * f];
    const std::int64_t l = problem.edges2[2 * f + 1];
    if (k != l) right_edges.push_back({f, k * stride + l, l * stride + k});
  }

  // How many right edges share a cell at most.
  std::vector<std::int64_t> multiplicity(table_size, 0);
  std::int64_t largest_multiplicity = 0;
  for (const RightEdge& edge : right_edges) {
    largest_multiplicity = std::max(largest_multiplicity, ++multiplicity[edge.forward]);
  }

  std::vector<double> exact(table_size, 0.0);
  for (std::size_t p = 0; p < pairs.size(); ++p) {
    bool has_forward = false;
    bool has_backward = false;
    std::int64_t left_edges = 0;
    for (std::int64_t e = head[p]; e >= 0; e = next[e]) {
      ++left_edges;
      const T* costs = problem.quadratic + e * problem.quadratic_stride;
      if (problem.edges1[2 * e] == pairs[p].first) {
        has_forward = true;
        for (const RightEdge& edge : right_edges) exact[edge.forward] += static_cast<double>(costs[edge.index]);
      } else {
        has_backward = true;
        for (const RightEdge& edge : right_edges) exact[edge.backward] += static_cast<double>(costs[edge.index]);
      }
    }
    float* table = tables_.data() + p * table_size;
    auto round_cell = [&](std::int64_t cell) {
      const double cost = exact[cell] * inverse;
      const float rounded = static_cast<float>(cost);
      table[cell] = rounded;
      pair_error_[p] = std::max(pair_error_[p], std::fabs(cost - static_cast<double>(rounded)));
    };
    // A cell may come up twice: all are rounded before any is cleared for the next pair.
    for (const RightEdge& edge : right_edges) {
      if (has_forward) round_cell(edge.forward);
      if (has_backward) round_cell(edge.backward);
    }
    pair_error_[p] += summation_error(left_edges * largest_multiplicity, largest_cost);
    for (const RightEdge& edge : right_edges) exact[edge.forward] = exact[edge.backward] = 0.0;
    for (std::int64_t k = 0; k < columns; ++k) table[k * stride + k] = kBarrier;
  }
}

template void PairTables::build(const LawlerProblem<float>&);
template void PairTables::build(const LawlerProblem<double>&);

}  // namespace graphmatch
