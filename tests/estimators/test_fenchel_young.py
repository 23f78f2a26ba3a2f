"""Fenchel-Young losses: values, slopes and convexity, by enumeration on the same noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import graphmatch as gm

ERROR_FORM = r"^\S.*: .+ must .+; got .+\. \S.*\.$"


@pytest.fixture
def target() -> Tensor:
    """A matching for each problem of a case."""
    return torch.eye(4, 4)[torch.tensor([[1, 0, 3, 2], [0, 1, 2, 3], [3, 2, 1, 0]])]


def paid_by(case: Any, matching: Tensor) -> Tensor:
    """The pairs a matching pays, by loops."""
    pairs = torch.zeros_like(case.quadratic)
    for b in range(case.batch):
        for e, (i, j) in enumerate(case.edges1[b].tolist()):
            for f, (k, m) in enumerate(case.edges2[b].tolist()):
                pairs[b, e, f] = matching[b, i, k] * matching[b, j, m]
    return pairs


FENCHEL_YOUNG = {
    "all": {"samples": 8},
    "unary": {"samples": 8, "perturb": "unary", "noise": "gaussian"},
    "one": {"samples": 1},
}


@pytest.mark.parametrize("options", FENCHEL_YOUNG.values(), ids=FENCHEL_YOUNG)
def test_fenchel_young_loss_is_its_formula(options: dict, target: Tensor, make_case: type):
    estimator = gm.FenchelYoung(noise_scale=0.6, **options)
    case = make_case(8)
    results, _ = case.noisy_solutions(estimator.draws)
    pairs = paid_by(case, target)
    expected = (case.unary * target).sum((1, 2)) + (case.quadratic * pairs).sum((1, 2))
    expected = (expected - torch.stack([each.objective for each in results]).mean(0)).mean()
    layer = gm.MatchingLayer(gm.BruteForce(), estimator)
    loss = layer.loss(target, *case.arguments())
    torch.testing.assert_close(loss, expected)
    unary, quadratic = torch.autograd.grad(3 * loss, case.costs)
    means = [torch.stack([getattr(each, name) for each in results]).mean(0) for name in ("matching", "paid_pairs")]
    torch.testing.assert_close(unary, target - means[0])
    torch.testing.assert_close(quadratic, pairs - means[1])
    assert layer.calls == 1
    assert layer.samples.gap.shape == (estimator.samples, case.batch)
    assert torch.equal(layer.result.objective, case.enumerated(*case.costs).objective)


def test_fenchel_young_gradient_is_the_slope_of_the_value(target: Tensor, make_case: type):
    case = make_case(9)
    layer = gm.MatchingLayer(gm.BruteForce(), gm.FenchelYoung(samples=20, noise_scale=0.5))
    directions = [case.random(*cost.shape) for cost in case.costs]

    def value(shift: float) -> Tensor:
        costs = [cost + shift * direction for cost, direction in zip(case.costs, directions, strict=True)]
        return layer.loss(target, *costs, case.edges1, case.edges2, step=0)

    gradients = torch.autograd.grad(value(0.0), case.costs)
    slope = sum((gradient * direction).sum() for gradient, direction in zip(gradients, directions, strict=True))
    width = 1e-5  # the value is piecewise linear: no kink is that close
    assert ((value(width) - value(-width)) / (2 * width)).item() == pytest.approx(slope.item(), rel=1e-6)
    # Convex: above its tangent, and no higher than its chords.
    for shift in (-3.0, -0.5, 0.7, 4.0):
        assert value(shift) >= value(0.0) + shift * slope - 1e-9
        assert value(shift / 2) <= (value(shift) + value(0.0)) / 2 + 1e-9


@pytest.mark.parametrize("unmatched_cost", [None, 0.2])
def test_fenchel_young_without_noise_is_the_structured_perceptron(
    unmatched_cost: float | None, target: Tensor, make_case: type
):
    case = make_case(10)
    layer = gm.MatchingLayer(gm.BruteForce(), gm.FenchelYoung(), unmatched_cost).eval()
    best = case.enumerated(*case.costs, unmatched_cost)
    assert layer.loss(best.matching, *case.arguments()).item() == pytest.approx(0.0, abs=1e-12)
    if unmatched_cost is not None:
        assert best.matching.sum() < case.batch * 4, "all nodes are matched"
    pairs = paid_by(case, target)
    paid = (case.unary * target).sum((1, 2)) + (case.quadratic * pairs).sum((1, 2))
    loss = layer.loss(target, *case.arguments())
    torch.testing.assert_close(loss, (paid - best.objective).mean())
    assert loss > 0
    torch.testing.assert_close(torch.autograd.grad(loss, case.unary)[0], (target - best.matching) / case.batch)
    assert layer.calls == 0


def test_fenchel_young_of_linear_problems_with_padding(target: Tensor, make_case: type):
    case = make_case(11)
    layer = gm.MatchingLayer(gm.LAP(), gm.FenchelYoung(samples=6, noise_scale=0.5))
    expected = layer.loss(target, case.unary, step=0)
    wide = torch.nn.functional.pad(case.unary.detach(), (0, 2, 0, 1), value=math.nan).requires_grad_()
    aims = torch.nn.functional.pad(target, (0, 2, 0, 1), value=1.0)
    found = layer.loss(aims, wide, sizes=torch.tensor([[4, 4]] * case.batch), step=0)
    torch.testing.assert_close(found, expected)
    gradient = torch.autograd.grad(found, wide)[0]
    torch.testing.assert_close(gradient[:, :4, :4], torch.autograd.grad(expected, case.unary)[0])
    assert gradient[:, 4:].eq(0).all()
    assert gradient[:, :, 4:].eq(0).all()


def test_fenchel_young_learns_a_matching(target: Tensor, make_case: type):
    case = make_case(12)
    layer = gm.MatchingLayer(gm.BruteForce(), gm.FenchelYoung(samples=4, noise_scale=0.3))
    optimizer = torch.optim.SGD(case.costs, lr=1.0)
    for _ in range(40):
        optimizer.zero_grad()
        layer.loss(target, *case.arguments()).backward()
        optimizer.step()
    assert torch.equal(layer.eval()(*case.arguments())[0], target.double())


def test_fenchel_young_compiles_and_maps(target: Tensor, make_case: type):
    torch.compiler.reset()
    case = make_case(13)
    layer = gm.MatchingLayer(gm.BruteForce(), gm.FenchelYoung(samples=3))

    def loss(unary: Tensor, quadratic: Tensor) -> Tensor:
        return layer.loss(target, unary, quadratic, case.edges1, case.edges2, step=0)

    expected = torch.autograd.grad(loss(*case.costs), case.costs)
    found = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(*case.costs), case.costs)
    stacked = [cost.detach().expand(2, *cost.shape) for cost in case.costs]
    mapped = torch.func.vmap(torch.func.grad(loss, (0, 1)))(*stacked)
    for one, other, both in zip(expected, found, mapped, strict=True):
        torch.testing.assert_close(other, one)
        torch.testing.assert_close(both, one.expand_as(both))


@pytest.mark.parametrize("training", [True, False])
def test_fenchel_young_of_an_infeasible_problem_teaches_nothing(training: bool):
    costs = torch.zeros(2, 2, 2)
    costs[0, 0] = torch.inf
    costs.requires_grad_()
    loss = gm.MatchingLayer(gm.LAP(), gm.FenchelYoung()).train(training).loss(torch.eye(2)[[1, 0]], costs)
    loss.backward()
    assert loss.isfinite()
    assert costs.grad[0].eq(0).all()


@pytest.mark.parametrize(
    ("call", "error", "argument"),
    [
        (lambda costs: gm.MatchingLayer(gradient=gm.IMLE()).loss(torch.eye(2), costs), TypeError, "gradient"),
        (lambda costs: gm.MatchingLayer(gradient=gm.FenchelYoung()).loss(torch.eye(3), costs), ValueError, "target"),
        (lambda costs: gm.MatchingLayer(gradient=gm.FenchelYoung()).loss([[1]], costs), TypeError, "target"),
    ],
)
def test_bad_calls(call: Callable, error: type[Exception], argument: str):
    with pytest.raises(error, match=ERROR_FORM) as caught:
        call(torch.zeros(1, 2, 2))
    assert f": {argument} must" in str(caught.value)
