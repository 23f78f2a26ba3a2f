"""Spectral matching: the leading eigenvector of the affinity matrix."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from graphmatch import _check
from graphmatch.problem import LawlerProblem
from graphmatch.solvers.baseline import Affinity, BaselineSolver, uniform, unit_sum


@dataclass(frozen=True)
class SpectralMatching(BaselineSolver):
    """Baseline for quadratic problems: power iteration on the affinity matrix, rounded by a linear assignment.

    For comparison with the literature; `Portfolio` finds better matchings in less time. Affinities are negated costs,
    lifted by constants to be at least zero; the matrix is applied edge by edge and never formed. Runs in float64 on the
    device of the problem; only the rounding needs the CPU.

    Guarantee: none for the matching. The lower bound adds up the cheapest image of every arc: valid, and weak. Cost per
    iteration: O(e1 e2 + n1 n2), batched. Deterministic on the CPU.

    Args:
        iterations: Of the power iteration.
        threads: Threads of the rounding; None = `torch.get_num_threads()`.
        on_cpu: Accept tensors on other devices; the rounding copies scores to the CPU.

    Source: M. Leordeanu, M. Hebert, "A spectral technique for correspondence problems using pairwise constraints", ICCV
        2005; rounded by the best assignment in place of their greedy one.

    Example:
        >>> import torch, graphmatch as gm
        >>> edges = torch.tensor([[0, 1], [1, 2]])
        >>> problem = gm.LawlerProblem(torch.tensor([[[0.0, 1, 1]] * 3]), -torch.eye(2)[None], edges, edges)
        >>> gm.SpectralMatching().solve(problem).assignment
        tensor([[0, 1, 2]])
    """

    iterations: int = 50

    def __post_init__(self) -> None:
        """Checks the options."""
        _check.option(
            "SpectralMatching", "iterations", self.iterations, self.iterations >= 1, "be at least 1", "Try 50."
        )

    def _scores(self, affinity: Affinity, problem: LawlerProblem) -> Tensor:
        x = uniform(affinity.allowed)
        for _ in range(self.iterations):
            x = unit_sum(affinity(x))
        return x
