"""The sections of the report on dense quadratic assignment, with their picture."""

from __future__ import annotations

import math
from statistics import fmean, median

from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter

from benchmarks.machine import RESULTS
from benchmarks.output import BLUE, GREEN, ORANGE, figure
from benchmarks.tables import MISSING, Row, milliseconds, number, percent, table

PICTURE = RESULTS / "qap_dense.png"
SIZE_PICTURE = RESULTS / "qap_dense_time.png"
_SMALL = 32
_FEW = 9  # instances of the solvers that build matrices of n^4 numbers
_FLOOR = 1e-4  # gaps below it are drawn there

# Its answers are mostly those of the row above it.
REPEATED = "Portfolio, 10 s, 2 threads"
# Labels that would collide above their points stand below or beside them: offset and alignment.
_PLACES = {
    "FAQ": (0, -20, "center"),
    "FAQ x 10, refined": (0, -20, "center"),
    "FAQ x 10, Sinkhorn steps": (10, -5, "left"),
    "Portfolio, 1 s, 2 threads": (0, -20, "center"),
    "pygmtools sm": (0, -20, "center"),
    "scipy FAQ": (0, -20, "center"),
}
_CURVES = {
    "Portfolio, 1 s, 2 threads": "-",
    "FAQ x 10, refined": "-",
    "FAQ": "--",
    "scipy FAQ x 10": "-",
    "scipy FAQ": "--",
    "scipy 2opt": ":",
    "POT Gromov-Wasserstein": "-.",
}

_MARKERS = {"-": "o", "--": "s", ":": "^", "-.": "D"}
_SIZE_CLASSES = (12, 16, 20, 26, 32, 40, 50, 64)

Judged = dict[str, dict[str, float]]


def _is_ours(solver: str) -> bool:
    return not solver.startswith(("scipy", "pygmtools", "POT"))


def _summary(judged: list[dict[str, float]]) -> list[str]:
    if not judged:
        return [MISSING] * 3
    gaps = [answer["gap"] for answer in judged]
    reached = sum(gap <= 0 for gap in gaps) / len(gaps)
    return [f"{100 * fmean(gaps):.3g} %", percent(reached), number(median(answer["ms"] for answer in judged))]


def qaplib(rows: list[Row]) -> str:
    """QAPLIB: gaps to the best known values, and times."""
    answers: dict[str, Judged] = {row["extra_info"]["solver"]: row["extra_info"]["instances"] for row in rows}
    _draw(answers)
    few = min(answers.values(), key=len)
    lines = []
    for solver, judged in answers.items():
        is_whole = len(judged) > _FEW and any(answer["nodes"] > _SMALL for answer in judged.values())
        small = [answer for answer in judged.values() if answer["nodes"] <= _SMALL]
        lines.append(
            [
                f"**{solver}**" if _is_ours(solver) else solver,
                *_summary([judged[name] for name in few if name in judged]),
                *_summary(small if len(judged) > _FEW else []),
                *_summary(list(judged.values()) if is_whole else []),
            ]
        )
    counts = [
        len(few),
        *(max(sum(a["nodes"] <= size for a in j.values()) for j in answers.values()) for size in (32, 64)),
    ]
    headers = ["solver"]
    for name, count in zip(("chosen", "n <= 32", "n <= 64"), counts, strict=True):
        headers += [f"{name} ({count}): mean gap", "reached", "ms"]
    missed = sorted(
        f"{name} {100 * answer['gap']:.2g} %" for name, answer in answers.get(REPEATED, {}).items() if answer["gap"] > 0
    )
    text = (
        "Gap to the best known value, share of instances that reach it, median ms per instance. One thread where "
        f"nothing else is said, Python included. *chosen*: {', '.join(few)}. The row of 10 s was run where 1 s had not "
        "reached the best known value and takes over the other answers; still above it: "
        f"{', '.join(missed) or 'none'}."
    )
    _draw_sizes(answers)
    pictures = (
        f"![gap against time, and share of instances within a gap]({PICTURE.name})\n\n"
        f"![time against the number of nodes]({SIZE_PICTURE.name})"
    )
    return f"{text}\n\n{pictures}\n\n{table(headers, lines)}"


