#include "core/noise_kernels.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/simd.hpp"

namespace graphmatch {
namespace {

constexpr double kStep = 1.0 / 9007199254740992.0;  // 2^-53

template <class To, class From>
GRAPHMATCH_INLINE To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

// Numbers below 2^52, by operations that every instruction set has for vectors.
GRAPHMATCH_INLINE double small_to_double(std::uint64_t value) {
  return bits_as<double>(value | 0x4330000000000000u) - 4503599627370496.0;
}

GRAPHMATCH_INLINE double to_uniform(std::uint64_t hash) {
  const std::uint64_t bits = hash >> 11;
  const double whole = small_to_double(bits >> 26) * 67108864.0 + small_to_double(bits & 0x3FFFFFFu);
  const double u = (whole + 0.5) * kStep;
  return u < 1.0 - kStep ? u : 1.0 - kStep;
}

// Of positive normal numbers, to 1e-16 relative: x = 2^e m with m in [sqrt(1/2), sqrt(2)), and log m = 2 atanh(s) with
// s = (m - 1) / (m + 1), as a series.
GRAPHMATCH_INLINE double logarithm(double x) {
  constexpr std::uint64_t kOne = 0x3FF0000000000000u, kRootOfHalf = 0x3FE6A09E667F3BCDu;
  constexpr double kLog2High = 0x1.62e42fee00000p-1, kLog2Low = 0x1.a39ef35793c76p-33;
  const std::uint64_t bits = bits_as<std::uint64_t>(x);
  const std::uint64_t exponent = (bits + (kOne - kRootOfHalf)) >> 52;  // + 1023
  const double e = small_to_double(exponent) - 1023.0;
  const double f = bits_as<double>(bits - (exponent << 52) + kOne) - 1.0;
  const double s = f / (2.0 + f);
  const double z = s * s;
  double series = 2.0 / 23.0;
  series = series * z + 2.0 / 21.0;
  series = series * z + 2.0 / 19.0;
  series = series * z + 2.0 / 17.0;
  series = series * z + 2.0 / 15.0;
  series = series * z + 2.0 / 13.0;
  series = series * z + 2.0 / 11.0;
  series = series * z + 2.0 / 9.0;
  series = series * z + 2.0 / 7.0;
  series = series * z + 2.0 / 5.0;
  series = series * z + 2.0 / 3.0;
  // log m = 2 s + s z series, and 2 s = f - s f.
  return e * kLog2High + (f - (s * (f - z * series) - e * kLog2Low));
}

// Ratio of two polynomials of degree 7, coefficients from the highest degree down.
GRAPHMATCH_INLINE double ratio(const double (&above)[8], const double (&below)[8], double x) {
  double numerator = above[0], denominator = below[0];
  for (int k = 1; k < 8; ++k) {
    numerator = numerator * x + above[k];
    denominator = denominator * x + below[k];
  }
  return numerator / denominator;
}

// Inverse of the normal distribution function, to 1e-16 relative. Source: M. J. Wichura, "Algorithm AS 241: the
// percentage points of the normal distribution", Applied Statistics 37 (1988), PPND16.
constexpr double kCentre[] = {2.5090809287301226727e3, 3.3430575583588128105e4, 6.7265770927008700853e4,
                              4.5921953931549871457e4, 1.3731693765509461125e4, 1.9715909503065514427e3,
                              1.3314166789178437745e2, 3.3871328727963666080e0};
constexpr double kBelowCentre[] = {
    5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4, 2.1213794301586595867e4,
    5.3941960214247511077e3, 6.8718700749205790830e2, 4.2313330701600911252e1, 1.0};
constexpr double kFlank[] = {7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1,
                             1.27045825245236838258e0,  3.64784832476320460504e0,  5.76949722146069140550e0,
                             4.63033784615654529590e0,  1.42343711074968357734e0};
constexpr double kBelowFlank[] = {
    1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2, 1.48103976427480074590e-1,
    6.89767334985100004550e-1, 1.67638483018380384940e0,  2.05319162663775882187e0,  1.0};
constexpr double kTail[] = {2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.24266094738807843860e-3,
                            2.65321895265761230930e-2, 2.96560571828504891230e-1, 1.78482653991729133580e0,
                            5.46378491116411436990e0,  6.65790464350110377720e0};
constexpr double kBelowTail[] = {
    2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5, 7.86869131145613259100e-4,
    1.48753612908506148525e-2,  1.36929880922735805310e-1, 5.99832206555887937690e-1, 1.0};
constexpr double kOutermost = 1.4e-11;  // beyond exp(-25) on either side the tail's polynomials hold

// Distance to the nearer end of (0, 1), as the squared argument of the outer polynomials.
GRAPHMATCH_INLINE double minus_log_distance(double u) { return -logarithm(u < 0.5 ? u : 1.0 - u); }

// All but the tails; `root` is the square root of the former.
GRAPHMATCH_INLINE double to_normal(double u, double root) {
  const double centred = u - 0.5;
  const double inner = 0.180625 - centred * centred;
  const double near = centred * ratio(kCentre, kBelowCentre, inner);
  const double size = ratio(kFlank, kBelowFlank, root - 1.6);
  const double far = centred < 0.0 ? -size : size;
  return inner >= 0.0 ? near : far;  // |centred| <= 0.425
}

double tail_to_normal(double u) {
  const double root = std::sqrt(minus_log_distance(u));
  const double size = root <= 5.0 ? ratio(kFlank, kBelowFlank, root - 1.6) : ratio(kTail, kBelowTail, root - 5.0);
  return u < 0.5 ? -size : size;
}

GRAPHMATCH_INLINE bool is_outermost(double u) { return u < kOutermost || u > 1.0 - kOutermost; }

GRAPHMATCH_MULTIVERSION void squared_roots(const double* uniform, std::int64_t count, double* squared) {
#pragma omp simd
  for (std::int64_t k = 0; k < count; ++k) squared[k] = minus_log_distance(uniform[k]);
}

GRAPHMATCH_MULTIVERSION void all_to_normal(const double* roots, std::int64_t count, double* numbers) {
#pragma omp simd
  for (std::int64_t k = 0; k < count; ++k) numbers[k] = to_normal(numbers[k], roots[k]);
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
  for (std::int64_t k = 0; k < count; ++k) numbers[k] = -logarithm(-logarithm(numbers[k]));
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

double uniform_number(std::uint64_t hash) { return to_uniform(hash); }

double normal_number(double u) {
  return is_outermost(u) ? tail_to_normal(u) : to_normal(u, std::sqrt(minus_log_distance(u)));
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
