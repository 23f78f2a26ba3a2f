"""Fenchel-Young losses: convex losses for problems whose solutions are known."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphmatch.gradients.base import Oracle, Tensors, along
from graphmatch.gradients.perturbed import PerturbedOptimizer


@dataclass(frozen=True, kw_only=True)
class FenchelYoung(PerturbedOptimizer):
    """The loss <c, y*> - mean_k min_y <c - sigma Z_k, y> of a target y*; its gradient is y* - mean_k y(c - sigma Z_k).

    The loss is convex in the costs, and its expectation is smooth and least where the mean solution under noise is the
    target. Up to a constant that depends on the target alone it is the Fenchel-Young loss of the perturbed maximum.
    Value and gradient are exact for the noise that was drawn, so both are unbiased; the variance falls with 1 / samples
    and does not grow with the number of costs as that of `PerturbedOptimizer` does, whose options and whose behaviour
    as an estimator this one shares. All costs get a gradient here, with noise on them or without.

    `MatchingLayer.loss` and `loss` compute it. In evaluation there is no noise: the loss is that of the structured
    perceptron, <c, y*> - min_y <c, y>, never negative, and 0 exactly where the target is optimal.

    Solves: `samples` forward (and the problem without noise, whose duals they start from), none backward.

    Args:
        samples: Noise draws per problem and call; few do.
        noise_scale: sigma, in units of the costs: how far the target should win.
        noise: "gumbel" or "gaussian".
        coupling: "independent", "antithetic" or "orthogonal".
        perturb: "all" puts noise on every cost, "unary" on the unary costs only.
        baseline: Of `PerturbedOptimizer`; the loss needs none, and is balanced as it is.
        balance: Likewise.
        open_samples: What becomes of samples whose relative gap exceeds `largest_gap`: "keep", "drop" or "weigh".
        largest_gap: Of a sample that counts as solved.
        seed: Any int; noise depends on (seed, step, instance, sample, entry) and nothing else.

    Source: Q. Berthet et al., "Learning with differentiable perturbed optimizers", NeurIPS 2020, section 4; M. Blondel
        et al., "Learning with Fenchel-Young losses", JMLR 21 (2020).

    Example:
        >>> import torch, graphmatch as gm
        >>> layer = gm.MatchingLayer(gm.LAP(), gm.FenchelYoung(samples=100))
        >>> costs = torch.zeros(1, 3, 3, requires_grad=True)
        >>> layer.loss(torch.eye(3), costs).backward()
        >>> torch.equal(costs.grad > 0, torch.eye(3)[None] > 0)  # descent lowers the costs of the target
        True
    """

    def loss(self, oracle: Oracle, costs: Tensors, targets: Tensors, training: bool = True) -> Tensor:
        """Returns the loss of each problem, (b,), differentiable in the costs.

        Args:
            oracle: Any solver of problems that are linear in their costs.
            costs: (b, ...) float32 or float64 tensors.
            targets: 0/1 tensors shaped as the costs: a solution each.
            training: Whether there is noise.

        Example:
            >>> import torch, graphmatch as gm
            >>> cheapest = lambda costs: (torch.nn.functional.one_hot(costs[0].argmin(1), 3).float(),)
            >>> costs = (torch.tensor([[0.0, 1.0, 2.0]]),)
            >>> oracle = gm.gradients.FunctionOracle(cheapest)
            >>> gm.FenchelYoung().loss(oracle, costs, (torch.tensor([[0.0, 0.0, 1.0]]),), training=False)
            tensor([2.])
        """
        return self.reported_loss(oracle, costs, targets, training)[0]

    def reported_loss(self, oracle: Oracle, costs: Tensors, targets: Tensors, training: bool) -> tuple[Tensor, Tensors]:
        """Returns the loss and the report of the oracle."""
        fixed = tuple(cost.detach() for cost in costs)
        with torch.no_grad():
            if training:
                sampled = oracle.sample(fixed, self.draws, keep=False, reliability=self.reliability)
                means, report = sampled.means[0], sampled.report
                weights = self.weights(fixed, sampled).double()
                total = weights.sum(0)
                paid = torch.where(weights > 0, weights * sampled.certificates[0][0], 0.0).sum(0)
                least = torch.where(total > 0, paid / torch.where(total > 0, total, 1.0), 0.0)
            else:
                solved = oracle.solve(fixed)
                means, report = solved.solutions, solved.report
                least = oracle.objective(fixed, means)
                known = least if solved.objective is None else solved.objective
                total = torch.isfinite(known).to(least.dtype)
            aims = tuple(target.to(cost.dtype) for target, cost in zip(targets, fixed, strict=True))
            # Without any solution there is nothing to compare the target with.
            value = torch.where(total > 0, oracle.objective(fixed, aims) - least, 0.0).to(fixed[0].dtype)
            solvable = (total > 0).to(fixed[0].dtype)
            slopes = tuple((aim - mean) * along(solvable, aim) for aim, mean in zip(aims, means, strict=True))
        # Linear in the costs, with the slopes of the loss: what is forbidden or padding has none.
        plane = torch.stack(
            [
                torch.where(torch.isfinite(cost), cost * slope, 0).flatten(1).sum(1)
                for cost, slope in zip(costs, slopes, strict=True)
            ]
        ).sum(0)
        return value + (plane - plane.detach()), report
