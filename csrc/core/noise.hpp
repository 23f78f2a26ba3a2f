// Counter-based noise on the costs of one problem: a pure function of (seed, key, instance, sample, row, column).
//
// Nothing depends on the layout of a batch, on the number of samples that are asked for or on threads. Numbers are
// computed in double and rounded to float, which is their definition.
//
// Sum-of-Gamma noise makes the sum over a complete matching of k pairs a Gumbel number, which noise of independent
// Gumbel numbers does not: with s terms, each entry is
//   (1/k) (sum_{i <= s} Gamma(1/k, scale k/i) - log s),
// and what truncation takes from mean and variance of the sum is given back by a constant and a normal number.
//
// Source: G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014 (the counters'
// hash); M. Niepert et al., "Implicit MLE", NeurIPS 2021 (sum of Gamma); G. Marsaglia, W. W. Tsang, "A simple method
// for generating gamma variables", ACM TOMS 26 (2000).
#pragma once

#include <cstdint>
#include <vector>

#include "core/noise_numbers.hpp"

namespace graphmatch {

enum class NoiseKind : std::int64_t { kGumbel = 0, kGaussian = 1, kSumOfGamma = 2, kUniform = 3 };

// Rounding must not make a one.
GRAPHMATCH_HOST_DEVICE inline float noise_rounded(NoiseKind kind, double value) {
  const float largest = kind == NoiseKind::kUniform ? 1.0f - 0x1p-24f : 3e38f;
  const float rounded = static_cast<float>(value);
  return largest < rounded ? largest : rounded;
}

// Of the samples of one problem; each of them has the same distribution in every case.
//   antithetic   samples 2j and 2j + 1 use the uniform numbers u and 1 - u
//   orthogonal   the normal vectors of a group of samples are orthogonalised and keep their lengths; other kinds take
//                the uniform numbers that belong to these
enum class NoiseCoupling : std::int64_t { kIndependent = 0, kAntithetic = 1, kOrthogonal = 2 };

struct NoiseOptions {
  NoiseKind kind = NoiseKind::kGumbel;
  NoiseCoupling coupling = NoiseCoupling::kIndependent;  // independent for sum-of-Gamma noise
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;  // for noise on several tensors of costs
};

// The noise of one entry of a sample, for kinds and couplings that need no other entries: all but orthogonal samples.
// The same number as the class below writes.
GRAPHMATCH_HOST_DEVICE inline float noise_entry(const NoiseOptions& options, std::uint64_t key, std::uint64_t instance,
                                                std::int64_t rows, std::int64_t columns, std::int64_t sample,
                                                std::int64_t row, std::int64_t column) {
  using namespace noise_numbers;
  const bool mirrored = options.coupling == NoiseCoupling::kAntithetic && sample % 2 == 1;
  const std::uint64_t drawn = static_cast<std::uint64_t>(mirrored ? sample - 1 : sample);
  const std::uint64_t problem = problem_hash(call_hash(key, options.seed), drawn, instance, options.stream);
  const std::uint64_t entry = hash(row_hash(problem, row) + static_cast<std::uint64_t>(column));
  if (options.kind == NoiseKind::kSumOfGamma) {
    return static_cast<float>(sum_of_gamma(entry, static_cast<double>(rows < columns ? rows : columns)));
  }
  double value = to_uniform(entry);
  if (options.kind == NoiseKind::kGaussian) value = to_normal(value);
  if (mirrored) value = (options.kind == NoiseKind::kGaussian ? 0.0 : 1.0) - value;
  if (options.kind == NoiseKind::kGumbel) value = to_gumbel(value);
  return noise_rounded(options.kind, value);
}

class Noise {
 public:
  Noise(const NoiseOptions& options, std::uint64_t key, std::uint64_t instance, std::int64_t rows,
        std::int64_t columns);

  // Writes the noise of a sample to `noise`, rows x columns with a leading dimension. Samples of one group cost least
  // in ascending order.
  void draw(std::int64_t sample, float* noise, std::int64_t stride);

  // Consecutive samples that are drawn together; groups begin at multiples of it.
  static std::int64_t group_size(NoiseCoupling coupling, std::int64_t rows, std::int64_t columns);

 private:
  void draw_uniform(std::int64_t sample);
  void draw_orthogonal(std::int64_t sample);
  void draw_sums_of_gamma(std::int64_t sample);
  void fill_hashes(std::int64_t sample);

  const NoiseOptions options_;
  const std::uint64_t call_;  // hash of what all samples share
  const std::uint64_t instance_;
  const std::int64_t rows_, columns_;
  std::vector<std::uint64_t> hashes_;  // rows x columns
  std::vector<double> values_;         // rows x columns
  std::vector<double> directions_;     // of the group so far, group size x rows x columns
  std::int64_t group_ = -1;            // whose directions these are
  std::int64_t known_ = 0;             // members of it
};

}  // namespace graphmatch
