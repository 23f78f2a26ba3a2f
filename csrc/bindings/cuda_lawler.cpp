#include "bindings/cuda_lawler.hpp"

#include <cstdint>

#include "bindings/answers.hpp"
#include "bindings/cuda_support.hpp"
#include "bindings/lawler_arguments.hpp"
#include "cuda/lawler.hpp"

namespace py = pybind11;

namespace graphmatch {
namespace {

struct States {
  std::int64_t batch, rows, columns, pair_capacity;
  std::uintptr_t messages, potentials, scale, assignment;

  DualStateBatch view() const {
    DualStateBatch view;
    view.count = batch;
    view.rows = rows;
    view.columns = columns;
    view.pair_capacity = pair_capacity;
    view.messages = pointer<float>(messages);
    view.potentials = pointer<float>(potentials);
    view.scale = pointer<double>(scale);
    view.assignment = pointer<const std::int64_t>(assignment);
    return view;
  }
};

template <class Task>
void with_problems(const LawlerArguments& arguments, const Task& task) {
  if (arguments.is_double) {
    task(arguments.problems<double>());
  } else {
    task(arguments.problems<float>());
  }
}

constexpr const char* kFunction = "lawler_solve";

std::int64_t scratch_bytes(const LawlerArguments& arguments, std::int64_t runs, std::int64_t limit, int device) {
  const DeviceGuard guard(device, kFunction);
  LawlerPlan plan{};
  with_problems(arguments, [&](const auto& problems) {
    check(plan_lawler_solve(problems, problems.count * runs, limit, plan), kFunction);
  });
  return plan.scratch_bytes();
}

void solve(const LawlerArguments& arguments, const LawlerOptions& options, std::int64_t runs, const States& warm,
           const States& kept, const Answers& answers, std::uintptr_t scratch, std::int64_t scratch_size, int device,
           std::uintptr_t stream) {
  for (const States* states : {&warm, &kept}) {
    require(states->batch == 0 || (states->rows == arguments.rows && states->columns == arguments.columns),
            "states must be of problems of the same size");
  }
  require(kept.batch == 0 || kept.batch == arguments.batch, "there must be room for the state of each problem");
  require(runs == 1 || kept.batch == 0, "searches of the same problem must not share the room for its state");
  const DeviceGuard guard(device, kFunction);
  with_problems(arguments, [&](const auto& problems) {
    LawlerPlan plan{};
    check(plan_lawler_solve(problems, problems.count * runs, scratch_size, plan), kFunction);
    require(plan.scratch_bytes() <= scratch_size, "scratch memory must be as large as lawler_scratch_bytes says");
    check(launch_lawler_solve(problems, options, runs, warm.view(), kept.view(), answers.batch(), plan,
                              pointer<void>(scratch), reinterpret_cast<cudaStream_t>(stream)),
          kFunction);
  });
}

LawlerOptions make_options(std::int64_t method, double max_gap, std::uint64_t seed, std::int64_t max_iterations,
                           std::int64_t runs, std::int64_t steps, double effort) {
  LawlerOptions options;
  options.method = static_cast<LawlerMethod>(method);
  require(options.method == LawlerMethod::kDualAscent || options.method == LawlerMethod::kTabu ||
              options.method == LawlerMethod::kPortfolio,
          "method must be the dual ascent, tabu search or the portfolio on a GPU");
  options.max_gap = max_gap;
  options.seed = seed;
  options.max_iterations = max_iterations;
  options.runs = runs;
  options.steps = steps;
  options.effort = effort;
  return options;
}

}  // namespace

void bind_cuda_lawler(py::module_& module) {
  py::class_<LawlerOptions>(module, "LawlerOptions", py::module_local())
      .def(py::init(&make_options), py::kw_only(), py::arg("method"), py::arg("max_gap"), py::arg("seed"),
           py::arg("max_iterations"), py::arg("runs"), py::arg("steps"), py::arg("effort"));
  py::class_<States>(module, "States", py::module_local())
      .def(py::init([](std::int64_t batch, std::int64_t rows, std::int64_t columns, std::int64_t pair_capacity,
                       std::uintptr_t messages, std::uintptr_t potentials, std::uintptr_t scale,
                       std::uintptr_t assignment) {
             return States{batch, rows, columns, pair_capacity, messages, potentials, scale, assignment};
           }),
           py::kw_only(), py::arg("batch"), py::arg("rows"), py::arg("columns"), py::arg("pair_capacity"),
           py::arg("messages"), py::arg("potentials"), py::arg("scale"), py::arg("assignment"));
  module.def("lawler_scratch_bytes", &scratch_bytes, py::arg("problems"), py::kw_only(), py::arg("runs"),
             py::arg("limit"), py::arg("device"),
             "Bytes of scratch memory that lawler_solve will use, within a limit.");
  module.def("lawler_solve", &solve, py::call_guard<py::gil_scoped_release>(), py::arg("problems"), py::arg("options"),
             py::kw_only(), py::arg("runs"), py::arg("warm"), py::arg("kept"), py::arg("answers"), py::arg("scratch"),
             py::arg("scratch_size"), py::arg("device"), py::arg("stream"),
             "Queues the solution of a batch on `stream`; answers have an entry per problem and run.");
}

}  // namespace graphmatch
