// A matching with the price of every move away from it, kept up to date by a team (team.hpp): what move_table.hpp is
// for a thread, with the same moves.
//
// gain[i][k] = unary[i, k] + cost of i -> k against the present columns of i's neighbours. A step prices all moves
// from the gains, O(rows^2 + rows columns) of a few additions each, and updates the gains of the moved rows'
// neighbours, O(degree columns); both shared out, with three barriers. What two neighbours pay each other is kept per
// pair of rows, so that pricing reads nothing but what lies here: some 8 rows (rows + columns) bytes, best placed in
// shared memory. Nothing depends on the size of the team.
#pragma once

#include <cstdint>

#include "core/arena.hpp"
#include "core/barrier.hpp"
#include "core/team.hpp"
#include "core/team_pair_tables.hpp"

namespace graphmatch {

// `row` goes to column `to`; `other`, unless -1, to `others_to`. Columns of -1 = unmatched.
struct TeamMove {
  float delta = 0.0f;
  std::int32_t row = -1, from = -1, to = -1;
  std::int32_t other = -1, others_from = -1, others_to = -1;

  // Of any row, before `assignment` is written.
  GRAPHMATCH_HOST_DEVICE std::int32_t column_after(std::int32_t any_row, const std::int32_t* assignment) const {
    return any_row == row ? to : any_row == other ? others_to : assignment[any_row];
  }
};

struct TeamMoveTable {
  std::int32_t* assignment;  // rows: the present matching, -1 = unmatched; feasible
  float* gain;               // rows x stride(columns)
  float* current;            // rows: gain of the present column
  float* exchanged;          // rows x rows, i > j: what i and j pay each other now and would pay after a swap
  float* paid;               // rows x rows, i > j: what they pay each other now
  std::int32_t* taken;       // columns: 1 = some row has it
  std::int32_t* expiry;      // rows x stride(columns + 1): step until which a row may not return to a column; -1 first

  GRAPHMATCH_HOST_DEVICE void place(Arena& arena, std::int64_t most_rows, std::int64_t most_columns) {
    assignment = arena.take<std::int32_t>(most_rows);
    current = arena.take<float>(most_rows);
    taken = arena.take<std::int32_t>(most_columns);
    gain = arena.take<float>(most_rows * stride(most_columns));
    exchanged = arena.take<float>(most_rows * most_rows);
    paid = arena.take<float>(most_rows * most_rows);
    expiry = arena.take<std::int32_t>(most_rows * stride(most_columns + 1));
  }

  // Prices the moves away from `assignment`, and forgets what was forbidden.
  template <class Team>
  GRAPHMATCH_HOST_DEVICE_CALL void load(Team& team, const TeamPairTables& tables);

  // The cheapest move that is allowed at `step`, or any that changes the cost by less than `aspiration`. Its row is -1
  // when there is none below `limit`.
  template <class Team>
  GRAPHMATCH_HOST_DEVICE TeamMove best_move(Team& team, const TeamPairTables& tables, std::int32_t step,
                                            float aspiration, float limit) const;

  // Makes the move, and forbids its rows to return to the columns they left until step `until` (0 = they may).
  template <class Team>
  GRAPHMATCH_HOST_DEVICE void apply(Team& team, const TeamPairTables& tables, const TeamMove& move, std::int32_t until);

 private:
  // Odd, so that neither rows nor columns collide in banks of shared memory.
  GRAPHMATCH_HOST_DEVICE static constexpr std::int64_t stride(std::int64_t columns) { return columns | 1; }

