#include "core/noisy_costs.hpp"

#include <algorithm>
#include <cmath>

namespace graphmatch {
namespace {

// Largest finite |step|.
template <class T>
double largest_step(const T* step, std::int64_t rows, std::int64_t columns, std::int64_t stride) {
  double largest = 0.0;
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t k = 0; k < columns; ++k) {
      const double size = std::fabs(static_cast<double>(step[i * stride + k]));
      if (std::isfinite(size)) largest = std::max(largest, size);
    }
  }
  return largest;
}

}  // namespace

template <class T>
NoisyCosts<T>::NoisyCosts(const SampleOptions& options, const SampleSource<T>& source, const T* costs,
                          std::int64_t rows, std::int64_t columns, std::int64_t stride)
    : options_(options),
      costs_(costs),
      step_(source.unary_step),
      rows_(rows),
      columns_(columns),
      stride_(stride),
      noisy_(static_cast<std::size_t>(rows * columns)),
      variant_(static_cast<std::size_t>(step_ == nullptr ? 0 : rows * columns)) {
  if (options.noise_scale == 0.0) return;
  noise_.emplace(options.noise, source.key, source.instance, rows, columns);
  drawn_.resize(static_cast<std::size_t>(rows * columns));
}

template <class T>
void NoisyCosts<T>::draw(std::int64_t sample) {
  for (std::int64_t i = 0; i < rows_; ++i) std::copy_n(costs_ + i * stride_, columns_, noisy_.data() + i * columns_);
  if (!noise_) return;
  noise_->draw(sample, drawn_.data(), columns_);
  const T factor = static_cast<T>(options_.noise_scale);
  for (std::size_t cell = 0; cell < noisy_.size(); ++cell) noisy_[cell] -= factor * static_cast<T>(drawn_[cell]);
}

template <class T>
const T* NoisyCosts<T>::variant(double sign) {
  if (step_ == nullptr) return noisy_.data();
  const T factor = static_cast<T>(sign);
  for (std::int64_t i = 0; i < rows_; ++i) {
    for (std::int64_t k = 0; k < columns_; ++k) {
      const std::int64_t cell = i * columns_ + k;
      variant_[cell] = noisy_[cell] + factor * step_[i * stride_ + k];
    }
  }
  return variant_.data();
}

template <class T>
double NoisyCosts<T>::expected_size() const {
  // Stored costs may exceed one by far: only noise and steps of another order than the costs ask for a larger scale. It
  // must not depend on the other variants.
  constexpr double kMuch = 16.0;
  const double step = step_ == nullptr ? 0.0 : largest_step(step_, rows_, columns_, stride_);
  return std::max(4.0 * std::fabs(options_.noise_scale), step) / kMuch;
}

template class NoisyCosts<float>;
template class NoisyCosts<double>;

}  // namespace graphmatch
