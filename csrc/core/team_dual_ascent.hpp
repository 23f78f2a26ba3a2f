// Dual ascent on a Lawler problem by a team (team.hpp): decomposition, messages and certificate of dual_ascent.hpp.
//
// An iteration updates all pairs at once, a group of the team each: pairs only add to the costs of their rows, so that
// none waits for another. What the pairs left of the unary costs is then summed anew, over the pairs of each row in
// ascending order, so that neither the team's size nor its speed shows in it. The assignment block is solved by one
// group while the others wait.
//
// Per iteration O(pairs columns^2) additions and minima and a linear assignment.
// Source: as dual_ascent.hpp.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/arena.hpp"
#include "core/barrier.hpp"
#include "core/dual_state.hpp"
#include "core/team_lap.hpp"
#include "core/team_pair_tables.hpp"

namespace graphmatch {

struct TeamDualAscent {
  // Of the two ends of each pair (TeamPairTables): end 2 pair is its first row, end 2 pair + 1 its second one.
  float* messages;             // ends x columns, kBarrier at labels that do not exist
  float* unmatched;            // ends: of the unmatched label
  double* magnitude;           // ends: the largest |message|, for the certificate
  float* remaining;            // rows x columns: unary - messages, +infinity where forbidden
  float* near;                 // the same in fast memory, for the assignment block; null = there is none
  float* unmatched_remaining;  // rows: the same of the unmatched label
  std::int32_t* favourite;     // rows: the column that is cheapest at the potentials, -1 = all are forbidden
  float* favourite_cost;       // rows: what is left of its costs there
  float* potentials;           // columns: duals of the assignment block
  std::int32_t* rounded;       // rows: the matching of the last assignment block

  GRAPHMATCH_HOST_DEVICE void place(Arena& arena, std::int64_t most_rows, std::int64_t most_columns,
                                    std::int64_t most_pairs) {
    messages = arena.take<float>(2 * most_pairs * most_columns);
    unmatched = arena.take<float>(2 * most_pairs);
    magnitude = arena.take<double>(2 * most_pairs);
    remaining = arena.take<float>(most_rows * most_columns);
    near = nullptr;
    unmatched_remaining = arena.take<float>(most_rows);
    favourite = arena.take<std::int32_t>(most_rows);
    favourite_cost = arena.take<float>(most_rows);
    potentials = arena.take<float>(most_columns);
    rounded = arena.take<std::int32_t>(most_rows);
  }

  // Zero messages, or stored ones: duals of any problem are feasible for all. Returns whether there were any that fit.
  template <class Team>
  GRAPHMATCH_HOST_DEVICE bool start(Team& team, const TeamPairTables& tables, const DualState& warm);
  template <class Team>
  GRAPHMATCH_HOST_DEVICE void save(Team& team, const TeamPairTables& tables, const DualState& state) const;

  // Passes messages over all pairs and sums up what remains of the unary costs.
  template <class Team>
  GRAPHMATCH_HOST_DEVICE void pass_messages(Team& team, const TeamPairTables& tables);

  // Copies what the assignment block reads again and again to fast memory, if there is any.
  template <class Team>
  GRAPHMATCH_HOST_DEVICE void bring_near(Team& team, const TeamPairTables& tables) const {
    if (near == nullptr) return;
    share_out(team, static_cast<std::int64_t>(tables.rows) * tables.columns,
              [&](std::int64_t cell) { near[cell] = remaining[cell]; });
    team.sync();
  }

  // Solves the assignment block: matching, potentials, and the bound as float arithmetic sees it, in stored units.
  // False where no matching exists. For one group of the team. `changed`: what remains is not what the messages left.
  template <class Group>
  GRAPHMATCH_HOST_DEVICE_CALL bool assign(Group& group, const TeamPairTables& tables,
                                          const TeamLapMemory<float>& memory, bool changed, double& bound);

  // A lower bound in stored units that holds whatever rounding the messages suffered: re-evaluated in double from the
  // messages alone, less all errors. Every member gets it.
  template <class Team>
  GRAPHMATCH_HOST_DEVICE_CALL double certified_bound(Team& team, const TeamPairTables& tables) const;

