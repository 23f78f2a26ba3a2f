"""Turns the results of the last run into results/report.md and its picture.

python -m benchmarks.report
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from benchmarks import alignment
from benchmarks.machine import RESULTS
from benchmarks.output import BLUE, GREY, ORANGE, figure, write_text

JSON = RESULTS / "benchmark.json"
REPORT = RESULTS / "report.md"
QAP_PICTURE = RESULTS / "qap_sparse.png"
_MISSING = "–"
# What the solver was asked for, and what counts as closed in the picture.
_MAX_GAP = 1e-4
_SMALLEST_GAP = 1e-9

Row = dict[str, Any]


def _milliseconds(row: Row | None) -> float | None:
    """The median time of one problem; rows that time a batch of separate problems are divided by it."""
    if row is None:
        return None
    share = row["extra_info"].get("batch", 1) if row["extra_info"].get("phase") == "batch" else 1
    return 1000 * row["stats"]["median"] / share


def _number(value: float | None, digits: int = 3) -> str:
    return _MISSING if value is None else f"{value:.{digits}g}"


def _percent(value: float | None) -> str:
    return _MISSING if value is None else f"{value:.0%}"


def _table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [headers, ["---:"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _find(rows: list[Row], **wanted: object) -> Row | None:
    return next((row for row in rows if wanted.items() <= row["extra_info"].items()), None)


def _values(rows: list[Row], key: str) -> list[Any]:
    """The different values of one parameter, in the order of the rows."""
    return list(dict.fromkeys(row["extra_info"][key] for row in rows))


def _qap_sparse(rows: list[Row]) -> str:
    _draw_qap_sparse(rows)
    lines = []
    for nodes in sorted(_values(rows, "nodes")):
        ours = _find(rows, nodes=nodes, phase="native")
        peer = _find(rows, nodes=nodes, solver="pylibmgm", phase="solve")
        quality = {} if ours is None else ours["extra_info"]
        against = {} if peer is None else peer["extra_info"]
        lines.append(
            [
                nodes,
                *(_number(_milliseconds(_find(rows, nodes=nodes, solver="graphmatch", phase=phase)))
                  for phase in ("native", "batch", "solve", "build")),
                _number(_milliseconds(peer)),
                _number(_milliseconds(_find(rows, nodes=nodes, solver="pylibmgm", phase="build"))),
                _percent(quality.get("certified")),
                _number(quality.get("gap"), 2),
                {True: "yes", False: "**no**", None: _MISSING}[against.get("graphmatch_never_worse")],
                against.get("graphmatch_better_on", _MISSING),
            ]
        )  # fmt: skip
    headers = [
        "N", "native", "batch of 20, each", "`gm.solve`", "`LawlerProblem`", "pylibmgm solve", "pylibmgm build",
        "certified", "largest gap", "never worse", "better on",
    ]  # fmt: skip
    return "\n\n".join(
        [
            "ExGra instances, noise 0.3, float64, nodes may stay unmatched; ms per problem, median over 20 seeds. "
            "*native*: inside the compiled solver; *`gm.solve`*: the whole call on one problem; *`LawlerProblem`*: "
            "its checks; *certified*: gap of at most 1e-4; *never worse*, *better on*: objective against pylibmgm, "
            "seed by seed.",
            f"![time and quality against the number of nodes]({QAP_PICTURE.name})",
            _table(headers, lines),
        ]
    )


def _draw_qap_sparse(rows: list[Row]) -> None:
    sizes = sorted(_values(rows, "nodes"))
    with figure(QAP_PICTURE, width=13, height=5) as canvas:
        time, quality = canvas.subplots(1, 2, width_ratios=(3, 2))
        curves = [
            ("pylibmgm: build + solve", "pylibmgm", ("build", "solve"), ORANGE, "s", "--"),
            ("pylibmgm: solve", "pylibmgm", ("solve",), ORANGE, "s", "-"),
            ("graphmatch: check + solve", "graphmatch", ("build", "solve"), BLUE, "o", "--"),
            ("graphmatch: native", "graphmatch", ("native",), BLUE, "o", "-"),
        ]
        for label, solver, phases, colour, marker, line in curves:
            parts = [[_milliseconds(_find(rows, nodes=n, solver=solver, phase=p)) for p in phases] for n in sizes]
            known = [
                (n, sum(p for p in part if p is not None)) for n, part in zip(sizes, parts, strict=True) if all(part)
            ]
            if known:
                time.plot(
                    *zip(*known, strict=True), color=colour, marker=marker, markersize=8, linestyle=line, label=label
                )
        time.set(xscale="log", yscale="log", xlabel="nodes N", ylabel="ms per problem", title="Time, one thread")
        time.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        time.legend(loc="upper left", fontsize=12)
        _draw_quality(quality, rows, sizes)
        for axis in (time, quality):
            axis.xaxis.set_major_locator(FixedLocator(sizes))
            axis.xaxis.set_minor_locator(NullLocator())
            axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _draw_quality(axis: Axes, rows: list[Row], sizes: list[int]) -> None:
    """Draws the certified gaps, and under them how the objectives compare with the peer's."""
    gaps = {
        n: max(row["extra_info"]["gap"], _SMALLEST_GAP) for n in sizes if (row := _find(rows, nodes=n, phase="native"))
    }
    axis.plot(list(gaps), list(gaps.values()), color=BLUE, marker="o", markersize=8)
    axis.axhline(_MAX_GAP, color=GREY, linewidth=1.4, linestyle=":")
    axis.text(sizes[0], _MAX_GAP * 1.3, f"asked for: {_MAX_GAP:g}", color=GREY, fontsize=12)
    for n in sizes:
        peer = _find(rows, nodes=n, solver="pylibmgm", phase="solve")
        if peer is not None:
            seeds, better = peer["extra_info"]["seeds"], peer["extra_info"]["graphmatch_better_on"]
            equal = seeds - better if peer["extra_info"]["graphmatch_never_worse"] else None
            text = "some\nworse" if equal is None else f"equal: {equal}\nbetter: {better}"
            axis.text(n, 0.03, text, transform=axis.get_xaxis_transform(), ha="center", color=ORANGE, fontsize=12)
    axis.text(
        0.5,
        0.16,
        "objective against pylibmgm, seeds:",
        transform=axis.transAxes,
        ha="center",
        color=ORANGE,
        fontsize=12,
    )
    axis.set(
        xscale="log", yscale="log", ylim=(_SMALLEST_GAP / 100, 1e-2), xlabel="nodes N", title="Largest certified gap"
    )
    axis.margins(x=0.12)


