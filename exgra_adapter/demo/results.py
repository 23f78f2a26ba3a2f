"""Settings of the demo and what it measures, as plain data: the report and the plots read nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from exgra_adapter.data.records import Record
from exgra_adapter.demo.scenes import Topic
from exgra_adapter.evaluation.files import Prediction
from exgra_adapter.evaluation.metrics import Estimate, Scores

Arm = Literal["with alignment", "without alignment"]
ARMS: tuple[Arm, ...] = get_args(Arm)

History = list[dict[str, Any]]


@dataclass(frozen=True)
class DemoConfig:
    """Sizes and learning rates of the demo. The defaults take about three minutes of two cores.

    Attributes:
        train_pictures: Pictures of the three training files.
        test_pictures: Held-out pictures.
        questions: VQA questions per picture.
        batch_size: Samples per step; in stage 2 also the nodes of each graph.
        caption_steps: Optimizer steps of stage 1 (projector only).
        instruct_steps: Optimizer steps of stage 2, for each arm.
        vqa_steps: Optimizer steps of the fine-tuning, for each arm.
        caption_rate: Peak learning rate of stage 1.
        instruct_rate: Peak learning rate of stage 2.
        vqa_rate: Peak learning rate of the fine-tuning.
        alignment_weight: Weight of the alignment loss in the arm that has it.
        logging_steps: Optimizer steps between two points of a curve.
        bootstrap_resamples: Samples behind each interval.
    """

    train_pictures: int = 500
    test_pictures: int = 120
    questions: int = 2
    batch_size: int = 16
    caption_steps: int = 30
    instruct_steps: int = 280
    vqa_steps: int = 140
    caption_rate: float = 2e-3
    instruct_rate: float = 1.5e-3
    vqa_rate: float = 1e-3
    alignment_weight: float = 1.0
    logging_steps: int = 5
    bootstrap_resamples: int = 2000


@dataclass(frozen=True)
class HeldOutAlignment:
    """How well the graphs of unseen samples match, averaged over batches; each figure lies in [0, 1].

    Attributes:
        matching_accuracy: Share of nodes that the solver matches with their own barycenter node.
        retrieval: Top-1 retrieval between two views, before message passing, averaged over the ordered pairs of views.
        batches: The number of batches.
    """

    matching_accuracy: float
    retrieval: float
    batches: int


@dataclass(frozen=True)
class ArmResult:
    """What one arm has shown.

    Attributes:
        instruct_history: The logged steps of stage 2.
        vqa_history: The logged steps of the fine-tuning.
        after: The graphs of held-out samples after stage 2.
        scores: The scores on the held-out questions.
        by_topic: Exact match on each topic: its open questions, and all on whether there is a lesion.
        predictions: The answers to the held-out questions.
    """

    instruct_history: History
    vqa_history: History
    after: HeldOutAlignment
    scores: Scores
    by_topic: Mapping[Topic, Estimate]
    predictions: tuple[Prediction, ...]


@dataclass(frozen=True)
class DemoResult:
    """Everything the report shows.

    Attributes:
        config: The settings.
        seed: The seed of everything random.
        threads: Threads of the CPU that torch used.
        parameters: Number of the model's parameters.
        caption_history: The logged steps of stage 1, which both arms share.
        before: The graphs of held-out samples before stage 2.
        arms: The two arms.
        majority: Scores of always giving the most frequent training answer to the same kind of question.
        majority_by_topic: The same per topic, exact match.
        difference: Summary score with alignment minus without, with a paired bootstrap interval.
        topics: The topic of each held-out question by record id.
        test_records: The held-out questions.
        seconds: Wall-clock seconds of each phase, in order.
    """

    config: DemoConfig
    seed: int
    threads: int
    parameters: int
    caption_history: History
    before: HeldOutAlignment
    arms: Mapping[Arm, ArmResult]
    majority: Scores
    majority_by_topic: Mapping[Topic, Estimate]
    difference: Estimate
    topics: Mapping[str, Topic]
    test_records: tuple[Record, ...]
    seconds: Mapping[str, float]
