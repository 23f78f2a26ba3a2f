"""Straight-through gradients against autograd and finite differences of a relaxation written down independently."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import graphmatch as gm
from graphmatch.gradients import FunctionOracle, estimated_solution

ERROR_FORM = r"^\S.*: .+ must .+; got .+\. \S.*\.$"
TEMPERATURE = 0.7
SINKHORN = gm.Sinkhorn(TEMPERATURE, max_iterations=20_000, tolerance=1e-13)


def polynomial(case: Any, problem: int, quadratic: Tensor) -> Tensor:
    """Costs Q[i, k, j, l] of pairs of different assignments, and [i, k, i, k] of loops, by loops."""
    n1, n2 = case.unary.shape[1:]
    terms: dict[tuple[int, int, int, int], list[Tensor]] = {}
    for e, (i, j) in enumerate(case.edges1[problem].tolist()):
        for f, (k, m) in enumerate(case.edges2[problem].tolist()):
            if (i == j) == (k == m):
                terms.setdefault((i, k, j, m), []).append(quadratic[problem, e, f])
    rows = torch.zeros(n1, n2, n1, n2, dtype=torch.float64)
    for place, values in terms.items():
        mask = torch.zeros_like(rows)
        mask[place] = 1
        rows = rows + mask * sum(values)
    return rows


def relaxed_loss(case: Any, unary: Tensor, quadratic: Tensor, hard: Tensor, unmatched_cost: float | None) -> Tensor:
    """<weights, relaxed solutions>, with the slopes of the objective by autograd at the hard matching."""
    total = torch.zeros((), dtype=torch.float64)
    n1, n2 = unary.shape[1:]
    for problem in range(case.batch):
        table = polynomial(case, problem, quadratic)
        loops = torch.einsum("ikik->ik", table)
        pairs = table - torch.diag_embed(loops.flatten()).reshape(n1, n2, n1, n2)
        point = hard[problem].clone().requires_grad_()
        value = (point * (unary[problem] + loops)).sum() + torch.einsum("ik,ikjl,jl->", point, pairs, point)
        slopes = torch.autograd.grad(value, point, create_graph=True)[0]
        plan = SINKHORN(slopes[None], None, unmatched_cost)[0]
        total = total + (case.weights[0][problem] * plan).sum()
        for e, (i, j) in enumerate(case.edges1[problem].tolist()):
            for f, (k, m) in enumerate(case.edges2[problem].tolist()):
                if (i == j) == (k == m):
                    paid = plan[i, k] if i == j else plan[i, k] * plan[j, m]
                    total = total + case.weights[1][problem, e, f] * paid
    return total


CASES = {"complete": (4, 4, None), "rectangular": (3, 5, None), "tall": (5, 3, None), "unmatched": (4, 4, 0.1)}


@pytest.mark.parametrize(("n1", "n2", "unmatched_cost"), CASES.values(), ids=CASES)
def test_gradients_are_those_of_the_relaxation(n1: int, n2: int, unmatched_cost: float | None, make_case: type):
    case = make_case(40, n1, n2)
    layer = gm.MatchingLayer(gm.BruteForce(), gm.StraightThroughSinkhorn(TEMPERATURE), unmatched_cost)
    found = case.gradients(layer)
    best = case.enumerated(*case.costs, unmatched_cost)
    assert torch.equal(layer.result.assignment, best.assignment)
    loss = relaxed_loss(case, *case.costs, best.matching, unmatched_cost)
    expected = torch.autograd.grad(loss, case.costs)
    for one, other in zip(found, expected, strict=True):
        assert other.abs().max() > 1e-3
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    # And by finite differences, which know nothing of the implicit function theorem.
    directions = [case.random(*cost.shape) for cost in case.costs]
    values = [
        relaxed_loss(
            case,
            *(c.detach() + shift * d for c, d in zip(case.costs, directions, strict=True)),
            best.matching,
            unmatched_cost,
        )
        for shift in (1e-4, -1e-4)
    ]
    slope = sum((one * direction).sum() for one, direction in zip(found, directions, strict=True))
    assert ((values[0] - values[1]) / 2e-4).item() == pytest.approx(slope.item(), rel=1e-4, abs=1e-5)


def test_linear_problems_have_the_gradient_of_sinkhorn(make_case: type):
    case = make_case(41, 4, 6)
    layer = gm.MatchingLayer(gm.LAP(), gm.StraightThroughSinkhorn(TEMPERATURE))
    found = torch.autograd.grad((case.weights[0] * layer(case.unary)).sum(), case.unary)[0]
    expected = torch.autograd.grad((case.weights[0] * SINKHORN(case.unary)).sum(), case.unary)[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_dense_problems_have_gradients_in_flow_and_distance(make_case: type):
    case = make_case(42)
    linear, flow, distance = (case.random(2, 4, 4).requires_grad_() for _ in range(3))
    weights = case.random(2, 4, 4)
    layer = gm.MatchingLayer(gm.BruteForce(), gm.StraightThroughSinkhorn(2.0))
    matching = layer.dense(flow, distance, linear)
    found = torch.autograd.grad((weights * matching).sum(), (linear, flow, distance))
    point = matching.detach().requires_grad_()
    paid = torch.einsum("bij,bkl,bik,bjl->", flow, distance, point, point) + (linear * point).sum()
    slopes = torch.autograd.grad(paid, point, create_graph=True)[0]
    plan = gm.Sinkhorn(2.0, max_iterations=20_000, tolerance=1e-13)(slopes)
    expected = torch.autograd.grad((weights * plan).sum(), (linear, flow, distance))
    for one, other in zip(found, expected, strict=True):
        assert other.abs().max() > 1e-3
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_loss_of_the_matching_reaches_the_quadratic_costs(make_case: type):
    case = make_case(43)
    matching, _ = gm.MatchingLayer(gm.BruteForce(), gm.StraightThroughSinkhorn(TEMPERATURE))(*case.arguments())
    gradient = torch.autograd.grad((case.weights[0] * matching).sum(), case.quadratic)[0]
    assert gradient.abs().max() > 1e-3


def test_infeasible_problems_have_no_gradient():
    costs = torch.zeros(2, 2, 2)
    costs[0, 0] = torch.inf
    costs.requires_grad_()
    matching = gm.MatchingLayer(gm.LAP(), gm.StraightThroughSinkhorn(TEMPERATURE))(costs)
    matching[:, 0, 0].sum().backward()
    assert costs.grad[0].eq(0).all()
    assert costs.grad[1].abs().sum() > 0


def test_functions_have_no_relaxation():
    oracle = FunctionOracle(lambda costs: (torch.zeros_like(costs[0]),))
    costs = torch.zeros(2, 3, requires_grad=True)
    solutions, _ = estimated_solution(gm.StraightThroughSinkhorn(), oracle, (costs,), training=True)
    with pytest.raises(TypeError, match=ERROR_FORM):
        solutions[0].sum().backward()


@pytest.mark.parametrize("kind", ["linear", "lawler", "dense"])
def test_the_operator_keeps_the_rules_of_operators(kind: str, make_case: type):
    case = make_case(44)
    context = [None] * 5
    costs, upstream = [case.unary.detach()], [case.weights[0]]
    if kind == "lawler":
        costs, upstream = [cost.detach() for cost in case.costs], [None, case.weights[1]]
        context[:2] = [case.edges1, case.edges2]
    elif kind == "dense":
        costs, upstream = [case.random(3, 4, 4) for _ in range(3)], [case.weights[0], None, None]
    matching = torch.eye(4, dtype=torch.float64).expand(3, -1, -1)
    arguments = (costs, matching, context, upstream, kind, None, 0.5)
    torch.library.opcheck(torch.ops.graphmatch.matching_relaxed.default, arguments)
