// One sparse Lawler problem, as pointers into a batch.
//
//   objective(x) = sum_i unary[i, x_i]  +  sum_{e=(i,j), f=(k,l)} quadratic[e, f] [x_i = k] [x_j = l]
//                + unmatched_cost * (number of nodes i with x_i = -1)
//
// Nodes i, j belong to graph 1 (rows), nodes k, l to graph 2 (columns); edges are directed and may repeat (costs add).
// x is injective on the matched rows. Unary costs may be +infinity: that assignment is forbidden.
#pragma once

#include <cstdint>

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
  bool has_unmatched_label() const { return !complete || rows > columns; }
};

// Edge indices inside the graphs, no NaN, no -infinity, finite quadratic costs.
template <class T>
bool is_valid(const LawlerProblem<T>& problem);

// The same; `largest` becomes the largest finite |cost|, 0 for a problem without costs.
template <class T>
bool is_valid(const LawlerProblem<T>& problem, double& largest);

// Objective of `assignment` (-1 = unmatched), summed in double in a fixed order.
template <class T>
double evaluate(const LawlerProblem<T>& problem, const std::int64_t* assignment);

}  // namespace graphmatch
