#include "core/lap.hpp"

#include <algorithm>

#include "core/simd.hpp"

namespace graphmatch {
namespace {

// Measured on uniform, integer and re-parametrised costs of 8 to 512 rows: longer price wars cost more than the
// searches they save.
constexpr int kBiddingRounds = 2;
constexpr int kBidsInARow = 6;

template <class T, class S>
GRAPHMATCH_INLINE void match(const LapTables<T, S>& t, std::int64_t row, std::int64_t column) {
  t.column_of[row] = static_cast<typename LapTables<T, S>::Index>(column);
  t.row_of[column] = static_cast<typename LapTables<T, S>::Index>(row);
}

// The first free column at this reduced cost; -1 where there is none.
template <class T, class S>
GRAPHMATCH_INLINE std::int64_t free_column(const LapTables<T, S>& t, std::int64_t row, T lowest) {
  const S* costs = t.row(row);
  for (std::int64_t j = 0; j < t.columns; ++j) {
    if (static_cast<T>(costs[j]) - t.v[j] == lowest && t.row_of[j] < 0) return j;
  }
  return -1;
}

// Column reduction and reduction transfer of a square problem; null row duals are zeros.
template <int kBytes, class T, class S>
GRAPHMATCH_INLINE void reduce_columns(const LapTables<T, S>& t, const T* row_duals) {
  using Index = typename LapTables<T, S>::Index;
  std::fill_n(t.v, t.columns, std::numeric_limits<T>::infinity());
  std::fill_n(t.previous_row, t.padded_columns, Index{0});
  for (std::int64_t i = 0; i < t.rows; ++i) {
    const T dual = row_duals == nullptr ? T(0) : row_duals[i];
    lower_columns<kBytes>(t.row(i), dual, static_cast<Index>(i), t.padded_columns, t.v, t.previous_row);
  }
  Index* chosen = t.waiting;  // how many columns have their minimum in this row
  std::fill_n(chosen, t.rows, Index{0});
  for (std::int64_t j = 0; j < t.columns; ++j) {
    if (t.v[j] == std::numeric_limits<T>::infinity()) {
      t.v[j] = T(0);  // a forbidden column
      continue;
    }
    const Index row = t.previous_row[j];
    if (chosen[row]++ == 0) match(t, row, j);
  }
  for (std::int64_t i = 0; i < t.rows; ++i) {
    if (chosen[i] != 1) continue;
    const std::int64_t column = t.column_of[i];
    const T price = t.v[column];
    t.v[column] = -std::numeric_limits<T>::infinity();
    const T second = row_minimum<kBytes>(t.row(i), t.v, t.padded_columns);
    // The row's other columns then cost it as much; the price must not rise by rounding.
    const T lower = static_cast<T>(t.row(i)[column]) - second;
    t.v[column] = second < std::numeric_limits<T>::infinity() && lower < price ? lower : price;
  }
}

// Augmenting row reduction for the rows in `waiting`: returns how many remain there.
template <int kBytes, class T, class S>
GRAPHMATCH_INLINE std::int64_t bid(const LapTables<T, S>& t, std::int64_t count) {
  using Index = typename LapTables<T, S>::Index;
  constexpr T kInfinity = std::numeric_limits<T>::infinity();
  std::int64_t left = 0;
  for (std::int64_t k = 0; k < count; ++k) {
    int bids = 0;
    for (Index row = t.waiting[k]; row >= 0;) {
      const Index bidder = row;
      row = -1;
      const Cheapest<T> cheapest = cheapest_columns<kBytes>(t.row(bidder), t.v, t.padded_columns);
      const T refusal = t.unmatched == nullptr ? kInfinity : t.unmatched[bidder];
      if (t.unmatched != nullptr && refusal < cheapest.lowest) continue;
      // Without any finite label the row is left to the search, which fails.
      if (cheapest.lowest == kInfinity) {
        t.next[left++] = bidder;
        continue;
      }
      const Index owner = t.row_of[cheapest.column];
      if (owner < 0) {
        match(t, bidder, cheapest.column);
        continue;
      }
      const T second = refusal < cheapest.second ? refusal : cheapest.second;
      // The price must fall for good: in rounded numbers it may not.
      const T price = t.v[cheapest.column] - (second - cheapest.lowest);
      if (second < kInfinity && price < t.v[cheapest.column]) {
        t.v[cheapest.column] = price;
        t.column_of[owner] = -1;
        match(t, bidder, cheapest.column);
        if (++bids < kBidsInARow) {
          row = owner;
        } else {
          t.next[left++] = owner;
        }
        continue;
      }
      const std::int64_t other = cheapest.second == cheapest.lowest ? free_column(t, bidder, cheapest.lowest) : -1;
      if (other >= 0) {
        match(t, bidder, other);
      } else {
        t.next[left++] = bidder;
      }
    }
  }
  return left;
}

// The search for one row. False where it has no finite path.
template <int kBytes, class T, class S>
GRAPHMATCH_INLINE bool augment(const LapTables<T, S>& t, std::int64_t start) {
  using Index = typename LapTables<T, S>::Index;
  constexpr T kInfinity = std::numeric_limits<T>::infinity();
  std::fill_n(t.distance, t.padded_columns, kInfinity);

  T reached = T(0);             // distance of the row being scanned
  T exit_distance = kInfinity;  // cheapest way to leave a scanned row unmatched
  std::int64_t exit_row = -1;
  std::int64_t row = start;
  std::int64_t sink = -1;
  std::int64_t listed = 0, scanned = 0;
  T offset = T(0);
  for (;;) {
    if (t.unmatched != nullptr && offset + t.unmatched[row] < exit_distance) {
      exit_distance = offset + t.unmatched[row];
      exit_row = row;
    }
    const T lowest = relax_row<kBytes>(t.row(row), t.v, offset, static_cast<Index>(row), t.padded_columns, t.distance,
                                       t.previous_row);
    // Columns of one distance are listed together: a free one among them ends the search at once.
    if (scanned == listed || lowest <= reached) {
      if (exit_row >= 0 && exit_distance < lowest) {
        reached = exit_distance;
        break;
      }
      if (lowest == kInfinity) break;
      reached = lowest;
      const Nearest nearest = nearest_columns<kBytes>(t.distance, lowest, t.padded_columns);
      auto list = [&](std::int64_t column) {
        if (t.row_of[column] < 0) {
          sink = column;
          return;
        }
        t.scanned[listed] = static_cast<Index>(column);
        t.scanned_distance[listed] = t.distance[column];
        t.scanned_price[listed] = t.v[column];
        ++listed;
        t.v[column] = -kInfinity;
        t.distance[column] = kInfinity;
      };
      if (nearest.count == 1) {
        list(nearest.column);
      } else {
        for (std::int64_t j = 0; j < t.columns && sink < 0; ++j) {
          if (t.distance[j] <= lowest) list(j);
        }
      }
      if (sink >= 0) {
        exit_row = -1;
        break;
      }
    }
    const Index column = t.scanned[scanned];
    row = t.row_of[column];
    // The row's own column has reduced cost u, so the rest of its reduced costs count from there.
    offset = reached - (static_cast<T>(t.row(row)[column]) - t.scanned_price[scanned]);
    ++scanned;
  }
  const bool found = sink >= 0 || exit_row >= 0;
  for (std::int64_t k = 0; k < listed; ++k) {
    const T slack = reached - t.scanned_distance[k];
    t.v[t.scanned[k]] = found && slack > T(0) ? t.scanned_price[k] - slack : t.scanned_price[k];
  }
  if (!found) return false;

  Index column = static_cast<Index>(sink);
  if (exit_row >= 0) {  // the last scanned row on the path gives its column up
    column = t.column_of[exit_row];
    t.column_of[exit_row] = -1;
    if (exit_row == start) return true;
  }
  for (std::int64_t current = -1; current != start;) {
    current = t.previous_row[column];
    t.row_of[column] = static_cast<Index>(current);
    std::swap(t.column_of[current], column);
  }
  return true;
}

template <int kBytes, class T, class S>
GRAPHMATCH_INLINE bool run_all(const LapTables<T, S>& t, bool reduce, const T* row_duals) {
  using Index = typename LapTables<T, S>::Index;
  if (reduce) reduce_columns<kBytes>(t, row_duals);
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < t.rows; ++i) {
    if (t.column_of[i] < 0) t.waiting[count++] = static_cast<Index>(i);
  }
  LapTables<T, S> rounds = t;
  for (int round = 0; round < kBiddingRounds && count > 0; ++round) {
    count = bid<kBytes>(rounds, count);
    std::swap(rounds.waiting, rounds.next);
  }
  for (std::int64_t k = 0; k < count; ++k) {
    if (!augment<kBytes>(t, rounds.waiting[k])) return false;
  }
  return true;
}

template <int kBytes, class T, class S>
GRAPHMATCH_INLINE void minima(const LapTables<T, S>& t, T* lowest) {
  for (std::int64_t i = 0; i < t.rows; ++i) lowest[i] = row_minimum<kBytes>(t.row(i), t.v, t.padded_columns);
}

// The whole search once per instruction set, so that nothing is called from its loops.
#define GRAPHMATCH_LAP_FUNCTIONS(kTarget, kBytes, T, S)                         \
  kTarget bool run(const LapTables<T, S>& t, bool reduce, const T* row_duals) { \
    return run_all<kBytes>(t, reduce, row_duals);                               \
  }                                                                             \
  kTarget void row_minima(const LapTables<T, S>& t, T* lowest) { minima<kBytes>(t, lowest); }

#define GRAPHMATCH_LAP_VERSION(kTarget, kBytes)            \
  GRAPHMATCH_LAP_FUNCTIONS(kTarget, kBytes, float, float)  \
  GRAPHMATCH_LAP_FUNCTIONS(kTarget, kBytes, double, float) \
  GRAPHMATCH_LAP_FUNCTIONS(kTarget, kBytes, double, double)

GRAPHMATCH_FOR_EACH_WIDTH(GRAPHMATCH_LAP_VERSION)

}  // namespace

