"""Graphs with a matrix of pairwise structure: what distances and barycenters of graphs are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from graphmatch import _check
from graphmatch.graphs import Graph


@dataclass(frozen=True, eq=False)
class StructuredGraph:
    """Nodes with features, and a number for every ordered pair of nodes: edge weights, distances, anything.

    Edge lists have no mean, matrices do: a barycenter has the mean of the adjacency matrices of its graphs.

    Attributes:
        nodes: (n, d) floating point.
        structure: (n, n), same dtype; entry (i, j) belongs to the ordered pair of nodes i and j, the diagonal to nodes.

    Raises:
        TypeError, ValueError: If an attribute breaks the rules above or is not finite.

    Example:
        >>> import torch, graphmatch as gm
        >>> graph = gm.StructuredGraph(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0, 0.5], [0.0, 0.0]]))
        >>> graph.to_graph().edges
        tensor([[0, 1]])
    """

    nodes: Tensor
    structure: Tensor

    def __post_init__(self) -> None:
        """Checks everything."""
        where = type(self).__name__
        nodes = _check.floating(where, "nodes", _check.tensor(where, "nodes", self.nodes, 2, "(n, d)"))
        structure = _check.tensor(where, "structure", self.structure, 2, "(n, n)")
        _check.shape(where, "structure", structure, (len(nodes), len(nodes)), "a number per pair of nodes")
        if structure.dtype != nodes.dtype:
            cure = "Convert one of them."
            raise TypeError(_check.message(where, "structure", f"be {nodes.dtype} as nodes", structure.dtype, cure))
        _check.same_device(where, {"nodes": nodes, "structure": structure})
        _check.costs(where, "nodes", nodes, allow_infinite=False)
        _check.costs(where, "structure", structure, allow_infinite=False)

    @classmethod
    def from_graph(cls, graph: Graph) -> StructuredGraph:
        """Returns the graph with its adjacency matrix as the structure; edges that repeat add up.

        Args:
            graph: One graph, nodes (n, d).

        Example:
            >>> import torch, graphmatch as gm
            >>> gm.StructuredGraph.from_graph(gm.knn_graph(torch.tensor([[0.0], [1.0], [3.0]]), k=1)).structure
            tensor([[0., 1., 0.],
                    [1., 0., 0.],
                    [0., 1., 0.]])
        """
        where = f"{cls.__name__}.from_graph"
        nodes = _check.floating(where, "nodes", _check.tensor(where, "nodes", graph.nodes, 2, "(n, d)"))
        edges = _check.integer(where, "edges", _check.tensor(where, "edges", graph.edges, 2, "(e, 2)"))
        _check.shape(where, "edges", edges, (len(edges), 2), "two ends per edge")
        _check.indices(where, "edges", edges[None], None, len(nodes))
        structure = nodes.new_zeros(len(nodes), len(nodes))
        ones = nodes.new_ones(len(edges))
        return cls(nodes, structure.index_put((edges[:, 0], edges[:, 1]), ones, accumulate=True))

    def to_graph(self, threshold: float = 0.0) -> Graph:
        """Returns the graph with an edge for every entry of the structure of more than `threshold` in absolute value.

        Args:
            threshold: 0 gives the union of the edges that were averaged, 0.5 those of the majority.
        """
        _check.number("to_graph", "threshold", threshold, "0 keeps every edge.")
        _check.option("to_graph", "threshold", threshold, threshold >= 0, "be at least 0", "0 keeps every edge.")
        return Graph(self.nodes, (self.structure.detach().abs() > threshold).nonzero())

    def padded(self, size: int) -> StructuredGraph:
        """Returns the graph with further nodes up to `size`, whose features and structure are zero.

        Such nodes are as far from a node as its features are from zero. Append a feature that is 1 to the real nodes
        to make a missing node cost something by itself.
        """
        extra = size - len(self.nodes)
        _check.option("padded", "size", size, extra >= 0, f"be at least {len(self.nodes)}, the nodes", "Take the most.")
        return StructuredGraph(pad(self.nodes, (0, 0, 0, extra)), pad(self.structure, (0, extra, 0, extra)))


def structured(where: str, argument: str, graph: object) -> StructuredGraph:
    """Returns a graph of either kind as one with a structure, or raises."""
    if isinstance(graph, StructuredGraph):
        return graph
    if not isinstance(graph, Graph):
        cure = "Build one from points with knn_graph."
        raise TypeError(_check.message(where, argument, "be a Graph or StructuredGraph", _check.describe(graph), cure))
    return StructuredGraph.from_graph(graph)


def structured_graphs(where: str, graphs: Sequence[object]) -> list[StructuredGraph]:
    """Returns one or more graphs whose features have one length, dtype and device, each with its structure."""
    if isinstance(graphs, Graph | StructuredGraph) or not isinstance(graphs, Sequence) or not graphs:
        received = type(graphs).__name__ if graphs or not isinstance(graphs, Sequence) else "none"
        raise TypeError(_check.message(where, "graphs", "be a list of one or more graphs", received, "See `Graph`."))
    taken = [structured(where, f"graph {place}", graph) for place, graph in enumerate(graphs)]
    kinds = {(graph.nodes.shape[1], graph.nodes.dtype, str(graph.nodes.device)) for graph in taken}
    if len(kinds) > 1:
        rule = "have features of one length and dtype on one device"
        raise ValueError(_check.message(where, "graphs", rule, sorted(kinds, key=str), "Convert them."))
    return taken


def normalised_weights(where: str, weights: object, count: int, like: Tensor) -> Tensor:
    """Returns weights (count,) in float64 that add up to 1; None = equal ones."""
    if weights is None:
        return torch.full((count,), 1 / max(count, 1), dtype=torch.float64, device=like.device)
    if not isinstance(weights, Tensor | Sequence):
        cure = "Pass a number per graph."
        raise TypeError(_check.message(where, "weights", "be a tensor or a list", _check.describe(weights), cure))
    values = torch.as_tensor(weights, dtype=torch.float64, device=like.device).detach()
    _check.shape(where, "weights", values, (count,), "a weight per graph")
    total = float(values.sum())
    if not (bool((values >= 0).all()) and 0 < total < torch.inf):
        rule = "be finite, not negative and not all zero"
        raise ValueError(_check.message(where, "weights", rule, values.tolist(), "None weighs all graphs equally."))
    return values / total


def check_structure_weight(where: str, structure_weight: float) -> None:
    """Refuses shares of the structure outside of [0, 1]."""
    cure = "0 compares features alone, 1 the structure."
    _check.number(where, "structure_weight", structure_weight, cure)
    holds = 0 <= structure_weight <= 1
    _check.option(where, "structure_weight", structure_weight, holds, "lie in [0, 1]", cure)


def squared_distances(left: Tensor, right: Tensor) -> Tensor:
    """Returns the squared Euclidean distances (n1, n2) between rows, zero for equal ones."""
    # Differences: |x|^2 + |y|^2 - 2xy loses the distances of close rows.
    return torch.cdist(left, right, compute_mode="donot_use_mm_for_euclid_dist").square()
