"""How far gradient estimators are from the gradient of the smoothed loss, where that is known.

The problem is small enough to enumerate; noise is Gaussian of scale 1 on all costs, the loss is linear in the
solution. Every estimate is repeated with independent noise; errors are relative to the norm of the true gradient.
"""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from graphmatch import _check
from graphmatch.gradients import (
    IMLE,
    AdaptiveIMLE,
    BlackBox,
    GradientEstimator,
    NegativeIdentity,
    PerturbedOptimizer,
    StraightThroughSinkhorn,
)
from graphmatch.studies.formulas import Balanced, IndependentNoise, UndividedIMLE, ZeroNoiseBaseline
from graphmatch.studies.peers import Peer, pyepo_peers, pyepo_version
from graphmatch.studies.problems import StudyProblem
from graphmatch.testing import bias_of, mean_test, relative_rmse

SAMPLES = (64, 256, 1024)
LAMBDAS = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0)
BEST_LAMBDA = 0.3
# A problem whose figures are typical, see the part of the report on other problems.
SEED = 188
OWN, FORMULA, PEER = "graphmatch", "formula", "PyEPO"
# Estimates with one sample each, for the share of zeros.
_SINGLE = 2000


@dataclass(frozen=True, kw_only=True)
class GradientStudy:
    """Options of the study.

    Args:
        samples: Noise draws per estimate; all but the first are for the estimators whose error falls with them.
        repetitions: Independent estimates per figure.
        seed: Of the problem and of all noise.
        other_problems: How many further problems show what depends on the problem.
        reference_samples: Draws of the true gradient.
    """

    samples: tuple[int, ...] = SAMPLES
    repetitions: int = 400
    seed: int = SEED
    other_problems: int = 10
    reference_samples: int = 200_000

    def __post_init__(self) -> None:
        """Checks the options."""
        where, given = "GradientStudy", self.samples
        usable = len(given) > 0 and all(each >= 2 for each in given) and list(given) == sorted(set(given))
        if not usable:
            rule = "be one or more growing numbers of at least 2"
            raise ValueError(_check.message(where, "samples", rule, list(given), "Try 64 256 1024."))
        cure = "400 gives two digits."
        _check.option(where, "repetitions", self.repetitions, self.repetitions >= 2, "be at least 2", cure)
        cure = "0 leaves them out."
        _check.option(where, "other_problems", self.other_problems, self.other_problems >= 0, "be at least 0", cure)
        cure = "200000 is the default."
        enough = self.reference_samples >= 2
        _check.option(where, "reference_samples", self.reference_samples, enough, "be at least 2", cure)


@dataclass(frozen=True, kw_only=True)
class Row:
    """The figures of one estimator; None where there is none.

    Attributes:
        group: What it is a form of.
        name: With its options.
        source: "graphmatch", "formula" (of the study itself) or "PyEPO".
        rmse: Relative root mean squared error for each number of samples.
        bias: Norm of the relative bias.
        bias_standard_error: Of the bias.
        p_value: Probability of such a mean if there were no bias.
        cosine: Mean cosine with the true gradient, at the smallest number of samples.
        zero_share: Share of estimates with one sample that vanish.
        solves: Solver calls per estimate, S = number of samples.
        lambda_: Half the distance of the two solves, times the upstream gradient (of root mean square 1).
    """

    group: str
    name: str
    source: str = OWN
    rmse: dict[int, float] = field(default_factory=dict)
    bias: float | None = None
    bias_standard_error: float | None = None
    p_value: float | None = None
    cosine: float | None = None
    zero_share: float | None = None
    solves: str = "1"
    lambda_: float | None = None


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """What the study found.

    Attributes:
        study: Its options.
        rows: One per estimator.
        marginals: RMSE of the mean solution, per coupling of the noise, at the smallest number of samples.
        others: For each named estimator the relative RMSE on the other problems, at the smallest number of samples.
        reference_error: Relative standard error of the true gradient.
        versions: Of the packages.
        seconds: The study took.
    """

    study: GradientStudy
    rows: tuple[Row, ...]
    marginals: dict[str, float]
    others: dict[str, list[float]]
    reference_error: float
    versions: dict[str, str | None]
    seconds: float


def run_gradient_study(study: GradientStudy, progress: Callable[[str], None] = lambda text: None) -> StudyResult:
    """Runs the study.

    Args:
        study: Its options.
        progress: Called with a few words before each part.

    Example:
        >>> from graphmatch.studies.gradients import GradientStudy, run_gradient_study
        >>> quick = GradientStudy(samples=(16,), repetitions=40, other_problems=0, reference_samples=5000)
        >>> result = run_gradient_study(quick)
        >>> errors = {row.name: row.rmse.get(16) for row in result.rows}
        >>> errors["symmetric, lambda 0.3"] < errors["leave-one-out"]
        True
    """
    with _one_thread():
        return _run(study, progress)


