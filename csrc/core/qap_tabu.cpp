#include "core/qap_tabu.hpp"

#include <algorithm>

namespace graphmatch {
namespace {

constexpr std::int64_t kAskEvery = 64;      // steps between two looks at the clock
constexpr std::int64_t kRefresh = 1 << 16;  // steps after which rounded sums are computed afresh
constexpr std::int64_t kMostSteps = 100;    // of a descent, per node
constexpr double kNoise = 1e-12;            // of the magnitude: differences below it are rounding

}  // namespace

template <class T>
double QapTabu<T>::noise() const {
  return costs_.integral ? 0.0 : kNoise * costs_.magnitude;
}

template <class T>
std::int64_t QapTabu<T>::descend(const std::vector<std::int64_t>& start, Stop& stop) {
  table_.load(start);
  std::int64_t steps = 0;
  for (; steps % kAskEvery != kAskEvery - 1 || !stop.requested(); ++steps) {
    if (steps > kMostSteps * costs_.nodes) break;  // rounding could make a cycle look like descent
    const Swap swap = table_.best();
    if (swap.first < 0 || !(static_cast<double>(table_.change(swap)) < -noise())) break;
    table_.apply(swap, T(0), T(0));
  }
  best_ = table_.assignment();
  best_value_ = costs_.value(best_.data());
  return steps;
}

template <class T>
std::int64_t QapTabu<T>::search(const std::vector<std::int64_t>& start, std::int64_t steps, std::int64_t patience,
                                double goal, Random& random, Stop& stop) {
  const std::int64_t nodes = costs_.nodes;
  table_.load(start);
  double value = costs_.value(start.data());
  best_ = start;
  best_value_ = value;
  // Tenures around n, as in the source.
  const std::int64_t shortest = std::max<std::int64_t>(nodes * 9 / 10, 1);
  const std::int64_t spread = std::max<std::int64_t>(nodes / 5, 2) + 2;
  std::int64_t last_improvement = 0;
  std::int64_t loaded = 0;
  std::int64_t step = 1;
  for (; step <= steps && best_value_ > goal; ++step) {
    if (step % kAskEvery == 0 && stop.requested()) break;
    if (step - last_improvement > patience) break;
    if (step - loaded >= kRefresh) {
      table_.load(std::vector<std::int64_t>(table_.assignment()));
      value = costs_.value(table_.assignment().data());
      loaded = step;
    }
    const auto now = static_cast<T>(step - loaded);
    Swap swap = table_.best_allowed(now, static_cast<T>(best_value_ - noise() - value));
    if (swap.first < 0) {  // everything is banned
      if (nodes < 2) break;
      swap.first = random.below(nodes - 1);
      swap.second = swap.first + 1 + random.below(nodes - 1 - swap.first);
    }
    value += static_cast<double>(table_.change(swap));
    table_.apply(swap, now + static_cast<T>(shortest + random.below(spread)),
                 now + static_cast<T>(shortest + random.below(spread)));
    if (value < best_value_ - noise()) {
      best_value_ = value;
      best_ = table_.assignment();
      last_improvement = step;
    }
  }
  best_value_ = costs_.value(best_.data());
  return step - 1;
}

template class QapTabu<float>;
template class QapTabu<double>;

}  // namespace graphmatch
