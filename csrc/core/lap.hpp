// Linear assignment by shortest augmenting paths.
//
// Vocabulary: v[j] is the price (dual) of column j, a row's reduced costs are costs[i][j] - v[j], u[i] is the lowest of
// them. A matching whose rows all have one of their cheapest columns is optimal.
//
// 1. Square problems start from column reduction: v[j] is the lowest cost of the column, and its row takes it unless
//    it has one; a row that took one pushes the price down by its margin over its second cheapest. From row duals of
//    an earlier solve, costs[i][j] - u[i] takes the place of the costs here.
// 2. Rows without a column bid: they take their cheapest one from its owner and push its price down by their margin.
// 3. Each of the others searches the cheapest alternating path to a free column with Dijkstra; the path flips the
//    matching and the prices of the scanned columns fall so that matched pairs stay tight.
// O(rows^2 * columns) worst case, and about O(rows * columns) for random costs.
//
// With `unmatched` costs every row also owns a private column of that cost, which the search treats as one more free
// column per scanned row; a matched row then always has u[i] <= unmatched[i].
//
// `resolve` starts from given prices instead of step 1. A column that keeps a price but has lost its row searches for
// one, or gives the price up.
//
// Source: R. Jonker, A. Volgenant, "A shortest augmenting path algorithm for dense and sparse linear assignment
// problems", Computing 38 (1987); D. F. Crouse, "On implementing 2D rectangular assignment algorithms", IEEE TAES 52
// (2016).
#pragma once

#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "core/aligned.hpp"
#include "core/lap_kernels.hpp"

namespace graphmatch {

// What one solve works on: arrays of `padded_columns` where they have one entry per column.
template <class T, class S>
struct LapTables {
  using Index = LapIndex<T>;

  std::int64_t rows, columns, padded_columns;
  const S* costs;  // rows of `stride`, infinite in the padding
  std::int64_t stride;
  const T* unmatched;  // null: every row must be matched
  T* v;
  Index* column_of;  // of each row, -1 = unmatched
  Index* row_of;     // of each column, -1 = free
  T* distance;
  Index* previous_row;
  Index* scanned;  // columns in the order of the search, with what the search overwrites
  T* scanned_distance;
  T* scanned_price;
  Index* waiting;  // rows that still need a column
  Index* next;

  const S* row(std::int64_t i) const { return costs + i * stride; }
};

// Reduced arithmetic of type T on costs stored as S.
template <class T, class S = T>
class Lap {
 public:
  static constexpr T kInfinity = std::numeric_limits<T>::infinity();

  // Results of the last `solve`. Feasible duals: u[i] + v[j] <= cost[i][j], v[j] <= 0 unless all columns are matched.
  std::vector<T> u, v;
  std::vector<std::int64_t> row_to_column;  // -1 = unmatched
  std::vector<std::int64_t> column_to_row;  // -1 = free

  // Minimises over matchings of all rows (each row to a column, or unmatched at its price when `unmatched` is given).
  // cost: rows x columns with leading dimension `stride`, +infinity = forbidden. Needs rows <= columns unless
  // `unmatched` is given. Returns false when no such matching exists. `row_duals` of an earlier solve save time where
  // costs are close to those; only square problems without `unmatched` costs look at them.
  bool solve(std::int64_t rows, std::int64_t columns, const S* cost, std::int64_t stride, const T* unmatched = nullptr,
             const T* row_duals = nullptr);

  // The same from the column duals `v` of the caller, which must be at most 0 where columns may stay free: quick when
  // they are nearly right. Ties may go elsewhere than in `solve`.
  bool resolve(std::int64_t rows, std::int64_t columns, const S* cost, std::int64_t stride,
               const T* unmatched = nullptr);

  // After a solve: lowers each u[i] to the exact minimum of what the row can pay, so that the duals are feasible up to
  // the rounding of one subtraction.
  void tighten();

 private:
  using Index = LapIndex<T>;

  LapTables<T, S> prepare(std::int64_t rows, std::int64_t columns, const S* cost, std::int64_t stride,
                          const T* unmatched);
  void finish(const LapTables<T, S>& tables);
  void fill_column(std::int64_t start);

  LapTables<T, S> tables_{};
  AlignedVector<S> costs_;    // a padded copy, where the caller's rows do not end with whole vectors
  AlignedVector<T> numbers_;  // the arrays of the tables
  AlignedVector<Index> indices_;

  std::vector<T> row_distance_;
  std::vector<std::int64_t> previous_column_;
  std::vector<char> row_done_;
  std::vector<std::pair<std::int64_t, T>> path_columns_;  // columns of the search and their distances
};

}  // namespace graphmatch
