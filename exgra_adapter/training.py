"""One stage of training, from a data file to a model folder."""

from __future__ import annotations

import dataclasses
import functools
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PrinterCallback, ProcessorMixin, ProgressCallback, set_seed

from exgra_adapter.alignment import ALIGNMENT_FILE, BatchAlignment, load_alignment
from exgra_adapter.arguments import training_arguments
from exgra_adapter.config import TINY, TrainingConfig
from exgra_adapter.data.budget import compute_factor
from exgra_adapter.data.check import check_images
from exgra_adapter.data.collator import Collator, CollatorOptions
from exgra_adapter.data.dataset import RecordDataset, StreamingRecordDataset
from exgra_adapter.data.extender import TemplateExtender, extend_records
from exgra_adapter.data.files import read_records, sample_fraction
from exgra_adapter.data.records import Record
from exgra_adapter.data.stores import ImageStore, open_image_store
from exgra_adapter.distributed import is_main_process, on_main_process
from exgra_adapter.facts import describe_run
from exgra_adapter.models.llava import add_dense_connector, set_projector
from exgra_adapter.models.load import ADAPTER_CONFIG, load_model
from exgra_adapter.models.nodes import text_layout
from exgra_adapter.models.prepare import add_adapters, freeze
from exgra_adapter.models.tiny import build_tiny_model
from exgra_adapter.objectives import build_objective, objective_options
from exgra_adapter.reporting.card import write_model_card
from exgra_adapter.reporting.report import write_training_report
from exgra_adapter.runs import (
    CHECKPOINTS,
    TrainingSummary,
    check_output,
    claim_output,
    last_checkpoint,
    save_model,
    write_result,
)
from exgra_adapter.trainer import AlignmentTrainer

__all__ = ["AlignmentTrainer", "TrainingSummary", "train"]

logger = logging.getLogger(__name__)

_KEPT = ("conversion.json", "tokenizer.model")  # what the way back to the original format wants
_BASE = "base"  # where the model lies that adapters belong to, unless it has a folder of its own


def train(config: TrainingConfig, console_progress: bool = True) -> TrainingSummary:
    """Trains one stage and writes the model folder.

    Everything is checked before the first step: data, images, extended answers, the output folder. Checkpoints appear
    in `output/checkpoints` while the run lasts; with `resume`, a run that was killed continues from the last complete
    one with the same result as if it had never stopped, and a run that had finished is only read. Seeds Python, NumPy
    and torch. Under torchrun every process calls this with the same settings.

    Args:
        config: The settings.
        console_progress: Show progress bars on standard error.

    Returns:
        The summary.

    Raises:
        ValueError: Data, images, model or settings are wrong, or the output folder cannot be used; one clear sentence.
        FloatingPointError: The loss became NaN or infinite.
    """
    started = time.monotonic()
    config = config.resolved()
    arguments = training_arguments(config, config.output / CHECKPOINTS)
    _ = arguments.device  # joins the other processes
    console_progress = console_progress and is_main_process()
    finished = check_output(config)
    if finished is not None:
        logger.info("%s holds the finished run already", config.output)
        return finished
    checkpoint = last_checkpoint(config)
    data = _prepare_data(config, console_progress)
    set_seed(config.seed)
    model, processor = _prepare_model(config, data.records)
    alignment = _prepare_alignment(config, model)
    collator = Collator(processor, _collator_options(config, model, alignment), config.prompt)
    if config.match_compute:
        arguments.num_train_epochs *= compute_factor(data.records, collator, config.objective == "extended_text")
    freeze(model, config.stage, processor)
    claim_output(config)
    if config.lora_rank:
        model = _adapted(config, model, processor)
    trainer = AlignmentTrainer(
        model=model,
        args=arguments,
        train_dataset=data.dataset,
        data_collator=collator,
        processing_class=processor,
        alignment=alignment,
        alignment_weight=config.alignment_weight if alignment is not None else 0.0,
    )
    trainer.remove_callback(PrinterCallback)  # it prints where no bar is wanted
    _add_tensorboard(trainer, config)
    progress = _Progress()
    if console_progress:
        trainer.add_callback(progress)
    with trainer.attached():
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        finally:
            progress.close()
        history = [entry for entry in trainer.state.log_history if "loss" in entry]
        summary = TrainingSummary(
            config.output,
            history,
            len(data.records) or trainer.get_total_train_batch_size(arguments) * trainer.state.global_step,
            data.skipped + trainer.skipped(),
            trainer.state.global_step,
            round(time.monotonic() - started, 3),
        )
        describe = functools.partial(_describe, config=config, trainer=trainer, summary=summary)
        write_result(summary, lambda folder: trainer.save_model(str(folder)), describe)
    return summary


