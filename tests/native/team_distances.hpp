// Distances between points by teams of host threads.
#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "core/team_distances.hpp"
#include "core/thread_team.hpp"
#include "problems.hpp"

namespace graphmatch {

template <class T>
void test_team_distances(std::int64_t first_seed, std::int64_t count) {
  for (std::int64_t seed = first_seed; seed < first_seed + count; ++seed) {
    std::mt19937_64 random(static_cast<std::uint64_t>(seed));
    const auto points = static_cast<std::int64_t>(random() % 14), dim = static_cast<std::int64_t>(random() % 40);
    std::vector<T> place(points * dim + 1);
    for (T& coordinate : place) coordinate = static_cast<T>(static_cast<double>(random() % 2001) / 1000.0 - 1.0);
    for (const std::int64_t size : {1, 4, 8}) {
      std::vector<T> found(points * points + 1, T(-7));
      run_on_threads(1, 1 + seed % 2, size,
                     [&](auto& team) { write_distances(team, place.data(), points, dim, found.data()); });
      check(found[points * points] == T(-7), "distances stay in their place", seed, size);
      for (std::int64_t i = 0; i < points; ++i) {
        for (std::int64_t j = 0; j < points; ++j) {
          double square = 0.0;
          for (std::int64_t c = 0; c < dim; ++c) {
            const double difference = static_cast<double>(place[i * dim + c]) - static_cast<double>(place[j * dim + c]);
            square += difference * difference;
          }
          const double distance = static_cast<double>(found[i * points + j]);
          check(std::fabs(distance - std::sqrt(square)) <= 1e-5 && (i != j || distance == 0.0),
                "distances are those of the points", seed, i * points + j);
          check(found[i * points + j] == found[j * points + i], "distances are symmetric", seed, i * points + j);
        }
      }
    }
  }
}

}  // namespace graphmatch
