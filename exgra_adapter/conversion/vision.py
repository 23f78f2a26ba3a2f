"""The CLIP vision tower: its weights, its configuration and its image processor, from a local folder."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPVisionConfig

from exgra_adapter.conversion.checkpoint import Checkpoint
from exgra_adapter.conversion.plan import Dropped

# Inside a LLaVA checkpoint, a CLIP model or a CLIP vision model, with what older versions put in front.
_IN_LLAVA = re.compile(r"^model\.vision_tower\.(?:vision_tower\.|0\.)?(?:vision_model\.)?")
_PARTS = ("embeddings.", "encoder.", "pre_layrnorm.", "post_layernorm.")
_POSITION_IDS = "embeddings.position_ids"
_TEXT_PARTS = ("text_model.", "text_projection.", "visual_projection.", "logit_scale")
POSITION_REASON = "counts from 0: made anew"
_NOT_VISION = "not part of the vision tower"


@dataclass(frozen=True)
class VisionTower:
    """A CLIP vision tower in a folder.

    Attributes:
        config: Its configuration.
        image_processor: Its image processor.
        checkpoint: Its weights; None if the folder holds none.
        names: Name in the tower (`embeddings.class_embedding`, ...) to name in the checkpoint.
        dropped: Tensors of the checkpoint that are not the tower's.
        notes: What the user should know.
    """

    config: CLIPVisionConfig
    image_processor: CLIPImageProcessorPil
    checkpoint: Checkpoint | None
    names: dict[str, str]
    dropped: list[Dropped]
    notes: list[str]


def open_vision_tower(folder: Path) -> VisionTower:
    """Opens a CLIP model, whole or its vision part only; weights are not read yet.

    Args:
        folder: `config.json` of type `clip` or `clip_vision_model`, weights, `preprocessor_config.json`.

    Raises:
        ValueError: The folder holds something else, or its parts do not fit each other.
    """
    folder = Path(folder)
    config = _read_config(folder)
    notes = []
    if (folder / "preprocessor_config.json").is_file() or (folder / "processor_config.json").is_file():
        image_processor = CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
    else:
        side = config.image_size
        image_processor = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
        notes.append(f"{folder} has no preprocessor_config.json: CLIP's own mean and deviation, {side} pixels")
    size = dict(image_processor.crop_size)
    if (size.get("height"), size.get("width")) != (config.image_size, config.image_size):
        raise ValueError(
            f"open_vision_tower: the image processor in {folder} must make images of {config.image_size} pixels as the "
            f"tower takes them; got {size}. Correct preprocessor_config.json."
        )
    has_weights = any(folder.glob("*.safetensors")) or any(folder.glob("*.bin"))
    checkpoint = Checkpoint(folder) if has_weights else None
    names, dropped = {}, []
    for key in checkpoint.tensors if checkpoint else ():
        name = key.removeprefix("vision_model.")
        if name == _POSITION_IDS:
            dropped.append(Dropped(key, POSITION_REASON))
        elif name.startswith(_PARTS):
            names[name] = key
        elif key.startswith(_TEXT_PARTS):
            dropped.append(Dropped(key, _NOT_VISION))
        else:
            raise ValueError(
                f"open_vision_tower: {folder} must hold a CLIP model; got the unknown tensor {key}. "
                "Give the folder of the tower that config.json of the source names."
            )
    return VisionTower(config, image_processor, checkpoint, names, dropped, notes)


def tower_name(key: str) -> str | None:
    """Returns the name inside the tower of a vision tensor in an original LLaVA checkpoint; None for other tensors.

    Example:
        >>> tower_name("model.vision_tower.vision_tower.vision_model.embeddings.class_embedding")
        'embeddings.class_embedding'
        >>> tower_name("model.norm.weight") is None
        True
    """
    match = _IN_LLAVA.match(key)
    return key[match.end() :] if match else None


def is_position_ids(name: str) -> bool:
    """Whether this is the list 0, 1, 2, ... that older versions stored."""
    return name == _POSITION_IDS


def _read_config(folder: Path) -> CLIPVisionConfig:
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(
            f"open_vision_tower: folder must hold a CLIP model with config.json; got {folder}. "
            "Give the folder of a downloaded CLIP model."
        )
    try:
        kind = json.loads(path.read_text(encoding="utf-8")).get("model_type")
    except (ValueError, RecursionError, AttributeError) as error:
        raise ValueError(f"open_vision_tower: {path} must be a JSON object; got an error: {error}.") from error
    if kind == "clip":
        return CLIPConfig.from_pretrained(folder, local_files_only=True).vision_config
    if kind == "clip_vision_model":
        return CLIPVisionConfig.from_pretrained(folder, local_files_only=True)
    raise ValueError(
        f"open_vision_tower: the model in {folder} must be of type clip or clip_vision_model; got {kind!r}. "
        "Give the tower that config.json of the source names."
    )
