// The costs of a Lawler problem, folded by a team (team.hpp) to full matrices: what pair_costs.hpp and pair_tables.hpp
// are for a thread.
//
// A pair of rows i < j that an edge joins owns the matrix C[k, l] = total quadratic cost of "i -> k and j -> l", and
// its transpose, so that neighbouring members read neighbouring numbers whichever node's labels they share out. Pairs
// are numbered by their first edge. The diagonal holds kBarrier. Costs are divided by a power of two first.
//
// Most cells are zero: those that an edge of graph 2 can pay are written one by one. O(e1^2 + e2^2 + rows^2 + pairs e2)
// work and 8 pairs columns^2 bytes to clear, shared out.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/arena.hpp"
#include "core/barrier.hpp"
#include "core/lawler.hpp"
#include "core/team.hpp"

namespace graphmatch {

struct TeamPairTables {
  // Of the problem being solved; each member has a copy.
  std::int32_t rows = 0, columns = 0, pair_count = 0;
  bool complete = true;
  double scale = 1.0;         // cost = scale * stored cost
  double largest_cost = 0.0;  // these in stored units
  double unmatched_cost = 0.0;
  double unary_error = 0.0;  // largest |exact - stored| unary cost

  float* unary;                  // rows x columns, self-loops included, kBarrier = forbidden
  float* table;                  // pairs x columns x columns: [k][l]
  float* transposed;             // the same: [l][k]
  double* pair_error;            // of each pair
  std::int32_t *first, *second;  // rows of each pair
  std::int32_t* opening_edge;    // first edge of each pair
  std::int32_t* pair_of;         // rows x rows: pair, -1 = none
  std::int32_t* degree;          // pairs of each row
  std::int32_t* row_begin;       // pairs of row i in ascending order: incident[row_begin[i] ... + degree[i]]
  std::int32_t* incident;
  // Edges of the same two nodes as lists; -1 = end.
  std::int32_t* left_key;    // by edge of graph 1, whatever its direction: both nodes in one number
  std::int32_t* left_first;  // the first edge of these nodes, -1 for loops
  std::int32_t* left_next;
  std::int32_t* right_key;   // by edge of graph 2: both nodes in one number
  std::int32_t* right_next;  // the next one of the same direction
  std::int32_t* cell_edge;   // columns x columns: first edge of graph 2 from k to l, -1 = none
  std::int32_t* loop_edge;   // rows: first edge from a row to itself, -1 = none

  GRAPHMATCH_HOST_DEVICE bool has_unmatched_label() const { return !complete || rows > columns; }
  GRAPHMATCH_HOST_DEVICE bool allowed(std::int32_t row, std::int32_t column) const {
    return unary[row * columns + column] < kBarrierTest;
  }
  GRAPHMATCH_HOST_DEVICE const float* table_of(std::int32_t pair) const {
    return table + static_cast<std::int64_t>(pair) * columns * columns;
  }
  GRAPHMATCH_HOST_DEVICE const float* transposed_of(std::int32_t pair) const {
    return transposed + static_cast<std::int64_t>(pair) * columns * columns;
  }
  // Cost of "i -> k and j -> l" for the rows i, j of a pair, in either order.
  GRAPHMATCH_HOST_DEVICE float cost(std::int32_t pair, std::int32_t i, std::int32_t k, std::int32_t l) const {
    return (first[pair] == i ? table_of(pair) : transposed_of(pair))[k * columns + l];
  }

  GRAPHMATCH_HOST_DEVICE static std::int64_t most_pairs(std::int64_t rows, std::int64_t edge_count1) {
    const std::int64_t all = rows * (rows - 1) / 2;
    return edge_count1 < all ? edge_count1 : all;
  }

  // Room for problems of at most these sizes.
  GRAPHMATCH_HOST_DEVICE void place(Arena& arena, std::int64_t most_rows, std::int64_t most_columns,
                                    std::int64_t edge_count1, std::int64_t edge_count2) {
    const std::int64_t pairs = most_pairs(most_rows, edge_count1);
    unary = arena.take<float>(most_rows * most_columns);
    table = arena.take<float>(pairs * most_columns * most_columns);
    transposed = arena.take<float>(pairs * most_columns * most_columns);
    pair_error = arena.take<double>(pairs);
    first = arena.take<std::int32_t>(pairs);
    second = arena.take<std::int32_t>(pairs);
    opening_edge = arena.take<std::int32_t>(pairs);
    pair_of = arena.take<std::int32_t>(most_rows * most_rows);
    degree = arena.take<std::int32_t>(most_rows);
    row_begin = arena.take<std::int32_t>(most_rows);
    incident = arena.take<std::int32_t>(2 * pairs);
    left_key = arena.take<std::int32_t>(edge_count1);
    left_first = arena.take<std::int32_t>(edge_count1);
    left_next = arena.take<std::int32_t>(edge_count1);
    cell_edge = arena.take<std::int32_t>(most_columns * most_columns);
    right_key = arena.take<std::int32_t>(edge_count2);
    right_next = arena.take<std::int32_t>(edge_count2);
    loop_edge = arena.take<std::int32_t>(most_rows);
  }

