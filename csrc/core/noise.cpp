#include "core/noise.hpp"

#include <algorithm>
#include <cmath>

namespace graphmatch {
namespace {

constexpr std::uint64_t kGolden = 0x9E3779B97F4A7C15u;

inline std::uint64_t hash(std::uint64_t value) {
  value += kGolden;
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9u;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EBu;
  return value ^ (value >> 31);
}

// 53 random bits, centred between two representable values: never 0 or 1.
inline double uniform(std::uint64_t state) {
  constexpr double kStep = 1.0 / 9007199254740992.0;  // 2^-53
  return std::min((static_cast<double>(state >> 11) + 0.5) * kStep, 1.0 - kStep);
}

template <std::size_t kCount>
inline double polynomial(const double (&coefficients)[kCount], double x) {
  double value = coefficients[0];
  for (std::size_t k = 1; k < kCount; ++k) value = value * x + coefficients[k];
  return value;
}

// Inverse of the normal distribution function, to 1e-16 relative. Source: M. J. Wichura, "Algorithm AS 241: the
// percentage points of the normal distribution", Applied Statistics 37 (1988), PPND16.
double inverse_normal(double u) {
  static constexpr double kCentre[] = {2.5090809287301226727e3, 3.3430575583588128105e4, 6.7265770927008700853e4,
                                       4.5921953931549871457e4, 1.3731693765509461125e4, 1.9715909503065514427e3,
                                       1.3314166789178437745e2, 3.3871328727963666080e0};
  static constexpr double kBelowCentre[] = {
      5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4, 2.1213794301586595867e4,
      5.3941960214247511077e3, 6.8718700749205790830e2, 4.2313330701600911252e1, 1.0};
  static constexpr double kFlank[] = {7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1,
                                      1.27045825245236838258e0,  3.64784832476320460504e0,  5.76949722146069140550e0,
                                      4.63033784615654529590e0,  1.42343711074968357734e0};
  static constexpr double kBelowFlank[] = {
      1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2, 1.48103976427480074590e-1,
      6.89767334985100004550e-1, 1.67638483018380384940e0,  2.05319162663775882187e0,  1.0};
  static constexpr double kTail[] = {2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.24266094738807843860e-3,
                                     2.65321895265761230930e-2, 2.96560571828504891230e-1, 1.78482653991729133580e0,
                                     5.46378491116411436990e0,  6.65790464350110377720e0};
  static constexpr double kBelowTail[] = {
      2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5, 7.86869131145613259100e-4,
      1.48753612908506148525e-2,  1.36929880922735805310e-1, 5.99832206555887937690e-1, 1.0};
  const double centred = u - 0.5;
  if (std::fabs(centred) <= 0.425) {
    const double x = 0.180625 - centred * centred;
    return centred * polynomial(kCentre, x) / polynomial(kBelowCentre, x);
  }
  const double x = std::sqrt(-std::log(centred < 0 ? u : 1.0 - u));
  const double size = x <= 5.0 ? polynomial(kFlank, x - 1.6) / polynomial(kBelowFlank, x - 1.6)
                               : polynomial(kTail, x - 5.0) / polynomial(kBelowTail, x - 5.0);
  return centred < 0 ? -size : size;
}

inline double gumbel(double u) { return -std::log(-std::log(u)); }

}  // namespace

Noise::Noise(const NoiseOptions& options, std::uint64_t key, std::uint64_t instance, std::int64_t rows,
             std::int64_t columns)
    : options_(options),
      call_(hash(key + hash(options.seed))),
      instance_(instance),
      rows_(rows),
      columns_(columns),
      states_(static_cast<std::size_t>(rows * columns)),
      values_(static_cast<std::size_t>(rows * columns)) {}

std::int64_t Noise::group_size(NoiseCoupling coupling, std::int64_t, std::int64_t) {
  return coupling == NoiseCoupling::kAntithetic ? 2 : 1;
}

void Noise::fill_states(std::int64_t sample) {
  constexpr std::uint64_t kStream = 0xD1342543DE82EF95u;
  const std::uint64_t drawn = hash(call_ + static_cast<std::uint64_t>(sample));
  const std::uint64_t problem = hash(drawn + instance_) ^ (options_.stream * kStream);
  for (std::int64_t i = 0; i < rows_; ++i) {
    const std::uint64_t row = hash(problem + static_cast<std::uint64_t>(i));
    std::uint64_t* states = states_.data() + i * columns_;
    for (std::int64_t k = 0; k < columns_; ++k) states[k] = hash(row + static_cast<std::uint64_t>(k));
  }
}

void Noise::draw(std::int64_t sample, float* noise, std::int64_t stride) {
  fill_states(sample);
  for (std::int64_t i = 0; i < rows_; ++i) {
    for (std::int64_t k = 0; k < columns_; ++k) {
      const double u = uniform(states_[i * columns_ + k]);
      const double value = options_.kind == NoiseKind::kUniform    ? u
                           : options_.kind == NoiseKind::kGaussian ? inverse_normal(u)
                                                                   : gumbel(u);
      noise[i * stride + k] = static_cast<float>(value);
    }
  }
}

}  // namespace graphmatch
