// The native tests of several graphs: aggregated problems against evaluation, searches that never lose, any threads.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

#include "core/multigraph_costs.hpp"
#include "core/multigraph_search.hpp"
#include "problems.hpp"

namespace graphmatch {

// Random graphs with problems between most pairs of them.
struct MultigraphCase {
  MultigraphShape shape;
  std::vector<std::vector<double>> unary, quadratic;
  std::vector<std::vector<std::int64_t>> edges1, edges2;
  std::vector<LawlerProblem<double>> problems;
  double largest = 0.0;

  explicit MultigraphCase(std::int64_t seed) {
    std::mt19937_64 random(static_cast<std::uint64_t>(seed));
    auto below = [&](std::int64_t limit) {
      return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(limit));
    };
    const bool complete = below(2) == 0, equal = below(2) == 0, forbids = below(3) == 0;
    const std::int64_t graphs = 2 + below(4), most = 1 + below(5);
    for (std::int64_t graph = 0; graph < graphs; ++graph) shape.nodes.push_back(equal ? most : below(most + 1));
    shape.label_stride = *std::max_element(shape.nodes.begin(), shape.nodes.end());
    if (complete) shape.universe = std::max<std::int64_t>(shape.label_stride, 1);
    if (!complete && below(2) == 0) shape.universe = shape.label_stride + 1 + below(3);
    const double size = below(4) == 0 ? 1e30 : 1.0;
    std::normal_distribution<double> normal;
    const double unmatched = complete ? 0.0 : size * normal(random);
    for (std::int64_t a = 0; a < graphs; ++a) {
      for (std::int64_t b = a + 1; b < graphs; ++b) {
        if (b > a + 1 && below(5) == 0) continue;
        shape.pairs.push_back(below(2) == 0 ? GraphPair{a, b} : GraphPair{b, a});
        const auto [first, second] = shape.pairs.back();
        const std::int64_t rows = shape.nodes[first], columns = shape.nodes[second];
        const std::int64_t count1 = rows == 0 ? 0 : below(8), count2 = columns == 0 ? 0 : below(8);
        unary.emplace_back(static_cast<std::size_t>(rows * columns));
        for (double& cost : unary.back()) cost = forbids && below(5) == 0 ? kInfinity : size * normal(random);
        quadratic.emplace_back(static_cast<std::size_t>(count1 * count2));
        for (double& cost : quadratic.back()) cost = size * normal(random);
        edges1.emplace_back(static_cast<std::size_t>(2 * count1));
        for (std::int64_t& node : edges1.back()) node = below(rows);
        edges2.emplace_back(static_cast<std::size_t>(2 * count2));
        for (std::int64_t& node : edges2.back()) node = below(columns);
        LawlerProblem<double> problem;
        problem.rows = rows;
        problem.columns = columns;
        problem.edge_count1 = count1;
        problem.edge_count2 = count2;
        problem.unary_stride = columns;
        problem.quadratic_stride = count2;
        problem.complete = complete;
        problem.unmatched_cost = unmatched;
        problems.push_back(problem);
      }
    }
    for (std::size_t pair = 0; pair < problems.size(); ++pair) {
      problems[pair].unary = unary[pair].data();
      problems[pair].quadratic = quadratic[pair].data();
      problems[pair].edges1 = edges1[pair].data();
      problems[pair].edges2 = edges2[pair].data();
      double own = 0.0;
      check(is_valid(problems[pair], own), "random multi-graph problems are valid", seed, 0);
      largest = std::max(largest, own);
    }
  }

  // A universe that holds all nodes, or the limited one: random labels of every node.
  Labels random_labels(std::mt19937_64& random) const {
    const std::int64_t total = std::accumulate(shape.nodes.begin(), shape.nodes.end(), std::int64_t{1});
    std::vector<std::int64_t> elements(static_cast<std::size_t>(shape.universe > 0 ? shape.universe : total));
    std::iota(elements.begin(), elements.end(), 0);
    Labels labels(static_cast<std::size_t>(shape.graphs() * shape.label_stride), -1);
    for (std::int64_t graph = 0; graph < shape.graphs(); ++graph) {
      std::shuffle(elements.begin(), elements.end(), random);
      std::copy_n(elements.begin(), shape.nodes[graph], labels.begin() + graph * shape.label_stride);
    }
    return labels;
  }
};

