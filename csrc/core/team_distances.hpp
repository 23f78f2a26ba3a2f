// Euclidean distances between all points of a set, by a team (team.hpp): what a k-nearest-neighbour graph costs.
//
// Differences are squared and summed, not |x|^2 + |y|^2 - 2xy, which loses the distances of close points. A group takes
// a tile of 4 x 4 pairs at a time, so that every coordinate it reads serves four of them. Members sum up their share of
// the coordinates in the points' type, and their sums in double. O(points^2 coordinates) operations, a quarter as many
// reads.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/host_device.hpp"
#include "core/team.hpp"

namespace graphmatch {

inline constexpr std::int64_t kDistanceTile = 4;  // points on a side

GRAPHMATCH_HOST_DEVICE inline std::int64_t distance_tiles(std::int64_t points) {
  return (points + kDistanceTile - 1) / kDistanceTile;
}

// Writes the distances of tile (tile / tiles, tile % tiles) and its mirror image to `distances`, points x points; only
// tiles on and above the diagonal do anything.
template <class T, class Group>
GRAPHMATCH_HOST_DEVICE void write_distances(Group& group, const T* points, std::int64_t count, std::int64_t dim,
                                            std::int64_t tile, T* distances) {
  constexpr int kSide = static_cast<int>(kDistanceTile);
  const std::int64_t tiles = distance_tiles(count);
  const std::int64_t first_row = tile / tiles * kSide, first_column = tile % tiles * kSide;
  if (first_row > first_column) return;
  const auto point = [=](std::int64_t index) { return points + (index < count ? index : count - 1) * dim; };
  T sums[kSide][kSide] = {};
  for (std::int64_t c = group.rank(); c < dim; c += group.size()) {
    T left[kSide], right[kSide];
    for (int i = 0; i < kSide; ++i) left[i] = point(first_row + i)[c], right[i] = point(first_column + i)[c];
    for (int i = 0; i < kSide; ++i) {
      for (int j = 0; j < kSide; ++j) sums[i][j] += (left[i] - right[j]) * (left[i] - right[j]);
    }
  }
  for (int i = 0; i < kSide; ++i) {
    for (int j = 0; j < kSide; ++j) {
      const T distance = static_cast<T>(sqrt(group.reduce_sum(static_cast<double>(sums[i][j]))));
      const std::int64_t row = first_row + i, column = first_column + j;
      if (group.rank() != 0 || row >= count || column >= count) continue;
      distances[row * count + column] = distances[column * count + row] = distance;
    }
  }
}

// All distances of one set.
template <class T, class Team>
GRAPHMATCH_HOST_DEVICE void write_distances(Team& team, const T* points, std::int64_t count, std::int64_t dim,
                                            T* distances) {
  const std::int64_t tiles = distance_tiles(count);
  for (std::int64_t tile = team.group_index(); tile < tiles * tiles; tile += team.group_count()) {
    write_distances(team.group(), points, count, dim, tile, distances);
  }
  team.sync();
}

}  // namespace graphmatch
