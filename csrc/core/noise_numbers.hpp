// One number of the noise, as a function of its counters alone: what all forms of it are made of, on CPU and GPU.
//
// Products are rounded before they are added, also where the compiler would fuse the two: uniform, Gumbel and normal
// numbers have the same bits on every device. Gamma numbers need the mathematical library's logarithms, whose last bit
// of double may differ.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "core/host_device.hpp"

// Inlined into loops that are compiled for each instruction set.
#define GRAPHMATCH_NUMBER GRAPHMATCH_HOST_DEVICE inline __attribute__((always_inline))

namespace graphmatch {

// One round of SplitMix64: a permutation of the 64-bit numbers.
GRAPHMATCH_HOST_DEVICE inline std::uint64_t hash(std::uint64_t value) {
  value += 0x9E3779B97F4A7C15u;
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9u;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EBu;
  return value ^ (value >> 31);
}

namespace noise_numbers {

inline constexpr double kStep = 1.0 / 9007199254740992.0;  // 2^-53
inline constexpr double kSmallest = 0.5 * kStep;           // of the uniform numbers
inline constexpr double kLargest = 1.0 - kStep;
inline constexpr double kOutermost = 1.4e-11;  // beyond exp(-25) on either side the tail's polynomials hold

template <class To, class From>
GRAPHMATCH_NUMBER To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

// A product that is never fused with an addition; the host is compiled with -ffp-contract=off.
GRAPHMATCH_NUMBER double product(double a, double b) {
#if defined(__CUDA_ARCH__)
  return __dmul_rn(a, b);
#else
  return a * b;
#endif
}

// Numbers below 2^52, by operations that every instruction set has for vectors.
GRAPHMATCH_NUMBER double small_to_double(std::uint64_t value) {
  return bits_as<double>(value | 0x4330000000000000u) - 4503599627370496.0;
}

// From the upper 53 bits, centred between two representable numbers: never 0 or 1.
GRAPHMATCH_NUMBER double to_uniform(std::uint64_t hash) {
  const std::uint64_t bits = hash >> 11;
  const double whole = product(small_to_double(bits >> 26), 67108864.0) + small_to_double(bits & 0x3FFFFFFu);
  const double u = product(whole + 0.5, kStep);
  return u < kLargest ? u : kLargest;
}

// Polynomials by Horner's rule, coefficients from the highest degree down.
GRAPHMATCH_NUMBER double polynomial(double, double value) { return value; }
template <class... Others>
GRAPHMATCH_NUMBER double polynomial(double x, double value, double next, Others... others) {
  return polynomial(x, product(value, x) + next, others...);
}

// Of positive normal numbers, to 1e-16 relative: x = 2^e m with m in [sqrt(1/2), sqrt(2)), and log m = 2 atanh(s) with
// s = (m - 1) / (m + 1), as a series.
GRAPHMATCH_NUMBER double logarithm(double x) {
  constexpr std::uint64_t kOne = 0x3FF0000000000000u, kRootOfHalf = 0x3FE6A09E667F3BCDu;
  constexpr double kLog2High = 0x1.62e42fee00000p-1, kLog2Low = 0x1.a39ef35793c76p-33;
  const std::uint64_t bits = bits_as<std::uint64_t>(x);
  const std::uint64_t exponent = (bits + (kOne - kRootOfHalf)) >> 52;  // + 1023
  const double e = small_to_double(exponent) - 1023.0;
  const double f = bits_as<double>(bits - (exponent << 52) + kOne) - 1.0;
  const double s = f / (2.0 + f);
  const double z = product(s, s);
  const double series = polynomial(z, 2.0 / 23.0, 2.0 / 21.0, 2.0 / 19.0, 2.0 / 17.0, 2.0 / 15.0, 2.0 / 13.0,
                                   2.0 / 11.0, 2.0 / 9.0, 2.0 / 7.0, 2.0 / 5.0, 2.0 / 3.0);
  // log m = 2 s + s z series, and 2 s = f - s f.
  const double correction = product(s, f - product(z, series)) - product(e, kLog2Low);
  return product(e, kLog2High) + (f - correction);
}

GRAPHMATCH_NUMBER double to_gumbel(double u) { return -logarithm(-logarithm(u)); }

// Inverse of the normal distribution function, to 1e-16 relative. Source: M. J. Wichura, "Algorithm AS 241: the
// percentage points of the normal distribution", Applied Statistics 37 (1988), PPND16.
GRAPHMATCH_NUMBER double centre_ratio(double x) {
  return polynomial(x, 2.5090809287301226727e3, 3.3430575583588128105e4, 6.7265770927008700853e4,
                    4.5921953931549871457e4, 1.3731693765509461125e4, 1.9715909503065514427e3, 1.3314166789178437745e2,
                    3.3871328727963666080e0) /
         polynomial(x, 5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4,
                    2.1213794301586595867e4, 5.3941960214247511077e3, 6.8718700749205790830e2, 4.2313330701600911252e1,
                    1.0);
}
GRAPHMATCH_NUMBER double flank_ratio(double x) {
  return polynomial(x, 7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1,
                    1.27045825245236838258e0, 3.64784832476320460504e0, 5.76949722146069140550e0,
                    4.63033784615654529590e0, 1.42343711074968357734e0) /
         polynomial(x, 1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2,
                    1.48103976427480074590e-1, 6.89767334985100004550e-1, 1.67638483018380384940e0,
                    2.05319162663775882187e0, 1.0);
}
GRAPHMATCH_NUMBER double tail_ratio(double x) {
  return polynomial(x, 2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.24266094738807843860e-3,
                    2.65321895265761230930e-2, 2.96560571828504891230e-1, 1.78482653991729133580e0,
                    5.46378491116411436990e0, 6.65790464350110377720e0) /
         polynomial(x, 2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5,
                    7.86869131145613259100e-4, 1.48753612908506148525e-2, 1.36929880922735805310e-1,
                    5.99832206555887937690e-1, 1.0);
}

// Distance to the nearer end of (0, 1), as the squared argument of the outer polynomials.
GRAPHMATCH_NUMBER double minus_log_distance(double u) { return -logarithm(u < 0.5 ? u : 1.0 - u); }

GRAPHMATCH_NUMBER bool is_outermost(double u) { return u < kOutermost || u > 1.0 - kOutermost; }

// All but the tails; `root` is the square root of minus_log_distance(u).
GRAPHMATCH_NUMBER double inner_to_normal(double u, double root) {
  const double centred = u - 0.5;
  const double inner = 0.180625 - product(centred, centred);
  const double near = product(centred, centre_ratio(inner));
  const double size = flank_ratio(root - 1.6);
  const double far = centred < 0.0 ? -size : size;
  return inner >= 0.0 ? near : far;  // |centred| <= 0.425
}

GRAPHMATCH_HOST_DEVICE inline double tail_to_normal(double u) {
  const double root = std::sqrt(minus_log_distance(u));
  const double size = root <= 5.0 ? flank_ratio(root - 1.6) : tail_ratio(root - 5.0);
  return u < 0.5 ? -size : size;
}

GRAPHMATCH_HOST_DEVICE inline double to_normal(double u) {
  return is_outermost(u) ? tail_to_normal(u) : inner_to_normal(u, std::sqrt(minus_log_distance(u)));
}

// Uniform numbers of one entry, as many as are asked for.
class EntryStream {
 public:
  GRAPHMATCH_HOST_DEVICE explicit EntryStream(std::uint64_t entry) : next_(entry) {}
  GRAPHMATCH_HOST_DEVICE double uniform() { return to_uniform(hash(next_++)); }

