"""The tensor form of dense costs and their bound, on the CPU: against the native one, and against enumeration."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import graphmatch as gm
from graphmatch import _cuda_qap_ops, _ops, _reference
from graphmatch._dense_costs import DenseCosts, dense_costs, gilmore_lawler

KINDS = [
    "integer",
    "integer symmetric",
    "integer linear",
    "real",
    "real symmetric linear",
    "integer forbidden",
    "mixed",
]


def problems(kind: str, count: int = 12) -> Iterator[tuple[gm.KoopmansBeckmannProblem, int]]:
    """Ragged and full batches of up to seven nodes, with the seed of each."""
    for seed in range(count):
        generator = torch.Generator().manual_seed(seed)
        nodes = 1 + seed % 7

        def draw(nodes: int = nodes, generator: torch.Generator = generator) -> Tensor:
            values = torch.randn(4, nodes, nodes, generator=generator, dtype=torch.float64)
            return (3 * values).round() if "integer" in kind else values

        flow, distance, linear = draw(), draw(), None
        if "symmetric" in kind:
            flow = flow + flow.mT
        if "linear" in kind:
            linear = draw()
        if "forbidden" in kind:
            linear = draw().masked_fill(torch.rand(4, nodes, nodes, generator=generator) < 0.4, torch.inf)
        if kind == "mixed":
            flow, distance = (flow * 2.0**-70).float(), (distance * 2.0**40).float()
        sizes = torch.randint(nodes + 1, (4,), generator=generator) if seed % 2 else None
        yield gm.KoopmansBeckmannProblem(flow, distance, linear, sizes), seed


def native_answers(problem: gm.KoopmansBeckmannProblem) -> _ops.Answers:
    """An FAQ without steps: nearly nothing but the bound."""
    tensors = (problem.flow, problem.distance, problem.linear, problem.sizes)
    return _ops.qap_solve(*tensors, None, _ops.QAP_FAQ, 0, 1, 1, 1.0, 1e-4, False, 0.01, False, 1e-6, 0, None, 1)


def bound_of(problem: gm.KoopmansBeckmannProblem) -> tuple[Tensor, Tensor]:
    costs = dense_costs(problem.flow, problem.distance, problem.linear, problem.sizes)
    return gilmore_lawler(costs, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_bounds_are_those_of_the_native_code(kind: str):
    for problem, seed in problems(kind):
        _, objective, expected, status, *_ = native_answers(problem)
        bound, assignment = bound_of(problem)
        tolerance = 0.0 if "integer" in kind else 1e-13
        torch.testing.assert_close(torch.minimum(bound, objective), expected, rtol=tolerance, atol=tolerance)
        assert torch.equal(bound == torch.inf, status == int(gm.Status.INFEASIBLE)), seed
        counts, _ = problem.node_counts()
        for b, count in enumerate(counts.tolist()):
            if bound[b] < torch.inf:
                assert sorted(assignment[b, :count].tolist()) == list(range(count))


@pytest.mark.parametrize("kind", KINDS)
def test_no_permutation_is_cheaper(kind: str):
    for problem, seed in problems(kind, 7):
        bound, _ = bound_of(problem)
        optimum = gm.solve(problem, gm.BruteForce()).objective
        assert bool((bound <= optimum).all()), seed


def test_exactness_is_recognised():
    whole = torch.tensor([[[0.0, 3, 1], [3, 0, 2], [1, 2, 0]]], dtype=torch.float64)
    cases = {
        "small integers": (whole, True, True),
        "quarters": (whole / 4, True, True),
        "large integers": (whole * 2**20 + 1, True, False),
        "thirds": (whole / 3, False, False),
        "very large": (whole * 2.0**70, True, False),
        "zeros": (whole * 0, True, True),
    }
    for name, (flow, integral, exact_in_float) in cases.items():
        costs = dense_costs(flow, whole, None, None)
        assert (costs.integral.item(), costs.exact_in_float.item()) == (integral, exact_in_float), name


def test_stored_costs_are_those_of_the_problem():
    for kind in KINDS[:5]:
        for problem, _ in problems(kind, 7):
            costs = dense_costs(problem.flow, problem.distance, problem.linear, problem.sizes)
            answer = gm.solve(problem, gm.Tabu(steps=20, restarts=1))
            for b, count in enumerate(costs.sizes.tolist()):
                order, each = answer.assignment[b, :count], torch.arange(count)
                weight = 0.5 if costs.symmetric[b] else 1.0
                paid = weight * (costs.flow[b, :count, :count] * costs.distance[b][order][:, order]).sum()
                torch.testing.assert_close(paid + costs.linear[b, each, order].sum(), answer.objective[b])


def test_broken_numbers_empty_their_problem_only():
    flow = torch.ones(5, 3, 3)
    linear = torch.zeros(5, 3, 3)
    flow[1, 0, 2], flow[2, 1, 1], linear[3, 0, 0] = torch.nan, torch.inf, -torch.inf
    costs = dense_costs(flow, flow, linear, None)
    assert costs.valid.tolist() == [True, False, False, False, True]
    assert costs.sizes.tolist() == [3, 0, 0, 0, 3]
    bound, _ = gilmore_lawler(costs, 1)
    assert bool(bound.isfinite().all())
    flow[1:3, 2] = torch.nan
    padded = dense_costs(flow, flow, None, torch.tensor([3, 0, 1, 3, 3]))
    assert padded.valid.tolist() == [True] * 5


@pytest.mark.parametrize("warm", [False, True])
def test_the_best_search_becomes_the_answer(monkeypatch: pytest.MonkeyPatch, warm: bool):
    """All of the operator but the kernel, in whose place the searches end where they start."""

    def searches(
        native: None, given: tuple, costs: DenseCosts, sizes: Tensor, starts: Tensor, *unused: object
    ) -> tuple:
        left_out = sizes[:, None, None] == 0
        found = starts.masked_fill(left_out | (torch.arange(starts.shape[2]) >= sizes[:, None, None]), -1)
        objectives = [_reference.objective(problem, found[:, run]) for run in range(starts.shape[1])]
        return found, torch.stack(objectives, dim=1), torch.ones(starts.shape[:2], dtype=torch.int64)

    monkeypatch.setattr(_cuda_qap_ops, "_checked_module", lambda *unused: None)
    monkeypatch.setattr(_cuda_qap_ops, "_search", searches)
    for kind in KINDS:
        for problem, seed in problems(kind):
            tensors = (problem.flow, problem.distance, problem.linear, problem.sizes)
            best = gm.solve(problem, gm.BruteForce())
            start = (best.assignment[:, :, None] == torch.arange(problem.flow.shape[1])).double() if warm else None
            answers = _cuda_qap_ops._qap_solve_cuda(
                *tensors, start, _ops.QAP_TABU, 1, 2, 1, 1.0, 1e-4, False, 0.01, False, 1e-6, 0, None, 1
            )
            expected = native_answers(problem)
            assert [(each.shape, each.dtype) for each in answers] == [(each.shape, each.dtype) for each in expected]
            assignment, objective, bound, status, *_ = answers
            paid = _reference.objective(problem, assignment)
            torch.testing.assert_close(objective, torch.where(best.objective.isinf(), torch.inf, paid))
            assert bool((bound <= best.objective).all())
            assert torch.equal(status == int(gm.Status.INFEASIBLE), best.status == int(gm.Status.INFEASIBLE)), seed
            if warm:
                torch.testing.assert_close(objective, best.objective, rtol=1e-12, atol=1e-12)


def test_what_the_gpu_does_not_do_says_what_to_do():
    with pytest.raises(ValueError, match=r"tabu search; got .* Use Tabu, or set on_cpu=True"):
        _cuda_qap_ops._checked_module(_ops.QAP_FAQ, None)
    with pytest.raises(ValueError, match=r"time_limit must be None for CUDA tensors; got 1.0"):
        _cuda_qap_ops._checked_module(_ops.QAP_TABU, 1.0)
