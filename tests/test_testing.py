"""graphmatch.testing: enumeration is exact, and the checker finds what is wrong with an estimator."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

import graphmatch as gm
from graphmatch.gradients.base import Forward, Oracle, Tensors, Upstream
from graphmatch.testing import EnumeratedProblem, bias_of, check_gradient_estimator, mean_test, relative_rmse

ERROR_FORM = r"^\S.*: .+ must .+; got .+\. \S.*\.$"
EDGES1 = torch.tensor([[0, 1], [1, 2], [3, 0], [2, 2]])
EDGES2 = torch.tensor([[1, 0], [2, 3], [0, 3], [1, 1], [2, 3]])
QUADRATIC = EnumeratedProblem.quadratic(4, EDGES1, EDGES2)
GOOD = gm.IMLE(samples=8, step=0.3, noise="gaussian", noise_scale=1.0, perturb="all")


def random_costs(problem: EnumeratedProblem, batch: int, seed: int) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    return problem.split(torch.randn(batch, problem.vertices.shape[1], generator=generator, dtype=torch.float64))


def test_solutions_are_those_of_the_solvers():
    unary, quadratic = random_costs(QUADRATIC, 50, 0)
    matching, pairs = QUADRATIC.solve((unary, quadratic))
    edges = [each.expand(50, -1, -1) for each in (EDGES1, EDGES2)]
    result = gm.solve(gm.LawlerProblem(unary, quadratic, *edges), gm.BranchAndBound())
    assert torch.equal(matching, result.matching)
    assert torch.equal(pairs, result.paid_pairs.to(pairs))
    linear = EnumeratedProblem.assignment(4)
    assert torch.equal(linear.solve((unary,))[0], gm.solve(gm.LinearProblem(unary), gm.LAP()).matching)


def test_ties_go_to_the_first_solution():
    problem = EnumeratedProblem.assignment(3)
    assert torch.equal(problem.solve((torch.zeros(1, 3, 3),))[0][0], torch.eye(3))
    assert [row.reshape(3, 3).argmax(1).tolist() for row in problem.vertices] == [
        list(order) for order in itertools.permutations(range(3))
    ]


def test_gibbs_moments_are_derivatives_of_the_free_energy():
    costs = random_costs(QUADRATIC, 2, 1)
    flat = QUADRATIC.flatten(costs).requires_grad_()
    temperature = 0.7

    def mean_of(values: Tensor) -> Tensor:
        energy = -temperature * torch.logsumexp(-(values @ QUADRATIC.vertices.T) / temperature, 1)
        return torch.autograd.grad(energy.sum(), values, create_graph=True)[0]

    gibbs = QUADRATIC.gibbs(costs, temperature)
    torch.testing.assert_close(gibbs.mean, mean_of(flat).detach())
    jacobian = torch.autograd.functional.jacobian(lambda values: mean_of(values).sum(0), flat)
    torch.testing.assert_close(-gibbs.covariance / temperature, jacobian.transpose(0, 1))


@pytest.mark.parametrize("everywhere", [True, False])
@pytest.mark.parametrize("noise", ["gaussian", "gumbel"])
def test_smoothed_gradient_is_the_derivative_of_the_smoothed_loss(noise: str, everywhere: bool):
    """Against the score function on other noise: E f(Z) nu'(Z), whose error is known."""
    costs, upstream = random_costs(QUADRATIC, 1, 2), random_costs(QUADRATIC, 1, 3)
    scale, samples = 0.8, 300_000
    found = QUADRATIC.smoothed_gradient(costs, upstream, noise, scale, 20_000, 5, everywhere)
    active = QUADRATIC.noisy_entries(everywhere)
    assert torch.equal(found.gradient[:, active:], torch.zeros_like(found.gradient[:, active:]))
    generator = torch.Generator().manual_seed(6)
    values = torch.randn(samples, active, generator=generator, dtype=torch.float64)
    if noise == "gumbel":
        values = -torch.empty_like(values).exponential_(generator=generator).log()
    moved = QUADRATIC.flatten(costs).expand(samples, -1).clone()
    moved[:, :active] -= scale * values
    losses = (QUADRATIC.vertices @ QUADRATIC.flatten(upstream)[0])[(moved @ QUADRATIC.vertices.T).argmin(1)]
    scores = values if noise == "gaussian" else 1 - torch.exp(-values)
    terms = -(losses - losses.mean())[:, None] * scores / scale
    assert mean_test(terms, found.gradient[0, :active], found.covariance[0, :active, :active]) > 1e-3
    assert 0 < found.standard_error.norm() < 0.05 * found.gradient.norm()


def test_smoothed_solutions_have_that_gradient():
    problem = EnumeratedProblem.assignment(3)
    costs, upstream = random_costs(problem, 1, 7), random_costs(problem, 1, 8)
    gradient = problem.smoothed_gradient(costs, upstream, samples=40_000).gradient
    direction = problem.split(gradient / gradient.norm())
    sides = [problem.smoothed((costs[0] + sign * 0.1 * direction[0],), samples=200_000) for sign in (1, -1)]
    slope = float(((sides[0] - sides[1]) * problem.flatten(upstream)).sum() / 0.2)
    assert slope == pytest.approx(float(gradient.norm()), rel=0.05)


