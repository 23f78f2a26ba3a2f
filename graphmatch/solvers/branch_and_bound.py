"""Exact search below the bounds of the dual ascent."""

from __future__ import annotations

from dataclasses import dataclass

from graphmatch import _check, _ops
from graphmatch.solvers.base import LawlerCall, LawlerSolver


@dataclass(frozen=True)
class BranchAndBound(LawlerSolver):
    """Exact solver for sparse quadratic problems: branch and bound on costs that the dual ascent has re-parametrised.

    The dual ascent gives a bound and non-negative remaining costs; labels that no better matching can use are removed;
    a depth-first search decides the rest. Unstructured problems are practical up to about 12 nodes, structured ones as
    far as the dual bound is nearly tight.

    Guarantee: optimal to `max_gap` where the search ends by itself; otherwise the lower bound is the smallest that was
    left open. Cost: O(n1 n2) per node, 0.3 to 2 microseconds. Deterministic, for any number of threads (unless a time
    limit ends it).

    Args:
        max_nodes: Limit of search nodes per problem.
        max_iterations: Limit of iterations of the dual ascent.
        max_gap: Gap that counts as optimal, relative to |objective| or the largest |cost|, whichever is larger.
        time_limit: Seconds for the whole call, shared out among the problems of a batch; None = no limit.
        threads: Threads per call; None = `torch.get_num_threads()`.
        keep_state: Return the duals as `result.state` for warm starts.
        on_cpu: Accept tensors on other devices by copying them to the CPU and the answer back.

    Source: A. H. Land, A. G. Doig, Econometrica 28 (1960); bounds after P. Swoboda et al., CVPR 2017.

    Example:
        >>> import torch, graphmatch as gm
        >>> edges = torch.tensor([[0, 1], [1, 2]])
        >>> problem = gm.LawlerProblem(torch.tensor([[[0.0, 1, 1]] * 3]), -torch.eye(2)[None], edges, edges)
        >>> result = gm.BranchAndBound(max_gap=1e-4).solve(problem)
        >>> result.assignment, result.statuses
        (tensor([[0, 1, 2]]), [<Status.OPTIMAL: 0>])
    """

    max_nodes: int = 1_000_000
    max_iterations: int = 200

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        where = "BranchAndBound"
        _check.option(where, "max_nodes", self.max_nodes, self.max_nodes >= 1, "be at least 1", "Try a million.")
        iterations = self.max_iterations
        _check.option(where, "max_iterations", iterations, iterations >= 1, "be at least 1", "200 is the default.")

    def call(self) -> LawlerCall:
        """Returns the native call of this solver."""
        return LawlerCall(_ops.BRANCH_AND_BOUND, max_iterations=self.max_iterations, max_nodes=self.max_nodes)
