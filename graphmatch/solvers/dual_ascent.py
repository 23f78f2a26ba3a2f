"""Dual block-coordinate ascent with rounding, local search and certified bounds."""

from __future__ import annotations

from dataclasses import dataclass

from graphmatch import _check, _ops
from graphmatch.problem import Problem
from graphmatch.result import MatchResult, SolverState
from graphmatch.solvers.base import LawlerCall, check_budget


@dataclass(frozen=True)
class DualAscent:
    """Solver for sparse quadratic problems: Lagrange dual by block-coordinate ascent, matchings by rounding.

    Every iteration raises the lower bound, rounds it to a matching by an exact linear assignment, and improves new
    matchings by local search on the true costs. It ends when the gap is certified to be at most `max_gap`, when the
    bound would not close the gap within `max_iterations` at its present rate, or when the budget is spent.

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
        on_cpu: Accept tensors on other devices by copying them to the CPU and the answer back.

    Source: P. Swoboda et al., CVPR 2017 (decomposition); S. Tourani et al., ECCV 2018 (pair update).

    Example:
        >>> import torch, graphmatch as gm
        >>> edges = torch.tensor([[0, 1], [1, 2]])
        >>> problem = gm.LawlerProblem(torch.tensor([[[0.0, 1, 1]] * 3]), -torch.eye(2)[None], edges, edges)
        >>> result = gm.DualAscent(max_gap=1e-4).solve(problem)
        >>> result.assignment, result.statuses
        (tensor([[0, 1, 2]]), [<Status.OPTIMAL: 0>])
    """

    max_iterations: int = 500
    max_gap: float = 1e-6
    time_limit: float | None = None
    threads: int | None = None
    keep_state: bool = True
    on_cpu: bool = False

    def __post_init__(self) -> None:
        """Checks the options."""
        where = "DualAscent"
        iterations = self.max_iterations
        _check.option(where, "max_iterations", iterations, iterations >= 1, "be at least 1", "500 is the default.")
        check_budget(where, self.time_limit, self.max_gap)

    def solve(self, problem: Problem) -> MatchResult:
        """Returns matchings and bounds; dense problems are solved as Lawler problems."""
        return self._solve(None, problem)

    def solve_from(self, state: SolverState, problem: Problem) -> MatchResult:
        """Returns the same, starting from the state of an earlier solve of problems on the same graphs."""
        return self._solve(state, problem)

    def _solve(self, state: SolverState | None, problem: Problem) -> MatchResult:
        return LawlerCall(_ops.DUAL_ASCENT, max_iterations=self.max_iterations).solve(
            "DualAscent",
            problem,
            state,
            max_gap=self.max_gap,
            time_limit=self.time_limit,
            threads=self.threads,
            keep_state=self.keep_state,
            on_cpu=self.on_cpu,
        )
