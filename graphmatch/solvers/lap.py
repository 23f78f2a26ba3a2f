"""Linear assignment by shortest augmenting paths."""

from __future__ import annotations

from dataclasses import dataclass

from graphmatch import _ops
from graphmatch.problem import LinearProblem, Problem
from graphmatch.result import MatchResult
from graphmatch.solvers.base import assemble, host_costs, take_kind, thread_count


@dataclass(frozen=True)
class LAP:
    """Exact solver for `LinearProblem`: shortest augmenting paths with dual certificates.

    Guarantee: optimal up to float64 rounding; the gap is that of the dual certificate (about 1e-15).
    Cost: O(n1^2 n2) per problem; problems of a batch run over threads. Ties go to the lowest column. Deterministic.

    Args:
        threads: Threads per call; None = `torch.get_num_threads()`.
        on_cpu: Accept tensors on other devices by copying them to the CPU and the answer back.

    Source: R. Jonker, A. Volgenant, Computing 38 (1987).

    Example:
        >>> import torch, graphmatch as gm
        >>> gm.LAP().solve(gm.LinearProblem(torch.tensor([[[1.0, 2.0, 0.0], [2.0, 0.0, 9.0]]]))).assignment
        tensor([[2, 1]])
    """

    threads: int | None = None
    on_cpu: bool = False

    def solve(self, problem: Problem) -> MatchResult:
        """Returns optimal matchings; raises TypeError for quadratic problems."""
        linear = take_kind("LAP", problem, LinearProblem, "Use DualAscent for quadratic costs.")
        costs = host_costs("LAP", linear.costs, self.on_cpu)
        sizes = None if linear.sizes is None else linear.sizes.cpu()
        answers = _ops.linear_assignment(costs, sizes, linear.unmatched_cost, thread_count("LAP", self.threads))
        return assemble(problem, answers, linear.costs.device)
