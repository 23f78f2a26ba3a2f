"""The picture of `exgra-med data check`: token lengths and image sizes."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, ScalarFormatter

from exgra_adapter.atomic import write_bytes
from exgra_adapter.data.check import HUGE_PIXELS, SMALL_SIDE, DataReport
from exgra_adapter.pictures import LITERAL_TEXT

# Okabe and Ito's colours differ for every kind of colour vision.
_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#555555"
_STYLE = {
    **LITERAL_TEXT,
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}
_DPI = 110
_BINS = 40
# From this ratio of largest to smallest on, an axis is logarithmic; below, it would have too few numbers.
_WIDE = 12


def plot_report(report: DataReport, path: Path, max_length: int) -> None:
    """Draws histograms of token lengths and of image sizes into a PNG file, which appears only when it is complete.

    Args:
        report: What `check_records` returned.
        path: The file to write.
        max_length: Marked in the histogram of the conversations.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(11, 7.4), layout="constrained")
        conversations, texts, sides, shapes = figure.subplots(2, 2).flatten()
        lengths = report.token_lengths
        _lengths(conversations, {"conversation": (lengths.get("conversation", []), _BLUE)}, "Conversations with image")
        if lengths.get("conversation"):
            # A limit far to the right would squeeze the histogram.
            if max_length <= 1.3 * max(lengths["conversation"]):
                conversations.axvline(max_length, color=_ORANGE, linestyle="--", label=f"max_length = {max_length}")
            else:
                conversations.plot([], [], linestyle="none", label=f"all below max_length = {max_length}")
            conversations.legend(loc="upper right")
        parts = {
            "answers": (lengths.get("answers", []), _BLUE),
            "extended answers": (lengths.get("extended_answers", []), _ORANGE),
        }
        _lengths(texts, parts, "Answers")
        _sides(sides, report)
        _shapes(shapes, report)
        figure.suptitle(f"{Path(report.data).name}: {report.samples} samples, {report.image_names} images")
        FigureCanvasAgg(figure)
        content = io.BytesIO()
        figure.savefig(content, dpi=_DPI, format="png")
    write_bytes(path, content.getvalue())


def _lengths(axes: Axes, parts: dict[str, tuple[list[int], str]], title: str) -> None:
    axes.set(xlabel="tokens", ylabel="samples", title=title)
    everything = [length for values, _ in parts.values() for length in values]
    if not everything:
        _nothing(axes, "no tokenizer given (--tokenizer)")
        return
    low, high = min(everything), max(everything)
    bins = np.linspace(low - 0.5, high + 0.5, min(_BINS, high - low + 1) + 1)
    for name, (values, colour) in parts.items():
        if values:
            axes.hist(values, bins=bins, color=colour, alpha=0.6, label=name if len(parts) > 1 else None)
    if len(parts) > 1:
        axes.legend(loc="upper right")


def _sides(axes: Axes, report: DataReport) -> None:
    axes.set(xlabel="shorter side (pixels)", ylabel="images", title="Image sizes")
    if not report.image_sizes:
        _nothing(axes, "no readable image")
        return
    sides = np.array([min(size) for size in report.image_sizes])
    low, high = sides.min() * 0.9, sides.max() * 1.1
    spaced = np.geomspace if high > _WIDE * low else np.linspace
    axes.hist(sides, bins=spaced(low, high, _BINS), color=_BLUE)
    if high > _WIDE * low:
        _log_axis(axes, "x")
    if low <= SMALL_SIDE:
        axes.axvline(SMALL_SIDE, color=_ORANGE, linestyle="--", label=f"small: below {SMALL_SIDE}")
        axes.legend(loc="upper right")


def _shapes(axes: Axes, report: DataReport) -> None:
    axes.set(xlabel="width (pixels)", ylabel="height (pixels)", title="Image shapes")
    if not report.image_sizes:
        _nothing(axes, "no readable image")
        return
    widths, heights = np.array(report.image_sizes).T
    axes.scatter(widths, heights, s=14, color=_BLUE, alpha=0.35, linewidths=0)
    low, high = min(widths.min(), heights.min()) * 0.8, max(widths.max(), heights.max()) * 1.25
    line = np.geomspace(low, high, 50)
    axes.plot(line, line, color=_GREY, linewidth=1, linestyle=":", label="square")
    if widths.max() * heights.max() > HUGE_PIXELS:
        axes.plot(
            line, HUGE_PIXELS / line, color=_ORANGE, linestyle="--", label=f"{HUGE_PIXELS // 10**6} million pixels"
        )
    axes.set(xlim=(low, high), ylim=(low, high))
    if high > _WIDE * low:
        _log_axis(axes, "x")
        _log_axis(axes, "y")
    axes.legend(loc="upper left")


def _log_axis(axes: Axes, which: str) -> None:
    """A logarithmic axis with plain numbers at 1, 2 and 5 times powers of ten."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axes.set_xscale("log") if which == "x" else axes.set_yscale("log")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(ScalarFormatter())
    axis.set_minor_locator(NullLocator())


def _nothing(axes: Axes, reason: str) -> None:
    axes.text(0.5, 0.5, reason, ha="center", va="center", color=_GREY, transform=axes.transAxes)
    axes.set(xticks=[], yticks=[])
