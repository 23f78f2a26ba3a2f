// Local search and tabu search on the true costs of one problem, and the best matching they have seen.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "core/move_table.hpp"
#include "core/pair_costs.hpp"
#include "core/random.hpp"
#include "core/stop.hpp"

namespace graphmatch {

class TabuSearch {
 public:
  explicit TabuSearch(const PairCosts& costs) : costs_(costs), table_(costs) {}

  // Starts from a feasible matching and takes the steepest move until none improves. Returns the value it ends at.
  double descend(const std::vector<std::int64_t>& start, Stop& stop);

  // The same, then `steps` moves of robust tabu search; ends early after `patience` steps without a new best matching
  // of this run, or when that is cheaper than `goal`. Returns the best value of this run.
  double search(const std::vector<std::int64_t>& start, std::int64_t steps, std::int64_t patience, double goal,
                Random& random, Stop& stop);

  // Best matching of the last run, and its cost in stored units, summed in double.
  const std::vector<std::int64_t>& best() const { return best_; }
  double best_value() const { return best_value_; }

 private:
  bool note_if_better();
  bool descend_from(const std::vector<std::int64_t>& start, Stop& stop);

  const PairCosts& costs_;
  MoveTable table_;
  std::vector<std::int64_t> best_;
  double best_value_ = std::numeric_limits<double>::infinity();
};

}  // namespace graphmatch
