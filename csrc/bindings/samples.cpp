#include "bindings/samples.hpp"

#include <pybind11/stl.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "bindings/cpu_arguments.hpp"
#include "bindings/lawler_arguments.hpp"
#include "core/lawler_samples.hpp"
#include "core/noise.hpp"
#include "core/solution_mean.hpp"

namespace py = pybind11;

namespace graphmatch {
namespace {

// Steps and counters of the samples of a batch; 0 = no such step.
struct SampleArguments {
  std::uintptr_t unary_step, quadratic_step;
  std::int64_t unary_step_stride, quadratic_step_stride;  // between problems
  std::uintptr_t keys, instances;                         // one per problem

  template <class T>
  SampleSource<T> source(std::int64_t index) const {
    SampleSource<T> own;
    if (unary_step != 0) own.unary_step = pointer<const T>(unary_step) + index * unary_step_stride;
    if (quadratic_step != 0) own.quadratic_step = pointer<const T>(quadratic_step) + index * quadratic_step_stride;
    own.key = static_cast<std::uint64_t>(pointer<const std::int64_t>(keys)[index]);
    own.instance = static_cast<std::uint64_t>(pointer<const std::int64_t>(instances)[index]);
    return own;
  }
};

// Where the answers of all samples go: certificates (variants, samples, batch), means (variants, batch, ...).
struct SampleAnswers {
  std::uintptr_t matching_means, paid_means, assignment, objective, lower_bound, status,
      iterations;   // assignment: or 0
  double open_gap;  // see sample_weight()
  bool weigh;

  void write(std::int64_t index, const Solution& solution) const {
    pointer<double>(objective)[index] = solution.objective;
    pointer<double>(lower_bound)[index] = solution.lower_bound;
    pointer<std::int64_t>(status)[index] = static_cast<std::int64_t>(solution.status);
    pointer<std::int64_t>(iterations)[index] = solution.iterations;
  }
};

bool has_matching(const Solution& solution) {
  return solution.status == Status::kOptimal || solution.status == Status::kFeasible;
}

// The samples of each problem as tasks: blocks of samples, more than one only where threads outnumber the problems.
class SampleBlocks {
 public:
  SampleBlocks(std::int64_t samples, std::int64_t batch, std::int64_t threads)
      : samples_(samples),
        per_problem_(std::clamp((threads + batch - 1) / std::max<std::int64_t>(batch, 1), std::int64_t{1},
                                std::max<std::int64_t>(samples / kLeast, 1))) {}

  std::int64_t per_problem() const { return per_problem_; }

  // Samples [first, last) of a block; blocks begin where a group of samples does, and may be empty.
  std::int64_t first(std::int64_t block, std::int64_t group) const {
    const std::int64_t even = (samples_ + per_problem_ - 1) / per_problem_;
    return std::min(block * ((even + group - 1) / group * group), samples_);
  }

 private:
  static constexpr std::int64_t kLeast = 4;  // the center and the tables cost about as much as so many samples

  const std::int64_t samples_, per_problem_;
};

// A stop for one solve: its share of the time that is left, among all solves that have not begun.
class FairShare {
 public:
  FairShare(const Budget& budget, std::int64_t solves) : budget_(budget), waiting_(solves) {}

  template <class Solve>
  Solution run(Stop& call, const Solve& solve) {
    if (budget_.time_limit < 0) return solve(call);
    const double rounds = static_cast<double>(waiting_.fetch_sub(1)) / static_cast<double>(budget_.threads);
    Stop stop(call, std::max(call.seconds_left(), 0.0) / std::max(rounds, 1.0));
    return solve(stop);
  }

 private:
  const Budget& budget_;
  std::atomic<std::int64_t> waiting_;
};

// The sums of one problem's variants while its blocks are at work.
struct ProblemSums {
  std::once_flag begun;
  std::vector<std::unique_ptr<SolutionMean>> means;
  std::atomic<std::int64_t> blocks_left{0};
};

class LawlerSampling {
 public:
  LawlerSampling(const LawlerArguments& arguments, const SampleArguments& sources, const LawlerOptions& solver,
                 const SampleOptions& options, const States& warm, const States& kept, const Budget& budget,
                 const SampleAnswers& answers, const Answers& center)
      : arguments_(arguments),
        sources_(sources),
        solver_(solver),
        options_(options),
        warm_(warm),
        kept_(kept),
        budget_(budget),
        answers_(answers),
        center_(center),
        variants_(static_cast<std::int64_t>(options.signs.size())),
        blocks_(options.samples, arguments.batch, budget.threads),
        share_(budget, arguments.batch * (blocks_.per_problem() + variants_ * options.samples)),
        sums_(static_cast<std::size_t>(arguments.batch)) {
    for (ProblemSums& sums : sums_) sums.blocks_left = blocks_.per_problem();
  }

  void run() {
    budget_.run(arguments_.batch * blocks_.per_problem(), [&](std::int64_t task, Stop& call) {
      const std::int64_t index = task % arguments_.batch;
      with_problem(arguments_, index,
                   [&](const auto& problem) { solve_block(problem, index, task / arguments_.batch, call); });
    });
  }