  // What row -> column costs a neighbour, by the neighbour's columns; anything for -1.
  GRAPHMATCH_HOST_DEVICE static const float* costs_of(const TeamPairTables& tables, std::int32_t pair, std::int32_t row,
                                                      std::int32_t column) {
    const float* costs = tables.first[pair] == row ? tables.table_of(pair) : tables.transposed_of(pair);
    return costs + (column < 0 ? 0 : column) * tables.columns;
  }
  // Column k of the costs of row -> column. Two rows on one column are no matching; they count as strangers there.
  GRAPHMATCH_HOST_DEVICE static float cost_at(const float* costs, std::int32_t column, std::int32_t k) {
    const float cost = costs[k];  // read in any case: reads that wait for no condition overlap
    return column >= 0 && column != k ? cost : 0.0f;
  }
  GRAPHMATCH_HOST_DEVICE void price_pair(const TeamPairTables& tables, std::int32_t pair, std::int32_t i,
                                         std::int32_t j, std::int32_t k, std::int32_t l) {
    const bool matched = k >= 0 && l >= 0;
    const float now = matched ? tables.cost(pair, i, k, l) : 0.0f;
    const float then = matched ? tables.cost(pair, i, l, k) : 0.0f;
    const std::int32_t at = i > j ? i * tables.rows + j : j * tables.rows + i;
    paid[at] = now;
    exchanged[at] = now + then;
  }
  GRAPHMATCH_HOST_DEVICE TeamMove decode(const TeamPairTables& tables, const Found<float>& found) const;
};

template <class Team>
GRAPHMATCH_HOST_DEVICE_CALL void TeamMoveTable::load(Team& team, const TeamPairTables& tables) {
  const std::int32_t rows = tables.rows, columns = tables.columns;
  const auto width = static_cast<std::int32_t>(stride(columns));
  auto& group = team.group();
  for (auto i = static_cast<std::int32_t>(team.group_index()); i < rows; i += team.group_count()) {
    share_out(group, columns, [&](std::int64_t at) {
      const auto k = static_cast<std::int32_t>(at);
      float sum = tables.unary[i * columns + k];
      for (std::int32_t entry = tables.row_begin[i]; entry < tables.row_begin[i] + tables.degree[i]; ++entry) {
        const std::int32_t pair = tables.incident[entry];
        const std::int32_t neighbour = tables.first[pair] + tables.second[pair] - i;
        const std::int32_t column = assignment[neighbour];
        sum += cost_at(costs_of(tables, pair, neighbour, column), column, k);
      }
      gain[i * width + k] = sum;
    });
  }
  share_out(team, static_cast<std::int64_t>(rows) * rows, [&](std::int64_t at) { exchanged[at] = paid[at] = 0.0f; });
  share_out(team, rows * stride(columns + 1), [&](std::int64_t at) { expiry[at] = 0; });
  share_out(team, columns, [&](std::int64_t k) { taken[k] = 0; });
  team.sync();
  share_out(team, rows, [&](std::int64_t i) {
    const std::int32_t column = assignment[i];
    current[i] = column < 0 ? static_cast<float>(tables.unmatched_cost) : gain[i * width + column];
    if (column >= 0) taken[column] = 1;
  });
  share_out(team, tables.pair_count, [&](std::int64_t at) {
    const auto pair = static_cast<std::int32_t>(at);
    const std::int32_t i = tables.first[pair], j = tables.second[pair];
    price_pair(tables, pair, i, j, assignment[i], assignment[j]);
  });
  team.sync();
}

// Moves are numbered in the order of their rows, those of a row: swaps, evictions, free columns, none.
template <class Team>
GRAPHMATCH_HOST_DEVICE TeamMove TeamMoveTable::best_move(Team& team, const TeamPairTables& tables, std::int32_t step,
                                                         float aspiration, float limit) const {
  const std::int32_t rows = tables.rows, columns = tables.columns, moves = 2 * rows + columns + 1;
  const auto width = static_cast<std::int32_t>(stride(columns));
  const auto expiry_width = static_cast<std::int32_t>(stride(columns + 1));
  const bool partial = !tables.complete;
  const float unmatched = static_cast<float>(tables.unmatched_cost);
  auto may = [&](std::int32_t row, std::int32_t column) { return expiry[row * expiry_width + column + 1] <= step; };
  Found<float> found{limit, -1};
  // A new best matching may break the rules; whatever leads to one is then cheaper than all else.
  auto offer = [&](float price, std::int32_t index, const auto& is_allowed) {
    if (price > found.value || (price == found.value && index >= found.index)) return;
    if (price < aspiration || is_allowed()) found = {price, index};
  };
  auto& group = team.group();
  const auto lane = static_cast<std::int32_t>(group.rank()), lanes = static_cast<std::int32_t>(group.size());
  const auto first_row = static_cast<std::int32_t>(team.group_index());
  const auto row_step = static_cast<std::int32_t>(team.group_count());

  constexpr std::int32_t kBatch = 4;  // rows whose numbers are on their way together
  for (std::int32_t j = lane; j < rows; j += lanes) {
    const std::int32_t l = assignment[j];
    const float others = current[j];
    const std::int32_t start = first_row + (j - lane) / row_step * row_step;  // rows before are not above j
    for (std::int32_t batch = start; batch < rows; batch += kBatch * row_step) {
      float at_others[kBatch], at_own[kBatch], swapped[kBatch], paid_now[kBatch], lost[kBatch];
      std::int32_t left[kBatch];
      for (std::int32_t b = 0; b < kBatch; ++b) {
        const std::int32_t i = batch + b * row_step < rows ? batch + b * row_step : rows - 1;
        left[b] = assignment[i];
        at_others[b] = gain[i * width + (l < 0 ? 0 : l)];
        at_own[b] = gain[j * width + (left[b] < 0 ? 0 : left[b])];
        swapped[b] = exchanged[i * rows + j];
        paid_now[b] = partial ? paid[i * rows + j] : 0.0f;
        lost[b] = current[i] + others;
      }
      for (std::int32_t b = 0; b < kBatch; ++b) {
        const std::int32_t i = batch + b * row_step, k = left[b];
        if (i <= j || i >= rows || (k < 0 && l < 0)) continue;
        offer((l < 0 ? unmatched : at_others[b]) + (k < 0 ? unmatched : at_own[b]) + swapped[b] - lost[b],
              i * moves + j, [&] { return may(i, l) || may(j, k); });
        if (!partial) continue;
        const float evicted = unmatched + paid_now[b] - lost[b];
        if (l >= 0) offer(at_others[b] + evicted, i * moves + rows + j, [&] { return may(i, l); });
        if (k >= 0) offer(at_own[b] + evicted, j * moves + rows + i, [&] { return may(j, k); });
      }
    }
  }
  for (std::int32_t k = lane; (partial || columns > rows) && k < columns; k += lanes) {
    if (taken[k] != 0) continue;
    for (std::int32_t i = first_row; i < rows; i += row_step) {
      offer(gain[i * width + k] - current[i], i * moves + 2 * rows + k, [&] { return may(i, k); });
    }
  }
  if (partial) {
    for (auto i = static_cast<std::int32_t>(team.rank()); i < rows; i += static_cast<std::int32_t>(team.size())) {
      if (assignment[i] < 0) continue;
      offer(unmatched - current[i], i * moves + 2 * rows + columns, [&] { return may(i, -1); });
    }
  }
  return decode(tables, team.argmin(found.value, found.index < 0 ? kNowhere : found.index));
}

GRAPHMATCH_HOST_DEVICE inline TeamMove TeamMoveTable::decode(const TeamPairTables& tables,
                                                             const Found<float>& found) const {
  TeamMove move;
  if (found.index == kNowhere) return move;
  const std::int32_t rows = tables.rows, columns = tables.columns, moves = 2 * rows + columns + 1;
  const std::int32_t kind = found.index % moves;
  move.delta = found.value;
  move.row = found.index / moves;
  move.from = assignment[move.row];
  if (kind < 2 * rows) {
    move.other = kind < rows ? kind : kind - rows;
    move.others_from = move.to = assignment[move.other];
    move.others_to = kind < rows ? move.from : -1;
  } else if (kind < 2 * rows + columns) {
    move.to = kind - 2 * rows;
  }
  return move;
}

template <class Team>
GRAPHMATCH_HOST_DEVICE void TeamMoveTable::apply(Team& team, const TeamPairTables& tables, const TeamMove& move,
                                                 std::int32_t until) {
  team.sync();  // all members know the columns that are left
  const std::int32_t rows = tables.rows, columns = tables.columns;
  const auto width = static_cast<std::int32_t>(stride(columns));
  const std::int32_t i = move.row, j = move.other;
  const std::int32_t own_pairs = tables.degree[i], pairs = own_pairs + (j < 0 ? 0 : tables.degree[j]);
  auto pair_at = [&](std::int32_t at) {
    return tables.incident[at < own_pairs ? tables.row_begin[i] + at : tables.row_begin[j] + at - own_pairs];
  };

  // Gains of the neighbours, each by one group; the neighbours of both rows are visited for the first one.
  auto& group = team.group();
  for (auto at = static_cast<std::int32_t>(team.group_index()); at < pairs;
       at += static_cast<std::int32_t>(team.group_count())) {
    const bool of_first = at < own_pairs;
    const std::int32_t pair = pair_at(at), row = of_first ? i : j;
    const std::int32_t neighbour = tables.first[pair] + tables.second[pair] - row;
    std::int32_t both = -1;
    if (!of_first && tables.pair_of[neighbour * rows + i] >= 0) continue;
    if (of_first && j >= 0) both = tables.pair_of[neighbour * rows + j];
    const std::int32_t from = of_first ? move.from : move.others_from, to = of_first ? move.to : move.others_to;
    const float* before = costs_of(tables, pair, row, from);
    const float* after = costs_of(tables, pair, row, to);
    const float* others_before = both < 0 ? before : costs_of(tables, both, j, move.others_from);
    const float* others_after = both < 0 ? after : costs_of(tables, both, j, move.others_to);
    const std::int32_t column = move.column_after(neighbour, assignment);
    float* gains = gain + neighbour * width;
    for (auto k = static_cast<std::int32_t>(group.rank()); k < columns; k += static_cast<std::int32_t>(group.size())) {
      const float change = cost_at(after, to, k) - cost_at(before, from, k);
      const float others_change =
          cost_at(others_after, move.others_to, k) - cost_at(others_before, move.others_from, k);
      const float sum = gains[k] + (change + (both < 0 ? 0.0f : others_change));
      gains[k] = sum;
      if (k == column) current[neighbour] = sum;
    }
  }
  // The last members have had the least to do.
  for (auto at = static_cast<std::int32_t>(team.size() - 1 - team.rank()); at < pairs;
       at += static_cast<std::int32_t>(team.size())) {
    const std::int32_t pair = pair_at(at), row = at < own_pairs ? i : j;
    const std::int32_t neighbour = tables.first[pair] + tables.second[pair] - row;
    if (row == j && neighbour == i) continue;
    price_pair(tables, pair, row, neighbour, row == i ? move.to : move.others_to,
               move.column_after(neighbour, assignment));
  }
  if (team.rank() == 0) {
    const bool strangers = j < 0 || tables.pair_of[i * rows + j] < 0;
    if (move.from >= 0) taken[move.from] = 0;
    if (j >= 0 && move.others_from >= 0) taken[move.others_from] = 0;
    auto settle = [&](std::int32_t row, std::int32_t from, std::int32_t to) {
      assignment[row] = to;
      if (to >= 0) taken[to] = 1;
      if (to < 0) {
        current[row] = static_cast<float>(tables.unmatched_cost);
      } else if (strangers) {
        current[row] = gain[row * width + to];
      }
      if (until > 0) expiry[row * stride(columns + 1) + from + 1] = until;
    };
    settle(i, move.from, move.to);
    if (j >= 0) settle(j, move.others_from, move.others_to);
  }
  team.sync();
}

}  // namespace graphmatch
