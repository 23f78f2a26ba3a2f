#include "core/pair_update.hpp"

#include <algorithm>
#include <limits>

namespace graphmatch {
namespace {

GRAPHMATCH_INLINE void push(float value, float& message, float& theta) {
  message -= value;
  theta += value;
}

template <class V>
GRAPHMATCH_INLINE void spread(const PairSide& side, std::int64_t width) {
  for (std::int64_t l = 0; l < width; l += kWidth<V>)
    lanes<V>(side.message + l) += lanes<V>(side.theta + l) * side.weight;
  *side.message_unmatched += side.unmatched * side.weight;
}

template <class V>
GRAPHMATCH_INLINE float smallest(const float* values, std::int64_t width) {
  V best = lanes<V>(values);
  for (std::int64_t l = kWidth<V>; l < width; l += kWidth<V>) take_minimum(best, lanes<V>(values + l));
  return horizontal_minimum(best);
}

// The unmatched label costs nothing in the table.
template <class V>
GRAPHMATCH_INLINE void push_unmatched(const PairSide& side, const PairSide& partner, std::int64_t width, float share) {
  const float best = std::min(smallest<V>(partner.message, width), *partner.message_unmatched);
  push(share * finite_or_zero(*side.message_unmatched + best), *side.message_unmatched, *side.unmatched_next);
}

// Hands back `share` of the min-marginals of the first node's labels k ... k + 3.
template <class V>
GRAPHMATCH_INLINE void push_four(const float* row, std::int64_t width, std::int64_t stride, const PairSide& first,
                                 const PairSide& second, std::int64_t k, float share) {
  V a = lanes<V>(row) + lanes<V>(second.message);
  V b = lanes<V>(row + stride) + lanes<V>(second.message);
  V c = lanes<V>(row + 2 * stride) + lanes<V>(second.message);
  V d = lanes<V>(row + 3 * stride) + lanes<V>(second.message);
  for (std::int64_t l = kWidth<V>; l < width; l += kWidth<V>) {
    const V message = lanes<V>(second.message + l);
    take_minimum(a, lanes<V>(row + l) + message);
    take_minimum(b, lanes<V>(row + stride + l) + message);
    take_minimum(c, lanes<V>(row + 2 * stride + l) + message);
    take_minimum(d, lanes<V>(row + 3 * stride + l) + message);
  }
  Quad best;
  four_minima(a, b, c, d, best);
  const Quad unmatched = Quad{} + *second.message_unmatched;
  best = unmatched < best ? unmatched : best;
  const Quad marginal = quad(first.message + k) + best;
  const Quad pushed = share * (marginal < kBarrierTest ? marginal : Quad{});
  quad(first.message + k) -= pushed;
  quad(first.theta_next + k) += pushed;
}

// The labels of both nodes fill `width` floats; rows of the table are `stride` apart.
template <class V>
GRAPHMATCH_INLINE void update_dense(const float* table, std::int64_t columns, std::int64_t width, std::int64_t stride,
                                    const PairSide& first, const PairSide& second, float* column_minima) {
  spread<V>(first, width);
  spread<V>(second, width);

  push_unmatched<V>(first, second, width, 0.5f);
  for (std::int64_t l = 0; l < width; l += kWidth<V>) lanes<V>(column_minima + l) = V{} + *first.message_unmatched;
  for (std::int64_t k = 0; k < columns; k += 4) {
    const float* row = table + k * stride;
    push_four<V>(row, width, stride, first, second, k, 0.5f);
    const float* message = first.message + k;
    for (std::int64_t l = 0; l < width; l += kWidth<V>) {
      V best = lanes<V>(row + l) + message[0];
      take_minimum(best, lanes<V>(row + stride + l) + message[1]);
      take_minimum(best, lanes<V>(row + 2 * stride + l) + message[2]);
      take_minimum(best, lanes<V>(row + 3 * stride + l) + message[3]);
      take_minimum(lanes<V>(column_minima + l), best);
    }
  }

  push_unmatched<V>(second, first, width, 1.0f);
  for (std::int64_t l = 0; l < width; l += kWidth<V>) {
    const V marginal = lanes<V>(second.message + l) + lanes<V>(column_minima + l);
    const V all = marginal < kBarrierTest ? marginal : V{};
    lanes<V>(second.message + l) -= all;
    lanes<V>(second.theta_next + l) += all;
  }

  push_unmatched<V>(first, second, width, 1.0f);
  for (std::int64_t k = 0; k < columns; k += 4) push_four<V>(table + k * stride, width, stride, first, second, k, 1.0f);
}

// A known number of vectors per row for most sizes.
template <int kBytes>
GRAPHMATCH_INLINE void update_any_size(const float* table, std::int64_t columns, std::int64_t stride,
                                       const PairSide& first, const PairSide& second, float* column_minima) {
  using V = Vector<float, kBytes>;
  constexpr std::int64_t kHalf = kLanes / 2;
  if (columns <= kHalf) {
    constexpr int kShort = std::min<int>(kBytes, kHalf * sizeof(float));
    update_dense<Vector<float, kShort>>(table, columns, kHalf, kLanes, first, second, column_minima);
  } else if (stride == kLanes) {
    update_dense<V>(table, columns, kLanes, kLanes, first, second, column_minima);
  } else if (stride == 2 * kLanes) {
    update_dense<V>(table, columns, 2 * kLanes, 2 * kLanes, first, second, column_minima);
  } else {
    update_dense<V>(table, columns, stride, stride, first, second, column_minima);
  }
}

#define GRAPHMATCH_PAIR_VERSION(kTarget, kBytes)                                                                       \
  kTarget void spread_side(const PairSide& side, std::int64_t stride) { spread<Vector<float, kBytes>>(side, stride); } \
  kTarget float smallest_of(const float* values, std::int64_t stride) {                                                \
    return smallest<Vector<float, kBytes>>(values, stride);                                                            \
  }                                                                                                                    \
  kTarget void update_table(const float* table, std::int64_t columns, std::int64_t stride, const PairSide& first,      \
                            const PairSide& second, float* column_minima) {                                            \
    update_any_size<kBytes>(table, columns, stride, first, second, column_minima);                                     \
  }

GRAPHMATCH_FOR_EACH_WIDTH(GRAPHMATCH_PAIR_VERSION)

void push_unmatched_label(const PairSide& side, const PairSide& partner, std::int64_t stride, float share) {
  const float best = std::min(smallest_of(partner.message, stride), *partner.message_unmatched);
  push(share * finite_or_zero(*side.message_unmatched + best), *side.message_unmatched, *side.unmatched_next);
}

}  // namespace

void update_pair(const float* table, std::int64_t columns, std::int64_t stride, const PairSide& first,
                 const PairSide& second, float* column_minima) {
  update_table(table, columns, stride, first, second, column_minima);
}

void SmallestLabels::start(const float* message) {
  std::copy_n(message, remaining_.size(), remaining_.begin());
  found_.clear();
}

void SmallestLabels::find_next() {
  const float smallest = smallest_of(remaining_.data(), static_cast<std::int64_t>(remaining_.size()));
  const auto place = std::find(remaining_.begin(), remaining_.end(), smallest);
  found_.push_back({smallest, static_cast<std::int32_t>(place - remaining_.begin())});
  *place = std::numeric_limits<float>::infinity();
}

SparsePairUpdate::SparsePairUpdate(const PairCosts& costs) : costs_(costs) { smallest_.resize(costs.stride); }

float SparsePairUpdate::minimum(std::int64_t label, const float* message, float message_unmatched,
                                const std::int32_t* partner, const float* values, const std::int32_t* entry,
                                std::int32_t begin, std::int32_t end) {
  const SmallestLabels::Entry first = smallest_[0];
  bool is_taken = first.label == label;  // two rows cannot share a column
  float best = message_unmatched;
  for (std::int32_t e = begin; e < end; ++e) {
    const std::int32_t l = partner[e];
    is_taken |= l == first.label;
    best = std::min(best, values[entry == nullptr ? e : entry[e]] + message[l]);
  }
  if (!is_taken) return std::min(best, first.message);
  for (std::size_t rank = 1;; ++rank) {
    const SmallestLabels::Entry next = smallest_[rank];
    if (next.message >= best) return best;
    if (next.label != label && !std::binary_search(partner + begin, partner + end, next.label)) return next.message;
  }
}

void SparsePairUpdate::operator()(std::int64_t pair, const PairSide& first, const PairSide& second) {
  const CostPattern& pattern = costs_.pattern(pair);
  const float* values = costs_.values(pair);
  const std::int64_t columns = costs_.columns;
  const std::int64_t stride = costs_.stride;
  spread_side(first, stride);
  spread_side(second, stride);

  auto push_first = [&](float share) {
    push_unmatched_label(first, second, stride, share);
    smallest_.start(second.message);
    for (std::int64_t k = 0; k < columns; ++k) {
      const float best = minimum(k, second.message, *second.message_unmatched, pattern.column.data(), values, nullptr,
                                 pattern.row_begin[k], pattern.row_begin[k + 1]);
      push(share * finite_or_zero(first.message[k] + best), first.message[k], first.theta_next[k]);
    }
  };
  push_first(0.5f);
  push_unmatched_label(second, first, stride, 1.0f);
  smallest_.start(first.message);
  for (std::int64_t l = 0; l < columns; ++l) {
    const float best = minimum(l, first.message, *first.message_unmatched, pattern.row.data(), values,
                               pattern.entry.data(), pattern.column_begin[l], pattern.column_begin[l + 1]);
    push(finite_or_zero(second.message[l] + best), second.message[l], second.theta_next[l]);
  }
  push_first(1.0f);
}

}  // namespace graphmatch
