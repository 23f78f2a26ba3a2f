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
