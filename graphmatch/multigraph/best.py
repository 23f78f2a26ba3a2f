"""The default: pairs, agreement, constructions and local search, until the answers agree."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from graphmatch import _check
from graphmatch.multigraph.agreement import pair_support, spanning_merges, tree_labels
from graphmatch.multigraph.base import check_problem, solve_pairs
from graphmatch.multigraph.labels import cycle_consistency
from graphmatch.multigraph.native_search import NativeSearch, sequential_merges
from graphmatch.multigraph.problem import MultiGraphProblem
from graphmatch.multigraph.result import MultiGraphResult, result_of_labels
from graphmatch.multigraph.sequential import check_search_options
from graphmatch.result import MatchResult, relative_gap
from graphmatch.solvers import Solver

_SAME = 1e-9  # relative difference of the cost of equal answers


@dataclass(frozen=True, kw_only=True)
class Best:
    """Everything that pays: all pairs solved, matchings built from what they agree on, local search from many starts.

    The pairs, solved each on its own in one native call, give the lower bound. Where they contradict each other, the
    graphs are joined along the tree of pairs that the ways through third graphs confirm best, once by composing the
    matchings of the tree, once by solving a problem for every branch; further starts add the graphs in random order.
    `LocalSearch` improves all of them. The search ends when the cheapest answer has come `agreement` times, when the
    bound proves it, or after `starts`.

    Args:
        starts: Limit of starts.
        agreement: How often the cheapest answer must come.
        solver: Of the pairs; None is a quick `Portfolio`. The bound is as good as this solver's bounds.
        sweeps: Of each local search.
        effort: Of the `Portfolio` that solves single problems.
        max_iterations: Of its dual ascent.
        seed: Of the random choices.
        max_gap: Relative gap that counts as optimal.
        time_limit: Seconds for the search, that of the pairs not counted; None = no limit.
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
    agreement: int = 2
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
        _check.option("Best", "starts", self.starts, self.starts >= 1, "be at least 1", "16 is the default.")
        holds = self.agreement >= 1
        _check.option("Best", "agreement", self.agreement, holds, "be at least 1", "2 is the default.")
        _check.option("Best", "sweeps", self.sweeps, self.sweeps >= 1, "be at least 1", "100 is the default.")
        check_search_options("Best", self.effort, self.max_iterations)
        _check.budget("Best", self.max_gap, self.time_limit)

    def solve(self, problem: MultiGraphProblem) -> MultiGraphResult:
        """Returns consistent matchings with the sum of the bounds of all pairs."""
        check_problem("Best", problem)
        pairwise = solve_pairs(problem, self.solver, self.threads, self.on_cpu)
        search = _Starts(self, problem, pairwise)
        search.run()
        return result_of_labels(problem, search.labels, self.max_gap, pairwise)


class _Starts:
    """The starts of one call, and the cheapest labels so far."""

    def __init__(self, method: Best, problem: MultiGraphProblem, pairwise: MatchResult):
        self.method, self.problem = method, problem
        self.assignment = pairwise.assignment.cpu()
        self.bound = float(pairwise.lower_bound.sum())
        self.deadline = math.inf if method.time_limit is None else time.monotonic() + method.time_limit
        self.random = torch.Generator().manual_seed(method.seed)
        self.labels = torch.zeros(0)
        self.cost = math.inf
        self.count = self.hits = 0

    def run(self) -> None:
        problem = self.problem
        support = pair_support(self.assignment, problem)
        tree = spanning_merges(support)
        composed = tree_labels(self.assignment, problem, tree)
        self.labels = composed
        self._take(*self._search().improve(problem, composed[None]))
        agrees = cycle_consistency(self.assignment, problem.pairs, problem.node_counts) == 1.0
        if self._is_proven() or (agrees and torch.equal(composed, self.labels)):
            return
        self._construct([tree])
        # In waves of a fixed size, so that the answer does not depend on the number of threads.
        while self.hits < self.method.agreement and self.count < self.method.starts and not self._is_proven():
            if time.monotonic() > self.deadline:
                return
            wave = min(2, self.method.starts - self.count)
            graphs = problem.graph_count
            orders = [torch.randperm(graphs, generator=self.random) for _ in range(wave)]
            self._construct([sequential_merges(order) for order in orders])

    def _construct(self, merges: list[Tensor]) -> None:
        if self.count < self.method.starts:
            self._take(*self._search().construct(self.problem, torch.stack(merges)))

    def _search(self) -> NativeSearch:
        method = self.method
        left = None if method.time_limit is None else max(self.deadline - time.monotonic(), 1e-3)
        seed = method.seed + self.count
        options = (method.effort, method.max_iterations, seed, left, method.threads, method.on_cpu)
        return NativeSearch("Best", method.sweeps, *options)

    def _take(self, labels: Tensor, objectives: Tensor) -> None:
        """Notes what several starts have come to, in their order."""
        for found, cost in zip(labels, objectives.sum(1).tolist(), strict=True):
            self.count += 1
            tolerance = _SAME * max(abs(cost), abs(self.cost)) if math.isfinite(self.cost) else 0.0
            if cost < self.cost - tolerance:
                self.labels, self.cost, self.hits = found, cost, 1
            elif math.isfinite(cost) and cost <= self.cost + tolerance:
                self.hits += 1

    def _is_proven(self) -> bool:
        if not math.isfinite(self.cost):
            return False
        cost, bound = (torch.tensor(value, dtype=torch.float64) for value in (self.cost, self.bound))
        return bool(relative_gap(cost, bound) <= self.method.max_gap)
