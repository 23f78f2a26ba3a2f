"""How the cost of every group grows with one size at a time: a row per size, fitted by the report."""

from __future__ import annotations

import time
from typing import Any

import pytest

from benchmarks.growth_cases import THREADS, Sweep, sweeps
from benchmarks.timing import torch_threads

# Seconds that the rounds of a row should take together, and the bounds of their number.
_SECONDS, _LEAST_ROUNDS, _MOST_ROUNDS = 0.5, 3, 25


def _cases() -> list[Any]:
    return [
        pytest.param(sweep, value, id=f"{sweep.group}-{sweep.axis}-{value}")
        for sweep in sweeps()
        for value in sweep.values
    ]


@pytest.mark.benchmark(group="growth")
@pytest.mark.parametrize(("sweep", "value"), _cases())
def test_growth(benchmark: Any, sweep: Sweep, value: int):
    work = sweep.make(value)
    with torch_threads(value if sweep.axis == THREADS else 1):
        work.run()
        start = time.perf_counter()
        work.run()
        once = max(time.perf_counter() - start, 1e-6)
        rounds = min(max(int(_SECONDS / once), _LEAST_ROUNDS), _MOST_ROUNDS)
        answer = benchmark.pedantic(work.run, rounds=rounds)
    benchmark.extra_info |= {
        "of": sweep.group,
        "axis": sweep.axis,
        "value": value,
        "fixed": sweep.fixed,
        **work.judge(answer),
    }
