"""What the demo measures on held-out samples, apart from the scores of `exgra_adapter.evaluation`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from exgra_adapter.alignment import load_alignment
from exgra_adapter.data.collator import TEXT_PREFIX, Collator, CollatorOptions
from exgra_adapter.data.dataset import RecordDataset
from exgra_adapter.data.records import Record
from exgra_adapter.demo.results import HeldOutAlignment
from exgra_adapter.demo.scenes import TOPICS, Topic
from exgra_adapter.evaluation.files import Prediction
from exgra_adapter.evaluation.metrics import Estimate, ItemScore, Scores, bootstrap_interval, summarise_items
from exgra_adapter.models import PackedTexts, encode_packed, load_model, visual_nodes
from exgra_adapter.objectives import BatchViews, build_objective


@torch.inference_mode()
def measure_alignment(
    model_folder: Path, records: Sequence[Record], images: Path, batch_size: int, seed: int, trained: bool
) -> HeldOutAlignment:
    """Matches the graphs of held-out samples with the model in a folder.

    Args:
        model_folder: The model, and its message passing where `trained`.
        records: Samples with extended answers.
        images: Their pictures.
        batch_size: Nodes of each graph. Samples that do not fill a batch are left out: smaller graphs are easier.
        seed: Of the random message passing where it is not `trained`.
        trained: Whether the folder holds a trained message passing.

    Raises:
        ValueError: There are fewer records than one batch.
    """
    if len(records) < batch_size:
        raise ValueError(
            f"measure_alignment: records must fill at least one batch of {batch_size}; got {len(records)}. "
            "Hold out more pictures or use smaller batches."
        )
    model, processor = load_model(model_folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        objective = build_objective("barycenter", model.config.text_config.hidden_size)
    if objective is None:
        raise ValueError("measure_alignment: barycenter must be an objective; got none. Install the package again.")
    if trained:
        load_alignment(objective, model_folder)
    objective.eval()
    collate = Collator(processor, CollatorOptions(views=("answer", "extended"), layout="rows"))
    samples = RecordDataset(records, images)
    starts = range(0, len(samples) - batch_size + 1, batch_size)
    accuracy, retrieval = [], []
    for start in starts:
        batch = collate([samples[index] for index in range(start, start + batch_size)])
        metrics = objective(_views(model, batch)).metrics
        accuracy.append(float(metrics["matching_accuracy"]))
        retrieval.append(float(metrics["retrieval"]))
    return HeldOutAlignment(float(np.mean(accuracy)), float(np.mean(retrieval)), len(starts))


def score_topics(
    items: Sequence[ItemScore], topics: Mapping[str, Topic], seed: int, resamples: int
) -> dict[Topic, Estimate]:
    """Averages exact match over the open questions of each topic; topics without a question are left out.

    The presence of a lesion is asked by yes/no questions only: there these count. Other yes/no questions would blur
    what a topic's figure says, because half of them are right by guessing.
    """
    groups: dict[Topic, list[ItemScore]] = {topic: [] for topic in TOPICS}
    for item in items:
        if item.answer_type == "OPEN" or topics[item.id] == "presence":
            groups[topics[item.id]].append(item)
    return {topic: summarise_items(group, seed, resamples).exact_match for topic, group in groups.items() if group}


def majority_answers(train: Sequence[Record], test: Sequence[Record], topics: Mapping[str, Topic]) -> list[Prediction]:
    """Gives to every test question the most frequent training answer to questions of the same topic and answer type.

    This is the best that a model can do that reads the question and never looks at the picture, short of exploiting the
    wording of single yes/no questions.
    """
    answers: dict[tuple[Topic, str | None], Counter[str]] = {}
    for record in train:
        answers.setdefault((topics[record.id], record.answer_type), Counter())[record.turns[0].answer] += 1
    predictions = []
    for record in test:
        counter = answers.get((topics[record.id], record.answer_type))
        # Equal counts are settled by the alphabet, so that the result does not depend on the order of the file.
        answer = min(counter, key=lambda text: (-counter[text], text)) if counter else None
        turn = record.turns[0]
        predictions.append(Prediction(record.id, 0, turn.question, turn.answer, answer))
    return predictions


def paired_difference(first: Scores, second: Scores, seed: int, resamples: int) -> Estimate:
    """Summary score of `first` minus `second` on the same questions, with a paired bootstrap interval.

    Raises:
        ValueError: The two hold different questions, or not both open and closed ones.
    """
    if [(item.id, item.turn) for item in first.items] != [(item.id, item.turn) for item in second.items]:
        raise ValueError(
            "paired_difference: both scores must hold the same questions; got different ones. Score them again."
        )
    groups = []
    for answer_type in ("OPEN", "CLOSED"):
        pairs = zip(first.items, second.items, strict=True)
        groups.append(np.array([a.correct - b.correct for a, b in pairs if a.answer_type == answer_type]))
    if not all(len(group) for group in groups):
        raise ValueError(
            "paired_difference: scores must hold open and closed questions; got only one kind. Hold out more questions."
        )
    low, high = bootstrap_interval(groups, seed, resamples)
    return Estimate(float(np.mean([group.mean() for group in groups])), low, high, sum(len(group) for group in groups))


def _views(model: Any, batch: dict[str, torch.Tensor]) -> BatchViews:
    """The nodes of a batch."""
    packed = PackedTexts.from_tensors(batch, TEXT_PREFIX)
    if packed is None:
        raise ValueError("measure_alignment: the batch must hold texts; got none. Collate with views.")
    images = visual_nodes(model, batch["pixel_values"])
    texts = packed.means(encode_packed(model, packed), 2 * len(images))
    answers, extended = texts.split(len(images))
    return BatchViews(images, answers, extended, batch[f"{TEXT_PREFIX}groups"])
