"""Which parts of a model a stage trains, and how: frozen, in full, or by LoRA."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration, PreTrainedModel, ProcessorMixin

from exgra_adapter.models.llava import unfreeze_projector
from exgra_adapter.prompts import IMAGE_ENDS

logger = logging.getLogger(__name__)

PROJECTOR_MARKS = ("multi_modal_projector", "visual.merger", "visual.deepstack_merger_list", "connector")
"""Parts of parameter names that mark the projector between vision tower and language model."""

_VISION_MARKS = ("vision_tower", "visual.", "vision_model")
_ADAPTED = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


def is_projector(name: str) -> bool:
    """Whether a parameter of this name belongs to the projector."""
    return any(mark in name for mark in PROJECTOR_MARKS)


def is_vision(name: str) -> bool:
    """Whether a parameter of this name belongs to the vision tower."""
    return any(mark in name for mark in _VISION_MARKS) and not is_projector(name)


def freeze(model: PreTrainedModel, stage: str, processor: ProcessorMixin) -> None:
    """Freezes what a stage does not train.

    Vision is frozen always. Stage 1 trains the projector, and the embeddings of the tokens around the image where the
    tokenizer has them; later stages train the language model too.

    Args:
        model: The model; its parameters are marked in place.
        stage: "stage1", "stage2" or "vqa".
        processor: Its processor.

    Raises:
        ValueError: The model has no projector under a known name.
    """
    named = list(model.named_parameters())
    if not any(is_projector(name) for name, _ in named):
        raise ValueError(
            f"freeze: the model must have a projector named like one of {', '.join(PROJECTOR_MARKS)}; got "
            f"{type(model).__name__} without. Train another family with your own freezing and AlignmentTrainer."
        )
    for name, parameter in named:
        if parameter.is_floating_point():
            parameter.requires_grad_(is_projector(name) or (stage != "stage1" and not is_vision(name)))
    if isinstance(model, LlavaForConditionalGeneration):
        unfreeze_projector(model)  # all but the identity behind a linear one
    if stage == "stage1":
        vocabulary = processor.tokenizer.get_vocab()
        rows = [vocabulary[token] for token in IMAGE_ENDS if token in vocabulary]
        if rows:
            train_rows(model.get_input_embeddings(), rows)


def train_rows(embeddings: Any, rows: Sequence[int]) -> None:
    """Lets training change these rows of an embedding and no others; needs an optimizer without weight decay."""
    weight = embeddings.weight
    kept = torch.zeros(weight.shape[0], 1)
    kept[list(rows)] = 1

    def mask(gradient: Tensor) -> Tensor:
        return gradient * kept.to(gradient)

    weight.requires_grad_(True)
    weight.register_hook(mask)


def add_adapters(
    model: PreTrainedModel, rank: int, alpha: float, dropout: float, quantized: bool, checkpointing: bool
) -> nn.Module:
    """Puts LoRA adapters into the language model; the projector is trained in full beside them.

    Args:
        model: The model.
        rank: Rank of the adapters.
        alpha: Their scale, over the rank.
        dropout: Dropout of their input.
        quantized: Whether the frozen weights are quantized (QLoRA).
        checkpointing: Whether activations are recomputed.

    Returns:
        A PEFT model around `model`.

    Source: E. Hu et al., LoRA, ICLR 2022; T. Dettmers et al., QLoRA, NeurIPS 2023.
    """
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    trained = {name: each.requires_grad for name, each in model.named_parameters() if is_projector(name)}
    if quantized:  # this freezes everything
        model = prepare_model_for_kbit_training(
            model, use_gradient_checkpointing=checkpointing, gradient_checkpointing_kwargs={"use_reentrant": False}
        )
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=_ADAPTED,
        modules_to_save=_projector_modules(model),
    )
    adapted: Any = get_peft_model(model, config)
    # Embeddings are frozen. By default PEFT asks the hub, for every checkpoint, whether the base model's were resized.
    adapted.save_pretrained = functools.partial(adapted.save_pretrained, save_embedding_layers=False)
    for name, parameter in adapted.named_parameters():
        if is_projector(name) and parameter.requires_grad:
            # PEFT trains all of its copy; what was frozen, such as the identity behind a linear projector, stays so.
            original = name.removeprefix("base_model.model.").replace(".modules_to_save.default", "")
            parameter.requires_grad_(trained[original])
    return cast(nn.Module, adapted)


def _projector_modules(model: nn.Module) -> list[str]:
    """Returns the outermost modules of the projector; PEFT copies modules, but no lists of them."""
    found: list[str] = []
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if is_projector(name) and not inside and not isinstance(module, nn.ModuleList):
            found.append(name)
    return found
