// The costs of matching several graphs at once, and those of one graph against what the others have agreed on.
//
// Vocabulary: each node carries a label, an element of a universe; within a graph labels are distinct, and nodes of two
// graphs are matched where their labels are equal, so that matchings are consistent in cycles. A graph is placed once
// its nodes have labels. Total cost = sum over the given pairs of graphs of their Lawler objective.
//
// With all other labels fixed, the labels of graph a are again a Lawler problem: its rows are the nodes of a, its
// columns the elements that the other placed graphs use, and what (i -> element) costs is the sum over the members of
// the element (Swoboda et al., CVPR 2019; Kahl et al., arXiv 2406.18215).
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <vector>

#include "core/lawler.hpp"
#include "core/pair_costs.hpp"

namespace graphmatch {

struct GraphPair {
  std::int64_t first, second;  // graphs whose nodes are rows and columns of the pair's problem
};

struct MultigraphShape {
  std::vector<std::int64_t> nodes;  // per graph
  std::vector<GraphPair> pairs;
  std::int64_t universe = 0;  // most elements; 0 = no limit
  std::int64_t label_stride = 0;

  std::int64_t graphs() const { return static_cast<std::int64_t>(nodes.size()); }
};

// Labels of all nodes, graph by graph in rows of label_stride; -1 = none (yet).
using Labels = std::vector<std::int64_t>;

class MultigraphCosts {
 public:
  explicit MultigraphCosts(MultigraphShape shape);

  // Takes the problem of a pair, whose arrays must stay as they are; different pairs may be taken at the same time.
  // `largest` is the largest |cost| of all pairs. False when the problem is invalid.
  template <class T>
  bool take(std::int64_t pair, const LawlerProblem<T>& problem, double largest);

  // To be called once all pairs are taken.
  void finish();

  const MultigraphShape& shape() const { return shape_; }
  bool limited() const { return shape_.universe > 0; }

  // Exact objective of a pair under labels, in the units of the costs; +infinity where it is not allowed.
  double evaluate(std::int64_t pair, const Labels& labels) const;

  const PairCosts& costs(std::int64_t pair) const { return costs_[static_cast<std::size_t>(pair)]; }
  double scale() const { return scale_; }

  // What each match gains on top of its unary cost, in stored units, since the constant cost of unmatched nodes is left
  // out of the search; where graphs of unequal size must be matched completely it outweighs everything else.
  double reward() const { return reward_; }

  // Nodes i < j of a graph that an edge joins in any of its problems, two per edge.
  const std::vector<std::int64_t>& edges(std::int64_t graph) const { return edges_[graph]; }

 private:
  MultigraphShape shape_;
  std::vector<PairCosts> costs_;
  std::vector<std::function<double(const std::int64_t*)>> exact_;
  std::vector<std::vector<std::int64_t>> edges_;
  double scale_ = 1.0;
  double reward_ = 0.0;
  bool complete_ = false;
};

// Where a graph stands in an aggregated problem.
enum class Side : char { kAway, kRows, kColumns };

// The elements of some graphs against those of others, as a problem of its own: which of them should be the same?
class AggregatedProblem {
 public:
  explicit AggregatedProblem(const MultigraphCosts& costs) : costs_(costs) {}

  // Rows are the elements in use by the graphs of one side, columns those in use by the graphs of the other, and where
  // the universe is limited all that it has. Graphs on either side have labels.
  void build(const Labels& labels, const std::vector<Side>& sides);

  const LawlerProblem<float>& problem() const { return problem_; }  // in stored units

  // What the labels say, as a matching; and labels of the graphs on the side of the rows that say what a matching does.
  // Rows without a column become elements of their own.
  std::vector<std::int64_t> matching() const;
  void apply(const std::vector<std::int64_t>& matching, Labels& labels) const;

 private:
  // The elements of one side: places of elements, and elements of places.
  struct Elements {
    std::vector<std::int64_t> place, element;  // place -1 = not in use
    std::int64_t count() const { return static_cast<std::int64_t>(element.size()); }
  };
  // Ordered pairs of elements that edges join: first and second place of each, and its own place by both.
  struct Joined {
    std::vector<std::int64_t> ends;
    std::vector<std::int32_t> place;
    std::int64_t count() const { return static_cast<std::int64_t>(ends.size() / 2); }
  };

  void list_elements(Side side, Elements& elements) const;
  void list_joined(Side side, const Elements& elements, bool both_directions, Joined& joined) const;
  void locate(std::int64_t graph, const Elements& elements, std::vector<std::int64_t>& places) const;
  void add_unary(const PairCosts& costs, bool rows_are_first);
  void add_pairs(const PairCosts& costs, bool rows_are_first);

  const MultigraphCosts& costs_;
  const Labels* labels_ = nullptr;
  const std::vector<Side>* sides_ = nullptr;
  std::int64_t limit_ = 0;  // elements are below this
  Elements rows_, columns_;
  Joined row_pairs_, column_pairs_;
  std::vector<std::int64_t> first_, second_;                  // places of the nodes of the graphs of a pair
  std::array<std::vector<std::int64_t>, 4> along_, against_;  // where the entries of its patterns belong
  std::vector<float> unary_, quadratic_;
  LawlerProblem<float> problem_;
};

}  // namespace graphmatch
