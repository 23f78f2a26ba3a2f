"""The training report: Markdown and pictures, from what a run logged and nothing else."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from exgra_adapter.atomic import write_text
from exgra_adapter.reporting.facts import Facts, History, Settings, graph_nodes, has_graphs
from exgra_adapter.reporting.findings import find_warnings
from exgra_adapter.reporting.markdown import duration, gibibytes, number, percent, table
from exgra_adapter.reporting.measures import (
    ALIGNMENT_PHASES,
    NORM_PREFIX,
    format_overhead,
    keys_with_prefix,
    measure_overhead,
    phase_name,
    series,
    time_split,
)
from exgra_adapter.reporting.plots import ALIGNMENT, LOSS, MATCHING, NORMS, RATE, TIME, plot_history
from exgra_adapter.reporting.settings import split_settings

REPORT = "report.md"
_FOLDER = "report"
_PICTURES = (LOSS, ALIGNMENT, MATCHING, NORMS, TIME, RATE)
# Quantities of the table of values, and whether the lowest or the highest is the best.
_QUANTITIES = {
    "loss": ("loss in total", min),
    "ar_loss": ("autoregressive loss (nats per token)", min),
    "extended_text_loss": ("loss on extended answers (nats per token)", min),
    "alignment_loss": ("alignment loss", min),
    "matching_accuracy": ("matching with the barycenter", max),
    "retrieval": ("cross-view retrieval", max),
    "zero_gradient_share": ("steps without alignment gradient", None),
    "gap": ("certified gap of the matchings", min),
    "gradient_norm": ("gradient norm", None),
    "learning_rate": ("learning rate", None),
}


def write_training_report(folder: Path, settings: Settings, history: History, facts: Facts) -> Path:
    """Writes `report/report.md` and its pictures into the folder of a run.

    An earlier report is replaced; its pictures of quantities that are no longer logged are removed. The Markdown
    depends on the arguments alone. Call it in one process only.

    Args:
        folder: The folder of the run; missing folders are made.
        settings: Its settings.
        history: Its logged steps; may be empty.
        facts: Facts about it; may be empty.

    Returns:
        The path of the Markdown file.

    Raises:
        OSError: The folder cannot be written to.
    """
    target = Path(folder) / _FOLDER
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target, prefix=".partial") as temporary:
        pictures = plot_history(history, Path(temporary), _chance(settings, facts))
        for name in _PICTURES:
            if name in pictures:
                (Path(temporary) / name).replace(target / name)
            else:
                (target / name).unlink(missing_ok=True)
    write_text(target / REPORT, format_report(settings, history, facts, pictures))
    return target / REPORT


def format_report(settings: Settings, history: History, facts: Facts, pictures: list[str]) -> str:
    """Formats the report as Markdown.

    Args:
        settings: The settings of the run.
        history: Its logged steps.
        facts: Facts about it.
        pictures: Names of the pictures that lie beside it, as `plot_history` returns them.

    Returns:
        The text; equal arguments give equal bytes.
    """
    changed, others = split_settings(settings)
    stage = settings.get("stage")
    sections = [
        f"# Training report{f': {stage}' if stage else ''}",
        "For research use, not for clinical use. Values are those of training batches; test scores come from "
        "`exgra-med evaluate`.",
        _run_table(facts),
        *_warnings(settings, history, facts),
        "## Settings",
        "Chosen, or different from the defaults:",
        table(["setting", "value", "default"], changed, numbers=False) if changed else "none.",
        "## Values",
        _values_table(history),
        *(_picture(name, title) for name, title in ((LOSS, "Autoregressive loss"),) if name in pictures),
    ]
    if MATCHING in pictures or ALIGNMENT in pictures:
        sections += _alignment_section(settings, facts, pictures)
    if NORMS in pictures:
        sections += [
            "## Gradients",
            "Norms before clipping, on a logarithmic axis: a part whose norm falls far below the others has stopped "
            "learning; points at zero are left out.",
            _picture(NORMS, "Gradient norms"),
            _norms_table(history),
        ]
    if TIME in pictures:
        sections += _time_section(history)
    if RATE in pictures:
        sections += ["## Learning rate", _picture(RATE, "Learning rate")]
    if others:
        sections += ["## Other settings", table(["setting", "value"], others, numbers=False)]
    return "\n\n".join(section for section in sections if section) + "\n"


def _chance(settings: Settings, facts: Facts) -> float | None:
    nodes = graph_nodes(settings, facts)
    return 1 / nodes if nodes and has_graphs(settings) else None


def _warnings(settings: Settings, history: History, facts: Facts) -> list[str]:
    found = find_warnings(settings, history, facts)
    return ["## Look at this first", "\n".join(f"- {sentence}" for sentence in found)] if found else []


def _run_table(facts: Facts) -> str:
    rows = []
    if "base_model" in facts:
        rows.append(["started from", f"`{facts['base_model']}`"])
    if "data_file" in facts:
        count = f", {number(facts['data_count'])} samples" if "data_count" in facts else ""
        rows.append(["data", f"`{facts['data_file']}`{count}"])
    if "data_sha256" in facts:
        rows.append(["SHA-256 of the data", f"`{facts['data_sha256']}`"])
    if "samples" in facts:
        rows.append(["samples trained on; left out", f"{number(facts['samples'])}; {number(facts.get('skipped', 0))}"])
    if "steps" in facts:
        rows.append(["optimizer steps", number(facts["steps"])])
    if "seconds" in facts:
        rate = f" ({facts['seconds'] / facts['steps']:.3g} s per step)" if facts.get("steps") else ""
        rows.append(["time", f"{duration(facts['seconds'])}{rate}"])
    if "parameters" in facts:
        trained = f"; {number(facts['trainable'])}" if "trainable" in facts else ""
        rows.append(["parameters; trained" if trained else "parameters", f"{number(facts['parameters'])}{trained}"])
    if "device" in facts or "world_size" in facts:
        rows.append(["devices", f"{facts.get('world_size', 1)} x {facts.get('device', 'unknown')}"])
    if "peak_memory_bytes" in facts:
        rows.append(["peak memory of a device", f"{gibibytes(facts['peak_memory_bytes'])} GiB"])
    if facts.get("versions"):
        rows.append(["versions", ", ".join(f"{name} {version}" for name, version in sorted(facts["versions"].items()))])
    return table(["run", ""], rows, numbers=False) if rows else ""


def _values_table(history: History) -> str:
    rows = []
    for key, (name, best) in _QUANTITIES.items():
        steps, values = series(history, key)
        finite = np.flatnonzero(np.isfinite(values))
        if not len(values):
            continue
        row = [name, number(float(values[0])), number(float(values[-1])), "-", "-"]
        if best is not None and len(finite):
            place = best(finite.tolist(), key=lambda index: values[index])
            row[3:] = [number(float(values[place])), number(float(steps[place]))]
        rows.append(row)
    return table(["", "first", "last", "best", "at step"], rows) if rows else "No step was logged."


def _alignment_section(settings: Settings, facts: Facts, pictures: list[str]) -> list[str]:
    nodes, chance = graph_nodes(settings, facts), _chance(settings, facts)
    size = f" Graphs of {nodes} samples: chance is {percent(chance)}." if chance is not None else ""
    return [
        "## Alignment",
        "*Matching*: nodes that the solver matches with their own barycenter node. *Retrieval*: the nearest node of "
        "another view belongs to the same sample, without any barycenter. Read them side by side: a barycenter that "
        "contains the view makes matching easy, and only retrieval shows that the views agree. *Steps without "
        f"gradient*: the discrete loss was silent, as all was matched or nothing moved the matching.{size}",
        *(
            _picture(name, title)
            for name, title in (
                (MATCHING, "Matching and retrieval"),
                (ALIGNMENT, "Alignment loss"),
            )
            if name in pictures
        ),
    ]


def _norms_table(history: History) -> str:
    rows = []
    for key in ["gradient_norm", *keys_with_prefix(history, NORM_PREFIX)]:
        values = series(history, key)[1]
        finite = values[np.isfinite(values)]
        if len(finite):
            part = key.removeprefix(NORM_PREFIX).replace("_", " ") if key != "gradient_norm" else "all"
            figures = (np.median(finite), finite.max(), (finite == 0).mean())
            rows.append([part, number(float(figures[0])), number(float(figures[1])), percent(float(figures[2]))])
    return table(["part", "median", "largest", "at zero"], rows)


def _time_section(history: History) -> list[str]:
    split = time_split(history)
    step = sum(split.values())
    rows = [
        [phase_name(phase), number(seconds), percent(seconds / step if step else None),
         "yes" if phase in ALIGNMENT_PHASES else ""]
        for phase, seconds in split.items()
    ]  # fmt: skip
    overhead = measure_overhead(history)
    return [
        "## Time",
        _picture(TIME, "Seconds of a step by phase"),
        table(["phase", "seconds per step", "share", "of the alignment"], [*rows, ["together", number(step), "", ""]]),
        "" if overhead is None else format_overhead(overhead),
    ]


def _picture(name: str, title: str) -> str:
    return f"![{title}]({name})"
