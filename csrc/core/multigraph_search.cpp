#include "core/multigraph_search.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "core/lawler_solver.hpp"
#include "core/tabu_search.hpp"

namespace graphmatch {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNoise = 1e-6;  // changes below this, in stored units, are rounding of floats

}  // namespace

MultigraphSearch::MultigraphSearch(const MultigraphCosts& costs, const MultigraphOptions& options, Stop& stop)
    : costs_(costs), options_(options), stop_(stop), random_(options.seed), problem_(costs) {}

double MultigraphSearch::total() const { return std::accumulate(objectives_.begin(), objectives_.end(), 0.0); }

bool MultigraphSearch::run(const std::int64_t* labels, const std::vector<GraphPair>& merges) {
  const MultigraphShape& shape = costs_.shape();
  objectives_.assign(shape.pairs.size(), kInfinity);
  sides_.assign(static_cast<std::size_t>(shape.graphs()), Side::kAway);
  if (labels != nullptr) {
    labels_.assign(labels, labels + shape.graphs() * shape.label_stride);
  } else if (!construct(merges)) {
    return false;
  }
  compact();
  evaluate_all();
  if (total() == kInfinity) return false;
  improve();
  return true;
}

bool MultigraphSearch::construct(const std::vector<GraphPair>& merges) {
  const MultigraphShape& shape = costs_.shape();
  labels_.assign(static_cast<std::size_t>(shape.graphs() * shape.label_stride), -1);
  std::vector<std::int64_t> cluster(static_cast<std::size_t>(shape.graphs()));
  for (std::int64_t graph = 0; graph < shape.graphs(); ++graph) {
    std::iota(labels_.begin() + graph * shape.label_stride,
              labels_.begin() + graph * shape.label_stride + shape.nodes[graph], 0);
    cluster[graph] = graph;
  }
  std::vector<std::int64_t> matching;
  for (const auto [into, from] : merges) {
    const std::int64_t kept = cluster[into], merged = cluster[from];
    if (kept == merged) continue;
    for (std::int64_t graph = 0; graph < shape.graphs(); ++graph) {
      sides_[graph] = cluster[graph] == kept ? Side::kColumns : cluster[graph] == merged ? Side::kRows : Side::kAway;
    }
    problem_.build(labels_, sides_);
    if (!solve(matching)) return false;
    problem_.apply(matching, labels_);
    std::replace(cluster.begin(), cluster.end(), merged, kept);
  }
  return true;
}

// The matching of the problem at hand by the portfolio.
bool MultigraphSearch::solve(std::vector<std::int64_t>& matching) {
  matching.assign(static_cast<std::size_t>(problem_.problem().rows), -1);
  LawlerOptions options;
  options.method = LawlerMethod::kPortfolio;
  options.seed = options_.seed;
  options.max_iterations = options_.max_iterations;
  options.effort = options_.effort;
  const Solution solution =
      solve_lawler(problem_.problem(), options, DualState{}, nullptr, DualState{}, stop_, matching.data());
  return solution.status != Status::kInfeasible && solution.status != Status::kInvalid;
}

void MultigraphSearch::evaluate_all() {
  for (std::size_t pair = 0; pair < objectives_.size(); ++pair) {
    objectives_[pair] = costs_.evaluate(static_cast<std::int64_t>(pair), labels_);
  }
}

// Numbers the elements from 0 in the order in which they come.
void MultigraphSearch::compact() {
  const MultigraphShape& shape = costs_.shape();
  std::vector<std::int64_t> number;
  element_count_ = 0;
  for (std::int64_t graph = 0; graph < shape.graphs(); ++graph) {
    std::int64_t* row = labels_.data() + graph * shape.label_stride;
    for (std::int64_t i = 0; i < shape.nodes[graph]; ++i) {
      if (row[i] >= static_cast<std::int64_t>(number.size())) number.resize(static_cast<std::size_t>(row[i] + 1), -1);
      if (number[row[i]] < 0) number[row[i]] = element_count_++;
      row[i] = number[row[i]];
    }
  }
}

std::vector<std::int64_t> MultigraphSearch::shuffled_graphs() {
  std::vector<std::int64_t> order(static_cast<std::size_t>(costs_.shape().graphs()));
  std::iota(order.begin(), order.end(), 0);
  for (std::size_t left = order.size(); left > 1; --left) {
    std::swap(order[left - 1], order[static_cast<std::size_t>(random_.below(static_cast<std::int64_t>(left)))]);
  }
  return order;
}