 private:
  std::uint64_t next_;
};

// Gamma(shape) with scale 1, shape <= 1.
GRAPHMATCH_HOST_DEVICE inline double gamma_number(double shape, EntryStream& stream) {
  const bool boosted = shape < 1.0;
  const double d = (boosted ? shape + 1.0 : shape) - 1.0 / 3.0;
  const double c = 1.0 / std::sqrt(product(9.0, d));
  for (;;) {
    const double x = to_normal(stream.uniform());
    const double root = 1.0 + product(c, x);
    const double u = stream.uniform();
    if (root <= 0.0) continue;
    const double v = product(product(root, root), root);
    const double squared = product(x, x);
    if (u >= 1.0 - product(product(0.0331, squared), squared) &&
        std::log(u) >= product(0.5, squared) + d - product(d, v) + product(d, std::log(v))) {
      continue;
    }
    const double number = product(d, v);
    return boosted ? product(number, std::exp(std::log(stream.uniform()) / shape)) : number;
  }
}

// An entry of sum-of-Gamma noise whose matchings have that many pairs; see noise.hpp.
GRAPHMATCH_HOST_DEVICE inline double sum_of_gamma(std::uint64_t entry, double matched) {
  constexpr int kTerms = 10;
  constexpr double kEuler = 0.57721566490153286061, kGumbelVariance = 1.64493406684822643647;
  double harmonic = 0.0, variance = kGumbelVariance;
  for (int i = 1; i <= kTerms; ++i) {
    harmonic += 1.0 / static_cast<double>(i);
    variance -= 1.0 / static_cast<double>(i * i);
  }
  const double deviation = std::sqrt(variance / matched);
  EntryStream stream(entry);
  double sum = 0.0;
  for (int i = 1; i <= kTerms; ++i) {
    sum += product(gamma_number(1.0 / matched, stream), matched) / static_cast<double>(i);
  }
  // The logarithm of the number of terms cancels against the correction of the mean.
  return (sum - harmonic + kEuler) / matched + product(deviation, to_normal(stream.uniform()));
}

// The counters of an entry are hashed from the outside in: call, sample, problem, row, column.
GRAPHMATCH_HOST_DEVICE inline std::uint64_t call_hash(std::uint64_t key, std::uint64_t seed) {
  return hash(key + hash(seed));
}
GRAPHMATCH_HOST_DEVICE inline std::uint64_t problem_hash(std::uint64_t call, std::uint64_t sample,
                                                         std::uint64_t instance, std::uint64_t stream) {
  constexpr std::uint64_t kStream = 0xD1342543DE82EF95u;  // odd: streams stay apart
  return hash(hash(call + sample) + instance) ^ (stream * kStream);
}
GRAPHMATCH_HOST_DEVICE inline std::uint64_t row_hash(std::uint64_t problem, std::int64_t row) {
  return hash(problem + static_cast<std::uint64_t>(row));
}

}  // namespace noise_numbers
}  // namespace graphmatch
