// Random problems through the core and the thread pool, for the sanitizers: invariants that hold for every answer.
//
// Prints what failed, with the seed of the problem, and returns 1.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "bindings/thread_pool.hpp"
#include "core/dual_ascent_solver.hpp"
#include "core/lawler.hpp"
#include "core/lawler_batch.hpp"
#include "core/linear.hpp"
#include "core/objective_kernel.hpp"
#include "core/team.hpp"

namespace graphmatch {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

std::atomic<int> failures{0};

void check(bool holds, const char* what, std::int64_t seed, std::int64_t index) {
  if (holds) return;
  ++failures;
  std::printf("failed: %s (seed %lld, problem %lld)\n", what, static_cast<long long>(seed),
              static_cast<long long>(index));
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

template <class T>
Answers solve(const LawlerBatch<T>& batch, std::int64_t threads, double seconds = -1.0) {
  Answers answers;
  answers.assignment.assign(batch.count * batch.first.rows, -1);
  answers.solutions.resize(batch.count);
  Stop stop(seconds);
  ThreadPool::instance().run(batch.count, threads, stop, [&](std::int64_t index) {
    answers.solutions[index] = solve_dual_ascent(batch.problem(index), DualAscentOptions{}, stop,
                                                 answers.assignment.data() + index * batch.first.rows);
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
    answers.solutions[index] = solve_linear(linear, answers.assignment.data() + index * batch.first.rows);
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

bool same(const Answers& a, const Answers& b) {
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

template <class T>
void test_random_batches(std::int64_t first_seed, std::int64_t count) {
  for (std::int64_t seed = first_seed; seed < first_seed + count; ++seed) {
    const bool tiny = seed % 4 != 0;
    const Batch<T> batch(seed, tiny ? 12 : 3, tiny ? 5 : 20, tiny ? 9 : 60);
    const Answers answers = solve(batch.view, 1);
    check(same(answers, solve(batch.view, 2)), "two threads give the same answers", seed, -1);
    check(same(answers, solve(batch.view, 8)), "eight threads give the same answers", seed, -1);
    for (std::int64_t b = 0; b < batch.view.count; ++b) {
      const std::int64_t* x = answers.assignment.data() + b * batch.view.first.rows;
      check_answer(batch.view.problem(b), x, answers.solutions[b], seed, b, false);
    }
    // The same problems without their edges.
    LawlerBatch<T> linear = batch.view;
    std::vector<std::int64_t> sizes = batch.sizes;
    for (std::size_t k = 0; k < sizes.size(); k += 4) sizes[k + 2] = sizes[k + 3] = 0;
    linear.sizes = sizes.data();
    const Answers assigned = solve_unary(linear, 2);
    for (std::int64_t b = 0; b < linear.count; ++b) {
      const std::int64_t* x = assigned.assignment.data() + b * linear.first.rows;
      check_answer(linear.problem(b), x, assigned.solutions[b], seed, b, true);
    }
    const Answers hurried = solve(batch.view, 2, 0.0);
    for (std::int64_t b = 0; b < batch.view.count; ++b) {
      const std::int64_t* x = hurried.assignment.data() + b * batch.view.first.rows;
      check_answer(batch.view.problem(b), x, hurried.solutions[b], seed, b, false);
    }
  }
}

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
    return solve_dual_ascent(p, DualAscentOptions{}, stop, assignment).status;
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
  const LinearProblem<double> linear{2, 2, bad.data(), 2, true, 0.0};
  check(solve_linear(linear, assignment).status == Status::kInvalid, "NaN in a linear problem is invalid", 0, 7);
}

// Several callers share the pool, as Python threads do.
void test_concurrent_callers() {
  const Batch<float> batch(77, 20, 8, 20);
  const Answers expected = solve(batch.view, 1);
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 6; ++caller) {
    callers.emplace_back([&, caller] {
      for (int repeat = 0; repeat < 5; ++repeat) {
        check(same(expected, solve(batch.view, 1 + (caller + repeat) % 4)), "callers do not disturb each other", 77,
              caller);
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
}

void test_exceptions_and_stops() {
  for (const std::int64_t threads : {1, 4}) {
    std::atomic<int> done{0};
    bool caught = false;
    Stop stop;
    try {
      ThreadPool::instance().run(50, threads, stop, [&](std::int64_t index) {
        if (index == 7) throw std::invalid_argument("seven");
        ++done;
      });
    } catch (const std::invalid_argument& error) {
      caught = std::string(error.what()) == "seven";
    }
    check(caught && done == 49 && stop.requested(), "the first exception reaches the caller", threads, 7);

    int polls = 0;
    Stop interrupted(-1.0, [&] { return ++polls > 1; });
    ThreadPool::instance().run(threads, threads, interrupted, [&](std::int64_t) {
      while (!interrupted.requested()) std::this_thread::yield();
    });
    check(polls == 2, "the owner's poll stops all threads", threads, polls);
  }
  Stop stop;
  ThreadPool::instance().run(0, 8, stop, [&](std::int64_t index) { check(false, "nothing to do", 0, index); });
}

}  // namespace
}  // namespace graphmatch

int main() {
  graphmatch::test_random_batches<float>(0, 60);
  graphmatch::test_random_batches<double>(1000, 60);
  graphmatch::test_invalid_input();
  graphmatch::test_concurrent_callers();
  graphmatch::test_exceptions_and_stops();
  if (graphmatch::failures > 0) return 1;
  std::printf("all native tests passed\n");
  return 0;
}
