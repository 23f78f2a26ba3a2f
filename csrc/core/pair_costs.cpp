#include "core/pair_costs.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace graphmatch {
namespace {

// Relative rounding error of one addition.
constexpr double kRounding = 0.5 * std::numeric_limits<double>::epsilon();

// Largest rounding error of a sum of `count` doubles of at most `largest`, added one by one.
double summation_error(std::int64_t count, double largest) {
  const double terms = static_cast<double>(count);
  return count < 2 ? 0.0 : kRounding * (terms - 1.0) * terms * largest;
}

// Rounds scaled costs to float and returns the largest error.
GRAPHMATCH_INLINE double round_all(const double* exact, double factor, std::int64_t count, float* rounded) {
  double largest = 0.0;
#pragma omp simd reduction(max : largest)
  for (std::int64_t k = 0; k < count; ++k) {
    const double cost = exact[k] * factor;
    rounded[k] = static_cast<float>(cost);
    const double error = std::fabs(cost - static_cast<double>(rounded[k]));
    largest = error > largest ? error : largest;
  }
  return largest;
}

GRAPHMATCH_MULTIVERSION double round_costs(const double* exact, double factor, std::int64_t count, float* rounded) {
  return round_all(exact, factor, count, rounded);
}

// The same for unary costs, where infinity becomes the barrier.
template <class T>
GRAPHMATCH_INLINE double round_finite(const T* costs, double factor, std::int64_t count, float* rounded) {
  double largest = 0.0;
#pragma omp simd reduction(max : largest)
  for (std::int64_t k = 0; k < count; ++k) {
    const bool allowed = costs[k] <= std::numeric_limits<T>::max();
    const double cost = (allowed ? static_cast<double>(costs[k]) : 0.0) * factor;
    const float nearest = static_cast<float>(cost);
    const double error = std::fabs(cost - static_cast<double>(nearest));
    largest = error > largest ? error : largest;
    rounded[k] = allowed ? nearest : kBarrier;
  }
  return largest;
}

GRAPHMATCH_MULTIVERSION double round_unary(const float* costs, double factor, std::int64_t count, float* rounded) {
  return round_finite(costs, factor, count, rounded);
}

GRAPHMATCH_MULTIVERSION double round_unary(const double* costs, double factor, std::int64_t count, float* rounded) {
  return round_finite(costs, factor, count, rounded);
}

}  // namespace

template <class T>
bool PairCosts::build(const LawlerProblem<T>& problem, double expected) {
  double unary_largest = 0.0;
  largest_pair_cost_ = 0.0;
  if (!has_valid_edges(problem, largest_pair_cost_) || !has_valid_unary_costs(problem, unary_largest)) return false;
  rows = problem.rows;
  columns = problem.columns;
  stride = padded(columns);
  complete = problem.complete;
  const double largest = std::max(largest_pair_cost_, unary_largest);
  int exponent = 0;
  std::frexp(std::max(largest, expected), &exponent);          // 0 gives exponent 0
  scale = std::ldexp(1.0, std::clamp(exponent, -1000, 1000));  // its inverse stays a normal number
  largest_cost = largest / scale;
  unmatched_cost = problem.complete ? 0.0 : problem.unmatched_cost / scale;
  list_pairs(problem.edges1, problem.edge_count1);
  sum_loops(problem);
  fold_unary(problem);
  fold_pairs(problem);
  return true;
}

template <class T>
bool PairCosts::replace_unary(const LawlerProblem<T>& problem) {
  double largest = largest_pair_cost_;
  if (!has_valid_unary_costs(problem, largest)) return false;
  largest_cost = largest / scale;
  fold_unary(problem);
  return true;
}

