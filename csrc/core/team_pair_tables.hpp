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
  // The pairs of row i in the order of their other rows: incident[row_begin[i] ... + degree[i]]. row_ends: twice the
  // pair, plus 1 where the row is its second one.
  std::int32_t *row_begin, *incident, *row_ends;
  // Edges of the same two nodes as lists; -1 = end.
  std::int32_t* left_key;    // by edge of graph 1, whatever its direction: both nodes in one number
  std::int32_t* left_first;  // the first edge of these nodes, -1 for loops
  std::int32_t* left_next;
  std::int32_t* right_key;   // by edge of graph 2: both nodes in one number
  std::int32_t* right_next;  // the next one of the same direction
  std::int32_t* right_twin;  // the first one of the other direction; kNotFirst = not the first of its own
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
    row_ends = arena.take<std::int32_t>(2 * pairs);
    left_key = arena.take<std::int32_t>(edge_count1);
    left_first = arena.take<std::int32_t>(edge_count1);
    left_next = arena.take<std::int32_t>(edge_count1);
    cell_edge = arena.take<std::int32_t>(most_columns * most_columns);
    right_key = arena.take<std::int32_t>(edge_count2);
    right_next = arena.take<std::int32_t>(edge_count2);
    right_twin = arena.take<std::int32_t>(edge_count2);
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
  static constexpr std::int32_t kNotFirst = -2;
  struct PairEdges;

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
  GRAPHMATCH_HOST_DEVICE double sum_of(const LawlerProblem<T>& problem, const PairEdges& edges, std::int32_t forward,
                                       std::int32_t backward, std::int32_t& terms) const;
  template <class Team>
  GRAPHMATCH_HOST_DEVICE void clear_tables(Team& team);
};

