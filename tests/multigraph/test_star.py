"""Stars: which centre is taken, which pairs are solved, and that rounds of the barycenter pay."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch

import graphmatch as gm

Make = Callable[..., gm.MultiGraphProblem]


@dataclass
class Counting:
    """A solver that notes how many problems each call had."""

    calls: list[int] = field(default_factory=list)

    def solve(self, problem: gm.Problem) -> gm.MatchResult:
        self.calls.append(problem.batch_size)
        return gm.BruteForce().solve(problem)


def test_only_the_arms_are_solved(make_multigraph: Make):
    problem = make_multigraph(0, [3, 3, 3, 3])
    solver = Counting()
    result = gm.Star(2, solver=solver).solve(problem)
    assert solver.calls == [3]
    arms = (problem.pairs == 2).any(1)
    assert bool(result.pair_bounds[~arms].isinf().all())
    expected = gm.solve(problem.costs, gm.BruteForce()).objective
    torch.testing.assert_close(result.pair_objectives[arms], expected[arms])
    torch.testing.assert_close(result.pair_bounds[arms], expected[arms])
    assert result.lower_bound == -math.inf
    assert result.gap == math.inf
    assert result.pairwise is None
    assert math.isnan(result.consistency_before)


def test_certify_bounds_all_pairs(make_multigraph: Make):
    problem = make_multigraph(1, [3, 3, 3, 3])
    result = gm.Star(0, certify=True).solve(problem)
    exact = gm.solve(problem.costs, gm.BruteForce()).objective
    assert bool((result.pair_bounds <= exact + 1e-6).all())
    assert math.isfinite(result.lower_bound)


def centre_of(result: gm.MultiGraphResult) -> int:
    """The graph all of whose pairs are bounded."""
    bounded = result.pair_bounds.isfinite()
    (centre,) = set.intersection(*(set(pair) for pair in result.problem.pairs[bounded].tolist()))
    return centre


def linear_problem(costs: dict[tuple[int, int], float]) -> gm.MultiGraphProblem:
    """Graphs of two nodes; every match of a pair costs the same."""
    none = torch.zeros(0, 2, dtype=torch.int64)
    return gm.MultiGraphProblem.from_pairs(
        {
            pair: gm.LawlerProblem(torch.full((1, 2, 2), cost), torch.zeros(1, 0, 0), none, none)
            for pair, cost in costs.items()
        }
    )


def test_the_cheapest_centre_has_the_least_linear_costs():
    cheap = {(0, 1): -1.0, (0, 2): -1.0, (0, 3): -1.0, (1, 2): -5.0, (2, 3): -2.0, (1, 3): -1.0}
    assert centre_of(gm.Star().solve(linear_problem(cheap))) == 2
    even = dict.fromkeys(cheap, -1.0)
    assert centre_of(gm.Star().solve(linear_problem(even))) == 0


def test_the_cheapest_centre_knows_most_graphs():
    dear = {(0, 1): 1.0, (1, 2): 5.0, (1, 3): 5.0, (2, 3): 1.0}
    assert centre_of(gm.Star().solve(linear_problem(dear))) == 1


def test_graphs_without_a_pair_with_the_centre_stay_alone(make_multigraph: Make):
    none = torch.zeros(0, 2, dtype=torch.int64)
    one = gm.LawlerProblem(-torch.eye(2)[None], torch.zeros(1, 0, 0), none, none, unmatched_cost=0.0)
    problem = gm.MultiGraphProblem.from_pairs({(0, 1): one, (1, 2): one})
    assert gm.Star(0).solve(problem).labels.tolist() == [[0, 1], [0, 1], [2, 3]]
    assert gm.Star(0).solve(problem).objective == -2.0
    assert gm.Star("barycenter").solve(problem).objective == -4.0


def test_rounds_of_the_barycenter_never_cost_and_often_pay(make_multigraph: Make):
    better = 0
    for seed in range(12):
        problem = make_multigraph(seed, [4, 4, 3, 4, 4], unmatched_cost=[None, 0.3][seed % 2])
        star, one, many = (
            gm.Star("barycenter", rounds=rounds, solver=gm.BruteForce()).solve(problem) for rounds in (0, 1, 10)
        )
        assert star.objective == gm.Star(solver=gm.BruteForce()).solve(problem).objective
        assert many.objective <= one.objective <= star.objective
        better += many.objective < star.objective - 1e-6
    assert better >= 9


def test_a_barycenter_round_is_one_call(make_multigraph: Make):
    solver = Counting()
    gm.Star("barycenter", rounds=1, solver=solver).solve(make_multigraph(0, [3, 3, 3, 3]))
    assert solver.calls == [3, 4]


@pytest.mark.parametrize("centre", ["middle", -1, True, 1.0, None], ids=str)
def test_centres_are_checked(centre: object):
    with pytest.raises(ValueError, match="Star: centre must be a graph number, 'cheapest' or 'barycenter'"):
        gm.Star(centre)


def test_options_are_checked(make_multigraph: Make):
    with pytest.raises(ValueError, match=r"Star: centre must be a graph in \[0, 3\); got 3"):
        gm.Star(3).solve(make_multigraph(0, [2, 2, 2]))
    with pytest.raises(ValueError, match="Star: rounds must be at least 0; got -1"):
        gm.Star(rounds=-1)
    with pytest.raises(ValueError, match="Star: max_gap must be at least 0"):
        gm.Star(max_gap=math.nan)
