// The costs of noisy copies of one problem, as gradient estimators ask for them.
//
// Sample s, variant v:  (costs - noise_scale * noise(s)) + signs[v] * step, each operation rounded in the type of the
// costs. Infinite costs stay infinite.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/noise.hpp"

namespace graphmatch {

struct SampleOptions {
  std::int64_t samples = 1;
  double noise_scale = 0.0;
  NoiseOptions noise;
  std::vector<double> signs;  // one per variant
};

// What the samples of one problem have of their own. Steps may be null; they are laid out as the costs.
template <class T>
struct SampleSource {
  const T* unary_step = nullptr;
  const T* quadratic_step = nullptr;
  std::uint64_t key = 0;
  std::uint64_t instance = 0;
};

// The unary costs of the variants of a sample.
template <class T>
class NoisyCosts {
 public:
  // Costs and step: rows x columns with a leading dimension.
  NoisyCosts(const SampleOptions& options, const SampleSource<T>& source, const T* costs, std::int64_t rows,
             std::int64_t columns, std::int64_t stride);

  // Draws a sample.
  void draw(std::int64_t sample);

  // Its costs with this factor on the step, rows x columns without gaps; they last until the next call.
  const T* variant(double sign);

  // How large costs may become beside what they are without noise and steps: for scales, not a bound.
  double expected_size() const;

 private:
  const SampleOptions& options_;
  const T* costs_;
  const T* step_;
  const std::int64_t rows_, columns_, stride_;
  std::optional<Noise> noise_;
  std::vector<float> drawn_;
  std::vector<T> noisy_, variant_;
};

}  // namespace graphmatch
