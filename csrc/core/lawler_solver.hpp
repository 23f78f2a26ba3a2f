// One sparse Lawler problem in, one matching with its bound out, by any of the native methods.
#pragma once

#include <cstdint>
#include <optional>

#include "core/dual_ascent.hpp"
#include "core/lawler.hpp"
#include "core/lawler_options.hpp"
#include "core/lawler_search.hpp"
#include "core/pair_costs.hpp"
#include "core/solution.hpp"
#include "core/stop.hpp"

namespace graphmatch {

// Solves a problem, and others that differ from it in their unary costs only: what depends on the edges and their costs
// is built once. Each answer is that of a solver of its own, up to the scale (see `take`).
template <class T>
class LawlerSolver {
 public:
  explicit LawlerSolver(const LawlerOptions& options) : options_(options) {}
  LawlerSolver(const LawlerSolver&) = delete;
  LawlerSolver& operator=(const LawlerSolver&) = delete;

  // The arrays of the problem must stay as they are. Costs that will follow may be as large as `expected`: the scale
  // is that of the larger of both.
  void take(const LawlerProblem<T>& problem, double expected = 0.0);

  // Other unary costs for the problem taken, with a leading dimension.
  void replace_unary(const T* unary, std::int64_t stride);

  // Writes the matching (column per row, -1 = unmatched) to `assignment`. Deterministic. A warm start continues from
  // the duals and the matching of an earlier solve; `state`, if it has a scale, receives the duals of this one.
  // `is_sample`: one of many noisy copies, which hasty portfolios leave to the dual ascent.
  Solution solve(const DualState& warm, const std::int64_t* warm_assignment, const DualState& state, Stop& stop,
                 std::int64_t* assignment, bool is_sample = false);

  const RightEdges& right_edges() const { return right_edges_; }

 private:
  const LawlerOptions options_;
  LawlerProblem<T> problem_;
  RightEdges right_edges_;
  PairCosts costs_;
  std::optional<LawlerSearch> search_;
  bool has_valid_edges_ = false;
  bool is_valid_ = false;
};

// One problem, once.
template <class T>
Solution solve_lawler(const LawlerProblem<T>& problem, const LawlerOptions& options, const DualState& warm,
                      const std::int64_t* warm_assignment, const DualState& state, Stop& stop,
                      std::int64_t* assignment);

}  // namespace graphmatch
