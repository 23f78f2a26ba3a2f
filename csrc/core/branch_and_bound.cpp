#include "core/branch_and_bound.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace graphmatch {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// Far above any sum of float messages: a label must not look forbidden because its duals are off.
constexpr double kForbidden = 1e200;
constexpr double kForbiddenTest = 1e199;
constexpr double kLargestTree = 512e6;  // bytes
constexpr std::int64_t kDoubleLanes = 8;

// The two smallest labels that are not closed, of every open row.
template <class V>
GRAPHMATCH_INLINE void smallest_labels(const double* gains, const double* closed, const char* assigned,
                                       std::int64_t rows, std::int64_t width, double* lowest, double* second) {
  for (std::int64_t i = 0; i < rows; ++i) {
    if (assigned[i]) continue;
    const auto* gain = reinterpret_cast<const V*>(gains + i * width);
    const auto* penalty = reinterpret_cast<const V*>(closed);
    V low = V{} + kInfinity;
    V next = low;
    for (std::int64_t k = 0; k < width / kWidth<V>; ++k) {
      const V value = gain[k] + penalty[k];
      const V larger = value < low ? low : value;
      next = larger < next ? larger : next;
      low = value < low ? value : low;
    }
    lowest[i] = second[i] = kInfinity;
    for (std::int64_t lane = 0; lane < kWidth<V>; ++lane) {
      const double larger = std::max(lowest[i], low[lane]);
      second[i] = std::min(std::min(second[i], next[lane]), larger);
      lowest[i] = std::min(lowest[i], low[lane]);
    }
  }
}

#define GRAPHMATCH_LABEL_VERSION(kTarget, kBytes)                                                               \
  kTarget void two_smallest(const double* gains, const double* closed, const char* assigned, std::int64_t rows, \
                            std::int64_t width, double* lowest, double* second) {                               \
    smallest_labels<Vector<double, kBytes>>(gains, closed, assigned, rows, width, lowest, second);              \
  }

GRAPHMATCH_FOR_EACH_WIDTH(GRAPHMATCH_LABEL_VERSION)

}  // namespace

BranchAndBound::BranchAndBound(const DualAscent& dual)
    : dual_(dual),
      costs_(dual.costs()),
      rows_(costs_.rows),
      width_((costs_.columns + kDoubleLanes) / kDoubleLanes * kDoubleLanes) {
  build_gains();
}

void BranchAndBound::build_gains() {
  const std::int64_t columns = costs_.columns;
  depth_limit_ = static_cast<std::int64_t>(kLargestTree / (8.0 * static_cast<double>(rows_ * width_)));
  gain_.resize(rows_ + 1);
  gain_[0].assign(rows_ * width_, kForbidden);
  children_.resize(rows_ + 1);
  pair_minimum_.resize(costs_.pairs.size());
  const bool column_may_stay_free = !costs_.complete || rows_ < columns;

  std::vector<double> potentials(columns);
  constant_ = -static_cast<double>(std::min(rows_, columns)) * costs_.unary_rounding_error();
  double magnitude = std::fabs(constant_);
  for (std::int64_t k = 0; k < columns; ++k) {
    const double dual = static_cast<double>(dual_.potentials()[k]);
    potentials[k] = column_may_stay_free ? std::min(dual, 0.0) : dual;
    constant_ += potentials[k];
    magnitude += std::fabs(dual);
  }
  for (std::int64_t i = 0; i < rows_; ++i) {
    double* theta = gain(0, i);
    for (std::int64_t k = 0; k < columns; ++k) {
      if (dual_.exists(i, k)) theta[k] = static_cast<double>(costs_.unary(i)[k]) - potentials[k];
    }
    if (dual_.may_be_unmatched(i)) theta[columns] = costs_.unmatched_cost;
    magnitude += 1.0;
  }
  auto subtract = [&](std::int64_t row, const float* messages, float unmatched) {
    double* theta = gain(0, row);
    double largest = 0.0;
    for (std::int64_t k = 0; k < columns; ++k) {
      if (theta[k] >= kForbiddenTest) continue;
      theta[k] -= static_cast<double>(messages[k]);
      largest = std::max(largest, std::fabs(static_cast<double>(messages[k])));
    }
    if (theta[columns] < kForbiddenTest) {
      theta[columns] -= static_cast<double>(unmatched);
      largest = std::max(largest, std::fabs(static_cast<double>(unmatched)));
    }
    magnitude += largest;
  };
  for (std::size_t p = 0; p < costs_.pairs.size(); ++p) {
    const std::int64_t pair = static_cast<std::int64_t>(p);
    subtract(costs_.pairs[p].first, dual_.message_first(pair), dual_.message_first_unmatched(pair));
    subtract(costs_.pairs[p].second, dual_.message_second(pair), dual_.message_second_unmatched(pair));
    pair_minimum_[p] = dual_.pair_minimum(pair);
    constant_ += pair_minimum_[p] - costs_.rounding_error(pair);
    magnitude += 1.0 + std::fabs(pair_minimum_[p]);
  }
  // Every bound is a sum of at most this many numbers, whose partial sums stay below a few times the magnitude.
  const double terms = static_cast<double>(4 * costs_.pairs.size() + 4 * rows_ + columns + 8);
  margin_ = 4.0 * std::numeric_limits<double>::epsilon() * terms * (magnitude + std::fabs(constant_));
}

