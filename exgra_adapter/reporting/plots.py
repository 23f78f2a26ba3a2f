"""The plots of a training run. Colours follow Okabe and Ito, so that they differ for every kind of colour vision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from exgra_adapter.reporting.facts import History
from exgra_adapter.reporting.measures import (
    NORM_PREFIX,
    TIME_PREFIX,
    keys_with_prefix,
    phase_name,
    series,
    smooth,
    weighted,
)

LOSS, ALIGNMENT, MATCHING = "autoregressive_loss.png", "alignment_loss.png", "matching.png"
NORMS, TIME, RATE = "gradient_norms.png", "time_split.png", "learning_rate.png"

_BLUE, _ORANGE, _GREEN, _VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
_SKY, _PURPLE, _YELLOW, _GREY = "#56B4E9", "#CC79A7", "#F0E442", "#555555"
_PHASE_COLOURS = {
    "data": "#BBBBBB",
    "forward": _BLUE,
    "text": _ORANGE,
    "graph": _VERMILLION,
    "solve": _PURPLE,
    "backward": _SKY,
    "optimizer": _GREEN,
    "other": _YELLOW,
}
_PHASE_HATCHES = {"text": "//", "graph": "xx", "solve": ".."}
_LINES = ((_BLUE, "-"), (_VERMILLION, "--"), (_GREEN, "-."), (_PURPLE, ":"), (_ORANGE, "-"), (_SKY, "--"))
_MARKERS = {"-": "o", "--": "s", "-.": "^", ":": "D"}
_STYLE = {
    "font.size": 15,
    "axes.titlesize": 17,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "lines.linewidth": 3,
    "hatch.linewidth": 0.7,
}
_DPI = 100
_FEW_POINTS = 12
_MOST_BARS = 24


def plot_history(history: History, folder: Path, chance: float | None = None) -> list[str]:
    """Draws what the history holds, one picture for each subject.

    Args:
        history: The logged steps. Quantities that were not logged, or never finite, are left out.
        folder: An existing folder for the pictures.
        chance: Share of nodes that match by chance, drawn beside matching and retrieval.

    Returns:
        The names of the pictures that were drawn, in the order of a report.
    """
    drawings: dict[str, Callable[[Axes], bool]] = {
        LOSS: lambda axis: _draw_losses(axis, history),
        ALIGNMENT: lambda axis: _draw_alignment_loss(axis, history),
        MATCHING: lambda axis: _draw_matching(axis, history, chance),
        NORMS: lambda axis: _draw_norms(axis, history),
        TIME: lambda axis: _draw_time(axis, history),
        RATE: lambda axis: _draw_rate(axis, history),
    }
    drawn = []
    for name, draw in drawings.items():
        with mpl.rc_context(_STYLE):
            figure = Figure(figsize=(8, 5), layout="constrained")
            axis = figure.subplots()
            axis.set_xlabel("optimizer step")
            if not draw(axis):
                continue
            handles, labels = axis.get_legend_handles_labels()
            if len(labels) > 1:
                figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), fontsize=14)
            # The canvas is attached by hand: pyplot would choose a backend and keep every figure alive.
            FigureCanvasAgg(figure)
            figure.savefig(folder / name, dpi=_DPI, metadata={"Software": None})
        drawn.append(name)
    return drawn


def _draw_losses(axis: Axes, history: History) -> bool:
    drawn = _curve(axis, history, "ar_loss", _BLUE, "answers")
    drawn |= _curve(axis, history, "extended_text_loss", _VERMILLION, "extended answers", linestyle="--")
    axis.set(title="Autoregressive loss", ylabel="nats per token")
    axis.set_ylim(0, 1.05 * axis.get_ylim()[1])
    return drawn


def _draw_alignment_loss(axis: Axes, history: History) -> bool:
    axis.set(title="Alignment loss", ylabel="loss")
    drawn = _curve(axis, history, "alignment_loss", _VERMILLION, "alignment")
    axis.set_ylim(bottom=min(0.0, axis.get_ylim()[0]))
    return drawn


def _draw_matching(axis: Axes, history: History, chance: float | None) -> bool:
    drawn = _curve(axis, history, "matching_accuracy", _BLUE, "barycenter matching")
    drawn |= _curve(axis, history, "retrieval", _VERMILLION, "view retrieval", linestyle="--")
    drawn |= _curve(axis, history, "zero_gradient_share", _GREY, "no gradient", linestyle=":")
    if chance is not None:
        axis.axhline(chance, color=_GREY, linewidth=1.2)
        axis.text(1, chance, "chance", transform=axis.get_yaxis_transform(), ha="right", va="bottom", color=_GREY)
    axis.set(title="Does the alignment work?", ylabel="share", ylim=(-0.02, 1.02))
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    return drawn


def _draw_norms(axis: Axes, history: History) -> bool:
    drawn = _curve(axis, history, "gradient_norm", "black", "all", positive=True)
    for (colour, dashes), key in zip(_LINES, keys_with_prefix(history, NORM_PREFIX), strict=False):
        name = key.removeprefix(NORM_PREFIX).replace("_", " ")
        drawn |= _curve(axis, history, key, colour, name, positive=True, linestyle=dashes)
    axis.set(title="Gradient norms", ylabel="norm", yscale="log")
    return drawn


def _draw_rate(axis: Axes, history: History) -> bool:
    axis.set(title="Learning rate", ylabel="learning rate")
    drawn = _curve(axis, history, "learning_rate", _BLUE, "learning rate", raw=False)
    axis.set_ylim(bottom=0)
    axis.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    return drawn


def _draw_time(axis: Axes, history: History) -> bool:
    keys = keys_with_prefix(history, TIME_PREFIX)
    entries = [(weight, entry) for weight, entry in weighted(history) if any(key in entry for key in keys)]
    if not entries:
        return False
    groups = [[entries[place] for place in part] for part in np.array_split(range(len(entries)), _MOST_BARS)]
    groups = [group for group in groups if group]
    widths = np.array([sum(weight for weight, _ in group) for group in groups])
    starts = entries[0][1].get("step", entries[0][0]) - entries[0][0] + np.cumsum(widths) - widths
    bottom = np.zeros(len(groups))
    for key in keys:
        phase = key.removeprefix(TIME_PREFIX)
        heights = np.array([_mean_seconds(group, key) for group in groups])
        axis.bar(
            starts, heights, widths, bottom, align="edge", color=_PHASE_COLOURS.get(phase, "white"),
            hatch=_PHASE_HATCHES.get(phase), edgecolor="white" if phase in _PHASE_COLOURS else "black", linewidth=0.6,
            label=phase_name(phase),
        )  # fmt: skip
        bottom += heights
    axis.set(title="Where the time goes", ylabel="seconds per step", xlim=(starts[0], starts[-1] + widths[-1]))
    axis.grid(axis="x", visible=False)
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    return True


def _mean_seconds(group: list[tuple[float, dict[str, float]]], key: str) -> float:
    values = [(weight, entry.get(key) or 0.0) for weight, entry in group]
    return sum(w * value for w, value in values if np.isfinite(value)) / sum(weight for weight, _ in values)


def _curve(
    axis: Axes,
    history: History,
    key: str,
    colour: str,
    label: str,
    *,
    linestyle: str = "-",
    positive: bool = False,
    raw: bool = True,
) -> bool:
    """Plots one logged quantity, faintly as it is and strongly smoothed; few points are marked. False: none to plot."""
    steps, values = series(history, key)
    values = np.where(np.isfinite(values) & ((values > 0) | (not positive)), values, np.nan)
    if not np.isfinite(values).any():
        return False
    if raw and len(values) > 2 * _FEW_POINTS:
        axis.plot(steps, values, color=colour, alpha=0.25, linewidth=1.2)
    marker = _MARKERS[linestyle] if len(values) <= _FEW_POINTS else None
    shown = smooth(values) if raw else values
    axis.plot(steps, shown, color=colour, linestyle=linestyle, label=label, marker=marker, markersize=9)
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    return True
