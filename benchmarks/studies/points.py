"""Points of a study, kept one by one: a run that was killed goes on where it was."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.machine import provenance
from benchmarks.output import write_json
from benchmarks.tables import MISSING

Task = Callable[[], Any]


class Points:
    """The measured points of one study, in a hidden file beside its results until the study is complete.

    Points count only for a run with the same settings on the same commit, versions, machine and threads.

    Args:
        folder: Where the results go.
        name: Of the study.
        settings: Whatever decides what the points are, as JSON.
        origin: What they were measured with, as JSON.
    """

    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any], origin: Mapping[str, Any]) -> None:
        self.path = folder / f".{name}.points.json"
        # As a file would give them back: tuples are lists.
        self.head = json.loads(json.dumps({"settings": settings, "origin": origin}))
        self.done: dict[str, Any] = {}
        if self.path.is_file():
            stored = json.loads(self.path.read_text(encoding="utf-8"))
            points = stored.pop("points")
            self.done = points if stored == self.head else {}

    def measure(self, tasks: Mapping[str, Task]) -> dict[str, Any]:
        """Measures the points that are missing and returns all of them, in the order of the tasks."""
        missing = [name for name in tasks if name not in self.done]
        with tqdm(total=len(tasks), initial=len(tasks) - len(missing), unit="point") as progress:
            for name in missing:
                progress.set_description(name)
                self.done[name] = tasks[name]()
                write_json(self.path, {**self.head, "points": self.done})
                progress.update()
        return {name: self.done[name] for name in tasks}

    def finish(self) -> None:
        """Removes the file: the results are written."""
        self.path.unlink(missing_ok=True)


def origin(*packages: str) -> dict[str, Any]:
    """Returns versions, machine, threads and commit, with the versions of more packages; None = not installed."""
    found = provenance()
    found["versions"] |= {
        name: importlib.metadata.version(name) if importlib.util.find_spec(name) else None for name in packages
    }
    return found


def described(source: Mapping[str, Any]) -> str:
    """Says in one line what a study was measured with."""
    machine = source["machine"]
    versions = ", ".join(f"{name} {version or 'not installed'}" for name, version in source["versions"].items())
    threads = f"{source['threads']} thread{'s' if source['threads'] > 1 else ''}"
    place = f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}"
    return f"{place}; {threads}; {versions}; commit {source['commit']}."


def percent(value: float | None, digits: int = 2) -> str:
    """Returns a share in percent with so many digits, without an exponent."""
    if value is None:
        return MISSING
    rounded = float(f"{100 * value:.{digits}g}")
    first = math.floor(math.log10(abs(rounded))) if rounded else digits
    return f"{rounded:.{max(digits - 1 - first, 0)}f} %"
