"""The pictures of a visual chat evaluation. Colours follow Okabe and Ito, with markers for readers without colours."""

from __future__ import annotations

import io
import math
from collections import Counter
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from exgra_adapter.atomic import write_bytes
from exgra_adapter.evaluation.judge import HIGHEST, LOWEST
from exgra_adapter.evaluation.judge_report import AGREEMENT, RELATIVE
from exgra_adapter.evaluation.judge_scores import ChatScores, GroupScore
from exgra_adapter.evaluation.judge_table import ScoreTable
from exgra_adapter.pictures import LITERAL_TEXT

_SERIES = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#E69F00", "v"), ("#56B4E9", "P"))
_GREY = "#555555"
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
_NAME_WIDTH = 30


def plot_chat(scores: ChatScores, table: ScoreTable, folder: Path) -> list[str]:
    """Draws the relative scores and the agreement between the orders.

    Args:
        scores: What `score_chat` returned.
        table: What it was computed from.
        folder: The folder for the pictures.

    Returns:
        The names of the pictures, in the order of a report; a picture without anything to show is left out.
    """
    drawn = []
    for name, figure in ((RELATIVE, _relative(scores)), (AGREEMENT, _agreement(table))):
        if figure is None:
            (folder / name).unlink(missing_ok=True)  # an older run's picture would belong to other figures
            continue
        content = io.BytesIO()
        with mpl.rc_context(_STYLE):
            # The canvas is attached by hand: pyplot would choose a backend and keep every figure alive.
            FigureCanvasAgg(figure)
            figure.savefig(content, dpi=_DPI, format="png", metadata={"Software": None})
        write_bytes(folder / name, content.getvalue())
        drawn.append(name)
    return drawn


def _relative(scores: ChatScores) -> Figure | None:
    """One row per group, one marker with its interval per candidate."""
    first = scores.candidates[0]
    rows: list[tuple[str, list[GroupScore]]] = [("overall", [item.overall for item in scores.candidates])]
    rows += [(_label(kind), [item.kinds[kind] for item in scores.candidates]) for kind in first.kinds]
    rows += [(_label(domain), [item.domains[domain] for item in scores.candidates]) for domain in first.domains]
    if all(group.relative is None for _, groups in rows for group in groups):
        return None
    lines = (1, 1 + len(first.kinds))
    with mpl.rc_context(_STYLE):
        count = len(scores.candidates)
        height = 1.7 + len(rows) * (0.34 + 0.16 * count) + 0.25 * math.ceil(count / 2)
        figure = Figure(figsize=(9, height), layout="constrained")
        axis = figure.subplots()
        for place, candidate in enumerate(scores.candidates):
            colour, marker = _SERIES[place % len(_SERIES)]
            shift = 0.7 * ((place + 0.5) / count - 0.5)
            points = [(row + shift, groups[place].relative) for row, (_, groups) in enumerate(rows)]
            found = [(row, value) for row, value in points if value is not None]
            axis.errorbar(
                [100 * value.value for _, value in found],
                [row for row, _ in found],
                xerr=[
                    [100 * max(0.0, value.value - value.low) for _, value in found],
                    [100 * max(0.0, value.high - value.value) for _, value in found],
                ],
                fmt=marker, color=colour, markersize=8, elinewidth=2, capsize=4, label=_shorten(candidate.name),
            )  # fmt: skip
        axis.axvline(100, color=_GREY, linewidth=1.2, linestyle="--", label="reference answers")
        for line in lines:
            axis.axhline(line - 0.5, color=_GREY, linewidth=0.6)
        axis.set_yticks(range(len(rows)), [f"{name} ({groups[0].questions})" for name, groups in rows])
        axis.set(ylim=(len(rows) - 0.5, -0.5), xlabel="relative score (% of the reference answers' score)")
        axis.set_title("Scores with 95 % intervals (number of questions)")
        axis.grid(axis="y", visible=False)
        handles, labels = axis.get_legend_handles_labels()
        figure.legend(handles[1:] + handles[:1], labels[1:] + labels[:1], loc="outside lower center", ncols=2)
    return figure


def _agreement(table: ScoreTable) -> Figure | None:
    """One panel per candidate: its lead over the reference in one order against that in the other."""
    judged = table.at(table.judged)
    groups = [
        (name, Counter(map(tuple, judged.of_candidate(place).leads.tolist()))) for place, name in enumerate(table.names)
    ]
    shown = [(name, counts) for name, counts in groups if counts]
    if not shown:
        return None
    columns = min(3, len(shown))
    rows = math.ceil(len(shown) / columns)
    with mpl.rc_context(_STYLE):
        side = 4.4 if columns > 1 else 5.4
        figure = Figure(figsize=(0.5 + side * columns, 0.5 + (side + 0.6) * rows), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flatten()
        largest = max(max(counts.values()) for _, counts in shown)
        for axis, (name, counts) in zip(panels, shown, strict=False):
            _draw_leads(axis, name, counts, largest)
        for axis in panels[len(shown) :]:
            axis.set_visible(False)
        figure.supxlabel("candidate's lead when the reference comes first (points)", fontsize=12)
        figure.supylabel("candidate's lead when it comes first itself (points)", fontsize=12)
    return figure


def _draw_leads(axis: Axes, name: str, counts: Counter[tuple[int, ...]], largest: int) -> None:
    limit = HIGHEST - LOWEST + 0.7
    axis.plot([-limit, limit], [-limit, limit], color=_GREY, linewidth=1)
    axis.axhline(0, color=_GREY, linewidth=0.6)
    axis.axvline(0, color=_GREY, linewidth=0.6)
    # Opposite quadrants: either order prefers the other answer.
    for left, bottom in ((-limit, 0), (0, -limit)):
        axis.fill_between([left, left + limit], bottom, bottom + limit, color="#D55E00", alpha=0.08, linewidth=0)
    axis.scatter(
        [behind for behind, _ in counts],
        [ahead for _, ahead in counts],
        s=[14 + 300 * count / largest for count in counts.values()],
        color="#0072B2",
        alpha=0.65,
        linewidths=0,
    )
    reverse = sum(count for (behind, ahead), count in counts.items() if behind * ahead < 0)
    ticks = range(-8, 9, 4)
    axis.set(xlim=(-limit, limit), ylim=(-limit, limit), xticks=ticks, yticks=ticks, aspect="equal")
    axis.set_title(f"{_shorten(name)}\n{counts.total()} questions, {reverse} reversed (shaded)")
    axis.text(
        -limit + 0.3,
        limit - 0.3,
        "above the line: first place helps\narea: number of questions",
        va="top",
        color=_GREY,
        fontsize=10,
    )


def _label(name: str) -> str:
    return _shorten(name.replace("_", " "))


def _shorten(name: str) -> str:
    return name if len(name) <= _NAME_WIDTH else f"{name[: _NAME_WIDTH - 1]}…"
