"""Integer projected fixed points: Frank-Wolfe steps between matchings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphmatch.result import matching_matrix
from graphmatch.solvers.relaxation import Relaxation, RelaxationSolver, dot


@dataclass(frozen=True)
class IPFP(RelaxationSolver):
    """Baseline for sparse quadratic problems: climbs the affinities between matchings, and keeps the best one it meets.

    Every iteration moves towards the matching that is best for the affinities linearised at the current point, as far
    as the affinities grow. It climbs twice: from the uniform matrix, and from the best matching of the unary costs
    alone. Partial problems and affinities of any sign are taken as they are.

    Guarantee: a valid matching that no linearised step improves if it ended before max_iterations, nothing else:
    `Portfolio` finds cheaper ones and proves how good they are. The lower bound is that of one linear assignment, and
    weak. Cost: O(e1 e2) on the device of the tensors and a linear assignment on the CPU per iteration, all problems of
    a batch at once. Deterministic on the CPU; on other devices up to the order of sums.

    Args:
        max_iterations: Limit of iterations of each climb.
        tolerance: Largest gain of a step, relative to the largest |cost|, that ends a climb.
        max_gap: Gap that counts as optimal, relative to |objective| or the largest |cost|, whichever is larger.
        on_cpu: Let tensors on other devices be copied to the CPU for the linear assignments.

    Source: M. Leordeanu, M. Hebert, R. Sukthankar, "An integer projected fixed point method for graph matching and MAP
        inference", NeurIPS 2009.

    Example:
        >>> import torch, graphmatch as gm
        >>> edges = torch.tensor([[0, 1], [1, 2]])
        >>> problem = gm.LawlerProblem(torch.tensor([[[0.0, 1, 1]] * 3]), -torch.eye(2)[None], edges, edges)
        >>> gm.solve(problem, gm.IPFP()).assignment
        tensor([[0, 1, 2]])
    """

    max_iterations: int = 50

    def matchings(self, relaxation: Relaxation) -> tuple[Tensor, Tensor, Tensor]:
        """Returns assignments (b, n1), statuses and iterations (b,)."""
        n1, n2 = relaxation.unary.shape[1:]
        cheapest, status = relaxation.matching(
            "IPFP", relaxation.unary - relaxation.unmatched[:, None, None], self.on_cpu
        )
        starts = (
            relaxation.allowed.to(relaxation.unary.dtype) / max(n1, n2, 1),
            matching_matrix(cheapest, relaxation.unary),
        )
        best, value, iterations = cheapest, torch.full_like(relaxation.largest, -torch.inf), torch.zeros_like(status)
        for start in starts:
            found, found_value, taken = self._climb(relaxation, start)
            better = found_value > value
            best = torch.where(better[:, None], found, best)
            value = torch.where(better, found_value, value)
            iterations = iterations + taken
        return best, status, iterations

    def _climb(self, relaxation: Relaxation, point: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the best matching on the way from a point (b, n1, n2), its value and the iterations taken."""
        product = relaxation.product(point)
        running = torch.ones(len(point), dtype=torch.bool, device=point.device)
        iterations = torch.zeros(len(point), dtype=torch.int64, device=point.device)
        best = point.new_full(point.shape[:2], -1, dtype=torch.int64)
        value = point.new_full((len(point),), -torch.inf)
        for _ in range(self.max_iterations):
            scores = 2 * product - relaxation.unmatched[:, None, None]
            found, _ = relaxation.matching("IPFP", scores, self.on_cpu)
            target = matching_matrix(found, point)
            target_product = relaxation.product(target)
            target_value = relaxation.value(target, target_product)
            better = running & (target_value > value)
            best = torch.where(better[:, None], found, best)
            value = torch.where(better, target_value, value)
            iterations = iterations + running
            # Along the segment the affinity is value + slope t + curvature t^2.
            direction, change = target - point, target_product - product
            slope, curvature = dot(direction, scores), dot(direction, change)
            running = running & (slope > self.tolerance)
            if not bool(running.any()):  # the linear assignment has made the host wait already
                break
            step = torch.where(curvature >= 0, 1, (-slope / (2 * curvature)).clamp(max=1))
            step = torch.where(running, step, 0)[:, None, None]
            point, product = point + step * direction, product + step * change
        return best, value, iterations
