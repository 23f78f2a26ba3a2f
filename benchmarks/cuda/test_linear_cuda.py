"""Linear assignment on the GPU: batches that are there already, with SciPy on the same costs in the same run."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Any

import pytest
import torch

import graphmatch as gm
from benchmarks.peers import LAP_PEERS

# Batch and nodes; a batch of one is what a single call costs.
_BATCHES = [(10_000, 16), (1024, 64), (208, 300), (1, 16), (1, 64), (1, 256), (1, 300)]
_PEER_PROBLEMS = 16


@lru_cache
def _costs(batch: int, nodes: int) -> torch.Tensor:
    return torch.rand(batch, nodes, nodes, generator=torch.Generator().manual_seed(nodes))


@lru_cache
def _scipy(nodes: int) -> tuple[float, torch.Tensor]:
    """Returns SciPy's microseconds per problem and its objectives."""
    costs = _costs(max(batch for batch, size in _BATCHES if size == nodes), nodes)[:_PEER_PROBLEMS].numpy()
    LAP_PEERS["scipy"](costs[:1])
    begin = time.perf_counter()
    assignment = LAP_PEERS["scipy"](costs)
    seconds = time.perf_counter() - begin
    paid = torch.from_numpy(costs).double().gather(2, torch.from_numpy(assignment)[:, :, None])
    return 1e6 * seconds / len(costs), paid.sum((1, 2))


@pytest.mark.cuda
@pytest.mark.benchmark(group="lap-cuda")
@pytest.mark.parametrize(("batch", "nodes"), _BATCHES)
def test_lap_cuda(benchmark: Any, batch: int, nodes: int):
    problem = gm.LinearProblem(_costs(batch, nodes).cuda())
    solver = gm.LAP()

    def solve() -> gm.MatchResult:
        result = solver.solve(problem)
        torch.cuda.synchronize()
        return result

    result = benchmark.pedantic(solve, rounds=20, warmup_rounds=3)
    scipy_microseconds, objective = _scipy(nodes)
    if batch > 1:
        compared = min(batch, _PEER_PROBLEMS)
        torch.testing.assert_close(result.objective[:compared].cpu(), objective[:compared], rtol=1e-12, atol=0)
    assert (result.status == gm.Status.OPTIMAL).all()
    benchmark.extra_info |= {
        "solver": "graphmatch",
        "device": torch.cuda.get_device_name(),
        "nodes": nodes,
        "batch": batch,
        "microseconds_per_problem": 1e6 * benchmark.stats.stats.median / batch,
        "scipy_microseconds_per_problem": scipy_microseconds,
    }
