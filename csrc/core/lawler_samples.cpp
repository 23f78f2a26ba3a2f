#include "core/lawler_samples.hpp"

#include <algorithm>

namespace graphmatch {
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
  return solver.solve(duals_, matching_, DualState{}, stop, assignment, true);
}

template class LawlerSampler<float>;
template class LawlerSampler<double>;

}  // namespace graphmatch
