"""The sections of the report on quadratic assignment, with their pictures."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter

from benchmarks.machine import RESULTS
from benchmarks.output import BLUE, GREEN, GREY, ORANGE, figure
from benchmarks.tables import MISSING, Row, find, milliseconds, number, percent, table, values

SPARSE_PICTURE = RESULTS / "qap_sparse.png"
SPARSE_GAP_PICTURE = RESULTS / "qap_sparse_gap.png"
UNSTRUCTURED_PICTURE = RESULTS / "qap_unstructured.png"
REAL_PICTURE = RESULTS / "qap_real.png"
# What counts as no gap at all in pictures.
_SMALLEST_GAP = 1e-8


def sparse(rows: list[Row]) -> str:
    """ExGra instances: time, certificates, and objectives against other solvers."""
    _draw_sparse(rows)
    _draw_sparse_gaps(rows)
    with_lpmp = find(rows, solver="lpmp_py") is not None
    lines = []
    for noise in values(rows, "noise"):
        for nodes in sorted(values(rows, "nodes")):
            found = {
                (row["extra_info"]["solver"], row["extra_info"]["phase"]): row
                for row in rows
                if row["extra_info"]["noise"] == noise and row["extra_info"]["nodes"] == nodes
            }
            ours, peer = found.get(("graphmatch", "native")), found.get(("pylibmgm", "solve"))
            lpmp = found.get(("lpmp_py", "solve"))
            times = [milliseconds(found.get(("graphmatch", phase))) for phase in ("native", "batch", "solve", "build")]
            theirs = [milliseconds(found.get(("pylibmgm", phase))) for phase in ("solve", "build")]
            ratio = None if times[0] is None or theirs[0] is None else theirs[0] / times[0]
            quality = {} if ours is None else ours["extra_info"]
            lines.append(
                [
                    noise,
                    nodes,
                    *(number(time) for time in (*times, *theirs)),
                    number(ratio, 2),
                    percent(quality.get("certified")),
                    number(quality.get("median_gap"), 2),
                    *_compared(peer),
                    *_compared(found.get(("dual rounding", "solve"))),
                    *([number(milliseconds(lpmp)), *_compared(lpmp)] if with_lpmp else []),
                ]
            )
    headers = [
        "noise", "N", "native", "batch of 20, each", "`gm.solve`", "`LawlerProblem`", "pylibmgm solve",
        "pylibmgm build", "times faster", "certified", "median gap", "better / worse than pylibmgm",
        "better / worse than dual rounding", *(["lpmp_py", "better / worse than lpmp_py"] if with_lpmp else []),
    ]  # fmt: skip
    text = (
        "ExGra instances, float64, nodes may stay unmatched, `Portfolio(max_gap=1e-4)`, one thread; ms per problem, "
        "median over 20 seeds. *native*: inside the compiled solver; *`gm.solve`*: the whole call on one problem; "
        "*`LawlerProblem`*: its checks; *times faster*: native against pylibmgm's solve, without its model building; "
        "*certified*: gap of at most 1e-4; *better / worse*: seeds with another objective; *dual rounding*: "
        "`DualAscent`, 100 iterations, matchings rounded from the duals; *lpmp_py*: `gm.LPMP()` with its model. The "
        "lower picture has a point for every seed: the whole call against the gap to graphmatch's lower bound, which "
        "holds for the answers of all."
    )
    pictures = (
        f"![time and quality against the number of nodes]({SPARSE_PICTURE.name})\n\n"
        f"![gap against time]({SPARSE_GAP_PICTURE.name})"
    )
    return f"{text}\n\n{pictures}\n\n{table(headers, lines)}"


def _compared(row: Row | None) -> list[str]:
    if row is None:
        return [MISSING]
    better, worse = row["extra_info"]["graphmatch_better_on"], row["extra_info"]["graphmatch_worse_on"]
    return [f"{better} / {worse}"]


def _draw_sparse(rows: list[Row]) -> None:
    sizes, noises = sorted(values(rows, "nodes")), values(rows, "noise")
    with figure(SPARSE_PICTURE, width=15, height=8.5) as canvas:
        axes = canvas.subplots(2, len(noises), sharex=True, sharey="row", height_ratios=(3, 2), squeeze=False)
        for column, noise in enumerate(noises):
            own = [row for row in rows if row["extra_info"]["noise"] == noise]
            _draw_times(axes[0, column], own, sizes)
            axes[0, column].set_title(f"noise {noise:g}")
            _draw_shares(axes[1, column], own, sizes)
            axes[1, column].set_xlabel("nodes N")
        axes[0, 0].set_ylabel("ms per problem, one thread")
        axes[1, 0].set_ylabel("share of 20 seeds")
        axes[0, 0].legend(loc="upper left", fontsize=12)
        axes[1, 0].legend(loc="center left", fontsize=12)
        _label_sizes(axes[1, 0], sizes)


def _draw_times(axis: Axes, rows: list[Row], sizes: Sequence[int]) -> None:
    curves = [
        ("pylibmgm, building the model too", "pylibmgm", ("build", "solve"), ORANGE, "--"),
        ("pylibmgm", "pylibmgm", ("solve",), ORANGE, "-"),
        ("graphmatch, from Python", "graphmatch", ("build", "solve"), BLUE, "--"),
        ("graphmatch, native", "graphmatch", ("native",), BLUE, "-"),
    ]
    for label, solver, phases, colour, line in curves:
        sums = {}
        for nodes in sizes:
            parts = [milliseconds(find(rows, nodes=nodes, solver=solver, phase=phase)) for phase in phases]
            if None not in parts:
                sums[nodes] = sum(part for part in parts if part is not None)
        axis.plot(list(sums), list(sums.values()), color=colour, marker="o", markersize=7, linestyle=line, label=label)
    axis.set(xscale="log", yscale="log")
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _draw_shares(axis: Axes, rows: list[Row], sizes: Sequence[int]) -> None:
    """Draws the share of certified seeds, and of those with a better or a worse objective than pylibmgm's."""
    shares: dict[str, dict[int, float]] = {"certified": {}, "better than pylibmgm": {}, "worse": {}}
    for nodes in sizes:
        ours = find(rows, nodes=nodes, phase="native")
        peer = find(rows, nodes=nodes, solver="pylibmgm", phase="solve")
        if ours is not None:
            shares["certified"][nodes] = ours["extra_info"]["certified"]
        if peer is not None:
            seeds = peer["extra_info"]["seeds"]
            shares["better than pylibmgm"][nodes] = peer["extra_info"]["graphmatch_better_on"] / seeds
            shares["worse"][nodes] = peer["extra_info"]["graphmatch_worse_on"] / seeds
    for (label, share), colour, marker in zip(shares.items(), (BLUE, GREEN, ORANGE), "osX", strict=True):
        axis.plot(list(share), list(share.values()), color=colour, marker=marker, markersize=8, label=label)
    axis.set_ylim(-0.05, 1.05)
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))


