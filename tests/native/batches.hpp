// Random batches of sparse problems: every method, cold and warm, with and without time, on any number of threads.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "problems.hpp"

namespace graphmatch {

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
    // Every method, and a warm start of the same problems and of others.
    for (const LawlerMethod method :
         {LawlerMethod::kDualAscent, LawlerMethod::kTabu, LawlerMethod::kFusion, LawlerMethod::kBranchAndBound}) {
      States states(batch.view);
      const Answers found = solve(batch.view, 2, -1.0, method, &states);
      const bool exact = method == LawlerMethod::kBranchAndBound && batch.view.first.rows <= 5;
      for (std::int64_t b = 0; b < batch.view.count; ++b) {
        const std::int64_t* x = found.assignment.data() + b * batch.view.first.rows;
        check_answer(batch.view.problem(b), x, found.solutions[b], seed, b, exact);
      }
      const Answers again = solve(batch.view, 2, -1.0, method, &states, &found);
      for (std::int64_t b = 0; b < batch.view.count; ++b) {
        const std::int64_t* x = again.assignment.data() + b * batch.view.first.rows;
        check_answer(batch.view.problem(b), x, again.solutions[b], seed, b, exact);
        check(!(again.solutions[b].objective > found.solutions[b].objective), "a warm start loses nothing", seed, b);
      }
      for (std::size_t k = 0; k < states.messages.size(); k += 3) {
        states.messages[k] = k % 2 == 0 ? std::numeric_limits<float>::quiet_NaN() : 3e38f;
      }
      const Answers garbled = solve(batch.view, 2, -1.0, method, &states, &found);
      for (std::int64_t b = 0; b < batch.view.count; ++b) {
        const std::int64_t* x = garbled.assignment.data() + b * batch.view.first.rows;
        check_answer(batch.view.problem(b), x, garbled.solutions[b], seed, b, false);
      }
    }
    const Answers hurried = solve(batch.view, 2, 0.0);
    for (std::int64_t b = 0; b < batch.view.count; ++b) {
      const std::int64_t* x = hurried.assignment.data() + b * batch.view.first.rows;
      check_answer(batch.view.problem(b), x, hurried.solutions[b], seed, b, false);
    }
  }
}

}  // namespace graphmatch
