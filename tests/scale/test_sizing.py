"""The table of sizes: every number follows from the measurement and from the formulas beside it."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def sizing(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2])
    pytest.importorskip("benchmarks")
    return importlib.import_module("benchmarks.sizing")


@pytest.fixture
def found() -> dict[str, Any]:
    run = {"problems": 1000, "load": 0.1, "bytes": 40_000, "certified": 0.5, "nodes": 16, "noise": 0.5, "batch": 500}
    run["core_seconds"] = {"making": 0.1, "solving": 0.3}
    return {
        "versions": dict.fromkeys(("python", "torch", "ray", "pyarrow"), "1.0"),
        "machine": {"cpu": "a processor", "cores": 2},
        "commit": "abc",
        "measured": "2000-01-01",
        "plain": {"problems": 500, "seconds": 0.5},
        "runs": [
            {**run, "workers": 1, "seconds": 4.0, "writing": 1.0},
            {**run, "workers": 2, "seconds": 3.0, "writing": 0.5},
        ],
    }


def test_rows_are_per_million(sizing: Any, found: dict[str, Any]) -> None:
    one, two = sizing.matching_rows(found)
    assert one == ["1", "500", "1.00", "400", "300", "40", "33.3", "50.000%"]
    assert two[:3] == ["2", "1,000", "2.00"]
    assert "One worker does 50% of what a plain loop" in sizing.tables(found)


def test_estimates_follow_their_formulas(sizing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with_alignment, without = (sizing.training(value, 312e12) for value in (True, False))
    assert with_alignment["tokens"] == 100_000 * 3 * 1536
    assert with_alignment["GPU hours"] == pytest.approx(8 * 7.06e9 * 100_000 * 3 * 1536 / (0.4 * 312e12) / 3600)
    assert without["tokens"] / with_alignment["tokens"] == pytest.approx(1024 / 1536)
    asked = sizing.captions()
    sent, received = sizing.caption_tokens()
    assert asked["GPU hours"] == pytest.approx(300_000 * (sent / 20_000 + received / 5_000) / 3600)
    monkeypatch.setitem(sizing.ASSUMPTIONS, "pairs", 6)
    assert sizing.captions()["GPU hours"] == pytest.approx(2 * asked["GPU hours"])


def test_what_is_committed_is_what_the_measurement_gives(sizing: Any) -> None:
    text = sizing.tables(json.loads(sizing.JSON.read_text(encoding="utf-8")))
    assert text in sizing.REPORT.read_text(encoding="utf-8")
    assert text in sizing.README.read_text(encoding="utf-8")


def test_the_picture_can_be_drawn(sizing: Any, found: dict[str, Any], tmp_path: Any) -> None:
    sizing.draw(found, tmp_path / "scale.png")
    assert (tmp_path / "scale.png").stat().st_size > 5000
