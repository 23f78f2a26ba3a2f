"""`graphmatch bench gradients`: what it prints and writes, and how it refuses."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import graphmatch as gm
from graphmatch import cli
from graphmatch.studies import gradients, gradients_report, peers
from graphmatch.studies.gradients import GradientStudy, Row, StudyResult, run_gradient_study
from graphmatch.studies.problems import StudyProblem

QUICK = ["--samples", "8", "32", "--repetitions", "40", "--other-problems", "1"]
STUDY = GradientStudy(samples=(8, 32), repetitions=40, other_problems=1, reference_samples=2000)


@pytest.fixture(scope="module")
def result() -> StudyResult:
    return run_gradient_study(STUDY)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch, result: StudyResult) -> list[GradientStudy]:
    """The study has its answer ready; the list gets what it was asked."""
    asked: list[GradientStudy] = []

    def answer(study: GradientStudy, progress: Any) -> StudyResult:
        asked.append(study)
        progress("something")
        return result

    monkeypatch.setattr(gradients, "run_gradient_study", answer)
    return asked


def named(result: StudyResult, name: str) -> Row:
    (row,) = (row for row in result.rows if row.name == name)
    return row


def test_the_study_tells_good_estimators_from_bad_ones(result: StudyResult):
    errors = {row.name: row.rmse.get(8) for row in result.rows}
    assert errors["symmetric, lambda 0.3"] < errors["one-sided, lambda 0.3"] < errors["leave-one-out"]
    assert errors["one-sided, lambda 0.3"] < errors["one-sided, lambda 0.3, independent noise"]
    assert errors["symmetric, lambda 0.3"] < min(errors["symmetric, lambda 0.01"], errors["symmetric, lambda 10"])
    assert named(result, "leave-one-out").rmse[8] == pytest.approx(2 * named(result, "leave-one-out").rmse[32], rel=0.2)
    assert named(result, "one-sided, lambda 10").bias > 0.8
    assert named(result, "leave-one-out").p_value > 1e-3
    zeros = [named(result, f"symmetric, lambda {each:g}").zero_share for each in gradients.LAMBDAS]
    assert zeros == sorted(zeros, reverse=True)
    assert zeros[0] > 0.9
    assert named(result, "Gibbs gradient, temperature 1").cosine > 0.9
    assert named(result, "identity, projected").cosine > named(result, "identity").cosine
    # Without its division, I-MLE is lambda times too large or small: the same where lambda is 1.
    same = named(result, "one-sided, lambda 1"), named(result, "one-sided, lambda 1, not divided by it")
    assert same[0].rmse[8] == pytest.approx(same[1].rmse[8], rel=1e-6)
    right, wrong = (named(result, f"symmetric, lambda 0.3{more}") for more in ("", ", 20 % second best"))
    assert right.cosine > wrong.cosine > 0.5
    assert set(result.marginals) == {"independent", "antithetic", "orthogonal"}
    assert all(len(errors) == 1 for errors in result.others.values())
    assert torch.get_num_threads() == 1, "the threads are as before"


def test_the_same_seed_gives_the_same_figures(result: StudyResult):
    small = GradientStudy(samples=(4,), repetitions=5, other_problems=0, reference_samples=100)
    first, second = (run_gradient_study(small) for _ in range(2))
    assert first.rows == second.rows
    assert run_gradient_study(GradientStudy(**{**vars(small), "seed": 3})).rows != first.rows


def test_peers_agree_with_our_formulas(monkeypatch: pytest.MonkeyPatch):
    """The protocol with PyEPO, by a module that returns our own solutions."""
    problem = StudyProblem.random(1, 100)

    class Module:
        def __call__(self, costs: torch.Tensor) -> torch.Tensor:
            return (costs * torch.arange(32)).cumsum(1)

    peer = peers.Peer("stub", lambda model, samples, seed: Module(), batched=False)
    monkeypatch.setattr(peers, "_model", lambda problem: None)
    found = peer.estimates(problem, 1, 3, 0)
    assert found.shape == (3, 32)
    assert torch.equal(found[0], found[2])
    noise = peers._Gaussian(0)
    assert noise.sample((2, 3)).shape == (2, 3)
    assert not (noise.sample((2, 3)) == noise.sample((2, 3))).any()


@pytest.mark.parametrize("installed", [True, False])
def test_an_absent_peer_is_named(installed: bool, result: StudyResult):
    versions = {**result.versions, "pyepo": "2.2.7" if installed else None}
    text = gradients_report.as_markdown(StudyResult(**{**vars(result), "versions": versions}))
    assert ("not installed" in text) != installed


def test_prints_a_table(capsys: pytest.CaptureFixture, at_once: list[GradientStudy]):
    assert cli.main(["bench", "gradients", *QUICK, "--seed", "5"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    lines = printed.out.splitlines()
    assert lines[0].startswith("# ")
    (header,) = (line for line in lines if line.startswith("| estimator") and "slope" in line)
    assert "RMSE, S = 8" in header
    table = [line for line in lines if line.startswith("|")]
    assert all(line.count("|") == table[0].count("|") for line in table if len(line) == len(header))
    assert any("I-MLE: symmetric, lambda 0.3 " in line for line in table)
    assert at_once == [GradientStudy(samples=(8, 32), repetitions=40, seed=5, other_problems=1)]


def test_prints_json(capsys: pytest.CaptureFixture, at_once: list[GradientStudy], result: StudyResult):
    assert cli.main(["bench", "gradients", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["study"]["seed"] == STUDY.seed
    assert content["versions"]["graphmatch"] == gm.__version__
    rows = {row["name"]: row for row in content["rows"]}
    assert rows["leave-one-out"]["rmse"] == {str(n): e for n, e in named(result, "leave-one-out").rmse.items()}
    assert rows["symmetric, lambda 0.3"]["lambda"] == 0.3
    assert at_once == [GradientStudy()]


def test_writes_the_report(capsys: pytest.CaptureFixture, at_once: list[GradientStudy], tmp_path: Path):
    folder = tmp_path / "new" / "report"
    assert cli.main(["bench", "gradients", "--output", str(folder)]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["gradients.json", "gradients.md", "gradients.png"]
    text = (folder / "gradients.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out.rstrip("\n") in text
    assert "(gradients.png)" in text
    assert json.loads((folder / "gradients.json").read_text(encoding="utf-8"))["rows"]
    picture = (folder / "gradients.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n")
    assert cli.main(["bench", "gradients", "--output", str(folder)]) == 0
    assert (folder / "gradients.png").read_bytes() == picture


def complaint(capsys: pytest.CaptureFixture) -> str:
    """The one line on standard error; nothing is on standard output."""
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("graphmatch: error: ")
    assert printed.err.count("\n") == 1
    return printed.err


def test_refuses_an_output_that_is_no_folder(
    capsys: pytest.CaptureFixture, at_once: list[GradientStudy], tmp_path: Path
):
    (tmp_path / "file").write_text("")
    assert cli.main(["bench", "gradients", "--output", str(tmp_path / "file")]) == 2
    assert "--output must name a folder" in complaint(capsys)
    assert cli.main(["bench", "gradients", "--output", str(tmp_path / "file" / "below")]) == 2
    assert str(tmp_path / "file") in complaint(capsys)
    assert cli.main(["bench", "gradients", "--output", "/proc/graphmatch"]) == 2
    assert "/proc/graphmatch" in complaint(capsys)
    assert at_once == [], "nothing is measured in vain"


def test_an_old_report_outlives_a_failure(
    capsys: pytest.CaptureFixture, at_once: list[GradientStudy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "gradients.md").write_text("old")

    def broken(result: StudyResult) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gradients_report, "as_png", broken)
    assert cli.main(["bench", "gradients", "--output", str(tmp_path)]) == 2
    assert "No space left" in complaint(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["gradients.md"]
    assert (tmp_path / "gradients.md").read_text() == "old"


def test_says_that_pictures_need_matplotlib(
    capsys: pytest.CaptureFixture, at_once: list[GradientStudy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name))
    assert cli.main(["bench", "gradients", "--output", str(tmp_path / "report")]) == 2
    assert "graphmatch[viz]" in complaint(capsys)
    assert not (tmp_path / "report").exists()
    assert cli.main(["bench", "gradients"]) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--samples", "1"], "samples must be"),
        (["--samples", "64", "16"], "samples must be"),
        (["--repetitions", "1"], "repetitions must be at least 2"),
        (["--other-problems", "-1"], "other_problems must be at least 0"),
    ],
    ids=str,
)
def test_refuses_wrong_numbers(
    options: list[str], words: str, capsys: pytest.CaptureFixture, at_once: list[GradientStudy]
):
    assert cli.main(["bench", "gradients", *options]) == 2
    assert words in complaint(capsys)


@pytest.mark.parametrize(
    "arguments",
    [["bench"], ["bench", "speed"], ["bench", "gradients", "--seed", "x"], ["bench", "gradients", "--rep", "3"]],
    ids=str,
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert "usage: graphmatch" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["bench", "--help"], ["bench", "gradients", "--help"]], ids=str)
def test_help(arguments: list[str], capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 0
    assert "gradients" in capsys.readouterr().out


def test_an_interrupt_ends_quietly(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def interrupted(study: GradientStudy, progress: Any) -> StudyResult:
        raise KeyboardInterrupt

    monkeypatch.setattr(gradients, "run_gradient_study", interrupted)
    assert cli.main(["bench", "gradients", "--output", str(tmp_path)]) == 130
    assert "interrupted" in complaint(capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("quiet", [True, False])
def test_progress_is_for_terminals(
    quiet: bool, at_once: list[GradientStudy], capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert cli.main(["bench", "gradients", *(["--quiet"] if quiet else [])]) == 0
    shown = capsys.readouterr().err
    assert ("something" in shown) != quiet
    assert quiet or shown.endswith("\r\x1b[K")
