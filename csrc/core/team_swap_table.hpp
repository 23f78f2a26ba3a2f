// A permutation of a dense problem and the change of its cost by every exchange of two facilities, kept by a team
// (team.hpp): what SwapTable (swap_table.hpp) is to a thread.
//
// For the present permutation p the table holds
//   slope[u][k] = cost of facility u at location k, all others where they are
//   changes     = value after u and v exchange locations - value now, for each pair u < v
// The exchange of r at a with s at b adds x_u z_k to slope[u][k], where x = flow[., r] - flow[., s] and
// z = distance[., b] - distance[., a], and (x_u - x_v)(y_v - y_u) with y_u = z[p_u] to the change of each pair without
// r and s; the changes of their pairs follow from the slope. Without symmetry the same terms of the transposed matrices
// are added. That is O(n^2) per exchange, shared out evenly, between two barriers.
//
// A pair {c, c + d mod n} with 2 d <= n has the place (d - 1) n + c among the changes: n (n - 1) / 2 places without
// gaps, and members side by side read neighbours of every vector. Rows of matrices have an odd stride: columns then lie
// in different banks of a GPU's shared memory.
//
// All sums have one order, so every team comes to the same table.
//
// Source: E. Taillard, "Robust taboo search for the quadratic assignment problem", Parallel Computing 17 (1991).
#pragma once

#include <cmath>
#include <cstdint>

#include "core/host_device.hpp"
#include "core/team.hpp"

namespace graphmatch {

// QapCosts (qap_costs.hpp) as a view, in any unit.
struct QapCostsView {
  std::int32_t nodes = 0;
  std::int64_t stride = 0;           // of all three matrices
  const double* flow = nullptr;      // without loops
  const double* distance = nullptr;  // without loops
  const double* linear = nullptr;    // or null
  bool symmetric = false;            // both matrices are, and each pair counts once
  double noise = 0.0;                // smaller changes are rounding
  double goal = 0.0;                 // nobody asks for less
};

// Fast memory as long as it lasts, then slow memory. Without addresses it counts what is taken.
class TieredMemory {
 public:
  // `spare` bytes of the fast memory are for everyone, the others for what is used most.
  GRAPHMATCH_HOST_DEVICE TieredMemory(void* fast, std::int64_t fast_bytes, std::int64_t spare, void* slow)
      : fast_(reinterpret_cast<std::uintptr_t>(fast)),
        slow_(reinterpret_cast<std::uintptr_t>(slow)),
        fast_bytes_(fast_bytes),
        spare_(spare) {}

  template <class T>
  GRAPHMATCH_HOST_DEVICE T* take(std::int64_t count) {
    return take_below<T>(fast_bytes_, count);
  }
  template <class T>
  GRAPHMATCH_HOST_DEVICE T* take_spare(std::int64_t count) {
    return take_below<T>(spare_ < fast_bytes_ ? spare_ : fast_bytes_, count);
  }
  GRAPHMATCH_HOST_DEVICE std::int64_t fast_taken() const { return fast_taken_; }
  GRAPHMATCH_HOST_DEVICE std::int64_t slow_taken() const { return slow_taken_; }

 private:
  static constexpr std::int64_t kAlignment = 16;

  template <class T>
  GRAPHMATCH_HOST_DEVICE T* take_below(std::int64_t limit, std::int64_t count) {
    const std::int64_t bytes =
        (count * static_cast<std::int64_t>(sizeof(T)) + kAlignment - 1) / kAlignment * kAlignment;
    const bool fits = fast_taken_ + bytes <= limit;
    std::int64_t& taken = fits ? fast_taken_ : slow_taken_;
    const std::uintptr_t address = (fits ? fast_ : slow_) + static_cast<std::uintptr_t>(taken);
    taken += bytes;
    return reinterpret_cast<T*>(address);
  }

  std::uintptr_t fast_, slow_;
  std::int64_t fast_bytes_, spare_;
  std::int64_t fast_taken_ = 0, slow_taken_ = 0;
};

// What an exchange has for node i: x and y of facility i, z of location i.
template <class T>
struct ExchangeTerms {
  T x, y, z;
};

template <class T>
struct SwapTableMemory {
  std::int32_t *assignment, *next_assignment;  // location of each facility, now and after the exchange under way
  std::int32_t* best;                          // of a search
  double* row_sums;
  ExchangeTerms<T>*terms, *transposed;  // those of the transposed matrices only without symmetry
  T *changes, *slope;
  std::int32_t* banned_until;  // [facility][location]
  T *flow, *distance;

  GRAPHMATCH_HOST_DEVICE static std::int64_t row_stride(std::int64_t nodes) { return nodes | 1; }