void PairCosts::list_pairs(const std::int64_t* edges, std::int64_t edge_count) {
  pairs.clear();
  direction_.clear();
  pair_of_edge_.assign(static_cast<std::size_t>(edge_count), -1);
  degree.assign(static_cast<std::size_t>(rows), 0);
  // Edges chained by their smaller node: a pair is known already if an earlier edge of the chain joins the same nodes.
  std::vector<std::int64_t> head(static_cast<std::size_t>(rows), -1);
  std::vector<std::int64_t> next;
  pairs.reserve(static_cast<std::size_t>(edge_count));
  direction_.reserve(static_cast<std::size_t>(edge_count));
  next.reserve(static_cast<std::size_t>(edge_count));
  for (std::int64_t e = 0; e < edge_count; ++e) {
    const std::int64_t i = std::min(edges[2 * e], edges[2 * e + 1]);
    const std::int64_t j = std::max(edges[2 * e], edges[2 * e + 1]);
    if (i == j) continue;
    std::int64_t pair = head[i];
    while (pair >= 0 && pairs[pair].second != j) pair = next[pair];
    if (pair < 0) {
      pair = static_cast<std::int64_t>(pairs.size());
      pairs.push_back({i, j});
      direction_.push_back(0);
      next.push_back(head[i]);
      head[i] = pair;
      ++degree[i];
      ++degree[j];
    }
    pair_of_edge_[e] = pair;
    direction_[pair] = static_cast<std::int8_t>(direction_[pair] | (edges[2 * e] == i ? 1 : 2));
  }
  row_begin_.assign(static_cast<std::size_t>(rows + 1), 0);
  for (std::int64_t i = 0; i < rows; ++i) row_begin_[i + 1] = row_begin_[i] + degree[i];
  incident_.resize(2 * pairs.size());
  std::vector<std::int64_t> fill(row_begin_.begin(), row_begin_.end() - 1);
  for (std::size_t p = 0; p < pairs.size(); ++p) {
    incident_[fill[pairs[p].first]++] = static_cast<std::int64_t>(p);
    incident_[fill[pairs[p].second]++] = static_cast<std::int64_t>(p);
  }
}

template <class T>
void PairCosts::sum_loops(const LawlerProblem<T>& problem) {
  loops_.clear();
  loop_errors_.clear();
  for (std::int64_t e = 0; e < problem.edge_count1; ++e) {
    const std::int64_t i = problem.edges1[2 * e];
    if (i != problem.edges1[2 * e + 1]) continue;
    loops_.resize(static_cast<std::size_t>(rows * columns), 0.0);
    loop_errors_.resize(static_cast<std::size_t>(rows * columns), 0.0);
    for (std::int64_t f = 0; f < problem.edge_count2; ++f) {
      const std::int64_t k = problem.edges2[2 * f];
      if (k != problem.edges2[2 * f + 1]) continue;
      const double cost = static_cast<double>(problem.quadratic[e * problem.quadratic_stride + f]);
      if (cost == 0.0) continue;
      double& sum = loops_[i * columns + k];
      sum += cost;
      loop_errors_[i * columns + k] += kRounding * std::fabs(sum);
    }
  }
}

template <class T>
void PairCosts::fold_unary(const LawlerProblem<T>& problem) {
  const double inverse = 1.0 / scale;
  unary_.resize(static_cast<std::size_t>(rows * stride));
  unary_error_ = 0.0;
  for (std::int64_t i = 0; i < rows; ++i) {
    const T* costs = problem.unary + i * problem.unary_stride;
    float* folded = unary_.data() + i * stride;
    std::fill(folded + columns, folded + stride, kBarrier);
    if (loops_.empty()) {
      unary_error_ = std::max(unary_error_, round_unary(costs, inverse, columns, folded));
      continue;
    }
    for (std::int64_t k = 0; k < columns; ++k) {
      double cost = static_cast<double>(costs[k]);
      folded[k] = kBarrier;
      if (std::isinf(cost)) continue;
      cost += loops_[i * columns + k];
      const double error = (loop_errors_[i * columns + k] + kRounding * std::fabs(cost)) * inverse;
      cost *= inverse;
      folded[k] = static_cast<float>(cost);
      unary_error_ = std::max(unary_error_, std::fabs(cost - static_cast<double>(folded[k])) + error);
    }
  }
}

