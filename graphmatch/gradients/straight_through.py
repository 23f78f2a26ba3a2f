"""Straight-through: hard solutions forward, the gradient of an entropic relaxation backward."""

from __future__ import annotations

from dataclasses import dataclass

from graphmatch import _check
from graphmatch.gradients.base import Forward, Oracle, Tensors, Upstream


@dataclass(frozen=True)
class StraightThroughSinkhorn:
    """The solution y(c) forward; backward the vector-Jacobian product of a soft matching at the solution.

    The soft matching is P = argmin_P <C, P> - temperature * entropy(P) over relaxed matchings (`Sinkhorn`), where C is
    the objective linearised at the solution X: C_ik = d objective / d X_ik, the unary cost and the quadratic costs of
    the edges from i to their images. A relaxed pair of edges e = (i, j), f = (k, l) is paid by y_ef = P_ik P_jl. The
    derivative reaches unary and quadratic costs (of dense problems linear costs, flow and distance) through C, with the
    X inside C held fixed. One solve forward and one of the relaxation backward, no noise: no variance, but a bias. High
    temperatures spread the gradient over all matchings; at low ones it vanishes. Linear in the upstream gradient.

    For matching problems only: a `FunctionOracle` has no relaxation and raises TypeError.

    Args:
        temperature: In units of the costs.

    Source: Y. Bengio et al., "Estimating or propagating gradients through stochastic neurons for conditional
        computation", 2013 (straight-through); G. Mena et al., "Learning latent permutations with Gumbel-Sinkhorn
        networks", ICLR 2018 (relaxation); G. Luise et al., NeurIPS 2018 (implicit gradient).

    Example:
        >>> import torch, graphmatch as gm
        >>> costs = torch.zeros(1, 2, 2, requires_grad=True)
        >>> layer = gm.MatchingLayer(gm.LAP(), gm.StraightThroughSinkhorn(temperature=0.5))
        >>> gm.hamming_loss(layer(costs), torch.eye(2)).backward()
        >>> costs.grad.round(decimals=3)
        tensor([[[ 0.5000, -0.5000],
                 [-0.5000,  0.5000]]])
    """

    temperature: float = 0.1

    def __post_init__(self) -> None:
        """Checks the options."""
        _check.numbers(self)
        usable = 1e-30 <= self.temperature <= 1e30  # float32 knows no reciprocals of much smaller numbers
        where, cure = type(self).__name__, "0.1 suits costs of unit size."
        _check.option(where, "temperature", self.temperature, usable, "lie in [1e-30, 1e30]", cure)

    def forward(self, oracle: Oracle, costs: Tensors, training: bool) -> Forward:
        """Returns y(c)."""
        solved = oracle.solve(costs)
        return Forward(solved.solutions, (), solved.report)

    def backward(
        self, oracle: Oracle, costs: Tensors, solutions: Tensors, saved: Tensors, upstream: Upstream, training: bool
    ) -> Upstream:
        """Returns the vector-Jacobian product of the soft matching at the solution."""
        return oracle.relaxed_gradients(costs, solutions, upstream, self.temperature)
