"""The CUDA implementations of `lawler_solve` and `lawler_objective`: sparse problems stay where their tensors are.

Nothing here waits for the GPU: no value of a tensor is read, scratch memory is PyTorch's, the stream the current one.
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from graphmatch import _native, _ops

# Bytes of scratch memory of a call: more only lets more problems be solved at the same time.
_MOST_SCRATCH = 1 << 31
_STATE_NAMES = ("messages", "potentials", "scale")


def _states(module: ModuleType, state: tuple[Tensor, ...], matching: Tensor | None, rows: int) -> object:
    messages, potentials, scale = state
    return module.States(
        batch=scale.shape[0],
        rows=rows,
        columns=potentials.shape[1],
        pair_capacity=messages.shape[1] // 2,
        assignment=0 if matching is None else matching.data_ptr(),
        **{name: tensor.data_ptr() for name, tensor in zip(_STATE_NAMES, state, strict=True)},
    )


def _best_runs(answers: _ops.Answers, batch: int, runs: int) -> _ops.Answers:
    """Returns the answers of the cheapest of the runs of each problem, the first among equals."""
    assignment, objective, *others = (answer.unflatten(0, (batch, runs)) for answer in answers)
    # Invalid problems are so in all runs; argmin takes the first of their NaNs.
    best = objective.argmin(1, keepdim=True)
    rows = assignment.shape[2]
    chosen = assignment.gather(1, best[:, :, None].expand(-1, -1, rows))[:, 0]
    return (chosen, *(each.gather(1, best)[:, 0] for each in (objective, *others)))


@torch.library.impl(_ops._library, "lawler_solve", "CUDA")
def _lawler_solve(
    unary_costs: Tensor,
    quadratic_costs: Tensor,
    edges1: Tensor,
    edges2: Tensor,
    sizes: Tensor | None,
    unmatched_cost: float | None,
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
) -> _ops.Answers:
    """As on the CPU, without a time limit. The restarts of a tabu search run at the same time, from the same duals."""
    cuda = _native.required_cuda("matchings")
    if time_limit is not None:
        raise ValueError(
            f"lawler_solve: time_limit must be None for CUDA tensors; got {time_limit}. Limit iterations or steps."
        )
    problems, alive = _ops._lawler_arguments(cuda, unary_costs, quadratic_costs, edges1, edges2, sizes, unmatched_cost)
    batch, rows, _ = unary_costs.shape
    device = unary_costs.device
    parallel = runs if method == _ops.TABU else 1
    answers = _ops._empty_answers(batch * parallel, rows, device)
    kept = _ops._empty_state(batch if keep_state else 0, unary_costs, edges1.shape[1])
    written = kept if parallel == 1 else _ops._empty_state(0, unary_costs, edges1.shape[1])
    warm: tuple[Tensor, ...] = _ops._empty_state(0, unary_costs, edges1.shape[1])
    if messages is not None and potentials is not None and scale is not None and matching is not None:
        warm = (messages.contiguous(), potentials.contiguous(), scale.contiguous())
        matching = matching.contiguous()
    options = cuda.LawlerOptions(
        method=method,
        max_gap=max_gap,
        seed=seed % 2**64,
        max_iterations=max_iterations,
        runs=runs,
        steps=steps,
        effort=effort,
    )
    size = cuda.lawler_scratch_bytes(problems, runs=parallel, limit=_MOST_SCRATCH, device=device.index)
    scratch = torch.empty(size, dtype=torch.uint8, device=device)
    cuda.lawler_solve(
        problems,
        options,
        runs=parallel,
        warm=_states(cuda, warm, matching, rows),
        kept=_states(cuda, written, None, rows),
        answers=_ops._native_answers(answers, cuda),
        scratch=scratch.data_ptr(),
        scratch_size=size,
        device=device.index,
        stream=torch.cuda.current_stream(device).cuda_stream,
    )
    del alive
    if parallel > 1:
        answers = _best_runs(answers, batch, parallel)
    return (*answers, *kept)


@torch.library.impl(_ops._library, "lawler_objective", "CUDA")
def _lawler_objective_cuda(
    unary_costs: Tensor,
    quadratic_costs: Tensor,
    edges1: Tensor,
    edges2: Tensor,
    sizes: Tensor | None,
    unmatched_cost: float | None,
    assignment: Tensor,
    threads: int,
) -> Tensor:
    cuda = _native.required_cuda("objectives")
    problems, alive = _ops._lawler_arguments(cuda, unary_costs, quadratic_costs, edges1, edges2, sizes, unmatched_cost)
    assignment = assignment.contiguous()
    objective = unary_costs.new_empty(unary_costs.shape[0], dtype=torch.float64)
    stream = torch.cuda.current_stream(unary_costs.device).cuda_stream
    cuda.lawler_objective(
        problems,
        assignment=assignment.data_ptr(),
        objective=objective.data_ptr(),
        device=unary_costs.device.index,
        stream=stream,
    )
    del alive
    return objective