// Cheap moves first; a dear one that helps makes the cheap ones worth another try.
void MultigraphSearch::improve() {
  for (std::int64_t sweep = 0; sweep < options_.sweeps && !stop_.requested(); ++sweep) {
    descend_all();
    if (!resolve_all() && !exchange_elements()) return;
  }
}

// Sets one graph against all others.
void MultigraphSearch::take_out(std::int64_t graph) {
  std::fill(sides_.begin(), sides_.end(), Side::kColumns);
  sides_[graph] = Side::kRows;
  problem_.build(labels_, sides_);
}

// Matches one graph after the other anew, until none of them changes.
void MultigraphSearch::descend_all() {
  const std::int64_t graphs = costs_.shape().graphs();
  for (std::int64_t idle = 0; idle < graphs;) {
    for (const std::int64_t graph : shuffled_graphs()) {
      if (stop_.requested()) return;
      take_out(graph);
      idle = rematch(problem_.matching()) ? 0 : idle + 1;
      if (idle >= graphs) break;
    }
  }
}

bool MultigraphSearch::resolve_all() {
  bool changed = false;
  std::vector<std::int64_t> matching;
  for (const std::int64_t graph : shuffled_graphs()) {
    if (stop_.requested()) return changed;
    take_out(graph);
    if (solve(matching) && rematch(matching)) changed = true;
  }
  return changed;
}

// Descends from a matching of the problem at hand, and takes what comes of it if that costs less than the labels.
bool MultigraphSearch::rematch(const std::vector<std::int64_t>& start) {
  if (problem_.problem().columns == 0 || problem_.problem().rows == 0) return false;
  if (!folded_.build(problem_.problem())) return false;
  TabuSearch search(folded_);
  search.descend(start, stop_);
  if (!(search.best_value() < folded_.evaluate(problem_.matching().data()) - kNoise)) return false;
  Labels candidate = labels_;
  problem_.apply(search.best(), candidate);
  return accept(std::move(candidate));
}

// Takes labels if they cost less. They differ in how the graphs on both sides stand to each other, and in nothing else.
bool MultigraphSearch::accept(Labels&& candidate) {
  std::vector<double> values = objectives_;
  for (std::size_t pair = 0; pair < values.size(); ++pair) {
    const auto [a, b] = costs_.shape().pairs[pair];
    if (sides_[a] != sides_[b]) values[pair] = costs_.evaluate(static_cast<std::int64_t>(pair), candidate);
  }
  if (!(std::accumulate(values.begin(), values.end(), 0.0) < total())) return false;
  objectives_ = std::move(values);
  labels_ = std::move(candidate);
  compact();
  return true;
}

// Exchanges elements two by two. One of them may be new: that splits the other.
bool MultigraphSearch::exchange_elements() {
  bool changed = false;
  list_holders();
  for (std::int64_t alpha = 0; alpha < element_count_; ++alpha) {
    for (std::int64_t beta = alpha + 1; beta <= element_count_; ++beta) {
      if (stop_.requested()) return changed;
      if (beta == element_count_ && costs_.limited() && element_count_ == costs_.shape().universe) break;
      if (!exchange(alpha, beta)) continue;
      changed = true;
      list_holders();
    }
  }
  return changed;
}

void MultigraphSearch::list_holders() {
  const MultigraphShape& shape = costs_.shape();
  holders_.assign(static_cast<std::size_t>((element_count_ + 1) * shape.graphs()), -1);  // a new one comes last
  for (std::int64_t graph = 0; graph < shape.graphs(); ++graph) {
    const std::int64_t* row = labels_.data() + graph * shape.label_stride;
    for (std::int64_t i = 0; i < shape.nodes[graph]; ++i) holders_[row[i] * shape.graphs() + graph] = i;
  }
}

