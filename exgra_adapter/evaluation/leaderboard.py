"""Measured scores beside the published ones, and never mixed with them.

The published numbers are one figure per data set: the mean of open recall and closed accuracy as the authors' scripts
compute it, in percent, without intervals. Measured numbers of the same kind stand in a table of their own, with the
number of questions, 95 % intervals, the model and the date.

Source: arXiv 2410.02615 (NeurIPS 2025).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from exgra_adapter.evaluation.metrics import Estimate
from exgra_adapter.reporting.markdown import number, table

SOURCE = "arXiv 2410.02615"
DATA_SETS = {"vqa-rad": "VQA-RAD", "slake": "SLAKE", "pathvqa": "PathVQA"}
QUESTIONS = {"vqa-rad": 451, "slake": 1061, "pathvqa": 6761}
"""The number of test questions of each data set; SLAKE's in English."""

PUBLISHED: dict[str, tuple[float, float, float, float]] = {
    "LLaVA-Med, 100 % of the data": (72.64, 83.43, 64.06, 73.37),
    "LLaVA-Med, 10 %": (52.39, 80.62, 56.15, 63.05),
    "InfoNCE, 10 %": (68.48, 82.78, 63.02, 71.43),
    "SigLIP, 10 %": (67.47, 80.69, 34.47, 60.88),
    "ExGra-Med, 10 %": (72.52, 85.01, 64.34, 73.96),
    "ExGra-Med, 100 %": (74.91, 85.46, 63.87, 74.75),
    "ExGra-Med + DCI, 100 %": (75.25, 85.23, 64.82, 75.10),
}
"""Model to its published figures: VQA-RAD, SLAKE, PathVQA, and the mean of the three as printed."""

SCORES = "scores.json"
_NAMES = {"vqa-rad": r"vqa[-_ ]?rad|(?<![a-z])rad(?![a-z])", "slake": r"slake", "pathvqa": r"path[-_ ]?vqa|pvqa"}
_RULES = {
    "published scripts": ("summary", "recall", "closed_accuracy"),
    "strict": ("summary", "open_recall", "closed_accuracy"),
}


@dataclass(frozen=True)
class Measurement:
    """The scores of one model on one data set.

    Attributes:
        data_set: a key of `DATA_SETS`.
        model: what the report calls the model.
        rule: `published scripts` or `strict`: how answers were compared.
        summary: the mean of open recall and closed accuracy.
        open_recall: over the open questions.
        closed_accuracy: over the closed questions.
        strict: the same summary by strict rules, where the file has both.
        failed: the number of questions without an answer, each counted as wrong.
        date: when the scores were written, in UTC.
        place: the file.
    """

    data_set: str
    model: str
    rule: str
    summary: Estimate
    open_recall: Estimate
    closed_accuracy: Estimate
    strict: Estimate | None
    failed: int
    date: str
    place: str

    @property
    def questions(self) -> int:
        """How many questions were asked."""
        return self.open_recall.count + self.closed_accuracy.count


def read_measurement(run: str) -> Measurement:
    """Reads the scores of a run.

    Args:
        run: A folder with `scores.json`, or that file; before it, optionally, the data set or the model and the data
            set: `runs/rad/test`, `slake=runs/7/test`, `ours/slake=runs/7/test`. Without them, the data set is read in
            the path and the path names the model.

    Returns:
        The scores by the published scripts' rules where the file has them, else the strict ones.

    Raises:
        ValueError: There is no such file, it holds no scores, or it is not clear of which data set.
    """
    prefix = re.fullmatch(rf"(?:(?P<model>[^=]+)/)?(?P<data_set>{'|'.join(DATA_SETS)})=(?P<place>.+)", run)
    place = Path(prefix["place"] if prefix else run)
    file = place / SCORES if place.is_dir() else place
    if not file.is_file():
        name, _, folder = run.partition("=")
        if prefix is None and folder and Path(folder).exists():
            raise ValueError(
                f"report: the data set before = must be one of {', '.join(DATA_SETS)}; "
                f"got {name.rpartition('/')[2]!r} in {run}. Choose one of them."
            )
        raise ValueError(
            f"report: a run must be a folder with {SCORES}; got {run}. Make one with: exgra-med evaluate vqa --output."
        )
    data_set = prefix["data_set"] if prefix else _data_set_of(place)
    content = _read_json(file)
    rule, metrics = _metrics(content)
    summary, opened, closed = (_estimate(metrics, key, file) for key in _RULES[rule])
    strict = None
    if rule != "strict" and content.get("summary") is not None:
        strict = _estimate(content, "summary", file)
    written = datetime.fromtimestamp(file.stat().st_mtime, tz=timezone.utc)
    model = prefix["model"] if prefix and prefix["model"] else str(place)
    failed = content.get("failed", 0)
    return Measurement(data_set, model, rule, summary, opened, closed, strict, failed, f"{written:%Y-%m-%d}", str(file))


