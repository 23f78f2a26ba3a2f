"""The command `exgra-med evaluate report`: measured scores beside the published table."""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path

from exgra_adapter.atomic import write_bytes, write_text
from exgra_adapter.console import say
from exgra_adapter.evaluation.leaderboard import (
    DATA_SETS,
    PUBLISHED,
    SOURCE,
    Measurement,
    format_leaderboard,
    read_measurement,
)
from exgra_adapter.pictures import LITERAL_TEXT

_DESCRIPTION = """\
Puts measured scores beside the published ones, in tables of their own: Markdown and a picture with the same name.
  exgra-med evaluate report runs/vqa_rad/test runs/slake/test --output report.md
  exgra-med evaluate report ours/vqa-rad=runs/7 baseline/vqa-rad=runs/8 --output report.md

A run is a folder with scores.json, as `exgra-med evaluate vqa` writes it. Its data set (vqa-rad, slake or pathvqa) is
read in its path, or stands before it, alone or after the model's name."""

_GREY, _COLOURS = "#777777", ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = "osD^vP"
_STYLE = {
    **LITERAL_TEXT,
    "font.size": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
}
_LONGEST_NAME = 30


def add_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
    parents: Sequence[argparse.ArgumentParser] = (),
) -> None:
    """Adds `report`; the parsed options get a `run` that takes them and returns the exit code."""
    parser = subparsers.add_parser(
        "report",
        parents=list(parents),
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        help="measured scores beside the published table",
        description=_DESCRIPTION,
    )
    parser.add_argument("runs", metavar="RUN_DIR", nargs="+", help="folder with scores.json: [[NAME/]DATASET=]DIR")
    parser.add_argument(
        "--output", metavar="FILE", type=Path, default=Path("report.md"), help="Markdown file (default: %(default)s)"
    )
    parser.set_defaults(run=_run)


def plot_leaderboard(measurements: Sequence[Measurement], path: Path) -> None:
    """Draws the published figures and, under a line, the measured ones with their intervals; a panel per data set.

    Args:
        measurements: The measured scores, at least one.
        path: The PNG file to write.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [key for key in DATA_SETS if any(m.data_set == key for m in measurements)]
    models = list(dict.fromkeys(m.model for m in measurements))
    rows = len(PUBLISHED) + len(models)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(3.4 + 3.8 * len(shown), 1.6 + 0.38 * rows), layout="constrained")
        panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        for panel, key in zip(panels, shown, strict=True):
            column = list(DATA_SETS).index(key)
            figures = [values[column] for values in PUBLISHED.values()]
            panel.plot(figures, range(len(PUBLISHED)), "o", color=_GREY, markerfacecolor="white", markersize=7)
            for position, model in enumerate(models):
                for m in (m for m in measurements if (m.model, m.data_set) == (model, key)):
                    _draw(panel, m, len(PUBLISHED) + 0.5 + position, position)
            panel.axhline(len(PUBLISHED) - 0.25, color="black", linewidth=1)
            panel.set(title=DATA_SETS[key], xlabel="percent")
            panel.grid(axis="y", visible=False)
        names = [*PUBLISHED, *(m if len(m) <= _LONGEST_NAME else f"...{m[3 - _LONGEST_NAME :]}" for m in models)]
        places = [*range(len(PUBLISHED)), *(len(PUBLISHED) + 0.5 + position for position in range(len(models)))]
        panels[0].set_yticks(places, names)
        panels[0].set_ylim(rows + 0.2, -0.7)
        rules = " and ".join(dict.fromkeys(f"{m.rule} rule" for m in measurements))
        figure.suptitle(f"Above: published, {SOURCE}. Below: measured here with 95 % intervals ({rules})", fontsize=11)
        FigureCanvasAgg(figure)
        content = io.BytesIO()
        figure.savefig(content, dpi=110, format="png", metadata={"Software": None})
    write_bytes(path, content.getvalue())


def _draw(panel: object, m: Measurement, height: float, position: int) -> None:
    value, low, high = (100 * part for part in (m.summary.value, m.summary.low, m.summary.high))
    errors = [[max(0.0, value - low)], [max(0.0, high - value)]]
    colour, marker = _COLOURS[position % len(_COLOURS)], _MARKERS[position % len(_MARKERS)]
    panel.errorbar([value], [height], xerr=errors, fmt=marker, color=colour, markersize=8, capsize=3)  # type: ignore[attr-defined]


def _run(options: argparse.Namespace) -> int:
    measurements = [read_measurement(run) for run in options.runs]
    picture = options.output.with_suffix(".png")
    if picture == options.output:
        options.output = options.output.with_suffix(".md")
    text = format_leaderboard(measurements, picture.name)
    plot_leaderboard(measurements, picture)
    write_text(options.output, text)
    for m in measurements:
        value, low, high = (100 * part for part in (m.summary.value, m.summary.low, m.summary.high))
        say(f"{DATA_SETS[m.data_set]:<8} {m.model}: {value:.2f} ({low:.2f} to {high:.2f}), n = {m.questions}, {m.rule}")
    say(f"Report: {options.output}")
    return 0
