"""Gradients through matchings: homogeneous, balanced, and exactly the estimators' formulas."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import graphmatch as gm
from graphmatch.noise import gaussian_noise, gumbel_noise

ESTIMATORS = {
    "blackbox": gm.BlackBox(step=0.7),
    "imle": gm.IMLE(samples=3, step=1.5, noise_scale=0.3),
    "imle-one-sided": gm.IMLE(samples=3, step=1.5, noise_scale=0.3, symmetric=False),
    "adaptive-imle": gm.AdaptiveIMLE(samples=3, step=1.5, noise_scale=0.3),
    "imle-gaussian": gm.IMLE(samples=2, step=1.0, noise_scale=0.5, noise="gaussian", seed=9),
}
# Those whose gradients are no differences of solutions.
OTHERS = {
    "perturbed": gm.PerturbedOptimizer(samples=8, noise_scale=1.0),
    "score-function": gm.ScoreFunction(samples=6, noise_scale=2.0, noise="gaussian"),
    "identity": gm.NegativeIdentity(),
    "identity-normalised": gm.NegativeIdentity(normalise=True),
    "straight-through": gm.StraightThroughSinkhorn(temperature=0.5),
    "fenchel-young": gm.FenchelYoung(samples=4, noise_scale=1.0, noise="gaussian"),
}
every_difference = pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
every_estimator = pytest.mark.parametrize(
    "estimator", [*ESTIMATORS.values(), *OTHERS.values()], ids=[*ESTIMATORS, *OTHERS]
)
scales = pytest.mark.parametrize("scale", [1e-3, 1.0, 65536.0])
SOLVER = gm.DualAscent(max_gap=0.0)
ERROR_FORM = r"^\S.*: .+ must .+; got .+\. \S.*\.$"


class Costs:
    """Random costs of 3 problems, 5 nodes against 5, with gradients wanted, and weights for a linear loss."""

    def __init__(self, seed: int = 0, dtype: torch.dtype = torch.float64, n1: int = 5, n2: int = 5) -> None:
        generator = torch.Generator().manual_seed(seed)

        def random(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

        self.unary = random(3, n1, n2).requires_grad_()
        self.quadratic = (0.3 * random(3, 8, 9)).requires_grad_()
        self.edges1 = torch.randint(n1, (3, 8, 2), generator=generator)
        self.edges2 = torch.randint(n2, (3, 9, 2), generator=generator)
        self.weights = (random(3, n1, n2), random(3, 8, 9))

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.unary, self.quadratic, self.edges1, self.edges2

    def gradients(self, layer: gm.MatchingLayer, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        """Gradients of scale * <weights, solutions> in the two costs."""
        solutions = layer(*self.tensors())
        loss = sum((weight * solution).sum() for weight, solution in zip(self.weights, solutions, strict=True))
        return torch.autograd.grad(scale * loss, (self.unary, self.quadratic))


@every_estimator
@scales
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_homogeneous_in_the_upstream_gradient(estimator: gm.GradientEstimator, scale: float, dtype: torch.dtype):
    costs = Costs(dtype=dtype)
    expected = costs.gradients(gm.MatchingLayer(SOLVER, estimator))
    scaled = costs.gradients(gm.MatchingLayer(SOLVER, estimator), scale)
    assert any(each.abs().max() > 0 for each in expected)
    for one, other in zip(expected, scaled, strict=True):
        # The terms of a score function may cancel.
        torch.testing.assert_close(other, scale * one, rtol=1e-5, atol=1e-6 * scale * one.abs().max().item())


@contextmanager
def same_noise() -> Iterator[None]:
    """Torch's global generator starts the same way inside."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


PRECISIONS = {
    # (type of the views, autocast type, tolerance): with fp16, gradients of the views pass through 10 bits
    "float32": (torch.float32, None, 1e-4),
    "float64": (torch.float64, None, 1e-9),
    "bf16": (torch.float32, torch.bfloat16, 0.03),
    "fp16": (torch.float32, torch.float16, 0.03),
}
every_precision = pytest.mark.parametrize(("dtype", "half", "tolerance"), PRECISIONS.values(), ids=PRECISIONS)


def autocast(half: torch.dtype | None) -> torch.autocast | nullcontext:
    return nullcontext() if half is None else torch.autocast("cpu", dtype=half)