 private:
  template <class T>
  void solve_block(const LawlerProblem<T>& problem, std::int64_t index, std::int64_t block, Stop& call) {
    ProblemSums& sums = sums_[index];
    std::call_once(sums.begun, [&] {
      for (std::int64_t v = 0; v < variants_; ++v) {
        sums.means.push_back(
            std::make_unique<SolutionMean>(problem.rows, problem.columns, problem.edge_count1, problem.edge_count2));
      }
    });
    LawlerSampler<T> sampler(problem, sources_.source<T>(index), solver_, options_);
    std::vector<std::int64_t> center(static_cast<std::size_t>(arguments_.rows), -1);
    if (warm_.batch > 0) {
      sampler.start_from(warm_.dual(index), warm_.matching(index));
    } else {
      const DualState state = block == 0 ? kept_.dual(index) : DualState{};
      const Solution solution =
          share_.run(call, [&](Stop& stop) { return sampler.solve_center(state, stop, center.data()); });
      if (block == 0) {
        std::copy(center.begin(), center.end(), center_.cleared_assignment(index, arguments_.rows));
        center_.write(index, solution);
      }
    }
    const std::int64_t group = Noise::group_size(options_.noise.coupling, problem.rows, problem.columns);
    const std::int64_t last = blocks_.first(block + 1, group);
    for (std::int64_t sample = blocks_.first(block, group); sample < last; ++sample) {
      if (call.cancelled()) return;
      solve_sample(sampler, problem, index, sample, call, sums);
    }
    if (sums.blocks_left.fetch_sub(1) == 1) write_means(problem, index, sums);
  }

  template <class T>
  void solve_sample(LawlerSampler<T>& sampler, const LawlerProblem<T>& problem, std::int64_t index, std::int64_t sample,
                    Stop& call, ProblemSums& sums) {
    const std::int64_t rows = arguments_.rows;
    std::vector<std::int64_t> assignments(static_cast<std::size_t>(variants_ * rows), -1);
    std::vector<char> counts(static_cast<std::size_t>(variants_), 0);
    double gap = 0.0;
    sampler.draw(sample);
    for (std::int64_t v = 0; v < variants_; ++v) {
      std::int64_t* assignment = assignments.data() + v * rows;
      const Solution solution = share_.run(call, [&](Stop& stop) { return sampler.solve(v, stop, assignment); });
      const std::int64_t place = (v * options_.samples + sample) * arguments_.batch + index;
      answers_.write(place, solution);
      if (answers_.assignment != 0) {
        std::copy_n(assignment, rows, pointer<std::int64_t>(answers_.assignment) + place * rows);
      }
      counts[v] = has_matching(solution);
      if (counts[v]) gap = std::max(gap, relative_gap(solution.objective, solution.lower_bound));
    }
    const std::int64_t weight = sample_weight(gap, answers_.open_gap, answers_.weigh);
    for (std::int64_t v = 0; v < variants_ && weight > 0; ++v) {
      if (counts[v]) sums.means[v]->add(problem, sampler.right_edges(v), assignments.data() + v * rows, weight);
    }
  }

  template <class T>
  void write_means(const LawlerProblem<T>& problem, std::int64_t index, ProblemSums& sums) const {
    (void)problem;
    for (std::int64_t v = 0; v < variants_; ++v) {
      const std::int64_t place = v * arguments_.batch + index;
      sums.means[v]->write(pointer<T>(answers_.matching_means) + place * arguments_.rows * arguments_.columns,
                           arguments_.columns,
                           pointer<T>(answers_.paid_means) + place * arguments_.edge_count1 * arguments_.edge_count2,
                           arguments_.edge_count2);
    }
    sums.means.clear();
  }

  const LawlerArguments& arguments_;
  const SampleArguments& sources_;
  const LawlerOptions& solver_;
  const SampleOptions& options_;
  const States &warm_, &kept_;
  const Budget& budget_;
  const SampleAnswers& answers_;
  const Answers& center_;
  const std::int64_t variants_;
  const SampleBlocks blocks_;
  FairShare share_;
  std::vector<ProblemSums> sums_;
};

void lawler_samples(const LawlerArguments& arguments, const SampleArguments& sources, const LawlerOptions& solver,
                    const SampleOptions& options, const States& warm, const States& kept, const Budget& budget,
                    const SampleAnswers& answers, const Answers& center) {
  check_states(arguments, warm, kept);
  LawlerSampling(arguments, sources, solver, options, warm, kept, budget, answers, center).run();
}

}  // namespace

void bind_samples(py::module_& module) {
  py::class_<SampleOptions>(module, "SampleOptions")
      .def(py::init([](std::int64_t samples, double noise_scale, std::int64_t kind, std::int64_t coupling,
                       std::uint64_t seed, const std::vector<double>& signs) {
             require(samples >= 0, "samples must not be negative");
             require(kind >= 0 && kind <= static_cast<std::int64_t>(NoiseKind::kUniform), "no such noise");
             require(coupling >= 0 && coupling <= static_cast<std::int64_t>(NoiseCoupling::kOrthogonal),
                     "no such coupling");
             const NoiseOptions noise{static_cast<NoiseKind>(kind), static_cast<NoiseCoupling>(coupling), seed, 0};
             return SampleOptions{samples, noise_scale, noise, signs};
           }),
           py::kw_only(), py::arg("samples"), py::arg("noise_scale"), py::arg("kind"), py::arg("coupling"),
           py::arg("seed"), py::arg("signs"));

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

  module.def("lawler_samples", &lawler_samples, py::kw_only(), py::arg("problems"), py::arg("sources"),
             py::arg("solver"), py::arg("options"), py::arg("warm"), py::arg("kept"), py::arg("budget"),
             py::arg("answers"), py::arg("center"));
}

}  // namespace graphmatch
