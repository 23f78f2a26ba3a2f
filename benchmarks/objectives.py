"""Trains the demo's tiny model with every objective: what is each worth on unseen pictures, in retrieval and answers?

All arms share stage 1, data, steps and seeds; they differ in stage 2 only, and are then fine-tuned alike. Retrieval is
measured with texts read alone, whatever a run trained with: what an answer node learned from the image it had already
seen does not help there.

    python -m benchmarks.objectives                  # about an hour of two cores; stopped, it goes on where it was
    python -m benchmarks.objectives --plot-only      # draws the picture again
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.ticker import PercentFormatter
from tqdm import tqdm
from transformers.utils import logging as transformers_logging

from benchmarks.machine import RESULTS, provenance
from benchmarks.output import BLUE, GREY, ORANGE, figure, write_json, write_text
from benchmarks.studies.learning import SeedRun, measure_training
from exgra_adapter.data.records import read_records
from exgra_adapter.demo.measure import measure_alignment
from exgra_adapter.demo.results import DemoConfig
from exgra_adapter.reporting.measures import measure_overhead

JSON = RESULTS / "objectives.json"
PICTURE = RESULTS / "objectives.png"
REPORT = RESULTS / "objectives.md"
SEEDS = (0, 1, 2)
_INTRODUCTION = (
    "# What alignment objectives are worth",
    "",
    "The demo's tiny model, stage 2 with each objective and then fine-tuned alike; means over seeds. *Retrieval*: the",
    "most similar row of another view belongs to the same sample, in graphs of 16 unseen samples, texts read alone.",
    "*Matching*: accuracy of the matchings with barycenters there. *Answers*: score on questions about unseen",
    "pictures, with its range over seeds. *Silent steps*: training steps whose matchings sent no gradient. *Extra",
    "tokens*, *overhead*: of the language model and of a step's time, beside those of a step without alignment.",
    "",
)

ARMS: dict[str, dict[str, Any]] = {
    "AR only": {"objective": "none"},
    "AR only, same tokens": {"objective": "none", "match_compute": True},
    "AR + extended text": {"objective": "extended_text"},
    "InfoNCE": {"objective": "infonce"},
    "SigLIP": {"objective": "siglip"},
    "optimal transport": {"objective": "optimal_transport"},
    "assignment prediction": {"objective": "vlap"},
    "pairwise": {"objective": "pairwise"},
    "barycenter": {"objective": "barycenter"},
    "barycenter, mean (paper)": {"objective": "barycenter", "barycenter": "mean"},
    "barycenter, Sinkhorn": {"objective": "barycenter", "relaxation": "sinkhorn"},
    "barycenter, reused states": {"objective": "barycenter", "reuse_answer_states": True},
    "barycenter, no extended": {"objective": "barycenter", "texts": "answer"},
    "released recipe": {"objective": "barycenter", "legacy": True},
}


@dataclass(frozen=True)
class Study:
    """Sizes of the study; the demo's own where nothing else is said."""

    demo: DemoConfig = field(default_factory=DemoConfig)
    seeds: tuple[int, ...] = SEEDS


def run_arm(run: SeedRun, options: dict[str, Any]) -> dict[str, Any]:
    """Trains and measures one arm."""
    demo, data = run.demo, run.data
    summary = run.instruct("arm", options)
    # Other objectives have no message passing; retrieval does not need it.
    matched = options["objective"] == "barycenter" and not options.get("relaxation") and not options.get("legacy")
    held_out = measure_alignment(
        run.folder / "arm", read_records(data.conversations_test), data.images, demo.batch_size, run.seed, matched
    )
    scores = run.answer("arm", "vqa")
    overhead = measure_overhead(summary.history)
    return {
        "held_out_retrieval": held_out.retrieval,
        "held_out_matching": held_out.matching_accuracy if matched else None,
        **measure_training(summary.history),
        "summary": scores.summary.value,
        "exact_match": scores.exact_match.value,
        "steps": summary.steps,
        "seconds_per_step": float(np.mean([_step_seconds(entry) for entry in summary.history])),
        "overhead": None if overhead is None else overhead.relative,
        "extra_tokens": None if overhead is None else overhead.extra_tokens,
    }


def _step_seconds(entry: dict[str, float]) -> float:
    return sum(value for name, value in entry.items() if name.startswith("seconds_"))


