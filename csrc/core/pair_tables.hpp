// The quadratic costs of a Lawler problem, folded to one dense float table per unordered pair of rows.
//
// A pair {i < j} joined by at least one edge in either direction owns a table C with
//   C[k, l] = total quadratic cost of "i -> k and j -> l".
// Both directions, both orientations of graph 2 and repeated edges add up here, once. Costs are divided by a power of
// two first, which is exact, so that float tables neither overflow nor lose denormals.
#pragma once

#include <cstdint>
#include <vector>

#include "core/aligned.hpp"
#include "core/lawler.hpp"
#include "core/simd.hpp"

namespace graphmatch {

struct RowPair {
  std::int64_t first;   // i
  std::int64_t second;  // j > i
};

class PairTables {
 public:
  template <class T>
  void build(const LawlerProblem<T>& problem);

  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::int64_t stride = 0;    // columns, padded to whole lanes
  double scale = 1.0;         // cost = scale * table entry
  double largest_cost = 0.0;  // largest finite |cost|, in table units
  std::vector<RowPair> pairs;
  std::vector<std::int64_t> degree;  // pairs per row

  // Unary costs, rows x stride; self-loop terms included, forbidden assignments and padding = kBarrier.
  const float* unary(std::int64_t row) const { return unary_.data() + row * stride; }
  bool allowed(std::int64_t row, std::int64_t column) const { return unary(row)[column] < kBarrierTest; }

  // Table of pair p, columns x stride; kBarrier on the diagonal, because two rows cannot share a column.
  const float* table(std::int64_t pair) const { return tables_.data() + pair * columns * stride; }

  // At least the largest |exact cost - table entry| of pair p, in table units: what a rigorous bound has to give up.
  double rounding_error(std::int64_t pair) const { return pair_error_[static_cast<std::size_t>(pair)]; }
  double unary_rounding_error() const { return unary_error_; }

  // Pairs of each row in the order of `pairs`: entries [row_begin(i), row_begin(i + 1)).
  std::int64_t row_begin(std::int64_t row) const { return row_begin_[static_cast<std::size_t>(row)]; }
  std::int64_t incident_pair(std::int64_t entry) const { return incident_[static_cast<std::size_t>(entry)]; }

  // Pair index of {i, j}, or -1.
  std::int64_t find(std::int64_t i, std::int64_t j) const { return pair_of_[static_cast<std::size_t>(i * rows + j)]; }

  double unmatched_cost = 0.0;  // in table units

 private:
  template <class T>
  void fold_unary(const LawlerProblem<T>& problem);
  template <class T>
  void fold_pairs(const LawlerProblem<T>& problem);
  void list_pairs(const std::int64_t* edges, std::int64_t edge_count);

  AlignedVector<float> unary_;
  AlignedVector<float> tables_;
  std::vector<double> pair_error_;
  double unary_error_ = 0.0;
  std::vector<std::int64_t> pair_of_;
  std::vector<std::int64_t> row_begin_;
  std::vector<std::int64_t> incident_;
};

}  // namespace graphmatch
