"""The points of the gradient study: what is measured, one function per kind of point."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

import graphmatch as gm
from benchmarks.studies.gradient_scaling import scaling, scaling_subjects
from benchmarks.studies.gradient_subjects import (
    NEAR,
    Subject,
    Truth,
    adapted_factor,
    estimates_of,
    in_blocks,
    leaf_of,
    noise_options,
    subjects,
    target_of,
)
from benchmarks.studies.gradient_truths import (
    Draws,
    central_differences,
    cheapest_gradient,
    cheapest_shares,
    loss_gradient,
    study_problem,
    two_solutions_gradient,
)
from benchmarks.studies.points import Task
from graphmatch.gradients import FunctionOracle
from graphmatch.studies.problems import StudyProblem
from graphmatch.testing import bias_of, mean_test

NODES = 4  # of the main problem
STEPS = (1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
COUNTS = (2, 8, 32)  # nodes that one node may be matched with
# Of one estimate whose noise the finite differences share.
_OWN_SAMPLES = 4096
_OWN_STEP = 1e-5
_EXACT_SAMPLES = 64


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Sizes of the study.

    Attributes:
        samples: Noise draws per estimate.
        repetitions: Independent estimates per figure, more than the 32 costs of the main problem.
        slow_solves: Most solutions per figure where they come one by one from Python.
        nodes: Sizes of the smaller and larger problems.
        problems: Problems per size.
        problem_repetitions: Estimates per problem there.
        problem_samples: Noise draws there.
        truth_samples: Draws behind each truth that is a mean.
        difference_samples: Draws behind the finite differences.
        seed: Of everything.
    """

    samples: tuple[int, ...] = (1, 4, 16, 64, 256, 1024)
    repetitions: int = 400
    slow_solves: int = 65_536
    nodes: tuple[int, ...] = (2, 3, 4, 5, 6)
    problems: int = 8
    problem_repetitions: int = 64
    problem_samples: int = 64
    truth_samples: int = 400_000
    difference_samples: int = 100_000
    seed: int = 188


QUICK = Settings(
    samples=(1, 16, 64),
    repetitions=200,
    slow_solves=4096,
    nodes=(2, 3),
    problems=2,
    truth_samples=40_000,
    difference_samples=2000,
)


def tasks(settings: Settings) -> dict[str, Task]:
    """Returns all points of the study by name."""
    found: dict[str, Task] = {}
    for subject in subjects():
        for samples in settings.samples if subject.samples else (1,):
            found[f"main | {subject.name} | {samples}"] = partial(measure, settings, subject, samples)
        if subject.objective is not None:
            found[f"difference | {subject.name}"] = partial(own_difference, settings, subject)
    found["adapted"] = lambda: adapted_factor(main_problem(settings))
    for kind in ("quadrature", "common noise", "Fenchel-Young"):
        found[f"step | {kind}"] = partial(differences, settings, kind)
    for nodes in settings.nodes:
        for number in range(settings.problems):
            found[f"size | {nodes} | {number}"] = partial(measure_size, settings, nodes, number)
    for noise in ("gumbel", "gaussian"):
        for count in COUNTS:
            found[f"exact | 1 of {count}, {noise}"] = partial(measure_exact, settings, noise, count)
    found["exact | two solutions"] = partial(measure_two_solutions, settings)
    for name in ("ScoreFunction", "PerturbedOptimizer"):
        for samples in settings.samples[1:]:
            found[f"perfect | {name} | {samples}"] = partial(measure_perfect, settings, name, samples)
    found["layer"] = partial(layer_deviation, settings)
    for name, precision in scaling_subjects():
        found[f"scale | {name} | {precision}"] = partial(scaling, name, precision)
    return found


@lru_cache(maxsize=1)
def main_problem(settings: Settings) -> StudyProblem:
    """Returns the problem of most figures."""
    return study_problem(NODES, settings.seed, settings.truth_samples)


