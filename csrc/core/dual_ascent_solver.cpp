#include "core/dual_ascent_solver.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/dual_ascent.hpp"
#include "core/local_search.hpp"

namespace graphmatch {
namespace {

constexpr std::int64_t kStallWindow = 20;       // iterations between two looks at the bound's progress
constexpr std::int64_t kCertificateWindow = 5;  // iterations between two failed certificates

// Ends the ascent when the bound, at the rate of the last window, would not close the gap within the budget.
class StallTest {
 public:
  bool stalled(std::int64_t iteration, std::int64_t max_iterations, double bound, double gap) {
    if (iteration % kStallWindow != 0) return false;
    const double gain = bound - last_bound_;
    last_bound_ = bound;
    const double windows_left = static_cast<double>(max_iterations - iteration) / static_cast<double>(kStallWindow);
    return gain * std::max(windows_left, 1.0) < gap;
  }

 private:
  double last_bound_ = -std::numeric_limits<double>::infinity();
};

template <class T>
Solution without_columns(const LawlerProblem<T>& problem, std::int64_t* assignment) {
  std::fill_n(assignment, problem.rows, -1);
  Solution solution;
  solution.status = Status::kOptimal;
  solution.objective = solution.lower_bound = evaluate(problem, assignment);
  return solution;
}

}  // namespace

template <class T>
Solution solve_dual_ascent(const LawlerProblem<T>& problem, const DualAscentOptions& options, Stop& stop,
                           std::int64_t* assignment) {
  std::fill_n(assignment, problem.rows, -1);
  if (!is_valid(problem)) return invalid_solution();
  if (problem.rows == 0 || problem.columns == 0) return without_columns(problem, assignment);

  PairTables tables;
  tables.build(problem);
  DualAscent dual(tables, problem.complete);
  LocalSearch search(tables, problem.complete);
  StallTest stall;

  Solution solution;
  solution.objective = std::numeric_limits<double>::infinity();
  solution.lower_bound = -std::numeric_limits<double>::infinity();
  double best_value = std::numeric_limits<double>::infinity();  // in table units
  std::vector<std::int64_t> last_rounded;
  std::int64_t next_certificate = 0;
  auto certify = [&] {
    solution.lower_bound = std::max(solution.lower_bound, tables.scale * dual.certified_bound());
    const double largest_cost = tables.scale * tables.largest_cost;
    if (is_closed(solution.objective, solution.lower_bound, largest_cost, options.max_gap)) {
      solution.status = Status::kOptimal;
    }
  };

  // At least one iteration, whatever the time limit: every answer is a matching with a bound.
  do {
    ++solution.iterations;
    if (!dual.iterate()) {
      std::fill_n(assignment, problem.rows, -1);
      return infeasible_solution(solution.iterations);
    }
    if (dual.rounded() != last_rounded) {
      last_rounded = dual.rounded();
      search.run(last_rounded, stop);
      const double value = search.value();
      if (value < best_value) {
        best_value = value;
        std::copy(search.assignment().begin(), search.assignment().end(), assignment);
        solution.objective = evaluate(problem, assignment);
      }
    }
    const double bound = dual.approximate_bound();
    if (is_closed(best_value, bound, tables.largest_cost, options.max_gap) && solution.iterations >= next_certificate) {
      certify();
      if (solution.status == Status::kOptimal) break;
      next_certificate = solution.iterations + kCertificateWindow;
    }
    if (stall.stalled(solution.iterations, options.max_iterations, bound, best_value - bound)) break;
  } while (solution.iterations < options.max_iterations && !stop.requested());
  if (solution.status != Status::kOptimal) certify();
  solution.lower_bound = std::min(solution.lower_bound, solution.objective);
  return solution;
}

template Solution solve_dual_ascent(const LawlerProblem<float>&, const DualAscentOptions&, Stop&, std::int64_t*);
template Solution solve_dual_ascent(const LawlerProblem<double>&, const DualAscentOptions&, Stop&, std::int64_t*);

}  // namespace graphmatch
