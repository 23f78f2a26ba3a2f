#include "core/lawler_search.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace graphmatch {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr std::int64_t kStallWindow = 5;        // iterations between two looks at the bound's progress
constexpr double kHurried = 15.0;               // windows that a rate of progress is trusted to last
constexpr double kPatient = 400.0;              // the same when there is nothing better to do
constexpr std::int64_t kCertificateWindow = 5;  // iterations between two failed certificates
constexpr double kWorthwhile = 0.1;             // share of the gap that another round of elimination has to close
constexpr std::int64_t kFirstDescent = 3;       // iteration: structured problems are closed by then

// Ends the ascent when the bound, at the rate of the last window, would not close the gap within the budget.
class StallTest {
 public:
  explicit StallTest(double most_windows) : most_windows_(most_windows) {}

  bool stalled(std::int64_t iteration, std::int64_t max_iterations, double bound, double gap) {
    if (iteration % kStallWindow != 0) return false;
    const double gain = bound - last_bound_;
    last_bound_ = bound;
    const double windows_left = static_cast<double>(max_iterations - iteration) / static_cast<double>(kStallWindow);
    return gain * std::clamp(windows_left, 1.0, most_windows_) < gap;
  }

 private:
  const double most_windows_;  // that the present rate is trusted to last
  double last_bound_ = -kInfinity;
};

}  // namespace

LawlerSearch::LawlerSearch(const PairCosts& costs, std::function<double(const std::int64_t*)> evaluate, double max_gap,
                           std::uint64_t seed, Stop& stop)
    : costs_(costs),
      evaluate_(std::move(evaluate)),
      max_gap_(max_gap),
      seed_(seed),
      random_(seed),
      stop_(&stop),
      dual_(costs),
      value_(kInfinity),
      bound_(-kInfinity),
      eliminated_(kInfinity) {}

void LawlerSearch::restart(Stop& stop) {
  random_ = Random(seed_);
  stop_ = &stop;
  dual_.restart();
  best_.clear();
  last_rounded_.clear();
  value_ = kInfinity;
  bound_ = -kInfinity;
  eliminated_ = kInfinity;
  stage_ = Stage::kNone;
  iterations_ = 0;
}

bool LawlerSearch::closes(double bound) const {
  return !best_.empty() && graphmatch::is_closed(value_, bound, costs_.largest_cost, max_gap_);
}

double LawlerSearch::allowed_gap() const { return max_gap_ * std::fmax(std::fabs(value_), costs_.largest_cost); }

double LawlerSearch::proof_slack() const { return 0.5 * max_gap_ * std::fabs(value_); }

TabuSearch& LawlerSearch::tabu() {
  if (!tabu_) tabu_.emplace(costs_);
  return *tabu_;
}

Fusion& LawlerSearch::fusion() {
  if (!fusion_) fusion_.emplace(costs_);
  return *fusion_;
}

bool LawlerSearch::offer(const std::vector<std::int64_t>& matching, Stage stage) {
  const double value = evaluate_(matching.data());
  if (!(value < value_)) return false;
  value_ = value;
  best_ = matching;
  stage_ = stage;
  return true;
}

void LawlerSearch::raise_bound(double bound) { bound_ = std::max(bound_, std::min(bound, eliminated_)); }

bool LawlerSearch::fits(const std::int64_t* assignment) const {
  std::vector<char> taken(costs_.columns, 0);
  std::int64_t matched = 0;
  for (std::int64_t i = 0; i < costs_.rows; ++i) {
    const std::int64_t k = assignment[i];
    if (k < 0) continue;
    if (k >= costs_.columns || taken[k] || !costs_.allowed(i, k)) return false;
    taken[k] = 1;
    ++matched;
  }
  return !costs_.complete || matched == std::min(costs_.rows, costs_.columns);
}

void LawlerSearch::warm_start(const DualState& state, const std::int64_t* assignment) {
  if (!dual_.load(state) || !fits(assignment)) return;
  std::vector<std::int64_t> matching(assignment, assignment + costs_.rows);
  for (std::int64_t& column : matching) column = std::max<std::int64_t>(column, -1);
  offer(matching, Stage::kWarmStart);
}

bool LawlerSearch::ascend(std::int64_t max_iterations, bool patient) {
  StallTest stall(patient ? kPatient : kHurried);
  std::int64_t next_certificate = 0;
  // At least one iteration, whatever the time limit: every answer is a matching with a bound.
  for (std::int64_t iteration = 1;; ++iteration) {
    ++iterations_;
    if (!dual_.iterate()) return false;
    const double bound = dual_.approximate_bound();
    const bool in_turn = iteration == kFirstDescent || iteration % kCertificateWindow == 0;
    if (iteration <= kFirstDescent || in_turn) offer(dual_.rounded(), Stage::kDualAscent);
    const bool last = iteration >= max_iterations || stop_->requested() ||
                      stall.stalled(iteration, max_iterations, bound, value_ - bound);
    if (in_turn && !closes(bound) && dual_.rounded() != last_rounded_) {
      last_rounded_ = dual_.rounded();
      tabu().descend(last_rounded_, *stop_);
      offer(tabu().best(), Stage::kDualAscent);
    }
    if (stop_->cancelled()) return true;
    if (last || (closes(bound) && iteration >= next_certificate)) {
      raise_bound(dual_.certified_bound());
      if (last || is_closed()) return true;
      next_certificate = iteration + kCertificateWindow;
    }
  }
}

