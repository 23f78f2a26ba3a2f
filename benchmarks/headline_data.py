"""The stored results that the README's figures are made of, and how figures are written there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import alignment, keypoint_report
from benchmarks.other_reports import CUDA, GRADIENTS, MULTIGRAPH, OBJECTIVES
from benchmarks.tables import Row


@dataclass(frozen=True)
class Results:
    """What lies in the results; empty where a command has left nothing.

    Attributes:
        suites: The benchmark run.
        gradients: Of `graphmatch bench gradients`.
        multigraph: Of `graphmatch bench multigraph`.
        alignment: Of `benchmarks.alignment`.
        keypoints: Of `benchmarks.keypoint_learning`.
        objectives: Of `benchmarks.objectives`.
        cuda: The benchmark run on a GPU.
    """

    suites: dict[str, Any]
    gradients: dict[str, Any]
    multigraph: dict[str, Any]
    alignment: dict[str, Any]
    keypoints: dict[str, Any]
    objectives: dict[str, Any]
    cuda: dict[str, Any]

    def rows(self, group: str) -> list[Row]:
        """Returns the rows of one group of the suites."""
        return [row for row in self.suites.get("benchmarks", []) if row["group"] == group]


def load(folder: Path) -> Results:
    """Reads all results in a folder."""

    def read(path: Path | str) -> dict[str, Any]:
        file = folder / path
        # An interrupted run leaves an empty file.
        return json.loads(file.read_text(encoding="utf-8") or "{}") if file.exists() else {}

    return Results(
        suites=read("benchmark.json"),
        gradients=read(GRADIENTS),
        multigraph=read(MULTIGRAPH),
        alignment=read(alignment.JSON.name),
        keypoints=read(keypoint_report.JSON.name),
        objectives=read(OBJECTIVES),
        cuda=read(CUDA),
    )


def short(value: float) -> str:
    """Returns a number with two digits, or all of those before the point."""
    return f"{value:,.0f}" if abs(value) >= 9.95 else f"{value:#.2g}"


def share(value: float) -> str:
    """Returns a share in percent, with one digit more where rounding would claim all or nothing."""
    is_hidden = (0.995 <= value < 1) or (0 < value < 0.005)
    return f"{100 * value:.1f} %" if is_hidden else f"{100 * value:.0f} %"


def span(numbers: Iterable[float], write: Callable[[float], str] = short) -> str:
    """Returns the least and the largest of some numbers, or the one that they all are."""
    ends = sorted(numbers)
    least, most = write(ends[0]), write(ends[-1])
    return least if least == most else f"{least} to {most}"


def listed(parts: Sequence[object]) -> str:
    """Returns "a, b and c"."""
    words = [str(part) for part in parts]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def threads_of(row: Row) -> str:
    """Returns the threads of a row in words."""
    count = row["extra_info"]["threads"]
    return f"{count} thread{'s' * (count != 1)}"
