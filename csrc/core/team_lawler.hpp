// One sparse Lawler problem solved by a team (team.hpp): dual ascent with rounding and local search, then tabu
// searches.
//
// The whole team builds the tables, passes the messages and certifies bounds. Its leading part rounds, searches and
// keeps the incumbent; what it finds reaches the others through a TeamControl. Every member then takes the same
// decisions from the same numbers. There is no fusion, no elimination of labels and no tree: what those would close
// stays open here.
//
// Everything is in the stored units of TeamPairTables.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/arena.hpp"
#include "core/lawler_options.hpp"
#include "core/random.hpp"
#include "core/solution.hpp"
#include "core/team_dual_ascent.hpp"
#include "core/team_lap.hpp"
#include "core/team_moves.hpp"
#include "core/team_pair_tables.hpp"

namespace graphmatch {

// What the leading part of a team tells all of it.
struct TeamControl {
  double value;           // of the incumbent, infinite without one
  double rounded_bound;   // lower bound as float arithmetic sees it
  std::int32_t feasible;  // whether the last assignment block had a matching
  std::int32_t stage;     // what found the incumbent
};

// Memory for one problem of at most the given sizes, in two parts: the second one, of the leading part, wants to be
// fast.
struct TeamLawlerMemory {
  TeamPairTables tables;
  TeamDualAscent dual;
  TeamLapMemory<float> lap;
  TeamMoves moves;
  std::int32_t *best, *last_rounded;  // rows
  TeamControl* control;

  GRAPHMATCH_HOST_DEVICE void place(Arena& arena, std::int64_t rows, std::int64_t columns, std::int64_t edge_count1,
                                    std::int64_t edge_count2) {
    tables.place(arena, rows, columns, edge_count1, edge_count2);
    dual.place(arena, rows, columns, TeamPairTables::most_pairs(rows, edge_count1));
    best = arena.take<std::int32_t>(rows);
    last_rounded = arena.take<std::int32_t>(rows);
    control = arena.take<TeamControl>(1);
  }
  GRAPHMATCH_HOST_DEVICE void place_assignment(Arena& arena, std::int64_t rows, std::int64_t columns) {
    const std::int64_t side = rows > columns ? rows : columns;  // it may be solved transposed
    lap.place(arena, side, side);
  }
};

// Which part of a problem's work a team does: run `run` of independent tabu searches, or everything.
struct TeamShare {
  std::int64_t run = 0;
  bool only_this_run = false;
};

template <class T, class Team>
class TeamLawlerSolver {
 public:
  GRAPHMATCH_HOST_DEVICE TeamLawlerSolver(Team& team, const LawlerProblem<T>& problem, const LawlerOptions& options,
                                          TeamLawlerMemory& memory)
      : team_(team), problem_(problem), options_(options), memory_(memory) {}

  // Writes the matching to `assignment`; `state`, if it has a scale, gets the duals. Every member gets the solution. A
  // warm start continues from the duals and the matching of an earlier solve.
  GRAPHMATCH_HOST_DEVICE Solution solve(const DualState& warm, const std::int64_t* warm_assignment,
                                        const DualState& state, const TeamShare& share, std::int64_t* assignment);

 private:
  // As in lawler_search.cpp.
  static constexpr std::int64_t kStallWindow = 5;
  static constexpr double kHurried = 15.0, kPatient = 400.0;
  static constexpr std::int64_t kCertificateWindow = 5, kFirstDescent = 3;

  GRAPHMATCH_HOST_DEVICE void warm_start(const std::int64_t* assignment);
  GRAPHMATCH_HOST_DEVICE bool ascend(std::int64_t max_iterations, bool patient);
  GRAPHMATCH_HOST_DEVICE void round(std::int64_t iteration);
  GRAPHMATCH_HOST_DEVICE void explore(std::int64_t runs, std::int64_t steps, std::int64_t patience,
                                      const TeamShare& share);
  GRAPHMATCH_HOST_DEVICE void run_portfolio_searches();
  GRAPHMATCH_HOST_DEVICE bool place_noisy_matching(Random& random);
  template <class Lead>
  GRAPHMATCH_HOST_DEVICE void offer(Lead& lead, const std::int32_t* matching, double value, Stage stage);
  template <class Lead>
  struct Exact {
    Lead& lead;
    const TeamPairTables& tables;
    const LawlerProblem<T>& problem;
    GRAPHMATCH_HOST_DEVICE double operator()(const std::int32_t* matching) const {
      return tables.evaluate(lead, problem, matching) / tables.scale;
    }
  };
  template <class Lead>
  GRAPHMATCH_HOST_DEVICE Exact<Lead> exact(Lead& lead) const {
    return {lead, memory_.tables, problem_};
  }
  GRAPHMATCH_HOST_DEVICE void listen() {
    team_.sync();
    value_ = memory_.control->value;
    team_.sync();  // nobody changes it before all have read
  }
  GRAPHMATCH_HOST_DEVICE bool closes(double bound) const {
    return value_ < static_cast<double>(INFINITY) &&
           is_closed(value_, bound, memory_.tables.largest_cost, options_.max_gap);
  }
  GRAPHMATCH_HOST_DEVICE Solution without_labels() const;

