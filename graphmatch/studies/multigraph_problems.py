"""The problems of the multi-graph study: noisy shuffled copies of the same points, and what they take in memory."""

from __future__ import annotations

from itertools import combinations
from math import comb

import torch
from torch import Tensor

from graphmatch.graphs import Graph, knn_graph
from graphmatch.multigraph import MultiGraphProblem, MultiGraphResult

_FLOAT, _DOUBLE = 4, 8


def planted_problem(
    graphs: int, nodes: int, noise: float, features: int, neighbours: int, seed: int
) -> tuple[MultiGraphProblem, Tensor]:
    """Returns the problem of noisy shuffled copies of random points, and which point each node is a copy of.

    The problem of fewer graphs is a part of that of more graphs.

    Args:
        graphs: Number of copies m.
        nodes: Number of points n.
        noise: Standard deviation of the noise on every feature; those of the points have 1.
        features: Number of features.
        neighbours: Edges that leave each node, to its nearest neighbours in its own copy.
        seed: Of the points, the noise and the orders.

    Returns:
        The problem of all pairs, and (m, n) int64 numbers of points.

    Example:
        >>> from graphmatch.studies.multigraph_problems import planted_problem
        >>> problem, planted = planted_problem(3, 5, noise=0.0, features=4, neighbours=2, seed=0)
        >>> problem.graph_count, planted.shape
        (3, torch.Size([3, 5]))
    """
    copies, planted = planted_copies(graphs, nodes, noise, features, neighbours, seed)
    return MultiGraphProblem.from_graphs(copies), planted


def planted_copies(
    graphs: int, nodes: int, noise: float, features: int, neighbours: int, seed: int
) -> tuple[list[Graph], Tensor]:
    """Returns the graphs of `planted_problem` and which point each node is a copy of; the same arguments."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(nodes, features, generator=generator)
    copies, planted = [], []
    for _ in range(graphs):
        order = torch.randperm(nodes, generator=generator)
        copies.append(knn_graph((points + noise * torch.randn(points.shape, generator=generator))[order], neighbours))
        planted.append(order)
    return copies, torch.stack(planted)


def accuracy(result: MultiGraphResult, planted: Tensor) -> float:
    """Returns the share of the nodes, over all pairs of graphs, that are matched with the copy of the same point."""
    graphs, nodes = planted.shape
    right = 0
    for first, second in combinations(range(graphs), 2):
        matched = result.matching(first, second)
        found = torch.where(matched >= 0, planted[second][matched.clamp(min=0)], -1)
        right += int((found == planted[first]).sum())
    return right / (comb(graphs, 2) * nodes)


def memory_needed(graphs: int, nodes: int, neighbours: int) -> int:
    """Returns an estimate, rather too high, of the bytes that the methods take for one problem at a time.

    Costs of all pairs (twice while they are stacked), the same brought into the form that is aggregated (rows i < j,
    columns in both directions, double), and a problem per graph whose columns are pairs of elements joined by an edge
    in any of the other graphs.
    """
    edges = nodes * min(neighbours, nodes - 1)
    pairs = comb(graphs, 2)
    costs = 2 * pairs * (edges * edges + nodes * nodes) * _FLOAT
    directed = min(2 * edges, nodes * (nodes - 1))
    folded = 2 * pairs * edges * directed * _DOUBLE
    joined = min(directed * (graphs - 1), nodes * (nodes - 1))
    aggregated = 2 * graphs * edges * joined * _DOUBLE
    return costs + folded + aggregated
