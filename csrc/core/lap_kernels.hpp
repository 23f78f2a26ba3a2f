// Row scans of the assignment solver, on whole vectors.
//
// Rows are padded with infinite costs. Only additions, subtractions, comparisons and minima are used, and among equals
// the lowest column wins, so every width of vector gives the same bits.
#pragma once

#include <cstdint>
#include <limits>
#include <type_traits>

#include "core/simd.hpp"

namespace graphmatch {

// As wide as T, so that indices move through the same masks as numbers.
template <class T>
using LapIndex = std::conditional_t<std::is_same_v<T, float>, std::int32_t, std::int64_t>;

// Vectors of as many bytes as the instruction set has in a register: compilers take wider ones apart badly.
template <class T, int kBytes>
struct LapLanes {
  static constexpr std::int64_t kCount = kBytes / sizeof(T);
  typedef T Numbers __attribute__((vector_size(kBytes), aligned(alignof(T)), may_alias));
  typedef LapIndex<T> Indices __attribute__((vector_size(kBytes), aligned(alignof(T)), may_alias));

  static GRAPHMATCH_INLINE void load(const T* costs, Numbers& loaded) {
    loaded = *reinterpret_cast<const Numbers*>(costs);
  }
  template <class S>
  static GRAPHMATCH_INLINE void load(const S* costs, Numbers& loaded) {
    typedef S Narrow __attribute__((vector_size(kBytes / sizeof(T) * sizeof(S)), aligned(alignof(S)), may_alias));
    loaded = __builtin_convertvector(*reinterpret_cast<const Narrow*>(costs), Numbers);
  }
  static GRAPHMATCH_INLINE Numbers& at(T* pointer) { return *reinterpret_cast<Numbers*>(pointer); }
  static GRAPHMATCH_INLINE const Numbers& at(const T* pointer) { return *reinterpret_cast<const Numbers*>(pointer); }
  static GRAPHMATCH_INLINE Indices& at(LapIndex<T>* pointer) { return *reinterpret_cast<Indices*>(pointer); }
};

// Rows are padded to this many columns, a multiple of every width.
template <class T>
inline std::int64_t padded_to_lanes(std::int64_t columns) {
  constexpr std::int64_t kWidest = 64 / sizeof(T);
  return (columns + kWidest - 1) / kWidest * kWidest;
}

// The smallest and the sum of all lanes: halves against each other until one is left.
template <class E, int kWidth>
struct Fold {
  typedef E Whole __attribute__((vector_size(sizeof(E) * kWidth), aligned(alignof(E)), may_alias));
  typedef E Half __attribute__((vector_size(sizeof(E) * kWidth / 2), aligned(alignof(E)), may_alias));
  static GRAPHMATCH_INLINE E minimum(const Whole& value) {
    const Half low = *reinterpret_cast<const Half*>(&value);
    const Half high = *(reinterpret_cast<const Half*>(&value) + 1);
    const Half half = high < low ? high : low;
    return Fold<E, kWidth / 2>::minimum(half);
  }
  // The two smallest of all lanes, where `second` holds what each lane of `lowest` has beside it.
  static GRAPHMATCH_INLINE void two_minima(const Whole& lowest, const Whole& second, E& first, E& next) {
    const Half a = *reinterpret_cast<const Half*>(&lowest), b = *(reinterpret_cast<const Half*>(&lowest) + 1);
    const Half c = *reinterpret_cast<const Half*>(&second), d = *(reinterpret_cast<const Half*>(&second) + 1);
    const Half smaller = b < a ? b : a, larger = b < a ? a : b;
    Half rest = d < c ? d : c;
    rest = larger < rest ? larger : rest;
    Fold<E, kWidth / 2>::two_minima(smaller, rest, first, next);
  }
  static GRAPHMATCH_INLINE E sum(const Whole& value) {
    const Half half = *reinterpret_cast<const Half*>(&value) + *(reinterpret_cast<const Half*>(&value) + 1);
    return Fold<E, kWidth / 2>::sum(half);
  }
};
template <class E>
struct Fold<E, 2> {
  typedef E Whole __attribute__((vector_size(sizeof(E) * 2), aligned(alignof(E)), may_alias));
  static GRAPHMATCH_INLINE E minimum(const Whole& value) { return value[1] < value[0] ? value[1] : value[0]; }
  static GRAPHMATCH_INLINE void two_minima(const Whole& lowest, const Whole& second, E& first, E& next) {
    const E larger = lowest[1] < lowest[0] ? lowest[0] : lowest[1];
    const E rest = second[1] < second[0] ? second[1] : second[0];
    first = minimum(lowest);
    next = larger < rest ? larger : rest;
  }
  static GRAPHMATCH_INLINE E sum(const Whole& value) { return value[0] + value[1]; }
};
// The cheapest two columns of a row at prices v: the lowest reduced costs and the first column that has the lowest.
template <class T>
struct Cheapest {
  T lowest, second;
  std::int64_t column;  // -1 where all are forbidden
};

template <int kBytes, class T, class S>
GRAPHMATCH_INLINE Cheapest<T> cheapest_columns(const S* costs, const T* v, std::int64_t padded_columns) {
  using L = LapLanes<T, kBytes>;
  constexpr T kInfinity = std::numeric_limits<T>::infinity();
  typename L::Numbers lowest = typename L::Numbers{} + kInfinity, second = lowest;
  typename L::Numbers where = lowest, place;  // columns as numbers: all instruction sets know their minimum
  for (std::int64_t k = 0; k < L::kCount; ++k) place[k] = static_cast<T>(k);
  for (std::int64_t j = 0; j < padded_columns; j += L::kCount) {
    typename L::Numbers reduced;
    L::load(costs + j, reduced);
    reduced -= L::at(v + j);
    const auto lower = reduced < lowest;
    const typename L::Numbers larger = lower ? lowest : reduced;
    second = larger < second ? larger : second;
    lowest = lower ? reduced : lowest;
    where = lower ? place : where;
    place += static_cast<T>(L::kCount);
  }
  Cheapest<T> found;
  Fold<T, L::kCount>::two_minima(lowest, second, found.lowest, found.second);
  if (found.lowest == kInfinity) return {kInfinity, kInfinity, -1};
  const typename L::Numbers nowhere = typename L::Numbers{} + kInfinity;
  const typename L::Numbers candidates = lowest == found.lowest ? where : nowhere;
  found.column = static_cast<std::int64_t>(Fold<T, L::kCount>::minimum(candidates));
  return found;
}

template <int kBytes, class T, class S>
GRAPHMATCH_INLINE T row_minimum(const S* costs, const T* v, std::int64_t padded_columns) {
  using L = LapLanes<T, kBytes>;
  typename L::Numbers lowest = typename L::Numbers{} + std::numeric_limits<T>::infinity();
  for (std::int64_t j = 0; j < padded_columns; j += L::kCount) {
    typename L::Numbers reduced;
    L::load(costs + j, reduced);
    reduced -= L::at(v + j);
    lowest = reduced < lowest ? reduced : lowest;
  }
  return Fold<T, L::kCount>::minimum(lowest);
}

// One row of the column reduction: v[j] becomes min(v[j], costs[j] - u) and row_of[j] the first row that has it.
template <int kBytes, class T, class S>
GRAPHMATCH_INLINE void lower_columns(const S* costs, T u, LapIndex<T> row, std::int64_t padded_columns, T* v,
                                     LapIndex<T>* row_of) {
  using L = LapLanes<T, kBytes>;
  const typename L::Indices own = typename L::Indices{} + row;
  for (std::int64_t j = 0; j < padded_columns; j += L::kCount) {
    typename L::Numbers cost;
    L::load(costs + j, cost);
    cost -= u;
    const auto lower = cost < L::at(v + j);
    L::at(v + j) = lower ? cost : L::at(v + j);
    L::at(row_of + j) = lower ? own : L::at(row_of + j);
  }
}

// One row of the search: distance[j] becomes min(distance[j], costs[j] - v[j] + offset) and previous_row[j] the row
// that set it. Columns that are done have v = -infinity and distance = +infinity. Returns the smallest distance.
template <int kBytes, class T, class S>
GRAPHMATCH_INLINE T relax_row(const S* costs, const T* v, T offset, LapIndex<T> row, std::int64_t padded_columns,
                              T* distance, LapIndex<T>* previous_row) {
  using L = LapLanes<T, kBytes>;
  const typename L::Indices own = typename L::Indices{} + row;
  typename L::Numbers lowest = typename L::Numbers{} + std::numeric_limits<T>::infinity();
  for (std::int64_t j = 0; j < padded_columns; j += L::kCount) {
    typename L::Numbers candidate;
    L::load(costs + j, candidate);
    candidate = (candidate - L::at(v + j)) + offset;
    const typename L::Numbers old = L::at(distance + j);
    const auto closer = candidate < old;
    const typename L::Numbers nearer = closer ? candidate : old;
    L::at(distance + j) = nearer;
    L::at(previous_row + j) = closer ? own : L::at(previous_row + j);
    lowest = nearer < lowest ? nearer : lowest;
  }
  return Fold<T, L::kCount>::minimum(lowest);
}

// How many columns have at most this distance, and the sum of their indices: the column itself if it is the only one.
struct Nearest {
  std::int64_t count, column;
};

template <int kBytes, class T>
GRAPHMATCH_INLINE Nearest nearest_columns(const T* distance, T limit, std::int64_t padded_columns) {
  using L = LapLanes<T, kBytes>;
  typename L::Indices count{}, sum{}, place;
  for (std::int64_t k = 0; k < L::kCount; ++k) place[k] = static_cast<LapIndex<T>>(k);
  for (std::int64_t j = 0; j < padded_columns; j += L::kCount) {
    const typename L::Indices near = L::at(distance + j) <= limit;  // 0 or -1
    count -= near;
    sum += near & place;
    place += static_cast<LapIndex<T>>(L::kCount);
  }
  using Sum = Fold<LapIndex<T>, L::kCount>;
  return {Sum::sum(count), Sum::sum(sum)};
}

}  // namespace graphmatch