def _lap(rows: list[Row]) -> str:
    solvers = _values(rows, "solver")
    lines = []
    for nodes in sorted(_values(rows, "nodes")):
        found = [_find(rows, nodes=nodes, solver=solver) for solver in solvers]
        excess = max(abs(row["extra_info"]["relative_excess"]) for row in found if row)
        lines.append([nodes, *(_number(_milliseconds(row)) for row in found), _number(excess, 1)])
    text = "64 square matrices of uniform costs in float64; ms for all of them, median. Objectives relative to SciPy's."
    return f"{text}\n\n{_table(['n', *solvers, 'largest difference of objectives'], lines)}"


def _gradients(rows: list[Row]) -> str:
    lines = [
        [
            info["estimator"],
            info["nodes"],
            _number(_milliseconds(row)),
            _percent(info["certified"]),
            _number(info["gap"], 2),
            _percent(info["nonzero_gradient"]),
        ]
        for row in rows
        for info in [row["extra_info"]]
    ]
    text = (
        "`MatchingLayer` on 6 ExGra instances, complete matchings, float32: forward and backward of the Hamming loss "
        "to a random target; ms per step, median."
    )
    headers = ["estimator", "N", "ms", "certified", "largest gap", "problems with a gradient"]
    return f"{text}\n\n{_table(headers, lines)}"


