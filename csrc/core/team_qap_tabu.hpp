// Robust tabu search on dense problems by a team (team.hpp): what QapTabu (qap_tabu.hpp) is to a thread, and with the
// same random numbers the same search, whatever the size of the team.
//
// A batch has several runs per problem: the first ones start from given permutations, the others from random ones. Each
// ends with a descent from the best permutation it has seen. Where all sums are exact in float the tables are float,
// otherwise double. O(n^2) per step, n^3 for each start.
//
// Source: E. Taillard, "Robust taboo search for the quadratic assignment problem", Parallel Computing 17 (1991).
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "core/host_device.hpp"
#include "core/qap.hpp"
#include "core/random.hpp"
#include "core/team_swap_table.hpp"

namespace graphmatch {

// Steps after which rounded sums are computed afresh, and after which a descent that rounding leads in circles ends.
inline constexpr std::int64_t kQapRefresh = 1 << 16;
inline constexpr std::int64_t kQapDescentSteps = 100;  // per node

// The objective of a permutation, in the order of evaluate() (qap.hpp).
template <class T, class Team>
GRAPHMATCH_HOST_DEVICE double qap_objective(const QapProblem<T>& problem, const std::int32_t* permutation,
                                            double* row_sums, Team& team) {
  return sum_of_rows(problem.nodes, row_sums, team, [&](std::int64_t i) {
    const std::int64_t row = i * problem.stride, k = permutation[i];
    const T* distance = problem.distance + k * problem.stride;
    double sum = problem.linear == nullptr ? 0.0 : static_cast<double>(problem.linear[row + k]);
    for (std::int64_t j = 0; j < problem.nodes; ++j) {
      sum += static_cast<double>(problem.flow[row + j]) * static_cast<double>(distance[permutation[j]]);
    }
    return sum;
  });
}

// Exchanges that improve the permutation of the table, the best one first, until there is none.
template <class T, class Team>
GRAPHMATCH_HOST_DEVICE void descend(const QapCostsView& costs, TeamSwapTable<T, Team>& table) {
  const T all_allowed = static_cast<T>(INFINITY);
  Found<T> found = table.cheapest(0, all_allowed);
  for (std::int64_t step = 0; step < kQapDescentSteps * costs.nodes; ++step) {
    if (found.index == kNowhere || !(static_cast<double>(found.value) < -costs.noise)) return;
    const FacilityPair pair = table.pair(found.index);
    table.begin_exchange(pair);
    found = table.finish_exchange(pair, 0, all_allowed);
  }
}

// From the permutation in memory.best, `steps` exchanges, fewer if a value at most costs.goal is found; then a descent
// from the best of them. Leaves that in memory.best for all members to read; returns the number of steps made.
template <class T, class Team>
GRAPHMATCH_HOST_DEVICE std::int64_t search_qap(const QapCostsView& costs, const SwapTableMemory<T>& memory,
                                               std::int64_t steps, Random random, Team& team,
                                               std::int64_t refresh = kQapRefresh) {
  const std::int32_t nodes = costs.nodes;
  TeamSwapTable<T, Team> table(costs, memory, team);
  table.load(memory.best);
  double value = table.value(), best = value;
  const auto aspiration = [&] { return static_cast<T>(best - costs.noise - value); };
  // Tenures around n, as in the source.
  const std::int32_t shortest = nodes * 9 / 10 > 1 ? nodes * 9 / 10 : 1;
  const std::int32_t spread = (nodes / 5 > 2 ? nodes / 5 : 2) + 2;

  std::int64_t loaded = 0, step = 1;
  Found<T> found = table.cheapest(1, aspiration());
  for (; step <= steps && best > costs.goal && nodes > 1; ++step) {
    if (step - loaded >= refresh) {
      table.reload();
      value = table.value();
      loaded = step;
      found = table.cheapest(0, aspiration());
    }
    const auto now = static_cast<std::int32_t>(step - loaded);
    FacilityPair pair = table.pair(found.index);
    if (found.index == kNowhere) {  // everything is banned
      pair.first = static_cast<std::int32_t>(random.below(nodes - 1));
      pair.second = pair.first + 1 + static_cast<std::int32_t>(random.below(nodes - 1 - pair.first));
      found.value = table.change(pair);
      team.sync();
    }
    table.begin_exchange(pair);
    // The last member: it has least to do in small problems.
    if (team.rank() == team.size() - 1) {
      Random tenures = random;
      const auto tenure = [&] { return now + shortest + static_cast<std::int32_t>(tenures.below(spread)); };
      table.ban(pair.first, table.location(pair.first), tenure());
      table.ban(pair.second, table.location(pair.second), tenure());
    }
    random.skip(2);
    value += static_cast<double>(found.value);
    if (value < best - costs.noise) {
      best = value;
      table.keep_next(memory.best);
    }
    found = table.finish_exchange(pair, now + 1, aspiration());
  }
  table.load(memory.best);
  descend(costs, table);
  table.keep(memory.best);
  team.sync();
  return step - 1;
}

// A random permutation.
template <class Team>
GRAPHMATCH_HOST_DEVICE void shuffle(std::int32_t* permutation, std::int32_t nodes, Random& random, Team& team) {
  if (team.rank() == 0) {
    Random draws = random;
    for (std::int32_t i = 0; i < nodes; ++i) permutation[i] = i;
    for (std::int32_t i = nodes - 1; i > 0; --i) {
      const auto j = static_cast<std::int32_t>(draws.below(i + 1));
      const std::int32_t moved = permutation[i];
      permutation[i] = permutation[j];
      permutation[j] = moved;
    }
  }
  random.skip(nodes > 0 ? nodes - 1 : 0);
  team.sync();
}

// A batch of problems, each as it was given and as QapCosts would have it, all matrices without gaps between rows and
// problems. Run k of a problem starts from starts[problem][k] while there is one.
struct QapTabuBatch {
  std::int64_t count = 0, runs = 0, steps = 0;
  std::uint64_t seed = 0;
  QapProblem<double> first;                                              // problem 0 at its padded size
  const double *flow = nullptr, *distance = nullptr, *linear = nullptr;  // the costs
  const std::int64_t* nodes = nullptr;                                   // 0 leaves a problem out
  const std::uint8_t *symmetric = nullptr, *exact_in_float = nullptr;
  const double *noise = nullptr, *goal = nullptr;
  const std::int64_t* starts = nullptr;  // count x start_count x padded nodes
  std::int64_t start_count = 0;
  std::int64_t* assignment = nullptr;  // count x runs x padded nodes
  double* objective = nullptr;         // count x runs
  std::int64_t* iterations = nullptr;  // count x runs

