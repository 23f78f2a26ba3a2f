#include "core/noise.hpp"

#include <algorithm>
#include <cmath>

#include "core/noise_kernels.hpp"

namespace graphmatch {
namespace {

using namespace noise_numbers;

// Distribution function of the normal distribution, kept off 0 and 1.
double normal_to_uniform(double z) {
  constexpr double kRootOfHalf = 0.70710678118654752440;
  return std::clamp(0.5 * std::erfc(-z * kRootOfHalf), kSmallest, kLargest);
}

}  // namespace

Noise::Noise(const NoiseOptions& options, std::uint64_t key, std::uint64_t instance, std::int64_t rows,
             std::int64_t columns)
    : options_(options),
      call_(call_hash(key, options.seed)),
      instance_(instance),
      rows_(rows),
      columns_(columns),
      hashes_(static_cast<std::size_t>(rows * columns)),
      values_(static_cast<std::size_t>(rows * columns)) {}

std::int64_t Noise::group_size(NoiseCoupling coupling, std::int64_t rows, std::int64_t columns) {
  constexpr std::int64_t kLargestGroup = 32;
  if (coupling == NoiseCoupling::kAntithetic) return 2;
  if (coupling != NoiseCoupling::kOrthogonal) return 1;
  // A power of two, so that groups of all problems lie within blocks of the largest size.
  std::int64_t size = 1;
  while (2 * size <= std::min(rows * columns, kLargestGroup)) size *= 2;
  return size;
}

void Noise::fill_hashes(std::int64_t sample) {
  const std::uint64_t problem = problem_hash(call_, static_cast<std::uint64_t>(sample), instance_, options_.stream);
  for (std::int64_t i = 0; i < rows_; ++i) {
    hash_range(row_hash(problem, i), columns_, hashes_.data() + i * columns_);
  }
}

void Noise::draw_uniform(std::int64_t sample) {
  fill_hashes(sample);
  uniform_numbers(hashes_.data(), rows_ * columns_, values_.data());
}

// Leaves normal numbers in `values_`. The group's members before this one are drawn first, if they are not known.
void Noise::draw_orthogonal(std::int64_t sample) {
  const std::int64_t size = rows_ * columns_;
  const std::int64_t members = group_size(options_.coupling, rows_, columns_);
  const std::int64_t group = sample / members;
  if (group != group_ || sample % members < known_) known_ = 0;
  group_ = group;
  directions_.resize(static_cast<std::size_t>(members * size));
  for (std::int64_t member = known_; member <= sample % members; ++member) {
    draw_uniform(group * members + member);
    normal_numbers(values_.data(), size);
    double* direction = directions_.data() + member * size;
    if (!orthogonalise(values_.data(), directions_.data(), member, size, direction)) {
      std::fill_n(direction, size, 0.0);
    }
  }
  known_ = sample % members + 1;
}

void Noise::draw_sums_of_gamma(std::int64_t sample) {
  const double matched = static_cast<double>(std::min(rows_, columns_));
  fill_hashes(sample);
  for (std::size_t entry = 0; entry < values_.size(); ++entry) values_[entry] = sum_of_gamma(hashes_[entry], matched);
}

void Noise::draw(std::int64_t sample, float* noise, std::int64_t stride) {
  const std::int64_t size = rows_ * columns_;
  const bool mirrored = options_.coupling == NoiseCoupling::kAntithetic && sample % 2 == 1;
  const bool is_normal = options_.kind == NoiseKind::kGaussian;
  if (options_.kind == NoiseKind::kSumOfGamma) {
    draw_sums_of_gamma(sample);
  } else if (options_.coupling == NoiseCoupling::kOrthogonal) {
    draw_orthogonal(sample);
    if (!is_normal) std::transform(values_.begin(), values_.end(), values_.begin(), normal_to_uniform);
  } else {
    draw_uniform(mirrored ? sample - 1 : sample);
    if (is_normal) normal_numbers(values_.data(), size);
    // 1 - u, or -z.
    const double whole = is_normal ? 0.0 : 1.0;
    for (double& value : values_) value = mirrored ? whole - value : value;
  }
  if (options_.kind == NoiseKind::kGumbel) gumbel_numbers(values_.data(), size);
  for (std::int64_t i = 0; i < rows_; ++i) {
    const double* values = values_.data() + i * columns_;
    for (std::int64_t k = 0; k < columns_; ++k) noise[i * stride + k] = noise_rounded(options_.kind, values[k]);
  }
}

}  // namespace graphmatch
