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
    sums = [cost.new_zeros(variants, *cost.shape) for cost in costs]
    total = costs[0].new_zeros(batch)
    kept: list[Tensors] = []
    certificates: list[Tensors] = []
    for first in range(0, noise.samples, block):
        count = min(block, noise.samples - first)
        variants_of = _variants(costs, noise, draw, steps, signs, first, count)
        answers = solve(variants_of)
        seen = tuple(each.unflatten(0, (variants, count, batch)) for each in answers.certificates)
        weights = sample_weights(seen, reliability, (count, batch), costs[0])
        total += weights.sum(0)
        for place, solution in enumerate(answers.solutions):
            by_variant = solution.reshape(variants, count, batch, *solution.shape[1:])
            scale = weights.reshape(count, batch, *[1] * (solution.ndim - 1))
            for variant in range(variants):
                sums[place][variant] += (scale * by_variant[variant]).sum(0)
        if keep:
            kept.append(tuple(each.reshape(variants, count, batch, *each.shape[1:]) for each in answers.kept))
        certificates.append(seen)
        del variants_of, answers, solution, by_variant  # before the next block is made
    share = torch.where(total > 0, 1 / total.clamp(min=torch.finfo(total.dtype).tiny), 0.0)
    means = tuple(each * along(share, each[0]) for each in sums)
    return SampleMeans(means, _joined(kept), _joined(certificates))


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
        each = [noisy if step is None or sign == 0 else noisy + sign * step for sign in signs]
        moved.append(torch.cat([one.flatten(0, 1) for one in each]))
    return tuple(moved)


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
    gap = relative_gap(objective, bound).amax(0)
    solved = torch.isfinite(objective).all(0)
    limit = reliability.open_gap
    if limit is None:
        return solved.to(like.dtype)
    weight = torch.where(
        gap <= limit, 1.0, limit / gap.clamp(min=torch.finfo(gap.dtype).tiny) if reliability.weigh else 0.0
    )
    return torch.where(solved, weight, 0.0).to(like.dtype)


def _joined(blocks: list[Tensors]) -> Tensors:
    return tuple(torch.cat(parts, 1) for parts in zip(*blocks, strict=True))
