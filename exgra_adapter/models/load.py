"""Loading a vision-language model from a local folder."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
from transformers.utils import logging as transformers_logging
from transformers.utils.import_utils import is_bitsandbytes_available

from exgra_adapter.models.llava import model_class

Quantization = Literal["4bit", "8bit"]
"""How the language model's weights can be kept."""

ADAPTER_CONFIG = "adapter_config.json"
# Patterns for whole names of modules: what is trained as a whole, small, or needed in full precision stays as it is.
_UNQUANTIZED = ["lm_head", r".*\bmulti_modal_projector", r".*\bvision_tower", r".*\bvisual"]


@contextmanager
def without_weight_bars() -> Iterator[None]:
    """Silences the progress bars that transformers shows while it reads and writes weights; they break other bars."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def load_model(
    path: Path,
    dtype: torch.dtype = torch.float32,
    attention: str | None = None,
    quantization: Quantization | None = None,
    merge: bool | None = None,
) -> tuple[Any, Any]:
    """Loads model and processor from a folder in Hugging Face format; nothing is ever downloaded.

    Args:
        path: A folder that `save_pretrained` wrote: a LLaVA, also with a dense connector or a timm tower, or another
            model for `AutoModelForImageTextToText`. Or a folder with a LoRA adapter, whose base model is in the same
            folder or where its `adapter_config.json` says; a relative path there starts at the folder.
        dtype: Of the weights; with `quantization`, of those that are not quantized.
        attention: transformers' `attn_implementation`, such as `sdpa`, `eager`, `flash_attention_2`; None: its choice.
        quantization: `4bit` (NF4, double quantization) or `8bit` by bitsandbytes; vision tower, projector and output
            layer are kept as they are.
        merge: Whether a LoRA adapter becomes part of the weights. If not, the model is a `PeftModel`, as it was in
            training. None: yes, unless the weights are quantized.

    Returns:
        The model (CPU, evaluation mode) and its processor. A LLaVA is a `LlavaForConditionalGeneration`.

    Raises:
        ValueError: There is no such folder, it is not complete, it holds another kind of model, or a package is
            missing.
    """
    path = Path(path)
    adapter = path if (path / ADAPTER_CONFIG).is_file() else None
    base = path if adapter is None else _base_of(path)
    if not (base / "config.json").is_file():
        raise ValueError(
            f"load_model: path must be a folder with a Hugging Face model; got {base}, which has no config.json. "
            "Give the output folder of a finished training."
        )
    merge = quantization is None if merge is None else merge
    if merge and quantization is not None and adapter is not None:
        raise ValueError(
            f"load_model: merge must be False with quantized weights; got quantization {quantization!r}, whose "
            "rounding would swallow the adapter. Leave merge out, or merge without quantization."
        )
    arguments: dict[str, Any] = {"dtype": dtype, "local_files_only": True, "output_loading_info": True}
    if attention is not None:
        arguments["attn_implementation"] = attention
    if quantization is not None:
        arguments["quantization_config"] = _quantization_config(quantization)
    try:
        with without_weight_bars(), _without_adapter(base) as folder:
            model, report = _class_for(folder, base).from_pretrained(folder, **arguments)
        _require_all_weights(base, report)
        model.name_or_path = model.config.name_or_path = str(base)
        if adapter is not None:
            model = _add_adapter(model, adapter, merge)
        own = adapter is not None and any(adapter.glob("*processor_config.json"))
        processor = _processor(path if own else base, model.config.model_type)
    except (OSError, ImportError, RuntimeError) as error:  # the last: weights of other shapes
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"load_model: {path} must be a complete model folder; got an error: {reason}. Save the model again."
        ) from error
    return model.eval(), processor


def _base_of(adapter: Path) -> Path:
    """The folder of the model that an adapter belongs to."""
    if (adapter / "config.json").is_file():
        return adapter
    try:
        name = json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"]
        base = (adapter / name).resolve()
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise ValueError(
            f"load_model: {adapter / ADAPTER_CONFIG} must name the base model; got {type(error).__name__}: {error}. "
            "Save the adapter again."
        ) from error
    if not base.is_dir():
        raise ValueError(
            f"load_model: base_model_name_or_path in {adapter / ADAPTER_CONFIG} must be a local folder; got {name!r}. "
            "Nothing is downloaded: fetch the base model and write its folder there."
        )
    return base


@contextmanager
def _without_adapter(folder: Path) -> Iterator[Path]:
    """Yields the folder, or one that links to its files except those of an adapter, which transformers would load."""
    if not (folder / ADAPTER_CONFIG).is_file():
        yield folder
        return
    with tempfile.TemporaryDirectory() as name:
        for file in folder.resolve().iterdir():
            if not file.name.startswith("adapter_"):
                (Path(name) / file.name).symlink_to(file)
        yield Path(name)


def _class_for(folder: Path, shown: Path) -> Any:
    """The class to load the model of a folder with; errors name the folder `shown`."""
    try:
        described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"load_model: {shown / 'config.json'} must be JSON; got an error: {error}.") from error
    if any(name.startswith("mm_") for name in described):
        raise ValueError(
            f"load_model: the model in {shown} must be in Hugging Face format; got one of the original LLaVA format. "
            "Convert it first: exgra-med convert."
        )
    vision = described.get("vision_config")
    if isinstance(vision, dict) and vision.get("model_type") == "timm_wrapper":
        from exgra_adapter.models.towers import require_timm

        require_timm("load_model")
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    if config.model_type == "llava":
        return model_class(config)
    if type(config) not in AutoModelForImageTextToText._model_mapping:
        raise ValueError(
            f"load_model: the model in {shown} must be one that reads images and text and writes text; got "
            f"{config.model_type!r}. Give a LLaVA or another model for AutoModelForImageTextToText."
        )
    return AutoModelForImageTextToText


def _processor(folder: Path, family: str) -> Any:
    if family != "llava":
        return AutoProcessor.from_pretrained(folder, local_files_only=True)
    # Pillow everywhere: torchvision, where it is installed, resizes and rounds differently.
    return AutoProcessor.from_pretrained(folder, local_files_only=True, backend="pil")


def _require_all_weights(folder: Path, report: dict[str, Any]) -> None:
    """Refuses a model with weights that transformers would draw at random or drop, such as another projector's."""
    missing = sorted({str(name) for name in report["missing_keys"]})
    dropped = sorted(str(name) for name in report["unexpected_keys"] if "projector" in str(name))
    if missing or dropped:
        what = f"lacks {missing[0]}" if missing else f"has {dropped[0]}, which its configuration does not know"
        raise ValueError(
            f"load_model: the weights in {folder} must be those that its config.json describes; got a folder that "
            f"{what} ({len(missing) + len(dropped)} such weights). Save or convert the model again."
        )


def _add_adapter(model: Any, adapter: Path, merge: bool) -> Any:
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Found missing adapter keys")
        try:
            model = PeftModel.from_pretrained(model, adapter, local_files_only=True)
        except UserWarning as warning:
            raise ValueError(
                f"load_model: the adapter in {adapter} must fit its base model; got {str(warning).splitlines()[0]}. "
                "Use the base model that it was trained on."
            ) from warning
    return model.merge_and_unload() if merge else model


def _quantization_config(quantization: Quantization) -> Any:
    from transformers import BitsAndBytesConfig

    if quantization not in get_args(Quantization):
        raise ValueError(f"load_model: quantization must be 4bit or 8bit; got {quantization!r}. Choose one.")
    if not is_bitsandbytes_available():
        raise ValueError(
            f"load_model: quantization must have the package bitsandbytes; got {quantization!r} without it. "
            "Install it: pip install bitsandbytes."
        )
    if quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=_UNQUANTIZED)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=_UNQUANTIZED,
    )
