// The native tests of the dense tabu search by teams: against the table of a single thread, enumeration, and itself.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "core/qap_bound.hpp"
#include "core/qap_tabu.hpp"
#include "core/random.hpp"
#include "core/swap_table.hpp"
#include "core/team_qap_tabu.hpp"
#include "core/thread_team.hpp"
#include "dense.hpp"
#include "problems.hpp"

namespace graphmatch {

inline QapCostsView view_of(const QapCosts& costs, double goal = -kInfinity) {
  QapCostsView view;
  view.nodes = static_cast<std::int32_t>(costs.nodes);
  view.stride = costs.nodes;
  view.flow = costs.flow.data();
  view.distance = costs.distance.data();
  view.linear = costs.linear.empty() ? nullptr : costs.linear.data();
  view.symmetric = costs.symmetric;
  view.noise = costs.integral ? 0.0 : 1e-12 * costs.magnitude;
  view.goal = goal;
  return view;
}

// Room for the tables of one search, a part of it "fast" and the rest "slow".
template <class T>
class SearchRoom {
 public:
  SearchRoom(std::int64_t nodes, std::int64_t fast_bytes) : fast_bytes_(fast_bytes) {
    TieredMemory counted = memory();
    SwapTableMemory<T>(nodes, counted);
    fast_.resize(static_cast<std::size_t>(counted.fast_taken()) / 16 + 1);
    slow_.resize(static_cast<std::size_t>(counted.slow_taken()) / 16 + 1);
  }
  TieredMemory memory() { return TieredMemory(fast_.data(), fast_bytes_, fast_bytes_ / 2, slow_.data()); }

