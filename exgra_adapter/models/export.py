"""Writing a model as a stock Hugging Face folder that other programs load without this package."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, LlavaForConditionalGeneration

from exgra_adapter.atomic import complete_folder
from exgra_adapter.chat_template import chat_template
from exgra_adapter.models.llava import fold_dense_connector, has_timm_tower, replace_timm_tower
from exgra_adapter.models.load import ADAPTER_CONFIG, load_model, without_weight_bars
from exgra_adapter.prompts import prompt_format
from exgra_adapter.weight_files import writing_weights

# What stays beside the weights: the parameters of the alignment and the model card.
_COMPANIONS = ("alignment.safetensors", "README.md")
# Largest difference of logits, relative to the largest logit, that rounding in float32 explains.
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class ExportReport:
    """What an export did.

    Attributes:
        output: The folder.
        changes: What was turned into stock parts, in words.
        largest_difference: Largest absolute difference between the logits of both models for one random image.
        largest_logit: The largest absolute logit, to compare it with.
        prompt: The format of the chat template; None for other models than LLaVA, which keep what they have.
    """

    output: Path
    changes: tuple[str, ...]
    largest_difference: float
    largest_logit: float
    prompt: str | None = None


def export_model(
    path: Path, output: Path, dtype: torch.dtype = torch.float32, prompt: str | None = None
) -> ExportReport:
    """Writes a model as a stock Hugging Face folder: safetensors, configuration, processor, generation settings.

    LoRA adapters are merged, a DCI connector is folded, a timm tower becomes a `ViTModel`; all this in float32. Then
    the written model is loaded again, with stock classes, and its logits for a random image are compared with those of
    the original. The folder appears when everything is done, or not at all. `alignment.safetensors` and `README.md`
    come along. Needs memory for the float32 weights of one model.

    A LLaVA gets the chat template of the format that it was trained in, so that a server which is handed messages asks
    it as it was taught. One from elsewhere, of which no settings say so, keeps its own template if it has one.

    Args:
        path: What `load_model` loads.
        output: A folder that does not exist or is empty.
        dtype: Of the written weights: float32, bfloat16 or float16.
        prompt: The format that the model was trained in, "llava", "released" or "chat_template"; None: what its folder
            says, or else its own template, or else "llava".

    Returns:
        What was changed, and by how much the logits differ; with bfloat16 and float16 by the rounding of the weights.

    Raises:
        ValueError: The model cannot be expressed by stock classes (STI connectors, some timm towers), is quantized, or
            does not compute the same afterwards; `output` is in use; the format is unknown.
    """
    path, output = Path(path), Path(output)
    if dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"export_model: dtype must be float32, bfloat16 or float16; got {dtype}. Choose one.")
    with complete_folder(output, "export_model") as folder:
        model, processor = load_model(path)
        if getattr(model, "is_quantized", False):
            raise ValueError(
                f"export_model: the model in {path} must have plain weights; got quantized ones. "
                "Export the model that was quantized."
            )
        changes = ["merged the adapter"] if (path / ADAPTER_CONFIG).is_file() else []
        before = _logits(model, processor)
        template = None
        if isinstance(model, LlavaForConditionalGeneration):
            if getattr(model.config, "dense_connector", None) == "dci":
                changes.append("folded the DCI connector")
            model = fold_dense_connector(model)
            if has_timm_tower(model.config):
                changes.append("turned the timm tower into a ViTModel")
            model = replace_timm_tower(model)
            template = _add_chat_template(processor, path, prompt)
        _write(model.to(dtype), processor, folder)
        del model
        for name in _COMPANIONS:
            if (path / name).is_file():
                shutil.copyfile(path / name, folder / name)
        difference = _compare(before, folder, processor, dtype)
    return ExportReport(output, tuple(changes), difference, float(before.abs().max()), template)


def _write(model: Any, processor: Any, folder: Path) -> None:
    # The configuration remembers where the weights came from, which means nothing elsewhere.
    model.name_or_path = model.config.name_or_path = ""
    with without_weight_bars(), writing_weights(folder, "export_model"):
        model.save_pretrained(folder)
    processor.save_pretrained(folder)


def _compare(before: Tensor, folder: Path, processor: Any, dtype: torch.dtype) -> float:
    """Loads the written model with stock classes; returns the largest difference of its logits."""
    with without_weight_bars():
        model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    difference = float((_logits(model, processor) - before).abs().max())
    if not difference < float("inf") or (
        dtype == torch.float32 and difference > _TOLERANCE * float(before.abs().max())
    ):
        raise ValueError(
            f"export_model: the written model must compute the same as the original; got logits that differ by "
            f"{difference:.3g}, written in {dtype}. Use float32 or bfloat16 for weights too large for float16."
        )
    return difference


def _logits(model: Any, processor: Any) -> Tensor:
    pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    text = f"{processor.image_token}\nWhat is shown?"
    with torch.no_grad():
        return model(**processor(text=[text], images=[Image.fromarray(pixels)], return_tensors="pt")).logits.float()


def _add_chat_template(processor: Any, path: Path, prompt: str | None) -> str:
    """Gives a processor the template of a format; returns its name."""
    name = prompt or _trained_prompt(path) or ("chat_template" if processor.chat_template else "llava")
    if name == "chat_template":
        if not processor.chat_template:
            raise ValueError(
                f"export_model: the model in {path} must have a chat template for prompt=chat_template; got none. "
                "Take prompt=llava or released, or add chat_template.jinja to its folder."
            )
        return name
    prompt_format(name, processor)  # refuses a tokenizer that lacks what the format needs
    processor.chat_template = chat_template(name, processor)
    return name


def _trained_prompt(path: Path) -> str | None:
    """The format that the settings beside a trained model name."""
    try:
        settings = json.loads((path / "settings.json").read_text(encoding="utf-8"))
        return str(settings["prompt"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
