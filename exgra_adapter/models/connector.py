"""Projectors between the vision tower and the language model: linear, MLP, and the dense connectors DCI, SCI and STI.

A vision tower of depth L has the hidden states H_0 (the embeddings) to H_L. LLaVA projects H_-2 alone; a dense
connector (Yao et al., Dense Connector for MLLMs, arXiv:2405.13800) uses earlier layers too:

- `dci`, dense channel integration: the channels of H_-2, the mean of the lower half of H_0 .. H_{L-1} and the mean of
  its upper half, side by side. It can be written as a stock LLaVA: `fold_dense_connector`.
- `sci`, sparse channel integration: the channels of H_-2 and of one layer at a third and one at two thirds of the
  depth, side by side. It is a stock LLaVA with a list as `vision_feature_layer`.
- `sti`, sparse token integration: the tokens of H_-2, and behind them those of the same two earlier layers, averaged in
  groups of 8. All pass through one projector.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import ACT2FN

DenseConnectorKind = Literal["dci", "sci", "sti"]
"""The kinds of dense connectors."""
ProjectorKind = Literal["linear", "mlp"]
"""The kinds of projectors."""

TOKENS_PER_GROUP = 8
"""How many neighbouring tokens of an earlier layer STI averages into one."""


def connector_layers(kind: DenseConnectorKind, depth: int) -> list[int]:
    """Chooses the hidden states that a dense connector reads.

    For SCI and STI these are the second last and those at one and two thirds of the depth, as in CLIP ViT-L/14: with 24
    layers -2, 7 and 15.

    Args:
        kind: `dci`, `sci` or `sti`.
        depth: Layers of the vision tower; at least 2.

    Returns:
        Values for `vision_feature_layer`: indices into H_0 .. H_depth, where H_0 are the embeddings.

    Raises:
        ValueError: The kind is unknown, or the tower has too few layers.

    Example:
        >>> connector_layers("sci", 24), connector_layers("sti", 12), connector_layers("dci", 4)
        ([-2, 7, 15], [-2, 3, 7], [0, 1, 2, 3])
    """
    if kind not in get_args(DenseConnectorKind):
        raise ValueError(
            f"connector_layers: kind must be one of {', '.join(get_args(DenseConnectorKind))}; got {kind!r}. "
            "Choose one."
        )
    if depth < 2:
        raise ValueError(
            f"connector_layers: depth must be at least 2, the layers of the vision tower; got {depth}. "
            "Use a deeper tower, or no dense connector."
        )
    if kind == "dci":
        return list(range(depth))
    return [-2, max(0, depth // 3 - 1), max(0, 2 * depth // 3 - 1)]


def extra_tokens(kind: DenseConnectorKind, tokens: int) -> int:
    """Counts the tokens that a dense connector appends to the `tokens` of an image.

    Example:
        >>> extra_tokens("sti", 256), extra_tokens("dci", 256)
        (64, 0)
    """
    return 2 * -(-tokens // TOKENS_PER_GROUP) if kind == "sti" else 0


class DenseConnector(nn.Module):
    """The projector of a LLaVA with a DCI or STI connector: it stands where `LlavaMultiModalProjector` stands.

    `linear_1` reads `(H_-2, mean of lower half, mean of upper half)` for DCI, one layer at a time for STI; then follow
    the activation and `linear_2`. For depth L the lower half of DCI is H_0 .. H_{L // 2 - 1}, the upper half the rest
    up to H_{L - 1}.

    Args:
        config: A `LlavaConfig` with `dense_connector` set to `dci` or `sti` and the `vision_feature_layer` of
            `connector_layers`.

    Raises:
        ValueError: The kind or the layers do not fit.

    Source: arXiv:2405.13800, section 3.2 (three instantiations of the dense connector).
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        depth = config.vision_config.num_hidden_layers
        layers = connector_layers(config.dense_connector, depth)
        if config.dense_connector == "sci":
            raise ValueError(
                "DenseConnector: config.dense_connector must be dci or sti; got 'sci'. "
                "SCI needs no module of its own: use LlavaForConditionalGeneration."
            )
        if config.vision_feature_layer != layers:
            raise ValueError(
                f"DenseConnector: config.vision_feature_layer must be {layers} for {config.dense_connector} and "
                f"{depth} vision layers; got {config.vision_feature_layer}. Build the model with add_dense_connector."
            )
        self.kind: DenseConnectorKind = config.dense_connector
        self.width: int = config.vision_config.hidden_size
        self.lower: int = depth // 2
        blocks = 3 if self.kind == "dci" else 1
        hidden, bias = config.text_config.hidden_size, config.multimodal_projector_bias
        self.linear_1 = nn.Linear(blocks * self.width, hidden, bias=bias)
        self.act = ACT2FN[config.projector_hidden_act]
        self.linear_2 = nn.Linear(hidden, hidden, bias=bias)

    def forward(self, image_features: Tensor) -> Tensor:
        """Combines the layers and projects them.

        Args:
            image_features: `(n, tokens, layers * width)`, the hidden states of `vision_feature_layer` side by side.

        Returns:
            `(n, tokens, d)` for DCI, `(n, tokens + 2 * ceil(tokens / 8), d)` for STI.
        """
        layers = image_features.unflatten(-1, (-1, self.width))
        if self.kind == "dci":
            lower, upper = layers[..., : self.lower, :].mean(-2), layers[..., self.lower :, :].mean(-2)
            features = torch.cat([layers[..., -1, :], lower, upper], dim=-1)
        else:
            earlier = [_average_groups(layers[..., index, :]) for index in (1, 2)]
            features = torch.cat([layers[..., 0, :], *earlier], dim=1)
        return self.linear_2(self.act(self.linear_1(features)))


def _average_groups(tokens: Tensor) -> Tensor:
    """Averages groups of neighbouring tokens; the last group may be smaller."""
    return F.avg_pool1d(tokens.transpose(1, 2), TOKENS_PER_GROUP, ceil_mode=True).transpose(1, 2)


def linear_from(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """Builds a linear layer from copies of its weight, `(outputs, inputs)`, and its bias, `(outputs,)`."""
    with torch.device("meta"):
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    linear.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach().clone())
    return linear


def fold_weights(weight: Tensor, depth: int) -> Tensor:
    """Folds the first weights of a DCI connector into those that read all layers side by side.

    With the blocks (W_c, W_a, W_b) of `weight`, every layer of the lower half gets W_a / its size, every layer of the
    upper half W_b / its size, and the last one W_c on top. The sums are formed in float64.

    Args:
        weight: `(d, 3 * width)`, `linear_1.weight` of a `DenseConnector` of kind `dci`.
        depth: Layers of the vision tower; at least 2.

    Returns:
        `(d, depth * width)` in the dtype of `weight`.

    Source: linearity: mean_l(H_l) W = sum_l H_l (W / n).
    """
    last, lower, upper = weight.detach().double().chunk(3, dim=1)
    half = depth // 2
    blocks = [lower / half] * half + [upper / (depth - half)] * (depth - half)
    blocks[-1] = blocks[-1] + last
    return torch.cat(blocks, dim=1).to(weight.dtype)