  // Folds a problem. False on numbers that break the contract (see is_valid of lawler.hpp).
  template <class T, class Team>
  GRAPHMATCH_HOST_DEVICE bool build(Team& team, const LawlerProblem<T>& problem);

  // Cost of a matching (-1 = unmatched) by the costs as they were given, summed in double. Every member gets it.
  template <class T, class Team>
  GRAPHMATCH_HOST_DEVICE_CALL double evaluate(Team& team, const LawlerProblem<T>& problem,
                                              const std::int32_t* assignment) const;

 private:
  template <class T, class Team>
  GRAPHMATCH_HOST_DEVICE double largest_of(Team& team, const LawlerProblem<T>& problem) const;
  template <class T, class Team>
  GRAPHMATCH_HOST_DEVICE void list_edges(Team& team, const LawlerProblem<T>& problem);
  template <class Team>
  GRAPHMATCH_HOST_DEVICE void list_pairs(Team& team, std::int64_t edge_count1);
  template <class T, class Team>
  GRAPHMATCH_HOST_DEVICE void fold_unary(Team& team, const LawlerProblem<T>& problem);
  template <class T, class Team>
  GRAPHMATCH_HOST_DEVICE void fold_pairs(Team& team, const LawlerProblem<T>& problem);
  template <class T>
  GRAPHMATCH_HOST_DEVICE double sum_of(const LawlerProblem<T>& problem, std::int32_t first_edge, std::int32_t k,
                                       std::int32_t l, std::int32_t& terms) const;
};

namespace team_tables {

inline constexpr double kRounding = 1.1102230246251565e-16;  // relative error of one operation in double

// The first place from `begin` on with the given key; `end` where there is none.
GRAPHMATCH_HOST_DEVICE inline std::int32_t find(const std::int32_t* keys, std::int32_t begin, std::int32_t end,
                                                std::int32_t key) {
  std::int32_t found = end;
  // All of them, backwards: loads that wait for no comparison are on their way together.
  GRAPHMATCH_UNROLL
  for (std::int32_t place = end - 1; place >= begin; --place) found = keys[place] == key ? place : found;
  return found;
}

}  // namespace team_tables

// The largest finite |cost|, infinite for an invalid problem.
template <class T, class Team>
GRAPHMATCH_HOST_DEVICE double TeamPairTables::largest_of(Team& team, const LawlerProblem<T>& problem) const {
  const double infinity = INFINITY;
  double largest = problem.complete ? 0.0 : fabs(problem.unmatched_cost);
  if (!(largest < infinity)) largest = infinity;
  auto check_edges = [&](const std::int64_t* edges, std::int64_t count, std::int64_t nodes) {
    share_out(team, 2 * count, [&](std::int64_t k) {
      if (edges[k] < 0 || edges[k] >= nodes) largest = infinity;
    });
  };
  check_edges(problem.edges1, problem.edge_count1, problem.rows);
  check_edges(problem.edges2, problem.edge_count2, problem.columns);
  // Rows of costs over the groups, their entries over the members of each.
  auto& group = team.group();
  for (std::int64_t i = team.group_index(); i < problem.rows; i += team.group_count()) {
    share_out(group, problem.columns, [&](std::int64_t k) {
      const double cost = static_cast<double>(problem.unary[i * problem.unary_stride + k]);
      if (!(cost > -infinity)) {
        largest = infinity;
      } else if (cost < infinity) {
        largest = fmax(largest, fabs(cost));
      }
    });
  }
  for (std::int64_t e = team.group_index(); e < problem.edge_count1; e += team.group_count()) {
    share_out(group, problem.edge_count2, [&](std::int64_t f) {
      const double cost = fabs(static_cast<double>(problem.quadratic[e * problem.quadratic_stride + f]));
      largest = cost < infinity ? fmax(largest, cost) : infinity;
    });
  }
  return team.reduce_max(largest);
}

template <class T, class Team>
GRAPHMATCH_HOST_DEVICE bool TeamPairTables::build(Team& team, const LawlerProblem<T>& problem) {
  const double largest = largest_of(team, problem);
  if (!(largest < static_cast<double>(INFINITY))) return false;
  rows = static_cast<std::int32_t>(problem.rows);
  columns = static_cast<std::int32_t>(problem.columns);
  complete = problem.complete;
  int exponent = 0;
  frexp(largest, &exponent);  // 0 gives exponent 0
  exponent = exponent < -1000 ? -1000 : exponent > 1000 ? 1000 : exponent;
  scale = ldexp(1.0, exponent);
  largest_cost = largest / scale;
  unmatched_cost = complete ? 0.0 : problem.unmatched_cost / scale;
  list_edges(team, problem);
  list_pairs(team, problem.edge_count1);
  fold_unary(team, problem);
  fold_pairs(team, problem);
  team.sync();
  return true;
}

template <class T, class Team>
GRAPHMATCH_HOST_DEVICE void TeamPairTables::list_edges(Team& team, const LawlerProblem<T>& problem) {
  share_out(team, static_cast<std::int64_t>(columns) * columns, [&](std::int64_t cell) { cell_edge[cell] = -1; });
  share_out(team, static_cast<std::int64_t>(rows) * rows, [&](std::int64_t cell) { pair_of[cell] = -1; });
  share_out(team, rows, [&](std::int64_t i) { loop_edge[i] = -1; });
  share_out(team, problem.edge_count1, [&](std::int64_t e) {
    const auto i = static_cast<std::int32_t>(problem.edges1[2 * e]);
    const auto j = static_cast<std::int32_t>(problem.edges1[2 * e + 1]);
    left_key[e] = i < j ? i * rows + j : j * rows + i;
  });
  share_out(team, problem.edge_count2, [&](std::int64_t f) {
    right_key[f] = static_cast<std::int32_t>(problem.edges2[2 * f] * columns + problem.edges2[2 * f + 1]);
  });
  team.sync();
  const auto left_count = static_cast<std::int32_t>(problem.edge_count1);
  share_out(team, left_count, [&](std::int64_t edge) {
    const auto e = static_cast<std::int32_t>(edge);
    const std::int32_t key = left_key[e], first_edge = team_tables::find(left_key, 0, e, key);
    const std::int32_t next_edge = team_tables::find(left_key, e + 1, left_count, key);
    const bool is_loop = key / rows == key % rows;
    if (is_loop && first_edge == e) loop_edge[key / rows] = e;
    left_first[e] = is_loop ? -1 : first_edge;
    left_next[e] = next_edge < left_count ? next_edge : -1;
  });
  const auto right_count = static_cast<std::int32_t>(problem.edge_count2);
  share_out(team, right_count, [&](std::int64_t edge) {
    const auto f = static_cast<std::int32_t>(edge);
    const std::int32_t key = right_key[f], next_edge = team_tables::find(right_key, f + 1, right_count, key);
    if (team_tables::find(right_key, 0, f, key) == f) cell_edge[key] = f;
    right_next[f] = next_edge < right_count ? next_edge : -1;
  });
  team.sync();
}

template <class Team>
GRAPHMATCH_HOST_DEVICE void TeamPairTables::list_pairs(Team& team, std::int64_t edge_count1) {
  double opened = 0.0;
  share_out(team, edge_count1, [&](std::int64_t e) {
    if (left_first[e] != e) return;
    opened += 1.0;
    std::int32_t pair = 0;
    GRAPHMATCH_UNROLL
    for (std::int32_t before = 0; before < e; ++before) pair += left_first[before] == before ? 1 : 0;
    const std::int32_t i = left_key[e] / rows, j = left_key[e] % rows;
    first[pair] = i;
    second[pair] = j;
    opening_edge[pair] = static_cast<std::int32_t>(e);
    pair_of[i * rows + j] = pair_of[j * rows + i] = pair;
  });
  pair_count = static_cast<std::int32_t>(team.reduce_sum(opened));
  team.sync();
  share_out(team, rows, [&](std::int64_t i) {
    std::int32_t pairs = 0;
    GRAPHMATCH_UNROLL
    for (std::int32_t j = 0; j < rows; ++j) pairs += pair_of[i * rows + j] >= 0 ? 1 : 0;
    degree[i] = pairs;
  });
  team.sync();
  share_out(team, rows, [&](std::int64_t i) {
    std::int32_t begin = 0;
    GRAPHMATCH_UNROLL
    for (std::int32_t before = 0; before < i; ++before) begin += degree[before];
    row_begin[i] = begin;
    GRAPHMATCH_UNROLL
    for (std::int32_t j = 0; j < rows; ++j) {
      if (pair_of[i * rows + j] >= 0) incident[begin++] = pair_of[i * rows + j];
    }
  });
}

template <class T, class Team>
GRAPHMATCH_HOST_DEVICE void TeamPairTables::fold_unary(Team& team, const LawlerProblem<T>& problem) {
  const double inverse = 1.0 / scale;
  double largest_error = 0.0;
  share_out(team, static_cast<std::int64_t>(rows) * columns, [&](std::int64_t cell) {
    const std::int32_t i = static_cast<std::int32_t>(cell) / columns, k = static_cast<std::int32_t>(cell) % columns;
    double cost = static_cast<double>(problem.unary[i * problem.unary_stride + k]);
    unary[cell] = kBarrier;
    if (!(cost < static_cast<double>(INFINITY))) return;
    double error = 0.0;
    for (std::int32_t e = loop_edge[i]; e >= 0; e = left_next[e]) {
      for (std::int32_t f = cell_edge[k * columns + k]; f >= 0; f = right_next[f]) {
        cost += static_cast<double>(problem.quadratic[e * problem.quadratic_stride + f]);
        error += team_tables::kRounding * fabs(cost);
      }
    }
    const float stored = static_cast<float>(cost * inverse);
    unary[cell] = stored;
    largest_error = fmax(largest_error, fabs(cost * inverse - static_cast<double>(stored)) + error * inverse);
  });
  unary_error = team.reduce_max(largest_error);
}

// What "first -> k and second -> l" costs, by the costs as they were given, and of how many numbers that is the sum.
template <class T>
GRAPHMATCH_HOST_DEVICE double TeamPairTables::sum_of(const LawlerProblem<T>& problem, std::int32_t first_edge,
                                                     std::int32_t k, std::int32_t l, std::int32_t& terms) const {
  const std::int32_t forward = cell_edge[k * columns + l], backward = cell_edge[l * columns + k];
  double sum = 0.0;
  if (forward < 0 && backward < 0) return sum;
  const std::int64_t* edges1 = problem.edges1;
  for (std::int32_t e = first_edge; e >= 0; e = left_next[e]) {
    const bool ascends = edges1[2 * e] < edges1[2 * e + 1];
    for (std::int32_t f = ascends ? forward : backward; f >= 0; f = right_next[f]) {
      sum += static_cast<double>(problem.quadratic[e * problem.quadratic_stride + f]);
      ++terms;
    }
  }
  return sum;
}

template <class T, class Team>
GRAPHMATCH_HOST_DEVICE void TeamPairTables::fold_pairs(Team& team, const LawlerProblem<T>& problem) {
  const double inverse = 1.0 / scale;
  const std::int64_t cells = static_cast<std::int64_t>(columns) * columns;
  share_out(team, cells * pair_count, [&](std::int64_t cell) { table[cell] = transposed[cell] = 0.0f; });
  team.sync();
  auto& group = team.group();
  for (std::int64_t pair = team.group_index(); pair < pair_count; pair += team.group_count()) {
    float* const costs = table + pair * cells;
    float* const turned = transposed + pair * cells;
    double largest_error = 0.0;
    auto write = [&](std::int32_t k, std::int32_t l) {
      std::int32_t terms = 0;
      const double cost = inverse * sum_of(problem, opening_edge[pair], k, l, terms);
      const float stored = static_cast<float>(cost);
      costs[k * columns + l] = turned[l * columns + k] = stored;
      const double error = fabs(cost - static_cast<double>(stored)) +
                           team_tables::kRounding * static_cast<double>(terms) * terms * largest_cost;
      largest_error = fmax(largest_error, error);
    };
    share_out(group, problem.edge_count2, [&](std::int64_t f) {
      const std::int32_t k = right_key[f] / columns, l = right_key[f] % columns;
      if (k == l || cell_edge[right_key[f]] != f) return;
      write(k, l);
      if (cell_edge[l * columns + k] < 0) write(l, k);
    });
    share_out(group, columns, [&](std::int64_t k) { costs[k * columns + k] = turned[k * columns + k] = kBarrier; });
    largest_error = group.reduce_max(largest_error);
    if (group.rank() == 0) pair_error[pair] = largest_error;
  }
}

template <class T, class Team>
GRAPHMATCH_HOST_DEVICE_CALL double TeamPairTables::evaluate(Team& team, const LawlerProblem<T>& problem,
                                                            const std::int32_t* assignment) const {
  double total = 0.0;
  share_out(team, rows, [&](std::int64_t i) {
    const std::int64_t k = assignment[i];
    if (k >= 0) {
      total += static_cast<double>(problem.unary[i * problem.unary_stride + k]);
    } else if (!complete) {
      total += problem.unmatched_cost;
    }
  });
  share_out(team, problem.edge_count1, [&](std::int64_t e) {
    const std::int64_t k = assignment[problem.edges1[2 * e]], l = assignment[problem.edges1[2 * e + 1]];
    if (k < 0 || l < 0) return;
    for (std::int32_t f = cell_edge[k * columns + l]; f >= 0; f = right_next[f]) {
      total += static_cast<double>(problem.quadratic[e * problem.quadratic_stride + f]);
    }
  });
  return team.reduce_sum(total);
}

}  // namespace graphmatch
