// Moves and tabu search of a team: every price against a recomputed one, the search against enumeration and the search
// of a thread, and the same matchings from teams of every size.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "core/lawler.hpp"
#include "core/linear.hpp"
#include "core/pair_costs.hpp"
#include "core/random.hpp"
#include "core/tabu_search.hpp"
#include "core/team.hpp"
#include "core/team_moves.hpp"
#include "core/team_pair_tables.hpp"
#include "core/thread_team.hpp"
#include "problems.hpp"

namespace graphmatch {

// A problem with its tables, its moves, and a matching to start from.
struct MoveCase {
  std::vector<double> unary, quadratic;
  std::vector<std::int64_t> edges1, edges2, start;
  LawlerProblem<double> problem;
  TeamPairTables tables;
  TeamMoves moves;
  std::vector<unsigned char> memory;
  bool feasible = false;

  MoveCase(std::int64_t seed, std::int64_t rows, std::int64_t columns, std::int64_t edges, bool complete,
           bool forbids) {
    std::mt19937_64 random(static_cast<std::uint64_t>(seed));
    std::normal_distribution<double> normal;
    auto below = [&](std::int64_t limit) {
      return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(limit));
    };
    const bool integers = seed % 3 == 0;  // many ties
    auto cost = [&] { return integers ? std::round(2.0 * normal(random)) : normal(random); };
    for (std::int64_t cell = 0; cell < rows * columns; ++cell) {
      unary.push_back(forbids && below(4) == 0 ? kInfinity : cost());
    }
    // Loops, opposite and repeated edges come by themselves.
    for (std::int64_t end = 0; end < 2 * edges; ++end) {
      edges1.push_back(below(rows));
      edges2.push_back(below(columns));
    }
    for (std::int64_t cell = 0; cell < edges * edges; ++cell) quadratic.push_back(cost());
    problem.rows = rows;
    problem.columns = columns;
    problem.edge_count1 = problem.edge_count2 = edges;
    problem.unary = unary.data();
    problem.unary_stride = columns;
    problem.quadratic = quadratic.data();
    problem.quadratic_stride = edges;
    problem.edges1 = edges1.data();
    problem.edges2 = edges2.data();
    problem.complete = complete;
    problem.unmatched_cost = complete ? 0.0 : cost();
    auto place = [&](void* base) {
      Arena arena(base);
      tables.place(arena, rows, columns, edges, edges);
      moves.place(arena, rows, columns);
      return arena.used();
    };
    memory.resize(place(nullptr));
    place(memory.data());
    SerialTeam alone;
    tables.build(alone, problem);
    start.assign(rows, -1);
    LinearSolver<double> solver;
    const LinearProblem<double> linear{rows, columns, unary.data(), columns, complete, 0.0};
    feasible = solver.solve(linear, LinearStart{}, LinearDuals{}, start.data()).status != Status::kInfeasible;
  }
  MoveCase(const MoveCase&) = delete;
  MoveCase& operator=(const MoveCase&) = delete;

  // In stored units; by one member, whatever the team, so that teams of all sizes see the same bits.
  double value(const std::int32_t* x) const {
    SerialTeam alone;
    return tables.evaluate(alone, problem, x) / tables.scale;
  }
  bool fits(const std::int32_t* x) const {
    std::vector<char> taken(problem.columns, 0);
    std::int64_t matched = 0;
    for (std::int64_t i = 0; i < problem.rows; ++i) {
      if (x[i] < 0) continue;
      if (x[i] >= problem.columns || taken[x[i]] || std::isinf(unary[i * problem.columns + x[i]])) return false;
      taken[x[i]] = 1;
      ++matched;
    }
    return !problem.complete || matched == std::min(problem.rows, problem.columns);
  }
  // Calls visit(moved, is_allowed) for all moves; may(row, column) = whether the row may go there now.
  template <class May, class Visit>
  void for_each_move(const std::vector<std::int32_t>& x, const May& may, const Visit& visit) const {
    const auto rows = static_cast<std::int32_t>(problem.rows), columns = static_cast<std::int32_t>(problem.columns);
    for (std::int32_t i = 0; i < rows; ++i) {
      for (std::int32_t k = -1; k < columns; ++k) {
        const auto owner = k < 0 ? x.end() : std::find(x.begin(), x.end(), k);
        if (x[i] == k || (problem.complete && (k < 0 || owner != x.end()))) continue;
        std::vector<std::int32_t> moved = x;
        if (owner != x.end()) moved[owner - x.begin()] = -1;
        moved[i] = k;
        if (fits(moved.data())) visit(moved, may(i, k));
      }
      for (std::int32_t j = 0; j < i; ++j) {
        if (x[i] < 0 && x[j] < 0) continue;
        std::vector<std::int32_t> moved = x;
        std::swap(moved[i], moved[j]);
        if (fits(moved.data())) visit(moved, may(i, x[j]) || may(j, x[i]));
      }
    }
  }
};

