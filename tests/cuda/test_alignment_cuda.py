"""Alignments and layers on a GPU: nothing waits for it, and losses and gradients are those of the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import graphmatch as gm
from graphmatch.solvers import quick_solver

pytestmark = pytest.mark.cuda

DEVICE = "cuda"
ESTIMATORS = (
    gm.IMLE(samples=3),
    gm.AdaptiveIMLE(),
    gm.BlackBox(),
    gm.FenchelYoung(samples=3),
    gm.PerturbedOptimizer(samples=3),
    gm.NegativeIdentity(),
)


class Recorder:
    """A solver that keeps the matchings it found."""

    def __init__(self, solver: gm.Solver) -> None:
        self.solver, self.found = solver, []

    def solve(self, problem: gm.Problem) -> gm.MatchResult:
        return self._kept(self.solver.solve(problem))

    def solve_from(self, state: Any, problem: gm.Problem) -> gm.MatchResult:
        return self._kept(self.solver.solve_from(state, problem))

    def _kept(self, result: gm.MatchResult) -> gm.MatchResult:
        self.found.append(result.assignment)
        return result


class Replayer:
    """A solver that finds what was found before, call by call."""

    def __init__(self, found: list[Tensor]) -> None:
        self.found = [each.cpu() for each in found]

    def solve(self, problem: gm.Problem) -> gm.MatchResult:
        assignment = self.found.pop(0)
        zeros = torch.zeros(len(assignment), dtype=torch.float64)
        return gm.MatchResult(problem, assignment, zeros, zeros, zeros.long(), zeros.long())


def noisy_views(nodes: int, dim: int, device: str) -> list[Tensor]:
    generator = torch.Generator().manual_seed(nodes)
    base = torch.randn(nodes, dim, generator=generator)
    views = [base + 0.7 * torch.randn(nodes, dim, generator=generator) for _ in range(3)]
    return [view.to(device).requires_grad_() for view in views]


def step(
    kind: type, size: tuple[int, int], solver: Any, device: str, options: dict[str, Any]
) -> tuple[Tensor, list[Tensor]]:
    """The loss, and its gradients in views and weights."""
    nodes, dim = size
    torch.manual_seed(0)
    alignment = kind(dim=dim, solver=solver, dropout=0.0, **options).to(device)
    views = noisy_views(nodes, dim, device)
    loss = alignment(*views)
    loss.backward()
    return loss.detach(), [each.grad for each in (*views, *alignment.parameters())]


def check_close(one: Tensor, other: Tensor) -> None:
    largest = float(other.abs().max()) if other.numel() else 0.0
    torch.testing.assert_close(one.cpu(), other, rtol=1e-3, atol=1e-4 * largest + 1e-7)


@pytest.mark.parametrize("size", [(1, 32), (2, 32), (16, 32), (16, 512), (64, 32), (64, 400)], ids=str)
@pytest.mark.parametrize("kind", [gm.BarycenterAlignment, gm.PairwiseAlignment])
@pytest.mark.parametrize("options", [{}, {"directions": "both"}, {"unmatched_cost": 0.3}], ids=str)
def test_loss_and_gradients_are_those_of_the_cpu_for_the_same_matchings(
    kind: type, size: tuple[int, int], options: dict[str, Any]
):
    recorder = Recorder(quick_solver())
    loss, gradients = step(kind, size, recorder, DEVICE, options)
    expected, their_gradients = step(kind, size, Replayer(recorder.found), "cpu", options)
    assert loss.device.type == DEVICE
    torch.testing.assert_close(loss.cpu(), expected, rtol=1e-5, atol=1e-6)
    for gradient, theirs in zip(gradients, their_gradients, strict=True):
        check_close(gradient, theirs)


@pytest.mark.parametrize(("nodes", "dim"), [(1, 32), (2, 32), (16, 32), (16, 512), (64, 32)])
@pytest.mark.parametrize("kind", [gm.BarycenterAlignment, gm.PairwiseAlignment])
def test_alignments_do_not_wait(kind: type, nodes: int, dim: int, nobody_waits: Callable):
    alignment = kind(dim=dim).to(DEVICE)
    views = noisy_views(nodes, dim, DEVICE)

    def once() -> Tensor:
        loss = alignment(*views)
        loss.backward()
        details = alignment.details(*views)
        details.loss.backward()
        return loss.detach()

    once()
    with nobody_waits():
        loss = once()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(view.grad).all() for view in views)
    assert not alignment.layer.solver.on_cpu


def test_autocast_changes_nothing(nobody_waits: Callable):
    alignment = gm.BarycenterAlignment(dim=32, dropout=0.0).to(DEVICE)
    views = noisy_views(16, 32, DEVICE)
    plain = alignment.eval()(*views)
    alignment(*(view.bfloat16() for view in views)).backward()
    with torch.autocast(DEVICE, dtype=torch.bfloat16), nobody_waits():
        loss = alignment(*views)
        loss.backward()
    assert loss.dtype == torch.float32
    assert torch.equal(loss, plain)


def lawler_costs(batch: int, nodes: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(3)
    unary = torch.randn(batch, nodes, nodes, generator=generator)
    quadratic = torch.randn(batch, 8, 8, generator=generator)
    edges = torch.randint(nodes, (2, batch, 8, 2), generator=generator)
    return unary, quadratic, *edges


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda each: type(each).__name__)
def test_layers_do_not_wait(estimator: gm.GradientEstimator, padded: bool, nobody_waits: Callable):
    layer = gm.MatchingLayer(quick_solver(), estimator, unmatched_cost=0.2).to(DEVICE)
    unary, quadratic, edges1, edges2 = (each.to(DEVICE) for each in lawler_costs(4, 5))
    costs = unary.requires_grad_(), quadratic.requires_grad_()
    target = torch.eye(5, device=DEVICE)
    sizes = torch.tensor([[5, 4, 8, 7], [4, 5, 0, 8], [5, 5, 8, 8], [1, 1, 0, 0]], device=DEVICE) if padded else None
    edges = (edges1, edges2) if sizes is None else (edges1.clamp(max=3), edges2.clamp(max=3))

    def once() -> None:
        if isinstance(estimator, gm.FenchelYoung):
            loss = layer.loss(target, *costs, *edges, sizes=sizes)
        else:
            loss = gm.hamming_loss(layer(*costs, *edges, sizes=sizes)[0], target)
        loss.backward()

    once()
    with nobody_waits():
        once()
    assert torch.isfinite(costs[0].grad).all()


@pytest.mark.parametrize("estimator", [gm.IMLE(), gm.BlackBox()], ids=lambda each: type(each).__name__)
def test_certified_gradients_are_the_exact_ones(estimator: gm.GradientEstimator):
    # The optimum of random costs is unique: a certified answer is the one of an exhaustive search.
    def gradients(solver: gm.Solver, device: str) -> tuple[Tensor, ...]:
        layer = gm.MatchingLayer(solver, estimator).to(device)
        unary, quadratic, edges1, edges2 = (each.to(device) for each in lawler_costs(64, 5))
        unary.requires_grad_()
        matching, _ = layer(unary, quadratic, edges1, edges2)
        gm.hamming_loss(matching, torch.eye(5, device=device)).backward()
        statuses = [layer.result.status[None], layer.samples.status, layer.targets.status.flatten(0, 1)]
        return unary.grad.cpu(), (torch.cat(statuses) == gm.Status.OPTIMAL).all(0).cpu()

    exact, _ = gradients(gm.BruteForce(), "cpu")
    found, certified = gradients(gm.DualAscent(max_iterations=300), DEVICE)
    assert certified.float().mean() > 0.2
    torch.testing.assert_close(found[certified], exact[certified], rtol=1e-5, atol=1e-7)
    assert exact[certified].abs().amax((1, 2)).gt(0).any()


def wrong_costs() -> dict[str, Callable[[dict[str, Tensor]], object]]:
    return {
        "NaN": lambda given: given["unary_costs"][1, 0].fill_(torch.nan),
        "edges that lead nowhere": lambda given: given["edges1"][1, 0].fill_(77),
        "sizes beyond the padding": lambda given: given["sizes"][1].fill_(99),
    }


@pytest.mark.parametrize("wrong", wrong_costs())
def test_wrong_values_are_invalid_here_and_errors_on_the_cpu(wrong: str):
    names = ("unary_costs", "quadratic_costs", "edges1", "edges2")
    given = dict(zip(names, lawler_costs(3, 5), strict=True)) | {"sizes": torch.tensor([[5, 5, 8, 8]] * 3)}
    given = {name: each.to(DEVICE) for name, each in given.items()}
    wrong_costs()[wrong](given)
    problem = gm.LawlerProblem(**given)
    result = gm.solve(problem)
    assert [status == gm.Status.INVALID for status in result.statuses] == [False, True, False]
    assert (result.assignment[1] == -1).all()
    torch.cuda.synchronize()
    with pytest.raises(ValueError, match="LawlerProblem: "):
        gm.solve(problem, gm.Portfolio(on_cpu=True))


def test_a_time_limit_is_refused():
    problem = gm.LawlerProblem(*(each.to(DEVICE) for each in lawler_costs(1, 5)))
    with pytest.raises(ValueError, match="Portfolio: time_limit must be None on a GPU"):
        gm.solve(problem, gm.Portfolio(time_limit=1.0))


def test_a_state_from_the_cpu_is_moved():
    costs = lawler_costs(3, 5)
    state = gm.solve(gm.LawlerProblem(*costs), gm.DualAscent()).state
    result = gm.solve(gm.LawlerProblem(*(each.to(DEVICE) for each in costs)), gm.DualAscent(), state=state)
    assert {each.device.type for each in vars(result.state).values()} == {DEVICE}
