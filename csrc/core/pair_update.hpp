// The step of the dual ascent on one pair of rows: it takes the pair's share of theta in, and hands the pair's
// min-marginals back. Half of the first node's, all of the second's, then the rest of the first's; all min-marginals of
// the first node are zero afterwards, those of the second not negative.
//
// Pairs only add to `theta_next`, so they are independent of each other within an iteration.
#pragma once

#include <cstdint>
#include <vector>

#include "core/aligned.hpp"
#include "core/pair_costs.hpp"

namespace graphmatch {

// One node of a pair. Vectors have `stride` entries.
struct PairSide {
  float weight;  // share of theta that this pair takes
  const float* theta;
  float unmatched;  // theta of the unmatched label
  float* message;
  float* message_unmatched;
  float* theta_next;  // receives the min-marginals
  float* unmatched_next;
};

// With the costs as a full matrix: O(columns * stride), vectorised. `column_minima`: stride entries to work with.
void update_pair(const float* table, std::int64_t columns, std::int64_t stride, const PairSide& first,
                 const PairSide& second, float* column_minima);

// The labels in ascending order of their messages, found one after the other as they are asked for.
class SmallestLabels {
 public:
  void resize(std::int64_t stride) { remaining_.resize(static_cast<std::size_t>(stride)); }
  void start(const float* message);

  struct Entry {
    float message;
    std::int32_t label;
  };
  const Entry& operator[](std::size_t rank) {
    while (found_.size() <= rank) find_next();
    return found_[rank];
  }

 private:
  void find_next();

  AlignedVector<float> remaining_;
  std::vector<Entry> found_;
};

// With the stored costs only: O(stride + entries). A label pays nothing with all but a few partners, so that its
// min-marginal is the smallest message outside of its entries, or the best of its entries.
class SparsePairUpdate {
 public:
  explicit SparsePairUpdate(const PairCosts& costs);

  void operator()(std::int64_t pair, const PairSide& first, const PairSide& second);

 private:
  // min over partners of label k: its entries [begin, end) with the partners' messages, and all others at no cost.
  float minimum(std::int64_t label, const float* message, float message_unmatched, const std::int32_t* partner,
                const float* values, const std::int32_t* entry, std::int32_t begin, std::int32_t end);

  const PairCosts& costs_;
  SmallestLabels smallest_;
};

}  // namespace graphmatch
