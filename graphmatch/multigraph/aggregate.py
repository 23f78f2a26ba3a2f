"""One graph against what the others have agreed on: the step that every method for several graphs repeats.

With the labels of all other graphs fixed, the labels of graph a are again a Lawler problem. Its rows are the nodes of
a, its columns the elements c of the universe that the others form (leave-one-out):

    unary[i, c]                = sum of unary_ab[i, k] - unmatched_cost over the members (b, k) of c
    quadratic[(i, j), (c, d)]  = sum of quadratic_ab[e, f] over the members (b, k) of c and (b, l) of d, and over the
                                 edges e = (i, j) of a with f = (k, l) of b, or e = (j, i) with f = (l, k)

where a pair (b, a) counts like (a, b) with its sides exchanged, and pairs without a problem count nothing. Up to a
constant its objective is what the pairs of a cost. An unmatched node costs nothing: it becomes an element of its own.
Where the universe is limited, elements may be empty and every node must take one.

Source: P. Swoboda et al., "A convex relaxation for multi-graph matching", CVPR 2019; S. Kahl et al., "Unlocking the
potential of operations research for multi-graph matching", arXiv 2406.18215.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphmatch import _check
from graphmatch.multigraph.labels import real_nodes
from graphmatch.multigraph.problem import MultiGraphProblem
from graphmatch.problem import LawlerProblem, made_of

_NUMBER_BYTES = 8
# Numbers that are added at a time: their places take several times their memory.
_CHUNK = 1_000_000


@dataclass(frozen=True, eq=False)
class AggregatedProblems:
    """For each of m graphs the problem of matching it with the elements that the others form.

    Attributes:
        costs: A batch of m problems in float64 on the CPU: nodes of a graph against elements.
        elements: (m, c) int64, the label that each column stands for; -1 = padding.
        rewards: (m,) float64, what each match of two nodes gains on top of its costs. Not 0 only where graphs of
            unequal sizes must be matched completely: then no cost outweighs a match that must be.
    """

    costs: LawlerProblem
    elements: Tensor
    rewards: Tensor

    def labels_of(self, assignment: Tensor) -> Tensor:
        """Returns the labels (m, n) of matchings (m, n): unmatched nodes get new ones, padding -1."""
        graphs, nodes = assignment.shape
        new = int(self.elements.max()) + 1 if self.elements.numel() else 0
        labels = new + torch.arange(graphs * nodes).reshape(graphs, nodes)
        if self.elements.shape[1]:
            labels = torch.where(assignment >= 0, self.elements.gather(1, assignment.clamp(min=0)), labels)
        return torch.where(real_nodes(self.costs.node_counts()[0], nodes), labels, -1)

    def assignment_of(self, labels: Tensor) -> Tensor:
        """Returns the matchings (m, n) of labels (m, n); -1 = no column stands for the label."""
        equal = (labels[:, :, None] == self.elements[:, None, :]) & (labels >= 0)[:, :, None]
        if equal.shape[2] == 0:
            return torch.full_like(labels, -1)
        return torch.where(equal.any(2), equal.int().argmax(2), -1)


class Aggregator:
    """Aggregated problems of one multi-graph problem, for as many labels as are tried.

    Example:
        >>> import torch, graphmatch as gm
        >>> none = torch.zeros(0, 2, dtype=torch.int64)
        >>> costs = gm.LawlerProblem(-torch.eye(2).expand(3, 2, 2), torch.zeros(3, 0, 0), none, none)
        >>> problem = gm.MultiGraphProblem(costs, torch.tensor([[0, 1], [0, 2], [1, 2]]))
        >>> Aggregator(problem).aggregate(torch.tensor([[0, 1], [0, 1], [0, 1]])).costs.unary_costs[0]
        tensor([[-2.,  0.],
                [ 0., -2.]], dtype=torch.float64)
    """

    def __init__(self, problem: MultiGraphProblem) -> None:
        """Brings the costs of all pairs into one form: edges i < j on ordered pairs of nodes, each at most once."""
        self.problem = problem
        self.graphs = (problem.pairs[:, 0], problem.pairs[:, 1])
        self.unary, self.folded = _folded(problem)
        folded = self.folded
        # The edges of each graph in any of its pairs, and which of them those of each side of a pair are.
        keys = []
        nodes = max(int(problem.node_counts.max()), 1)
        for graph, ends, real in zip(self.graphs, folded.ends, folded.real, strict=True):
            key = (graph[:, None] * nodes + ends.amin(2)) * nodes + ends.amax(2)
            keys.append(torch.where(real, key, -1))
        self.edges, self.edge_counts, self.edge_places = _numbered(keys, problem.graph_count, nodes)

    def aggregate(self, labels: Tensor) -> AggregatedProblems:
        """Returns the m problems of matching each graph with the elements that the others form; see the module.

        Args:
            labels: (m, n) int64, elements of the nodes, distinct within a graph, below `largest_universe` where that is
                a limit; -1 = padding, or a node that is in no element yet.
        """
        problem = self.problem
        columns = _Columns(problem, labels)
        unary = self._unary(columns)
        edges2, counts, quadratic = self._quadratic(columns)
        rewards = _rewards(problem, unary, quadratic)
        if bool(rewards.any()):
            unary = unary - (rewards[:, None] * _partners(problem, columns))[:, None, :]
        costs = made_of(
            LawlerProblem,
            unary_costs=unary,
            quadratic_costs=quadratic,
            edges1=self.edges,
            edges2=edges2,
            sizes=torch.stack([problem.node_counts, columns.counts, self.edge_counts, counts], dim=1),
            unmatched_cost=None if problem.is_limited else 0.0,
        )
        return AggregatedProblems(costs, columns.elements, rewards)

    def _unary(self, columns: _Columns) -> Tensor:
        graphs, width = columns.labels.shape
        total = _Matrix(graphs * width, columns.width)
        for side in (0, 1):
            values = self.unary if side == 0 else self.unary.transpose(1, 2)
            graph, other = self.graphs[side], self.graphs[1 - side]
            node = torch.arange(values.shape[1])
            rows = torch.where(node < self.problem.node_counts[graph][:, None], graph[:, None] * width + node, -1)
            total.add(rows, columns.of(graph, other)[:, : values.shape[2]], values)
        return total.sums().reshape(graphs, width, columns.width)

    def _quadratic(self, columns: _Columns) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the ordered pairs of elements that edges join, their numbers, and the quadratic costs."""
        folded, graphs = self.folded, self.problem.graph_count
        turned = folded.ends[1][:, :, 0] > folded.ends[1][:, :, 1]
        straight = folded.real[1] & ~turned
        keys = []
        for side in (0, 1):
            graph, other = self.graphs[side], self.graphs[1 - side]
            at = columns.of(graph, other)
            first, second = (at.gather(1, folded.ends[1 - side][:, :, end]) for end in (0, 1))
            key = (graph[:, None] * columns.width + first) * columns.width + second
            exists = folded.real[1 - side] & (first >= 0) & (second >= 0)
            if side == 0:
                keys.append(torch.where(exists, key, -1))
                continue
            # Edges of the second graph that run from a larger node to a smaller one are turned, and with them these.
            turned_key = (graph[:, None] * columns.width + second) * columns.width + first
            keys.append(torch.where(exists & straight.any(1, keepdim=True), key, -1))
            keys.append(torch.where(exists & (folded.real[1] & turned).any(1, keepdim=True), turned_key, -1))
        pairs, counts, places = _numbered(keys, graphs, max(columns.width, 1))
        shape = (graphs, self.edges.shape[1], pairs.shape[1])
        cure = "The elements of the universe are joined by too many edges: sparsify the graphs."
        _check.memory("Aggregator", shape[0] * shape[1] * shape[2] * _NUMBER_BYTES, cure)
        total = _Matrix(shape[0] * shape[1], shape[2])
        rows = [
            torch.where(place >= 0, graph[:, None] * shape[1] + place, -1)
            for graph, place in zip(self.graphs, self.edge_places, strict=True)
        ]
        total.add(rows[0], places[0], folded.values)
        total.add(rows[1], places[1], folded.values.transpose(1, 2), turned, places[2])
        return pairs, counts, total.sums().reshape(shape)


