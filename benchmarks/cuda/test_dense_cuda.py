"""Dense tabu search on the GPU: time per step, and a batch with the CPU's searches of the same problems beside it."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Any

import pytest
import torch

import graphmatch as gm
from benchmarks.cases import dense_instance

pytestmark = pytest.mark.cuda

_STEPS = 50_000
_BATCH, _NODES = 256, 64
_MATRICES = ("flow", "distance")
_COMPARED = 4  # problems of the batch that the CPU solves as well


def _problem(family: str, nodes: int, batch: int) -> gm.KoopmansBeckmannProblem:
    problems = [dense_instance(family, nodes, seed).problem() for seed in range(batch)]
    return gm.KoopmansBeckmannProblem(*(torch.cat([getattr(each, name) for each in problems]) for name in _MATRICES))


def _on_gpu(problem: gm.KoopmansBeckmannProblem) -> gm.KoopmansBeckmannProblem:
    return gm.KoopmansBeckmannProblem(problem.flow.cuda(), problem.distance.cuda())


def _timed(benchmark: Any, problem: gm.KoopmansBeckmannProblem, solver: gm.Tabu) -> gm.MatchResult:
    def solve() -> gm.MatchResult:
        result = solver.solve(problem)
        torch.cuda.synchronize()
        return result

    result = benchmark.pedantic(solve, rounds=5, warmup_rounds=1)
    benchmark.extra_info |= {"solver": "graphmatch", "device": torch.cuda.get_device_name()}
    return result


@lru_cache
def _gaps_on_the_cpu(family: str) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Returns the portfolio's objectives, those of as many tabu steps, and the milliseconds of those per problem."""
    problem = _problem(family, _NODES, _COMPARED)
    best = gm.solve(problem, gm.Portfolio(threads=1)).objective
    start = time.perf_counter()
    peer = gm.solve(problem, gm.Tabu(steps=_STEPS, restarts=1, threads=1)).objective
    return best, peer, 1000 * (time.perf_counter() - start) / _COMPARED


@pytest.mark.benchmark(group="qap-cuda-step")
@pytest.mark.parametrize("batch", [1, 264])
@pytest.mark.parametrize("nodes", [30, 64, 128])
def test_time_per_step(benchmark: Any, nodes: int, batch: int):
    """One search alone, then two per processor of an H100: microseconds per step of each search."""
    problem = _on_gpu(_problem("grid", nodes, 1))
    copies = gm.KoopmansBeckmannProblem(problem.flow.expand(batch, -1, -1), problem.distance.expand(batch, -1, -1))
    result = _timed(benchmark, copies, gm.Tabu(steps=_STEPS, restarts=1))
    seconds = benchmark.stats.stats.median
    steps = result.iterations.max().item()
    benchmark.extra_info |= {"nodes": nodes, "batch": batch, "steps": steps, "us_per_step": 1e6 * seconds / steps}


@pytest.mark.benchmark(group="qap-cuda-batch")
@pytest.mark.parametrize("family", ["grid", "uniform"])
def test_batch(benchmark: Any, family: str):
    """256 problems of 64 nodes, 50,000 steps each; gaps are relative to the CPU portfolio's values."""
    result = _timed(benchmark, _on_gpu(_problem(family, _NODES, _BATCH)), gm.Tabu(steps=_STEPS, restarts=1))
    best, peer, peer_milliseconds = _gaps_on_the_cpu(family)
    ours = result.objective[:_COMPARED].cpu()
    benchmark.extra_info |= {
        "nodes": _NODES,
        "batch": _BATCH,
        "steps": _STEPS,
        "seconds": benchmark.stats.stats.median,
        "mean_gap": ((ours - best) / best).mean().item(),
        "cpu_tabu_mean_gap": ((peer - best) / best).mean().item(),
        "cpu_tabu_ms_per_problem": peer_milliseconds,
    }
    assert bool((result.lower_bound <= result.objective).all())
