"""Replies become extended answers: checked, counted and merged into the samples, which stream from file to file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from exgra_adapter.captions.filters import Limits, length_ratio, one_line, rejection
from exgra_adapter.captions.requests import Sample
from exgra_adapter.complete_file import complete_file
from exgra_adapter.data.extender import TemplateExtender
from exgra_adapter.data.records import TURN_KEYS, Turn
from exgra_adapter.endpoint import JournalIndex

RATIO_EDGES = np.geomspace(0.25, 64.0, 49)
"""Edges of the bins that length ratios are counted in."""

_EXAMPLES, _REASONS, _REASON_LENGTH = 3, 30, 100


@dataclass
class Outcome:
    """What became of all pairs and samples; its size does not depend on theirs.

    Attributes:
        samples: Number of samples.
        extended: Samples that have new extended answers in all turns.
        had: Samples that had extended answers before.
        without: Samples that have none.
        pairs: Pairs that were to be asked about.
        good: Pairs with a good extended answer.
        failed: Pairs without a reply.
        missing: Pairs that were not asked about yet.
        rejected: Rejected replies by check.
        filled: Pairs filled by template.
        same: Good extended answers that say nothing more than the answer.
        reasons: Why items failed, by how it begins; rare reasons are one.
        failed_keys: The first failed items of each reason.
        examples: A few rejected texts of each check, as key, answer and text.
        ratios: Good and rejected texts by length ratio, between the edges `RATIO_EDGES`, with the extremes in the outer
            bins: shape (2, number of bins).
    """

    samples: int = 0
    extended: int = 0
    had: int = 0
    without: int = 0
    pairs: int = 0
    good: int = 0
    failed: int = 0
    missing: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    filled: int = 0
    same: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    failed_keys: dict[str, list[str]] = field(default_factory=dict)
    examples: dict[str, list[tuple[str, str, str]]] = field(default_factory=dict)
    ratios: np.ndarray = field(default_factory=lambda: np.zeros((2, len(RATIO_EDGES) - 1), dtype=np.int64))


def merge(
    samples: Iterable[Sample], index: JournalIndex, output: Path, limits: Limits, fill: TemplateExtender | None
) -> Outcome:
    """Writes all samples in their order, with extended answers where these are good.

    A sample keeps all of its keys. It gets `conversations_long` if each of its turns has a good extended answer, or
    with `fill` one by template; a sample that had extended answers before stays as it was.

    Args:
        samples: The samples of the input.
        index: The journal with the replies.
        output: The file to write: one sample per line if it ends in `.jsonl`, a JSON list otherwise. It appears only
            when it is complete.
        limits: How strict the checks are.
        fill: Writes the extended answers that are missing; None leaves them out.

    Returns:
        The counts.
    """
    outcome = Outcome()
    with complete_file(output) as file:
        lines = output.suffix == ".jsonl"
        separator = "" if lines else "[\n"
        for sample in samples:
            merged = _extended_sample(sample, index, limits, fill, outcome)
            file.write(separator + _as_json(merged))
            separator = "\n" if lines else ",\n"
        if lines:
            file.write("\n" if outcome.samples else "")
        else:
            file.write("\n]\n" if outcome.samples else "[]\n")
    return outcome


def _as_json(sample: dict[str, Any]) -> str:
    text = json.dumps(sample, ensure_ascii=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # halves of characters, in keys that nobody reads: escaped, they stay as they were
        text = json.dumps(sample)
    return text


def _extended_sample(
    sample: Sample, index: JournalIndex, limits: Limits, fill: TemplateExtender | None, outcome: Outcome
) -> dict[str, Any]:
    outcome.samples += 1
    if sample.is_extended:
        outcome.had += 1
        return sample.content
    texts = []
    for number, turn in enumerate(sample.record.turns):
        text = _good_text(sample.key(number), turn, index, limits, outcome)
        if text is None and fill is not None:
            text = fill.extend(turn.question, turn.answer)
            outcome.filled += 1
        texts.append(text)
    if any(text is None for text in texts):
        outcome.without += 1
        return sample.content
    outcome.extended += 1
    messages = next(sample.content[key] for key in TURN_KEYS if key in sample.content)
    extended = [dict(message) for message in messages]
    for message, text in zip(extended[1::2], texts, strict=True):
        message["value"] = text
    return {**sample.content, "conversations_long": extended}


def _good_text(key: str, turn: Turn, index: JournalIndex, limits: Limits, outcome: Outcome) -> str | None:
    outcome.pairs += 1
    entry = index.entry(key)
    if entry is None:
        outcome.missing += 1
        return None
    if entry["status"] == "failed":
        outcome.failed += 1
        reason = str(entry.get("reason", "no reason"))[:_REASON_LENGTH]
        known = reason in outcome.reasons or len(outcome.reasons) < _REASONS
        reason = reason if known else "other reasons"
        outcome.reasons[reason] += 1
        keys = outcome.failed_keys.setdefault(reason, [])
        if len(keys) < _EXAMPLES:
            keys.append(key)
        return None
    text = one_line(entry["content"]["revision"])
    check = rejection(turn.question, turn.answer, text, limits)
    ratio = np.clip(length_ratio(turn.answer, text), RATIO_EDGES[0], RATIO_EDGES[-1])
    place = min(int(np.searchsorted(RATIO_EDGES, ratio, side="right")) - 1, outcome.ratios.shape[1] - 1)
    outcome.ratios[int(check is not None), place] += 1
    if check is not None:
        outcome.rejected[check] += 1
        examples = outcome.examples.setdefault(check, [])
        if len(examples) < _EXAMPLES:
            examples.append((key, turn.answer, text))
        return None
    outcome.good += 1
    outcome.same += text.strip(" .").lower() == turn.answer.strip(" .").lower()
    return text
