"""The native search for consistent matchings, from labels or by construction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graphmatch import _check, _multigraph_ops
from graphmatch.multigraph.labels import real_nodes
from graphmatch.multigraph.problem import MultiGraphProblem
from graphmatch.solvers.call import host_costs, thread_count

_WAVE = 2  # starts between two looks at how many of them agree


@dataclass(frozen=True)
class NativeSearch:
    """Options of the native search; see `LocalSearch` and `Best` for their meaning.

    Args:
        where: Name of the method, for errors.
        sweeps: 0 = no search after the construction.
        effort: Of the portfolio for single problems.
        max_iterations: Of its dual ascent.
        seed: Of the random choices; start i takes seed + i.
        time_limit: Seconds.
        threads: None = PyTorch's.
        on_cpu: Whether costs on other devices are copied.
        agreement: The search ends when so many starts have come to the least cost.
        lower_bound: Of the total cost; the search ends when it is within `max_gap` of it.
        max_gap: Relative.
    """

    where: str
    sweeps: int
    effort: float
    max_iterations: int
    seed: int
    time_limit: float | None
    threads: int | None
    on_cpu: bool
    agreement: int = 1
    lower_bound: float = -math.inf
    max_gap: float = 0.0

    def run(
        self, problem: MultiGraphProblem, labels: Sequence[Tensor] = (), merges: Sequence[Tensor] = ()
    ) -> tuple[Tensor, Tensor]:
        """Searches from labels (m, n) each, then from constructions by merges (m - 1, 2) each.

        Returns:
            The cheapest labels (m, n) found and their objectives (p,); where no allowed matchings were found, the
            labels that the first start began with, or the numbers of the nodes, and +inf.
        """
        graphs, largest = problem.graph_count, int(problem.node_counts.max())
        nothing = torch.full((graphs, largest), -1, dtype=torch.int64)
        no_merges = torch.zeros(graphs - 1, 2, dtype=torch.int64)
        starts = torch.stack([*labels, *[nothing] * len(merges)])
        trees = torch.stack([*[no_merges] * len(labels), *merges])
        costs = problem.costs
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
            problem.largest_universe if problem.is_limited else 0,
            starts,
            trees,
            self.sweeps,
            self.effort,
            self.max_iterations,
            self.seed,
            _WAVE,
            self.agreement,
            self.lower_bound,
            self.max_gap,
            self.time_limit,
            threads,
        )
        best = int(objectives.sum(1).argmin())
        if bool((found[best] < 0).all()):
            real = real_nodes(problem.node_counts, largest)
            found[best] = torch.where(real, torch.arange(largest), -1)
        return found[best], objectives[best]


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
