"""The command `graphmatch` as a process: what it reads, writes and is told by signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from graphmatch import cli


@pytest.fixture
def square(tmp_path: Path) -> Path:
    """A file of one problem: the best matching is 1 0."""
    path = tmp_path / "square.dd"
    path.write_text("p 2 2 4 1\na 0 0 0 -1\na 1 0 1 -2\na 2 1 0 -0.5\na 3 1 1 -1\ne 1 2 -3\n")
    return path


def run_module(*arguments: str, **options: Any) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "graphmatch", *arguments]
    return subprocess.run(command, check=False, text=True, timeout=60, **{"stderr": subprocess.PIPE, **options})


def test_the_module_runs(square: Path):
    finished = run_module("solve", str(square), "--json", stdout=subprocess.PIPE)
    assert finished.returncode == 0
    assert json.loads(finished.stdout)["assignment"] == [1, 0]
    assert finished.stderr == ""


def test_a_reader_that_leaves_is_no_error(square: Path):
    reading, writing = os.pipe()
    os.close(reading)
    finished = run_module("solve", str(square), stdout=writing)
    os.close(writing)
    assert finished.returncode == 0
    assert finished.stderr == ""


def test_streams_may_be_closed(square: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdout", None)
    assert cli.main(["solve", str(square)]) == 0
    monkeypatch.setattr(sys, "stderr", None)
    assert cli.main(["solve", str(square)]) == 0
    assert cli.main(["solve", str(square.with_name("absent.dd"))]) == 2


def test_names_that_the_output_cannot_show_are_escaped(square: Path):
    renamed = square.rename(square.with_name("carr\xe9.dd"))
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    finished = run_module("solve", str(renamed), stdout=subprocess.PIPE, env=environment)
    assert finished.returncode == 0
    assert "carr\\xe9.dd\n" in finished.stdout
    assert finished.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_a_full_disk_is_an_error(square: Path):
    with Path("/dev/full").open("w") as full:
        finished = run_module("solve", str(square), stdout=full)
    assert finished.returncode == 2
    assert finished.stderr == "graphmatch: error: [Errno 28] No space left on device\n"


def test_control_c_ends_a_solve(square: Path):
    code = """
import sys, time
from dataclasses import dataclass
from graphmatch import cli
from graphmatch.cli import solvers

@dataclass
class Endless:
    def solve(self, problem):
        print("solving", flush=True)
        while True:
            time.sleep(0.05)

solvers.SOLVERS["DualAscent"] = Endless
sys.exit(cli.main(["solve", sys.argv[1], "--solver", "DualAscent"]))
"""
    command = [sys.executable, "-c", code, str(square)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "solving\n"
        process.send_signal(signal.SIGINT)
        printed = process.communicate(timeout=30)
    assert process.returncode == 130
    assert printed == ("", "graphmatch: error: interrupted\n")


def test_the_installed_command_runs():
    code = "import sys; from graphmatch.cli import main; sys.exit(main(['info']))"
    finished = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert finished.stdout.startswith("graphmatch")
    assert finished.stderr == ""
