// Linear assignment by shortest augmenting paths.
//
// Each row in turn searches the cheapest alternating path to a free column with Dijkstra on reduced costs
// c[i][j] - u[i] - v[j] >= 0; the path flips the matching and the scanned duals move so that matched pairs stay tight.
// O(rows^2 * columns) worst case. Ties go to the lowest column, a free one first.
//
// With `unmatched` costs every row also owns a private column of that cost, which the search treats as one more free
// column per scanned row; a matched row then always has u[i] <= unmatched[i].
//
// Source: R. Jonker, A. Volgenant, "A shortest augmenting path algorithm for dense and sparse linear assignment
// problems", Computing 38 (1987); D. F. Crouse, "On implementing 2D rectangular assignment algorithms", IEEE TAES 52
// (2016).
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

namespace graphmatch {

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
    u.assign(static_cast<std::size_t>(rows), T(0));
    v.assign(static_cast<std::size_t>(columns), T(0));
    row_to_column.assign(static_cast<std::size_t>(rows), -1);
    column_to_row.assign(static_cast<std::size_t>(columns), -1);
    distance_.resize(static_cast<std::size_t>(columns));
    previous_row_.resize(static_cast<std::size_t>(columns));
    done_.resize(static_cast<std::size_t>(columns));
    scanned_columns_.reserve(static_cast<std::size_t>(columns));
    for (std::int64_t row = 0; row < rows; ++row) {
      if (!augment(row, columns, cost, stride, unmatched)) return false;
    }
    return true;
  }

 private:
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
};

}  // namespace graphmatch
