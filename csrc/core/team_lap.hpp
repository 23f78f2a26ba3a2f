// Linear assignment by shortest augmenting paths, executed by a team (team.hpp).
//
// The algorithm and its vocabulary are those of lap.hpp: column reduction, bids, Dijkstra searches. Here the members
// share the columns of whatever row is looked at: member r owns the columns r, r + size, ... and alone writes their
// prices and distances. A step of a search is one pass over a row and one argmin, without another barrier.
// O(rows^2 * columns / size) worst case. Nothing is summed over the team: its size changes no bit of the answer.
//
// In rounded numbers prices never rise, so bids and searches end: at most kBidsInARow bids per row and round, and every
// step of a search takes a column out of it.
//
// Source: R. Jonker, A. Volgenant, "A shortest augmenting path algorithm for dense and sparse linear assignment
// problems", Computing 38 (1987).
#pragma once

#include <cmath>
#include <cstdint>

#include "core/arena.hpp"
#include "core/host_device.hpp"
#include "core/team.hpp"

namespace graphmatch {

// Memory of one problem: in shared memory on a GPU, where it fits.
template <class T>
struct TeamLapMemory {
  T* u;                        // of rows: duals (result)
  T* v;                        // of columns: prices (result; start if warm)
  T* distance;                 // of columns, from the row that is being searched for
  std::int32_t* previous_row;  // of columns: the row before it on the path
  std::int32_t* row_of;        // of columns: their row, -1 = free (result)
  std::int32_t* preference;    // of columns: their number, beyond all free ones if owned; kNowhere = scanned
  std::int32_t* column_of;     // of rows: their column, -1 = unmatched (result)
  std::int32_t* waiting;       // rows that still need a column

  GRAPHMATCH_HOST_DEVICE void place(Arena& arena, std::int64_t rows, std::int64_t columns) {
    u = arena.take<T>(rows);
    v = arena.take<T>(columns);
    distance = arena.take<T>(columns);
    previous_row = arena.take<std::int32_t>(columns);
    row_of = arena.take<std::int32_t>(columns);
    preference = arena.take<std::int32_t>(columns);
    column_of = arena.take<std::int32_t>(rows);
    waiting = arena.take<std::int32_t>(rows);
  }
  GRAPHMATCH_HOST_DEVICE static std::int64_t bytes(std::int64_t rows, std::int64_t columns) {
    Arena counter(nullptr);
    TeamLapMemory<T> memory;
    memory.place(counter, rows, columns);
    return counter.used();
  }
};

// Where a solve starts.
template <class T>
struct TeamLapStart {
  bool warm = false;                        // from the finite prices in memory.v; only if every column is needed
  const std::int32_t* favourite = nullptr;  // of rows: the column that is cheapest at these prices, else at none; -1 =
                                            // all are forbidden; null = not known
  const T* favourite_cost = nullptr;        // of rows: the reduced cost there
};

// One solve; see team_lap() below.
template <class T, class Costs, class Team>
class TeamLap {
 public:
  GRAPHMATCH_HOST_DEVICE TeamLap(Team& team, std::int32_t rows, std::int32_t columns, const Costs& costs,
                                 const T* unmatched, const TeamLapStart<T>& start, const TeamLapMemory<T>& memory)
      : team_(team), rows_(rows), columns_(columns), costs_(costs), unmatched_(unmatched), start_(start), m_(memory) {}

  GRAPHMATCH_HOST_DEVICE bool solve() {
    const bool square = rows_ == columns_ && unmatched_ == nullptr, warm = start_.warm && square;
    clear(warm);
    if (square && !warm) {
      reduce_columns();
      transfer_reductions();
    } else if (start_.favourite != nullptr) {
      take_favourites();
    }
    std::int32_t count = list_waiting();
    for (int round = 0; round < kBiddingRounds && count > 0; ++round) count = bid(count);
    for (std::int32_t k = 0; k < count; ++k) {
      if (!augment(m_.waiting[k])) return false;
    }
    share_out(team_, rows_, [&](std::int64_t i) {
      if (m_.column_of[i] >= 0) return;
      m_.column_of[i] = -1;
      m_.u[i] = unmatched_[i];
    });
    team_.sync();
    return true;
  }

 private:
  static constexpr std::int32_t kSettled = -2;  // of a row: it wants no column
  static constexpr int kBiddingRounds = 2;      // as in lap.cpp
  static constexpr int kBidsInARow = 6;

