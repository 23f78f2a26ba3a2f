"""Sparse quadratic problems: ExGra instances with noise 0.3, twenty seeds, nodes may stay unmatched at cost 0.

Every round solves the instance of the next seed, so a row's median is the median over the seeds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from itertools import cycle
from typing import Any

import numpy as np
import pytest
import torch

import graphmatch as gm
from benchmarks.cases import Instance, exgra_batch, exgra_instance
from benchmarks.peers import build_pylibmgm, installed, solve_pylibmgm
from graphmatch._native import cpu as native

_NOISE = 0.3
_SEEDS = range(20)
_SIZES = [8, 16, 32, 64]
_MAX_GAP = 1e-4
_SOLVER = gm.DualAscent(max_gap=_MAX_GAP, threads=1)
# Two objectives count as equal within this: solvers add the same costs in different orders.
_ROUNDING = 1e-9

pytestmark = [pytest.mark.benchmark(group="qap-sparse"), pytest.mark.parametrize("nodes", _SIZES)]
needs_pylibmgm = pytest.mark.skipif(not installed("pylibmgm"), reason="pylibmgm is not installed")


@cache
def _instances(nodes: int) -> tuple[Instance, ...]:
    return tuple(exgra_instance(nodes, _NOISE, seed) for seed in _SEEDS)


@cache
def _results(nodes: int) -> tuple[gm.MatchResult, ...]:
    return tuple(gm.solve(instance.problem(), _SOLVER) for instance in _instances(nodes))


@cache
def _objectives(nodes: int) -> np.ndarray:
    """The objectives of graphmatch's matchings by the common judge."""
    pairs = zip(_instances(nodes), _results(nodes), strict=True)
    return np.array([instance.objective(result.assignment[0].numpy()) for instance, result in pairs])


def _over_seeds(benchmark: Any, target: Callable[..., Any], cases: list[tuple[Any, ...]], repeats: int = 5) -> None:
    """Times `target` on one case after the other, `repeats` times. Where it is repeated, the first pass warms up."""
    rounds = cycle(cases)
    warmup = len(cases) if repeats > 1 else 0
    benchmark.pedantic(target, setup=lambda: (next(rounds), {}), rounds=repeats * len(cases), warmup_rounds=warmup)


def _describe(benchmark: Any, solver: str, phase: str, nodes: int) -> None:
    benchmark.extra_info |= {"solver": solver, "phase": phase, "nodes": nodes, "noise": _NOISE, "seeds": len(_SEEDS)}


def _describe_quality(benchmark: Any, nodes: int) -> None:
    gaps = np.array([result.gap.item() for result in _results(nodes)])
    benchmark.extra_info |= {
        "objective": _objectives(nodes).mean(),
        "lower_bound": float(np.mean([result.lower_bound.item() for result in _results(nodes)])),
        "gap": gaps.max(),
        "certified": float((gaps <= _MAX_GAP).mean()),
        "iterations": float(np.median([result.iterations.item() for result in _results(nodes)])),
    }


class NativeClock:
    """A clock that runs only inside the compiled solver: what remains when Python's share is taken away."""

    def __init__(self) -> None:
        self.elapsed = 0.0

    def __call__(self) -> float:
        return self.elapsed

    def watch(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any) -> Any:
            start = time.perf_counter()
            answer = function(*arguments)
            self.elapsed += time.perf_counter() - start
            return answer

        return watched


_NATIVE_CLOCK = NativeClock()


@pytest.fixture
def native_clock(monkeypatch: pytest.MonkeyPatch) -> NativeClock:
    monkeypatch.setattr(native, "lawler_dual_ascent", _NATIVE_CLOCK.watch(native.lawler_dual_ascent))
    return _NATIVE_CLOCK


@pytest.mark.benchmark(group="qap-sparse", timer=_NATIVE_CLOCK)
@pytest.mark.usefixtures("native_clock")
def test_native(benchmark: Any, nodes: int):
    _over_seeds(benchmark, gm.solve, [(instance.problem(), _SOLVER) for instance in _instances(nodes)])
    _describe(benchmark, "graphmatch", "native", nodes)
    _describe_quality(benchmark, nodes)


def test_python(benchmark: Any, nodes: int):
    _over_seeds(benchmark, gm.solve, [(instance.problem(), _SOLVER) for instance in _instances(nodes)])
    _describe(benchmark, "graphmatch", "solve", nodes)
    _describe_quality(benchmark, nodes)


def test_check(benchmark: Any, nodes: int):
    _over_seeds(benchmark, Instance.problem, [(instance,) for instance in _instances(nodes)])
    _describe(benchmark, "graphmatch", "build", nodes)


def test_batch(benchmark: Any, nodes: int):
    """All seeds in one call: the report divides its time by the batch."""
    tensors = exgra_batch(nodes, _NOISE, _SEEDS, torch.float64)
    problem = gm.LawlerProblem(*tensors, unmatched_cost=0.0)
    benchmark.pedantic(gm.solve, (problem, _SOLVER), rounds=5, warmup_rounds=1)
    _describe(benchmark, "graphmatch", "batch", nodes)
    benchmark.extra_info["batch"] = len(_SEEDS)


@needs_pylibmgm
def test_pylibmgm_build(benchmark: Any, nodes: int):
    _over_seeds(benchmark, build_pylibmgm, [(instance,) for instance in _instances(nodes)], repeats=1)
    _describe(benchmark, "pylibmgm", "build", nodes)


@needs_pylibmgm
def test_pylibmgm_solve(benchmark: Any, nodes: int):
    models = [(build_pylibmgm(instance),) for instance in _instances(nodes)]
    found: list[np.ndarray] = []
    _over_seeds(benchmark, lambda model: found.append(solve_pylibmgm(model)), models, repeats=1)
    _describe(benchmark, "pylibmgm", "solve", nodes)
    pairs = zip(_instances(nodes), found, strict=True)
    objectives = np.array([instance.objective(assignment) for instance, assignment in pairs])
    ours = _objectives(nodes)
    benchmark.extra_info |= {
        "objective": objectives.mean(),
        "graphmatch_objective": ours.mean(),
        "graphmatch_never_worse": bool((ours <= objectives + _ROUNDING).all()),
        "graphmatch_better_on": int((ours < objectives - _ROUNDING).sum()),
    }
