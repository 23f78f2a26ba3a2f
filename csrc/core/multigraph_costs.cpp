#include "core/multigraph_costs.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <utility>

namespace graphmatch {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

}  // namespace

MultigraphCosts::MultigraphCosts(MultigraphShape shape)
    : shape_(std::move(shape)), costs_(shape_.pairs.size()), exact_(shape_.pairs.size()), edges_(shape_.nodes.size()) {}

template <class T>
bool MultigraphCosts::take(std::int64_t pair, const LawlerProblem<T>& problem, double largest) {
  if (!costs_[pair].build(problem, largest)) return false;
  auto right_edges = std::make_shared<RightEdges>();
  right_edges->build(problem.edges2, problem.edge_count2, problem.columns);
  exact_[pair] = [problem, right_edges](const std::int64_t* x) {
    return graphmatch::evaluate(problem, *right_edges, x);
  };
  return true;
}

void MultigraphCosts::finish() {
  if (costs_.empty()) return;
  scale_ = costs_.front().scale;
  complete_ = costs_.front().complete;
  reward_ = complete_ ? 0.0 : costs_.front().unmatched_cost;
  std::int64_t most = 0;
  std::vector<std::vector<char>> joined(shape_.nodes.size());  // nodes x nodes of each graph
  auto join = [&](std::int64_t graph, std::int64_t i, std::int64_t j) {
    char& known = joined[graph][std::min(i, j) * shape_.nodes[graph] + std::max(i, j)];
    if (std::exchange(known, 1)) return;
    edges_[graph].push_back(std::min(i, j));
    edges_[graph].push_back(std::max(i, j));
  };
  for (std::size_t graph = 0; graph < shape_.nodes.size(); ++graph) {
    const std::int64_t nodes = shape_.nodes[graph];
    joined[graph].assign(static_cast<std::size_t>(nodes * nodes), 0);
    most = std::max(most, nodes);
  }
  for (std::size_t pair = 0; pair < costs_.size(); ++pair) {
    const PairCosts& costs = costs_[pair];
    bool seen[4] = {};
    for (std::size_t p = 0; p < costs.pairs.size(); ++p) {
      join(shape_.pairs[pair].first, costs.pairs[p].first, costs.pairs[p].second);
      const CostPattern& pattern = costs.pattern(static_cast<std::int64_t>(p));
      const int direction = costs.direction(static_cast<std::int64_t>(p));
      if (std::exchange(seen[direction], true)) continue;
      for (std::int64_t k = 0; k < costs.columns; ++k) {
        for (std::int32_t at = pattern.row_begin[k]; at < pattern.row_begin[k + 1]; ++at) {
          join(shape_.pairs[pair].second, k, pattern.column[at]);
        }
      }
    }
  }
  const bool unequal = std::any_of(shape_.nodes.begin(), shape_.nodes.end(), [&](auto count) { return count != most; });
  if (!complete_ || !unequal) return;
  // More than all that a match can change.
  double change = 0.0;
  for (const PairCosts& costs : costs_) {
    const auto degree = std::max_element(costs.degree.begin(), costs.degree.end());
    const double neighbours = degree == costs.degree.end() ? 0.0 : static_cast<double>(*degree);
    change = std::max(change, 2.0 * costs.largest_cost * (1.0 + 4.0 * neighbours));
  }
  reward_ = 1.0 + change * static_cast<double>(shape_.graphs());
}

double MultigraphCosts::evaluate(std::int64_t pair, const Labels& labels) const {
  const auto [first, second] = shape_.pairs[pair];
  const std::int64_t rows = shape_.nodes[first], columns = shape_.nodes[second];
  const std::int64_t* left = labels.data() + first * shape_.label_stride;
  const std::int64_t* right = labels.data() + second * shape_.label_stride;
  std::int64_t elements = 0;
  for (std::int64_t k = 0; k < columns; ++k) elements = std::max(elements, right[k] + 1);
  std::vector<std::int64_t> holder(static_cast<std::size_t>(elements), -1);
  for (std::int64_t k = 0; k < columns; ++k) {
    if (right[k] >= 0) holder[right[k]] = k;
  }
  std::vector<std::int64_t> matching(static_cast<std::size_t>(rows), -1);
  std::int64_t matched = 0;
  const PairCosts& costs = costs_[pair];
  for (std::int64_t i = 0; i < rows; ++i) {
    if (left[i] >= 0 && left[i] < elements) matching[i] = holder[left[i]];
    if (matching[i] < 0) continue;
    ++matched;
    if (!costs.allowed(i, matching[i])) return kInfinity;
  }
  if (complete_ && matched < std::min(rows, columns)) return kInfinity;
  return exact_[pair](matching.data());
}

