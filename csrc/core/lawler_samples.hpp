// The solutions of many noisy copies of one sparse Lawler problem, for gradient estimators.
//
// Variant v of sample s has the costs
//   unary     = (unary - noise_scale * noise(s)) + signs[v] * unary_step
//   quadratic = quadratic + signs[v] * quadratic_step
// as in NoisyCosts. The center is the problem without noise and steps; every sample
// starts from its duals and its matching, or from given ones, so that no answer depends on the other samples.
//
// Edges, pair costs and tables are shared by all samples of a variant, and by all variants where there is no quadratic
// step: a sample brings new unary costs only.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/lawler_solver.hpp"
#include "core/noisy_costs.hpp"
#include "core/solution_mean.hpp"

namespace graphmatch {

template <class T>
class LawlerSampler {
 public:
  // The arrays of the problem and of the source, and the options, must outlive the sampler.
  LawlerSampler(const LawlerProblem<T>& problem, const SampleSource<T>& source, const LawlerOptions& solver,
                const SampleOptions& options);

  // Solves the center, from which the samples then start. `kept`, if it has a scale, receives its duals; `assignment`
  // must last.
  Solution solve_center(const DualState& kept, Stop& stop, std::int64_t* assignment);

  // The samples start from these duals and this matching, which must last.
  void start_from(const DualState& duals, const std::int64_t* assignment);

  // Draws a sample; then its variants can be solved in any order.
  void draw(std::int64_t sample) { costs_.draw(sample); }
  Solution solve(std::int64_t variant, Stop& stop, std::int64_t* assignment);

  // Adds the matching that was found for a variant.
  void add_to(SolutionMean& mean, std::int64_t variant, const std::int64_t* assignment, std::int64_t weight) {
    mean.add(problem_, solver_of(variant).right_edges(), assignment, weight);
  }

 private:
  LawlerSolver<T>& solver_of(std::int64_t variant);
  LawlerSolver<T>& center();

  const LawlerProblem<T> problem_;
  const SampleSource<T> source_;
  const LawlerOptions solver_options_;
  const SampleOptions& options_;
  NoisyCosts<T> costs_;
  std::unique_ptr<LawlerSolver<T>> center_;
  std::vector<std::unique_ptr<LawlerSolver<T>>> variants_;  // where there is a quadratic step
  std::vector<std::vector<T>> quadratic_;                   // likewise
  DualState duals_;
  const std::int64_t* matching_ = nullptr;
  std::vector<float> messages_, potentials_;
  double scale_ = 0.0;
};

}  // namespace graphmatch