 private:
  struct alignas(16) Block {
    char bytes[16];
  };
  std::int64_t fast_bytes_;
  std::vector<Block> fast_, slow_;
};

// The search as one thread makes it on its own table, descent included.
template <class T>
std::vector<std::int64_t> search_alone(const QapCosts& costs, const std::vector<std::int64_t>& start,
                                       std::int64_t steps, double goal, Random random, std::int64_t refresh) {
  const std::int64_t n = costs.nodes, shortest = std::max<std::int64_t>(n * 9 / 10, 1);
  const std::int64_t spread = std::max<std::int64_t>(n / 5, 2) + 2;
  const double noise = view_of(costs).noise;
  SwapTable<T> table(costs);
  table.load(start);
  std::vector<std::int64_t> best = start;
  double value = costs.value(start.data()), best_value = value;
  std::int64_t loaded = 0;
  for (std::int64_t step = 1; step <= steps && best_value > goal && n > 1; ++step) {
    if (step - loaded >= refresh) {
      table.load(std::vector<std::int64_t>(table.assignment()));
      value = costs.value(table.assignment().data());
      loaded = step;
    }
    const auto now = static_cast<T>(step - loaded);
    Swap swap = table.best_allowed(now, static_cast<T>(best_value - noise - value));
    if (swap.first < 0) {
      swap.first = random.below(n - 1);
      swap.second = swap.first + 1 + random.below(n - 1 - swap.first);
    }
    value += static_cast<double>(table.change(swap));
    const T first = now + static_cast<T>(shortest + random.below(spread));
    const T second = now + static_cast<T>(shortest + random.below(spread));
    table.apply(swap, first, second);
    if (value < best_value - noise) {
      best_value = value;
      best = table.assignment();
    }
  }
  Stop stop;
  QapTabu<T> descent(costs);
  descent.descend(best, stop);
  return descent.best();
}

template <class T>
std::vector<std::int64_t> search_together(const QapCosts& costs, const std::vector<std::int64_t>& start,
                                          std::int64_t steps, double goal, std::int64_t team_size,
                                          std::int64_t fast_bytes, std::int64_t refresh) {
  SearchRoom<T> room(costs.nodes, fast_bytes);
  std::vector<std::int64_t> found(start.size(), -7);
  run_on_threads(1, 1, team_size, [&](ThreadTeam& team) {
    TieredMemory memory = room.memory();
    const SwapTableMemory<T> tables(costs.nodes, memory);
    share_out(team, costs.nodes, [&](std::int64_t i) { tables.best[i] = static_cast<std::int32_t>(start[i]); });
    team.sync();
    search_qap(view_of(costs, goal), tables, steps, Random(3, 1), team, refresh);
    share_out(team, costs.nodes, [&](std::int64_t i) { found[i] = tables.best[i]; });
  });
  return found;
}

template <class T>
void check_team_search(const QapCosts& costs, std::int64_t seed, std::int64_t steps) {
  std::mt19937_64 random(static_cast<std::uint64_t>(seed));
  std::vector<std::int64_t> start(costs.nodes);
  std::iota(start.begin(), start.end(), 0);
  std::shuffle(start.begin(), start.end(), random);
  const double goal = seed % 3 == 0 ? gilmore_lawler_bound(costs) : -kInfinity;
  const std::int64_t refresh = seed % 4 == 0 ? 16 : kQapRefresh;
  const std::vector<std::int64_t> found = search_together<T>(costs, start, steps, goal, 1, 1 << 20, refresh);
  for (const std::int64_t size : {4, 8, 32}) {
    const bool is_costly = size == 32 && seed % 10 != 0;  // for the sanitizers
    if (!is_costly) {
      check(search_together<T>(costs, start, steps, goal, size, 1000 * seed, refresh) == found,
            "teams of all sizes agree", seed, size);
    }
  }
  const std::vector<std::int64_t> alone = search_alone<T>(costs, start, steps, goal, Random(3, 1), refresh);
  if (costs.integral) check(found == alone, "a team and a thread make the same search", seed, costs.nodes);
  Stop stop;
  QapTabu<double> descent(costs);
  check(descent.descend(found, stop) == 0, "no exchange improves what a team has found", seed, 1);
}

// A batch of problems of several sizes, as the GPU gets it: a given start, random ones, and whatever is left out.
inline void check_team_batch(std::int64_t seed, std::int64_t padded, std::int64_t runs) {
  constexpr std::int64_t kProblems = 4;
  std::mt19937_64 random(static_cast<std::uint64_t>(seed));
  const std::int64_t size = padded * padded;
  std::vector<double> flow(kProblems * size), distance(flow), linear(flow), noise(kProblems), goal(kProblems, -1e300);
  std::vector<double> given_flow(flow), given_distance(flow), given_linear(flow);
  std::vector<std::uint8_t> symmetric(kProblems), exact(kProblems);
  std::vector<std::int64_t> nodes(kProblems), starts(kProblems * padded, 0), assignment(kProblems * runs * padded, -1);
  std::vector<std::int64_t> iterations(kProblems * runs, -1);
  std::vector<double> objective(kProblems * runs, -1.0), optimum(kProblems, -kInfinity);
  for (std::int64_t b = 0; b < kProblems; ++b) {
    nodes[b] = b == 0 ? padded : static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(padded + 1));
    const DenseCase dense(seed * kProblems + b, nodes[b]);
    QapCosts costs;
    check(costs.build(dense.problem), "finite costs are valid", seed, b);
    for (std::int64_t i = 0; i < nodes[b]; ++i) {
      starts[b * padded + i] = nodes[b] - 1 - i;
      for (std::int64_t j = 0; j < nodes[b]; ++j) {
        const std::int64_t from = i * nodes[b] + j, to = b * size + i * padded + j;
        flow[to] = costs.flow[from];
        distance[to] = costs.distance[from];
        if (!costs.linear.empty()) linear[to] = costs.linear[from];
        given_flow[to] = dense.flow[from];
        given_distance[to] = dense.distance[from];
        if (dense.problem.linear != nullptr) given_linear[to] = dense.linear[from];
      }
    }
    noise[b] = view_of(costs).noise;
    symmetric[b] = costs.symmetric;
    exact[b] = costs.exact_in_float;
    if (nodes[b] <= 6) optimum[b] = enumerate(dense.problem);
  }
  QapTabuBatch batch;
  batch.count = kProblems;
  batch.runs = runs;
  batch.steps = 150;
  batch.seed = static_cast<std::uint64_t>(seed);
  batch.first.nodes = batch.first.stride = padded;
  batch.first.flow = given_flow.data();
  batch.first.distance = given_distance.data();
  batch.first.linear = given_linear.data();
  batch.flow = flow.data();
  batch.distance = distance.data();
  batch.linear = linear.data();
  batch.nodes = nodes.data();
  batch.symmetric = symmetric.data();
  batch.exact_in_float = exact.data();
  batch.noise = noise.data();
  batch.goal = goal.data();
  batch.starts = starts.data();
  batch.start_count = 1;
  batch.assignment = assignment.data();
  batch.objective = objective.data();
  batch.iterations = iterations.data();
  SearchRoom<float> room(padded, 2000);
  SearchRoom<double> double_room(padded, 2000);
  run_on_threads(1, 2, 2, [&](ThreadTeam& team) {
    for (std::int64_t search = 0; search < batch.searches(); ++search) {
      run_qap_tabu<float>(batch, search, room.memory(), team);
      run_qap_tabu<double>(batch, search, double_room.memory(), team);
    }
  });
  for (std::int64_t b = 0; b < kProblems && nodes[b] > 0; ++b) {
    double best = kInfinity;
    for (std::int64_t search = b * runs; search < (b + 1) * runs; ++search) {
      const std::int64_t* x = assignment.data() + search * padded;
      std::vector<std::int64_t> sorted(x, x + nodes[b]);
      std::sort(sorted.begin(), sorted.end());
      bool is_permutation = true;
      for (std::int64_t i = 0; i < nodes[b]; ++i) is_permutation = is_permutation && sorted[i] == i;
      check(is_permutation, "answers are permutations", seed, b);
      if (!is_permutation) continue;
      const QapProblem<double> problem = batch.problem(b);
      check(evaluate(problem, x) == objective[search], "they cost what they say", seed, b);
      best = std::min(best, objective[search]);
    }
    if (nodes[b] <= 6) {
      check_quality(best <= optimum[b] + 1e-9 * (1.0 + std::fabs(optimum[b])), "small problems are solved", seed, b);
    }
  }
}

inline void test_team_qap() {
  for (std::int64_t seed = 0; seed < 80; ++seed) {
    const std::int64_t nodes = seed % 10 == 0 ? 9 + seed / 8 : 1 + seed % 7;
    const DenseCase dense(seed, nodes);
    QapCosts costs;
    check(costs.build(dense.problem), "finite costs are valid", seed, 0);
    check_team_search<double>(costs, seed, 60);
    if (costs.exact_in_float) check_team_search<float>(costs, seed, 60);
  }
  for (std::int64_t seed = 0; seed < 24; ++seed) check_team_batch(seed, 1 + seed % 7, 2 + seed % 2);
  Random first(7, 0), second(7, 1), skipped(7, 1);
  check(first.next() != second.next(), "streams differ", 7, 0);
  second.next();
  skipped.skip(2);
  check(second.next() == skipped.next(), "numbers can be passed over", 7, 1);
}

}  // namespace graphmatch