template <class Team>
void write_start(const Team& team, MoveCase& given) {
  share_out(team, given.problem.rows,
            [&](std::int64_t i) { given.moves.assignment[i] = static_cast<std::int32_t>(given.start[i]); });
  team.sync();
}

// Walks by the cheapest allowed move: each is what trying all moves one by one finds, at the price it claims.
inline void check_team_walk(MoveCase& given, std::int64_t seed) {
  std::mt19937_64 random(static_cast<std::uint64_t>(seed));
  const std::int64_t rows = given.problem.rows, columns = given.problem.columns;
  SerialTeam alone;
  TeamMoves& moves = given.moves;
  write_start(alone, given);
  moves.load(alone, given.tables);
  std::vector<std::vector<std::int32_t>> banned(rows, std::vector<std::int32_t>(columns + 1, 0));
  for (std::int32_t step = 1; step <= 60; ++step) {
    const std::vector<std::int32_t> x(moves.assignment, moves.assignment + rows);
    const double value = given.value(x.data());
    double cheapest = kInfinity, cheapest_allowed = kInfinity;
    given.for_each_move(
        x, [&](std::int32_t row, std::int32_t column) { return banned[row][column + 1] <= step; },
        [&](const std::vector<std::int32_t>& moved, bool is_allowed) {
          const double delta = given.value(moved.data()) - value;
          cheapest = std::min(cheapest, delta);
          if (is_allowed) cheapest_allowed = std::min(cheapest_allowed, delta);
        });
    const bool aspires = random() % 8 == 0;
    const double wanted = aspires ? cheapest : cheapest_allowed;
    const TeamMove move =
        moves.best_move(alone, given.tables, step, aspires ? kBarrierTest : -kBarrierTest, kBarrierTest);
    check((move.row >= 0) == (wanted < kInfinity), "a team finds a move where there is one", seed, step);
    if (move.row < 0) continue;
    check(std::fabs(static_cast<double>(move.delta) - wanted) < 1e-5, "a team finds the cheapest move", seed, step);
    const auto until = static_cast<std::int32_t>(step + 1 + static_cast<std::int32_t>(random() % 9));
    banned[move.row][x[move.row] + 1] = until;
    if (move.other >= 0) banned[move.other][x[move.other] + 1] = until;
    moves.apply(alone, given.tables, move, until);
    check(given.fits(moves.assignment), "a team's moves are feasible", seed, step);
    check(std::fabs(given.value(moves.assignment) - value - wanted) < 1e-5, "a team's move costs what it claims", seed,
          step);
  }
}

// What a team of `groups` groups answers: the best matchings of a descent, of a search, and of one from a perturbed
// start.
struct MoveAnswers {
  std::vector<std::int32_t> matchings;
  std::vector<double> values;
  bool operator==(const MoveAnswers& other) const { return matchings == other.matchings && values == other.values; }
};

template <class Team>
void answer(Team& team, MoveCase& given, std::int64_t steps, bool together, MoveAnswers& answers) {
  const std::int64_t rows = given.problem.rows;
  TeamMoves moves = given.moves;
  Random random(7);
  auto evaluate = [&](const std::int32_t* x) {
    return together ? given.tables.evaluate(team, given.problem, x) / given.tables.scale : given.value(x);
  };
  auto keep = [&](double value) {
    if (team.rank() == 0) {
      answers.matchings.insert(answers.matchings.end(), moves.best, moves.best + rows);
      answers.values.push_back(value);
    }
  };
  write_start(team, given);
  keep(moves.descend(team, given.tables, evaluate));
  write_start(team, given);
  keep(moves.search(team, given.tables, steps, steps, -kInfinity, random, evaluate));
  write_start(team, given);
  perturb(team, given.tables, moves, 4, random);
  if (team.rank() == 0) check(given.fits(moves.assignment), "a perturbed matching is feasible", rows, steps);
  keep(moves.search(team, given.tables, steps, 10, -kInfinity, random, evaluate));
}

inline MoveAnswers answer_of_threads(MoveCase& given, std::int64_t groups, std::int64_t group_size, std::int64_t steps,
                                     bool together) {
  MoveAnswers answers;
  run_on_threads(1, groups, group_size, [&](ThreadTeam& team) { answer(team, given, steps, together, answers); });
  return answers;
}

