// A pool of good permutations of a dense problem, crossed and improved by short tabu searches.
//
// Each offspring keeps what its two parents agree on, takes the rest from one of them where that is free and at random
// where it is not, and is improved by tabu search. It replaces the worst of the pool if it is better and no copy. When
// nothing has for long, the pool starts afresh around the best, with tabu searches twice as long: structured problems
// are solved by many short ones, unstructured ones by few long ones.
//
// Source: U. Benlic, J.-K. Hao, "Memetic search for the quadratic assignment problem", Expert Systems with Applications
// 42 (2015).
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "core/qap_tabu.hpp"

namespace graphmatch {

struct MemeticOptions {
  std::int64_t members = 24;
  std::int64_t steps = 500;      // of the tabu searches of the first pool
  std::int64_t longest = 10000;  // steps are doubled from pool to pool until here
  std::int64_t patience = 2;     // pools in a row without a better permutation
  double goal = 0.0;             // ends at a value at most this
};

class QapMemetic {
 public:
  QapMemetic(const QapCosts& costs, QapLocalSearch& search, Random& random, Stop& stop)
      : costs_(costs), search_(search), random_(random), stop_(stop) {}

  // Improves a permutation and takes it into the pool.
  void add(const std::vector<std::int64_t>& start, const MemeticOptions& options);

  // Fills the pool with random permutations and evolves it, pool after pool.
  void evolve(const MemeticOptions& options);

  const std::vector<std::int64_t>& best() const { return best_; }
  double best_value() const { return best_value_; }
  std::int64_t steps() const { return steps_; }

 private:
  struct Member {
    std::vector<std::int64_t> assignment;
    double value;
  };

  bool is_done(const MemeticOptions& options) { return best_value_ <= options.goal || stop_.requested(); }
  std::vector<std::int64_t> random_permutation();
  std::vector<std::int64_t> cross(const std::vector<std::int64_t>& first, const std::vector<std::int64_t>& second);
  std::vector<std::int64_t> scattered(const std::vector<std::int64_t>& assignment, std::int64_t count);
  void fill(const MemeticOptions& options);
  void evolve_pool(const MemeticOptions& options);
  Member improved(const std::vector<std::int64_t>& start, const MemeticOptions& options);
  bool is_known(const Member& member) const;

  const QapCosts& costs_;
  QapLocalSearch& search_;
  Random& random_;
  Stop& stop_;
  std::vector<Member> pool_;
  std::vector<std::int64_t> best_;
  double best_value_ = std::numeric_limits<double>::infinity();
  std::int64_t steps_ = 0;
};

}  // namespace graphmatch
