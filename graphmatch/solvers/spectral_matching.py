"""Spectral matching: the leading eigenvector of the affinity matrix, rounded."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphmatch.solvers.relaxation import Relaxation, RelaxationSolver, fixed_point


@dataclass(frozen=True)
class SpectralMatching(RelaxationSolver):
    """Baseline for sparse quadratic problems: power iteration on the affinity matrix, rounded by linear assignment.

    The eigenvector ignores that a matching is one to one until it is rounded. It needs non-negative affinities:
    negated costs are raised by their mean where that is negative, and what is left below zero is dropped. In partial
    problems matches that cost more than they save are taken out, one after the other.

    Guarantee: a valid matching, nothing else: `Portfolio` finds cheaper ones and proves how good they are. The lower
    bound is that of one linear assignment, and weak. Cost: O(e1 e2) per iteration, all problems of a batch at once, on
    the device of the tensors; the n1 n2 x n1 n2 matrix is never formed. Deterministic on the CPU; on other devices up
    to the order of sums.

    Args:
        max_iterations: Limit of iterations.
        tolerance: Change of the vector (of sum 1), summed over its entries, that ends the iteration.
        max_gap: Gap that counts as optimal, relative to |objective| or the largest |cost|, whichever is larger.
        on_cpu: Let tensors on other devices be copied to the CPU for the rounding; the iterations stay there.

    Source: M. Leordeanu, M. Hebert, "A spectral technique for correspondence problems using pairwise constraints",
        ICCV 2005; rounded by linear assignment instead of greedily.

    Example:
        >>> import torch, graphmatch as gm
        >>> edges = torch.tensor([[0, 1], [1, 2]])
        >>> problem = gm.LawlerProblem(torch.tensor([[[0.0, 1, 1]] * 3]), -torch.eye(2)[None], edges, edges)
        >>> gm.solve(problem, gm.SpectralMatching()).assignment
        tensor([[0, 1, 2]])
    """

    def matchings(self, relaxation: Relaxation) -> tuple[Tensor, Tensor, Tensor]:
        """Returns assignments (b, n1), statuses and iterations (b,)."""
        affinities = relaxation.non_negative()

        def step(x: Tensor) -> Tensor:
            moved = affinities.product(x)
            total = moved.flatten(1).sum(1)[:, None, None]
            return torch.where(total > 0, moved / total, x)

        vector, iterations = fixed_point(step, affinities.uniform(), self.max_iterations, self.tolerance)
        return *relaxation.matching("SpectralMatching", vector, self.on_cpu), iterations
