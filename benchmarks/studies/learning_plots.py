"""Pictures of the studies of learning: means over seeds with their 95 % intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator, PercentFormatter

from benchmarks.output import BLUE, GREEN, GREY, ORANGE, figure
from benchmarks.studies.arms import DROPOUT, FRACTIONS, GRAPH_SIZES, NEIGHBOURS, OBJECTIVES, SHARES
from benchmarks.studies.statistics import Interval, Results, estimate

StudyResults = Mapping[str, Results]
Axes = Any

_MARKERS = {BLUE: "o", ORANGE: "s", GREEN: "^", GREY: "D"}
_STEPS = (1, 2, 5, 10)  # 2.5 % would be written as 2 %
_ANSWERS = ("answers", "Answers after fine-tuning")
_ALL_VIEWS = ("retrieval", "Retrieval, all views")
_MATCHING = ("plain_matching", "Matching of plain nodes")
_SILENT = ("zero_gradient_share", "Silent steps")
_GUESSING = "guessing without the picture"
_RETRIEVAL = ("image_retrieval", "Image–text retrieval")
_PANELS = (_RETRIEVAL, _ALL_VIEWS, _MATCHING, _ANSWERS)


def _line(
    axes: Axes, results: StudyResults, measure: str, points: Sequence[tuple[float, str]], colour: str, label: str
) -> None:
    """Draws a measure over the places of some arms; arms that lack it are left out."""
    found = [(place, estimate(results.get(arm, {}), measure)) for place, arm in points]
    shown = [(place, value) for place, value in found if value is not None]
    if not shown:
        return
    places = [place for place, _ in shown]
    means = [value.mean for _, value in shown]
    axes.errorbar(
        places,
        means,
        yerr=np.array([_reach(value) for _, value in shown]).T,
        color=colour,
        marker=_MARKERS[colour],
        markersize=8,
        capsize=4,
        elinewidth=1.6,
        label=label,
    )


def _reach(value: Interval) -> tuple[float, float]:
    """How far the interval reaches down and up; nowhere where one seed gives none."""
    return (value.mean - value.low, value.high - value.mean) if value.count > 1 else (0.0, 0.0)


def _level(axes: Axes, results: StudyResults, measure: str, arm: str, style: str) -> None:
    """Draws the mean of an arm that has no place on the axis."""
    value = estimate(results.get(arm, {}), measure)
    if value is not None:
        axes.axhline(value.mean, color=GREY, linestyle=style, linewidth=2, label=arm)


def _guessing(axes: Axes, results: StudyResults, across: bool = False) -> None:
    """Draws what guessing scores, as a vertical line where answers run `across`."""
    value = estimate(next(iter(results.values())), "guessing")
    if value is not None:
        draw = axes.axvline if across else axes.axhline
        draw(value.mean, color=GREY, linestyle="-.", linewidth=1.6, label=_GUESSING)


def _finish(axes: Axes, title: str, label: str) -> None:
    axes.set(title=title, xlabel=label)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=_STEPS))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def draw_caption_quality(results: StudyResults, path: Path) -> None:
    """Draws three measures over the share of what is corrupted."""
    with figure(path, width=17, height=5.4) as canvas:
        panels = canvas.subplots(1, 4)
        lines = (("dropout", DROPOUT, BLUE), ("swap", SHARES, ORANGE), ("hallucination", SHARES, GREEN))
        names = {"dropout": "words dropped", "swap": "swapped between samples", "hallucination": "hallucinated lesions"}
        for axes, (measure, title) in zip(panels, _PANELS, strict=True):
            for shift, (kind, shares, colour) in zip((-0.012, 0, 0.012), lines, strict=True):
                points = [(shift, "as written")]
                points += [(share + shift, f"{kind} {round(100 * share)} %") for share in shares]
                _line(axes, results, measure, points, colour, names[kind])
            _level(axes, results, measure, "without extended answers", "--")
            _level(axes, results, measure, "AR only", ":")
            axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            _finish(axes, title, "corrupted share")
        _guessing(panels[-1], results)
        canvas.legend(*panels[-1].get_legend_handles_labels(), loc="outside lower center", ncols=3)


def draw_neighbours(results: StudyResults, path: Path) -> None:
    """Draws matching accuracy and answers over k and over N."""
    with figure(path, width=15, height=5.4) as canvas:
        panels = canvas.subplots(1, 4)
        for place, (name, values, label) in enumerate(
            (("k", NEIGHBOURS, "neighbours k (N = 16)"), ("N", GRAPH_SIZES, "nodes per graph N (k = 5)"))
        ):
            points = [(float(index), f"{name} = {value}") for index, value in enumerate(values)]
            matching, answers = panels[2 * place : 2 * place + 2]
            _line(matching, results, "matching", points, BLUE, "matching, graphs of 16, k = 5")
            _line(matching, results, "own_matching", points, ORANGE, "matching, graphs as in training")
            _line(matching, results, "image_retrieval", points, GREEN, "image–text retrieval")
            _line(answers, results, "answers", points, GREY, "answers")
            _guessing(answers, results)
            _finish(matching, f"Matching and retrieval by {name}", label)
            _finish(answers, f"Answers by {name}", label)
            for axes in (matching, answers):
                axes.set_xticks(range(len(values)), [str(value) for value in values])
                axes.margins(x=0.12)
        for pair in ((panels[0], panels[2]), (panels[1], panels[3])):
            low, high = min(axes.get_ylim()[0] for axes in pair), max(axes.get_ylim()[1] for axes in pair)
            for axes in pair:
                axes.set_ylim(low, high)
        handles, labels = (
            [*of_matching, *of_answers]
            for of_matching, of_answers in zip(
                panels[0].get_legend_handles_labels(), panels[1].get_legend_handles_labels(), strict=True
            )
        )
        canvas.legend(handles, labels, loc="outside lower center", ncols=3)


def draw_barycenter(results: StudyResults, path: Path) -> None:
    """Draws every arm as a dot with its interval, one panel for each measure."""
    measures = (
        _RETRIEVAL,
        _ALL_VIEWS,
        _MATCHING,
        ("own_matching", "… with own barycenter"),
        _SILENT,
        _ANSWERS,
    )
    # Nothing is to be seen where no step was silent.
    silent = [estimate(runs, _SILENT[0]) for runs in results.values()]
    measures = tuple(each for each in measures if each is not _SILENT or any(value and value.mean for value in silent))
    labels = list(results)
    with figure(path, width=18, height=0.6 * len(labels) + 1.8) as canvas:
        panels = canvas.subplots(1, len(measures), sharey=True)
        for axes, (measure, title) in zip(panels, measures, strict=True):
            for place, label in enumerate(reversed(labels)):
                value = estimate(results[label], measure)
                if value is None:
                    continue
                colour = BLUE if "leave" in label else ORANGE if "mean" in label else GREY
                axes.errorbar(
                    [value.mean],
                    [place],
                    xerr=np.array([_reach(value)]).T,
                    color=colour,
                    marker=_MARKERS[colour],
                    markersize=9,
                    capsize=4,
                    elinewidth=1.8,
                    linestyle="none",
                )
            axes.set(title=title)
            axes.xaxis.set_major_locator(MaxNLocator(4, steps=_STEPS))
            # Shares of a few thousandths need their decimals.
            axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=None if measure == _SILENT[0] else 0))
        _guessing(panels[-1], results, across=True)
        canvas.legend(*panels[-1].get_legend_handles_labels(), loc="outside lower right")
        panels[0].set_yticks(range(len(labels)), list(reversed(labels)))
        canvas.supxlabel("mean and 95 % interval", fontsize=13)


def draw_data_efficiency(results: StudyResults, path: Path) -> None:
    """Draws three measures over the share of the data, one line for each objective."""
    with figure(path, width=17, height=5.4) as canvas:
        panels = canvas.subplots(1, 4)
        colours = dict(zip(OBJECTIVES, (GREY, GREEN, BLUE, ORANGE), strict=True))
        for axes, (measure, title) in zip(panels, _PANELS, strict=True):
            for shift, (name, colour) in zip((0.97, 0.99, 1.01, 1.03), colours.items(), strict=True):
                points = [(fraction * shift, f"{name}, {round(100 * fraction)} %") for fraction in FRACTIONS]
                _line(axes, results, measure, points, colour, name)
            axes.set_xscale("log")
            axes.set_xticks(FRACTIONS, [f"{fraction:.0%}" for fraction in FRACTIONS])
            axes.minorticks_off()
            _finish(axes, title, "share of the pictures in stage 2")
        _guessing(panels[-1], results)
        canvas.legend(*panels[-1].get_legend_handles_labels(), loc="outside lower center", ncols=5)


DRAWERS: dict[str, Callable[[StudyResults, Path], None]] = {
    "caption_quality": draw_caption_quality,
    "neighbours": draw_neighbours,
    "barycenter": draw_barycenter,
    "data_efficiency": draw_data_efficiency,
}
