"""Labels in a universe, the pairwise matchings they stand for, and how consistent pairwise matchings are."""

from __future__ import annotations

import torch
from torch import Tensor

from graphmatch import _check


def matchings_of_labels(labels: Tensor, pairs: Tensor) -> Tensor:
    """Returns the matchings between graphs whose nodes carry labels: equal labels are matched.

    Args:
        labels: (m, n) int64, labels of the nodes of m graphs, distinct within each; -1 = padding.
        pairs: (p, 2) int64, graphs of each matching.

    Returns:
        (p, n) int64, the node of the second graph for each node of the first; -1 = none has its label.
    """
    first, second = labels[pairs[:, 0]], labels[pairs[:, 1]]
    equal = (first[:, :, None] == second[:, None, :]) & (first >= 0)[:, :, None]
    if labels.shape[1] == 0:
        return first
    return torch.where(equal.any(2), equal.int().argmax(2), -1)


def real_nodes(node_counts: Tensor, width: int) -> Tensor:
    """Returns (m, width) bool: which nodes are there, and not padding."""
    return torch.arange(width) < node_counts[:, None]


def compact_labels(labels: Tensor) -> Tensor:
    """Returns the labels (m, n) renumbered from 0 in the order in which they first come; -1 stays."""
    flat = labels.flatten()
    real = flat >= 0
    _, inverse = torch.unique(flat[real], return_inverse=True)
    if len(inverse) == 0:
        return labels
    first = torch.full((int(inverse.max()) + 1,), len(inverse), dtype=torch.int64)
    first.scatter_reduce_(0, inverse, torch.arange(len(inverse)), "amin")
    rank = first.argsort().argsort()
    renumbered = flat.clone()
    renumbered[real] = rank[inverse]
    return renumbered.reshape(labels.shape)


def cycle_consistency(assignment: Tensor, pairs: Tensor, node_counts: Tensor) -> float:
    """Returns the share of two-step matches a -> b -> c that the matching a -> c confirms.

    Over all triples of different graphs whose three matchings are given, and all nodes of a that two steps lead to a
    node of c. Consistent partial matchings need not match in two steps what they match in one.

    Args:
        assignment: (p, n) int64, the node of the second graph for each node of the first; -1 = unmatched or padding.
        pairs: (p, 2) int64, the two graphs of each matching, every two at most once; the other direction is inferred.
        node_counts: (m,) int64, nodes of each graph.

    Returns:
        A number in [0, 1]; 1 where there is nothing to contradict.

    Example:
        >>> import torch, graphmatch as gm
        >>> pairs, counts = torch.tensor([[0, 1], [1, 2], [0, 2]]), torch.tensor([2, 2, 2])
        >>> gm.cycle_consistency(torch.tensor([[0, 1], [1, 0], [1, 0]]), pairs, counts)
        1.0
        >>> gm.cycle_consistency(torch.tensor([[0, 1], [1, 0], [0, 1]]), pairs, counts)
        0.0
    """
    where = "cycle_consistency"
    _check.integer(where, "assignment", _check.tensor(where, "assignment", assignment, 2, "(p, n)"))
    _check.shape(where, "pairs", pairs, (len(assignment), 2), "two graphs per matching")
    table, known = partner_table(assignment, pairs, node_counts)
    confirmed = steps = 0
    for graph in range(len(node_counts)):
        through, counts = ways(table, known, graph)
        steps += int(counts.sum())
        confirmed += int((counts & (through == table[graph])).sum())
    return confirmed / steps if steps else 1.0


def ways(table: Tensor, known: Tensor, graph: int) -> tuple[Tensor, Tensor]:
    """Returns where two steps lead, (m, m, n + 1) int64, and which of these ways count, bool of the same shape.

    Entry [b, c, i] is the node of c that node i of `graph` reaches by way of b, -1 = none. Ways count that reach a
    node and whose three graphs are different and matched with each other.

    Args:
        table: Of `partner_table`.
        known: Likewise.
        graph: Where the ways begin.
    """
    graphs, _, width = table.shape
    index = torch.where(table[graph] < 0, width - 1, table[graph])
    through = table.gather(2, index[:, None].expand(graphs, graphs, width))
    triples = known[graph][:, None] & known[graph][None, :] & known
    return through, triples[:, :, None] & (through >= 0)


def partner_table(assignment: Tensor, pairs: Tensor, node_counts: Tensor) -> tuple[Tensor, Tensor]:
    """Returns partners (m, m, n + 1) int64 in both directions, and which pairs are known, (m, m) bool.

    Entry [a, b, i] is the node of b that node i of a is matched with, -1 = none; the last entry is -1, so that -1 is an
    index of it.
    """
    graphs, largest = len(node_counts), max(int(node_counts.max()), 0)
    table = torch.full((graphs, graphs, largest + 1), -1, dtype=torch.int64)
    known = torch.zeros(graphs, graphs, dtype=torch.bool)
    first, second = pairs[:, 0], pairs[:, 1]
    known[first, second] = known[second, first] = True
    matched = assignment[:, :largest]
    table[first, second, : matched.shape[1]] = matched
    place, row = (matched >= 0).nonzero(as_tuple=True)
    table[second[place], first[place], matched[place, row]] = row
    return table, known
