"""What every row of a benchmark run must hold, and how runs are joined."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from benchmarks.tables import Row

Run = dict[str, Any]

# Any of them says how good the answer is.
_QUALITIES = ("objective", "gap")
# They measure no solver.
_EXEMPT_GROUPS = ("import",)
# They prepare a problem and solve nothing.
_PREPARING = ("build",)


def lacking(row: Row) -> list[str]:
    """Returns what a row lacks of time, quality, memory, threads, versions, machine and commit."""
    if row["group"] in _EXEMPT_GROUPS:
        return []
    info = row["extra_info"]
    found = []
    if not row.get("stats", {}).get("median", 0) > 0:
        found.append("time")
    if info.get("phase") not in _PREPARING and not any(_is_measured(info.get(name)) for name in _QUALITIES):
        found.append("objective or gap")
    # Other systems do not tell.
    is_linux = str(info.get("machine", {}).get("system", "")).startswith("Linux")
    if is_linux and not isinstance(info.get("memory_bytes"), (int, float)):
        found.append("memory_bytes")
    if not (isinstance(info.get("threads"), int) and info["threads"] >= 1):
        found.append("threads")
    return found + [name for name in ("versions", "machine", "commit") if not info.get(name)]


def _is_measured(value: Any) -> bool:
    """Whether a number, or every number of a list, is there; infinity says that an answer breaks the rules."""
    numbers = value if isinstance(value, list) else [value]
    return bool(numbers) and all(isinstance(each, (int, float)) and not math.isnan(each) for each in numbers)


def faults(rows: Iterable[Row]) -> list[str]:
    """Returns a line for every row that lacks something."""
    return [f"{row['fullname']} lacks {', '.join(missing)}" for row in rows if (missing := lacking(row))]


def suite_of(row: Row) -> str:
    """The file that a row comes from."""
    return str(row["fullname"]).partition("::")[0]


def joined(stored: Run | None, new: Run, *, suites: Iterable[str] | None = None) -> Run:
    """Returns a run with the rows of another one in it; rows that both hold are the new ones.

    Args:
        stored: The run before, if any.
        new: Its rows replace those of the same name.
        suites: Files that `new` covers as a whole: of these no other row stays.
    """
    covered = set(suites or ())
    before = {} if stored is None else stored
    fresh = {row["fullname"]: row for row in new["benchmarks"]}
    kept = [row for row in before.get("benchmarks", []) if suite_of(row) not in covered]
    # A row that is measured again stays where it was: tables follow the order of the rows.
    rows = [fresh.pop(row["fullname"], row) for row in kept]
    rows = sorted([*rows, *fresh.values()], key=suite_of)
    left_out = {suite: why for suite, why in before.get("left_out", {}).items() if suite not in covered}
    return {**before, **new, "left_out": left_out | new.get("left_out", {}), "benchmarks": rows}
