// The stages of a sparse quadratic solver around one incumbent: dual ascent, tabu search, fusion, branch and bound.
//
// All values are in the stored units of PairCosts. A stage takes what the others left: the duals, the incumbent, the
// certified bound. Every stage ends as soon as the gap is closed.
#pragma once

#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <vector>

#include "core/branch_and_bound.hpp"
#include "core/dual_ascent.hpp"
#include "core/fusion.hpp"
#include "core/pair_costs.hpp"
#include "core/random.hpp"
#include "core/solution.hpp"
#include "core/stop.hpp"
#include "core/tabu_search.hpp"

namespace graphmatch {

class LawlerSearch {
 public:
  // `evaluate` returns the exact cost of a matching in stored units.
  LawlerSearch(const PairCosts& costs, std::function<double(const std::int64_t*)> evaluate, double max_gap,
               std::uint64_t seed, Stop& stop);

  // As constructed anew with the same gap and seed, after the unary costs were replaced. Memory and tables are kept.
  void restart(Stop& stop);

  // Starts the duals from an earlier solve, and offers the matching it found, if that is one of this problem.
  void warm_start(const DualState& state, const std::int64_t* assignment);

  // Dual ascent with rounding and local search: ends after `max_iterations`, or when the bound stalls; a patient one
  // bears with slower progress. False when no matching exists (among the labels that are left).
  bool ascend(std::int64_t max_iterations, bool patient);

  // Removes labels that cannot improve the incumbent. Ascends again, as long as that helps, where at most `few_labels`
  // are left; returns whether so few are left.
  bool tighten(std::int64_t max_iterations, std::int64_t few_labels);

  // Tabu searches from the incumbent, from perturbed and from noisy matchings, fused with the incumbent if asked for.
  // Ends after `patience` runs in a row without a better matching.
  void explore(std::int64_t runs, std::int64_t steps, std::int64_t patience, bool fuse);

  // Matchings rounded from noisy costs, improved by local search and fused with the incumbent.
  void fuse_generations(std::int64_t generations);

  // Searches the tree below the duals within `nodes` nodes. True when it got to the end.
  bool branch(std::int64_t nodes);

  // Duals of a problem without some of its labels are no start for another.
  bool has_eliminated() const { return eliminated_ < std::numeric_limits<double>::infinity(); }

  // After eliminations no matching is left among the remaining labels: only the eliminated ones bound the optimum.
  void close() { bound_ = std::max(bound_, eliminated_); }

  bool is_closed() const { return closes(bound_); }
  bool is_done() { return is_closed() || stop_->requested(); }
  double gap() const { return value_ - bound_; }
  double relative_gap() const { return gap() / std::fmax(std::fabs(value_), 1e-300); }
  const DualAscent& dual() const { return dual_; }
  const std::vector<std::int64_t>& best() const { return best_; }
  double bound() const { return bound_; }
  Stage stage() const { return stage_; }
  std::int64_t iterations() const { return iterations_; }

 private:
  TabuSearch& tabu();
  Fusion& fusion();
  bool offer(const std::vector<std::int64_t>& matching, Stage stage);
  void raise_bound(double bound);
  bool closes(double bound) const;
  double allowed_gap() const;
  double proof_slack() const;  // how far below the incumbent a proof may end: tight even where that is near zero
  bool fits(const std::int64_t* assignment) const;
  std::vector<std::int64_t> noisy_matching(float noise);
  std::vector<std::int64_t> perturbed(const std::vector<std::int64_t>& matching, std::int64_t strength);

  const PairCosts& costs_;
  const std::function<double(const std::int64_t*)> evaluate_;
  const double max_gap_;
  const std::uint64_t seed_;
  Random random_;
  Stop* stop_;
  DualAscent dual_;
  std::optional<TabuSearch> tabu_;  // once it is needed: structured problems do without
  std::optional<Fusion> fusion_;
  Lap<float> lap_;
  std::vector<std::int64_t> best_;
  std::vector<std::int64_t> last_rounded_;
  double value_;       // of best_
  double bound_;       // certified
  double eliminated_;  // matchings that use an eliminated label cost at least this
  Stage stage_ = Stage::kNone;
  std::int64_t iterations_ = 0;
};

}  // namespace graphmatch
