"""Which pairwise matchings can be trusted: those that the ways through third graphs confirm."""

from __future__ import annotations

import torch
from torch import Tensor

from graphmatch.multigraph.labels import partner_table
from graphmatch.multigraph.problem import MultiGraphProblem


def pair_support(assignment: Tensor, problem: MultiGraphProblem) -> Tensor:
    """Returns (m, m) float64: matches of the two graphs that ways through third graphs confirm, summed over those.

    The number of matches itself, weighed so that it only breaks ties, is added; 0 where the pair is not given.

    Args:
        assignment: (p, n) int64, a matching per pair of the problem; -1 = unmatched or padding.
        problem: Says which graphs the matchings belong to.
    """
    table, known = partner_table(assignment, problem.pairs, problem.node_counts)
    graphs, _, width = table.shape
    index = torch.where(table < 0, width - 1, table)
    support = torch.zeros(graphs, graphs, dtype=torch.float64)
    for graph in range(graphs):
        # [c, b, i]: where node i of `graph` gets by way of c to b.
        through = table.gather(2, index[graph][:, None].expand(graphs, graphs, width))
        confirmed = (through == table[graph]) & (through >= 0) & known[graph][:, None, None]
        support[graph] = confirmed.sum((0, 2)).double()
    matches = (table >= 0).sum(2).double()
    return torch.where(known, support + matches / (1 + matches.max()), 0)


def spanning_merges(support: Tensor) -> Tensor:
    """Returns the (m - 1, 2) pairs of a spanning tree of the graphs with the most support, best first (Kruskal)."""
    graphs = len(support)
    first, second = torch.triu_indices(graphs, graphs, 1)
    order = support[first, second].sort(descending=True, stable=True).indices
    cluster = list(range(graphs))
    merges: list[list[int]] = []
    for a, b in zip(first[order].tolist(), second[order].tolist(), strict=True):
        if cluster[a] != cluster[b]:
            merges.append([a, b])
            kept, merged = cluster[a], cluster[b]
            cluster = [kept if name == merged else name for name in cluster]
            if len(merges) == graphs - 1:
                break
    return torch.tensor(merges, dtype=torch.int64).reshape(-1, 2)


def tree_labels(assignment: Tensor, problem: MultiGraphProblem, merges: Tensor) -> Tensor:
    """Returns labels (m, n) that follow the matchings along a spanning tree, from graph merges[0, 0] outwards.

    Nodes that the tree leaves unmatched become elements of their own; where the universe is limited they take the
    elements that are free in their graph, in ascending order.
    """
    table, _ = partner_table(assignment, problem.pairs, problem.node_counts)
    counts = problem.node_counts.tolist()
    graphs, largest = len(counts), max(counts)
    limit = problem.largest_universe
    limited = problem.universe_size is not None or problem.costs.unmatched_cost is None
    labels = torch.full((graphs, largest), -1, dtype=torch.int64)
    neighbours: list[list[int]] = [[] for _ in counts]
    for a, b in merges.tolist():
        neighbours[a].append(b)
        neighbours[b].append(a)
    fresh = 0
    reached, queue = {int(merges[0, 0])}, [(int(merges[0, 0]), -1)]
    while queue:
        graph, parent = queue.pop(0)
        own = labels[graph, : counts[graph]]
        if parent >= 0:
            partner = table[graph, parent, : counts[graph]]
            own[partner >= 0] = labels[parent][partner[partner >= 0]]
        alone = own < 0
        missing = int(alone.sum())
        if limited:
            free = torch.ones(limit, dtype=torch.bool)
            free[own[~alone]] = False
            own[alone] = free.nonzero()[:missing, 0]
        else:
            own[alone] = torch.arange(fresh, fresh + missing)
            fresh += missing
        for other in neighbours[graph]:
            if other not in reached:
                reached.add(other)
                queue.append((other, graph))
    return labels