def _draw_sparse_gaps(rows: list[Row]) -> None:
    """Draws a point per seed: time of the whole call, gap to graphmatch's bound."""
    noises = values(rows, "noise")
    timed = [row for row in rows if "case_seconds" in row["extra_info"]]
    styles = {
        "graphmatch": (BLUE, "o"),
        "pylibmgm": (ORANGE, "s"),
        "dual rounding": (GREEN, "^"),
        "lpmp_py": (GREY, "D"),
    }
    with figure(SPARSE_GAP_PICTURE, width=15, height=5) as canvas:
        axes = canvas.subplots(1, len(noises), sharex=True, sharey=True, squeeze=False)[0]
        for axis, noise in zip(axes, noises, strict=True):
            for solver, (colour, marker) in styles.items():
                infos = [row["extra_info"] for row in timed if row["extra_info"]["solver"] == solver]
                own = [info for info in infos if info["noise"] == noise]
                times = [1000 * seconds for info in own for seconds in info["case_seconds"]]
                gaps = [max(gap, _SMALLEST_GAP) for info in own for gap in info["gaps"]]
                style = {"c": colour, "marker": marker, "label": solver, "alpha": 0.5, "linewidths": 0}
                if own:
                    axis.scatter(times, gaps, s=45, **style)
            axis.set(xscale="log", yscale="log", xlabel="ms per problem", title=f"noise {noise:g}")
            axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes[0].set_ylabel("gap to graphmatch's bound")
        axes[0].legend(loc="upper left", fontsize=12)


