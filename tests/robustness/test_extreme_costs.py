"""Costs of any magnitude and problems of any size: true objectives, valid bounds, no NaN, or a refusal with numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

import graphmatch as gm
from graphmatch import _reference

LINEAR = (gm.LAP(), gm.Sinkhorn(max_iterations=100), gm.GumbelSinkhorn(max_iterations=50, samples=2), gm.BruteForce())
LAWLER = (
    gm.Portfolio(effort=0.1),
    gm.DualAscent(max_iterations=50),
    gm.Tabu(steps=50, restarts=2),
    gm.Fusion(generations=5),
    gm.BranchAndBound(max_nodes=10_000),
    gm.SpectralMatching(max_iterations=30),
    gm.RRWM(max_iterations=20),
    gm.IPFP(max_iterations=20),
    gm.BruteForce(),
)
DENSE = (*LAWLER[:6], gm.FAQ(), gm.BruteForce())
NODES = 4

Costs = Callable[..., torch.Tensor]


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def mixed(*shape: int) -> torch.Tensor:
    exponents = torch.arange(math.prod(shape), dtype=torch.float64).reshape(shape) % 61 - 30
    return normal(*shape).sign() * 10.0**exponents


def extremes(*shape: int) -> torch.Tensor:
    return normal(*shape).sign() * 1e30


def large_integers(*shape: int) -> torch.Tensor:
    return 2.0**53 + 2 * (100 * normal(*shape)).round()


def signed_zeros(*shape: int) -> torch.Tensor:
    return normal(*shape).sign() * 0.0


def with_scale(scale: float) -> Costs:
    return lambda *shape: normal(*shape) * scale


MAGNITUDES: dict[str, Costs] = {
    "denormal": with_scale(5e-322),
    "float32 denormal": with_scale(1e-41),
    "1e-30": with_scale(1e-30),
    "1e30": with_scale(1e30),
    "all 1e30": extremes,
    "1e99": with_scale(1e98),
    "1e-30 to 1e30": mixed,
    "all equal": lambda *shape: torch.full(shape, 0.1, dtype=torch.float64),
    "all equal and large": lambda *shape: torch.full(shape, 1e30, dtype=torch.float64),
    "beyond 2^53": large_integers,
    "-0.0": signed_zeros,
}
DTYPES = (torch.float64, torch.float32)


def cases() -> list:
    found = []
    for kind, solvers in (("linear", LINEAR), ("lawler", LAWLER), ("dense", DENSE)):
        found += [pytest.param(kind, solver, id=f"{kind}-{type(solver).__name__}") for solver in solvers]
    return found


def problem_of(kind: str, make: Costs, dtype: torch.dtype, forbid: bool) -> gm.Problem:
    def of(*shape: int) -> torch.Tensor:
        values = make(*shape)
        return values if dtype == torch.float64 else values.clamp(-1e36, 1e36).to(dtype)

    unary = of(2, NODES, NODES)
    if forbid:
        unary = unary.masked_fill(torch.eye(NODES, dtype=torch.bool), torch.inf)
    if kind == "linear":
        return gm.LinearProblem(unary)
    if kind == "dense":
        # The products are the costs: their roots keep them in range.
        roots = [each.abs().sqrt() * each.sign() for each in (of(2, NODES, NODES), of(2, NODES, NODES).mT)]
        return gm.KoopmansBeckmannProblem(*roots, unary)
    edges = torch.combinations(torch.arange(NODES))
    return gm.LawlerProblem(unary, of(2, len(edges), len(edges)), edges, edges.flip(1))


def total_size(problem: gm.Problem) -> float:
    """The largest sum of magnitudes that any objective can be made of: rounding is relative to it."""
    parts = [problem.costs] if isinstance(problem, gm.LinearProblem) else []
    if isinstance(problem, gm.LawlerProblem):
        parts = [problem.unary_costs, problem.quadratic_costs]
    if isinstance(problem, gm.KoopmansBeckmannProblem):
        products = problem.flow.double().abs().amax() * problem.distance.double().abs().amax()
        parts = [problem.linear, products * NODES**2]
    return float(sum(part.double().masked_fill(part == torch.inf, 0).abs().sum() for part in parts))


def magnitude_cases() -> list:
    """Every solver at every magnitude."""
    return [
        pytest.param(*case.values, magnitude, id=f"{case.id}-{magnitude}")
        for case in cases()
        for magnitude in MAGNITUDES
    ]


@pytest.mark.parametrize(("kind", "solver", "magnitude"), magnitude_cases())
def test_objectives_and_bounds_hold(kind: str, solver: gm.Solver, magnitude: str):
    for dtype in DTYPES:
        for forbid in (False, True):
            problem = problem_of(kind, MAGNITUDES[magnitude], dtype, forbid)
            result = gm.solve(problem, solver)
            best = gm.BruteForce().solve(problem)
            rounding = 1e-12 * total_size(problem) + 1e-320
            assert not result.objective.isnan().any()
            assert not result.lower_bound.isnan().any()
            assert result.assignment.sort(1).values.tolist() == [list(range(NODES))] * 2
            if forbid:
                assert not (result.assignment == torch.arange(NODES)).any()
            recomputed = _reference.objective(problem, result.assignment)
            torch.testing.assert_close(result.objective, recomputed, rtol=1e-12, atol=rounding)
            assert (result.lower_bound <= result.objective).all()
            assert (result.lower_bound <= best.objective + rounding).all()
            assert (result.objective >= best.objective - rounding).all()
            if isinstance(solver, gm.LAP):
                torch.testing.assert_close(result.objective, best.objective, rtol=1e-12, atol=rounding)


@pytest.mark.parametrize(("kind", "solver"), cases())
def test_costs_beyond_the_range_are_refused(kind: str, solver: gm.Solver):
    for value in (1e300, -1e300, -math.inf, math.nan):

        def everywhere(*shape: int, value: float = value) -> torch.Tensor:
            return torch.full(shape, value, dtype=torch.float64)

        with pytest.raises(ValueError, match=r"must hold finite costs.*of at most 1e\+100; got .* at index"):
            gm.solve(problem_of(kind, everywhere, torch.float64, False), solver)


@pytest.mark.parametrize("kind", ["linear", "lawler", "dense"])
def test_where_all_is_forbidden_there_is_no_matching(kind: str):
    problem = problem_of(kind, normal, torch.float64, False)
    name = {"linear": "costs", "lawler": "unary_costs", "dense": "linear"}[kind]
    forbidden = torch.full((2, NODES, NODES), torch.inf, dtype=torch.float64)
    for solver in {"linear": LINEAR, "lawler": LAWLER, "dense": DENSE}[kind]:
        result = gm.solve(replace(problem, **{name: forbidden}), solver)
        assert result.statuses == [gm.Status.INFEASIBLE] * 2
        assert result.objective.tolist() == [math.inf] * 2
        assert not result.lower_bound.isnan().any()


def test_enumeration_says_how_many_matchings_it_would_need():
    with pytest.raises(ValueError, match=str(math.factorial(20))):
        gm.BruteForce().solve(gm.LinearProblem(torch.zeros(1, 20, 20)))
