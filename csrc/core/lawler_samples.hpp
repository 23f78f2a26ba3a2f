// The solutions of many noisy copies of one sparse Lawler problem, for gradient estimators.
//
// Variant v of sample s has the costs
//   unary     = (unary - noise_scale * noise(s)) + signs[v] * unary_step
//   quadratic = quadratic + signs[v] * quadratic_step
// each operation rounded in the type of the costs. The center is the problem without noise and steps; every sample
// starts from its duals and its matching, or from given ones, so that no answer depends on the other samples.
//
// Edges, pair costs and tables are shared by all samples of a variant, and by all variants where there is no quadratic
// step: a sample brings new unary costs only.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "core/lawler_solver.hpp"
#include "core/noise.hpp"

namespace graphmatch {

struct SampleOptions {
  std::int64_t samples = 1;
  double noise_scale = 0.0;
  NoiseOptions noise;
  std::vector<double> signs;  // one per variant
};

// What the samples of one problem have of their own. Steps may be null; they are laid out as the costs.
template <class T>
struct SampleSource {
  const T* unary_step = nullptr;
  const T* quadratic_step = nullptr;
  std::uint64_t key = 0;
  std::uint64_t instance = 0;
};

// The unary costs of the variants of a sample.
template <class T>
class NoisyCosts {
 public:
  // Costs and step: rows x columns with a leading dimension.
  NoisyCosts(const SampleOptions& options, const SampleSource<T>& source, const T* costs, std::int64_t rows,
             std::int64_t columns, std::int64_t stride);

  // Draws a sample.
  void draw(std::int64_t sample);

  // Its costs with this factor on the step, rows x columns without gaps; they last until the next call.
  const T* variant(double sign);

  // How large costs may become beside what they are without noise and steps: for scales, not a bound.
  double expected_size() const;

 private:
  const SampleOptions& options_;
  const T* costs_;
  const T* step_;
  const std::int64_t rows_, columns_, stride_;
  std::optional<Noise> noise_;
  std::vector<float> drawn_;
  std::vector<T> noisy_, variant_;
};

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

  // Of a variant that was solved: its edges are valid.
  const RightEdges& right_edges(std::int64_t variant) { return solver_of(variant).right_edges(); }

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
