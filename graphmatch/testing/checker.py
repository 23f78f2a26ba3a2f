"""One call that checks a gradient estimator, and a solver under it, against enumeration."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, is_dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from graphmatch import _check
from graphmatch.gradients import FunctionOracle, GradientEstimator, estimated_solution
from graphmatch.gradients.base import Tensors, Upstream
from graphmatch.layers import MatchingLayer
from graphmatch.problem import LawlerProblem, LinearProblem, Problem
from graphmatch.solve import solve
from graphmatch.solvers import Solver
from graphmatch.testing.enumeration import NOISES, EnumeratedProblem
from graphmatch.testing.report import GradientReport
from graphmatch.testing.statistics import bias_of, mean_test, relative_rmse

_SCALES = (1e-3, 65536.0)
_PROBLEMS, _MANY_PROBLEMS = 12, 64
_FEW_SAMPLES, _MANY_SAMPLES = 16, 64
_P_VALUE = 1e-3
_STANDARD_ERRORS = 3.0


def check_gradient_estimator(
    estimator: GradientEstimator,
    solver: Solver | Callable[[Tensors], Tensors] | None = None,
    *,
    problem: EnumeratedProblem | None = None,
    noise: str | None = None,
    noise_scale: float | None = None,
    everywhere: bool | None = None,
    largest_bias: float | None = 0.5,
    replicates: int = 200,
    seed: int = 0,
    raise_on_failure: bool = False,
) -> GradientReport:
    """Checks an estimator, and the solver it calls, on problems so small that everything about them is known.

    Judged are: homogeneity in the upstream gradient; a step against the gradient lowers the smoothed loss; rows and
    columns of complete matchings balance, exactly or within the noise; equal calls give equal gradients; a problem's
    gradient does not depend on its batch; the spread falls by 2.0 +- 0.2 when the samples quadruple (independent noise
    only); the bias stays below `largest_bias`; some gradient is not zero; the solver is optimal up to 1e-4. Everything
    is in float64, on the CPU. A solver is called for some hundred thousand tiny problems: give it quick options.

    Args:
        estimator: Anything with the methods of `GradientEstimator`. Its attributes `samples`, `noise`, `noise_scale`
            and `perturb` are used where it has them.
        solver: A solver of this library; or a function that takes a tuple of cost tensors (b, ...) and returns its 0/1
            solutions, as in `FunctionOracle`; None enumerates.
        problem: What to solve; None = complete matchings of two graphs of 4 nodes and 4 edges.
        noise: "gaussian" or "gumbel", the noise whose smoothed loss counts as the truth; None = that of the estimator,
            or Gaussian. Sum-of-Gamma noise is compared with Gumbel noise, and its bias not judged.
        noise_scale: Of that noise, in units of the costs; the costs have this scale too. None = that of the estimator,
            or 1.
        everywhere: Whether that noise is on all costs, or on the first cost tensor only, whose gradient then is the
            only one that is measured. None = that of the estimator, or all.
        largest_bias: Norm of the bias relative to that of the smoothed gradient, beyond 3 standard errors; 0 = no bias,
            tested at 0.1 %; None = not judged. Not judged either where nothing says what noise the estimator assumes.
        replicates: Independent estimates behind the statistics; more than the number of costs.
        seed: Of the problems.
        raise_on_failure: Raise instead of returning a report that has failures.

    Returns:
        The figures; print it.

    Raises:
        ValueError: If there are too few replicates, or the problem does not suit the solver.
        AssertionError: If `raise_on_failure` and a rule is broken; the text is that of the report.

    Example:
        >>> import graphmatch as gm
        >>> estimator = gm.IMLE(samples=8, step=0.3, noise="gaussian", noise_scale=1.0, perturb="all")
        >>> report = gm.testing.check_gradient_estimator(estimator)
        >>> report.passed, report.bias < 0.2
        (True, True)
        >>> gm.testing.check_gradient_estimator(gm.BlackBox(), gm.BranchAndBound()).solver_gap < 1e-9
        True
    """
    chosen = _default_problem(seed) if problem is None else problem
    size = chosen.vertices.shape[1]
    if replicates <= size:
        rule = f"be more than {size}, the number of costs"
        raise ValueError(_check.message("check_gradient_estimator", "replicates", rule, replicates, "Take 5 times it."))
    kind = str(getattr(estimator, "noise", "gaussian") if noise is None else noise)
    # Noise without a known density: the nearest that has one.
    approximate = noise is None and kind not in NOISES
    known = not approximate and (noise_scale is not None or hasattr(estimator, "noise_scale"))
    truth = _Truth(
        kind="gumbel" if approximate else kind,
        scale=float(getattr(estimator, "noise_scale", 1.0) if noise_scale is None else noise_scale),
        everywhere=getattr(estimator, "perturb", "all") == "all" if everywhere is None else everywhere,
    )
    subject = _Subject(estimator, chosen, solver)
    figures = _figures(subject, truth, replicates, seed)
    failures = _failures(figures, largest_bias if known else None, _has_independent_noise(estimator))
    report = GradientReport(estimator=repr(estimator), failures=failures, **figures)
    if raise_on_failure and not report.passed:
        raise AssertionError(str(report))
    return report


@dataclass(frozen=True)
class _Truth:
    """The noise whose smoothed loss an estimate is compared with."""

    kind: str
    scale: float
    everywhere: bool


class _EnumerationOracle(FunctionOracle):
    """A function whose solutions are known, and with them the directions in the costs that they do not depend on."""

    def __init__(
        self,
        function: Callable[[Tensors], Tensors],
        key: Tensor | None,
        memory: Tensor | None,
        instances: Tensor | None,
        problem: EnumeratedProblem,
    ) -> None:
        super().__init__(function, key, memory, instances)
        self._problem = problem

    def with_tensors(self, tensors: Upstream) -> FunctionOracle:
        """Returns the same oracle with another key and other instances."""
        return _EnumerationOracle(self.function, tensors[0], self.memory, tensors[1], self._problem)

    def centred(self, costs: Tensors, gradients: Upstream) -> Upstream:
        """Returns the gradients' projection on the differences of solutions."""
        given = tuple(torch.zeros_like(c) if g is None else g for c, g in zip(costs, gradients, strict=True))
        vertices = self._problem.vertices
        differences = (vertices[1:] - vertices[0]).to(given[0])
        projection = torch.linalg.pinv(differences, rtol=1e-9) @ differences
        return self._problem.split(self._problem.flatten(given) @ projection)