template bool MultigraphCosts::take(std::int64_t, const LawlerProblem<float>&, double);
template bool MultigraphCosts::take(std::int64_t, const LawlerProblem<double>&, double);

void AggregatedProblem::build(const Labels& labels, const std::vector<Side>& sides) {
  const MultigraphShape& shape = costs_.shape();
  labels_ = &labels;
  sides_ = &sides;
  limit_ = shape.universe;
  for (const std::int64_t label : labels) limit_ = std::max(limit_, label + 1);
  list_elements(Side::kRows, rows_);
  list_elements(Side::kColumns, columns_);
  list_joined(Side::kRows, rows_, false, row_pairs_);
  list_joined(Side::kColumns, columns_, true, column_pairs_);

  problem_ = LawlerProblem<float>();
  problem_.rows = rows_.count();
  problem_.columns = columns_.count();
  problem_.edge_count1 = row_pairs_.count();
  problem_.edge_count2 = column_pairs_.count();
  problem_.complete = costs_.limited();
  unary_.assign(static_cast<std::size_t>(problem_.rows * problem_.columns), 0.0f);
  quadratic_.assign(static_cast<std::size_t>(problem_.edge_count1 * problem_.edge_count2), 0.0f);
  for (std::size_t pair = 0; pair < shape.pairs.size(); ++pair) {
    const auto [a, b] = shape.pairs[pair];
    if (sides[a] == Side::kAway || sides[b] == Side::kAway || sides[a] == sides[b]) continue;
    const bool rows_are_first = sides[a] == Side::kRows;
    locate(a, rows_are_first ? rows_ : columns_, first_);
    locate(b, rows_are_first ? columns_ : rows_, second_);
    const PairCosts& costs = costs_.costs(static_cast<std::int64_t>(pair));
    add_unary(costs, rows_are_first);
    add_pairs(costs, rows_are_first);
  }
  problem_.unary = unary_.data();
  problem_.unary_stride = problem_.columns;
  problem_.quadratic = quadratic_.data();
  problem_.quadratic_stride = problem_.edge_count2;
  problem_.edges1 = row_pairs_.ends.data();
  problem_.edges2 = column_pairs_.ends.data();
}

void AggregatedProblem::list_elements(Side side, Elements& elements) const {
  const MultigraphShape& shape = costs_.shape();
  const bool all = costs_.limited() && side == Side::kColumns;
  elements.place.assign(static_cast<std::size_t>(limit_), all ? 0 : -1);
  for (std::int64_t graph = 0; graph < shape.graphs(); ++graph) {
    if ((*sides_)[graph] != side) continue;
    const std::int64_t* row = labels_->data() + graph * shape.label_stride;
    for (std::int64_t i = 0; i < shape.nodes[graph]; ++i) elements.place[row[i]] = 0;
  }
  elements.element.clear();
  for (std::int64_t element = 0; element < limit_; ++element) {
    if (elements.place[element] < 0) continue;
    elements.place[element] = elements.count();
    elements.element.push_back(element);
  }
}

void AggregatedProblem::list_joined(Side side, const Elements& elements, bool both_directions, Joined& joined) const {
  const MultigraphShape& shape = costs_.shape();
  const std::int64_t count = elements.count();
  joined.place.assign(static_cast<std::size_t>(count * count), -1);
  for (std::int64_t graph = 0; graph < shape.graphs(); ++graph) {
    if ((*sides_)[graph] != side) continue;
    const std::int64_t* row = labels_->data() + graph * shape.label_stride;
    const std::vector<std::int64_t>& edges = costs_.edges(graph);
    for (std::size_t e = 0; e < edges.size(); e += 2) {
      const std::int64_t c = elements.place[row[edges[e]]], d = elements.place[row[edges[e + 1]]];
      joined.place[std::min(c, d) * count + std::max(c, d)] = 0;
      if (both_directions) joined.place[std::max(c, d) * count + std::min(c, d)] = 0;
    }
  }
  joined.ends.clear();
  for (std::int64_t c = 0; c < count; ++c) {
    for (std::int64_t d = 0; d < count; ++d) {
      if (joined.place[c * count + d] < 0) continue;
      joined.place[c * count + d] = static_cast<std::int32_t>(joined.count());
      joined.ends.push_back(c);
      joined.ends.push_back(d);
    }
  }
}

