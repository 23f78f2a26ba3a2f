// The thread pool: callers side by side, exceptions, stops.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "bindings/thread_pool.hpp"
#include "problems.hpp"

namespace graphmatch {

// Several callers share the pool, as Python threads do.
inline void test_concurrent_callers() {
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

inline void test_exceptions_and_stops() {
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

}  // namespace graphmatch
