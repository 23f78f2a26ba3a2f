"""The report of the multi-graph study: answers, tables, a picture, and the numbers for programs."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from graphmatch.studies.multigraph import (
    ALL_PAIRS,
    BARYCENTER,
    BEST,
    CHEAPEST,
    GRAPH,
    METHODS,
    SAME_SOLVER,
    STAR,
    SYNCHRONIZE,
    StudyResult,
)
from graphmatch.studies.multigraph_scaling import Fit, answers, break_even, costs_exponent, exponent, line
from graphmatch.studies.report import BLUE, GREEN, GREY, ORANGE, PINK, RED, SKY, drawing, table, write_files

NAME = "multigraph"
_WIDTH = 110
_NONE = ""

# Method -> colour, dashes, marker.
_LINES = {
    STAR: (SKY, ":", "v"),
    CHEAPEST: (BLUE, "--", "^"),
    BARYCENTER: (RED, "-", "o"),
    GRAPH: ("black", "-", "p"),
    ALL_PAIRS: (ORANGE, "-", "s"),
    SAME_SOLVER: (PINK, "--", "P"),
    SYNCHRONIZE: (GREEN, "-.", "D"),
    BEST: (GREY, "-", "X"),
}


def write_report(result: StudyResult, folder: Path) -> list[Path]:
    """Writes multigraph.md, multigraph.png and multigraph.json, each as a whole, and returns their paths."""
    picture = f"\n![Time and objective of methods for several graphs]({NAME}.png)\n"
    content = json.dumps(as_json(result), indent=1, allow_nan=False) + "\n"
    return write_files(folder, NAME, as_markdown(result) + picture, as_png(result), content)


def as_json(result: StudyResult) -> dict[str, Any]:
    """Returns options, versions, figures, exponents and answers as one JSON object; what is not known is null."""
    content = dataclasses.asdict(result)
    content["exponents"] = {
        axis: {
            **{name: _fit_json(exponent(result, name, axis)) for name in METHODS},
            **{part: _fit_json(costs_exponent(result, axis, part)) for part in ("arms", "pairs")},
            "costs": _fit_json(costs_exponent(result, axis)),
        }
        for axis in ("graphs", "nodes")
    }
    content["barycenter_faster_from"] = {
        name: break_even(result, BARYCENTER, name) for name in METHODS if name != BARYCENTER
    }
    content["answers"] = answers(result)
    return content


def _fit_json(found: Fit | None) -> dict[str, Any] | None:
    return None if found is None else dataclasses.asdict(found)


def as_markdown(result: StudyResult) -> str:
    """Returns the report as Markdown, aligned for reading as it is."""
    lines = ["# Methods for several graphs: how they scale", "", *textwrap.wrap(_about(result), _WIDTH), ""]
    for answer in answers(result):
        lines += [*textwrap.wrap(answer, _WIDTH), ""]
    for skipped in result.skipped:
        lines += [f"Left out: m = {skipped.graphs}, n = {skipped.nodes}: {skipped.reason}.", ""]
    lines += [*table(*_powers(result)), "", *table(*_figures(result)), ""]
    lines += [*table(*_building(result)), ""]
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    threads = "1 thread" if result.study.threads == 1 else f"{result.study.threads} threads"
    return "\n".join([*lines, f"{versions}, {threads}; {result.seconds:.0f} s.", ""])


def _about(result: StudyResult) -> str:
    study = result.study
    return (
        f"m noisy shuffled copies (noise {study.noise:g}) of n random points with {study.features} features, each "
        f"joined with its {study.neighbours} nearest neighbours; costs by MultiGraphProblem.from_graphs, every pair "
        f"matched completely. {study.repetitions} problems per size where time allows, seed {study.seed}. Methods are "
        f"as they come; of many pairs each is solved with less care by default than by a star, in {SAME_SOLVER} with "
        f"the same. The {GRAPH} is the mean of what is matched, joined to its own nearest neighbours. Time: of the "
        f"method, the costs of all pairs given ({GRAPH}: those that it makes are in its time); median (least to most) "
        "over the problems, each the least of up to five short calls. Excess: of the objective over the lowest that "
        "any method found. Gap: to the highest lower bound that any proved; own gap: to that of the method. Before: "
        f"cycle consistency of the pairs solved alone; {_after(result)}. Accuracy: share of nodes matched as planted."
    )


def _after(result: StudyResult) -> str:
    least = min((value for row in result.rows for value in row.consistency), default=1.0)
    return f"that of all answers is at least {least:.6g}"


def _powers(result: StudyResult) -> tuple[list[str], list[list[str]]]:
    header = ["method", "time ~ m^", "time ~ n^", "barycenter faster from m ="]
    rows = []
    for name in METHODS:
        first = break_even(result, BARYCENTER, name)
        faster = _NONE if name == BARYCENTER else "none measured" if first is None else str(first)
        rows.append([name, *(_power(exponent(result, name, axis)) for axis in ("graphs", "nodes")), faster])
    for part, words in (
        ("arms", "pairs of a star, alone"),
        ("pairs", "all pairs, alone"),
        ("seconds", "costs of all pairs"),
    ):
        rows.append([words, *(_power(costs_exponent(result, axis, part)) for axis in ("graphs", "nodes")), _NONE])
    return header, rows


def _power(found: Fit | None) -> str:
    if found is None:
        return _NONE
    return f"{found.exponent:.2f}" + ("" if found.standard_error is None else f" +- {found.standard_error:.2f}")


def _figures(result: StudyResult) -> tuple[list[str], list[list[str]]]:
    header = ["m", "n", "method", "time [s]", "excess [%]", "gap [%]", "own gap [%]", "before", "accuracy"]
    return header, [
        [
            str(row.graphs),
            str(row.nodes),
            row.method,
            _spread(row.seconds, ".3g"),
            _spread([100 * each for each in row.excess], ".2f"),
            _middle(row.gap, 100, ".2f"),
            _middle(row.own_gap, 100, ".2f"),
            _middle(row.consistency_before, 1, ".3f"),
            _middle(row.accuracy, 1, ".3f"),
        ]
        for row in sorted(result.rows, key=lambda row: (row.nodes, row.graphs))
    ]


def _building(result: StudyResult) -> tuple[list[str], list[list[str]]]:
    header = [
        "m",
        "n",
        "pairs of a star [s]",
        "all pairs [s]",
        "costs of all pairs [s]",
        "memory, estimate [MiB]",
        "problems",
    ]
    return header, [
        [
            str(each.graphs),
            str(each.nodes),
            *(_spread(seconds, ".3g") for seconds in (each.arms, each.pairs, each.seconds)),
            f"{each.memory / 2**20:.0f}",
            str(len(each.seconds)),
        ]
        for each in sorted(result.costs, key=lambda each: (each.nodes, each.graphs))
    ]


def _spread(values: Sequence[float], form: str) -> str:
    middle, least, most = (format(each, form) for each in (median(values), min(values), max(values)))
    return middle if least == most else f"{middle} ({least} to {most})"


def _middle(values: Sequence[float | None], factor: float, form: str) -> str:
    known = [factor * each for each in values if each is not None]
    return format(median(known), form) if known else _NONE


def as_png(result: StudyResult) -> bytes:
    """Returns the picture: time against m and n, objective and cycle consistency against m."""
    study = result.study
    fixed = {"graphs": f"n = {study.usual_nodes}", "nodes": f"m = {study.usual_graphs}"}
    scale = "log" if result.rows else "linear"  # nothing has no logarithm
    with drawing(13.5, 11) as (figure, png):
        (times, node_times), (excess, before) = figure.subplots(2, 2)
        for axes, axis in ((times, "graphs"), (node_times, "nodes")):
            for name in METHODS:
                _draw(axes, result, name, axis, "seconds", 1, label=name if axis == "graphs" else None)
            axes.set(yscale=scale, ylabel="time [s]")
            axes.set_title(f"Time, {fixed[axis]}")
        _draw_powers(times, result)
        for name in METHODS:
            _draw(excess, result, name, "graphs", "excess", 100)
        excess.set_ylabel("excess over the lowest [%]")
        excess.set_title(f"Objective, {fixed['graphs']}")
        for name in (ALL_PAIRS, SAME_SOLVER):
            _draw(before, result, name, "graphs", "consistency_before", 1)
        _draw(before, result, BEST, "graphs", "consistency", 1)
        before.set_ylabel("cycle consistency")
        before.set_ylim(0, 1.05)
        before.set_title(f"Pairs alone; {BEST} after, {fixed['graphs']}")
        for axes, axis in ((times, "graphs"), (node_times, "nodes"), (excess, "graphs"), (before, "graphs")):
            sizes = getattr(study, axis)
            axes.set(xscale=scale, xlabel="graphs m" if axis == "graphs" else "nodes n")
            axes.set_xticks(sizes, [str(each) for each in sizes])
            axes.minorticks_off()
        figure.legend(loc="outside lower center", ncols=3, fontsize=14)
        return png()


def _draw(
    axes: Any, result: StudyResult, name: str, axis: str, what: str, factor: float, label: str | None = None
) -> None:
    """Draws the medians of a method, and the extent over the problems as a band."""
    colour, dashes, marker = _LINES[name]
    known = [(row, [each for each in getattr(row, what) if each is not None]) for row in line(result, name, axis)]
    known = [(row, values) for row, values in known if values]
    x = [getattr(row, axis) for row, _ in known]
    style = {"color": colour, "linestyle": dashes, "marker": marker, "label": label}
    axes.plot(x, [factor * median(values) for _, values in known], **style)
    low, high = ([factor * end(values) for _, values in known] for end in (min, max))
    axes.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)


def _draw_powers(axes: Any, result: StudyResult) -> None:
    """Draws the slopes of m and m^2 for comparison, below the fastest method at the largest m."""
    rows = [line(result, name, "graphs") for name in METHODS]
    if not rows[0] or rows[0][-1].graphs < 2 * rows[0][0].graphs:
        return
    last = rows[0][-1].graphs
    at = min(median(each[-1].seconds) for each in rows) / 4
    for power, text in ((1, "~ m "), (2, "~ m² ")):
        start = at / 2**power
        axes.plot([last / 2, last], [start, at], color="black", linewidth=1.5)
        axes.annotate(text, (last / 2, start), ha="right", va="center", fontsize=13)
