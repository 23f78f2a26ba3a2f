"""Studies that were killed go on where they were, and only there."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def points() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT)
        pytest.importorskip("benchmarks")
        yield importlib.import_module("benchmarks.studies.points")


class Tasks:
    """Two points, of which the second may fail; counts what was measured."""

    def __init__(self, fails: bool = False) -> None:
        self.measured: list[str] = []
        self.fails = fails

    def named(self) -> dict[str, Callable[[], float]]:
        return {"first": lambda: self.point("first"), "second": lambda: self.point("second")}

    def point(self, name: str) -> float:
        if self.fails and name == "second":
            raise KeyboardInterrupt
        self.measured.append(name)
        return 0.5


def killed(points: ModuleType, folder: Path) -> None:
    """Leaves a run behind that ended after its first point."""
    tasks = Tasks(fails=True)
    with pytest.raises(KeyboardInterrupt):
        points.Points(folder, "study", {"sizes": (1, 2)}, {"commit": "a"}).measure(tasks.named())
    assert tasks.measured == ["first"]


def test_goes_on_after_the_last_point(points: ModuleType, tmp_path: Path):
    killed(points, tmp_path)
    tasks = Tasks()
    resumed = points.Points(tmp_path, "study", {"sizes": (1, 2)}, {"commit": "a"})
    assert resumed.measure(tasks.named()) == {"first": 0.5, "second": 0.5}
    assert tasks.measured == ["second"]
    assert json.loads(resumed.path.read_text(encoding="utf-8"))["points"] == {"first": 0.5, "second": 0.5}
    resumed.finish()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "origin"), [({"sizes": (1,)}, {"commit": "a"}), ({"sizes": (1, 2)}, {"commit": "b"})]
)
def test_begins_anew_with_other_settings_or_another_commit(
    points: ModuleType, tmp_path: Path, settings: dict[str, object], origin: dict[str, str]
):
    killed(points, tmp_path)
    tasks = Tasks()
    points.Points(tmp_path, "study", settings, origin).measure(tasks.named())
    assert tasks.measured == ["first", "second"]


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.0573, 2, "5.7 %"),
        (0.2, 1, "20 %"),
        (0.0021, 1, "0.2 %"),
        (3.39, 2, "340 %"),
        (0.00999999, 2, "1.0 %"),
        (0.0, 2, "0 %"),
        (None, 2, "–"),
    ],
)
def test_percentages_have_no_exponents(points: ModuleType, value: float | None, digits: int, text: str):
    assert points.percent(value, digits) == text
