"""Rows of a benchmark run, and tables of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

MISSING = "–"

Row = dict[str, Any]


def milliseconds(row: Row | None) -> float | None:
    """The median time of one problem; rows that time a batch of separate problems are divided by it."""
    if row is None:
        return None
    share = row["extra_info"].get("batch", 1) if row["extra_info"].get("phase") == "batch" else 1
    return 1000 * row["stats"]["median"] / share


def number(value: float | None, digits: int = 3) -> str:
    if value is None:
        return MISSING
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.{digits}g}"


def percent(value: float | None) -> str:
    return MISSING if value is None else f"{value:.0%}"


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [headers, ["---:"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def find(rows: list[Row], **wanted: object) -> Row | None:
    return next((row for row in rows if wanted.items() <= row["extra_info"].items()), None)


def values(rows: list[Row], key: str) -> list[Any]:
    """The different values of one parameter, in the order of the rows."""
    return list(dict.fromkeys(row["extra_info"][key] for row in rows))