def _alignment_step(rows: list[Row]) -> str:
    lines = []
    for nodes in sorted(_values(rows, "nodes")):
        for dim in sorted(_values(rows, "dim")):
            found = [_find(rows, nodes=nodes, dim=dim, recipe=recipe) for recipe in ("default", "legacy")]
            gaps = [None if row is None else row["extra_info"]["gap"] for row in found]
            times = [_number(_milliseconds(row)) for row in found]
            lines.append([nodes, dim, *times, *(_number(gap, 2) for gap in gaps)])
    text = (
        "`BarycenterAlignment` of three views, forward and backward; ms per step, median. The default solves 3 "
        "problems forward and 6 backward, `legacy=True` (the released recipe) 6 and 6, in at most 100 iterations."
    )
    headers = ["N", "d", "default", "legacy", "largest gap, default", "largest gap, legacy"]
    return f"{text}\n\n{_table(headers, lines)}"


def _import(rows: list[Row]) -> str:
    milliseconds = _number(_milliseconds(rows[0]))
    return f"`import graphmatch` after `import torch`, median of 5 fresh interpreters: {milliseconds} ms."


_SECTIONS: dict[str, tuple[str, Callable[[list[Row]], str]]] = {
    "qap-sparse": ("Sparse quadratic assignment", _qap_sparse),
    "lap": ("Linear assignment", _lap),
    "gradients": ("Gradients through the matching", _gradients),
    "alignment-step": ("One step of the alignment loss", _alignment_step),
    "import": ("Import", _import),
}


def _origin(info: dict[str, Any]) -> str:
    machine = info["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in info["versions"].items())
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}; {info['threads']} thread(s); {versions}; "
        f"commit {info['commit']}"
    )


def _learning() -> str:
    stored = json.loads(alignment.JSON.read_text(encoding="utf-8"))
    experiment = stored["experiment"]
    sizes = list(stored["runs"][0]["retrieval"])
    lines = [
        [
            alignment.NAMES[arm["barycenter"]],
            f"`{arm['gradient']}`",
            *(
                f"{values['mean']:.1%} ({values['least']:.1%} to {values['largest']:.1%})"
                for values in (arm["retrieval"][size] for size in sizes)
            ),
            next(iter(arm["retrieval"].values()))["all_seeds_reach_target_after"] or "not reached",
            _percent(arm["zero_gradient_share"]),
        ]
        for arm in stored["summary"]
    ]
    text = (
        f"Three views of the same points, random projections of noisy copies; {experiment['points']} fresh points per "
        f"step, {experiment['steps']} steps, {experiment['seeds']} seeds: mean (least to largest) of the top-1 "
        f"retrieval on unseen points at the end, the first measured step at which every seed reaches "
        f"{alignment.TARGET:.0%} among {sizes[0]}, and the share of steps in which the loss sent no gradient."
    )
    picture = f"![retrieval on unseen points against the step]({alignment.PICTURE.name})"
    headers = [
        "barycenter",
        "gradient",
        *(f"among {size}" for size in sizes),
        f"{alignment.TARGET:.0%} at",
        "no gradient",
    ]
    return f"{text}\n\n{picture}\n\n{_table(headers, lines)}\n\nMeasured with: {_origin(stored)}."


def main() -> int:
    """Writes the report; returns the exit code."""
    if not JSON.exists():
        sys.stderr.write("benchmarks.report: there are no results; run `pytest benchmarks --benchmark-only` first.\n")
        return 1
    rows = json.loads(JSON.read_text(encoding="utf-8"))["benchmarks"]
    load = max(row["extra_info"]["load"] for row in rows)
    parts = [
        "# Benchmarks",
        f"Measured with: {_origin(rows[0]['extra_info'])}; load at most {load} at the rows' start.",
    ]
    for group, (title, section) in _SECTIONS.items():
        own = [row for row in rows if row["group"] == group]
        if own:
            parts += [f"## {title}", section(own)]
    if alignment.JSON.exists():
        parts += ["## Learning from the alignment loss alone", _learning()]
    write_text(REPORT, "\n\n".join(parts) + "\n")
    sys.stdout.write(f"{REPORT}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
