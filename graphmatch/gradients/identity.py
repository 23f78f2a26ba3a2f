"""Negative identity: the solver as minus the identity, after a projection."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphmatch.gradients.base import Forward, Oracle, Tensors, Upstream, along, overflowed


@dataclass(frozen=True)
class NegativeIdentity:
    """Gradient -g, without the directions in the costs that the solution does not depend on.

    g is the upstream gradient dL/dy; the sign is that of costs, which are minimised. One solve forward and none
    backward, no noise: no variance, but a bias that no option controls. Linear in g.

    What the projection takes off: of the unary costs of complete matchings the means of the rows and columns of nodes
    that must all be matched (both for n1 = n2, those of the smaller graph otherwise; with an `unmatched_cost` nothing),
    and of the quadratic costs their mean, which no matching depends on where both graphs are complete, and which
    otherwise only says how many pairs are paid. Where assignments are forbidden the means come from a few sweeps.
    A `FunctionOracle` takes off nothing.

    Costs get the gradient of their own solution only: quadratic costs of a loss that looks at the matching alone, and
    flow and distance of dense problems, get none.

    Args:
        project: Whether to project.
        normalise: Whether to take off the direction of the projected costs themselves, all cost tensors together: a
            common factor changes no solution. (With an `unmatched_cost` other than 0 it does.)

    Source: S. S. Sahoo et al., "Backpropagation through combinatorial algorithms: identity with projection works", ICLR
        2023, equations 4 to 7; the gradient is not divided by the norm of the costs.

    Example:
        >>> import torch, graphmatch as gm
        >>> costs = torch.zeros(1, 2, 2, requires_grad=True)
        >>> gm.hamming_loss(gm.MatchingLayer(gm.LAP(), gm.NegativeIdentity())(costs), torch.eye(2)).backward()
        >>> costs.grad
        tensor([[[ 0.5000, -0.5000],
                 [-0.5000,  0.5000]]])
    """

    project: bool = True
    normalise: bool = False

    def forward(self, oracle: Oracle, costs: Tensors, training: bool) -> Forward:
        """Returns y(c)."""
        solved = oracle.solve(costs)
        return Forward(solved.solutions, (), solved.report)

    def backward(
        self, oracle: Oracle, costs: Tensors, solutions: Tensors, saved: Tensors, upstream: Upstream, training: bool
    ) -> Upstream:
        """Returns -g, projected."""
        bad = overflowed(upstream)
        gradients: Upstream = tuple(None if g is None else torch.where(along(bad, g), torch.nan, -g) for g in upstream)
        if self.project:
            gradients = oracle.centred(costs, gradients)
        if self.normalise:
            finite = tuple(torch.where(torch.isfinite(cost), cost, 0) for cost in costs)
            gradients = _without(oracle.centred(costs, finite) if self.project else finite, gradients)
        return tuple(
            None if g is None else torch.where(cost == torch.inf, 0, g)
            for cost, g in zip(costs, gradients, strict=True)
        )


def _without(directions: Upstream, gradients: Upstream) -> Upstream:
    """Returns the gradients of each problem without their share along the directions, all tensors together."""
    pairs = [(d, g) for d, g in zip(directions, gradients, strict=True) if d is not None and g is not None]
    # Costs without a gradient of their own keep theirs at zero, and have no part in the direction.
    squared = _total([(d, d) for d, _ in pairs])
    share = torch.where(squared > 0, _total(pairs) / torch.where(squared > 0, squared, 1.0), 0.0)
    return tuple(
        g if d is None or g is None else g - along(share, g) * d for d, g in zip(directions, gradients, strict=True)
    )


def _total(pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    return torch.stack([(one * other).flatten(1).sum(1) for one, other in pairs]).sum(0)
