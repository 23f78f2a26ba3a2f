"""Gradient estimators against enumeration: bias, rates, exact formulas, invariants.

The problem is that of `graphmatch bench gradients`: 32 costs, 24 solutions, Gaussian noise of scale 1 on all costs. All
seeds are fixed, so that a test that passes always does.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

import graphmatch as gm
from graphmatch.gradients import FunctionOracle, estimated_solution
from graphmatch.noise import Noise, draw
from graphmatch.studies.problems import StudyProblem
from graphmatch.testing import EnumeratedProblem, bias_of, mean_test, relative_rmse

SEED = 188
NOISE: dict[str, Any] = {"noise_scale": 1.0, "noise": "gaussian", "perturb": "all", "seed": 3}
UNBIASED = {
    "leave-one-out": gm.PerturbedOptimizer(**NOISE),
    "no baseline": gm.PerturbedOptimizer(**NOISE, baseline="none"),
    "score function": gm.ScoreFunction(**NOISE),
}
ALPHA = 1e-3


@pytest.fixture(scope="module")
def problem() -> StudyProblem:
    torch.set_num_threads(1)
    return StudyProblem.random(SEED, 100_000)


def imle(problem: StudyProblem, lambda_: float, samples: int, **options: Any) -> gm.IMLE:
    """I-MLE with lambda as the factor on the upstream gradient."""
    return gm.IMLE(samples=samples, step=lambda_ * problem.peak, **{**NOISE, **options})


def estimates(problem: StudyProblem, estimator: Any, samples: int, repetitions: int) -> Tensor:
    return problem.estimates(replace(estimator, samples=samples), samples, repetitions)


# 1. The exact oracle


@pytest.mark.parametrize("enumerated", [EnumeratedProblem.assignment(5), "study"], ids=["120 solutions", "study"])
def test_gibbs_gradient_is_the_finite_difference(enumerated: Any, problem: StudyProblem):
    enumerated = problem.problem if enumerated == "study" else enumerated
    generator = torch.Generator().manual_seed(0)
    size = enumerated.vertices.shape[1]
    costs, upstream = (torch.randn(1, size, generator=generator, dtype=torch.float64) for _ in range(2))
    exact = -(upstream @ enumerated.gibbs(enumerated.split(costs)).covariance[0])
    step = 1e-5
    for entry in range(size):
        shift = step * torch.eye(size, dtype=torch.float64)[[entry]]
        sides = [enumerated.gibbs(enumerated.split(costs + sign * shift)).mean for sign in (1, -1)]
        slope = ((sides[0] - sides[1]) * upstream).sum() / (2 * step)
        assert abs(slope - exact[0, entry]) < 1e-9


# 2. Unbiased estimators


@pytest.mark.parametrize("estimator", UNBIASED.values(), ids=UNBIASED)
def test_unbiased_estimators_are(estimator: Any, problem: StudyProblem):
    found = estimates(problem, estimator, 64, 400)
    assert len(found) > 5 * found.shape[1]
    assert mean_test(found, problem.reference, problem.covariance) > ALPHA
    # The test has the power to see a bias of a tenth of the gradient.
    assert mean_test(found + 0.2 * problem.reference, problem.reference, problem.covariance) < ALPHA


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"coupling": "antithetic"}, {"noise": "gumbel"}, {"perturb": "unary"}], ids=repr)
def test_unbiased_with_every_noise(options: dict[str, Any], problem: StudyProblem):
    everywhere = options.get("perturb") != "unary"
    enumerated = problem.problem
    truth = enumerated.smoothed_gradient(
        enumerated.split(problem.costs), enumerated.split(problem.upstream), options.get("noise", "gaussian"),
        samples=100_000, everywhere=everywhere,
    )  # fmt: skip
    noisy = enumerated.noisy_entries(everywhere)
    found = estimates(problem, replace(gm.PerturbedOptimizer(**NOISE), **options), 64, 400)[:, :noisy]
    assert mean_test(found, truth.gradient[0, :noisy], truth.covariance[0, :noisy, :noisy]) > ALPHA


def fenchel_young_gradients(problem: StudyProblem, samples: int, repetitions: int) -> Tensor:
    leaf = problem.costs.expand(repetitions, -1).clone().requires_grad_()
    target = problem.problem.split(problem.problem.vertices[[5]].expand(repetitions, -1))
    oracle = FunctionOracle(problem.problem.solve)
    estimator = gm.FenchelYoung(**NOISE, samples=samples)
    estimator.loss(oracle, problem.problem.split(leaf), target).sum().backward()
    return leaf.grad


def test_fenchel_young_is_unbiased(problem: StudyProblem):
    parts = problem.problem.split(problem.costs)
    mean = problem.problem.smoothed(parts, samples=200_000, seed=1)[0]
    found = fenchel_young_gradients(problem, 64, 400)
    expected = problem.problem.vertices[5] - mean
    # A replicate is the mean of 64 solutions, what is expected that of 200000.
    covariance = torch.cov(found.T) * 64 / 200_000
    assert mean_test(found, expected, covariance) > ALPHA
    assert mean_test(found + 0.02, expected, covariance) < ALPHA


# 3. Rates


def rates(problem: StudyProblem, estimator: Any, samples: tuple[int, ...], repetitions: int) -> list[float]:
    errors = [relative_rmse(estimates(problem, estimator, each, repetitions), problem.reference) for each in samples]
    return [first / second for first, second in itertools.pairwise(errors)]


@pytest.mark.parametrize("estimator", UNBIASED.values(), ids=UNBIASED)
def test_error_halves_with_four_times_the_samples(estimator: Any, problem: StudyProblem):
    assert rates(problem, estimator, (16, 64), 400) == [pytest.approx(2.0, abs=0.2)]


@pytest.mark.slow
@pytest.mark.parametrize("estimator", UNBIASED.values(), ids=UNBIASED)
def test_error_halves_up_to_many_samples(estimator: Any, problem: StudyProblem):
    assert rates(problem, estimator, (64, 256, 1024), 400) == [pytest.approx(2.0, abs=0.2)] * 2


def test_symmetric_imle_has_the_least_error(problem: StudyProblem):
    def error(estimator: Any) -> float:
        return relative_rmse(estimates(problem, estimator, 64, 400), problem.reference)

    symmetric = error(imle(problem, 0.3, 64))
    one_sided = error(imle(problem, 0.3, 64, symmetric=False))
    perturbed = error(gm.PerturbedOptimizer(**NOISE))
    assert symmetric <= 0.31
    assert one_sided == pytest.approx(0.48, abs=0.06)
    assert perturbed == pytest.approx(1.12, abs=0.08)
    # What that is worth in samples.
    assert (perturbed / symmetric) ** 2 > 10
    assert error(gm.PerturbedOptimizer(**NOISE, baseline="none")) > 1.1 * perturbed


def test_lambda_has_its_optimum_near_three_tenths_of_the_noise(problem: StudyProblem):
    errors = [
        relative_rmse(estimates(problem, imle(problem, each, 64), 64, 100), problem.reference)
        for each in (0.03, 0.3, 3.0)
    ]
    assert errors[1] < 0.5 * min(errors[0], errors[2])


# 4. Losses and their finite differences


def test_fenchel_young_gradient_is_the_finite_difference(problem: StudyProblem):
    """Under common noise the value is continuous and piecewise linear."""
    enumerated = problem.problem
    estimator = gm.FenchelYoung(**NOISE, samples=20_000)
    oracle = FunctionOracle(enumerated.solve)
    target = enumerated.split(enumerated.vertices[[5]])

    def loss(costs: Tensor) -> Tensor:
        return estimator.loss(oracle, enumerated.split(costs), target).sum()

    leaf = problem.costs.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf), leaf)
    generator = torch.Generator().manual_seed(1)
    for _ in range(4):
        direction = torch.randn(problem.costs.shape, generator=generator, dtype=torch.float64)
        sides = [loss(problem.costs + sign * 1e-3 * direction) for sign in (1, -1)]
        slope = float((sides[0] - sides[1]) / 2e-3)
        assert slope == pytest.approx(float((gradient * direction).sum()), abs=2e-3 * float(gradient.norm()))


def test_linear_losses_want_wide_finite_differences(problem: StudyProblem):
    """Under common noise E<g, y> is piecewise constant: narrow differences see its steps."""
    enumerated = problem.problem

    def error(width: float) -> float:
        slopes = []
        for entry in range(16):
            shift = width * torch.eye(32, dtype=torch.float64)[[entry]]
            sides = [
                (enumerated.smoothed(enumerated.split(problem.costs + sign * shift), samples=10_000, seed=2)
                 * problem.upstream).sum()
                for sign in (1, -1)
            ]  # fmt: skip
            slopes.append((sides[0] - sides[1]) / (2 * width))
        return float((torch.stack(slopes) - problem.reference[:16]).norm() / problem.reference[:16].norm())

    assert error(0.3) < 0.15
    assert error(1e-3) > 2 * error(0.3)


# 5. I-MLE


@pytest.mark.parametrize(("lambda_", "samples", "cosine"), [(0.2, 40_000, 0.99)])
def test_imle_tends_to_the_smoothed_gradient(lambda_: float, samples: int, cosine: float, problem: StudyProblem):
    found = estimates(problem, imle(problem, lambda_, 64), 64, samples // 64).mean(0)
    assert float(cosine_similarity(found, problem.reference, 0)) > cosine


@pytest.mark.slow
def test_imle_tends_to_the_perturbed_optimizer(problem: StudyProblem):
    found = estimates(problem, imle(problem, 0.1, 64), 64, 400_000 // 64).mean(0)
    assert float(cosine_similarity(found, problem.reference, 0)) > 0.999


def bias_slope(problem: StudyProblem, symmetric: bool, lambdas: tuple[float, float], samples: int) -> float:
    """The exponent of lambda in the bias."""
    biases = [
        bias_of(
            estimates(problem, imle(problem, each, 256, symmetric=symmetric), 256, samples // 256),
            problem.reference, problem.covariance,
        ).value
        for each in lambdas
    ]  # fmt: skip
    return math.log(biases[1] / biases[0]) / math.log(lambdas[1] / lambdas[0])


def test_bias_of_one_sided_imle_is_linear_in_lambda(problem: StudyProblem):
    assert bias_slope(problem, False, (0.25, 0.5), 50_000) == pytest.approx(1.0, abs=0.25)


def test_bias_of_symmetric_imle_falls_faster(problem: StudyProblem):
    assert bias_slope(problem, True, (0.4, 0.8), 50_000) > 1.4


@pytest.mark.slow
def test_bias_of_symmetric_imle_is_quadratic_in_lambda():
    problem = StudyProblem.random(SEED, 1_000_000)
    assert bias_slope(problem, True, (0.2, 0.4), 600_000) == pytest.approx(2.0, abs=0.3)


@pytest.mark.parametrize("symmetric", [True, False])
def test_imle_is_its_formula_bit_by_bit(symmetric: bool, problem: StudyProblem):
    """Costs on a grid of powers of two: no sum is rounded, so there is one answer."""
    enumerated, samples = problem.problem, 32
    generator = torch.Generator().manual_seed(2)
    costs = torch.randint(-8, 9, (2, 32), generator=generator).double() / 4
    upstream = torch.randint(-4, 5, (2, 32), generator=generator).double()
    upstream[:, 0] = 4.0
    estimator = gm.IMLE(samples=samples, step=0.5, symmetric=symmetric, **NOISE)
    leaf = costs.clone().requires_grad_()
    solutions, _ = estimated_solution(estimator, FunctionOracle(enumerated.solve), enumerated.split(leaf), True)
    (found,) = torch.autograd.grad((enumerated.flatten(solutions) * upstream).sum(), leaf)
    noise = Noise(samples, 1.0, "gaussian", "independent", True, NOISE["seed"])
    keys, instances = torch.zeros(2, dtype=torch.int64), torch.arange(2)
    values = [
        draw(noise, keys, instances, shape, None, place, 0, samples).double().flatten(2)
        for place, shape in enumerate(enumerated.shapes)
    ]
    moved = costs - torch.cat(values, 2)

    def solved(shift: float) -> Tensor:
        flat = (moved + shift * upstream / 4).flatten(0, 1)
        return enumerated.flatten(enumerated.solve(enumerated.split(flat))).unflatten(0, (samples, 2))

    other = -0.5 if symmetric else 0.0
    expected = (solved(0.5) - solved(other)).mean(0) / ((0.5 - other) / 4)
    assert torch.equal(found, expected)
    assert float(found.abs().amax()) > 0


# 6. Invariants


EVERY = {
    "imle": gm.IMLE(samples=8, **NOISE),
    "black box": gm.BlackBox(step=2.0),
    "perturbed": gm.PerturbedOptimizer(samples=64, **NOISE),
}


def layer_gradients(problem: StudyProblem, estimator: Any, batch: slice = slice(None), sign: float = 1.0) -> Tensor:
    """Gradients of 6 problems through a layer, or of some of them; with sign -1 in the affinities."""
    generator = torch.Generator().manual_seed(4)
    costs, upstream = (torch.randn(6, 32, generator=generator, dtype=torch.float64) for _ in range(2))
    leaf = (sign * costs[batch]).requires_grad_()
    layer = gm.MatchingLayer(gm.BranchAndBound(), estimator)
    edges = problem.problem.edges1, problem.problem.edges2
    solutions = layer(*problem.problem.split(sign * leaf), *edges, instances=torch.arange(6)[batch], step=0)
    return torch.autograd.grad((problem.problem.flatten(solutions) * upstream[batch]).sum(), leaf)[0]


@pytest.mark.parametrize("estimator", [EVERY["imle"], EVERY["black box"]], ids=["imle", "black box"])
def test_gradients_balance_and_pairs_follow_the_matching(estimator: Any, problem: StudyProblem):
    found = layer_gradients(problem, estimator)
    assert found.abs().amax() > 0
    unary = found[:, :16].unflatten(1, (4, 4))
    for axis in (1, 2):
        assert unary.sum(axis).abs().amax() < 1e-12
    # Differences of solutions: a combination of vertices whose weights add up to nothing.
    vertices = problem.problem.vertices
    differences = vertices[1:] - vertices[0]
    # These depend on each other: singular values below the tolerance are none.
    projection = torch.linalg.pinv(differences, rtol=1e-9) @ differences
    torch.testing.assert_close(found @ projection, found, atol=1e-9, rtol=0)
    assert (torch.ones_like(found) @ projection - 1).abs().amax() > 0.1, "not everything lies in their span"


@pytest.mark.parametrize("estimator", EVERY.values(), ids=EVERY)
def test_batches_and_signs_change_nothing(estimator: Any, problem: StudyProblem):
    together = layer_gradients(problem, estimator)
    alone = torch.cat([layer_gradients(problem, estimator, slice(place, place + 1)) for place in range(6)])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-14)
    assert torch.equal(together, layer_gradients(problem, estimator))
    # Affinities are negated costs, and so are their gradients.
    assert torch.equal(layer_gradients(problem, estimator, sign=-1.0), -together)


@pytest.mark.parametrize(
    "estimator",
    [
        gm.IMLE(samples=16, **NOISE),
        gm.PerturbedOptimizer(samples=512, **NOISE),
        gm.NegativeIdentity(),
        gm.BlackBox(step=4.0),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_descent_lowers_the_expected_hamming_loss(estimator: Any, problem: StudyProblem):
    enumerated = problem.problem
    target = enumerated.vertices[[9]]
    edges = enumerated.edges1, enumerated.edges2

    def expected(costs: Tensor) -> float:
        means = enumerated.smoothed(enumerated.split(costs), samples=20_000, seed=3)[:, :16]
        return float((means + target[:, :16] - 2 * means * target[:, :16]).sum())

    leaf = problem.costs.clone().requires_grad_()
    matching, _ = gm.MatchingLayer(gm.BranchAndBound(), estimator)(*enumerated.split(leaf), *edges, step=0)
    assert not torch.equal(matching.flatten(1), target[:, :16])
    gm.hamming_loss(matching, target[:, :16].unflatten(1, (4, 4))).backward()
    step = 0.3 * leaf.grad / leaf.grad.abs().amax()
    assert expected(problem.costs - step) < expected(problem.costs) - 0.05
