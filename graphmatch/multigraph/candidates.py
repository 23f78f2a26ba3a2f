"""Labels proposed for several graphs: made allowed where they are not, and the cheapest of them chosen."""

from __future__ import annotations

import torch
from torch import Tensor

from graphmatch.multigraph.labels import real_nodes
from graphmatch.multigraph.problem import MultiGraphProblem
from graphmatch.multigraph.result import evaluate_labels
from graphmatch.problem import LinearProblem
from graphmatch.solve import solve
from graphmatch.solvers import LAP

# Numbers that one step of an evaluation may hold.
_CHUNK = 4_000_000


def cheapest_labels(problem: MultiGraphProblem, labels: Tensor) -> Tensor:
    """Returns the cheapest (m, n) of labels (k, m, n), the first of equal ones.

    Those that are not allowed are settled first; nodes with the label -1 have none yet.
    """
    if len(labels) > 1:
        evaluator = _Evaluator(problem, labels.shape[2])
        totals = evaluator.totals(labels)
        refused = totals.isinf().nonzero()[:, 0]
        if len(refused):
            labels = labels.clone()
            labels[refused] = settled_labels(problem, labels[refused])
            totals[refused] = evaluator.totals(labels[refused])
        return labels[int(totals.argmin())]
    missing = (labels[0] < 0) & real_nodes(problem.node_counts, labels.shape[2])
    if bool(missing.any()) or bool(evaluate_labels(problem, labels[0], torch.get_num_threads()).isinf().any()):
        return settled_labels(problem, labels)[0]
    return labels[0]


class _Evaluator:
    """Objectives of many labels of one problem, by look-up: the native function would prepare the costs for each."""

    def __init__(self, problem: MultiGraphProblem, nodes: int) -> None:
        costs = problem.costs
        self.problem = problem
        self.real = real_nodes(problem.node_counts, nodes)
        self.unary = costs.unary_costs.detach().cpu()
        rows, columns = self.unary.shape[1:]
        quadratic = costs.quadratic_costs.detach().cpu()
        self.edges, edges2 = costs.edges1.cpu(), costs.edges2.cpu()
        count1, count2 = quadratic.shape[1:]
        if costs.sizes is not None:
            sizes = costs.sizes.cpu()
            real1, real2 = real_nodes(sizes[:, 2], count1), real_nodes(sizes[:, 3], count2)
            quadratic = torch.where(real1[:, :, None] & real2[:, None, :], quadratic, 0)
            self.edges = torch.where(real1[:, :, None], self.edges, rows)
            edges2 = torch.where(real2[:, :, None], edges2, columns)
        # The extra column costs nothing: that of edges whose image is no edge. Node `columns` stands for no node.
        self.quadratic = torch.nn.functional.pad(quadratic, (0, 1))
        keys = edges2[:, :, 0] * (columns + 1) + edges2[:, :, 1]
        self.place = torch.full((len(keys), (columns + 1) ** 2), count2, dtype=torch.int64)
        self.place.scatter_(1, keys, torch.arange(count2).expand_as(keys))
        merged = self.place.gather(1, keys)
        if bool((merged != torch.arange(count2)).any()):
            self.quadratic = torch.zeros_like(self.quadratic, dtype=torch.float64)
            self.quadratic.scatter_add_(2, merged[:, None, :].expand(-1, count1, -1), quadratic.double())
        self.place.view(len(keys), columns + 1, columns + 1)[:, columns] = count2
        self.place.view(len(keys), columns + 1, columns + 1)[:, :, columns] = count2

    def totals(self, labels: Tensor) -> Tensor:
        """Returns the objectives (k,) float64 of labels (k, m, n); +inf where a node has none or one is not allowed."""
        numbers = self.problem.graph_count * (int(labels.max()) + 2 if labels.numel() else 1)
        numbers = max(numbers, self.edges.shape[0] * max(self.edges.shape[1], 1))
        totals = [self._totals(chunk) for chunk in labels.split(max(_CHUNK // max(numbers, 1), 1))]
        missing = ((labels < 0) & self.real).flatten(1).any(1)
        return torch.where(missing, torch.inf, torch.cat(totals))

    def _totals(self, labels: Tensor) -> Tensor:
        count, graphs, nodes = labels.shape
        rows, columns = self.unary.shape[1:]
        pairs, cost = self.problem.pairs, self.problem.costs.unmatched_cost
        universe = (int(labels.max()) if labels.numel() else -1) + 2  # the last element is that of no node
        named = torch.where(labels >= 0, labels, universe - 1)
        holder = torch.full((count, graphs, universe), columns)
        holder.scatter_(2, named, torch.arange(nodes).expand_as(named))
        holder[:, :, -1] = columns
        matched = holder[:, pairs[:, 1]].gather(2, named[:, pairs[:, 0], :rows])
        is_matched = matched < columns
        unary = torch.nn.functional.pad(self.unary, (0, 1)).expand(count, -1, -1, -1)
        total = unary.gather(3, matched[..., None]).double().sum((1, 2, 3))
        if self.quadratic.shape[1]:
            # Edges of the padding have the end `rows`, which is matched with no node.
            ends = torch.nn.functional.pad(matched, (0, 1), value=columns)[:, :, None, :].expand(-1, -1, 2, -1)
            ends = ends.gather(3, self.edges.transpose(1, 2).expand(count, -1, -1, -1))
            place = self.place.expand(count, -1, -1).gather(2, ends[:, :, 0] * (columns + 1) + ends[:, :, 1])
            paid = self.quadratic.expand(count, -1, -1, -1).gather(3, place[..., None])
            total = total + paid.double().sum((1, 2, 3))
        matches = is_matched.sum(2)
        if cost is not None:
            return total + cost * (self.problem.node_counts[pairs[:, 0]] - matches).sum(1)
        needed = self.problem.node_counts[pairs].amin(1)
        return torch.where((matches < needed).any(1), torch.inf, total)


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
    if not problem.is_limited:
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
