"""Names of tensors and settings in the two formats."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration

import graphmatch as gm

Direction = Literal["hugging-face", "original"]
REPORT_FILE = "conversion.json"

LANGUAGE = "language_model.model."
HEAD = "language_model.lm_head.weight"
PROJECTOR = "multi_modal_projector."
VISION = "vision_tower.vision_model."
# transformers 5 in memory, transformers 5 on disk, transformers 4: the same tensor under all these names.
_ON_DISK = (
    (re.compile(r"^(?:language_model\.)?lm_head\."), "language_model.lm_head."),
    (re.compile(r"^(?:model\.language_model|language_model\.model)\."), LANGUAGE),
    (re.compile(r"^(?:model\.)?multi_modal_projector\."), PROJECTOR),
    (re.compile(r"^(?:model\.)?vision_tower\.(?:vision_model\.)?"), VISION),
)

ORIGINAL_LANGUAGE = re.compile(r"^model\.(?=(?:embed_tokens|layers|norm)\.)")
ORIGINAL_HEAD = "lm_head.weight"
ORIGINAL_PROJECTOR = "model.mm_projector."
MESSAGE_PASSING = "message_passing."
ORIGINAL_MESSAGE_PASSING = "model.message_pass_node_features."
ROTARY = "rotary_emb.inv_freq"
ROTARY_REASON = "follows from config.json"

# Settings that both formats call the same.
SHARED_SETTINGS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "initializer_range",
    "rms_norm_eps",
    "attention_bias",
    "attention_dropout",
    "mlp_bias",
    "head_dim",
    "use_cache",
)


@dataclass(frozen=True)
class Options:
    """What the user chose.

    Attributes:
        vision_tower: Folder of the CLIP model (to Hugging Face), or what `mm_vision_tower` will say (to the original).
        dense_connector: None if the user said nothing.
        dtype: The type of all tensors; None keeps each one's own.
    """

    vision_tower: str | None = None
    dense_connector: Literal["none", "dci", "sci"] | None = None
    dtype: torch.dtype | None = None


def on_disk(name: str) -> str:
    """Returns the name under which a Hugging Face LLaVA checkpoint is published.

    Example:
        >>> on_disk("model.language_model.norm.weight"), on_disk("model.vision_tower.embeddings.class_embedding")
        ('language_model.model.norm.weight', 'vision_tower.vision_model.embeddings.class_embedding')
        >>> on_disk("language_model.lm_head.weight"), on_disk("lm_head.weight")
        ('language_model.lm_head.weight', 'language_model.lm_head.weight')
    """
    for pattern, replacement in _ON_DISK:
        if pattern.match(name):
            return pattern.sub(replacement, name)
    return name


def model_shapes(config: LlavaConfig) -> dict[str, tuple[int, ...]]:
    """Returns names on disk and shapes of all tensors that a model of this configuration has; no memory is taken."""
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    return {on_disk(name): tuple(value.shape) for name, value in model.state_dict().items()}


def alignment_tensors(dim: int) -> dict[str, torch.Tensor]:
    """Returns the tensors of a `BarycenterAlignment`, without memory: names, shapes and types."""
    with torch.device("meta"):
        return dict(gm.BarycenterAlignment(dim).state_dict())


def read_config(folder: Path) -> tuple[Direction, dict[str, Any]]:
    """Reads `config.json` and says which format the folder has; both call themselves `llava`.

    Args:
        folder: The model folder.

    Returns:
        The format, and the content.

    Raises:
        ValueError: There is no such file, or it is that of neither format.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise ValueError(f"convert: source must be a model folder with config.json; got {folder}. Check the path.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"convert: {path} must be JSON; got an error: {error}. Copy it again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"convert: {path} must be a JSON object; got {type(content).__name__}. Copy it again.")
    original = any(key.startswith("mm_") for key in content)
    hugging_face = "vision_config" in content and "text_config" in content
    if original == hugging_face or (hugging_face and content.get("model_type") != "llava"):
        kind = content.get("model_type")
        raise ValueError(
            "convert: source must be a LLaVA model, with mm_* settings (original) or vision_config and text_config "
            f"(Hugging Face); got model_type {kind!r} in {path} with {'both' if original else 'neither'}. "
            "A language model alone, weight deltas and adapters are not converted: merge them first."
        )
    return ("original" if original else "hugging-face"), content