@pytest.mark.parametrize(
    "call",
    [
        lambda: EnumeratedProblem.assignment(0),
        lambda: EnumeratedProblem.assignment(8),
        lambda: EnumeratedProblem.quadratic(3, EDGES1, EDGES2),
        lambda: EnumeratedProblem.quadratic(4, EDGES1[None], EDGES2),
        lambda: EnumeratedProblem.quadratic(4, EDGES1[:, :1], EDGES2),
        lambda: EnumeratedProblem.quadratic(4, EDGES1.float(), EDGES2),
        lambda: QUADRATIC.gibbs(random_costs(QUADRATIC, 1, 0), temperature=0.0),
        lambda: QUADRATIC.smoothed(random_costs(QUADRATIC, 1, 0), noise="uniform"),
        lambda: QUADRATIC.smoothed_gradient(*[random_costs(QUADRATIC, 1, 0)] * 2, scale=-1.0),
        lambda: QUADRATIC.smoothed_gradient(*[random_costs(QUADRATIC, 1, 0)] * 2, samples=1),
        lambda: check_gradient_estimator(GOOD, replicates=32),
        lambda: mean_test(torch.zeros(3, 3), torch.zeros(3)),
    ],
)
def test_wrong_arguments(call):
    with pytest.raises((TypeError, ValueError), match=ERROR_FORM):
        call()


def test_statistics_know_bias_from_noise():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(400, 5, generator=generator, dtype=torch.float64)
    expected = torch.tensor([3.0, 0.0, -4.0, 0.0, 0.0], dtype=torch.float64)
    assert relative_rmse(expected + noise, expected) == pytest.approx(5**0.5 / 5, rel=0.05)
    p_values = [mean_test(expected + part, expected) for part in noise.split(40)]
    assert min(p_values) > 1e-3
    assert max(p_values) > 0.3
    bias = bias_of(1.2 * expected + 0.3 * noise, expected)
    assert bias.value == pytest.approx(0.2, abs=3 * bias.standard_error)
    assert bias.standard_error == pytest.approx(0.3 / 20 / 5, rel=0.3)
    assert mean_test(1.1 * expected + noise, expected) < 1e-6
    uncertain = torch.diag(torch.full((5,), 0.25, dtype=torch.float64))
    assert mean_test(1.1 * expected + noise, expected, uncertain) > 0.01
    # A direction in which nothing varies must agree.
    noise[:, 1] = 0
    assert mean_test(expected + noise, expected) > 1e-3
    assert mean_test(expected + noise + torch.tensor([0, 1e-3, 0, 0, 0]), expected) == 0


@pytest.mark.parametrize(
    "estimator",
    [
        GOOD,
        gm.IMLE(),
        replace(GOOD, symmetric=False),
        replace(GOOD, noise="gumbel", step=1.0),
        replace(GOOD, samples=32, coupling="orthogonal"),
        gm.IMLE(samples=8, noise="sum_of_gamma"),
        gm.AdaptiveIMLE(samples=8),
        gm.BlackBox(),
        gm.NegativeIdentity(),
        gm.NegativeIdentity(normalise=True),
    ],
    ids=repr,
)
def test_good_estimators_pass(estimator: gm.GradientEstimator):
    report = check_gradient_estimator(estimator, raise_on_failure=True)
    assert report.passed
    assert report.deterministic
    assert str(report).endswith("passed")


@pytest.mark.parametrize(
    "estimator",
    [
        gm.PerturbedOptimizer(),
        gm.PerturbedOptimizer(noise="gaussian", noise_scale=2.0, coupling="antithetic"),
        gm.ScoreFunction(perturb="unary", baseline="none"),
        gm.FenchelYoung(coupling="orthogonal", samples=64),
    ],
    ids=repr,
)
def test_unbiased_estimators_pass(estimator: gm.PerturbedOptimizer):
    report = check_gradient_estimator(estimator, largest_bias=0.0, raise_on_failure=True)
    assert report.bias_p_value > 1e-3


def test_estimators_that_need_a_relaxation_pass_with_a_solver():
    assert check_gradient_estimator(gm.StraightThroughSinkhorn(temperature=1.0), gm.BranchAndBound()).passed
    with pytest.raises(TypeError, match="relaxation"):
        check_gradient_estimator(gm.StraightThroughSinkhorn())


@pytest.mark.parametrize("solver", [gm.BranchAndBound(), gm.Portfolio(), QUADRATIC.solve], ids=repr)
def test_good_solvers_pass(solver):
    report = check_gradient_estimator(GOOD, solver, problem=QUADRATIC, raise_on_failure=True)
    enumerated = check_gradient_estimator(GOOD, problem=QUADRATIC)
    assert report.solver_gap < 1e-9
    assert report.rmse == pytest.approx(enumerated.rmse, rel=0.1)


