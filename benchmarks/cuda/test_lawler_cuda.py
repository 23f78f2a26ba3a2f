"""Sparse quadratic problems on the GPU: ExGra instances in large batches; the CPU on some of them in the same run."""

from __future__ import annotations

import time
from functools import cache
from typing import Any

import pytest
import torch

import graphmatch as gm
from benchmarks.cases import exgra_batch

# Nodes, noise and problems per call; few large ones are spread over several multiprocessors each.
_BATCHES = [(16, 0.3, 16384), (16, 1.0, 16384), (8, 0.3, 16384), (32, 0.3, 2048), (64, 0.3, 256), (64, 0.3, 6)]
_DISTINCT = 256
_PEER_PROBLEMS = 32
_SOLVERS = {
    "DualAscent": gm.DualAscent(max_gap=1e-4, max_iterations=100, keep_state=False),
    "Portfolio": gm.Portfolio(max_gap=1e-4, keep_state=False),
}


@cache
def _tensors(nodes: int, noise: float, batch: int) -> tuple[torch.Tensor, ...]:
    distinct = exgra_batch(nodes, noise, range(min(_DISTINCT, batch)), torch.float32)
    return tuple(each.repeat(-(-batch // len(each)), 1, 1)[:batch] for each in distinct)


@pytest.mark.cuda
@pytest.mark.benchmark(group="qap-sparse-cuda")
@pytest.mark.parametrize("solver", list(_SOLVERS))
@pytest.mark.parametrize(("nodes", "noise", "batch"), _BATCHES)
def test_exgra_problems_cuda(benchmark: Any, nodes: int, noise: float, batch: int, solver: str):
    tensors = _tensors(nodes, noise, batch)
    problem = gm.LawlerProblem(*(each.cuda() for each in tensors), unmatched_cost=0.0)

    def solve() -> gm.MatchResult:
        result = _SOLVERS[solver].solve(problem)
        torch.cuda.synchronize()
        return result

    result = benchmark.pedantic(solve, rounds=5, warmup_rounds=1)
    few = gm.LawlerProblem(*(each[:_PEER_PROBLEMS] for each in tensors), unmatched_cost=0.0)
    begin = time.perf_counter()
    known = gm.solve(few, _SOLVERS[solver])
    cpu_seconds = time.perf_counter() - begin
    compared = len(known.objective)
    median = benchmark.stats.stats.median
    benchmark.extra_info |= {
        "solver": solver,
        "device": torch.cuda.get_device_name(),
        "nodes": nodes,
        "noise": noise,
        "batch": batch,
        "problems_per_second": batch / median,
        "certified": (result.status == gm.Status.OPTIMAL).double().mean().item(),
        "certified_per_second": (result.status == gm.Status.OPTIMAL).sum().item() / median,
        "iterations": result.iterations.double().mean().item(),
        "objective": result.objective[:compared].mean().item(),
        "cpu_objective": known.objective.mean().item(),
        "cpu_problems_per_second": compared / cpu_seconds,
    }
