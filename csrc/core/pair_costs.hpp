// The costs of a Lawler problem, folded to one float matrix of sparse costs per unordered pair of rows.
//
// A pair {i < j} joined by at least one edge in either direction owns costs C with
//   C[k, l] = total quadratic cost of "i -> k and j -> l".
// Both directions, both orientations of graph 2 and repeated edges add up here, once. Costs are divided by a power of
// two first, which is exact, so that floats neither overflow nor lose denormals.
//
// Entries that no right edge can pay are zero and not stored. Which ones are stored depends only on the directions of
// the pair's left edges, so that all pairs share three patterns: forward, backward, both.
#pragma once

#include <algorithm>
#include <array>
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

// Where the stored entries (k, l) of a pair lie, by rows k and by columns l, each in ascending order.
struct CostPattern {
  std::vector<std::int32_t> row_begin;     // entries of row k: [row_begin[k], row_begin[k + 1])
  std::vector<std::int32_t> column;        // l of each entry
  std::vector<std::int32_t> column_begin;  // the same by columns, as places in the next two
  std::vector<std::int32_t> row;           // k
  std::vector<std::int32_t> entry;         // its place by rows
  std::vector<std::int32_t> forward;       // entry of each right edge (k, l), -1 for loops
  std::vector<std::int32_t> backward;      // entry of its reverse (l, k)
  bool repeats = false;                    // whether two right edges share an entry
  std::vector<std::int32_t> places;        // entry of each (k, l), -1 = none; empty where that is too large

  std::int64_t size() const { return static_cast<std::int64_t>(column.size()); }

  // Place of (k, l), or -1.
  std::int64_t find(std::int64_t k, std::int64_t l) const {
    if (!places.empty()) return places[k * (static_cast<std::int64_t>(row_begin.size()) - 1) + l];
    constexpr std::int32_t kShort = 16;  // entries that are scanned faster than searched
    const std::int32_t* begin = column.data() + row_begin[k];
    const std::int32_t* end = column.data() + row_begin[k + 1];
    const std::int32_t wanted = static_cast<std::int32_t>(l);
    const std::int32_t* place =
        end - begin <= kShort ? std::find(begin, end, wanted) : std::lower_bound(begin, end, wanted);
    return place == end || *place != wanted ? -1 : place - column.data();
  }
};

class PairCosts {
 public:
  // Returns false when the problem is invalid: see is_valid(). Costs that will follow may be as large as `expected`.
  template <class T>
  bool build(const LawlerProblem<T>& problem, double expected = 0.0);

  // Takes the unary costs of a problem that has all else in common with the one these costs were built from. The scale
  // stays. Returns false when they are invalid.
  template <class T>
  bool replace_unary(const LawlerProblem<T>& problem);

  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::int64_t stride = 0;      // columns, padded to whole lanes
  double scale = 1.0;           // cost = scale * stored cost
  double largest_cost = 0.0;    // largest finite |cost|, in stored units
  double unmatched_cost = 0.0;  // in stored units
  bool complete = true;
  std::vector<RowPair> pairs;
  std::vector<std::int64_t> degree;  // pairs per row

  bool has_unmatched_label() const { return !complete || rows > columns; }

  // Unary costs, rows x stride; self-loop terms included, forbidden assignments and padding = kBarrier.
  const float* unary(std::int64_t row) const { return unary_.data() + row * stride; }
  bool allowed(std::int64_t row, std::int64_t column) const { return unary(row)[column] < kBarrierTest; }

  // 1 = its edges lead from first to second, 2 = back, 3 = both. Pairs of one direction share a pattern.
  int direction(std::int64_t pair) const { return direction_[pair]; }
  const CostPattern& pattern(std::int64_t pair) const { return patterns_[direction_[pair]]; }
  const float* values(std::int64_t pair) const { return values_.data() + value_begin_[pair]; }
  double density() const;  // stored entries per entry of a full matrix

  // Cost of "first -> k and second -> l" of a pair.
  float cost(std::int64_t pair, std::int64_t k, std::int64_t l) const {
    const std::int64_t entry = pattern(pair).find(k, l);
    return entry < 0 ? 0.0f : values(pair)[entry];
  }

  // Cost of a matching (-1 = unmatched) in stored units, summed in double.
  double evaluate(const std::int64_t* assignment) const;

  // At least the largest |exact cost - stored cost|, in stored units: what a rigorous bound has to give up.
  double rounding_error(std::int64_t pair) const { return pair_error_[static_cast<std::size_t>(pair)]; }
  double unary_rounding_error() const { return unary_error_; }

  // Pairs of each row in the order of `pairs`: entries [row_begin(i), row_begin(i + 1)).
  std::int64_t row_begin(std::int64_t row) const { return row_begin_[static_cast<std::size_t>(row)]; }
  std::int64_t incident_pair(std::int64_t entry) const { return incident_[static_cast<std::size_t>(entry)]; }

 private:
  template <class T>
  void sum_loops(const LawlerProblem<T>& problem);
  template <class T>
  void fold_unary(const LawlerProblem<T>& problem);
  template <class T>
  void fold_pairs(const LawlerProblem<T>& problem);
  void list_pairs(const std::int64_t* edges, std::int64_t edge_count);
  void build_pattern(CostPattern& pattern, const std::int64_t* edges, std::int64_t edge_count, bool forward,
                     bool backward);

  AlignedVector<float> unary_;
  std::array<CostPattern, 4> patterns_;    // by directions: 1 = forward, 2 = backward, 3 = both
  std::vector<std::int8_t> direction_;     // per pair
  std::vector<std::int64_t> value_begin_;  // per pair
  AlignedVector<float> values_;
  std::vector<double> pair_error_;
  double unary_error_ = 0.0;
  double largest_pair_cost_ = 0.0;           // of all costs but the unary ones, as they were given
  std::vector<double> loops_, loop_errors_;  // rows x columns: what self-loops add; empty without any
  std::vector<std::int64_t> pair_of_edge_;   // -1 for loops
  std::vector<std::int64_t> row_begin_;
  std::vector<std::int64_t> incident_;
};

}  // namespace graphmatch
