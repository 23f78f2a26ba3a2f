"""The score function estimator: unbiased gradients of the expectation of any loss of noisy solutions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from graphmatch import _check
from graphmatch.gradients.base import Oracle, Tensors
from graphmatch.gradients.perturbed import PerturbedOptimizer


@dataclass(frozen=True, kw_only=True)
class ScoreFunction(PerturbedOptimizer):
    """Gradient of an expected loss E[L(y(c - sigma Z))]: -(1 / sigma) mean_k (L_k - b_k) nu'(Z_k).

    L_k is the loss of the solution y_k = y(c - sigma Z_k) of sample k, whatever the loss does with it; nu' and the
    baseline b_k are those of `PerturbedOptimizer`, which is the special case of a loss that is linear in the solution.
    Unbiased; the variance grows with the number of costs and with the spread of the losses, and falls with sigma^2 and
    with the samples, of which it wants hundreds.

    `MatchingLayer.expected_loss` and `expected_loss` compute it: the loss of each sample must be seen, so a layer that
    returns one mean solution cannot. In evaluation they return the loss of the solution without noise, which has no
    gradient in the costs. As an estimator of a plain call this one is `PerturbedOptimizer`.

    Solves: `samples` forward (and the problem without noise, whose duals they start from), none backward.

    Args:
        samples: Noise draws per problem and call, and calls of the loss. One alone has no baseline.
        noise_scale: sigma, in units of the costs.
        noise: "gumbel" or "gaussian".
        coupling: "independent", "antithetic" or "orthogonal".
        perturb: "all" puts noise on every cost; "unary" on the unary costs only, and the others get no gradient (None).
        baseline: "leave_one_out" or "none".
        balance: Subtract the means of rows and columns that are all matched.
        open_samples: What becomes of samples whose relative gap exceeds `largest_gap`: "keep", "drop" or "weigh".
        largest_gap: Of a sample that counts as solved.
        seed: Any int; noise depends on (seed, step, instance, sample, entry) and nothing else.

    Source: R. J. Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement learning",
        Machine Learning 8 (1992); Q. Berthet et al., "Learning with differentiable perturbed optimizers", NeurIPS 2020.

    Example:
        >>> import torch, graphmatch as gm
        >>> layer = gm.MatchingLayer(gm.LAP(), gm.ScoreFunction(samples=4000, noise_scale=0.5))
        >>> costs = torch.zeros(1, 3, 3, requires_grad=True)
        >>> def all_or_nothing(matching):  # 1 unless the matching is the identity
        ...     return 1 - (matching * torch.eye(3)).sum((1, 2)).eq(3).float()
        >>> layer.expected_loss(all_or_nothing, costs).sum().backward()
        >>> torch.equal(costs.grad > 0, torch.eye(3)[None] > 0)  # descent lowers the costs of the identity
        True
    """

    def expected_loss(
        self, oracle: Oracle, costs: Tensors, function: Callable[..., Tensor], training: bool = True
    ) -> Tensor:
        """Returns the mean loss of each problem over the samples, (b,).

        Differentiable in the costs by the formula of the class, in whatever else the function uses by autograd.

        Args:
            oracle: Any solver.
            costs: (b, ...) float32 or float64 tensors.
            function: Takes the solutions, one tensor per cost tensor and shaped as it, and returns the loss of each
                problem, (b,), which must depend on the solution of that problem only. Called once per sample.
            training: Whether there is noise.

        Example:
            >>> import torch, graphmatch as gm
            >>> cheapest = lambda costs: (torch.nn.functional.one_hot(costs[0].argmin(1), 3).float(),)
            >>> costs = (torch.zeros(1, 3, requires_grad=True),)
            >>> estimator = gm.ScoreFunction(samples=200)
            >>> oracle = gm.gradients.FunctionOracle(cheapest)
            >>> estimator.expected_loss(oracle, costs, lambda choice: choice[:, 0]).sum().backward()
            >>> bool(costs[0].grad[0, 0] < 0)  # descent makes the first dearer
            True
        """
        return self.reported_loss(oracle, costs, function, training)[0]

    def reported_loss(
        self, oracle: Oracle, costs: Tensors, function: Callable[..., Tensor], training: bool
    ) -> tuple[Tensor, Tensors]:
        """Returns the mean loss and the report of the oracle."""
        fixed = tuple(cost.detach() for cost in costs)
        batch = fixed[0].shape[0]
        if not training:
            with torch.no_grad():
                solved = oracle.solve(fixed)
            return _checked(function(*solved.solutions), batch), solved.report
        with torch.no_grad():
            sampled = oracle.sample(fixed, self.draws, keep=True)
            weights = self.weights(fixed, sampled)
        losses = torch.stack(
            [
                _checked(function(*oracle.solutions_of(fixed, sampled.kept, sample)), batch)
                for sample in range(self.samples)
            ]
        )
        with torch.no_grad():
            total = weights.sum(0)
            shares = torch.where(total > 0, weights / torch.where(total > 0, total, 1.0), 0.0).to(losses.dtype)
            slopes = self.score_gradients(oracle, fixed, losses.detach(), weights)
        # What a problem without any solution would lose is unknown.
        mean = torch.where(shares > 0, shares * losses, 0.0).sum(0)
        # Linear in the costs, with the estimated slopes.
        planes = [
            torch.where(torch.isfinite(cost), cost * slope, 0).flatten(1).sum(1)
            for cost, slope in zip(costs, slopes, strict=True)
            if slope is not None
        ]
        plane = torch.stack(planes).sum(0)
        return mean + (plane - plane.detach()).to(mean.dtype), sampled.report


def _checked(losses: Tensor, batch: int) -> Tensor:
    if not isinstance(losses, Tensor) or losses.shape != (batch,):
        rule = f"return one loss per problem, a tensor of shape ({batch},)"
        cure = "Sum over all axes but the first."
        raise ValueError(_check.message("expected_loss", "function", rule, _check.describe(losses), cure))
    return losses
