"""Markdown tables and the numbers in them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any


def table(head: Sequence[str], body: Iterable[Sequence[str]], *, numbers: bool = True) -> str:
    """Formats a table.

    Args:
        head: The names of the columns.
        body: The rows; white space in a cell becomes single spaces, bars are escaped.
        numbers: Whether all columns but the first hold numbers and stand to the right.

    Returns:
        The lines of the table, without a line end after the last.

    Example:
        >>> print(table(["phase", "seconds"], [["solving", "0.2"]]))
        | phase | seconds |
        | --- | ---: |
        | solving | 0.2 |
    """
    rows = [[_cell(value) for value in row] for row in (head, *body)]
    rows.insert(1, ["---", *["---:" if numbers else "---"] * (len(head) - 1)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def number(value: Any) -> str:
    """Formats a measured number with four significant digits; None becomes a dash.

    Example:
        >>> number(0.123456), number(2e-5), number(467000), number(None), number(float("nan"))
        ('0.1235', '2e-05', '467,000', '-', 'nan')
    """
    if value is None:
        return "-"
    if not math.isfinite(value):
        return str(float(value))
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"


def percent(value: float | None) -> str:
    """Formats a share in [0, 1] as a percentage with one digit; None becomes a dash.

    Example:
        >>> percent(0.1234), percent(0.0001), percent(None)
        ('12.3 %', '< 0.1 %', '-')
    """
    if value is None:
        return "-"
    return "< 0.1 %" if 0 < value < 0.0005 else f"{100 * value:.1f} %"


def gibibytes(value: float) -> str:
    """Formats bytes in GiB (2^30 bytes) with one digit.

    Example:
        >>> gibibytes(3 * 2**30)
        '3.0'
    """
    return f"{value / 2**30:.1f}"


def duration(seconds: float) -> str:
    """Formats a duration in the largest fitting unit.

    Example:
        >>> duration(12.34), duration(600), duration(27000)
        ('12.3 s', '10.0 min', '7.5 h')
    """
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def plain(value: Any) -> str:
    """Formats a setting's value as JSON, texts without quotes.

    Example:
        >>> plain("leave_one_out"), plain(True), plain(2e-5), plain(None)
        ('leave_one_out', 'true', '2e-05', 'null')
    """
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
