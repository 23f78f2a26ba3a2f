"""The section of the report on several graphs matched at once, with its picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import mean, median

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from benchmarks.machine import RESULTS
from benchmarks.output import BLUE, GREEN, GREY, ORANGE, figure
from benchmarks.tables import MISSING, Row, find, milliseconds, number, percent, table, values

PICTURE = RESULTS / "multigraph.png"
OURS, PEER = "Best", "pylibmgm DEFAULT"
# Objectives that differ by less, relatively, are equal: solvers add the same costs in different orders.
ROUNDING = 1e-9
_STYLES = {
    "Best": (BLUE, "-", "o"),
    "Star, barycenter": (BLUE, "--", "s"),
    "LocalSearch": (BLUE, ":", "^"),
    "AllPairs": (GREEN, "-", "o"),
    "Synchronize, cliques": (GREEN, "--", "s"),
    "pylibmgm FAST": (ORANGE, ":", "^"),
    "pylibmgm DEFAULT": (ORANGE, "-", "o"),
    "pylibmgm EXHAUSTIVE": (ORANGE, "--", "s"),
    "pylibmgm EXHAUSTIVE, 2 threads": (ORANGE, "-.", "D"),
    "pygmtools cao": (GREY, "-", "o"),
    "pygmtools mgm_floyd": (GREY, "--", "s"),
    "pygmtools gamgm": (GREY, ":", "^"),
}


@dataclass(frozen=True)
class Answer:
    """What one solver found for one instance."""

    case: str
    solver: str
    package: str
    graphs: int
    family: str
    build: float
    solve: float
    objective: float
    consistency: float
    accuracy: float | None
    lower_bound: float | None
    excess: float = 0.0

    @property
    def consistent(self) -> bool:
        return self.consistency > 1 - ROUNDING


def answers_of(rows: list[Row]) -> list[Answer]:
    """Returns one answer per solver and instance, with its excess over the cheapest consistent one in percent."""
    found = [answer for row in rows if "cases" in row["extra_info"] for answer in _of_row(row["extra_info"])]
    best: dict[str, float] = {}
    for answer in found:
        if answer.consistent:
            best[answer.case] = min(best.get(answer.case, np.inf), answer.objective)
    excess = [100 * (each.objective - best[each.case]) / abs(best[each.case]) for each in found]
    return [Answer(**{**vars(each), "excess": more}) for each, more in zip(found, excess, strict=True)]


def _of_row(info: dict) -> Iterator[Answer]:
    accuracies = info.get("accuracy", [None] * len(info["cases"]))
    columns = ("cases", "build_s", "solve_s", "objective", "consistency", "lower_bound")
    for case, build, solve, objective, consistency, bound, accuracy in zip(
        *(info[column] for column in columns), accuracies, strict=True
    ):
        yield Answer(
            case, info["solver"], info["package"], info["graphs"], info["family"], build, solve, objective, consistency,
            accuracy, bound,
        )  # fmt: skip


def section(rows: list[Row]) -> str:
    """Several graphs: cost, time, consistency of every solver on every set."""
    answers = answers_of(rows)
    solvers = list(dict.fromkeys(answer.solver for answer in answers))
    _draw([answer for answer in answers if answer.family == "planted"], solvers)
    text = (
        "Planted sets: noisy, shuffled copies of one weighted graph of 16 nodes, every node matched; real ones: nodes "
        "may stay unmatched at cost 0. One thread but where two are named, default options, float64 (pygmtools: "
        "float32). One judge for all objectives; *excess*: above the cheapest consistent matchings of this run, "
        "relatively. Matchings that are not consistent do not solve the problem, and may cost less. Models are built "
        "from the same NumPy arrays: "
        "`LawlerProblem`s and `MultiGraphProblem.from_pairs`, one Python call per cost for pylibmgm, dense float32 "
        "affinities for pygmtools' cao and mgm_floyd. Of solvers that draw random numbers the cheapest answer counts."
    )
    picture = f"![time and excess against the number of graphs]({PICTURE.name})"
    by_set = (
        "Every set: mean excess of consistent answers in %, milliseconds to solve + to build the model (median over "
        "the seeds); how many answers are inconsistent, and the least consistency, where any is."
    )
    loads = [row["extra_info"]["load"] for row in rows]
    text += f" Load of the machine when the rows began: {min(loads)} to {max(loads)}."
    parts = [text, _summary(answers), picture, _solver_table(answers, solvers)]
    parts += [by_set, _set_table(answers, solvers), _threads(rows)]
    return "\n\n".join(part for part in parts if part)


def _summary(answers: list[Answer]) -> str:
    own = {answer.case: answer for answer in answers if answer.solver == OURS}
    if not own:
        return ""
    counts = []
    for solver in dict.fromkeys(answer.solver for answer in answers if answer.package != "graphmatch"):
        theirs = [answer for answer in answers if answer.solver == solver and answer.case in own]
        valid = [answer for answer in theirs if answer.consistent]
        pairs = [(own[each.case].objective, each.objective) for each in valid]
        reached = sum(ours <= peer + ROUNDING * abs(peer) for ours, peer in pairs)
        cheaper = sum(ours < peer - ROUNDING * abs(peer) for ours, peer in pairs)
        broken = f", {len(theirs) - len(valid)} more inconsistent" if len(valid) < len(theirs) else ""
        counts.append(f"{solver} {reached} of {len(valid)} (cheaper on {cheaper}{broken})")
    lines = [f"`{OURS}` costs no more than each peer's consistent answers on: {'; '.join(counts)}."]
    peers = [answer for answer in answers if answer.solver == PEER and answer.case in own]
    if peers:
        solving = [each.solve / own[each.case].solve for each in peers]
        both = [(each.build + each.solve) / (own[each.case].build + own[each.case].solve) for each in peers]
        shortest = _set_name(peers[int(np.argmin(solving))])
        lines.append(
            f"{PEER} takes {number(min(solving), 2)} times as long at least (on {shortest}) and "
            f"{number(median(solving), 2)} times in the median to solve; {number(min(both), 2)} and "
            f"{number(median(both), 2)} times with the building of the model."
        )
    return " ".join(lines)


def _solver_table(answers: list[Answer], solvers: list[str]) -> str:
    lines = []
    for solver in solvers:
        own = [answer for answer in answers if answer.solver == solver]
        accuracies = [answer.accuracy for answer in own if answer.accuracy is not None]
        gaps = [
            (answer.objective - answer.lower_bound) / abs(answer.objective)
            for answer in own
            if answer.lower_bound is not None
        ]
        best = sum(answer.consistent and answer.excess <= 100 * ROUNDING for answer in own)
        exponent = _exponent(_times(own))
        lines.append(
            [
                solver,
                f"{best} of {len(own)}",
                number(max(answer.excess for answer in own if answer.consistent), 2),
                percent(mean(accuracies)) if accuracies else MISSING,
                f"{min(answer.consistency for answer in own):.3g}",
                percent(median(gaps)) if gaps else MISSING,
                MISSING if exponent is None else f"m^{exponent:.1f}",
            ]
        )
    headers = [
        "solver", "cheapest consistent", "largest excess, %", "right matches", "least consistency",
        "median gap to its bound", "time grows like",
    ]  # fmt: skip
    return table(headers, lines)


def _set_table(answers: list[Answer], solvers: list[str]) -> str:
    lines = []
    for name in dict.fromkeys(map(_set_name, answers)):
        cells = []
        for solver in solvers:
            own = [answer for answer in answers if answer.solver == solver and _set_name(answer) == name]
            if not own:
                cells.append(MISSING)
                continue
            excess = [answer.excess for answer in own if answer.consistent]
            found = MISSING if not excess else "0" if mean(excess) <= 100 * ROUNDING else number(mean(excess), 2)
            solve, build = (number(1000 * median(getattr(each, part) for each in own)) for part in ("solve", "build"))
            broken = len(own) - len(excess)
            least = f"; {broken} inconsistent, {min(answer.consistency for answer in own):.3f}" if broken else ""
            cells.append(f"{found}: {solve} + {build}{least}")
        lines.append([name, *cells])
    return table(["set", *solvers], lines)


def _set_name(answer: Answer) -> str:
    return f"m = {answer.graphs}" if answer.family == "planted" else answer.case.replace("_", " ")


def _threads(rows: list[Row]) -> str:
    own = [row for row in rows if row["extra_info"]["family"] == "threads"]
    if not own:
        return ""
    counts = sorted(values(own, "threads"))
    lines = []
    for task in values(own, "solver"):
        found = [find(own, solver=task, threads=count) for count in counts]
        kept = [row["extra_info"] for row in found if row is not None]
        lines.append(
            [task, *(number(milliseconds(row)) for row in found), f"{kept[0]['objective']:.2f}",
             f"{kept[0]['lower_bound']:.2f}", f"{kept[0]['consistency']:.3f}"]
        )  # fmt: skip
    info = own[0]["extra_info"]
    text = (
        f"All {info['problems']} pairs of {info['graphs']} graphs, ms in one call: `AllPairs`, and `gm.solve` of the "
        "pairs alone by the default solver, which ignores that they belong together."
    )
    headers = ["task", *(f"{count} thread{'s' * (count > 1)}" for count in counts)]
    return f"{text}\n\n{table([*headers, 'objective', 'lower bound', 'consistency'], lines)}"


def _times(answers: list[Answer]) -> dict[int, float]:
    """Milliseconds of solving by the number of graphs of planted sets, the median over the seeds."""
    planted = [answer for answer in answers if answer.family == "planted"]
    sizes = sorted({answer.graphs for answer in planted})
    return {size: 1000 * median(each.solve for each in planted if each.graphs == size) for size in sizes}


def _exponent(times: dict[int, float]) -> float | None:
    if len(times) < 3:
        return None
    return float(np.polyfit(np.log(list(times)), np.log(list(times.values())), 1)[0])


def _draw(answers: list[Answer], solvers: list[str]) -> None:
    sizes = sorted({answer.graphs for answer in answers})
    with figure(PICTURE, width=15, height=6.4) as canvas:
        left, right = canvas.subplots(1, 2)
        for place, solver in enumerate(solvers):
            own = [answer for answer in answers if answer.solver == solver]
            if not own:
                continue
            colour, line, marker = _STYLES[solver]
            times = _times(own)
            exponent = _exponent(times)
            label = solver if exponent is None else f"{solver}, $m^{{{exponent:.1f}}}$"
            style = {"color": colour, "linestyle": line, "marker": marker, "markersize": 7}
            left.plot(list(times), list(times.values()), label=label, **style)
            valid = {size: [each.excess for each in own if each.graphs == size and each.consistent] for size in times}
            mean_excess = [mean(excess) if excess else np.nan for excess in valid.values()]
            # Most excesses are 0: the solvers stand side by side.
            shifted = [size * 1.014 ** (place - len(solvers) / 2) for size in times]
            right.plot(shifted, mean_excess, **style)
        left.set(yscale="log", ylabel="ms to solve", title="Time; model building apart")
        right.set_yscale("symlog", linthresh=0.1, linscale=0.4)
        right.set(ylabel="excess over the cheapest consistent, %", title="Mean excess of consistent answers")
        right.set_ylim(-0.02, 60)
        for axis in (left, right):
            _label_sizes(axis, sizes)
            axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        handles, labels = left.get_legend_handles_labels()
        canvas.legend(handles, labels, loc="outside right center", fontsize=12, handlelength=3.2)


def _label_sizes(axis: Axes, sizes: list[int]) -> None:
    axis.set(xscale="log", xlabel="graphs m")
    axis.xaxis.set_major_locator(FixedLocator(sizes))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