@dataclass(frozen=True, eq=False)
class _Folded:
    """Quadratic costs of all pairs: values (p, f, g) of edges i < j of the first graph on ordered pairs of nodes."""

    ends: tuple[Tensor, Tensor]  # (p, f, 2) and (p, g, 2), 0 in the padding
    real: tuple[Tensor, Tensor]  # (p, f) and (p, g)
    values: Tensor


def _folded(problem: MultiGraphProblem) -> tuple[Tensor, _Folded]:
    """Returns unary costs less the cost of an unmatched node, edges (i, i) on (k, k) added, and quadratic costs."""
    costs = problem.costs
    unary = costs.unary_costs.detach().cpu().double() - (costs.unmatched_cost or 0.0)
    quadratic = costs.quadratic_costs.detach().cpu()
    batch, n1, n2 = unary.shape
    edges, real = [costs.edges1.cpu(), costs.edges2.cpu()], []
    for side in (0, 1):
        count = edges[side].shape[1]
        real.append(torch.ones(batch, count, dtype=torch.bool))
        if costs.sizes is not None:
            real[side] = real_nodes(costs.sizes[:, 2 + side].cpu(), count)
        edges[side] = torch.where(real[side][:, :, None], edges[side], 0)  # the padding may hold anything
    first, second = edges[0].unbind(2)
    ends = edges[1].unbind(2)
    is_loop = (real[0] & (first == second), real[1] & (ends[0] == ends[1]))
    pair, e, f = (is_loop[0][:, :, None] & is_loop[1][:, None, :]).nonzero(as_tuple=True)
    unary.index_put_((pair, first[pair, e], ends[0][pair, f]), quadratic[pair, e, f].double(), accumulate=True)

    proper = [real[side] & ~is_loop[side] for side in (0, 1)]
    turned = first > second
    base = torch.arange(batch)[:, None]
    row_key = (base * n1 + torch.minimum(first, second)) * n1 + torch.maximum(first, second)
    rows, row_counts, row_places = _numbered([torch.where(proper[0], row_key, -1)], batch, max(n1, 1))
    keys = []
    for used, one, other in ((~turned, *ends), (turned, ends[1], ends[0])):
        needed = proper[1] & (proper[0] & used).any(1, keepdim=True)
        keys.append(torch.where(needed, (base * n2 + one) * n2 + other, -1))
    columns, column_counts, column_places = _numbered(keys, batch, max(n2, 1))
    total = _Matrix(batch * rows.shape[1], columns.shape[1])
    row = torch.where(row_places[0] >= 0, base * rows.shape[1] + row_places[0], -1)
    total.add(row, column_places[0], quadratic, turned, column_places[1])
    values = total.sums().reshape(batch, rows.shape[1], columns.shape[1])
    counts = (real_nodes(row_counts, rows.shape[1]), real_nodes(column_counts, columns.shape[1]))
    return unary, _Folded((rows, columns), counts, values)


