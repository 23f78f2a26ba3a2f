"""Optimal transport between the patches of an image and the tokens of a text, as a contrastive objective."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from exgra_adapter.objectives.base import (
    BatchViews,
    Objective,
    ObjectiveResult,
    accepted_pairs,
    check_option,
    retrieval,
    view_retrieval,
)
from exgra_adapter.objectives.contrastive import LearnedScale, symmetric_cross_entropy

# Entries of the cosines that are in memory at once: 64 MiB of float32, of which an iteration holds about three.
_MOST_ENTRIES = 2**24


class OptimalTransport(Objective):
    """Cross entropy on similarities by optimal transport between the patches of an image and the tokens of a text.

    For image i and text j with cosines c_pq of patch p and token q, the plan T is the entropic optimum of the costs
    1 - c: max <T, c> + epsilon H(T) with uniform marginals over what the masks keep. The similarity is <T, c>, the loss
    that of `InfoNCE` on the matrix of all similarities, with a learned scale; groups as there.

    The plan is a constant for the gradient, as in the source: by the envelope theorem that is the gradient of the
    entropic optimum. The iteration runs in the log domain in float32; it makes `iterations` sweeps, with no test of
    convergence, and ends with the tokens, whose marginals are exact.

    Images of more than `max_patches` patches are average-pooled first: a square grid to a smaller one, any other row of
    patches to pieces of equal length.

    Cost: O(n^2 p t) per sweep. Blocks of images bound the memory: the forward pass keeps two potentials per pair, n^2
    (p + t) numbers, and the backward pass computes plans again from them.

    Args:
        dim: Length d of patches and tokens.
        text: Whose tokens `BatchViews.tokens` are: "answer" or "extended".
        temperature: At the beginning; learned, at least 0.01.
        epsilon: Weight of the entropy, in units of the cosines.
        iterations: Sweeps.
        max_patches: A square number keeps square grids square.

    Source: G. Chen et al., "PLOT: Prompt learning with optimal transport for vision-language models", ICLR 2023
        (transport between patches and texts, plan without gradient, epsilon 0.1; there the texts are learned prompts).

    Example:
        >>> import torch
        >>> from exgra_adapter.objectives import BatchViews, build_objective
        >>> patches = torch.eye(8).reshape(4, 2, 8)
        >>> objective = build_objective("optimal_transport", dim=8)
        >>> views = BatchViews(patches.mean(1), patches.mean(1), patches=patches, tokens=patches.flip(1))
        >>> objective(views).metrics["transport_retrieval"]
        tensor(1.)
    """

    scope: ClassVar[Literal["global", "local"]] = "local"

    def __init__(
        self,
        dim: int,
        text: Literal["answer", "extended"] = "answer",
        temperature: float = 0.07,
        epsilon: float = 0.1,
        iterations: int = 50,
        max_patches: int = 64,
    ) -> None:
        where = "OptimalTransport"
        check_option(where, "text", text, text in ("answer", "extended"), "be answer or extended", "Pick one.")
        super().__init__(dim, ("image", text))
        usable = 0.01 <= temperature < math.inf
        check_option(where, "temperature", temperature, usable, "be finite and at least 0.01", "Try 0.07.")
        usable = 1e-3 <= epsilon < math.inf
        check_option(where, "epsilon", epsilon, usable, "be finite and at least 0.001", "0.1 suits cosines.")
        check_option(where, "iterations", iterations, iterations >= 1, "be at least 1", "50 is the default.")
        check_option(where, "max_patches", max_patches, max_patches >= 1, "be at least 1", "64 is the default.")
        self.text: str = text
        self.epsilon, self.iterations, self.max_patches = epsilon, iterations, max_patches
        self.scale = LearnedScale(temperature)
        self.needs |= {"patches", "tokens"}

    def _align(self, views: BatchViews) -> ObjectiveResult:
        patches, patch_mask = _with_mask(views.required("patches"), views.patch_mask)
        tokens, token_mask = _with_mask(views.required("tokens"), views.token_mask)
        nodes = {"image": views.image, self.text: views.required(self.text)}
        groups = {name: views.group_row(name) for name in nodes}
        patches, patch_mask = pool(patches, patch_mask, self.max_patches)
        similarity = transport_similarity(patches, patch_mask, tokens, token_mask, self.epsilon, self.iterations)
        accepted = accepted_pairs(groups["image"], groups[self.text], similarity)
        metrics = {
            "retrieval": view_retrieval(nodes, groups),
            "transport_retrieval": 0.5 * (retrieval(similarity, accepted) + retrieval(similarity.T, accepted.T)),
            "temperature": self.scale.temperature,
        }
        return ObjectiveResult(symmetric_cross_entropy(self.scale() * similarity, accepted), metrics)


def transport_similarity(
    patches: Tensor,
    patch_mask: Tensor,
    tokens: Tensor,
    token_mask: Tensor,
    epsilon: float,
    iterations: int,
    most_entries: int = _MOST_ENTRIES,
) -> Tensor:
    """Returns <plan, cosines> of every image and every text, `(n, m)`, differentiable with the plan as a constant.

    Args:
        patches: `(n, p, d)` float32 or float64.
        patch_mask: `(n, p)` bool, at least one per row.
        tokens: `(m, t, d)`.
        token_mask: `(m, t)` bool, at least one per row.
        epsilon: Weight of the entropy.
        iterations: Sweeps.
        most_entries: Of the cosines in memory at once, one image against all texts at least.

    Example:
        >>> import torch
        >>> image, text, all_real = torch.eye(2)[None], torch.eye(2)[None].flip(1), torch.ones(1, 2).bool()
        >>> transport_similarity(image, all_real, text, all_real, epsilon=0.05, iterations=50)
        tensor([[1.]])
    """
    left, right = F.normalize(patches, dim=-1), F.normalize(tokens, dim=-1)
    masses = _log_uniform(patch_mask, left.dtype), _log_uniform(token_mask, right.dtype)
    entries_per_image = max(left.shape[1] * right.shape[0] * right.shape[1], 1)
    block = max(most_entries // entries_per_image, 1)
    rows = []
    for first in range(0, len(left), block):
        images = left[first : first + block]
        with torch.no_grad():
            potentials = _potentials(
                _cosines(images, right) / epsilon, masses[0][first : first + block], masses[1], iterations
            )
        arguments = (images, right, *potentials, epsilon)
        if block < len(left) and torch.is_grad_enabled():
            rows.append(checkpoint(_products, *arguments, use_reentrant=False, preserve_rng_state=False))
        else:
            rows.append(_products(*arguments))
    return torch.cat(rows)


def pool(values: Tensor, mask: Tensor, largest: int) -> tuple[Tensor, Tensor]:
    """Returns at most `largest` means of neighbouring patches `(n, p', d)`, and which of them hold a real patch.

    Args:
        values: `(n, p, d)`; a square number of patches counts as a grid in raster order.
        mask: `(n, p)` bool.
        largest: p' at most.
    """
    count = values.shape[1]
    if count <= largest:
        return values, mask
    side, target = math.isqrt(count), math.isqrt(largest)
    place = torch.arange(count, device=values.device)
    if side * side == count:
        row, column = (each * target // side for each in (place // side, place % side))
        cell, cells = row * target + column, target * target
    else:
        cell, cells = place * largest // count, largest
    # As a product: adaptive pooling has no deterministic gradient on GPUs.
    membership = F.one_hot(cell, cells).T.to(values.dtype) * mask[:, None, :].to(values.dtype)
    weight = membership.sum(2, keepdim=True)
    return membership @ values / weight.clamp(min=1), weight[:, :, 0] > 0


def _with_mask(values: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Returns values without whatever padding holds, and a mask."""
    if mask is None:
        return values, torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
    real = mask.bool()
    return torch.where(real[:, :, None], values, 0), real


def _log_uniform(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns the logarithm of uniform masses on what a mask keeps; minus infinity elsewhere."""
    real = mask.to(dtype)
    return (real / real.sum(1, keepdim=True)).log()


def _cosines(images: Tensor, texts: Tensor) -> Tensor:
    """Returns `(n, p, m, t)`: a matrix product leaves them in this order."""
    return (images.flatten(0, 1) @ texts.flatten(0, 1).T).reshape(*images.shape[:2], *texts.shape[:2])


def _potentials(scores: Tensor, log_left: Tensor, log_right: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Returns u `(n, p, m, 1)` and v `(n, 1, m, t)` so that exp(scores + u + v) has the given marginals."""
    left, right = log_left[:, :, None, None], log_right[None, None]
    u, v = left, right
    for _ in range(iterations):
        u = left - torch.logsumexp(scores + v, 3, keepdim=True)
        v = right - torch.logsumexp(scores + u, 1, keepdim=True)
    return u, v


def _products(images: Tensor, texts: Tensor, u: Tensor, v: Tensor, epsilon: float) -> Tensor:
    cosines = _cosines(images, texts)
    plan = (cosines.detach() / epsilon + u + v).exp()
    return (plan * cosines).sum((1, 3))
