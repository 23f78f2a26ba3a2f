"""The alignment loss as ExGra-Med's training calls it on a GPU: three views of width 4096, forward and backward.

At most 3 ms at 64 samples is the aim, so that the loss hides behind the language model's step. Called as it is, a step
is some 200 operations that Python queues one by one; captured in a CUDA graph it takes what the GPU needs for them, and
compiled they become fewer. The graph convolutions are matrix products with two weights of 4096 x 4096 each: "high"
allows TensorFloat-32 there. The peer copies the costs to the CPU and solves there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import graphmatch as gm
from benchmarks.cases import clustered_views
from benchmarks.timing import torch_threads
from graphmatch.solvers import quick_solver

pytestmark = pytest.mark.cuda

_DIM = 4096
_THREADS = 2


@contextmanager
def _precision(name: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _gpu_milliseconds(step: Callable[[], object]) -> dict[str, float]:
    """Returns the time that the GPU works on a step, and what of it solves matching problems."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
        step()
        torch.cuda.synchronize()
    kernels = (each for each in recorded.events() if each.device_type == torch.autograd.DeviceType.CUDA)
    spent = {"gpu_milliseconds": 0.0, "matching_milliseconds": 0.0}
    for kernel in kernels:
        spent["gpu_milliseconds"] += kernel.self_device_time_total / 1e3
        if "graphmatch::" in kernel.name:
            spent["matching_milliseconds"] += kernel.self_device_time_total / 1e3
    return spent


@pytest.mark.benchmark(group="alignment-step-cuda")
@pytest.mark.parametrize("nodes", [16, 64])
@pytest.mark.parametrize("precision", ["highest", "high"])
@pytest.mark.parametrize("place", ["GPU", "CUDA graph", "compiled", "CPU"])
def test_alignment_step_cuda(benchmark: Any, place: str, precision: str, nodes: int):
    torch.manual_seed(0)
    views = [view.detach().cuda().requires_grad_() for view in clustered_views(3, nodes, _DIM, noise=0.5, seed=nodes)]
    on_cpu = gm.Portfolio(max_gap=1e-3, effort=0.02, max_iterations=5, on_cpu=True)
    alignment = gm.BarycenterAlignment(_DIM, solver=on_cpu if place == "CPU" else quick_solver()).cuda()

    with _precision(precision), torch_threads(_THREADS):
        called: Any = alignment
        if place == "CUDA graph":
            called = torch.cuda.make_graphed_callables(
                alignment, tuple(each.detach().requires_grad_() for each in views)
            )
        if place == "compiled":
            called = torch.compile(alignment, fullgraph=True, mode="reduce-overhead")

        def step() -> torch.Tensor:
            for tensor in (*alignment.parameters(), *views):
                tensor.grad = None
            loss = called(*views)
            loss.backward()
            torch.cuda.synchronize()
            return loss.detach()

        benchmark.pedantic(step, rounds=30, warmup_rounds=5)
        loss, spent = step().item(), _gpu_milliseconds(step)
    benchmark.extra_info |= {
        "device": torch.cuda.get_device_name(),
        "solved_on": place,
        "matmul_precision": precision,
        "step_threads": _THREADS,
        "nodes": nodes,
        "dim": _DIM,
        "loss": loss,
        **spent,
    }
