"""What the reports of all studies share: their files, tables and the style of pictures."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from graphmatch import _check
from graphmatch.io.files import write_bytes

SUFFIXES = (".md", ".png", ".json")

# Okabe and Ito: distinct for every kind of colour vision.
ORANGE, SKY, GREEN, BLUE, RED, PINK, GREY = (
    "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7", "#555555"
)  # fmt: skip
_STYLE = {
    "font.size": 15,
    "axes.titlesize": 16,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "lines.linewidth": 2.8,
    "lines.markersize": 8,
}


def check_picture() -> None:
    """Refuses to begin what could not be drawn in the end."""
    if importlib.util.find_spec("matplotlib") is None:
        text = "graphmatch bench: --output must find matplotlib for its picture; got none installed. "
        raise ImportError(text + 'Install it with `pip install "graphmatch[viz]"`, or leave --output out.')


def check_folder(folder: Path, name: str) -> None:
    """Makes the folder of the report of that name, before anything is measured.

    Raises:
        OSError: If it cannot be made.
        ValueError: If something else has its name, or that of one of its files.
    """
    if folder.exists() and not folder.is_dir():
        cure = "Choose another name."
        raise ValueError(_check.message("bench", "--output", "name a folder", repr(str(folder)), cure))
    folder.mkdir(parents=True, exist_ok=True)
    for suffix in SUFFIXES:
        # As the report itself will do, so that it cannot fail for want of permission after the work.
        write_bytes("bench", folder / f".{name}{suffix}.check", b"")
        (folder / f".{name}{suffix}.check").unlink()


def write_files(folder: Path, name: str, markdown: str, picture: bytes, json: str) -> list[Path]:
    """Writes the three files of a report, each as a whole, and returns their paths."""
    contents = (markdown.encode(), picture, json.encode())
    paths = [folder / f"{name}{suffix}" for suffix in SUFFIXES]
    for path, content in zip(paths, contents, strict=True):
        write_bytes("bench", path, content)
    return paths


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """Returns the lines of a Markdown table, aligned for reading as it is."""
    widths = [max(len(line[place]) for line in [header, *rows]) for place in range(len(header))]

    def line(cells: list[str]) -> str:
        return "| " + " | ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)) + " |"

    return [line(header), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(line, rows)]


@contextmanager
def drawing(width: float, height: float) -> Iterator[tuple[Any, Callable[[], bytes]]]:
    """Yields a figure in the style of the studies, and what returns it as a PNG file."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        # The canvas is attached by hand: pyplot would choose a backend and keep every figure alive.
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)

        def png() -> bytes:
            buffer = io.BytesIO()
            # Without the date and the version of matplotlib: the same numbers give the same bytes.
            figure.savefig(buffer, dpi=110, format="png", metadata={"Software": None})
            return buffer.getvalue()

        yield figure, png
