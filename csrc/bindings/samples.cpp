#include "bindings/samples.hpp"

#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "bindings/cpu_arguments.hpp"
#include "bindings/lawler_arguments.hpp"
#include "bindings/sample_batch.hpp"
#include "core/lawler_samples.hpp"
#include "core/linear_samples.hpp"
#include "core/noise.hpp"

namespace py = pybind11;

namespace graphmatch {
namespace {

void lawler_samples(const LawlerArguments& arguments, const SampleArguments& sources, const LawlerOptions& solver,
                    const SampleOptions& options, const States& warm, const States& kept, const Budget& budget,
                    const SampleAnswers& answers, const Answers& center) {
  check_states(arguments, warm, kept);
  const SampleShape padded{arguments.rows, arguments.columns, arguments.edge_count1, arguments.edge_count2};
  SampleBatch batch(arguments.batch, padded, options, budget, answers, warm.batch == 0);
  auto solve = [&](const auto& problem, auto element, std::int64_t index, std::int64_t block, Stop& call) {
    using T = decltype(element);
    LawlerSampler<T> sampler(problem, sources.source<T>(index), solver, options);
    std::vector<std::int64_t> matching;
    if (warm.batch > 0) {
      sampler.start_from(warm.dual(index), warm.matching(index));
    } else {
      // Every block needs the center; one of them shows it.
      const bool shown = block == 0;
      matching.resize(static_cast<std::size_t>(arguments.rows));
      std::int64_t* found = shown ? center.cleared_assignment(index, arguments.rows) : matching.data();
      const DualState state = shown ? kept.dual(index) : DualState{};
      const Solution solution =
          batch.within_time(call, [&](Stop& stop) { return sampler.solve_center(state, stop, found); });
      if (shown) center.write(index, solution);
    }
    const SampleShape shape{problem.rows, problem.columns, problem.edge_count1, problem.edge_count2};
    batch.solve_block<T>(sampler, shape, index, block, call);
  };
  batch.run([&](std::int64_t index, std::int64_t block, Stop& call) {
    if (arguments.is_double) {
      solve(checked_problem(arguments.problems<double>(), index), double{}, index, block, call);
    } else {
      solve(checked_problem(arguments.problems<float>(), index), float{}, index, block, call);
    }
  });
}

void linear_samples(const LinearArguments& arguments, const SampleArguments& sources, const SampleOptions& options,
                    const LinearStarts& starts, const Budget& budget, const SampleAnswers& answers,
                    const Answers& center, const Duals& duals) {
  const std::int64_t rows = arguments.rows, columns = arguments.columns;
  SampleBatch batch(arguments.batch, {rows, columns, 0, 0}, options, budget, answers, starts.batch == 0);
  auto solve = [&](auto element, std::int64_t index, std::int64_t block, Stop& call) {
    using T = decltype(element);
    const LinearProblem<T> problem = arguments.problem<T>(index);
    LinearSampler<T> sampler(problem, sources.source<T>(index), options);
    std::vector<std::int64_t> matching;
    std::vector<double> row_duals, column_duals;
    if (starts.batch > 0) {
      sampler.start_from(starts.at(index, rows));
    } else {
      // Every block needs the center; one of them shows it.
      const bool shown = block == 0;
      matching.assign(static_cast<std::size_t>(rows), -1);
      row_duals.assign(static_cast<std::size_t>(rows), 0.0);
      column_duals.assign(static_cast<std::size_t>(columns), 0.0);
      std::int64_t* found = shown ? center.cleared_assignment(index, rows) : matching.data();
      const LinearDuals kept =
          shown ? duals.cleared(index, rows, columns) : LinearDuals{row_duals.data(), column_duals.data()};
      const Solution solution = sampler.solve_center(kept, found);
      if (shown) center.write(index, solution);
      sampler.start_from(LinearStart{found, kept.rows});
    }
    batch.solve_block<T>(sampler, {problem.rows, problem.columns, 0, 0}, index, block, call);
  };
  batch.run([&](std::int64_t index, std::int64_t block, Stop& call) {
    if (arguments.is_double) {
      solve(double{}, index, block, call);
    } else {
      solve(float{}, index, block, call);
    }
  });
}

// Noise (samples, batch, rows, columns) of the samples from `first` on; 0 outside of the real rows and columns.
void fill_noise(const NoiseOptions& options, std::uintptr_t keys, std::uintptr_t instances, std::uintptr_t sizes,
                std::int64_t batch, std::int64_t rows, std::int64_t columns, std::int64_t samples, std::int64_t first,
                std::uintptr_t noise) {
  require(samples >= 0 && first >= 0 && rows >= 0 && columns >= 0, "sizes must not be negative");
  const Budget budget{-1.0, 1};
  budget.run(batch, [&](std::int64_t index, Stop& call) {
    std::int64_t real_rows = rows, real_columns = columns;
    if (sizes != 0) {
      real_rows = pointer<const std::int64_t>(sizes)[2 * index];
      real_columns = pointer<const std::int64_t>(sizes)[2 * index + 1];
      require(0 <= real_rows && real_rows <= rows && 0 <= real_columns && real_columns <= columns,
              "sizes of problem " + std::to_string(index) + " must fit into the padded batch");
    }
    Noise own(options, static_cast<std::uint64_t>(pointer<const std::int64_t>(keys)[index]),
              static_cast<std::uint64_t>(pointer<const std::int64_t>(instances)[index]), real_rows, real_columns);
    for (std::int64_t sample = 0; sample < samples && !call.requested(); ++sample) {
      float* drawn = pointer<float>(noise) + (sample * batch + index) * rows * columns;
      if (real_rows < rows || real_columns < columns) std::fill_n(drawn, rows * columns, 0.0f);
      own.draw(first + sample, drawn, columns);
    }
  });
}

}  // namespace

void bind_samples(py::module_& module) {
  py::class_<NoiseOptions>(module, "NoiseOptions")
      .def(py::init([](std::int64_t kind, std::int64_t coupling, std::uint64_t seed, std::uint64_t stream) {
             require(kind >= 0 && kind <= static_cast<std::int64_t>(NoiseKind::kUniform), "no such noise");
             require(coupling >= 0 && coupling <= static_cast<std::int64_t>(NoiseCoupling::kOrthogonal),
                     "no such coupling");
             const NoiseOptions noise{static_cast<NoiseKind>(kind), static_cast<NoiseCoupling>(coupling), seed, stream};
             require(noise.kind != NoiseKind::kSumOfGamma || noise.coupling == NoiseCoupling::kIndependent,
                     "sum-of-Gamma noise must be independent");
             return noise;
           }),
           py::kw_only(), py::arg("kind"), py::arg("coupling"), py::arg("seed"), py::arg("stream"));

  py::class_<SampleOptions>(module, "SampleOptions")
      .def(py::init([](std::int64_t samples, double noise_scale, const NoiseOptions& noise,
                       const std::vector<double>& signs) {
             require(samples >= 0, "samples must not be negative");
             return SampleOptions{samples, noise_scale, noise, signs};
           }),
           py::kw_only(), py::arg("samples"), py::arg("noise_scale"), py::arg("noise"), py::arg("signs"));

  py::class_<SampleArguments>(module, "SampleArguments")
      .def(py::init([](std::uintptr_t unary_step, std::uintptr_t quadratic_step, std::int64_t unary_step_stride,
                       std::int64_t quadratic_step_stride, std::uintptr_t keys, std::uintptr_t instances) {
             return SampleArguments{unary_step, quadratic_step, unary_step_stride, quadratic_step_stride,
                                    keys,       instances};
           }),
           py::kw_only(), py::arg("unary_step"), py::arg("quadratic_step"), py::arg("unary_step_stride"),
           py::arg("quadratic_step_stride"), py::arg("keys"), py::arg("instances"));

  py::class_<SampleAnswers>(module, "SampleAnswers")
      .def(py::init([](std::uintptr_t matching_means, std::uintptr_t paid_means, std::uintptr_t assignment,
                       std::uintptr_t objective, std::uintptr_t lower_bound, std::uintptr_t status,
                       std::uintptr_t iterations, double open_gap, bool weigh) {
             return SampleAnswers{matching_means, paid_means, assignment, objective, lower_bound,
                                  status,         iterations, open_gap,   weigh};
           }),
           py::kw_only(), py::arg("matching_means"), py::arg("paid_means"), py::arg("assignment"), py::arg("objective"),
           py::arg("lower_bound"), py::arg("status"), py::arg("iterations"), py::arg("open_gap"), py::arg("weigh"));

  module.def("noise", &fill_noise, py::kw_only(), py::arg("options"), py::arg("keys"), py::arg("instances"),
             py::arg("sizes"), py::arg("batch"), py::arg("rows"), py::arg("columns"), py::arg("samples"),
             py::arg("first"), py::arg("noise"));
  module.def("lawler_samples", &lawler_samples, py::kw_only(), py::arg("problems"), py::arg("sources"),
             py::arg("solver"), py::arg("options"), py::arg("warm"), py::arg("kept"), py::arg("budget"),
             py::arg("answers"), py::arg("center"));
  module.def("linear_samples", &linear_samples, py::kw_only(), py::arg("problems"), py::arg("sources"),
             py::arg("options"), py::arg("starts"), py::arg("budget"), py::arg("answers"), py::arg("center"),
             py::arg("duals"));
}

}  // namespace graphmatch
