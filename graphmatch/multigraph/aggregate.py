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
from graphmatch.multigraph.problem import MultiGraphProblem
from graphmatch.problem import LawlerProblem, made_of

_NUMBER_BYTES = 8


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


def real_nodes(node_counts: Tensor, width: int) -> Tensor:
    """Returns (m, width) bool: which nodes are there, and not padding."""
    return torch.arange(width) < node_counts[:, None]


def is_limited(problem: MultiGraphProblem) -> bool:
    """Whether labels must lie in [0, largest_universe): complete problems and those with a `universe_size`."""
    return problem.universe_size is not None or problem.costs.unmatched_cost is None


def aggregate(problem: MultiGraphProblem, labels: Tensor) -> AggregatedProblems:
    """Returns the m problems of matching each graph with the elements that the others form; see the module.

    Args:
        problem: What is to be solved.
        labels: (m, n) int64, elements of the nodes, distinct within a graph, below `largest_universe` where that is a
            limit; -1 = padding, or a node that is in no element yet.

    Example:
        >>> import torch, graphmatch as gm
        >>> none = torch.zeros(0, 2, dtype=torch.int64)
        >>> costs = gm.LawlerProblem(-torch.eye(2).expand(3, 2, 2), torch.zeros(3, 0, 0), none, none)
        >>> problem = gm.MultiGraphProblem(costs, torch.tensor([[0, 1], [0, 2], [1, 2]]))
        >>> aggregate(problem, torch.tensor([[0, 1], [0, 1], [0, 1]])).costs.unary_costs[0]
        tensor([[-2.,  0.],
                [ 0., -2.]], dtype=torch.float64)
    """
    columns = _Columns(problem, labels)
    sides = _Sides(problem)
    unary = _unary(problem, sides, columns)
    edges1, count1, row_places = _row_edges(problem, sides)
    edges2, count2, column_places = _column_pairs(problem, sides, columns)
    quadratic = _quadratic(sides, row_places, column_places, (problem.graph_count, edges1.shape[1], edges2.shape[1]))
    _add_loops(sides, columns, unary)
    rewards = _rewards(problem, unary, quadratic)
    if bool(rewards.any()):
        unary -= (rewards[:, None] * _partners(problem, columns))[:, None, :]
    costs = made_of(
        LawlerProblem,
        unary_costs=unary,
        quadratic_costs=quadratic,
        edges1=edges1,
        edges2=edges2,
        sizes=torch.stack([problem.node_counts, columns.counts, count1, count2], dim=1),
        unmatched_cost=None if is_limited(problem) else 0.0,
    )
    return AggregatedProblems(costs, columns.elements, rewards)


class _Columns:
    """The elements that the other graphs form: their labels, and where the nodes of a graph stand among them."""

    def __init__(self, problem: MultiGraphProblem, labels: Tensor) -> None:
        limit = problem.largest_universe if is_limited(problem) else 0
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


class _Sides:
    """The costs of all pairs on the CPU, and which graph is on which side; side 0 is that of the rows."""

    def __init__(self, problem: MultiGraphProblem) -> None:
        costs = problem.costs
        self.unary = costs.unary_costs.detach().cpu().double()
        self.quadratic = costs.quadratic_costs.detach().cpu().double()
        self.graphs = (problem.pairs[:, 0], problem.pairs[:, 1])
        self.nodes = tuple(problem.node_counts[graph] for graph in self.graphs)
        edges = (costs.edges1.cpu(), costs.edges2.cpu())
        self.real = tuple(torch.ones(side.shape[:2], dtype=torch.bool) for side in edges)
        if costs.sizes is not None:
            sizes = costs.sizes.cpu()
            self.real = tuple(real_nodes(sizes[:, 2 + side], edges[side].shape[1]) for side in (0, 1))
        # Edges of the padding may hold anything.
        self.edges = tuple(torch.where(self.real[side][:, :, None], edges[side], 0) for side in (0, 1))


def _unary(problem: MultiGraphProblem, sides: _Sides, columns: _Columns) -> Tensor:
    graphs, width = problem.graph_count, columns.labels.shape[1]
    total = _Sum(graphs * width * columns.width)
    values = sides.unary - (problem.costs.unmatched_cost or 0.0)
    for side in (0, 1):
        nodes, others = values.shape[1 + side], values.shape[2 - side]
        row = sides.graphs[side][:, None] * width + torch.arange(nodes)
        row = torch.where(real_nodes(sides.nodes[side], nodes), row, -1)
        total.add(row, columns.of(sides.graphs[side], sides.graphs[1 - side])[:, :others], columns.width, values, side)
    return total.reshape(graphs, width, columns.width)


