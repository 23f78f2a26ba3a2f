"""Reweighted random walks for graph matching."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphmatch import _check
from graphmatch.problem import LawlerProblem
from graphmatch.solvers.baseline import Affinity, BaselineSolver, uniform, unit_sum


@dataclass(frozen=True)
class RRWM(BaselineSolver):
    """Baseline for quadratic problems: a random walk on the association graph that jumps towards matchings.

    x <- a M x / |M x| + (1 - a) J(M x), where J exponentiates, and normalises rows and columns by turns. For comparison
    with the literature; `Portfolio` finds better matchings in less time. Affinities are negated costs, lifted by
    constants to be at least zero; the matrix is applied edge by edge and never formed. Runs in float64 on the device of
    the problem; only the rounding needs the CPU.

    Guarantee: none for the matching. The lower bound adds up the cheapest image of every arc: valid, and weak. Cost per
    iteration: O(e1 e2 + n1 n2 sinkhorn_iterations), batched. Deterministic on the CPU.

    Args:
        walk: a, the share of the walk; the rest jumps.
        inflation: Factor in the exponent of the jumps, relative to the largest score.
        iterations: Steps of the walk.
        sinkhorn_iterations: Normalisations of each jump.
        threads: Threads of the rounding; None = `torch.get_num_threads()`.
        on_cpu: Accept tensors on other devices; the rounding copies scores to the CPU.

    Source: M. Cho, J. Lee, K. M. Lee, "Reweighted random walks for graph matching", ECCV 2010.

    Example:
        >>> import torch, graphmatch as gm
        >>> edges = torch.tensor([[0, 1], [1, 2]])
        >>> problem = gm.LawlerProblem(torch.tensor([[[0.0, 1, 1]] * 3]), -torch.eye(2)[None], edges, edges)
        >>> gm.RRWM().solve(problem).assignment
        tensor([[0, 1, 2]])
    """

    walk: float = 0.2
    inflation: float = 30.0
    iterations: int = 50
    sinkhorn_iterations: int = 20

    def __post_init__(self) -> None:
        """Checks the options."""
        where = "RRWM"
        _check.option(where, "walk", self.walk, 0 <= self.walk <= 1, "lie in [0, 1]", "0.2 is the default.")
        positive = 0 < self.inflation < torch.inf
        _check.option(where, "inflation", self.inflation, positive, "be positive", "30 is the default.")
        for name in ("iterations", "sinkhorn_iterations"):
            value = getattr(self, name)
            _check.option(where, name, value, value >= 1, "be at least 1", "See the defaults.")

    def _scores(self, affinity: Affinity, problem: LawlerProblem) -> Tensor:
        x = uniform(affinity.allowed)
        if x.numel() == 0:
            return x
        for _ in range(self.iterations):
            walked = affinity(x)
            largest = walked.flatten(1).amax(1)[:, None, None]
            exponent = self.inflation * (torch.where(largest > 0, walked / largest, 0.0) - 1.0)
            jump = torch.where(affinity.allowed, exponent.exp(), 0.0)
            for _ in range(self.sinkhorn_iterations):
                jump = _divided(jump, jump.sum(2, keepdim=True))
                jump = _divided(jump, jump.sum(1, keepdim=True))
            x = unit_sum(self.walk * unit_sum(walked) + (1 - self.walk) * unit_sum(jump))
        return x


def _divided(values: Tensor, sums: Tensor) -> Tensor:
    return torch.where(sums > 0, values / sums, 0.0)
