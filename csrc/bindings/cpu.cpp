// Python module graphmatch._native_cpu: batches of problems as addresses, sizes and strides.
//
// Sizes are checked here; the GIL is released while the batch runs over the thread pool. Strides are in elements; a
// batch stride of 0 shares one array among all problems.
#include <pybind11/pybind11.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "bindings/cpu_arguments.hpp"
#include "bindings/lawler_arguments.hpp"
#include "bindings/multigraph.hpp"
#include "bindings/openmp.hpp"
#include "bindings/samples.hpp"
#include "core/lawler.hpp"
#include "core/lawler_solver.hpp"
#include "core/linear.hpp"
#include "core/objective_kernel.hpp"
#include "core/qap_solver.hpp"
#include "core/team.hpp"

namespace py = pybind11;

namespace graphmatch {
namespace {

void lawler_solve(const LawlerArguments& arguments, const LawlerOptions& options, const States& warm,
                  const States& kept, const Budget& budget, const Answers& answers) {
  check_states(arguments, warm, kept);
  std::atomic<std::int64_t> waiting{arguments.batch};
  budget.run(arguments.batch, [&](std::int64_t index, Stop& call) {
    // What is left of the time, shared among the problems that have not begun.
    const double rounds = static_cast<double>(waiting.fetch_sub(1)) / static_cast<double>(budget.threads);
    Stop stop(call, budget.time_limit < 0 ? -1.0 : std::max(call.seconds_left(), 0.0) / std::max(rounds, 1.0));
    std::int64_t* assignment = answers.cleared_assignment(index, arguments.rows);
    with_problem(arguments, index, [&](const auto& problem) {
      answers.write(index, solve_lawler(problem, options, warm.dual(index), warm.matching(index), kept.dual(index),
                                        stop, assignment));
    });
  });
}

// Objective of given assignments; NaN where the problem or the assignment is invalid.
void evaluate_lawler_objective(const LawlerArguments& arguments, std::uintptr_t assignment, const Budget& budget,
                               std::uintptr_t objective) {
  budget.run(arguments.batch, [&](std::int64_t index, Stop&) {
    const std::int64_t* x = pointer<const std::int64_t>(assignment) + index * arguments.rows;
    with_problem(arguments, index, [&](const auto& problem) {
      SerialTeam alone;
      pointer<double>(objective)[index] =
          is_valid(problem) ? lawler_objective(problem, x, alone) : invalid_solution().objective;
    });
  });
}

void linear_assignment(const LinearArguments& arguments, const LinearStarts& starts, const Budget& budget,
                       const Answers& answers, const Duals& duals) {
  const std::int64_t batch = arguments.batch, rows = arguments.rows, columns = arguments.columns;
  auto solve = [&](auto& solver, auto element, std::int64_t index) {
    answers.write(index, solver.solve(arguments.problem<decltype(element)>(index), starts.at(index, rows),
                                      duals.cleared(index, rows, columns), answers.cleared_assignment(index, rows)));
  };
  // Small problems go to the threads in groups, which share their memory and the price of handing them out.
  constexpr std::int64_t kLeastCosts = 4096, kMostCosts = 16384, kTasksPerThread = 4;
  const std::int64_t size = std::max<std::int64_t>(rows * columns, 1);
  const std::int64_t fair = batch / std::max<std::int64_t>(kTasksPerThread * budget.threads, 1);
  const std::int64_t group = std::max<std::int64_t>(std::clamp(fair, kLeastCosts / size, kMostCosts / size), 1);
  auto solve_group = [&](auto element, std::int64_t first) {
    LinearSolver<decltype(element)> solver;
    for (std::int64_t index = first; index < std::min(first + group, batch); ++index) solve(solver, element, index);
  };
  budget.run((batch + group - 1) / group, [&](std::int64_t task, Stop&) {
    if (arguments.is_double) {
      solve_group(double{}, task * group);
    } else {
      solve_group(float{}, task * group);
    }
  });
}

// A batch of dense problems: three matrices each (linear may be null) of `nodes` padded rows, and a point to start
// from.
struct QapArguments {
  std::int64_t batch, nodes;
  std::uintptr_t flow, distance, linear;
  std::int64_t flow_batch_stride, distance_batch_stride, linear_batch_stride;
  std::uintptr_t sizes;  // 0: every problem has the padded size
  std::uintptr_t start;  // double; 0 = none
  std::int64_t start_batch_stride;
  bool is_double;

