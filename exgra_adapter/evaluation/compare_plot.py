"""The picture of `exgra-med evaluate compare`: differences with their intervals."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from exgra_adapter.atomic import write_bytes
from exgra_adapter.evaluation.compare import Difference
from exgra_adapter.evaluation.tables import LEGACY_NAMES, STRICT_NAMES
from exgra_adapter.pictures import LITERAL_TEXT

# Okabe and Ito's colours differ for every kind of colour vision.
_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#555555"
_STYLE = {
    **LITERAL_TEXT,
    "font.size": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
}
_DPI = 110
_LONGEST_NAME = 60


def plot_differences(differences: Mapping[str, Difference], first: str, second: str, path: Path) -> None:
    """Draws the difference of every metric with its interval into a PNG file, which appears only when it is complete.

    Args:
        differences: As `compare_items` returns them.
        first: The first model's name.
        second: The second model's name.
        path: The file to write.
    """
    rows = [
        (kind, name, differences[f"{kind} {metric}"])
        for kind, names in (("strict", STRICT_NAMES), ("legacy", LEGACY_NAMES))
        for metric, name in names.items()
        if f"{kind} {metric}" in differences
    ]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9, 1.9 + 0.36 * len(rows)), layout="constrained")
        axes = figure.subplots()
        axes.axvline(0, color=_GREY, linewidth=1)
        for kind, colour, marker, label in (
            ("strict", _BLUE, "o", "strict"),
            ("legacy", _ORANGE, "s", "published scripts"),
        ):
            places = [place for place, row in enumerate(rows) if row[0] == kind]
            if not places:
                continue
            values = [rows[place][2] for place in places]
            centres = [100 * value.difference for value in values]
            axes.hlines(places, [100 * v.low for v in values], [100 * v.high for v in values], colour, linewidth=2.5)
            axes.plot(centres, places, marker, color=colour, markersize=8, label=label)
        axes.set_yticks(range(len(rows)), [name for _, name, _ in rows])
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(axis="x", alpha=0.25)
        axes.set_xlabel("A - B in percentage points, with 95 % interval")
        axes.set_title(f"A: {_short(first)}\nB: {_short(second)}", loc="left", fontsize=11)
        figure.legend(loc="outside lower center", ncols=2, frameon=False)
        content = io.BytesIO()
        FigureCanvasAgg(figure)
        figure.savefig(content, dpi=_DPI, format="png", metadata={"Software": None})
    write_bytes(path, content.getvalue())


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else "..." + name[-_LONGEST_NAME:]
