"""The projector between vision tower and language model: its layouts, and dense connectors folded into stock LLaVA.

Let H_l be the vision tower's hidden states (H_0 the embeddings, L layers), each w wide. A dense connector widens the
input of the projector's first layer to 3 w columns:

- DCI: (H_{L-1}, mean of H_0 ... H_{L/2-1}, mean of H_{L/2} ... H_{L-1})
- SCI: (H_{L-1}, H_7, H_15)

H_{L-1} is layer -2 of the L + 1 hidden states. Stock LLaVA concatenates any list of layers, so SCI needs no arithmetic.
A mean is linear, so DCI becomes the list of layers 0 ... L-1 and a first layer of L w columns.

Source: H. Yao et al., "Dense Connector for MLLMs", NeurIPS 2024.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from exgra_adapter.models.connector import fold_weights

DenseConnector = Literal["none", "dci", "sci"]
SCI_LAYERS = (-2, 7, 15)
UNFOLDED_FILE = "unfolded_projector.safetensors"
"""Keeps DCI's first layer as it was before folding, in a Hugging Face folder."""


def feature_layers(connector: DenseConnector, layers: int) -> int | list[int]:
    """Returns the `vision_feature_layer` of stock LLaVA that serves a dense connector.

    Args:
        connector: The dense connector.
        layers: L, the number of layers of the vision tower.

    Raises:
        ValueError: The tower's depth does not allow it.

    Example:
        >>> feature_layers("dci", layers=4), feature_layers("sci", layers=24), feature_layers("none", layers=24)
        ([0, 1, 2, 3], [-2, 7, 15], -2)
    """
    if connector == "dci":
        if layers % 2 or layers < 2:
            raise ValueError(
                f"feature_layers: DCI needs a vision tower with an even number of layers; got {layers}. "
                "Give the tower that the checkpoint was trained with."
            )
        return list(range(layers))
    if connector == "sci":
        if layers < SCI_LAYERS[-1]:
            raise ValueError(
                f"feature_layers: SCI needs a vision tower of at least {SCI_LAYERS[-1]} layers; got {layers}. "
                "Give the tower that the checkpoint was trained with."
            )
        return list(SCI_LAYERS)
    return -2


def connector_of_layers(layer: int | list[int], layers: int) -> DenseConnector:
    """Recognises the dense connector from `vision_feature_layer`: the reverse of `feature_layers`.

    Raises:
        ValueError: The list of layers is that of no dense connector.

    Example:
        >>> connector_of_layers([-2, 7, 15], layers=24), connector_of_layers([0, 1], layers=2)
        ('sci', 'dci')
    """
    if isinstance(layer, int):
        return "none"
    if list(layer) == list(range(layers)) and layers % 2 == 0:
        return "dci"
    if list(layer) == list(SCI_LAYERS):
        return "sci"
    raise ValueError(
        f"connector_of_layers: vision_feature_layer must be one layer, {list(SCI_LAYERS)} (SCI) or all of 0 to "
        f"{layers - 1} (DCI); got {layer}. The original format has no name for other lists."
    )


def fold_dci(weight: Tensor, layers: int) -> Tensor:
    """Folds the three blocks of DCI into one block per layer.

    Args:
        weight: `(d, 3 w)`: the columns of H_{L-1}, of the lower mean, of the upper mean.
        layers: L, even.

    Returns:
        `(d, L w)` float64, for the concatenation H_0 ... H_{L-1}: W_lower / (L/2) for the lower half, W_upper / (L/2)
        for the upper half, plus W_{L-1} on the last.

    Example:
        >>> import torch
        >>> fold_dci(torch.tensor([[5.0, 2.0, 4.0]]), layers=4)
        tensor([[1., 1., 2., 7.]], dtype=torch.float64)
    """
    return fold_weights(weight.double(), layers)


def unfold_dci(weight: Tensor, layers: int) -> Tensor:
    """Recovers the three blocks from `fold_dci`'s result, to rounding.

    Args:
        weight: `(d, L w)`.
        layers: L, even, at least 4.

    Returns:
        `(d, 3 w)` float64.

    Raises:
        ValueError: The blocks of a half differ: the folded layer has been trained, and no DCI projector equals it; or
            L = 2, where the upper mean and the last layer cannot be told apart.

    Example:
        >>> import torch
        >>> unfold_dci(torch.tensor([[1.0, 1.0, 2.0, 7.0]]), layers=4)
        tensor([[5., 2., 4.]], dtype=torch.float64)
    """
    half = layers // 2
    blocks = weight.double().chunk(layers, dim=1)
    if half < 2:
        raise ValueError(
            f"unfold_dci: the vision tower must have at least 4 layers; got {layers}. "
            f"Keep {UNFOLDED_FILE} beside the weights."
        )
    lower, upper = blocks[:half], blocks[half:-1]
    if not all(torch.equal(block, group[0]) for group in (lower, upper) for block in group):
        raise ValueError(
            "unfold_dci: the projector must be that of a folded DCI connector; got blocks that differ within a half. "
            "It was trained after folding and cannot be written in the original format."
        )
    return torch.cat([blocks[-1] - upper[0], lower[0] * half, upper[0] * half], dim=1)


def is_identity(weight: Tensor, bias: Tensor | None) -> bool:
    """Whether a layer returns its input: the second layer that stands for a linear projector's missing one.

    Example:
        >>> import torch
        >>> is_identity(torch.eye(3), torch.zeros(3)), is_identity(torch.eye(3), torch.ones(3))
        (True, False)
    """
    square = weight.shape[0] == weight.shape[1]
    unchanged = square and torch.equal(weight, torch.eye(weight.shape[0], dtype=weight.dtype))
    return unchanged and (bias is None or not bool(bias.any()))
