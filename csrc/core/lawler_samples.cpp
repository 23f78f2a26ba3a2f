#include "core/lawler_samples.hpp"

#include <algorithm>
#include <cmath>

namespace graphmatch {
namespace {

// Largest finite |step|.
template <class T>
double largest_step(const T* step, std::int64_t rows, std::int64_t columns, std::int64_t stride) {
  double largest = 0.0;
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t k = 0; k < columns; ++k) {
      const double size = std::fabs(static_cast<double>(step[i * stride + k]));
      if (std::isfinite(size)) largest = std::max(largest, size);
    }
  }
  return largest;
}

}  // namespace

template <class T>
NoisyCosts<T>::NoisyCosts(const SampleOptions& options, const SampleSource<T>& source, const T* costs,
                          std::int64_t rows, std::int64_t columns, std::int64_t stride)
    : options_(options),
      costs_(costs),
      step_(source.unary_step),
      rows_(rows),
      columns_(columns),
      stride_(stride),
      noisy_(static_cast<std::size_t>(rows * columns)),
      variant_(static_cast<std::size_t>(step_ == nullptr ? 0 : rows * columns)) {
  if (options.noise_scale == 0.0) return;
  noise_.emplace(options.noise, source.key, source.instance, rows, columns);
  drawn_.resize(static_cast<std::size_t>(rows * columns));
}

template <class T>
void NoisyCosts<T>::draw(std::int64_t sample) {
  for (std::int64_t i = 0; i < rows_; ++i) std::copy_n(costs_ + i * stride_, columns_, noisy_.data() + i * columns_);
  if (!noise_) return;
  noise_->draw(sample, drawn_.data(), columns_);
  const T factor = static_cast<T>(options_.noise_scale);
  for (std::size_t cell = 0; cell < noisy_.size(); ++cell) noisy_[cell] -= factor * static_cast<T>(drawn_[cell]);
}

template <class T>
const T* NoisyCosts<T>::variant(double sign) {
  if (step_ == nullptr) return noisy_.data();
  const T factor = static_cast<T>(sign);
  for (std::int64_t i = 0; i < rows_; ++i) {
    for (std::int64_t k = 0; k < columns_; ++k) {
      const std::int64_t cell = i * columns_ + k;
      variant_[cell] = noisy_[cell] + factor * step_[i * stride_ + k];
    }
  }
  return variant_.data();
}

template <class T>
double NoisyCosts<T>::expected_size() const {
  // Stored costs may exceed one by far: only noise and steps of another order than the costs ask for a larger scale. It
  // must not depend on the other variants.
  constexpr double kMuch = 16.0;
  const double step = step_ == nullptr ? 0.0 : largest_step(step_, rows_, columns_, stride_);
  return std::max(4.0 * std::fabs(options_.noise_scale), step) / kMuch;
}

template <class T>
LawlerSampler<T>::LawlerSampler(const LawlerProblem<T>& problem, const SampleSource<T>& source,
                                const LawlerOptions& solver, const SampleOptions& options)
    : problem_(problem),
      source_(source),
      solver_options_(solver),
      options_(options),
      costs_(options, source, problem.unary, problem.rows, problem.columns, problem.unary_stride),
      variants_(options.signs.size()),
      quadratic_(options.signs.size()) {}

template <class T>
LawlerSolver<T>& LawlerSampler<T>::center() {
  if (!center_) {
    center_ = std::make_unique<LawlerSolver<T>>(solver_options_);
    center_->take(problem_, costs_.expected_size());
  }
  return *center_;
}

template <class T>
LawlerSolver<T>& LawlerSampler<T>::solver_of(std::int64_t variant) {
  if (source_.quadratic_step == nullptr) return center();
  std::unique_ptr<LawlerSolver<T>>& solver = variants_[variant];
  if (solver) return *solver;
  LawlerProblem<T> moved = problem_;
  std::vector<T>& costs = quadratic_[variant];
  costs.resize(static_cast<std::size_t>(problem_.edge_count1 * problem_.edge_count2));
  const T factor = static_cast<T>(options_.signs[variant]);
  for (std::int64_t e = 0; e < problem_.edge_count1; ++e) {
    const T* from = problem_.quadratic + e * problem_.quadratic_stride;
    const T* step = source_.quadratic_step + e * problem_.quadratic_stride;
    T* to = costs.data() + e * problem_.edge_count2;
    for (std::int64_t f = 0; f < problem_.edge_count2; ++f) to[f] = from[f] + factor * step[f];
  }
  moved.quadratic = costs.data();
  moved.quadratic_stride = problem_.edge_count2;
  solver = std::make_unique<LawlerSolver<T>>(solver_options_);
  solver->take(moved, costs_.expected_size());
  return *solver;
}

template <class T>
Solution LawlerSampler<T>::solve_center(const DualState& kept, Stop& stop, std::int64_t* assignment) {
  duals_ = kept;
  if (kept.scale == nullptr) {
    const std::int64_t pairs =
        std::min(problem_.edge_count1, std::max<std::int64_t>(problem_.rows * (problem_.rows - 1) / 2, 0));
    messages_.resize(static_cast<std::size_t>(2 * pairs * (problem_.columns + 1)));
    potentials_.resize(static_cast<std::size_t>(problem_.columns));
    duals_ = DualState{messages_.data(), potentials_.data(), &scale_, problem_.columns, pairs};
  }
  matching_ = assignment;
  return center().solve(DualState{}, nullptr, duals_, stop, assignment);
}

template <class T>
void LawlerSampler<T>::start_from(const DualState& duals, const std::int64_t* assignment) {
  duals_ = duals;
  matching_ = assignment;
}

template <class T>
Solution LawlerSampler<T>::solve(std::int64_t variant, Stop& stop, std::int64_t* assignment) {
  LawlerSolver<T>& solver = solver_of(variant);
  solver.replace_unary(costs_.variant(options_.signs[variant]), problem_.columns);
  return solver.solve(duals_, matching_, DualState{}, stop, assignment);
}

template class NoisyCosts<float>;
template class NoisyCosts<double>;
template class LawlerSampler<float>;
template class LawlerSampler<double>;

}  // namespace graphmatch
