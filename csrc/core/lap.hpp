// Linear assignment by shortest augmenting paths.
//
// Each row in turn searches the cheapest alternating path to a free column with Dijkstra on reduced costs
// c[i][j] - u[i] - v[j] >= 0; the path flips the matching and the scanned duals move so that matched pairs stay tight.
// O(rows^2 * columns) worst case. Ties go to the lowest column, a free one first.
//
// With `unmatched` costs every row also owns a private column of that cost, which the search treats as one more free
// column per scanned row; a matched row then always has u[i] <= unmatched[i].
//
// `resolve` starts from the column duals of the last solution: rows take their cheapest column where it is free, a row
// that is refused bids the column's price down by its margin over the second cheapest, and only those still without a
// column search. A column that keeps a price but has lost its row searches for one, or gives the price up.
//
// Source: R. Jonker, A. Volgenant, "A shortest augmenting path algorithm for dense and sparse linear assignment
// problems", Computing 38 (1987); D. F. Crouse, "On implementing 2D rectangular assignment algorithms", IEEE TAES 52
// (2016).
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

namespace graphmatch {

// The cheapest two columns of a row at prices v: the lowest reduced costs and the first column that has the lowest.
template <class T>
struct Cheapest {
  T lowest, second;
  std::int64_t column;
};
Cheapest<float> cheapest_columns(const float* costs, const float* v, std::int64_t columns);
Cheapest<double> cheapest_columns(const double* costs, const double* v, std::int64_t columns);

// Scans one row of the search: distance[j] becomes min(distance[j], offset + costs[j] - v[j]) and previous_row[j] the
// row that set it, except for columns with done[j] = infinity (0 otherwise). Returns the smallest distance of the
// others.
float relax_row(const float* costs, const float* v, const float* done, float offset, std::int32_t row,
                std::int64_t columns, float* distance, std::int32_t* previous_row);
double relax_row(const double* costs, const double* v, const double* done, double offset, std::int32_t row,
                 std::int64_t columns, double* distance, std::int32_t* previous_row);

template <class T>
class Lap {
 public:
  static constexpr T kInfinity = std::numeric_limits<T>::infinity();

  // Results of the last `solve`. Feasible duals: u[i] + v[j] <= cost[i][j], v[j] <= 0 unless all columns are matched.
  std::vector<T> u, v;
  std::vector<std::int64_t> row_to_column;  // -1 = unmatched
  std::vector<std::int64_t> column_to_row;  // -1 = free

  // Minimises over matchings of all rows (each row to a column, or unmatched at its price when `unmatched` is given).
  // cost: rows x columns with leading dimension `stride`, +infinity = forbidden. Needs rows <= columns unless
  // `unmatched` is given. Returns false when no such matching exists.
  bool solve(std::int64_t rows, std::int64_t columns, const T* cost, std::int64_t stride,
             const T* unmatched = nullptr) {
    v.assign(static_cast<std::size_t>(columns), T(0));
    start(rows, columns);
    for (std::int64_t row = 0; row < rows; ++row) {
      if (!augment(row, columns, cost, stride, unmatched)) return false;
    }
    return true;
  }

  // The same from the column duals `v` of the caller, which must be at most 0 where columns may stay free: quick when
  // they are nearly right. Ties may go elsewhere than in `solve`.
  bool resolve(std::int64_t rows, std::int64_t columns, const T* cost, std::int64_t stride,
               const T* unmatched = nullptr) {
    start(rows, columns);
    refused_.clear();
    for (std::int64_t row = 0; row < rows; ++row) {
      const Cheapest<T> cheapest = cheapest_columns(cost + row * stride, v.data(), columns);
      if (!settle(row, cheapest, unmatched)) refused_.push_back(row);
    }
    for (int round = 0; round < kBiddingRounds && !refused_.empty(); ++round) {
      bidders_.swap(refused_);
      refused_.clear();
      for (std::int64_t row : bidders_) bid(row, columns, cost, stride, unmatched);
    }
    for (const std::int64_t row : refused_) {
      if (!augment(row, columns, cost, stride, unmatched)) return false;
    }
    if (unmatched != nullptr || rows < columns) {
      for (std::int64_t column = 0; column < columns; ++column) {
        if (column_to_row[column] < 0 && v[column] < T(0)) fill_column(column, rows, cost, stride);
      }
    }
    return true;
  }

 private:
  static constexpr int kBiddingRounds = 2;

  void start(std::int64_t rows, std::int64_t columns) {
    u.assign(static_cast<std::size_t>(rows), T(0));
    row_to_column.assign(static_cast<std::size_t>(rows), -1);
    column_to_row.assign(static_cast<std::size_t>(columns), -1);
    distance_.resize(static_cast<std::size_t>(columns));
    previous_row_.resize(static_cast<std::size_t>(columns));
    done_.resize(static_cast<std::size_t>(columns));
    scanned_columns_.reserve(static_cast<std::size_t>(columns));
  }

