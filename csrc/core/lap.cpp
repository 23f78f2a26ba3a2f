#include "core/lap.hpp"

#include "core/simd.hpp"

namespace graphmatch {
namespace {

template <class T>
GRAPHMATCH_INLINE T relax(const T* costs, const T* v, const T* done, T offset, std::int32_t row, std::int64_t columns,
                          T* distance, std::int32_t* previous_row) {
  T lowest = std::numeric_limits<T>::infinity();
  // A minimum does not depend on its order, so the vector code gives the same bits as the scalar one.
#pragma omp simd reduction(min : lowest)
  for (std::int64_t j = 0; j < columns; ++j) {
    const T candidate = offset + (costs[j] - v[j]) + done[j];
    const bool closer = candidate < distance[j];
    const T nearer = closer ? candidate : distance[j];
    previous_row[j] = closer ? row : previous_row[j];
    distance[j] = nearer;
    const T open = nearer + done[j];
    lowest = open < lowest ? open : lowest;
  }
  return lowest;
}

template <class T>
GRAPHMATCH_INLINE Cheapest<T> cheapest_two(const T* costs, const T* v, std::int64_t columns) {
  Cheapest<T> found{std::numeric_limits<T>::infinity(), std::numeric_limits<T>::infinity(), -1};
  T lowest = found.lowest;
#pragma omp simd reduction(min : lowest)
  for (std::int64_t j = 0; j < columns; ++j) {
    const T reduced = costs[j] - v[j];
    lowest = reduced < lowest ? reduced : lowest;
  }
  std::int64_t column = 0;
  while (column < columns && costs[column] - v[column] != lowest) ++column;
  if (column == columns) return found;
  T second = found.second;
#pragma omp simd reduction(min : second)
  for (std::int64_t j = 0; j < columns; ++j) {
    const T reduced = j == column ? std::numeric_limits<T>::infinity() : costs[j] - v[j];
    second = reduced < second ? reduced : second;
  }
  return {lowest, second, column};
}

}  // namespace

GRAPHMATCH_MULTIVERSION Cheapest<float> cheapest_columns(const float* costs, const float* v, std::int64_t columns) {
  return cheapest_two(costs, v, columns);
}

GRAPHMATCH_MULTIVERSION Cheapest<double> cheapest_columns(const double* costs, const double* v, std::int64_t columns) {
  return cheapest_two(costs, v, columns);
}

GRAPHMATCH_MULTIVERSION float relax_row(const float* costs, const float* v, const float* done, float offset,
                                        std::int32_t row, std::int64_t columns, float* distance,
                                        std::int32_t* previous_row) {
  return relax(costs, v, done, offset, row, columns, distance, previous_row);
}

GRAPHMATCH_MULTIVERSION double relax_row(const double* costs, const double* v, const double* done, double offset,
                                         std::int32_t row, std::int64_t columns, double* distance,
                                         std::int32_t* previous_row) {
  return relax(costs, v, done, offset, row, columns, distance, previous_row);
}

}  // namespace graphmatch
