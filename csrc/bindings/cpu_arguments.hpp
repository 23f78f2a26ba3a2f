// What the CPU operators take and return: addresses of the arrays of a batch, and the budget of a call.
#pragma once

#include <pybind11/pybind11.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <string>

#include "bindings/lawler_arguments.hpp"
#include "bindings/thread_pool.hpp"
#include "core/dual_ascent.hpp"
#include "core/linear.hpp"
#include "core/solution.hpp"
#include "core/stop.hpp"

namespace graphmatch {

// Where the answers of a batch go: arrays of `batch` entries, the assignment with one row of `rows` per problem.
struct Answers {
  std::uintptr_t assignment, objective, lower_bound, status, iterations, stage;

  void write(std::int64_t index, const Solution& solution) const {
    pointer<double>(objective)[index] = solution.objective;
    pointer<double>(lower_bound)[index] = solution.lower_bound;
    pointer<std::int64_t>(status)[index] = static_cast<std::int64_t>(solution.status);
    pointer<std::int64_t>(iterations)[index] = solution.iterations;
    pointer<std::int64_t>(stage)[index] = static_cast<std::int64_t>(solution.stage);
  }

  // Padding rows of an answer are unmatched.
  std::int64_t* cleared_assignment(std::int64_t index, std::int64_t rows) const {
    std::int64_t* row = pointer<std::int64_t>(assignment) + index * rows;
    std::fill_n(row, rows, std::int64_t{-1});
    return row;
  }
};

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

// A batch of linear problems; costs are rows x columns with `batch_stride` between problems.
struct LinearArguments {
  std::int64_t batch, rows, columns;
  std::uintptr_t costs;
  std::int64_t batch_stride;
  std::uintptr_t sizes;  // 0: every problem has the padded size
  bool complete;
  double unmatched_cost;
  bool is_double;

  template <class T>
  LinearProblem<T> problem(std::int64_t index) const {
    LinearProblem<T> view;
    view.rows = rows;
    view.columns = columns;
    if (sizes != 0) {
      const std::int64_t* size = pointer<const std::int64_t>(sizes) + 2 * index;
      require(0 <= size[0] && size[0] <= rows && 0 <= size[1] && size[1] <= columns,
              "sizes of problem " + std::to_string(index) + " must fit into the padded batch");
      view.rows = size[0];
      view.columns = size[1];
    }
    view.costs = pointer<const T>(costs) + index * batch_stride;
    view.stride = columns;
    view.complete = complete;
    view.unmatched_cost = unmatched_cost;
    return view;
  }
};

// Duals of a batch of linear problems, one row of the padded size per problem.
struct Duals {
  std::uintptr_t rows, columns;

  // Padding has none.
  LinearDuals cleared(std::int64_t index, std::int64_t row_count, std::int64_t column_count) const {
    const LinearDuals duals{pointer<double>(rows) + index * row_count, pointer<double>(columns) + index * column_count};
    std::fill_n(duals.rows, row_count, 0.0);
    std::fill_n(duals.columns, column_count, 0.0);
    return duals;
  }
};

// Matchings and row duals of `batch` earlier solves; problem i of a larger batch takes entry i mod batch.
struct LinearStarts {
  std::int64_t batch;
  std::uintptr_t matching, row_duals;

  LinearStart at(std::int64_t index, std::int64_t rows) const {
    if (batch == 0) return LinearStart{};
    const std::int64_t offset = index % batch * rows;
    return LinearStart{pointer<const std::int64_t>(matching) + offset, pointer<const double>(row_duals) + offset};
  }
};

}  // namespace graphmatch
