// Local search and robust tabu search by a team (team.hpp) on folded Lawler costs: what tabu_search.hpp is for a
// thread, by the same rules.
//
// Source: E. Taillard, "Robust taboo search for the quadratic assignment problem", Parallel Computing 17 (1991).
#pragma once

#include <cstdint>

#include "core/random.hpp"
#include "core/team_move_table.hpp"

namespace graphmatch {

namespace team_moves {

// Differences below this are rounding of float gains (costs have unit size).
inline constexpr float kNoise = 1e-6f;

// Gains are summed up move by move; from time to time they are computed afresh.
inline constexpr std::int64_t kRefresh = 4096;

}  // namespace team_moves

struct TeamMoves : TeamMoveTable {
  std::int32_t* best;  // rows: best matching of the last run

  GRAPHMATCH_HOST_DEVICE void place(Arena& arena, std::int64_t most_rows, std::int64_t most_columns) {
    TeamMoveTable::place(arena, most_rows, most_columns);
    best = arena.take<std::int32_t>(most_rows);
  }

  // From `assignment`, the steepest move until none improves. All members call evaluate(const std::int32_t*) together
  // and get the exact cost in stored units. Returns the value of `best` to every member.
  template <class Team, class Evaluate>
  GRAPHMATCH_HOST_DEVICE double descend(Team& team, const TeamPairTables& tables, const Evaluate& evaluate) {
    bool moved;
    const double value = descend(team, tables, evaluate, moved);
    team.sync();
    return value;
  }

  // The same, then up to `steps` moves of robust tabu search; ends early after `patience` steps without a new best of
  // this run or when that is below `goal`. Members have copies of one generator.
  template <class Team, class Evaluate>
  GRAPHMATCH_HOST_DEVICE double search(Team& team, const TeamPairTables& tables, std::int64_t steps,
                                       std::int64_t patience, double goal, Random& random, const Evaluate& evaluate);

 private:
  template <class Team>
  GRAPHMATCH_HOST_DEVICE void copy(const Team& team, std::int64_t count, const std::int32_t* from,
                                   std::int32_t* to) const {
    share_out(team, count, [&](std::int64_t i) { to[i] = from[i]; });
  }
  template <class Team, class Evaluate>
  GRAPHMATCH_HOST_DEVICE_CALL double descend(Team& team, const TeamPairTables& tables, const Evaluate& evaluate,
                                             bool& moved);
};

template <class Team, class Evaluate>
GRAPHMATCH_HOST_DEVICE_CALL double TeamMoves::descend(Team& team, const TeamPairTables& tables,
                                                      const Evaluate& evaluate, bool& moved) {
  moved = false;
  load(team, tables);
  copy(team, tables.rows, assignment, best);
  double best_value = evaluate(assignment);
  auto note_if_better = [&] {
    const double value = evaluate(assignment);
    if (!(value < best_value)) return false;
    best_value = value;
    copy(team, tables.rows, assignment, best);
    return true;
  };
  // Rounding of the gains can make a cycle of moves look like descent: the exact value must fall every so many steps.
  for (std::int32_t step = 1;; ++step) {
    const TeamMove move = best_move(team, tables, 0, 0.0f, -team_moves::kNoise);
    if (move.row < 0) break;
    moved = true;
    apply(team, tables, move, 0);
    if (step % tables.rows == 0 && !note_if_better()) break;
  }
  if (moved) note_if_better();
  return best_value;
}

template <class Team, class Evaluate>
GRAPHMATCH_HOST_DEVICE double TeamMoves::search(Team& team, const TeamPairTables& tables, std::int64_t steps,
                                                std::int64_t patience, double goal, Random& random,
                                                const Evaluate& evaluate) {
  const auto noise = static_cast<double>(team_moves::kNoise);
  bool moved;
  double best_value = descend(team, tables, evaluate, moved);
  if (moved) {
    team.sync();
    copy(team, tables.rows, best, assignment);
    team.sync();
    load(team, tables);
  }
  const std::int64_t smaller = tables.rows < tables.columns ? tables.rows : tables.columns;
  const std::int64_t size = smaller < 2 ? 2 : smaller;
  double value = best_value;  // of the present matching, as the gains see it
  std::int64_t last_improvement = 0, loaded = 0;
  for (std::int64_t step = 1; step <= steps && best_value > goal && step - last_improvement <= patience; ++step) {
    if (step - loaded >= team_moves::kRefresh) {
      load(team, tables);
      value = evaluate(assignment);
      loaded = step;
    }
    const auto now = static_cast<std::int32_t>(step - loaded);
    const auto tenure = static_cast<std::int32_t>(1 + size / 5 + random.below(size * 3 / 5 + 1));
    const float aspiration = static_cast<float>(best_value - value) - team_moves::kNoise;
    const TeamMove move = best_move(team, tables, now, aspiration, kBarrierTest);
    if (move.row < 0) continue;
    apply(team, tables, move, now + tenure);
    value += static_cast<double>(move.delta);
    if (!(value < best_value - noise)) continue;
    value = evaluate(assignment);
    if (value < best_value - noise) last_improvement = step;
    if (value < best_value) {
      best_value = value;
      copy(team, tables.rows, assignment, best);
    }
  }
  team.sync();
  return best_value;
}

// Random rows pass their columns round `strength` times, where that is allowed.
template <class Team>
GRAPHMATCH_HOST_DEVICE void perturb(Team& team, const TeamPairTables& tables, TeamMoves& moves, std::int64_t strength,
                                    Random& random) {
  team.sync();
  for (std::int64_t step = 0; step < strength && tables.rows > 0; ++step) {
    const auto i = static_cast<std::int32_t>(random.below(tables.rows));
    const auto j = static_cast<std::int32_t>(random.below(tables.rows));
    if (team.rank() != 0) continue;
    const std::int32_t k = moves.assignment[i], l = moves.assignment[j];
    if ((l >= 0 && !tables.allowed(i, l)) || (k >= 0 && !tables.allowed(j, k))) continue;
    moves.assignment[i] = l;
    moves.assignment[j] = k;
  }
  team.sync();
}

}  // namespace graphmatch
