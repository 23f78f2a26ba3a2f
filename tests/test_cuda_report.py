"""The report of the benchmarks on a GPU, made of a few rows written by hand."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
ORIGIN = {"device": "Test GPU", "commit": "abc", "threads": 1, "load": 0.5, "versions": {"torch": "9.9"}}
Row = dict[str, Any]


def row(group: str, median: float = 1.0, **info: object) -> Row:
    params = {"family": info.pop("family")} if "family" in info else None
    return {
        "group": group,
        "name": group,
        "params": params,
        "stats": {"median": median},
        "extra_info": {**ORIGIN, **info},
    }


def lap(nodes: int, batch: int, microseconds: float, scipy: float = 100.0) -> Row:
    times = {"microseconds_per_problem": microseconds, "scipy_microseconds_per_problem": scipy}
    return row("lap-cuda", nodes=nodes, batch=batch, **times)


def sparse(nodes: int, noise: float, certified: float) -> Row:
    rates = {"problems_per_second": 4e5, "certified_per_second": 4e5 * certified, "cpu_problems_per_second": 4e3}
    quality = {"certified": certified, "objective": -9.9, "cpu_objective": -10.0, "iterations": 3.0}
    return row("qap-sparse-cuda", solver="Portfolio", nodes=nodes, noise=noise, batch=64, **rates, **quality)


def step(place: str, seconds: float) -> Row:
    info = {"matmul_precision": "high", "step_threads": 2, "nodes": 64, "dim": 8, "loss": 0.25, "gpu_milliseconds": 1.0}
    return row("alignment-step-cuda", seconds, solved_on=place, **info)


GAPS = {"mean_gap": 0.01, "cpu_tabu_mean_gap": 0.02, "cpu_tabu_ms_per_problem": 50.0}
ROWS = [
    lap(64, 1024, 1.0),
    lap(64, 1, 150.0),
    lap(16, 1, 250.0),
    sparse(16, 0.3, 0.5),
    sparse(32, 1.0, 1.0),
    row("qap-cuda-batch", family="grid", nodes=64, batch=10, steps=500, seconds=0.1, **GAPS),
    row("qap-cuda-step", nodes=30, batch=1, us_per_step=2.0),
    row("qap-cuda-step", nodes=64, batch=8, us_per_step=4.0),
    step("CUDA graph", 0.002),
    step("CPU", 0.02),
]


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[list[Row] | None], tuple[int, str]]:
    """Writes the rows, makes the report and returns the exit code with its text."""
    monkeypatch.syspath_prepend(ROOT)
    pytest.importorskip("benchmarks")
    main = importlib.import_module("benchmarks.cuda_report").main

    def make(rows: list[Row] | None) -> tuple[int, str]:
        if rows is not None:
            run = {"datetime": "2030-01-02T03:04:05", "benchmarks": rows}
            (tmp_path / "cuda.json").write_text(json.dumps(run), encoding="utf-8")
        code, made = main(tmp_path), tmp_path / "cuda.md"
        return code, made.read_text(encoding="utf-8") if made.exists() else ""

    return make


def test_sets_targets_and_quality_beside_the_figures(report, tmp_path: Path):
    code, text = report(ROWS)
    assert code == 0
    assert "Test GPU; 2030-01-02; torch 9.9; commit abc; load at most 0.5" in text
    assert "| linear assignment, 64 x 64, batches of 1024 | at most 1.5 µs each | 1 | yes |" in text
    assert "| at most 2 times SciPy's time | n = 16: 2.5; n = 64: 1.5 | **1 of 2** |" in text
    assert "| at least 300,000 per second | Portfolio: 200,000 | **no** |" in text
    assert "| alignment step, N = 64 | at most 3 ms | CUDA graph, high: 2 | yes |" in text
    assert "| 0.3 | 16 | 64 | `Portfolio` | 400,000 | 200,000 | 50.0% | 4,000 | 100 | -9.9000 | 0.01 | 3.0 |" in text
    assert "| grid | 64 | 10 | 500 | 0.1 | 10 | 50 | 5 | 1.00% | 2.00% |" in text
    assert "| 30 | 2 | – | 0.5 | – |" in text
    assert "| 64 | 8 | CUDA graph | high | 2 | 1 | 10 | 0.2500 |" in text
    assert (tmp_path / "cuda.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("kept", sorted({each["group"] for each in ROWS}))
def test_leaves_out_what_was_not_measured(report, kept: str):
    unfinished = row(kept, nodes=16)
    code, text = report([unfinished, *(each for each in ROWS if each["group"] == kept)])
    assert code == 0
    assert sum(line.startswith("## ") and line != "## Targets" for line in text.splitlines()) == 1
    assert ("cuda.png" in text) == (not kept.startswith("qap-cuda"))


@pytest.mark.parametrize("rows", [None, [], [row("another")]])
def test_says_what_to_run_where_there_are_no_results(report, rows, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    code, text = report(rows)
    assert (code, text) == (1, "")
    error = capsys.readouterr().err
    assert str(tmp_path / "cuda.json") in error
    assert "Run `make bench-cuda`" in error
