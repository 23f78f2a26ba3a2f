// Assignment by teams of host threads: the CPU solver's optimum with duals that prove it, and one answer for every size
// of team.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include "core/lap.hpp"
#include "core/linear.hpp"
#include "core/team_lap.hpp"
#include "core/team_linear.hpp"
#include "core/thread_team.hpp"
#include "problems.hpp"

namespace graphmatch {

// A random linear problem with its own storage; the padding holds NaN.
template <class T>
struct RandomLinear {
  std::vector<T> costs;
  LinearProblem<T> view;

  RandomLinear(std::int64_t seed, std::int64_t most) {
    std::mt19937_64 random(static_cast<std::uint64_t>(seed));
    auto below = [&](std::int64_t limit) {
      return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(limit));
    };
    const std::int64_t rows = below(most + 1), columns = below(2) == 0 ? rows : below(most + 1);
    const std::int64_t stride = columns + below(3);
    const std::int64_t levels = below(2) == 0 ? 1 + below(9) : 1000000;  // many ties, or hardly any
    const double unit = levels < 10 ? 1.0 : 1e-5;
    const std::int64_t forbidden = below(3) == 0 ? 1 + below(3) : 0;  // quarters of the costs
    costs.assign(static_cast<std::size_t>(rows * stride), std::numeric_limits<T>::quiet_NaN());
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t k = 0; k < columns; ++k) {
        const double cost = unit * static_cast<double>(below(levels) - levels / 3);
        costs[i * stride + k] = below(4) < forbidden ? std::numeric_limits<T>::infinity() : static_cast<T>(cost);
      }
    }
    const bool complete = below(2) == 0;
    view = {rows,   columns,  costs.data(),
            stride, complete, complete ? 0.0 : unit * static_cast<double>(below(levels) - levels / 3)};
  }
};

struct LinearAnswer {
  Solution solution;
  std::vector<std::int64_t> assignment;
  std::vector<double> u, v;

  // Sums may be rounded in another order.
  bool matches(const LinearAnswer& other) const {
    const auto close = [](double a, double b) {
      return a == b || std::fabs(a - b) <= 1e-9 * std::fmax(1.0, std::fabs(a));
    };
    return solution.status == other.solution.status && solution.stage == other.solution.stage &&
           close(solution.objective, other.solution.objective) &&
           close(solution.lower_bound, other.solution.lower_bound) && assignment == other.assignment && u == other.u &&
           v == other.v;
  }
};

// Solves in memory that is full of garbage.
template <class T>
LinearAnswer solve_by_team(const LinearProblem<T>& p, const LinearStart& start, std::int64_t groups,
                           std::int64_t group_size) {
  LinearAnswer answer;
  answer.assignment.assign(p.rows, -7);
  answer.u.assign(p.rows, 0.0);
  answer.v.assign(p.columns, 0.0);
  std::vector<double> block(TeamLinearMemory::bytes(p.rows, p.columns, p.complete) / 8 + 1, -1e300);
  run_on_threads(1, groups, group_size, [&](auto& team) {
    Arena arena(block.data());
    TeamLinearMemory memory;
    memory.place(arena, p.rows, p.columns, p.complete);
    const LinearDuals duals{answer.u.data(), answer.v.data()};
    const Solution solution = solve_linear(team, p, start, duals, memory, answer.assignment.data());
    if (team.rank() == 0) answer.solution = solution;
  });
  return answer;
}

// The matching is one, costs what it claims, and the duals prove it.
template <class T>
void check_linear_answer(const LinearProblem<T>& p, const LinearAnswer& answer, std::int64_t seed) {
  std::vector<char> taken(p.columns, 0);
  double objective = 0.0, sum = 0.0, magnitude = 1.0;
  std::int64_t matched = 0;
  for (std::int64_t i = 0; i < p.rows; ++i) {
    const std::int64_t k = answer.assignment[i];
    check(k >= -1 && k < p.columns && (k < 0 || !taken[k]), "teams find matchings", seed, i);
    if (k >= 0) taken[k] = 1;
    matched += k >= 0 ? 1 : 0;
    objective += k >= 0 ? static_cast<double>(p.costs[i * p.stride + k]) : p.complete ? 0.0 : p.unmatched_cost;
    check(p.complete ? p.rows <= p.columns || answer.u[i] <= 0 : answer.u[i] <= p.unmatched_cost,
          "row duals of teams have their sign", seed, i);
    for (std::int64_t c = 0; c < p.columns; ++c) {
      const double cost = static_cast<double>(p.costs[i * p.stride + c]);
      check(answer.u[i] + answer.v[c] <= cost + 1e-9, "duals of teams are feasible", seed, i);
    }
  }
  for (const double dual : answer.u) sum += dual, magnitude += std::fabs(dual);
  for (const double dual : answer.v) {
    sum += dual, magnitude += std::fabs(dual);
    check((p.complete && p.rows >= p.columns) || dual <= 0, "column duals of teams have their sign", seed, 0);
  }
  check(!p.complete || matched == std::min(p.rows, p.columns), "teams find complete matchings", seed, 1);
  const Solution& s = answer.solution;
  check(std::fabs(objective - s.objective) <= 1e-12 * magnitude, "teams sum the objective", seed, 2);
  check(std::fabs(objective - sum) <= 1e-12 * magnitude, "duals of teams sum to the objective", seed, 3);
  check(s.lower_bound <= s.objective && s.objective - s.lower_bound <= 1e-12 * magnitude, "bounds of teams are tight",
        seed, 4);
}

