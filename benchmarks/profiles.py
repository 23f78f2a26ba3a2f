"""Performance profiles: the share of instances that a solver solves within a factor of the best.

Source: E. D. Dolan, J. J. Moré, "Benchmarking optimization software with performance profiles", Mathematical
Programming 91, 2002.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, PercentFormatter

from benchmarks.machine import RESULTS
from benchmarks.output import BLUE, GREEN, GREY, ORANGE, figure
from benchmarks.tables import Row, percent, table

PICTURE = RESULTS / "profiles.png"
# Objectives that differ by less, relatively, are equal: solvers add the same costs in different orders.
_ROUNDING = 1e-9
# The smallest excess that pictures show.
_FLOOR = 1e-4
# Solvers that took fewer of the instances than this share of the most are left out.
_LEAST_SHARE = 0.5
_COLOURS = (BLUE, ORANGE, GREEN, GREY, "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_LINES = ("-", "--", "-.", ":")
# Factors that tables quote.
_TIMES = (1.0, 10.0, 100.0)
_EXCESSES = (0.0, 0.01, 0.1)


@dataclass(frozen=True)
class Answer:
    """What a solver found for an instance, and in which time."""

    seconds: float
    objective: float


Answers = Mapping[str, Mapping[str, Answer]]


def comparable(answers: Answers) -> dict[str, dict[str, Answer]]:
    """Returns the solvers that took most of the instances, with the instances that all of those took."""
    most = max((len(own) for own in answers.values()), default=0)
    kept = {solver: own for solver, own in answers.items() if own and len(own) >= _LEAST_SHARE * most}
    common = set.intersection(*(set(own) for own in kept.values())) if kept else set()
    return {solver: {name: own[name] for name in own if name in common} for solver, own in kept.items()}


def excesses(answers: Answers, best: Mapping[str, float] | None = None) -> dict[str, dict[str, float]]:
    """Returns for every solver and instance the objective above the best one, relatively.

    Args:
        answers: By solver and instance; all solvers took the same ones.
        best: Best known values; None takes the best of the solvers.
    """
    found = dict(best or {})
    for own in answers.values():
        for name, answer in own.items():
            found[name] = min(found.get(name, math.inf), answer.objective)
    return {
        solver: {name: (each.objective - found[name]) / (abs(found[name]) or 1.0) for name, each in own.items()}
        for solver, own in answers.items()
    }


def time_ratios(answers: Answers, best: Mapping[str, float] | None = None) -> dict[str, list[float]]:
    """Returns every solver's times in units of the shortest with which an instance was solved; inf = not solved.

    An instance is solved where its objective is the best one, up to rounding.
    """
    above = excesses(answers, best)
    times = {
        solver: {name: each.seconds if above[solver][name] <= _ROUNDING else math.inf for name, each in own.items()}
        for solver, own in answers.items()
    }
    names = list(next(iter(times.values()), {}))
    shortest = {name: min(own[name] for own in times.values()) for name in names}
    return {
        solver: [math.inf if math.isinf(own[name]) else own[name] / shortest[name] for name in names]
        for solver, own in times.items()
    }


def share_within(values: Sequence[float], limit: float) -> float:
    """Returns the share of values of at most `limit`."""
    return sum(value <= limit for value in values) / len(values)


def sparse_answers(rows: Sequence[Row]) -> dict[str, dict[str, Answer]]:
    """Returns the answers to single ExGra instances, the whole calls timed."""
    answers: dict[str, dict[str, Answer]] = {}
    for info in (row["extra_info"] for row in rows):
        pairs = zip(info.get("case_seconds", []), info.get("objectives", []), strict=False)
        for seed, (seconds, objective) in enumerate(pairs):
            name = f"noise {info['noise']:g}, N = {info['nodes']}, seed {seed}"
            answers.setdefault(info["solver"], {})[name] = Answer(seconds, objective)
    return answers


def dense_answers(rows: Sequence[Row]) -> tuple[dict[str, dict[str, Answer]], dict[str, float]]:
    """Returns the answers to single dense instances, and the best known values that they tell."""
    answers: dict[str, dict[str, Answer]] = {}
    best: dict[str, float] = {}
    for info in (row["extra_info"] for row in rows):
        for name, judged in info["instances"].items():
            answers.setdefault(info["solver"], {})[name] = Answer(judged["ms"] / 1000, judged["objective"])
            if judged.get("best") is not None:
                best[name] = judged["best"]
    return answers, best


def section(sparse: Sequence[Row], dense: Sequence[Row], generated: Sequence[Row]) -> str:
    """Profiles of the sparse and of the dense suite; QAPLIB where it was measured, generated problems elsewhere."""
    suites: dict[str, tuple[Answers, Mapping[str, float]]] = {}
    sparse_kept = comparable(sparse_answers(sparse))
    if len(sparse_kept) > 1:
        suites["ExGra instances"] = (sparse_kept, {})
    answers, best = dense_answers(dense or generated)
    dense_kept = comparable(answers)
    if len(dense_kept) > 1:
        suites["QAPLIB" if dense else "Generated dense problems"] = (dense_kept, best)
    if not suites:
        return ""
    _draw(suites)
    text = (
        "Share of instances that a solver solves within a factor of the shortest time in which any solver does "
        "(solved: no other objective of this run, and no best known value, is lower), and share whose objective is "
        "within a relative distance of the best. Times are those of whole calls from Python, models built before. "
        "Solvers that stop at a time limit need all of it, however early they find their answer."
    )
    parts = [text, f"![performance profiles]({PICTURE.name})"]
    parts += [_table(name, answers, best) for name, (answers, best) in suites.items()]
    return "\n\n".join(parts)


def _table(name: str, answers: Answers, best: Mapping[str, float]) -> str:
    ratios, above = time_ratios(answers, best), excesses(answers, best)
    count = len(next(iter(answers.values())))
    lines = [
        [
            solver,
            *(percent(share_within(ratios[solver], limit)) for limit in _TIMES),
            percent(share_within([*above[solver].values()], _ROUNDING)),
            *(percent(share_within([*above[solver].values()], limit)) for limit in _EXCESSES[1:]),
        ]
        for solver in answers
    ]
    headers = [f"{name}, {count}", *("fastest" if limit == 1 else f"within {limit:g} times" for limit in _TIMES)]
    headers += ["best objective", *(f"within {limit:.0%}" for limit in _EXCESSES[1:])]
    return table(headers, lines)


def _draw(suites: Mapping[str, tuple[Answers, Mapping[str, float]]]) -> None:
    with figure(PICTURE, width=15, height=0.6 + 5.4 * len(suites)) as canvas:
        grid = canvas.subplots(len(suites), 2, squeeze=False)
        for (times, objectives), (name, (answers, best)) in zip(grid, suites.items(), strict=True):
            count = len(next(iter(answers.values())))
            above = {solver: [*own.values()] for solver, own in excesses(answers, best).items()}
            _curves(times, time_ratios(answers, best), 1.0)
            _curves(objectives, above, _FLOOR)
            times.set(xlabel="time / shortest time", title=f"{name} ({count}): solved")
            times.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            objectives.set(xlabel="objective above the best", title="objective within")
            objectives.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
            objectives.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=12, handlelength=3)


def _curves(axis: Axes, values: Mapping[str, Sequence[float]], least: float) -> None:
    """Draws for every solver the share of its values below a growing limit; infinite ones never come."""
    finite = [value for own in values.values() for value in own if math.isfinite(value)]
    most = 1.2 * max([*finite, 10 * least])
    for place, (solver, own) in enumerate(values.items()):
        reached = np.sort([max(value, least) for value in own if math.isfinite(value)])
        shares = np.arange(1, len(reached) + 1) / len(own)
        last = shares[-1] if len(reached) else 0.0
        colour, line = _COLOURS[place % len(_COLOURS)], _LINES[place // len(_COLOURS) % len(_LINES)]
        axis.step([least, *reached, most], [0, *shares, last], where="post", color=colour, linestyle=line, label=solver)
    axis.set(xscale="log", xlim=(least, most), ylim=(0, 1.03))
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))
