"""Each gradient estimator against its formula, recomputed by enumeration on the same noise."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import graphmatch as gm
from graphmatch.gradients import FunctionOracle, estimated_solution
from graphmatch.noise import Noise, draw

ERROR_FORM = r"^\S.*: .+ must .+; got .+\. \S.*\.$"
BATCH, NODES1, NODES2, EDGES1, EDGES2 = 3, 4, 4, 5, 6


class Case:
    """Three small problems, costs that want gradients, and the weights of a linear loss."""

    def __init__(self, seed: int = 0, n1: int = NODES1, n2: int = NODES2, dtype: torch.dtype = torch.float64) -> None:
        generator = torch.Generator().manual_seed(seed)

        def random(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

        self.unary = random(BATCH, n1, n2).requires_grad_()
        self.quadratic = (0.5 * random(BATCH, EDGES1, EDGES2)).requires_grad_()
        self.edges1 = torch.randint(n1, (BATCH, EDGES1, 2), generator=generator)
        self.edges2 = torch.randint(n2, (BATCH, EDGES2, 2), generator=generator)
        self.weights = (random(BATCH, n1, n2), random(BATCH, EDGES1, EDGES2))
        self.random = random

    @property
    def costs(self) -> tuple[Tensor, Tensor]:
        return self.unary, self.quadratic

    def arguments(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.unary, self.quadratic, self.edges1, self.edges2

    def weighted(self, solutions: tuple[Tensor, ...]) -> Tensor:
        """The linear loss of each problem, (b,)."""
        pairs = zip(self.weights, solutions, strict=True)
        return sum((weight * solution).sum((1, 2)) for weight, solution in pairs)

    def gradients(self, layer: gm.MatchingLayer) -> tuple[Tensor | None, ...]:
        loss = self.weighted(layer(*self.arguments())).sum()
        return torch.autograd.grad(loss, self.costs, allow_unused=True)

    def enumerated(self, unary: Tensor, quadratic: Tensor, unmatched_cost: float | None = None) -> gm.MatchResult:
        costs = (unary.detach(), quadratic.detach())
        problem = gm.LawlerProblem(*costs, self.edges1, self.edges2, None, unmatched_cost)
        return gm.BruteForce().solve(problem)

    def noise(self, noise: Noise, key: int = 0) -> list[Tensor]:
        """Standard noise (S, b, ...) on the costs that have some."""
        keys, instances = torch.full((BATCH,), key), torch.arange(BATCH)
        noisy = self.costs if noise.everywhere else self.costs[:1]
        return [
            draw(noise, keys, instances, tuple(cost.shape[1:]), None, place, 0, noise.samples).double()
            for place, cost in enumerate(noisy)
        ]

    def noisy_solutions(self, noise: Noise) -> tuple[list[gm.MatchResult], list[Tensor]]:
        """The enumerated solution of each sample, and the noise."""
        drawn = self.noise(noise)
        results = []
        for k in range(noise.samples):
            moved = [cost.detach() for cost in self.costs]
            for place, each in enumerate(drawn):
                moved[place] = moved[place] - noise.scale * each[k].to(moved[place].dtype)
            results.append(self.enumerated(*moved))
        return results, drawn


def density_score(kind: str, values: Tensor) -> Tensor:
    """Minus the derivative of the log density by hand: -z^2 / 2, and -z - exp(-z)."""
    values = values.detach().requires_grad_()
    logarithm = -values.square() / 2 if kind == "gaussian" else -values - torch.exp(-values)
    return -torch.autograd.grad(logarithm.sum(), values)[0]


def baselines(losses: Tensor, group: int) -> Tensor:
    """The mean loss of all samples outside the group of each one, by loops."""
    rows = []
    for k in range(len(losses)):
        others = [j for j in range(len(losses)) if j // group != k // group]
        rows.append(losses[others].mean(0) if others else torch.zeros_like(losses[0]))
    return torch.stack(rows) if rows else losses


def shaped(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(*values.shape, *[1] * (like.ndim - values.ndim))


def perturbed_gradient(
    estimator: gm.PerturbedOptimizer, losses: Tensor, noises: list[Tensor], group: int | None
) -> list[Tensor]:
    """The formula: -(1 / sigma) mean_k (L_k - b_k) nu'(Z_k)."""
    centred = losses if group is None else losses - baselines(losses, group)
    return [
        -(shaped(centred, noise) * density_score(estimator.noise, noise)).mean(0) / estimator.noise_scale
        for noise in noises
    ]