// Exchanges two elements in the graphs where that pays.
bool MultigraphSearch::exchange(std::int64_t alpha, std::int64_t beta) {
  const MultigraphShape& shape = costs_.shape();
  const std::int64_t graphs = shape.graphs();
  cut_.assign(static_cast<std::size_t>(graphs * graphs), 0.0);
  bool pays = false;
  for (std::size_t pair = 0; pair < shape.pairs.size(); ++pair) {
    const auto [a, b] = shape.pairs[pair];
    const double delta = change(static_cast<std::int64_t>(pair), alpha, beta);
    cut_[a * graphs + b] = cut_[b * graphs + a] = delta;
    pays = pays || delta < -kNoise;
  }
  if (!pays) return false;
  double value = 0.0;
  const std::vector<char> side = cheapest_cut(value);
  if (!(value < -kNoise)) return false;
  Labels candidate = labels_;
  for (std::int64_t graph = 0; graph < graphs; ++graph) {
    sides_[graph] = side[graph] ? Side::kRows : Side::kColumns;
    if (!side[graph]) continue;
    std::int64_t* row = candidate.data() + graph * shape.label_stride;
    const std::int64_t i = holders_[alpha * graphs + graph], j = holders_[beta * graphs + graph];
    if (i >= 0) row[i] = beta;
    if (j >= 0) row[j] = alpha;
  }
  return accept(std::move(candidate));
}

// A pair of graphs changes where one of both exchanges elements: the best set of graphs is a cut. Descent by single
// graphs, begun with each of them.
std::vector<char> MultigraphSearch::cheapest_cut(double& value) {
  const std::int64_t graphs = costs_.shape().graphs();
  std::vector<char> best(static_cast<std::size_t>(graphs), 0), side(best);
  std::vector<double> gain(static_cast<std::size_t>(graphs));
  value = 0.0;
  for (std::int64_t start = 0; start < graphs; ++start) {
    std::fill(side.begin(), side.end(), 0);
    for (std::int64_t v = 0; v < graphs; ++v) {
      gain[v] = std::accumulate(cut_.begin() + v * graphs, cut_.begin() + (v + 1) * graphs, 0.0);
    }
    double sum = 0.0;
    std::int64_t flipped = start;
    do {
      sum += gain[flipped];
      side[flipped] = !side[flipped];
      gain[flipped] = -gain[flipped];
      for (std::int64_t v = 0; v < graphs; ++v) {
        if (v == flipped) continue;
        const double twice = 2.0 * cut_[v * graphs + flipped];
        gain[v] += side[v] == side[flipped] ? twice : -twice;
      }
      flipped = std::min_element(gain.begin(), gain.end()) - gain.begin();
    } while (gain[flipped] < -kNoise);
    if (sum < value) {
      value = sum;
      best = side;
    }
  }
  return best;
}

// What the pair pays more, in stored units, when one of its graphs exchanges the elements.
double MultigraphSearch::change(std::int64_t pair, std::int64_t alpha, std::int64_t beta) const {
  const MultigraphShape& shape = costs_.shape();
  const std::int64_t graphs = shape.graphs();
  const auto [a, b] = shape.pairs[pair];
  const std::int64_t rows[2] = {holders_[alpha * graphs + a], holders_[beta * graphs + a]};
  const std::int64_t columns[2] = {holders_[alpha * graphs + b], holders_[beta * graphs + b]};
  if ((rows[0] < 0 && rows[1] < 0) || (columns[0] < 0 && columns[1] < 0)) return 0.0;
  const PairCosts& costs = costs_.costs(pair);
  const std::int64_t* left = labels_.data() + a * shape.label_stride;
  double total = 0.0;
  for (int side = 0; side < 2; ++side) {
    const std::int64_t i = rows[side];
    if (i < 0) continue;
    const std::int64_t before = columns[side], after = columns[1 - side];
    if (before >= 0) total -= static_cast<double>(costs.unary(i)[before]) - costs_.reward();
    if (after >= 0) total += static_cast<double>(costs.unary(i)[after]) - costs_.reward();
    for (std::int64_t entry = costs.row_begin(i); entry < costs.row_begin(i + 1); ++entry) {
      const std::int64_t p = costs.incident_pair(entry);
      const bool is_first = costs.pairs[p].first == i;
      const std::int64_t j = is_first ? costs.pairs[p].second : costs.pairs[p].first;
      if (j == rows[1 - side] && side == 1) continue;  // the pair of both rows was counted
      const std::int64_t before_j = j == rows[1 - side] ? columns[1 - side] : holders_[left[j] * graphs + b];
      const std::int64_t after_j = j == rows[1 - side] ? columns[side] : before_j;
      auto cost = [&](std::int64_t k, std::int64_t l) {
        if (k < 0 || l < 0) return 0.0;
        return static_cast<double>(is_first ? costs.cost(p, k, l) : costs.cost(p, l, k));
      };
      total += cost(after, after_j) - cost(before, before_j);
    }
  }
  return total;
}

}  // namespace graphmatch