@dataclass(frozen=True)
class _Data:
    """Samples to train on; `records` is empty where they are streamed."""

    dataset: RecordDataset | StreamingRecordDataset
    records: list[Record]
    skipped: int


class _Progress(ProgressCallback):
    """The Trainer's bar, with the last values beside it instead of lines above it."""

    _SHOWN = ("loss", "ar_loss", "alignment_loss", "retrieval")

    def close(self) -> None:
        """Ends the bar where training did not: it would draw itself once more, over the message that says why."""
        if self.training_bar is not None:
            self.training_bar.close()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if self.training_bar is not None and logs:
            self.training_bar.set_postfix({name: f"{logs[name]:.3f}" for name in self._SHOWN if name in logs})


def _prepare_data(config: TrainingConfig, progress: bool) -> _Data:
    if config.images is not None and not config.images.exists():
        raise ValueError(f"train: images must be an existing folder or .tar; got {config.images}. Check the path.")
    if config.streaming:
        stream = StreamingRecordDataset(
            config.data,
            None if config.images is None else open_image_store(config.images, config.data),
            config.bad_samples,
            config.shuffle_buffer,
            config.seed,
            transform=_extended if config.extender == "template" else None,
        )
        return _Data(stream, [], 0)
    records = read_records(config.data, config.allow_duplicate_ids)
    if config.data_fraction < 1:
        records = sample_fraction(records, config.data_fraction, config.seed)
    if config.extender == "template":
        records = extend_records(records, TemplateExtender())
    if config.needs_extended_answers:
        bare = next((record for record in records if not all(turn.extended_answer for turn in record.turns)), None)
        if bare is not None:
            raise ValueError(
                f"train: objective {config.objective} must have extended answers in every sample; got none for id "
                f"{bare.id!r} in {config.data}. Add conversations_long, set extender=template, objective=none or "
                "texts=answer."
            )
    store = open_image_store(config.images, config.data)
    kept, reason = on_main_process(lambda: _usable(records, store, config, progress))
    skipped = len(records) - len(kept)
    if skipped:
        logger.warning("%d samples are left out because of bad images; the first: %s", skipped, reason)
    if not kept:
        raise ValueError(f"train: data must hold at least one usable sample; got none in {config.data}. Add samples.")
    records = [records[place] for place in kept]
    return _Data(RecordDataset(records, store, config.bad_samples), records, skipped)


def _usable(
    records: Sequence[Record], store: ImageStore, config: TrainingConfig, progress: bool
) -> tuple[list[int], str | None]:
    """Returns the places of the records whose images can be read, and why the first other one cannot."""
    kept, _, reason = check_images(records, store, config.bad_samples == "skip", progress)
    good = set(map(id, kept))
    return [place for place, record in enumerate(records) if id(record) in good], reason


def _extended(record: Record) -> Record:
    return extend_records([record], TemplateExtender())[0]


def _prepare_model(config: TrainingConfig, records: Sequence[Record]) -> tuple[PreTrainedModel, ProcessorMixin]:
    if config.model == TINY:
        turns = [turn for record in records for turn in record.turns]
        texts = (text for turn in turns for text in (turn.question, turn.answer, turn.extended_answer) if text)
        model, processor = build_tiny_model(texts, config.seed, size=config.tiny_size)
    else:
        if config.quantization != "none" and (Path(config.model) / ADAPTER_CONFIG).is_file():
            raise ValueError(
                f"train: model must be a whole model with quantization={config.quantization}; got {config.model} with "
                "adapters. Merge them first: exgra-med export."
            )
        on_gpu = torch.cuda.is_available()
        model, processor = load_model(
            Path(config.model),
            dtype=torch.bfloat16 if config.precision == "bf16" and on_gpu and config.lora_rank else torch.float32,
            attention=None if config.attention == "default" else config.attention,
            quantization=None if config.quantization == "none" else config.quantization,
        )
    if config.dense_connector != "keep":
        model, processor = add_dense_connector(model, processor, config.dense_connector)
    if config.projector != "keep":
        set_projector(model, config.projector)
    return model, processor


