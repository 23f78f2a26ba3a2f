"""The default: pairs, agreement, constructions and local search, until the answers agree."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from graphmatch import _check
from graphmatch.multigraph.agreement import pair_support, spanning_merges, tree_labels
from graphmatch.multigraph.base import check_problem, pair_solver, solve_pairs
from graphmatch.multigraph.native_search import NativeSearch, sequential_merges
from graphmatch.multigraph.problem import MultiGraphProblem
from graphmatch.multigraph.result import MultiGraphResult, result_of_labels
from graphmatch.multigraph.sequential import check_search_options
from graphmatch.solvers import Solver

_SMALL = 32  # nodes of all graphs: further starts cost next to nothing


@dataclass(frozen=True, kw_only=True)
class Best:
    """Everything that pays: all pairs solved, matchings built from what they agree on, local search from many starts.

    The pairs, solved each on its own in one native call, give the lower bound. Where they contradict each other, the
    graphs are joined along the tree of pairs that the ways through third graphs confirm best, once by composing the
    matchings of the tree, once by solving a problem for every branch; further starts add the graphs in random order.
    `LocalSearch` improves all of them. The search ends when the cheapest answer has come `agreement` times (once more
    where the first two starts differ), when the bound proves it, or after `starts`; the longer it lasts, the more
    effort each start takes, up to ten times as much.

    Args:
        starts: Limit of starts.
        agreement: How often the cheapest answer must come; None = twice, or 4 times where there are at most 32 nodes in
            all, or 3 times where there are at most 64 that may stay unmatched. More is safer where many answers are
            nearly as cheap.
        solver: Of the pairs; None is a quick `Portfolio`. The bound is as good as this solver's bounds.
        sweeps: Of each local search.
        effort: Of the `Portfolio` that solves single problems, in the first starts.
        max_iterations: Of its dual ascent, likewise.
        seed: Of the random choices.
        max_gap: Relative gap that counts as optimal.
        time_limit: Seconds, at most half of them for the pairs (a `solver` of yours has its own limit); None = no
            limit. Building the tables and one start are always done.
        threads: None = `torch.get_num_threads()`; the answer does not depend on it.
        on_cpu: Accept costs on other devices by copying them to the CPU.

    Example:
        >>> import torch, graphmatch as gm
        >>> none = torch.zeros(0, 2, dtype=torch.int64)
        >>> unary = torch.tensor([[-2.0, 0], [0, -1]]).expand(3, 2, 2)
        >>> costs = gm.LawlerProblem(unary, torch.zeros(3, 0, 0), none, none, unmatched_cost=0.0)
        >>> problem = gm.MultiGraphProblem(costs, torch.tensor([[0, 1], [0, 2], [1, 2]]))
        >>> result = gm.solve_multigraph(problem, gm.Best())
        >>> result.objective, result.status
        (-9.0, <Status.OPTIMAL: 0>)
    """

    starts: int = 16
    agreement: int | None = None
    solver: Solver | None = None
    sweeps: int = 100
    effort: float = 0.05
    max_iterations: int = 10
    seed: int = 0
    max_gap: float = 1e-6
    time_limit: float | None = None
    threads: int | None = None
    on_cpu: bool = False

    def __post_init__(self) -> None:
        """Checks the options."""
        _check.numbers(self)
        _check.option("Best", "starts", self.starts, self.starts >= 1, "be at least 1", "16 is the default.")
        if self.agreement is not None:
            holds = self.agreement >= 1
            _check.option("Best", "agreement", self.agreement, holds, "be at least 1", "None is the default.")
        _check.option("Best", "sweeps", self.sweeps, self.sweeps >= 1, "be at least 1", "100 is the default.")
        check_search_options("Best", self.effort, self.max_iterations)
        _check.budget("Best", self.max_gap, self.time_limit)

    def solve(self, problem: MultiGraphProblem) -> MultiGraphResult:
        """Returns consistent matchings with the sum of the bounds of all pairs."""
        check_problem("Best", problem)
        start = time.monotonic()
        half = None if self.time_limit is None else self.time_limit / 2
        solver = (
            pair_solver(len(problem.pairs), self.threads, self.on_cpu, half) if self.solver is None else self.solver
        )
        pairwise = solve_pairs(problem, solver)
        assignment = pairwise.assignment.cpu()
        support, agree = pair_support(assignment, problem)
        tree = spanning_merges(support)
        merges = [] if agree else [tree, *self._random_merges(problem.graph_count)]
        search = NativeSearch(
            "Best",
            self.sweeps,
            self.effort,
            self.max_iterations,
            self.seed,
            None if self.time_limit is None else max(self.time_limit - (time.monotonic() - start), 1e-3),
            self.threads,
            self.on_cpu,
            self._agreement(problem),
            float(pairwise.lower_bound.sum()),
            self.max_gap,
        )
        labels, _ = search.run(problem, [tree_labels(assignment, problem, tree)], merges[: self.starts - 1])
        return result_of_labels(problem, labels, self.max_gap, pairwise)

    def _agreement(self, problem: MultiGraphProblem) -> int:
        if self.agreement is not None:
            return self.agreement
        nodes = int(problem.node_counts.sum())
        if nodes <= _SMALL:
            return 4
        return 3 if nodes <= 2 * _SMALL and not problem.is_limited else 2

    def _random_merges(self, graphs: int) -> list[Tensor]:
        random = torch.Generator().manual_seed(self.seed)
        return [sequential_merges(torch.randperm(graphs, generator=random)) for _ in range(max(self.starts - 2, 0))]
