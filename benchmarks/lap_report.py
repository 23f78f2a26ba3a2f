"""The section of the report on linear assignment, with its picture."""

from __future__ import annotations

from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from benchmarks.machine import RESULTS
from benchmarks.output import BLUE, GREEN, GREY, ORANGE, figure
from benchmarks.tables import Row, find, milliseconds, number, table, values

PICTURE = RESULTS / "lap.png"
_STYLES = {
    "graphmatch": (BLUE, "o", "-"),
    "graphmatch, two threads": (BLUE, "o", "--"),
    "lapjv-single": (GREEN, "^", "--"),
    "lapjv": (GREEN, "^", "-"),
    "lapx": (ORANGE, "s", "-"),
    "scipy": (GREY, "D", "-"),
    "POT": ("#CC79A7", "v", "-"),
}


def section(rows: list[Row]) -> str:
    """Batches of dense linear assignments: times against the peers', and their objectives."""
    _draw(rows)
    solvers = values(rows, "solver")
    peers = [solver for solver in solvers if not solver.startswith("graphmatch")]
    lines = []
    for family in values(rows, "family"):
        for dtype in values(rows, "dtype"):
            for nodes in sorted(values(rows, "nodes")):
                found = [find(rows, family=family, dtype=dtype, nodes=nodes, solver=solver) for solver in solvers]
                times = {solver: milliseconds(row) for solver, row in zip(solvers, found, strict=True)}
                own = times.get("graphmatch")
                ratios = [
                    None if own is None or time is None else time / own for time in (times[peer] for peer in peers)
                ]
                excess = [None if row is None else row["extra_info"]["excess"] for row in found]
                lines.append(
                    [family, dtype, nodes, *map(number, times.values())]
                    + [number(ratio, 2) for ratio in ratios]
                    + [number(max((abs(each) for each in excess if each is not None), default=None), 1)]
                )
    text = (
        "64 square matrices in one call (SciPy, lapjv and POT: one call each), peers in one thread: ms for all of "
        "them, median, then the peers' times in units of graphmatch's in one thread. *uniform*: few ties; *integers* "
        "from 0 to n/10 and *reduced* (uniform costs less their optimal duals): many. lapjv computes in the type of "
        "the costs here, lapjv-single in float32 as is its default; all others compute in float64. POT: exact optimal "
        "transport between uniform weights. Last, the largest difference to SciPy's objective per node."
    )
    headers = ["costs", "type", "n", *solvers, *(f"{peer} / graphmatch" for peer in peers), "largest difference"]
    return f"{text}\n\n![time against the number of nodes]({PICTURE.name})\n\n{table(headers, lines)}"


def _draw(rows: list[Row]) -> None:
    families = values(rows, "family")
    own = [row for row in rows if row["extra_info"]["dtype"] == "float64"] or rows
    sizes = sorted(values(own, "nodes"))
    with figure(PICTURE, width=15, height=5.2) as canvas:
        axes = canvas.subplots(1, len(families), sharey=True, squeeze=False)[0]
        for axis, family in zip(axes, families, strict=True):
            for solver in values(own, "solver"):
                found = {size: find(own, family=family, nodes=size, solver=solver) for size in sizes}
                times = {size: milliseconds(row) for size, row in found.items() if row is not None}
                colour, marker, line = _STYLES.get(solver, ("#000000", "x", ":"))
                axis.plot(list(times), list(times.values()), color=colour, marker=marker, linestyle=line, label=solver)
            axis.set(xscale="log", yscale="log", xlabel="nodes n", title=f"costs: {family}")
            axis.xaxis.set_major_locator(FixedLocator(sizes))
            axis.xaxis.set_minor_locator(NullLocator())
            axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes[0].set_ylabel("ms for 64 matrices")
        handles, labels = axes[0].get_legend_handles_labels()
        canvas.legend(handles, labels, loc="outside right center", fontsize=12, handlelength=3)