def test_linear_problems_pass():
    problem = EnumeratedProblem.assignment(4)
    assert check_gradient_estimator(gm.IMLE(step=0.5), gm.LAP(), problem=problem).passed


@dataclass(frozen=True)
class Wrapped:
    """An estimator with something done to its gradients."""

    inner: gm.IMLE = GOOD

    samples: int = 8
    noise_scale: float = 1.0
    noise: str = "gaussian"
    perturb: str = "all"

    @property
    def estimator(self) -> gm.IMLE:
        return replace(self.inner, samples=self.samples)

    def forward(self, oracle: Oracle, costs: Tensors, training: bool) -> Forward:
        return self.estimator.forward(oracle, costs, training)

    def backward(
        self, oracle: Oracle, costs: Tensors, solutions: Tensors, saved: Tensors, upstream: Upstream, training: bool
    ) -> Tensors:
        found = self.estimator.backward(oracle, costs, solutions, saved, upstream, training)
        return tuple(self.change(each, given) for each, given in zip(found, upstream, strict=True))

    def change(self, gradient: Tensor, upstream: Tensor) -> Tensor:
        return gradient


class WrongSign(Wrapped):
    def change(self, gradient: Tensor, upstream: Tensor) -> Tensor:
        return -gradient


class WrongScale(Wrapped):
    def change(self, gradient: Tensor, upstream: Tensor) -> Tensor:
        return 2 * gradient


class NotHomogeneous(Wrapped):
    def change(self, gradient: Tensor, upstream: Tensor) -> Tensor:
        return gradient / (1 + upstream.abs().amax())


class Overflowing(Wrapped):
    def change(self, gradient: Tensor, upstream: Tensor) -> Tensor:
        return (gradient.half() * 2**6).to(gradient) / 2**6


class CoupledBatch(Wrapped):
    def change(self, gradient: Tensor, upstream: Tensor) -> Tensor:
        return gradient + 0.05 * (gradient.mean(0) - gradient)


class OtherNoiseEachTime(Wrapped):
    @property
    def estimator(self) -> gm.IMLE:
        return replace(super().estimator, seed=int(torch.randint(1 << 30, ())))


class Unbalanced(Wrapped):
    def change(self, gradient: Tensor, upstream: Tensor) -> Tensor:
        return gradient + 0.1 * upstream


class Zero(Wrapped):
    def change(self, gradient: Tensor, upstream: Tensor) -> Tensor:
        return torch.zeros_like(gradient)


class DeafToSamples(Wrapped):
    @property
    def estimator(self) -> gm.IMLE:
        return replace(self.inner, samples=8)


@pytest.mark.parametrize(
    ("estimator", "words"),
    [
        (WrongSign(), "lower the loss"),
        (WrongScale(), "bias must be at most 0.5"),
        (NotHomogeneous(), "s grad(L)"),
        (Overflowing(), "s grad(L)"),
        (CoupledBatch(), "must not depend on its batch"),
        (OtherNoiseEachTime(), "Equal calls"),
        (Unbalanced(), "sum to zero"),
        (Zero(), "must not be zero"),
        (DeafToSamples(), "2.0 +- 0.2"),
        (replace(GOOD, step=5.0), "bias must be at most 0.5"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_bad_estimators_fail(estimator: gm.GradientEstimator, words: str):
    torch.manual_seed(0)
    report = check_gradient_estimator(estimator)
    assert not report.passed
    assert words in " ".join(report.failures)
    with pytest.raises(AssertionError, match="failed: "):
        check_gradient_estimator(estimator, raise_on_failure=True)


def test_the_wrapper_alone_is_no_failure():
    assert check_gradient_estimator(Wrapped()).passed


def test_small_biases_are_found_when_none_is_allowed():
    assert check_gradient_estimator(replace(GOOD, step=0.05), largest_bias=0.0).passed
    biased = check_gradient_estimator(replace(GOOD, step=1.0), largest_bias=0.0)
    assert biased.failures == ("The mean gradient must be that of the smoothed loss.",)


def test_bad_solvers_fail():
    def second_best(costs: Tensors) -> Tensors:
        flat = QUADRATIC.flatten(costs)
        vertices = QUADRATIC.vertices.to(flat)
        return QUADRATIC.split(vertices[(flat @ vertices.T).argsort(1)[:, 1]])

    def no_matching(costs: Tensors) -> Tensors:
        return tuple((each < 0).to(each) for each in costs)

    for solver in (second_best, no_matching):
        report = check_gradient_estimator(GOOD, solver, problem=QUADRATIC)
        assert "The solver must find the optimum." in report.failures
        assert report.solver_gap > 1e-3


def test_problems_whose_solutions_share_no_sum_have_no_balance_to_check():
    partial = EnumeratedProblem(
        torch.eye(4, dtype=torch.float64), ((2, 2),)
    )  # one match each, and no row always has one
    report = check_gradient_estimator(GOOD, problem=partial)
    assert report.passed
    assert (report.balance, report.balance_deviation) == (0.0, 0.0)