bool LawlerSearch::tighten(std::int64_t max_iterations, std::int64_t few_labels) {
  constexpr std::int64_t kMostRounds = 8;
  for (std::int64_t round = 0; round < kMostRounds && !is_done(); ++round) {
    const double threshold = value_ - proof_slack();
    const std::int64_t removed = dual_.eliminate(threshold);
    if (removed > 0) eliminated_ = std::min(eliminated_, threshold);
    if (dual_.label_count() > few_labels) return false;
    if (removed == 0) return true;
    last_rounded_.clear();
    const double before = bound_;
    if (!ascend(max_iterations, false)) {  // nothing cheaper is left
      close();
      return true;
    }
    if (bound_ - before < kWorthwhile * gap()) return true;
  }
  return true;
}

std::vector<std::int64_t> LawlerSearch::noisy_matching(float noise) {
  const bool transposed = costs_.complete && costs_.rows > costs_.columns;
  const std::int64_t rows = transposed ? costs_.columns : costs_.rows;
  const std::int64_t columns = transposed ? costs_.rows : costs_.columns;
  const std::int64_t stride = padded(columns);
  AlignedVector<float> costs(static_cast<std::size_t>(rows * stride), std::numeric_limits<float>::infinity());
  auto draw = [&] { return noise * static_cast<float>(random_.below(1 << 20)) / static_cast<float>(1 << 20); };
  for (std::int64_t i = 0; i < costs_.rows; ++i) {
    for (std::int64_t k = 0; k < costs_.columns; ++k) {
      if (costs_.allowed(i, k)) costs[transposed ? k * stride + i : i * stride + k] = costs_.unary(i)[k] + draw();
    }
  }
  std::vector<float> unmatched(static_cast<std::size_t>(rows));
  for (float& price : unmatched) price = static_cast<float>(costs_.unmatched_cost) + draw();
  const bool found = lap_.solve(rows, columns, costs.data(), stride, costs_.complete ? nullptr : unmatched.data());
  if (!found) return best_;
  return transposed ? lap_.column_to_row : lap_.row_to_column;
}

// Random rows pass their columns round, where that is allowed.
std::vector<std::int64_t> LawlerSearch::perturbed(const std::vector<std::int64_t>& matching, std::int64_t strength) {
  std::vector<std::int64_t> moved = matching;
  for (std::int64_t step = 0; step < strength; ++step) {
    const std::int64_t i = random_.below(costs_.rows);
    const std::int64_t j = random_.below(costs_.rows);
    const bool i_may = moved[j] < 0 || costs_.allowed(i, moved[j]);
    const bool j_may = moved[i] < 0 || costs_.allowed(j, moved[i]);
    if (i_may && j_may) std::swap(moved[i], moved[j]);
  }
  return moved;
}

void LawlerSearch::explore(std::int64_t runs, std::int64_t steps, std::int64_t patience, bool fuse) {
  const double goal = bound_ + 0.5 * allowed_gap();
  std::int64_t idle = 0;  // runs in a row without a new incumbent
  for (std::int64_t run = 0; run < runs && idle < patience && !is_done(); ++run) {
    const double before = value_;
    std::vector<std::int64_t> start = best_;
    if (run % 2 == 1) start = perturbed(best_, std::max<std::int64_t>(costs_.rows / 3, 2));
    if (run > 0 && run % 2 == 0) start = noisy_matching(1.0f);
    tabu().search(start, steps, steps, goal, random_, *stop_);
    const std::vector<std::int64_t> found = tabu().best();
    if (!offer(found, Stage::kTabu) && fuse && found != best_) {
      fusion().fuse(best_, found);
      tabu().descend(fusion().result(), *stop_);
      offer(tabu().best(), Stage::kFusion);
    }
    idle = value_ < before ? 0 : idle + 1;
  }
}

void LawlerSearch::fuse_generations(std::int64_t generations) {
  for (std::int64_t generation = 0; generation < generations && !is_done(); ++generation) {
    const bool from_noise = generation % 2 == 0;
    tabu().descend(from_noise ? noisy_matching(1.0f) : perturbed(best_, std::max<std::int64_t>(costs_.rows / 2, 2)),
                   *stop_);
    if (offer(tabu().best(), Stage::kFusion)) continue;
    fusion().fuse(best_, tabu().best());
    tabu().descend(fusion().result(), *stop_);
    offer(tabu().best(), Stage::kFusion);
  }
}

bool LawlerSearch::branch(std::int64_t nodes) {
  if (is_closed()) return true;
  if (stop_->requested()) return false;
  BranchAndBound tree(dual_);
  const double slack = proof_slack();
  const bool finished = tree.search(evaluate_, value_ - slack, slack, nodes, *stop_);
  iterations_ += 1;
  if (!tree.best().empty()) offer(tree.best(), Stage::kBranchAndBound);
  raise_bound(tree.lower_bound());
  return finished;
}

}  // namespace graphmatch
