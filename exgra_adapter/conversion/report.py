"""What a conversion did, as JSON and as a table."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import asdict
from typing import Any

from exgra_adapter.conversion.plan import Plan, Transfer

_NUMBER = re.compile(r"(?<=layers\.)\d+(?=\.)")


def report_json(plan: Plan) -> dict[str, Any]:
    """Returns the content of `conversion.json`: every tensor that is written, left out or made, and every correction.

    Args:
        plan: What is done.
    """
    return {
        "format": 1,
        "direction": plan.direction,
        "settings": plan.settings,
        "totals": {
            **Counter(transfer.how for transfer in plan.transfers),
            "dropped": len(plan.dropped),
            "bytes": sum(transfer.bytes for transfer in plan.transfers),
        },
        "tensors": [_row(transfer) for transfer in plan.transfers],
        "dropped": [asdict(item) for item in plan.dropped],
        "changes": [asdict(item) for item in plan.changes],
        "notes": plan.notes,
    }


def format_report(plan: Plan) -> str:
    """Formats the plan as a table; what is the same in every layer, or left out together, is one line.

    Args:
        plan: What is done.

    Returns:
        Several lines of text.
    """
    written: dict[tuple[str, str, str], list[Transfer]] = defaultdict(list)
    for transfer in plan.transfers:
        target = transfer.target if transfer.file is None else f"{transfer.file}: {transfer.target}"
        written[_NUMBER.sub("N", transfer.source), _NUMBER.sub("N", target), transfer.how].append(transfer)
    rows = [
        (f"{len(group)} x", size(sum(transfer.bytes for transfer in group)), how, source, f"-> {target}")
        for (source, target, how), group in written.items()
    ]
    dropped: dict[tuple[str, str], list[str]] = defaultdict(list)
    for item in plan.dropped:
        dropped[item.source.split(".", 1)[0], item.reason].append(_NUMBER.sub("N", item.source))
    for (start, reason), sources in dropped.items():
        what = sources[0] if len(set(sources)) == 1 else f"{start}.*"
        rows.append((f"{len(sources)} x", "", "dropped", what, f"({reason})"))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        f"{a:>{widths[0]}}  {b:>{widths[1]}}  {c:<{widths[2]}}  {d:<{widths[3]}}  {e}".rstrip()
        for a, b, c, d, e in rows
    ]
    lines += [f"{item.setting}: {item.before!r} -> {item.after!r}" for item in plan.changes]
    lines += [f"note: {note}" for note in plan.notes]
    counts = Counter(transfer.how for transfer in plan.transfers)
    counted = ", ".join(f"{number} {how}" for how, number in sorted(counts.items()))
    total = size(sum(transfer.bytes for transfer in plan.transfers))
    return "\n".join([*lines, f"{len(plan.transfers)} tensors, {total} ({counted}); {len(plan.dropped)} dropped"])


def size(number: int) -> str:
    """Formats a number of bytes.

    Example:
        >>> size(512), size(13_476_839_424)
        ('512 B', '13.5 GB')
    """
    value, unit = float(number), "B"
    for larger in ("kB", "MB", "GB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{number} B" if unit == "B" else f"{value:.1f} {unit}"


def _row(transfer: Transfer) -> dict[str, Any]:
    return {
        "source": transfer.source,
        "target": transfer.target,
        "how": transfer.how,
        "shape": list(transfer.shape),
        "dtype": str(transfer.dtype).removeprefix("torch."),
        "bytes": transfer.bytes,
        **({} if transfer.file is None else {"file": transfer.file}),
    }