void AggregatedProblem::locate(std::int64_t graph, const Elements& elements, std::vector<std::int64_t>& places) const {
  const MultigraphShape& shape = costs_.shape();
  const std::int64_t* row = labels_->data() + graph * shape.label_stride;
  places.resize(static_cast<std::size_t>(shape.nodes[graph]));
  for (std::int64_t i = 0; i < shape.nodes[graph]; ++i) places[i] = elements.place[row[i]];
}

void AggregatedProblem::add_unary(const PairCosts& costs, bool rows_are_first) {
  const std::int64_t width = problem_.columns;
  const auto reward = static_cast<float>(costs_.reward());
  for (std::int64_t i = 0; i < costs.rows; ++i) {
    const float* unary = costs.unary(i);
    for (std::int64_t k = 0; k < costs.columns; ++k) {
      const std::int64_t place = rows_are_first ? first_[i] * width + second_[k] : second_[k] * width + first_[i];
      unary_[place] += unary[k] < kBarrierTest ? unary[k] - reward : std::numeric_limits<float>::infinity();
    }
  }
}

// Adds what "i -> k and j -> l" costs: the term of rows r < s on columns c and d. Pairs of one direction share where
// the entries belong.
void AggregatedProblem::add_pairs(const PairCosts& costs, bool rows_are_first) {
  const std::int64_t row_count = rows_.count(), column_count = columns_.count();
  const std::int64_t width = problem_.edge_count2;
  const auto own_count = rows_are_first ? column_count : row_count;
  bool located[4] = {};
  for (std::size_t p = 0; p < costs.pairs.size(); ++p) {
    const auto pair = static_cast<std::int64_t>(p);
    const int direction = costs.direction(pair);
    std::vector<std::int64_t>& along = along_[direction];
    std::vector<std::int64_t>& against = against_[direction];
    const CostPattern& pattern = costs.pattern(pair);
    const float* values = costs.values(pair);
    const std::int64_t size = pattern.size();
    if (!std::exchange(located[direction], true)) {
      along.resize(static_cast<std::size_t>(size));
      against.resize(static_cast<std::size_t>(size));
      for (std::int64_t k = 0; k < costs.columns; ++k) {
        for (std::int32_t at = pattern.row_begin[k]; at < pattern.row_begin[k + 1]; ++at) {
          const std::int64_t x = second_[k], y = second_[pattern.column[at]];
          if (rows_are_first) {
            along[at] = column_pairs_.place[x * own_count + y];
            against[at] = column_pairs_.place[y * own_count + x];
          } else {
            along[at] = row_pairs_.place[std::min(x, y) * own_count + std::max(x, y)] * width;
            against[at] = x < y ? 0 : 1;
          }
        }
      }
    }
    const std::int64_t x = first_[costs.pairs[p].first], y = first_[costs.pairs[p].second];
    if (rows_are_first) {
      float* row = quadratic_.data() + row_pairs_.place[std::min(x, y) * row_count + std::max(x, y)] * width;
      const std::int64_t* place = (x < y ? along : against).data();
      for (std::int64_t at = 0; at < size; ++at) row[place[at]] += values[at];
    } else {
      const std::int64_t column[2] = {column_pairs_.place[x * column_count + y],
                                      column_pairs_.place[y * column_count + x]};
      for (std::int64_t at = 0; at < size; ++at) quadratic_[along[at] + column[against[at]]] += values[at];
    }
  }
}

std::vector<std::int64_t> AggregatedProblem::matching() const {
  std::vector<std::int64_t> result;
  for (const std::int64_t element : rows_.element) result.push_back(columns_.place[element]);
  return result;
}

void AggregatedProblem::apply(const std::vector<std::int64_t>& matching, Labels& labels) const {
  const MultigraphShape& shape = costs_.shape();
  std::int64_t next = limit_;
  std::vector<std::int64_t> image;
  for (const std::int64_t column : matching) image.push_back(column < 0 ? next++ : columns_.element[column]);
  for (std::int64_t graph = 0; graph < shape.graphs(); ++graph) {
    if ((*sides_)[graph] != Side::kRows) continue;
    std::int64_t* row = labels.data() + graph * shape.label_stride;
    for (std::int64_t i = 0; i < shape.nodes[graph]; ++i) row[i] = image[rows_.place[row[i]]];
  }
}

}  // namespace graphmatch
