// Random problems through the core and the thread pool, for the sanitizers: invariants that hold for every answer.
//
// Without arguments all tests, each once. `--stress SECONDS SEED`: see stress.hpp. Prints what failed, with the seed of
// the problem, and returns 1.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "batches.hpp"
#include "core/fusion.hpp"
#include "core/lap.hpp"
#include "core/lawler_solver.hpp"
#include "core/move_table.hpp"
#include "dense.hpp"
#include "multigraph.hpp"
#include "pool.hpp"
#include "problems.hpp"
#include "samples.hpp"
#include "stress.hpp"
#include "team_lap.hpp"
#include "team_lawler.hpp"
#include "team_moves.hpp"
#include "team_qap.hpp"

namespace graphmatch {
namespace {

void test_invalid_input() {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const auto status = [](const std::vector<double>& unary, double quadratic, std::int64_t node, double unmatched) {
    const std::int64_t edges1[] = {0, node};
    const std::int64_t edges2[] = {0, 1};
    LawlerProblem<double> p;
    p.rows = p.columns = 2;
    p.edge_count1 = p.edge_count2 = 1;
    p.unary = unary.data();
    p.unary_stride = 2;
    p.quadratic = &quadratic;
    p.quadratic_stride = 1;
    p.edges1 = edges1;
    p.edges2 = edges2;
    p.complete = false;
    p.unmatched_cost = unmatched;
    std::int64_t assignment[2];
    Stop stop;
    return solve_lawler(p, LawlerOptions{}, DualState{}, nullptr, DualState{}, stop, assignment).status;
  };
  const std::vector<double> fine{1, 2, 3, 4};
  check(status(fine, 1, 1, 0) == Status::kOptimal, "the intact problem is solved", 0, 0);
  check(status({1, nan, 3, 4}, 1, 1, 0) == Status::kInvalid, "NaN costs are invalid", 0, 1);
  check(status({1, -kInfinity, 3, 4}, 1, 1, 0) == Status::kInvalid, "costs of -infinity are invalid", 0, 2);
  check(status(fine, kInfinity, 1, 0) == Status::kInvalid, "infinite pair costs are invalid", 0, 3);
  check(status(fine, 1, 2, 0) == Status::kInvalid, "edges out of range are invalid", 0, 4);
  check(status(fine, 1, -1, 0) == Status::kInvalid, "negative edges are invalid", 0, 5);
  check(status(fine, 1, 1, nan) == Status::kInvalid, "a NaN price of being unmatched is invalid", 0, 6);

  const std::vector<double> bad{1, nan, 3, 4};
  std::int64_t assignment[2];
  LinearSolver<double> solver;
  const LinearProblem<double> linear{2, 2, bad.data(), 2, true, 0.0};
  check(solver.solve(linear, LinearStart{}, LinearDuals{}, assignment).status == Status::kInvalid,
        "NaN in a linear problem is invalid", 0, 7);
}

// Warm duals give the same optimum as cold ones, whatever they are.
void test_warm_assignments() {
  std::mt19937_64 random(5);
  for (std::int64_t seed = 0; seed < 400; ++seed) {
    const std::int64_t rows = 1 + static_cast<std::int64_t>(random() % 9);
    const bool partial = random() % 2 == 0;
    const std::int64_t columns =
        partial ? 1 + static_cast<std::int64_t>(random() % 9) : rows + static_cast<std::int64_t>(random() % 4);
    const bool integers = random() % 2 == 0;
    auto draw = [&] {
      const double value = static_cast<double>(random() % 1000) / 100.0;
      return integers ? std::floor(value) : value;
    };
    std::vector<double> costs(rows * columns), prices(rows);
    for (double& cost : costs) cost = random() % 8 == 0 ? kInfinity : draw();
    for (double& price : prices) price = draw();
    const double* unmatched = partial ? prices.data() : nullptr;
    Lap<double> cold, warm, offset;
    const bool feasible = cold.solve(rows, columns, costs.data(), columns, unmatched);
    warm.v.resize(columns);
    for (double& dual : warm.v) dual = random() % 3 == 0 ? 0.0 : partial || columns > rows ? -draw() : draw() - 5.0;
    check(warm.resolve(rows, columns, costs.data(), columns, unmatched) == feasible, "warm and cold agree", seed, 0);
    std::vector<double> row_duals(rows);
    for (double& dual : row_duals) dual = 2.0 * draw() - 10.0;
    check(offset.solve(rows, columns, costs.data(), columns, unmatched, row_duals.data()) == feasible,
          "row duals and none agree", seed, 0);
    if (!feasible) continue;
    auto total = [&](const Lap<double>& lap) {
      double sum = 0.0;
      for (std::int64_t i = 0; i < rows; ++i) {
        sum += lap.row_to_column[i] < 0 ? prices[i] : costs[i * columns + lap.row_to_column[i]];
      }
      return sum;
    };
    for (const Lap<double>* lap : {&warm, &offset}) {
      check(std::fabs(total(cold) - total(*lap)) < 1e-9, "warm duals give the optimum", seed, 1);
      for (std::int64_t i = 0; i < rows; ++i) {
        for (std::int64_t k = 0; k < columns; ++k) {
          check(costs[i * columns + k] - lap->u[i] - lap->v[k] >= -1e-9, "warm duals are feasible", seed, 2);
        }
      }
    }
  }
}

// Linear problems of every shape cost the same solved cold and from whatever another one left; their duals prove it.
template <class T>
void test_linear_problems() {
  std::mt19937_64 random(6);
  auto below = [&](std::int64_t limit) {
    return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(limit));
  };
  LinearSolver<T> cold_solver, warm_solver;
  std::vector<std::int64_t> matching(40, -3);  // of the last problem, whatever its shape
  std::vector<double> row_duals(40, 0.5);
  for (std::int64_t seed = 0; seed < 600; ++seed) {
    const std::int64_t rows = below(seed % 3 == 0 ? 5 : 40), columns = seed % 2 == 0 ? rows : below(40);
    const std::int64_t stride = columns + below(3), levels = 1 + below(3) * below(1000);
    std::vector<T> costs(rows * stride, std::numeric_limits<T>::quiet_NaN());
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t k = 0; k < columns; ++k) {
        const bool forbidden = seed % 5 == 0 && below(3) == 0;
        costs[i * stride + k] = forbidden ? std::numeric_limits<T>::infinity() : static_cast<T>(below(levels) - 7);
      }
    }
    const LinearProblem<T> problem{rows, columns, costs.data(), stride, seed % 4 < 2, static_cast<double>(below(30))};
    std::vector<std::int64_t> first(rows), second(rows);
    std::vector<double> u(rows), v(columns);
    const Solution cold = cold_solver.solve(problem, LinearStart{}, LinearDuals{u.data(), v.data()}, first.data());
    const LinearStart start{matching.data(), row_duals.data()};
    const Solution warm = warm_solver.solve(problem, start, LinearDuals{}, second.data());
    check(warm.status == cold.status, "warm and cold problems are feasible alike", seed, 0);
    const bool garbage = seed % 7 == 0;
    std::copy_n(first.begin(), rows, matching.begin());
    for (std::int64_t i = 0; i < rows; ++i) row_duals[i] = garbage ? kInfinity : u[i];
    if (cold.status != Status::kOptimal) continue;
    // Costs are whole numbers, so all sums are exact.
    check(warm.objective == cold.objective, "a warm start finds the optimum", seed, 1);
    check(cold.objective - cold.lower_bound <= 1e-12 * (1.0 + std::fabs(cold.objective) + 1000.0), "the gap is closed",
          seed, 2);
    check(warm.lower_bound <= cold.objective, "the bound holds", seed, 3);
    double sum = 0.0;
    for (const double dual : u) sum += dual;
    for (const double dual : v) sum += dual;
    check(std::fabs(sum - cold.objective) <= 1e-9, "the duals sum to the objective", seed, 4);
    for (std::int64_t i = 0; i < rows; ++i) {
      check(problem.complete ? rows <= columns || u[i] <= 0 : u[i] <= problem.unmatched_cost,
            "row duals have their sign", seed, i);
      for (std::int64_t k = 0; k < columns; ++k) {
        check(u[i] + v[k] <= static_cast<double>(costs[i * stride + k]) + 1e-9, "duals are feasible", seed, i);
      }
    }
    for (const double dual : v)
      check((problem.complete && rows >= columns) || dual <= 0, "column duals have their sign", seed, 5);
    const LinearStart own{first.data(), u.data()};
    const Solution again = warm_solver.solve(problem, own, LinearDuals{}, second.data());
    check((rows == 0 || again.stage == Stage::kWarmStart) && first == second, "an optimal matching is kept", seed, 6);
  }
}

