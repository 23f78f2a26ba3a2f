// The solutions of many noisy copies of one linear assignment problem: see NoisyCosts and LawlerSampler.
#pragma once

#include <cstdint>
#include <vector>

#include "core/linear.hpp"
#include "core/noisy_costs.hpp"
#include "core/solution_mean.hpp"
#include "core/stop.hpp"

namespace graphmatch {

template <class T>
class LinearSampler {
 public:
  // The arrays of the problem and of the source, and the options, must outlive the sampler.
  LinearSampler(const LinearProblem<T>& problem, const SampleSource<T>& source, const SampleOptions& options)
      : problem_(problem),
        options_(options),
        costs_(options, source, problem.costs, problem.rows, problem.columns, problem.stride) {}

  // Solves the center, the problem without noise and step. Where there are duals to write, they must be both.
  Solution solve_center(const LinearDuals& duals, std::int64_t* assignment) {
    return solver_.solve(problem_, LinearStart{}, duals, assignment);
  }

  // The samples start from this, which must last.
  void start_from(const LinearStart& start) { start_ = start; }

  // Draws a sample; then its variants can be solved in any order.
  void draw(std::int64_t sample) { costs_.draw(sample); }

  Solution solve(std::int64_t variant, Stop&, std::int64_t* assignment) {
    LinearProblem<T> noisy = problem_;
    noisy.costs = costs_.variant(options_.signs[variant]);
    noisy.stride = problem_.columns;
    return solver_.solve(noisy, start_, LinearDuals{}, assignment);
  }

  // Adds the matching that was found for a variant.
  void add_to(SolutionMean& mean, std::int64_t, const std::int64_t* assignment, std::int64_t weight) const {
    mean.add(assignment, weight);
  }

 private:
  const LinearProblem<T> problem_;
  const SampleOptions& options_;
  NoisyCosts<T> costs_;
  LinearSolver<T> solver_;
  LinearStart start_;
};

}  // namespace graphmatch
