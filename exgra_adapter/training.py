"""One stage of training, from a data file to a model folder."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PrinterCallback,
    ProgressCallback,
    TrainingArguments,
    set_seed,
)

import graphmatch as gm
from exgra_adapter.alignment import ALIGNMENT_FILE, load_alignment
from exgra_adapter.atomic import write_json, write_json_lines
from exgra_adapter.config import TrainingConfig
from exgra_adapter.data.collator import Collator, RecordDataset, check_images
from exgra_adapter.data.extender import TemplateExtender, extend_records
from exgra_adapter.data.records import Record, read_records
from exgra_adapter.models.load import load_model
from exgra_adapter.models.tiny import build_tiny_model
from exgra_adapter.trainer import AlignmentTrainer

__all__ = ["AlignmentTrainer", "TrainingSummary", "train"]

logger = logging.getLogger(__name__)

_SETTINGS, _HISTORY, _SUMMARY, _CHECKPOINTS = "settings.json", "history.jsonl", "summary.json", "checkpoints"
# Settings that say how a run is watched and stored, not what it computes: they may differ when a run is resumed.
_FREE_TO_CHANGE = {"output", "workers", "logging_steps", "save_steps", "resume", "overwrite"}


@dataclass(frozen=True)
class TrainingSummary:
    """What a training run leaves behind.

    Attributes:
        output: Folder that `LlavaForConditionalGeneration.from_pretrained` and `LlavaProcessor.from_pretrained` load,
            with `alignment.safetensors` where the alignment was on, `settings.json`, `history.jsonl`, `summary.json`.
        history: One dict per logged step: `step`, `epoch`, `loss`, `ar_loss`, `gradient_norm`, `learning_rate`, and
            with alignment `alignment_loss`, `matching_accuracy`, `retrieval`, `zero_gradient_share`.
        samples: Samples trained on.
        skipped: Samples left out because of a bad image.
        steps: Optimizer steps in total.
        seconds: Duration of this call; a run that was resumed took longer.
    """

    output: Path
    history: list[dict[str, float]]
    samples: int
    skipped: int
    steps: int
    seconds: float


def train(config: TrainingConfig, console_progress: bool = True) -> TrainingSummary:
    """Trains one stage and writes the model folder.

    Everything is checked before the first step: data, images, extended answers, the output folder. Checkpoints appear
    in `output/checkpoints` while the run lasts; with `resume`, a run that was killed continues from the last complete
    one with the same result as if it had never stopped, and a run that had finished is only read. Seeds Python, NumPy
    and torch.

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
    finished = _check_output(config)
    if finished is not None:
        logger.info("%s holds the finished run already", config.output)
        return finished
    checkpoint = None if config.overwrite else _last_checkpoint(config.output / _CHECKPOINTS)
    arguments = _training_arguments(config)
    records, skipped = _prepare_records(config, console_progress)
    set_seed(config.seed)
    model, processor = _prepare_model(config, records, checkpoint)
    _freeze(model, config.stage)
    alignment = _prepare_alignment(config, model)
    _claim_output(config)
    trainer = AlignmentTrainer(
        model=model,
        args=arguments,
        train_dataset=RecordDataset(records, config.images),
        data_collator=Collator(processor, config.max_length, alignment is not None, average_padding=config.legacy),
        processing_class=processor,
        alignment=alignment,
        alignment_weight=config.alignment_weight or 0.0,
    )
    trainer.remove_callback(PrinterCallback)  # it prints where no bar is wanted
    progress = _Progress()
    if console_progress:
        trainer.add_callback(progress)
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    finally:
        progress.close()
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    summary = TrainingSummary(
        config.output, history, len(records), skipped, trainer.state.global_step, round(time.monotonic() - started, 3)
    )
    _write_result(trainer, summary)
    return summary


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


def _check_output(config: TrainingConfig) -> TrainingSummary | None:
    """Makes the output folder or refuses one that must not be used; returns the run that is finished there already."""
    output = config.output
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=output, prefix=".writable"):
            pass
    except OSError as error:
        raise ValueError(
            f"train: output must be a folder that can be written to; got {output} ({error.strerror}). "
            "Choose another one."
        ) from None
    settings = output / _SETTINGS
    if config.overwrite:
        return None
    if config.resume and settings.is_file():
        _require_same_settings(config, settings)
        return _read_summary(output) if (output / _SUMMARY).is_file() else None
    if any(output.iterdir()):
        raise ValueError(
            f"train: output must be an empty folder; got {output} with files in it. "
            "Continue an interrupted run with --resume, start anew with --overwrite, or choose another folder."
        )
    return None


def _claim_output(config: TrainingConfig) -> None:
    """Removes an earlier run, if that is wanted, and writes the settings.

    Called when data and model are known to be right: a run that fails on them leaves the folder as it was.
    """
    if config.overwrite:
        for name in (_SUMMARY, _HISTORY, ALIGNMENT_FILE):
            (config.output / name).unlink(missing_ok=True)
        shutil.rmtree(config.output / _CHECKPOINTS, ignore_errors=True)
    write_json(config.output / _SETTINGS, config.to_json())


def _require_same_settings(config: TrainingConfig, path: Path) -> None:
    earlier, now = json.loads(path.read_text(encoding="utf-8")), config.to_json()
    changed = [name for name in now if name not in _FREE_TO_CHANGE and earlier.get(name) != now[name]]
    if changed:
        name = changed[0]
        raise ValueError(
            f"train: {name} must be the same when a run is resumed ({earlier.get(name)!r}); got {now[name]!r}. "
            "Give the old settings, or start anew with --overwrite."
        )