void PairCosts::build_pattern(CostPattern& pattern, const std::int64_t* edges, std::int64_t edge_count, bool forward,
                              bool backward) {
  // Cells in the order of their columns, then stably in that of their rows: two passes of counting sort.
  struct Cell {
    std::int32_t k, l, edge;
    bool reversed;
  };
  std::vector<Cell> cells, by_column;
  cells.resize(static_cast<std::size_t>(2 * edge_count));
  std::size_t count = 0;
  for (std::int32_t f = 0; f < edge_count; ++f) {
    const auto k = static_cast<std::int32_t>(edges[2 * f]);
    const auto l = static_cast<std::int32_t>(edges[2 * f + 1]);
    if (k == l) continue;  // joins a column with itself: never paid by two rows
    if (forward) cells[count++] = {k, l, f, false};
    if (backward) cells[count++] = {l, k, f, true};
  }
  cells.resize(count);
  by_column.resize(count);
  std::vector<std::int32_t> place(static_cast<std::size_t>(columns + 1), 0);
  auto sort = [&](const std::vector<Cell>& from, std::vector<Cell>& to, std::int32_t Cell::* key) {
    std::fill(place.begin(), place.end(), 0);
    for (const Cell& cell : from) ++place[cell.*key + 1];
    for (std::int64_t k = 0; k < columns; ++k) place[k + 1] += place[k];
    for (const Cell& cell : from) to[place[cell.*key]++] = cell;
  };
  sort(cells, by_column, &Cell::l);
  sort(by_column, cells, &Cell::k);

  pattern.forward.assign(static_cast<std::size_t>(edge_count), -1);
  pattern.backward.assign(static_cast<std::size_t>(edge_count), -1);
  pattern.row_begin.assign(static_cast<std::size_t>(columns + 1), 0);
  pattern.column_begin.assign(static_cast<std::size_t>(columns + 1), 0);
  pattern.column.clear();
  pattern.column.reserve(cells.size());
  pattern.repeats = false;
  const Cell* last = nullptr;
  for (const Cell& cell : cells) {
    if (last != nullptr && last->k == cell.k && last->l == cell.l) {
      pattern.repeats = true;
    } else {
      pattern.column.push_back(cell.l);
      ++pattern.row_begin[cell.k + 1];
      ++pattern.column_begin[cell.l + 1];
    }
    (cell.reversed ? pattern.backward : pattern.forward)[cell.edge] =
        static_cast<std::int32_t>(pattern.column.size() - 1);
    last = &cell;
  }
  for (std::int64_t k = 0; k < columns; ++k) {
    pattern.row_begin[k + 1] += pattern.row_begin[k];
    pattern.column_begin[k + 1] += pattern.column_begin[k];
  }
  constexpr std::int64_t kMostColumns = 96;  // whose places are few enough to stay in the cache
  pattern.places.assign(static_cast<std::size_t>(columns <= kMostColumns ? columns * columns : 0), -1);
  pattern.row.resize(pattern.column.size());
  pattern.entry.resize(pattern.column.size());
  std::copy(pattern.column_begin.begin(), pattern.column_begin.end(), place.begin());
  for (std::int32_t k = 0; k < columns; ++k) {
    for (std::int32_t e = pattern.row_begin[k]; e < pattern.row_begin[k + 1]; ++e) {
      const std::int32_t at = place[pattern.column[e]]++;
      pattern.row[at] = k;
      if (!pattern.places.empty()) pattern.places[k * columns + pattern.column[e]] = e;
      pattern.entry[at] = e;
    }
  }
}

