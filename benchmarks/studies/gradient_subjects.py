"""The estimators of the gradient study: what each of them is an estimate of, and how to draw many estimates of it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

import graphmatch as gm
from benchmarks.studies.gradient_peers import fenchel_young
from benchmarks.studies.gradient_truths import Draws, identity_loss, interpolated_loss, relaxed_loss
from graphmatch.gradients import FunctionOracle, estimated_solution
from graphmatch.studies.peers import pyepo_peers
from graphmatch.studies.problems import StudyProblem

FAR, NEAR = 1.0, 0.3
TEMPERATURE = 1.0
TARGET = 5  # of Fenchel-Young and of the loss that is not linear: the solution of that number, or the last one
_BLOCK = 1 << 13  # samples of one call
# Replicates of a truth that is a difference of mean solutions, for the covariance of its error.
_REPLICATES = 100

SMOOTHED = "smoothed loss E⟨g, y(c − Z)⟩"


@dataclass(frozen=True)
class Truth:
    """What an estimator is an estimate of.

    Attributes:
        gradient: (d,).
        covariance: (d, d) of its error; None = exact.
    """

    gradient: Tensor
    covariance: Tensor | None = None


Function = Callable[[Tensor], Tensor]
Estimates = Callable[[StudyProblem, int, int, int], Tensor]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One estimator, ours or another package's.

    Attributes:
        name: With the options that matter.
        truth: The function whose gradient it estimates, in words.
        estimates: Takes the problem, samples, repetitions and a seed; returns (repetitions, d).
        own: Takes the problem and a number of draws; returns what the estimator's mean should be. None: not known.
        objective: Takes the problem and the noise of one estimate; returns the function of costs (m, d) whose gradient
            that estimate is. None: there is none.
        solves: Solver calls per estimate, S samples.
        samples: Whether it draws any.
        unbiased: Whether its own truth is the gradient of the smoothed loss.
        other_loss: Whether its truth belongs to another loss, so that it cannot be measured by the smoothed one.
        source: "graphmatch" or "PyEPO".
        slow: Whether solutions come one by one from Python.
    """

    name: str
    truth: str
    estimates: Estimates
    own: Callable[[StudyProblem, int], Truth] | None = None
    objective: Callable[[StudyProblem, Draws], Function] | None = None
    solves: str
    samples: bool = True
    unbiased: bool = False
    other_loss: bool = False
    source: str = "graphmatch"
    slow: bool = False


def subjects() -> list[Subject]:
    """Returns all estimators: ours, then PyEPO's if it is installed."""
    found = [*_unbiased(), *_imle(), *_without_noise()]
    return found + list(_peers()) if importlib.util.find_spec("pyepo") else found


def target_of(problem: StudyProblem) -> Tensor:
    """Returns a solution (d,) to aim at."""
    vertices = problem.problem.vertices
    return vertices[min(TARGET, len(vertices) - 1)]


def noise_options(seed: int) -> dict[str, Any]:
    """Returns the noise of the study: standard normal on all costs."""
    return {"noise_scale": 1.0, "noise": "gaussian", "perturb": "all", "seed": seed}