inline double total_cost(const MultigraphCosts& costs, const Labels& labels) {
  double total = 0.0;
  for (std::size_t pair = 0; pair < costs.shape().pairs.size(); ++pair) {
    total += costs.evaluate(static_cast<std::int64_t>(pair), labels);
  }
  return total;
}

// Two sets of labels that differ in how the two sides stand to each other: the aggregated problem says by how much
// their costs differ.
inline void check_aggregation(const MultigraphCase& drawn, const MultigraphCosts& costs, std::mt19937_64& random,
                              std::int64_t seed) {
  const MultigraphShape& shape = costs.shape();
  const Labels labels = drawn.random_labels(random);
  std::vector<Side> sides;
  for (std::int64_t graph = 0; graph < shape.graphs(); ++graph) {
    sides.push_back(random() % 2 == 0 ? Side::kRows : Side::kColumns);
  }
  AggregatedProblem aggregated(costs);
  aggregated.build(labels, sides);
  const LawlerProblem<float>& problem = aggregated.problem();
  check(is_valid(problem), "aggregated problems are valid", seed, 0);
  const std::vector<std::int64_t> before = aggregated.matching();
  std::vector<std::int64_t> after = before;
  std::shuffle(after.begin(), after.end(), random);
  Labels moved = labels;
  aggregated.apply(after, moved);
  const double old_cost = total_cost(costs, labels), new_cost = total_cost(costs, moved);
  const double change = evaluate(problem, after.data()) - evaluate(problem, before.data());
  // Rewards outweigh the costs they are added to, and their digits.
  if (!std::isfinite(old_cost) || !std::isfinite(new_cost) || costs.reward() > 100.0) return;
  const double scale = costs.scale() * (1.0 + 64.0 * static_cast<double>(shape.pairs.size()));
  check(std::fabs(costs.scale() * change - (new_cost - old_cost)) <= 1e-5 * scale,
        "an aggregated problem prices labels as their pairs do", seed, 1);
}

inline void test_multigraphs(std::int64_t first_seed, std::int64_t count) {
  for (std::int64_t seed = first_seed; seed < first_seed + count; ++seed) {
    const MultigraphCase drawn(seed);
    MultigraphCosts costs(drawn.shape);
    std::atomic<int> taken{0};
    Stop stop;
    ThreadPool::instance().run(static_cast<std::int64_t>(drawn.problems.size()), 4, stop, [&](std::int64_t pair) {
      taken += costs.take(pair, drawn.problems[pair], drawn.largest) ? 1 : 0;
    });
    check(taken == static_cast<int>(drawn.problems.size()), "valid problems are taken", seed, 0);
    costs.finish();
    std::mt19937_64 random(static_cast<std::uint64_t>(seed));
    for (int round = 0; round < 5; ++round) check_aggregation(drawn, costs, random, seed);

    MultigraphOptions options;
    options.seed = static_cast<std::uint64_t>(seed);
    options.sweeps = 20;
    std::vector<GraphPair> merges;
    for (std::int64_t graph = 1; graph < drawn.shape.graphs(); ++graph) merges.push_back({graph - 1, graph});
    const Labels start = drawn.random_labels(random);
    const double before = total_cost(costs, start);
    std::vector<Labels> found(4);
    ThreadPool::instance().run(4, 4, stop, [&](std::int64_t task) {
      MultigraphSearch search(costs, options, stop);
      const bool from_labels = task % 2 == 0;
      const bool succeeded = search.run(from_labels ? start.data() : nullptr, merges);
      if (from_labels) check(succeeded == std::isfinite(before), "allowed labels are a start", seed, task);
      if (!succeeded) return;
      found[task] = search.labels();
      const double after = total_cost(costs, search.labels());
      check(std::fabs(after - search.total()) <= 1e-9 * std::fabs(after) || after == search.total(),
            "the search reports what its labels cost", seed, task);
      check(!from_labels || !(after > before), "the search loses nothing", seed, task);
    });
    check(found[0] == found[2] && found[1] == found[3], "searches side by side give the same answer", seed, 0);
  }
}

}  // namespace graphmatch
