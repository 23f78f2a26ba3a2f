"""Lower bounds are certificates: they hold to the last bit, whatever the sums behind them have lost by rounding."""

from __future__ import annotations

import random
from fractions import Fraction
from itertools import permutations

import pytest
import torch

import graphmatch as gm


def wide_problem(seed: int, nodes: int, pairs: int, density: float) -> gm.LawlerProblem:
    """Costs of 24 bits at up to 45 binary places from one another, each of which float32 holds as it is.

    No two of them share a pair of rows and of columns: tables round nothing, sums in double do.
    """
    generator = random.Random(seed)

    def cost() -> float:
        return generator.choice([-1, 1]) * generator.randint(1, 2**24 - 1) * 2.0 ** -(24 + generator.randint(0, 45))

    rows = [(i, j) for i in range(nodes) for j in range(i + 1, nodes)]
    arcs = [(k, l) for k in range(nodes) for l in range(nodes) if k != l]  # noqa: E741
    edges1 = torch.tensor(generator.sample(rows, pairs))
    edges2 = torch.tensor(generator.sample(arcs, max(1, int(density * len(arcs)))))
    unary = torch.tensor([[[cost() for _ in range(nodes)] for _ in range(nodes)]])
    return gm.LawlerProblem(unary, torch.tensor([[[cost() for _ in edges2] for _ in edges1]]), edges1, edges2)


def exact_optimum(problem: gm.LawlerProblem) -> Fraction:
    """The least cost of a complete matching, in rational arithmetic."""
    unary, quadratic = problem.unary_costs[0].tolist(), problem.quadratic_costs[0].tolist()
    edges1, edges2 = problem.edges1[0].tolist(), problem.edges2[0].tolist()
    tables = [{tuple(arc): Fraction(cost) for arc, cost in zip(edges2, row, strict=True)} for row in quadratic]
    totals = []
    for image in permutations(range(len(unary))):
        total = sum((Fraction(unary[i][k]) for i, k in enumerate(image)), Fraction(0))
        for (i, j), table in zip(edges1, tables, strict=True):
            total += table.get((image[i], image[j]), Fraction(0))
        totals.append(total)
    return min(totals)


@pytest.mark.parametrize(("nodes", "pairs", "density"), [(4, 3, 0.5), (5, 2, 0.3), (5, 1, 0.1)])
def test_bounds_of_costs_of_very_different_sizes_hold_exactly(nodes: int, pairs: int, density: float):
    tight = 0
    for seed in range(40):
        problem = wide_problem(seed, nodes, pairs, density)
        optimum = exact_optimum(problem)
        for solver in (gm.DualAscent(max_gap=0.0), gm.BranchAndBound(max_gap=0.0)):
            bound = Fraction(gm.solve(problem, solver).lower_bound.item())
            assert bound <= optimum, (seed, solver)
            tight += optimum - bound < Fraction(1, 10**14)
    # A bound with room to spare would show nothing.
    assert tight >= 20


def random_problem(kind: str, seed: int) -> gm.Problem:
    generator = torch.Generator().manual_seed(seed)
    first, second, third = torch.randn(3, 1, 4, 4, generator=generator, dtype=torch.float64)
    if kind == "dense":
        return gm.KoopmansBeckmannProblem(first, second, third)
    cost = None if seed % 2 else 0.1
    if kind == "linear":
        return gm.LinearProblem(first, unmatched_cost=cost)
    edges = torch.tensor([[0, 1], [1, 2], [0, 1], [3, 0]])  # one of them twice
    return gm.LawlerProblem(first, second, edges, edges, unmatched_cost=cost)


def exact_objective(problem: gm.Problem, matching: list[int]) -> Fraction:
    if isinstance(problem, gm.KoopmansBeckmannProblem):
        flow, distance, linear = (
            [list(map(Fraction, row)) for row in each[0].tolist()]
            for each in (problem.flow, problem.distance, problem.linear)
        )
        nodes = range(len(flow))
        total = sum(flow[i][j] * distance[matching[i]][matching[j]] for i in nodes for j in nodes)
        return total + sum(linear[i][k] for i, k in enumerate(matching))
    is_linear = isinstance(problem, gm.LinearProblem)
    unary = (problem.costs if is_linear else problem.unary_costs)[0].tolist()
    unmatched = Fraction(problem.unmatched_cost or 0)
    total = sum((Fraction(unary[i][k]) if k >= 0 else unmatched for i, k in enumerate(matching)), Fraction(0))
    if not is_linear:
        arcs = [list(map(tuple, each[0].tolist())) for each in (problem.edges1, problem.edges2)]
        for (i, j), row in zip(arcs[0], problem.quadratic_costs[0].tolist(), strict=True):
            paid = [cost for arc, cost in zip(arcs[1], row, strict=True) if arc == (matching[i], matching[j])]
            total += sum(map(Fraction, paid), Fraction(0))
    return total


@pytest.mark.parametrize("kind", ["linear", "lawler", "dense"])
def test_the_bound_of_enumeration_holds_exactly(kind: str):
    above = 0
    for seed in range(30):
        problem = random_problem(kind, seed)
        result = gm.solve(problem, gm.BruteForce())
        bound = Fraction(result.lower_bound.item())
        optimum = min(exact_objective(problem, each) for each in gm.BruteForce()._candidates(4, 4, problem).tolist())
        assert optimum - Fraction(1, 10**12) < bound <= optimum, seed
        above += Fraction(result.objective.item()) > optimum
    assert above, "the objective itself would be no bound"


@pytest.mark.parametrize("unit", [1.0, 2.0**-60])
def test_the_bound_of_enumeration_is_the_optimum_of_integers(unit: float):
    generator = torch.Generator().manual_seed(0)
    flow, distance = unit * torch.randint(-9, 10, (2, 5, 4, 4), generator=generator).double()
    for problem in (gm.KoopmansBeckmannProblem(flow, distance), gm.LinearProblem(flow, unmatched_cost=-unit)):
        result = gm.solve(problem, gm.BruteForce())
        assert result.lower_bound.equal(result.objective)