// Calls examine(problem, costs, random, seed, index) with the problems of random batches that forbid nothing.
template <class Examine>
void for_each_problem(std::int64_t first_seed, std::int64_t seeds, std::int64_t count, std::int64_t nodes,
                      std::int64_t edges, const Examine& examine) {
  for (std::int64_t seed = first_seed; seed < first_seed + seeds; ++seed) {
    const Batch<double> batch(seed, count, nodes, edges);
    for (std::int64_t b = 0; b < batch.view.count && !batch.forbids; ++b) {
      const LawlerProblem<double> problem = batch.view.problem(b);
      PairCosts costs;
      if (!costs.build(problem) || problem.rows == 0 || problem.columns == 0) continue;
      std::mt19937_64 random(static_cast<std::uint64_t>(seed));
      examine(problem, costs, random, seed, b);
    }
  }
}

// The fusion of two matchings is the best of all that take each row's column from one of them.
void check_fusion(const LawlerProblem<double>& p, const PairCosts& costs, std::mt19937_64& random, std::int64_t seed,
                  std::int64_t b) {
  auto draw = [&] {
    std::vector<std::int64_t> labels(p.columns);
    for (std::int64_t k = 0; k < p.columns; ++k) labels[k] = k;
    if (p.rows > p.columns || !p.complete) labels.resize(std::max(p.rows, p.columns + (p.complete ? 0 : 2)), -1);
    std::shuffle(labels.begin(), labels.end(), random);
    labels.resize(p.rows, -1);
    return labels;
  };
  const std::vector<std::int64_t> first = draw(), second = draw();
  Fusion fusion(costs);
  const double fused = fusion.fuse(first, second);
  double best = kInfinity;
  for (std::int64_t choice = 0; choice < (std::int64_t{1} << p.rows); ++choice) {
    std::vector<std::int64_t> x(p.rows), taken(p.columns, 0);
    bool valid = true;
    std::int64_t matched = 0;
    for (std::int64_t i = 0; i < p.rows; ++i) {
      x[i] = (choice >> i) & 1 ? second[i] : first[i];
      if (x[i] >= 0) valid = valid && taken[x[i]]++ == 0;
      matched += x[i] >= 0 ? 1 : 0;
    }
    if (p.complete && matched < std::min(p.rows, p.columns)) valid = false;
    if (valid) best = std::min(best, costs.evaluate(x.data()));
  }
  const bool paths_are_whole = p.complete && p.rows > p.columns;
  check(fused >= best - 1e-9 && (paths_are_whole || fused <= best + 1e-9), "fusion is exact", seed, b);
  check(fused <= std::min(costs.evaluate(first.data()), costs.evaluate(second.data())) + 1e-9,
        "fusion is not worse than its parents", seed, b);
}