def _label_sizes(axis: Axes, sizes: Sequence[int]) -> None:
    axis.xaxis.set_major_locator(FixedLocator(sizes))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def unstructured(rows: list[Row]) -> str:
    """Random costs on random graphs: objective against time."""
    sizes = sorted(values(rows, "nodes"))
    _draw_unstructured(rows, sizes)
    lines = []
    for nodes in sizes:
        for row in (row for row in rows if row["extra_info"]["nodes"] == nodes):
            info = row["extra_info"]
            effort = f", effort {info['effort']:g}" if "effort" in info else ""
            lines.append(
                [nodes, info["solver"] + effort, number(milliseconds(row)), number(1000 * row["stats"]["max"]),
                 f"{info['objective']:.2f}", number(info.get("gap"), 2)]
            )  # fmt: skip
    text = (
        "Random graphs of 3 n edges, normal costs, complete matchings, one thread; ms per problem, median and longest, "
        "and objective, mean over 3 seeds. graphmatch: `Portfolio`, native; 1 is the default effort."
    )
    picture = f"![objective against time]({UNSTRUCTURED_PICTURE.name})"
    headers = ["n", "solver", "ms", "longest", "objective", "largest gap"]
    return f"{text}\n\n{picture}\n\n{table(headers, lines)}"


def _draw_unstructured(rows: list[Row], sizes: Sequence[int]) -> None:
    with figure(UNSTRUCTURED_PICTURE, width=13, height=4.6) as canvas:
        for axis, nodes in zip(canvas.subplots(1, len(sizes), squeeze=False)[0], sizes, strict=True):
            for solver, colour in (("graphmatch", BLUE), ("pylibmgm", ORANGE)):
                wanted = {"nodes": nodes, "solver": solver}
                own = [row for row in rows if wanted.items() <= row["extra_info"].items()]
                times, objectives = [milliseconds(row) for row in own], [row["extra_info"]["objective"] for row in own]
                label = "graphmatch, by effort" if solver == "graphmatch" else solver
                axis.plot(times, objectives, color=colour, marker="o", markersize=9, label=label)
                for row, time, objective in zip(own, times, objectives, strict=True):
                    if "effort" in row["extra_info"]:
                        effort = f"{row['extra_info']['effort']:g}"
                        axis.annotate(effort, (time, objective), (5, 8), textcoords="offset points", fontsize=12)
            axis.set(xscale="log", xlabel="ms per problem", title=f"n = {nodes}")
            axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.margins(x=0.25, y=0.2)
        canvas.axes[0].set_ylabel("mean objective, lower is better")
        handles, labels = canvas.axes[0].get_legend_handles_labels()
        canvas.legend(handles, labels, loc="outside upper center", ncols=2, fontsize=12)


def real(rows: list[Row]) -> str:
    """Real instances: published values reached, in which time, with which gap."""
    _draw_real(rows)
    infos = [row["extra_info"] for row in rows]
    times = [1000 * row["stats"]["median"] for row in rows]
    reached, certified = (sum(info[key] for info in infos) for key in ("reached", "certified"))
    lines = [
        [
            info["instance"],
            info["nodes"],
            number(milliseconds(row)),
            f"{info['objective']:.6g}",
            {True: "yes", False: "**no**"}[info["reached"]],
            number(info["gap"], 2),
            info["stage"].lower().replace("_", " "),
        ]
        for row, info in zip(rows, infos, strict=True)
    ]
    text = (
        f"Published value reached on {reached} of {len(rows)} instances (relative 1e-6), gap of at most 0.1 % "
        f"certified on {certified}; {number(median(times))} ms in the median, {number(max(times))} ms at most. "
        "One thread, native, `Portfolio(max_gap=1e-4)`."
    )
    headers = ["instance", "nodes", "ms", "objective", "published value reached", "gap", "found by"]
    picture = f"![certified gap against time]({REAL_PICTURE.name})"
    return f"{text}\n\n{picture}\n\n{table(headers, lines)}"


def _draw_real(rows: list[Row]) -> None:
    families = list(dict.fromkeys(row["extra_info"]["instance"].split("/")[0] for row in rows))
    with figure(REAL_PICTURE, width=9, height=5.2) as canvas:
        axis = canvas.subplots()
        for family, colour, marker in zip(families, (BLUE, ORANGE, GREEN, GREY), "osD^", strict=False):
            own = [row for row in rows if row["extra_info"]["instance"].startswith(family + "/")]
            gaps = [max(row["extra_info"]["gap"], _SMALLEST_GAP) for row in own]
            filled = [colour if row["extra_info"]["reached"] else "none" for row in own]
            times = [milliseconds(row) for row in own]
            axis.scatter(times, gaps, s=90, c=filled, edgecolors=colour, marker=marker, alpha=0.75, linewidths=1.6)
        axis.axhline(1e-3, color=GREY, linewidth=1.4, linestyle=":")
        axis.text(0.99, 1.3e-3, "0.1 %", color=GREY, fontsize=12, ha="right", transform=axis.get_yaxis_transform())
        axis.set(xscale="log", yscale="log", xlabel="ms, one thread", ylabel="certified gap")
        axis.set_title("Real instances; filled: published value reached")
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        handles = [
            Line2D([], [], color=colour, marker=marker, linestyle="none", markersize=9, label=family)
            for family, colour, marker in zip(families, (BLUE, ORANGE, GREEN, GREY), "osD^", strict=False)
        ]
        axis.legend(handles=handles, loc="upper left", fontsize=12)


