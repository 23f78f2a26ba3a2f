"""The command line of graphmatch."""

from __future__ import annotations

import pytest

import graphmatch as gm
from graphmatch.cli import main


def test_info_names_versions_modules_solvers_and_estimators(capsys: pytest.CaptureFixture[str]):
    assert main(["info"]) == 0
    shown = capsys.readouterr().out
    for word in (gm.__version__, "CPU module", "CUDA module", "DualAscent", "IMLE", "threads"):
        assert word in shown


@pytest.mark.parametrize(("arguments", "code"), [([], 2), (["nonsense"], 2), (["--help"], 0), (["--version"], 0)])
def test_usage(arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == code
    captured = capsys.readouterr()
    assert "graphmatch" in captured.out + captured.err
