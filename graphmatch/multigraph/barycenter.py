"""Barycenters of structured graphs: in closed form for known correspondences, by alternation for unknown ones.

The barycenter of graphs G_s with weights w_s minimises sum_s w_s d(G_s, B)^2 for the distance d of `sga_distance`.
Given the correspondences it is the mean of what is matched: features x_k = sum_s w_s x_s[p_s(k)] and structure
C = sum_s w_s P_s' C_s P_s. Over the correspondences the problem is that of matching several graphs; the alternation of
matching and averaging never goes up and ends in a local minimum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from graphmatch import _check
from graphmatch.batch import stack_problems
from graphmatch.graphs import Graph
from graphmatch.multigraph.base import pair_solver
from graphmatch.multigraph.distance import aligned_square, alignment_costs
from graphmatch.multigraph.structured import (
    StructuredGraph,
    check_structure_weight,
    normalised_weights,
    structured_graphs,
)
from graphmatch.solve import solve
from graphmatch.solvers import Solver

# A step counts as progress if it gains more than rounding errors.
_PROGRESS = 1e-12


@dataclass(frozen=True, eq=False)
class BarycenterEstimate:
    """A barycenter of graphs whose correspondences were not known.

    Attributes:
        barycenter: The graph; differentiable in the features and structures of the graphs, with the correspondences
            constant.
        labels: (m, n) int64, the node of the barycenter that each node of each graph is matched with; -1 = padding, or
            unmatched because the barycenter is smaller.
        objective_history: Sum of weighted squared distances after each averaging, from the best start; never rising.
        converged: Whether the correspondences no longer changed.
    """

    barycenter: StructuredGraph
    labels: Tensor
    objective_history: tuple[float, ...]
    converged: bool

    @property
    def objective(self) -> float:
        """The sum of weighted squared distances of the graphs to the barycenter, along the matchings found."""
        return self.objective_history[-1]


def barycenter_graph(
    graphs: Sequence[Graph | StructuredGraph],
    correspondences: Tensor | None = None,
    weights: Tensor | Sequence[float] | None = None,
) -> StructuredGraph:
    """Returns the weighted mean of graphs whose correspondences are known.

    Node k has the mean of the features of all nodes with label k; the structure of a pair of nodes is the mean over the
    graphs that have both (for a `Graph` the mean adjacency: the share of graphs with that edge), zero where none has.
    Weights are renormalised for elements that some graphs lack. It is differentiable in features and structures.

    Where all graphs have all elements it minimises the weighted sum of squared `sga_distance`s along the
    correspondences. The barycenter of ExGra-Med is `barycenter_graph(views).nodes`, with edges by
    `knn_graph(nodes, k)`; `result.to_graph()` has the union of all edges instead.

    Args:
        graphs: m >= 1 graphs, features of one length and dtype.
        correspondences: (m, n) int64, n at least the nodes of the largest graph: labels of the nodes, such as
            `MultiGraphResult.labels`, distinct within a graph; -1 = left out, or padding. None = node i is the same
            element in all graphs, which then have one size.
        weights: (m,) not negative, scaled to sum 1; None = equal.

    Returns:
        Graph with an element of every label from 0 to the largest as its nodes, in the dtype of the graphs.

    Raises:
        TypeError, ValueError: If an argument breaks the rules above, or a label has no node with a positive weight.

    Source: D. M. H. Nguyen et al., "ExGra-Med", arXiv 2410.02615, section 3.2 (features);
    G. Peyré, M. Cuturi, J. Solomon, "Gromov-Wasserstein averaging of kernel and distance matrices", ICML 2016, eq. 14
    (structure).

    Example:
        >>> import torch, graphmatch as gm
        >>> first = gm.Graph(torch.tensor([[0.0], [1.0]]), torch.tensor([[0, 1]]))
        >>> second = gm.Graph(torch.tensor([[3.0], [0.0]]), torch.tensor([[0, 1]]))
        >>> mean = gm.barycenter_graph([first, second], torch.tensor([[0, 1], [1, 0]]))
        >>> mean.nodes.flatten(), mean.structure
        (tensor([0., 2.]), tensor([[0.0000, 0.5000],
                [0.5000, 0.0000]]))
    """
    where = "barycenter_graph"
    taken = structured_graphs(where, graphs)
    shares = normalised_weights(where, weights, len(taken), taken[0].nodes)
    labels = _identity(where, taken) if correspondences is None else _checked_labels(where, correspondences, taken)
    labels = labels.to(taken[0].nodes.device)
    elements = int(labels.max()) + 1 if labels.numel() else 0
    position = _positions(labels, elements)
    seen = (position >= 0).to(shares.dtype).mT @ shares
    if bool((seen == 0).any()):
        rule = f"use every label from 0 to {elements - 1} in a graph of positive weight"
        missing = f"none with label {int((seen == 0).nonzero()[0])}"
        raise ValueError(_check.message(where, "correspondences", rule, missing, "Renumber the labels."))
    return _mean(taken, position, shares)


def estimate_barycenter(
    graphs: Sequence[Graph | StructuredGraph],
    size: int | None = None,
    weights: Tensor | Sequence[float] | None = None,
    structure_weight: float = 0.5,
    solver: Solver | None = None,
    starts: int = 3,
    seed: int = 0,
    max_iterations: int = 100,
) -> BarycenterEstimate:
    """Returns a barycenter of graphs whose correspondences are not known, with the correspondences.

    Minimises sum_s w_s [ (1 - a) / N sum |x_s[i] - x[p_s(i)]|^2 + a / N^2 sum (C_s[i, j] - C[p_s(i), p_s(j)])^2 ] over
    the barycenter (x, C) with N nodes and complete matchings p_s, a = structure_weight; sums run over matched nodes and
    pairs. With graphs of N nodes each this is sum_s w_s sga_distance(G_s, barycenter)^2.

    It alternates: all graphs are matched with the barycenter in one call of the solver, then the barycenter becomes the
    mean. A matching is replaced only by a better one, so that the objective falls until nothing changes: a local
    minimum, the best of those from several starts. Each start is one of the graphs. Deterministic for a seed.

    Args:
        graphs: m >= 1 graphs, features of one length and dtype; sizes may differ.
        size: Nodes N of the barycenter, at least 1 and at most those of the largest graph of positive weight; None = as
            many. Larger graphs leave nodes unmatched for free, smaller ones lack elements.
        weights: (m,) not negative, scaled to sum 1; None = equal.
        structure_weight: Share a of the structure, in [0, 1].
        solver: Any solver for Lawler problems; None takes a hasty `Portfolio`. Dense costs take memory that grows with
            the fourth power of the size.
        starts: Graphs of at least N nodes to start from, at most as many as there are.
        seed: Of the choice of starts, and of their nodes where they have more than N.
        max_iterations: Limit of averagings per start.

    Raises:
        TypeError, ValueError: If an argument breaks the rules above.

    Source: G. Peyré, M. Cuturi, J. Solomon, "Gromov-Wasserstein averaging of kernel and distance matrices", ICML 2016
    (the alternation, with soft couplings); A. Solé-Ribalta, F. Serratosa, "Graduated assignment algorithm for multiple
    graph matching based on a common labeling", IJPRAI 27 (2013) (common labels).

    Example:
        >>> import torch, graphmatch as gm
        >>> points = torch.tensor([[0.0, 1.0], [2.0, 0.0], [3.0, 3.0]])
        >>> graphs = [gm.knn_graph(points[order], k=1) for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0])]
        >>> estimate = gm.estimate_barycenter(graphs)
        >>> estimate.labels[0, [1, 2, 0]].equal(estimate.labels[2]), round(estimate.objective, 6), estimate.converged
        (True, 0.0, True)
    """
    where = "estimate_barycenter"
    taken = structured_graphs(where, graphs)
    shares = normalised_weights(where, weights, len(taken), taken[0].nodes)
    check_structure_weight(where, structure_weight)
    _check.option(where, "starts", starts, starts >= 1, "be at least 1", "3 is the default.")
    _check.option(where, "max_iterations", max_iterations, max_iterations >= 1, "be at least 1", "Try 100.")
    counts = [len(graph.nodes) if share > 0 else 0 for graph, share in zip(taken, shares.tolist(), strict=True)]
    largest = max(counts)
    size = largest if size is None else _check.whole_number(where, "size", size, "None takes as many.")
    rule = f"lie in [1, {largest}], the nodes of the largest graph of positive weight"
    _check.option(where, "size", size, 1 <= size <= largest, rule, "None takes as many.")
    generator = torch.Generator().manual_seed(seed)
    candidates = torch.tensor([place for place, count in enumerate(counts) if count >= size])
    candidates = candidates[torch.randperm(len(candidates), generator=generator)][:starts]
    detached = [StructuredGraph(graph.nodes.detach(), graph.structure.detach()) for graph in taken]
    alternation = _Alternation(detached, shares, size, structure_weight, pair_solver() if solver is None else solver)
    best: tuple[Tensor, tuple[float, ...], bool] | None = None
    for place in candidates.tolist():
        kept = torch.randperm(counts[place], generator=generator)[:size].sort().values.to(taken[0].nodes.device)
        found = alternation.run(_part(detached[place], kept), max_iterations)
        if best is None or found[1][-1] < best[1][-1] * (1 - _PROGRESS):
            best = found
    labels, history, converged = best  # type: ignore[misc]  # there is a start
    return BarycenterEstimate(_mean(taken, _positions(labels, size), shares), labels, history, converged)


@dataclass(frozen=True, eq=False)
class _Alternation:
    """Matching and averaging, from a start."""

    graphs: list[StructuredGraph]
    shares: Tensor
    size: int
    structure_weight: float
    solver: Solver

    def run(self, barycenter: StructuredGraph, max_iterations: int) -> tuple[Tensor, tuple[float, ...], bool]:
        """Returns labels, the objective after each averaging, and whether the labels stopped changing."""
        labels = self._matched(barycenter)
        history: list[float] = []
        for _ in range(max_iterations):
            barycenter = _mean(self.graphs, _positions(labels, self.size), self.shares)
            squares = self._squares(labels, barycenter)
            history.append(float(squares @ self.shares))
            proposed = self._matched(barycenter)
            better = self._squares(proposed, barycenter) < squares - _PROGRESS * squares.abs()
            if not bool(better.any()):
                return labels, tuple(history), True
            labels = torch.where(better[:, None], proposed, labels)
        return labels, tuple(history), False

    def _matched(self, barycenter: StructuredGraph) -> Tensor:
        """Returns the labels (m, n) of all graphs matched with the barycenter, by one call of the solver."""
        problems = [alignment_costs(graph, barycenter, self.structure_weight, self.size)[0] for graph in self.graphs]
        return solve(stack_problems(problems), self.solver).assignment.to(self.shares.device)

    def _squares(self, labels: Tensor, barycenter: StructuredGraph) -> Tensor:
        """Returns the squared distance (m,) of each graph to the barycenter along its labels."""
        squares = [
            aligned_square(graph, barycenter, row[: len(graph.nodes)], self.structure_weight, self.size)
            for graph, row in zip(self.graphs, labels, strict=True)
        ]
        return torch.stack(squares)


def _part(graph: StructuredGraph, kept: Tensor) -> StructuredGraph:
    return StructuredGraph(graph.nodes[kept], graph.structure[kept][:, kept])


def _identity(where: str, graphs: list[StructuredGraph]) -> Tensor:
    sizes = [len(graph.nodes) for graph in graphs]
    if len(set(sizes)) > 1:
        rule = "be given for graphs of unequal sizes"
        cure = "Pass labels (m, n), or use estimate_barycenter."
        raise ValueError(_check.message(where, "correspondences", rule, f"None for sizes {sizes}", cure))
    return torch.arange(sizes[0]).expand(len(graphs), -1)


def _checked_labels(where: str, labels: object, graphs: list[StructuredGraph]) -> Tensor:
    values = _check.integer(where, "correspondences", _check.tensor(where, "correspondences", labels, 2, "(m, n)"))
    largest = max(len(graph.nodes) for graph in graphs)
    width = max(largest, values.shape[1])
    _check.shape(where, "correspondences", values, (len(graphs), width), "a row per graph, a label per node")
    for place, graph in enumerate(graphs):
        if bool((values[place, len(graph.nodes) :] >= 0).any()):
            rule = f"be -1 beyond the {len(graph.nodes)} nodes of graph {place}"
            raise ValueError(_check.message(where, "correspondences", rule, values[place].tolist(), "Pad with -1."))
        used = values[place][values[place] >= 0]
        if len(used.unique()) < len(used):
            rule = f"be distinct within graph {place}"
            received = values[place].tolist()
            raise ValueError(_check.message(where, "correspondences", rule, received, "Match each element once."))
    return values


def _positions(labels: Tensor, elements: int) -> Tensor:
    """Returns (m, elements) int64, the node of each graph that has a label; -1 = none."""
    position = labels.new_full((len(labels), elements + 1), -1)
    nodes = torch.arange(labels.shape[1], device=labels.device).expand_as(labels)
    # The last column takes what has no label.
    return position.scatter(1, torch.where(labels >= 0, labels, elements), nodes)[:, :elements]


def _mean(graphs: list[StructuredGraph], position: Tensor, shares: Tensor) -> StructuredGraph:
    """Returns the mean over the graphs that have each element, and each pair of elements."""
    dtype = graphs[0].nodes.dtype
    nodes, structure, node_weights, pair_weights = [], [], [], []
    for graph, row, share in zip(graphs, position, shares, strict=True):
        # One more node, of zeros, is that of elements which the graph lacks; index -1 is it.
        there = (row >= 0).to(shares.dtype) * share
        nodes.append(there.to(dtype)[:, None] * pad(graph.nodes, (0, 0, 0, 1))[row])
        both = there[:, None] * (row >= 0)
        structure.append(both.to(dtype) * pad(graph.structure, (0, 1, 0, 1))[row][:, row])
        node_weights.append(there)
        pair_weights.append(both)
    total, pair_total = torch.stack(node_weights).sum(0), torch.stack(pair_weights).sum(0)
    pair_total = torch.where(pair_total > 0, pair_total, 1.0)
    return StructuredGraph(
        torch.stack(nodes).sum(0) / total.to(dtype)[:, None], torch.stack(structure).sum(0) / pair_total.to(dtype)
    )
