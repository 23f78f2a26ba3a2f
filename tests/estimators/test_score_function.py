"""Score functions: expected losses of any kind, recomputed by enumeration on the same noise."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import graphmatch as gm
from graphmatch.gradients import FunctionOracle

ERROR_FORM = r"^\S.*: .+ must .+; got .+\. \S.*\.$"
OPTIONS = {
    "all": {"samples": 7, "noise": "gaussian"},
    "unary": {"samples": 7, "perturb": "unary"},
    "antithetic": {"samples": 5, "coupling": "antithetic"},
    "no baseline": {"samples": 4, "baseline": "none"},
    "one": {"samples": 1},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_expected_loss_is_its_formula(options: dict, make_case: type):
    estimator = gm.ScoreFunction(noise_scale=0.6, balance=False, **options)
    case = make_case(20)
    factor = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)

    def loss(matching: Tensor, pairs: Tensor) -> Tensor:
        return (factor * case.weighted((matching, pairs))).square()  # not linear

    results, noises = case.noisy_solutions(estimator.draws)
    losses = torch.stack([loss(each.matching, each.paid_pairs) for each in results])
    group = None if estimator.baseline == "none" else 2 if estimator.coupling == "antithetic" else 1
    expected = case.perturbed_gradient(estimator, losses.detach(), noises, group)
    layer = gm.MatchingLayer(gm.BruteForce(), estimator)
    found = layer.expected_loss(loss, *case.arguments())
    torch.testing.assert_close(found, losses.mean(0))
    upstream = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    gradients = torch.autograd.grad(found, (factor, *case.costs), upstream, allow_unused=True)
    torch.testing.assert_close(gradients[0], torch.autograd.grad(losses.mean(0), factor, upstream)[0])
    for one, other in zip(gradients[1:], expected, strict=False):
        torch.testing.assert_close(one, upstream[:, None, None] * other, rtol=1e-9, atol=1e-11)
    if estimator.perturb == "unary":
        assert gradients[2] is None
    assert layer.calls == 1
    assert torch.equal(layer.result.objective, case.enumerated(*case.costs).objective)


def test_linear_losses_have_the_gradient_of_the_perturbed_optimizer(make_case: type):
    case = make_case(21)
    options = {"samples": 9, "noise_scale": 0.4}
    expected = case.gradients(gm.MatchingLayer(gm.BruteForce(), gm.PerturbedOptimizer(**options)))
    layer = gm.MatchingLayer(gm.BruteForce(), gm.ScoreFunction(**options))
    loss = layer.expected_loss(lambda *solutions: case.weighted(solutions), *case.arguments())
    for one, other in zip(torch.autograd.grad(loss.sum(), case.costs), expected, strict=True):
        torch.testing.assert_close(one, other)


def test_evaluation_is_the_loss_of_the_solution(make_case: type):
    case = make_case(22)
    layer = gm.MatchingLayer(gm.BruteForce(), gm.ScoreFunction()).eval()
    best = case.enumerated(*case.costs)
    loss = layer.expected_loss(lambda *solutions: case.weighted(solutions).exp(), *case.arguments())
    torch.testing.assert_close(loss, case.weighted((best.matching, best.paid_pairs)).exp())
    assert not loss.requires_grad
    assert layer.calls == 0


def test_expected_losses_compile_and_map(make_case: type):
    torch.compiler.reset()
    case = make_case(23)
    layer = gm.MatchingLayer(gm.BruteForce(), gm.ScoreFunction(samples=3))

    def loss(unary: Tensor, quadratic: Tensor) -> Tensor:
        arguments = (unary, quadratic, case.edges1, case.edges2)
        return layer.expected_loss(lambda *each: case.weighted(each).square(), *arguments, step=0).sum()

    expected = torch.autograd.grad(loss(*case.costs), case.costs)
    found = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(*case.costs), case.costs)
    stacked = [cost.detach().expand(2, *cost.shape) for cost in case.costs]
    mapped = torch.func.vmap(torch.func.grad(loss, (0, 1)))(*stacked)
    for one, other, both in zip(expected, found, mapped, strict=True):
        torch.testing.assert_close(other, one)
        torch.testing.assert_close(both, one.expand_as(both))


def test_expected_losses_of_padded_linear_problems_in_half_precision(make_case: type):
    case = make_case(24)
    layer = gm.MatchingLayer(gm.LAP(), gm.ScoreFunction(samples=5))
    costs = case.unary.detach().bfloat16().requires_grad_()
    wide = torch.nn.functional.pad(costs.detach(), (0, 1, 0, 2), value=torch.nan).requires_grad_()
    seen = []

    def loss(matching: Tensor) -> Tensor:
        seen.append(matching)
        return matching[:, :4, :4].diagonal(dim1=1, dim2=2).sum(1)

    expected = layer.expected_loss(loss, costs, step=0)
    found = layer.expected_loss(loss, wide, sizes=torch.tensor([[4, 4]] * case.batch), step=0)
    assert torch.equal(found, expected)
    assert all(each.dtype == torch.bfloat16 and each.sum((1, 2)).eq(4).all() for each in seen)
    gradient = torch.autograd.grad(found.sum(), wide)[0]
    assert torch.equal(gradient[:, :4, :4], torch.autograd.grad(expected.sum(), costs)[0])
    assert gradient[:, 4:].eq(0).all()
    assert gradient[:, :, 4:].eq(0).all()


def test_slopes_of_the_expected_loss_of_a_softmax(make_case: type):
    """One of three things by their costs: probabilities by counting, slopes by the formula."""
    costs = make_case().random(2, 3).requires_grad_()
    oracle = FunctionOracle(lambda each: (torch.nn.functional.one_hot(each[0].argmin(1), 3).double(),))
    estimator = gm.ScoreFunction(samples=20_000, noise_scale=0.5)
    prices = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    loss = estimator.expected_loss(oracle, (costs,), lambda choice: (choice @ prices).square())
    # Gumbel noise on minus the costs: choices have the probabilities of a softmax.
    exact = (-costs / 0.5).softmax(1) @ prices.square()
    torch.testing.assert_close(loss, exact, rtol=0.03, atol=0)
    found, expected = (torch.autograd.grad(each.sum(), costs)[0] for each in (loss, exact))
    assert (found - expected).norm() < 0.05 * expected.norm()


@pytest.mark.parametrize(
    ("estimator", "function", "error", "argument"),
    [
        (gm.IMLE(), lambda matching: matching.sum((1, 2)), TypeError, "gradient"),
        (gm.ScoreFunction(), lambda matching: matching.sum(), ValueError, "function"),
        (gm.ScoreFunction(), lambda matching: 1.0, ValueError, "function"),
    ],
)
def test_bad_calls(estimator: gm.GradientEstimator, function: Callable, error: type[Exception], argument: str):
    with pytest.raises(error, match=ERROR_FORM) as caught:
        gm.MatchingLayer(gradient=estimator).expected_loss(function, torch.zeros(2, 2, 2))
    assert f": {argument} must" in str(caught.value)