def _row_edges(problem: MultiGraphProblem, sides: _Sides) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Returns the edges i < j of each graph in any of its pairs, their numbers, and where those of each side are."""
    nodes = int(problem.node_counts.max())
    keys = []
    for graph, edges, real in zip(sides.graphs, sides.edges, sides.real, strict=True):
        first, second = edges.amin(2), edges.amax(2)
        keys.append(torch.where(real & (first != second), (graph[:, None] * nodes + first) * nodes + second, -1))
    edges, counts, places = _numbered(keys, problem.graph_count, nodes)
    return edges, counts, (places[0], places[1])


def _column_pairs(
    problem: MultiGraphProblem, sides: _Sides, columns: _Columns
) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
    """Returns the ordered pairs of elements that edges join, their numbers, and where those of each side are.

    The latter once as the edges run and once turned around, for edges of the rows that are turned around.
    """
    keys = []
    for side in (0, 1):
        edges, real = sides.edges[1 - side], sides.real[1 - side]
        joined = sides.edges[side][:, :, 0] < sides.edges[side][:, :, 1]
        turned = sides.edges[side][:, :, 0] > sides.edges[side][:, :, 1]
        at = columns.of(sides.graphs[side], sides.graphs[1 - side])
        first, second = at.gather(1, edges[:, :, 0]), at.gather(1, edges[:, :, 1])
        exists = real & (first >= 0) & (second >= 0) & (first != second)
        base = sides.graphs[side][:, None] * columns.width
        for used, one, other in ((joined, first, second), (turned, second, first)):
            needed = exists & (used & sides.real[side]).any(1, keepdim=True)
            keys.append(torch.where(needed, (base + one) * columns.width + other, -1))
    pairs, counts, places = _numbered(keys, problem.graph_count, columns.width)
    return pairs, counts, [(places[0], places[1]), (places[2], places[3])]


def _numbered(keys: list[Tensor], graphs: int, nodes: int) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Returns the different keys (graph, i, j) >= 0 as pairs (i, j) per graph (graphs, e, 2), numbers, and places."""
    flat = torch.cat([key.flatten() for key in keys])
    different, inverse = torch.unique(flat[flat >= 0], return_inverse=True)
    graph = different // max(nodes * nodes, 1)
    counts = torch.bincount(graph, minlength=graphs)
    starts = counts.cumsum(0) - counts
    place = torch.arange(len(different)) - starts[graph]
    pairs = torch.zeros(graphs, int(counts.max()), 2, dtype=torch.int64)
    pairs[graph, place, 0] = different // max(nodes, 1) % max(nodes, 1)
    pairs[graph, place, 1] = different % max(nodes, 1)
    places = torch.full_like(flat, -1)
    places[flat >= 0] = place[inverse]
    parts = places.split([key.numel() for key in keys])
    return pairs, counts, [part.reshape(key.shape) for part, key in zip(parts, keys, strict=True)]


def _quadratic(
    sides: _Sides,
    row_places: tuple[Tensor, Tensor],
    column_places: list[tuple[Tensor, Tensor]],
    shape: tuple[int, int, int],
) -> Tensor:
    cure = "The elements of the universe are joined by too many edges: sparsify the graphs."
    _check.memory("aggregate", shape[0] * shape[1] * shape[2] * _NUMBER_BYTES, cure)
    total = _Sum(shape[0] * shape[1] * shape[2])
    for side in (0, 1):
        row = sides.graphs[side][:, None] * shape[1] + row_places[side]
        turned = sides.edges[side][:, :, 0] > sides.edges[side][:, :, 1]
        for used, column in zip((~turned, turned), column_places[side], strict=True):
            if bool(used.any()):
                kept = torch.where(used & (row_places[side] >= 0), row, -1)
                total.add(kept, column, shape[2], sides.quadratic, side)
    return total.reshape(*shape)


class _Sum:
    """A matrix that tables of pairs are added to, each entry where its row and its column lead."""

    def __init__(self, numbers: int) -> None:
        self.values = torch.zeros(numbers + 1, dtype=torch.float64)

    def add(self, row: Tensor, column: Tensor, width: int, values: Tensor, side: int) -> None:
        """Adds values (p, ., .) whose axis 1 + side follows row (p, r), and the other column (p, c); -1 = nowhere."""
        unused = len(self.values) - 1
        index = row[:, :, None] * width + column[:, None, :]
        index = torch.where((row >= 0)[:, :, None] & (column >= 0)[:, None, :], index, unused)
        table = values if side == 0 else values.transpose(1, 2)
        self.values.index_add_(0, index.flatten(), table.flatten())

    def reshape(self, *shape: int) -> Tensor:
        """Returns the sums."""
        return self.values[:-1].reshape(shape)


def _add_loops(sides: _Sides, columns: _Columns, unary: Tensor) -> None:
    """Adds what an edge (i, i) costs on an edge (k, k) to the unary costs of i and k."""
    loops = tuple(
        real & (edges[:, :, 0] == edges[:, :, 1]) for real, edges in zip(sides.real, sides.edges, strict=True)
    )
    pair, edge1, edge2 = (loops[0][:, :, None] & loops[1][:, None, :]).nonzero(as_tuple=True)
    if len(pair) == 0:
        return
    ends = (sides.edges[0][pair, edge1, 0], sides.edges[1][pair, edge2, 0])
    for side in (0, 1):
        graph = sides.graphs[side][pair]
        column = columns.of(*sides.graphs[:: 1 - 2 * side])[pair, ends[1 - side]]
        kept = column >= 0
        index = (graph[kept], ends[side][kept], column[kept])
        unary.index_put_(index, sides.quadratic[pair, edge1, edge2][kept], accumulate=True)


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