  // Gives a row its cheapest label if that is free. Without any finite label it is left to the search, which fails.
  bool settle(std::int64_t row, const Cheapest<T>& cheapest, const T* unmatched) {
    if (unmatched != nullptr && unmatched[row] < cheapest.lowest) {
      u[row] = unmatched[row];
      return true;
    }
    if (cheapest.lowest == kInfinity) return false;
    u[row] = cheapest.lowest;
    if (column_to_row[cheapest.column] >= 0) return false;
    match(row, cheapest.column);
    return true;
  }

  void match(std::int64_t row, std::int64_t column) {
    row_to_column[row] = column;
    column_to_row[column] = row;
  }

  // One step of augmenting row reduction: the row takes its cheapest column from its owner if it can pay more.
  void bid(std::int64_t row, std::int64_t columns, const T* cost, std::int64_t stride, const T* unmatched) {
    const Cheapest<T> cheapest = cheapest_columns(cost + row * stride, v.data(), columns);
    if (settle(row, cheapest, unmatched)) return;
    const T second = unmatched == nullptr ? cheapest.second : std::min(cheapest.second, unmatched[row]);
    // The price must fall for good: in rounded numbers it may not.
    const T price = v[cheapest.column] - (second - cheapest.lowest);
    if (second < kInfinity && price < v[cheapest.column]) {
      v[cheapest.column] = price;
      u[row] = second;
      const std::int64_t owner = column_to_row[cheapest.column];
      row_to_column[owner] = -1;
      refused_.push_back(owner);
      match(row, cheapest.column);
    } else {
      refused_.push_back(row);
    }
  }

  // Dijkstra from a free column with a negative price over the rows that could take it. It ends at an unmatched row,
  // or at a column that can give up its price: that one stays free.
  void fill_column(std::int64_t start, std::int64_t rows, const T* cost, std::int64_t stride) {
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
        const T candidate = reached + std::max(cost[i * stride + column] - u[i] - v[column], T(0));
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
      match(row, column);
      if (column == start) return;
      row = owner;
    }
  }

  bool augment(std::int64_t start, std::int64_t columns, const T* cost, std::int64_t stride, const T* unmatched) {
    std::fill(distance_.begin(), distance_.end(), kInfinity);
    std::fill(done_.begin(), done_.end(), T(0));
    scanned_columns_.clear();

    T reached = T(0);             // distance of the row being scanned
    T exit_distance = kInfinity;  // cheapest way to leave a scanned row unmatched
    std::int64_t exit_row = -1;
    std::int64_t row = start;
    std::int64_t sink = -1;
    for (;;) {
      const T* costs = cost + row * stride;
      const T offset = reached - u[row];
      if (unmatched != nullptr && offset + unmatched[row] < exit_distance) {
        exit_distance = offset + unmatched[row];
        exit_row = row;
      }
      const T lowest = relax_row(costs, v.data(), done_.data(), offset, static_cast<std::int32_t>(row), columns,
                                 distance_.data(), previous_row_.data());
      if (exit_row >= 0 && exit_distance < lowest) {
        reached = exit_distance;
        break;
      }
      if (lowest == kInfinity) return false;
      const std::int64_t nearest = nearest_column(lowest);
      reached = lowest;
      if (column_to_row[nearest] < 0) {
        sink = nearest;
        exit_row = -1;
        break;
      }
      done_[nearest] = kInfinity;
      scanned_columns_.push_back(nearest);
      row = column_to_row[nearest];
    }

    u[start] += reached;
    for (const std::int64_t j : scanned_columns_) {
      const T slack = reached - distance_[j];
      u[column_to_row[j]] += slack;
      v[j] -= slack;
    }

    std::int64_t column = sink;
    if (exit_row >= 0) {  // the last scanned row on the path gives its column up
      column = row_to_column[exit_row];
      row_to_column[exit_row] = -1;
      if (exit_row == start) return true;
    }
    for (std::int64_t current = -1; current != start;) {
      current = previous_row_[column];
      column_to_row[column] = current;
      std::swap(row_to_column[current], column);
    }
    return true;
  }

  // The first free column at this distance, else the first one.
  std::int64_t nearest_column(T lowest) const {
    std::int64_t first = -1;
    for (std::size_t j = 0; j < distance_.size(); ++j) {
      if (distance_[j] + done_[j] != lowest) continue;
      if (column_to_row[j] < 0) return static_cast<std::int64_t>(j);
      if (first < 0) first = static_cast<std::int64_t>(j);
    }
    return first;
  }

  std::vector<T> distance_;
  std::vector<std::int32_t> previous_row_;
  std::vector<T> done_;  // infinity for scanned columns
  std::vector<std::int64_t> scanned_columns_;
  std::vector<std::int64_t> refused_, bidders_;
  std::vector<T> row_distance_;
  std::vector<std::int64_t> previous_column_;
  std::vector<char> row_done_;
  std::vector<std::pair<std::int64_t, T>> path_columns_;  // columns of the search and their distances
};

}  // namespace graphmatch