  GRAPHMATCH_HOST_DEVICE std::int64_t searches() const { return count * runs; }

  GRAPHMATCH_HOST_DEVICE QapProblem<double> problem(std::int64_t index) const {
    const std::int64_t offset = index * first.nodes * first.nodes;
    QapProblem<double> view = first;
    view.nodes = nodes[index];
    view.flow += offset;
    view.distance += offset;
    if (view.linear != nullptr) view.linear += offset;
    return view;
  }

  GRAPHMATCH_HOST_DEVICE QapCostsView costs(std::int64_t index) const {
    const std::int64_t offset = index * first.nodes * first.nodes;
    QapCostsView view;
    view.nodes = static_cast<std::int32_t>(nodes[index]);
    view.stride = first.nodes;
    view.flow = flow + offset;
    view.distance = distance + offset;
    view.linear = linear + offset;
    view.symmetric = symmetric[index] != 0;
    view.noise = noise[index];
    view.goal = goal[index];
    return view;
  }
};

// Search number `search` of a batch, if it is one for tables of T. All members of the team are done with the memory
// when it returns.
template <class T, class Team>
GRAPHMATCH_HOST_DEVICE void run_qap_tabu(const QapTabuBatch& batch, std::int64_t search, TieredMemory memory,
                                         Team& team) {
  const std::int64_t index = search / batch.runs, run = search % batch.runs;
  const std::int64_t nodes = batch.nodes[index];
  if (nodes <= 0 || (batch.exact_in_float[index] != 0) != std::is_same_v<T, float>) return;
  const SwapTableMemory<T> tables(batch.first.nodes, memory);  // the same places whatever the problem's size
  const QapCostsView costs = batch.costs(index);
  Random random(batch.seed, static_cast<std::uint64_t>(run));
  if (run < batch.start_count) {
    const std::int64_t* start = batch.starts + (index * batch.start_count + run) * batch.first.nodes;
    share_out(team, nodes, [&](std::int64_t i) { tables.best[i] = static_cast<std::int32_t>(start[i]); });
    team.sync();
  } else {
    shuffle(tables.best, costs.nodes, random, team);
  }
  const std::int64_t iterations = search_qap(costs, tables, batch.steps, random, team);
  const double objective = qap_objective(batch.problem(index), tables.best, tables.row_sums, team);
  share_out(team, nodes, [&](std::int64_t i) { batch.assignment[search * batch.first.nodes + i] = tables.best[i]; });
  if (team.rank() == 0) {
    batch.objective[search] = objective;
    batch.iterations[search] = iterations;
  }
  team.sync();
}

}  // namespace graphmatch