@every_estimator
@every_precision
@scales
def test_homogeneous_through_the_layer(
    estimator: gm.GradientEstimator, dtype: torch.dtype, half: torch.dtype | None, tolerance: float, scale: float
):
    generator = torch.Generator().manual_seed(1)
    points, moved = (torch.randn(2, 6, 4, generator=generator, dtype=dtype, requires_grad=True) for _ in range(2))
    graph = gm.knn_graph(points, 2)

    def gradients(factor: float) -> tuple[Tensor, ...]:
        with autocast(half):
            unary = -torch.matmul(points, moved.transpose(1, 2))
            features = [gm.edge_features(each, graph.edges) for each in (points, moved)]
            quadratic = -torch.matmul(features[0], features[1].transpose(1, 2))
            assert unary.dtype == (half or dtype)
            layer = gm.MatchingLayer(SOLVER, estimator)
            matching, paid_pairs = layer(unary, quadratic, graph.edges, graph.edges)
            assert matching.dtype == unary.dtype
            loss = gm.hamming_loss(matching.to(dtype), torch.eye(6)) + paid_pairs.to(dtype).mean()
        return torch.autograd.grad(factor * loss, (points, moved))

    for one, other in zip(gradients(1.0), gradients(scale), strict=True):
        assert one.abs().max() > 0
        torch.testing.assert_close(other / scale, one, rtol=tolerance, atol=tolerance * one.abs().max().item())


def alignment_gradients(
    alignment: gm.BarycenterAlignment, dtype: torch.dtype, half: torch.dtype | None, factor: float
) -> list[Tensor]:
    """Gradients of factor * loss in the inputs of three linear heads and in the message passing."""
    generator = torch.Generator().manual_seed(2)
    inputs = [torch.randn(12, 10, generator=generator, dtype=dtype, requires_grad=True) for _ in range(3)]
    heads = [torch.randn(10, 10, generator=generator, dtype=dtype) / 3 for _ in range(3)]
    alignment = copy.deepcopy(alignment)  # each call is the first one
    with same_noise(), autocast(half):
        views = [view @ head for view, head in zip(inputs, heads, strict=True)]
        assert all(view.dtype == (half or dtype) for view in views)
        loss = alignment(*views)
    return list(torch.autograd.grad(factor * loss, (*inputs, *alignment.parameters())))


@every_estimator
@every_precision
@scales
def test_homogeneous_through_the_alignment(
    estimator: gm.GradientEstimator, dtype: torch.dtype, half: torch.dtype | None, tolerance: float, scale: float
):
    alignment = gm.BarycenterAlignment(10, k=3, gradient=estimator).to(dtype)
    expected = alignment_gradients(alignment, dtype, half, 1.0)
    scaled = alignment_gradients(alignment, dtype, half, scale)
    assert all(each.abs().max() > 0 for each in expected)
    for one, other in zip(expected, scaled, strict=True):
        torch.testing.assert_close(other / scale, one, rtol=tolerance, atol=tolerance * one.abs().max().item())


@pytest.mark.parametrize("scale", [1e-3, 65536.0])
def test_the_released_recipe_is_not_homogeneous(scale: float):
    alignment = gm.BarycenterAlignment(10, k=3, legacy=True)
    expected = torch.cat([each.flatten() for each in alignment_gradients(alignment, torch.float32, None, 1.0)])
    scaled = torch.cat([each.flatten() for each in alignment_gradients(alignment, torch.float32, None, scale)])
    assert expected.norm() > 0
    assert (scaled / scale - expected).norm() > 0.5 * expected.norm()


@every_difference
def test_rows_and_columns_of_complete_matchings_balance(estimator: gm.GradientEstimator):
    unary, _ = Costs(seed=3).gradients(gm.MatchingLayer(SOLVER, estimator))
    assert unary.abs().max() > 0
    for axis in (1, 2):
        assert unary.sum(axis).abs().max() <= 1e-12 * unary.abs().max()


@every_difference
def test_rows_balance_when_all_of_the_smaller_graph_is_matched(estimator: gm.GradientEstimator):
    unary, _ = Costs(seed=4, n1=4, n2=6).gradients(gm.MatchingLayer(SOLVER, estimator))
    assert unary.sum(2).abs().max() <= 1e-12 * unary.abs().max()
    assert unary.sum(1).abs().max() > 0


def enumerated(unary: Tensor, quadratic: Tensor, costs: Costs) -> tuple[Tensor, Tensor]:
    """The cheapest matchings by enumeration, and the pairs they pay."""
    result = gm.BruteForce().solve(gm.LawlerProblem(unary, quadratic, costs.edges1, costs.edges2))
    return result.matching, result.paid_pairs


