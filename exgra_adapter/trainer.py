"""A Hugging Face Trainer with the alignment loss added."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration, LlavaProcessor, Trainer

import graphmatch as gm
from exgra_adapter.alignment import batch_nodes, load_alignment, save_alignment
from exgra_adapter.models.load import without_weight_bars

_ATTRIBUTE = "alignment"


class AlignmentTrainer(Trainer):
    """Trains a LLaVA model on its autoregressive loss plus `alignment_weight` times the alignment loss.

    The model stays a stock `LlavaForConditionalGeneration`, so it generates at any time. While it trains, the alignment
    is a submodule of it: optimizer, gradient clipping and data-parallel wrappers then treat the message passing like
    every other parameter. Checkpoints keep it apart, in `alignment.safetensors`.

    Both losses are means over an optimizer step: splitting a step by gradient accumulation, or scaling the loss for
    fp16, changes the weight of neither. Besides the Trainer's own values, the log holds `ar_loss`, `alignment_loss`,
    `matching_accuracy`, `retrieval` and `zero_gradient_share`, averaged over the steps since the last log.

    Args:
        alignment: The loss module, or None for the autoregressive loss alone.
        alignment_weight: Its weight; 0 or more.
        **trainer_arguments: The Trainer's own. `data_collator` is a `Collator`, with `alignment=True` where the
            alignment is on.

    Raises:
        ValueError: The weight is negative, or not 0 without an alignment.
    """

    model: LlavaForConditionalGeneration

    def __init__(
        self,
        *,
        alignment: gm.BarycenterAlignment | None = None,
        alignment_weight: float = 0.0,
        **trainer_arguments: Any,
    ) -> None:
        if alignment_weight < 0 or (alignment is None and alignment_weight):
            raise ValueError(
                f"AlignmentTrainer: alignment_weight must be 0 or more, and 0 without alignment; got {alignment_weight}"
                ". Pass alignment=graphmatch.BarycenterAlignment(dim) or weight 0."
            )
        super().__init__(**trainer_arguments)
        self.alignment = alignment if alignment_weight else None
        self.alignment_weight = alignment_weight
        if self.alignment is not None:
            self.alignment.to(self.args.device)
        # The training loop sets this for every step; a loss that is computed outside of it needs a value too.
        self.current_gradient_accumulation_steps = self.args.gradient_accumulation_steps
        self._sums: dict[str, Tensor] = {}
        self._steps_in_sums = 0.0

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Trains as `Trainer.train` does, with the alignment's parameters among the model's."""
        with self._attached():
            return super().train(*args, **kwargs)

    def training_step(self, model: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        """Runs forward and backward for one batch; also notes whether the discrete loss sent a gradient at all."""
        loss = super().training_step(model, *args, **kwargs)
        share = 1 / self.current_gradient_accumulation_steps
        if self.alignment is not None:
            self._add("zero_gradient_share", self.alignment.zero_gradient.float() * share)
        self._steps_in_sums += share
        return loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Computes the weighted sum of both losses for one batch of a `Collator`."""
        stock: LlavaForConditionalGeneration = self.accelerator.unwrap_model(model)
        stock.model.vision_tower.eval()
        texts = [inputs[name] for name in ("text_input_ids", "text_attention_mask", "text_mask") if name in inputs]
        inputs = {name: value for name, value in inputs.items() if not name.startswith("text_")}
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        # The Trainer divides a loss by the accumulated batches unless it is a token mean over all of them already.
        whole_step_mean = self.model_accepts_loss_kwargs and num_items_in_batch is not None
        share = 1 / self.current_gradient_accumulation_steps
        if model.training:
            self._add("ar_loss", loss.detach() * (1.0 if whole_step_mean else share))
        if self.alignment is not None:
            input_ids, attention_mask, text_mask = texts
            with self.accelerator.autocast():
                nodes = batch_nodes(stock, outputs.image_hidden_states, input_ids, attention_mask, text_mask)
            details = self.alignment.details(*nodes)
            loss = loss + self.alignment_weight * details.loss * (share if whole_step_mean else 1.0)
            if model.training:
                self._add("alignment_loss", details.loss.detach() * share)
                self._add("matching_accuracy", details.matching_accuracy * share)
                self._add("retrieval", details.retrieval * share)
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the averages since the last log; a loss that is not finite ends the training.

        Raises:
            FloatingPointError: The loss is NaN or infinite.
        """
        if "loss" in logs:
            if not math.isfinite(logs["loss"]):
                raise FloatingPointError(
                    f"AlignmentTrainer: the loss must stay finite; got {logs['loss']} at step {self.state.global_step}"
                    ". Lower the learning rate, or train in fp32 or bf16."
                )
            logs["gradient_norm"] = logs.pop("grad_norm")
            logs.update({name: float(value) / self._steps_in_sums for name, value in self._sums.items()})
            self._sums.clear()
            self._steps_in_sums = 0.0
        super().log(logs, start_time)

    def _add(self, name: str, value: Tensor) -> None:
        """Sums on the device: a number that is read in every step would make the host wait for it."""
        self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()

    @contextmanager
    def _attached(self) -> Iterator[None]:
        if self.alignment is None:
            yield
            return
        setattr(self.model, _ATTRIBUTE, self.alignment)
        try:
            yield
        finally:
            delattr(self.model, _ATTRIBUTE)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        state = self.model.state_dict() if state_dict is None else state_dict
        # The tokenizer keeps the limits of its last call, and whoever loads it would inherit them.
        processor = self.processing_class
        if isinstance(processor, LlavaProcessor):
            processor.tokenizer.backend_tokenizer.no_truncation()
            processor.tokenizer.backend_tokenizer.no_padding()
        own = {name: value for name, value in state.items() if not name.startswith(f"{_ATTRIBUTE}.")}
        with without_weight_bars():
            super()._save(output_dir, own)
        if self.alignment is not None and self.args.should_save:
            save_alignment(self.alignment, Path(output_dir or self.args.output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.alignment is None:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        delattr(self.model, _ATTRIBUTE)  # the model's own file must neither miss nor gain keys
        try:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        finally:
            setattr(self.model, _ATTRIBUTE, self.alignment)
        load_alignment(self.alignment, Path(resume_from_checkpoint))