def many(rows: list[Row]) -> str:
    """A large batch: throughput by threads, memory per problem."""
    timed = {row["extra_info"]["threads"]: row for row in rows if "batch" in row["extra_info"]}
    rates = {threads: row["extra_info"]["batch"] / row["stats"]["median"] for threads, row in sorted(timed.items())}
    lines = [
        [threads, f"{rate:,.0f}", number(rate / rates[1] / threads), percent(timed[threads]["extra_info"]["certified"])]
        for threads, rate in rates.items()
    ]
    memory = {
        row["extra_info"]["keep_state"]: row["extra_info"]["bytes_per_problem"]
        for row in rows
        if "bytes_per_problem" in row["extra_info"]
    }
    text = "4096 ExGra instances of 16 nodes, noise 0.3, float32, one call of `gm.solve`, Python included."
    headers = ["threads", "problems per second", "of threads x one thread", "certified"]
    parts = [text, table(headers, lines)]
    if len(memory) == 2:
        parts.append(
            f"Peak memory beyond the costs: {memory[True] / 1000:.2g} kB per problem with the state for warm starts, "
            f"{memory[False] / 1000:.2g} kB without it (`keep_state=False`)."
        )
    return "\n\n".join(parts)


def large(rows: list[Row]) -> str:
    """One large problem: seconds and memory."""
    lines = [
        [info["noise"], number(info["seconds"]), number(info["peak_bytes"] / 1e6), number(info["gap"], 2)]
        for info in (row["extra_info"] for row in rows)
    ]
    text = "One ExGra instance of 256 nodes, `gm.solve` in a fresh process, one thread."
    return f"{text}\n\n{table(['noise', 'seconds', 'peak memory beyond the costs, MB', 'gap'], lines)}"


def moved(rows: list[Row]) -> str:
    """Problems solved before: warm against cold."""
    lines = []
    for nodes in values(rows, "nodes"):
        for moved_by in values(rows, "moved"):
            found = [find(rows, nodes=nodes, moved=moved_by, start=start) for start in ("cold", "warm")]
            iterations = [MISSING if row is None else f"{row['extra_info']['iterations']:g}" for row in found]
            lines.append([nodes, moved_by, *(number(milliseconds(row)) for row in found), *iterations])
    text = (
        "ExGra instances, noise 0.3, solved once and again with Gaussian noise on their unary costs, from the state of "
        "the first solve (*warm*) or not (*cold*); native ms and iterations of the dual ascent, medians over 20 seeds."
    )
    headers = ["N", "deviation of the noise", "cold", "warm", "iterations, cold", "iterations, warm"]
    return f"{text}\n\n{table(headers, lines)}"


def baselines(rows: list[Row]) -> str:
    """The relaxations of the literature: ours, pygmtools', and the portfolio."""
    cases = list(
        dict.fromkeys((info["family"], info["nodes"], info["batch"]) for info in (r["extra_info"] for r in rows))
    )
    lines = []
    for family, nodes, batch in cases:
        cells = []
        for method in ("sm", "rrwm", "ipfp", "portfolio"):
            for solver in ("graphmatch", "pygmtools"):
                row = find(rows, family=family, nodes=nodes, batch=batch, method=method, solver=solver)
                if row is not None:
                    time = 1000 * row["stats"]["median"] / row["extra_info"]["problems"]
                    cells.append(f"{number(row['extra_info']['objective'])} in {number(time)}")
                elif method != "portfolio":
                    cells.append(MISSING)
        lines.append([family, nodes, batch, *cells])
    headers = ["family", "n", "batch"]
    headers += [text for name in ("spectral", "RRWM", "IPFP") for text in (name, f"pygmtools {name}")] + ["Portfolio"]
    text = (
        "Complete problems in float64, one thread: mean objective in ms per problem. Both sides of spectral matching "
        "and RRWM get the same non-negative affinities; pygmtools' dense matrices are made before the clock starts."
    )
    return f"{text}\n\n{table(headers, lines)}"
