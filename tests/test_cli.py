"""The command line of graphmatch."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import graphmatch as gm
from graphmatch import cli


def test_info_says_what_is_installed(capsys: pytest.CaptureFixture):
    assert cli.main(["info"]) == 0
    printed = capsys.readouterr().out
    rows = dict(line.split(maxsplit=1) for line in printed.splitlines())
    assert rows["graphmatch"] == gm.__version__
    assert rows["torch"] == torch.__version__
    assert "CUDA module" in printed
    for name in ("LAP", "DualAscent", "BruteForce"):
        assert name in rows["solvers"]
    for name in ("BlackBox", "IMLE"):
        assert name in rows["gradients"]
    assert rows["threads"].startswith(str(torch.get_num_threads()))


def test_version(capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"graphmatch {gm.__version__}\n"


def test_help_names_the_commands(capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--help"])
    assert stopped.value.code == 0
    assert "info" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["unknown"], ["info", "--unknown"]], ids=str)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert "usage: graphmatch" in capsys.readouterr().err


def test_the_installed_command_runs():
    code = "import sys; from graphmatch.cli import main; sys.exit(main(['info']))"
    finished = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert finished.stdout.startswith("graphmatch")
    assert finished.stderr == ""
