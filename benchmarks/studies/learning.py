"""Trains and measures the demo's tiny model: what `benchmarks.objectives` and the studies of learning share."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from benchmarks.studies.corruption import scene_of
from exgra_adapter.alignment import ALIGNMENT_FILE, load_alignment
from exgra_adapter.config import Stage, TrainingConfig
from exgra_adapter.data.collator import TEXT_PREFIX, Collator, CollatorOptions
from exgra_adapter.data.dataset import RecordDataset
from exgra_adapter.data.records import Record, read_records, write_records
from exgra_adapter.demo.dataset import DemoData, write_dataset
from exgra_adapter.demo.measure import majority_answers
from exgra_adapter.demo.results import DemoConfig
from exgra_adapter.demo.scenes import Organ
from exgra_adapter.evaluation.generate import generate_answers
from exgra_adapter.evaluation.metrics import Estimate, Scores, score
from exgra_adapter.models import PackedTexts, build_tiny_model, encode_packed, load_model, visual_nodes
from exgra_adapter.objectives import BatchViews, build_objective
from exgra_adapter.objectives.base import VIEWS, view_retrieval
from exgra_adapter.runs import save_model
from exgra_adapter.training import TrainingSummary, train

_LONGEST_ANSWER = 12
_OTHER_SEEDS = 1_000_000
_GRAPH_OPTIONS = ("neighbours", "barycenter")

Options = Mapping[str, Any]
History = list[dict[str, float]]


@dataclass(frozen=True)
class Pretraining:
    """What a model knows before: a pretrained one talks and sees, but has met a part of the domain only.

    Attributes:
        pictures: Drawn for it, of all organs; none of them occurs again.
        steps: Optimizer steps without alignment on the conversations about them.
        rate: Peak learning rate.
        organs: Only pictures of these are used.
    """

    pictures: int
    steps: int
    rate: float = 1.5e-3
    organs: tuple[Organ, ...] = ("brain", "lungs")


@dataclass(frozen=True)
class SeedRun:
    """What all arms of one seed share: sizes, data, the untrained model and stage 1, in a folder."""

    demo: DemoConfig
    seed: int
    folder: Path
    data: DemoData

    @classmethod
    def prepare(
        cls, demo: DemoConfig, seed: int, folder: Path, width: int = 1, pretraining: Pretraining | None = None
    ) -> SeedRun:
        """Draws the data and trains stage 1 of a model `width` times as wide as the demo's, pretrained or not."""
        data = write_dataset(
            folder / "data", demo.train_pictures, demo.test_pictures, demo.questions, seed, console_progress=False
        )
        save_model(*build_tiny_model(data.texts, seed, size=width), folder / "tiny")
        run = cls(demo, seed, folder, data)
        if pretraining is not None:
            run._pretrain(pretraining)
        start = "tiny" if pretraining is None else "pretrained"
        run.stage("stage1", data.captions, start, "stage1", demo.caption_steps, demo.caption_rate)
        return run

    def _pretrain(self, pretraining: Pretraining) -> None:
        folder = self.folder / "general"
        general = write_dataset(folder, pretraining.pictures, 1, 1, _OTHER_SEEDS + self.seed, console_progress=False)
        known = [each for each in read_records(general.conversations) if scene_of(each).organ in pretraining.organs]
        write_records(folder / "known.json", known)
        run = replace(self, data=general)
        run.stage("stage2", folder / "known.json", "tiny", "pretrained", pretraining.steps, pretraining.rate)

    def stage(
        self, stage: Stage, records: Path, model: str, name: str, steps: int, rate: float, **options: Any
    ) -> TrainingSummary:
        """Trains one stage from `folder / model` to `folder / name`."""
        demo = self.demo
        per_epoch = len(read_records(records)) / demo.batch_size
        # Compute is matched by the number of epochs.
        length = {"epochs": steps / per_epoch} if options.get("match_compute") else {"max_steps": steps}
        values: dict[str, Any] = {
            "images": self.data.images,
            "batch_size": demo.batch_size,
            "learning_rate": rate,
            "seed": self.seed,
            "logging_steps": demo.logging_steps,
            "save_steps": 10**6,
            "overwrite": True,
            "objective": "none",
            **length,
            **options,
        }
        config = TrainingConfig(stage, records, output=self.folder / name, model=str(self.folder / model), **values)
        # Reports that nobody reads would take a tenth of a small arm's time.
        with patch("exgra_adapter.training.write_training_report"):
            return train(config, console_progress=False)

    def instruct(self, name: str, options: Options, records: Iterable[Record] | None = None) -> TrainingSummary:
        """Trains stage 2 on the conversations, or on `records` instead, as many samples whatever the batch."""
        demo, path = self.demo, self.data.conversations
        if records is not None:
            path = self.folder / f"{name}.json"
            write_records(path, records)
        per_step = options.get("batch_size", demo.batch_size) * options.get("gradient_accumulation", 1)
        steps = max(1, demo.instruct_steps * demo.batch_size // per_step)
        return self.stage("stage2", path, "stage1", name, steps, demo.instruct_rate, **options)

    def guess(self) -> float | None:
        """The score of the most frequent training answer to the same kind of question, no look at the picture."""
        train_records, test_records = read_records(self.data.vqa_train), read_records(self.data.vqa_test)
        guesses = majority_answers(train_records, test_records, self.data.topics)
        return _value(score(test_records, guesses, seed=self.seed, resamples=1).summary)

    def answer(self, model: str, name: str) -> Scores:
        """Fine-tunes a model on the questions and scores its answers to the held-out ones."""
        demo, data = self.demo, self.data
        self.stage("vqa", data.vqa_train, model, name, demo.vqa_steps, demo.vqa_rate)
        records = read_records(data.vqa_test)
        network, processor = load_model(self.folder / name)
        network = network.to(_device())
        predictions = generate_answers(network, processor, records, data.images, 32, _LONGEST_ANSWER, False)
        return score(records, predictions, seed=self.seed, resamples=200)


@torch.inference_mode()
def held_out_views(folder: Path, records: list[Record], images: Path) -> BatchViews:
    """Returns the nodes of all held-out samples, texts read alone, as one batch."""
    model, processor = load_model(folder)
    model = model.to(_device())
    collate = Collator(processor, CollatorOptions(views=("answer", "extended"), layout="rows"))
    samples = RecordDataset(records, images)
    batch = {name: value.to(model.device) for name, value in collate([samples[i] for i in range(len(samples))]).items()}
    packed = PackedTexts.from_tensors(batch, TEXT_PREFIX)
    if packed is None:
        raise ValueError("held_out_views: the batch must hold texts; got none. Collate with views.")
    nodes = visual_nodes(model, batch["pixel_values"])
    answers, extended = packed.means(encode_packed(model, packed), 2 * len(nodes)).split(len(nodes))
    return BatchViews(nodes, answers, extended, batch[f"{TEXT_PREFIX}groups"])


def graphs_of(views: BatchViews, size: int) -> list[BatchViews]:
    """Cuts samples into graphs of `size`; what does not fill one is left out, for smaller graphs are easier."""
    starts = range(0, len(views.image) - size + 1, size)
    groups = views.groups
    return [
        BatchViews(
            *(views.required(name)[start : start + size] for name in VIEWS),
            groups=None if groups is None else groups[:, start : start + size],
        )
        for start in starts
    ]


def retrieval(graphs: list[BatchViews], with_image: bool = False) -> float:
    """Top-1 retrieval between views, mean over ordered pairs of views and graphs; or of the pairs with the image."""
    found = []
    for graph in graphs:
        pairs: list[tuple[str, ...]] = [("image", "answer"), ("image", "extended")] if with_image else [VIEWS]
        found += [_retrieval(graph, names) for names in pairs]
    return float(np.mean(found))


def _retrieval(graph: BatchViews, names: tuple[str, ...]) -> float:
    nodes: dict[str, Tensor] = {name: graph.required(name) for name in names}
    return float(view_retrieval(nodes, {name: graph.group_row(name) for name in names}))


@torch.inference_mode()
def matching_accuracy(graphs: list[BatchViews], folder: Path | None, options: Options) -> float:
    """Share of nodes that the solver matches with their own barycenter node, mean over graphs.

    Args:
        graphs: The graphs.
        folder: Holds the trained message passing; None compares the nodes as they are.
        options: Those of the barycenter's objective that say how graphs are made; others are ignored.
    """
    own = {name: options[name] for name in _GRAPH_OPTIONS if name in options}
    width = graphs[0].image.shape[1]
    objective = build_objective("barycenter", width, message_passing=folder is not None, **own)
    if objective is None:
        raise ValueError("matching_accuracy: barycenter must be an objective; got none. Install the package again.")
    if folder is not None:
        load_alignment(objective, folder)
    objective = objective.eval().to(graphs[0].image.device)
    return float(np.mean([float(objective(graph).metrics["matching_accuracy"]) for graph in graphs]))


def measure_graphs(folder: Path, records: list[Record], images: Path, size: int, options: Options) -> dict[str, Any]:
    """Measures the held-out graphs of a model; all arms by one yardstick, and by what each was trained with.

    Returns:
        `retrieval` and `image_retrieval` in graphs of `size`; there `plain_matching`, leave-one-out with 5 neighbours
        of the nodes as they are; `matching`, the same behind the trained message passing; `own_matching` with the
        neighbours, the barycenter and the graph's size of the training. The last two are None without message passing.
    """
    views = held_out_views(folder, records, images)
    graphs = graphs_of(views, size)
    trained = (folder / ALIGNMENT_FILE).is_file() and options["objective"] == "barycenter" and not options.get("legacy")
    own_graphs = graphs_of(views, options.get("batch_size", size))
    return {
        "retrieval": retrieval(graphs),
        "image_retrieval": retrieval(graphs, with_image=True),
        "plain_matching": matching_accuracy(graphs, None, {}),
        "matching": matching_accuracy(graphs, folder, {}) if trained else None,
        "own_matching": matching_accuracy(own_graphs, folder, options) if trained else None,
    }


def measure_training(history: History) -> dict[str, float | None]:
    """Averages what the history says: the second half of what is learned, and all steps without a gradient."""
    last = history[len(history) // 2 :]
    return {
        "trained_retrieval": mean_of(last, "retrieval"),
        "trained_matching": mean_of(last, "matching_accuracy"),
        "zero_gradient_share": mean_of(history, "zero_gradient_share"),
    }


def run_arm(run: SeedRun, name: str, options: Options, records: Iterable[Record] | None = None) -> dict[str, Any]:
    """Trains stage 2, measures its graphs, fine-tunes and scores; with the seconds that all of it took."""
    started, cpu = time.monotonic(), time.process_time()
    summary = run.instruct(name, options, records)
    test = read_records(run.data.conversations_test)
    found = measure_graphs(run.folder / name, test, run.data.images, run.demo.batch_size, options)
    scores = run.answer(name, f"{name}-vqa")
    return {
        **found,
        **measure_training(summary.history),
        "answers": _value(scores.summary),
        "open_recall": _value(scores.open_recall),
        "closed_accuracy": _value(scores.closed_accuracy),
        "exact_match": scores.exact_match.value,
        "guessing": run.guess(),
        "steps": summary.steps,
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "wall_seconds": round(time.monotonic() - started, 2),
    }


def mean_of(history: History, name: str) -> float | None:
    """The mean of one logged quantity; None where it was never logged."""
    values = [entry[name] for entry in history if name in entry]
    return float(np.mean(values)) if values else None


def sizes_of(demo: DemoConfig) -> dict[str, Any]:
    """The sizes that decide what an arm learns."""
    unused = {"alignment_weight", "bootstrap_resamples"}
    return {name: value for name, value in asdict(demo).items() if name not in unused}


def _value(estimate: Estimate | None) -> float | None:
    return None if estimate is None else estimate.value


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
