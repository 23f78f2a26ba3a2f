"""All pairs: as cheap as each of its candidates, and what the pairs say where they do not contradict each other."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import graphmatch as gm

Make = Callable[..., gm.MultiGraphProblem]
EXACT = gm.BruteForce()


@pytest.mark.parametrize("unmatched_cost", [None, 0.2])
def test_no_candidate_is_cheaper(unmatched_cost: float | None, make_multigraph: Make):
    gained = 0
    for seed in range(8):
        problem = make_multigraph(seed, [4, 4, 4, 4], unmatched_cost=unmatched_cost)
        found = gm.AllPairs(EXACT).solve(problem).objective
        stars = [gm.Star(centre, solver=EXACT).solve(problem).objective for centre in range(4)]
        # Not "spectral", which follows the eigenvectors of the machine's LAPACK.
        kinds = [gm.Synchronize(k, EXACT).solve(problem).objective for k in ("cliques", "projected_power")]
        assert found == pytest.approx(min(*stars, *kinds))
        gained += found < min(kinds) - 1e-6
    assert gained > 0


def test_consistent_pairs_are_the_certified_answer(rng: torch.Generator):
    points = torch.randn(6, 3, generator=rng, dtype=torch.float64)
    graphs = [gm.knn_graph(points[torch.randperm(6, generator=rng)], k=2) for _ in range(4)]
    problem = gm.MultiGraphProblem.from_graphs(graphs)
    result = gm.AllPairs(gm.Portfolio(max_gap=1e-9)).solve(problem)
    assert result.consistency_before == 1.0
    assert torch.equal(result.assignment, result.pairwise.assignment)
    assert result.status == gm.Status.OPTIMAL


def test_contradicting_pairs_become_consistent_at_a_price(make_multigraph: Make):
    problem = make_multigraph(0, [4, 4, 4, 4, 4])
    result = gm.AllPairs(EXACT).solve(problem)
    assert result.consistency_before < 1
    assert result.consistency == 1.0
    assert result.objective > float(result.pairwise.objective.sum())
    assert result.lower_bound == pytest.approx(float(result.pairwise.objective.sum()))
