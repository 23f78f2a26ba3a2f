"""The hooks of the alignment: one node per image, one node per text, for any model that reads images as tokens.

Nothing here knows a model family: image features are found in the language model's input at the image's tokens, text
states in its output. `get_image_features` and `get_decoder` are transformers' own names for the two halves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, ProcessorMixin

import graphmatch as gm
from exgra_adapter.models.packing import PACKABLE, Layout, PackedTexts


def visual_nodes(model: PreTrainedModel, pixel_values: Tensor, **image_inputs: Any) -> Tensor:
    """Computes one node per image: the mean over its patches behind the projector, not through the language model.

    Args:
        model: A model with `get_image_features`, such as LLaVA or Qwen2.5-VL.
        pixel_values: As the model's processor makes them; for LLaVA `(n, 3, height, width)` float.
        **image_inputs: What else the processor says about images, such as `image_grid_thw`.

    Returns:
        `(n, d)` in the model's dtype, d the language model's hidden size; differentiable in the projector.

    Source: ExGra-Med (arXiv:2410.02615), section 3: Z_v[i] = mean over patches of h(f(U_i)).
    """
    features = model.get_image_features(pixel_values=pixel_values, return_dict=True, **image_inputs).pooler_output
    return torch.stack([patches.mean(0) for patches in features])


def encode_text(
    model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor, text_mask: Tensor | None = None
) -> Tensor:
    """Computes one node per text: the mean of the language model's last hidden state over the text's own tokens.

    The text is read alone, without image and prompt. Padding changes nothing, on whichever side it is.

    Args:
        model: A model with `get_decoder`.
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


def encode_packed(model: PreTrainedModel, texts: PackedTexts) -> Tensor:
    """Returns the last hidden states `(r, t, d)` of packed texts: one pass of the language model reads all of them."""
    # Without a mask the language model tells the texts of a row apart by their positions.
    mask = {} if texts.padding is None else {"attention_mask": texts.padding}
    positions = {"position_ids": texts.position_ids} if texts.padding is None else {}
    return model.get_decoder()(input_ids=texts.input_ids, use_cache=False, **mask, **positions).last_hidden_state


def text_layout(model: PreTrainedModel) -> Layout:
    """Says how texts must lie in a batch for the language model of `model`."""
    config = model.config.get_text_config()
    if config.model_type not in PACKABLE:
        return "padded"
    return "single_row" if "flash" in (config._attn_implementation or "") else "rows"


class DecoderTap:
    """What goes into the language model during a forward pass, and what comes out: the main pass is read twice."""

    def __init__(self) -> None:
        self.inputs_embeds: Tensor | None = None
        self.last_hidden_state: Tensor | None = None

    @contextmanager
    def attached(self, model: PreTrainedModel) -> Iterator[DecoderTap]:
        """Listens until the context ends."""
        decoder = model.get_decoder()
        handles = [
            decoder.register_forward_pre_hook(self._before, with_kwargs=True),
            decoder.register_forward_hook(self._after),
        ]
        try:
            yield self
        finally:
            for handle in handles:
                handle.remove()
            self.clear()

    def clear(self) -> None:
        """Lets go of the tensors."""
        self.inputs_embeds = self.last_hidden_state = None

    def image_states(self, input_ids: Tensor, image_token_id: int) -> tuple[Tensor, Tensor]:
        """Returns the projected patches `(n, p, d)` of a batch with one image a row, and which are real, `(n, p)`."""
        embeds, at_image = self._embeds(), input_ids == image_token_id
        longest = int(at_image.sum(1).max())
        order = (~at_image).long().argsort(dim=1, stable=True)[:, :longest]
        return embeds.gather(1, order[:, :, None].expand(-1, -1, embeds.shape[2])), at_image.gather(1, order)

    def image_nodes(self, input_ids: Tensor, image_token_id: int) -> Tensor:
        """Returns the nodes `(n, d)` float32 of `visual_nodes`, without another pass of the vision tower."""
        return _means(self._embeds(), input_ids == image_token_id)

    def answer_nodes(self, answers: Tensor) -> Tensor:
        """Returns the means `(n, d)` float32 of the last hidden states where answers `(n, t)` stand."""
        if self.last_hidden_state is None:
            raise RuntimeError("DecoderTap: answer_nodes must follow a forward pass; got none. Attach it first.")
        return _means(self.last_hidden_state, answers)

    def _embeds(self) -> Tensor:
        if self.inputs_embeds is None:
            raise RuntimeError("DecoderTap: image nodes must follow a forward pass; got none. Attach it first.")
        return self.inputs_embeds

    def _before(self, module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        if keywords.get("inputs_embeds") is not None:
            self.inputs_embeds = keywords["inputs_embeds"]

    def _after(self, module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        self.last_hidden_state = output.last_hidden_state


def tokenize_texts(processor: ProcessorMixin, texts: Sequence[str], max_length: int) -> dict[str, Tensor]:
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


def _means(values: Tensor, where: Tensor) -> Tensor:
    shares = where.float() / where.sum(1, keepdim=True).clamp(min=1)
    with torch.autocast(values.device.type, enabled=False):
        return torch.einsum("nt,ntd->nd", shares, values.float())