  GRAPHMATCH_HOST_DEVICE static constexpr T infinity() { return static_cast<T>(INFINITY); }
  GRAPHMATCH_HOST_DEVICE T cost(std::int64_t i, std::int64_t k) const {
    return costs_(static_cast<std::int32_t>(i), static_cast<std::int32_t>(k));
  }

  // Calls visit(k, cost) for this member's columns of a row. Several costs are on their way at once.
  template <class Visit>
  GRAPHMATCH_HOST_DEVICE void visit_row(std::int32_t row, const Visit& visit) const {
    const auto size = static_cast<std::int32_t>(team_.size());
    auto k = static_cast<std::int32_t>(team_.rank());
    for (; k + 3 * size < columns_; k += 4 * size) {
      const T costs[4] = {cost(row, k), cost(row, k + size), cost(row, k + 2 * size), cost(row, k + 3 * size)};
      for (int place = 0; place < 4; ++place) visit(k + place * size, costs[place]);
    }
    for (; k < columns_; k += 2 * size) {
      const bool both = k + size < columns_;
      const T first = cost(row, k), second = both ? cost(row, k + size) : infinity();
      visit(k, first);
      if (both) visit(k + size, second);
    }
  }

  GRAPHMATCH_HOST_DEVICE void match(std::int32_t row, std::int32_t column, T cost) const {
    m_.column_of[row] = column;
    m_.row_of[column] = row;
    m_.u[row] = cost - m_.v[column];
  }

  // Free columns come before owned ones, and lower before higher ones.
  GRAPHMATCH_HOST_DEVICE std::int32_t preference(std::int32_t column) const {
    return m_.row_of[column] < 0 ? column : columns_ + column;
  }

  GRAPHMATCH_HOST_DEVICE void clear(bool keep_prices) {
    share_out(team_, columns_, [&](std::int64_t k) {
      m_.row_of[k] = -1;
      if (!keep_prices) m_.v[k] = T(0);
    });
    share_out(team_, rows_, [&](std::int64_t i) { m_.column_of[i] = -1; });
    team_.sync();
  }

  // Prices are the lowest costs of the columns; a row takes the first column whose lowest cost it has. Leaves in
  // `waiting` how many columns have that in each row.
  GRAPHMATCH_HOST_DEVICE void reduce_columns() {
    share_out(team_, columns_, [&](std::int64_t k) {
      T lowest = infinity();
      std::int32_t row = -1;
      for (std::int32_t i = 0; i < rows_; ++i) {
        const T candidate = cost(i, k);
        if (candidate < lowest) {
          lowest = candidate;
          row = i;
        }
      }
      m_.v[k] = row < 0 ? T(0) : lowest;  // a forbidden column
      m_.previous_row[k] = row;
    });
    team_.sync();
    share_out(team_, rows_, [&](std::int64_t i) {
      std::int32_t chosen = 0;
      for (std::int32_t k = columns_ - 1; k >= 0; --k) {
        if (m_.previous_row[k] != i) continue;
        m_.column_of[i] = k;
        ++chosen;
      }
      m_.waiting[i] = chosen;
      if (chosen == 0) return;
      m_.row_of[m_.column_of[i]] = static_cast<std::int32_t>(i);
      m_.u[i] = T(0);
    });
    team_.sync();
  }

  // A row that took the only column it could pushes the price down by its margin over its second cheapest, all rows at
  // once: each measures its margin by the prices before.
  GRAPHMATCH_HOST_DEVICE void transfer_reductions() {
    auto& group = team_.group();
    for (std::int64_t i = team_.group_index(); i < rows_; i += team_.group_count()) {
      if (m_.waiting[i] != 1) continue;
      const std::int32_t own = m_.column_of[i];
      T second = infinity();
      share_out(group, columns_, [&](std::int64_t k) {
        const T reduced = cost(i, k) - m_.v[k];
        if (k != own && reduced < second) second = reduced;
      });
      second = group.reduce_min(second);
      if (group.rank() == 0) m_.u[i] = second;
    }
    team_.sync();
    share_out(team_, columns_, [&](std::int64_t k) {
      const std::int32_t row = m_.row_of[k];
      if (row < 0 || !(m_.u[row] > T(0))) return;
      const T own_cost = cost(row, k);
      const T lower = own_cost - m_.u[row];
      if (m_.u[row] < infinity() && lower < m_.v[k]) m_.v[k] = lower;
      m_.u[row] = own_cost - m_.v[k];
    });
    team_.sync();
  }

