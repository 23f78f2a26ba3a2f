// Noisy copies of random problems: samplers against solvers of their own, one thread against several.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "bindings/thread_pool.hpp"
#include "core/lawler_samples.hpp"
#include "core/linear_samples.hpp"
#include "core/noise.hpp"
#include "core/solution_mean.hpp"
#include "problems.hpp"

namespace graphmatch {

inline bool same_numbers(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }

inline bool same_answer(const Solution& a, const Solution& b) {
  return a.status == b.status && same_numbers(a.objective, b.objective) && same_numbers(a.lower_bound, b.lower_bound) &&
         a.iterations == b.iterations && a.stage == b.stage;
}

// Random changes of a batch's costs, laid out as these.
template <class T>
std::vector<T> random_step(std::int64_t size, std::int64_t seed) {
  std::mt19937_64 random(static_cast<std::uint64_t>(seed));
  std::normal_distribution<double> normal;
  std::vector<T> step(static_cast<std::size_t>(size));
  for (T& change : step) change = static_cast<T>(normal(random));
  return step;
}

inline constexpr double kUnitCosts = 4.0;  // about the largest of random_step()

// A solver that has solved other costs before gives exactly what a fresh one gives.
template <class T>
void test_restarted_searches(std::int64_t first_seed, std::int64_t count) {
  for (std::int64_t seed = first_seed; seed < first_seed + count; ++seed) {
    const bool tiny = seed % 4 != 0;
    const Batch<T> batch(seed, tiny ? 4 : 2, tiny ? 6 : 16, tiny ? 9 : 50);
    const std::int64_t nodes = batch.view.first.rows;
    for (std::int64_t method = 0; method <= static_cast<std::int64_t>(LawlerMethod::kPortfolio); ++method) {
      const LawlerOptions options = small_budget(static_cast<LawlerMethod>(method));
      for (std::int64_t b = 0; b < batch.view.count; ++b) {
        const LawlerProblem<T> problem = batch.view.problem(b);
        LawlerSolver<T> reused(options);
        reused.take(problem, kUnitCosts);
        States states(batch.view);
        std::vector<std::int64_t> start(nodes, -1), first(nodes, -1), second(nodes, -1);
        Stop stop;
        reused.solve(DualState{}, nullptr, states.at(b), stop, start.data());
        for (std::int64_t round = 0; round < 4; ++round) {
          std::vector<T> unary = random_step<T>(nodes * nodes, 10 * seed + round);
          if (round == 2) unary[0] = std::numeric_limits<T>::quiet_NaN();
          if (round == 3) std::fill_n(unary.begin(), problem.columns, std::numeric_limits<T>::infinity());
          const bool warm = round % 2 == 1;
          auto solve = [&](LawlerSolver<T>& solver, std::vector<std::int64_t>& found) {
            solver.replace_unary(unary.data(), nodes);
            return solver.solve(warm ? states.at(b) : DualState{}, start.data(), DualState{}, stop, found.data());
          };
          LawlerSolver<T> fresh(options);
          fresh.take(problem, kUnitCosts);
          const Solution expected = solve(fresh, first);
          check(same_answer(solve(reused, second), expected), "a restarted search is a fresh one", seed, b);
          check(first == second, "a restarted search finds the same matching", seed, b);
          LawlerProblem<T> replaced = problem;
          replaced.unary = unary.data();
          replaced.unary_stride = nodes;
          if (expected.status != Status::kInvalid) {
            check_answer(replaced, first.data(), expected, seed, b, false);
          }
        }
      }
    }
  }
}

struct SampledAnswers {
  std::vector<Solution> solutions;  // problems x samples x variants
  std::vector<std::int64_t> assignments;
  std::vector<double> means;  // problems x nodes x nodes, of the first variant
};

inline bool same(const SampledAnswers& a, const SampledAnswers& b) {
  return a.assignments == b.assignments && a.means == b.means &&
         std::equal(a.solutions.begin(), a.solutions.end(), b.solutions.begin(), same_answer);
}

// Blocks of `length` samples over the threads, each with a sampler of its own, all adding to the same means.
template <class T>
SampledAnswers solve_samples(const Batch<T>& batch, const SampleOptions& options, const std::vector<T>& unary_step,
                             const std::vector<T>& quadratic_step, std::int64_t length, std::int64_t threads) {
  const std::int64_t nodes = batch.view.first.rows, edges = batch.view.first.edge_count1, count = batch.view.count;
  const std::int64_t variants = static_cast<std::int64_t>(options.signs.size());
  const std::int64_t blocks = (options.samples + length - 1) / length;
  SampledAnswers answers;
  answers.solutions.resize(count * options.samples * variants);
  answers.assignments.assign(count * options.samples * variants * nodes, -1);
  answers.means.assign(count * nodes * nodes, 0.0);
  std::vector<std::unique_ptr<SolutionMean>> means;
  for (std::int64_t b = 0; b < count; ++b) {
    const LawlerProblem<T> p = batch.view.problem(b);
    means.push_back(std::make_unique<SolutionMean>(p.rows, p.columns, p.edge_count1, p.edge_count2));
  }
  Stop stop;
  ThreadPool::instance().run(count * blocks, threads, stop, [&](std::int64_t task) {
    const std::int64_t b = task % count, first = task / count * length;
    SampleSource<T> source;
    source.key = 3;
    source.instance = static_cast<std::uint64_t>(b);
    source.unary_step = unary_step.data() + b * nodes * nodes;
    if (!quadratic_step.empty()) source.quadratic_step = quadratic_step.data() + b * edges * edges;
    const LawlerProblem<T> problem = batch.view.problem(b);
    LawlerSampler<T> sampler(problem, source, small_budget(LawlerMethod::kPortfolio), options);
    std::vector<std::int64_t> center(nodes, -1);
    sampler.solve_center(DualState{}, stop, center.data());
    for (std::int64_t sample = first; sample < std::min(first + length, options.samples); ++sample) {
      sampler.draw(sample);
      for (std::int64_t v = 0; v < variants; ++v) {
        const std::int64_t place = (b * options.samples + sample) * variants + v;
        std::int64_t* x = answers.assignments.data() + place * nodes;
        answers.solutions[place] = sampler.solve(v, stop, x);
        const Status status = answers.solutions[place].status;
        if (v == 0 && (status == Status::kOptimal || status == Status::kFeasible)) {
          sampler.add_to(*means[b], v, x, kWholeWeight / (1 + sample % 3));
        }
      }
    }
  });
  for (std::int64_t b = 0; b < count; ++b) {
    means[b]->write_matching(answers.means.data() + b * nodes * nodes, nodes);
  }
  return answers;
}

template <class T>
void test_samples(std::int64_t first_seed, std::int64_t count) {
  for (std::int64_t seed = first_seed; seed < first_seed + count; ++seed) {
    const Batch<T> batch(seed, 3, 5, 8);
    const std::int64_t nodes = 5, edges = 8;
    SampleOptions options;
    options.samples = 9;
    options.noise_scale = seed % 5 == 0 ? 0.0 : 0.8;
    options.noise.kind = static_cast<NoiseKind>(seed % 4);
    const bool coupled = options.noise.kind != NoiseKind::kSumOfGamma;
    options.noise.coupling = static_cast<NoiseCoupling>(coupled ? seed / 4 % 3 : 0);
    options.signs = {1.0, -0.5};
    const std::vector<T> unary_step = random_step<T>(3 * nodes * nodes, seed);
    const std::vector<T> quadratic_step =
        seed % 2 == 0 ? random_step<T>(3 * edges * edges, seed + 1) : std::vector<T>{};
    const SampledAnswers answers = solve_samples(batch, options, unary_step, quadratic_step, 9, 1);
    check(same(answers, solve_samples(batch, options, unary_step, quadratic_step, 2, 2)), "two threads sample alike",
          seed, -1);
    check(same(answers, solve_samples(batch, options, unary_step, quadratic_step, 4, 8)), "eight threads sample alike",
          seed, -1);
    // Every answer is one of the problem with the costs that the header promises.
    for (std::int64_t place = 0; place < static_cast<std::int64_t>(answers.solutions.size()); ++place) {
      const std::int64_t b = place / 18, sample = place / 2 % 9;
      LawlerProblem<T> problem = batch.view.problem(b);
      const T sign = static_cast<T>(options.signs[place % 2]);
      std::vector<float> noise(nodes * nodes, 0.0f);
      Noise(options.noise, 3, static_cast<std::uint64_t>(b), problem.rows, problem.columns)
          .draw(sample, noise.data(), nodes);
      std::vector<T> unary(nodes * nodes), quadratic(problem.edge_count1 * edges);
      for (std::int64_t i = 0; i < problem.rows; ++i) {
        for (std::int64_t k = 0; k < problem.columns; ++k) {
          const std::int64_t cell = i * nodes + k;
          const T noisy = problem.unary[cell] - static_cast<T>(options.noise_scale) * static_cast<T>(noise[cell]);
          unary[cell] = noisy + sign * unary_step[b * nodes * nodes + cell];
        }
      }
      for (std::int64_t e = 0; e < problem.edge_count1; ++e) {
        for (std::int64_t f = 0; f < problem.edge_count2; ++f) {
          const T step = quadratic_step.empty() ? T(0) : quadratic_step[(b * edges + e) * edges + f];
          quadratic[e * edges + f] = problem.quadratic[e * edges + f] + sign * step;
        }
      }
      problem.unary = unary.data();
      problem.quadratic = quadratic.data();
      const std::int64_t* x = answers.assignments.data() + place * nodes;
      check_answer(problem, x, answers.solutions[place], seed, place, false);

      const SampleSource<T> source{unary_step.data() + b * nodes * nodes, nullptr, 3, static_cast<std::uint64_t>(b)};
      const LinearProblem<T> linear{problem.rows, problem.columns,           batch.view.problem(b).unary,
                                    nodes,        batch.view.first.complete, problem.unmatched_cost};
      LinearSampler<T> sampler(linear, source, options);
      std::vector<std::int64_t> matching(nodes, -1);
      Stop stop;
      sampler.draw(sample);
      const Solution solution = sampler.solve(place % 2, stop, matching.data());
      problem.edge_count1 = problem.edge_count2 = 0;
      check_answer(problem, matching.data(), solution, seed, place, true);
    }
  }
}

// Noise does not depend on what was drawn before.
inline void test_noise() {
  for (std::int64_t kind = 0; kind < 4; ++kind) {
    for (std::int64_t coupling = 0; coupling < 3; ++coupling) {
      const NoiseOptions options{static_cast<NoiseKind>(kind), static_cast<NoiseCoupling>(coupling), 5, 1};
      if (options.kind == NoiseKind::kSumOfGamma && coupling > 0) continue;
      for (const std::int64_t columns : {1, 3, 9, 70}) {
        Noise noise(options, 7, 11, 5, columns);
        std::vector<float> drawn(5 * columns), again(5 * columns);
        for (const std::int64_t sample : {0, 1, 2, 40, 3, 70, 69, 2}) {
          noise.draw(sample, drawn.data(), columns);
          Noise(options, 7, 11, 5, columns).draw(sample, again.data(), columns);
          check(drawn == again, "noise depends on its counters alone", kind, sample);
          for (std::int64_t entry = 0; entry < 5 * columns && options.coupling != NoiseCoupling::kOrthogonal; ++entry) {
            const float one = noise_entry(options, 7, 11, 5, columns, sample, entry / columns, entry % columns);
            check(one == drawn[entry], "entries can be drawn one by one", kind, sample);
          }
          for (const float value : drawn) check(std::isfinite(value), "noise is finite", kind, sample);
        }
      }
    }
  }
}

}  // namespace graphmatch