inline void check_team_search(MoveCase& given, std::int64_t seed, bool with_large_teams) {
  const std::int64_t rows = given.problem.rows, steps = 60;
  SerialTeam alone;
  MoveAnswers expected;
  answer(alone, given, steps, false, expected);
  for (std::size_t run = 0; run < expected.values.size(); ++run) {
    const std::int32_t* x = expected.matchings.data() + static_cast<std::int64_t>(run) * rows;
    check(given.fits(x), "the best matching is feasible", seed, static_cast<std::int64_t>(run));
    check(given.value(x) == expected.values[run], "the value is that of the best matching", seed,
          static_cast<std::int64_t>(run));
  }
  const std::vector<std::int32_t> low(expected.matchings.begin(), expected.matchings.begin() + rows);
  given.for_each_move(
      low, [](std::int32_t, std::int32_t) { return true; },
      [&](const std::vector<std::int32_t>& moved, bool) {
        check(given.value(moved.data()) >= expected.values[0] - 1e-5, "a descent ends where nothing improves", seed, 0);
      });
  check(expected.values[1] <= expected.values[0], "a search is no worse than a descent", seed, 1);
  check(answer_of_threads(given, 1, 1, steps, false) == expected, "a thread answers like no team", seed, 1);
  check(answer_of_threads(given, 2, 2, steps, false) == expected, "four threads answer like one", seed, 4);
  if (!with_large_teams) return;
  check(answer_of_threads(given, 4, 2, steps, false) == expected, "eight threads answer like one", seed, 8);
  check(answer_of_threads(given, 2, 16, steps, false) == expected, "32 threads answer like one", seed, 32);
  answer_of_threads(given, 2, 2, steps, true);
}

inline void test_team_moves(std::int64_t first_seed, std::int64_t count) {
  double of_team = 0.0, of_thread = 0.0;
  for (std::int64_t seed = first_seed; seed < first_seed + count; ++seed) {
    std::mt19937_64 random(static_cast<std::uint64_t>(seed));
    auto below = [&](std::int64_t limit) {
      return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(limit));
    };
    // Square, wide, high, and any of them partial.
    const std::int64_t nodes = seed % 16 == 0 ? 9 : 2 + below(4);
    const std::int64_t more = seed % 4 == 0 ? 0 : 1 + below(3);
    const bool wide = seed % 4 == 1, complete = seed % 4 != 3 && below(4) != 0;
    const bool high = seed % 4 == 2 || (seed % 4 == 3 && below(2) == 0);
    MoveCase given(seed, nodes + (high ? more : 0), nodes + (wide ? more : 0), below(3 * nodes), complete,
                   below(3) == 0);
    if (!given.feasible) continue;
    check_team_walk(given, seed);
    check_team_search(given, seed, seed % 16 == 0);
    if (given.problem.rows > 5 || given.problem.columns > 5) continue;
    // Restarts as the solver does them find the optimum of tiny problems.
    SerialTeam alone;
    Random draws(static_cast<std::uint64_t>(seed));
    double found = kInfinity;
    auto evaluate = [&](const std::int32_t* x) { return given.value(x); };
    write_start(alone, given);
    for (std::int64_t run = 0; run < 8; ++run) {
      found = std::min(found, given.moves.search(alone, given.tables, 100, 100, -kInfinity, draws, evaluate));
      std::copy_n(given.moves.best, given.problem.rows, given.moves.assignment);
      perturb(alone, given.tables, given.moves, 3, draws);
    }
    check_quality(std::fabs(found - optimum(given.problem) / given.tables.scale) < 1e-5, "a team finds the optimum",
                  seed, 2);
  }
  for (std::int64_t seed = first_seed; seed < first_seed + count / 2; ++seed) {
    MoveCase given(seed, 12, 12, 30, seed % 2 == 0, false);
    SerialTeam alone;
    Random draws(1), same_draws(1);
    write_start(alone, given);
    of_team += given.moves.search(alone, given.tables, 100, 100, -kInfinity, draws,
                                  [&](const std::int32_t* x) { return given.value(x); });
    PairCosts costs;
    costs.build(given.problem);
    TabuSearch search(costs);
    Stop stop;
    of_thread += search.search(given.start, 100, 100, -kInfinity, same_draws, stop) * costs.scale / given.tables.scale;
  }
  check(of_team <= of_thread + 0.02 * std::fabs(of_thread), "a team searches as well as a thread", first_seed, count);
}

}  // namespace graphmatch