  GRAPHMATCH_HOST_DEVICE SwapTableMemory(std::int64_t nodes, TieredMemory& memory) {
    const std::int64_t size = nodes * row_stride(nodes);
    for (std::int32_t** permutation : {&assignment, &next_assignment, &best}) {
      *permutation = memory.take<std::int32_t>(nodes);
    }
    row_sums = memory.take<double>(nodes);
    terms = memory.take<ExchangeTerms<T>>(nodes);
    transposed = memory.take<ExchangeTerms<T>>(nodes);
    changes = memory.take<T>(nodes * (nodes - 1) / 2);
    slope = memory.take<T>(size);
    banned_until = memory.take_spare<std::int32_t>(size);
    flow = memory.take_spare<T>(size);
    distance = memory.take_spare<T>(size);
  }
};

// The cells (row, column) of a table that a member visits: every so many, by additions in place of divisions.
class CellWalk {
 public:
  template <class Team>
  GRAPHMATCH_HOST_DEVICE CellWalk(std::int32_t width, const Team& team)
      : width_(width),
        rank_(static_cast<std::int32_t>(team.rank())),
        size_(static_cast<std::int32_t>(team.size())),
        first_row_(rank_ / width),
        first_column_(rank_ % width),
        step_rows_(size_ / width),
        step_columns_(size_ % width) {}

  // Calls visit(index, row, column) for this member's share of the first `count` cells.
  template <class Visit>
  GRAPHMATCH_HOST_DEVICE void share_out(std::int32_t count, const Visit& visit) const {
    std::int32_t row = first_row_, column = first_column_;
    for (std::int32_t index = rank_; index < count; index += size_) {
      visit(index, row, column);
      row += step_rows_;
      column += step_columns_;
      if (column >= width_) {
        column -= width_;
        ++row;
      }
    }
  }

 private:
  std::int32_t width_, rank_, size_, first_row_, first_column_, step_rows_, step_columns_;
};

// Sum of row_value(i) over all rows, in their order whatever the team.
template <class Team, class RowValue>
GRAPHMATCH_HOST_DEVICE double sum_of_rows(std::int64_t rows, double* row_sums, Team& team, const RowValue& row_value) {
  share_out(team, rows, [&](std::int64_t i) { row_sums[i] = row_value(i); });
  team.sync();
  double total = 0.0;
  for (std::int64_t i = 0; i < rows; ++i) total += row_sums[i];
  team.sync();
  return total;
}

struct FacilityPair {
  std::int32_t first, second;
};

// Exchanges are found by the index first * nodes + second, first < second: among equals the lowest one counts.
template <class T, class Team>
class TeamSwapTable {
 public:
  GRAPHMATCH_HOST_DEVICE TeamSwapTable(const QapCostsView& costs, const SwapTableMemory<T>& memory, Team& team)
      : costs_(costs),
        memory_(memory),
        team_(team),
        nodes_(costs.nodes),
        stride_(static_cast<std::int32_t>(SwapTableMemory<T>::row_stride(costs.nodes))),
        pairs_(costs.nodes * (costs.nodes - 1) / 2),
        walk_(costs.nodes, team) {
    walk_.share_out(nodes_ * nodes_, [&](std::int32_t, std::int32_t i, std::int32_t j) {
      memory_.flow[at(i, j)] = static_cast<T>(costs_.flow[i * costs_.stride + j]);
      memory_.distance[at(i, j)] = static_cast<T>(costs_.distance[i * costs_.stride + j]);
    });
    team_.sync();
  }

  GRAPHMATCH_HOST_DEVICE std::int32_t location(std::int32_t facility) const { return memory_.assignment[facility]; }
  GRAPHMATCH_HOST_DEVICE FacilityPair pair(std::int32_t index) const { return {index / nodes_, index % nodes_}; }
  GRAPHMATCH_HOST_DEVICE T change(const FacilityPair& pair) const { return memory_.changes[place(pair)]; }

  // The value of the present permutation.
  GRAPHMATCH_HOST_DEVICE double value() {
    const double weight = costs_.symmetric ? 0.5 : 1.0;
    const std::int32_t* p = memory_.assignment;
    return sum_of_rows(nodes_, memory_.row_sums, team_, [&](std::int64_t i) {
      const double* flow = costs_.flow + i * costs_.stride;
      const double* distance = costs_.distance + p[i] * costs_.stride;
      double sum = 0.0;
      for (std::int32_t j = 0; j < nodes_; ++j) sum += flow[j] * distance[p[j]];
      return weight * sum + (costs_.linear == nullptr ? 0.0 : costs_.linear[i * costs_.stride + p[i]]);
    });
  }

