"""Which pairwise matchings can be trusted: those that the ways through third graphs confirm."""

from __future__ import annotations

import torch
from torch import Tensor

from graphmatch.multigraph.labels import partner_table, ways
from graphmatch.multigraph.problem import MultiGraphProblem


def pair_support(assignment: Tensor, problem: MultiGraphProblem) -> tuple[Tensor, bool]:
    """Returns how much each pair is confirmed, and whether nothing contradicts anything.

    Args:
        assignment: (p, n) int64, a matching per pair of the problem; -1 = unmatched or padding.
        problem: Says which graphs the matchings belong to.

    Returns:
        (m, m) float64: matches of the two graphs that ways through third graphs confirm, summed over those; the number
        of matches itself, weighed so that it only breaks ties, is added; 0 where the pair is not given. And whether
        the matchings are consistent in cycles, with a confirmation per match at least.
    """
    table, known = partner_table(assignment, problem.pairs, problem.node_counts)
    graphs = len(table)
    support = torch.zeros(graphs, graphs, dtype=torch.float64)
    agree = True
    for graph in range(graphs):
        through, counts = ways(table, known, graph)
        confirmed = counts & (through == table[graph])
        support[graph] = confirmed.sum((0, 2)).double()
        agree = agree and bool((confirmed == counts).all())
    matches = (table >= 0).sum(2).double()
    # Matches that nothing could contradict agree with nothing.
    agree = agree and bool(support.sum() >= matches.sum())
    return torch.where(known, support + matches / (1 + matches.max()), 0), agree


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
        if problem.is_limited:
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
