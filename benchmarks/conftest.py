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

torch.set_num_threads(1)

_JSON = RESULTS / "benchmark.json"
_PARTIAL = RESULTS / ".benchmark.json.partial"


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Writes the JSON into the results folder unless another place was asked for."""
    if config.option.benchmark_json is None:
        RESULTS.mkdir(exist_ok=True)
        config.option.benchmark_json = str(_PARTIAL)


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(exitstatus: int) -> Iterator[None]:
    """Gives the JSON its name when every benchmark passed; an interrupted run leaves the last one as it was."""
    yield
    if exitstatus == 0 and _PARTIAL.exists():
        write_rows(_JSON, json.loads(_PARTIAL.read_text(encoding="utf-8")))
    Path(_PARTIAL).unlink(missing_ok=True)


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    """Drops what names the host and what nobody compares."""
    machine_info.pop("node", None)
    for key in ("flags", "count"):
        machine_info["cpu"].pop(key, None)


def pytest_benchmark_update_json(output_json: dict[str, Any]) -> None:
    """Adds versions, machine, threads and commit to every row, so that rows can be moved and merged."""
    origin = provenance()
    for row in output_json["benchmarks"]:
        row["extra_info"] |= origin
        # The statistics stay; single rounds would make the file ten times as long.
        del row["stats"]["data"]


@pytest.fixture(autouse=True)
def _load(benchmark: Any) -> None:
    """Notes how busy the machine was when the row began: above the number of threads in use, times are too long."""
    benchmark.extra_info["load"] = round(os.getloadavg()[0], 2)
