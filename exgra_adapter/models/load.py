"""Loading a LLaVA model from a local folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import AutoConfig, AutoProcessor, LlavaForConditionalGeneration, LlavaProcessor
from transformers.utils import logging as transformers_logging


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


def load_model(path: Path) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """Loads model and processor from a folder in Hugging Face format; nothing is ever downloaded.

    Args:
        path: A folder that `save_pretrained` wrote.

    Returns:
        The model (float32, CPU, evaluation mode) and its processor.

    Raises:
        ValueError: There is no such folder, it is not complete, or it holds another kind of model.
    """
    path = Path(path)
    if not (path / "config.json").is_file():
        raise ValueError(
            f"load_model: path must be a folder with a Hugging Face LLaVA model; got {path}, which has no config.json. "
            "Give the output folder of a finished training."
        )
    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True)
        if config.model_type != "llava":
            raise ValueError(
                f"load_model: the model in {path} must be of type 'llava'; got {config.model_type!r}. "
                "Give a LlavaForConditionalGeneration folder."
            )
        with without_weight_bars():
            model = LlavaForConditionalGeneration.from_pretrained(path, dtype=torch.float32, local_files_only=True)
        processor = AutoProcessor.from_pretrained(path, local_files_only=True)
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"load_model: {path} must be a complete model folder; got an error: {reason}. Save the model again."
        ) from error
    return model.eval(), processor
