"""Graphs from points."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from graphmatch import _check

_LARGEST_EXPONENT = 120  # of a scale that float32 holds, and its inverse


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes with features and directed edges.

    Attributes:
        nodes: (n, d) or (b, n, d) floating point.
        edges: (e, 2) or (b, e, 2) int64; edge (i, j) leaves i and enters j.
    """

    nodes: Tensor
    edges: Tensor


def _points(where: str, points: Tensor) -> Tensor:
    if isinstance(points, Tensor) and points.ndim == 3:
        return _check.floating(where, "points", points)
    return _check.floating(where, "points", _check.tensor(where, "points", points, 2, "(n, d) or (b, n, d)"))


def knn_graph(points: Tensor, k: int) -> Graph:
    """Connects every point to its k nearest neighbours in Euclidean distance, computed in float32 or float64.

    Args:
        points: (n, d) or (b, n, d) floating point, finite.
        k: Neighbours per point; fewer points than k + 1 give n - 1 neighbours each, a single point none.

    Returns:
        Graph with the points as nodes and edges (i, j), j a neighbour of i: grouped by i, nearest first. No loops.

    Raises:
        TypeError, ValueError: If points are no finite floating-point tensor of that shape, or k < 0.

    Example:
        >>> import torch, graphmatch as gm
        >>> gm.knn_graph(torch.tensor([[0.0], [1.0], [3.0]]), k=1).edges.tolist()
        [[0, 1], [1, 0], [2, 1]]
    """
    points = _points("knn_graph", points)
    k = _check.whole_number("knn_graph", "k", k, "5 is usual.")
    _check.option("knn_graph", "k", k, k >= 0, "be at least 0", "5 is usual.")
    coordinates = points.detach() if points.dtype == torch.float64 else points.detach().float()
    _check.costs("knn_graph", "points", coordinates, allow_infinite=False)
    count = points.shape[-2]
    neighbours = max(min(k, count - 1), 0)
    nearest = nearest_neighbours(distances_between(_of_size_one(coordinates)), neighbours)
    return Graph(points, edges_to(nearest))


def _of_size_one(coordinates: Tensor) -> Tensor:
    """Returns coordinates (..., n, d) scaled by powers of two: squares of very large or small ones have no place."""
    if coordinates.numel() == 0:
        return coordinates
    exponent = torch.frexp(coordinates.abs().amax((-2, -1), keepdim=True)).exponent
    return torch.ldexp(coordinates, -exponent.clamp(-_LARGEST_EXPONENT, _LARGEST_EXPONENT))


def edges_to(nearest: Tensor) -> Tensor:
    """Returns the edges (..., n * k, 2) from every node to its neighbours (..., n, k), grouped by node."""
    origin = torch.arange(nearest.shape[-2], device=nearest.device)[:, None].expand(nearest.shape)
    return torch.stack([origin, nearest], dim=-1).flatten(-3, -2)


def distances_between(coordinates: Tensor) -> Tensor:
    """Returns the Euclidean distances (..., n, n) between points (..., n, d)."""
    count = coordinates.shape[-2]
    bytes_needed = 3 * prod(coordinates.shape[:-1]) * count * coordinates.element_size()
    cure = "All distances are computed: use fewer points, or a graph from scipy.spatial.cKDTree."
    _check.memory("knn_graph", bytes_needed, cure, coordinates.device)
    # Differences, not |x|^2 + |y|^2 - 2xy: the latter loses the distances of close points in float32.
    return torch.cdist(coordinates, coordinates, compute_mode="donot_use_mm_for_euclid_dist")


def nearest_neighbours(distances: Tensor, neighbours: int, real: Tensor | None = None) -> Tensor:
    """Returns the indices (..., n, neighbours) of the points nearest to each, nearest first.

    Of all points, or of those that are `real`, (..., n) bool; points that run out leave any index behind.
    """
    barred = torch.eye(distances.shape[-1], dtype=torch.bool, device=distances.device)
    if real is not None:
        barred = barred | ~real[..., None, :]
    # Distances that overflow stay below that of a loop.
    distances = distances.clamp(max=torch.finfo(distances.dtype).max).masked_fill(barred, torch.inf)
    return distances.topk(neighbours, dim=-1, largest=False, sorted=True).indices


def complete_graph(points: Tensor) -> Graph:
    """Connects every point to every other one, in both directions.

    Args:
        points: (n, d) or (b, n, d) floating point.

    Example:
        >>> import torch, graphmatch as gm
        >>> gm.complete_graph(torch.zeros(2, 3)).edges.tolist()
        [[0, 1], [1, 0]]
    """
    points = _points("complete_graph", points)
    count = points.shape[-2]
    cure = "Every two points are joined: use fewer, or knn_graph."
    _check.memory("complete_graph", 2 * torch.int64.itemsize * count**2, cure, points.device)
    edges = (~torch.eye(count, dtype=torch.bool, device=points.device)).nonzero()
    return Graph(points, edges.expand(*points.shape[:-2], *edges.shape))
