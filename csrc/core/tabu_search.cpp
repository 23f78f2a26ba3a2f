#include "core/tabu_search.hpp"

#include <algorithm>

namespace graphmatch {
namespace {

// Differences below this are rounding of float gains (costs have unit size).
constexpr float kNoise = 1e-6f;

// Gains are summed up move by move; from time to time they are computed afresh.
constexpr std::int64_t kRefresh = 4096;

}  // namespace

bool TabuSearch::note_if_better() {
  const double value = costs_.evaluate(table_.assignment().data());
  if (!(value < best_value_)) return false;
  best_value_ = value;
  best_ = table_.assignment();
  return true;
}

double TabuSearch::descend(const std::vector<std::int64_t>& start, Stop& stop) {
  descend_from(start, stop);
  return best_value_;
}

// Returns whether it moved at all.
bool TabuSearch::descend_from(const std::vector<std::int64_t>& start, Stop& stop) {
  best_value_ = std::numeric_limits<double>::infinity();
  table_.load(start);
  note_if_better();
  // Rounding of the gains can make a cycle of moves look like descent: the exact value must fall every so many steps.
  for (std::int64_t step = 1; !stop.requested(); ++step) {
    const Move move = table_.best_move(0, 0.0f, -kNoise);
    if (move.row < 0) {
      if (step == 1) return false;
      break;
    }
    table_.apply(move, 0);
    if (step % costs_.rows == 0 && !note_if_better()) break;
  }
  note_if_better();
  return true;
}

double TabuSearch::search(const std::vector<std::int64_t>& start, std::int64_t steps, std::int64_t patience,
                          double goal, Random& random, Stop& stop) {
  // Gains that moves have summed up are computed afresh.
  if (descend_from(start, stop)) table_.load(best_);
  const std::int64_t size = std::max<std::int64_t>(std::min(costs_.rows, costs_.columns), 2);
  const std::int64_t shortest = size / 5;
  double value = best_value_;  // of the present matching, as the gains see it
  std::int64_t last_improvement = 0;
  std::int64_t loaded = 0;
  for (std::int64_t step = 1; step <= steps && best_value_ > goal; ++step) {
    if (step % 64 == 0 && stop.requested()) break;
    if (step - last_improvement > patience) break;
    if (step - loaded >= kRefresh) {
      table_.load(std::vector<std::int64_t>(table_.assignment()));
      value = costs_.evaluate(table_.assignment().data());
      loaded = step;
    }
    const std::int64_t now = step - loaded;
    const float aspiration = static_cast<float>(best_value_ - value) - kNoise;
    const Move move = table_.best_move(now, aspiration, kBarrierTest);
    const std::int64_t tenure = 1 + shortest + random.below(size * 3 / 5 + 1);
    if (move.row < 0) continue;
    table_.apply(move, now + tenure);
    value += static_cast<double>(move.delta);
    if (value < best_value_ - static_cast<double>(kNoise)) {
      const double before = best_value_;
      note_if_better();
      value = costs_.evaluate(table_.assignment().data());
      if (best_value_ < before - static_cast<double>(kNoise)) last_improvement = step;
    }
  }
  return best_value_;
}

}  // namespace graphmatch
