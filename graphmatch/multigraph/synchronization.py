"""Permutation synchronisation: labels in a universe that agree best with given matchings, whatever those cost.

W is the symmetric 0/1 matrix of all nodes of all graphs in which matched nodes have an entry 1, and each node with
itself. Consistent matchings have W = U U' for the 0/1 matrix U of nodes and elements; given ones in general do not, and
labels are sought whose U U' is close to W.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal, get_args

import torch
from torch import Tensor

from graphmatch import _check
from graphmatch.multigraph.labels import compact_labels, partner_table, real_nodes
from graphmatch.problem import LinearProblem
from graphmatch.solve import solve
from graphmatch.solvers import LAP

Kind = Literal["cliques", "spectral", "projected_power"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_SUPPORT_ROUNDS = 2
_POWER_ITERATIONS = 30
_REFERENCES = 8
# Share of the matches of an element that must be given ones, where nodes may as well be elements of their own.
_LEAST_VOTES = 0.25
# Two nodes are the same element where the cosine of what the eigenvectors say about them is above this.
_SAME = 0.5
# Nodes that the leading eigenvectors say less about are elements of their own.
_SHORT = 0.25
# An element of one node has eigenvalue 1, one of two nodes 2.
_EIGENVALUE = 1.5


def synchronize_matchings(
    assignment: Tensor, pairs: Tensor, node_counts: Tensor, universe_size: int | None = None, kind: Kind = "cliques"
) -> Tensor:
    """Returns labels whose matchings agree with given ones as far as consistency allows, from wherever those come.

    Kinds: "cliques" merges matched nodes into elements, those first whose match most detours over a third graph
    confirm, never two nodes of a graph, and only what at least a quarter of the matches between them speaks for.
    "spectral" matches each graph with reference nodes in the space of the leading eigenvectors of W, where the nodes of
    an element coincide; O(N^3) for N nodes in all. "projected_power" starts from the cliques, repeats U <- the labels
    nearest to W U, a linear assignment per graph, and returns the labels that agree best with W. All take graphs of
    unequal sizes and partial matchings; they differ where many matchings are wrong.

    Args:
        assignment: (p, n) int64, the node of the second graph for each node of the first; -1 = unmatched or padding.
        pairs: (p, 2) int64, the two different graphs of each matching, every two at most once.
        node_counts: (m,) int64, nodes of each graph.
        universe_size: Number of elements that labels may name; every node gets one of them, matched or not. None = no
            limit: nodes that nothing matches are elements of their own.
        kind: How; see above. All are deterministic.

    Returns:
        (m, n) int64 labels, distinct within a graph, numbered from 0 in the order of the nodes; n = nodes of the
        largest graph, -1 = padding.

    Raises:
        TypeError, ValueError: If an argument breaks the rules above.

    Source: D. Pachauri, R. Kondor, V. Singh, "Solving the multi-way matching problem by permutation synchronization",
    NIPS 2013 ("spectral"); A. Damle, V. Minden, L. Ying, "Simple, direct and efficient multi-way spectral clustering",
    Information and Inference 8 (2019) (reference nodes); F. Bernard et al., "HiPPI: higher-order projected power
    iterations for scalable multi-matching", ICCV 2019 ("projected_power").

    Example:
        >>> import torch, graphmatch as gm
        >>> pairs = torch.tensor([[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]])
        >>> identity, swapped = [0, 1, 2], [1, 0, 2]
        >>> given = torch.tensor([identity, identity, swapped, identity, identity, identity])
        >>> gm.synchronize_matchings(given, pairs, torch.tensor([3, 3, 3, 3]))[3]
        tensor([0, 1, 2])
    """
    where = "synchronize_matchings"
    _check_matchings(where, assignment, pairs, node_counts, universe_size)
    check_kind(where, kind)
    if len(node_counts) == 0:
        return torch.zeros(0, 0, dtype=torch.int64)
    return compact_labels(Synchronization(assignment, pairs, node_counts, universe_size).labels(kind))


class Synchronization:
    """Labels that agree with given matchings; they count from 0, but not all labels need be in use."""

    def __init__(self, assignment: Tensor, pairs: Tensor, node_counts: Tensor, universe_size: int | None) -> None:
        self.node_counts = node_counts
        self.universe_size = universe_size
        entries = len(node_counts) ** 2 * (int(node_counts.max()) + 1)
        _check.memory("synchronize_matchings", 6 * 8 * entries, "Use fewer graphs or nodes.")
        self.table, self.known = partner_table(assignment, pairs, node_counts)
        self.graphs, self.nodes = len(node_counts), self.table.shape[2] - 1
        self.real = real_nodes(node_counts, self.nodes)
        # W without its diagonal: rows and columns of all entries 1, both directions; nodes are numbered with padding.
        graph, other, node = (self.table[:, :, : self.nodes] >= 0).nonzero(as_tuple=True)
        self.rows = graph * self.nodes + node
        self.columns = other * self.nodes + self.table[graph, other, node]

    def labels(self, kind: Kind) -> Tensor:
        """Returns labels (m, n) of one kind."""
        if kind == "cliques" or self.nodes == 0:
            return self.cliques
        return self.spectral() if kind == "spectral" else self.projected_power()

    def agreement(self, labels: Tensor) -> Tensor:
        """Returns (k,) float64 of labels (k, m, n): given matches they confirm, less a share of those they make."""
        flat = labels.flatten(1)
        confirmed = ((flat[:, self.rows] == flat[:, self.columns]) & (flat[:, self.rows] >= 0)).sum(1)
        made = torch.stack([self._matched(one) for one in labels])
        return confirmed - _LEAST_VOTES * made

    def _matched(self, labels: Tensor) -> Tensor:
        """Returns the number of ordered pairs of nodes with one label in graphs whose matching is known."""
        held = self._elements(labels)
        return (self.known.double() * (held @ held.T)).sum()

    def _elements(self, labels: Tensor) -> Tensor:
        """Returns (m, u) float64, 1 where a graph has a node in the element."""
        held = torch.zeros(self.graphs, int(labels.max()) + 2, dtype=torch.float64)
        held.scatter_(1, torch.where(labels >= 0, labels, held.shape[1] - 1), 1.0)
        return held[:, :-1]

    @cached_property
    def support(self) -> Tensor:
        """Returns (m, m, n) float64: how far detours over third graphs confirm the match of a node with its partner.

        A detour counts as much as its two matches, each with the share of detours that confirm it.
        """
        share = (self.table >= 0).double()
        for _ in range(_SUPPORT_ROUNDS):
            support = torch.zeros_like(share)
            for first in range(self.graphs):
                step = self.table[first, :, : self.nodes]
                # Entry [c, b, i]: where node i of the first graph gets in graph b on the way over graph c.
                places = torch.where(step >= 0, step, self.nodes)[:, None, :].expand(-1, self.graphs, -1)
                confirmed = (self.table.gather(2, places) == step) & (step >= 0)
                weight = share[first, :, None, : self.nodes] * share.gather(2, places)
                support[first, :, : self.nodes] = torch.where(confirmed, weight, 0).sum(0)
            share = support / max(self.graphs - 2, 1)
        return share[:, :, : self.nodes]

    @cached_property
    def cliques(self) -> Tensor:
        """Greedy merging of matched nodes, the best supported first; then every node is given its place."""
        support = self.support.reshape(-1)[self._table_places()]
        forward = self.rows < self.columns
        rows, columns = self.rows[forward], self.columns[forward]
        order = torch.argsort(support[forward], descending=True, stable=True)
        matched = set((rows * self.real.numel() + columns).tolist())
        known = self.known.tolist()
        cluster = list(range(self.real.numel()))
        members = [[node] for node in cluster]
        graphs_of = [1 << (node // self.nodes) for node in cluster]

        def belong_together(one: int, other: int) -> bool:
            votes = possible = 0
            for left in members[one]:
                for right in members[other]:
                    low, high = (left, right) if left < right else (right, left)
                    possible += known[low // self.nodes][high // self.nodes]
                    votes += low * self.real.numel() + high in matched
            return votes > _LEAST_VOTES * possible

        for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
            one, other = cluster[row], cluster[column]
            if one == other or graphs_of[one] & graphs_of[other] or not belong_together(one, other):
                continue
            if len(members[one]) < len(members[other]):
                one, other = other, one
            for node in members[other]:
                cluster[node] = one
            members[one] += members[other]
            graphs_of[one] |= graphs_of[other]
        return self._placed(
            torch.tensor(cluster, dtype=torch.int64).reshape(self.graphs, self.nodes).where(self.real, -1)
        )

    def _table_places(self) -> Tensor:
        """Returns for each entry of W where it stands in a table (m, m, n)."""
        return (
            self.rows // self.nodes * self.graphs + self.columns // self.nodes
        ) * self.nodes + self.rows % self.nodes

    def _placed(self, labels: Tensor) -> Tensor:
        """Returns compact labels; where the universe is limited its largest elements stay and take all nodes in."""
        labels = compact_labels(labels)
        if self.universe_size is None:
            return labels
        sizes = torch.bincount(labels[labels >= 0])
        if len(sizes) <= self.universe_size and bool((labels >= 0).eq(self.real).all()):
            return labels
        largest = torch.argsort(sizes, descending=True, stable=True)[: self.universe_size]
        place = torch.full((len(sizes) + 1,), -1)
        place[largest] = torch.arange(len(largest))
        return self._nearest(self._votes(place[labels])[None])[0]

    def _votes(self, labels: Tensor) -> Tensor:
        """Returns W U, (m, n, u) float64, for labels (m, n); less what is made up where the universe has no limit."""
        limit = int(labels.max()) + 1 if self.universe_size is None else self.universe_size
        flat = labels.flatten()
        voted = flat[self.columns] >= 0
        votes = torch.zeros(len(flat) * limit, dtype=torch.float64)
        places = self.rows[voted] * limit + flat[self.columns[voted]]
        votes = torch.bincount(places, minlength=len(votes)).double().reshape(self.graphs, self.nodes, limit)
        if self.universe_size is None:
            return votes - _LEAST_VOTES * (self.known.double() @ self._elements(labels)[:, :limit])[:, None, :]
        return votes

    def _nearest(self, scores: Tensor, alone: float = 0.0) -> Tensor:
        """Returns labels (k, m, n) of largest scores (k, m, n, u); nodes with no score above `alone` get new ones."""
        count, limit = scores.shape[0], scores.shape[3]
        limited = self.universe_size is not None
        sizes = torch.stack([self.node_counts, torch.full_like(self.node_counts, limit)], dim=1).repeat(count, 1)
        problem = LinearProblem(-scores.flatten(0, 1), sizes, None if limited else -alone)
        places = solve(problem, LAP()).assignment.reshape(count, self.graphs, self.nodes)
        if not limited and limit:
            gain = scores.gather(3, places.clamp(min=0)[..., None])[..., 0]
            fresh = limit + torch.arange(self.graphs * self.nodes).reshape(self.graphs, self.nodes)
            places = torch.where((places >= 0) & (gain > alone), places, fresh)
        elif not limited:
            places = torch.arange(self.graphs * self.nodes).reshape(1, self.graphs, self.nodes).repeat(count, 1, 1)
        return torch.where(self.real, places, -1)

    def projected_power(self) -> Tensor:
        """Projected power iteration from the cliques; the labels of best agreement."""
        best = labels = self.cliques
        highest = float(self.agreement(labels[None]))
        for _ in range(_POWER_ITERATIONS):
            votes = self._votes(labels)
            own = labels[:, :, None] == torch.arange(votes.shape[2])
            following = compact_labels(self._nearest((votes + 0.5 * own)[None])[0])
            if torch.equal(following, labels):
                break
            labels = following
            agreement = float(self.agreement(labels[None]))
            if agreement > highest:
                best, highest = labels, agreement
        return best

    def spectral(self) -> Tensor:
        """Leading eigenvectors of W, matched with those of reference nodes; the reference of best agreement."""
        inside = self.real.flatten().nonzero()[:, 0]
        cure = 'All pairs of nodes are compared: use kind="cliques".'
        _check.memory("synchronize_matchings", 5 * 8 * self.real.numel() ** 2, cure)
        matrix = torch.eye(self.real.numel(), dtype=torch.float64)
        matrix[self.rows, self.columns] = 1
        values, vectors = torch.linalg.eigh(matrix[inside][:, inside])
        candidates = [self._spectral(values, vectors, inside, count) for count in self._leading(values)]
        return candidates[int(self.agreement(torch.stack(candidates)).argmax())]

    def _leading(self, values: Tensor) -> list[int]:
        """Returns numbers of elements that the eigenvalues (N,), ascending, speak for."""
        if self.universe_size is not None:
            return [min(self.universe_size, len(values))]
        # Of exact matchings each element of two or more nodes has an eigenvalue of at least 2; noise leaves a gap.
        gaps = values.diff().flip(0)[int(self.node_counts.max()) - 1 :]
        largest = [int(gaps.argmax()) + int(self.node_counts.max())] if len(gaps) else []
        return [int((values > _EIGENVALUE).sum()), *largest]

    def _spectral(self, values: Tensor, vectors: Tensor, inside: Tensor, leading: int) -> Tensor:
        nodes = torch.zeros(self.real.numel(), leading, dtype=torch.float64)
        if leading:
            nodes[inside] = vectors[:, -leading:] * values[-leading:].clamp(min=0).sqrt()
        length = nodes.norm(dim=1, keepdim=True)
        nodes = torch.where(length > _SHORT, nodes / length, 0)
        references = self._references(nodes)
        scores = nodes.reshape(self.graphs, self.nodes, leading) @ nodes[references].transpose(1, 2)[:, None]
        labels = self._nearest(scores, _SAME)
        return labels[int(self.agreement(labels).argmax())]

    def _references(self, nodes: Tensor) -> Tensor:
        """Returns sets (k, u) of nodes that stand for the elements: u independent ones, and graphs of u nodes."""
        # `import graphmatch` would wait for this import.
        from scipy.linalg import qr

        leading = nodes.shape[1]
        pivots = torch.from_numpy(qr(nodes.T.numpy(), mode="r", pivoting=True)[1]).long()[:leading]
        support = self.support.sum((1, 2))
        graphs = torch.argsort(support, descending=True, stable=True)
        graphs = graphs[(self.node_counts == leading)[graphs]][:_REFERENCES]
        return torch.cat([pivots[None], graphs[:, None] * self.nodes + torch.arange(leading)])


def check_kind(where: str, kind: object) -> None:
    """Refuses anything but the name of a kind of synchronisation."""
    if kind not in KINDS:
        raise ValueError(_check.message(where, "kind", f"be one of {', '.join(KINDS)}", repr(kind), "Choose one."))


def _check_matchings(
    where: str, assignment: Tensor, pairs: Tensor, node_counts: Tensor, universe_size: int | None
) -> None:
    """Refuses what is no set of matchings between graphs of these sizes."""
    _check.integer(where, "assignment", _check.tensor(where, "assignment", assignment, 2, "(p, n)"))
    _check.integer(where, "pairs", _check.tensor(where, "pairs", pairs, 2, "(p, 2)"))
    _check.shape(where, "pairs", pairs, (len(assignment), 2), "two graphs per matching")
    _check.integer(where, "node_counts", _check.tensor(where, "node_counts", node_counts, 1, "(m,)"))
    _check.indices(where, "pairs", pairs, None, len(node_counts))
    ordered = pairs.sort(dim=1).values
    if bool((ordered[:, 0] == ordered[:, 1]).any()) or len(torch.unique(ordered, dim=0)) < len(pairs):
        rule = "hold two different graphs each, every two at most once"
        raise ValueError(_check.message(where, "pairs", rule, pairs.tolist(), "Drop repeated pairs."))
    largest = int(node_counts.max()) if len(node_counts) else 0
    if universe_size is not None:
        rule = f"be at least {largest}, the nodes of the largest graph"
        _check.option(where, "universe_size", universe_size, universe_size >= largest, rule, "None sets no limit.")
    rows = real_nodes(node_counts[pairs[:, 0]], assignment.shape[1])
    limits = node_counts[pairs[:, 1]][:, None]
    ordered = torch.where(assignment >= 0, assignment, -1 - torch.arange(assignment.shape[1])).sort(dim=1).values
    repeated = bool((ordered[:, 1:] == ordered[:, :-1]).any())
    if repeated or bool(((assignment < -1) | (assignment >= torch.where(rows, limits, 0))).any()):
        rule = "hold different nodes of the second graph for nodes of the first, or -1"
        cure = "Padding is -1; node_counts says how many nodes the graphs have."
        raise ValueError(_check.message(where, "assignment", rule, _check.describe(assignment), cure))
