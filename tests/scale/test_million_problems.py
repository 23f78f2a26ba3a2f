"""Matching problems on Ray Data: the rows of a plain loop, whatever is killed in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest
import torch

import graphmatch as gm

PROBLEMS, BATCH, NODES, NOISE = 1000, 32, 12, 2.0
OPTIONS = ["--problems", PROBLEMS, "--batch", BATCH, "--nodes", NODES, "--noise", NOISE, "--workers", 2]
BATCHES = -(-PROBLEMS // BATCH)


@pytest.fixture(scope="module")
def million(scripts: Path, load_file: Callable[[Path], ModuleType]) -> Any:
    return load_file(scripts / "million_problems.py")


@pytest.fixture(scope="module")
def looped(million: Any) -> pa.Table:
    """The rows of a plain loop of `gm.solve` over the batches."""
    parts = []
    for first in range(0, PROBLEMS, BATCH):
        count = min(BATCH, PROBLEMS - first)
        result = gm.solve(million.make_problems(first, count, NODES, NOISE))
        columns = {"number": np.arange(first, first + count)}
        columns |= {name: getattr(result, name).numpy() for name in ("objective", "lower_bound", "gap")}
        parts.append(pa.table({**columns, "status": [status.name for status in result.statuses]}))
    return pa.concat_tables(parts).combine_chunks()


def start(scripts: Path, output: Path) -> subprocess.Popen[str]:
    command = [sys.executable, scripts / "million_problems.py", *OPTIONS, "--output", output]
    return subprocess.Popen(
        list(map(str, command)),
        # Ray's workers would give way to whatever else the machine does, for minutes.
        env={**os.environ, "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    said, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert f"{PROBLEMS:,} of {PROBLEMS:,} rows" in said
    return said


@pytest.fixture
def without_leftovers() -> Iterator[list[psutil.Process]]:
    """Ends the processes that a test puts into the list, should they outlive it."""
    started: list[psutil.Process] = []
    yield started
    for process in psutil.wait_procs(started, timeout=1)[1]:
        process.kill()


def test_problems_follow_from_their_numbers(million: Any) -> None:
    together = million.draw(0, 9, 70, seed=3)
    assert np.array_equal(together[4:7], million.draw(4, 3, 70, seed=3))
    assert len(np.unique(together)) == together.size
    assert 0 < together.min() < together.max() < 1
    assert not np.array_equal(together, million.draw(0, 9, 70, seed=4))
    assert abs(million.draw(10**12, 500, 40, seed=3).mean() - 0.5) < 0.01
    one, many = million.make_problems(7, 1, 6, 0.5), million.make_problems(5, 4, 6, 0.5)
    assert torch.equal(one.edges1[0], many.edges1[2])
    torch.testing.assert_close(one.unary_costs[0], many.unary_costs[2])
    torch.testing.assert_close(one.quadratic_costs[0], many.quadratic_costs[2])


def test_rows_are_those_of_single_solves(million: Any) -> None:
    table = million.solve_numbers(20, 8, NODES, NOISE)
    for row in table.to_pylist():
        result = gm.solve(million.make_problems(row["number"], 1, NODES, NOISE))
        assert float(result.objective[0]) == pytest.approx(row["objective"], abs=1e-4)
        assert row["lower_bound"] <= row["objective"]
        assert row["status"] in ("OPTIMAL", "FEASIBLE")
    assert table["number"].to_pylist() == list(range(20, 28))


def test_two_workers_write_the_rows_of_a_plain_loop(scripts: Path, million: Any, looped: pa.Table, tmp_path: Path):
    pytest.importorskip("ray", reason='million_problems needs pip install "graphmatch[scale]"')
    said = finish(start(scripts, tmp_path / "run"))
    assert "Solved 1,000 problems" in said
    assert million.read_results(tmp_path / "run").equals(looped)
    assert all(value > 0 for value in million.core_seconds(tmp_path / "run").values())
    assert sorted(path.suffix for path in (tmp_path / "run").iterdir()) == [".json", *[".parquet"] * BATCHES]
    # Nothing is missing: the same command reads, and does not start Ray.
    assert million.main([*map(str, OPTIONS), "--output", str(tmp_path / "run")]) == 0


@pytest.mark.slow
def test_a_killed_run_goes_on_with_what_is_missing(
    scripts: Path, million: Any, looped: pa.Table, tmp_path: Path, without_leftovers: list[psutil.Process]
) -> None:
    pytest.importorskip("ray", reason='million_problems needs pip install "graphmatch[scale]"')
    output = tmp_path / "run"
    process = start(scripts, output)
    while len(list(output.glob("batch-*.parquet"))) < BATCHES // 4:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    without_leftovers += psutil.Process(process.pid).children(recursive=True)
    addresses = {
        connection.laddr.ip.removeprefix("::ffff:")
        for each in without_leftovers
        for connection in each.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert addresses == {"127.0.0.1"}
    # Two agents look once a minute whether they are still needed; all else ends with the program that started it.
    bound = [each for each in without_leftovers if not each.name().endswith("Agent")]
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert psutil.wait_procs(bound, timeout=30)[1] == []
    process.stdout.close()
    process.stderr.close()
    there = {path: path.stat().st_mtime_ns for path in output.glob("batch-*.parquet")}
    assert BATCHES // 4 <= len(there) < BATCHES, "killed in the middle"
    said = finish(start(scripts, output))
    assert f"Solved {PROBLEMS - len(there) * BATCH:,} problems" in said or (
        batch_is_last(there) and "Solved" in said
    ), "only what was missing is solved"
    assert all(path.stat().st_mtime_ns == changed for path, changed in there.items())
    assert million.read_results(output).equals(looped)


def batch_is_last(paths: dict[Path, int]) -> bool:
    """Whether the last batch, which is shorter, is among them."""
    return any(path.stem.endswith(f"{BATCHES - 1:08d}") for path in paths)


def test_without_ray_a_sentence_says_so(million: Any, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert million.main([*map(str, OPTIONS), "--output", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert error == 'million_problems: Ray must be installed. Install it with `pip install "graphmatch[scale]"`.\n'


def test_other_runs_and_other_folders_are_refused(million: Any, tmp_path: Path, capsys: Any) -> None:
    settings = {"problems": 10, "nodes": 4, "noise": 0.5, "batch": 4}
    assert million.open_output(tmp_path / "run", settings) == [0, 1, 2]
    (tmp_path / "run" / "batch-00000001.parquet").touch()
    (tmp_path / "run" / ".batch-00000002.parquet.host.1.partial").touch()
    assert million.open_output(tmp_path / "run", settings) == [0, 2]
    options = ["--problems", "10", "--nodes", "4", "--output", str(tmp_path / "run")]
    assert million.main([*options, "--batch", "5"]) == 1
    assert "its batch is 4, now it is 5. Give the same options, or another --output." in capsys.readouterr().err
    (tmp_path / "thesis.tex").touch()
    assert million.main(["--output", str(tmp_path)]) == 1
    assert "which holds something else. Choose another." in capsys.readouterr().err
    assert million.main(["--output", str(tmp_path / "thesis.tex")]) == 1
    assert "thesis.tex" in capsys.readouterr().err
    for wrong in (["--workers", "0"], ["--nodes", "1"], ["--noise", "nan"], ["--problems", "many"]):
        with pytest.raises(SystemExit) as stop:
            million.main([*wrong, "--output", str(tmp_path / "other")])
        assert stop.value.code == 2
        assert wrong[0] in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
