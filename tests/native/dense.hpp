// The native tests of dense problems: prices of exchanges against evaluation, bounds against enumeration, all methods.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "core/hahn_grant.hpp"
#include "core/qap_bound.hpp"
#include "core/qap_solver.hpp"
#include "core/swap_table.hpp"
#include "problems.hpp"

namespace graphmatch {

// A random dense problem of any kind: integers or reals, symmetric or not, with forbidden assignments or not.
struct DenseCase {
  std::vector<double> flow, distance, linear;
  QapProblem<double> problem;
  bool forbids = false;

  DenseCase(std::int64_t seed, std::int64_t nodes) {
    std::mt19937_64 random(static_cast<std::uint64_t>(seed));
    const bool integers = random() % 2 == 0, symmetric = random() % 2 == 0, has_linear = random() % 2 == 0;
    forbids = has_linear && random() % 3 == 0;
    std::normal_distribution<double> normal;
    auto fill = [&](std::vector<double>& matrix) {
      matrix.resize(static_cast<std::size_t>(nodes * nodes));
      for (double& entry : matrix) entry = integers ? std::round(4 * normal(random)) : normal(random);
    };
    fill(flow);
    fill(distance);
    if (has_linear) fill(linear);
    if (forbids) {
      for (double& entry : linear) entry = random() % 4 == 0 ? kInfinity : entry;
    }
    for (std::int64_t i = 0; symmetric && i < nodes; ++i) {
      for (std::int64_t j = 0; j < i; ++j) flow[i * nodes + j] = flow[j * nodes + i];
    }
    problem.nodes = problem.stride = nodes;
    problem.flow = flow.data();
    problem.distance = distance.data();
    problem.linear = has_linear ? linear.data() : nullptr;
  }
};

// A random walk: every change in the table is what evaluation says, and the cheapest allowed one is found.
template <class T>
void check_exchanges(const DenseCase& dense, const QapCosts& costs, std::int64_t seed) {
  const std::int64_t n = costs.nodes;
  std::mt19937_64 random(static_cast<std::uint64_t>(seed));
  std::vector<std::int64_t> x(n);
  std::iota(x.begin(), x.end(), 0);
  std::shuffle(x.begin(), x.end(), random);
  SwapTable<T> table(costs);
  table.load(x);
  std::vector<double> until(static_cast<std::size_t>(n * n), 0.0);  // facility, location
  const double noise = 1e-9 * (costs.magnitude + costs.penalty + 1.0);
  for (std::int64_t step = 1; step <= 40; ++step) {
    const double value = costs.value(x.data());
    double cheapest = kInfinity;
    for (std::int64_t u = 0; u < n; ++u) {
      for (std::int64_t v = u + 1; v < n; ++v) {
        std::vector<std::int64_t> y = x;
        std::swap(y[u], y[v]);
        const double change = costs.value(y.data()) - value;
        check(std::fabs(static_cast<double>(table.change({u, v})) - change) <= noise, "changes are right", seed, step);
        const bool banned = std::min(until[u * n + x[v]], until[v * n + x[u]]) > static_cast<double>(step);
        if (!banned) cheapest = std::min(cheapest, change);
      }
    }
    const Swap swap = table.best_allowed(static_cast<T>(step), -std::numeric_limits<T>::infinity());
    check((swap.first >= 0) == (cheapest < kInfinity), "an exchange is found where there is one", seed, step);
    if (swap.first < 0) continue;
    check(std::fabs(static_cast<double>(table.change(swap)) - cheapest) <= noise, "it is the cheapest", seed, step);
    const auto first = static_cast<T>(step + 1 + static_cast<std::int64_t>(random() % 9));
    const auto second = static_cast<T>(step + 1 + static_cast<std::int64_t>(random() % 9));
    until[swap.first * n + x[swap.first]] = static_cast<double>(first);
    until[swap.second * n + x[swap.second]] = static_cast<double>(second);
    table.apply(swap, first, second);
    std::swap(x[swap.first], x[swap.second]);
    check(table.assignment() == x, "the exchange is made", seed, step);
  }
  if (!dense.forbids) {
    const double exact = evaluate(dense.problem, x.data());
    check(std::fabs(costs.unit * costs.value(x.data()) - exact) <= 1e-9 * (1.0 + costs.unit * costs.magnitude),
          "stored costs are those of the problem", seed, -1);
  }
}

inline double enumerate(const QapProblem<double>& problem) {
  std::vector<std::int64_t> x(problem.nodes);
  std::iota(x.begin(), x.end(), 0);
  double best = kInfinity;
  do {
    best = std::min(best, evaluate(problem, x.data()));
  } while (std::next_permutation(x.begin(), x.end()));
  return best;
}

// Every method on one random problem.
inline void check_dense_problem(std::int64_t seed, std::int64_t nodes) {
  const DenseCase dense(seed, nodes);
  QapCosts costs;
  check(costs.build(dense.problem), "finite costs are valid", seed, 0);
  check_exchanges<double>(dense, costs, seed);
  if (costs.exact_in_float) check_exchanges<float>(dense, costs, seed);
  const double optimum = nodes <= 6 ? enumerate(dense.problem) : kInfinity;
  for (const QapMethod method : {QapMethod::kFaq, QapMethod::kTabu, QapMethod::kDualAscent, QapMethod::kPortfolio}) {
    for (const bool hurried : {false, true}) {
      QapOptions options;
      options.method = method;
      options.max_iterations = 5;
      options.runs = 2;
      options.steps = 50;
      options.effort = 0.01;
      options.sinkhorn = seed % 2 == 0;
      options.refine = seed % 4 == 0;
      Stop stop(hurried ? 0.0 : -1.0);
      std::vector<std::int64_t> x(nodes, -7), taken(nodes, 0);
      const Solution solution = solve_qap(dense.problem, options, nullptr, stop, x.data());
      if (solution.status == Status::kInfeasible) {
        check(dense.forbids && optimum == kInfinity, "only forbidden problems are infeasible", seed, 1);
        continue;
      }
      bool injective = true;
      for (const std::int64_t location : x) {
        injective = injective && location >= 0 && location < nodes && taken[location]++ == 0;
      }
      check(injective, "answers are permutations", seed, 2);
      check(injective && evaluate(dense.problem, x.data()) == solution.objective, "they cost what they say", seed, 3);
      check(std::isfinite(solution.objective), "nothing forbidden is taken", seed, 4);
      check(solution.lower_bound <= solution.objective, "bounds are below objectives", seed, 5);
      const double slack = 1e-9 * (1.0 + std::fabs(optimum));
      if (nodes <= 6) check(solution.lower_bound <= optimum + slack, "bounds are below the optimum", seed, 6);
      if (nodes <= 6) check(solution.objective >= optimum - slack, "nothing beats the optimum", seed, 7);
    }
  }
}

inline void test_dense_problems() {
  // Few of the larger ones: the thread sanitizer makes a step of the search a hundred times as long.
  for (std::int64_t seed = 0; seed < 60; ++seed) check_dense_problem(seed, seed % 10 == 0 ? 9 + seed / 5 : seed % 7);
  DenseCase bad(1, 4);
  std::int64_t x[4];
  Stop stop;
  for (const double wrong : {std::numeric_limits<double>::quiet_NaN(), kInfinity, 1e200}) {
    bad.flow[5] = wrong;
    check(solve_qap(bad.problem, QapOptions{}, nullptr, stop, x).status == Status::kInvalid, "bad costs", 1, 8);
  }
}

}  // namespace graphmatch