template <class T, class S>
LapTables<T, S> Lap<T, S>::prepare(std::int64_t rows, std::int64_t columns, const S* cost, std::int64_t stride,
                                   const T* unmatched) {
  const std::int64_t width = padded_to_lanes<T>(columns);
  if (width != columns) {
    costs_.resize(static_cast<std::size_t>(rows * width));
    for (std::int64_t i = 0; i < rows; ++i) {
      S* row = costs_.data() + i * width;
      std::copy_n(cost + i * stride, columns, row);
      std::fill(row + columns, row + width, std::numeric_limits<S>::infinity());
    }
    cost = costs_.data();
    stride = width;
  }
  numbers_.resize(static_cast<std::size_t>(4 * width));
  indices_.resize(static_cast<std::size_t>(3 * width + 3 * rows));
  T* number = numbers_.data();
  Index* index = indices_.data();
  LapTables<T, S> t;
  t.rows = rows;
  t.columns = columns;
  t.padded_columns = width;
  t.costs = cost;
  t.stride = stride;
  t.unmatched = unmatched;
  t.v = number;
  t.distance = number + width;
  t.scanned_distance = number + 2 * width;
  t.scanned_price = number + 3 * width;
  t.row_of = index;
  t.previous_row = index + width;
  t.scanned = index + 2 * width;
  t.column_of = index + 3 * width;
  t.waiting = t.column_of + rows;
  t.next = t.waiting + rows;
  std::fill_n(t.v, width, T(0));
  std::fill_n(t.row_of, width, Index{-1});
  std::fill_n(t.column_of, rows, Index{-1});
  return t;
}

