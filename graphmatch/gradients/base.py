"""What a gradient estimator is, and how one becomes a differentiable function.

Every matching problem is linear in its costs: solution(c) = argmin_y <c, y> over the 0/1 vectors y of valid matchings,
where c collects all cost tensors of a problem (unary and quadratic) and y the entries that are paid. An estimator needs
no more than that oracle.

All estimators here are homogeneous: the perturbation has a fixed size in cost units, so that lambda = size / max|g| of
each problem, and grad(s L) = s grad(L) for every s > 0: loss weights, gradient accumulation and loss scaling of mixed
precision act as they should.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

Tensors = tuple[Tensor, ...]
# Gradients of a loss with respect to solutions; None where it does not depend on one.
Upstream = tuple[Tensor | None, ...]


class Oracle(Protocol):
    """argmin_y <c, y>, batched: cost tensors (m * b, ...) in, 0/1 tensors of the same shapes out.

    The batch may hold m >= 1 variants of the same b problems, variant after variant.
    """

    def __call__(self, costs: Tensors) -> Tensors:
        """Returns the solutions."""
        ...


class GradientEstimator(Protocol):
    """How to differentiate through an oracle."""

    def forward(self, oracle: Oracle, costs: Tensors, key: Tensor, training: bool) -> tuple[Tensors, Tensors]:
        """Returns the solutions shown to the model and what `backward` needs of them.

        Args:
            oracle: The solver.
            costs: (b, ...) float32 or float64 tensors.
            key: 0-d int64, different for each call: seeds the noise.
            training: Whether noise is wanted.
        """
        ...

    def backward(
        self, oracle: Oracle, costs: Tensors, saved: Tensors, upstream: Upstream, key: Tensor, training: bool
    ) -> Tensors:
        """Returns the gradients of the loss with respect to the costs, given those with respect to the solutions.

        `upstream` holds None for solutions that the loss does not depend on.
        """
        ...


class _EstimatedSolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, estimator: GradientEstimator, oracle: Oracle, key: Tensor, training: bool, *costs: Tensor
    ) -> Tensors:
        solutions, saved = estimator.forward(oracle, costs, key, training)
        ctx.set_materialize_grads(False)
        ctx.call = (estimator, oracle, training)
        ctx.cost_count = len(costs)
        ctx.save_for_backward(key, *costs, *saved)
        return solutions

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        if all(gradient is None for gradient in upstream):
            return (None,) * (4 + ctx.cost_count)
        estimator, oracle, training = ctx.call
        key, *tensors = ctx.saved_tensors
        costs, saved = tuple(tensors[: ctx.cost_count]), tuple(tensors[ctx.cost_count :])
        gradients = estimator.backward(oracle, costs, saved, upstream, key, training)
        return (None, None, None, None, *gradients)


def estimated_solution(
    estimator: GradientEstimator, oracle: Oracle, costs: Tensors, key: Tensor, training: bool
) -> Tensors:
    """Returns oracle(costs), differentiable by the estimator.

    Args:
        estimator: Any gradient estimator.
        oracle: Any solver as a function of its cost tensors.
        costs: (b, ...) float32 or float64 tensors.
        key: 0-d int64, different for each call: seeds the noise.
        training: Whether the estimator may perturb the forward solutions.
    """
    return _EstimatedSolution.apply(estimator, oracle, key, training, *costs)


def perturbation(upstream: Upstream, size: float) -> tuple[Upstream, Tensor]:
    """Returns lambda * upstream with lambda = size / max|upstream| per problem, and 1 / lambda.

    Problems without upstream gradient are left alone and get 1 / lambda = 0. Where the upstream gradient is not finite
    (an overflow of scaled half precision), 1 / lambda is NaN, so that the overflow stays visible to the loss scaler.

    Args:
        upstream: (b, ...) tensors, at least one of them not None.
        size: Largest change of a cost.

    Returns:
        Tensors shaped as upstream with entries in [-size, size] (None stays), and (b,) inverse lambdas.
    """
    given = [gradient for gradient in upstream if gradient is not None]
    batch = given[0].shape[0]
    peaks = [gradient.abs().flatten(1).amax(1) for gradient in given if gradient.numel() > 0]
    peak = torch.stack(peaks).amax(0) if peaks else given[0].new_zeros(batch)
    usable = torch.isfinite(peak) & (peak > 0)
    divisor = torch.where(usable, peak, 1.0)

    def scaled(gradient: Tensor | None) -> Tensor | None:
        if gradient is None:
            return None
        shape = (batch, *[1] * (gradient.ndim - 1))
        return torch.where(usable.view(shape), gradient / divisor.view(shape), 0.0) * size

    inverse = torch.where(usable, peak / size, torch.where(peak == 0, 0.0, torch.nan))
    return tuple(scaled(gradient) for gradient in upstream), inverse


def moved(costs: Tensors, steps: Upstream, sign: int = 1) -> Tensors:
    """Returns costs + sign * steps; costs without a step are handed on as they are."""
    return tuple(
        cost if step is None else torch.add(cost, step, alpha=sign) for cost, step in zip(costs, steps, strict=True)
    )


def weighted(difference: Tensor, weight: Tensor) -> Tensor:
    """Returns difference (b, ...) times weight (b,)."""
    return difference * weight.view(-1, *[1] * (difference.ndim - 1))
