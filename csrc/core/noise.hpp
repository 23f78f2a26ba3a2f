// Counter-based noise on the costs of one problem: a pure function of (seed, key, instance, sample, row, column).
//
// Nothing depends on the layout of a batch, on the number of samples that are asked for or on threads. Numbers are
// computed in double and rounded to float, which is their definition, and by basic operations in a fixed order: they
// are the same on every instruction set.
//
// Source: G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014 (the counters'
// hash).
#pragma once

#include <cstdint>
#include <vector>

namespace graphmatch {

enum class NoiseKind : std::int64_t { kGumbel = 0, kGaussian = 1, kSumOfGamma = 2, kUniform = 3 };

// Of the samples of one problem; each of them has the same distribution in every case.
//   antithetic   samples 2j and 2j + 1 use the uniform numbers u and 1 - u
//   orthogonal   normal vectors of groups of samples are orthogonalised, and keep their lengths
enum class NoiseCoupling : std::int64_t { kIndependent = 0, kAntithetic = 1, kOrthogonal = 2 };

struct NoiseOptions {
  NoiseKind kind = NoiseKind::kGumbel;
  NoiseCoupling coupling = NoiseCoupling::kIndependent;
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;  // for noise on several tensors of costs
};

class Noise {
 public:
  Noise(const NoiseOptions& options, std::uint64_t key, std::uint64_t instance, std::int64_t rows,
        std::int64_t columns);

  // Writes the noise of a sample to `noise`, rows x columns with a leading dimension. Samples of one group cost least
  // one after the other.
  void draw(std::int64_t sample, float* noise, std::int64_t stride);

  // Samples that are drawn together.
  static std::int64_t group_size(NoiseCoupling coupling, std::int64_t rows, std::int64_t columns);

 private:
  void fill_states(std::int64_t sample);

  const NoiseOptions options_;
  const std::uint64_t call_;  // hash of what all samples share
  const std::uint64_t instance_;
  const std::int64_t rows_, columns_;
  std::vector<std::uint64_t> states_;  // rows x columns: hashes of the entries of a sample
  std::vector<double> values_;
};

}  // namespace graphmatch
