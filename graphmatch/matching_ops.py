"""Matching as PyTorch operators that take any solver: what `MatchingLayer` calls, with or without torch.compile.

Solvers are Python values, operators take tensors and numbers: a solver is known to them by a number, see `number_of`.
Everything that looks into tensors (checks, solvers) happens inside, where tensors are real: tracing and vmap only see
shapes.

Both operators return solutions (one tensor per cost tensor, of all variants), then kept assignments, then the report,
then the state. The report is what `MatchResult` holds of the problems without noise (assignment, objective, bound,
status, iterations, stage) and the certificates of all samples (objective, lower_bound, status, iterations), (V, S, b).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from graphmatch.gradients.base import moved
from graphmatch.gradients.sampling import weighted_scores
from graphmatch.matching_batch import Batch
from graphmatch.noise import Noise
from graphmatch.result import LinearState, MatchResult, SolverState, State
from graphmatch.solvers import SampleCall, Solver, WarmStartSolver

REPORT_SIZE = 10
CENTER_SIZE = 6
_NOISE = "int samples, float noise_scale, str noise, str coupling, bool everywhere, int seed"
_CALL = "str kind, float? unmatched_cost, int solver"

_solvers: list[Solver | None] = []
_numbers: dict[object, int] = {}


def number_of(solver: Solver | None) -> int:
    """Returns the number by which operators know a solver; equal ones share one. They are kept."""
    try:
        key: object = (type(solver), solver)
        hash(key)
    except TypeError:
        key = id(solver)
    if key not in _numbers:
        _numbers[key] = len(_solvers)
        _solvers.append(solver)
    return _numbers[key]


_library = torch.library.Library("graphmatch", "FRAGMENT")
_library.define(
    f"matching_solve(Tensor[] costs, Tensor?[] steps, Tensor?[] context, Tensor[] state, {_CALL}) -> Tensor[]",
    tags=torch.Tag.pt2_compliant_tag,
)
_library.define(
    "matching_sample(Tensor[] costs, Tensor?[] steps, Tensor?[] context, Tensor[] state, float[] signs, "
    f"{_NOISE}, float? open_gap, bool weigh, bool keep, {_CALL}) -> Tensor[]",
    tags=torch.Tag.pt2_compliant_tag,
)
_library.define(
    f"matching_scores(Tensor[] costs, Tensor?[] context, Tensor weights, {_NOISE}, str kind) -> Tensor[]",
    tags=torch.Tag.pt2_compliant_tag,
)


def _state_of(kind: str, tensors: Sequence[Tensor]) -> State | None:
    if not tensors:
        return None
    if kind == "linear":
        return LinearState(*tensors)
    if kind == "lawler":
        return SolverState(*tensors)
    (matching,) = tensors
    batch, nodes = matching.shape
    none = matching.new_zeros((batch, 0, nodes + 1), dtype=torch.float32)
    return SolverState(matching, none, none.new_zeros(batch, nodes), none.new_zeros(batch, dtype=torch.float64))


def _state_tensors(kind: str, state: State | None) -> list[Tensor]:
    """Returns a state as outputs of an operator, none of which may be another one."""
    if isinstance(state, LinearState):
        return [state.matching.clone(), state.row_duals, state.column_duals]
    if kind == "dense" and state is not None:
        return [state.matching.clone()]  # dense problems have no duals to keep
    return [] if state is None else [state.matching.clone(), state.messages, state.potentials, state.scale]


def _center_report(result: MatchResult) -> list[Tensor]:
    stage = torch.zeros_like(result.status) if result.stage is None else result.stage
    return [result.assignment, result.objective, result.lower_bound, result.status, result.iterations, stage]


def _no_center(costs: Tensor) -> list[Tensor]:
    kinds = (torch.int64, torch.float64, torch.float64, torch.int64, torch.int64, torch.int64)
    return [costs.new_zeros((0, costs.shape[1]) if place == 0 else (0,), dtype=k) for place, k in enumerate(kinds)]


def _no_samples(costs: Tensor, variants: int = 0, samples: int = 0) -> list[Tensor]:
    kinds = (torch.float64, torch.float64, torch.int64, torch.int64)
    return [costs.new_empty((variants, samples, costs.shape[0]), dtype=kind) for kind in kinds]


@torch.library.impl(_library, "matching_solve", "CompositeExplicitAutograd")
def _matching_solve(
    costs: list[Tensor],
    steps: list[Tensor | None],
    context: list[Tensor | None],
    state: list[Tensor],
    kind: str,
    unmatched_cost: float | None,
    solver: int,
) -> list[Tensor]:
    """Solutions of costs + steps."""
    batch = Batch(kind, moved(costs, steps), context, unmatched_cost, _solvers[solver], _state_of(kind, state))
    result = batch.result(batch.problem())
    report = [*_center_report(result), *_no_samples(costs[0])]
    return [*batch.solutions(result), *report, *_state_tensors(kind, result.state)]


@torch.library.impl(_library, "matching_sample", "CompositeExplicitAutograd")
def _matching_sample(
    costs: list[Tensor],
    steps: list[Tensor | None],
    context: list[Tensor | None],
    state: list[Tensor],
    signs: list[float],
    samples: int,
    noise_scale: float,
    noise: str,
    coupling: str,
    everywhere: bool,
    seed: int,
    open_gap: float | None,
    weigh: bool,
    keep: bool,
    kind: str,
    unmatched_cost: float | None,
    solver: int,
) -> list[Tensor]:
    """Mean solutions of costs - noise + sign * steps; without a state, the problems without noise are solved first.

    Reported are those only where there are no steps: a backward pass has no use for them.
    """
    noises = Noise(samples, noise_scale, noise, coupling, everywhere, seed)
    batch = Batch(kind, tuple(costs), context, unmatched_cost, _solvers[solver], _state_of(kind, state))
    problem = batch.problem()
    reports_center = _reports_center(steps, state)
    call = SampleCall(noises, *batch.counters(), tuple(steps), tuple(signs), keep, open_gap, weigh)
    sampled = batch.native_samples(problem, call)
    if sampled is None:
        sampled = batch.samples(problem, call, reports_center)
    known = sampled.center if reports_center else None
    center = _no_center(costs[0]) if known is None else _center_report(known)
    kept = [] if sampled.assignment is None else [sampled.assignment]
    kept_state = [] if known is None else _state_tensors(kind, known.state)
    return [*sampled.means, *kept, *center, *sampled.certificates, *kept_state]


@torch.library.impl(_library, "matching_scores", "CompositeExplicitAutograd")
def _matching_scores(
    costs: list[Tensor],
    context: list[Tensor | None],
    weights: Tensor,
    samples: int,
    noise_scale: float,
    noise: str,
    coupling: str,
    everywhere: bool,
    seed: int,
    kind: str,
) -> list[Tensor]:
    """sum_k weights[k] nu'(Z_k), for the cost tensors that have noise."""
    noises = Noise(samples, noise_scale, noise, coupling, everywhere, seed)
    batch = Batch(kind, tuple(costs), context, None, None, None)
    sums = weighted_scores(partial(batch.draw, noises), batch.costs, noises, weights)
    return [each for each in sums if each is not None]