// Random walks by the cheapest allowed move: each is what trying all moves one by one finds, at the price it claims.
void check_moves(const LawlerProblem<double>& p, const PairCosts& costs, std::mt19937_64& random, std::int64_t seed,
                 std::int64_t b) {
  std::vector<std::int64_t> x(p.columns);
  for (std::int64_t k = 0; k < p.columns; ++k) x[k] = k;
  if (p.rows > p.columns) x.resize(p.rows, -1);
  std::shuffle(x.begin(), x.end(), random);
  x.resize(p.rows);
  MoveTable table(costs);
  table.load(x);
  std::vector<std::vector<std::int64_t>> banned(p.rows, std::vector<std::int64_t>(p.columns + 1, 0));  // until
  for (std::int64_t step = 1; step <= 60; ++step) {
    const double value = costs.evaluate(x.data());
    double cheapest = kInfinity, cheapest_allowed = kInfinity;
    auto attempt = [&](std::vector<std::int64_t> moved, bool is_allowed) {
      const double delta = costs.evaluate(moved.data()) - value;
      cheapest = std::min(cheapest, delta);
      if (is_allowed) cheapest_allowed = std::min(cheapest_allowed, delta);
    };
    auto may = [&](std::int64_t row, std::int64_t column) { return banned[row][column + 1] <= step; };
    for (std::int64_t i = 0; i < p.rows; ++i) {
      for (std::int64_t k = -1; k < p.columns; ++k) {
        const auto owner = k < 0 ? x.end() : std::find(x.begin(), x.end(), k);
        if (x[i] == k || (p.complete && (k < 0 || owner != x.end()))) continue;
        std::vector<std::int64_t> moved = x;
        if (owner != x.end()) moved[owner - x.begin()] = -1;
        moved[i] = k;
        attempt(moved, may(i, k));
      }
      for (std::int64_t j = 0; j < i; ++j) {
        if (x[i] < 0 && x[j] < 0) continue;
        std::vector<std::int64_t> moved = x;
        std::swap(moved[i], moved[j]);
        attempt(moved, may(i, x[j]) || may(j, x[i]));
      }
    }
    const bool aspires = random() % 8 == 0;
    const double wanted = aspires ? cheapest : cheapest_allowed;
    const Move move = table.best_move(step, aspires ? kBarrierTest : -kBarrierTest, kBarrierTest);
    check((move.row >= 0) == (wanted < kInfinity), "a move is found where there is one", seed, b);
    if (move.row < 0) continue;
    check(std::fabs(static_cast<double>(move.delta) - wanted) < 1e-4, "the cheapest move is found", seed, b);
    const std::int64_t until = step + 1 + static_cast<std::int64_t>(random() % 9);
    banned[move.row][x[move.row] + 1] = until;
    if (move.other >= 0) banned[move.other][x[move.other] + 1] = until;
    table.apply(move, until);
    x = table.assignment();
    check(std::fabs(costs.evaluate(x.data()) - value - wanted) < 1e-4, "a move costs what it claims", seed, b);
  }
}

}  // namespace
}  // namespace graphmatch