// Cold and warm searches alone, with prices of being unmatched that differ from row to row.
template <class T>
void test_team_lap(std::int64_t first_seed, std::int64_t count) {
  Lap<T> cpu;
  for (std::int64_t seed = first_seed; seed < first_seed + count; ++seed) {
    std::mt19937_64 random(static_cast<std::uint64_t>(seed));
    auto below = [&](std::int64_t limit) {
      return static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(limit));
    };
    const bool partial = below(2) == 0;
    const std::int32_t rows = 1 + below(9), columns = partial ? below(10) : rows + below(3);
    const std::int32_t levels = below(2) == 0 ? 7 : 4096;  // small whole numbers: all sums are exact
    std::vector<T> costs(rows * columns), unmatched(rows), start(columns);
    for (T& cost : costs) cost = below(8) == 0 ? std::numeric_limits<T>::infinity() : static_cast<T>(below(levels));
    for (T& price : unmatched) price = static_cast<T>(below(levels));
    for (T& price : start) price = static_cast<T>(below(2 * levels) - levels);
    const T* prices = partial ? unmatched.data() : nullptr;
    const bool feasible = cpu.solve(rows, columns, costs.data(), columns, prices);

    const auto cost = [&](std::int32_t i, std::int32_t k) { return costs[i * columns + k]; };
    for (const int mode : {0, 1, 2, 3}) {
      const bool warm = mode % 2 == 1, hinted = mode / 2 == 1;
      std::vector<double> block(TeamLapMemory<T>::bytes(rows, columns) / 8 + 1, -1e300);
      Arena arena(block.data());
      TeamLapMemory<T> m;
      m.place(arena, rows, columns);
      std::copy(start.begin(), start.end(), m.v);
      TeamLapStart<T> from;
      from.warm = warm;
      std::vector<std::int32_t> favourite(rows, -1);
      std::vector<T> favourite_cost(rows, std::numeric_limits<T>::infinity());
      for (std::int32_t i = 0; i < rows; ++i) {
        for (std::int32_t k = 0; k < columns; ++k) {
          const T reduced = cost(i, k) - (warm && !partial && rows == columns ? start[k] : T(0));
          if (reduced < favourite_cost[i]) favourite_cost[i] = reduced, favourite[i] = k;
        }
      }
      if (hinted) from.favourite = favourite.data(), from.favourite_cost = favourite_cost.data();
      std::atomic<int> successes{0};
      const std::int64_t size = 1 + seed % 5;
      run_on_threads(1, 1, size, [&](auto& team) {
        TeamLapMemory<T> own = m;
        successes += team_lap(team, rows, columns, cost, prices, from, own) ? 1 : 0;
      });
      check(successes == (feasible ? size : 0), "all members know whether there is a matching", seed, mode);
      if (!feasible) continue;
      T total = 0, best = 0;
      for (std::int32_t i = 0; i < rows; ++i) {
        const std::int32_t k = m.column_of[i];
        const std::int64_t other = cpu.row_to_column[i];
        check(k < 0 || m.row_of[k] == i, "rows and columns agree", seed, i);
        check(m.u[i] == (k < 0 ? unmatched[i] : cost(i, k) - m.v[k]), "matched pairs are tight", seed, i);
        total += k < 0 ? unmatched[i] : cost(i, k);
        best += other < 0 ? unmatched[i] : cost(i, static_cast<std::int32_t>(other));
        for (std::int32_t c = 0; c < columns; ++c) check(m.u[i] + m.v[c] <= cost(i, c), "duals are feasible", seed, i);
      }
      check(total == best, "searches of teams find the optimum", seed, mode);
      for (std::int32_t k = 0; k < columns && (partial || rows < columns); ++k) {
        check(m.v[k] <= 0 && (m.row_of[k] >= 0 || m.v[k] == 0), "free columns cost nothing", seed, k);
      }
    }
  }
}

