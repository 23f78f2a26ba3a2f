"""The step of adaptive I-MLE: where it goes, when, and what becomes of its memory."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import graphmatch as gm
from graphmatch.gradients import FunctionOracle, estimated_solution

ERROR_FORM = r"^\S.*: .+ must .+; got .+\. \S.*\.$"


def adaptive_layer(**options: float) -> gm.MatchingLayer:
    return gm.MatchingLayer(gm.BruteForce(), gm.AdaptiveIMLE(**options))


def step_of(layer: gm.MatchingLayer) -> float:
    return layer.gradient.step_of(layer.memory).item()


def changes_of(layer: gm.MatchingLayer) -> float:
    return layer.gradient.changes_of(layer.memory).item()


def test_gradients_are_those_of_imle_with_the_step_reached(make_case: type):
    case = make_case(50)
    layer = adaptive_layer(samples=3, step=0.5, rate=0.5)
    for _ in range(3):
        options = {"samples": 3, "step": step_of(layer)}
        twin = gm.MatchingLayer(gm.BruteForce(), gm.IMLE(**options))
        twin.calls.copy_(layer.calls)
        for one, other in zip(case.gradients(layer), case.gradients(twin), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    assert step_of(layer) != 0.5


def test_the_running_mean_counts_changes_per_problem_and_sample(make_case: type):
    case = make_case(51)
    estimator = gm.AdaptiveIMLE(samples=1, step=2.0, noise_scale=0.5, rate=0.25, wanted_changes=1.0)
    layer = gm.MatchingLayer(gm.BruteForce(), estimator)
    case.weights[0][2] = 0  # the last problem has no upstream gradient: it does not count
    case.weights[1][2] = 0
    noise = 0.5 * case.noise(estimator.draws)[0][0]
    sides = []
    for sign in (1, -1):
        peak = torch.stack([each.abs().amax((1, 2)) for each in case.weights]).amax(0).clamp(min=1e-300)
        strength = (sign * 2.0 * 0.5 / peak)[:, None, None]
        steps = [strength * weight for weight in case.weights]
        sides.append(case.enumerated(case.unary - noise + steps[0], case.quadratic + steps[1]).matching)
    changes = (sides[0] != sides[1]).sum((1, 2)).double()[:2].mean().item()
    assert changes > 0
    case.gradients(layer)
    assert changes_of(layer) == pytest.approx(changes)
    assert step_of(layer) == pytest.approx(2.0 / 1.25 if changes > 1 else 2.0 * 1.25)


@pytest.mark.parametrize(("start", "direction"), [(1e-4, 1), (1e4, -1)])
def test_the_step_moves_towards_the_wanted_changes(start: float, direction: int, make_case: type):
    case = make_case(52)
    layer = adaptive_layer(samples=2, step=start, rate=0.3, wanted_changes=1.0)
    steps = []
    for _ in range(60):
        case.gradients(layer)
        steps.append(step_of(layer))
    assert (steps[0] - start) * direction > 0
    assert 1e-2 < steps[-1] < 1e2
    assert 0.2 < changes_of(layer) < 4


def test_the_step_stays_between_its_limits(make_case: type):
    case = make_case(53)
    for wanted, limit in ((1e-9, 1e-6), (1e9, 1e6)):
        layer = adaptive_layer(step=1.0, rate=1e3, wanted_changes=wanted)
        for _ in range(4):
            case.gradients(layer)
        if wanted == 1e9:
            assert step_of(layer) == limit
        else:
            assert limit <= step_of(layer) < 1


def test_evaluation_and_missing_gradients_do_not_adapt(make_case: type):
    case = make_case(54)
    layer = adaptive_layer(rate=0.5)
    before = layer.memory.clone()
    case.gradients(layer.eval())
    assert torch.equal(layer.memory, before)
    for weight in case.weights:
        weight.zero_()
    case.gradients(layer.train())
    assert torch.equal(layer.memory, before)
    for weight in case.weights:
        weight.fill_(torch.inf)
    case.gradients(layer)
    assert torch.equal(layer.memory, before)


def test_each_backward_pass_of_an_accumulated_gradient_adapts(make_case: type):
    case = make_case(55)
    layer = adaptive_layer(rate=0.5, wanted_changes=1e9)
    losses = [case.weighted(layer(*case.arguments())).sum() for _ in range(2)]
    for loss in losses:
        loss.backward()
    assert step_of(layer) == pytest.approx(1.5**2)


def test_the_memory_is_saved_copied_and_kept_in_any_dtype(make_case: type):
    case = make_case(56)
    layer = adaptive_layer(rate=0.001)
    case.gradients(layer)
    fresh = adaptive_layer(rate=0.001)
    fresh.load_state_dict(layer.state_dict())
    twin = copy.deepcopy(layer)
    half = copy.deepcopy(layer).to(torch.bfloat16)
    case.gradients(twin)
    case.gradients(fresh)
    case.gradients(half)
    assert not torch.equal(twin.memory, layer.memory), "a copy has a memory of its own"
    assert torch.equal(fresh.memory, twin.memory)
    assert torch.equal(half.memory, twin.memory)
    assert list(layer.state_dict()) == ["calls", "memory"]


def test_calls_of_a_vmap_adapt_as_one_batch(make_case: type):
    case = make_case(57)
    layer, twin = adaptive_layer(rate=0.5), adaptive_layer(rate=0.5)
    fixed = (case.edges1, case.edges2)

    def loss(unary: Tensor, quadratic: Tensor) -> Tensor:
        return case.weighted(layer(unary, quadratic, *fixed, step=0)).sum()

    stacked = [cost.detach().expand(2, *cost.shape) for cost in case.costs]
    torch.func.vmap(torch.func.grad(loss, (0, 1)))(*stacked)
    case.weighted(twin(*case.arguments(), step=0)).sum().backward()
    assert step_of(layer) == step_of(twin)
    assert changes_of(layer) == pytest.approx(changes_of(twin))


def test_functions_need_a_memory():
    def cheapest(costs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (torch.nn.functional.one_hot(costs[0].argmin(1), 3).float(),)

    estimator = gm.AdaptiveIMLE(rate=0.5, wanted_changes=100.0)
    costs = torch.rand(2, 3, requires_grad=True)
    memory = estimator.initial_memory()
    for given in (memory, None):
        solutions, _ = estimated_solution(estimator, FunctionOracle(cheapest, None, given), (costs,), training=True)
        loss = solutions[0][:, 0].sum()
        if given is not None:
            loss.backward()
            assert estimator.step_of(memory).item() == pytest.approx(1.5)
        else:
            with pytest.raises(TypeError, match=ERROR_FORM):
                loss.backward()


@pytest.mark.parametrize(
    ("build", "argument"),
    [
        (lambda: gm.AdaptiveIMLE(rate=-0.1), "rate"),
        (lambda: gm.AdaptiveIMLE(wanted_changes=0.0), "wanted_changes"),
        (lambda: gm.AdaptiveIMLE(step=0.0), "step"),
    ],
)
def test_bad_options(build: Callable, argument: str):
    with pytest.raises(ValueError, match=ERROR_FORM) as caught:
        build()
    assert f": {argument} must" in str(caught.value)


@pytest.mark.parametrize("changes", [[2.0, torch.nan], [torch.nan, torch.nan]], ids=str)
def test_the_operator_keeps_the_rules_of_operators(changes: list[float]):
    memory = gm.AdaptiveIMLE().initial_memory()
    torch.library.opcheck(torch.ops.graphmatch.adapt_.default, (memory, torch.tensor(changes), 1.0, 0.1))