int main(int count, char** arguments) {
  if (count == 4 && std::string(arguments[1]) == "--stress") {
    graphmatch::run_stress(std::atof(arguments[2]), std::atoll(arguments[3]));
    return graphmatch::failures > 0 ? 1 : 0;
  }
  if (count != 1) {
    std::printf("usage: %s [--stress SECONDS SEED]\n", arguments[0]);
    return 2;
  }
  graphmatch::test_random_batches<float>(0, 60);
  graphmatch::test_random_batches<double>(1000, 60);
  graphmatch::test_invalid_input();
  graphmatch::test_warm_assignments();
  graphmatch::test_linear_problems<float>();
  graphmatch::test_linear_problems<double>();
  graphmatch::for_each_problem(5000, 60, 4, 6, 10, graphmatch::check_fusion);
  graphmatch::for_each_problem(6000, 120, 3, 7, 14, graphmatch::check_moves);
  graphmatch::test_dense_problems();
  graphmatch::test_team_qap();
  graphmatch::test_noise();
  graphmatch::test_restarted_searches<float>(2000, 30);
  graphmatch::test_restarted_searches<double>(3000, 30);
  graphmatch::test_samples<float>(7000, 60);
  graphmatch::test_samples<double>(8000, 60);
  graphmatch::test_multigraphs(9000, 120);
  graphmatch::test_team_moves(10000, 160);
  graphmatch::test_lawler_teams();
  graphmatch::test_team_assignments(800);
  graphmatch::test_concurrent_callers();
  graphmatch::test_exceptions_and_stops();
  if (graphmatch::failures > 0) return 1;
  std::printf("all native tests passed\n");
  return 0;
}
