"""A small network that turns two sets of points into the costs of matching them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import graphmatch as gm
from benchmarks.keypoints import Pairs

_NEIGHBOURS = 3


class Costs(nn.Module):
    """Unary and quadratic costs from coordinates alone.

    Nodes: coordinates and sorted distances to the other points, through two layers and message passing; edges: the
    vector and its length, through two layers. Costs are minus cosines.
    """

    def __init__(self, distances: int = 5, dim: int = 32) -> None:
        super().__init__()
        self.distances = distances
        self.nodes = _two_layers(2 + distances, dim)
        self.passing = gm.MessagePassing(dim, dropout=0.0)
        self.edges = _two_layers(3, dim)

    def forward(self, pairs: Pairs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns unary costs (b, n1, n2), quadratic costs (b, e1, e2) and the edges of both sides."""
        (left, left_edges, edges1), (right, right_edges, edges2) = map(self._features, (pairs.left, pairs.right))
        unary = -gm.cosine_affinity(left, right)
        quadratic = -0.5 * gm.cosine_affinity(left_edges, right_edges)
        return unary, quadratic, edges1, edges2

    def _features(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        edges = gm.knn_graph(points, _NEIGHBOURS).edges
        distances = torch.cdist(points, points).sort(-1).values[..., 1 : 1 + self.distances]
        nodes = self.passing(self.nodes(torch.cat([points, distances], -1)), edges)
        index = edges.flatten(1)[..., None].expand(-1, -1, 2)
        ends = points.gather(1, index).unflatten(1, (-1, 2))
        vectors = ends[:, :, 1] - ends[:, :, 0]
        return nodes, self.edges(torch.cat([vectors, vectors.norm(dim=-1, keepdim=True)], -1)), edges


def _two_layers(size: int, dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(size, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim))
