#include "core/noise_kernels.hpp"

#include <algorithm>
#include <cmath>

#include "core/simd.hpp"

namespace graphmatch {
namespace {

using namespace noise_numbers;

GRAPHMATCH_MULTIVERSION void squared_roots(const double* uniform, std::int64_t count, double* squared) {
#pragma omp simd
  for (std::int64_t k = 0; k < count; ++k) squared[k] = minus_log_distance(uniform[k]);
}

GRAPHMATCH_MULTIVERSION void all_to_normal(const double* roots, std::int64_t count, double* numbers) {
#pragma omp simd
  for (std::int64_t k = 0; k < count; ++k) numbers[k] = inner_to_normal(numbers[k], roots[k]);
}

constexpr std::int64_t kLanesOfSum = 8;

// Sums in a fixed number of lanes: the order of additions does not depend on the width of registers.
GRAPHMATCH_INLINE double dot(const double* a, const double* b, std::int64_t size) {
  double lanes[kLanesOfSum] = {};
  std::int64_t k = 0;
  for (; k + kLanesOfSum <= size; k += kLanesOfSum) {
#pragma omp simd
    for (std::int64_t lane = 0; lane < kLanesOfSum; ++lane) lanes[lane] += a[k + lane] * b[k + lane];
  }
  for (; k < size; ++k) lanes[0] += a[k] * b[k];
  return ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) + ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]));
}

GRAPHMATCH_MULTIVERSION double squared_length(const double* vector, std::int64_t size) {
  return dot(vector, vector, size);
}

GRAPHMATCH_MULTIVERSION void remove_components(double* vector, const double* others, std::int64_t count,
                                               std::int64_t size) {
  for (std::int64_t other = 0; other < count; ++other) {
    const double* unit = others + other * size;
    const double part = dot(vector, unit, size);
#pragma omp simd
    for (std::int64_t k = 0; k < size; ++k) vector[k] -= part * unit[k];
  }
}

}  // namespace

GRAPHMATCH_MULTIVERSION void hash_range(std::uint64_t first, std::int64_t count, std::uint64_t* hashes) {
#pragma omp simd
  for (std::int64_t k = 0; k < count; ++k) hashes[k] = hash(first + static_cast<std::uint64_t>(k));
}

GRAPHMATCH_MULTIVERSION void uniform_numbers(const std::uint64_t* hashes, std::int64_t count, double* numbers) {
#pragma omp simd
  for (std::int64_t k = 0; k < count; ++k) numbers[k] = to_uniform(hashes[k]);
}

GRAPHMATCH_MULTIVERSION void gumbel_numbers(double* numbers, std::int64_t count) {
#pragma omp simd
  for (std::int64_t k = 0; k < count; ++k) numbers[k] = to_gumbel(numbers[k]);
}

void normal_numbers(double* numbers, std::int64_t count) {
  constexpr std::int64_t kBlock = 256;
  double roots[kBlock], outermost[kBlock];
  for (std::int64_t first = 0; first < count; first += kBlock) {
    const std::int64_t length = std::min(kBlock, count - first);
    double* block = numbers + first;
    const bool has_outermost = std::any_of(block, block + length, is_outermost);
    if (has_outermost) std::copy_n(block, length, outermost);
    squared_roots(block, length, roots);
    for (std::int64_t k = 0; k < length; ++k) roots[k] = std::sqrt(roots[k]);  // may set errno: a loop of its own
    all_to_normal(roots, length, block);
    for (std::int64_t k = 0; k < length && has_outermost; ++k) {
      if (is_outermost(outermost[k])) block[k] = tail_to_normal(outermost[k]);
    }
  }
}

bool orthogonalise(double* vector, const double* others, std::int64_t count, std::int64_t size, double* direction) {
  constexpr double kNothing = 1e-10;
  const double length = std::sqrt(squared_length(vector, size));
  std::copy_n(vector, size, direction);
  // Once more, for what rounding left.
  remove_components(direction, others, count, size);
  remove_components(direction, others, count, size);
  const double left = std::sqrt(squared_length(direction, size));
  if (!(left > kNothing * length)) return false;
  for (std::int64_t k = 0; k < size; ++k) {
    direction[k] /= left;
    vector[k] = direction[k] * length;
  }
  return true;
}

}  // namespace graphmatch
