#include "core/fusion.hpp"

#include <algorithm>
#include <limits>

namespace graphmatch {
namespace {

constexpr double kMostStates = 4096.0;

}  // namespace

double Fusion::fuse(const std::vector<std::int64_t>& a, const std::vector<std::int64_t>& b) {
  find_variables(a, b);
  add_energies(a, b);
  best_energy_ = std::numeric_limits<double>::infinity();
  best_.assign(count(), 0);
  if (count() > 0 && !enumerate()) {
    std::vector<std::int64_t> all_a(count());
    for (std::size_t c = 0; c < count(); ++c) all_a[c] = states_[c] - 1;
    descend(all_a);
    descend(std::vector<std::int64_t>(count(), 0));
  }
  result_ = a;
  for (std::size_t i = 0; i < result_.size(); ++i) {
    if (variable_[i] >= 0 && takes_b(static_cast<std::int64_t>(i), best_[variable_[i]])) result_[i] = b[i];
  }
  return costs_.evaluate(result_.data());
}

void Fusion::find_variables(const std::vector<std::int64_t>& a, const std::vector<std::int64_t>& b) {
  const std::int64_t rows = costs_.rows;
  variable_.assign(rows, -1);
  place_.assign(rows, 0);
  states_.clear();
  std::vector<std::int64_t> owner(costs_.columns, -1), next(rows, -1);
  std::vector<char> has_previous(rows, 0);
  for (std::int64_t i = 0; i < rows; ++i) {
    if (a[i] >= 0) owner[a[i]] = i;
  }
  for (std::int64_t i = 0; i < rows; ++i) {
    if (a[i] == b[i] || b[i] < 0 || owner[b[i]] < 0) continue;
    next[i] = owner[b[i]];
    has_previous[next[i]] = 1;
  }
  // A cut inside a path would leave a column free: complete matchings of more rows than columns do not allow it.
  const bool paths_are_whole = costs_.complete && rows > costs_.columns;
  auto follow = [&](std::int64_t start, bool whole) {
    const std::int64_t index = static_cast<std::int64_t>(states_.size());
    std::int64_t length = 0;
    for (std::int64_t i = start; i >= 0 && variable_[i] < 0; i = next[i]) {
      variable_[i] = index;
      place_[i] = whole ? 0 : length;
      ++length;
    }
    states_.push_back(whole ? 2 : length + 1);
  };
  for (std::int64_t i = 0; i < rows; ++i) {
    if (a[i] != b[i] && !has_previous[i]) follow(i, paths_are_whole);
  }
  for (std::int64_t i = 0; i < rows; ++i) {
    if (a[i] != b[i] && variable_[i] < 0) follow(i, true);
  }
}

std::vector<double>& Fusion::joint(std::size_t first, std::size_t second) {
  std::int64_t& place = joint_of_[first * count() + second];
  if (place < 0) {
    place = static_cast<std::int64_t>(joint_.size());
    joint_.emplace_back(static_cast<std::size_t>(states_[first] * states_[second]), 0.0);
  }
  return joint_[place];
}

void Fusion::add_energies(const std::vector<std::int64_t>& a, const std::vector<std::int64_t>& b) {
  unary_.clear();
  for (const std::int64_t states : states_) unary_.emplace_back(static_cast<std::size_t>(states), 0.0);
  joint_of_.assign(count() * count(), -1);
  joint_.clear();
  auto label_cost = [&](std::int64_t row, std::int64_t column) {
    return column < 0 ? costs_.unmatched_cost : static_cast<double>(costs_.unary(row)[column]);
  };
  for (std::int64_t i = 0; i < costs_.rows; ++i) {
    const std::int64_t c = variable_[i];
    if (c < 0) continue;
    for (std::int64_t s = 0; s < states_[c]; ++s) unary_[c][s] += label_cost(i, takes_b(i, s) ? b[i] : a[i]);
  }
  for (std::size_t p = 0; p < costs_.pairs.size(); ++p) {
    const std::int64_t i = costs_.pairs[p].first;
    const std::int64_t j = costs_.pairs[p].second;
    const std::int64_t c = variable_[i];
    const std::int64_t d = variable_[j];
    if (c < 0 && d < 0) continue;
    double cost[2][2] = {};  // by parent of i, parent of j
    for (int from_i = 0; from_i < 2; ++from_i) {
      for (int from_j = 0; from_j < 2; ++from_j) {
        const std::int64_t k = from_i == 0 ? a[i] : b[i];
        const std::int64_t l = from_j == 0 ? a[j] : b[j];
        if (k < 0 || l < 0 || k == l) continue;  // two parents' claims to one column never meet
        cost[from_i][from_j] = static_cast<double>(costs_.cost(static_cast<std::int64_t>(p), k, l));
      }
    }
    if (c < 0) {
      for (std::int64_t t = 0; t < states_[d]; ++t) unary_[d][t] += cost[0][takes_b(j, t)];
    } else if (d < 0) {
      for (std::int64_t s = 0; s < states_[c]; ++s) unary_[c][s] += cost[takes_b(i, s)][0];
    } else if (c == d) {
      for (std::int64_t s = 0; s < states_[c]; ++s) unary_[c][s] += cost[takes_b(i, s)][takes_b(j, s)];
    } else {
      const bool in_order = c < d;
      std::vector<double>& table = joint(std::min(c, d), std::max(c, d));
      const std::int64_t width = states_[std::max(c, d)];
      for (std::int64_t s = 0; s < states_[c]; ++s) {
        for (std::int64_t t = 0; t < states_[d]; ++t) {
          table[in_order ? s * width + t : t * width + s] += cost[takes_b(i, s)][takes_b(j, t)];
        }
      }
    }
  }
}

double Fusion::energy(const std::vector<std::int64_t>& state) const {
  double total = 0.0;
  for (std::size_t c = 0; c < count(); ++c) {
    total += unary_[c][state[c]];
    for (std::size_t d = c + 1; d < count(); ++d) {
      const std::int64_t place = joint_of_[c * count() + d];
      if (place >= 0) total += joint_[place][state[c] * states_[d] + state[d]];
    }
  }
  return total;
}

// All states, if there are not too many. The last variable turns fastest.
bool Fusion::enumerate() {
  double product = 1.0;
  for (const std::int64_t states : states_) product *= static_cast<double>(states);
  if (product > kMostStates) return false;
  std::vector<std::int64_t> state(count(), 0);
  std::vector<double> partial(count() + 1, 0.0);
  std::size_t c = 0;
  for (;;) {
    double total = partial[c] + unary_[c][state[c]];
    for (std::size_t d = 0; d < c; ++d) {
      const std::int64_t place = joint_of_[d * count() + c];
      if (place >= 0) total += joint_[place][state[d] * states_[c] + state[c]];
    }
    partial[c + 1] = total;
    if (c + 1 < count()) {
      state[++c] = 0;
      continue;
    }
    if (total < best_energy_) {
      best_energy_ = total;
      best_ = state;
    }
    while (++state[c] == states_[c]) {
      if (c == 0) return true;
      --c;
    }
  }
}

void Fusion::descend(std::vector<std::int64_t> state) {
  for (bool improved = true; improved;) {
    improved = false;
    for (std::size_t c = 0; c < count(); ++c) {
      std::int64_t best_state = state[c];
      double best = std::numeric_limits<double>::infinity();
      for (std::int64_t s = 0; s < states_[c]; ++s) {
        double total = unary_[c][s];
        for (std::size_t d = 0; d < count(); ++d) {
          const std::int64_t place = joint_of_[std::min(c, d) * count() + std::max(c, d)];
          if (place < 0 || d == c) continue;
          total += joint_[place][c < d ? s * states_[d] + state[d] : state[d] * states_[c] + s];
        }
        // Only real progress counts, so that rounding cannot keep the loop alive.
        if (total < best - 1e-12) {
          best = total;
          best_state = s;
        }
        if (s == state[c] && total <= best + 1e-12) {
          best = std::min(best, total);
          best_state = s;
        }
      }
      if (best_state != state[c]) {
        state[c] = best_state;
        improved = true;
      }
    }
  }
  const double total = energy(state);
  if (total < best_energy_) {
    best_energy_ = total;
    best_ = state;
  }
}

}  // namespace graphmatch