  template <class T>
  QapProblem<T> problem(std::int64_t index) const {
    QapProblem<T> view;
    view.nodes = sizes == 0 ? nodes : pointer<const std::int64_t>(sizes)[index];
    require(0 <= view.nodes && view.nodes <= nodes,
            "sizes of problem " + std::to_string(index) + " must fit into the padded batch");
    view.stride = nodes;
    view.flow = pointer<const T>(flow) + index * flow_batch_stride;
    view.distance = pointer<const T>(distance) + index * distance_batch_stride;
    view.linear = linear == 0 ? nullptr : pointer<const T>(linear) + index * linear_batch_stride;
    return view;
  }
  const double* point(std::int64_t index) const {
    return start == 0 ? nullptr : pointer<const double>(start) + index * start_batch_stride;
  }
};

// `islands` searches of each problem with seeds of their own; the best of their answers, the first of equal ones.
void qap_solve(const QapArguments& arguments, const QapOptions& options, std::int64_t islands, const Budget& budget,
               const Answers& answers) {
  require(islands >= 1, "islands must be at least 1");
  const std::int64_t count = arguments.batch * islands;
  std::vector<Solution> solutions(static_cast<std::size_t>(count));
  std::vector<std::int64_t> assignments(static_cast<std::size_t>(count * arguments.nodes), -1);
  std::atomic<std::int64_t> waiting{count};
  budget.run(count, [&](std::int64_t task, Stop& call) {
    const double rounds = static_cast<double>(waiting.fetch_sub(1)) / static_cast<double>(budget.threads);
    Stop stop(call, budget.time_limit < 0 ? -1.0 : std::max(call.seconds_left(), 0.0) / std::max(rounds, 1.0));
    QapOptions own = options;
    own.seed += static_cast<std::uint64_t>(task % islands);
    const std::int64_t index = task / islands;
    std::int64_t* assignment = assignments.data() + task * arguments.nodes;
    solutions[task] = arguments.is_double
                          ? solve_qap(arguments.problem<double>(index), own, arguments.point(index), stop, assignment)
                          : solve_qap(arguments.problem<float>(index), own, arguments.point(index), stop, assignment);
  });
  for (std::int64_t index = 0; index < arguments.batch; ++index) {
    const auto first = solutions.begin() + index * islands;
    const auto better = [](const Solution& a, const Solution& b) { return a.objective < b.objective; };
    const auto best = std::min_element(first, first + islands, better);
    Solution solution = *best;
    for (auto other = first; other != first + islands; ++other) {
      if (other == best) continue;
      solution.iterations += other->iterations;
      solution.lower_bound = std::max(solution.lower_bound, std::min(other->lower_bound, solution.objective));
      if (other->status == Status::kOptimal && other->objective == solution.objective) solution.status = other->status;
    }
    std::copy_n(assignments.data() + (best - solutions.begin()) * arguments.nodes, arguments.nodes,
                answers.cleared_assignment(index, arguments.nodes));
    answers.write(index, solution);
  }
}

}  // namespace

PYBIND11_MODULE(_native_cpu, module) {
  module.doc() = "CPU core of graphmatch. Private: call it through graphmatch._ops.";

  OpenMp::instance();  // before anybody forks
  bind_lawler_arguments(module);
  bind_answers(module);
  bind_linear_arguments(module);

  py::class_<LawlerOptions>(module, "LawlerOptions")
      .def(py::init([](std::int64_t method, double max_gap, std::uint64_t seed, std::int64_t max_iterations,
                       std::int64_t runs, std::int64_t steps, std::int64_t max_nodes, double effort) {
             require(method >= 0 && method <= static_cast<std::int64_t>(LawlerMethod::kPortfolio), "no such method");
             return LawlerOptions{
                 static_cast<LawlerMethod>(method), max_gap, seed, max_iterations, runs, steps, max_nodes, effort};
           }),
           py::kw_only(), py::arg("method"), py::arg("max_gap"), py::arg("seed"), py::arg("max_iterations"),
           py::arg("runs"), py::arg("steps"), py::arg("max_nodes"), py::arg("effort"));

  py::class_<QapOptions>(module, "QapOptions")
      .def(py::init([](std::int64_t method, double max_gap, std::uint64_t seed, std::int64_t max_iterations,
                       std::int64_t runs, std::int64_t steps, double effort, double tolerance, bool sinkhorn,
                       double temperature, bool refine) {
             require(method >= 0 && method <= static_cast<std::int64_t>(QapMethod::kPortfolio), "no such method");
             return QapOptions{static_cast<QapMethod>(method),
                               max_gap,
                               seed,
                               max_iterations,
                               runs,
                               steps,
                               effort,
                               tolerance,
                               sinkhorn,
                               temperature,
                               refine};
           }),
           py::kw_only(), py::arg("method"), py::arg("max_gap"), py::arg("seed"), py::arg("max_iterations"),
           py::arg("runs"), py::arg("steps"), py::arg("effort"), py::arg("tolerance"), py::arg("sinkhorn"),
           py::arg("temperature"), py::arg("refine"));

  py::class_<QapArguments>(module, "QapArguments")
      .def(py::init([](std::int64_t batch, std::int64_t nodes, std::uintptr_t flow, std::uintptr_t distance,
                       std::uintptr_t linear, std::int64_t flow_batch_stride, std::int64_t distance_batch_stride,
                       std::int64_t linear_batch_stride, std::uintptr_t sizes, std::uintptr_t start,
                       std::int64_t start_batch_stride, bool is_double) {
             require(batch >= 0 && nodes >= 0, "sizes must not be negative");
             return QapArguments{batch,
                                 nodes,
                                 flow,
                                 distance,
                                 linear,
                                 flow_batch_stride,
                                 distance_batch_stride,
                                 linear_batch_stride,
                                 sizes,
                                 start,
                                 start_batch_stride,
                                 is_double};
           }),
           py::kw_only(), py::arg("batch"), py::arg("nodes"), py::arg("flow"), py::arg("distance"), py::arg("linear"),
           py::arg("flow_batch_stride"), py::arg("distance_batch_stride"), py::arg("linear_batch_stride"),
           py::arg("sizes"), py::arg("start"), py::arg("start_batch_stride"), py::arg("is_double"));

  py::class_<Budget>(module, "Budget")
      .def(py::init([](double time_limit, std::int64_t threads) { return Budget{time_limit, threads}; }), py::kw_only(),
           py::arg("time_limit"), py::arg("threads"));

  py::class_<States>(module, "States")
      .def(py::init([](std::int64_t batch, std::int64_t rows, std::int64_t columns, std::int64_t pair_capacity,
                       std::uintptr_t messages, std::uintptr_t potentials, std::uintptr_t scale,
                       std::uintptr_t assignment) {
             require(batch >= 0 && rows >= 0 && columns >= 0 && pair_capacity >= 0, "sizes must not be negative");
             return States{batch, rows, columns, pair_capacity, messages, potentials, scale, assignment};
           }),
           py::kw_only(), py::arg("batch"), py::arg("rows"), py::arg("columns"), py::arg("pair_capacity"),
           py::arg("messages"), py::arg("potentials"), py::arg("scale"), py::arg("assignment"));

  module.def("lawler_solve", &lawler_solve, py::arg("problems"), py::arg("options"), py::arg("warm"), py::arg("kept"),
             py::arg("budget"), py::arg("answers"));
  module.def("lawler_objective", &evaluate_lawler_objective, py::arg("problems"), py::arg("assignment"),
             py::arg("budget"), py::arg("objective"));
  module.def("qap_solve", &qap_solve, py::arg("problems"), py::arg("options"), py::arg("islands"), py::arg("budget"),
             py::arg("answers"));
  module.def("linear_assignment", &linear_assignment, py::kw_only(), py::arg("problems"), py::arg("starts"),
             py::arg("budget"), py::arg("answers"), py::arg("duals"));
  bind_samples(module);
  bind_multigraph(module);
}

}  // namespace graphmatch