@lru_cache(maxsize=2)
def _own_truth(settings: Settings, subject: Subject) -> Truth | None:
    return None if subject.own is None else subject.own(main_problem(settings), settings.truth_samples)


def measure(settings: Settings, subject: Subject, samples: int) -> dict[str, Any]:
    """Measures estimates against the smoothed loss and against what they are estimates of."""
    problem = main_problem(settings)
    repetitions = 1
    if subject.samples:
        fewest = problem.costs.shape[1] + 8  # more than costs, for the tests
        slow = max(settings.slow_solves // samples, fewest)
        repetitions = min(settings.repetitions, slow) if subject.slow else settings.repetitions
    found = subject.estimates(problem, samples, repetitions, settings.seed)
    own = _own_truth(settings, subject)
    return {
        "repetitions": repetitions,
        "smoothed": None if subject.other_loss else _against(found, Truth(problem.reference, problem.covariance)),
        "own": None if own is None else _against(found, own),
    }


def _against(found: Tensor, truth: Truth) -> dict[str, Any]:
    """Returns the figures of estimates (r, d), all norms relative to that of the truth."""
    values, expected = found.double(), truth.gradient
    norm = expected.norm()
    answer: dict[str, Any] = {
        "error": float((values - expected).square().sum(1).mean().sqrt() / norm),
        "cosine": float(cosine_similarity(values, expected[None]).mean()),
        "mean_cosine": float(cosine_similarity(values.mean(0), expected, 0)),
        "zero_share": float((values == 0).all(1).double().mean()),
        "deviation": float(values.var(0).sum().sqrt() / norm) if len(values) > 1 else 0.0,
    }
    if len(values) > 1:
        bias = bias_of(values, expected, truth.covariance)
        answer |= {"bias": bias.value, "bias_error": bias.standard_error}
        answer["p"] = mean_test(values, expected, truth.covariance) if len(values) > values.shape[1] else None
    else:
        answer |= {"bias": answer["error"], "bias_error": 0.0, "p": None}
    return answer


def own_difference(settings: Settings, subject: Subject) -> float:
    """Returns the relative difference of one estimate from finite differences under the same noise."""
    problem = main_problem(settings)
    assert subject.objective is not None
    objective = subject.objective(problem, Draws.of_estimate(problem.problem, _OWN_SAMPLES, settings.seed))
    estimate = subject.estimates(problem, _OWN_SAMPLES, 1, settings.seed)[0].double()
    found = central_differences(objective, problem.costs[0], _OWN_STEP)
    return float((found - estimate).norm() / estimate.norm())


def differences(settings: Settings, kind: str) -> list[float]:
    """Returns the relative errors of finite differences for all steps."""
    problem = main_problem(settings)
    if kind == "quadrature":
        generator = torch.Generator().manual_seed(settings.seed)
        at, losses = (torch.randn(8, generator=generator, dtype=torch.float64) for _ in range(2))
        exact = cheapest_gradient(at, losses, "gaussian")
        functions = [lambda costs: cheapest_shares(costs, "gaussian") @ losses]
    else:
        at = problem.costs[0]
        draws = Draws.random(problem.problem, settings.difference_samples, settings.seed + 1)
        if kind == "common noise":
            exact = problem.reference
            functions = [lambda costs: draws.minimum(costs)[1] @ problem.upstream[0]]
        else:
            target = target_of(problem)
            exact = target - draws.minimum(at[None])[1][0]
            functions = [lambda costs: costs @ target - draws.minimum(costs)[0]]
    (function,) = functions
    return [float((central_differences(function, at, step) - exact).norm() / exact.norm()) for step in STEPS]


def measure_size(settings: Settings, nodes: int, number: int) -> dict[str, Any]:
    """Measures the most telling estimators on a random problem of that size."""
    problem = study_problem(nodes, settings.seed + 1000 * nodes + number, settings.truth_samples // 20)
    found = {}
    wanted = {"PerturbedOptimizer", f"IMLE, λ = {NEAR:g}", f"IMLE, one-sided, λ = {NEAR:g}"}
    for subject in subjects():
        if subject.source == "graphmatch" and (subject.name in wanted or not subject.samples):
            repetitions = settings.problem_repetitions if subject.samples else 1
            estimates = subject.estimates(problem, settings.problem_samples, repetitions, settings.seed).double()
            error = (estimates - problem.reference).square().sum(1).mean().sqrt() / problem.reference.norm()
            cosine = cosine_similarity(estimates, problem.reference[None]).mean()
            found[subject.name] = {"error": float(error), "cosine": float(cosine)}
    truth_error = float(problem.covariance.trace().sqrt() / problem.reference.norm())
    return {"costs": problem.costs.shape[1], "truth_error": truth_error, "estimators": found}


# Problems whose gradient is known to rounding, through the layer and its native solvers


def measure_exact(settings: Settings, noise: str, count: int) -> dict[str, Any]:
    """Matches one node with one of `count`: by softmax for Gumbel noise, by quadrature for normal noise."""
    generator = torch.Generator().manual_seed(settings.seed + count)
    costs, upstream = (torch.randn(count, generator=generator, dtype=torch.float64) for _ in range(2))
    truth = Truth(cheapest_gradient(costs, upstream, noise))
    problem = gm.testing.EnumeratedProblem(torch.eye(count, dtype=torch.float64), ((1, count),))
    options = {**noise_options(settings.seed), "noise": noise, "samples": _EXACT_SAMPLES}

    def estimates(estimator: gm.GradientEstimator) -> Tensor:
        leaf = costs.expand(settings.repetitions, 1, -1).clone().requires_grad_()
        matching = gm.MatchingLayer(gm.LAP(), estimator)(leaf, step=0)
        return torch.autograd.grad((matching * upstream).sum(), leaf)[0][:, 0]

    parts = (costs[None, None],), (upstream[None, None],)
    return {
        "costs": count,
        **_exact_figures(truth, estimates, options, float(upstream.abs().amax())),
        **_enumerated(problem, parts, noise, truth),
    }


def measure_two_solutions(settings: Settings) -> dict[str, Any]:
    """Matches two graphs of 2 nodes and 2 edges: a step between two solutions, smoothed by normal noise."""
    problem = study_problem(2, settings.seed, 2)
    enumerated = problem.problem
    truth = Truth(two_solutions_gradient(enumerated, problem.costs[0], problem.upstream[0]))
    options = {**noise_options(settings.seed), "samples": _EXACT_SAMPLES}

    def estimates(estimator: gm.GradientEstimator) -> Tensor:
        leaf = problem.costs.expand(settings.repetitions, -1).clone().requires_grad_()
        layer = gm.MatchingLayer(gm.BranchAndBound(), estimator)
        solutions = layer(*enumerated.split(leaf), enumerated.edges1, enumerated.edges2, step=0)
        return torch.autograd.grad((enumerated.flatten(tuple(solutions)) * problem.upstream).sum(), leaf)[0]

    parts = enumerated.split(problem.costs), enumerated.split(problem.upstream)
    return {
        "costs": problem.costs.shape[1],
        **_exact_figures(truth, estimates, options, problem.peak),
        **_enumerated(enumerated, parts, "gaussian", truth),
    }


def _exact_figures(truth: Truth, estimates: Any, options: dict[str, Any], peak: float) -> dict[str, Any]:
    return {
        "PerturbedOptimizer": _against(estimates(gm.PerturbedOptimizer(**options)), truth),
        "IMLE": _against(estimates(gm.IMLE(step=NEAR * peak, **options)), truth),
    }


def _enumerated(problem: Any, parts: tuple[Any, Any], noise: str, truth: Truth) -> dict[str, float]:
    """Returns how far the enumerated gradient, the truth of the other parts, is from the exact one."""
    found = problem.smoothed_gradient(*parts, noise, 1.0, 20_000)
    norm = truth.gradient.norm()
    return {
        "enumerated": float((found.gradient[0] - truth.gradient).norm() / norm),
        "enumerated_error": float(found.covariance[0].trace().sqrt() / norm),
    }


# A loss that is not linear in the solution


@lru_cache(maxsize=1)
def perfect_truths(settings: Settings) -> tuple[Truth, Truth, float]:
    """Returns the gradients of E L(y) and of L(E y), L = 1 less the product of the target's entries; their distance.

    L is 0 for the target and 1 for all other matchings. The mean solution has another loss.
    """
    problem, draws = main_problem(settings), settings.truth_samples // 2
    entries = _perfect(problem)
    losses = 1 - problem.problem.vertices[:, : NODES * NODES][:, entries].prod(1)
    expected = Truth(*loss_gradient(problem.problem, problem.costs, losses, draws, settings.seed))
    parts = problem.problem.split(problem.costs)
    mean = problem.problem.smoothed(parts, samples=draws, seed=settings.seed + 2)[0, : NODES * NODES]
    slope = torch.zeros_like(problem.costs[0])
    slope[: NODES * NODES][entries] = -mean[entries].prod() / mean[entries]
    found = problem.problem.smoothed_gradient(
        parts, problem.problem.split(slope[None]), samples=draws, seed=settings.seed
    )
    linearised = Truth(found.gradient[0], found.covariance[0])
    distance = (linearised.gradient - expected.gradient).norm() / expected.gradient.norm()
    return expected, linearised, float(distance)


def _perfect(problem: StudyProblem) -> Tensor:
    """Returns which entries of a matching are those of the solution without noise, (n * n,)."""
    return problem.problem.solve(problem.problem.split(problem.costs))[0].flatten() > 0


def measure_perfect(settings: Settings, name: str, samples: int) -> dict[str, Any]:
    """Measures estimates of the gradient of the share of matchings that are not all right."""
    problem = main_problem(settings)
    expected, linearised, distance = perfect_truths(settings)
    entries = _perfect(problem)

    def loss(matching: Tensor, *rest: Tensor) -> Tensor:
        return 1 - matching.flatten(1)[:, entries].prod(1)

    def draw(instances: Tensor) -> Tensor:
        leaf = leaf_of(problem, instances)
        parts = problem.problem.split(leaf)
        oracle = FunctionOracle(problem.problem.solve, instances=instances)
        estimator = getattr(gm, name)(samples=samples, **noise_options(settings.seed))
        if name == "ScoreFunction":
            total = estimator.expected_loss(oracle, parts, loss).sum()
        else:
            total = loss(*gm.gradients.estimated_solution(estimator, oracle, parts, True)[0]).sum()
        return torch.autograd.grad(total, leaf)[0]

    found = in_blocks(draw, samples, settings.repetitions)
    return {"expected": _against(found, expected), "linearised": _against(found, linearised), "distance": distance}


def layer_deviation(settings: Settings) -> dict[str, float]:
    """Returns the largest difference of estimates by enumeration from those by `MatchingLayer` and its solver."""
    problem = main_problem(settings)
    enumerated, count = problem.problem, 64
    found = {}
    for name, estimator in (
        ("IMLE", gm.IMLE(samples=64, step=NEAR * problem.peak, **noise_options(settings.seed))),
        ("PerturbedOptimizer", gm.PerturbedOptimizer(samples=64, balance=False, **noise_options(settings.seed))),
    ):
        leaf = problem.costs.expand(count, -1).clone().requires_grad_()
        layer = gm.MatchingLayer(gm.BranchAndBound(), estimator)
        solutions = layer(*enumerated.split(leaf), enumerated.edges1, enumerated.edges2, step=0)
        loss = (enumerated.flatten(tuple(solutions)) * problem.upstream).sum()
        through_layer = torch.autograd.grad(loss, leaf)[0]
        own = estimates_of(estimator, problem, count)
        found[name] = float((through_layer - own).abs().amax() / own.abs().amax())
    return found
