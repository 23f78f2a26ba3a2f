"""All pairs solved, then the cheapest of many consistent labels that follow from their matchings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphmatch import _check
from graphmatch.multigraph.base import check_problem, solve_pairs
from graphmatch.multigraph.candidates import cheapest_labels
from graphmatch.multigraph.labels import matchings_of_labels
from graphmatch.multigraph.problem import MultiGraphProblem
from graphmatch.multigraph.result import MultiGraphResult, result_of_labels
from graphmatch.multigraph.synchronization import Synchronization
from graphmatch.multigraph.synchronize import synchronization_of
from graphmatch.solvers import Solver


@dataclass(frozen=True)
class AllPairs:
    """Multi-graph method: all pairs solved each on its own, then the cheapest consistent labels made from them.

    The candidates: each graph as pivot, over which all others are matched, and the labels of `synchronize_matchings` of
    the kinds "cliques" and "projected_power".

    Guarantee: matchings are consistent; `pair_bounds` are those of the solver, so that pairs that are consistent
    already, with closed gaps, are certified to be optimal. Deterministic. Cost: m (m - 1) / 2 quadratic problems in one
    native call, then m + 2 evaluations of the objective.

    Args:
        solver: Solver of the pairs; None = a hasty one.
        max_gap: Relative gap that counts as optimal.

    Source: see `synchronize_matchings`.

    Example:
        >>> import torch, graphmatch as gm
        >>> points = torch.tensor([[0.0, 1], [1, 0], [3, 3]])
        >>> graphs = [gm.complete_graph(points[order]) for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0])]
        >>> result = gm.AllPairs().solve(gm.MultiGraphProblem.from_graphs(graphs))
        >>> result.matching(1, 2), result.consistency_before
        (tensor([1, 0, 2]), 1.0)
    """

    solver: Solver | None = None
    max_gap: float = 1e-6

    def __post_init__(self) -> None:
        """Checks the options."""
        _check.numbers(self)
        _check.budget("AllPairs", self.max_gap, None)

    def solve(self, problem: MultiGraphProblem) -> MultiGraphResult:
        """Returns consistent matchings with their cost and a bound."""
        check_problem("AllPairs", problem)
        pairwise = solve_pairs(problem, self.solver)
        matched = pairwise.assignment.cpu()
        synchronization = synchronization_of(problem, matched)
        labels = synchronization.cliques
        if not torch.equal(matchings_of_labels(labels, problem.pairs)[:, : matched.shape[1]], matched):
            kinds = [labels, synchronization.projected_power()]
            labels = torch.cat([torch.stack(kinds), _pivot_labels(problem, synchronization)])
        else:
            labels = labels[None]
        return result_of_labels(problem, cheapest_labels(problem, labels), self.max_gap, pairwise)


def _pivot_labels(problem: MultiGraphProblem, synchronization: Synchronization) -> Tensor:
    """Returns labels (m, m, n), entry r those of the nodes of graph r for it and for their partners.

    Other nodes become elements of their own, or get no label (-1) where the universe is limited.
    """
    graphs, nodes = synchronization.graphs, synchronization.nodes
    labels = synchronization.table[:, :, :nodes].transpose(0, 1).clone()
    own = torch.arange(graphs)
    labels[own, own] = torch.arange(nodes)
    if not problem.is_limited:
        labels = torch.where(labels >= 0, labels, nodes + torch.arange(graphs * nodes).reshape(graphs, nodes))
    return torch.where(synchronization.real, labels, -1)
