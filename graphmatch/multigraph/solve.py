"""The one verb for several graphs."""

from __future__ import annotations

from graphmatch.multigraph.base import MultiGraphMethod, check_problem
from graphmatch.multigraph.best import Best
from graphmatch.multigraph.problem import MultiGraphProblem
from graphmatch.multigraph.result import MultiGraphResult


def solve_multigraph(problem: MultiGraphProblem, method: MultiGraphMethod | None = None) -> MultiGraphResult:
    """Matches several graphs so that the matchings never contradict each other.

    Args:
        problem: Costs of the matchings between the graphs; see `MultiGraphProblem`.
        method: Any multi-graph method; None takes `Best()`.

    Returns:
        Labels of all nodes, the matchings that follow from them, their cost and, where the method solves all pairs, a
        lower bound: the sum of the bounds of the pairs.

    Raises:
        TypeError: If the problem is no `MultiGraphProblem`.

    Example:
        >>> import torch, graphmatch as gm
        >>> points = torch.tensor([[0.0, 1], [1, 0], [3, 3]])
        >>> graphs = [gm.complete_graph(points[order]) for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0])]
        >>> gm.solve_multigraph(gm.MultiGraphProblem.from_graphs(graphs)).assignment
        tensor([[2, 1, 0],
                [2, 0, 1],
                [1, 0, 2]])
    """
    check_problem("solve_multigraph", problem)
    return (Best() if method is None else method).solve(problem)