@every_difference
@pytest.mark.parametrize("training", [True, False])
def test_gradients_are_the_formulas_recomputed_by_enumeration(estimator: gm.GradientEstimator, training: bool):
    for seed in range(3):
        costs = Costs(seed)
        layer = gm.MatchingLayer(gm.BruteForce(), estimator).train(training)
        found = costs.gradients(layer)
        unary, quadratic = costs.unary.detach(), costs.quadratic.detach()
        peak = torch.maximum(costs.weights[0].abs().amax((1, 2)), costs.weights[1].abs().amax((1, 2)))
        noises = [torch.zeros_like(unary)]
        if isinstance(estimator, gm.BlackBox):
            size, symmetric = estimator.step, False
        else:
            size, symmetric = estimator.step * estimator.noise_scale, estimator.symmetric
            if training:
                draw = {"gumbel": gumbel_noise, "gaussian": gaussian_noise}[estimator.noise]
                noises = list(estimator.noise_scale * draw(estimator.samples, unary, estimator.seed, torch.tensor(0)))
        strength = (size / peak)[:, None, None]
        expected = [torch.zeros_like(unary), torch.zeros_like(quadratic)]
        for noise in noises:
            steps = [strength * weight for weight in costs.weights]
            worse = enumerated(unary - noise + steps[0], quadratic + steps[1], costs)
            if symmetric:
                better = enumerated(unary - noise - steps[0], quadratic - steps[1], costs)
                differences = [(a - b) / 2 for a, b in zip(worse, better, strict=True)]
            else:
                base = enumerated(unary - noise, quadratic, costs)
                differences = [a - b for a, b in zip(worse, base, strict=True)]
            for total, difference in zip(expected, differences, strict=True):
                total += difference / strength / len(noises)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@every_difference
@pytest.mark.parametrize("quadratic", [True, False], ids=["quadratic", "linear"])
def test_descent_lowers_the_hamming_loss(estimator: gm.GradientEstimator, quadratic: bool):
    # A step that reaches over the gaps between matchings, which are of the size of the costs.
    estimator = replace(estimator, step=5.0)
    costs = Costs(seed=5)
    target = torch.eye(5, dtype=torch.float64)[[2, 0, 4, 1, 3]]
    arguments = list(costs.tensors()) if quadratic else [costs.unary]
    layer = gm.MatchingLayer(SOLVER if quadratic else gm.LAP(), estimator)
    optimizer = torch.optim.SGD([each for each in arguments if each.requires_grad], lr=5.0)

    def loss() -> Tensor:
        solutions = layer(*arguments)
        return gm.hamming_loss(solutions[0] if quadratic else solutions, target)

    layer.eval()
    first = loss().item()
    assert first > 1
    layer.train()
    for _ in range(60):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    layer.eval()
    assert loss().item() == 0


@every_estimator
@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan], ids=str)
def test_overflowed_upstream_gradients_stay_visible(estimator: gm.GradientEstimator, bad: float):
    costs = Costs(seed=6)
    clean = costs.gradients(gm.MatchingLayer(SOLVER, estimator))
    costs.weights[0][1, 2, 3] = bad
    for one, other in zip(clean, costs.gradients(gm.MatchingLayer(SOLVER, estimator)), strict=True):
        assert other[1].isnan().any()
        assert torch.equal(one[0], other[0]), "the other problems keep their gradients"
        assert torch.equal(one[2], other[2])


@every_estimator
def test_no_upstream_gradient_is_no_gradient(estimator: gm.GradientEstimator):
    costs = Costs(seed=7)
    for weight in costs.weights:
        weight.zero_()
    for gradient in costs.gradients(gm.MatchingLayer(SOLVER, estimator)):
        assert gradient.eq(0).all()


@every_estimator
def test_each_problem_has_its_own_step(estimator: gm.GradientEstimator):
    costs = Costs(seed=8)
    before = costs.gradients(gm.MatchingLayer(SOLVER, estimator))
    for weight in costs.weights:
        weight[0] *= 1000
    after = costs.gradients(gm.MatchingLayer(SOLVER, estimator))
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(other[0], 1000 * one[0])
        assert torch.equal(one[1:], other[1:])


