// Construction and local search of consistent matchings between several graphs.
//
// Construction merges clusters of graphs, at first one graph each, until one is left: what the elements of two clusters
// have to do with each other is one quadratic assignment problem, summed over the pairs of graphs between both. Local
// search matches one graph anew with all the others, by descent, or by the solver of single problems once descent has
// come to its end; and it exchanges two elements in some of the graphs. It ends when nothing improves.
//
// Source: S. Kahl et al., "Unlocking the potential of operations research for multi-graph matching", arXiv 2406.18215.
#pragma once

#include <cstdint>
#include <vector>

#include "core/multigraph_costs.hpp"
#include "core/random.hpp"
#include "core/stop.hpp"

namespace graphmatch {

struct MultigraphOptions {
  std::uint64_t seed = 0;
  std::int64_t sweeps = 0;           // of local search at most; 0 = construction only
  double effort = 0.05;              // of the portfolio that solves single problems
  std::int64_t max_iterations = 10;  // of its dual ascent
};

class MultigraphSearch {
 public:
  MultigraphSearch(const MultigraphCosts& costs, const MultigraphOptions& options, Stop& stop);

  // Begins with labels, or where they are null with a construction by `merges`, the next two graphs of each of which
  // name the clusters to be merged, until one is left. The answer stands in labels(), numbered in the order in which
  // they come, and in objectives(). False where no allowed matching was found.
  bool run(const std::int64_t* labels, const std::vector<GraphPair>& merges);

  const Labels& labels() const { return labels_; }
  const std::vector<double>& objectives() const { return objectives_; }  // per pair
  double total() const;

 private:
  bool construct(const std::vector<GraphPair>& merges);
  void improve();
  void descend_all();
  bool resolve_all();
  void take_out(std::int64_t graph);
  bool solve(std::vector<std::int64_t>& matching);
  bool rematch(const std::vector<std::int64_t>& start);
  bool accept(Labels&& candidate);
  bool exchange_elements();
  bool exchange(std::int64_t alpha, std::int64_t beta);
  std::vector<char> cheapest_cut(double& value);
  double change(std::int64_t pair, std::int64_t alpha, std::int64_t beta) const;
  void list_holders();
  void evaluate_all();
  void compact();
  std::vector<std::int64_t> shuffled_graphs();

  const MultigraphCosts& costs_;
  const MultigraphOptions options_;
  Stop& stop_;
  Random random_;
  AggregatedProblem problem_;
  PairCosts folded_;
  Labels labels_;
  std::vector<Side> sides_;  // of the move at hand
  std::vector<double> objectives_;
  std::int64_t element_count_ = 0;
  std::vector<std::int64_t> holders_;  // elements x graphs: node, -1 = none
  std::vector<double> cut_;            // graphs x graphs: what a pair pays more where one of both exchanges elements
};

}  // namespace graphmatch
