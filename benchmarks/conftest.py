"""One thread for everybody, and rows that say what they were measured with."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before numpy and torch load their libraries.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest
import torch

from benchmarks.machine import RESULTS, provenance
from benchmarks.output import write_rows
from benchmarks.resources import watching
from benchmarks.rows import joined

torch.set_num_threads(1)

_JSON = RESULTS / "benchmark.json"
_PARTIAL = RESULTS / ".benchmark.json.partial"
_left_out: dict[str, list[str]] = {}


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Writes the JSON into the results folder unless another place was asked for."""
    if config.option.benchmark_json is None:
        RESULTS.mkdir(exist_ok=True)
        config.option.benchmark_json = str(_PARTIAL)


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> Iterator[None]:
    """Puts the rows into the results when every benchmark passed; another run leaves them as they were."""
    yield
    written = Path(session.config.option.benchmark_json)
    if exitstatus == 0 and not written.exists():
        # The plugin writes nothing where all benchmarks were left out, which is worth knowing.
        write_rows(written, {"benchmarks": [], "left_out": _left_out})
    if written != _PARTIAL:
        return
    if exitstatus == 0:
        stored = json.loads(_JSON.read_text(encoding="utf-8")) if _JSON.exists() else None
        write_rows(_JSON, joined(stored, json.loads(_PARTIAL.read_text(encoding="utf-8"))))
    _PARTIAL.unlink(missing_ok=True)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remembers why benchmarks are left out."""
    if report.skipped and isinstance(report.longrepr, tuple):
        reasons = _left_out.setdefault(report.nodeid.partition("::")[0], [])
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if reason not in reasons:
            reasons.append(reason)


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    """Drops what names the host and what nobody compares."""
    machine_info.pop("node", None)
    for key in ("flags", "count"):
        machine_info["cpu"].pop(key, None)


def pytest_benchmark_update_json(output_json: dict[str, Any]) -> None:
    """Adds versions, machine and commit to every row, so that rows can be moved and merged, and what was left out."""
    origin = provenance()
    for row in output_json["benchmarks"]:
        row["extra_info"] = origin | row["extra_info"]
        # The statistics stay; single rounds would make the file ten times as long.
        del row["stats"]["data"]
    output_json["left_out"] = _left_out


@pytest.fixture(autouse=True)
def _resources(benchmark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Notes load, threads, memory and busy cores of the rounds, where the benchmark itself does not know better.

    Where the load was above the number of threads in use, times are too long.
    """
    benchmark.extra_info["load"] = round(os.getloadavg()[0], 2)
    run_rounds = benchmark.pedantic

    def pedantic(*arguments: Any, **options: Any) -> Any:
        # Solvers take as many threads as PyTorch has, unless they are told otherwise.
        benchmark.extra_info["threads"] = torch.get_num_threads()
        with watching() as usage:
            answer = run_rounds(*arguments, **options)
        benchmark.extra_info["memory_bytes"] = usage.memory_bytes
        benchmark.extra_info["busy_cores"] = round(usage.busy_cores, 3)
        return answer

    monkeypatch.setattr(benchmark, "pedantic", pedantic)
