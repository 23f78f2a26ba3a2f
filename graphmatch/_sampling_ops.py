"""The native operations that solve many noisy copies of each problem in one call, for gradient estimators.

Variant v of sample k of problem i costs `(unary_costs - noise_scale * noise) + signs[v] * unary_step` and
`quadratic_costs + signs[v] * quadratic_step`, rounded in the dtype of the costs at each operation. Without a state, the
problem itself (the "center") is solved first; every sample starts from its duals and its matching.

Means are over the samples of a problem, each variant apart: a sample counts 1 where `open_gap` is negative or all its
variants have a relative gap of at most `open_gap`; otherwise 0, or `open_gap / gap` of the largest gap with `weigh`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from graphmatch import _native, _ops
from graphmatch._native import cpu as _cpu

Answers = tuple[Tensor, ...]

# Kinds of noise and couplings of samples, numbered as in csrc/core/noise.hpp.
GUMBEL, GAUSSIAN, SUM_OF_GAMMA, UNIFORM = range(4)
INDEPENDENT, ANTITHETIC, ORTHOGONAL = range(3)

_NOISE = "int samples, float noise_scale, Tensor keys, Tensor instances, int noise_seed, int noise_kind, int coupling"
_MEANS = "float open_gap, bool weigh, bool keep_assignments"

_library = _ops._library
_library.define(
    "noise(Tensor keys, Tensor instances, int samples, int first, int rows, int columns, Tensor? sizes, int seed, "
    "int stream, int kind, int coupling) -> Tensor",
    tags=torch.Tag.pt2_compliant_tag,
)
_library.define(
    f"lawler_samples({_ops._LAWLER}, Tensor? unary_step, Tensor? quadratic_step, float[] signs, {_NOISE}, {_MEANS}, "
    "int method, int max_iterations, int runs, int steps, int max_nodes, float effort, float max_gap, int seed, "
    f"float? time_limit, int threads, {_ops._STATE}) -> ("
    "Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, "  # means, then answers of the samples
    f"{_ops._ANSWERS}, Tensor, Tensor, Tensor)",  # answers and duals of the centers
    tags=torch.Tag.pt2_compliant_tag,
)
_library.define(
    "linear_samples(Tensor costs, Tensor? sizes, float? unmatched_cost, Tensor? unary_step, float[] signs, "
    f"{_NOISE}, {_MEANS}, int threads, Tensor? matching, Tensor? row_duals) -> ("
    "Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, "  # means, then answers of the samples
    "Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",  # answers and duals of the centers
    tags=torch.Tag.pt2_compliant_tag,
)

noise = torch.ops.graphmatch.noise.default
lawler_samples = torch.ops.graphmatch.lawler_samples.default
linear_samples = torch.ops.graphmatch.linear_samples.default


def _empty_samples(variants: int, samples: int, costs: Tensor, keep_assignments: bool) -> Answers:
    """Returns room for assignments, objectives, bounds, statuses and iterations of all samples of costs (b, n1, n2)."""
    batch, rows = costs.shape[:2]
    shape = (variants, samples, batch)
    kept = variants * samples * batch if keep_assignments else 0
    assignment = costs.new_empty((kept, rows), dtype=torch.int64)
    objective, bound = (costs.new_empty(shape, dtype=torch.float64) for _ in range(2))
    status, iterations = (costs.new_empty(shape, dtype=torch.int64) for _ in range(2))
    return assignment, objective, bound, status, iterations


def _zero_means(variants: int, *costs: Tensor) -> Answers:
    return tuple(cost.new_zeros(variants, *cost.shape) for cost in costs)


def _counters(keys: Tensor, instances: Tensor, batch: int) -> list[Tensor]:
    """Returns counters as the native module reads them: a number of each per problem."""
    for name, value in (("keys", keys), ("instances", instances)):
        if value.shape != (batch,) or value.dtype != torch.int64:
            received = f"shape {tuple(value.shape)}, {value.dtype}"
            raise ValueError(f"noise: {name} must be ({batch},) int64, a number per problem; got {received}. Check it.")
    return [keys.contiguous(), instances.contiguous()]


def _checked_step(name: str, step: Tensor, costs: Tensor) -> Tensor:
    if step.shape != costs.shape or step.dtype != costs.dtype:
        received = f"shape {tuple(step.shape)}, {step.dtype}"
        rule = f"be {tuple(costs.shape)}, {costs.dtype} as its costs"
        raise ValueError(f"samples: {name} must {rule}; got {received}. Check it.")
    return _ops._inner_contiguous(step)


def _sources(
    steps: Mapping[str, tuple[Tensor | None, Tensor | None]], keys: Tensor, instances: Tensor, batch: int
) -> tuple[object, list[Tensor]]:
    """Returns steps (None = no step) and counters as the native module takes them, and what must outlive the call."""
    alive = _counters(keys, instances, batch)
    places = {"keys": alive[0].data_ptr(), "instances": alive[1].data_ptr()}
    for name, (step, costs) in steps.items():
        places |= {name: 0, f"{name}_stride": 0}
        if step is not None and costs is not None:
            alive.append(_checked_step(name, step, costs))
            places |= {name: alive[-1].data_ptr(), f"{name}_stride": _ops._batch_stride(alive[-1])}
    return _cpu.SampleArguments(**places), alive


def _sample_options(
    samples: int, noise_scale: float, kind: int, coupling: int, seed: int, signs: list[float]
) -> object:
    noise = _cpu.NoiseOptions(kind=kind, coupling=coupling, seed=seed % 2**64, stream=0)
    return _cpu.SampleOptions(samples=samples, noise_scale=noise_scale, noise=noise, signs=signs)


def _native_samples(means: Answers, answers: Answers, open_gap: float, weigh: bool, keep_assignments: bool) -> object:
    names = ("assignment", "objective", "lower_bound", "status", "iterations")
    addresses = {name: tensor.data_ptr() for name, tensor in zip(names, answers, strict=True)}
    if not keep_assignments:
        addresses["assignment"] = 0
    return _cpu.SampleAnswers(
        matching_means=means[0].data_ptr(),
        paid_means=means[1].data_ptr() if len(means) > 1 else 0,
        open_gap=open_gap,
        weigh=weigh,
        **addresses,
    )


@torch.library.impl(_library, "noise", "CPU")
def _noise(
    keys: Tensor,
    instances: Tensor,
    samples: int,
    first: int,
    rows: int,
    columns: int,
    sizes: Tensor | None,
    seed: int,
    stream: int,
    kind: int,
    coupling: int,
) -> Tensor:
    """Noise (samples, b, rows, columns) float32 of the samples from `first` on; 0 outside of sizes (b, 2)."""
    keys, instances = _counters(keys, instances, len(keys))
    sizes = None if sizes is None else sizes.contiguous()
    drawn = keys.new_empty((samples, len(keys), rows, columns), dtype=torch.float32)
    _cpu.noise(
        options=_cpu.NoiseOptions(kind=kind, coupling=coupling, seed=seed % 2**64, stream=stream % 2**64),
        keys=keys.data_ptr(),
        instances=instances.data_ptr(),
        sizes=0 if sizes is None else sizes.data_ptr(),
        batch=len(keys),
        rows=rows,
        columns=columns,
        samples=samples,
        first=first,
        noise=drawn.data_ptr(),
    )
    return drawn


@torch.library.impl(_library, "noise", "CUDA")
def _noise_cuda(
    keys: Tensor,
    instances: Tensor,
    samples: int,
    first: int,
    rows: int,
    columns: int,
    sizes: Tensor | None,
    seed: int,
    stream: int,
    kind: int,
    coupling: int,
) -> Tensor:
    """The same on the GPU, all but orthogonal samples.

    Uniform, Gumbel and Gaussian numbers have the CPU's bits; sums of Gamma numbers may differ in the last one.
    """
    cuda = _native.cuda()
    if cuda is None or coupling == ORTHOGONAL:
        reason = "a build without the CUDA module" if cuda is None else "orthogonal samples"
        raise RuntimeError(f"graphmatch: noise must be one that the GPU draws; got {reason}. Draw it on the CPU.")
    keys, instances = _counters(keys, instances, len(keys))
    sizes = None if sizes is None else sizes.contiguous()
    drawn = keys.new_empty((samples, len(keys), rows, columns), dtype=torch.float32)
    cuda.noise(
        kind=kind,
        coupling=coupling,
        seed=seed % 2**64,
        stream_of_costs=stream % 2**64,
        keys=keys.data_ptr(),
        instances=instances.data_ptr(),
        sizes=0 if sizes is None else sizes.data_ptr(),
        batch=len(keys),
        rows=rows,
        columns=columns,
        samples=samples,
        first=first,
        noise=drawn.data_ptr(),
        device=keys.device.index,
        stream=torch.cuda.current_stream(keys.device).cuda_stream,
    )
    return drawn


@torch.library.impl(_library, "lawler_samples", "CPU")
def _lawler_samples(
    unary_costs: Tensor,
    quadratic_costs: Tensor,
    edges1: Tensor,
    edges2: Tensor,
    sizes: Tensor | None,
    unmatched_cost: float | None,
    unary_step: Tensor | None,
    quadratic_step: Tensor | None,
    signs: list[float],
    samples: int,
    noise_scale: float,
    keys: Tensor,
    instances: Tensor,
    noise_seed: int,
    noise_kind: int,
    coupling: int,
    open_gap: float,
    weigh: bool,
    keep_assignments: bool,
    method: int,
    max_iterations: int,
    runs: int,
    steps: int,
    max_nodes: int,
    effort: float,
    max_gap: float,
    seed: int,
    time_limit: float | None,
    threads: int,
    messages: Tensor | None,
    potentials: Tensor | None,
    scale: Tensor | None,
    matching: Tensor | None,
    keep_state: bool,
) -> Answers:
    """Noisy copies of sparse Lawler problems; returns means, answers of the samples, then those of the centers."""
    problems, alive = _ops._lawler_arguments(_cpu, unary_costs, quadratic_costs, edges1, edges2, sizes, unmatched_cost)
    batch, rows, _ = unary_costs.shape
    warm, start, centers = _ops._empty_state(0, unary_costs, edges1.shape[1]), None, batch
    if messages is not None and potentials is not None and scale is not None and matching is not None:
        warm = (messages.contiguous(), potentials.contiguous(), scale.contiguous())
        start, centers = matching.contiguous(), 0
    center = _ops._empty_answers(centers, rows, unary_costs.device)
    kept = _ops._empty_state(centers if keep_state else 0, unary_costs, edges1.shape[1])
    means = _zero_means(len(signs), unary_costs, quadratic_costs)
    answers = _empty_samples(len(signs), samples, unary_costs, keep_assignments)
    given = {"unary_step": (unary_step, unary_costs), "quadratic_step": (quadratic_step, quadratic_costs)}
    sources, more = _sources(given, keys, instances, batch)
    _cpu.lawler_samples(
        problems=problems,
        sources=sources,
        solver=_cpu.LawlerOptions(
            method=method,
            max_gap=max_gap,
            seed=seed % 2**64,
            max_iterations=max_iterations,
            runs=runs,
            steps=steps,
            max_nodes=max_nodes,
            effort=effort,
        ),
        options=_sample_options(samples, noise_scale, noise_kind, coupling, noise_seed, signs),
        warm=_ops._native_states(warm, start, rows),
        kept=_ops._native_states(kept, None, rows),
        budget=_ops._budget(time_limit, threads),
        answers=_native_samples(means, answers, open_gap, weigh, keep_assignments),
        center=_ops._native_answers(center),
    )
    del alive, more
    return (*means, *answers, *center, *kept)


@torch.library.impl(_library, "linear_samples", "CPU")
def _linear_samples(
    costs: Tensor,
    sizes: Tensor | None,
    unmatched_cost: float | None,
    unary_step: Tensor | None,
    signs: list[float],
    samples: int,
    noise_scale: float,
    keys: Tensor,
    instances: Tensor,
    noise_seed: int,
    noise_kind: int,
    coupling: int,
    open_gap: float,
    weigh: bool,
    keep_assignments: bool,
    threads: int,
    matching: Tensor | None,
    row_duals: Tensor | None,
) -> Answers:
    """Noisy copies of linear problems; returns means, answers of the samples, then answers and duals of the centers."""
    problems, alive = _ops._linear_arguments(costs, sizes, unmatched_cost)
    starts, old = _ops._linear_starts(matching, row_duals)
    centers = costs if matching is None or row_duals is None else costs[:0]
    center, duals = _ops._empty_answers(len(centers), costs.shape[1], costs.device), _ops._empty_duals(centers)
    means = _zero_means(len(signs), costs)
    answers = _empty_samples(len(signs), samples, costs, keep_assignments)
    given = {"unary_step": (unary_step, costs), "quadratic_step": (None, None)}
    sources, more = _sources(given, keys, instances, len(costs))
    _cpu.linear_samples(
        problems=problems,
        sources=sources,
        options=_sample_options(samples, noise_scale, noise_kind, coupling, noise_seed, signs),
        starts=starts,
        budget=_ops._budget(None, threads),
        answers=_native_samples(means, answers, open_gap, weigh, keep_assignments),
        center=_ops._native_answers(center),
        duals=_cpu.Duals(rows=duals[0].data_ptr(), columns=duals[1].data_ptr()),
    )
    del alive, old, more
    return (*means, *answers, *center[:5], *duals)


@torch.library.register_fake("graphmatch::noise", lib=_library)
def _noise_fake(
    keys: Tensor, instances: Tensor, samples: int, first: int, rows: int, columns: int, *others: object
) -> Tensor:
    return keys.new_empty((samples, len(keys), rows, columns), dtype=torch.float32)


@torch.library.register_fake("graphmatch::lawler_samples", lib=_library)
def _lawler_samples_fake(
    unary_costs: Tensor,
    quadratic_costs: Tensor,
    edges1: Tensor,
    edges2: Tensor,
    sizes: Tensor | None,
    unmatched_cost: float | None,
    unary_step: Tensor | None,
    quadratic_step: Tensor | None,
    signs: list[float],
    samples: int,
    *others: object,
) -> Answers:
    messages, keep_state, keep_assignments = others[-5], bool(others[-1]), bool(others[8])
    batch, rows, _ = unary_costs.shape
    centers = batch if messages is None else 0
    return (
        *_zero_means(len(signs), unary_costs, quadratic_costs),
        *_empty_samples(len(signs), samples, unary_costs, keep_assignments),
        *_ops._empty_answers(centers, rows, unary_costs.device),
        *_ops._empty_state(centers if keep_state else 0, unary_costs, quadratic_costs.shape[1]),
    )


@torch.library.register_fake("graphmatch::linear_samples", lib=_library)
def _linear_samples_fake(
    costs: Tensor,
    sizes: Tensor | None,
    unmatched_cost: float | None,
    unary_step: Tensor | None,
    signs: list[float],
    samples: int,
    *others: object,
) -> Answers:
    matching, row_duals, keep_assignments = others[-2], others[-1], bool(others[8])
    centers = costs if matching is None or row_duals is None else costs[:0]
    return (
        *_zero_means(len(signs), costs),
        *_empty_samples(len(signs), samples, costs, keep_assignments),
        *_ops._empty_answers(len(centers), costs.shape[1], costs.device)[:5],
        *_ops._empty_duals(centers),
    )
