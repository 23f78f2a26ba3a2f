"""What every gradient estimator does, whatever its formula."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import graphmatch as gm
from graphmatch.gradients import FunctionOracle, estimated_solution

ERROR_FORM = r"^\S.*: .+ must .+; got .+\. \S.*\.$"


# What every estimator must do, whatever its formula.
ESTIMATORS = {
    "perturbed": gm.PerturbedOptimizer(samples=5),
    "perturbed-unary": gm.PerturbedOptimizer(samples=5, perturb="unary"),
    "score-function": gm.ScoreFunction(samples=4, coupling="antithetic"),
    "identity": gm.NegativeIdentity(),
    "identity-normalised": gm.NegativeIdentity(normalise=True),
    "straight-through": gm.StraightThroughSinkhorn(temperature=0.5),
    "adaptive": gm.AdaptiveIMLE(samples=3, rate=0.1),
    "fenchel-young": gm.FenchelYoung(samples=5, noise="gaussian"),
}
every_estimator = pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)


def one_hot_minimum(costs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The cheapest of n things."""
    return (torch.nn.functional.one_hot(costs[0].argmin(1), costs[0].shape[1]).to(costs[0].dtype),)


def present(gradients: tuple[Tensor | None, ...]) -> list[Tensor]:
    """Gradients that there are; those of costs without noise are none."""
    return [each for each in gradients if each is not None]


def function_gradients(estimator: gm.GradientEstimator, costs: Tensor, weights: Tensor) -> Tensor:
    memory = getattr(estimator, "initial_memory", lambda: None)()
    oracle = FunctionOracle(one_hot_minimum, torch.tensor(3), memory)
    solutions, _ = estimated_solution(estimator, oracle, (costs,), training=True)
    return torch.autograd.grad((weights * solutions[0]).sum(), costs)[0]


@pytest.mark.parametrize(
    "estimator",
    [each for each in ESTIMATORS.values() if not isinstance(each, gm.StraightThroughSinkhorn)],
    ids=lambda each: type(each).__name__,
)
def test_estimators_take_any_function(estimator: gm.GradientEstimator, make_case: type):
    case = make_case(3)
    costs = case.random(4, 5).requires_grad_()
    weights = case.random(4, 5)
    gradients = function_gradients(estimator, costs, weights)
    assert gradients.shape == costs.shape
    assert gradients.isfinite().all()
    assert gradients.abs().sum() > 0
    torch.testing.assert_close(function_gradients(estimator, costs, 8 * weights), 8 * gradients)


@every_estimator
@pytest.mark.parametrize("training", [True, False])
def test_estimators_compile_as_one_graph(estimator: gm.GradientEstimator, training: bool, make_case: type):
    torch.compiler.reset()
    case = make_case(4)

    def gradients(layer: gm.MatchingLayer, call: Callable) -> list[Tensor | None]:
        return [
            torch.autograd.grad(case.weighted(call(*case.arguments())).sum(), case.costs, allow_unused=True)
            for _ in range(2)
        ]

    layer = gm.MatchingLayer(gm.BruteForce(), estimator).train(training)
    expected = gradients(layer, layer)
    twin = gm.MatchingLayer(gm.BruteForce(), estimator).train(training)
    found = gradients(twin, torch.compile(twin, fullgraph=True, backend="aot_eager"))
    for one, other in zip(expected, found, strict=True):
        for eager, compiled in zip(present(one), present(other), strict=True):
            torch.testing.assert_close(compiled, eager, rtol=1e-9, atol=1e-12)
    if layer.memory is not None:
        assert torch.equal(layer.memory, twin.memory)


@every_estimator
@pytest.mark.parametrize("training", [True, False])
def test_estimators_under_vmap(estimator: gm.GradientEstimator, training: bool, make_case: type):
    case = make_case(5)
    layer = gm.MatchingLayer(gm.BruteForce(), estimator).train(training)
    scales = torch.tensor([1.0, 3.0], dtype=torch.float64)

    def loss(unary: Tensor, quadratic: Tensor, scale: Tensor) -> Tensor:
        solutions = layer(unary, quadratic, case.edges1, case.edges2, step=0)
        return scale * case.weighted(solutions).sum()

    costs = torch.stack([case.unary.detach(), 1.1 * case.unary.detach()])
    found = torch.func.vmap(torch.func.grad(loss, (0, 1)), (0, None, 0))(costs, case.quadratic.detach(), scales)
    for place, scale in enumerate(scales):
        layer = gm.MatchingLayer(gm.BruteForce(), estimator).train(training)
        expected = torch.func.grad(loss, (0, 1))(costs[place], case.quadratic.detach(), scale)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one[place], other, rtol=1e-9, atol=1e-12)


@every_estimator
def test_unmatched_nodes_have_gradients(estimator: gm.GradientEstimator, make_case: type):
    case = make_case(6, n1=4, n2=5)
    gradients = case.gradients(gm.MatchingLayer(gm.BruteForce(), estimator, unmatched_cost=-0.3))
    assert all(each.isfinite().all() for each in present(gradients))
    assert gradients[0].abs().sum() > 0


@every_estimator
def test_dense_problems_have_gradients(estimator: gm.GradientEstimator, make_case: type):
    case = make_case(7)
    linear, flow, distance, weights = (case.random(2, 4, 4).requires_grad_() for _ in range(4))
    matching = gm.MatchingLayer(gm.BruteForce(), estimator).dense(0.2 * flow, distance, linear)
    found = torch.autograd.grad((weights.detach() * matching).sum(), (linear, flow, distance), allow_unused=True)
    assert all(each.isfinite().all() for each in present(found))
    assert found[0].abs().sum() > 0


@pytest.mark.parametrize(
    ("build", "argument"),
    [
        (lambda: gm.PerturbedOptimizer(noise="sum_of_gamma"), "noise"),
        (lambda: gm.PerturbedOptimizer(baseline="mean"), "baseline"),
        (lambda: gm.PerturbedOptimizer(samples=0), "samples"),
    ],
)
def test_bad_options(build: Callable, argument: str):
    with pytest.raises(ValueError, match=ERROR_FORM) as caught:
        build()
    assert f": {argument} must" in str(caught.value)
