"""The baselines of the literature: their operator against the matrix it stands for, and what they find."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import pytest
import torch

import graphmatch as gm
from graphmatch.solvers.baseline import Affinity

Make = Callable[..., gm.Problem]
BASELINES = [gm.SpectralMatching(), gm.RRWM(), gm.IPFP()]
every_baseline = pytest.mark.parametrize("solver", BASELINES, ids=lambda solver: type(solver).__name__)


@pytest.mark.parametrize("forbidden", [0.0, 0.3])
@pytest.mark.parametrize("lifted", [False, True])
def test_the_operator_is_the_matrix_it_stands_for(make_problem: Make, forbidden: float, lifted: bool):
    for seed in range(5):
        problem = make_problem("lawler", seed, batch=2, n1=3, n2=4, e1=8, e2=9, forbidden=forbidden)
        affinity = Affinity(problem, lifted)
        # Column by column: M applied to every unit vector.
        units = torch.eye(12, dtype=torch.float64).view(12, 1, 3, 4).expand(12, 2, 3, 4)
        matrix = torch.stack([affinity(unit).flatten(1) for unit in units], dim=2)
        torch.testing.assert_close(matrix, matrix.transpose(1, 2), rtol=1e-12, atol=1e-12)
        if lifted:
            assert (matrix >= -1e-12).all()
        expected, constants = [], []
        for rows in permutations(range(4), 3):
            x = torch.zeros(2, 3, 4, dtype=torch.float64)
            x[:, torch.arange(3), list(rows)] = 1
            value = (x.flatten(1) * affinity(x).flatten(1)).sum(1)
            cost = gm._reference.objective(problem, torch.tensor([rows, rows]))
            fits = cost.isfinite()
            expected.append(torch.where(fits, value + cost, torch.nan))
            constants.append((6 * affinity.lift_pairs + 3 * affinity.lift_diagonal).flatten())
        found, wanted = torch.stack(expected), torch.stack(constants)
        allowed = found.isfinite()
        torch.testing.assert_close(found[allowed], wanted[allowed], rtol=1e-9, atol=1e-9)


@every_baseline
def test_isomorphic_graphs_are_recovered(solver: gm.Solver, rng: torch.Generator):
    points = torch.rand(12, 2, generator=rng)
    order = torch.randperm(12, generator=rng)
    left, right = gm.knn_graph(points, k=4), gm.knn_graph(points[order], k=4)
    lengths = [(graph.nodes[graph.edges[:, 0]] - graph.nodes[graph.edges[:, 1]]).norm(dim=1) for graph in (left, right)]
    quadratic = -torch.exp(-((lengths[0][:, None] - lengths[1][None, :]) ** 2) / 1e-4)[None]
    problem = gm.LawlerProblem(torch.zeros(1, 12, 12), quadratic, left.edges, right.edges)
    assert order[gm.solve(problem, solver).assignment[0]].tolist() == list(range(12))


@every_baseline
def test_the_portfolio_is_better(solver: gm.Solver, make_problem: Make):
    problem = make_problem("lawler", 3, batch=8, n1=10, n2=10, e1=30, e2=30)
    baseline, best = gm.solve(problem, solver), gm.solve(problem)
    assert (best.objective <= baseline.objective + 1e-9).all()
    assert (baseline.lower_bound <= best.objective + 1e-9).all()
    assert (baseline.objective < 0).any(), "the baseline beats doing nothing somewhere"


@every_baseline
def test_matches_that_cost_more_than_they_save_are_given_up(solver: gm.Solver):
    edges = torch.tensor([[0, 1]])
    problem = gm.LawlerProblem(torch.tensor([[[-1.0, 5.0], [5.0, 2.0]]]), torch.zeros(1, 1, 1), edges, edges, None, 0.5)
    result = gm.solve(problem, solver)
    assert result.assignment.tolist() == [[0, -1]]
    assert result.objective.item() == -0.5


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: gm.SpectralMatching(iterations=0), "SpectralMatching: iterations must be at least 1; got 0"),
        (lambda: gm.IPFP(iterations=0), "IPFP: iterations must be at least 1"),
        (lambda: gm.RRWM(walk=1.5), r"RRWM: walk must lie in \[0, 1\]; got 1.5"),
        (lambda: gm.RRWM(inflation=0.0), "RRWM: inflation must be positive"),
        (lambda: gm.RRWM(sinkhorn_iterations=0), "RRWM: sinkhorn_iterations must be at least 1"),
    ],
)
def test_options_are_checked(make: Callable[[], gm.Solver], complaint: str):
    with pytest.raises(ValueError, match=f"^{complaint}"):
        make()


@every_baseline
def test_linear_problems_are_refused(solver: gm.Solver, make_problem: Make):
    with pytest.raises(TypeError, match=r"problem must be a LawlerProblem; got LinearProblem\. Use LAP"):
        gm.solve(make_problem("linear", 0), solver)
