// When enough searches from different starts have been made, and how much care each of them takes.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "core/multigraph_search.hpp"

namespace graphmatch {

// The cheapest answer of the starts so far, and how many of them have come to it.
struct MultigraphProgress {
  double cost = std::numeric_limits<double>::infinity();
  std::int64_t hits = 0;
  std::int64_t count = 0;

  void note(double value) {
    constexpr double kSame = 1e-9;  // relative difference of equal costs
    ++count;
    const double tolerance = std::isfinite(cost) ? kSame * std::max(std::fabs(cost), std::fabs(value)) : 0.0;
    if (value < cost - tolerance) {
      cost = value;
      hits = 1;
    } else if (std::isfinite(value) && value <= cost + tolerance) {
      ++hits;
    }
  }
};

// Starts are searched in waves of a fixed size, so that the answer does not depend on the number of threads. They end
// when enough of them agree, or with a proof.
struct MultigraphStarts {
  std::int64_t wave, agreement;
  double lower_bound, max_gap;

  // Those that follow a wave without agreement take more care: the problem is a hard one.
  MultigraphOptions options_of(std::int64_t start, const MultigraphOptions& first) const {
    constexpr double kMostCare = 10.0;
    const double care = std::min(std::exp2(static_cast<double>(start / wave)), kMostCare);
    MultigraphOptions options = first;
    options.seed += static_cast<std::uint64_t>(start);
    options.effort *= care;
    options.max_iterations =
        static_cast<std::int64_t>(std::ceil(static_cast<double>(first.max_iterations) * std::sqrt(care)));
    return options;
  }

  bool is_done(const MultigraphProgress& progress) const {
    // Where the first wave did not agree, chance may: one more is asked for.
    const std::int64_t wanted = agreement + (progress.count > wave ? 1 : 0);
    const bool is_proven = progress.hits > 0 && progress.cost - lower_bound <= max_gap * std::fabs(progress.cost);
    return progress.hits >= wanted || is_proven;
  }
};

}  // namespace graphmatch