def _adapted(config: TrainingConfig, model: PreTrainedModel, processor: ProcessorMixin) -> Any:
    """Puts adapters on a model, which remember the folder of the model that they belong to."""
    # A model that was put together from adapters is nowhere as a whole.
    merged = config.model == TINY or (Path(config.model) / ADAPTER_CONFIG).is_file()
    if merged:
        on_main_process(lambda: save_model(model, processor, config.output / _BASE))
    adapted: Any = add_adapters(
        model,
        config.lora_rank,
        config.lora_alpha,
        config.lora_dropout,
        config.quantization != "none",
        config.gradient_checkpointing,
    )
    base = _BASE if merged else str(Path(config.model).resolve())
    adapted.peft_config["default"].base_model_name_or_path = base
    return adapted


def _collator_options(
    config: TrainingConfig, model: PreTrainedModel, alignment: BatchAlignment | None
) -> CollatorOptions:
    return CollatorOptions(
        max_length=config.max_length,
        views=() if alignment is None else alignment.texts,
        layout=None if alignment is None else text_layout(model),
        answer_positions=alignment is not None and alignment.reuse_answer_states,
        extended_conversations=config.objective == "extended_text",
        count_padding=config.legacy,
    )


def _prepare_alignment(config: TrainingConfig, model: PreTrainedModel) -> BatchAlignment | None:
    if not config.is_aligned or config.objective is None:
        return None
    wanted: dict[str, Any] = {
        "neighbours": config.neighbours,
        "barycenter": config.barycenter,
        "gradient": config.gradient,
        "relaxation": config.relaxation,
        "margin": config.margin,
        "legacy": config.legacy,
    }
    # Defaults are left to the objective: a recipe of its own, such as the released one, has others.
    defaults = {field.name: field.default for field in dataclasses.fields(TrainingConfig)}
    chosen = {name: value for name, value in wanted.items() if value != defaults.get(name)}
    known = objective_options(config.objective)
    if config.texts != "both":
        choice: dict[str, Any] = {"text": config.texts} if "text" in known else {"views": ("image", config.texts)}
        chosen |= choice
    ignored = sorted(chosen.keys() - known)
    if ignored:
        raise ValueError(
            f"train: {ignored[0]} must be left out with objective={config.objective}, which does not know it; got "
            f"{chosen[ignored[0]]!r}. Leave it out, or choose another objective."
        )
    objective = build_objective(config.objective, model.config.get_text_config().hidden_size, **chosen)
    if objective is None:
        return None
    if config.model != TINY and (Path(config.model) / ALIGNMENT_FILE).is_file():
        load_alignment(objective, Path(config.model))
    reused = {"answer"} if config.reuse_answer_states else set()
    texts: Any = tuple(sorted(objective.needs & {"answer", "extended"} - reused))
    return BatchAlignment(objective, texts, config.reuse_answer_states, config.graph_scope, config.seed)


def _add_tensorboard(trainer: AlignmentTrainer, config: TrainingConfig) -> None:
    """Puts TensorBoard's files beside the model; by default they would lie among the checkpoints, which go."""
    if "tensorboard" not in [name.strip() for name in config.report_to.split(",")]:
        return
    from transformers.integrations import TensorBoardCallback

    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ValueError(
            "train: the package tensorboard must be installed for report_to=tensorboard; got none. "
            "Install it with `pip install tensorboard`."
        ) from None
    if is_main_process():
        trainer.add_callback(TensorBoardCallback(SummaryWriter(str(config.output / "logs"))))


def _describe(folder: Path, config: TrainingConfig, trainer: AlignmentTrainer, summary: TrainingSummary) -> None:
    settings = config.to_json()
    facts = describe_run(trainer.model, config, summary, trainer.data_collator.prompt)
    write_training_report(folder, settings, summary.history, facts)
    write_model_card(folder, settings, facts, summary.history)
    for name in _KEPT:
        if config.model != TINY and (Path(config.model) / name).is_file():
            shutil.copyfile(Path(config.model) / name, folder / name)