// Equal costs match equal indices; NaN, -infinity and a price that is no number are refused.
inline void test_team_linear_edges() {
  for (const auto& [rows, columns] :
       {std::pair<std::int64_t, std::int64_t>{1, 1}, {7, 7}, {3, 9}, {9, 3}, {0, 4}, {4, 0}}) {
    for (const bool complete : {true, false}) {
      const std::vector<double> costs(rows * columns, 1.0);
      const LinearProblem<double> p{rows, columns, costs.data(), columns, complete, 2.0};
      const LinearAnswer answer = solve_by_team(p, LinearStart{}, 1, 3);
      check(answer.solution.status == Status::kOptimal, "equal costs are solved", rows, columns);
      for (std::int64_t i = 0; i < rows; ++i) {
        check(answer.assignment[i] == (i < columns ? i : -1), "equal costs match equal indices", rows, columns);
      }
    }
  }
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const double bad : {nan, -kInfinity}) {
    const std::vector<double> costs{1, 2, bad, 4};
    const LinearProblem<double> p{2, 2, costs.data(), 2, true, 0.0};
    check(solve_by_team(p, LinearStart{}, 1, 2).solution.status == Status::kInvalid, "bad costs are invalid", 0, 0);
  }
  const std::vector<double> costs{1, 2, 3, 4};
  for (const double price : {nan, kInfinity, -kInfinity}) {
    const LinearProblem<double> p{2, 2, costs.data(), 2, false, price};
    const LinearAnswer answer = solve_by_team(p, LinearStart{}, 1, 2);
    check(answer.solution.status == Status::kInvalid && answer.assignment == std::vector<std::int64_t>{-1, -1},
          "bad prices are invalid", 0, 1);
  }
}

template <class T>
void test_team_linear(std::int64_t first_seed, std::int64_t count) {
  LinearSolver<T> solver;
  for (std::int64_t seed = first_seed; seed < first_seed + count; ++seed) {
    const RandomLinear<T> problem(seed, seed % 16 == 0 ? 40 : 9);
    const LinearProblem<T>& p = problem.view;
    std::vector<std::int64_t> assignment(p.rows);
    const Solution expected = solver.solve(p, LinearStart{}, LinearDuals{}, assignment.data());
    const LinearAnswer answer = solve_by_team(p, LinearStart{}, 1, 1);
    check(answer.solution.status == expected.status, "teams and the CPU agree on the status", seed, 0);
    if (expected.status == Status::kOptimal) {
      check(std::fabs(answer.solution.objective - expected.objective) <=
                1e-9 * std::fmax(1.0, std::fabs(expected.objective)),
            "teams find the optimum", seed, 0);
      check_linear_answer(p, answer, seed);
    }
    if (seed % 2 == 0) check(answer.matches(solve_by_team(p, LinearStart{}, 1, 4)), "teams of 4 agree", seed, 4);
    if (seed % 4 == 0) check(answer.matches(solve_by_team(p, LinearStart{}, 2, 4)), "teams of 8 agree", seed, 8);
    if (seed % 32 == 0) check(answer.matches(solve_by_team(p, LinearStart{}, 1, 32)), "teams of 32 agree", seed, 32);

    // An optimal matching is kept, another one is not.
    LinearStart start{assignment.data(), nullptr};
    if (p.rows == 0 || expected.status != Status::kOptimal) continue;
    const LinearAnswer kept = solve_by_team(p, start, 1, 1 + seed % 3);
    // The sum of the same costs in another order may come out one rounding dearer.
    if (kept.solution.stage == Stage::kWarmStart) check(kept.assignment == assignment, "a start is kept", seed, 5);
    start.matching = answer.assignment.data();
    check(solve_by_team(p, start, 1, 1 + seed % 3).solution.stage == Stage::kWarmStart, "the optimum is kept", seed, 6);
    std::vector<std::int64_t> wrong(p.rows, seed % 2 == 0 ? 0 : p.columns);
    wrong[0] = seed % 3 == 0 ? -2 : p.columns - 1;
    start.matching = wrong.data();
    const LinearAnswer anew = solve_by_team(p, start, 1, 1 + seed % 3);
    if (anew.solution.stage == Stage::kNone) check(answer.matches(anew), "what is no matching is ignored", seed, 7);
    check_linear_answer(p, anew, seed);
  }
}

inline void test_team_assignments(std::int64_t count) {
  test_team_lap<double>(10000, count);
  test_team_lap<float>(20000, count);
  test_team_linear<double>(30000, count);
  test_team_linear<float>(40000, count);
  test_team_linear_edges();
}

}  // namespace graphmatch
