#include "core/noise.hpp"

#include <algorithm>
#include <cmath>

#include "core/noise_kernels.hpp"

namespace graphmatch {
namespace {

constexpr double kSmallest = 0.5 / 9007199254740992.0;  // 2^-54, the smallest uniform number
constexpr double kLargest = 1.0 - 1.0 / 9007199254740992.0;

// Distribution function of the normal distribution, kept off 0 and 1.
double normal_to_uniform(double z) {
  constexpr double kRootOfHalf = 0.70710678118654752440;
  return std::clamp(0.5 * std::erfc(-z * kRootOfHalf), kSmallest, kLargest);
}

// Uniform numbers of one entry, as many as are asked for.
class EntryStream {
 public:
  explicit EntryStream(std::uint64_t entry) : next_(entry) {}
  double uniform() { return uniform_number(hash(next_++)); }

 private:
  std::uint64_t next_;
};

// Gamma(shape) with scale 1, shape <= 1.
double gamma_number(double shape, EntryStream& stream) {
  const bool boosted = shape < 1.0;
  const double d = (boosted ? shape + 1.0 : shape) - 1.0 / 3.0;
  const double c = 1.0 / std::sqrt(9.0 * d);
  for (;;) {
    const double x = normal_number(stream.uniform());
    const double root = 1.0 + c * x;
    const double u = stream.uniform();
    if (root <= 0.0) continue;
    const double v = root * root * root;
    const double squared = x * x;
    if (u >= 1.0 - 0.0331 * squared * squared && std::log(u) >= 0.5 * squared + d - d * v + d * std::log(v)) continue;
    return boosted ? d * v * std::exp(std::log(stream.uniform()) / shape) : d * v;
  }
}

}  // namespace

Noise::Noise(const NoiseOptions& options, std::uint64_t key, std::uint64_t instance, std::int64_t rows,
             std::int64_t columns)
    : options_(options),
      call_(hash(key + hash(options.seed))),
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
  constexpr std::uint64_t kStream = 0xD1342543DE82EF95u;  // odd: streams stay apart
  const std::uint64_t drawn = hash(call_ + static_cast<std::uint64_t>(sample));
  const std::uint64_t problem = hash(drawn + instance_) ^ (options_.stream * kStream);
  for (std::int64_t i = 0; i < rows_; ++i) {
    hash_range(hash(problem + static_cast<std::uint64_t>(i)), columns_, hashes_.data() + i * columns_);
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
  constexpr std::int64_t kTerms = 10;
  constexpr double kEuler = 0.57721566490153286061, kGumbelVariance = 1.64493406684822643647;
  const double matched = static_cast<double>(std::min(rows_, columns_));
  double harmonic = 0.0, variance = kGumbelVariance;
  for (std::int64_t i = 1; i <= kTerms; ++i) {
    harmonic += 1.0 / static_cast<double>(i);
    variance -= 1.0 / static_cast<double>(i * i);
  }
  const double deviation = std::sqrt(variance / matched);
  fill_hashes(sample);
  for (std::size_t entry = 0; entry < values_.size(); ++entry) {
    EntryStream stream(hashes_[entry]);
    double sum = 0.0;
    for (std::int64_t i = 1; i <= kTerms; ++i) {
      sum += gamma_number(1.0 / matched, stream) * matched / static_cast<double>(i);
    }
    // The logarithm of the number of terms cancels against the correction of the mean.
    values_[entry] = (sum - harmonic + kEuler) / matched + deviation * normal_number(stream.uniform());
  }
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
  // Rounding must not make a one.
  const float largest = options_.kind == NoiseKind::kUniform ? 1.0f - 0x1p-24f : 3e38f;
  for (std::int64_t i = 0; i < rows_; ++i) {
    const double* values = values_.data() + i * columns_;
    for (std::int64_t k = 0; k < columns_; ++k) {
      noise[i * stride + k] = std::min(static_cast<float>(values[k]), largest);
    }
  }
}

}  // namespace graphmatch
