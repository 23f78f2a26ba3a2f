"""The picture of the report of a run on a GPU: sparse problems, linear assignment, the alignment step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from benchmarks.cuda_targets import (
    LAP_LIMITS,
    PEER,
    SPARSE_LIMIT,
    SPARSE_NODES,
    SPARSE_NOISE,
    STEP_LIMIT,
    STEP_NODES,
    mode,
    step_time,
    threads,
)
from benchmarks.output import BLUE, GREEN, GREY, ORANGE, figure
from benchmarks.tables import Row, number, values


def _draw_sparse(axis: Axes, rows: list[Row]) -> None:
    """Draws the problems with the least noise in the largest batches as curves, all others as single points."""
    infos = [row["extra_info"] for row in rows]
    noise = min(info["noise"] for info in infos)
    sizes = sorted({info["nodes"] for info in infos})
    largest = {
        size: max((i["batch"] for i in infos if (i["nodes"], i["noise"]) == (size, noise)), default=0) for size in sizes
    }
    sides = (("GPU", "problems_per_second", BLUE), (PEER, "cpu_problems_per_second", ORANGE))
    names = {"GPU": "GPU", PEER: f"{PEER}, {threads(infos[0].get('threads', 1))}"}
    for solver, line, marker in zip(values(rows, "solver"), ("-", "--", ":"), "osD", strict=False):
        own = [info for info in infos if info["solver"] == solver]
        curve = [info for info in own if info["noise"] == noise and info["batch"] == largest[info["nodes"]]]
        for place, key, colour in sides:
            style = {"color": colour, "marker": marker, "markersize": 8}
            nodes, rates = [info["nodes"] for info in curve], [info[key] for info in curve]
            axis.plot(nodes, rates, linestyle=line, label=f"{names[place]}, {solver}", **style)
        for info in (info for info in own if info not in curve):
            name = f"{info['batch']} at once" if info["noise"] == noise else f"noise {info['noise']:g}"
            name += f" ({info['certified']:.0%})"
            for _, key, colour in sides:
                axis.plot(info["nodes"], info[key], color=colour, marker=marker, markersize=9, fillstyle="none")
            if info["noise"] != noise or solver == infos[0]["solver"]:
                # Towards the middle of the picture.
                shift, side = ((9, -4), "left") if info["nodes"] < sizes[-1] else ((-9, -4), "right")
                axis.annotate(
                    name,
                    (info["nodes"], info["problems_per_second"]),
                    shift,
                    textcoords="offset points",
                    fontsize=11,
                    color=GREY,
                    ha=side,
                )
    if noise == SPARSE_NOISE and SPARSE_NODES in sizes:
        _draw_target(axis, SPARSE_NODES / 1.2, SPARSE_NODES * 1.2, SPARSE_LIMIT)
    _label_sizes(axis, sizes)
    axis.set(yscale="log", xlabel="nodes N", ylabel="problems per second")
    axis.set_title(f"Sparse problems, noise {noise:g}; hollow: others (certified)", fontsize=13)
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.legend(fontsize=11, loc="lower left")


def _label_sizes(axis: Axes, sizes: Sequence[int]) -> None:
    axis.set(xscale="log")
    axis.xaxis.set_major_locator(FixedLocator(sizes))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.margins(x=0.12, y=0.1)


def _draw_target(axis: Axes, left: float, right: float, limit: float) -> None:
    axis.hlines(limit, left, right, color=GREY, linestyle=":", linewidth=2)
    axis.annotate("target", (left, limit), (0, 4), textcoords="offset points", fontsize=11, color=GREY)


def _draw_lap(axis: Axes, rows: list[Row]) -> None:
    """Draws µs per problem; sizes stand at equal distances, because some of them are close."""
    sizes = sorted(values(rows, "nodes"))
    series: list[tuple[str, str, str, list[tuple[int, float, str]]]] = [
        ("SciPy", ORANGE, "s", []),
        ("GPU, one problem", GREEN, "D", []),
        ("GPU, batch", BLUE, "o", []),
    ]
    for row in rows:
        info = row["extra_info"]
        place, time = sizes.index(info["nodes"]), info["microseconds_per_problem"]
        batch = "" if info["batch"] == 1 else f"\n{info['batch']:,} at once"
        series[1 if info["batch"] == 1 else 2][3].append((place, time, f"{number(time)}{batch}"))
        peer = (place, info["scipy_microseconds_per_problem"], number(info["scipy_microseconds_per_problem"]))
        if peer not in series[0][3]:
            series[0][3].append(peer)
        limit = LAP_LIMITS.get((info["nodes"], info["batch"]))
        if limit is not None:
            _draw_target(axis, place - 0.25, place + 0.25, limit)
    shown = [each for each in series if each[3]]
    for label, colour, marker, points in shown:
        # SciPy's labels stand left and the GPU's right of their points, which may coincide.
        shift, side = ((-9, 7), "right") if label == "SciPy" else ((9, 7), "left")
        for place, time, text in points:
            axis.plot(place, time, color=colour, marker=marker, markersize=10, linestyle="none")
            axis.annotate(
                text,
                (place, time),
                shift,
                textcoords="offset points",
                fontsize=11,
                color=colour,
                ha=side,
                va="top",
            )
    handles = [
        Line2D([], [], color=colour, marker=marker, markersize=10, linestyle="none", label=label)
        for label, colour, marker, _ in shown
    ]
    axis.set(yscale="log", xlabel="n", ylabel="µs per problem", title="Linear assignment")
    axis.set_xlim(-0.6, len(sizes) - 0.2)
    axis.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.legend(handles=handles, fontsize=11, loc="upper left")
    axis.margins(y=0.15)


def _draw_step(axis: Axes, rows: list[Row]) -> None:
    modes, sizes = list(dict.fromkeys(map(mode, rows))), sorted(values(rows, "nodes"))
    height = 0.8 / len(sizes)
    colours = (GREEN, BLUE, ORANGE, GREY)
    for row in rows:
        info = row["extra_info"]
        rank = sizes.index(info["nodes"])
        place = modes.index(mode(row)) + (rank - (len(sizes) - 1) / 2) * height
        axis.barh(place, step_time(row), height, color=colours[rank % len(colours)], alpha=0.75)
        axis.plot(info["gpu_milliseconds"], place, color="black", marker="|", markersize=14, markeredgewidth=2.5)
        axis.annotate(
            number(step_time(row)),
            (step_time(row), place),
            (5, 0),
            textcoords="offset points",
            fontsize=11,
            va="center",
        )
    handles: list[Line2D] = [
        Line2D([], [], color=colours[rank % len(colours)], linewidth=8, alpha=0.75, label=f"N = {size}")
        for rank, size in enumerate(sizes)
    ]
    handles.append(Line2D([], [], color="black", marker="|", markersize=14, linestyle="none", label="the GPU works"))
    if STEP_NODES in sizes:
        axis.axvline(STEP_LIMIT, color=GREY, linestyle=":", linewidth=2)
        label = f"target, N = {STEP_NODES}"
        handles.append(Line2D([], [], color=GREY, linestyle=":", linewidth=2, label=label))
    axis.set_yticks(range(len(modes)), [mode.replace(", ", "\n") for mode in modes])
    axis.invert_yaxis()
    axis.grid(visible=False, axis="y")
    axis.margins(x=0.12)
    axis.set(xlabel="ms per step", title="Alignment step by solver and precision")
    axis.legend(handles=handles, fontsize=11, loc="best")


_PANELS: dict[str, Callable[[Axes, list[Row]], None]] = {
    "qap-sparse-cuda": _draw_sparse,
    "lap-cuda": _draw_lap,
    "alignment-step-cuda": _draw_step,
}


def draw(picture: Path, groups: dict[str, list[Row]]) -> bool:
    """Draws what there is a panel for; returns whether there was anything."""
    panels = [(panel, groups[group]) for group, panel in _PANELS.items() if group in groups]
    if panels:
        with figure(picture, width=6.6 * len(panels), height=6.4) as canvas:
            for axis, (panel, rows) in zip(canvas.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
                panel(axis, rows)
    return bool(panels)