PERTURBED = {
    "gumbel": {"samples": 7},
    "gaussian": {"samples": 7, "noise": "gaussian", "seed": 5},
    "one sample": {"samples": 1},
    "unary noise": {"samples": 6, "perturb": "unary"},
    "no baseline": {"samples": 6, "baseline": "none"},
}
every_perturbed = pytest.mark.parametrize("options", PERTURBED.values(), ids=PERTURBED)


@every_perturbed
@pytest.mark.parametrize("training", [True, False])
def test_perturbed_optimizer_is_its_formula(options: dict, training: bool):
    estimator = gm.PerturbedOptimizer(noise_scale=0.7, **options)
    for seed in range(2):
        case = Case(seed)
        results, noises = case.noisy_solutions(estimator.draws)
        losses = torch.stack([case.weighted((each.matching, each.paid_pairs)) for each in results])
        group = 1 if estimator.baseline == "leave_one_out" else None
        expected = perturbed_gradient(estimator, losses, noises, group)
        layer = gm.MatchingLayer(gm.BruteForce(), estimator).train(training)
        matching, pairs = layer(*case.arguments())
        if training:
            torch.testing.assert_close(matching, torch.stack([each.matching for each in results]).mean(0))
            torch.testing.assert_close(pairs, torch.stack([each.paid_pairs for each in results]).mean(0))
        else:
            assert torch.equal(matching, case.enumerated(*case.costs).matching)
        loss = case.weighted((matching, pairs)).sum()
        found = torch.autograd.grad(loss, case.costs, allow_unused=True)
        for one, other in zip(found, expected, strict=False):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
        if estimator.perturb == "unary":
            assert found[1] is None


@pytest.mark.parametrize("coupling", ["antithetic", "orthogonal"])
@pytest.mark.parametrize("samples", [1, 2, 5, 32, 40, 70])
def test_baselines_leave_coupled_samples_out(coupling: str, samples: int):
    estimator = gm.PerturbedOptimizer(samples=samples, coupling=coupling)
    case = Case(1)
    losses = case.random(samples, BATCH)
    oracle = FunctionOracle(lambda costs: costs)
    costs = (case.unary.detach(),)
    found = estimator.score_gradients(oracle, costs, losses, torch.ones_like(losses))
    centred = losses - baselines(losses, {"antithetic": 2, "orthogonal": 32}[coupling])
    expected = oracle.scores(costs, estimator.draws, -centred / samples / estimator.noise_scale)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-9, atol=1e-10)


def test_baselines_of_weighted_samples():
    estimator = gm.PerturbedOptimizer(samples=4, noise_scale=1.0)
    oracle = FunctionOracle(lambda costs: costs)
    costs = (torch.zeros(2, 1, 3, dtype=torch.float64),)
    losses = torch.tensor([[1.0, 5.0], [2.0, math.nan], [4.0, math.inf], [8.0, -math.inf]], dtype=torch.float64)
    weights = torch.tensor([[1.0, 1.0], [0.5, 0.0], [0.0, 0.0], [0.5, 0.0]], dtype=torch.float64)
    found = estimator.score_gradients(oracle, costs, losses, weights)[0]
    # (0.5 * 2 + 0.5 * 8) / 1, (1 * 1 + 0.5 * 8) / 1.5, (1 * 1 + 0.5 * 2) / 1.5; one sample that counts has no others.
    centred = torch.tensor([[1 - 5, 5.0], [2 - 10 / 3, 0.0], [0.0, 0.0], [8 - 4 / 3, 0.0]], dtype=torch.float64)
    shares = torch.tensor([[0.5, 1.0], [0.25, 0.0], [0.0, 0.0], [0.25, 0.0]], dtype=torch.float64)
    expected = oracle.scores(costs, estimator.draws, -shares * centred)[0]
    torch.testing.assert_close(found, expected)
    assert found.abs().max() > 0


