"""The command line of graphmatch."""

from __future__ import annotations

import io
import json
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

import graphmatch as gm
from graphmatch import cli
from graphmatch.cli import console, solvers

SQUARE = "p 2 2 4 1\na 0 0 0 -1\na 1 0 1 -2\na 2 1 0 -0.5\na 3 1 1 -1\ne 1 2 -3\n"
ALONE = "p 3 2 1 0\na 0 1 0 -4\n"
THREE_GRAPHS = "".join(f"gm {i} {j}\np 1 1 1 0\na 0 0 0 {i - j}\n" for i, j in [(0, 1), (0, 2), (1, 2)])


@pytest.fixture
def square(tmp_path: Path) -> Path:
    """A file of one problem: the best matching is 1 0 and costs -5.5."""
    path = tmp_path / "square.dd"
    path.write_text(SQUARE)
    return path


@pytest.fixture
def three_graphs(tmp_path: Path) -> Path:
    path = tmp_path / "three.dd"
    path.write_text(THREE_GRAPHS)
    return path


def rows_of(printed: str) -> dict[str, str]:
    """The names and values of a printed table."""
    pairs = [line.split("  ", maxsplit=1) for line in printed.splitlines()]
    return {name: value.strip() for name, value in pairs}


def only_line(capsys: pytest.CaptureFixture) -> str:
    """The one line on standard error; nothing is on standard output."""
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("graphmatch: error: ")
    assert printed.err.count("\n") == 1
    return printed.err


@dataclass(frozen=True)
class Stub:
    """A solver that answers what a test wants to see printed."""

    change: Any
    seed: int = 0

    def solve(self, problem: gm.Problem) -> gm.MatchResult:
        return self.change(gm.DualAscent().solve(problem))