class _Columns:
    """The elements that the other graphs form: their labels, and where the nodes of a graph stand among them."""

    def __init__(self, problem: MultiGraphProblem, labels: Tensor) -> None:
        limit = problem.largest_universe if problem.is_limited else 0
        self.labels = labels
        self.highest = max(int(labels.max()) + 1 if labels.numel() else 0, limit)
        graphs = len(labels)
        held = torch.zeros(graphs, self.highest + 1, dtype=torch.bool)
        held.scatter_(1, torch.where(labels >= 0, labels, self.highest), True)
        self.held = held[:, : self.highest]
        used = self.held.sum(0) - self.held.long() > 0
        used[:, :limit] = True
        self.counts = used.sum(1)
        self.width = int(self.counts.max())
        # The extra entry is that of nodes without a label.
        self.places = torch.full((graphs, self.highest + 1), -1, dtype=torch.int64)
        self.places[:, : self.highest] = torch.where(used, used.long().cumsum(1) - 1, -1)
        self.elements = torch.full((graphs, self.width), -1, dtype=torch.int64)
        graph, label = used.nonzero(as_tuple=True)
        self.elements[graph, self.places[graph, label]] = label

    def of(self, graph: Tensor, other: Tensor) -> Tensor:
        """Returns columns (p, n) of the nodes of graphs `other` (p,) in the problems of `graph` (p,); -1 = none."""
        labels = torch.where(self.labels[other] >= 0, self.labels[other], self.highest)
        return self.places[graph[:, None], labels]