  Team& team_;
  const LawlerProblem<T>& problem_;
  const LawlerOptions& options_;
  TeamLawlerMemory& memory_;
  double value_ = INFINITY;   // of the incumbent; members of the leading part know it first
  double bound_ = -INFINITY;  // certified
  double last_bound_ = -INFINITY;
  std::int64_t iterations_ = 0;
};

template <class T, class Team>
GRAPHMATCH_HOST_DEVICE Solution TeamLawlerSolver<T, Team>::solve(const DualState& warm,
                                                                 const std::int64_t* warm_assignment,
                                                                 const DualState& state, const TeamShare& share,
                                                                 std::int64_t* assignment) {
  share_out(team_, problem_.rows, [&](std::int64_t i) { assignment[i] = -1; });
  if (state.scale != nullptr && team_.rank() == 0) *state.scale = 0.0;
  if (team_.rank() == 0) *memory_.control = {static_cast<double>(INFINITY), 0.0, 1, 0};
  if (!memory_.tables.build(team_, problem_)) return invalid_solution();
  if (problem_.rows == 0 || problem_.columns == 0) return without_labels();

  const bool is_warm = memory_.dual.start(team_, memory_.tables, warm);
  if (is_warm && warm_assignment != nullptr) warm_start(warm_assignment);
  const bool is_tabu = options_.method == LawlerMethod::kTabu,
             is_portfolio = options_.method == LawlerMethod::kPortfolio;
  if (!ascend(is_tabu ? 1 : options_.max_iterations, !is_portfolio)) return infeasible_solution(iterations_);
  memory_.dual.save(team_, memory_.tables, state);
  team_.sync();  // searches write where the duals are
  if (is_tabu) explore(options_.runs, options_.steps, options_.runs, share);
  if (is_portfolio) run_portfolio_searches();

  share_out(team_, problem_.rows, [&](std::int64_t i) { assignment[i] = memory_.best[i]; });
  const double scale = memory_.tables.scale;
  Solution solution;
  solution.objective = scale * value_;
  solution.lower_bound = fmin(scale * bound_, solution.objective);
  solution.iterations = iterations_;
  solution.stage = static_cast<Stage>(memory_.control->stage);
  if (is_closed(solution.objective, solution.lower_bound, scale * memory_.tables.largest_cost, options_.max_gap)) {
    solution.status = Status::kOptimal;
  }
  return solution;
}

template <class T, class Team>
GRAPHMATCH_HOST_DEVICE Solution TeamLawlerSolver<T, Team>::without_labels() const {
  Solution solution;
  solution.status = Status::kOptimal;
  solution.objective = problem_.complete ? 0.0 : problem_.unmatched_cost * static_cast<double>(problem_.rows);
  solution.lower_bound = solution.objective;
  return solution;
}

// Offers an earlier matching, if it is one of this problem.
template <class T, class Team>
GRAPHMATCH_HOST_DEVICE void TeamLawlerSolver<T, Team>::warm_start(const std::int64_t* assignment) {
  if (team_.is_leading()) {
    auto& lead = team_.lead();
    const std::int64_t rows = problem_.rows, columns = problem_.columns;
    double matched = 0.0;
    bool fits = true;
    share_out(lead, rows, [&](std::int64_t i) {
      const std::int64_t k = assignment[i] < 0 ? -1 : assignment[i];
      memory_.last_rounded[i] = static_cast<std::int32_t>(k < columns ? k : -1);
      if (k < 0) return;
      matched += 1.0;
      if (k >= columns || !memory_.tables.allowed(static_cast<std::int32_t>(i), static_cast<std::int32_t>(k))) {
        fits = false;
        return;
      }
      for (std::int64_t before = 0; before < i; ++before) fits &= assignment[before] != k;
    });
    const double needed = problem_.complete ? static_cast<double>(rows < columns ? rows : columns) : 0.0;
    fits = lead.reduce_min(fits ? 1.0 : 0.0) > 0.0;
    matched = lead.reduce_sum(matched);
    lead.sync();
    if (fits && matched >= needed) {
      offer(lead, memory_.last_rounded, exact(lead)(memory_.last_rounded), Stage::kWarmStart);
    }
    // It must not count as the last rounding.
    lead.sync();
    if (lead.rank() == 0) memory_.last_rounded[0] = -2;
  }
  listen();
}

template <class T, class Team>
template <class Lead>
GRAPHMATCH_HOST_DEVICE void TeamLawlerSolver<T, Team>::offer(Lead& lead, const std::int32_t* matching, double value,
                                                             Stage stage) {
  if (!(value < value_)) return;
  value_ = value;
  share_out(lead, problem_.rows, [&](std::int64_t i) { memory_.best[i] = matching[i]; });
  if (lead.rank() == 0) {
    memory_.control->value = value;
    memory_.control->stage = static_cast<std::int32_t>(stage);
  }
  lead.sync();
}

// The leading part's half of an iteration.
template <class T, class Team>
GRAPHMATCH_HOST_DEVICE void TeamLawlerSolver<T, Team>::round(std::int64_t iteration) {
  auto& lead = team_.lead();
  TeamControl& control = *memory_.control;
  memory_.dual.bring_near(lead, memory_.tables);
  if (lead.group_index() == 0) {
    double bound = 0.0;
    const bool feasible = memory_.dual.assign(lead.group(), memory_.tables, memory_.lap, false, bound);
    if (lead.group().rank() == 0) {
      control.feasible = feasible ? 1 : 0;
      control.rounded_bound = bound;
    }
  }
  lead.sync();
  if (control.feasible == 0) return;
  const std::int32_t* rounded = memory_.dual.rounded;
  const bool in_turn = iteration == kFirstDescent || iteration % kCertificateWindow == 0;
  if (iteration <= kFirstDescent || in_turn) offer(lead, rounded, exact(lead)(rounded), Stage::kDualAscent);
  if (!in_turn || closes(control.rounded_bound)) return;
  double differs = 0.0;
  share_out(lead, problem_.rows, [&](std::int64_t i) {
    if (memory_.last_rounded[i] != rounded[i]) differs = 1.0;
  });
  if (lead.reduce_max(differs) == 0.0) return;
  share_out(lead, problem_.rows,
            [&](std::int64_t i) { memory_.last_rounded[i] = memory_.moves.assignment[i] = rounded[i]; });
  lead.sync();
  const double value = memory_.moves.descend(lead, memory_.tables, exact(lead));
  offer(lead, memory_.moves.best, value, Stage::kDualAscent);
}

template <class T, class Team>
GRAPHMATCH_HOST_DEVICE bool TeamLawlerSolver<T, Team>::ascend(std::int64_t max_iterations, bool patient) {
  const double most_windows = patient ? kPatient : kHurried;
  std::int64_t next_certificate = 0;
  if (team_.rank() == 0) memory_.last_rounded[0] = -2;  // no matching
  for (std::int64_t iteration = 1;; ++iteration) {
    ++iterations_;
    memory_.dual.pass_messages(team_, memory_.tables);
    if (team_.is_leading()) round(iteration);
    team_.sync();
    const bool feasible = memory_.control->feasible != 0;
    const double bound = memory_.control->rounded_bound;
    value_ = memory_.control->value;
    if (!feasible) return false;
    bool last = iteration >= max_iterations;
    if (iteration % kStallWindow == 0) {  // it would not close the gap within the budget at the rate of this window
      const double gain = bound - last_bound_;
      last_bound_ = bound;
      const double windows = static_cast<double>(max_iterations - iteration) / static_cast<double>(kStallWindow);
      last |= gain * fmin(fmax(windows, 1.0), most_windows) < value_ - bound;
    }
    if (last || (closes(bound) && iteration >= next_certificate)) {
      bound_ = fmax(bound_, memory_.dual.certified_bound(team_, memory_.tables));
      if (last || closes(bound_)) return true;
      next_certificate = iteration + kCertificateWindow;
    }
  }
}

// Budgets as in lawler_solver.cpp, with more runs in place of fusion and trees. Hasty portfolios leave it at the
// ascent.
template <class T, class Team>
GRAPHMATCH_HOST_DEVICE void TeamLawlerSolver<T, Team>::run_portfolio_searches() {
  constexpr double kHasty = 0.1, kRuns = 20.0, kSteps = 12.0, kWideSteps = 30.0, kWideGap = 0.2, kLarge = 64.0;
  if (closes(bound_) || options_.effort < kHasty) return;
  const double size = static_cast<double>(problem_.rows > problem_.columns ? problem_.rows : problem_.columns);
  const double nodes = fmin(size, sqrt(kLarge * size));  // steps of large problems are dear
  const bool wide = value_ - bound_ > kWideGap * fmax(fabs(value_), 1e-300);
  const double steps = (wide ? kWideSteps : kSteps) * sqrt(fmin(options_.effort, 1.0)) * nodes;
  const auto runs = static_cast<std::int64_t>(ceil(kRuns * size / nodes * options_.effort));
  explore(runs, static_cast<std::int64_t>(ceil(steps)), (runs + 1) / 2, TeamShare{});
}

// Searches from the incumbent, from perturbed and from noisy matchings, until `patience` runs in a row find nothing.
template <class T, class Team>
GRAPHMATCH_HOST_DEVICE void TeamLawlerSolver<T, Team>::explore(std::int64_t runs, std::int64_t steps,
                                                               std::int64_t patience, const TeamShare& share) {
  if (team_.is_leading()) {
    auto& lead = team_.lead();
    TeamMoves& moves = memory_.moves;
    const double largest = memory_.tables.largest_cost;
    const double goal = bound_ + 0.5 * options_.max_gap * fmax(fabs(value_), largest);
    const std::int64_t first = share.only_this_run ? share.run : 0;
    const std::int64_t end = share.only_this_run ? share.run + 1 : runs;
    std::int64_t idle = 0;
    for (std::int64_t run = first; run < end && idle < patience && !closes(bound_); ++run) {
      Random random(options_.seed, static_cast<std::uint64_t>(run));
      const bool from_noise = run > 0 && run % 2 == 0 && place_noisy_matching(random);
      if (!from_noise) {
        share_out(lead, problem_.rows, [&](std::int64_t i) { moves.assignment[i] = memory_.best[i]; });
        lead.sync();
        const std::int64_t strength = problem_.rows / 3 > 2 ? problem_.rows / 3 : 2;
        if (run % 2 == 1) perturb(lead, memory_.tables, moves, strength, random);
      }
      const double value = moves.search(lead, memory_.tables, steps, steps, goal, random, exact(lead));
      idle = value < value_ ? 0 : idle + 1;
      offer(lead, moves.best, value, Stage::kTabu);
    }
  }
  listen();
}

// A matching of noisy unary costs, where a tabu search starts: they take the place of what the ascent left of the
// costs. False where there is none.
template <class T, class Team>
GRAPHMATCH_HOST_DEVICE bool TeamLawlerSolver<T, Team>::place_noisy_matching(Random& random) {
  auto& lead = team_.lead();
  const TeamPairTables& tables = memory_.tables;
  TeamDualAscent& dual = memory_.dual;
  const std::uint64_t key = random.next();
  const auto noise = [key](std::int64_t place) {
    Random each(key + static_cast<std::uint64_t>(place));
    return static_cast<float>(each.below(1 << 20)) / static_cast<float>(1 << 20);
  };
  const std::int64_t cells = static_cast<std::int64_t>(tables.rows) * tables.columns;
  share_out(lead, cells, [&](std::int64_t cell) {
    const float cost = tables.unary[cell];
    dual.remaining[cell] = cost < kBarrierTest ? cost + noise(cell) : INFINITY;
  });
  share_out(lead, tables.rows, [&](std::int64_t i) {
    dual.unmatched_remaining[i] = static_cast<float>(tables.unmatched_cost) + noise(cells + i);
  });
  lead.sync();
  dual.bring_near(lead, tables);
  if (lead.group_index() == 0) {
    double unused;
    const bool found = dual.assign(lead.group(), tables, memory_.lap, true, unused);
    if (lead.group().rank() == 0) memory_.control->feasible = found ? 1 : 0;
  }
  lead.sync();
  if (memory_.control->feasible == 0) return false;
  share_out(lead, tables.rows, [&](std::int64_t i) { memory_.moves.assignment[i] = dual.rounded[i]; });
  lead.sync();
  return true;
}

}  // namespace graphmatch
