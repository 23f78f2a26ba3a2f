"""The alignment loss of a training batch: three nodes per sample, and the file that keeps its parameters."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlavaForConditionalGeneration

import graphmatch as gm
from exgra_adapter.models.nodes import encode_text, pool_patches

ALIGNMENT_FILE = "alignment.safetensors"


def batch_nodes(
    model: LlavaForConditionalGeneration,
    image_hidden_states: Tensor,
    input_ids: Tensor,
    attention_mask: Tensor,
    text_mask: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Computes the three graphs' nodes of a batch of n samples, with one pass of the language model for both texts.

    Args:
        model: The model.
        image_hidden_states: `(n * patches, d)`, projected patches from the main pass: the vision tower runs once.
        input_ids: `(2n, t)` int64, the answers of all samples and then their extended answers.
        attention_mask: `(2n, t)`.
        text_mask: `(2n, t)`, 1 at the tokens to average over.

    Returns:
        Image, answer and extended-answer nodes, each `(n, d)` float32.
    """
    samples = input_ids.shape[0] // 2
    texts = encode_text(model, input_ids, attention_mask, text_mask).float()
    return pool_patches(image_hidden_states, samples).float(), texts[:samples], texts[samples:]


def save_alignment(alignment: gm.BarycenterAlignment, folder: Path) -> None:
    """Writes the parameters of the alignment (message passing) into `folder`."""
    state = {name: value.detach().contiguous().cpu() for name, value in alignment.state_dict().items()}
    save_file(state, Path(folder) / ALIGNMENT_FILE, metadata={"format": "pt"})


def load_alignment(alignment: gm.BarycenterAlignment, folder: Path) -> None:
    """Reads what `save_alignment` wrote.

    Args:
        alignment: Receives the parameters, in place.
        folder: The folder.

    Raises:
        ValueError: The file is missing or was written for other sizes.
    """
    path = Path(folder) / ALIGNMENT_FILE
    if not path.is_file():
        raise ValueError(
            f"load_alignment: folder must hold {ALIGNMENT_FILE}; got {folder} without it. "
            "Train with alignment_weight > 0."
        )
    state = load_file(path)
    expected = {name: tuple(value.shape) for name, value in alignment.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    if expected != found:
        name = next(name for name in sorted(expected | found) if expected.get(name) != found.get(name))
        raise ValueError(
            f"load_alignment: {path} must fit the model; got {name} of shape {found.get(name)} instead of "
            f"{expected.get(name)}. Use the alignment file that was saved with this model."
        )
    with torch.no_grad():
        alignment.load_state_dict(state)
