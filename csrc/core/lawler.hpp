// One sparse Lawler problem, as pointers into a batch.
//
//   objective(x) = sum_i unary[i, x_i]  +  sum_{e=(i,j), f=(k,l)} quadratic[e, f] [x_i = k] [x_j = l]
//                + unmatched_cost * (number of nodes i with x_i = -1)
//
// Nodes i, j belong to graph 1 (rows), nodes k, l to graph 2 (columns); edges are directed and may repeat (costs add).
// x is injective on the matched rows. Unary costs may be +infinity: that assignment is forbidden.
#pragma once

#include <cstdint>
#include <vector>

#include "core/host_device.hpp"

namespace graphmatch {

template <class T>
struct LawlerProblem {
  std::int64_t rows = 0;     // nodes of graph 1
  std::int64_t columns = 0;  // nodes of graph 2
  std::int64_t edge_count1 = 0;
  std::int64_t edge_count2 = 0;
  const T* unary = nullptr;  // rows x columns, leading dimension unary_stride
  std::int64_t unary_stride = 0;
  const T* quadratic = nullptr;  // edge_count1 x edge_count2, leading dimension quadratic_stride
  std::int64_t quadratic_stride = 0;
  const std::int64_t* edges1 = nullptr;  // edge_count1 x 2
  const std::int64_t* edges2 = nullptr;  // edge_count2 x 2
  bool complete = true;                  // true: min(rows, columns) nodes must be matched
  double unmatched_cost = 0.0;           // per unmatched row; counted only when not complete

  // Whether some row can stay unmatched at all.
  GRAPHMATCH_HOST_DEVICE bool has_unmatched_label() const { return !complete || rows > columns; }
};

// Edge indices inside the graphs, no NaN, no -infinity, finite quadratic costs.
template <class T>
bool is_valid(const LawlerProblem<T>& problem);

// The same; `largest` becomes the largest finite |cost|, 0 for a problem without costs.
template <class T>
bool is_valid(const LawlerProblem<T>& problem, double& largest);

// The two halves of is_valid(): of the unary costs, and of everything else. `largest` is raised to the largest finite
// |cost| among them.
template <class T>
bool has_valid_unary_costs(const LawlerProblem<T>& problem, double& largest);
template <class T>
bool has_valid_edges(const LawlerProblem<T>& problem, double& largest);

// The right edges of a problem by their first node, so that a left edge looks at the few right edges that can pay.
class RightEdges {
 public:
  void build(const std::int64_t* edges, std::int64_t count, std::int64_t columns);

  // Calls visit(f) for each right edge f = (k, l), in ascending order.
  template <class Visit>
  void for_each(std::int64_t k, std::int64_t l, const Visit& visit) const {
    for (std::int64_t at = begin_[k]; at < begin_[k + 1]; ++at) {
      if (entries_[at].second == l) visit(entries_[at].edge);
    }
  }

 private:
  struct Entry {
    std::int64_t second, edge;
  };
  std::vector<std::int64_t> begin_;  // per first node
  std::vector<Entry> entries_;
};

// Calls visit(e, f) for each pair of edges that `assignment` pays.
template <class T, class Visit>
void for_each_paid_pair(const LawlerProblem<T>& problem, const RightEdges& right_edges, const std::int64_t* assignment,
                        const Visit& visit) {
  for (std::int64_t e = 0; e < problem.edge_count1; ++e) {
    const std::int64_t k = assignment[problem.edges1[2 * e]];
    const std::int64_t l = assignment[problem.edges1[2 * e + 1]];
    if (k >= 0 && l >= 0) right_edges.for_each(k, l, [&](std::int64_t f) { visit(e, f); });
  }
}

// Objective of `assignment` (-1 = unmatched), summed in double in a fixed order.
template <class T>
double evaluate(const LawlerProblem<T>& problem, const std::int64_t* assignment);

// The same, with the right edges at hand.
template <class T>
double evaluate(const LawlerProblem<T>& problem, const RightEdges& right_edges, const std::int64_t* assignment);

}  // namespace graphmatch
