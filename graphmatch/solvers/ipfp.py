"""Integer projected fixed point: Frank-Wolfe on the affinities of a sparse problem."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphmatch import _check
from graphmatch.problem import LawlerProblem
from graphmatch.solvers.baseline import Affinity, BaselineSolver, uniform

_NOISE = 1e-12  # of the gradient: smaller gains are rounding


@dataclass(frozen=True)
class IPFP(BaselineSolver):
    """Baseline for quadratic problems: steps towards the best assignment of the gradient, with exact line search.

    What `FAQ` does for dense problems. For comparison with the literature; `Portfolio` finds better matchings in less
    time. Affinities are negated costs, lifted by constants to be at least zero; the matrix is applied edge by edge and
    never formed. Runs in float64 on the device of the problem; only the linear assignments need the CPU.

    Guarantee: none for the matching, but it is the best of all assignments on the way. The lower bound adds up the
    cheapest image of every arc: valid, and weak. Cost per iteration: O(e1 e2) and a linear assignment, batched.
    Deterministic on the CPU.

    Args:
        iterations: Limit of steps.
        threads: Threads of the assignments; None = `torch.get_num_threads()`.
        on_cpu: Accept tensors on other devices; the assignments copy scores to the CPU.

    Source: M. Leordeanu, M. Hebert, R. Sukthankar, "An integer projected fixed point method for graph matching and MAP
        inference", NIPS 2009.

    Example:
        >>> import torch, graphmatch as gm
        >>> edges = torch.tensor([[0, 1], [1, 2]])
        >>> problem = gm.LawlerProblem(torch.tensor([[[0.0, 1, 1]] * 3]), -torch.eye(2)[None], edges, edges)
        >>> gm.IPFP().solve(problem).assignment
        tensor([[0, 1, 2]])
    """

    iterations: int = 50

    def __post_init__(self) -> None:
        """Checks the options."""
        _check.option(
            "IPFP", "iterations", self.iterations, self.iterations >= 1, "be at least 1", "50 is the default."
        )

    def _scores(self, affinity: Affinity, problem: LawlerProblem) -> Tensor:
        x = uniform(affinity.allowed)
        columns = torch.arange(x.shape[2], device=x.device)
        best, best_value = x, torch.full((len(x), 1, 1), -torch.inf, dtype=x.dtype, device=x.device)
        for _ in range(self.iterations):
            gradient = affinity(x)
            assignment, _ = self._rounded(gradient, affinity, problem)
            target = (assignment[:, :, None] == columns).double()
            at_target = affinity(target)
            value = _inner(target, at_target)
            better = value > best_value
            best, best_value = torch.where(better, target, best), torch.where(better, value, best_value)
            slope = _inner(gradient, target - x)
            curvature = _inner(target - x, at_target - gradient)
            # At least 0 on a convex stretch, where the far end is best; the maximum of a concave one otherwise.
            step = torch.where(curvature < 0, (-slope / curvature).clamp(0.0, 1.0), 1.0)
            moves = slope > _NOISE * gradient.abs().sum((1, 2), keepdim=True)
            if not bool(moves.any()):
                break
            x = torch.where(moves, x + step * (target - x), x)
        return best


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((1, 2), keepdim=True)
