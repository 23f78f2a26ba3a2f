"""Perturbed optimizers are their formula, recomputed by enumeration on the same noise."""

from __future__ import annotations

import math

import pytest
import torch

import graphmatch as gm
from graphmatch.gradients import FunctionOracle

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
def test_perturbed_optimizer_is_its_formula(options: dict, training: bool, make_case: type):
    estimator = gm.PerturbedOptimizer(noise_scale=0.7, balance=False, **options)
    for seed in range(2):
        case = make_case(seed)
        results, noises = case.noisy_solutions(estimator.draws)
        losses = torch.stack([case.weighted((each.matching, each.paid_pairs)) for each in results])
        group = 1 if estimator.baseline == "leave_one_out" else None
        expected = make_case.perturbed_gradient(estimator, losses, noises, group)
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


@pytest.mark.parametrize("unmatched_cost", [None, 0.3])
@pytest.mark.parametrize(("n1", "n2"), [(4, 4), (3, 5), (5, 3)])
def test_gradients_balance_where_all_nodes_must_be_matched(unmatched_cost: float | None, n1: int, n2: int):
    generator = torch.Generator().manual_seed(0)
    costs = torch.randn(2, n1, n2, generator=generator, dtype=torch.float64).requires_grad_()
    weights = torch.randn(2, n1, n2, generator=generator, dtype=torch.float64)

    def gradient(balance: bool) -> torch.Tensor:
        estimator = gm.PerturbedOptimizer(samples=8, balance=balance)
        matching = gm.MatchingLayer(gm.LAP(), estimator, unmatched_cost)(costs)
        return torch.autograd.grad((weights * matching).sum(), costs)[0]

    expected = gradient(balance=False)
    if unmatched_cost is None and n1 <= n2:
        expected = expected - expected.mean(2, keepdim=True)
    if unmatched_cost is None and n1 >= n2:
        expected = expected - expected.mean(1, keepdim=True)
    torch.testing.assert_close(gradient(balance=True), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("coupling", ["antithetic", "orthogonal"])
@pytest.mark.parametrize("samples", [1, 2, 5, 32, 40, 70])
def test_baselines_leave_coupled_samples_out(coupling: str, samples: int, make_case: type):
    estimator = gm.PerturbedOptimizer(samples=samples, coupling=coupling)
    case = make_case(1)
    losses = case.random(samples, case.batch)
    oracle = FunctionOracle(lambda costs: costs)
    costs = (case.unary.detach(),)
    found = estimator.score_gradients(oracle, costs, losses, torch.ones_like(losses))
    centred = losses - make_case.baselines(losses, {"antithetic": 2, "orthogonal": 32}[coupling])
    expected = oracle.scores(costs, estimator.draws, -centred / samples / estimator.noise_scale)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-9, atol=1e-10)


def test_baselines_of_weighted_samples(make_case: type):
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


def test_open_samples_can_be_left_out(make_case: type):
    class Doubtful(gm.BruteForce):
        """Certifies problems whose first cost is positive, and no others."""

        def solve(self, problem: gm.Problem) -> gm.MatchResult:
            result = super().solve(problem)
            certified = problem.unary_costs[:, 0, 0] > 0
            bound = torch.where(certified, result.objective, result.objective - result.objective.abs())
            return gm.MatchResult(problem, result.assignment, result.objective, bound, result.status, result.iterations)

    options = {"samples": 9, "noise_scale": 1.0, "noise": "gaussian", "open_samples": "drop", "balance": False}
    estimator = gm.PerturbedOptimizer(**options)
    case = make_case(2)
    results, noises = case.noisy_solutions(estimator.draws)
    losses = torch.stack([case.weighted((each.matching, each.paid_pairs)) for each in results])
    found = case.gradients(gm.MatchingLayer(Doubtful(), estimator))
    used = 0
    for problem in range(case.batch):
        counts = (case.unary[problem, 0, 0] - noises[0][:, problem, 0, 0]) > 0
        chosen = [noise[counts, problem][:, None] for noise in noises]
        expected = make_case.perturbed_gradient(estimator, losses[counts, problem][:, None], chosen, 1)
        if not counts.any():
            expected = [torch.zeros_like(each) for each in expected]
        used += int(0 < counts.sum() < 9)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one[problem], other[0], rtol=1e-9, atol=1e-12)
    assert used, "no problem has both kinds of samples"
