// Random batches for the native tests, their solution by the native methods, and what every answer has to satisfy.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <random>
#include <vector>

#include "bindings/thread_pool.hpp"
#include "core/lawler.hpp"
#include "core/lawler_batch.hpp"
#include "core/lawler_solver.hpp"
#include "core/linear.hpp"
#include "core/objective_kernel.hpp"
#include "core/team.hpp"

namespace graphmatch {

inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

inline std::atomic<int> failures{0};

inline void check(bool holds, const char* what, std::int64_t seed, std::int64_t index) {
  if (holds) return;
  ++failures;
  std::printf("failed: %s (seed %lld, problem %lld)\n", what, static_cast<long long>(seed),
              static_cast<long long>(index));
}

// What a heuristic reaches on the tests' own seeds, and need not reach on others.
inline std::atomic<bool> seeds_are_known{true};

inline void check_quality(bool holds, const char* what, std::int64_t seed, std::int64_t index) {
  check(holds || !seeds_are_known, what, seed, index);
}

// A ragged batch with its own storage. Padding holds NaN costs and edges that point nowhere.
template <class T>
struct Batch {
  std::int64_t seed;
  bool forbids = false;
  std::vector<T> unary, quadratic;
  std::vector<std::int64_t> edges1, edges2, sizes;
  LawlerBatch<T> view;

  Batch(std::int64_t seed, std::int64_t count, std::int64_t nodes, std::int64_t edges) : seed(seed) {
    std::mt19937_64 random(static_cast<std::uint64_t>(seed));
    auto below = [&](std::int64_t limit) {
      return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(limit));
    };
    const bool integers = below(3) == 0;
    const bool wild = below(4) == 0;
    const double size = std::pow(10.0, static_cast<double>(std::vector<int>{0, 0, 0, -30, 30}[below(5)]));
    std::normal_distribution<double> normal;
    auto cost = [&] {
      const double value = integers ? std::round(2 * normal(random)) : normal(random);
      return static_cast<T>(value * size * (wild ? std::pow(10.0, static_cast<double>(below(13) - 6)) : 1.0));
    };
    forbids = below(3) == 0;
    view.count = count;
    view.first.rows = view.first.columns = nodes;
    view.first.edge_count1 = view.first.edge_count2 = edges;
    view.first.complete = below(2) == 0;
    view.first.unmatched_cost = view.first.complete ? 0.0 : static_cast<double>(cost());
    unary.assign(count * nodes * nodes, std::numeric_limits<T>::quiet_NaN());
    quadratic.assign(count * edges * edges, std::numeric_limits<T>::quiet_NaN());
    edges1.assign(count * edges * 2, 1000);
    edges2.assign(count * edges * 2, -7);
    for (std::int64_t b = 0; b < count; ++b) {
      const std::int64_t rows = below(nodes + 1);
      const std::int64_t columns = below(nodes + 1);
      const std::int64_t count1 = rows == 0 ? 0 : below(edges + 1);
      const std::int64_t count2 = columns == 0 ? 0 : below(edges + 1);
      sizes.insert(sizes.end(), {rows, columns, count1, count2});
      for (std::int64_t i = 0; i < rows; ++i) {
        for (std::int64_t k = 0; k < columns; ++k) {
          const bool forbidden = forbids && below(4) == 0;
          unary[(b * nodes + i) * nodes + k] = forbidden ? std::numeric_limits<T>::infinity() : cost();
        }
      }
      for (std::int64_t e = 0; e < count1; ++e) {
        for (std::int64_t f = 0; f < count2; ++f) quadratic[(b * edges + e) * edges + f] = cost();
      }
      // Few nodes, so loops, opposite and repeated edges are common.
      for (std::int64_t e = 0; e < 2 * count1; ++e) edges1[b * edges * 2 + e] = below(rows);
      for (std::int64_t f = 0; f < 2 * count2; ++f) edges2[b * edges * 2 + f] = below(columns);
    }
    view.first.unary = unary.data();
    view.first.unary_stride = nodes;
    view.first.quadratic = quadratic.data();
    view.first.quadratic_stride = edges;
    view.first.edges1 = edges1.data();
    view.first.edges2 = edges2.data();
    view.unary_batch_stride = nodes * nodes;
    view.quadratic_batch_stride = edges * edges;
    view.edges1_batch_stride = view.edges2_batch_stride = 2 * edges;
    view.sizes = sizes.data();
  }
};

