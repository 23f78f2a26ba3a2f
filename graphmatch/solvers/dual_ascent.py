"""Dual block-coordinate ascent with rounding, local search and certified bounds."""

from __future__ import annotations

from dataclasses import dataclass

from graphmatch import _check, _ops
from graphmatch.problem import KoopmansBeckmannProblem, LawlerProblem, Problem
from graphmatch.result import MatchResult
from graphmatch.solvers.base import assemble, check_budget, host_costs, take_kind, thread_count


@dataclass(frozen=True)
class DualAscent:
    """Solver for sparse quadratic problems: Lagrange dual by block-coordinate ascent, matchings by rounding.

    Every iteration raises the lower bound, rounds it to a matching by an exact linear assignment, and improves new
    matchings by local search on the true costs. It ends when the gap is certified to be at most `max_gap`, when the
    bound would not close the gap within `max_iterations` at its present rate, or when the budget is spent.

    Guarantee: the lower bound is re-evaluated in float64 and rounded down; a matching is returned in every case.
    Cost: O(pairs * n2^2 + n^3) per iteration and problem, pairs * n2^2 float32 of memory; a whole batch is one native
    call over threads. Deterministic: the same answer for any number of threads and any batch layout (unless a
    time limit ends it).

    Args:
        max_iterations: Limit of iterations per problem.
        max_gap: Gap that counts as optimal, relative to |objective| or the largest |cost|, whichever is larger.
        time_limit: Seconds for the whole call; None = no limit.
        threads: Threads per call; None = `torch.get_num_threads()`.
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
    on_cpu: bool = False

    def __post_init__(self) -> None:
        """Checks the options."""
        where = "DualAscent"
        iterations = self.max_iterations
        _check.option(where, "max_iterations", iterations, iterations >= 1, "be at least 1", "500 is the default.")
        check_budget(where, self.time_limit, self.max_gap)

    def solve(self, problem: Problem) -> MatchResult:
        """Returns matchings and bounds; dense problems are solved as Lawler problems."""
        if isinstance(problem, KoopmansBeckmannProblem):
            lawler = problem.to_lawler()
        else:
            lawler = take_kind("DualAscent", problem, LawlerProblem, "Use LAP for linear costs.")
        threads = thread_count("DualAscent", self.threads)
        _check.memory("DualAscent", _table_bytes(lawler, threads), "Use fewer edges, smaller graphs or fewer threads.")
        answers = _ops.lawler_dual_ascent(
            host_costs("DualAscent", lawler.unary_costs, self.on_cpu),
            host_costs("DualAscent", lawler.quadratic_costs, self.on_cpu),
            lawler.edges1.cpu(),
            lawler.edges2.cpu(),
            None if lawler.sizes is None else lawler.sizes.cpu(),
            lawler.unmatched_cost,
            self.max_iterations,
            self.max_gap,
            self.time_limit,
            threads,
        )
        return assemble(problem, answers, lawler.unary_costs.device)


def _table_bytes(problem: LawlerProblem, threads: int) -> int:
    """Returns the bytes of the dense pair tables of the problems that are solved at the same time."""
    batch, n1, n2 = problem.unary_costs.shape
    pairs = min(problem.quadratic_costs.shape[1], n1 * (n1 - 1) // 2)
    stride = -(-n2 // 16) * 16
    return min(threads, batch) * pairs * n2 * stride * 4
