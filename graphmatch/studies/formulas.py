"""Forms of the estimators that the study compares with, and that nobody should train with."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from graphmatch.gradients import IMLE, Oracle, PerturbedOptimizer
from graphmatch.gradients.base import Tensors, Upstream
from graphmatch.matching_projection import without_offsets


@dataclass(frozen=True, kw_only=True)
class ZeroNoiseBaseline(PerturbedOptimizer):
    """A perturbed optimizer whose baseline is the loss of the solution without noise.

    Source: the option `control_variate` of `jaxopt.perturbations.make_perturbed_argmax`.
    """

    def backward(
        self, oracle: Oracle, costs: Tensors, solutions: Tensors, saved: Tensors, upstream: Upstream, training: bool
    ) -> Upstream:
        """Returns -(1 / sigma) mean_k <g, y_k - y(c)> nu'(Z_k)."""
        *kept, weights = saved
        losses = oracle.products(costs, tuple(kept), upstream)
        pairs = zip(upstream, oracle.solve(costs).solutions, strict=True)
        centre = torch.stack([(g * y).flatten(1).sum(1) for g, y in pairs if g is not None]).sum(0)
        return replace(self, baseline="none").score_gradients(oracle, costs, losses - centre, weights)


@dataclass(frozen=True, kw_only=True)
class Balanced(PerturbedOptimizer):
    """A perturbed optimizer for enumerated problems that balances rows and columns, as it does in `MatchingLayer`."""

    def backward(
        self, oracle: Oracle, costs: Tensors, solutions: Tensors, saved: Tensors, upstream: Upstream, training: bool
    ) -> Upstream:
        """Returns the estimate without the means of the rows and columns of the unary costs."""
        first, *others = super().backward(oracle, costs, solutions, saved, upstream, training)
        return (None if first is None else without_offsets(first, costs[0], None), *others)


@dataclass(frozen=True, kw_only=True)
class IndependentNoise(IMLE):
    """One-sided I-MLE whose two sides have noise of their own, as implementations that do not keep it."""

    symmetric: bool = False

    def backward(
        self, oracle: Oracle, costs: Tensors, solutions: Tensors, saved: Tensors, upstream: Upstream, training: bool
    ) -> Tensors:
        """Returns (mean_k y(c - e'_k + lambda g) - mean_k y(c - e_k)) / lambda."""
        other = replace(self, seed=self.seed + 1)
        return other.differences(oracle, costs, solutions, saved, upstream, training, self.step)[0]


@dataclass(frozen=True, kw_only=True)
class UndividedIMLE(IMLE):
    """One-sided I-MLE that takes lambda as it is and does not divide by it.

    Args:
        factor: lambda, the factor on the upstream gradient.

    Source: P. Minervini et al., the package torch-imle: `beta` of its `TargetDistribution`.
    """

    factor: float = 1.0

    def backward(
        self, oracle: Oracle, costs: Tensors, solutions: Tensors, saved: Tensors, upstream: Upstream, training: bool
    ) -> Tensors:
        """Returns mean_k y(c - e_k + lambda g) - y(c - e_k)."""
        steps = tuple(None if g is None else self.factor * g for g in upstream)
        targets = oracle.sample(costs, self.draws, steps, (1.0,), saved).means[0]
        return tuple(target - solution for target, solution in zip(targets, solutions, strict=True))
