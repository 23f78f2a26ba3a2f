"""Linear assignment: one batched call against the peers, 64 square matrices of uniform costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import graphmatch as gm
from benchmarks.peers import LAP_PACKAGES, LAP_PEERS, installed

_BATCH = 64


def _costs(nodes: int) -> np.ndarray:
    return np.random.default_rng(nodes).random((_BATCH, nodes, nodes))


def _total(costs: np.ndarray, assignment: np.ndarray) -> float:
    return float(np.take_along_axis(costs, assignment[:, :, None], axis=2).sum())


def _graphmatch(costs: np.ndarray) -> np.ndarray:
    return gm.solve(gm.LinearProblem(torch.from_numpy(costs)), gm.LAP(threads=1)).assignment.numpy()


_SOLVERS = {"graphmatch": _graphmatch, **LAP_PEERS}


def _if_installed(solver: str) -> Any:
    package = LAP_PACKAGES.get(solver, solver)
    return pytest.param(solver, marks=pytest.mark.skipif(not installed(package), reason=f"{solver} is not installed"))


@pytest.mark.benchmark(group="lap")
@pytest.mark.parametrize("nodes", [16, 64, 128])
@pytest.mark.parametrize("solver", [_if_installed(solver) for solver in _SOLVERS])
def test_lap(benchmark: Any, solver: str, nodes: int):
    costs = _costs(nodes)
    assignment = benchmark.pedantic(_SOLVERS[solver], (costs,), rounds=9, warmup_rounds=2)
    total, best = _total(costs, assignment), _total(costs, LAP_PEERS["scipy"](costs))
    benchmark.extra_info |= {
        "solver": solver,
        "nodes": nodes,
        "batch": _BATCH,
        "objective": total,
        "relative_excess": (total - best) / abs(best),
    }
