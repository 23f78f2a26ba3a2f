"""The native search for consistent matchings, from labels or by construction."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphmatch import _check, _multigraph_ops
from graphmatch.multigraph.problem import MultiGraphProblem
from graphmatch.solvers.call import host_costs, thread_count


@dataclass(frozen=True)
class NativeSearch:
    """Options of the native search; see `LocalSearch` for their meaning.

    Args:
        where: Name of the method, for errors.
        sweeps: 0 = no search after the construction.
        effort: Of the portfolio for single problems.
        max_iterations: Of its dual ascent.
        seed: Of the random choices; start i takes seed + i.
        time_limit: Seconds.
        threads: None = PyTorch's.
        on_cpu: Whether costs on other devices are copied.
    """

    where: str
    sweeps: int
    effort: float = 0.05
    max_iterations: int = 10
    seed: int = 0
    time_limit: float | None = None
    threads: int | None = None
    on_cpu: bool = False

    def construct(self, problem: MultiGraphProblem, merges: Tensor) -> tuple[Tensor, Tensor]:
        """Returns labels (s, m, n) and objectives (s, p) of constructions by merges (s, m - 1, 2), searched further."""
        shape = (len(merges), problem.graph_count, max(int(problem.node_counts.max()), 0))
        return self._run(problem, torch.full(shape, -1, dtype=torch.int64), merges)

    def improve(self, problem: MultiGraphProblem, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Returns labels (s, m, n) and objectives (s, p) of searches that begin with labels."""
        merges = torch.zeros(len(labels), problem.graph_count - 1, 2, dtype=torch.int64)
        return self._run(problem, labels, merges)

    def _run(self, problem: MultiGraphProblem, labels: Tensor, merges: Tensor) -> tuple[Tensor, Tensor]:
        costs = problem.costs
        limited = problem.universe_size is not None or costs.unmatched_cost is None
        threads = thread_count(self.where, self.threads)
        _check.memory(self.where, _working_bytes(problem, threads), "Use fewer graphs, edges or threads.")
        found, objectives = _multigraph_ops.multigraph_search(
            host_costs(self.where, costs.unary_costs, self.on_cpu),
            host_costs(self.where, costs.quadratic_costs, self.on_cpu),
            costs.edges1.cpu(),
            costs.edges2.cpu(),
            None if costs.sizes is None else costs.sizes.cpu(),
            costs.unmatched_cost,
            problem.pairs,
            problem.node_counts,
            problem.largest_universe if limited else 0,
            labels,
            merges,
            self.sweeps,
            self.effort,
            self.max_iterations,
            self.seed,
            self.time_limit,
            threads,
        )
        return found, objectives


def sequential_merges(order: Tensor) -> Tensor:
    """Returns the merges (m - 1, 2) that add the graphs to the first one in the given order."""
    return torch.stack([order[:1].expand(len(order) - 1), order[1:]], dim=1)


def _working_bytes(problem: MultiGraphProblem, threads: int) -> int:
    """Returns an upper limit of the bytes that folded costs and the problems of all threads take."""
    pairs, e1, e2 = problem.costs.quadratic_costs.shape
    largest = int(problem.node_counts.max())
    elements = min(problem.largest_universe, int(problem.node_counts.sum()))
    ordered = min(2 * max(e1, e2) * problem.graph_count, elements * elements)
    joined = min(2 * max(e1, e2), largest * largest)
    return pairs * 8 * e1 * e2 + threads * 12 * (elements * elements + joined * ordered)
