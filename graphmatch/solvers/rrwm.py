"""Reweighted random walks on the graph of assignments."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphmatch import _check
from graphmatch.sinkhorn import entropic_plan
from graphmatch.solvers.relaxation import Relaxation, RelaxationSolver, fixed_point, normalised

# Jumps only have to point the way: more exact ones are no better and take longer.
_INNER_ITERATIONS = 10


@dataclass(frozen=True)
class RRWM(RelaxationSolver):
    """Baseline for sparse quadratic problems: reweighted random walks, rounded by linear assignment.

    Every step of a random walk on pairs of nodes jumps, with probability 1 - walk, to where the walk goes made one to
    one: exp(inflation * x / max x), with row and column sums of a matching. It needs non-negative affinities, and
    leaves partial problems to the rounding, as `SpectralMatching`.

    Guarantee: a valid matching, nothing else: `Portfolio` finds cheaper ones and proves how good they are. The lower
    bound is that of one linear assignment, and weak. Cost: O(e1 e2) and ten iterations of `Sinkhorn` per
    iteration, all problems of a batch at once, on the device of the tensors. Deterministic on the CPU; on other devices
    up to the order of sums.

    Args:
        walk: Weight of the random walk, in (0, 1]; the rest jumps.
        inflation: How sharply jumps prefer the likeliest assignments.
        max_iterations: Limit of iterations.
        tolerance: Change of the vector (of sum 1), summed over its entries, that ends the iteration.
        max_gap: Gap that counts as optimal, relative to |objective| or the largest |cost|, whichever is larger.
        on_cpu: Let tensors on other devices be copied to the CPU for the rounding; the iterations stay there.

    Source: M. Cho, J. Lee, K. M. Lee, "Reweighted random walks for graph matching", ECCV 2010.

    Example:
        >>> import torch, graphmatch as gm
        >>> edges = torch.tensor([[0, 1], [1, 2]])
        >>> problem = gm.LawlerProblem(torch.tensor([[[0.0, 1, 1]] * 3]), -torch.eye(2)[None], edges, edges)
        >>> gm.solve(problem, gm.RRWM()).assignment
        tensor([[0, 1, 2]])
    """

    walk: float = 0.2
    inflation: float = 30.0

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        _check.option("RRWM", "walk", self.walk, 0 < self.walk <= 1, "lie in (0, 1]", "0.2 is the default.")
        usable = 0 < self.inflation <= 1e6
        _check.option("RRWM", "inflation", self.inflation, usable, "lie in (0, 1e6]", "30.0 is the default.")

    def matchings(self, relaxation: Relaxation) -> tuple[Tensor, Tensor, Tensor]:
        """Returns assignments (b, n1), statuses and iterations (b,)."""
        affinities = relaxation.non_negative()
        counts = relaxation.problem.node_counts()

        def step(x: Tensor) -> Tensor:
            walked = affinities.product(x)
            largest = walked.amax((1, 2), keepdim=True)
            costs = torch.where(relaxation.allowed, -walked / torch.where(largest > 0, largest, 1), torch.inf)
            jump = entropic_plan(costs, counts, None, 1 / self.inflation, _INNER_ITERATIONS, 0.0, "implicit")
            moved = self.walk * normalised(walked) + (1 - self.walk) * normalised(jump.matching)
            return torch.where(largest > 0, normalised(moved), x)

        vector, iterations = fixed_point(step, affinities.uniform(), self.max_iterations, self.tolerance)
        return *relaxation.matching("RRWM", vector, self.on_cpu), iterations