def format_leaderboard(measurements: Sequence[Measurement], picture: str | None = None) -> str:
    """Formats the report as Markdown: the published table, then the measured one.

    Args:
        measurements: The measured scores, in the order of the report; may be empty.
        picture: The name of the picture beside the file.

    Raises:
        ValueError: Two runs have the same model and data set.

    Example:
        >>> print(format_leaderboard([]).splitlines()[0])
        # Medical visual question answering: published and measured
    """
    _require_distinct(measurements)
    published = [[name, *(f"{value:.2f}" for value in values)] for name, values in PUBLISHED.items()]
    names = list(DATA_SETS.values())
    parts = [
        "# Medical visual question answering: published and measured",
        "All figures are the mean of open recall and closed accuracy, in percent. The two tables are not one ranking: "
        "a published figure has no interval, and prompts, decoding, and the checkpoint's training may differ.",
        f"## Published ({SOURCE})",
        "Copied from the paper, measured by its authors.",
        table(["model", *names, "mean"], published),
        "## Measured here",
    ]
    if not measurements:
        return "\n\n".join([*parts, "Nothing has been measured."]) + "\n"
    parts += [_measured_table(measurements), *_overall(measurements)]
    if picture is not None:
        parts.append(f"![Published and measured figures, apart]({picture})")
    parts += ["## Reading the measured figures", "\n".join(f"- {note}" for note in _notes(measurements))]
    sources = [[DATA_SETS[m.data_set], m.model, f"`{m.place}`"] for m in measurements]
    parts += ["## Files", table(["data set", "model", "scores"], sources, numbers=False)]
    return "\n\n".join(parts) + "\n"


def _measured_table(measurements: Sequence[Measurement]) -> str:
    head = ["data set", "model", "figure", "95 % interval", "open recall", "closed accuracy", "strict figure", "n"]
    head += ["open + closed", "unanswered", "rule", "date"]
    body = []
    for m in measurements:
        interval = f"{100 * m.summary.low:.2f} to {100 * m.summary.high:.2f}"
        scores = [_percent(m.summary), interval, _percent(m.open_recall), _percent(m.closed_accuracy)]
        strict = _percent(m.strict) if m.rule != "strict" else _percent(m.summary)
        counts = [number(m.questions), f"{m.open_recall.count:,} + {m.closed_accuracy.count:,}", number(m.failed)]
        body.append([DATA_SETS[m.data_set], m.model, *scores, strict, *counts, m.rule, m.date])
    return table(head, body)


def _overall(measurements: Sequence[Measurement]) -> list[str]:
    """Means over the three data sets, of the models that were measured on all of them by one rule."""
    rows = []
    for model in dict.fromkeys(m.model for m in measurements):
        own = [m for m in measurements if m.model == model]
        if len(own) == len(DATA_SETS) and len({m.rule for m in own}) == 1:
            rows.append([model, f"{100 * sum(m.summary.value for m in own) / len(own):.2f}", own[0].rule])
    return [table(["model", "mean of the three", "rule"], rows)] if rows else []


def _notes(measurements: Sequence[Measurement]) -> list[str]:
    notes = [
        "Intervals are 95 % percentile bootstrap over the questions; they do not cover the training's randomness.",
        "A question without an answer is wrong; n counts it.",
    ]
    if any(m.rule == "published scripts" for m in measurements):
        notes.append(
            "The rule `published scripts` computes what the authors' scripts compute: the only figures of the same "
            "kind as the published ones. It finds `no` in `normal` and rewards repeated words; the strict figure does "
            "neither."
        )
    if any(m.rule == "strict" for m in measurements):
        notes.append(
            "The rule `strict` compares whole words and counts a word once. Its figures are usually below those of the "
            "authors' scripts for the same answers: do not set them against the published ones."
        )
    return notes + [
        f"{m.model} was asked {m.questions:,} questions; {DATA_SETS[m.data_set]}'s published test has "
        f"{QUESTIONS[m.data_set]:,}: the figures are of different tests."
        for m in measurements
        if m.questions != QUESTIONS[m.data_set]
    ]


def _percent(estimate: Estimate | None) -> str:
    return "-" if estimate is None else f"{100 * estimate.value:.2f}"


def _require_distinct(measurements: Sequence[Measurement]) -> None:
    seen: dict[tuple[str, str], str] = {}
    for m in measurements:
        earlier = seen.setdefault((m.model, m.data_set), m.place)
        if earlier is not m.place:
            raise ValueError(
                f"report: a model must have one run per data set; got {earlier} and {m.place} for {m.model} on "
                f"{DATA_SETS[m.data_set]}. Give them names: NAME/{m.data_set}=DIR."
            )


def _data_set_of(place: Path) -> str:
    """The data set that a path names; the last part that names one decides."""
    for part in reversed(place.parts):
        found = [key for key, pattern in _NAMES.items() if re.search(pattern, part.lower())]
        if len(found) == 1:
            return found[0]
    raise ValueError(
        f"report: the data set of a run must be one of {', '.join(DATA_SETS)}; got {place}, whose name does not say "
        f"which. Write it before the folder: vqa-rad={place}."
    )


def _read_json(file: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"report: {file} must be JSON; got {error}. Score the answers again.") from None
    if not isinstance(content, dict):
        raise ValueError(
            f"report: {file} must be a JSON object of scores; got something else. Score the answers again."
        )
    return content


def _metrics(content: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    legacy = content.get("legacy")
    metrics = legacy.get("metrics") if isinstance(legacy, dict) else None
    return ("published scripts", metrics) if isinstance(metrics, dict) else ("strict", content)


def _estimate(metrics: Mapping[str, Any], key: str, file: Path) -> Estimate:
    value = metrics.get(key)
    fields = ("value", "low", "high", "count")
    if not isinstance(value, dict) or not all(
        isinstance(value.get(name), int | float) and math.isfinite(value[name]) for name in fields
    ):
        raise ValueError(
            f"report: {file} must have the score {key} with {', '.join(fields)}; got {value!r}. Score a test file that "
            "has open and closed questions with: exgra-med evaluate vqa."
        )
    if not 0 <= value["value"] <= 1:
        raise ValueError(f"report: {key} in {file} must be in [0, 1]; got {value['value']}. Score the answers again.")
    return Estimate(value["value"], value["low"], value["high"], int(value["count"]))