def in_blocks(draw: Callable[[Tensor], Tensor], samples: int, repetitions: int) -> Tensor:
    """Returns the estimates (repetitions, d) of a function of the numbers of the repetitions, a few at a time."""
    return torch.cat([draw(part) for part in torch.arange(repetitions).split(max(_BLOCK // samples, 1))]).double()


def leaf_of(problem: StudyProblem, instances: Tensor) -> Tensor:
    """Returns the costs once for every repetition, (b, d), as a leaf."""
    return problem.costs.expand(len(instances), -1).clone().requires_grad_()


def estimates_of(estimator: Any, problem: StudyProblem, repetitions: int) -> Tensor:
    """Returns estimates (repetitions, d) by an estimator with samples."""

    def draw(instances: Tensor) -> Tensor:
        leaf = leaf_of(problem, instances)
        oracle = FunctionOracle(problem.problem.solve, memory=_memory_of(estimator), instances=instances)
        solutions = estimated_solution(estimator, oracle, problem.problem.split(leaf), training=True)[0]
        loss = (problem.problem.flatten(solutions) * problem.upstream).sum()
        return torch.autograd.grad(loss, leaf)[0]

    return in_blocks(draw, estimator.samples, repetitions)


def _memory_of(estimator: Any) -> Tensor | None:
    return estimator.initial_memory() if isinstance(estimator, gm.AdaptiveIMLE) else None


# Estimators of the smoothed loss, or of a loss of their own


def _unbiased() -> Iterator[Subject]:
    def perturbed(problem: StudyProblem, samples: int, repetitions: int, seed: int) -> Tensor:
        return estimates_of(gm.PerturbedOptimizer(samples=samples, **noise_options(seed)), problem, repetitions)

    def score(problem: StudyProblem, samples: int, repetitions: int, seed: int) -> Tensor:
        estimator = gm.ScoreFunction(samples=samples, **noise_options(seed))
        weights = problem.problem.split(problem.upstream)

        def loss(*solutions: Tensor) -> Tensor:
            return sum((w * y).flatten(1).sum(1) for w, y in zip(weights, solutions, strict=True))  # type: ignore[return-value]

        def draw(instances: Tensor) -> Tensor:
            leaf = leaf_of(problem, instances)
            oracle = FunctionOracle(problem.problem.solve, instances=instances)
            value = estimator.expected_loss(oracle, problem.problem.split(leaf), loss).sum()
            return torch.autograd.grad(value, leaf)[0]

        return in_blocks(draw, samples, repetitions)

    def fenchel_young(problem: StudyProblem, samples: int, repetitions: int, seed: int) -> Tensor:
        estimator = gm.FenchelYoung(samples=samples, **noise_options(seed))

        def draw(instances: Tensor) -> Tensor:
            leaf = leaf_of(problem, instances)
            oracle = FunctionOracle(problem.problem.solve, instances=instances)
            target = problem.problem.split(target_of(problem).expand(len(leaf), -1))
            value = estimator.loss(oracle, problem.problem.split(leaf), target).sum()
            return torch.autograd.grad(value, leaf)[0]

        return in_blocks(draw, samples, repetitions)

    def smoothed(problem: StudyProblem, draws: int) -> Truth:
        return Truth(problem.reference, problem.covariance)

    common: dict[str, Any] = {"truth": SMOOTHED, "own": smoothed, "solves": "S", "unbiased": True}
    yield Subject(name="PerturbedOptimizer", estimates=perturbed, **common)
    yield Subject(name="ScoreFunction", estimates=score, **common)
    yield Subject(
        name="FenchelYoung",
        truth="its own loss E[⟨c, y*⟩ − min ⟨c − Z, y⟩]",
        estimates=fenchel_young,
        own=_fenchel_young_truth,
        objective=_fenchel_young_objective,
        solves="S",
        other_loss=True,
    )


def _fenchel_young_truth(problem: StudyProblem, draws: int) -> Truth:
    return _differences(problem, draws, lambda mean: target_of(problem) - mean(problem.costs))


def _fenchel_young_objective(problem: StudyProblem, draws: Draws) -> Function:
    target = target_of(problem)
    return lambda costs: costs @ target - draws.minimum(costs)[0]


# I-MLE: differences of mean solutions


def _imle() -> Iterator[Subject]:
    yield imle_subject(NEAR)
    yield imle_subject(FAR)
    yield imle_subject(NEAR, symmetric=False)

    def adaptive(problem: StudyProblem, samples: int, repetitions: int, seed: int) -> Tensor:
        step = adapted_factor(problem) * problem.peak
        estimator = gm.AdaptiveIMLE(samples=samples, step=step, rate=0, **noise_options(seed))
        return estimates_of(estimator, problem, repetitions)

    yield Subject(
        name="AdaptiveIMLE",
        truth="as IMLE, with the λ reached",
        estimates=adaptive,
        own=lambda problem, draws: imle_truth(problem, draws, adapted_factor(problem), True),
        objective=lambda problem, draws: _imle_objective(problem, draws, adapted_factor(problem), True),
        solves="S + 2S",
    )


@lru_cache(maxsize=8)
def adapted_factor(problem: StudyProblem) -> float:
    """Returns the lambda that `AdaptiveIMLE` reaches on a problem."""
    start = gm.AdaptiveIMLE(samples=16, step=NEAR, rate=0.05, **noise_options(0))
    return problem.adapted_step(start, batch=16, calls=100) / problem.peak


def imle_subject(factor: float, symmetric: bool = True) -> Subject:
    """Returns I-MLE with lambda = factor."""

    def estimates(problem: StudyProblem, samples: int, repetitions: int, seed: int) -> Tensor:
        step = factor * problem.peak
        estimator = gm.IMLE(samples=samples, step=step, symmetric=symmetric, **noise_options(seed))
        return estimates_of(estimator, problem, repetitions)

    form = "" if symmetric else "one-sided, "
    return Subject(
        name=f"IMLE, {form}λ = {factor:g}",
        truth="difference [F(c + λg) − F(c − λg)] / 2λ" if symmetric else "difference [F(c + λg) − F(c)] / λ",
        estimates=estimates,
        own=lambda problem, draws: imle_truth(problem, draws, factor, symmetric),
        objective=lambda problem, draws: _imle_objective(problem, draws, factor, symmetric),
        solves="S + 2S" if symmetric else "S + S",
    )


def imle_truth(problem: StudyProblem, draws: int, factor: float, symmetric: bool) -> Truth:
    """Returns the gradient of the difference quotient of F(c) = E min <c - Z, y> along the upstream gradient."""
    back, width = (1, 2 * factor) if symmetric else (0, factor)
    ahead, behind = (problem.costs + sign * factor * problem.upstream for sign in (1, -back))
    return _differences(problem, draws, lambda mean: (mean(ahead) - mean(behind)) / width)


def _imle_objective(problem: StudyProblem, draws: Draws, factor: float, symmetric: bool) -> Function:
    back, width = (1, 2 * factor) if symmetric else (0, factor)
    shifts = [sign * factor * problem.upstream for sign in (1, -back)]

    def objective(costs: Tensor) -> Tensor:
        ahead, behind = (draws.minimum(costs + shift)[0] for shift in shifts)
        return (ahead - behind) / width

    return objective


def _differences(problem: StudyProblem, draws: int, combine: Callable[[Callable[[Tensor], Tensor]], Tensor]) -> Truth:
    """Returns a combination of mean solutions under common noise, and the covariance of its error."""
    parts = []
    for seed in range(_REPLICATES):
        # Noise that no estimator has.
        noise = Draws.random(problem.problem, max(draws // _REPLICATES, 1), 10_000 + seed)
        parts.append(combine(lambda costs, noise=noise: noise.minimum(costs)[1]).reshape(-1))  # type: ignore[misc]
    values = torch.stack(parts)
    return Truth(values.mean(0), torch.cov(values.T) / len(values))


# Estimators without noise


def _without_noise() -> Iterator[Subject]:
    def black_box(problem: StudyProblem, samples: int, repetitions: int, seed: int) -> Tensor:
        return problem.layer_estimate(gm.BlackBox(step=FAR * problem.peak))

    def objective(loss: Callable[..., Tensor], *options: Any) -> Callable[[StudyProblem, Draws], Function]:
        return lambda problem, draws: partial(loss, problem.problem, problem.upstream, *options)

    def layer(estimator: gm.GradientEstimator) -> Estimates:
        return lambda problem, samples, repetitions, seed: problem.layer_estimate(estimator)

    common: dict[str, Any] = {"solves": "1", "samples": False}
    yield Subject(
        name=f"BlackBox, λ = {FAR:g}",
        truth="interpolation [min ⟨c + λg, y⟩ − min ⟨c, y⟩] / λ",
        estimates=black_box,
        objective=objective(interpolated_loss, FAR),
        **common | {"solves": "1 + 1"},
    )
    yield Subject(
        name="NegativeIdentity",
        truth="⟨g, −c⟩ without means of rows, columns, pairs",
        estimates=layer(gm.NegativeIdentity()),
        objective=objective(identity_loss),
        **common,
    )
    yield Subject(
        name=f"StraightThroughSinkhorn, T = {TEMPERATURE:g}",
        truth="⟨g, soft matching of the costs linearised at y(c)⟩",
        estimates=layer(gm.StraightThroughSinkhorn(temperature=TEMPERATURE)),
        objective=lambda problem, draws: partial(
            relaxed_loss, problem.problem, problem.upstream, TEMPERATURE, problem.costs[0]
        ),
        **common,
    )


# PyEPO


def _peers() -> Iterator[Subject]:
    one_sided = "difference [F(c + λg) − F(c)] / λ"
    own: dict[str, dict[str, Any]] = {
        "DPO": {"truth": SMOOTHED, "own": lambda problem, draws: Truth(problem.reference, problem.covariance),
                "unbiased": True},
        "IMLE, lambda 10 (default)": {
            "truth": one_sided, "own": lambda problem, draws: imle_truth(problem, draws, 10.0, False)},
        "IMLE, lambda 0.3, two sides": {
            "truth": "difference [F(c + λg) − F(c − λg)] / 2λ",
            "own": lambda problem, draws: imle_truth(problem, draws, 0.3, True)},
        "AIMLE, two sides": {"truth": "as I-MLE, λ moves from call to call"},
        "DBB, lambda 10 (default)": {"truth": "interpolation, as BlackBox"},
        "NID": {"truth": "⟨g, −c⟩"},
    }  # fmt: skip
    yield Subject(
        name="PyEPO PFY",
        truth="its own loss, as FenchelYoung",
        estimates=lambda problem, *numbers: fenchel_young(problem, target_of(problem), *numbers),
        own=_fenchel_young_truth,
        solves="S",
        other_loss=True,
        source="PyEPO",
        slow=True,
    )
    for peer in pyepo_peers():
        if peer.name in own:
            solves = {"DPO": "S", "NID": "1", "DBB, lambda 10 (default)": "1 + 1"}
            yield Subject(
                name=f"PyEPO {peer.name.replace('lambda ', 'λ = ')}",
                estimates=peer.estimates,
                solves=solves.get(peer.name, "S + 2S" if "two sides" in peer.name else "S + S"),
                samples=peer.samples,
                source="PyEPO",
                slow=True,
                **own[peer.name],
            )
