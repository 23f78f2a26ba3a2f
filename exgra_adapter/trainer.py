"""A Hugging Face Trainer with the alignment loss added."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer

from exgra_adapter.alignment import BatchAlignment, load_alignment, save_alignment
from exgra_adapter.clock import PhaseClock
from exgra_adapter.data.collator import TEXT_PREFIX
from exgra_adapter.distributed import prepare_sharding, unsharded_class
from exgra_adapter.models.load import without_weight_bars
from exgra_adapter.observer import StepObserver
from exgra_adapter.weight_files import writing_weights

_ATTRIBUTE = "alignment"
_PREFIX = f"{_ATTRIBUTE}."


class AlignmentTrainer(Trainer):
    """Trains a model that reads images and text on its autoregressive loss plus a weight times an alignment objective.

    The model stays what it is, a class of transformers or a PEFT model around one, so it generates at any time. While
    it trains, the objective is a submodule of it and its loss is added by hooks on its forward pass: optimizer,
    gradient clipping, DDP, FSDP and DeepSpeed then treat both like every other part of the model. Checkpoints keep the
    objective's parameters apart, in `alignment.safetensors`.

    Both losses are means over an optimizer step: splitting a step by gradient accumulation, scaling the loss for fp16,
    or more processes change the weight of neither. Besides the Trainer's own values, the log holds `ar_loss`,
    `alignment_loss` and the objective's metrics, averaged over the steps since the last log and over processes,
    `zero_gradient_share`, gradient norms of the parts (`gradient_norm_*`), seconds per step and phase
    (`seconds_*`), and how many samples have been left out so far, where there are any (`skipped`).

    Args:
        alignment: The objective with its way to the batch's nodes, or None for the autoregressive loss alone.
        alignment_weight: Its weight; 0 or more.
        **trainer_arguments: The Trainer's own. `data_collator` is a `Collator` whose options fit the alignment.

    Raises:
        ValueError: The weight is negative, or not 0 without an alignment.
    """

    model: PreTrainedModel

    def __init__(
        self, *, alignment: BatchAlignment | None = None, alignment_weight: float = 0.0, **trainer_arguments: Any
    ) -> None:
        if alignment_weight < 0 or (alignment is None and alignment_weight):
            raise ValueError(
                f"AlignmentTrainer: alignment_weight must be 0 or more, and 0 without alignment; got {alignment_weight}"
                ". Pass alignment=BatchAlignment(objective, texts) or weight 0."
            )
        super().__init__(**trainer_arguments)
        if self.args.fsdp_plugin_args is not None:
            prepare_sharding(self.accelerator, self.stock_model, self.args.fsdp_plugin_args)
            self.is_fsdp_enabled = True
        self.alignment = alignment if alignment_weight else None
        self.alignment_weight = alignment_weight
        if self.alignment is not None:
            self.alignment.objective.to(self.args.device)
        # The training loop sets this for every step; a loss that is computed outside of it needs a value too.
        self.current_gradient_accumulation_steps = self.args.gradient_accumulation_steps
        self.clock = PhaseClock(self.args.device)
        self._observer = StepObserver(self.clock)
        self.add_callback(self._observer)
        self._sums: dict[str, Tensor] = {}
        self._steps_in_sums = 0.0
        self._timed_steps = 0.0
        self._batch_of_step = 0
        self._whole_step_mean = False
        self._texts: dict[str, Tensor] = {}
        self._is_attached = False

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Makes the objective a part of the model until the context ends; `train` does it where it is not yet."""
        if self._is_attached or self.alignment is None:
            yield
            return
        outer, stock = self.model, self.stock_model
        setattr(outer, _ATTRIBUTE, self.alignment.objective)
        handles = [
            outer.register_forward_pre_hook(self._take_texts, with_kwargs=True),
            outer.register_forward_hook(self._add_alignment, with_kwargs=True),
        ]
        self._is_attached = True
        try:
            with ExitStack() as stack:
                stack.enter_context(self.alignment.tap.attached(stock))
                stack.enter_context(self.clock.timing_matchings(self.alignment.objective))
                yield
        finally:
            self._is_attached = False
            for handle in handles:
                handle.remove()
            delattr(outer, _ATTRIBUTE)

    @property
    def stock_model(self) -> PreTrainedModel:
        """The model of transformers inside all wrappers."""
        model = self.accelerator.unwrap_model(self.model)
        return model.get_base_model() if hasattr(model, "get_base_model") else model

    def skipped(self) -> int:
        """Returns how many samples all processes have left out since the run began; all of them have to ask."""
        count = torch.tensor(self._observer.skipped, device=self.args.device)
        return int(self.accelerator.reduce(count, "sum").item())

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Trains as `Trainer.train` does, with the objective's parameters among the model's."""
        with self.attached():
            return super().train(*args, **kwargs)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """Fetches the batches of a step; also decides whether the step is timed: on a GPU that costs a wait."""
        if self.state.global_step >= self.state.max_steps:
            # Killed after its last checkpoint: the Trainer would go on with the epoch that the last step cut short.
            self.control.should_training_stop = True
            return [], None
        first_after_log = not self._steps_in_sums
        self.clock.enabled = self.args.device.type == "cpu" or first_after_log
        self._batch_of_step = 0
        with self.clock.phase("data"):
            return super().get_batch_samples(*args, **kwargs)

    def training_step(self, model: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        """Runs forward and backward for one batch; also notes whether the discrete loss sent a gradient at all."""
        with self.clock.phase("backward"):
            loss = super().training_step(model, *args, **kwargs)
        share = 1 / self.current_gradient_accumulation_steps
        zero = None if self.alignment is None else getattr(self.alignment.objective, "zero_gradient", None)
        if zero is not None:
            self._add("zero_gradient_share", zero.float() * share)
        self._steps_in_sums += share
        self._timed_steps += share if self.clock.enabled else 0.0
        self._batch_of_step += 1
        return loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Computes the weighted sum of both losses for one batch of a `Collator`."""
        # A cache serves generation alone, and layers that are computed again for the backward pass would fill it twice.
        inputs = {**inputs, "use_cache": False}
        skipped = inputs.pop("skipped", None)
        if skipped is not None:
            self._observer.skipped += int(skipped.sum())
        vision_tower = getattr(self.stock_model.base_model, "vision_tower", None)
        if vision_tower is not None:
            vision_tower.eval()
        # The Trainer divides a loss by the accumulated batches unless it is a token mean over all of them already.
        self._whole_step_mean = self.model_accepts_loss_kwargs and num_items_in_batch is not None
        with self.attached(), self.clock.phase("forward"):
            loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if self.alignment is None and model.training:
            self._note_main_pass(loss, inputs["input_ids"])
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the averages since the last log; a loss that is not finite ends the training.

        Raises:
            FloatingPointError: The loss is NaN or infinite.
        """
        # The mean of the run, which comes last, has the steps since the last log in it.
        loss = logs.get("loss", logs.get("train_loss", 0.0))
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"AlignmentTrainer: the loss must stay finite; got {loss} at step {self.state.global_step}"
                ". Lower the learning rate, or train in fp32 or bf16."
            )
        if "loss" in logs:
            logs["gradient_norm"] = float(logs.pop("grad_norm"))
            logs.update(self._averages())
            logs.update(self._observer.gradient_norms(logs["gradient_norm"]))
            skipped = self.skipped()
            if skipped:
                logs["skipped"] = skipped
        super().log(logs, start_time)

    def _averages(self) -> dict[str, float]:
        """Returns the means since the last call over steps and processes, and starts anew."""
        names = sorted(self._sums)
        found = {}
        if names:
            values = torch.stack([self._sums[name].double() for name in names]) / self._steps_in_sums
            found = dict(zip(names, self.accelerator.reduce(values, "mean").tolist(), strict=True))
        seconds = self.clock.take()
        if self._timed_steps:
            found |= {f"seconds_{name}": value / self._timed_steps for name, value in seconds.items()}
        self._sums.clear()
        self._steps_in_sums = self._timed_steps = 0.0
        return found

    def _add(self, name: str, value: Tensor) -> None:
        """Sums on the device: a number that is read in every step would make the host wait for it."""
        value = value.detach().to(self.args.device)
        self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()

    def _take_texts(self, module: nn.Module, arguments: Any, inputs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Keeps from the model what it does not know."""
        self._texts = {name: value for name, value in inputs.items() if name.startswith(TEXT_PREFIX)}
        return arguments, {name: value for name, value in inputs.items() if not name.startswith(TEXT_PREFIX)}

    def _add_alignment(self, module: nn.Module, arguments: Any, inputs: dict[str, Any], outputs: Any) -> Any:
        """Adds the objective's loss to the model's own, inside its forward pass, where wrappers see it."""
        texts, self._texts = self._texts, {}
        if self.alignment is None or not texts or outputs.loss is None:
            return outputs
        # A number that is the same when a run is resumed.
        number = self.state.global_step * self.args.gradient_accumulation_steps + self._batch_of_step
        with self.accelerator.autocast():
            result = self.alignment(self.stock_model, inputs["input_ids"], texts, number, self.clock)
        share = 1 / self.current_gradient_accumulation_steps
        processes = self._loss_factor()
        if module.training:
            self._note_main_pass(outputs.loss * processes, inputs["input_ids"])
            self._add("alignment_loss", result.loss * share)
            for name, value in result.metrics.items():
                self._add(name, value * share)
            read_alone = texts.get(f"{TEXT_PREFIX}input_ids")
            self._add("tokens_text", torch.tensor(0.0 if read_alone is None else float(read_alone.numel())))
        scale = share / processes if self._whole_step_mean else 1.0
        outputs.loss = outputs.loss + self.alignment_weight * scale * result.loss
        return outputs

    def _note_main_pass(self, loss: Tensor, input_ids: Tensor) -> None:
        share = 1 / self.current_gradient_accumulation_steps
        self._add("ar_loss", loss * (1.0 if self._whole_step_mean else share))
        self._add("tokens_main", torch.tensor(float(input_ids.numel())))

    def _loss_factor(self) -> int:
        """What the Trainer multiplies a loss with that is a mean over the tokens of all processes."""
        averaged = self.args.average_tokens_across_devices and self._whole_step_mean
        return self.accelerator.num_processes if averaged else 1

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        state = self.model.state_dict() if state_dict is None else state_dict
        # The tokenizer keeps the limits of its last call, and whoever loads it would inherit them.
        tokenizer = getattr(self.processing_class, "tokenizer", None)
        if tokenizer is not None:
            tokenizer.backend_tokenizer.no_truncation()
            tokenizer.backend_tokenizer.no_padding()
        own = {name: value for name, value in state.items() if not name.startswith(_PREFIX)}
        with without_weight_bars(), unsharded_class(self.stock_model) if self.is_fsdp_enabled else nullcontext():
            super()._save(output_dir, own)
        if self.alignment is not None and self.args.should_save:
            aligned = {name.removeprefix(_PREFIX): value for name, value in state.items() if name.startswith(_PREFIX)}
            save_alignment(aligned or self.alignment.objective.state_dict(), Path(output_dir or self.args.output_dir))

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        self._require_finite_weights()
        with writing_weights(Path(self.args.output_dir), "train"):
            super()._save_checkpoint(*args, **kwargs)

    def _require_finite_weights(self) -> None:
        """A run would go on, or end, with a checkpoint of NaN between two lines of the log."""
        trained = (each for each in self.model.parameters() if each.requires_grad)
        shards = (each.to_local() if hasattr(each, "to_local") else each for each in trained)
        broken = any(not bool(shard.isfinite().all()) for shard in shards)
        if self.accelerator.reduce(torch.tensor(float(broken), device=self.args.device), "sum").item():
            raise FloatingPointError(
                f"AlignmentTrainer: the weights must stay finite; got others at step {self.state.global_step}. "
                "Lower the learning rate, or train in fp32 or bf16."
            )

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        # The main process marks a checkpoint as complete next: by then every process must have written its part.
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        # Sharded checkpoints hold the objective like every other part.
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        with self._detached():  # the model's own file must neither miss nor gain keys
            if isinstance(self.model, PreTrainedModel):
                self._load_weights(Path(resume_from_checkpoint))
            else:
                super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.alignment is not None:
            load_alignment(self.alignment.objective, Path(resume_from_checkpoint))

    def _load_weights(self, folder: Path) -> None:
        """Reads a model's file as `from_pretrained` does; the Trainer would not know that names on disk are others."""
        with without_weight_bars():
            saved = type(self.model).from_pretrained(folder, dtype=self.model.dtype, local_files_only=True)
        self.model.load_state_dict(saved.state_dict())

    @contextmanager
    def _detached(self) -> Iterator[None]:
        """Takes the objective out of the model for a while."""
        inside = self._is_attached and self.alignment is not None
        if inside:
            delattr(self.model, _ATTRIBUTE)
        try:
            yield
        finally:
            if inside and self.alignment is not None:
                setattr(self.model, _ATTRIBUTE, self.alignment.objective)
