"""Perturbed optimizers: unbiased gradients of the mean solution under noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from graphmatch import _check
from graphmatch.gradients.base import Forward, Oracle, Sampled, Tensors, Upstream, checked_choice, overflowed
from graphmatch.gradients.noisy import NoisyEstimator
from graphmatch.gradients.sampling import sample_weights

# Consecutive samples whose noise depends on each other.
_GROUPS = {"independent": 1, "antithetic": 2, "orthogonal": 32}
# Share of all weights below which the difference of two sums of them is rounding error.
_NO_WEIGHT = 1e-9


@dataclass(frozen=True, kw_only=True)
class PerturbedOptimizer(NoisyEstimator):
    """Gradient of the mean solution under noise: -(1 / sigma) mean_k (<g, y_k> - b_k) nu'(Z_k).

    The forward pass returns the mean over the samples of y_k = y(c - sigma Z_k), g is the upstream gradient dL/dy, and
    nu' the derivative of minus the logarithm of the density of the noise (Z for Gaussian, 1 - exp(-Z) for Gumbel
    noise). The formula is the gradient of a smooth function, the expectation of <g, y(c - sigma Z)>: unbiased, but its
    variance grows with the number of costs and falls with sigma^2 and with the samples, of which it wants hundreds. The
    baseline b_k, the mean of <g, y> over the samples independent of k, is free and lowers the variance.

    A loss that is not linear in the solution is linearised at the mean: see `ScoreFunction` for those.

    Solves: `samples` forward (and the problem without noise, whose duals they start from), none backward. In evaluation
    the forward pass returns the solution without noise, and the backward pass solves the `samples` noisy problems.

    Args:
        samples: Noise draws per problem and call. One alone has no baseline.
        noise_scale: sigma, in units of the costs; standard deviation 1.28 times that for Gumbel noise.
        noise: "gumbel" or "gaussian"; "sum_of_gamma" has no density that could be differentiated.
        coupling: "independent", "antithetic" or "orthogonal". The baseline of a sample leaves out all samples coupled
            to it: its pair, or its group of 32 orthogonal ones.
        perturb: "all" puts noise on every cost; "unary" on the unary costs only, and the others get no gradient (None).
        baseline: "leave_one_out" or "none".
        balance: Subtract the means of rows and columns that are all matched: the exact gradient has none, so that what
            goes is variance alone. Solvers of your own (`FunctionOracle`) know no rows and columns.
        open_samples: What the backward pass does with samples whose relative gap exceeds `largest_gap`: "keep", "drop",
            or "weigh" them by largest_gap / gap. The others keep their weights, so that leaving out is not unbiased.
        largest_gap: Of a sample that counts as solved.
        seed: Any int; noise depends on (seed, step, instance, sample, entry) and nothing else.

    Source: Q. Berthet et al., "Learning with differentiable perturbed optimizers", NeurIPS 2020, proposition 3.1;
        W. Kool et al., "Buy 4 REINFORCE samples, get a baseline for free!", 2019, for the baseline.

    Example:
        >>> import torch, graphmatch as gm
        >>> estimator = gm.PerturbedOptimizer(samples=500, noise_scale=0.5)
        >>> costs = torch.zeros(1, 2, 2, requires_grad=True)
        >>> gm.hamming_loss(gm.MatchingLayer(gm.LAP(), estimator)(costs), torch.eye(2)).backward()
        >>> bool(costs.grad[0, 0, 0] > 0), bool(costs.grad[0, 0, 1] < 0)  # minus the gradient favours the identity
        (True, True)
    """

    perturb: Literal["unary", "all"] = "all"
    baseline: Literal["leave_one_out", "none"] = "leave_one_out"
    balance: bool = True

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        where = type(self).__name__
        checked_choice(where, "baseline", self.baseline, ("leave_one_out", "none"))
        if self.noise == "sum_of_gamma":
            rule = "have a density that can be differentiated"
            raise ValueError(_check.message(where, "noise", rule, "'sum_of_gamma'", "Take 'gumbel' or 'gaussian'."))

    def forward(self, oracle: Oracle, costs: Tensors, training: bool) -> Forward:
        """Returns the mean of y(c - sigma Z)."""
        if not training:
            solved = oracle.solve(costs)
            return Forward(solved.solutions, solved.state, solved.report)
        sampled = oracle.sample(costs, self.draws, keep=True)
        return Forward(sampled.means[0], (*sampled.kept, self.weights(costs, sampled)), sampled.report)

    def backward(
        self, oracle: Oracle, costs: Tensors, solutions: Tensors, saved: Tensors, upstream: Upstream, training: bool
    ) -> Upstream:
        """Returns -(1 / sigma) mean_k (<g, y_k> - b_k) nu'(Z_k)."""
        if training:
            *kept, weights = saved
        else:
            sampled = oracle.sample(costs, self.draws, state=saved, keep=True)
            kept, weights = list(sampled.kept), self.weights(costs, sampled)
        losses = oracle.products(costs, tuple(kept), upstream)
        # An overflow stays visible to the loss scaler, whether or not some solution pays that entry.
        return self.score_gradients(oracle, costs, torch.where(overflowed(upstream), torch.nan, losses), weights)

    def weights(self, costs: Tensors, sampled: Sampled) -> Tensor:
        """Returns the weight of each sample, (S, b)."""
        shape = (self.samples, costs[0].shape[0])
        return sample_weights(sampled.certificates, self.reliability, shape, costs[0])

    def score_gradients(self, oracle: Oracle, costs: Tensors, losses: Tensor, weights: Tensor) -> Upstream:
        """Returns the gradients of the expected loss, given the losses of the samples and their weights, (S, b)."""
        exact, shares = losses.double(), weights.double()
        total = shares.sum(0)
        shares = torch.where(total > 0, shares / torch.where(total > 0, total, 1.0), 0.0)
        if self.baseline == "leave_one_out":
            exact = exact - _others_mean(exact, shares, _GROUPS[self.coupling])
        # A sample without weight may have any loss.
        coefficients = torch.where(shares > 0, -shares * exact / self.noise_scale, 0.0)
        scores = oracle.scores(costs, self.draws, coefficients)
        # Solutions do not depend on the noise of what is forbidden.
        allowed = tuple(
            None if score is None else torch.where(cost == torch.inf, 0, score)
            for cost, score in zip(costs, scores, strict=True)
        )
        return oracle.balanced(costs, allowed) if self.balance else allowed


def _others_mean(losses: Tensor, shares: Tensor, group: int) -> Tensor:
    """Returns, for each sample, the weighted mean of the losses of all other groups; 0 where there are none.

    Args:
        losses: (S, b).
        shares: (S, b), adding up to 1.
        group: Number of consecutive samples that are left out together.
    """
    samples = losses.shape[0]
    count = -(-samples // group)
    if count == 1:
        return torch.zeros_like(losses)

    def others(values: Tensor) -> Tensor:
        sums = F.pad(values, (0, 0, 0, count * group - samples)).unflatten(0, (count, group)).sum(1)
        return (sums.sum(0) - sums).repeat_interleave(group, 0)[:samples]

    weight = others(shares)
    some = weight > _NO_WEIGHT
    return torch.where(
        some, others(torch.where(shares > 0, shares * losses, 0.0)) / torch.where(some, weight, 1.0), 0.0
    )
