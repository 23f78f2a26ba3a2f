"""Several graphs in one batch, whose nodes stand for elements of a universe, and the problems between them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from graphmatch.graphs import distances_between, edges_to, nearest_neighbours

# Rows closer than this, relative to their length, are one text or image that was encoded twice.
_SAME = 1e-5


@dataclass(frozen=True, eq=False)
class GraphBatch:
    """Graphs of at most n nodes, real ones first.

    Attributes:
        nodes: (g, n, d).
        distances: (g, n, n), Euclidean, without gradient.
        same: (g, n, n) bool, nodes that may take each other's place.
        counts: (g,) int64, real nodes; None = all n.
        elements: (g, n) int64, the element of the universe that each node stands for, distinct within a graph, -1 =
            none or padding; None = node i stands for element i.
    """

    nodes: Tensor
    distances: Tensor
    same: Tensor
    counts: Tensor | None = None
    elements: Tensor | None = None

    def counterparts(self, left: Tensor, right: Tensor) -> Tensor:
        """Returns bool (p, n, n), the nodes of graphs `left` and `right`, (p,), that stand for one element."""
        return counterparts(self.elements, left, right, self.same)


def counterparts(elements: Tensor | None, left: Tensor, right: Tensor, like: Tensor) -> Tensor:
    """Returns bool (p, n, n) as `like`, (g, n, n), is: the nodes of two graphs that stand for one element."""
    if elements is None:
        count = like.shape[1]
        return torch.eye(count, dtype=torch.bool, device=like.device).expand(len(left), count, count)
    first, second = elements[left], elements[right]
    return (first[:, :, None] == second[:, None, :]) & (first >= 0)[:, :, None]


def neighbour_edges(graphs: GraphBatch, k: int) -> tuple[Tensor, Tensor | None]:
    """Returns edges (g, e, 2) to the k nearest real neighbours, and how many of each graph are real; None = all.

    Real edges come first, in the order of `knn_graph`; the padding joins the last node, which is padding, to itself.
    """
    count, device = graphs.nodes.shape[1], graphs.nodes.device
    neighbours = max(min(k, count - 1), 0)
    if graphs.counts is None:
        return edges_to(nearest_neighbours(graphs.distances, neighbours)), None
    counts, places = graphs.counts[:, None, None], torch.arange(count, device=device)
    edges = edges_to(nearest_neighbours(graphs.distances, neighbours, places < graphs.counts[:, None]))
    real = ((places[:, None] < counts) & (torch.arange(neighbours, device=device) < counts - 1)).flatten(1)
    order = real_first(real)
    edges = edges.gather(1, order[:, :, None].expand_as(edges))
    edge_counts = real.sum(1)
    kept = torch.arange(edges.shape[1], device=device) < edge_counts[:, None]
    return torch.where(kept[:, :, None], edges, count - 1), edge_counts


def distances_of(nodes: Tensor) -> Tensor:
    """Returns the distances (g, n, n) between the rows of each graph (g, n, d), without gradient."""
    return distances_between(nodes.detach())


def equal_rows(nodes: Tensor, distances: Tensor) -> Tensor:
    """Returns bool (g, n, n): whether rows i and j of a graph (g, n, d) are the same up to rounding."""
    own = torch.eye(nodes.shape[1], dtype=torch.bool, device=nodes.device)
    return own | (distances <= _SAME * nodes.detach().norm(dim=-1, keepdim=True))


def equal_groups(groups: Tensor) -> Tensor:
    """Returns bool (g, n, n): whether nodes i and j of a graph have one group (g, n); -1 = none."""
    return (groups[:, :, None] == groups[:, None, :]) & (groups >= 0)[:, :, None]


def composed(first: Tensor, second: Tensor) -> Tensor:
    """Returns the composition bool (b, n, k) of relations (b, n, m) and (b, m, k)."""
    return torch.matmul(first.float(), second.float()) > 0.5


def real_first(real: Tensor) -> Tensor:
    """Returns the order (g, n) that puts the real ones of each row first and keeps them in order otherwise."""
    return (~real).long().argsort(dim=1, stable=True)


def padded(values: Tensor, count: int, fill: float = 0) -> Tensor:
    """Returns (g, n, ...) cut or filled to (g, count, ...)."""
    missing = count - values.shape[1]
    if missing <= 0:
        return values[:, :count]
    return F.pad(values, (0, 0) * (values.ndim - 2) + (0, missing), value=fill)