 private:
  template <class Group>
  GRAPHMATCH_HOST_DEVICE void update_pair(Group& group, const TeamPairTables& tables, std::int32_t pair);
  template <class Team>
  GRAPHMATCH_HOST_DEVICE void sum_remaining(Team& team, const TeamPairTables& tables);
  // Whether the assignment block starts from the potentials.
  GRAPHMATCH_HOST_DEVICE static bool keeps_potentials(const TeamPairTables& tables) {
    return tables.complete && tables.rows == tables.columns;
  }
};

namespace team_dual {

inline constexpr float kLargestDual = 1e3f;    // taken from an earlier solve, in stored units
inline constexpr float kRoundedSum = 2.4e-7f;  // more than the relative error of a float sum, and of its own use

// One node of a pair during its update.
struct Side {
  const float* remaining;  // of its row
  float unmatched_remaining;
  float share;  // of the row's remaining costs that this pair gets
  float* message;
  float unmatched;  // message of the unmatched label; every member has a copy
};

// Takes the pair's share of what is left of the row's costs.
template <class Group>
GRAPHMATCH_HOST_DEVICE void spread(Group& group, const Side& side, const float* potentials, std::int32_t columns) {
  share_out(group, columns, [&](std::int64_t k) {
    const float left = side.remaining[k];
    if (left < kBarrierTest) side.message[k] += (left - potentials[k]) * side.share;
  });
}

// Hands back `share` of the min-marginals of one side's labels. `table` is [partner's label][own label]. Members look
// at two labels at a time, for more loads on their way.
template <class Group>
GRAPHMATCH_HOST_DEVICE void push(Group& group, const float* table, std::int32_t columns, Side& side,
                                 const Side& partner, float share) {
  const auto size = static_cast<std::int32_t>(group.size());
  float unmatched_best = partner.unmatched;  // the unmatched label costs nothing beside any label
  for (auto k = static_cast<std::int32_t>(group.rank()); k < columns; k += 2 * size) {
    const std::int32_t next = k + size < columns ? k + size : k;
    float best = partner.unmatched, next_best = partner.unmatched;
    GRAPHMATCH_UNROLL(16)
    for (std::int32_t l = 0; l < columns; ++l) {
      const float message = partner.message[l];
      best = fminf(best, table[l * columns + k] + message);
      next_best = fminf(next_best, table[l * columns + next] + message);
      unmatched_best = fminf(unmatched_best, message);
    }
    side.message[k] -= share * finite_or_zero(side.message[k] + best);
    if (next != k) side.message[next] -= share * finite_or_zero(side.message[next] + next_best);
  }
  // Members without a label of their own do not know better: nothing they write depends on it.
  side.unmatched -= share * finite_or_zero(side.unmatched + unmatched_best);
}

}  // namespace team_dual

template <class Team>
GRAPHMATCH_HOST_DEVICE bool TeamDualAscent::start(Team& team, const TeamPairTables& tables, const DualState& warm) {
  const std::int32_t columns = tables.columns;
  const bool is_warm = warm.scale != nullptr && *warm.scale > 0.0 && *warm.scale < static_cast<double>(INFINITY) &&
                       tables.pair_count <= warm.pair_capacity && columns <= warm.columns;
  const float factor = is_warm ? static_cast<float>(*warm.scale / tables.scale) : 0.0f;
  // Duals far larger than the costs only cost digits.
  auto taken = [factor](float stored) {
    const float value = stored * factor;
    return fabsf(value) < team_dual::kLargestDual ? value : 0.0f;
  };
  auto& group = team.group();
  const float none = tables.has_unmatched_label() ? 0.0f : kBarrier;
  for (std::int64_t end = team.group_index(); end < 2 * tables.pair_count; end += team.group_count()) {
    const std::int64_t pair = end / 2;
    const std::int32_t row = end % 2 == 0 ? tables.first[pair] : tables.second[pair];
    const float* const stored = is_warm ? warm.messages + end * (warm.columns + 1) : nullptr;
    float* const message = messages + end * columns;
    share_out(group, columns, [&](std::int64_t k) {
      const bool exists = tables.allowed(row, static_cast<std::int32_t>(k));
      message[k] = !exists ? kBarrier : is_warm ? taken(stored[k]) : 0.0f;
    });
    if (group.rank() == 0) {
      unmatched[end] = is_warm && none < kBarrierTest ? taken(stored[warm.columns]) : none;
    }
  }
  const bool may_stay_free = !tables.complete || tables.rows < columns;
  share_out(team, columns, [&](std::int64_t k) {
    const float dual = is_warm ? taken(warm.potentials[k]) : 0.0f;
    potentials[k] = may_stay_free ? fminf(dual, 0.0f) : dual;
  });
  team.sync();
  sum_remaining(team, tables);
  team.sync();
  return is_warm;
}

template <class Team>
GRAPHMATCH_HOST_DEVICE void TeamDualAscent::save(Team& team, const TeamPairTables& tables,
                                                 const DualState& state) const {
  if (state.scale == nullptr) return;
  const bool fits = tables.pair_count <= state.pair_capacity;
  if (team.rank() == 0) *state.scale = fits ? tables.scale : 0.0;
  if (!fits) return;
  const std::int32_t columns = tables.columns;
  auto& group = team.group();
  for (std::int64_t end = team.group_index(); end < 2 * tables.pair_count; end += team.group_count()) {
    const float* message = messages + end * columns;
    float* stored = state.messages + end * (state.columns + 1);
    share_out(group, columns, [&](std::int64_t k) { stored[k] = finite_or_zero(message[k]); });
    if (group.rank() == 0) stored[state.columns] = finite_or_zero(unmatched[end]);
  }
  share_out(team, columns, [&](std::int64_t k) { state.potentials[k] = potentials[k]; });
}

template <class Team>
GRAPHMATCH_HOST_DEVICE void TeamDualAscent::pass_messages(Team& team, const TeamPairTables& tables) {
  auto& group = team.group();
  for (std::int64_t pair = team.group_index(); pair < tables.pair_count; pair += team.group_count()) {
    update_pair(group, tables, static_cast<std::int32_t>(pair));
  }
  team.sync();
  sum_remaining(team, tables);
  team.sync();
}

template <class Group>
GRAPHMATCH_HOST_DEVICE void TeamDualAscent::update_pair(Group& group, const TeamPairTables& tables, std::int32_t pair) {
  const std::int32_t columns = tables.columns;
  auto side = [&](std::int32_t row, std::int64_t end) {
    const float share = 1.0f / static_cast<float>(tables.degree[row]);
    return team_dual::Side{remaining + static_cast<std::int64_t>(row) * columns, unmatched_remaining[row], share,
                           messages + end * columns, unmatched[end] + unmatched_remaining[row] * share};
  };
  const std::int64_t own = 2 * static_cast<std::int64_t>(pair);
  team_dual::Side first = side(tables.first[pair], own);
  team_dual::Side second = side(tables.second[pair], own + 1);
  group.sync();  // all members have read the unmatched messages
  team_dual::spread(group, first, potentials, columns);
  team_dual::spread(group, second, potentials, columns);
  group.sync();
  team_dual::push(group, tables.transposed_of(pair), columns, first, second, 0.5f);
  group.sync();
  team_dual::push(group, tables.table_of(pair), columns, second, first, 1.0f);
  group.sync();
  team_dual::push(group, tables.transposed_of(pair), columns, first, second, 1.0f);
  if (group.rank() == 0) {
    unmatched[own] = first.unmatched;
    unmatched[own + 1] = second.unmatched;
  }
}

template <class Team>
GRAPHMATCH_HOST_DEVICE void TeamDualAscent::sum_remaining(Team& team, const TeamPairTables& tables) {
  const std::int32_t columns = tables.columns;
  auto& group = team.group();
  for (std::int64_t row = team.group_index(); row < tables.rows; row += team.group_count()) {
    const std::int32_t* ends = tables.row_ends + tables.row_begin[row];
    const std::int32_t degree = tables.degree[row];
    Found<float> cheapest{INFINITY, kNowhere};
    share_out(group, columns, [&](std::int64_t k) {
      float left = tables.unary[row * columns + k];
      if (left < kBarrierTest) {
        GRAPHMATCH_UNROLL(4)
        for (std::int32_t entry = 0; entry < degree; ++entry) {
          left -= messages[static_cast<std::int64_t>(ends[entry]) * columns + k];
        }
      } else {
        left = INFINITY;
      }
      remaining[row * columns + k] = left;
      const float reduced = keeps_potentials(tables) ? left - potentials[k] : left;
      if (reduced < cheapest.value) cheapest = {reduced, static_cast<std::int32_t>(k)};
    });
    cheapest = group.argmin(cheapest.value, cheapest.index);
    if (group.rank() == 0) {
      favourite[row] = cheapest.index == kNowhere ? -1 : cheapest.index;
      favourite_cost[row] = cheapest.value;
      float left = 0.0f;
      if (tables.has_unmatched_label()) {
        left = static_cast<float>(tables.unmatched_cost);
        for (std::int32_t entry = 0; entry < degree; ++entry) left -= unmatched[ends[entry]];
      }
      unmatched_remaining[row] = left;
    }
  }
}

template <class Group>
GRAPHMATCH_HOST_DEVICE_CALL bool TeamDualAscent::assign(Group& group, const TeamPairTables& tables,
                                                        const TeamLapMemory<float>& memory, bool changed,
                                                        double& bound) {
  const std::int32_t rows = tables.rows, columns = tables.columns;
  // Complete matchings of more rows than columns match every column. Transposed, the rest stays unmatched: a match is
  // priced by what it adds to that.
  const bool transposed = tables.complete && rows > columns;
  const bool warm = keeps_potentials(tables);
  const float* const costs = near == nullptr ? remaining : near;
  const float* const offsets = transposed ? unmatched_remaining : nullptr;
  const std::int32_t row_step = transposed ? 1 : columns, column_step = transposed ? columns : 1;
  const auto cost = [=](std::int32_t i, std::int32_t k) {
    const float left = costs[i * row_step + k * column_step];
    return offsets == nullptr ? left : left - offsets[k];
  };
  share_out(group, columns, [&](std::int64_t k) {
    if (warm) memory.v[k] = potentials[k];
  });
  group.sync();
  TeamLapStart<float> start;
  start.warm = warm;
  if (!transposed && !changed) start.favourite = favourite, start.favourite_cost = favourite_cost;
  const bool feasible = team_lap<float>(group, transposed ? columns : rows, transposed ? rows : columns, cost,
                                        tables.complete ? nullptr : unmatched_remaining, start, memory);
  bound = 0.0;
  if (!feasible) return false;
  const float* column_duals = transposed ? memory.u : memory.v;
  const float* row_duals = transposed ? memory.v : memory.u;
  const std::int32_t* column_of = transposed ? memory.row_of : memory.column_of;
  double sum = 0.0;
  share_out(group, columns, [&](std::int64_t k) {
    sum += static_cast<double>(column_duals[k]);
    potentials[k] = column_duals[k];
  });
  share_out(group, rows, [&](std::int64_t i) {
    sum += static_cast<double>(row_duals[i]);
    if (transposed) sum += static_cast<double>(unmatched_remaining[i]);
    rounded[i] = column_of[i];
  });
  bound = group.reduce_sum(sum);
  group.sync();
  return true;
}

template <class Team>
GRAPHMATCH_HOST_DEVICE_CALL double TeamDualAscent::certified_bound(Team& team, const TeamPairTables& tables) const {
  constexpr double kEpsilon = 2.220446049250313e-16;
  const std::int32_t rows = tables.rows, columns = tables.columns;
  auto& group = team.group();
  double bound = 0.0, terms_size = 0.0, error = 0.0;  // errors in units of the machine precision
  for (std::int64_t pair = team.group_index(); pair < tables.pair_count; pair += team.group_count()) {
    const float* table = tables.table_of(static_cast<std::int32_t>(pair));
    const float* a = messages + 2 * pair * columns;
    const float* b = a + columns;
    const double a_unmatched = static_cast<double>(unmatched[2 * pair]);
    const double b_unmatched = static_cast<double>(unmatched[2 * pair + 1]);
    double lowest = a_unmatched + b_unmatched;
    double size_first = a_unmatched < static_cast<double>(kBarrierTest) ? fabs(a_unmatched) : 0.0;
    double size_second = b_unmatched < static_cast<double>(kBarrierTest) ? fabs(b_unmatched) : 0.0;
    share_out(group, columns, [&](std::int64_t l) {
      // Sums in float say which of the exact ones may be the lowest.
      float lowest_sum = INFINITY;
      GRAPHMATCH_UNROLL(16)
      for (std::int32_t k = 0; k < columns; ++k) lowest_sum = fminf(lowest_sum, table[k * columns + l] + a[k]);
      const float within = lowest_sum + team_dual::kRoundedSum * fabsf(lowest_sum);
      double best = a_unmatched;
      GRAPHMATCH_UNROLL(8)
      for (std::int32_t k = 0; k < columns; ++k) {
        const float cost = table[k * columns + l], message = a[k], sum = cost + message;
        if (sum - team_dual::kRoundedSum * fabsf(sum) > within) continue;
        best = fmin(best, static_cast<double>(cost) + static_cast<double>(message));
      }
      lowest = fmin(lowest, fmin(best + static_cast<double>(b[l]), static_cast<double>(a[l]) + b_unmatched));
      if (a[l] < kBarrierTest) size_first = fmax(size_first, fabs(static_cast<double>(a[l])));
      if (b[l] < kBarrierTest) size_second = fmax(size_second, fabs(static_cast<double>(b[l])));
    });
    lowest = group.reduce_min(lowest);
    size_first = group.reduce_max(size_first);
    size_second = group.reduce_max(size_second);
    if (group.rank() != 0) continue;
    bound += lowest - tables.pair_error[pair];
    terms_size += fabs(lowest) + tables.pair_error[pair];
    error += 2.0 * (fabs(lowest) + 2.0 * (size_first + size_second));
    magnitude[2 * pair] = size_first;
    magnitude[2 * pair + 1] = size_second;
  }
  team.sync();

  // Any column duals give a bound, if those of columns that may stay free are not positive.
  const bool may_stay_free = !tables.complete || rows < columns;
  auto column_dual = [&](std::int64_t k) {
    const double dual = static_cast<double>(potentials[k]);
    return may_stay_free ? fmin(dual, 0.0) : dual;
  };
  share_out(team, columns, [&](std::int64_t k) {
    bound += column_dual(k);
    terms_size += fabs(column_dual(k));
  });
  for (std::int64_t row = team.group_index(); row < rows; row += team.group_count()) {
    const std::int32_t* ends = tables.row_ends + tables.row_begin[row];
    const std::int32_t degree = tables.degree[row];
    double lowest = INFINITY, largest = fabs(tables.unmatched_cost);
    share_out(group, columns, [&](std::int64_t k) {
      double left = static_cast<double>(tables.unary[row * columns + k]);
      if (left >= static_cast<double>(kBarrierTest)) return;
      largest = fmax(largest, fabs(left));
      GRAPHMATCH_UNROLL(4)
      for (std::int32_t entry = 0; entry < degree; ++entry) {
        left -= static_cast<double>(messages[static_cast<std::int64_t>(ends[entry]) * columns + k]);
      }
      lowest = fmin(lowest, left - column_dual(k));
    });
    double partial_sums = group.reduce_max(largest);
    if (tables.has_unmatched_label()) {
      double left = tables.unmatched_cost;
      for (std::int32_t entry = 0; entry < degree; ++entry) left -= static_cast<double>(unmatched[ends[entry]]);
      lowest = fmin(lowest, left);
    }
    lowest = group.reduce_min(lowest);
    if (group.rank() != 0) continue;
    GRAPHMATCH_UNROLL(4)
    for (std::int32_t entry = 0; entry < degree; ++entry) partial_sums += magnitude[ends[entry]];
    bound += lowest;
    terms_size += fabs(lowest);
    error += static_cast<double>(degree + 2) * (partial_sums + fabs(lowest));
  }
  bound = team.reduce_sum(bound);
  terms_size = team.reduce_sum(terms_size);
  error = team.reduce_sum(error);
  const double unary = static_cast<double>(rows < columns ? rows : columns) * tables.unary_error;
  // Whatever the order of the sums, each addition errs by at most the precision times the sum of all magnitudes.
  const double terms = static_cast<double>(tables.pair_count) * 2.0 + rows + columns + 4.0;
  return bound - unary - kEpsilon * (error + terms * (terms_size + unary));
}

}  // namespace graphmatch