def test_open_samples_can_be_left_out():
    class Doubtful(gm.BruteForce):
        """Certifies problems whose first cost is positive, and no others."""

        def solve(self, problem: gm.Problem) -> gm.MatchResult:
            result = super().solve(problem)
            certified = problem.unary_costs[:, 0, 0] > 0
            bound = torch.where(certified, result.objective, result.objective - result.objective.abs())
            return gm.MatchResult(problem, result.assignment, result.objective, bound, result.status, result.iterations)

    estimator = gm.PerturbedOptimizer(samples=9, noise_scale=1.0, noise="gaussian", open_samples="drop")
    case = Case(2)
    results, noises = case.noisy_solutions(estimator.draws)
    losses = torch.stack([case.weighted((each.matching, each.paid_pairs)) for each in results])
    found = case.gradients(gm.MatchingLayer(Doubtful(), estimator))
    used = 0
    for problem in range(BATCH):
        counts = (case.unary[problem, 0, 0] - noises[0][:, problem, 0, 0]) > 0
        chosen = [noise[counts, problem][:, None] for noise in noises]
        expected = perturbed_gradient(estimator, losses[counts, problem][:, None], chosen, 1)
        if not counts.any():
            expected = [torch.zeros_like(each) for each in expected]
        used += int(0 < counts.sum() < 9)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one[problem], other[0], rtol=1e-9, atol=1e-12)
    assert used, "no problem has both kinds of samples"


# What every estimator must do, whatever its formula.
ESTIMATORS = {
    "perturbed": gm.PerturbedOptimizer(samples=5),
    "perturbed-unary": gm.PerturbedOptimizer(samples=5, perturb="unary"),
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


@every_estimator
def test_estimators_take_any_function(estimator: gm.GradientEstimator):
    case = Case(3)
    costs = case.random(4, 5).requires_grad_()
    weights = case.random(4, 5)
    gradients = function_gradients(estimator, costs, weights)
    assert gradients.shape == costs.shape
    assert gradients.isfinite().all()
    assert gradients.abs().sum() > 0
    torch.testing.assert_close(function_gradients(estimator, costs, 8 * weights), 8 * gradients)


@every_estimator
@pytest.mark.parametrize("training", [True, False])
def test_estimators_compile_as_one_graph(estimator: gm.GradientEstimator, training: bool):
    torch.compiler.reset()
    case = Case(4)

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
def test_estimators_under_vmap(estimator: gm.GradientEstimator, training: bool):
    case = Case(5)
    layer = gm.MatchingLayer(gm.BruteForce(), estimator).train(training)
    scales = torch.tensor([1.0, 3.0], dtype=torch.float64)

    def loss(unary: Tensor, quadratic: Tensor, scale: Tensor) -> Tensor:
        solutions = layer(unary, quadratic, case.edges1, case.edges2, step=0)
        return scale * case.weighted(solutions).sum()

    costs = torch.stack([case.unary.detach(), 1.1 * case.unary.detach()])
    found = torch.func.vmap(torch.func.grad(loss, (0, 1)), (0, None, 0))(costs, case.quadratic.detach(), scales)
    layer = gm.MatchingLayer(gm.BruteForce(), estimator).train(training)
    for place, scale in enumerate(scales):
        expected = torch.func.grad(loss, (0, 1))(costs[place], case.quadratic.detach(), scale)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one[place], other, rtol=1e-9, atol=1e-12)


@every_estimator
def test_unmatched_nodes_have_gradients(estimator: gm.GradientEstimator):
    case = Case(6, n1=4, n2=5)
    gradients = case.gradients(gm.MatchingLayer(gm.BruteForce(), estimator, unmatched_cost=-0.3))
    assert all(each.isfinite().all() for each in present(gradients))
    assert gradients[0].abs().sum() > 0


@every_estimator
def test_dense_problems_have_gradients(estimator: gm.GradientEstimator):
    case = Case(7)
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