struct Answers {
  std::vector<std::int64_t> assignment;
  std::vector<Solution> solutions;
};

// Duals of a batch, as one call leaves them to the next.
struct States {
  std::int64_t columns, pairs;
  std::vector<float> messages, potentials;
  std::vector<double> scale;

  template <class T>
  explicit States(const LawlerBatch<T>& batch)
      : columns(batch.first.columns),
        pairs(batch.first.edge_count1),
        messages(batch.count * 2 * pairs * (columns + 1), 0.0f),
        potentials(batch.count * columns, 0.0f),
        scale(batch.count, 0.0) {}

  DualState at(std::int64_t index) {
    return DualState{messages.data() + index * 2 * pairs * (columns + 1), potentials.data() + index * columns,
                     scale.data() + index, columns, pairs};
  }
};

inline LawlerOptions small_budget(LawlerMethod method) {
  LawlerOptions options;
  options.method = method;
  options.runs = 3;
  options.steps = 40;
  options.max_nodes = 20000;
  options.max_iterations = 60;
  if (method == LawlerMethod::kBranchAndBound) options.max_gap = 0.0;
  return options;
}

template <class T>
Answers solve(const LawlerBatch<T>& batch, std::int64_t threads, double seconds = -1.0,
              LawlerMethod method = LawlerMethod::kPortfolio, States* states = nullptr,
              const Answers* before = nullptr) {
  Answers answers;
  answers.assignment.assign(batch.count * batch.first.rows, -1);
  answers.solutions.resize(batch.count);
  Stop stop(seconds);
  ThreadPool::instance().run(batch.count, threads, stop, [&](std::int64_t index) {
    const bool is_warm = states != nullptr && before != nullptr;
    const DualState state = states == nullptr ? DualState{} : states->at(index);
    const std::int64_t offset = index * batch.first.rows;
    answers.solutions[index] = solve_lawler(batch.problem(index), small_budget(method), is_warm ? state : DualState{},
                                            is_warm ? before->assignment.data() + offset : nullptr,
                                            is_warm ? DualState{} : state, stop, answers.assignment.data() + offset);
  });
  return answers;
}

template <class T>
Answers solve_unary(const LawlerBatch<T>& batch, std::int64_t threads) {
  Answers answers;
  answers.assignment.assign(batch.count * batch.first.rows, -1);
  answers.solutions.resize(batch.count);
  Stop stop;
  ThreadPool::instance().run(batch.count, threads, stop, [&](std::int64_t index) {
    const LawlerProblem<T> p = batch.problem(index);
    const LinearProblem<T> linear{p.rows, p.columns, p.unary, p.unary_stride, p.complete, p.unmatched_cost};
    LinearSolver<T> solver;
    answers.solutions[index] =
        solver.solve(linear, LinearStart{}, LinearDuals{}, answers.assignment.data() + index * batch.first.rows);
  });
  return answers;
}

// Sum of all finite |cost|: sums in double are good to some 1e-15 of it.
template <class T>
double magnitude(const LawlerProblem<T>& p) {
  double total = std::fabs(p.unmatched_cost) * static_cast<double>(p.rows);
  for (std::int64_t i = 0; i < p.rows; ++i) {
    for (std::int64_t k = 0; k < p.columns; ++k) {
      const double cost = std::fabs(static_cast<double>(p.unary[i * p.unary_stride + k]));
      if (std::isfinite(cost)) total += cost;
    }
  }
  for (std::int64_t e = 0; e < p.edge_count1; ++e) {
    for (std::int64_t f = 0; f < p.edge_count2; ++f) {
      total += std::fabs(static_cast<double>(p.quadratic[e * p.quadratic_stride + f]));
    }
  }
  return total;
}