bool BranchAndBound::search(const Evaluate& evaluate, double threshold, double slack, std::int64_t nodes, Stop& stop) {
  evaluate_ = &evaluate;
  threshold_ = threshold;
  slack_ = slack;
  node_limit_ = nodes;
  node_count_ = 0;
  finished_ = true;
  stop_ = &stop;
  best_.clear();
  best_value_ = kInfinity;
  open_bound_ = kInfinity;
  assigned_.assign(rows_, 0);
  lowest_.resize(rows_);
  second_.resize(rows_);
  closed_.assign(width_, 0.0);
  assignment_.assign(rows_, -1);
  unmatched_left_ = costs_.complete ? std::max<std::int64_t>(rows_ - costs_.columns, 0) : rows_;
  descend(0, constant_);
  return finished_;
}

BranchAndBound::Choice BranchAndBound::choose_row(std::int64_t depth) {
  Choice choice{-1, 0.0, 0.0};
  double widest = -1.0;
  two_smallest(gain(depth, 0), closed_.data(), assigned_.data(), rows_, width_, lowest_.data(), second_.data());
  for (std::int64_t i = 0; i < rows_; ++i) {
    if (assigned_[i]) continue;
    choice.open_minimum += lowest_[i];
    if (lowest_[i] >= kForbiddenTest) return {i, lowest_[i], kInfinity};
    if (second_[i] - lowest_[i] > widest) {
      widest = second_[i] - lowest_[i];
      choice.row = i;
      choice.row_minimum = lowest_[i];
    }
  }
  return choice;
}

void BranchAndBound::descend(std::int64_t depth, double paid) {
  if (depth == rows_) return leaf();
  const Choice choice = choose_row(depth);
  const double bound = paid + choice.open_minimum;
  if (bound == kInfinity || choice.open_minimum >= kForbiddenTest) return;  // no matching below
  if (bound >= threshold_) {
    open_bound_ = std::min(open_bound_, bound);
    return;
  }
  if (++node_count_ > node_limit_ || depth >= depth_limit_ || (node_count_ % 16 == 0 && stop_->requested())) {
    finished_ = false;
    open_bound_ = std::min(open_bound_, bound);
    return;
  }
  std::vector<Child>& children = children_[depth];
  children.clear();
  const double* gains = gain(depth, choice.row);
  const double others = bound - choice.row_minimum;
  for (std::int64_t k = 0; k <= costs_.columns; ++k) {
    const double value = gains[k] + closed_[k];
    if (value < kForbiddenTest) children.push_back({others + value, k});
  }
  std::stable_sort(children.begin(), children.end(), [](const Child& x, const Child& y) { return x.bound < y.bound; });
  for (std::size_t c = 0; c < children.size(); ++c) {
    const Child child = children[c];
    if (child.bound >= threshold_ || !finished_) {
      open_bound_ = std::min(open_bound_, child.bound);
      break;  // the others are not below it
    }
    const double pays = gain(depth, choice.row)[child.label];
    take(choice.row, child.label, true);
    place(depth, choice.row, child.label);
    descend(depth + 1, paid + pays);
    take(choice.row, child.label, false);
  }
}

