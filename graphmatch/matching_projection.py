"""Directions in the costs of matching problems that no solution depends on."""

from __future__ import annotations

import torch
from torch import Tensor

# Sweeps over rows and columns where assignments are forbidden; without any, one is exact.
_SWEEPS = 8


def without_offsets(gradient: Tensor, costs: Tensor, sizes: Tensor | None) -> Tensor:
    """Returns gradients (b, n1, n2) of complete matchings without constants on rows or columns that are all matched.

    Rows are all matched where n1 <= n2, columns where n1 >= n2. Padding and forbidden entries become zero.

    Args:
        gradient: (b, n1, n2).
        costs: (b, n1, n2); +inf forbids.
        sizes: (b, 2) real rows and columns, or None.
    """
    real = _real(costs, sizes) & (costs != torch.inf)
    rows, columns = _extent(costs, sizes)
    result = torch.where(real, gradient, 0)
    for _ in range(_SWEEPS):
        result = torch.where(real & (rows <= columns), result - _mean(result, real, 2), result)
        result = torch.where(real & (rows >= columns), result - _mean(result, real, 1), result)
    return result


def without_mean(gradient: Tensor, sizes: Tensor | None) -> Tensor:
    """Returns gradients (b, rows, columns) minus the mean of the real ones; padding becomes zero."""
    real = _real(gradient, sizes)
    count = real.sum((1, 2), keepdim=True).clamp(min=1)
    return torch.where(real, gradient - torch.where(real, gradient, 0).sum((1, 2), keepdim=True) / count, 0)


def without_padding(gradient: Tensor, sizes: Tensor | None) -> Tensor:
    """Returns gradients (b, rows, columns) with zero padding."""
    return torch.where(_real(gradient, sizes), gradient, 0)


def _extent(like: Tensor, sizes: Tensor | None) -> tuple[Tensor | int, Tensor | int]:
    if sizes is None:
        return like.shape[1], like.shape[2]
    return sizes[:, 0, None, None], sizes[:, 1, None, None]


def _real(like: Tensor, sizes: Tensor | None) -> Tensor:
    rows, columns = _extent(like, sizes)
    inside = torch.arange(like.shape[1], device=like.device)[:, None] < rows
    return (inside & (torch.arange(like.shape[2], device=like.device) < columns)).expand(like.shape)


def _mean(values: Tensor, real: Tensor, axis: int) -> Tensor:
    return values.sum(axis, keepdim=True) / real.sum(axis, keepdim=True).clamp(min=1)
