#include "core/qap_solver.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <vector>

#include "core/faq.hpp"
#include "core/hahn_grant.hpp"
#include "core/lap.hpp"
#include "core/qap_bound.hpp"
#include "core/qap_costs.hpp"
#include "core/qap_memetic.hpp"

namespace graphmatch {
namespace {

// Budgets of the portfolio at effort 1. Tabu steps are per node.
constexpr double kFirstSteps = 10.0;
constexpr double kLongestSteps = 480.0;
constexpr double kMedium = 20.0;          // nodes: up to here the longest searches are affordable
constexpr double kPatience = 2.0;         // pools in a row without a better permutation
constexpr std::int64_t kProofNodes = 16;  // larger problems leave the dual ascent to those who ask for it
constexpr double kProofRounds = 30.0;

// Its n^4 numbers take 42 MB; larger problems keep the bound of Gilmore and Lawler.
constexpr std::int64_t kDualNodes = 48;

class QapSearch {
 public:
  QapSearch(const QapCosts& costs, const QapOptions& options, Stop& stop)
      : costs_(costs), options_(options), stop_(stop), random_(options.seed) {
    if (costs.exact_in_float) {
      search_ = std::make_unique<QapTabu<float>>(costs);
    } else {
      search_ = std::make_unique<QapTabu<double>>(costs);
    }
    bound_ = gilmore_lawler_bound(costs);
  }

  // A permutation that is allowed, where there is one. False where there is none.
  bool start() {
    if (bound_ == std::numeric_limits<double>::infinity()) return false;
    best_.resize(static_cast<std::size_t>(costs_.nodes));
    std::iota(best_.begin(), best_.end(), 0);
    if (costs_.penalty > 0.0) {
      Lap<double> lap;
      lap.solve(costs_.nodes, costs_.nodes, costs_.linear.data(), costs_.nodes);
      best_ = lap.row_to_column;
    }
    best_value_ = costs_.value(best_.data());
    return true;
  }

  void run(const double* point) {
    if (point != nullptr && options_.method != QapMethod::kFaq) {
      const std::vector<std::int64_t> known = rounded(costs_, point);
      offer(known, costs_.value(known.data()), Stage::kWarmStart);
    }
    switch (options_.method) {
      case QapMethod::kFaq:
        for (std::int64_t k = 0; k < options_.runs && !is_done(); ++k) offer_faq(k == 0 ? point : nullptr, k == 0);
        break;
      case QapMethod::kTabu:
        for (std::int64_t k = 0; k < options_.runs && !is_done(); ++k) {
          if (k == 0) offer_faq(nullptr, true);
          iterations_ +=
              search_->search(k == 0 ? best_ : permutation(), options_.steps, options_.steps, goal(), random_, stop_);
          offer(search_->best(), search_->best_value(), Stage::kTabu);
        }
        break;
      case QapMethod::kDualAscent:
        prove(options_.max_iterations);
        break;
      case QapMethod::kPortfolio:
        run_portfolio();
        break;
    }
  }

  const std::vector<std::int64_t>& best() const { return best_; }
  double bound() const { return bound_; }
  std::int64_t iterations() const { return iterations_; }
  Stage stage() const { return stage_; }

 private:
  // Values at most this are closed.
  double goal() const { return bound_ + options_.max_gap * std::max(std::fabs(bound_), costs_.largest_cost); }
  bool is_done() const { return best_value_ <= goal() || stop_.requested(); }

  void offer(const std::vector<std::int64_t>& assignment, double value, Stage stage) {
    if (!(value < best_value_)) return;
    best_ = assignment;
    best_value_ = value;
    stage_ = stage;
  }

  std::vector<std::int64_t> permutation() {
    std::vector<std::int64_t> result(best_.size());
    std::iota(result.begin(), result.end(), 0);
    for (std::int64_t i = costs_.nodes - 1; i > 0; --i) std::swap(result[i], result[random_.below(i + 1)]);
    return result;
  }

  std::vector<std::int64_t> offer_faq(const double* point, bool first) {
    const FaqOptions options{options_.max_iterations, options_.tolerance, options_.sinkhorn, options_.temperature};
    if (faq_ == nullptr) faq_ = std::make_unique<Faq>(costs_, options);
    if (point != nullptr) {
      iterations_ += faq_->run_from(point, stop_);
    } else if (first) {
      iterations_ += faq_->run_from_barycenter(stop_);
    } else {
      iterations_ += faq_->run_from_random(random_, stop_);
    }
    std::vector<std::int64_t> found = faq_->assignment();
    double value = costs_.value(found.data());
    if (options_.refine) {
      iterations_ += search_->descend(found, stop_);
      found = search_->best();
      value = search_->best_value();
    }
    offer(found, value, Stage::kFaq);
    return found;
  }

