// Robust tabu search on a dense problem: every step makes the cheapest exchange that is not banned.
//
// Source: E. Taillard, "Robust taboo search for the quadratic assignment problem", Parallel Computing 17 (1991).
#pragma once

#include <cstdint>
#include <vector>

#include "core/random.hpp"
#include "core/stop.hpp"
#include "core/swap_table.hpp"

namespace graphmatch {

// What a search of any element type offers.
class QapLocalSearch {
 public:
  virtual ~QapLocalSearch() = default;

  // From `start`, `steps` exchanges; ends early after `patience` steps without a new best one of this run, when a value
  // at most `goal` is reached, or when `stop` is requested. Returns the number of steps made.
  virtual std::int64_t search(const std::vector<std::int64_t>& start, std::int64_t steps, std::int64_t patience,
                              double goal, Random& random, Stop& stop) = 0;

  // From `start`, exchanges that improve, the best one first, until there is none. Returns the number of steps made.
  virtual std::int64_t descend(const std::vector<std::int64_t>& start, Stop& stop) = 0;

  const std::vector<std::int64_t>& best() const { return best_; }
  double best_value() const { return best_value_; }

 protected:
  std::vector<std::int64_t> best_;
  double best_value_ = 0.0;
};

template <class T>
class QapTabu final : public QapLocalSearch {
 public:
  explicit QapTabu(const QapCosts& costs) : costs_(costs), table_(costs) {}

  std::int64_t search(const std::vector<std::int64_t>& start, std::int64_t steps, std::int64_t patience, double goal,
                      Random& random, Stop& stop) override;
  std::int64_t descend(const std::vector<std::int64_t>& start, Stop& stop) override;

 private:
  // Rounding cannot make a change of cost larger than this.
  double noise() const;

  const QapCosts& costs_;
  SwapTable<T> table_;
};

}  // namespace graphmatch
