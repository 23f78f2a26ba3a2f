// The tests without end: several callers at once share the thread pool, each with random problems of every kind, for as
// long as asked. What the sanitizers find depends on how threads meet, and they meet anew each time.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

#include "batches.hpp"
#include "bindings/thread_pool.hpp"
#include "core/random.hpp"
#include "dense.hpp"
#include "multigraph.hpp"
#include "problems.hpp"
#include "samples.hpp"
#include "team_lap.hpp"
#include "team_lawler.hpp"
#include "team_moves.hpp"
#include "team_qap.hpp"

namespace graphmatch {

// Threads that read the same problems, with and without hurry.
inline void check_shared_problems(std::int64_t seed) {
  const Batch<float> batch(seed, 6, 7, 14);
  const auto method = static_cast<LawlerMethod>(seed % (static_cast<std::int64_t>(LawlerMethod::kPortfolio) + 1));
  const Answers expected = solve(batch.view, 1, -1.0, method);
  std::vector<std::thread> callers;
  for (std::int64_t caller = 0; caller < 3; ++caller) {
    callers.emplace_back([&, caller] {
      check(same(expected, solve(batch.view, 1 + caller, -1.0, method)), "callers share problems", seed, caller);
      const Answers hurried = solve(batch.view, 1 + caller, 1e-4 * static_cast<double>(caller), method);
      for (std::int64_t b = 0; b < batch.view.count; ++b) {
        const std::int64_t* x = hurried.assignment.data() + b * batch.view.first.rows;
        check_answer(batch.view.problem(b), x, hurried.solutions[b], seed, b, false);
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
}

// A call that another thread, the owner's poll, or an exception of a task ends somewhere on its way.
inline void check_interrupted_call(std::int64_t seed) {
  std::mt19937_64 random(static_cast<std::uint64_t>(seed));
  const Batch<double> batch(seed, 12, 9, 24);
  const std::int64_t nodes = batch.view.first.rows;
  const std::chrono::microseconds patience(random() % 3000);
  const auto bad = static_cast<std::int64_t>(random() % 24);  // often none
  const bool polls = seed % 2 == 0;
  const auto begun = Stop::Clock::now();
  Stop stop(-1.0, [&] { return polls && Stop::Clock::now() - begun > patience; });
  std::thread canceller([&] {
    std::this_thread::sleep_for(patience);
    if (!polls) stop.request();
  });
  std::vector<std::int64_t> assignment(batch.view.count * nodes, -1);
  std::vector<char> finished(batch.view.count, 0);
  bool caught = false;
  try {
    ThreadPool::instance().run(batch.view.count, 1 + seed % 4, stop, [&](std::int64_t index) {
      if (index == bad) throw std::runtime_error("a task fails");
      States states(batch.view);
      std::int64_t* x = assignment.data() + index * nodes;
      const auto method = static_cast<LawlerMethod>((seed + index) % 5);
      solve_lawler(batch.view.problem(index), small_budget(method), DualState{}, nullptr, states.at(index), stop, x);
      finished[index] = 1;
    });
  } catch (const std::runtime_error&) {
    caught = true;
  }
  canceller.join();
  check(caught == (bad < batch.view.count), "exceptions reach their caller", seed, bad);
  for (std::int64_t b = 0; b < batch.view.count; ++b) {
    check(finished[b] == (b == bad ? 0 : 1), "every task is run once", seed, b);
    std::vector<char> taken(nodes, 0);
    for (std::int64_t i = 0; i < nodes; ++i) {
      const std::int64_t column = assignment[b * nodes + i];
      check(column < 0 || (column < nodes && taken[column]++ == 0), "interrupted answers are matchings", seed, b);
    }
  }
}

// One job of the stress: its number says what it is.
inline void run_job(std::int64_t number, std::int64_t seed) {
  switch (number % 14) {
    case 0:
      return test_random_batches<float>(seed, 1);
    case 1:
      return test_random_batches<double>(seed, 1);
    case 2:
      return check_dense_problem(seed, seed % 8);
    case 3:
      return test_samples<float>(seed, 1);
    case 4:
      return test_samples<double>(seed, 1);
    case 5:
      return test_restarted_searches<float>(seed, 1);
    case 6:
      return test_multigraphs(seed, 2);
    case 7:
      return test_team_moves(seed, 1);
    case 8:
      return check_team_batch(seed, 1 + seed % 7, 2);
    case 9:
      return seed % 2 == 0 ? test_team_lap<float>(seed, 4) : test_team_lap<double>(seed, 4);
    case 10:
      return seed % 2 == 0 ? test_team_linear<float>(seed, 4) : test_team_linear<double>(seed, 4);
    case 11:
      return compare_teams(Batch<float>(seed, 4, 5, 9), {{1, 1, 4}, {1, 2, 2}});
    case 12:
      return check_shared_problems(seed);
    default:
      return check_interrupted_call(seed);
  }
}

// Runs jobs for so many seconds, and says how many. The same seed gives the same jobs, in about the same order.
inline void run_stress(double seconds, std::int64_t seed) {
  constexpr int kCallers = 5;
  seeds_are_known = false;
  const auto end =
      Stop::Clock::now() + std::chrono::duration_cast<Stop::Clock::duration>(std::chrono::duration<double>(seconds));
  std::atomic<std::int64_t> next{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < kCallers; ++caller) {
    callers.emplace_back([&] {
      while (Stop::Clock::now() < end) {
        const std::int64_t number = next.fetch_add(1);
        Random random(static_cast<std::uint64_t>(seed), static_cast<std::uint64_t>(number));
        run_job(number, static_cast<std::int64_t>(random.next() % 1000000000));
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  std::printf("stress: %lld calls, %d failures\n", static_cast<long long>(next.load()), failures.load());
}

}  // namespace graphmatch