  // Computes the table of a permutation; nothing is banned. O(n^3).
  GRAPHMATCH_HOST_DEVICE void load(const std::int32_t* permutation) {
    share_out(team_, nodes_, [&](std::int64_t u) { memory_.assignment[u] = permutation[u]; });
    team_.sync();
    reload();
  }

  // The same for the present permutation: what rounding has done is undone.
  GRAPHMATCH_HOST_DEVICE void reload() {
    const std::int32_t* p = memory_.assignment;
    walk_.share_out(nodes_ * nodes_, [&](std::int32_t, std::int32_t u, std::int32_t k) {
      T sum = costs_.linear == nullptr ? T(0) : static_cast<T>(costs_.linear[u * costs_.stride + k]);
      for (std::int32_t j = 0; j < nodes_; ++j) {
        sum += flow(u, j) * distance(k, p[j]);
        if (!costs_.symmetric) sum += flow(j, u) * distance(p[j], k);
      }
      memory_.slope[at(u, k)] = sum;
      memory_.banned_until[at(u, k)] = 0;
    });
    team_.sync();
    walk_.share_out(pairs_, [&](std::int32_t index, std::int32_t row, std::int32_t column) {
      const FacilityPair pair = pair_of(row, column);
      memory_.changes[index] = change_of(pair.first, p[pair.first], pair.second, p[pair.second],
                                         [&](std::int32_t u, std::int32_t k) { return memory_.slope[at(u, k)]; });
    });
    team_.sync();
  }

  // For one member to call, and only between begin_exchange() and finish_exchange().
  GRAPHMATCH_HOST_DEVICE void ban(std::int32_t facility, std::int32_t location, std::int32_t until) {
    memory_.banned_until[at(facility, location)] = until;
  }

  // The cheapest exchange that is allowed at the time `now`: one that brings both facilities back to where they may
  // not yet return is not, unless its change is below `aspiration`. kNowhere when all are banned.
  GRAPHMATCH_HOST_DEVICE Found<T> cheapest(std::int32_t now, T aspiration) {
    Found<T> lowest = none();
    walk_.share_out(pairs_, [&](std::int32_t index, std::int32_t row, std::int32_t column) {
      consider(pair_of(row, column), memory_.changes[index], now, aspiration, lowest);
    });
    return team_.argmin(lowest.value, lowest.index);
  }

  // Starts an exchange: what comes of it is left in `next_assignment`, each member's share of it written by itself.
  GRAPHMATCH_HOST_DEVICE void begin_exchange(const FacilityPair& pair) {
    const std::int32_t r = pair.first, s = pair.second;
    const std::int32_t* p = memory_.assignment;
    const std::int32_t a = p[r], b = p[s];
    const auto x = [&](std::int32_t u) { return flow(u, r) - flow(u, s); };
    const auto z = [&](std::int32_t k) { return distance(k, b) - distance(k, a); };
    const auto x_transposed = [&](std::int32_t u) { return flow(r, u) - flow(s, u); };
    const auto z_transposed = [&](std::int32_t k) { return distance(b, k) - distance(a, k); };
    const auto slope = [&](std::int32_t u, std::int32_t k) {
      const T sum = memory_.slope[at(u, k)] + x(u) * z(k);
      return costs_.symmetric ? sum : sum + x_transposed(u) * z_transposed(k);
    };
    share_out(team_, nodes_, [&](std::int64_t node) {
      const auto u = static_cast<std::int32_t>(node);
      const std::int32_t k = p[u];
      if (u == r) {
        memory_.changes[place(pair)] = change_of(r, b, s, a, slope);
      } else if (u != s) {
        const T with_r = change_of(u, k, r, b, slope), with_s = change_of(u, k, s, a, slope);
        memory_.changes[place(ordered(u, r))] = with_r;
        memory_.changes[place(ordered(u, s))] = with_s;
      }
      memory_.terms[u] = {x(u), z(k), z(u)};
      if (!costs_.symmetric) memory_.transposed[u] = {x_transposed(u), z_transposed(k), z_transposed(u)};
      memory_.next_assignment[u] = u == r ? b : u == s ? a : k;
    });
  }

