// What the CPU operators alone take: states of quadratic problems, and the budget of a call.
#pragma once

#include <pybind11/pybind11.h>

#include <atomic>
#include <cstdint>
#include <string>

#include "bindings/answers.hpp"
#include "bindings/lawler_arguments.hpp"
#include "bindings/linear_arguments.hpp"
#include "bindings/thread_pool.hpp"
#include "core/dual_ascent.hpp"
#include "core/solution.hpp"
#include "core/stop.hpp"

namespace graphmatch {

// Time limit, threads and Ctrl-C of one call.
struct Budget {
  double time_limit;  // seconds, negative = none
  std::int64_t threads;

  template <class Task>
  void run(std::int64_t batch, const Task& task) const {
    require(batch >= 0, "the batch size must not be negative");
    require(threads >= 1, "threads must be at least 1");
    std::atomic<bool> interrupted{false};
    {
      const pybind11::gil_scoped_release release;
      Stop stop(time_limit, [&] {
        const pybind11::gil_scoped_acquire acquire;
        if (PyErr_CheckSignals() != 0) interrupted = true;
        return interrupted.load();
      });
      // Nobody sees the answers of an interrupted call.
      ThreadPool::instance().run(batch, threads, stop, [&](std::int64_t index) {
        stop.requested();
        if (!interrupted) task(index, stop);
      });
    }
    if (interrupted) throw pybind11::error_already_set();
  }
};

// Checks the size of one problem of a padded batch: sizes come from a tensor that Python may have changed.
template <class T>
LawlerProblem<T> checked_problem(const LawlerBatch<T>& batch, std::int64_t index) {
  const LawlerProblem<T> problem = batch.problem(index);
  const LawlerProblem<T>& padded = batch.first;
  require(0 <= problem.rows && problem.rows <= padded.rows && 0 <= problem.columns &&
              problem.columns <= padded.columns && 0 <= problem.edge_count1 &&
              problem.edge_count1 <= padded.edge_count1 && 0 <= problem.edge_count2 &&
              problem.edge_count2 <= padded.edge_count2,
          "sizes of problem " + std::to_string(index) + " must fit into the padded batch");
  return problem;
}

// Calls task(problem) with problem `index` in the batch's element type.
template <class Task>
void with_problem(const LawlerArguments& arguments, std::int64_t index, const Task& task) {
  if (arguments.is_double) {
    task(checked_problem(arguments.problems<double>(), index));
  } else {
    task(checked_problem(arguments.problems<float>(), index));
  }
}

// Duals and matchings of earlier solves, or room for those of this one: `batch` entries of the problems' padded sizes.
// Problem i of a larger batch takes entry i mod batch: variants of the same problems share them.
struct States {
  std::int64_t batch, rows, columns, pair_capacity;
  std::uintptr_t messages, potentials, scale, assignment;

  DualState dual(std::int64_t index) const {
    if (batch == 0) return DualState{};
    const std::int64_t entry = index % batch;
    return DualState{pointer<float>(messages) + entry * 2 * pair_capacity * (columns + 1),
                     pointer<float>(potentials) + entry * columns, pointer<double>(scale) + entry, columns,
                     pair_capacity};
  }
  const std::int64_t* matching(std::int64_t index) const {
    return batch == 0 ? nullptr : pointer<const std::int64_t>(assignment) + index % batch * rows;
  }
};

inline void check_states(const LawlerArguments& arguments, const States& warm, const States& kept) {
  for (const States* states : {&warm, &kept}) {
    require(states->batch == 0 || (states->rows == arguments.rows && states->columns == arguments.columns),
            "states must be of problems of the same size");
  }
  require(kept.batch == 0 || kept.batch == arguments.batch, "there must be room for the state of each problem");
}

}  // namespace graphmatch