def run(study: Study, path: Path) -> dict[str, Any]:
    """Runs what is not in the results yet, and writes them after every arm."""
    results: dict[str, Any] = {"runs": {}}
    if path.is_file():
        results = json.loads(path.read_text(encoding="utf-8"))
    done = results["runs"]
    todo = [(seed, arm) for seed, arm in product(study.seeds, ARMS) if str(seed) not in done.get(arm, {})]
    transformers_logging.set_verbosity_error()
    with tempfile.TemporaryDirectory(prefix="objectives-") as name, tqdm(total=len(todo), unit="arm") as progress:
        shared: SeedRun | None = None
        for seed, arm in todo:
            progress.set_description(f"seed {seed}, {arm}")
            if shared is None or shared.seed != seed:
                shared = SeedRun.prepare(study.demo, seed, Path(name) / str(seed))
            done.setdefault(arm, {})[str(seed)] = run_arm(shared, ARMS[arm])
            write_json(path, {"runs": done, **provenance()})
            progress.update()
    return {"runs": done, **provenance()}


def summarise(runs: dict[str, dict[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Returns for each arm the mean of every value over its seeds, and the range of the answers' score."""
    rows = []
    for arm in (name for name in ARMS if name in runs):
        own = list(runs[arm].values())
        row: dict[str, Any] = {"arm": arm, "seeds": len(own)}
        for name in own[0]:
            values = [each[name] for each in own if each[name] is not None]
            row[name] = float(np.mean(values)) if values else None
        row["summary_range"] = [min(each["summary"] for each in own), max(each["summary"] for each in own)]
        row["retrieval_range"] = [
            min(each["held_out_retrieval"] for each in own),
            max(each["held_out_retrieval"] for each in own),
        ]
        rows.append(row)
    return rows


def draw(rows: list[dict[str, Any]]) -> None:
    """Draws retrieval and score of all arms, with the range over the seeds."""
    with figure(PICTURE, width=14, height=0.55 * len(rows) + 1.6) as canvas:
        retrieval, answers = canvas.subplots(1, 2, sharey=True)
        places = np.arange(len(rows))[::-1]
        for axis, name, title in (
            (retrieval, "held_out_retrieval", "Retrieval between views, texts read alone"),
            (answers, "summary", "Answers after fine-tuning"),
        ):
            span = "retrieval_range" if name == "held_out_retrieval" else "summary_range"
            for place, row in zip(places, rows, strict=True):
                colour = ORANGE if "barycenter" in row["arm"] or row["arm"] == "released recipe" else BLUE
                axis.plot(row[span], [place, place], color=GREY, linewidth=1.6, zorder=1)
                axis.plot([row[name]], [place], "o", color=colour, markersize=9, zorder=2)
            axis.set(title=title, xlabel="unseen pictures; dot: mean, line: range over seeds")
            axis.xaxis.set_major_formatter(PercentFormatter(1))
        retrieval.set_yticks(places, [row["arm"] for row in rows])


def write_report(rows: list[dict[str, Any]]) -> None:
    """Writes the table."""
    head = ["arm", "retrieval", "matching", "answers", "range", "silent steps", "extra tokens", "overhead"]
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    for row in rows:
        low, high = row["summary_range"]
        cells = [
            row["arm"],
            _percent(row["held_out_retrieval"]),
            _percent(row["held_out_matching"]),
            _percent(row["summary"]),
            f"{_percent(low)} to {_percent(high)}",
            _percent(row["zero_gradient_share"]),
            _percent(row["extra_tokens"]),
            _percent(row["overhead"]),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    write_text(
        REPORT, "\n".join([*_INTRODUCTION, *lines, "", f"![retrieval and answers of every arm]({PICTURE.name})"]) + "\n"
    )


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="seeds of each arm (%(default)s)")
    parser.add_argument("--results", type=Path, default=JSON, help="where results are kept (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch (%(default)s)")
    parser.add_argument("--plot-only", action="store_true", help="draw the stored results again")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    path = options.results
    study = Study(seeds=tuple(options.seeds))
    results = json.loads(path.read_text(encoding="utf-8")) if options.plot_only else run(study, path)
    if path != JSON:
        return  # a part of the study, run beside others
    rows = summarise(results["runs"])
    write_json(JSON, {**results, "summary": rows})
    write_report(rows)
    draw(rows)


if __name__ == "__main__":
    main()
