"""Local search among consistent matchings."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from graphmatch import _check
from graphmatch.multigraph.base import MultiGraphMethod, check_problem
from graphmatch.multigraph.labels import compact_labels, real_nodes
from graphmatch.multigraph.native_search import NativeSearch
from graphmatch.multigraph.problem import MultiGraphProblem
from graphmatch.multigraph.result import MultiGraphResult, result_of_labels
from graphmatch.multigraph.sequential import SequentialConstruction, check_search_options


@dataclass(frozen=True, kw_only=True)
class LocalSearch:
    """Improves consistent matchings: one graph is taken out and matched anew with all the others, and so on.

    Matching a graph anew is one quadratic assignment problem whose costs are summed over the other graphs. Descent from
    the present labels comes first; where that has come to its end, two elements are exchanged in the graphs where that
    pays (a minimum cut among the graphs, by descent), and each problem is solved as if there were no labels yet. The
    search ends when none of this helps. The answer is never worse than the start.

    Args:
        start: The method that finds the matchings to begin with, or their labels (m, n) int64.
        sweeps: Limit of rounds.
        effort: Of the `Portfolio` that solves single problems.
        max_iterations: Of its dual ascent.
        seed: Of the order of the graphs and other random choices.
        max_gap: Relative gap that counts as optimal.
        time_limit: Seconds for the search; None = no limit.
        threads: None = `torch.get_num_threads()`; one search takes one thread.
        on_cpu: Accept costs on other devices by copying them to the CPU.

    Source: S. Kahl et al., "Unlocking the potential of operations research for multi-graph matching", arXiv 2406.18215
        (the moves); P. Swoboda et al., "A convex relaxation for multi-graph matching", CVPR 2019.

    Example:
        >>> import torch, graphmatch as gm
        >>> points = torch.tensor([[0.0, 1], [1, 0], [3, 3], [-2, 1]])
        >>> graphs = [gm.complete_graph(points[order]) for order in ([0, 1, 2, 3], [2, 1, 0, 3], [1, 2, 0, 3])]
        >>> problem = gm.MultiGraphProblem.from_graphs(graphs)
        >>> wrong = torch.arange(4).expand(3, 4)
        >>> gm.solve_multigraph(problem, gm.LocalSearch(start=wrong)).matching(0, 1)
        tensor([2, 1, 0, 3])
    """

    start: MultiGraphMethod | Tensor = field(default_factory=SequentialConstruction)
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
        where = "LocalSearch"
        _check.option(where, "sweeps", self.sweeps, self.sweeps >= 1, "be at least 1", "100 is the default.")
        check_search_options(where, self.effort, self.max_iterations)
        _check.budget(where, self.max_gap, self.time_limit)

    def solve(self, problem: MultiGraphProblem) -> MultiGraphResult:
        """Returns consistent matchings."""
        where = "LocalSearch"
        check_problem(where, problem)
        pairwise = None
        if isinstance(self.start, Tensor):
            labels = checked_labels(where, self.start, problem)
        else:
            begun = self.start.solve(problem)
            labels, pairwise = begun.labels, begun.pairwise
        search = NativeSearch(
            where,
            self.sweeps,
            self.effort,
            self.max_iterations,
            self.seed,
            self.time_limit,
            self.threads,
            self.on_cpu,
        )
        found, _ = search.run(problem, [labels])
        return result_of_labels(problem, found, self.max_gap, pairwise)


def checked_labels(where: str, labels: Tensor, problem: MultiGraphProblem) -> Tensor:
    """Returns labels (m, n), renumbered below the universe size, or raises the complaint about them."""
    _check.integer(where, "start", _check.tensor(where, "start", labels, 2, "(m, n)"))
    largest = int(problem.node_counts.max())
    _check.shape(where, "start", labels, (problem.graph_count, largest), "graphs, nodes of the largest graph")
    labels = labels.cpu()
    real = real_nodes(problem.node_counts, largest)
    for graph in range(problem.graph_count):
        own = labels[graph][real[graph]]
        if bool((own < 0).any()) or len(own.unique()) < len(own):
            rule = f"give the nodes of graph {graph} distinct labels of at least 0"
            raise ValueError(_check.message(where, "start", rule, own.tolist(), "Equal labels are matched."))
    compact = compact_labels(torch.where(real, labels, -1))
    used, limit = int(compact.max()) + 1 if compact.numel() else 0, problem.largest_universe
    if used > limit:
        rule = f"name at most {limit} elements, the size of the universe"
        raise ValueError(_check.message(where, "start", rule, used, "Complete matchings leave no node out."))
    return compact