@dataclass(frozen=True)
class _Subject:
    """An estimator on a solver of enumerated problems."""

    estimator: GradientEstimator
    problem: EnumeratedProblem
    solver: Solver | Callable[[Tensors], Tensors] | None

    def gradients(self, costs: Tensor, upstream: Tensor, instances: Tensor) -> Tensor:
        """Returns the estimates (b, d) of the gradient of <upstream, y(costs)>."""
        leaves = [each.clone().requires_grad_() for each in self.problem.split(costs)]
        solutions = self._solutions(tuple(leaves), instances)
        loss = (self.problem.flatten(solutions) * upstream).sum()
        found = torch.autograd.grad(loss, leaves, allow_unused=True)
        pairs = zip(found, leaves, strict=True)
        return self.problem.flatten(tuple(torch.zeros_like(leaf) if one is None else one for one, leaf in pairs))

    def _solutions(self, costs: Tensors, instances: Tensor) -> Tensors:
        if hasattr(self.solver, "solve"):
            layer = MatchingLayer(cast(Solver, self.solver), self.estimator)
            edges = (self.problem.edges1, self.problem.edges2) if len(costs) == 2 else ()
            answer = layer(*costs, *edges, instances=instances, step=0)
            return answer if isinstance(answer, tuple) else (answer,)
        initial = getattr(self.estimator, "initial_memory", None)
        memory = None if initial is None else initial()
        oracle = _EnumerationOracle(self._function, None, memory, instances, self.problem)
        return estimated_solution(self.estimator, oracle, costs, training=True)[0]

    @property
    def _function(self) -> Callable[[Tensors], Tensors]:
        return self.problem.solve if self.solver is None else cast(Callable[[Tensors], Tensors], self.solver)

    def solver_gap(self, costs: Tensor) -> float | None:
        """Returns the largest relative distance from the optimum, None for enumeration."""
        if self.solver is None:
            return None
        parts = self.problem.split(costs)
        if not hasattr(self.solver, "solve"):
            solutions = self.problem.flatten(tuple(self._function(parts)))
        else:
            result = solve(self._task(parts), cast(Solver, self.solver))
            found = (result.matching,) if len(parts) == 1 else (result.matching, result.paid_pairs)
            solutions = self.problem.flatten(found)
        vertices = self.problem.vertices
        if bool((torch.cdist(solutions.double(), vertices) > 1e-6).all(1).any()):
            return float("inf")
        best = (costs @ vertices.T).amin(1)
        return float((((solutions.double() * costs).sum(1) - best) / best.abs()).amax().clamp(min=0))

    def _task(self, costs: Tensors) -> Problem:
        if len(costs) == 1:
            return LinearProblem(costs[0])
        left, right = (cast(Tensor, each) for each in (self.problem.edges1, self.problem.edges2))
        batch = len(costs[0])
        return LawlerProblem(costs[0], costs[1], left.expand(batch, -1, -1), right.expand(batch, -1, -1))

    @property
    def draws(self) -> bool:
        """Whether the estimator has a number of noise draws."""
        return is_dataclass(self.estimator) and hasattr(self.estimator, "samples")

    def with_samples(self, samples: int) -> _Subject:
        """Returns the same with another number of noise draws, if it has any."""
        if not self.draws:
            return self
        return replace(self, estimator=replace(cast(Any, self.estimator), samples=samples))


