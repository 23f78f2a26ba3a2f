"""Implicit maximum likelihood estimation: perturb-and-MAP differences under common noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from graphmatch import _check
from graphmatch.gradients.base import Oracle, Tensors, Upstream, moved, perturbation, weighted
from graphmatch.gradients.noise import gaussian_noise, gumbel_noise

_NOISE = {"gumbel": gumbel_noise, "gaussian": gaussian_noise}


@dataclass(frozen=True)
class IMLE:
    """Mean over noise of (y(c - e + lambda g) - y(c - e - lambda g)) / (2 lambda), with lambda = step / max|g|.

    g is the upstream gradient dL/dy of each problem, e the noise on its unary costs (costs are minimised, so noise on
    the affinities is subtracted). The same noise is used on both sides, which keeps the variance low, and the symmetric
    difference has bias O(lambda^2); the one-sided form (y(c - e + lambda g) - y(c - e)) / lambda has O(lambda). The
    forward pass returns the mean of y(c - e) over the samples; in evaluation there is no noise.

    Solves: `samples` forward and 2 * `samples` backward (symmetric) or `samples` (one-sided), one native call each.

    Args:
        samples: Noise draws per problem and call.
        step: Largest change of a cost by the perturbation, in units of `noise_scale`. 0.3 has the least error as a
            gradient of the smoothed loss; larger steps look further and leave fewer gradients at zero.
        noise_scale: Scale of the noise in units of the costs; standard deviation 1.28 times that for Gumbel noise.
        noise: "gumbel" or "gaussian".
        symmetric: Symmetric or one-sided difference.
        seed: Any int; noise depends on (seed, call, sample, problem, entry) and nothing else.

    Source: M. Niepert et al., "Implicit MLE", NeurIPS 2021; P. Minervini et al., "Adaptive perturbation-based gradient
        estimation", AAAI 2023 (symmetric form). Lambda here is relative to g, which makes the estimator homogeneous.

    Example:
        >>> import torch, graphmatch as gm
        >>> layer = gm.MatchingLayer(solver=gm.LAP(), gradient=gm.IMLE(samples=64, noise_scale=0.5))
        >>> costs = torch.zeros(1, 2, 2, requires_grad=True)
        >>> gm.hamming_loss(layer(costs), torch.eye(2)).backward()
        >>> bool(costs.grad[0, 0, 0] > 0), bool(costs.grad[0, 0, 1] < 0)  # minus the gradient favours the identity
        (True, True)
    """

    samples: int = 1
    step: float = 1.0
    noise_scale: float = 0.3
    noise: Literal["gumbel", "gaussian"] = "gumbel"
    symmetric: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the options."""
        where = "IMLE"
        _check.option(where, "samples", self.samples, self.samples >= 1, "be at least 1", "1 is the cheapest.")
        _check.option(where, "step", self.step, self.step > 0, "be positive", "1.0 is the default.")
        _check.option(where, "noise_scale", self.noise_scale, self.noise_scale > 0, "be positive", "Or use BlackBox.")
        if self.noise not in _NOISE:
            raise ValueError(_check.message(where, "noise", f"be one of {list(_NOISE)}", repr(self.noise), "Pick one."))

    def forward(self, oracle: Oracle, costs: Tensors, key: Tensor, training: bool) -> tuple[Tensors, Tensors]:
        """Returns the mean of y(c - e)."""
        solutions = oracle(self._noisy(costs, key, training))
        return self._means(solutions, costs), () if self.symmetric else solutions

    def backward(
        self, oracle: Oracle, costs: Tensors, saved: Tensors, upstream: Upstream, key: Tensor, training: bool
    ) -> Tensors:
        """Returns the mean difference under the noise of the forward pass."""
        steps, inverse = perturbation(upstream, self.step * self.noise_scale)
        noisy = self._noisy(costs, key, training)
        samples = noisy[0].shape[0] // max(costs[0].shape[0], 1)
        repeated = tuple(None if step is None else _repeated(step, samples) for step in steps)
        worse = moved(noisy, repeated)
        if self.symmetric:
            better = moved(noisy, repeated, sign=-1)
            both = oracle(tuple(torch.cat([a, b]) for a, b in zip(worse, better, strict=True)))
            differences = tuple(0.5 * (y[: len(y) // 2] - y[len(y) // 2 :]) for y in both)
        else:
            differences = tuple(y - base for y, base in zip(oracle(worse), saved, strict=True))
        return tuple(weighted(mean, inverse) for mean in self._means(differences, costs))

    def _noisy(self, costs: Tensors, key: Tensor, training: bool) -> Tensors:
        """Returns c - e, sample after sample; the costs themselves in evaluation."""
        if not training:
            return costs
        unary, *others = costs
        noise = self.noise_scale * _NOISE[self.noise](self.samples, unary, self.seed, key)
        return ((unary - noise).flatten(0, 1), *(_repeated(other, self.samples) for other in others))

    @staticmethod
    def _means(values: Tensors, costs: Tensors) -> Tensors:
        return tuple(
            value.unflatten(0, (len(value) // max(len(cost), 1), len(cost))).mean(0)
            for value, cost in zip(values, costs, strict=True)
        )


def _repeated(tensor: Tensor, times: int) -> Tensor:
    return tensor if times == 1 else tensor.repeat(times, *[1] * (tensor.ndim - 1))