def _draw(answers: dict[str, Judged]) -> None:
    few = min(answers.values(), key=len)
    largest = max(len(judged) for judged in answers.values())
    with figure(PICTURE, width=15, height=6.5) as canvas:
        left, right = canvas.subplots(1, 2)
        for solver, judged in answers.items():
            chosen = [judged[name] for name in few if name in judged]
            gap = max(fmean(answer["gap"] for answer in chosen), _FLOOR)
            time = median(answer["ms"] for answer in chosen)
            if solver == REPEATED:
                continue
            colour = _colour(solver)
            left.plot(time, gap, "o", color=colour, markersize=10)
            right_by, up_by, side = _PLACES.get(solver, (0, 10, "center"))
            left.annotate(
                solver,
                (time, gap),
                (right_by, up_by),
                textcoords="offset points",
                fontsize=11,
                color=colour,
                ha=side,
            )
        left.set(
            xscale="log", yscale="log", xlabel="ms per instance (median)", ylabel="mean gap to the best known value"
        )
        left.set_title(f"{len(few)} instances that all solvers took")
        left.margins(x=0.2, y=0.12)
        left.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
        left.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        for solver, style in _CURVES.items():
            if len(answers.get(solver, {})) < largest:
                continue
            gaps = sorted(max(answer["gap"], _FLOOR) for answer in answers[solver].values())
            shares = [(place + 1) / len(gaps) for place in range(len(gaps))]
            colour = _colour(solver)
            right.step([*gaps, 1.0], [*shares, 1.0], where="post", color=colour, linestyle=style, label=solver)
        right.set(xscale="log", xlim=(_FLOOR, 1.0), ylim=(0, 1.02), xlabel="gap to the best known value")
        right.set_title(f"share of the {largest} instances with n <= 64")
        right.yaxis.set_major_formatter(PercentFormatter(1.0))
        right.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
        right.legend(loc="lower right", fontsize=11)


def _draw_sizes(answers: dict[str, Judged]) -> None:
    """Draws the time against n: medians of instances of about the same size."""
    largest = max(len(judged) for judged in answers.values())
    with figure(SIZE_PICTURE, width=11, height=5.4) as canvas:
        axis = canvas.subplots()
        for solver, style in _CURVES.items():
            judged = answers.get(solver, {})
            if len(judged) < largest:
                continue
            times: dict[int, list[float]] = {}
            for answer in judged.values():
                times.setdefault(_size_class(answer["nodes"]), []).append(answer["ms"])
            curve = {size: median(own) for size, own in sorted(times.items())}
            colour = _colour(solver)
            axis.plot(
                list(curve), list(curve.values()), color=colour, linestyle=style, marker=_MARKERS[style], label=solver
            )
        axis.set(xscale="log", yscale="log", xlabel="nodes n (instances of about that size)", ylabel="ms per instance")
        axis.set_title(f"{largest} QAPLIB instances, median times")
        axis.xaxis.set_major_locator(FixedLocator(_SIZE_CLASSES))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=12, handlelength=3)


def _size_class(nodes: float) -> int:
    return min(_SIZE_CLASSES, key=lambda size: abs(math.log(size / nodes)))


def _colour(solver: str) -> str:
    if solver.startswith("Portfolio"):
        return GREEN
    return BLUE if _is_ours(solver) else ORANGE


def generated(rows: list[Row]) -> str:
    """Generated problems: objectives relative to the best of all solvers."""
    answers: dict[str, Judged] = {row["extra_info"]["solver"]: row["extra_info"]["instances"] for row in rows}
    best = {
        name: min(judged[name]["objective"] for judged in answers.values()) for name in next(iter(answers.values()))
    }
    families = list(dict.fromkeys(name.split("-")[0] for name in best))
    lines = []
    for solver, judged in answers.items():
        cells = [f"**{solver}**" if _is_ours(solver) else solver]
        for family in families:
            own = [name for name in best if name.startswith(f"{family}-")]
            excess = fmean(judged[name]["objective"] / best[name] - 1 for name in own)
            cells += [f"{100 * excess:.3g} %", number(median(judged[name]["ms"] for name in own))]
        lines.append(cells)
    headers = ["solver", *(text for family in families for text in (f"{family}: excess", "ms"))]
    text = (
        "Three seeds each: mean excess over the best objective of all solvers, median ms. *uniform*: symmetric "
        "matrices of integers from 0 to 99; *grid*: layouts on a square grid with sparse flows. The number is n."
    )
    return f"{text}\n\n{table(headers, lines)}"


def bounds(rows: list[Row]) -> str:
    """Gilmore-Lawler bounds."""
    row = rows[0]
    info = row["extra_info"]
    values = ", ".join(f"{name} {bound:,.0f} of {info['best'][name]:,.0f}" for name, bound in info["bounds"].items())
    return (
        f"Gilmore-Lawler bounds of {info['instances']} QAPLIB instances: {info['above_best_known']} above the best "
        f"known value; {number(milliseconds(row))} ms in the median. {values}."
    )
