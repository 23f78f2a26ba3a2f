// Linear assignment problems (linear.hpp) solved exactly by a team, with their dual certificates.
//
// What LinearSolver does, with team_lap() in place of Lap. More rows than columns are solved transposed by another
// order of access instead of a copy. Of a start the matching counts; its duals would save a fraction of a search that
// takes microseconds.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/arena.hpp"
#include "core/host_device.hpp"
#include "core/linear.hpp"
#include "core/solution.hpp"
#include "core/team.hpp"
#include "core/team_lap.hpp"

namespace graphmatch {

struct TeamLinearMemory {
  TeamLapMemory<double> lap;
  double* unmatched;  // of rows

  // Room for problems of at most these sizes; transposed ones have their shorter side as rows.
  GRAPHMATCH_HOST_DEVICE void place(Arena& arena, std::int64_t rows, std::int64_t columns, bool complete) {
    const bool transposed = complete && rows > columns;
    lap.place(arena, transposed ? columns : rows, transposed ? rows : columns);
    unmatched = arena.take<double>(complete ? 0 : rows);
  }
  GRAPHMATCH_HOST_DEVICE static std::int64_t bytes(std::int64_t rows, std::int64_t columns, bool complete) {
    Arena counter(nullptr);
    TeamLinearMemory memory;
    memory.place(counter, rows, columns, complete);
    return counter.used();
  }
};

// The costs of a problem as team_lap() takes them.
template <class T>
struct LinearCosts {
  const T* costs;
  std::int64_t row_stride, column_stride;

  GRAPHMATCH_HOST_DEVICE double operator()(std::int32_t i, std::int32_t k) const {
    return static_cast<double>(costs[i * row_stride + k * column_stride]);
  }
};

// One solve; see solve_linear() below.
template <class T, class Team>
class TeamLinear {
 public:
  GRAPHMATCH_HOST_DEVICE TeamLinear(Team& team, const LinearProblem<T>& problem, TeamLinearMemory& memory)
      : team_(team),
        p_(problem),
        m_(memory),
        transposed_(problem.complete && problem.rows > problem.columns),
        rows_(static_cast<std::int32_t>(transposed_ ? problem.columns : problem.rows)),
        columns_(static_cast<std::int32_t>(transposed_ ? problem.rows : problem.columns)),
        costs_{problem.costs, transposed_ ? 1 : problem.stride, transposed_ ? problem.stride : 1} {}

  GRAPHMATCH_HOST_DEVICE Solution solve(const LinearStart& start, const LinearDuals& duals, std::int64_t* assignment) {
    const double nan = NAN, infinity = INFINITY;
    share_out(team_, p_.rows, [&](std::int64_t i) { assignment[i] = -1; });
    if (!is_valid()) return {Status::kInvalid, nan, nan, 0, Stage::kNone};
    const double* unmatched = p_.complete ? nullptr : m_.unmatched;
    if (!p_.complete) share_out(team_, rows_, [&](std::int64_t i) { m_.unmatched[i] = p_.unmatched_cost; });
    if (!team_lap(team_, rows_, columns_, costs_, unmatched, TeamLapStart<double>{}, m_.lap)) {
      return {Status::kInfeasible, infinity, infinity, 1, Stage::kNone};
    }
    Solution solution;
    solution.status = Status::kOptimal;
    solution.iterations = 1;
    const std::int32_t* matched = transposed_ ? m_.lap.row_of : m_.lap.column_of;
    share_out(team_, p_.rows, [&](std::int64_t i) { assignment[i] = matched[i]; });
    solution.objective = objective(assignment);
    tighten();
    const double lower = bound();
    solution.lower_bound = solution.objective < lower ? solution.objective : lower;
    write(m_.lap.u, rows_, transposed_ ? duals.columns : duals.rows);
    write(m_.lap.v, columns_, transposed_ ? duals.rows : duals.columns);
    team_.sync();
    if (start.matching != nullptr && keeps(start.matching, solution.objective)) {
      share_out(team_, p_.rows, [&](std::int64_t i) { assignment[i] = start.matching[i]; });
      solution.stage = Stage::kWarmStart;
    }
    return solution;
  }

 private:
  static constexpr double kEpsilon = 2.220446049250313e-16;

  GRAPHMATCH_HOST_DEVICE void write(const double* values, std::int64_t count, double* target) const {
    if (target != nullptr) share_out(team_, count, [&](std::int64_t k) { target[k] = values[k]; });
  }

