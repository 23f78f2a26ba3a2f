"""Black-box differentiation: the gradient of a piecewise-linear interpolation of the loss."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from graphmatch import _check
from graphmatch.gradients.base import Oracle, Tensors, Upstream, moved, perturbation, weighted


@dataclass(frozen=True)
class BlackBox:
    """Gradient (y(c + lambda g) - y(c)) / lambda, with lambda = step / max|g| of each problem.

    g is the upstream gradient dL/dy. Deterministic, no noise; one solve forward and one backward. Zero wherever the
    perturbation does not change the solution: a larger step looks further, and at the price of a coarser gradient.

    Args:
        step: Largest change of a cost by the perturbation, in units of the costs.

    Source: M. Vlastelica et al., "Differentiation of blackbox combinatorial solvers", ICLR 2020, equation 3; lambda
        here is relative to g, which makes the estimator homogeneous.

    Example:
        >>> import torch, graphmatch as gm
        >>> layer = gm.MatchingLayer(solver=gm.LAP(), gradient=gm.BlackBox(step=1.0))
        >>> costs = torch.tensor([[[0.0, 0.5], [0.5, 0.0]]], requires_grad=True)
        >>> gm.hamming_loss(layer(costs), torch.eye(2)[[1, 0]]).backward()  # wants the swap
        >>> costs.grad
        tensor([[[-0.5000,  0.5000],
                 [ 0.5000, -0.5000]]])
    """

    step: float = 1.0

    def __post_init__(self) -> None:
        """Checks the options."""
        _check.option("BlackBox", "step", self.step, self.step > 0, "be positive", "1.0 suits costs of unit size.")

    def forward(self, oracle: Oracle, costs: Tensors, key: Tensor, training: bool) -> tuple[Tensors, Tensors]:
        """Returns y(c)."""
        solutions = oracle(costs)
        return solutions, solutions

    def backward(
        self, oracle: Oracle, costs: Tensors, saved: Tensors, upstream: Upstream, key: Tensor, training: bool
    ) -> Tensors:
        """Returns (y(c + lambda g) - y(c)) / lambda."""
        steps, inverse = perturbation(upstream, self.step)
        targets = oracle(moved(costs, steps))
        return tuple(weighted(target - solution, inverse) for target, solution in zip(targets, saved, strict=True))
