"""Many problems, large problems, problems solved before: threads, memory, warm starts."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch

import graphmatch as gm
from benchmarks.cases import exgra_batch, exgra_instance
from benchmarks.memory import solve_apart
from benchmarks.timing import NativeClock, over_cases, torch_threads

_MANY, _FEW_NODES = 4096, 16
_LARGE = 256
_MAX_GAP = 1e-4
_NATIVE_CLOCK = NativeClock()


@cache
def _many() -> gm.LawlerProblem:
    tensors = exgra_batch(_FEW_NODES, 0.3, range(_MANY), torch.float32)
    return gm.LawlerProblem(*tensors, unmatched_cost=0.0)


@pytest.mark.benchmark(group="qap-many")
@pytest.mark.parametrize("threads", sorted({1, os.cpu_count() or 1}))
def test_many(benchmark: Any, threads: int):
    with torch_threads(threads):
        result = benchmark.pedantic(gm.solve, (_many(), gm.Portfolio(max_gap=_MAX_GAP)), rounds=9, warmup_rounds=2)
    benchmark.extra_info |= {
        "nodes": _FEW_NODES,
        "batch": _MANY,
        "objective": result.objective.mean().item(),
        "gap": result.gap.max().item(),
        "certified": (result.gap <= _MAX_GAP).double().mean().item(),
    }


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells the peak of resident memory")
@pytest.mark.benchmark(group="qap-many")
@pytest.mark.parametrize("keep_state", [True, False])
def test_memory_of_many(benchmark: Any, keep_state: bool):
    """The peak of a solve of 4096 problems less that of 1024, for each problem more."""

    def measure() -> tuple[dict[str, Any], dict[str, Any]]:
        few, many = (solve_apart(_FEW_NODES, 0.3, batch, keep_state) for batch in (_MANY // 4, _MANY))
        return few, many

    few, many = benchmark.pedantic(measure, rounds=1)
    benchmark.extra_info |= {
        "nodes": _FEW_NODES,
        "keep_state": keep_state,
        "objective": many["objective"],
        "gap": many["gap"],
        "memory_bytes": many["peak_bytes"],
        "bytes_per_problem": (many["peak_bytes"] - few["peak_bytes"]) / (_MANY - _MANY // 4),
    }


@pytest.mark.benchmark(group="qap-large")
@pytest.mark.parametrize("noise", [0.3, 1.0, 2.0])
def test_large(benchmark: Any, noise: float):
    measures = benchmark.pedantic(solve_apart, (_LARGE, noise, 1), rounds=1)
    benchmark.extra_info |= {"nodes": _LARGE, "noise": noise, **measures, "memory_bytes": measures["peak_bytes"]}


@pytest.mark.benchmark(group="qap-moved", timer=_NATIVE_CLOCK)
@pytest.mark.parametrize("start", ["cold", "warm"])
@pytest.mark.parametrize("moved", [0.0, 0.02, 0.1])
@pytest.mark.parametrize("nodes", [16, 64])
def test_moved(benchmark: Any, nodes: int, moved: float, start: str):
    """Problems solved before, with Gaussian noise of deviation `moved` on their unary costs."""
    solver = gm.Portfolio(max_gap=_MAX_GAP, threads=1)
    generator = torch.Generator().manual_seed(nodes)
    cases = []
    for seed in range(20):
        problem = exgra_instance(nodes, 0.3, seed).problem()
        state = gm.solve(problem, solver).state if start == "warm" else None
        noise = moved * torch.randn(problem.unary_costs.shape, generator=generator, dtype=torch.float64)
        cases.append((replace(problem, unary_costs=problem.unary_costs + noise), solver, state))
    results = [gm.solve(*case) for case in cases]
    with _NATIVE_CLOCK.watching():
        over_cases(benchmark, gm.solve, cases)
    benchmark.extra_info |= {
        "nodes": nodes,
        "moved": moved,
        "start": start,
        "iterations": torch.cat([result.iterations for result in results]).double().median().item(),
        "objective": torch.cat([result.objective for result in results]).mean().item(),
        "gap": torch.cat([result.gap for result in results]).max().item(),
    }
