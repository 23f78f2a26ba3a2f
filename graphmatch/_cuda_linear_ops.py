"""Linear assignment of CUDA tensors as the CUDA implementation of `graphmatch::linear_assignment`."""

from __future__ import annotations

import torch
from torch import Tensor

from graphmatch import _native, _ops


@torch.library.impl(_ops._library, "linear_assignment", "CUDA")
def _linear_assignment(
    costs: Tensor,
    sizes: Tensor | None,
    unmatched_cost: float | None,
    threads: int,
    matching: Tensor | None = None,
    row_duals: Tensor | None = None,
) -> _ops.Answers:
    """As on the CPU, queued on the current stream. Threads and old duals change no answer and are not used."""
    cuda = _native.required_cuda("linear assignment")
    device = costs.device
    batch, rows, columns = costs.shape
    costs = _ops._inner_contiguous(costs)
    sizes = None if sizes is None else sizes.contiguous()
    matching = None if matching is None or row_duals is None else matching.contiguous()
    problems = cuda.LinearArguments(
        batch=batch,
        rows=rows,
        columns=columns,
        costs=costs.data_ptr(),
        batch_stride=_ops._batch_stride(costs),
        sizes=0 if sizes is None else sizes.data_ptr(),
        complete=unmatched_cost is None,
        unmatched_cost=0.0 if unmatched_cost is None else float(unmatched_cost),
        is_double=costs.dtype == torch.float64,
    )
    starts = cuda.LinearStarts(
        batch=0 if matching is None else matching.shape[0],
        matching=0 if matching is None else matching.data_ptr(),
        row_duals=0,
    )
    answers = _ops._empty_answers(batch, rows, device)
    duals = _ops._empty_duals(costs)
    scratch_bytes = cuda.linear_scratch_bytes(problems, device=device.index)
    scratch = torch.empty(scratch_bytes, dtype=torch.uint8, device=device)
    cuda.linear_assignment(
        problems=problems,
        starts=starts,
        answers=_ops._native_answers(answers, cuda),
        duals=cuda.Duals(rows=duals[0].data_ptr(), columns=duals[1].data_ptr()),
        scratch=scratch.data_ptr(),
        scratch_bytes=scratch_bytes,
        device=device.index,
        stream=torch.cuda.current_stream(device).cuda_stream,
    )
    return (*answers, *duals)
