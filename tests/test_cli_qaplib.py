"""The command line on problems of QAPLIB."""

from __future__ import annotations

import gzip
import json
import lzma
import os
from pathlib import Path

import pytest

import graphmatch as gm
from graphmatch import cli
from graphmatch.cli.qaplib import BestKnown

# The best permutation is 3 1 2 counted from 1 (not its own inverse) and costs 6.
TINY = "3\n\n0 1 0\n0 0 2\n0 0 0\n\n0 2 9\n9 0 9\n2 9 0\n"
BEST = "3 6\n3 1 2\n"


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A problem of three facilities, its solution beside it."""
    path = tmp_path / "tiny.dat"
    path.write_text(TINY)
    path.with_suffix(".sln").write_text(BEST)
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


def answer_of(capsys: pytest.CaptureFixture, *arguments: object) -> dict:
    assert cli.main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out, parse_constant=pytest.fail)


@pytest.mark.parametrize("solver", [None, "BruteForce", "Tabu"])
def test_solve_prints_the_gap_to_the_best_known(tiny: Path, capsys: pytest.CaptureFixture, solver: str | None):
    assert cli.main(["solve", str(tiny), *(["--solver", solver] if solver else [])]) == 0
    rows = rows_of(capsys.readouterr().out)
    assert rows["objective"] == "6"
    assert rows["best known"] == "6, gap 0 %"
    assert rows["nodes"] == "3 x 3, 3 matched"
    assert rows["assignment"] == "2 0 1"


def test_solve_for_programs(tiny: Path, capsys: pytest.CaptureFixture):
    answer = answer_of(capsys, "solve", tiny)
    assert answer["assignment"] == [2, 0, 1]
    assert (answer["best_known"], answer["gap_to_best_known"], answer["best_known_note"]) == (6.0, 0.0, None)
    tiny.with_suffix(".sln").write_text("3 11\n2 3 1\n")  # a worse permutation: the found one lies below it
    assert float(gm.BruteForce().solve(gm.io.read_qaplib(tiny)).objective) == 6
    answer = answer_of(capsys, "solve", tiny)
    assert answer["best_known"] > 6
    assert answer["gap_to_best_known"] == (6 - answer["best_known"]) / answer["best_known"]


def test_without_a_solution_there_is_no_gap(tiny: Path, capsys: pytest.CaptureFixture):
    tiny.with_suffix(".sln").unlink()
    assert cli.main(["solve", str(tiny)]) == 0
    assert "best known" not in rows_of(capsys.readouterr().out)
    answer = answer_of(capsys, "solve", tiny)
    assert answer["best_known"] is answer["gap_to_best_known"] is answer["best_known_note"] is None
    assert cli.main(["info", str(tiny)]) == 0
    assert rows_of(capsys.readouterr().out)["best known"] == "no .sln file beside it"


@pytest.mark.parametrize(
    ("text", "known", "note"),
    [
        ("3 6\n2 3 1\n", 6.0, "tiny.sln holds the inverse of the permutation with this objective"),
        ("3 7\n3 1 2\n", 6.0, "tiny.sln says 7, its permutation has 6"),
        ("2 6\n1 2\n", None, "tiny.sln cannot be used: it has 2 facilities, the problem 3"),
        ("3 6\n3 1\n", None, "tiny.sln cannot be used: read_qaplib_solution: line 2 of tiny.sln must be followed by"),
        ("", None, "tiny.sln cannot be used: read_qaplib_solution: line 1 of tiny.sln must be followed by"),
    ],
)
def test_a_solution_is_believed_once_the_problem_confirms_it(
    tiny: Path, capsys: pytest.CaptureFixture, text: str, known: float | None, note: str
):
    tiny.with_suffix(".sln").write_text(text)
    for command in ("solve", "info"):
        answer = answer_of(capsys, command, tiny)
        assert answer["best_known"] == known
        assert answer["best_known_note"].startswith(note)
    assert cli.main(["solve", str(tiny)]) == 0
    shown = rows_of(capsys.readouterr().out)["best known"]
    assert shown.startswith(f"6, gap 0 %; {note}" if known else note)


def test_a_best_known_objective_of_zero(tmp_path: Path, capsys: pytest.CaptureFixture):
    path = tmp_path / "zero.DAT"
    path.write_text("2\n0 1 0 0\n0 0 3 0\n")
    path.with_suffix(".sln").write_text("2 0\n1 2\n")
    assert answer_of(capsys, "solve", path)["gap_to_best_known"] == 0.0
    assert BestKnown(0.0).gap(3.0) is None  # no share of nothing
    assert BestKnown(-4.0).gap(-3.0) == 0.25


def test_compressed_files(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    folder = tmp_path / "packed"
    folder.mkdir()
    for suffix, pack in [(".gz", gzip.compress), (".xz", lzma.compress)]:
        (folder / f"tiny{suffix[1:]}.dat{suffix}").write_bytes(pack(TINY.encode()))
        (folder / f"tiny{suffix[1:]}.sln{suffix}").write_bytes(pack(BEST.encode()))
        assert answer_of(capsys, "solve", folder / f"tiny{suffix[1:]}.dat{suffix}")["best_known"] == 6.0
        assert answer_of(capsys, "info", folder / f"tiny{suffix[1:]}.dat{suffix}")["facilities"] == 3


def test_info_about_a_problem(tiny: Path, capsys: pytest.CaptureFixture):
    assert cli.main(["info", str(tiny)]) == 0
    rows = rows_of(capsys.readouterr().out)
    assert rows["facilities"] == "3"
    assert rows["flow"] == "not symmetric, integers from 0 to 2, 22.2 % not zero"
    assert rows["linear costs"] == "none"
    assert rows["best known"] == "6"
    tiny.write_text("2\n0 1.5\n1.5 0\n\n0 0\n0 0\n\n1 2\n3 4")
    tiny.with_suffix(".sln").unlink()
    assert answer_of(capsys, "info", tiny) == {
        "file": str(tiny),
        "facilities": 2,
        "flow": {"symmetric": True, "integer": False, "density": 0.5, "range": [0.0, 1.5]},
        "distance": {"symmetric": True, "integer": True, "density": 0.0, "range": [0.0, 0.0]},
        "linear": {"symmetric": False, "integer": True, "density": 1.0, "range": [1.0, 4.0]},
        "best_known": None,
        "best_known_note": None,
    }


def test_a_problem_without_facilities(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "none.dat").write_text("0\n")
    assert cli.main(["info", str(tmp_path / "none.dat")]) == 0
    assert rows_of(capsys.readouterr().out)["flow"] == "empty"
    assert answer_of(capsys, "solve", tmp_path / "none.dat")["objective"] == 0.0


def test_linear_problems_go_to_lap(tmp_path: Path, capsys: pytest.CaptureFixture):
    path = tmp_path / "linear.dat"
    path.write_text("2\n0 0 0 0\n0 1 1 0\n4 1 2 3\n")
    assert answer_of(capsys, "solve", path, "--solver", "LAP")["objective"] == 3.0
    path.write_text("2\n0 0 0 0\n0 1 1 0\n")
    assert answer_of(capsys, "solve", path, "--solver", "LAP")["objective"] == 0.0
    path.write_text("2\n0 1 0 0\n0 1 1 0\n")
    assert cli.main(["solve", str(path), "--solver", "LAP"]) == 2
    assert "linear.dat must hold no costs of pairs with --solver LAP; got 2 of them" in only_line(capsys)


@pytest.mark.parametrize("suffix", [".sln", ".sln.gz", ".sln.xz"])
def test_the_permutation_is_written(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture, suffix: str):
    output = tmp_path / f"found{suffix}"
    answer = answer_of(capsys, "solve", tiny, "--output", output)
    solution = gm.io.read_qaplib_solution(output)
    assert solution.assignment.tolist() == answer["assignment"]
    assert solution.objective == answer["objective"]


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ("found.dat", "--output must name a .sln, .sln.gz or .sln.xz file; got"),
        ("found", "--output must name a .sln"),
        ("folder.sln", "--output must name a new or a regular file"),
        ("absent/found.sln", "--output must lie in a folder to write to"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_at_once(
    tiny: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, output: str, text: str
):
    (tiny.parent / "folder.sln").mkdir()
    monkeypatch.setattr(gm, "solve", lambda *_: pytest.fail("the search began"))
    before = sorted(tiny.parent.iterdir())
    assert cli.main(["solve", str(tiny), "--output", str(tiny.parent / output)]) == 2
    assert text in only_line(capsys)
    assert sorted(tiny.parent.iterdir()) == before


def test_a_read_only_folder_is_refused(tiny: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    folder = tiny.parent / "locked"
    folder.mkdir()
    if os.geteuid() == 0:  # root may write anywhere
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != folder.resolve())
    folder.chmod(0o500)
    assert cli.main(["solve", str(tiny), "--output", str(folder / "found.sln")]) == 2
    assert "--output must lie in a folder to write to; got " in only_line(capsys)
    assert list(folder.iterdir()) == []


def test_the_answer_is_printed_although_the_disk_is_full(
    tiny: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    assert cli.main(["solve", str(tiny), "--output", str(tiny.parent / "found.sln")]) == 2
    printed = capsys.readouterr()
    assert rows_of(printed.out)["objective"] == "6"
    assert "No space left on device" in printed.err


def test_dd_files_have_no_output(tmp_path: Path, capsys: pytest.CaptureFixture):
    path = tmp_path / "case.dd"
    path.write_text("p 1 1 1 0\na 0 0 0 1\n")
    assert cli.main(["solve", str(path), "--output", str(tmp_path / "found.sln")]) == 2
    assert "--output must be left out for a .dd file" in only_line(capsys)


@pytest.mark.parametrize("command", ["solve", "info"])
def test_files_that_cannot_be_read_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture, command: str):
    broken, cut, folder = tmp_path / "broken.dat", tmp_path / "cut.dat.xz", tmp_path / "folder.dat"
    broken.write_text("2\n0 1 2 x\n")
    cut.write_bytes(b"\xfd7zXZ")
    folder.mkdir()
    for path, text in [
        (tmp_path / "absent.dat", "absent.dat: No such file or directory"),
        (folder, "folder.dat: Is a directory"),
        (broken, "read_qaplib: line 2 of broken.dat must hold numbers; got 'x'"),
        (cut, "cut.dat.xz must be a complete .xz file"),
    ]:
        assert cli.main([command, str(path)]) == 2
        assert text in only_line(capsys)


def test_published_problems(data_folder: Path, capsys: pytest.CaptureFixture):
    for name, known in [("nug12", 578), ("esc16f", 0), ("tiny/esc8f", 6)]:
        answer = answer_of(capsys, "solve", data_folder / "qaplib" / f"{name}.dat")
        assert answer["best_known"] == known
        assert answer["best_known_note"] is None
        assert answer["gap_to_best_known"] == 0.0 if known == 0 else answer["gap_to_best_known"] >= 0
        assert answer["objective"] >= known