def _figures(subject: _Subject, truth: _Truth, replicates: int, seed: int) -> dict[str, Any]:
    costs, upstream = _random_problems(subject.problem, truth, seed)
    places = torch.arange(len(costs))
    own = subject.gradients(costs, upstream, places)
    costs, upstream, places = costs[:_PROBLEMS], upstream[:_PROBLEMS], places[:_PROBLEMS]
    many = subject.with_samples(_MANY_SAMPLES)
    first = many.gradients(costs, upstream, places)
    alone = [many.gradients(costs[[i]], upstream[[i]], places[[i]]) for i in range(_PROBLEMS)]
    peak = float(first.abs().amax().clamp(min=torch.finfo(first.dtype).tiny))
    return {
        "homogeneity_error": max(
            _deviation(many.gradients(costs, scale * upstream, places) / scale, first, peak) for scale in _SCALES
        ),
        "deterministic": torch.equal(first, many.gradients(costs, upstream, places)),
        "batch_error": _deviation(torch.cat(alone), first, peak) if _keeps_no_memory(subject.estimator) else None,
        "zero_share": float((own.abs().amax(1) == 0).double().mean()),
        "solver_gap": subject.solver_gap(costs),
        **_losses(subject.problem, truth, costs, upstream, first, seed),
        **_spread(subject, truth, costs[0], upstream[0], replicates, seed),
    }


def _random_problems(problem: EnumeratedProblem, truth: _Truth, seed: int) -> tuple[Tensor, Tensor]:
    """Returns costs of the size of the noise and upstream gradients in [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    shape = (_MANY_PROBLEMS, problem.vertices.shape[1])
    costs, upstream = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return truth.scale * costs, upstream / upstream.abs().amax(1, keepdim=True)


def _losses(
    problem: EnumeratedProblem, truth: _Truth, costs: Tensor, upstream: Tensor, gradients: Tensor, seed: int
) -> dict[str, float]:
    """Returns the smoothed losses before and after a step of half the noise's size against the gradients."""
    steps = 0.5 * truth.scale * gradients / gradients.abs().amax().clamp(min=torch.finfo(gradients.dtype).tiny)

    def loss(at: Tensor) -> float:
        means = problem.smoothed(problem.split(at), truth.kind, truth.scale, 4000, seed, truth.everywhere)
        return float((means * upstream).sum(1).mean())

    return {"loss_before": loss(costs), "loss_after": loss(costs - steps)}


def _spread(
    subject: _Subject, truth: _Truth, costs: Tensor, upstream: Tensor, replicates: int, seed: int
) -> dict[str, Any]:
    """Returns the statistics of independent estimates of one gradient."""
    problem = subject.problem
    flat, weights = costs.expand(replicates, -1), upstream.expand(replicates, -1)
    instances = torch.arange(replicates)
    found = subject.with_samples(_MANY_SAMPLES).gradients(flat, weights, instances)
    rate = None
    if subject.draws:
        few = subject.with_samples(_FEW_SAMPLES).gradients(flat, weights, instances)
        rate = float(few.std(0).norm() / found.std(0).norm().clamp(min=torch.finfo(found.dtype).tiny))
    expected = problem.smoothed_gradient(
        problem.split(costs[None]), problem.split(upstream[None]), truth.kind, truth.scale, 20_000, seed,
        truth.everywhere,
    )  # fmt: skip
    noisy = problem.noisy_entries(truth.everywhere)
    values, mean, covariance = found[:, :noisy], expected.gradient[0, :noisy], expected.covariance[0, :noisy, :noisy]
    bias = bias_of(values, mean, covariance)
    return {
        **_balance(problem, found),
        "rate": rate,
        "samples": _MANY_SAMPLES if subject.draws else None,
        "rmse": relative_rmse(values, mean),
        "bias": bias.value,
        "bias_standard_error": bias.standard_error,
        "bias_p_value": mean_test(values, mean, covariance),
        "cosine": float(torch.nn.functional.cosine_similarity(values.mean(0), mean, 0)),
    }


