// One dense problem in, one permutation with its bound out, by any of the native methods.
#pragma once

#include <cstdint>

#include "core/qap.hpp"
#include "core/solution.hpp"
#include "core/stop.hpp"

namespace graphmatch {

enum class QapMethod : std::int64_t { kFaq = 0, kTabu = 1, kDualAscent = 2, kPortfolio = 3 };

struct QapOptions {
  QapMethod method = QapMethod::kPortfolio;
  double max_gap = 1e-6;  // see is_closed(); ends with Status::kOptimal when certified
  std::uint64_t seed = 0;
  std::int64_t max_iterations = 30;  // of FAQ, or rounds of the dual ascent
  std::int64_t runs = 1;             // starts of FAQ, tabu searches
  std::int64_t steps = 1000;         // of each tabu search
  double effort = 1.0;               // of the portfolio: a factor on its budgets; infinity leaves it to the clock
  double tolerance = 1e-4;           // of FAQ
  bool sinkhorn = false;             // its softer step
  double temperature = 0.01;         // of that step
  bool refine = false;               // ends FAQ with exchanges that improve
};

// Writes the location of each facility to `assignment`, -1 everywhere when every permutation is forbidden. `start`, if
// given, is the point (nodes x nodes, rows as far apart as those of the matrices) that the first run of FAQ starts
// from. Deterministic unless time runs out.
template <class T>
Solution solve_qap(const QapProblem<T>& problem, const QapOptions& options, const double* start, Stop& stop,
                   std::int64_t* assignment);

}  // namespace graphmatch