class _Matrix:
    """A matrix that tables are added to, each entry where its row and its column lead."""

    def __init__(self, rows: int, columns: int) -> None:
        self.shape = (rows + 1, columns + 1)
        self.values = torch.zeros((rows + 1) * (columns + 1), dtype=torch.float64)

    def add(
        self,
        rows: Tensor,
        columns: Tensor,
        values: Tensor,
        turned: Tensor | None = None,
        turned_columns: Tensor | None = None,
    ) -> None:
        """Adds values (p, r, c) to rows (p, r) and columns (p, c), or others (p, c) where a row (p, r) is turned.

        What leads to -1 is left out.
        """
        start = torch.where(rows >= 0, rows, self.shape[0] - 1)[:, :, None] * self.shape[1]
        ends = torch.where(columns >= 0, columns, self.shape[1] - 1)[:, None, :]
        step = max(_CHUNK // max(values.shape[1] * values.shape[2], 1), 1)
        for begin in range(0, len(values), step):
            part = slice(begin, begin + step)
            index = start[part] + ends[part]
            if turned is not None and turned_columns is not None:
                others = torch.where(turned_columns[part] >= 0, turned_columns[part], self.shape[1] - 1)[:, None, :]
                index = torch.where(turned[part, :, None], start[part] + others, index)
            self.values.index_add_(0, index.flatten(), values[part].flatten().double())

    def sums(self) -> Tensor:
        """Returns what was added up."""
        return self.values.reshape(self.shape)[:-1, :-1]


def _numbered(keys: list[Tensor], groups: int, nodes: int) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Returns the different keys (group, i, j) >= 0 as pairs (i, j) per group (groups, e, 2), numbers, and places."""
    flat = torch.cat([key.flatten() for key in keys])
    different, inverse = torch.unique(flat[flat >= 0], return_inverse=True)
    group = different // (nodes * nodes)
    counts = torch.bincount(group, minlength=groups)
    starts = counts.cumsum(0) - counts
    place = torch.arange(len(different)) - starts[group]
    pairs = torch.zeros(groups, int(counts.max()) if groups else 0, 2, dtype=torch.int64)
    pairs[group, place, 0] = different // nodes % nodes
    pairs[group, place, 1] = different % nodes
    places = torch.full_like(flat, -1)
    places[flat >= 0] = place[inverse]
    parts = places.split([key.numel() for key in keys])
    return pairs, counts, [part.reshape(key.shape) for part, key in zip(parts, keys, strict=True)]


def _partners(problem: MultiGraphProblem, columns: _Columns) -> Tensor:
    """Returns (m, c) float64: the members of each element that a match with it is counted for."""
    known = torch.zeros(problem.graph_count, problem.graph_count, dtype=torch.float64)
    first, second = problem.pairs[:, 0], problem.pairs[:, 1]
    known[first, second] = known[second, first] = 1
    members = known @ columns.held.double()
    return torch.where(columns.elements >= 0, members.gather(1, columns.elements.clamp(min=0)), 0)


def _rewards(problem: MultiGraphProblem, unary: Tensor, quadratic: Tensor) -> Tensor:
    """Returns the reward (m,) per match: more than all costs together can change, 0 where it is not needed."""
    counts = problem.node_counts
    if problem.costs.unmatched_cost is not None or bool((counts == counts[0]).all()) or unary.numel() == 0:
        return torch.zeros(len(unary), dtype=torch.float64)
    finite = torch.where(unary.isinf(), 0, unary)
    change = (finite.amax(2) - finite.amin(2)).sum(1)
    if quadratic.shape[2]:
        change = change + (quadratic.amax(2).clamp(min=0) - quadratic.amin(2).clamp(max=0)).sum(1)
    return torch.where(change > 0, 1.25 * change, 1.0)
