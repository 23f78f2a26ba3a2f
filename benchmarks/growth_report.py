"""The section of the report on how cost grows, with its picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from benchmarks.growth_cases import THREADS
from benchmarks.growth_fit import Power, fit_power
from benchmarks.machine import RESULTS
from benchmarks.output import BLUE, GREEN, GREY, ORANGE, figure
from benchmarks.tables import MISSING, Row, milliseconds, number, table

PICTURE = RESULTS / "growth.png"
_STYLES = ((BLUE, "o", "-"), (ORANGE, "s", "-"), (GREEN, "^", "-"), ("#CC79A7", "D", "-"), (GREY, "v", "-"))
_HEADROOM = 50.0
# Suites of which the growth with n of peers can be told too: group, and the keys that tell their rows apart.
_WITH_PEERS = {"lap": ("family", "dtype", "solver"), "qap-sparse": ("noise", "solver")}


@dataclass(frozen=True)
class Growth:
    """The cost along one axis.

    Attributes:
        group: Of the benchmarks.
        axis: What grows.
        fixed: What does not.
        values: Of the axis, growing.
        times: Milliseconds, medians.
        memory: Bytes; None where they were not measured.
        gap: The largest of all; None where there is none.
    """

    group: str
    axis: str
    fixed: str
    values: tuple[int, ...]
    times: tuple[float, ...]
    memory: tuple[float | None, ...]
    gap: float | None

    @property
    def power(self) -> Power | None:
        """The fit of the time."""
        return fit_power(self.values, self.times)


def growths(rows: Sequence[Row]) -> list[Growth]:
    """Returns one growth per sweep of the suite."""
    sweeps: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        info = row["extra_info"]
        sweeps.setdefault((info["of"], info["axis"], info["fixed"]), []).append(row)
    found = []
    for (group, axis, fixed), own in sweeps.items():
        own.sort(key=lambda row: row["extra_info"]["value"])
        infos = [row["extra_info"] for row in own]
        gaps = [info["gap"] for info in infos if info.get("gap") is not None]
        found.append(
            Growth(
                group,
                axis,
                fixed,
                tuple(info["value"] for info in infos),
                tuple(1000 * row["stats"]["median"] for row in own),
                tuple(info.get("memory_bytes") for info in infos),
                max(gaps, default=None),
            )
        )
    return found


def section(rows: Sequence[Row], suites: Sequence[Row] = ()) -> str:
    """Fitted exponents of every group, and those of peers from the rows of other suites."""
    found = growths(rows)
    _draw(found)
    text = (
        "One size grows at a time; graphmatch, Python included, one thread but where threads grow. *exponent*: p of "
        "time = c size^p by least squares in logarithms, with its 95 % interval (two points leave none); *last two*: "
        "the same between the two largest sizes, where fixed costs count least. With threads -1 is a perfect "
        "speed-up. *memory*: growth of resident memory during the timed calls, at the smallest and the largest size."
    )
    lines = [
        [
            growth.group,
            f"{growth.axis} = {growth.values[0]:,} to {growth.values[-1]:,}",
            growth.fixed,
            f"{number(growth.times[0])} to {number(growth.times[-1])}",
            MISSING if growth.power is None else growth.power,
            MISSING if growth.power is None else f"{growth.power.local:.2f}",
            _megabytes(growth.memory),
            number(growth.gap, 2),
        ]
        for growth in found
    ]
    headers = ["group", "grows", "fixed", "ms", "exponent", "last two", "memory, MB", "largest gap"]
    parts = [text, f"![cost against every size]({PICTURE.name})", table(headers, lines)]
    beside = _with_peers(suites)
    if beside:
        parts += ["Exponents of n from the rows of the suites with peers:", beside]
    return "\n\n".join(parts)


def _megabytes(memory: Sequence[float | None]) -> str:
    ends = [memory[0], memory[-1]]
    return MISSING if None in ends else " to ".join(number((each or 0) / 1e6, 2) for each in ends)


def _with_peers(rows: Sequence[Row]) -> str:
    curves: dict[tuple[str, str], dict[int, float]] = {}
    for row in rows:
        info = row["extra_info"]
        # The suite times several phases; peers have only this one.
        if row["group"] not in _WITH_PEERS or info.get("phase", "solve") != "solve":
            continue
        problem, solver = [info[key] for key in _WITH_PEERS[row["group"]][:-1]], info["solver"]
        name = (
            f"{row['group']}: {', '.join(f'noise {each:g}' if isinstance(each, float) else each for each in problem)}"
        )
        time = milliseconds(row)
        if time:
            curves.setdefault((name, solver), {})[info["nodes"]] = time
    names, solvers = (list(dict.fromkeys(key[place] for key in curves)) for place in (0, 1))
    lines = []
    for name in names:
        cells = []
        for solver in solvers:
            curve = curves.get((name, solver), {})
            power = fit_power(list(curve), list(curve.values())) if curve else None
            cells.append(MISSING if power is None else str(power))
        lines.append([name, *cells])
    return table(["problems", *solvers], lines) if lines else ""


def _draw(found: Sequence[Growth]) -> None:
    groups = list(dict.fromkeys(growth.group.split(",")[0] for growth in found))
    columns = min(len(groups), 4)
    lines = -(-len(groups) // columns)
    with figure(PICTURE, width=4.6 * columns + 0.4, height=4.6 * lines + 0.6) as canvas:
        # Common axes: equal slopes are equal exponents.
        axes = canvas.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).ravel()
        for axis, group in zip(axes, groups, strict=False):
            _draw_group(axis, [growth for growth in found if growth.group.split(",")[0] == group])
            axis.set_title(group)
            axis.tick_params(labelbottom=True)
        # Room for the legends above the curves.
        axes[0].set_ylim(top=_HEADROOM * axes[0].get_ylim()[1])
        for axis in axes[len(groups) :]:
            axis.set_axis_off()
        canvas.supxlabel("size / smallest size; dotted: proportional", fontsize=13)
        canvas.supylabel("time / time at the smallest size", fontsize=13)


def _draw_group(axis: Axes, found: Sequence[Growth]) -> None:
    widest = 1.0
    curves = [growth for growth in found if growth.axis != THREADS]
    for growth, (colour, marker, line) in zip(curves, _STYLES, strict=False):
        sizes = [value / growth.values[0] for value in growth.values]
        times = [time / growth.times[0] for time in growth.times]
        kind = growth.group.partition(", ")[2]
        power = growth.power
        exponent = "" if power is None else f"$^{{\\,{power.exponent:.1f}}}$"
        label = f"{growth.axis}{exponent}{f', {kind}' if kind else ''}"
        axis.plot(sizes, times, color=colour, marker=marker, markersize=7, linestyle=line, label=label)
        widest = max(widest, *sizes)
    speedups = [
        f"{growth.values[-1]} threads: {growth.times[0] / growth.times[-1]:.1f} x as fast"
        for growth in found
        if growth.axis == THREADS and len(growth.values) > 1
    ]
    axis.plot([1, widest], [1, widest], color=GREY, linestyle=":", linewidth=1.6)
    axis.set(xscale="log", yscale="log")
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        side.set_minor_formatter(NullFormatter())
    axis.legend(loc="upper left", fontsize=13, handlelength=1.6)
    if speedups:
        axis.text(0.97, 0.04, "\n".join(speedups), transform=axis.transAxes, ha="right", fontsize=12, color=GREY)