template <class T, class S>
void Lap<T, S>::finish(const LapTables<T, S>& t) {
  tables_ = t;
  v.assign(t.v, t.v + t.columns);
  row_to_column.assign(t.column_of, t.column_of + t.rows);
  column_to_row.assign(t.row_of, t.row_of + t.columns);
  u.resize(static_cast<std::size_t>(t.rows));
  for (std::int64_t i = 0; i < t.rows; ++i) {
    const std::int64_t column = row_to_column[i];
    u[i] = column < 0 ? t.unmatched[i] : static_cast<T>(t.row(i)[column]) - v[column];
  }
}

template <class T, class S>
bool Lap<T, S>::solve(std::int64_t rows, std::int64_t columns, const S* cost, std::int64_t stride, const T* unmatched,
                      const T* row_duals) {
  const LapTables<T, S> t = prepare(rows, columns, cost, stride, unmatched);
  if (!run(t, rows == columns && unmatched == nullptr, row_duals)) return false;
  finish(t);
  return true;
}

template <class T, class S>
bool Lap<T, S>::resolve(std::int64_t rows, std::int64_t columns, const S* cost, std::int64_t stride,
                        const T* unmatched) {
  const LapTables<T, S> t = prepare(rows, columns, cost, stride, unmatched);
  std::copy_n(v.begin(), columns, t.v);
  if (!run(t, false, nullptr)) return false;
  finish(t);
  if (unmatched == nullptr && rows == columns) return true;
  for (std::int64_t column = 0; column < columns; ++column) {
    if (column_to_row[column] < 0 && v[column] < T(0)) fill_column(column);
  }
  return true;
}