template <class T>
void PairCosts::fold_pairs(const LawlerProblem<T>& problem) {
  const std::int64_t edge_count2 = problem.edge_count2;
  bool needed[4] = {};
  for (const std::int8_t direction : direction_) needed[direction] = true;
  for (int direction = 1; direction < 4; ++direction) {
    if (needed[direction]) {
      build_pattern(patterns_[direction], problem.edges2, edge_count2, (direction & 1) != 0, (direction & 2) != 0);
    }
  }
  value_begin_.assign(pairs.size() + 1, 0);
  for (std::size_t p = 0; p < pairs.size(); ++p) value_begin_[p + 1] = value_begin_[p] + pattern(p).size();
  values_.resize(static_cast<std::size_t>(value_begin_.back()));
  pair_error_.assign(pairs.size(), 0.0);

  // Left edges grouped by pair, so that one pair's costs in double are enough.
  std::vector<std::int64_t> head(pairs.size(), -1);
  std::vector<std::int64_t> next(static_cast<std::size_t>(problem.edge_count1), -1);
  for (std::int64_t e = problem.edge_count1 - 1; e >= 0; --e) {
    const std::int64_t pair = pair_of_edge_[e];
    if (pair < 0) continue;
    next[e] = head[pair];
    head[pair] = e;
  }
  // How many right edges share an entry at most.
  std::int64_t repeats[4] = {};
  std::vector<std::int64_t> count;
  for (int direction = 1; direction < 4; ++direction) {
    const CostPattern& shared = patterns_[direction];
    if (!needed[direction]) continue;
    repeats[direction] = 1;
    if (!shared.repeats) continue;
    count.assign(shared.column.size(), 0);
    for (std::int64_t f = 0; f < edge_count2; ++f) {
      for (const std::int32_t entry : {shared.forward[f], shared.backward[f]}) {
        if (entry >= 0) repeats[direction] = std::max(repeats[direction], ++count[entry]);
      }
    }
  }

  std::vector<double> exact;
  for (std::size_t p = 0; p < pairs.size(); ++p) {
    const CostPattern& shared = pattern(static_cast<std::int64_t>(p));
    exact.assign(shared.column.size(), 0.0);
    std::int64_t left_edges = 0;
    for (std::int64_t e = head[p]; e >= 0; e = next[e]) {
      ++left_edges;
      const T* costs = problem.quadratic + e * problem.quadratic_stride;
      const bool is_forward = problem.edges1[2 * e] == pairs[p].first;
      const std::vector<std::int32_t>& entry = is_forward ? shared.forward : shared.backward;
      for (std::int64_t f = 0; f < edge_count2; ++f) {
        if (entry[f] >= 0) exact[entry[f]] += static_cast<double>(costs[f]);
      }
    }
    pair_error_[p] = round_costs(exact.data(), 1.0 / scale, shared.size(), values_.data() + value_begin_[p]) +
                     summation_error(left_edges * repeats[direction_[p]], largest_cost);
  }
}

double PairCosts::density() const {
  if (pairs.empty() || columns == 0) return 0.0;
  return static_cast<double>(value_begin_.back()) / static_cast<double>(pairs.size()) /
         static_cast<double>(columns * columns);
}

double PairCosts::evaluate(const std::int64_t* assignment) const {
  double total = 0.0;
  for (std::int64_t i = 0; i < rows; ++i) {
    total += assignment[i] < 0 ? unmatched_cost : static_cast<double>(unary(i)[assignment[i]]);
  }
  for (std::size_t p = 0; p < pairs.size(); ++p) {
    const std::int64_t k = assignment[pairs[p].first];
    const std::int64_t l = assignment[pairs[p].second];
    if (k >= 0 && l >= 0) total += static_cast<double>(cost(static_cast<std::int64_t>(p), k, l));
  }
  return total;
}

template bool PairCosts::build(const LawlerProblem<float>&, double);
template bool PairCosts::build(const LawlerProblem<double>&, double);
template bool PairCosts::replace_unary(const LawlerProblem<float>&);
template bool PairCosts::replace_unary(const LawlerProblem<double>&);

}  // namespace graphmatch
