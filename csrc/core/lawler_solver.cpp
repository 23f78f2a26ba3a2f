#include "core/lawler_solver.hpp"

#include <algorithm>
#include <cmath>

namespace graphmatch {
namespace {

constexpr std::int64_t kSmall = 12;            // rows and columns of problems that branch and bound takes whole
constexpr std::int64_t kSmallIterations = 20;  // of their dual ascent
constexpr double kLarge = 64.0;                // nodes
constexpr double kTightenIterations = 40.0;
constexpr std::int64_t kFewLabels = 6;  // per row: the trees below are worth their time
// Budgets at effort 1. Tabu steps are per node.
constexpr double kFirstSteps = 5.0;  // before the proof
constexpr double kNodes = 2000.0;
constexpr double kProbeNodes = 50.0;  // of trees that are not worth it
constexpr double kHasty = 0.1;        // effort below which larger problems are not proven
constexpr double kRuns = 20.0;
constexpr double kSteps = 12.0;    // of each run
constexpr double kPatience = 7.0;  // runs in a row without a better matching
// A bound far from the incumbent tells of a rugged problem: fewer and longer runs.
constexpr double kWideGap = 0.2;  // relative
constexpr double kWideSteps = 30.0;
constexpr double kWidePatience = 5.0;
constexpr double kNarrowGap = 0.06;
constexpr double kPatientIterations = 300.0;

// The order of the stages and their budgets. False when no matching exists.
bool run_portfolio(LawlerSearch& search, const PairCosts& costs, const LawlerOptions& options, const DualState& state,
                   bool is_sample) {
  const std::int64_t size = std::max(costs.rows, costs.columns);
  auto budget = [&](double amount) { return static_cast<std::int64_t>(std::ceil(amount * options.effort)); };
  // More effort makes more runs; less effort makes fewer and shorter ones.
  const double haste = std::min(options.effort, 1.0);
  // Steps of large problems are dear: their number grows with the square root only.
  const double nodes = std::min(static_cast<double>(size), std::sqrt(kLarge * static_cast<double>(size)));
  const auto tighten_iterations = static_cast<std::int64_t>(std::ceil(kTightenIterations * haste));
  const bool small = size <= kSmall;
  if (!search.ascend(small ? std::min(options.max_iterations, kSmallIterations) : options.max_iterations, false)) {
    return false;
  }
  search.dual().save(state);
  if (search.is_done()) return true;

  const bool hasty = !small && options.effort < kHasty;
  // Errors of samples average out long before their noise does.
  if (hasty && is_sample) return true;
  // A hasty proof is none: its budget buys a few steps and a node.
  if (!hasty) {
    // A better incumbent first: the proof gets cheaper with it.
    search.explore(1, budget(kFirstSteps * static_cast<double>(size)), 1, false);
    // A tree is worth its time where few labels are left.
    const bool few_labels = small || search.tighten(tighten_iterations, kFewLabels * costs.rows);
    if (search.branch(budget(few_labels ? kNodes : kProbeNodes))) return true;
  }
  const bool wide = search.relative_gap() > kWideGap;
  const double steps = (wide ? kWideSteps : kSteps) * std::sqrt(haste) * nodes;
  const double growth = static_cast<double>(size) / nodes;  // 1 up to kLarge nodes
  search.explore(budget(kRuns * growth), static_cast<std::int64_t>(std::ceil(steps)),
                 budget((wide ? kWidePatience : kPatience) * growth), true);
  if (search.is_done() || search.relative_gap() > kNarrowGap * options.effort) return true;

  // Most of the way is done: patience with the bound may finish the proof.
  if (search.ascend(budget(kPatientIterations), true)) {
    if (!search.has_eliminated()) search.dual().save(state);
    search.tighten(tighten_iterations, costs.rows * costs.columns);
    search.branch(budget(kNodes));
  } else {
    search.close();
  }
  return true;
}

bool run(LawlerSearch& search, const PairCosts& costs, const LawlerOptions& options, const DualState& state,
         bool is_sample) {
  switch (options.method) {
    case LawlerMethod::kDualAscent:
      if (!search.ascend(options.max_iterations, true)) return false;
      break;
    case LawlerMethod::kTabu:
      if (!search.ascend(1, true)) return false;
      search.explore(options.runs, options.steps, options.runs, false);
      break;
    case LawlerMethod::kFusion:
      if (!search.ascend(1, true)) return false;
      search.fuse_generations(options.runs);
      break;
    case LawlerMethod::kBranchAndBound:
      if (!search.ascend(options.max_iterations, true)) return false;
      search.dual().save(state);
      search.explore(1, 10 * std::max(costs.rows, costs.columns), 1, false);
      search.tighten(options.max_iterations, costs.rows * costs.columns);
      search.branch(options.max_nodes);
      return true;
    case LawlerMethod::kPortfolio:
      return run_portfolio(search, costs, options, state, is_sample);
  }
  search.dual().save(state);
  return true;
}

}  // namespace

template <class T>
void LawlerSolver<T>::take(const LawlerProblem<T>& problem, double expected) {
  problem_ = problem;
  search_.reset();
  is_valid_ = has_valid_edges_ = costs_.build(problem, expected);
  if (is_valid_) right_edges_.build(problem.edges2, problem.edge_count2, problem.columns);
}

template <class T>
void LawlerSolver<T>::replace_unary(const T* unary, std::int64_t stride) {
  problem_.unary = unary;
  problem_.unary_stride = stride;
  is_valid_ = has_valid_edges_ && costs_.replace_unary(problem_);
}

template <class T>
Solution LawlerSolver<T>::solve(const DualState& warm, const std::int64_t* warm_assignment, const DualState& state,
                                Stop& stop, std::int64_t* assignment, bool is_sample) {
  std::fill_n(assignment, problem_.rows, -1);
  if (state.scale != nullptr) *state.scale = 0.0;
  if (!is_valid_) return invalid_solution();
  Solution solution;
  const auto exact = [this](const std::int64_t* matching) { return evaluate(problem_, right_edges_, matching); };
  if (problem_.rows == 0 || problem_.columns == 0) {
    solution.status = Status::kOptimal;
    solution.objective = solution.lower_bound = exact(assignment);
    return solution;
  }

  if (search_) {
    search_->restart(stop);
  } else {
    const auto in_stored_units = [this, exact](const std::int64_t* matching) { return exact(matching) / costs_.scale; };
    search_.emplace(costs_, in_stored_units, options_.max_gap, options_.seed, stop);
  }
  LawlerSearch& search = *search_;
  if (warm.scale != nullptr && warm_assignment != nullptr) search.warm_start(warm, warm_assignment);
  if (!run(search, costs_, options_, state, is_sample)) return infeasible_solution(search.iterations());

  std::copy(search.best().begin(), search.best().end(), assignment);
  solution.objective = exact(assignment);
  solution.lower_bound = std::min(costs_.scale * search.bound(), solution.objective);
  solution.iterations = search.iterations();
  solution.stage = search.stage();
  if (is_closed(solution.objective, solution.lower_bound, costs_.scale * costs_.largest_cost, options_.max_gap)) {
    solution.status = Status::kOptimal;
  }
  return solution;
}

template <class T>
Solution solve_lawler(const LawlerProblem<T>& problem, const LawlerOptions& options, const DualState& warm,
                      const std::int64_t* warm_assignment, const DualState& state, Stop& stop,
                      std::int64_t* assignment) {
  LawlerSolver<T> solver(options);
  solver.take(problem);
  return solver.solve(warm, warm_assignment, state, stop, assignment);
}

template class LawlerSolver<float>;
template class LawlerSolver<double>;
template Solution solve_lawler(const LawlerProblem<float>&, const LawlerOptions&, const DualState&, const std::int64_t*,
                               const DualState&, Stop&, std::int64_t*);
template Solution solve_lawler(const LawlerProblem<double>&, const LawlerOptions&, const DualState&,
                               const std::int64_t*, const DualState&, Stop&, std::int64_t*);

}  // namespace graphmatch