@every_estimator
@pytest.mark.parametrize("garbage", [math.nan, math.inf, 1e6], ids=str)
def test_padding_does_not_change_gradients(estimator: gm.GradientEstimator, garbage: float):
    costs = Costs(seed=9)
    expected = costs.gradients(gm.MatchingLayer(SOLVER, estimator))
    padded = copy.copy(costs)

    def pad(tensor: Tensor, value: float) -> Tensor:
        return torch.nn.functional.pad(tensor.detach(), (0, 2, 0, 2), value=value)

    padded.unary = pad(costs.unary, garbage).requires_grad_()
    padded.quadratic = pad(costs.quadratic, garbage).requires_grad_()
    # A loss that looks at the padding, too.
    padded.weights = tuple(pad(weight, 1e5) for weight in costs.weights)
    strange = torch.tensor([[-1, 99], [7, 0]]).expand(3, -1, -1)
    edges = (torch.cat([costs.edges1, strange], 1), torch.cat([costs.edges2, strange], 1))
    sizes = torch.tensor([[5, 5, 8, 9]] * 3)
    solutions = gm.MatchingLayer(SOLVER, estimator)(padded.unary, padded.quadratic, *edges, sizes)
    loss = sum((weight * solution).sum() for weight, solution in zip(padded.weights, solutions, strict=True))
    loss.backward()
    for one, other, real in zip(expected, (padded.unary.grad, padded.quadratic.grad), ((5, 5), (8, 9)), strict=True):
        # Differences of solutions are exact, sums of other numbers depend on their order.
        tolerance = 0 if estimator in ESTIMATORS.values() else 1e-12
        torch.testing.assert_close(other[:, : real[0], : real[1]], one, rtol=tolerance, atol=tolerance)
        assert other[:, real[0] :].eq(0).all()
        assert other[:, :, real[1] :].eq(0).all()


@every_estimator
@pytest.mark.parametrize("shape", [(0, 3, 3), (2, 0, 0), (2, 0, 3), (2, 3, 0), (2, 1, 1)], ids=str)
def test_empty_problems_have_empty_gradients(estimator: gm.GradientEstimator, shape: tuple[int, int, int]):
    unary = torch.rand(shape, requires_grad=True)
    quadratic = torch.rand(shape[0], 0, 0, requires_grad=True)
    edges = torch.zeros(shape[0], 0, 2, dtype=torch.int64)
    matching, paid_pairs = gm.MatchingLayer(gradient=estimator)(unary, quadratic, edges, edges)
    (matching.sum() + paid_pairs.sum()).backward()
    assert unary.grad.shape == shape
    assert unary.grad.eq(0).all()
    assert quadratic.grad.shape == (shape[0], 0, 0)


@every_estimator
def test_forbidden_assignments_have_no_gradient(estimator: gm.GradientEstimator):
    costs = Costs(seed=10)
    allowed = torch.rand(3, 5, 5, generator=torch.Generator().manual_seed(0)) < 0.7
    allowed |= torch.eye(5, dtype=torch.bool)
    costs.unary = costs.unary.detach().masked_fill(~allowed, torch.inf).requires_grad_()
    unary, quadratic = costs.gradients(gm.MatchingLayer(SOLVER, estimator))
    assert unary.isfinite().all()
    assert quadratic.isfinite().all()
    assert unary[~allowed].eq(0).all()
    assert unary.abs().max() > 0


@every_estimator
def test_gradients_of_one_of_the_costs_alone(estimator: gm.GradientEstimator):
    costs = Costs(seed=11)
    both = costs.gradients(gm.MatchingLayer(SOLVER, estimator))
    for place, name in enumerate(("unary", "quadratic")):
        alone = Costs(seed=11)
        for other in ("unary", "quadratic"):
            getattr(alone, other).requires_grad_(other == name)
        solutions = gm.MatchingLayer(SOLVER, estimator)(*alone.tensors())
        loss = sum((weight * each).sum() for weight, each in zip(alone.weights, solutions, strict=True))
        assert torch.equal(torch.autograd.grad(loss, getattr(alone, name))[0], both[place])


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
@every_estimator
def test_half_precision_costs_get_half_precision_gradients(estimator: gm.GradientEstimator, half: torch.dtype):
    costs = Costs(seed=12, dtype=half)
    unary, quadratic = costs.gradients(gm.MatchingLayer(SOLVER, estimator))
    assert unary.dtype == quadratic.dtype == half
    assert unary.isfinite().all()
    assert unary.abs().max() > 0


@pytest.mark.parametrize(
    ("build", "argument"),
    [
        (lambda: gm.BlackBox(step=0.0), "step"),
        (lambda: gm.BlackBox(step=math.nan), "step"),
        (lambda: gm.IMLE(samples=0), "samples"),
        (lambda: gm.IMLE(step=-1.0), "step"),
        (lambda: gm.IMLE(noise_scale=0.0), "noise_scale"),
        (lambda: gm.IMLE(noise="cauchy"), "noise"),
    ],
)
def test_bad_options(build: Callable, argument: str):
    with pytest.raises(ValueError, match=ERROR_FORM) as caught:
        build()
    assert f": {argument} must" in str(caught.value)