// Cheapest matching of rows >= `row`, by enumeration.
template <class T>
double brute_force(const LawlerProblem<T>& p, std::vector<std::int64_t>& x, std::vector<char>& taken, std::int64_t row,
                   std::int64_t matched) {
  const std::int64_t wanted = p.complete ? std::min(p.rows, p.columns) : 0;
  if (matched + (p.rows - row) < wanted) return kInfinity;
  if (row == p.rows) return evaluate(p, x.data());
  x[row] = -1;
  double best = brute_force(p, x, taken, row + 1, matched);
  for (std::int64_t k = 0; k < p.columns; ++k) {
    if (taken[k] || std::isinf(static_cast<double>(p.unary[row * p.unary_stride + k]))) continue;
    taken[k] = 1;
    x[row] = k;
    best = std::min(best, brute_force(p, x, taken, row + 1, matched + 1));
    taken[k] = 0;
  }
  x[row] = -1;
  return best;
}

template <class T>
double optimum(const LawlerProblem<T>& p) {
  std::vector<std::int64_t> x(p.rows, -1);
  std::vector<char> taken(p.columns, 0);
  return brute_force(p, x, taken, 0, 0);
}

template <class T>
void check_answer(const LawlerProblem<T>& p, const std::int64_t* x, const Solution& answer, std::int64_t seed,
                  std::int64_t index, bool exact) {
  const double tolerance = 1e-13 * magnitude(p);
  std::vector<char> taken(p.columns, 0);
  std::int64_t matched = 0;
  bool injective = true;
  for (std::int64_t i = 0; i < p.rows; ++i) {
    if (x[i] < 0) continue;
    injective = injective && x[i] < p.columns && !taken[x[i]];
    if (!injective) break;
    taken[x[i]] = 1;
    ++matched;
  }
  check(injective, "the matching is injective", seed, index);
  if (!injective) return;
  if (answer.status == Status::kInfeasible) {
    check(matched == 0 && answer.objective == kInfinity && answer.lower_bound == kInfinity,
          "an infeasible problem has no matching and costs infinity", seed, index);
    check(p.complete && (p.rows > 5 || p.columns > 5 || optimum(p) == kInfinity), "infeasible problems are infeasible",
          seed, index);
    return;
  }
  check(answer.status == Status::kOptimal || answer.status == Status::kFeasible, "valid problems get an answer", seed,
        index);
  check(!p.complete || matched == std::min(p.rows, p.columns), "complete matchings are complete", seed, index);
  const double recomputed = evaluate(p, x);
  check(std::fabs(recomputed - answer.objective) <= tolerance, "the objective is that of the matching", seed, index);
  SerialTeam alone;
  check(std::fabs(lawler_objective(p, x, alone) - recomputed) <= tolerance, "both ways to sum agree", seed, index);
  check(answer.lower_bound <= answer.objective, "the bound lies below the objective", seed, index);
  check(std::isfinite(answer.lower_bound), "the bound is finite", seed, index);
  if (p.rows > 5 || p.columns > 5) return;
  const double best = optimum(p);
  check(answer.lower_bound <= best + tolerance, "the bound lies below the optimum", seed, index);
  check(answer.objective >= best - tolerance, "the objective lies above the optimum", seed, index);
  if (exact) check(answer.objective <= best + tolerance, "an exact solver finds the optimum", seed, index);
}

inline bool same(const Answers& a, const Answers& b) {
  if (a.assignment != b.assignment) return false;
  for (std::size_t k = 0; k < a.solutions.size(); ++k) {
    const Solution& x = a.solutions[k];
    const Solution& y = b.solutions[k];
    if (x.status != y.status || x.objective != y.objective || x.lower_bound != y.lower_bound ||
        x.iterations != y.iterations) {
      return false;
    }
  }
  return true;
}

}  // namespace graphmatch
