"""The functions of an exported lmms-eval task; `exgra-med evaluate export-lmms-eval` copies this file as `utils.py`.

lmms-eval loads it by its path, so it imports nothing relative. It needs this package in lmms-eval's environment: the
scores are those of `exgra-med evaluate vqa`.

A document has the keys `id`, `image` (the path of a file), `question`, `answer` and `answer_type`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from exgra_adapter.data.images import decode_image
from exgra_adapter.evaluation.metrics import closed_accuracy, exact_match, unique_token_recall


def doc_to_visual(doc: Mapping[str, Any]) -> list[Image.Image]:
    """Opens the document's image, as a list of one."""
    return [decode_image(Path(doc["image"]), str(doc["image"]))]


def doc_to_text(doc: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, str] | None = None) -> str:
    """Returns the question between the prompts that the task file gives the model."""
    prompts = lmms_eval_specific_kwargs or {}
    return f"{prompts.get('pre_prompt', '')}{doc['question']}{prompts.get('post_prompt', '')}"


def doc_to_target(doc: Mapping[str, Any]) -> str:
    """Returns the reference answer."""
    return str(doc["answer"])


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """Scores the answer to one document; a metric of the other answer type is left out.

    Example:
        >>> doc = {"question": "Is it a lung?", "answer": "no", "answer_type": "CLOSED"}
        >>> process_results(doc, ["A normal liver."])
        {'exact_match': 0.0, 'closed_accuracy': 0.0, 'summary': ('CLOSED', 0.0)}
    """
    reference, said = doc_to_target(doc), str(results[0]) if results else ""
    scores: dict[str, Any] = {"exact_match": exact_match(reference, said)}
    if doc["answer_type"] == "CLOSED":
        correct = scores["closed_accuracy"] = closed_accuracy(reference, said, doc["question"])
    else:
        correct = scores["open_recall"] = unique_token_recall(reference, said)
    return scores | {"summary": (doc["answer_type"], correct)}


def mean(values: Sequence[float]) -> float:
    """Averages a metric over the documents that have it."""
    return sum(values) / len(values) if values else 0.0


def summarise(values: Sequence[tuple[str, float]]) -> float:
    """Averages open recall and closed accuracy, each over its own questions; of one alone where there is no other.

    Example:
        >>> summarise([("OPEN", 0.5), ("CLOSED", 1.0), ("CLOSED", 0.0), ("CLOSED", 1.0), ("CLOSED", 1.0)])
        0.625
    """
    kinds = {kind for kind, _ in values}
    return mean([mean([value for own, value in values if own == kind]) for kind in sorted(kinds)])
