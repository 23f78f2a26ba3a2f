"""Losses and measures on matchings and node features."""

from __future__ import annotations

import torch
from torch import Tensor

from graphmatch import _check
from graphmatch.affinity import cosine_affinity


def hamming_loss(matching: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Returns the mean Hamming distance between 0/1 matchings and their targets, per node that has a target.

    Both kinds of error count: a pair that should not be matched, and a node that misses its target. A complete matching
    that is wrong everywhere scores 2.

    Args:
        matching: (b, n1, n2) 0/1, differentiable through a gradient estimator.
        target: (n1, n2) or (b, n1, n2) 0/1. A row with several ones accepts any of them; a row without any should
            not be matched.
        mask: (n1,) or (b, n1) bool, the nodes that count; None = all.

    Returns:
        Scalar in [0, 2] for complete matchings, 0 for an empty batch or an empty target. In float32 at least: a loss
        scaled for float16 exceeds what float16 holds.

    Example:
        >>> import torch, graphmatch as gm
        >>> gm.hamming_loss(torch.eye(3)[[1, 0, 2]][None], torch.eye(3))
        tensor(1.3333)
    """
    _check.tensor("hamming_loss", "matching", matching, 3, "(b, n1, n2)")
    matching = matching if matching.dtype == torch.float64 else matching.float()
    if not isinstance(target, Tensor):
        cure = "Convert it with torch.as_tensor."
        raise TypeError(_check.message("hamming_loss", "target", "be a torch.Tensor", _check.describe(target), cure))
    if target.shape[-2:] != matching.shape[1:] or target.shape[:-2] not in ((), (1,), matching.shape[:1]):
        rule = f"have shape {tuple(matching.shape)} or {tuple(matching.shape[1:])}, as the matching"
        received = tuple(target.shape)
        raise ValueError(_check.message("hamming_loss", "target", rule, received, "Pass a 0/1 matching per problem."))
    target = target.to(matching.dtype).expand_as(matching)
    if mask is not None:
        _check.boolean("hamming_loss", "mask", mask)
        if mask.shape not in (matching.shape[:2], matching.shape[1:2]):
            rule = f"have shape {tuple(matching.shape[:2])} or {tuple(matching.shape[1:2])}"
            raise ValueError(_check.message("hamming_loss", "mask", rule, tuple(mask.shape), "One entry per node."))
        matching, target = (torch.where(mask[..., None], each, 0) for each in (matching, target))
    has_target = target.amax(2) if target.shape[2] else target.sum(2)
    # Linear in the matching, so its gradient is a cost vector that an estimator can follow.
    wrong = (matching * (1 - target)).sum()
    missing = has_target.sum() - (matching * target).sum()
    return (wrong + missing) / has_target.sum().clamp(min=1)


def masked_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """Returns the mean over the tokens of each text, padding left out.

    Args:
        hidden: (n, t, d) floating point; summed in float32 at least.
        mask: (n, t) bool or 0/1, 1 = a real token.

    Returns:
        (n, d) in the dtype of `hidden`.

    Raises:
        ValueError: If shapes disagree or a text has no token at all.

    Example:
        >>> import torch, graphmatch as gm
        >>> gm.masked_mean(torch.tensor([[[1.0], [3.0], [99.0]]]), torch.tensor([[1, 1, 0]]))
        tensor([[2.]])
    """
    where = "masked_mean"
    _check.tensor(where, "hidden", hidden, 3, "(n, t, d)")
    _check.shape(where, "mask", _check.tensor(where, "mask", mask, 2, "(n, t)"), hidden.shape[:2], "as hidden")
    real = mask.bool()
    counts = real.sum(1)
    if bool((counts == 0).any()):
        empty = (counts == 0).nonzero()[0].item()
        raise ValueError(
            _check.message(where, "mask", "keep a token of every text", f"none in text {empty}", "Drop it.")
        )
    exact = hidden.double() if hidden.dtype == torch.float64 else hidden.float()
    total = torch.where(real[:, :, None], exact, 0).sum(1)
    return (total / counts[:, None]).to(hidden.dtype)


def retrieval_accuracy(queries: Tensor, keys: Tensor) -> Tensor:
    """Returns the share of rows whose nearest key by cosine is the row of the same index.

    Args:
        queries: (n, d) floating point.
        keys: (n, d).

    Returns:
        Scalar in [0, 1], not differentiable; NaN for n = 0.

    Example:
        >>> import torch, graphmatch as gm
        >>> gm.retrieval_accuracy(torch.eye(3), torch.eye(3)[[0, 2, 1]])
        tensor(0.3333)
    """
    _check.tensor("retrieval_accuracy", "queries", queries, 2, "(n, d)")
    _check.shape("retrieval_accuracy", "keys", keys, queries.shape, "as queries")
    if queries.shape[0] == 0:
        return torch.full((), torch.nan, device=queries.device)
    nearest = cosine_affinity(queries.detach(), keys.detach()).argmax(1)
    return (nearest == torch.arange(len(nearest), device=nearest.device)).float().mean()