def use_stub(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    class Changed(Stub):
        def __init__(self, seed: int = 0):
            super().__init__(change, seed)

    monkeypatch.setitem(solvers.SOLVERS, "DualAscent", Changed)
    monkeypatch.setattr(solvers, "DEFAULT_SOLVER", "DualAscent")


def test_info_says_what_is_installed(capsys: pytest.CaptureFixture):
    assert cli.main(["info"]) == 0
    printed = capsys.readouterr().out
    rows = dict(line.split(maxsplit=1) for line in printed.splitlines())
    assert rows["graphmatch"] == gm.__version__
    assert rows["torch"] == torch.__version__
    assert "CUDA module" in printed
    for name in ("LAP", "DualAscent", "BruteForce"):
        assert name in rows["solvers"]
    for name in ("AdaptiveIMLE", "BlackBox", "FenchelYoung", "IMLE", "NegativeIdentity", "StraightThroughSinkhorn"):
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
    printed = capsys.readouterr().out
    assert "info" in printed
    assert "solve" in printed


@pytest.mark.parametrize(
    "arguments",
    [
        ["unknown"],
        ["info", "--unknown"],
        ["solve"],
        ["solve", "a.dd", "b.dd"],
        ["solve", "a.dd", "--solver", "None"],
        ["solve", "a.dd", "--thre", "2"],
        ["solve", "a.dd", "--threads", "two"],
        ["solve", "a.dd", "--seed", "1.5"],
    ],
    ids=str,
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert "usage: graphmatch" in capsys.readouterr().err


def test_info_for_programs(capsys: pytest.CaptureFixture):
    assert cli.main(["info", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["graphmatch"] == gm.__version__
    assert content["solvers"] == list(solvers.SOLVERS)
    assert content["threads"] == torch.get_num_threads()


def test_info_about_a_file(square: Path, capsys: pytest.CaptureFixture):
    assert cli.main(["info", str(square)]) == 0
    rows = rows_of(capsys.readouterr().out)
    assert rows["nodes"] == "2 x 2"
    assert rows["assignments"] == "4, 100 % of all"
    assert rows["costs of assignments"] == "-2 to -0.5"
    assert rows["pairs with a cost"] == "1, 50 % of those a matching can use"
    assert rows["costs of pairs"] == "-3 to -3"
    assert cli.main(["info", str(square), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "file": str(square),
        "nodes": [2, 2],
        "assignments": 4,
        "assignment_density": 1.0,
        "assignment_costs": [-2.0, -0.5],
        "pairs": 1,
        "pair_density": 0.5,
        "pair_costs": [-3.0, -3.0],
        "edges": [1, 1],
    }


def test_info_about_a_file_of_several_graphs(three_graphs: Path, capsys: pytest.CaptureFixture):
    assert cli.main(["info", str(three_graphs)]) == 0
    rows = rows_of(capsys.readouterr().out)
    assert rows["graphs"] == "3 of 1 nodes"
    assert rows["pair problems"] == "3 of 3"
    assert rows["costs of assignments"] == "-2 to -1"
    assert rows["costs of pairs"] == "none"
    assert cli.main(["info", "--json", str(three_graphs)]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["graphs"] == 3
    assert [problem["graphs"] for problem in content["problems"]] == [[0, 1], [0, 2], [1, 2]]


def test_info_about_a_file_without_nodes(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "empty.dd").write_text("p 0 0 0 0\n")
    assert cli.main(["info", str(tmp_path / "empty.dd")]) == 0
    assert "0 x 0" in capsys.readouterr().out


@pytest.mark.parametrize("solver", [None, "DualAscent", "BruteForce"])
def test_solve_prints_the_answer(square: Path, capsys: pytest.CaptureFixture, solver: str | None):
    assert cli.main(["solve", str(square), *(["--solver", solver] if solver else [])]) == 0
    rows = rows_of(capsys.readouterr().out)
    assert rows["file"] == str(square)
    assert rows["solver"] == (solver or solvers.DEFAULT_SOLVER)
    assert rows["status"] == f"OPTIMAL: {gm.Status.OPTIMAL.text}"
    assert rows["objective"] == "-5.5"
    assert float(rows["lower bound"]) == pytest.approx(-5.5, abs=1e-4)
    assert "relative" in rows["gap"]
    assert "absolute" in rows["gap"]
    assert rows["nodes"] == "2 x 2, 2 matched"
    assert rows["assignment"] == "1 0"
    assert float(rows["seconds"]) >= 0


def test_solve_for_programs(square: Path, capsys: pytest.CaptureFixture):
    options = ["--max-gap", "1e-3", "--time-limit", "10", "--max-iterations", "50", "--threads", "2", "--quiet"]
    assert cli.main(["solve", str(square), "--json", "--solver", "DualAscent", *options]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    answer = json.loads(printed.out)
    assert answer["assignment"] == [1, 0]
    assert answer["objective"] == -5.5
    assert answer["lower_bound"] <= -5.5
    assert answer["absolute_gap"] == -5.5 - answer["lower_bound"]
    assert answer["gap"] <= 1e-3
    assert answer["status"] == "OPTIMAL"
    assert answer["solver"] == "DualAscent"
    assert answer["iterations"] <= 50


def test_unmatched_nodes_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture):
    path = tmp_path / "alone.dd"
    path.write_text(ALONE)
    for solver in ("LAP", "DualAscent"):
        assert cli.main(["solve", str(path), "--solver", solver]) == 0
        rows = rows_of(capsys.readouterr().out)
        assert rows["assignment"] == "- 0 -"
        assert rows["objective"] == "-4"
    assert cli.main(["solve", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["assignment"] == [-1, 0, -1]


def test_the_stage_is_shown_where_the_solver_has_one(square: Path, capsys: pytest.CaptureFixture):
    assert cli.main(["solve", str(square), "--seed", "7"]) == 0
    assert rows_of(capsys.readouterr().out)["stage"] == "dual ascent"
    assert cli.main(["solve", str(square), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["stage"] == "dual ascent"
    assert cli.main(["solve", str(square), "--solver", "BruteForce", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["stage"] is None


@pytest.mark.parametrize("status", [gm.Status.INFEASIBLE, gm.Status.INVALID])
def test_no_valid_matching_is_code_1(
    square: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, status: gm.Status
):
    def without_matching(result: gm.MatchResult) -> gm.MatchResult:
        infinite = torch.full_like(result.objective, torch.inf)
        statuses = torch.full_like(result.status, int(status))
        nothing = torch.full_like(result.assignment, -1)
        return replace(result, assignment=nothing, objective=infinite, lower_bound=infinite, status=statuses)

    use_stub(monkeypatch, without_matching)
    assert cli.main(["solve", str(square)]) == 1
    rows = rows_of(capsys.readouterr().out)
    assert rows["status"] == f"{status.name}: {status.text}"
    assert rows["objective"] == "none"
    assert cli.main(["solve", str(square), "--json"]) == 1
    answer = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert answer["objective"] is answer["gap"] is answer["absolute_gap"] is None


def test_an_open_gap_is_code_0(square: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    use_stub(monkeypatch, lambda result: replace(result, status=torch.full_like(result.status, gm.Status.FEASIBLE)))
    assert cli.main(["solve", str(square)]) == 0
    assert "FEASIBLE: " in capsys.readouterr().out


def test_an_interrupt_is_code_130(square: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    def interrupt(result: gm.MatchResult) -> gm.MatchResult:
        raise KeyboardInterrupt

    use_stub(monkeypatch, interrupt)
    assert cli.main(["solve", str(square)]) == 130
    assert "interrupted" in only_line(capsys)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--solver", "BruteForce", "--threads", "2"], "--threads must be left out with --solver BruteForce"),
        (
            ["--solver", "LAP", "--max-gap", "0.1"],
            "--max-gap must be left out with --solver LAP, which takes --threads",
        ),
        (["--solver", "LAP"], "square.dd must hold no costs of pairs with --solver LAP; got 1 of them"),
        (["--solver", "DualAscent", "--time-limit", "-1"], "DualAscent: time_limit must be positive seconds; got -1.0"),
        (["--solver", "DualAscent", "--time-limit", "nan"], "DualAscent: time_limit must be positive seconds; got nan"),
        (["--solver", "DualAscent", "--threads", "0"], "DualAscent: threads must be at least 1; got 0"),
        (["--solver", "FAQ"], "FAQ: problem must be a KoopmansBeckmannProblem; got LawlerProblem"),
        (["--seed", str(2**63)], f"Portfolio: seed must fit into 64 bits; got {2**63}"),
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(
    square: Path, capsys: pytest.CaptureFixture, options: list[str], text: str
):
    assert cli.main(["solve", str(square), *options]) == 2
    assert text in only_line(capsys)


@pytest.mark.parametrize("command", ["solve", "info"])
def test_files_that_cannot_be_read_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture, command: str):
    broken, cut = tmp_path / "broken.dd", tmp_path / "cut.dd.xz"
    broken.write_text("p 1 1 1 0\na 0 0 0 x\n")
    cut.write_bytes(b"\xfd7zXZ")
    for path, text in [
        (tmp_path / "absent.dd", "absent.dd: No such file or directory"),
        (tmp_path, "Is a directory"),
        (broken, "line 2 of broken.dd must have the form"),
        (cut, "cut.dd.xz must be a complete .xz file"),
    ]:
        assert cli.main([command, str(path)]) == 2
        assert text in only_line(capsys)
    if os.geteuid() != 0:  # nothing is unreadable for root
        broken.chmod(0)
        assert cli.main([command, str(broken)]) == 2
        assert "broken.dd: Permission denied" in only_line(capsys)


@pytest.mark.parametrize("method", [None, *solvers.METHODS])
def test_a_file_of_several_graphs_gets_labels(three_graphs: Path, method: str | None, capsys: pytest.CaptureFixture):
    chosen = [] if method is None else ["--method", method]
    assert cli.main(["solve", str(three_graphs), *chosen]) == 0
    rows = rows_of(capsys.readouterr().out)
    assert rows["method"] == (method or "Best")
    assert rows["objective"] == "-4"
    assert [rows[f"labels of {graph}"] for graph in range(3)] == ["0", "0", "0"]
    assert cli.main(["solve", str(three_graphs), *chosen, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["labels"] == [[0], [0], [0]]
    assert content["consistency"] == 1.0
    assert sum(pair["objective"] for pair in content["pairs"]) == content["objective"] == -4.0
    assert content["lower_bound"] is None or content["lower_bound"] <= -4.0


def test_an_open_gap_of_an_objective_of_zero_is_absolute(
    three_graphs: Path, square: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    def at_zero(*arguments: Any) -> gm.MultiGraphResult:
        result = gm.solve_multigraph(*arguments)
        nothing = torch.zeros_like(result.pair_objectives)
        return replace(result, pair_objectives=nothing, pair_bounds=nothing - 0.5)

    monkeypatch.setattr("graphmatch.cli.multigraph.solve_multigraph", at_zero)
    use_stub(
        monkeypatch,
        lambda result: replace(result, objective=0 * result.objective, lower_bound=-1.5 + 0 * result.objective),
    )
    for path in (three_graphs, square):
        assert cli.main(["solve", str(path)]) == 0
        assert rows_of(capsys.readouterr().out)["gap"] == "none relative, 1.5 absolute"
    assert cli.main(["solve", str(three_graphs), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["absolute_gap"] == 1.5


def test_options_of_methods_are_checked(three_graphs: Path, square: Path, capsys: pytest.CaptureFixture):
    file = str(three_graphs)
    for arguments, text in [
        ([file, "--method", "Star", "--effort", "2"], "--effort must be left out with --method Star"),
        ([file, "--method", "LocalSearch", "--solver", "Tabu"], "--solver must be left out with --method LocalSearch"),
        ([file, "--starts", "2"], None),
        ([str(square), "--method", "Best"], "--method must be left out for a file of one pair of graphs"),
    ]:
        if text is None:
            with pytest.raises(SystemExit):
                cli.main(["solve", *arguments])
            capsys.readouterr()
            continue
        assert cli.main(["solve", *arguments]) == 2
        assert text in only_line(capsys)
    assert cli.main(["solve", file, "--solver", "DualAscent", "--method", "AllPairs", "--max-gap", "0.1"]) == 0


def test_names_of_solvers_are_public():
    default = "Portfolio" if hasattr(gm, "Portfolio") else "DualAscent"
    assert default == solvers.DEFAULT_SOLVER
    for name, kind in solvers.SOLVERS.items():
        assert getattr(gm, name) is kind
        assert name in gm.__all__


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_time_is_shown_on_terminals_once_it_is_long(monkeypatch: pytest.MonkeyPatch):
    for first_shown, quiet, limit, expected in [
        (0.0, False, 60, "solving: 0 s of at most 60 s"),
        (0.0, False, None, "solving: 0 s"),
        (0.0, True, None, ""),
        (60.0, False, None, ""),
    ]:
        monkeypatch.setattr(console, "_FIRST_SHOWN", first_shown)
        terminal = Terminal()
        shown = console.threading.Event()
        write = terminal.write
        monkeypatch.setattr(terminal, "write", lambda text, write=write, shown=shown: (write(text), shown.set()))
        monkeypatch.setattr(sys, "stderr", terminal)
        with console.elapsed_time(limit, quiet):
            assert not expected or shown.wait(30)
        assert terminal.getvalue() == (f"\r\x1b[K{expected}\r\x1b[K" if expected else "")
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    before = console.threading.active_count()
    with console.elapsed_time(None, False):
        assert console.threading.active_count() == before
