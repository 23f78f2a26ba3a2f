"""What searches promise: answers that no single move improves, tabu searches that leave local optima again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import graphmatch as gm
from graphmatch import _reference


def sparse_problem(seed: int, n1: int, n2: int, unmatched_cost: float | None, batch: int = 4) -> gm.LawlerProblem:
    """Random costs on graphs in which most nodes are neighbours."""
    generator = torch.Generator().manual_seed(seed)
    unary, quadratic = (
        torch.randn(batch, *shape, generator=generator, dtype=torch.float64) for shape in ((n1, n2), (4 * n1, 4 * n2))
    )
    edges = [torch.randint(n, (batch, 4 * n, 2), generator=generator) for n in (n1, n2)]
    return gm.LawlerProblem(unary, quadratic, *edges, None, unmatched_cost)


def moves(assignment: Tensor, columns: int, partial: bool) -> Iterator[Tensor]:
    """Yields all matchings one move away from this one, (n1,).

    Nodes exchange partners or move to a free one, and in partial problems become unmatched or take another's partner.
    """
    rows = len(assignment)
    for i in range(rows):
        for j in range(i):
            swapped = assignment.clone()
            swapped[i], swapped[j] = assignment[j], assignment[i]
            yield swapped
        for k in range(columns):
            owner = (assignment == k).nonzero()[:, 0].tolist()
            # In complete problems as many nodes as before have to be matched.
            if owner and (not partial or owner == [i]):
                continue
            if not partial and assignment[i] < 0:
                continue
            taken = assignment.clone()
            taken[owner] = -1
            taken[i] = k
            yield taken
        if partial:
            left = assignment.clone()
            left[i] = -1
            yield left


def improvements(problem: gm.Problem, assignment: Tensor, columns: int, partial: bool) -> float:
    """By how much the best single move of any problem of the batch lowers its objective."""
    objective = _reference.objective(problem, assignment)
    best = 0.0
    for b in range(len(assignment)):
        candidates = torch.stack(list(moves(assignment[b], columns, partial)))
        one = {name: value[b : b + 1] for name, value in vars(problem).items() if isinstance(value, Tensor)}
        many = type(problem)(
            **{name: value.expand(len(candidates), *value.shape[1:]) for name, value in one.items()},
            **({"unmatched_cost": problem.unmatched_cost} if isinstance(problem, gm.LawlerProblem) else {}),
        )
        best = max(best, float(objective[b] - _reference.objective(many, candidates).min()))
    return best


@pytest.mark.parametrize("unmatched_cost", [None, -0.5])
@pytest.mark.parametrize("shape", [(12, 12), (10, 12), (12, 10)], ids=str)
def test_no_move_improves_a_sparse_answer(unmatched_cost: float | None, shape: tuple[int, int]):
    for seed in range(3):
        problem = sparse_problem(seed, *shape, unmatched_cost, batch=8)
        answer = gm.solve(problem, gm.Fusion(generations=1, seed=seed)).assignment
        assert improvements(problem, answer, shape[1], unmatched_cost is not None) < 1e-4


@pytest.mark.parametrize("shape", [(12, 10), (12, 5), (6, 4)], ids=str)
def test_combined_matchings_of_more_rows_than_columns_stay_complete(shape: tuple[int, int]):
    for seed in range(3):
        problem = sparse_problem(seed, *shape, None, batch=8)
        # Staying unmatched is free: all costs are raised until it would pay.
        dear = gm.LawlerProblem(problem.unary_costs + 3, problem.quadratic_costs, problem.edges1, problem.edges2)
        answer = gm.solve(dear, gm.Fusion(generations=6, seed=seed)).assignment
        assert ((answer >= 0).sum(1) == shape[1]).all()


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("n", [12, 19])
def test_no_exchange_improves_a_dense_answer(symmetric: bool, n: int):
    generator = torch.Generator().manual_seed(n)
    flow, distance = torch.randn(2, 3, n, n, generator=generator, dtype=torch.float64)
    if symmetric:
        flow, distance = flow + flow.mT, distance + distance.mT
    problem = gm.KoopmansBeckmannProblem(flow, distance)
    answer = gm.solve(problem, gm.Tabu(steps=300, restarts=1)).assignment
    assert improvements(problem, answer, n, False) < 1e-9


def test_a_tabu_search_leaves_local_optima():
    problem = sparse_problem(0, 14, 14, None, batch=30)
    short, long = (gm.solve(problem, gm.Tabu(steps=steps, restarts=1)).objective for steps in (1, 400))
    assert (long < short - 1e-6).sum() >= 20
    assert (long <= short).all()
