"""Turns the results of the last run into results/report.md and its pictures.

python -m benchmarks.report
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from benchmarks import (
    alignment,
    growth_report,
    keypoint_report,
    lap_report,
    multigraph_report,
    other_reports,
    profiles,
    qap_dense_report,
    qap_report,
    steps_report,
)
from benchmarks.machine import RESULTS
from benchmarks.output import write_text
from benchmarks.rows import Run, faults
from benchmarks.tables import Row, percent, table

JSON = RESULTS / "benchmark.json"
REPORT = RESULTS / "report.md"
# Faulty rows that are named; there may be hundreds of the same kind.
_NAMED = 20

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
    "lap": ("Linear assignment", lap_report.section),
    "gradients": ("Gradients through the matching", steps_report.gradients),
    "gradients-samples": ("Many samples", steps_report.samples),
    "alignment-step": ("One step of the alignment loss", steps_report.alignment_step),
    "training-step": ("One step of training", steps_report.training_step),
    "import": ("Import", steps_report.importing),
}


def _measured_with(info: dict[str, Any]) -> str:
    machine = info["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in info["versions"].items())
    return (
        f"Measured with: {machine['cpu']}, {machine['cores']} cores, {machine['system']}; {versions}; "
        f"commit {info['commit']}."
    )


def _introduction(run: Run) -> str:
    rows = run["benchmarks"]
    infos = [row["extra_info"] for row in rows]
    parts = [_measured_with(infos[0]), f"Load at most {max(info['load'] for info in infos)} at the rows' start."]
    commits = list(dict.fromkeys(info["commit"] for info in infos))
    if len(commits) > 1:
        parts.append(f"Rows of several commits: {', '.join(commits)}.")
    reasons = list(dict.fromkeys(reason for own in run.get("left_out", {}).values() for reason in own))
    if reasons:
        parts.append(f"Left out: {'; '.join(reasons)}.")
    return " ".join(parts)


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
    return f"{text}\n\n{picture}\n\n{table(headers, lines)}\n\n{_measured_with(stored)}"


def text(run: Run) -> str:
    """Returns the report of a run, beside what other commands have left in the results; draws its pictures."""
    groups: dict[str, list[Row]] = {}
    for row in run["benchmarks"]:
        groups.setdefault(row["group"], []).append(row)
    parts = ["# Benchmarks", _introduction(run)]
    for group, (title, section) in _SECTIONS.items():
        if group in groups:
            parts += [f"## {title}", section(groups[group])]
    compared = (groups.get(name, []) for name in ("qap-sparse", "qap-dense", "qap-dense-generated"))
    profile = profiles.section(
        *([row for row in rows if row["extra_info"]["solver"] != qap_dense_report.REPEATED] for rows in compared)
    )
    if profile:
        parts += ["## Performance profiles", profile]
    if "growth" in groups:
        beside = [*groups.get("lap", []), *groups.get("qap-sparse", [])]
        parts += ["## How cost grows", growth_report.section(groups["growth"], beside)]
    if alignment.JSON.exists():
        parts += ["## Learning from the alignment loss alone", _learning()]
    if keypoint_report.JSON.exists():
        origin = _measured_with(keypoint_report.stored())
        parts += ["## Learning to match landmarks", keypoint_report.section(), origin]
    for title, section in other_reports.sections(RESULTS):
        parts += [f"## {title}", section]
    parts += ["## Memory and threads", other_reports.resources(run["benchmarks"])]
    return "\n\n".join(parts) + "\n"


def main() -> int:
    """Writes the report; returns the exit code."""
    if not JSON.exists():
        sys.stderr.write("benchmarks.report: there are no results; run `make bench` first.\n")
        return 1
    run = json.loads(JSON.read_text(encoding="utf-8"))
    found = faults(run["benchmarks"])
    if found:
        more = f"\nand {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        sys.stderr.write(
            f"benchmarks.report: every row must hold time, objective or gap, memory, threads, versions and commit; got "
            f"{len(found)} that do not. Measure them again.\n" + "\n".join(found[:_NAMED]) + more + "\n"
        )
        return 1
    write_text(REPORT, text(run))
    sys.stdout.write(f"{REPORT}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
