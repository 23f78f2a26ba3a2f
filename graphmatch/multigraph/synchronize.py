"""All pairs solved, then labels from the agreement of their matchings alone."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from graphmatch import _check
from graphmatch.multigraph.base import check_problem, solve_pairs
from graphmatch.multigraph.candidates import cheapest_labels
from graphmatch.multigraph.problem import MultiGraphProblem
from graphmatch.multigraph.result import MultiGraphResult, result_of_labels
from graphmatch.multigraph.synchronization import Kind, Synchronization, check_kind
from graphmatch.solvers import Solver


@dataclass(frozen=True)
class Synchronize:
    """Multi-graph method: all pairs solved each on its own, then the labels that agree best with their matchings.

    Costs count while pairs are solved, not afterwards: use `AllPairs`, which compares several such labels by their
    costs, unless you compare synchronisers. Matchings from elsewhere are synchronised by `synchronize_matchings`.

    Guarantee: matchings are consistent; `pair_bounds` are those of the solver. If the pairs are consistent already they
    are the answer of "cliques". Where the labels match forbidden nodes or leave a complete problem incomplete, they
    are changed as little as possible. Deterministic; "spectral" for a number of torch threads, which
    eigenvectors round by. Cost: m (m - 1) / 2 quadratic problems in one native call;
    "cliques" O(m^3 n) after that, "spectral" O((m n)^3).

    Args:
        kind: "cliques", "spectral" or "projected_power"; see `synchronize_matchings`.
        solver: Solver of the pairs; None = a hasty one.
        max_gap: Relative gap that counts as optimal.

    Source: see `synchronize_matchings`.

    Example:
        >>> import torch, graphmatch as gm
        >>> points = torch.tensor([[0.0, 1], [1, 0], [3, 3]])
        >>> graphs = [gm.complete_graph(points[order]) for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0])]
        >>> result = gm.Synchronize("spectral").solve(gm.MultiGraphProblem.from_graphs(graphs))
        >>> result.matching(1, 2), result.status
        (tensor([1, 0, 2]), <Status.OPTIMAL: 0>)
    """

    kind: Kind = "cliques"
    solver: Solver | None = None
    max_gap: float = 1e-6

    def __post_init__(self) -> None:
        """Checks the options."""
        _check.numbers(self)
        check_kind("Synchronize", self.kind)
        _check.budget("Synchronize", self.max_gap, None)

    def solve(self, problem: MultiGraphProblem) -> MultiGraphResult:
        """Returns consistent matchings with their cost and a bound."""
        check_problem("Synchronize", problem)
        pairwise = solve_pairs(problem, self.solver)
        labels = synchronization_of(problem, pairwise.assignment).labels(self.kind)
        return result_of_labels(problem, cheapest_labels(problem, labels[None]), self.max_gap, pairwise)


def synchronization_of(problem: MultiGraphProblem, assignment: Tensor) -> Synchronization:
    """Returns the synchronisation of matchings of the pairs of a problem."""
    universe = problem.largest_universe if problem.is_limited else None
    return Synchronization(assignment.cpu(), problem.pairs, problem.node_counts, universe)
