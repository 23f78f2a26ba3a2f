"""The picture of a prepared data set."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from exgra_adapter.atomic import write_bytes
from exgra_adapter.data.preparation.statistics import TOTALS
from exgra_adapter.pictures import LITERAL_TEXT

# Okabe and Ito's colours differ for every kind of colour vision.
_COLOURS = {"train": "#0072B2", "validation": "#E69F00", "test": "#D55E00"}
_KINDS = {"OPEN": ("open", "#0072B2"), "CLOSED": ("closed", "#E69F00"), None: ("not stated", "#999999")}
_STYLE = {
    **LITERAL_TEXT,
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}
_DPI = 110
_BARS = 10
_LONGEST_NAME = 24


def plot_statistics(facts: Mapping[str, Any], path: Path) -> None:
    """Draws samples, answer lengths, question types, modalities or body regions, and answers into a PNG file.

    Args:
        facts: What `prepare` writes to `statistics.json`.
        path: The file to write.
    """
    splits: dict[str, Any] = facts["splits"]
    panels = [("question_types", "Question types"), ("modalities", "Modalities"), ("locations", "Body regions")]
    shown = [(key, title) for key, title in panels if any(split[key] for split in splits.values())]
    if any(split["top_answers"] for split in splits.values()):
        shown.append(("top_answers", "Most frequent answers"))
    columns = 2 if len(shown) <= 2 else 3
    rows = (2 + len(shown) + columns - 1) // columns
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(5.4 * columns, 4.1 * rows), layout="constrained")
        axes = list(np.ravel(figure.subplots(rows, columns, squeeze=False)))
        _samples(axes[0], splits)
        _lengths(axes[1], splits)
        for axis, (key, title) in zip(axes[2:], shown, strict=False):
            _bars(axis, splits, key, title)
        for axis in axes[2 + len(shown) :]:
            axis.set_axis_off()
        handles = [mpl.patches.Patch(color=_COLOURS[split], label=split) for split in splits]
        if len(splits) > 1:
            figure.legend(handles=handles, loc="outside lower center", ncols=len(splits))
        figure.suptitle(f"{facts['data_set']}: {sum(split['rows'] for split in splits.values()):,} samples")
        FigureCanvasAgg(figure)
        content = io.BytesIO()
        figure.savefig(content, dpi=_DPI, format="png", metadata={"Software": None})
    write_bytes(path, content.getvalue())


def _samples(axes: Axes, splits: Mapping[str, Any]) -> None:
    left = np.zeros(len(splits))
    for kind, (label, colour) in _KINDS.items():
        counts = np.array(
            [split[kind] if kind else split["rows"] - split["OPEN"] - split["CLOSED"] for split in splits.values()]
        )
        if counts.any():
            bars = axes.barh(list(splits), counts, left=left, color=colour, label=label)
            labels = [
                f"{count:,}" if count > 0.08 * max(s["rows"] for s in splits.values()) else "" for count in counts
            ]
            axes.bar_label(bars, labels, label_type="center", fontsize=10, color="white" if kind == "OPEN" else "black")
            left += counts
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set(title="Samples by answer type", xlabel="samples")
    axes.legend(loc="lower right", fontsize=10)


def _lengths(axes: Axes, splits: Mapping[str, Any]) -> None:
    # The few longest answers would squeeze the rest.
    limit = max(5, max(split["answer_words"]["percentile_95"] for split in splits.values()) * 1.5)
    width = max(1, int(np.ceil(limit / 40)))
    edges = np.arange(0.5, limit + width, width)
    for name, split in splits.items():
        lengths = np.array([int(length) for length in split["answer_lengths"]])
        counts = np.array(list(split["answer_lengths"].values()))
        heights, _ = np.histogram(np.minimum(lengths, edges[-1] - 0.1), bins=edges, weights=counts / counts.sum())
        axes.stairs(heights, edges, color=_COLOURS[name], linewidth=2.5, fill=len(splits) == 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set(title="Answer length", xlabel="words (the last bar: as many or more)", ylabel="answers", ylim=(0, None))


def _bars(axes: Axes, splits: Mapping[str, Any], key: str, title: str) -> None:
    total = Counter[str]()
    for split in splits.values():
        total.update(split[key])
    names = [name for name, _ in total.most_common(_BARS)]
    height = 0.8 / len(splits)
    for position, (split_name, split) in enumerate(splits.items()):
        shares = [split[key].get(name, 0) / split[TOTALS[key]] for name in names]
        axes.barh(np.arange(len(names)) + position * height, shares, height, color=_COLOURS[split_name], align="edge")
    axes.set_yticks(np.arange(len(names)) + 0.4, [_shorten(name) for name in names], fontsize=10)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    left = len(total) - len(names)
    axes.set(
        title=f"{title} ({left} more)" if left and key != "top_answers" else title,
        xlabel="share of the samples" if TOTALS[key] == "rows" else "share of the questions",
    )


def _shorten(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 3] + "..."
