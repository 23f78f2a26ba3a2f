"""How results look and are written: one palette for every kind of colour vision, files either old or complete."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe and Ito.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#555555"
_STYLE = {
    "font.size": 14,
    "axes.titlesize": 15,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "lines.linewidth": 2.6,
}


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside `path`; what was written there takes the name of `path` if nothing fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file as a whole."""
    with replaced(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file as a whole."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_rows(path: Path, run: dict[str, Any]) -> None:
    """Writes a benchmark run as JSON with one line per row: half the size of indented rows, and readable as a diff."""
    head = {name: value for name, value in run.items() if name != "benchmarks"}
    rows = ",\n".join(json.dumps(row, separators=(",", ":")) for row in run["benchmarks"])
    write_text(path, f'{json.dumps(head, indent=1)[:-2]},\n "benchmarks": [\n{rows}\n]}}\n')


@contextmanager
def figure(path: Path, width: float, height: float) -> Iterator[Figure]:
    """Yields an empty figure in the house style, written to `path` as PNG when the block ends."""
    with mpl.rc_context(_STYLE):
        canvas = Figure(figsize=(width, height), layout="constrained")
        # The canvas is attached by hand: pyplot would choose a backend and keep every figure alive.
        FigureCanvasAgg(canvas)
        yield canvas
        with replaced(path) as temporary:
            canvas.savefig(temporary, dpi=110, format="png")
