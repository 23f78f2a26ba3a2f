"""Linear assignment: one batched call against the peers, 64 square matrices with few ties and with many."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch

import graphmatch as gm
from benchmarks.peers import LAP_PACKAGES, LAP_PEERS, installed
from benchmarks.timing import torch_threads

_BATCH = 64


def _integers(costs: np.ndarray) -> np.ndarray:
    """Whole numbers from 0 to n / 10."""
    return np.floor(costs * (costs.shape[1] // 10 + 1))


def _reduced(costs: np.ndarray) -> np.ndarray:
    """The costs less their optimal duals, as dual ascent sees them: the optimum is 0."""
    state = gm.solve(gm.LinearProblem(torch.from_numpy(costs))).state
    assert isinstance(state, gm.LinearState)
    reduced = costs - state.row_duals.numpy()[:, :, None] - state.column_duals.numpy()[:, None, :]
    return np.where(reduced < 1e-12, 0.0, reduced)


_FAMILIES = {"uniform": lambda costs: costs, "integers": _integers, "reduced": _reduced}


@lru_cache
def _costs(family: str, nodes: int, dtype: str) -> np.ndarray:
    uniform = np.random.default_rng(nodes).random((_BATCH, nodes, nodes))
    return _FAMILIES[family](uniform).astype(dtype)


def _total(costs: np.ndarray, assignment: np.ndarray) -> float:
    return float(np.take_along_axis(costs, assignment[:, :, None], axis=2).sum(dtype=np.float64))


@lru_cache
def _best(family: str, nodes: int, dtype: str) -> float:
    costs = _costs(family, nodes, dtype)
    return _total(costs, LAP_PEERS["scipy"](costs))


def _graphmatch(costs: np.ndarray) -> np.ndarray:
    return gm.solve(gm.LinearProblem(torch.from_numpy(costs))).assignment.numpy()


_SOLVERS = {"graphmatch": _graphmatch, "graphmatch, two threads": _graphmatch, **LAP_PEERS}


# With float32 costs the two ways to call lapjv are one; POT turns them into float64 first.
_CASES = [
    (solver, dtype)
    for dtype in ("float64", "float32")
    for solver in _SOLVERS
    if (solver, dtype) not in {("lapjv-single", "float32"), ("POT", "float32")}
]
# Solvers that take seconds for the largest matrices are timed there once.
_SLOW = {"POT"}


def _if_installed(solver: str, dtype: str) -> Any:
    package = LAP_PACKAGES.get(solver, solver) if solver in LAP_PEERS else "graphmatch"
    missing = pytest.mark.skipif(not installed(package), reason=f"{solver} is not installed")
    return pytest.param(solver, dtype, marks=missing)


@pytest.mark.benchmark(group="lap")
@pytest.mark.parametrize("nodes", [32, 128, 512])
@pytest.mark.parametrize("family", _FAMILIES)
@pytest.mark.parametrize(("solver", "dtype"), [_if_installed(*case) for case in _CASES])
def test_lap(benchmark: Any, solver: str, dtype: str, family: str, nodes: int):
    costs = _costs(family, nodes, dtype)
    is_large = nodes > 128
    rounds, warmup = (1, 0) if is_large and solver in _SLOW else (3, 1) if is_large else (9, 2)
    with torch_threads(2 if solver.endswith("two threads") else 1):
        assignment = benchmark.pedantic(_SOLVERS[solver], (costs,), rounds=rounds, warmup_rounds=warmup)
    best, total = _best(family, nodes, dtype), _total(costs, assignment)
    benchmark.extra_info |= {
        "solver": solver,
        "nodes": nodes,
        "family": family,
        "dtype": dtype,
        "batch": _BATCH,
        "objective": total / _BATCH,
        # Per node; a relative difference means nothing where the optimum is 0.
        "excess": (total - best) / (_BATCH * nodes),
    }
