"""Stage-2 steps of tiny models on drawn pictures, as training runs them: what is timed, and on which batches."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.utils import logging as transformers_logging

from exgra_adapter.alignment import BatchAlignment
from exgra_adapter.data.collator import Collator, CollatorOptions
from exgra_adapter.data.dataset import RecordDataset
from exgra_adapter.data.records import read_records
from exgra_adapter.demo.dataset import DemoData, write_dataset
from exgra_adapter.models import build_tiny_model
from exgra_adapter.models.prepare import freeze
from exgra_adapter.objectives import build_objective
from exgra_adapter.trainer import AlignmentTrainer

BATCHES = 4
TEXTS = ("answer", "extended")


@dataclass(frozen=True)
class StepCase:
    """One way to train.

    Attributes:
        objective: As in the settings.
        reuse: Answer nodes from the main pass.
        options: Of the objective.
    """

    objective: str
    reuse: bool = False
    options: tuple[tuple[str, Any], ...] = ()


CASES = {
    "autoregressive": StepCase("none"),
    "extended text": StepCase("extended_text"),
    "InfoNCE": StepCase("infonce"),
    "barycenter": StepCase("barycenter"),
    "barycenter, reused states": StepCase("barycenter", reuse=True),
    "pairwise": StepCase("pairwise"),
    "released": StepCase("barycenter", options=(("legacy", True),)),
}


@lru_cache
def drawn_data() -> DemoData:
    """Returns a data set of drawn pictures, made once per process."""
    transformers_logging.set_verbosity_error()
    folder = Path(tempfile.mkdtemp(prefix="training-cases-"))
    return write_dataset(
        folder, train_pictures=BATCHES * 64, test_pictures=1, questions=2, seed=0, console_progress=False
    )


class StepRunner:
    """Runs training steps of one case, the optimizer's included, on fixed batches.

    Args:
        case: What to train.
        samples: Samples per batch: nodes of the graphs.
        size: Width of the tiny model.
    """

    def __init__(self, case: StepCase, samples: int, size: int) -> None:
        data = drawn_data()
        records = read_records(data.conversations)
        model, processor = build_tiny_model(data.texts, seed=0, size=size)
        freeze(model, "stage2", processor)
        torch.manual_seed(0)
        width = model.config.text_config.hidden_size
        objective = build_objective(case.objective, width, **dict(case.options))
        texts: Any = () if objective is None else TEXTS[case.reuse :]
        options = CollatorOptions(
            views=texts,
            layout=None if objective is None else "rows",
            answer_positions=case.reuse,
            extended_conversations=case.objective == "extended_text",
            count_padding=bool(dict(case.options).get("legacy")),
        )
        self.trainer = AlignmentTrainer(
            model=model,
            args=TrainingArguments(
                output_dir=str(data.images.parent / "unused"),
                per_device_train_batch_size=samples,
                max_steps=1,
                learning_rate=1e-4,
                report_to="none",
                use_cpu=True,
                disable_tqdm=True,
                remove_unused_columns=False,
                logging_nan_inf_filter=False,
            ),
            train_dataset=RecordDataset(records, data.images),
            data_collator=Collator(processor, options),
            processing_class=processor,
            alignment=None if objective is None else BatchAlignment(objective, texts, case.reuse),
            alignment_weight=0.0 if objective is None else 1.0,
        )
        samples_of = self.trainer.train_dataset
        self.batches = [
            self.trainer.data_collator([samples_of[index] for index in range(first, first + samples)])
            for first in range(0, BATCHES * samples, samples)
        ]
        self.trainer.create_optimizer()
        self.taken = 0

    @property
    def tokens(self) -> tuple[float, float]:
        """Tokens per step that the language model reads in the main pass and in the text pass, padding included."""
        main, texts = (
            sum(batch[name].numel() for batch in self.batches if name in batch) / len(self.batches)
            for name in ("input_ids", "text_input_ids")
        )
        return main, texts

    def step(self) -> float:
        """Takes one optimizer step on the next batch and returns its loss."""
        trainer, batch = self.trainer, self.batches[self.taken % len(self.batches)]
        self.taken += 1
        with trainer.attached():
            taught = (batch["labels"][:, 1:] != -100).sum()
            loss = trainer.training_step(trainer.model, dict(batch), num_items_in_batch=taught)
            with trainer.clock.phase("optimizer"):
                trainer.optimizer.step()
                trainer.optimizer.zero_grad()
        return float(loss)