  // Whether no cost is NaN or -infinity.
  GRAPHMATCH_HOST_DEVICE bool is_valid() {
    std::int32_t bad = fabs(p_.unmatched_cost) < static_cast<double>(INFINITY) ? 0 : 1;
    for (std::int64_t i = team_.group_index(); i < p_.rows; i += team_.group_count()) {
      share_out(team_.group(), p_.columns,
                [&](std::int64_t k) { bad |= p_.costs[i * p_.stride + k] > -static_cast<T>(INFINITY) ? 0 : 1; });
    }
    return team_.reduce_max(bad) == 0;
  }

  // Each row pays for its cheapest label, so that rounding in the search cannot break the certificate.
  GRAPHMATCH_HOST_DEVICE void tighten() {
    auto& group = team_.group();
    const TeamLapMemory<double>& lap = m_.lap;
    for (std::int64_t i = team_.group_index(); i < rows_; i += team_.group_count()) {
      double lowest = p_.complete ? static_cast<double>(INFINITY) : p_.unmatched_cost;
      share_out(group, columns_, [&](std::int64_t k) {
        lowest = fmin(lowest, costs_(static_cast<std::int32_t>(i), static_cast<std::int32_t>(k)) - lap.v[k]);
      });
      lowest = group.reduce_min(lowest);
      if (group.rank() == 0) lap.u[i] = lowest;
    }
    team_.sync();
  }

  // No matching costs less: the sum of the duals, less what rounding may have added. Of n numbers added in any order no
  // one goes through more than n - 1 additions, each off by half a unit in the last place; as much for each dual
  // itself, the sum of the magnitudes and the subtraction.
  GRAPHMATCH_HOST_DEVICE double bound() {
    double sum = 0.0, magnitude = 0.0;
    const auto add = [&](const double* values, std::int64_t count) {
      share_out(team_, count, [&](std::int64_t k) {
        sum += values[k];
        magnitude += fabs(values[k]);
      });
    };
    add(m_.lap.u, rows_);
    add(m_.lap.v, columns_);
    sum = team_.reduce_sum(sum);
    magnitude = team_.reduce_sum(magnitude);
    return sum - (0.5 * (rows_ + columns_) + 2.0) * kEpsilon * magnitude;
  }

  // Of a matching of the problem: equal ones have equal sums. Members look at the rows they have written.
  GRAPHMATCH_HOST_DEVICE double objective(const std::int64_t* matching) {
    double total = 0.0;
    share_out(team_, p_.rows, [&](std::int64_t i) {
      if (matching[i] >= 0) {
        total += static_cast<double>(p_.costs[i * p_.stride + matching[i]]);
      } else if (!p_.complete) {
        total += p_.unmatched_cost;
      }
    });
    return team_.reduce_sum(total);
  }

  // Whether this is a matching of the problem that costs no more than `least`.
  GRAPHMATCH_HOST_DEVICE bool keeps(const std::int64_t* matching, double least) {
    std::int32_t wrong = 0;
    share_out(team_, p_.rows, [&](std::int64_t i) { wrong |= matching[i] < -1 || matching[i] >= p_.columns ? 1 : 0; });
    if (team_.reduce_max(wrong) != 0) return false;
    double matched = 0.0;
    share_out(team_, p_.columns, [&](std::int64_t k) {
      std::int32_t owners = 0;
      for (std::int64_t i = 0; i < p_.rows; ++i) owners += matching[i] == k ? 1 : 0;
      wrong |= owners > 1 ? 1 : 0;
      matched += owners;
    });
    if (team_.reduce_max(wrong) != 0) return false;
    matched = team_.reduce_sum(matched);
    return objective(matching) <= least && (!p_.complete || matched == rows_);
  }

  Team& team_;
  const LinearProblem<T>& p_;
  TeamLinearMemory& m_;
  const bool transposed_;
  const std::int32_t rows_, columns_;  // of the problem as it is solved
  const LinearCosts<T> costs_;
};

// Writes the column of each row (-1 = unmatched) to `assignment`, and where there is a matching the duals to `duals` if
// they are asked for. From a start, its matching is returned if none is cheaper. Every member gets the solution.
template <class T, class Team>
GRAPHMATCH_HOST_DEVICE Solution solve_linear(Team& team, const LinearProblem<T>& problem, const LinearStart& start,
                                             const LinearDuals& duals, TeamLinearMemory& memory,
                                             std::int64_t* assignment) {
  TeamLinear<T, Team> linear(team, problem, memory);
  const Solution solution = linear.solve(start, duals, assignment);
  team.sync();
  return solution;
}

}  // namespace graphmatch
