"""Labels proposed for several graphs: made allowed where they are not, and the cheapest of them chosen."""

from __future__ import annotations

import torch
from torch import Tensor

from graphmatch.multigraph.aggregate import is_limited, real_nodes
from graphmatch.multigraph.problem import MultiGraphProblem
from graphmatch.multigraph.result import evaluate_labels
from graphmatch.problem import LinearProblem
from graphmatch.solve import solve
from graphmatch.solvers import LAP


def cheapest_labels(problem: MultiGraphProblem, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the cheapest (m, n) of labels (k, m, n), the first of equal ones, and what its pairs cost, (p,) float64.

    Those that are not allowed are settled first; nodes with the label -1 have none yet.
    """
    missing = ((labels < 0) & real_nodes(problem.node_counts, labels.shape[2])).flatten(1).any(1)
    objectives = torch.full((len(labels), len(problem.pairs)), torch.inf, dtype=torch.float64)
    for place in (~missing).nonzero()[:, 0].tolist():
        objectives[place] = evaluate_labels(problem, labels[place], torch.get_num_threads())
    refused = objectives.sum(1).isinf().nonzero()[:, 0]
    if len(refused):
        labels = labels.clone()
        labels[refused] = settled_labels(problem, labels[refused])
        for place in refused.tolist():
            objectives[place] = evaluate_labels(problem, labels[place], torch.get_num_threads())
    best = int(objectives.sum(1).argmin())
    return labels[best], objectives[best]


def settled_labels(problem: MultiGraphProblem, labels: Tensor) -> Tensor:
    """Returns labels (k, m, n) that are near the given ones (k, m, n), and allowed where that is found easily.

    Graph after graph, the largest first. Without a limited universe a node keeps its label unless that matches it with
    a node that is forbidden; then, or where it has none, it becomes an element of its own. With a limited universe the
    nodes of a graph are assigned to elements: as many as possible to their own, none, if that can be, to those of
    forbidden nodes, the others where unary costs are lowest; where matchings must be complete, to elements of the
    graph before, so that of every two graphs the smaller one is matched as a whole.
    """
    order = torch.argsort(problem.node_counts, descending=True, stable=True)
    costs = _NodeCosts(problem, labels.shape[2])
    if not is_limited(problem):
        return _kept_labels(problem, labels, order, costs)
    nodes, universe = labels.shape[2], problem.largest_universe
    result = torch.full_like(labels, -1)
    is_complete = problem.costs.unmatched_cost is None
    open_elements = torch.ones(len(labels), 1, universe, dtype=torch.bool)
    for place, graph in enumerate(order.tolist()):
        count = int(problem.node_counts[graph])
        others, unary = costs.between(graph, order[:place])
        # One row per node of the others: the element that it stands for.
        held = (result[:, others].flatten(1)[:, :, None] == torch.arange(universe)).double()
        rows = unary.transpose(0, 1).flatten(1)
        price = torch.where(rows.isinf(), 0, rows) @ held
        forbidden = rows.isinf().double() @ held > 0
        wanted = labels[:, graph, :, None] == torch.arange(universe)
        wish = 1.0 + 2.0 * nodes * (float(price.abs().max()) if price.numel() else 0.0)
        price = price + 4.0 * nodes * wish * forbidden - wish * wanted
        price = price + 32.0 * nodes * nodes * wish * ~open_elements
        sizes = torch.tensor([[count, universe]]).expand(len(labels), 2)
        result[:, graph] = solve(LinearProblem(price, sizes), LAP()).assignment
        if is_complete:
            open_elements = (result[:, graph, :, None] == torch.arange(universe)).any(1, keepdim=True)
    return result


def _kept_labels(problem: MultiGraphProblem, labels: Tensor, order: Tensor, costs: _NodeCosts) -> Tensor:
    graphs, nodes = labels.shape[1:]
    fresh = torch.arange(graphs * nodes).reshape(graphs, nodes) + (int(labels.max()) + 1 if labels.numel() else 0)
    real = real_nodes(problem.node_counts, nodes)
    result = torch.full_like(labels, -1)
    for place, graph in enumerate(order.tolist()):
        others, unary = costs.between(graph, order[:place])
        wanted = labels[:, graph]
        meets = wanted[:, None, :, None] == result[:, others][:, :, None, :]
        refused = (meets & unary.isinf()).flatten(3).any(3).any(1) | (wanted < 0)
        result[:, graph] = torch.where(real[graph], torch.where(refused, fresh[graph], wanted), -1)
    return result


class _NodeCosts:
    """Unary costs between the nodes of a graph and those of others, in float64 on the CPU."""

    def __init__(self, problem: MultiGraphProblem, nodes: int) -> None:
        unary = problem.costs.unary_costs.detach().cpu().double()
        first, second = problem.pairs[:, 0], problem.pairs[:, 1]
        real1 = real_nodes(problem.node_counts[first], unary.shape[1])
        real2 = real_nodes(problem.node_counts[second], unary.shape[2])
        self.pairs = problem.pairs
        self.unary = torch.zeros(len(unary), nodes, nodes, dtype=torch.float64)
        inside = torch.where(real1[:, :, None] & real2[:, None, :], unary, 0)
        self.unary[:, : unary.shape[1], : unary.shape[2]] = inside

    def between(self, graph: int, others: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the others (d,) that the graph has a pair with, and costs (d, n, n), its nodes in the rows."""
        known = torch.zeros(int(self.pairs.max()) + 1, dtype=torch.bool)
        known[others] = True
        forward = (self.pairs[:, 0] == graph) & known[self.pairs[:, 1]]
        backward = (self.pairs[:, 1] == graph) & known[self.pairs[:, 0]]
        costs = torch.cat([self.unary[forward], self.unary[backward].transpose(1, 2)])
        return torch.cat([self.pairs[forward, 1], self.pairs[backward, 0]]), costs
