"""Sparse quadratic problems without structure, complete matchings: what a search finds in the time it takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphmatch as gm
from benchmarks.cases import Instance, unstructured_instance
from benchmarks.peers import build_pylibmgm, installed, solve_pylibmgm
from benchmarks.timing import NativeClock, over_cases

_SIZES = [20, 50, 100]
_SEEDS = range(3)
_EFFORTS = [0.1, 1.0, 10.0]
_NATIVE_CLOCK = NativeClock()

pytestmark = [pytest.mark.benchmark(group="qap-unstructured"), pytest.mark.parametrize("nodes", _SIZES)]


def _instances(nodes: int) -> list[Instance]:
    return [unstructured_instance(nodes, seed) for seed in _SEEDS]


def _describe(benchmark: Any, solver: str, nodes: int, assignments: list[np.ndarray], **others: object) -> None:
    last = zip(_instances(nodes), assignments[-len(_SEEDS) :], strict=True)
    objectives = [instance.objective(found) for instance, found in last]
    benchmark.extra_info |= {"solver": solver, "nodes": nodes, "seeds": len(_SEEDS), **others}
    benchmark.extra_info["objective"] = float(np.mean(objectives))


@pytest.mark.benchmark(group="qap-unstructured", timer=_NATIVE_CLOCK)
@pytest.mark.parametrize("effort", _EFFORTS)
def test_portfolio(benchmark: Any, effort: float, nodes: int):
    solver = gm.Portfolio(effort=effort, threads=1)
    found: list[gm.MatchResult] = []
    cases = [(instance.problem(),) for instance in _instances(nodes)]
    with _NATIVE_CLOCK.watching():
        over_cases(benchmark, lambda problem: found.append(gm.solve(problem, solver)), cases, repeats=3)
    gap = max(result.gap.item() for result in found[-len(_SEEDS) :])
    assignments = [result.assignment[0].numpy() for result in found]
    _describe(benchmark, "graphmatch", nodes, assignments, effort=effort, gap=gap)


@pytest.mark.skipif(not installed("pylibmgm"), reason="pylibmgm is not installed")
def test_pylibmgm(benchmark: Any, nodes: int):
    models = [(build_pylibmgm(instance),) for instance in _instances(nodes)]
    found: list[np.ndarray] = []
    over_cases(benchmark, lambda model: found.append(solve_pylibmgm(model)), models, repeats=1)
    _describe(benchmark, "pylibmgm", nodes, found)


@pytest.mark.skipif(not installed("lpmp_py"), reason="lpmp_py is not installed")
def test_lpmp(benchmark: Any, nodes: int):
    found: list[np.ndarray] = []
    cases = [(instance.problem(),) for instance in _instances(nodes)]
    solver = gm.LPMP()
    over_cases(benchmark, lambda problem: found.append(_assignment(problem, solver)), cases, repeats=1)
    _describe(benchmark, "lpmp_py", nodes, found)


def _assignment(problem: gm.LawlerProblem, solver: gm.Solver) -> np.ndarray:
    return gm.solve(problem, solver).assignment[0].numpy()
