"""Samples of any solver: noisy copies of a batch in as few calls as memory allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from graphmatch.gradients.base import Reliability, Tensors, Upstream, along
from graphmatch.noise import Noise, score
from graphmatch.result import relative_gap

# Of one call's costs; more samples take more calls.
_MOST_BYTES = 16_000_000

# Standard noise (count, b, ...) on one cost tensor: (place of the tensor, first sample, count) -> Tensor.
Draw = Callable[[int, int, int], Tensor]


class Answers(NamedTuple):
    """What a solver returns for m * b problems.

    Attributes:
        solutions: (m * b, ...) per cost tensor.
        kept: What remains of each solution when solutions are kept, (m * b, ...).
        certificates: objective, lower_bound, status, iterations, (m * b,) each; or nothing.
    """

    solutions: Tensors
    kept: Tensors = ()
    certificates: Tensors = ()


class SampleMeans(NamedTuple):
    """Means (V, b, ...) per cost tensor; kept (V, S, b, ...); certificates (V, S, b)."""

    means: Tensors
    kept: Tensors
    certificates: Tensors


def sample_means(
    solve: Callable[[Tensors], Answers],
    draw: Draw,
    costs: Tensors,
    noise: Noise,
    steps: Upstream | None,
    signs: tuple[float, ...],
    keep: bool,
    reliability: Reliability,
) -> SampleMeans:
    """Returns the mean solutions of costs - noise + sign * steps for each sign, samples weighted by reliability.

    Memory does not grow with the number of samples, but for what is kept and the certificates.
    """
    batch, variants = costs[0].shape[0], len(signs)
    block = _block(costs, variants, noise.samples)
    sums: list[Tensor] = []
    totals: list[Tensor] = []
    kept: list[Tensors] = []
    certificates: list[Tensors] = []
    for first in range(0, noise.samples, block):
        count = min(block, noise.samples - first)
        variants_of = _variants(costs, noise, draw, steps, signs, first, count)
        answers = solve(variants_of)
        seen = tuple(each.unflatten(0, (variants, count, batch)) for each in answers.certificates)
        weights = sample_weights(seen, reliability, (count, batch), costs[0])
        totals.append(weights.sum(0))
        found = [_weighted_sum(each.unflatten(0, (variants, count, batch)), weights) for each in answers.solutions]
        sums = [total.add_(each) for total, each in zip(sums, found, strict=True)] if sums else found
        if keep:
            kept.append(tuple(each.reshape(variants, count, batch, *each.shape[1:]) for each in answers.kept))
        certificates.append(seen)
        del variants_of, answers, found  # before the next block is made
    # Without a weight the sum is zero as well.
    share = sum(totals[1:], totals[0]).clamp(min=torch.finfo(costs[0].dtype).tiny).reciprocal()
    means = tuple(each.mul_(along(share, each[0])) for each in sums)
    return SampleMeans(means, _joined(kept), _joined(certificates))


def _weighted_sum(solutions: Tensor, weights: Tensor) -> Tensor:
    """Returns the sum over the samples of solutions (V, S, b, ...) with weights (S, b): a new tensor (V, b, ...)."""
    scale = weights.reshape(*weights.shape, *[1] * (solutions.ndim - 3))
    if len(weights) == 1:
        return solutions[:, 0] * scale
    return torch.stack([(scale * each).sum(0) for each in solutions])  # one variant's products at a time


def weighted_scores(draw: Draw, costs: Tensors, noise: Noise, weights: Tensor) -> Upstream:
    """Returns sum_k weights[k] nu'(Z_k) per cost tensor; see `Oracle.scores`."""
    block = _block(costs, 1, noise.samples)
    sums = [torch.zeros_like(cost) for cost in (costs if noise.everywhere else costs[:1])]
    for first in range(0, noise.samples, block):
        count = min(block, noise.samples - first)
        for place, total in enumerate(sums):
            values = score(noise.kind, draw(place, first, count).to(total.dtype))
            scale = weights[first : first + count].to(values.dtype)
            total += (scale.reshape(*scale.shape, *[1] * (values.ndim - 2)) * values).sum(0)
    return (*sums, *[None] * (len(costs) - len(sums)))


def _block(costs: Tensors, variants: int, samples: int) -> int:
    """Returns the samples of one call, in whole groups of coupled ones."""
    size = sum(cost.numel() * cost.element_size() for cost in costs) * variants
    fitting = max(_MOST_BYTES // max(size, 1), 1)
    return samples if fitting >= samples else max(fitting // 32 * 32, 2 if fitting > 1 else 1)


def _variants(
    costs: Tensors, noise: Noise, draw: Draw, steps: Upstream | None, signs: tuple[float, ...], first: int, count: int
) -> Tensors:
    """Returns the costs of all variants and samples, (V * count * b, ...)."""
    given = steps if steps is not None else (None,) * len(costs)
    moved = []
    for place, (cost, step) in enumerate(zip(costs, given, strict=True)):
        if place == 0 or noise.everywhere:
            noisy = cost - noise.scale * draw(place, first, count).to(cost.dtype)
        else:
            noisy = cost.expand(count, *cost.shape)
        each = [_stepped(noisy, step, sign).flatten(0, 1) for sign in signs]
        moved.append(torch.cat(each) if len(each) > 1 else each[0])
    return tuple(moved)


def _stepped(costs: Tensor, step: Tensor | None, sign: float) -> Tensor:
    if step is None or sign == 0:
        return costs
    return costs + step if sign == 1 else costs - step if sign == -1 else costs + sign * step


def sample_weights(certificates: Tensors, reliability: Reliability, shape: tuple[int, int], like: Tensor) -> Tensor:
    """Returns the weight of each sample (count, b): those of a sample without a solution are zero.

    Args:
        certificates: Objective and lower bound first, (V, count, b) each; or nothing, and all samples count alike.
        reliability: What becomes of samples whose optimum is not certified.
        shape: (count, b).
        like: Gives dtype and device.
    """
    if not certificates:
        return like.new_ones(shape)
    objective, bound = certificates[0], certificates[1]
    solved = (objective.abs() < torch.inf).all(0)
    limit = reliability.open_gap
    if limit is None:
        return solved.to(like.dtype)
    gap = relative_gap(objective, bound).amax(0)
    weight = torch.where(
        gap <= limit, 1.0, limit / gap.clamp(min=torch.finfo(gap.dtype).tiny) if reliability.weigh else 0.0
    )
    return torch.where(solved, weight, 0.0).to(like.dtype)


def _joined(blocks: list[Tensors]) -> Tensors:
    return tuple(torch.cat(parts, 1) if len(parts) > 1 else parts[0] for parts in zip(*blocks, strict=True))
