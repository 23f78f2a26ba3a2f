"""Noisy copies of a batch, solved in one native call: what gradient estimators ask of the native solvers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from torch import Tensor

from graphmatch import _sampling_ops
from graphmatch.noise import COUPLINGS, KINDS, Noise
from graphmatch.problem import LawlerProblem, LinearProblem, Problem, on_host
from graphmatch.result import LinearState, MatchResult, SolverState, State
from graphmatch.solvers.call import assemble, check_rounding, host_costs

Tensors = tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class SampleCall:
    """Which noisy copies of each problem are to be solved, and what is to be returned of them.

    Variant v of sample k costs unary - noise.scale * noise_k + signs[v] * steps[0] and quadratic + signs[v] * steps[1].

    Args:
        noise: On the unary costs.
        keys: (b,) int64, what the noise follows from, beside its seed and the number of the sample.
        instances: (b,) int64, likewise.
        steps: One per cost tensor, shaped as it, or None.
        signs: One per variant.
        keep: Whether the assignments of all samples are returned.
        open_gap: Relative gap above which a sample counts as open; None = all count alike.
        weigh: Whether open samples have weight open_gap / gap instead of 0.
    """

    noise: Noise
    keys: Tensor
    instances: Tensor
    steps: tuple[Tensor | None, ...]
    signs: tuple[float, ...]
    keep: bool = False
    open_gap: float | None = None
    weigh: bool = False


@dataclass(frozen=True, eq=False)
class SampleAnswers:
    """The noisy copies of a batch, solved.

    Attributes:
        means: Mean solutions, one tensor (V, b, ...) per cost tensor.
        assignment: (V, S, b, n1) int64, or None unless kept.
        certificates: objective, lower_bound, status, iterations, (V, S, b) each.
        center: The problems without noise; None where a state took their place.
    """

    means: Tensors
    assignment: Tensor | None
    certificates: Tensors
    center: MatchResult | None


@runtime_checkable
class SamplingSolver(Protocol):
    """A solver that takes all noisy copies of a batch in one call."""

    def sample(self, problem: Problem, call: SampleCall, state: State | None) -> SampleAnswers | None:
        """Returns the copies solved, starting from the state or the problems without noise; None = it cannot."""
        ...


def _noise_options(call: SampleCall) -> tuple[int, float, Tensor, Tensor, int, int, int]:
    noise = call.noise
    kind, coupling = KINDS.index(noise.kind), COUPLINGS.index(noise.coupling)
    return noise.samples, noise.scale, call.keys.cpu(), call.instances.cpu(), noise.seed, kind, coupling


def _means_options(call: SampleCall) -> tuple[float, bool, bool]:
    return -1.0 if call.open_gap is None else call.open_gap, call.weigh, call.keep


def _host_steps(where: str, call: SampleCall, on_cpu: bool) -> list[Tensor | None]:
    return [None if step is None else host_costs(where, step, on_cpu) for step in call.steps]


def sample_lawler(
    where: str,
    problem: LawlerProblem,
    call: SampleCall,
    state: SolverState | None,
    options: tuple[object, ...],
    on_cpu: bool,
    keep_state: bool,
) -> SampleAnswers:
    """Calls the native solver of sparse problems; `options` are those of `lawler_solve` from method to threads."""
    device = problem.unary_costs.device
    warm: tuple[Tensor | None, ...] = (None,) * 4
    if state is not None:
        warm = tuple(each.cpu() for each in (state.messages, state.potentials, state.scale, state.matching))
    check_rounding(where, device, on_cpu)
    host = on_host(problem)
    outputs = _sampling_ops.lawler_samples(
        host_costs(where, host.unary_costs, on_cpu),
        host_costs(where, host.quadratic_costs, on_cpu),
        host.edges1,
        host.edges2,
        host.sizes,
        host.unmatched_cost,
        *_host_steps(where, call, on_cpu),
        list(call.signs),
        *_noise_options(call),
        *_means_options(call),
        *options,
        *warm,
        keep_state,
    )
    outputs = [each.to(device) for each in outputs]
    kept = SolverState(outputs[7], *outputs[13:]) if keep_state and state is None else None
    return _answers(problem, call, outputs, 2, outputs[7:13] if state is None else None, kept)


def sample_linear(
    where: str, problem: LinearProblem, call: SampleCall, state: LinearState | None, threads: int, on_cpu: bool
) -> SampleAnswers:
    """Calls the native solver of linear problems."""
    device = problem.costs.device
    warm = (None, None) if state is None else (state.matching.cpu(), state.row_duals.cpu())
    check_rounding(where, device, on_cpu)
    host = on_host(problem)
    outputs = _sampling_ops.linear_samples(
        host_costs(where, host.costs, on_cpu),
        host.sizes,
        host.unmatched_cost,
        *_host_steps(where, call, on_cpu),
        list(call.signs),
        *_noise_options(call),
        *_means_options(call),
        threads,
        *warm,
    )
    outputs = [each.to(device) for each in outputs]
    kept = LinearState(outputs[6], *outputs[11:]) if state is None else None
    return _answers(problem, call, outputs, 1, outputs[6:11] if state is None else None, kept)


def _answers(
    problem: Problem,
    call: SampleCall,
    outputs: list[Tensor],
    costs: int,
    center: list[Tensor] | None,
    state: State | None,
) -> SampleAnswers:
    means, (assignment, *certificates) = outputs[:costs], outputs[costs : costs + 5]
    kept = assignment.view(certificates[0].shape + assignment.shape[1:]) if call.keep else None
    result = None
    if center is not None:
        result = replace(assemble(problem, tuple(center), center[0].device), state=state)
    return SampleAnswers(tuple(means), kept, tuple(certificates), result)
