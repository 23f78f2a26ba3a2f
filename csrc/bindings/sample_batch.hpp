// The samples of a batch of problems over the thread pool: what sparse and linear problems have in common.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "bindings/cpu_arguments.hpp"
#include "bindings/lawler_arguments.hpp"
#include "core/noise.hpp"
#include "core/noisy_costs.hpp"
#include "core/solution_mean.hpp"

namespace graphmatch {

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
  std::uintptr_t matching_means;
  std::uintptr_t paid_means;  // 0 for linear problems
  std::uintptr_t assignment;  // 0 = not wanted
  std::uintptr_t objective, lower_bound, status, iterations;
  double open_gap;  // see sample_weight()
  bool weigh;

  void write(std::int64_t index, const Solution& solution) const {
    pointer<double>(objective)[index] = solution.objective;
    pointer<double>(lower_bound)[index] = solution.lower_bound;
    pointer<std::int64_t>(status)[index] = static_cast<std::int64_t>(solution.status);
    pointer<std::int64_t>(iterations)[index] = solution.iterations;
  }
};

// Sizes of one problem, or of the padded batch.
struct SampleShape {
  std::int64_t rows, columns, edge_count1, edge_count2;
};

class SampleBatch {
 public:
  // `solves_centers`: whether every task begins with the solution of its problem's center.
  SampleBatch(std::int64_t batch, const SampleShape& padded, const SampleOptions& options, const Budget& budget,
              const SampleAnswers& answers, bool solves_centers)
      : batch_(batch),
        padded_(padded),
        options_(options),
        budget_(budget),
        answers_(answers),
        variants_(static_cast<std::int64_t>(options.signs.size())),
        blocks_(std::clamp((budget.threads + batch - 1) / std::max<std::int64_t>(batch, 1), std::int64_t{1},
                           std::max<std::int64_t>(options.samples / kLeastSamples, 1))),
        waiting_(batch * ((solves_centers ? blocks_ : 0) + variants_ * options.samples)),
        sums_(static_cast<std::size_t>(batch)) {
    for (ProblemSums& sums : sums_) sums.blocks_left = blocks_;
  }

  // Runs task(index, block, stop) for each block of samples of each problem: more than one block only where threads
  // outnumber the problems.
  template <class Task>
  void run(const Task& task) const {
    budget_.run(batch_ * blocks_, [&](std::int64_t k, Stop& call) { task(k % batch_, k / batch_, call); });
  }

  // Calls solve(stop) with a fair share of the time: of what is left, among all solves that have not begun.
  template <class Solve>
  Solution within_time(Stop& call, const Solve& solve) {
    if (budget_.time_limit < 0) return solve(call);
    const double rounds = static_cast<double>(waiting_.fetch_sub(1)) / static_cast<double>(budget_.threads);
    Stop stop(call, std::max(call.seconds_left(), 0.0) / std::max(rounds, 1.0));
    return solve(stop);
  }

  // Solves a block of samples and, with the last block of a problem, writes its means.
  template <class T, class Sampler>
  void solve_block(Sampler& sampler, const SampleShape& shape, std::int64_t index, std::int64_t block, Stop& call) {
    ProblemSums& sums = sums_[index];
    std::call_once(sums.begun, [&] {
      for (std::int64_t v = 0; v < variants_; ++v) {
        sums.means.push_back(
            std::make_unique<SolutionMean>(shape.rows, shape.columns, shape.edge_count1, shape.edge_count2));
      }
    });
    const std::int64_t group = Noise::group_size(options_.noise.coupling, shape.rows, shape.columns);
    const std::int64_t last = first_sample(block + 1, group);
    for (std::int64_t sample = first_sample(block, group); sample < last; ++sample) {
      if (call.cancelled()) return;
      solve_sample(sampler, index, sample, call, sums);
    }
    if (sums.blocks_left.fetch_sub(1) == 1) write_means<T>(index, sums);
  }

 private:
  static constexpr std::int64_t kLeastSamples = 4;  // of a block: its center and tables cost about as much

  // The sums of one problem's variants while its blocks are at work.
  struct ProblemSums {
    std::once_flag begun;
    std::vector<std::unique_ptr<SolutionMean>> means;
    std::atomic<std::int64_t> blocks_left{0};
  };

  // Where a block begins: at the beginning of a group of samples. Blocks may be empty.
  std::int64_t first_sample(std::int64_t block, std::int64_t group) const {
    const std::int64_t even = (options_.samples + blocks_ - 1) / blocks_;
    return std::min(block * ((even + group - 1) / group * group), options_.samples);
  }

  template <class Sampler>
  void solve_sample(Sampler& sampler, std::int64_t index, std::int64_t sample, Stop& call, ProblemSums& sums) {
    const std::int64_t rows = padded_.rows;
    std::vector<std::int64_t> assignments(static_cast<std::size_t>(variants_ * rows), -1);
    std::vector<char> counts(static_cast<std::size_t>(variants_), 0);
    double gap = 0.0;
    sampler.draw(sample);
    for (std::int64_t v = 0; v < variants_; ++v) {
      std::int64_t* assignment = assignments.data() + v * rows;
      const Solution solution = within_time(call, [&](Stop& stop) { return sampler.solve(v, stop, assignment); });
      const std::int64_t place = (v * options_.samples + sample) * batch_ + index;
      answers_.write(place, solution);
      if (answers_.assignment != 0) {
        std::copy_n(assignment, rows, pointer<std::int64_t>(answers_.assignment) + place * rows);
      }
      counts[v] = solution.status == Status::kOptimal || solution.status == Status::kFeasible;
      if (counts[v]) gap = std::max(gap, relative_gap(solution.objective, solution.lower_bound));
    }
    const std::int64_t weight = sample_weight(gap, answers_.open_gap, answers_.weigh);
    for (std::int64_t v = 0; v < variants_ && weight > 0; ++v) {
      if (counts[v]) sampler.add_to(*sums.means[v], v, assignments.data() + v * rows, weight);
    }
  }

  template <class T>
  void write_means(std::int64_t index, ProblemSums& sums) const {
    for (std::int64_t v = 0; v < variants_; ++v) {
      const std::int64_t place = v * batch_ + index;
      T* matching = pointer<T>(answers_.matching_means) + place * padded_.rows * padded_.columns;
      sums.means[v]->write_matching(matching, padded_.columns);
      if (answers_.paid_means == 0) continue;
      T* paid = pointer<T>(answers_.paid_means) + place * padded_.edge_count1 * padded_.edge_count2;
      sums.means[v]->write_paid(paid, padded_.edge_count2);
    }
    sums.means.clear();
  }

  const std::int64_t batch_;
  const SampleShape padded_;
  const SampleOptions& options_;
  const Budget& budget_;
  const SampleAnswers& answers_;
  const std::int64_t variants_, blocks_;  // blocks of each problem
  std::atomic<std::int64_t> waiting_;
  std::vector<ProblemSums> sums_;
};

}  // namespace graphmatch