  // Makes the exchange that was begun and returns the cheapest one after it, as cheapest() does.
  GRAPHMATCH_HOST_DEVICE Found<T> finish_exchange(const FacilityPair& pair, std::int32_t now, T aspiration) {
    team_.sync();
    std::int32_t* const left = memory_.assignment;
    memory_.assignment = memory_.next_assignment;
    memory_.next_assignment = left;
    const std::int32_t r = pair.first, s = pair.second;
    const ExchangeTerms<T>*const terms = memory_.terms, *const transposed = memory_.transposed;
    const bool symmetric = costs_.symmetric;
    T *const slopes = memory_.slope, *const changes = memory_.changes;
    walk_.share_out(nodes_ * nodes_, [&](std::int32_t, std::int32_t u, std::int32_t k) {
      T slope = slopes[at(u, k)] + terms[u].x * terms[k].z;
      if (!symmetric) slope += transposed[u].x * transposed[k].z;
      slopes[at(u, k)] = slope;
    });
    Found<T> lowest = none();
    walk_.share_out(pairs_, [&](std::int32_t index, std::int32_t row, std::int32_t column) {
      const FacilityPair other = pair_of(row, column);
      const std::int32_t u = other.first, v = other.second;
      T change = changes[index];
      if (u != r && u != s && v != r && v != s) {
        change += (terms[u].x - terms[v].x) * (terms[v].y - terms[u].y);
        if (!symmetric) change += (transposed[u].x - transposed[v].x) * (transposed[v].y - transposed[u].y);
        changes[index] = change;
      }
      consider(other, change, now, aspiration, lowest);
    });
    return team_.argmin(lowest.value, lowest.index);
  }

  // Each member copies its share of the present permutation, or of the one that begin_exchange() left.
  GRAPHMATCH_HOST_DEVICE void keep(std::int32_t* permutation) const {
    share_out(team_, nodes_, [&](std::int64_t u) { permutation[u] = memory_.assignment[u]; });
  }
  GRAPHMATCH_HOST_DEVICE void keep_next(std::int32_t* permutation) const {
    share_out(team_, nodes_, [&](std::int64_t u) { permutation[u] = memory_.next_assignment[u]; });
  }

 private:
  GRAPHMATCH_HOST_DEVICE std::int32_t at(std::int32_t row, std::int32_t column) const { return row * stride_ + column; }
  GRAPHMATCH_HOST_DEVICE T flow(std::int32_t i, std::int32_t j) const { return memory_.flow[at(i, j)]; }
  GRAPHMATCH_HOST_DEVICE T distance(std::int32_t k, std::int32_t l) const { return memory_.distance[at(k, l)]; }

  GRAPHMATCH_HOST_DEVICE static FacilityPair ordered(std::int32_t u, std::int32_t v) {
    return u < v ? FacilityPair{u, v} : FacilityPair{v, u};
  }
  GRAPHMATCH_HOST_DEVICE FacilityPair pair_of(std::int32_t row, std::int32_t column) const {
    const std::int32_t other = column + row + 1;
    return other < nodes_ ? FacilityPair{column, other} : FacilityPair{other - nodes_, column};
  }
  GRAPHMATCH_HOST_DEVICE std::int32_t place(const FacilityPair& pair) const {
    const std::int32_t apart = pair.second - pair.first;
    return 2 * apart <= nodes_ ? (apart - 1) * nodes_ + pair.first : (nodes_ - apart - 1) * nodes_ + pair.second;
  }

  GRAPHMATCH_HOST_DEVICE static Found<T> none() { return {static_cast<T>(INFINITY), kNowhere}; }

  // Bans are looked up last: few candidates come so far.
  GRAPHMATCH_HOST_DEVICE void consider(const FacilityPair& pair, T change, std::int32_t now, T aspiration,
                                       Found<T>& lowest) const {
    if (change > lowest.value) return;
    const std::int32_t u = pair.first, v = pair.second, index = u * nodes_ + v;
    if (change == lowest.value && index > lowest.index) return;
    const bool allowed = change < aspiration || memory_.banned_until[at(u, memory_.assignment[v])] <= now ||
                         memory_.banned_until[at(v, memory_.assignment[u])] <= now;
    if (allowed) lowest = {change, index};
  }

  // The change by an exchange of u at k with v at l, from slope(facility, location).
  template <class Slope>
  GRAPHMATCH_HOST_DEVICE T change_of(std::int32_t u, std::int32_t k, std::int32_t v, std::int32_t l,
                                     const Slope& slope) const {
    const T pair = costs_.symmetric ? T(2) * flow(u, v) * distance(k, l)
                                    : (flow(u, v) + flow(v, u)) * (distance(k, l) + distance(l, k));
    return slope(u, l) + slope(v, k) - slope(u, k) - slope(v, l) + pair;
  }

  const QapCostsView costs_;
  SwapTableMemory<T> memory_;
  Team& team_;
  const std::int32_t nodes_, stride_, pairs_;
  const CellWalk walk_;
};

}  // namespace graphmatch
