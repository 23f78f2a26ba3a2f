// Lawler problems solved by teams of threads: every answer is sound, and as good as that of the solver for one thread.
#pragma once

#include <cstdint>
#include <vector>

#include "core/team_lawler.hpp"
#include "core/thread_team.hpp"
#include "problems.hpp"

namespace graphmatch {

struct TeamShape {
  std::int64_t blocks, groups, group_size;
};

// Solves all problems of a batch by one team after the other problem, in memory that holds what the last one left.
template <class T>
Answers solve_by_team(const LawlerBatch<T>& batch, const TeamShape& shape, LawlerMethod method,
                      States* states = nullptr, const Answers* before = nullptr) {
  const LawlerProblem<T>& padded = batch.first;
  TeamLawlerMemory memory;
  auto place = [&](void* base) {
    Arena arena(base);
    memory.place(arena, padded.rows, padded.columns, padded.edge_count1, padded.edge_count2);
    memory.place_assignment(arena, padded.rows, padded.columns);
    memory.moves.place(arena, padded.rows, padded.columns);
    // Assignments in fast memory take other ways to the same optimum.
    if (padded.rows % 2 == 0) memory.dual.near = arena.take<float>(padded.rows * padded.columns);
    return static_cast<std::size_t>(arena.used());
  };
  std::vector<std::max_align_t> block(place(nullptr) / sizeof(std::max_align_t) + 1);
  place(block.data());

  Answers answers;
  answers.assignment.assign(batch.count * padded.rows, -1);
  answers.solutions.resize(batch.count);
  const LawlerOptions options = small_budget(method);
  auto work = [&](auto& team) {
    TeamLawlerMemory mine = memory;
    for (std::int64_t index = 0; index < batch.count; ++index) {
      const LawlerProblem<T> problem = batch.problem(index);
      const std::int64_t offset = index * padded.rows;
      const bool is_warm = states != nullptr && before != nullptr;
      const DualState state = states == nullptr ? DualState{} : states->at(index);
      using Team = std::remove_reference_t<decltype(team)>;
      TeamLawlerSolver<T, Team> solver(team, problem, options, mine);
      const Solution solution =
          solver.solve(is_warm ? state : DualState{}, is_warm ? before->assignment.data() + offset : nullptr,
                       is_warm ? DualState{} : state, TeamShare{}, answers.assignment.data() + offset);
      if (team.rank() == 0) answers.solutions[index] = solution;
      team.sync();
    }
  };
  if (shape.blocks * shape.groups * shape.group_size == 1) {
    SerialTeam team;
    work(team);
  } else {
    run_on_threads(shape.blocks, shape.groups, shape.group_size, work);
  }
  return answers;
}

template <class T>
void compare_teams(const Batch<T>& batch, const std::vector<TeamShape>& shapes) {
  const std::int64_t seed = batch.seed;
  for (const LawlerMethod method : {LawlerMethod::kDualAscent, LawlerMethod::kTabu, LawlerMethod::kPortfolio}) {
    States states(batch.view);
    const Answers alone = solve_by_team(batch.view, {1, 1, 1}, method, &states);
    const Answers again = solve_by_team(batch.view, {1, 1, 1}, method, &states, &alone);
    const Answers cpu = solve(batch.view, 1, -1.0, method);
    for (std::int64_t b = 0; b < batch.view.count; ++b) {
      const LawlerProblem<T> problem = batch.view.problem(b);
      const Solution& answer = alone.solutions[b];
      const double tolerance = 1e-6 * magnitude(problem);
      check_answer(problem, alone.assignment.data() + b * batch.view.first.rows, answer, seed, b, false);
      check_answer(problem, again.assignment.data() + b * batch.view.first.rows, again.solutions[b], seed, b, false);
      check(answer.status == Status::kInfeasible || again.solutions[b].objective <= answer.objective,
            "a warm start keeps the matching", seed, b);
      const bool both_optimal = answer.status == Status::kOptimal && cpu.solutions[b].status == Status::kOptimal;
      check((answer.status == Status::kInfeasible) == (cpu.solutions[b].status == Status::kInfeasible),
            "team and thread agree on what is feasible", seed, b);
      if (both_optimal) {
        check(std::fabs(answer.objective - cpu.solutions[b].objective) <= tolerance,
              "team and thread find the same optimum", seed, b);
      }
      if (method == LawlerMethod::kDualAscent && answer.status != Status::kInfeasible) {
        check_quality(answer.objective <= cpu.solutions[b].objective + 0.2 * magnitude(problem),
                      "a team's matching is about as good", seed, b);
      }
    }
    for (const TeamShape& shape : shapes) {
      States kept(batch.view);
      const Answers shared = solve_by_team(batch.view, shape, method, &kept);
      for (std::int64_t b = 0; b < batch.view.count; ++b) {
        const Solution &x = alone.solutions[b], &y = shared.solutions[b];
        const double tolerance = 1e-12 * magnitude(batch.view.problem(b));
        const bool same_answer =
            x.status == y.status && x.iterations == y.iterations &&
            (x.objective == y.objective || std::fabs(x.objective - y.objective) <= tolerance) &&
            (x.lower_bound == y.lower_bound || std::fabs(x.lower_bound - y.lower_bound) <= tolerance);
        check(same_answer, "teams of all sizes give the same answer", seed, b);
      }
      check(kept.messages == states.messages, "teams of all sizes leave the same duals", seed, -1);
    }
  }
}

inline void test_lawler_teams() {
  for (std::int64_t seed = 20000; seed < 20150; ++seed) {
    const bool tiny = seed % 4 != 0;
    compare_teams(Batch<float>(seed, tiny ? 12 : 2, tiny ? 5 : 14, tiny ? 9 : 40), {});
    compare_teams(Batch<double>(seed + 5000, tiny ? 12 : 2, tiny ? 5 : 14, tiny ? 9 : 40), {});
  }
  const std::vector<TeamShape> small = {{1, 1, 4}, {1, 4, 1}, {2, 2, 2}}, large = {{2, 4, 4}};
  for (std::int64_t seed = 21000; seed < 21006; ++seed) {
    compare_teams(Batch<float>(seed, 6, 5, 9), small);
    if (seed % 3 == 0) compare_teams(Batch<float>(seed, 2, 8, 14), large);
  }
}

}  // namespace graphmatch