def _balance(problem: EnumeratedProblem, gradients: Tensor) -> dict[str, float]:
    """Returns the sums over rows and columns that all solutions share, of the replicates' first gradient."""
    shape = problem.shapes[0]
    if len(shape) != 2:
        return {"balance": 0.0, "balance_deviation": 0.0}

    def sums(flat: Tensor) -> Tensor:
        unary = problem.split(flat)[0]
        return torch.cat([unary.sum(1), unary.sum(2)], 1)

    totals = sums(problem.vertices)
    found = sums(gradients)[:, (totals == totals[0]).all(0)]
    if found.shape[1] == 0:
        return {"balance": 0.0, "balance_deviation": 0.0}
    largest = float(gradients.abs().amax().clamp(min=torch.finfo(gradients.dtype).tiny))
    error = found.std(0) / len(found) ** 0.5
    rounding = 1e-12 * largest
    deviations = (found.mean(0).abs() - rounding).clamp(min=0) / error.clamp(min=rounding)
    return {"balance": float(found.abs().amax()) / largest, "balance_deviation": float(deviations.amax())}


def _failures(figures: dict[str, Any], largest_bias: float | None, independent: bool) -> tuple[str, ...]:
    def rules() -> Iterator[tuple[bool, str]]:
        yield figures["homogeneity_error"] <= 1e-6, "grad(s L) must be s grad(L)."
        yield figures["loss_after"] < figures["loss_before"], "A step against the gradient must lower the loss."
        exact, likely = figures["balance"] <= 1e-9, figures["balance_deviation"] <= 5
        yield exact or likely, "Rows and columns of the unary gradient must sum to zero."
        yield figures["deterministic"], "Equal calls must give equal gradients."
        error = figures["batch_error"]
        yield error is None or error <= 1e-9, "A problem's gradient must not depend on its batch."
        rate = figures["rate"]
        falls = rate is None or not independent or 1.8 <= rate <= 2.2
        yield falls, "The spread must fall by 2.0 +- 0.2 with 4 times the samples."
        yield figures["zero_share"] < 1, "Some gradient must not be zero."
        gap = figures["solver_gap"]
        yield gap is None or gap <= 1e-4, "The solver must find the optimum."
        if largest_bias == 0:
            yield figures["bias_p_value"] >= _P_VALUE, "The mean gradient must be that of the smoothed loss."
        elif largest_bias is not None:
            sure = figures["bias"] - _STANDARD_ERRORS * figures["bias_standard_error"]
            yield sure <= largest_bias, f"The bias must be at most {largest_bias:g} of the gradient."

    return tuple(text for holds, text in rules() if not holds)


def _deviation(values: Tensor, expected: Tensor, peak: float) -> float:
    """Returns the largest difference relative to `peak`, infinite if a value is not finite."""
    return float(torch.nan_to_num((values - expected).abs(), nan=torch.inf).amax()) / peak


def _keeps_no_memory(estimator: GradientEstimator) -> bool:
    # What adapts to the batch is the same for all of it.
    return not hasattr(estimator, "initial_memory")


def _has_independent_noise(estimator: GradientEstimator) -> bool:
    return _keeps_no_memory(estimator) and getattr(estimator, "coupling", "independent") == "independent"


def _default_problem(seed: int) -> EnumeratedProblem:
    generator = torch.Generator().manual_seed(seed)
    nodes = 4
    arcs = torch.tensor([(i, j) for i in range(nodes) for j in range(nodes) if i != j])
    edges1, edges2 = (arcs[torch.randperm(len(arcs), generator=generator)[:4]] for _ in range(2))
    return EnumeratedProblem.quadratic(nodes, edges1, edges2)
