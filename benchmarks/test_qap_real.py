"""Real instances in the `.dd` format, one by one, against their published values. Skipped without `GRAPHMATCH_DATA`."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import pytest

import graphmatch as gm
from benchmarks.timing import NativeClock, over_cases

_MAX_GAP = 1e-3
_SOLVER = gm.Portfolio(max_gap=1e-4, threads=1)
_NATIVE_CLOCK = NativeClock()


def _published() -> list[Any]:
    """Returns files with the values to reach; a skipped one where the data is not there."""
    index = _folder() / "index.csv"
    if not index.exists():
        reason = "GRAPHMATCH_DATA names no folder with graph_matching_dd"
        return [pytest.param("", 0.0, marks=pytest.mark.skip(reason=reason), id="none")]
    with index.open(encoding="utf-8", newline="") as table:
        rows = [row for row in csv.DictReader(table) if row["n_pairwise_problems"] == "1"]
    return [(row["file"], float(row["benchmark_best_value_300s"])) for row in rows]


def _folder() -> Path:
    return Path(os.environ.get("GRAPHMATCH_DATA", "")) / "graph_matching_dd"


@pytest.mark.benchmark(group="qap-real", timer=_NATIVE_CLOCK)
@pytest.mark.parametrize(("file", "published"), _published())
def test_published_value(benchmark: Any, file: str, published: float):
    problem = gm.io.read_dd(_folder() / file)
    with _NATIVE_CLOCK.watching():
        over_cases(benchmark, gm.solve, [(problem, _SOLVER)], repeats=7)
    result = gm.solve(problem, _SOLVER)
    excess = (result.objective.item() - published) / abs(published)
    benchmark.extra_info |= {
        "instance": file.removesuffix(".xz").removesuffix(".dd"),
        "nodes": max(problem.unary_costs.shape[1:]),
        "objective": result.objective.item(),
        "published": published,
        "reached": excess <= 1e-6,
        "gap": result.gap.item(),
        "certified": result.gap.item() <= _MAX_GAP,
        "stage": result.stages[0].name,
    }
