"""What a million problems and 100,000 samples cost: measured throughput of examples/scale, and estimates.

    python -m benchmarks.sizing measure    # benchmarks/results/scale.json; some minutes of a quiet machine
    python -m benchmarks.sizing report     # scale.md, scale.png and the table of examples/scale/README.md from it

The report only computes: every number in it comes from the measurement, from the formulas here, or from `ASSUMPTIONS`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from matplotlib.ticker import StrMethodFormatter

from benchmarks.machine import RESULTS, ROOT, provenance
from benchmarks.output import BLUE, GREY, ORANGE, figure, write_json, write_text
from benchmarks.tables import number, table
from exgra_adapter.captions.requests import SCHEMA, estimate_tokens, messages_for, read_system_prompt
from exgra_adapter.endpoint import Item

JSON, REPORT, PICTURE = RESULTS / "scale.json", RESULTS / "scale.md", RESULTS / "scale.png"
README = ROOT / "examples" / "scale" / "README.md"
SCRIPT = ROOT / "examples" / "scale" / "million_problems.py"
WORKERS = (1, 2)
MILLION, SAMPLES = 1_000_000, 100_000

ASSUMPTIONS: dict[str, float] = {
    "pairs": 3,  # questions per sample
    "question words": 12,
    "answer words": 25,
    "prefill": 20_000,  # tokens per second that a server reads
    "decode": 5_000,  # tokens per second that it writes, all requests together
    "parameters": 7.06e9,  # LLaVA-7B with its vision tower and projector
    "epochs": 3,
    "positions": 1024,  # per sample in the main pass, 256 patches among them
    "text positions": 512,  # per sample in the alignment's pass over the texts
    "flops per parameter": 8,  # forward 2, backward 4, and forward again where activations are recomputed
    "utilisation": 0.4,
}
"""What cannot be measured here: typical sizes, and what is usual on GPUs. Put your own values in."""
GPUS = {"A100": 312e12, "H100": 989e12}
"""Peak bf16 operations per second, without sparsity, as the vendor states them."""


def measure(problems: int) -> dict[str, Any]:
    """Runs the example with one and with two workers, and the same solves in this process without Ray."""
    with tempfile.TemporaryDirectory() as folder:
        runs = [_run(Path(folder) / str(workers), workers, problems) for workers in WORKERS]
        plain = _plain(problems // 8)
    versions = {"ray": importlib.metadata.version("ray"), "pyarrow": importlib.metadata.version("pyarrow")}
    found = provenance()
    found["versions"] |= versions
    return {**found, "measured": time.strftime("%Y-%m-%d"), "plain": plain, "runs": runs}


def _run(output: Path, workers: int, problems: int) -> dict[str, Any]:
    command = [sys.executable, str(SCRIPT), "--problems", str(problems), "--workers", str(workers)]
    load = os.getloadavg()[0]
    started = time.perf_counter()
    subprocess.run([*command, "--output", str(output)], check=True, cwd=ROOT)
    seconds = time.perf_counter() - started
    script = _load_script()
    results = script.read_results(output)
    written = [file.stat().st_mtime for file in output.glob("batch-*.parquet")]
    return {
        "workers": workers,
        "problems": problems,
        "seconds": seconds,
        "writing": max(written) - min(written),
        "load": round(load, 2),
        "core_seconds": script.core_seconds(output),
        "bytes": sum(file.stat().st_size for file in output.glob("batch-*.parquet")),
        "certified": results["status"].to_pylist().count("OPTIMAL") / results.num_rows,
        **json.loads((output / "settings.json").read_text(encoding="utf-8")),
    }


def _plain(problems: int) -> dict[str, float]:
    """The same batches in a loop of one thread."""
    import torch

    script, before = _load_script(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        script.solve_numbers(0, 512, 16, 0.5)
        started = time.perf_counter()
        for first in range(0, problems, 512):
            script.solve_numbers(first, min(512, problems - first), 16, 0.5)
        return {"problems": problems, "seconds": time.perf_counter() - started}
    finally:
        torch.set_num_threads(before)


def _load_script() -> Any:
    import importlib.util

    spec = importlib.util.spec_from_file_location("million_problems", SCRIPT)
    if spec is None or spec.loader is None:
        raise ValueError(f"sizing: {SCRIPT} must be a Python file; got none. Restore it.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rate(run: dict[str, Any]) -> float:
    """Problems per second of a run once its workers are there: from the first file to the last."""
    return float((run["problems"] - run["batch"]) / run["writing"])


def matching_rows(found: dict[str, Any]) -> list[list[str]]:
    """Per number of workers what a million problems take."""
    rows = []
    for run in found["runs"]:
        share = MILLION / run["problems"]
        seconds = {name: share * value for name, value in run["core_seconds"].items()}
        rows.append(
            [
                f"{run['workers']}",
                number(rate(run)),
                f"{rate(run) / rate(found['runs'][0]):.2f}",
                number(sum(seconds.values())),
                number(seconds["solving"]),
                number(share * run["bytes"] / 1e6),
                number(MILLION / rate(run) / 60),
                f"{run['certified']:.3%}",
            ]
        )
    return rows


_MATCHING_HEADS = (
    "workers",
    "problems per second",
    "times one worker",
    "core-seconds per million",
    "of them solving",
    "MB of parquet per million",
    "minutes per million",
    "certified",
)


def caption_tokens() -> tuple[float, float]:
    """Input and output tokens of one request, as `exgra-med caption --dry-run` estimates them."""
    question = " ".join(["word"] * int(ASSUMPTIONS["question words"]))
    answer = " ".join(["word"] * int(ASSUMPTIONS["answer words"]))
    return estimate_tokens(Item("0", messages_for(question, answer, read_system_prompt()), SCHEMA))


def captions() -> dict[str, float]:
    """Tokens and GPU hours of extended answers for 100,000 samples."""
    sent, received = (SAMPLES * ASSUMPTIONS["pairs"] * tokens for tokens in caption_tokens())
    seconds = sent / ASSUMPTIONS["prefill"] + received / ASSUMPTIONS["decode"]
    return {"input tokens": sent, "output tokens": received, "GPU hours": seconds / 3600}


def training(with_alignment: bool, peak: float) -> dict[str, float]:
    """Tokens and GPU hours of stage 2 on 100,000 samples."""
    positions = ASSUMPTIONS["positions"] + (ASSUMPTIONS["text positions"] if with_alignment else 0)
    tokens = SAMPLES * ASSUMPTIONS["epochs"] * positions
    operations = ASSUMPTIONS["flops per parameter"] * ASSUMPTIONS["parameters"] * tokens
    return {"tokens": tokens, "GPU hours": operations / (ASSUMPTIONS["utilisation"] * peak) / 3600}


def model_rows() -> list[list[str]]:
    """Tokens and GPU hours per 100,000 samples."""
    asked = captions()
    rows = [
        [
            "extended answers, 8B model on one H100",
            f"{asked['input tokens'] / 1e6:,.0f} M in, {asked['output tokens'] / 1e6:,.0f} M out",
            number(asked["GPU hours"]),
        ]
    ]
    for with_alignment in (True, False):
        name = "stage 2" if with_alignment else "the same without alignment"
        hours = {gpu: training(with_alignment, peak)["GPU hours"] for gpu, peak in GPUS.items()}
        tokens = training(with_alignment, GPUS["A100"])["tokens"]
        estimate = ", ".join(f"{number(value)} ({gpu})" for gpu, value in hours.items())
        rows.append([f"{name}, 7B, {ASSUMPTIONS['epochs']:.0f} epochs", f"{tokens / 1e6:,.0f} M", estimate])
    return rows


def _assumed() -> str:
    pairs = ", ".join(f"{name} {value:g}" for name, value in ASSUMPTIONS.items())
    peaks = ", ".join(f"{name} {value / 1e12:.0f}" for name, value in GPUS.items())
    return f"{pairs}; peak bf16 TFLOP/s: {peaks}"


def tables(found: dict[str, Any]) -> str:
    """Both tables with what they stand on, for the report and for the README of the examples."""
    first = found["runs"][0]
    versions = found["versions"]
    names = ("python", "torch", "ray", "pyarrow")
    sent, received = caption_tokens()
    overhead = rate(first) / (found["plain"]["problems"] / found["plain"]["seconds"])
    start = min(run["seconds"] - run["writing"] for run in found["runs"])
    loads = ", ".join(f"{run['load']:g}" for run in found["runs"])
    origin = ", ".join(f"{name} {versions[name]}" for name in names)
    machine = found["machine"]
    parts = [
        table(_MATCHING_HEADS, matching_rows(found)),
        f"Sparse problems of {first['nodes']} nodes, noise {first['noise']:g}, {first['problems']:,} of them in "
        f"batches of {first['batch']}, each worker with one thread; making the problems is part of the work. Starting "
        f"Ray and its workers takes {number(start)} s, which is not counted. One worker does "
        f"{overhead:.0%} of what a plain loop of `gm.solve` over the same batches does without Ray. {machine['cpu']}, "
        f"{machine['cores']} cores, load before the runs {loads}; {origin}; commit {found['commit']}, "
        f"{found['measured']}.",
        table(("per 100,000 samples", "tokens", "GPU hours"), model_rows()),
        "Estimates, not measurements:",
        "- extended answers: GPU hours = samples x pairs x (input tokens / prefill + output tokens / decode) / 3600, "
        f"with {sent:.0f} input and at most {received:.0f} output tokens for a request, which `exgra-med caption "
        "--dry-run` counts for your data;\n"
        "- stage 2: GPU hours = flops per parameter x parameters x tokens / (utilisation x peak) / 3600, with tokens = "
        "samples x epochs x (positions + text positions, the latter with alignment).",
        f"Assumed: {_assumed()}. `ASSUMPTIONS` in `benchmarks/sizing.py` holds them; put your own in and run "
        "`python -m benchmarks.sizing report`.",
    ]
    return "\n\n".join(parts)


def draw(found: dict[str, Any], path: Path) -> None:
    """Draws the throughput by workers, beside a plain loop and beside perfect scaling."""
    workers = [run["workers"] for run in found["runs"]]
    rates = [rate(run) for run in found["runs"]]
    plain = found["plain"]["problems"] / found["plain"]["seconds"]
    with figure(path, 8, 5) as canvas:
        axis = canvas.add_subplot()
        axis.bar([str(count) for count in workers], rates, width=0.5, color=BLUE, label="Ray Data")
        for place, value in enumerate(rates):
            axis.text(place, 0.4 * rates[0], f"{value:,.0f}", color="white", fontsize=18, ha="center")
        axis.scatter(
            [str(count) for count in workers],
            [count * rates[0] for count in workers],
            marker="_",
            s=3500,
            linewidth=3,
            color=ORANGE,
            label="perfect scaling from one worker",
            zorder=3,
        )
        axis.axhline(plain, color=GREY, linestyle="--", linewidth=2, label="plain loop of gm.solve, one thread")
        axis.set(xlabel="workers", ylabel="problems per second", ylim=(0, 1.45 * max(rates)))
        axis.grid(visible=False, axis="x")
        axis.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axis.set_title(f"Matching problems of {found['runs'][0]['nodes']} nodes, solved and written")
        legend = axis.legend(loc="upper left", markerscale=0.35)
        legend.set_zorder(4)


def report(found: dict[str, Any]) -> None:
    """Writes the report, its picture, and the table of the README."""
    draw(found, PICTURE)
    text = tables(found)
    write_text(
        REPORT,
        "# Scaling out\n\nWhat a million matching problems take with [examples/scale](../../docs/scaling.md), and what "
        "100,000 samples take on GPUs. Written by `python -m benchmarks.sizing report`.\n\n"
        "![problems per second with one and with two workers](scale.png)\n\n"
        f"{text}\n",
    )
    marked = re.compile(r"(<!-- sizing: [^\n]* -->\n).*?(<!-- sizing: end -->)", re.S)
    write_text(README, marked.sub(lambda match: f"{match[1]}{text}\n{match[2]}", README.read_text(encoding="utf-8")))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sizing", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=("measure", "report"))
    parser.add_argument("--problems", metavar="N", type=int, default=200_000, help="per run (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.what == "measure":
        write_json(JSON, measure(options.problems))
    report(json.loads(JSON.read_text(encoding="utf-8")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
