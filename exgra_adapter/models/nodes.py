"""The two hooks of the alignment: one node per image, one node per text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LlavaForConditionalGeneration, LlavaProcessor

import graphmatch as gm


def visual_nodes(model: LlavaForConditionalGeneration, pixel_values: Tensor) -> Tensor:
    """Computes one node per image: the mean over its patches behind the projector, not through the language model.

    Args:
        model: The model.
        pixel_values: `(n, 3, height, width)` float, as the processor makes them.

    Returns:
        `(n, d)` in the model's dtype, d the language model's hidden size; differentiable in the projector.

    Source: ExGra-Med (arXiv:2410.02615), section 3: Z_v[i] = mean over patches of h(f(U_i)).
    """
    features = model.get_image_features(pixel_values=pixel_values, return_dict=True).pooler_output
    return torch.stack([patches.mean(0) for patches in features])


def pool_patches(image_hidden_states: Tensor, images: int) -> Tensor:
    """Computes the nodes of `visual_nodes` from the projected patches that a forward pass has returned already.

    Args:
        image_hidden_states: `(n * patches, d)` or `(n, patches, d)`: `image_hidden_states` of a LLaVA output.
        images: n.

    Returns:
        `(n, d)`.
    """
    return image_hidden_states.reshape(images, -1, image_hidden_states.shape[-1]).mean(1)


def encode_text(
    model: LlavaForConditionalGeneration, input_ids: Tensor, attention_mask: Tensor, text_mask: Tensor | None = None
) -> Tensor:
    """Computes one node per text: the mean of the language model's last hidden state over the text's own tokens.

    The text is read alone, without image and prompt. Padding changes nothing, on whichever side it is.

    Args:
        model: The model.
        input_ids: `(n, t)` int64.
        attention_mask: `(n, t)`; 0 at padding.
        text_mask: `(n, t)`; 1 at the tokens to average over. None: all that `attention_mask` keeps. `tokenize_texts`
            leaves out the begin-of-sequence token, whose state is the same for every text.

    Returns:
        `(n, d)`, differentiable in the language model.

    Raises:
        ValueError: A text has no token to average over.

    Source: ExGra-Med (arXiv:2410.02615), section 3: Z_a and Z_ae.
    """
    hidden = model.get_decoder()(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
    return gm.masked_mean(hidden, attention_mask if text_mask is None else text_mask)


def tokenize_texts(processor: LlavaProcessor, texts: Sequence[str], max_length: int) -> dict[str, Tensor]:
    """Tokenizes texts into one right-padded batch for `encode_text`.

    Args:
        processor: The model's processor.
        texts: Non-empty texts.
        max_length: Longer texts are cut to this many tokens.

    Returns:
        `input_ids`, `attention_mask` and `text_mask`, each `(n, t)` int64: the keyword arguments of `encode_text`.
    """
    encoded: Any = processor.tokenizer(
        list(texts),
        padding=True,
        padding_side="right",
        truncation=True,
        max_length=max_length,
        return_special_tokens_mask=True,
        return_tensors="pt",
    )
    text_mask = encoded["attention_mask"] * (1 - encoded["special_tokens_mask"])
    return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"], "text_mask": text_mask}
