"""Black-box differentiation: the gradient of a piecewise-linear interpolation of the loss."""

from __future__ import annotations

from dataclasses import dataclass

from graphmatch import _check
from graphmatch.gradients.base import Forward, Oracle, Tensors, Upstream, perturbation, weighted


@dataclass(frozen=True)
class BlackBox:
    """Gradient (y(c + lambda g) - y(c)) / lambda, with lambda = step / max|g| of each problem.

    g is the upstream gradient dL/dy. One solve forward and one backward, no noise: no variance. The gradient of a
    piecewise-linear interpolation of the loss, which is zero wherever the perturbation does not change the solution: a
    larger step looks further, at the price of a larger bias.

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
        _check.numbers(self)
        _check.option("BlackBox", "step", self.step, self.step > 0, "be positive", "1.0 suits costs of unit size.")

    def forward(self, oracle: Oracle, costs: Tensors, training: bool) -> Forward:
        """Returns y(c)."""
        solved = oracle.solve(costs)
        return Forward(solved.solutions, solved.state, solved.report)

    def backward(
        self, oracle: Oracle, costs: Tensors, solutions: Tensors, saved: Tensors, upstream: Upstream, training: bool
    ) -> Tensors:
        """Returns (y(c + lambda g) - y(c)) / lambda."""
        steps, inverse = perturbation(upstream, self.step)
        targets = oracle.solve(costs, steps, saved).solutions
        return tuple(weighted(target - solution, inverse) for target, solution in zip(targets, solutions, strict=True))