  // Every row asks for its favourite column, or for none where that is cheaper; a column goes to the first row that
  // asks.
  GRAPHMATCH_HOST_DEVICE void take_favourites() {
    share_out(team_, rows_, [&](std::int64_t i) {
      m_.u[i] = start_.favourite_cost[i];
      if (refusal(i) < m_.u[i]) m_.column_of[i] = kSettled;
    });
    team_.sync();
    share_out(team_, columns_, [&](std::int64_t k) {
      std::int32_t first = -1;
      GRAPHMATCH_UNROLL(8)
      for (std::int32_t i = rows_ - 1; i >= 0; --i) {
        if (start_.favourite[i] == k && m_.column_of[i] != kSettled) first = i;
      }
      if (first < 0) return;
      m_.row_of[k] = first;
      m_.column_of[first] = static_cast<std::int32_t>(k);
    });
    team_.sync();
  }

  GRAPHMATCH_HOST_DEVICE T refusal(std::int64_t row) const {
    return unmatched_ == nullptr ? infinity() : unmatched_[row];
  }

  // Lists the rows that want a column and have none in `waiting`, in order, and returns their number.
  GRAPHMATCH_HOST_DEVICE std::int32_t list_waiting() {
    std::int32_t count = 0;
    share_out(team_, rows_, [&](std::int64_t i) {
      if (m_.column_of[i] != -1) return;
      std::int32_t place = 0;
      GRAPHMATCH_UNROLL(8)
      for (std::int64_t before = 0; before < i; ++before) place += m_.column_of[before] == -1 ? 1 : 0;
      m_.waiting[place] = static_cast<std::int32_t>(i);
      count = place + 1;
    });
    count = team_.reduce_max(count);
    team_.sync();
    return count;
  }

  // Augmenting row reduction for the rows in `waiting`: returns how many remain there.
  GRAPHMATCH_HOST_DEVICE std::int32_t bid(std::int32_t count) {
    std::int32_t left = 0;
    for (std::int32_t k = 0; k < count; ++k) {
      std::int32_t row = m_.waiting[k];
      std::int32_t still_waiting = -1;
      for (int bids = 0; row >= 0; ++bids) {
        const std::int32_t loser = bid_once(row);
        const bool goes_on = loser != row && bids + 1 < kBidsInARow;
        if (!goes_on) still_waiting = loser;
        row = goes_on ? loser : -1;
      }
      if (still_waiting < 0) continue;
      team_.sync();  // all have read entry k, which may be the one that is written
      if (team_.rank() == 0) m_.waiting[left] = still_waiting;
      ++left;
    }
    team_.sync();
    return left;
  }

  // One row's bid. Returns the row that needs a column then: the owner it outbid, or the row itself if it has to leave
  // the matter to a search; -1 = none.
  GRAPHMATCH_HOST_DEVICE std::int32_t bid_once(std::int32_t row) {
    Found<T> own{infinity(), kNowhere};
    T own_second = infinity();
    visit_row(row, [&](std::int32_t k, T cost) {
      const T reduced = cost - m_.v[k];
      const std::int32_t index = preference(k);
      const bool wins = reduced < own.value || (reduced == own.value && reduced < infinity() && index < own.index);
      const T loser = wins ? own.value : reduced;
      own_second = loser < own_second ? loser : own_second;
      own.value = wins ? reduced : own.value;
      own.index = wins ? index : own.index;
    });
    const Found<T> best = team_.argmin(own.value, own.index);
    const bool wins = best.index != kNowhere && best.index == own.index;
    const T refused = refusal(row);
    T second = team_.reduce_min(wins ? own_second : own.value);
    if (refused < best.value) return -1;
    if (best.index == kNowhere) return row;
    second = refused < second ? refused : second;
    std::int32_t loser = -1;
    if (best.index < columns_) {
      if (wins) match(row, best.index, cost(row, best.index));
    } else {
      const std::int32_t column = best.index - columns_;
      const T price = m_.v[column] - (second - best.value);
      loser = m_.row_of[column];
      // In rounded numbers the price may not fall.
      if (!(second < infinity() && price < m_.v[column])) return row;
      team_.sync();
      if (wins) {
        m_.v[column] = price;
        m_.column_of[loser] = -1;
        match(row, column, cost(row, column));
      }
    }
    team_.sync();
    return loser;
  }

