"""Turns the results of the last run into results/report.md and its pictures.

python -m benchmarks.report
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from benchmarks import alignment, keypoint_report, multigraph_report, qap_dense_report, qap_report
from benchmarks.machine import RESULTS
from benchmarks.output import write_text
from benchmarks.tables import Row, find, milliseconds, number, percent, table, values

JSON = RESULTS / "benchmark.json"
REPORT = RESULTS / "report.md"


def _gradients(rows: list[Row]) -> str:
    lines = [
        [
            info["estimator"],
            info["solver"],
            info["noise"],
            info["nodes"],
            number(milliseconds(row)),
            percent(info["certified"]),
            number(info["gap"], 2),
            percent(info["nonzero_gradient"]),
        ]
        for row in rows
        for info in [row["extra_info"]]
    ]
    text = (
        "`MatchingLayer` on 6 ExGra instances, float32, two threads: forward and backward of the Hamming loss to the "
        "identity, Python included; ms per step, median. *thorough*: `Portfolio(max_gap=1e-4)`; *quick*: the solver of "
        "`BarycenterAlignment`. IMLE solves 6 noisy problems forward and 12 backward, BlackBox 6 and 6."
    )
    headers = ["estimator", "solver", "noise", "N", "ms", "certified", "largest gap", "problems with a gradient"]
    return f"{text}\n\n{table(headers, lines)}"


def _samples(rows: list[Row]) -> str:
    counts = sorted(values(rows, "samples"))
    lines = []
    for solver in values(rows, "solver"):
        for noise in sorted(values(rows, "noise")):
            found = [find(rows, solver=solver, noise=noise, samples=count) for count in counts]
            times = [None if row is None else milliseconds(row) for row in found]
            ratio = None if times[0] is None or times[-1] is None else times[-1] / times[0]
            shares = [None if row is None else row["extra_info"]["certified"] for row in found]
            last = "" if shares[-1] is None else percent(shares[-1])
            lines.append([solver, noise, *(number(time) for time in times), number(ratio), last])
    text = (
        "`MatchingLayer` with `IMLE(samples=S, step=3.0, noise_scale=0.3)` on 6 ExGra instances with N = 16, one "
        "thread: forward and backward, Python included; ms per step, median. S noisy problems forward and 2 S backward "
        "for each of the six, all in two native calls, which share tables and duals. *certified*: share of the noisy "
        "problems with a gap of at most 1e-4."
    )
    largest = f"S = {counts[-1]} / S = {counts[0]}"
    headers = ["solver", "noise", *(f"S = {count}" for count in counts), largest, "certified"]
    return f"{text}\n\n{table(headers, lines)}"


def _alignment_step(rows: list[Row]) -> str:
    lines = []
    for nodes in sorted(values(rows, "nodes")):
        for dim in sorted(values(rows, "dim")):
            found = [find(rows, nodes=nodes, dim=dim, recipe=recipe) for recipe in ("default", "legacy")]
            gaps = [None if row is None else row["extra_info"]["gap"] for row in found]
            times = [number(milliseconds(row)) for row in found]
            lines.append([nodes, dim, *times, *(number(gap, 2) for gap in gaps)])
    text = (
        "`BarycenterAlignment` of three views, forward and backward, two threads: graphs, message passing and "
        "affinities included; ms per step, median. The default solves 3 problems forward and 6 backward, `legacy=True` "
        "(the released recipe) 6 and 6."
    )
    headers = ["N", "d", "default", "legacy", "largest gap, default", "largest gap, legacy"]
    return f"{text}\n\n{table(headers, lines)}"


def _training_step(rows: list[Row]) -> str:
    lines = []
    for row in rows:
        info = row["extra_info"]
        split = info["split"]
        parts = [percent(split.get(phase)) if phase in split else "–" for phase in _PHASES]
        allowed = info["extra_tokens"] + _ALLOWANCE
        lines.append([info["case"], percent(info["overhead"]), percent(info["extra_tokens"]), percent(allowed), *parts])
    info = rows[0]["extra_info"]
    text = (
        f"A step of stage 2, optimizer included: the tiny model's larger sibling with {info['parameters']:,} "
        f"parameters, {info['samples']} samples of drawn pictures, {info['step_threads']} thread. *overhead*: time "
        "above that of a step without alignment, taken in turns with it; *allowed*: the extra tokens plus 5 % of the "
        "step. The rest are shares of the whole step; the backward pass is one for everything."
    )
    headers = ["objective", "overhead", "extra tokens", "allowed", *_PHASES.values()]
    return f"{text}\n\n{table(headers, lines)}"


def _import(rows: list[Row]) -> str:
    time = number(milliseconds(rows[0]))
    return f"`import graphmatch` after `import torch`, median of 5 fresh interpreters: {time} ms."


_PHASES = {
    "forward": "main pass",
    "text": "text pass",
    "graph": "graphs",
    "solve": "solving",
    "backward": "backward",
    "optimizer": "optimizer",
}
_ALLOWANCE = 0.05
_SECTIONS: dict[str, tuple[str, Callable[[list[Row]], str]]] = {
    "qap-sparse": ("Sparse quadratic assignment: ExGra instances", qap_report.sparse),
    "qap-real": ("Sparse quadratic assignment: real instances", qap_report.real),
    "qap-unstructured": ("Sparse quadratic assignment: without structure", qap_report.unstructured),
    "qap-many": ("Many problems", qap_report.many),
    "qap-large": ("Large problems", qap_report.large),
    "qap-moved": ("Warm starts", qap_report.moved),
    "baselines": ("Sparse quadratic assignment: the baselines of the literature", qap_report.baselines),
    "qap-dense": ("Dense quadratic assignment: QAPLIB", qap_dense_report.qaplib),
    "qap-dense-generated": ("Dense quadratic assignment: generated problems", qap_dense_report.generated),
    "qap-dense-bounds": ("Dense quadratic assignment: bounds", qap_dense_report.bounds),
    "multigraph": ("Several graphs at once", multigraph_report.section),
    "lap": ("Linear assignment", _lap),
    "gradients": ("Gradients through the matching", _gradients),
    "gradients-samples": ("Many samples", _samples),
    "alignment-step": ("One step of the alignment loss", _alignment_step),
    "training-step": ("One step of training", _training_step),
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
                f"{shares['mean']:.1%} ({shares['least']:.1%} to {shares['largest']:.1%})"
                for shares in (arm["retrieval"][size] for size in sizes)
            ),
            next(iter(arm["retrieval"].values()))["all_seeds_reach_target_after"] or "not reached",
            percent(arm["zero_gradient_share"]),
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
    return f"{text}\n\n{picture}\n\n{table(headers, lines)}\n\nMeasured with: {_origin(stored)}."


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
    if keypoint_report.JSON.exists():
        origin = f"Measured with: {_origin(keypoint_report.stored())}."
        parts += ["## Learning to match landmarks", keypoint_report.section(), origin]
    write_text(REPORT, "\n\n".join(parts) + "\n")
    sys.stdout.write(f"{REPORT}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
