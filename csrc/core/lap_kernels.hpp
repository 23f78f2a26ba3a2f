// Row scans of the assignment solver, eight doubles or sixteen floats at a time.
//
// Rows are padded to whole vectors with infinite costs. Only subtractions, additions, comparisons and minima are used,
// and among equals the lowest column wins, so every instruction set gives the same bits.
#pragma once

#include <cstdint>
#include <limits>
#include <type_traits>

#include "core/simd.hpp"

namespace graphmatch {

template <class T>
struct LapLanes {
  // As wide as T, so that indices move through the same masks as numbers.
  using Index = std::conditional_t<std::is_same_v<T, float>, std::int32_t, std::int64_t>;
  static constexpr std::int64_t kCount = 64 / sizeof(T);
  typedef T Numbers __attribute__((vector_size(64), aligned(alignof(T)), may_alias));
  typedef Index Indices __attribute__((vector_size(64), aligned(alignof(Index)), may_alias));
};

template <class T>
inline std::int64_t padded_to_lanes(std::int64_t columns) {
  return (columns + LapLanes<T>::kCount - 1) / LapLanes<T>::kCount * LapLanes<T>::kCount;
}

typedef float EightFloats __attribute__((vector_size(32), aligned(alignof(float)), may_alias));
using FloatLanes = LapLanes<float>::Numbers;
using DoubleLanes = LapLanes<double>::Numbers;

GRAPHMATCH_INLINE void load_costs(const float* costs, FloatLanes& loaded) {
  loaded = *reinterpret_cast<const FloatLanes*>(costs);
}
GRAPHMATCH_INLINE void load_costs(const double* costs, DoubleLanes& loaded) {
  loaded = *reinterpret_cast<const DoubleLanes*>(costs);
}
GRAPHMATCH_INLINE void load_costs(const float* costs, DoubleLanes& loaded) {
  loaded = __builtin_convertvector(*reinterpret_cast<const EightFloats*>(costs), DoubleLanes);
}

template <class T>
GRAPHMATCH_INLINE typename LapLanes<T>::Numbers& numbers(T* pointer) {
  return *reinterpret_cast<typename LapLanes<T>::Numbers*>(pointer);
}
template <class T>
GRAPHMATCH_INLINE const typename LapLanes<T>::Numbers& numbers(const T* pointer) {
  return *reinterpret_cast<const typename LapLanes<T>::Numbers*>(pointer);
}
template <class I>
GRAPHMATCH_INLINE auto& indices(I* pointer) {
  using T = std::conditional_t<sizeof(I) == 4, float, double>;
  return *reinterpret_cast<typename LapLanes<T>::Indices*>(pointer);
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
  static GRAPHMATCH_INLINE E sum(const Whole& value) {
    const Half half = *reinterpret_cast<const Half*>(&value) + *(reinterpret_cast<const Half*>(&value) + 1);
    return Fold<E, kWidth / 2>::sum(half);
  }
};
template <class E>
struct Fold<E, 2> {
  typedef E Whole __attribute__((vector_size(sizeof(E) * 2), aligned(alignof(E)), may_alias));
  static GRAPHMATCH_INLINE E minimum(const Whole& value) { return value[1] < value[0] ? value[1] : value[0]; }
  static GRAPHMATCH_INLINE E sum(const Whole& value) { return value[0] + value[1]; }
};
template <class T>
GRAPHMATCH_INLINE T lowest_number(const typename LapLanes<T>::Numbers& value) {
  return Fold<T, LapLanes<T>::kCount>::minimum(value);
}
template <class T>
GRAPHMATCH_INLINE typename LapLanes<T>::Index lowest_index(const typename LapLanes<T>::Indices& value) {
  return Fold<typename LapLanes<T>::Index, LapLanes<T>::kCount>::minimum(value);
}

template <class T>
GRAPHMATCH_INLINE void count_up(typename LapLanes<T>::Indices& lanes) {
  for (std::int64_t k = 0; k < LapLanes<T>::kCount; ++k) lanes[k] = static_cast<typename LapLanes<T>::Index>(k);
}

// The cheapest two columns of a row at prices v: the lowest reduced costs and the first column that has the lowest.
template <class T>
struct Cheapest {
  T lowest, second;
  std::int64_t column;  // -1 where all are forbidden
};

template <class T, class S>
GRAPHMATCH_INLINE Cheapest<T> cheapest_columns(const S* costs, const T* v, std::int64_t padded_columns) {
  using L = LapLanes<T>;
  constexpr T kInfinity = std::numeric_limits<T>::infinity();
  typename L::Numbers lowest = typename L::Numbers{} + kInfinity, second = lowest;
  typename L::Indices where = typename L::Indices{} - 1, place;
  count_up<T>(place);
  for (std::int64_t j = 0; j < padded_columns; j += L::kCount) {
    typename L::Numbers reduced;
    load_costs(costs + j, reduced);
    reduced -= numbers(v + j);
    const auto lower = reduced < lowest;
    const typename L::Numbers larger = lower ? lowest : reduced;
    second = larger < second ? larger : second;
    lowest = lower ? reduced : lowest;
    where = lower ? place : where;
    place += static_cast<typename L::Index>(L::kCount);
  }
  Cheapest<T> found;
  found.lowest = lowest_number<T>(lowest);
  if (found.lowest == kInfinity) return {kInfinity, kInfinity, -1};
  constexpr auto kLast = std::numeric_limits<typename L::Index>::max();
  const typename L::Indices nobody = typename L::Indices{} + kLast;
  const typename L::Indices candidates = lowest == found.lowest ? where : nobody;
  const typename L::Index column = lowest_index<T>(candidates);
  // The winner's lane has its second best to offer, the others their best.
  const typename L::Numbers rest = where == column ? second : lowest;
  found.second = lowest_number<T>(rest);
  found.column = column;
  return found;
}

template <class T, class S>
GRAPHMATCH_INLINE T row_minimum(const S* costs, const T* v, std::int64_t padded_columns) {
  using L = LapLanes<T>;
  typename L::Numbers lowest = typename L::Numbers{} + std::numeric_limits<T>::infinity();
  for (std::int64_t j = 0; j < padded_columns; j += L::kCount) {
    typename L::Numbers reduced;
    load_costs(costs + j, reduced);
    reduced -= numbers(v + j);
    lowest = reduced < lowest ? reduced : lowest;
  }
  return lowest_number<T>(lowest);
}

// One row of the column reduction: v[j] becomes min(v[j], costs[j] - u) and row_of[j] the first row that has it.
template <class T, class S>
GRAPHMATCH_INLINE void lower_columns(const S* costs, T u, typename LapLanes<T>::Index row, std::int64_t padded_columns,
                                     T* v, typename LapLanes<T>::Index* row_of) {
  using L = LapLanes<T>;
  const typename L::Indices own = typename L::Indices{} + row;
  for (std::int64_t j = 0; j < padded_columns; j += L::kCount) {
    typename L::Numbers cost;
    load_costs(costs + j, cost);
    cost -= u;
    const auto lower = cost < numbers(v + j);
    numbers(v + j) = lower ? cost : numbers(v + j);
    indices(row_of + j) = lower ? own : indices(row_of + j);
  }
}

// One row of the search: distance[j] becomes min(distance[j], costs[j] - v[j] + offset) and previous_row[j] the row
// that set it. Columns that are done have v = -infinity and distance = +infinity. Returns the smallest distance.
template <class T, class S>
GRAPHMATCH_INLINE T relax_row(const S* costs, const T* v, T offset, typename LapLanes<T>::Index row,
                              std::int64_t padded_columns, T* distance, typename LapLanes<T>::Index* previous_row) {
  using L = LapLanes<T>;
  const typename L::Indices own = typename L::Indices{} + row;
  typename L::Numbers lowest = typename L::Numbers{} + std::numeric_limits<T>::infinity();
  for (std::int64_t j = 0; j < padded_columns; j += L::kCount) {
    typename L::Numbers candidate;
    load_costs(costs + j, candidate);
    candidate = (candidate - numbers(v + j)) + offset;
    const typename L::Numbers old = numbers(distance + j);
    const auto closer = candidate < old;
    const typename L::Numbers nearer = closer ? candidate : old;
    numbers(distance + j) = nearer;
    indices(previous_row + j) = closer ? own : indices(previous_row + j);
    lowest = nearer < lowest ? nearer : lowest;
  }
  return lowest_number<T>(lowest);
}

// How many columns have at most this distance, and the sum of their indices: the column itself if it is the only one.
template <class T>
struct Nearest {
  std::int64_t count, column;
};

template <class T>
GRAPHMATCH_INLINE Nearest<T> nearest_columns(const T* distance, T limit, std::int64_t padded_columns) {
  using L = LapLanes<T>;
  typename L::Indices count{}, sum{}, place;
  count_up<T>(place);
  for (std::int64_t j = 0; j < padded_columns; j += L::kCount) {
    const typename L::Indices near = numbers(distance + j) <= limit;  // 0 or -1
    count -= near;
    sum += near & place;
    place += static_cast<typename L::Index>(L::kCount);
  }
  using Sum = Fold<typename L::Index, L::kCount>;
  return {Sum::sum(count), Sum::sum(sum)};
}

}  // namespace graphmatch
