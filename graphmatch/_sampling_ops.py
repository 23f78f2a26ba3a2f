"""The native operations that solve many noisy copies of each problem in one call, for gradient estimators.

Variant v of sample k of problem i costs `(unary_costs - noise_scale * noise) + signs[v] * unary_step` and
`quadratic_costs + signs[v] * quadratic_step`, rounded in the dtype of the costs at each operation. Without a state, the
problem itself (the "center") is solved first; every sample starts from its duals and its matching.

Means are over the samples of a problem, each variant apart: a sample counts 1 where `open_gap` is negative or all its
variants have a relative gap of at most `open_gap`; otherwise 0, or `open_gap / gap` of the largest gap with `weigh`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from graphmatch import _ops
from graphmatch._native import cpu as _cpu

Answers = tuple[Tensor, ...]

# Kinds of noise and couplings of samples, numbered as in csrc/core/noise.hpp.
GUMBEL, GAUSSIAN, SUM_OF_GAMMA, UNIFORM = range(4)
INDEPENDENT, ANTITHETIC, ORTHOGONAL = range(3)

_NOISE = "int samples, float noise_scale, Tensor keys, Tensor instances, int noise_seed, int noise_kind, int coupling"
_MEANS = "float open_gap, bool weigh, bool keep_assignments"

_library = _ops._library
_library.define(
    f"lawler_samples({_ops._LAWLER}, Tensor? unary_step, Tensor? quadratic_step, float[] signs, {_NOISE}, {_MEANS}, "
    "int method, int max_iterations, int runs, int steps, int max_nodes, float effort, float max_gap, int seed, "
    f"float? time_limit, int threads, {_ops._STATE}) -> ("
    "Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, "  # means, then answers of the samples
    f"{_ops._ANSWERS}, Tensor, Tensor, Tensor)",  # answers and duals of the centers
    tags=torch.Tag.pt2_compliant_tag,
)

lawler_samples = torch.ops.graphmatch.lawler_samples.default


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


def _step(step: Tensor | None) -> tuple[Tensor | None, int, int]:
    """Returns a step that must outlive the call, its address (0 = none) and the stride of its problems."""
    if step is None:
        return None, 0, 0
    step = _ops._inner_contiguous(step)
    return step, step.data_ptr(), _ops._batch_stride(step)


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
    keys, instances = keys.contiguous(), instances.contiguous()
    unary_step, unary_address, unary_stride = _step(unary_step)
    quadratic_step, quadratic_address, quadratic_stride = _step(quadratic_step)
    assignment, objective, bound, status, iterations = answers
    _cpu.lawler_samples(
        problems=problems,
        sources=_cpu.SampleArguments(
            unary_step=unary_address,
            quadratic_step=quadratic_address,
            unary_step_stride=unary_stride,
            quadratic_step_stride=quadratic_stride,
            keys=keys.data_ptr(),
            instances=instances.data_ptr(),
        ),
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
        options=_cpu.SampleOptions(
            samples=samples,
            noise_scale=noise_scale,
            kind=noise_kind,
            coupling=coupling,
            seed=noise_seed % 2**64,
            signs=signs,
        ),
        warm=_ops._native_states(warm, start, rows),
        kept=_ops._native_states(kept, None, rows),
        budget=_ops._budget(time_limit, threads),
        answers=_cpu.SampleAnswers(
            matching_means=means[0].data_ptr(),
            paid_means=means[1].data_ptr(),
            assignment=assignment.data_ptr() if keep_assignments else 0,
            objective=objective.data_ptr(),
            lower_bound=bound.data_ptr(),
            status=status.data_ptr(),
            iterations=iterations.data_ptr(),
            open_gap=open_gap,
            weigh=weigh,
        ),
        center=_ops._native_answers(center),
    )
    del alive
    return (*means, *answers, *center, *kept)


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