namespace team_tables {

inline constexpr double kRounding = 1.1102230246251565e-16;  // relative error of one operation in double

struct Places {
  std::int32_t first, next;  // -1 = nowhere
};

// The first of `count` places with the given key, and the first one after `place`.
template <class Group>
GRAPHMATCH_HOST_DEVICE Places find(Group& group, const std::int32_t* keys, std::int32_t count, std::int32_t key,
                                   std::int32_t place) {
  std::int32_t first = kNowhere, next = kNowhere;
  const auto size = static_cast<std::int32_t>(group.size());
  GRAPHMATCH_UNROLL(8)
  for (auto k = static_cast<std::int32_t>(group.rank()); k < count; k += size) {
    const bool found = keys[k] == key;
    first = found && k < first ? k : first;
    next = found && k > place && k < next ? k : next;
  }
  first = group.reduce_min(first);
  next = group.reduce_min(next);
  return {first == kNowhere ? -1 : first, next == kNowhere ? -1 : next};
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
  const auto left_count = static_cast<std::int32_t>(problem.edge_count1);
  const auto right_count = static_cast<std::int32_t>(problem.edge_count2);
  share_out(team, left_count, [&](std::int64_t e) {
    const auto i = static_cast<std::int32_t>(problem.edges1[2 * e]);
    const auto j = static_cast<std::int32_t>(problem.edges1[2 * e + 1]);
    left_key[e] = i < j ? i * rows + j : j * rows + i;
  });
  share_out(team, right_count, [&](std::int64_t f) {
    right_key[f] = static_cast<std::int32_t>(problem.edges2[2 * f] * columns + problem.edges2[2 * f + 1]);
  });
  team.sync();
  auto& group = team.group();
  for (auto e = static_cast<std::int32_t>(team.group_index()); e < left_count;
       e += static_cast<std::int32_t>(team.group_count())) {
    const std::int32_t key = left_key[e];
    const auto [first_edge, next_edge] = team_tables::find(group, left_key, left_count, key, e);
    if (group.rank() != 0) continue;
    const bool is_loop = key / rows == key % rows;
    if (is_loop && first_edge == e) loop_edge[key / rows] = e;
    left_first[e] = is_loop ? -1 : first_edge;
    left_next[e] = next_edge;
  }
  for (auto f = static_cast<std::int32_t>(team.group_index()); f < right_count;
       f += static_cast<std::int32_t>(team.group_count())) {
    const std::int32_t key = right_key[f], reverse = key % columns * columns + key / columns;
    const auto [first_edge, next_edge] = team_tables::find(group, right_key, right_count, key, f);
    const std::int32_t twin = team_tables::find(group, right_key, right_count, reverse, f).first;
    if (group.rank() != 0) continue;
    if (first_edge == f) cell_edge[key] = f;
    right_next[f] = next_edge;
    right_twin[f] = first_edge == f ? twin : kNotFirst;
  }
  team.sync();
}

template <class Team>
GRAPHMATCH_HOST_DEVICE void TeamPairTables::list_pairs(Team& team, std::int64_t edge_count1) {
  auto& group = team.group();
  const auto count = [&group](std::int64_t end, const auto& holds) {
    double found = 0.0;
    share_out(group, end, [&](std::int64_t k) { found += holds(k) ? 1.0 : 0.0; });
    return static_cast<std::int32_t>(group.reduce_sum(found));
  };
  double opened = 0.0;
  share_out(team, edge_count1, [&](std::int64_t e) { opened += left_first[e] == e ? 1.0 : 0.0; });
  pair_count = static_cast<std::int32_t>(team.reduce_sum(opened));
  for (std::int64_t e = team.group_index(); e < edge_count1; e += team.group_count()) {
    if (left_first[e] != e) continue;
    const std::int32_t pair = count(e, [&](std::int64_t before) { return left_first[before] == before; });
    if (group.rank() != 0) continue;
    const std::int32_t i = left_key[e] / rows, j = left_key[e] % rows;
    first[pair] = i;
    second[pair] = j;
    opening_edge[pair] = static_cast<std::int32_t>(e);
    pair_of[i * rows + j] = pair_of[j * rows + i] = pair;
  }
  team.sync();
  for (std::int64_t i = team.group_index(); i < rows; i += team.group_count()) {
    const std::int32_t pairs = count(rows, [&](std::int64_t j) { return pair_of[i * rows + j] >= 0; });
    if (group.rank() == 0) degree[i] = pairs;
  }
  team.sync();
  for (std::int64_t i = team.group_index(); i < rows; i += team.group_count()) {
    double before = 0.0;
    share_out(group, i, [&](std::int64_t row) { before += degree[row]; });
    before = group.reduce_sum(before);
    if (group.rank() == 0) row_begin[i] = static_cast<std::int32_t>(before);
  }
  team.sync();
  share_out(team, static_cast<std::int64_t>(rows) * rows, [&](std::int64_t cell) {
    const std::int64_t row = cell / rows;
    if (pair_of[cell] < 0) return;
    std::int32_t place = row_begin[row];
    GRAPHMATCH_UNROLL(8)
    for (std::int64_t before = row * rows; before < cell; ++before) place += pair_of[before] >= 0 ? 1 : 0;
    incident[place] = pair_of[cell];
    row_ends[place] = 2 * pair_of[cell] + (cell % rows < row ? 1 : 0);
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

// The edges of a pair: the first two, which are mostly all, and those after them.
struct TeamPairTables::PairEdges {
  std::int32_t edge, twin, next;  // -1 = none
  bool ascends, twin_ascends;
};

// What "first -> k and second -> l" costs, by the costs as they were given, and of how many numbers that is the sum.
// `forward` and `backward` are the first edges from k to l and from l to k.
template <class T>
GRAPHMATCH_HOST_DEVICE double TeamPairTables::sum_of(const LawlerProblem<T>& problem, const PairEdges& edges,
                                                     std::int32_t forward, std::int32_t backward,
                                                     std::int32_t& terms) const {
  const auto paid = [&](std::int32_t e, std::int32_t f) {
    return static_cast<double>(problem.quadratic[e * problem.quadratic_stride + f]);
  };
  // Nothing here waits for anything but the edges.
  const std::int32_t f = edges.ascends ? forward : backward, g = edges.twin_ascends ? forward : backward;
  const bool pays = f >= 0, twin_pays = edges.twin >= 0 && g >= 0;
  double sum = (pays ? paid(edges.edge, f) : 0.0) + (twin_pays ? paid(edges.twin, g) : 0.0);
  terms += (pays ? 1 : 0) + (twin_pays ? 1 : 0);
  const std::int32_t f_next = pays ? right_next[f] : -1, g_next = twin_pays ? right_next[g] : -1;
  const auto add = [&](std::int32_t e, std::int32_t from) {
    for (std::int32_t at = from; at >= 0; at = right_next[at]) {
      sum += paid(e, at);
      ++terms;
    }
  };
  add(edges.edge, f_next);
  add(edges.twin, g_next);
  for (std::int32_t e = edges.next; e >= 0; e = left_next[e]) {
    add(e, problem.edges1[2 * e] < problem.edges1[2 * e + 1] ? forward : backward);
  }
  return sum;
}

// All zeros, four at a time: arenas align their arrays to 16 bytes.
template <class Team>
GRAPHMATCH_HOST_DEVICE void TeamPairTables::clear_tables(Team& team) {
  struct alignas(16) Four {
    float values[4];
  };
  const std::int64_t count = static_cast<std::int64_t>(columns) * columns * pair_count;
  const auto clear = [&](float* values) {
    auto* const fours = reinterpret_cast<Four*>(values);
    share_out(team, count / 4, [&](std::int64_t k) { fours[k] = Four{}; });
    share_out(team, count % 4, [&](std::int64_t k) { values[count / 4 * 4 + k] = 0.0f; });
  };
  clear(table);
  clear(transposed);
}

template <class T, class Team>
GRAPHMATCH_HOST_DEVICE void TeamPairTables::fold_pairs(Team& team, const LawlerProblem<T>& problem) {
  const double inverse = 1.0 / scale;
  const std::int64_t cells = static_cast<std::int64_t>(columns) * columns;
  clear_tables(team);
  team.sync();
  auto& group = team.group();
  for (std::int64_t pair = team.group_index(); pair < pair_count; pair += team.group_count()) {
    float* const costs = table + pair * cells;
    float* const turned = transposed + pair * cells;
    const std::int64_t* ends = problem.edges1;
    const auto ascends = [ends](std::int32_t e) { return e >= 0 && ends[2 * e] < ends[2 * e + 1]; };
    const std::int32_t edge = opening_edge[pair], twin_edge = left_next[edge];
    const PairEdges edges{edge, twin_edge, twin_edge < 0 ? -1 : left_next[twin_edge], ascends(edge),
                          ascends(twin_edge)};
    double largest_error = 0.0;
    auto write = [&](std::int64_t k, std::int64_t l, std::int32_t forward, std::int32_t backward) {
      std::int32_t terms = 0;
      const double cost = inverse * sum_of(problem, edges, forward, backward, terms);
      const float stored = static_cast<float>(cost);
      costs[k * columns + l] = turned[l * columns + k] = stored;
      const double error = fabs(cost - static_cast<double>(stored)) +
                           team_tables::kRounding * static_cast<double>(terms) * terms * largest_cost;
      largest_error = fmax(largest_error, error);
    };
    share_out(group, problem.edge_count2, [&](std::int64_t edge) {
      const auto f = static_cast<std::int32_t>(edge);
      const std::int32_t twin = right_twin[f];
      const std::int64_t k = problem.edges2[2 * edge], l = problem.edges2[2 * edge + 1];
      if (k == l || twin == kNotFirst) return;
      write(k, l, f, twin);
      if (twin < 0) write(l, k, -1, f);  // else the twin does it
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
