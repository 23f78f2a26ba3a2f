"""Measured figures in the tables and sentences of the documentation are those of the stored results."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
# Rows of the table of estimators, and the arms of the experiment that they show.
ESTIMATORS = {
    "`FenchelYoung`, `layer.loss`": ["FenchelYoung, 1 sample"],
    "`IMLE`, the default": ["IMLE, 1 sample", "IMLE, 1 sample, one-sided"],
    "`AdaptiveIMLE`": ["AdaptiveIMLE, 1 sample"],
    "`BlackBox`": ["BlackBox"],
    "`StraightThroughSinkhorn`": ["StraightThroughSinkhorn"],
    "`NegativeIdentity`": ["NegativeIdentity"],
    "`PerturbedOptimizer`": ["PerturbedOptimizer"],
    "`ScoreFunction`, `layer.expected_loss`": ["ScoreFunction"],
}
LONGER = {
    "`IMLE` reached": "IMLE, 8 samples",
    "`FenchelYoung`": "FenchelYoung, 8 samples",
    "`PerturbedOptimizer` to": "PerturbedOptimizer, budget x 5",
    "`ScoreFunction` to": "ScoreFunction, budget x 5",
}


def read(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def stored(name: str) -> Any:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def rows_below(text: str, heading: str) -> dict[str, list[str]]:
    """The first table behind a heading: cells by the first of them."""
    table = text.partition(heading)[2].partition("\n|")[2].partition("\n\n")[0]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return {name: cells for name, *cells in lines}


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


@pytest.fixture(scope="module")
def trained() -> dict[str, list[dict[str, Any]]]:
    arms: dict[str, list[dict[str, Any]]] = {}
    for row in stored("keypoints.json")["benchmarks"]:
        arms.setdefault(row["estimator"], []).append(row)
    return arms


def spread(rows: list[dict[str, Any]], key: str = "trained") -> str:
    values = [100 * row[key] for row in rows]
    return f"{mean(values):.1f} ± {stdev(values):.1f}"


def test_what_objectives_are_worth():
    written = rows_below(read("objectives.md"), "## What they are worth")
    expected = {
        arm["arm"]: [
            percent(arm["held_out_retrieval"]),
            percent(arm["summary"]),
            " to ".join(map(percent, arm["summary_range"])),
        ]
        for arm in stored("objectives.json")["summary"]
    }
    assert written == expected


def test_what_estimators_learn(trained: dict[str, list[dict[str, Any]]]):
    written = {name: cells[-2:] for name, cells in rows_below(read("gradients.md"), "## Which one").items()}
    expected = {}
    for name, arms in ESTIMATORS.items():
        silent = [round(100 * mean(row["zero_gradient_share"] for row in trained[arm])) for arm in arms]
        expected[name] = ["; ".join(spread(trained[arm]) for arm in arms), "; ".join(f"{share} %" for share in silent)]
    assert written == expected


def test_what_more_solves_bring(trained: dict[str, list[dict[str, Any]]]):
    text = " ".join(read("gradients.md").split())
    assert f"{spread(trained['BlackBox'], 'untrained')} before training" in text
    sentence = text[text.index("More steps beat more samples") :]
    for words, arm in LONGER.items():
        assert f"{words} {spread(trained[arm])}" in sentence, arm
    seconds = {arm: mean(row["cpu_seconds"] for row in rows) for arm, rows in trained.items()}
    longest = seconds.pop("StraightThroughSinkhorn")
    found = re.search(r"took (\d+) s of one core, everything else (\d+) to (\d+) s", sentence)
    assert found is not None
    assert [int(each) for each in found.groups()] == [round(each) for each in (longest, *_extent(seconds))]


def _extent(seconds: dict[str, float]) -> tuple[float, float]:
    return min(seconds.values()), max(seconds.values())
