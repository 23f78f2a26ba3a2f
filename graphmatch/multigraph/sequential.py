"""Construction of consistent matchings graph by graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from graphmatch import _check
from graphmatch.multigraph.base import check_problem
from graphmatch.multigraph.native_search import NativeSearch, sequential_merges
from graphmatch.multigraph.problem import MultiGraphProblem
from graphmatch.multigraph.result import MultiGraphResult, result_of_labels


@dataclass(frozen=True, kw_only=True)
class SequentialConstruction:
    """Adds one graph after the other: m - 1 quadratic assignment problems.

    Each graph is matched with the elements that the graphs before it have formed; what a match costs is the sum over
    the members of the element. The matchings are consistent by construction and come without a bound.

    Args:
        order: The graphs in the order in which they are added; None = that of their numbers.
        effort: Of the `Portfolio` that solves each problem.
        max_iterations: Of its dual ascent.
        seed: Of the random choices.
        max_gap: Relative gap that counts as optimal.
        time_limit: Seconds for the whole call; None = no limit. Problems that it cuts off are solved as well as one
            iteration can.
        threads: None = `torch.get_num_threads()`.
        on_cpu: Accept costs on other devices by copying them to the CPU.

    Source: S. Kahl et al., "Unlocking the potential of operations research for multi-graph matching", arXiv 2406.18215.

    Example:
        >>> import torch, graphmatch as gm
        >>> points = torch.tensor([[0.0, 1], [1, 0], [3, 3]])
        >>> graphs = [gm.complete_graph(points[order]) for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0])]
        >>> problem = gm.MultiGraphProblem.from_graphs(graphs)
        >>> gm.solve_multigraph(problem, gm.SequentialConstruction()).labels
        tensor([[0, 1, 2],
                [2, 1, 0],
                [1, 2, 0]])
    """

    order: Sequence[int] | None = None
    effort: float = 0.2
    max_iterations: int = 30
    seed: int = 0
    max_gap: float = 1e-6
    time_limit: float | None = None
    threads: int | None = None
    on_cpu: bool = False

    def __post_init__(self) -> None:
        """Checks the options."""
        _check.numbers(self)
        check_search_options("SequentialConstruction", self.effort, self.max_iterations)
        _check.budget("SequentialConstruction", self.max_gap, self.time_limit)

    def solve(self, problem: MultiGraphProblem) -> MultiGraphResult:
        """Returns consistent matchings."""
        where = "SequentialConstruction"
        check_problem(where, problem)
        graphs = problem.graph_count
        order = list(range(graphs) if self.order is None else self.order)
        holds = sorted(order) == list(range(graphs))
        if not holds:
            rule = f"name each of the {graphs} graphs once"
            raise ValueError(_check.message(where, "order", rule, order, "None takes the order of their numbers."))
        search = NativeSearch(
            where, 0, self.effort, self.max_iterations, self.seed, self.time_limit, self.threads, self.on_cpu
        )
        labels, _ = search.run(problem, merges=[sequential_merges(torch.tensor(order))])
        return result_of_labels(problem, labels, self.max_gap)


def check_search_options(where: str, effort: float, max_iterations: int) -> None:
    """Checks the options of the portfolio that solves single problems."""
    _check.option(where, "effort", effort, 0 < effort <= 1e6, "lie in (0, 1e6]", "Smaller is faster.")
    holds = max_iterations >= 1
    _check.option(where, "max_iterations", max_iterations, holds, "be at least 1", "10 is quick.")