def _run(study: GradientStudy, progress: Callable[[str], None]) -> StudyResult:
    start = time.perf_counter()
    progress("the true gradient")
    problem = StudyProblem.random(study.seed, study.reference_samples)
    rows = []
    for entry in _entries(problem, study):
        progress(f"{entry.group}, {entry.name}")
        rows.append(_measured(entry, problem, study))
    for kind, gradient in _exact(problem):
        rows.append(_deterministic("without noise", kind, FORMULA if "Gibbs" in kind else OWN, problem, gradient))
    version = pyepo_version()
    if version is not None:
        for peer in pyepo_peers():
            progress(f"PyEPO, {peer.name}")
            rows.append(_peer_row(peer, problem, study))
    progress("mean solutions")
    marginals = _marginals(problem, study)
    return StudyResult(
        study=study,
        rows=tuple(rows),
        marginals=marginals,
        others=_others(study, progress),
        reference_error=float(problem.covariance.trace().sqrt() / problem.reference.norm()),
        versions={
            "graphmatch": importlib.metadata.version("graphmatch"),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "pyepo": version,
        },
        seconds=time.perf_counter() - start,
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    """The tensors of the study are small: threads would wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class _Entry:
    """An estimator for any number of samples."""

    group: str
    name: str
    make: Callable[[int], GradientEstimator]
    solves: str
    lambda_: float | None = None
    all_samples: bool = False
    unbiased: bool = False
    source: str = OWN
    errors: float = 0.0  # share of the solver's answers


def _entries(problem: StudyProblem, study: GradientStudy) -> Iterator[_Entry]:
    """Yields the estimators that draw samples."""
    options: dict[str, Any] = {"noise_scale": 1.0, "noise": "gaussian", "perturb": "all", "seed": study.seed}

    def perturbed(kind: type[PerturbedOptimizer] = PerturbedOptimizer, **more: Any) -> Callable[[int], Any]:
        return lambda samples: kind(samples=samples, **options, **more)

    def imle(lambda_: float, kind: type[IMLE] = IMLE, **more: Any) -> Callable[[int], Any]:
        return lambda samples: kind(samples=samples, step=lambda_ * problem.peak, **options, **more)

    group = "perturbed optimizer"
    always: dict[str, Any] = {"all_samples": True, "unbiased": True}
    yield _Entry(group, "no baseline", perturbed(baseline="none"), "S", **always)
    yield _Entry(group, "zero-noise baseline", perturbed(ZeroNoiseBaseline), "S + 1", source=FORMULA, **always)
    yield _Entry(group, "leave-one-out", perturbed(), "S", **always)
    yield _Entry(group, "leave-one-out, balanced", perturbed(Balanced), "S", **always)
    yield _Entry(group, "leave-one-out, antithetic", perturbed(coupling="antithetic"), "S", **always)
    group = "I-MLE"
    for factor in LAMBDAS:
        chosen = factor == BEST_LAMBDA
        name, solves = f"one-sided, lambda {factor:g}", "S + S"
        yield _Entry(group, name, imle(factor, symmetric=False), solves, factor, all_samples=chosen)
    for factor in LAMBDAS:
        chosen = factor == BEST_LAMBDA
        yield _Entry(group, f"symmetric, lambda {factor:g}", imle(factor), "S + 2S", factor, all_samples=chosen)
    factor = BEST_LAMBDA
    name = f"one-sided, lambda {factor:g}, independent noise"
    yield _Entry(group, name, imle(factor, IndependentNoise), "S + S", source=FORMULA)
    for coupling in ("antithetic", "orthogonal"):
        name = f"symmetric, lambda {factor:g}, {coupling}"
        yield _Entry(group, name, imle(factor, coupling=coupling), "S + 2S")
    for share in (0.05, 0.2):
        name = f"symmetric, lambda {factor:g}, {100 * share:g} % second best"
        yield _Entry(group, name, imle(factor), "S + 2S", errors=share)
    adaptive = AdaptiveIMLE(samples=16, step=BEST_LAMBDA, rate=0.05, **options)
    step = problem.adapted_step(adaptive, batch=16, calls=100)
    name = f"adaptive, at lambda {step / problem.peak:.2g}"
    yield _Entry(group, name, lambda samples: AdaptiveIMLE(samples=samples, step=step, rate=0, **options), "S + 2S")
    for factor in (BEST_LAMBDA, 1.0, 10.0):
        name = f"one-sided, lambda {factor:g}, not divided by it"
        yield _Entry(group, name, imle(1.0, UndividedIMLE, factor=factor), "S + S", source="torch-imle's formula")


def _measured(entry: _Entry, problem: StudyProblem, study: GradientStudy) -> Row:
    smallest = study.samples[0]
    rmse = {}
    for samples in study.samples if entry.all_samples else (smallest,):
        found = problem.estimates(entry.make(samples), samples, study.repetitions, entry.errors)
        rmse[samples] = relative_rmse(found, problem.reference)
        if samples == smallest:
            cosine = float(cosine_similarity(found, problem.reference[None]).mean())
            p_value = _p_value(found, problem) if entry.unbiased else None
    # `found` is of the largest number of samples measured, whose mean is the surest.
    bias = bias_of(found, problem.reference, problem.covariance)
    single = problem.estimates(entry.make(1), 1, _SINGLE, entry.errors)
    return Row(
        group=entry.group,
        name=entry.name,
        source=entry.source,
        rmse=rmse,
        bias=bias.value,
        bias_standard_error=bias.standard_error,
        p_value=p_value,
        cosine=cosine,
        zero_share=float((single == 0).all(1).double().mean()),
        solves=entry.solves,
        lambda_=entry.lambda_,
    )


def _p_value(found: Tensor, problem: StudyProblem) -> float | None:
    return mean_test(found, problem.reference, problem.covariance) if len(found) > found.shape[1] else None


def _exact(problem: StudyProblem) -> Iterator[tuple[str, Tensor]]:
    """Yields the gradients that have no noise."""
    yield "Gibbs gradient, temperature 1", problem.gibbs_gradient()
    yield "identity", -problem.upstream
    yield "identity, projected", problem.layer_estimate(NegativeIdentity())
    for temperature in (0.1, 1.0):
        relaxed = StraightThroughSinkhorn(temperature=temperature)
        yield f"straight-through Sinkhorn, temperature {temperature:g}", problem.layer_estimate(relaxed)
    for factor in (BEST_LAMBDA, 1.0, 10.0):
        yield f"black box, lambda {factor:g}", problem.estimates(BlackBox(step=factor * problem.peak), 1, 1)


def _deterministic(group: str, name: str, source: str, problem: StudyProblem, gradient: Tensor) -> Row:
    error = float((gradient[0] - problem.reference).norm() / problem.reference.norm())
    cosine = float(cosine_similarity(gradient[0], problem.reference, 0))
    return Row(group=group, name=name, source=source, bias=error, bias_standard_error=0.0, cosine=cosine)


def _peer_row(peer: Peer, problem: StudyProblem, study: GradientStudy) -> Row:
    samples = study.samples[0]
    if not peer.samples:
        found = peer.estimates(problem, 1, 1, study.seed)
        return _deterministic("PyEPO", peer.name, PEER, problem, found)
    found = peer.estimates(problem, samples, study.repetitions, study.seed)
    bias = bias_of(found, problem.reference, problem.covariance)
    single = peer.estimates(problem, 1, min(_SINGLE, 5 * study.repetitions), study.seed)
    return Row(
        group="PyEPO",
        name=peer.name,
        source=PEER,
        rmse={samples: relative_rmse(found, problem.reference)},
        bias=bias.value,
        bias_standard_error=bias.standard_error,
        p_value=_p_value(found, problem) if peer.name == "DPO" else None,
        cosine=float(cosine_similarity(found, problem.reference[None]).mean()),
        zero_share=float((single == 0).all(1).double().mean()),
        solves={"DPO": "S"}.get(peer.name, "S + 2S" if "two sides" in peer.name else "S + S"),
    )


def _marginals(problem: StudyProblem, study: GradientStudy) -> dict[str, float]:
    parts = problem.problem.split(problem.costs)
    expected = problem.problem.smoothed(parts, samples=study.reference_samples, seed=study.seed + 1)
    samples = study.samples[0]
    return {
        coupling: problem.marginals_error(
            IMLE(samples=samples, noise_scale=1.0, noise="gaussian", perturb="all", coupling=coupling, seed=study.seed),
            expected, samples, study.repetitions,
        )
        for coupling in ("independent", "antithetic", "orthogonal")
    }  # fmt: skip


def _others(study: GradientStudy, progress: Callable[[str], None]) -> dict[str, list[float]]:
    """Returns the errors of the most telling estimators on other problems."""
    wanted = {"leave-one-out", f"one-sided, lambda {BEST_LAMBDA:g}", f"symmetric, lambda {BEST_LAMBDA:g}"}
    errors: dict[str, list[float]] = {}
    samples = study.samples[0]
    for place in range(study.other_problems):
        progress(f"other problems, {place + 1} of {study.other_problems}")
        problem = StudyProblem.random(study.seed + 1 + place, study.reference_samples // 10)
        for entry in _entries(problem, study):
            if entry.name in wanted:
                found = problem.estimates(entry.make(samples), samples, max(study.repetitions // 4, 2))
                errors.setdefault(entry.name, []).append(relative_rmse(found, problem.reference))
    return errors
