"""The report of measured scores beside the published table."""

import argparse
import json
import os
import re
from dataclasses import asdict

import pytest
from PIL import Image

from exgra_adapter.data.records import Record, Turn
from exgra_adapter.evaluation import report_command
from exgra_adapter.evaluation.files import Prediction
from exgra_adapter.evaluation.leaderboard import PUBLISHED, format_leaderboard, read_measurement
from exgra_adapter.evaluation.metrics import score


def estimate(value, count=2):
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "count": count}


def write_scores(folder, summary=0.7, legacy=None, opened=179, closed=272, failed=3):
    """A scores file of `evaluate vqa`: strict scores at the top, those of the published scripts in a section."""
    content = {"format": 1, "seed": 0, "failed": failed, "items": []}
    content |= {
        "exact_match": estimate(0.3, opened + closed),
        "open_recall": estimate(summary - 0.1, opened),
        "closed_accuracy": estimate(summary + 0.1, closed),
        "summary": estimate(summary, opened + closed),
    }
    if legacy is not None:
        metrics = {"recall": estimate(legacy, opened), "closed_accuracy": estimate(legacy, closed)}
        content["legacy"] = {"metrics": metrics | {"summary": estimate(legacy, opened + closed)}}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scores.json").write_text(json.dumps(content))
    os.utime(folder / "scores.json", (1_700_000_000, 1_700_000_000))
    return folder


def run(*arguments):
    parser = argparse.ArgumentParser()
    report_command.add_parser(parser.add_subparsers())
    options = parser.parse_args(["report", *map(str, arguments)])
    return options.run(options)


def test_scores_as_the_command_writes_them_are_read(tmp_path):
    records = [
        Record("1", "a.png", (Turn("Where?", "left lung"),), "OPEN"),
        Record("2", "a.png", (Turn("Is it?", "no"),), "CLOSED"),
    ]
    scores = score(records, [Prediction("1", 0, "", "", "lung"), Prediction("2", 0, "", "", "No.")])
    (tmp_path / "scores.json").write_text(json.dumps({"format": 1, "seed": 0, **asdict(scores)}))
    found = read_measurement(f"slake={tmp_path}")
    assert (found.rule, found.summary.value, found.questions, found.strict) == ("strict", 0.75, 2, None)
    assert (found.open_recall.value, found.closed_accuracy.value) == (0.5, 1.0)


def test_published_rule_comes_first_with_the_strict_figure_beside_it(tmp_path):
    found = read_measurement(str(write_scores(tmp_path / "vqa_rad" / "test", summary=0.6, legacy=0.8)))
    assert (found.rule, found.summary.value, found.strict.value) == ("published scripts", 0.8, 0.6)
    text = format_leaderboard([found])
    row = next(line for line in text.splitlines() if line.startswith("| VQA-RAD |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[2:] == [
        *("80.00", "70.00 to 90.00", "80.00", "80.00", "60.00", "451", "179 + 272", "3"),
        *("published scripts", "2023-11-14"),
    ]


def test_published_and_measured_figures_stand_apart(tmp_path):
    runs = [write_scores(tmp_path / name / "test", legacy=0.9) for name in ("vqa_rad", "SLAKE-7", "path-vqa")]
    text = format_leaderboard([read_measurement(f"ours/{key}={run}") for key, run in zip(KEYS, runs, strict=True)])
    published, measured = text.split("## Measured here")
    assert "ours" not in published
    assert "90.00" not in published
    assert not any(f"| {name} |" in measured for name in PUBLISHED)
    assert "arXiv 2410.02615" in published
    assert "| ours | 90.00 | published scripts |" in measured
    assert "SLAKE's published test has 1,061" in measured
    assert "VQA-RAD's published test" not in measured


KEYS = ("vqa-rad", "slake", "pathvqa")


def test_published_means_are_those_of_the_columns():
    for name, (*columns, mean) in PUBLISHED.items():
        assert abs(sum(columns) / 3 - mean) < 0.011, name


@pytest.mark.parametrize(
    ("path", "data_set"),
    [
        ("runs/vqa_rad/test", "vqa-rad"),
        ("runs/RAD", "vqa-rad"),
        ("slake_runs/vqa-rad", "vqa-rad"),
        ("radiology/slake/3", "slake"),
        ("pvqa", "pathvqa"),
    ],
)
def test_the_path_names_the_data_set(tmp_path, monkeypatch, path, data_set):
    monkeypatch.chdir(tmp_path)
    write_scores(tmp_path / path)
    found = read_measurement(path)
    assert (found.data_set, found.model) == (data_set, path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "must be JSON"),
        ("[]", "must be a JSON object of scores"),
        ("{}", "must have the score summary"),
        (json.dumps({"summary": None}), "must have the score summary .*got None"),
        (json.dumps({"summary": estimate(0.5) | {"value": float("nan")}}), "must have the score summary"),
        (json.dumps({name: estimate(50) for name in ("summary", "open_recall", "closed_accuracy")}), r"in \[0, 1\]"),
    ],
)
def test_broken_scores_are_refused(tmp_path, content, message):
    (tmp_path / "scores.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_measurement(f"slake={tmp_path}")


def test_unclear_runs_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_scores(tmp_path / "seven")
    with pytest.raises(ValueError, match=r"whose name does not say which.*vqa-rad=seven"):
        read_measurement("seven")
    with pytest.raises(ValueError, match=r"must be a folder with scores\.json; got none"):
        read_measurement("none")
    with pytest.raises(ValueError, match=r"must be a folder with scores\.json; got slake=none"):
        read_measurement("slake=none")
    for run in ("ours/slak=seven", "slak=seven/scores.json"):
        with pytest.raises(ValueError, match=f"data set before = must be one of .*; got 'slak' in {run}. Choose"):
            read_measurement(run)
    twice = [read_measurement("ours/slake=seven"), read_measurement("ours/slake=seven/scores.json")]
    with pytest.raises(ValueError, match="one run per data set"):
        format_leaderboard(twice)


def test_the_command_writes_report_and_picture(tmp_path, capsys):
    first = write_scores(tmp_path / "a" / "vqa_rad", legacy=0.7)
    second = write_scores(tmp_path / "b | c" / "vqa_rad", summary=0.4)
    assert run(first, f"läuft/slake={second}", "--output", tmp_path / "out" / "report.md") == 0
    text = (tmp_path / "out/report.md").read_text(encoding="utf-8")
    assert re.search(r"!\[.*\]\(report\.png\)", text)
    assert "läuft" in text
    assert r"b \| c" in text
    assert "do not set them against the published ones" in text
    with Image.open(tmp_path / "out/report.png") as picture:
        assert picture.size[0] > 800
    assert "VQA-RAD" in capsys.readouterr().out


def test_without_measurements_only_the_published_table():
    text = format_leaderboard([])
    assert text.count("\n| ") == len(PUBLISHED) + 2
    assert "Nothing has been measured" in text
