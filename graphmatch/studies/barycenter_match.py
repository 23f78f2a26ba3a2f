"""All graphs matched with a graph that is their mean: m problems at a time, whatever the number of pairs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphmatch.affinity import cosine_affinity, edge_features
from graphmatch.batch import stack_problems
from graphmatch.graphs import Graph, knn_graph
from graphmatch.multigraph import MultiGraphProblem, MultiGraphResult, barycenter_graph
from graphmatch.multigraph.base import pair_solver
from graphmatch.multigraph.result import result_of_labels
from graphmatch.problem import LawlerProblem
from graphmatch.solve import solve


@dataclass(frozen=True, eq=False)
class BarycenterGraph:
    """Multi-graph method: graphs of equal size are matched with a barycenter graph, as ExGra-Med matches its views.

    The barycenter is the first graph at first, then the mean of the nodes that are matched, joined to its own nearest
    neighbours, until the matchings no longer change. The costs of pairs only price the answer.

    Args:
        graphs: Those of the problem.
        neighbours: Edges that leave each node of the barycenter.
        edge_weight: As in `MultiGraphProblem.from_graphs`.
        rounds: Most matchings of all graphs.

    Source: D. M. H. Nguyen et al., "ExGra-Med", arXiv 2410.02615, section 3.2, with unknown correspondences.

    Example:
        >>> import torch
        >>> from graphmatch.studies.barycenter_match import BarycenterGraph
        >>> from graphmatch.studies.multigraph_problems import planted_copies, planted_problem
        >>> options = dict(graphs=4, nodes=6, noise=0.0, features=4, neighbours=2, seed=0)
        >>> problem, planted = planted_problem(**options)
        >>> result = BarycenterGraph(planted_copies(**options)[0], neighbours=2).solve(problem)
        >>> torch.equal(planted[1][result.matching(0, 1)], planted[0])
        True
    """

    graphs: list[Graph]
    neighbours: int
    edge_weight: float = 0.5
    rounds: int = 5

    def solve(self, problem: MultiGraphProblem) -> MultiGraphResult:
        """Returns consistent matchings with their cost and no bound."""
        features = [edge_features(graph.nodes, graph.edges) for graph in self.graphs]
        centre = self.graphs[0]
        labels = self._matched(centre, features)
        for _ in range(self.rounds - 1):
            centre = knn_graph(barycenter_graph(self.graphs, labels).nodes, self.neighbours)
            following = self._matched(centre, features)
            if torch.equal(following, labels):
                break
            labels = following
        return result_of_labels(problem, labels, max_gap=1e-6)

    def _matched(self, centre: Graph, features: list[Tensor]) -> Tensor:
        """Returns labels (m, n): the nodes of the centre that all nodes are matched with, by one call of the solver."""
        central = edge_features(centre.nodes, centre.edges)
        problems = [
            LawlerProblem(
                -cosine_affinity(graph.nodes, centre.nodes)[None],
                -self.edge_weight * (own @ central.T)[None],
                graph.edges,
                centre.edges,
            )
            for graph, own in zip(self.graphs, features, strict=True)
        ]
        return solve(stack_problems(problems), pair_solver()).assignment
