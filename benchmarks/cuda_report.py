"""Turns the results of the last run on a GPU into results/cuda.md and its picture.

python -m benchmarks.cuda_report
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cuda_picture import draw
from benchmarks.cuda_targets import PEER, lap_ratio, measured_targets, step_time, threads
from benchmarks.machine import RESULTS
from benchmarks.output import write_text
from benchmarks.tables import MISSING, Row, find, number, table, values

# Objectives that differ by less, relatively, are equal: sums are rounded differently.
_ROUNDING = 1e-12


def _complete(rows: list[Row], *keys: str) -> list[Row]:
    """The rows that hold all of the keys: a benchmark that fails leaves its time without them."""
    return [row for row in rows if all(key in row["extra_info"] for key in keys)]


def _span(ratios: Sequence[float]) -> str:
    least, most = number(min(ratios), 2), number(max(ratios), 2)
    return least if least == most else f"{least} to {most}"


def _lap_rows(rows: list[Row]) -> list[Row]:
    own = _complete(rows, "nodes", "batch", "microseconds_per_problem", "scipy_microseconds_per_problem")
    return sorted(own, key=lambda row: (row["extra_info"]["batch"] == 1, row["extra_info"]["nodes"]))


def _lap(rows: list[Row]) -> str:
    lines = [
        [
            info["nodes"],
            f"{info['batch']:,}",
            number(info["microseconds_per_problem"]),
            number(info["scipy_microseconds_per_problem"]),
            number(1 / lap_ratio(row), 2),
        ]
        for row in rows
        for info in [row["extra_info"]]
    ]
    text = (
        "Square matrices of uniform costs, float32, that are on the GPU already; Python and the wait for the answer "
        "included; µs per problem, median. SciPy: one call each, on the same costs on the CPU. Every answer of the "
        "GPU is certified, and those of batches equal SciPy's objectives: a row is kept only then."
    )
    batches = [1 / lap_ratio(row) for row in rows if row["extra_info"]["batch"] > 1]
    if batches:
        text += f" SciPy takes {_span(batches)} times as long as the GPU in batches."
    return f"{text}\n\n{table(['n', 'batch', 'GPU', 'SciPy', 'SciPy / GPU'], lines)}"


def _sparse_rows(rows: list[Row]) -> list[Row]:
    own = _complete(rows, "solver", "nodes", "noise", "batch", "certified", "certified_per_second", "objective")
    own = _complete(own, "problems_per_second", "cpu_problems_per_second", "cpu_objective", "iterations")
    keys = ("noise", "nodes", "batch", "solver")
    return sorted(own, key=lambda row: tuple(row["extra_info"][key] for key in keys))


def _sparse(rows: list[Row]) -> str:
    lines = [
        [
            f"{info['noise']:g}",
            info["nodes"],
            f"{info['batch']:,}",
            f"`{info['solver']}`",
            number(info["problems_per_second"]),
            number(info["certified_per_second"]),
            f"{info['certified']:.1%}",
            number(info["cpu_problems_per_second"]),
            number(info["problems_per_second"] / info["cpu_problems_per_second"], 2),
            f"{info['objective']:.4f}",
            f"{excess(info):.2g}",
            f"{info['iterations']:.1f}",
        ]
        for row in rows
        for info in [row["extra_info"]]
    ]
    infos = [row["extra_info"] for row in rows]
    ratios = [info["problems_per_second"] / info["cpu_problems_per_second"] for info in infos]
    largest = max((excess(info) for info in infos), key=abs)
    verdict = f"differ by {abs(largest):.1g} relatively at most" if largest else "are equal everywhere"
    text = (
        "ExGra instances, float32, nodes may stay unmatched; problems per second of one call, median, problems on the "
        f"GPU already. *CPU*: the same solver in {threads(infos[0].get('threads', 1))} on the first problems of the "
        f"batch, timed once; their mean objectives {verdict} (*excess*: the GPU's above the CPU's). The GPU solves "
        f"{_span(ratios)} times as many problems per second. *certified*: share with a gap within the solver's "
        "tolerance."
    )
    headers = [
        "noise", "N", "batch", "solver", "per second", "certified per second", "certified", "CPU, per second",
        "GPU / CPU", "mean objective", "excess", "iterations",
    ]  # fmt: skip
    return f"{text}\n\n{table(headers, lines)}"


def _dense_batch_rows(rows: list[Row]) -> list[Row]:
    return _complete(
        rows, "nodes", "batch", "steps", "seconds", "mean_gap", "cpu_tabu_mean_gap", "cpu_tabu_ms_per_problem"
    )


def _dense_batch(rows: list[Row]) -> str:
    lines = []
    for row in rows:
        info = row["extra_info"]
        own, peer = 1000 * info["seconds"] / info["batch"], info["cpu_tabu_ms_per_problem"]
        family = (row.get("params") or {}).get("family", row["name"])
        lines.append(
            [family, info["nodes"], info["batch"], f"{info['steps']:,}", number(info["seconds"]), number(own),
             number(peer), number(peer / own, 2), f"{info['mean_gap']:.2%}", f"{info['cpu_tabu_mean_gap']:.2%}"]
        )  # fmt: skip
    text = (
        "Tabu search, one start per problem, all problems in one call. *CPU*: as many steps of the same search in one "
        "thread, on the first problems of the batch, timed once; mean gaps of these problems, relative to the "
        "objectives of `Portfolio` on the CPU."
    )
    headers = [
        "family", "n", "batch", "steps", "s per call", "ms per problem", "CPU, ms per problem", "CPU / GPU", "mean gap",
        "CPU, mean gap",
    ]  # fmt: skip
    return f"{text}\n\n{table(headers, lines)}"


def _dense_step_rows(rows: list[Row]) -> list[Row]:
    own = _complete(rows, "nodes", "batch", "us_per_step")
    return sorted(own, key=lambda row: (row["extra_info"]["nodes"], row["extra_info"]["batch"]))


def _dense_step(rows: list[Row]) -> str:
    counts = sorted(values(rows, "batch"))
    lines = []
    for nodes in values(rows, "nodes"):
        found = [find(rows, nodes=nodes, batch=count) for count in counts]
        times = [None if row is None else row["extra_info"]["us_per_step"] for row in found]
        rates = [None if time is None else count / time for time, count in zip(times, counts, strict=True)]
        lines.append([nodes, *map(number, times), *map(number, rates)])
    names = ["one search" if count == 1 else f"{count} searches" for count in counts]
    headers = [
        "n",
        *(f"µs per step, {name}" for name in names),
        *(f"million steps per second, {name}" for name in names),
    ]
    text = "The same search, alone and many at once: time of a step of each, and steps of all together."
    return f"{text}\n\n{table(headers, lines)}"


def _step_rows(rows: list[Row]) -> list[Row]:
    own = _complete(rows, "nodes", "dim", "solved_on", "matmul_precision", "loss", "gpu_milliseconds")
    return sorted(own, key=lambda row: row["extra_info"]["nodes"])


def _step(rows: list[Row]) -> str:
    lines = []
    for row in rows:
        info = row["extra_info"]
        same = {key: info[key] for key in ("nodes", "dim", "matmul_precision")}
        peer = find(rows, solved_on=PEER, **same)
        ratio = None if peer is None or peer is row else step_time(peer) / step_time(row)
        lines.append(
            [info["nodes"], info["dim"], info["solved_on"], info["matmul_precision"], number(step_time(row)),
             number(info["gpu_milliseconds"]), number(ratio, 2), f"{info['loss']:.4f}"]
        )  # fmt: skip
    cpu_threads = threads(rows[0]["extra_info"].get("step_threads", 1))
    places = {
        "GPU": "matchings solved there too",
        "CUDA graph": "the same step captured and replayed",
        "compiled": "by `torch.compile`, which fuses kernels, and captured",
        PEER: f"costs copied to the CPU and solved there in {cpu_threads}",
    }
    found = {row["extra_info"]["solved_on"] for row in rows}
    described = "; ".join(f"*{place}*: {what}" for place, what in places.items() if place in found)
    text = (
        "`BarycenterAlignment` of three views on the GPU, forward and backward: graphs, message passing and affinities "
        f'included; ms per step, median. {described}. *precision* of matrix products: "high" allows '
        "TensorFloat-32. *GPU works*: the sum of its kernels in one step; the rest of the time it waits. "
        "*loss*: of the last step, with its noise on the costs."
    )
    remarks = {info["remark"] for row in rows for info in [row["extra_info"]] if "remark" in info}
    text = " ".join((text, *sorted(remarks)))
    headers = ["N", "d", "solved on", "precision", "ms", "GPU works, ms", "CPU / this", "loss"]
    return f"{text}\n\n{table(headers, lines)}"


_SECTIONS: dict[str, tuple[str, Callable[[list[Row]], list[Row]], Callable[[list[Row]], str]]] = {
    "lap-cuda": ("Linear assignment", _lap_rows, _lap),
    "qap-sparse-cuda": ("Sparse quadratic assignment: ExGra instances", _sparse_rows, _sparse),
    "qap-cuda-batch": ("Dense quadratic assignment: tabu search", _dense_batch_rows, _dense_batch),
    "qap-cuda-step": ("Dense quadratic assignment: steps of tabu search", _dense_step_rows, _dense_step),
    "alignment-step-cuda": ("One step of the alignment loss", _step_rows, _step),
}


def _origin(run: dict[str, Any], rows: list[Row]) -> str:
    info = rows[0]["extra_info"]
    machine = info.get("machine", {})
    parts = [
        " and ".join(dict.fromkeys(row["extra_info"]["device"] for row in rows if "device" in row["extra_info"])),
        ", ".join(
            f"{machine[key]}{' cores' * (key == 'cores')}" for key in ("cpu", "cores", "system") if key in machine
        ),
        str(run.get("datetime", "")).partition("T")[0],
        ", ".join(f"{name} {version}" for name, version in info.get("versions", {}).items()),
        f"commit {', '.join(dict.fromkeys(row['extra_info'].get('commit', MISSING) for row in rows))}",
    ]
    loads = [row["extra_info"]["load"] for row in rows if "load" in row["extra_info"]]
    parts += [f"load at most {max(loads)} at the rows' start"] if loads else []
    return "; ".join(part for part in parts if part)


def groups_of(run: dict[str, Any]) -> dict[str, list[Row]]:
    """Returns the complete rows of a run by group, groups in the order of the report."""
    return {
        group: kept
        for group, (_, keep, _) in _SECTIONS.items()
        if (kept := keep([row for row in run.get("benchmarks", []) if row["group"] == group]))
    }


def excess(info: dict[str, Any]) -> float:
    """The GPU's objective above the CPU's, relatively."""
    above = (info["objective"] - info["cpu_objective"]) / abs(info["cpu_objective"])
    return 0.0 if abs(above) < _ROUNDING else above


def main(folder: Path = RESULTS) -> int:
    """Writes the report of the run whose results lie in a folder; returns the exit code."""
    source, report, picture = (folder / f"cuda.{suffix}" for suffix in ("json", "md", "png"))
    # An interrupted run leaves an empty file.
    run = json.loads(source.read_text(encoding="utf-8") or "{}") if source.exists() else {}
    groups = groups_of(run)
    if not groups:
        sys.stderr.write(
            f"benchmarks.cuda_report: {source} must hold the results of a run on a GPU; it "
            f"{'holds none' if source.exists() else 'does not exist'}. Run `make bench-cuda` on a machine with a GPU.\n"
        )
        return 1
    rows = [row for own in groups.values() for row in own]
    parts = ["# Benchmarks on a GPU", f"Measured with: {_origin(run, rows)}."]
    targets = measured_targets(groups)
    if targets:
        headers = ["target", "asked", "measured", "reached"]
        parts += ["## Targets", table(headers, [target.line() for target in targets])]
    if draw(picture, groups):
        parts.append(f"![sparse problems per second, linear assignment, alignment step]({picture.name})")
    for group, (title, _, section) in _SECTIONS.items():
        if group in groups:
            parts += [f"## {title}", section(groups[group])]
    write_text(report, "\n\n".join(parts) + "\n")
    sys.stdout.write(f"{report}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
