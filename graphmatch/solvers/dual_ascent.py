"""Dual block-coordinate ascent with rounding, local search and certified bounds."""

from __future__ import annotations

from dataclasses import dataclass

from graphmatch import _check, _ops
from graphmatch.solvers.base import LawlerCall, LawlerSolver
from graphmatch.solvers.call import QapCall


@dataclass(frozen=True)
class DualAscent(LawlerSolver):
    """Solver for quadratic problems: Lagrange dual by block-coordinate ascent, matchings by rounding.

    Every iteration raises the lower bound, rounds it to a matching by an exact linear assignment, and improves new
    matchings by local search on the true costs. It ends when the gap is certified to be at most `max_gap`, when the
    bound would not close the gap within `max_iterations` at its present rate, or when the budget is spent.

    Dense problems (`KoopmansBeckmannProblem`) of up to 48 nodes get the dual ascent of Hahn and Grant on the level-1
    reformulation: better bounds than those of Gilmore and Lawler for n^2 linear assignments of n - 1 nodes per
    iteration and 8 n^4 bytes. Larger ones get the latter, and a local search.

    Guarantee: the lower bound is re-evaluated in float64 and rounded down; a matching is returned in every case.
    Cost: per iteration and problem O(pairs * n2^2) vectorised for small graphs, O(pairs * (n2 + e2)) for large ones,
    and a warm linear assignment; a whole batch is one native call over threads. Deterministic: the same answer for any
    number of threads and any batch layout (unless a time limit ends it).

    Args:
        max_iterations: Limit of iterations per problem.
        max_gap: Gap that counts as optimal, relative to |objective| or the largest |cost|, whichever is larger.
        time_limit: Seconds for the whole call, shared out among the problems of a batch; None = no limit.
        threads: Threads per call; None = `torch.get_num_threads()`.
        keep_state: Return the duals as `result.state` for warm starts.
        on_cpu: Copy tensors on other devices to the CPU and the answer back. Without it sparse problems on a GPU are
            solved there, all problems of a batch at the same time and without waiting for the answers; a time limit
            cannot be kept, and costs and edges that break the rules are answered with INVALID.

    Source: P. Swoboda et al., CVPR 2017 (decomposition); S. Tourani et al., ECCV 2018 (pair update); P. Hahn,
        T. Grant, Operations Research 46 (1998) (dense problems).

    Example:
        >>> import torch, graphmatch as gm
        >>> edges = torch.tensor([[0, 1], [1, 2]])
        >>> problem = gm.LawlerProblem(torch.tensor([[[0.0, 1, 1]] * 3]), -torch.eye(2)[None], edges, edges)
        >>> result = gm.DualAscent(max_gap=1e-4).solve(problem)
        >>> result.assignment, result.statuses
        (tensor([[0, 1, 2]]), [<Status.OPTIMAL: 0>])
    """

    has_cuda_kernel = True

    max_iterations: int = 500

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        where = "DualAscent"
        iterations = self.max_iterations
        _check.option(where, "max_iterations", iterations, iterations >= 1, "be at least 1", "500 is the default.")

    def call(self) -> LawlerCall:
        """Returns the native call of this solver."""
        return LawlerCall(_ops.DUAL_ASCENT, max_iterations=self.max_iterations)

    def dense_call(self, nodes: int) -> QapCall | None:
        """Returns the native call for dense problems."""
        return QapCall(_ops.QAP_DUAL_ASCENT, max_iterations=self.max_iterations)