def _read_summary(output: Path) -> TrainingSummary:
    values = json.loads((output / _SUMMARY).read_text(encoding="utf-8"))
    lines = (output / _HISTORY).read_text(encoding="utf-8").splitlines()
    return TrainingSummary(output=output, history=[json.loads(line) for line in lines], **values)


def _last_checkpoint(folder: Path) -> Path | None:
    """Finds the last complete checkpoint; the trainer state is written last, so a folder without it is half written."""
    complete: list[tuple[int, Path]] = []
    for path in folder.glob("checkpoint-*"):
        try:
            state = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            logger.warning("%s is incomplete and is removed", path)
            shutil.rmtree(path)
            continue
        complete.append((int(state["global_step"]), path))
    return max(complete)[1] if complete else None


def _prepare_records(config: TrainingConfig, progress: bool) -> tuple[list[Record], int]:
    records = read_records(config.data, config.allow_duplicate_ids)
    if config.extender == "template":
        records = extend_records(records, TemplateExtender())
    if config.alignment_weight:
        bare = next((record for record in records if not all(turn.extended_answer for turn in record.turns)), None)
        if bare is not None:
            raise ValueError(
                f"train: with the alignment on, every sample must have extended answers; got none for id {bare.id!r} "
                f"in {config.data}. Add conversations_long, use --extender template, or --alignment-weight 0."
            )
    if not config.images.is_dir():
        raise ValueError(f"train: images must be an existing folder; got {config.images}. Check the path.")
    records, skipped, reason = check_images(records, config.images, config.bad_images == "skip", progress)
    if skipped:
        logger.warning("%d samples are left out because of bad images; the first: %s", skipped, reason)
    if not records:
        raise ValueError(f"train: data must hold at least one usable sample; got none in {config.data}. Add samples.")
    return records, skipped


def _prepare_model(
    config: TrainingConfig, records: Sequence[Record], checkpoint: Path | None
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    if checkpoint is not None:
        return load_model(checkpoint)
    if config.model != "tiny":
        return load_model(Path(config.model))
    turns = [turn for record in records for turn in record.turns]
    texts = (text for turn in turns for text in (turn.question, turn.answer, turn.extended_answer) if text)
    return build_tiny_model(texts, config.seed)


def _prepare_alignment(config: TrainingConfig, model: LlavaForConditionalGeneration) -> gm.BarycenterAlignment | None:
    if not config.alignment_weight:
        return None
    alignment = gm.BarycenterAlignment(
        dim=model.config.text_config.hidden_size,
        k=config.neighbours,
        barycenter=config.barycenter,
        legacy=config.legacy,
    )
    if config.model != "tiny" and (Path(config.model) / ALIGNMENT_FILE).is_file():
        load_alignment(alignment, Path(config.model))
    return alignment


def _freeze(model: LlavaForConditionalGeneration, stage: str) -> None:
    """Vision is frozen always; stage 1 trains the projector alone, later stages the language model too."""
    model.requires_grad_(stage != "align")
    model.model.vision_tower.requires_grad_(False)
    model.model.multi_modal_projector.requires_grad_(True)


def _training_arguments(config: TrainingConfig) -> TrainingArguments:
    if config.precision == "fp16" and not torch.cuda.is_available():
        raise ValueError("train: precision fp16 must run on a GPU; got a machine without one. Use bf16 or fp32.")
    arguments = TrainingArguments(
        output_dir=str(config.output / _CHECKPOINTS),
        num_train_epochs=config.epochs or 1.0,
        max_steps=config.max_steps or -1,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation,
        learning_rate=config.learning_rate or 0.0,
        lr_scheduler_type="cosine",
        warmup_steps=config.warmup_ratio,
        weight_decay=0.0,
        optim="adamw_torch",
        bf16=config.precision == "bf16",
        fp16=config.precision == "fp16",
        seed=config.seed,
        data_seed=config.seed,
        logging_steps=config.logging_steps,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=config.save_steps,
        save_total_limit=2,
        dataloader_num_workers=config.workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        use_cpu=not torch.cuda.is_available(),
        disable_tqdm=True,
        report_to="none",
    )
    if arguments.n_gpu > 1:
        raise ValueError(
            f"train: one process must see one GPU; got {arguments.n_gpu}. "
            "Start it with torchrun, or set CUDA_VISIBLE_DEVICES=0."
        )
    return arguments


def _write_result(trainer: AlignmentTrainer, summary: TrainingSummary) -> None:
    """Moves complete files into the output folder; the summary comes last and marks the run as finished."""
    output = summary.output
    with tempfile.TemporaryDirectory(dir=output, prefix=".partial") as folder:
        trainer.save_model(folder)
        (Path(folder) / "training_args.bin").unlink()  # a pickle that repeats settings.json
        for path in sorted(Path(folder).iterdir()):
            path.replace(output / path.name)
    write_json_lines(output / _HISTORY, summary.history)
    values = asdict(summary)
    write_json(output / _SUMMARY, {name: values[name] for name in ("samples", "skipped", "steps", "seconds")})
    shutil.rmtree(output / _CHECKPOINTS, ignore_errors=True)