template <class T, class S>
void Lap<T, S>::tighten() {
  std::copy(v.begin(), v.end(), tables_.v);
  row_minima(tables_, u.data());
  if (tables_.unmatched == nullptr) return;
  for (std::int64_t i = 0; i < tables_.rows; ++i) u[i] = std::min(u[i], tables_.unmatched[i]);
}

// Dijkstra from a free column with a negative price over the rows that could take it. It ends at an unmatched row, or
// at a column that can give up its price: that one stays free.
template <class T, class S>
void Lap<T, S>::fill_column(std::int64_t start) {
  const std::int64_t rows = tables_.rows;
  row_distance_.assign(static_cast<std::size_t>(rows), kInfinity);
  previous_column_.assign(static_cast<std::size_t>(rows), -1);
  row_done_.assign(static_cast<std::size_t>(rows), 0);
  path_columns_.assign(1, {start, T(0)});
  T best_exit = -v[start];
  std::int64_t exit_column = start;
  std::int64_t sink_row = -1;
  T reached = T(0);
  for (std::int64_t column = start;;) {
    if (reached - v[column] < best_exit) {
      best_exit = reached - v[column];
      exit_column = column;
    }
    std::int64_t nearest = -1;
    for (std::int64_t i = 0; i < rows; ++i) {
      if (row_done_[i]) continue;
      const T candidate = reached + std::max(static_cast<T>(tables_.row(i)[column]) - u[i] - v[column], T(0));
      if (candidate < row_distance_[i]) {
        row_distance_[i] = candidate;
        previous_column_[i] = column;
      }
      if (nearest < 0 || row_distance_[i] < row_distance_[nearest]) nearest = i;
    }
    if (nearest < 0 || !(row_distance_[nearest] < best_exit)) break;
    reached = row_distance_[nearest];
    if (row_to_column[nearest] < 0) {
      sink_row = nearest;
      break;
    }
    row_done_[nearest] = 1;
    column = row_to_column[nearest];
    path_columns_.push_back({column, reached});
  }
  const T total = sink_row >= 0 ? reached : best_exit;
  for (std::int64_t i = 0; i < rows; ++i) {
    if (row_done_[i] && row_distance_[i] < total) u[i] -= total - row_distance_[i];
  }
  for (const auto& [column, distance] : path_columns_) {
    if (distance < total) v[column] += total - distance;
  }
  std::int64_t row = sink_row;
  if (sink_row < 0) {
    v[exit_column] = T(0);
    if (exit_column == start) return;
    row = column_to_row[exit_column];
    column_to_row[exit_column] = -1;
  }
  for (;;) {  // every row of the path takes the column it was reached from
    const std::int64_t column = previous_column_[row];
    const std::int64_t owner = column_to_row[column];
    row_to_column[row] = column;
    column_to_row[column] = row;
    if (column == start) return;
    row = owner;
  }
}

template class Lap<float, float>;
template class Lap<double, float>;
template class Lap<double, double>;

}  // namespace graphmatch