void BranchAndBound::take(std::int64_t row, std::int64_t label, bool taken) {
  assigned_[row] = taken;
  assignment_[row] = taken && label < costs_.columns ? label : -1;
  if (label < costs_.columns) {
    closed_[label] = taken ? kForbidden : 0.0;
  } else {
    unmatched_left_ += taken ? -1 : 1;
    closed_[label] = unmatched_left_ > 0 ? 0.0 : kForbidden;
  }
}

// Gains one level deeper: what the open neighbours of `row` pay it there, above the pair's minimum.
void BranchAndBound::place(std::int64_t depth, std::int64_t row, std::int64_t label) {
  const std::int64_t columns = costs_.columns;
  gain_[depth + 1].resize(gain_[depth].size());
  for (std::int64_t i = 0; i < rows_; ++i) {
    if (!assigned_[i]) std::copy_n(gain(depth, i), width_, gain(depth + 1, i));
  }
  for (std::int64_t at = costs_.row_begin(row); at < costs_.row_begin(row + 1); ++at) {
    const std::int64_t pair = costs_.incident_pair(at);
    const bool is_first = costs_.pairs[pair].first == row;
    const std::int64_t neighbour = is_first ? costs_.pairs[pair].second : costs_.pairs[pair].first;
    if (assigned_[neighbour]) continue;
    double* gains = gain(depth + 1, neighbour);
    const float* own = is_first ? dual_.message_first(pair) : dual_.message_second(pair);
    const float* others = is_first ? dual_.message_second(pair) : dual_.message_first(pair);
    const float own_unmatched = is_first ? dual_.message_first_unmatched(pair) : dual_.message_second_unmatched(pair);
    const float others_unmatched =
        is_first ? dual_.message_second_unmatched(pair) : dual_.message_first_unmatched(pair);
    const double message = static_cast<double>(label < columns ? own[label] : own_unmatched);
    const double base = message - pair_minimum_[pair];
    for (std::int64_t k = 0; k < columns; ++k) gains[k] += base + static_cast<double>(others[k]);
    gains[columns] += base + static_cast<double>(others_unmatched);
    if (label == columns) continue;
    const CostPattern& pattern = costs_.pattern(pair);
    const float* values = costs_.values(pair);
    if (is_first) {
      for (std::int32_t e = pattern.row_begin[label]; e < pattern.row_begin[label + 1]; ++e) {
        gains[pattern.column[e]] += static_cast<double>(values[e]);
      }
    } else {
      for (std::int32_t e = pattern.column_begin[label]; e < pattern.column_begin[label + 1]; ++e) {
        gains[pattern.row[e]] += static_cast<double>(values[pattern.entry[e]]);
      }
    }
  }
}

void BranchAndBound::leaf() {
  // Not what was paid on the way: that leaves out what the dual charges for unused columns, and rounds.
  const double value = (*evaluate_)(assignment_.data());
  open_bound_ = std::min(open_bound_, value);
  if (!(value < best_value_)) return;
  best_value_ = value;
  best_ = assignment_;
  threshold_ = std::min(threshold_, value - slack_);
}

}  // namespace graphmatch