def _reports_center(steps: Sequence[Tensor | None], state: Sequence[Tensor]) -> bool:
    return len(state) == 0 and all(step is None for step in steps)


def _empty_state(costs: Sequence[Tensor], kind: str, solver: Solver | None) -> list[Tensor]:
    """Returns room for the state that a solver keeps."""
    if solver is not None and not (isinstance(solver, WarmStartSolver) and getattr(solver, "keep_state", True)):
        return []
    batch, n1, n2 = costs[0].shape
    matching = costs[0].new_empty((batch, n1), dtype=torch.int64)
    if kind == "linear":
        rows, columns = (costs[0].new_empty((batch, n), dtype=torch.float64) for n in (n1, n2))
        return [matching, rows, columns]
    if kind == "dense":
        return [matching]
    pairs = min(costs[1].shape[1], n1 * (n1 - 1) // 2)
    sizes = ((batch, 2 * pairs, n2 + 1), (batch, n2))
    messages, potentials = (costs[0].new_empty(size, dtype=torch.float32) for size in sizes)
    return [matching, messages, potentials, costs[0].new_empty(batch, dtype=torch.float64)]


def _empty_center(costs: Tensor) -> list[Tensor]:
    batch, rows = costs.shape[:2]
    return [each.new_empty((batch, rows) if each.ndim == 2 else (batch,)) for each in _no_center(costs)]


@torch.library.register_fake("graphmatch::matching_solve", lib=_library)
def _matching_solve_fake(
    costs: list[Tensor], steps: list[Tensor | None], context: list[Tensor | None], state: list[Tensor], *call: Any
) -> list[Tensor]:
    kind, _, solver = call
    solutions = [torch.empty_like(cost, memory_format=torch.contiguous_format) for cost in costs]
    report = [*_empty_center(costs[0]), *_no_samples(costs[0])]
    return [*solutions, *report, *_empty_state(costs, kind, _solvers[solver])]


@torch.library.register_fake("graphmatch::matching_sample", lib=_library)
def _matching_sample_fake(
    costs: list[Tensor],
    steps: list[Tensor | None],
    context: list[Tensor | None],
    state: list[Tensor],
    signs: list[float],
    samples: int,
    *call: Any,
) -> list[Tensor]:
    keep, kind, _, solver = call[-4:]
    first = costs[0]
    means = [cost.new_empty(len(signs), *cost.shape) for cost in costs]
    kept = [first.new_empty((len(signs), samples, *first.shape[:2]), dtype=torch.int64)] if keep else []
    reports_center = _reports_center(steps, state)
    center = _empty_center(first) if reports_center else _no_center(first)
    kept_state = _empty_state(costs, kind, _solvers[solver]) if reports_center else []
    return [*means, *kept, *center, *_no_samples(first, len(signs), samples), *kept_state]


@torch.library.register_fake("graphmatch::matching_scores", lib=_library)
def _matching_scores_fake(
    costs: list[Tensor], context: list[Tensor | None], weights: Tensor, *options: Any
) -> list[Tensor]:
    everywhere = options[4]
    return [
        torch.empty_like(cost, memory_format=torch.contiguous_format) for cost in costs[: None if everywhere else 1]
    ]


def fold(info: Any, values: Any, dims: Any, axis: int = 0) -> Any:
    """Returns tensors of all calls of a vmap as one batch of problems, call after call."""
    if isinstance(values, list | tuple):
        each = dims if isinstance(dims, list | tuple) else [None] * len(values)
        return [fold(info, value, dim, axis) for value, dim in zip(values, each, strict=True)]
    if values is None:
        return None
    calls = values.movedim(dims, 0) if dims is not None else values.expand(info.batch_size, *values.shape)
    return calls.movedim(0, axis).flatten(axis, axis + 1)


def unfold(info: Any, outputs: list[Tensor], axes: list[int]) -> tuple[list[Tensor], list[int]]:
    """Returns outputs of a folded batch with an axis for the calls, and where that is."""
    calls = info.batch_size
    pairs = zip(outputs, axes, strict=True)
    return [output.unflatten(axis, (calls, output.shape[axis] // calls)) for output, axis in pairs], axes


def _report_axes() -> list[int]:
    return [0] * CENTER_SIZE + [2] * (REPORT_SIZE - CENTER_SIZE)


def _matching_solve_vmap(
    info: Any, dims: Any, costs: Any, steps: Any, context: Any, state: Any, *call: Any
) -> tuple[list[Tensor], list[int]]:
    folded = [fold(info, each, dim) for each, dim in zip((costs, steps, context, state), dims[:4], strict=True)]
    outputs = torch.ops.graphmatch.matching_solve(*folded, *call)
    count = len(costs)
    axes = [0] * count + _report_axes()
    return unfold(info, outputs, axes + [0] * (len(outputs) - len(axes)))


def _matching_sample_vmap(
    info: Any, dims: Any, costs: Any, steps: Any, context: Any, state: Any, signs: Any, *call: Any
) -> tuple[list[Tensor], list[int]]:
    folded = [fold(info, each, dim) for each, dim in zip((costs, steps, context, state), dims[:4], strict=True)]
    outputs = torch.ops.graphmatch.matching_sample(*folded, signs, *call)
    keep = call[-4]
    axes = [1] * len(costs) + [2] * int(keep) + _report_axes()
    return unfold(info, outputs, axes + [0] * (len(outputs) - len(axes)))


def _matching_scores_vmap(
    info: Any, dims: Any, costs: Any, context: Any, weights: Any, *call: Any
) -> tuple[list[Tensor], list[int]]:
    folded = [fold(info, each, dim) for each, dim in zip((costs, context), dims[:2], strict=True)]
    outputs = torch.ops.graphmatch.matching_scores(*folded, fold(info, weights, dims[2], 1), *call)
    return unfold(info, outputs, [0] * len(outputs))


for _name, _rule in (
    ("matching_solve", _matching_solve_vmap),
    ("matching_sample", _matching_sample_vmap),
    ("matching_scores", _matching_scores_vmap),
):
    torch.library.register_vmap(f"graphmatch::{_name}", _rule, lib=_library)