  // The search for one row. False where it has no finite path.
  GRAPHMATCH_HOST_DEVICE bool augment(std::int32_t start) {
    share_out(team_, columns_, [&](std::int64_t k) {
      m_.distance[k] = infinity();
      m_.preference[k] = preference(static_cast<std::int32_t>(k));
    });
    T reached = T(0);              // distance of the row that is scanned
    T offset = T(0);               // from its reduced costs to distances
    T exit_distance = infinity();  // cheapest way to leave a scanned row unmatched
    std::int32_t exit_row = -1;
    std::int32_t sink = -1;
    for (std::int32_t row = start;;) {
      if (unmatched_ != nullptr && offset + unmatched_[row] < exit_distance) {
        exit_distance = offset + unmatched_[row];
        exit_row = row;
      }
      const Found<T> own = relax(row, offset);
      const Found<T> nearest = team_.argmin(own.value, own.index);
      if (exit_distance < nearest.value) {
        reached = exit_distance;
        break;
      }
      if (nearest.index == kNowhere) return false;
      reached = nearest.value;
      if (nearest.index < columns_) {
        sink = nearest.index;
        break;
      }
      const std::int32_t column = nearest.index - columns_;
      if (own.index == nearest.index) m_.preference[column] = kNowhere;
      row = m_.row_of[column];
      offset = reached - m_.u[row];  // the reduced cost of the row's own column is u
    }
    team_.sync();
    if (team_.rank() == 0) flip(start, sink, exit_row);
    share_out(team_, columns_, [&](std::int64_t k) {
      const T slack = reached - m_.distance[k];
      if (m_.preference[k] == kNowhere && slack > T(0)) m_.v[k] -= slack;
    });
    team_.sync();
    share_out(team_, columns_, [&](std::int64_t k) {
      const std::int32_t row = m_.row_of[k];
      if (m_.preference[k] == kNowhere || k == sink) m_.u[row] = cost(row, k) - m_.v[k];
    });
    team_.sync();
    return true;
  }

  // Lowers the distances of this member's columns by a path through the row; returns the nearest of them.
  GRAPHMATCH_HOST_DEVICE Found<T> relax(std::int32_t row, T offset) {
    Found<T> nearest{infinity(), kNowhere};
    visit_row(row, [&](std::int32_t k, T cost) {
      const std::int32_t index = m_.preference[k];
      const T before = m_.distance[k], candidate = (cost - m_.v[k]) + offset;
      const bool open = index != kNowhere;
      if (open && candidate < before) {
        m_.distance[k] = candidate;
        m_.previous_row[k] = row;
      }
      const T distance = candidate < before ? candidate : before;
      const bool wins = open && (distance < nearest.value || (distance == nearest.value && index < nearest.index));
      nearest.value = wins ? distance : nearest.value;
      nearest.index = wins ? index : nearest.index;
    });
    // What cannot be reached is nowhere.
    return nearest.value < infinity() ? nearest : Found<T>{infinity(), kNowhere};
  }

  // Gives every row of the path to `sink` the column it was followed to; without a sink, the path to the column that
  // `exit_row` gives up.
  GRAPHMATCH_HOST_DEVICE void flip(std::int32_t start, std::int32_t sink, std::int32_t exit_row) {
    std::int32_t column = sink;
    if (sink < 0) {
      column = m_.column_of[exit_row];
      m_.column_of[exit_row] = -1;
      if (exit_row == start) return;
    }
    for (std::int32_t row = -1; row != start;) {
      row = m_.previous_row[column];
      const std::int32_t given_up = m_.column_of[row];
      m_.row_of[column] = row;
      m_.column_of[row] = column;
      column = given_up;
    }
  }

  Team& team_;
  const std::int32_t rows_, columns_;
  // Copies: what pointers lead to may be written, where pointers come from stays in registers.
  const Costs costs_;
  const T* const unmatched_;
  const TeamLapStart<T> start_;
  const TeamLapMemory<T> m_;
};

// Matches every row to a column of its own, or leaves it unmatched at its price where `unmatched` is given, at the
// least sum. `costs(i, k)` is what any member may ask for, +infinity = forbidden; consecutive columns are asked for
// together. Needs rows <= columns unless `unmatched` is given. False, for all members, where no such matching exists.
//
// Then u[i] + v[k] <= costs(i, k) with equality for matched pairs, and u[i] = unmatched[i] for unmatched rows; where
// columns may stay free, v <= 0 and free ones have v = 0. Problems whose columns may stay free start without prices.
template <class T, class Costs, class Team>
GRAPHMATCH_HOST_DEVICE bool team_lap(Team& team, std::int32_t rows, std::int32_t columns, const Costs& costs,
                                     const T* unmatched, const TeamLapStart<T>& start, const TeamLapMemory<T>& memory) {
  TeamLap<T, Costs, Team> lap(team, rows, columns, costs, unmatched, start, memory);
  return lap.solve();
}

}  // namespace graphmatch