  // Rounds of the dual ascent, each with a permutation, until the gap is closed or nothing moves.
  void prove(std::int64_t rounds) {
    if (costs_.nodes > kDualNodes) {
      search_->descend(best_, stop_);
      offer(search_->best(), search_->best_value(), Stage::kDualAscent);
      return;
    }
    HahnGrant dual(costs_);
    for (std::int64_t round = 0; round < rounds && !is_done(); ++round) {
      const bool moved = dual.improve(stop_);
      if (stop_.requested()) break;
      ++iterations_;
      bound_ = std::max(bound_, rounded_bound(costs_, dual.bound()));
      search_->descend(dual.assignment(), stop_);
      offer(search_->best(), search_->best_value(), Stage::kDualAscent);
      if (!moved) break;
    }
  }

  void run_portfolio() {
    MemeticOptions options;
    // Steps cost n^2: large problems get shorter searches unless there is time for long ones.
    const double nodes = static_cast<double>(costs_.nodes);
    const double share =
        std::clamp(options_.effort * kMedium * kMedium / (nodes * nodes), kFirstSteps / kLongestSteps, 1.0);
    options.steps = static_cast<std::int64_t>(std::ceil(kFirstSteps * nodes));
    options.longest = static_cast<std::int64_t>(std::ceil(kLongestSteps * share * nodes));
    options.goal = goal();
    QapMemetic memetic(costs_, *search_, random_, stop_);
    const std::vector<std::int64_t> rounded = offer_faq(nullptr, true);
    memetic.add(rounded, options);
    memetic.add(best_, options);
    offer(memetic.best(), memetic.best_value(), Stage::kTabu);
    auto evolve = [&](double patience) {
      constexpr double kForever = 1e15;
      options.patience = static_cast<std::int64_t>(std::ceil(std::min(patience, kForever)));
      options.goal = goal();
      memetic.evolve(options);
      offer(memetic.best(), memetic.best_value(), Stage::kMemetic);
    };
    if (costs_.nodes <= kProofNodes && !is_done()) {
      evolve(1.0);
      prove(static_cast<std::int64_t>(std::ceil(kProofRounds * std::min(options_.effort, 10.0))));
    }
    if (!is_done()) evolve(kPatience * options_.effort);
    iterations_ += memetic.steps();
  }

  const QapCosts& costs_;
  const QapOptions& options_;
  Stop& stop_;
  Random random_;
  std::unique_ptr<QapLocalSearch> search_;
  std::unique_ptr<Faq> faq_;
  std::vector<std::int64_t> best_;
  double best_value_ = std::numeric_limits<double>::infinity();
  double bound_ = 0.0;
  std::int64_t iterations_ = 0;
  Stage stage_ = Stage::kNone;
};

}  // namespace

template <class T>
Solution solve_qap(const QapProblem<T>& problem, const QapOptions& options, const double* start, Stop& stop,
                   std::int64_t* assignment) {
  std::fill_n(assignment, problem.nodes, -1);
  QapCosts costs;
  if (!costs.build(problem)) return invalid_solution();
  QapSearch search(costs, options, stop);
  if (!search.start()) return infeasible_solution(0);
  std::vector<double> point;
  if (start != nullptr) {
    for (std::int64_t i = 0; i < problem.nodes; ++i) {
      const double* row = start + i * problem.stride;
      point.insert(point.end(), row, row + problem.nodes);
    }
  }
  if (problem.nodes > 0) search.run(start == nullptr ? nullptr : point.data());

  Solution solution;
  std::copy(search.best().begin(), search.best().end(), assignment);
  solution.objective = evaluate(problem, assignment);
  solution.lower_bound = std::min(costs.unit * search.bound(), solution.objective);
  solution.iterations = std::max<std::int64_t>(search.iterations(), 1);
  solution.stage = search.stage();
  if (is_closed(solution.objective, solution.lower_bound, costs.unit * costs.largest_cost, options.max_gap)) {
    solution.status = Status::kOptimal;
  }
  return solution;
}

template Solution solve_qap(const QapProblem<float>&, const QapOptions&, const double*, Stop&, std::int64_t*);
template Solution solve_qap(const QapProblem<double>&, const QapOptions&, const double*, Stop&, std::int64_t*);

}  // namespace graphmatch
