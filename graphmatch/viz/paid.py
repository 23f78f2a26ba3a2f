"""What a matching pays, node by node and edge by edge: the figures behind the colours of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from graphmatch import _check
from graphmatch.graphs import Graph
from graphmatch.problem import KoopmansBeckmannProblem, LawlerProblem, LinearProblem, Problem
from graphmatch.result import MatchResult, paid_pair_matrix

PAID, BROKEN, OPEN = "paid", "broken", "open"
"""States of an edge: it has a counterpart; its nodes are matched, but their partners share no edge; a node is alone."""


@dataclass(frozen=True, eq=False)
class EdgeCosts:
    """The edges of one graph, each pair of nodes once.

    Attributes:
        ends: (e, 2) int64, the smaller node first.
        costs: (e,) what the matching pays for the edge, both directions and all counterparts together.
        states: `PAID`, `BROKEN` or `OPEN` for each edge.
    """

    ends: NDArray[np.int64]
    costs: NDArray[np.float64]
    states: list[str]

    def select(self, state: str) -> NDArray[np.int64]:
        """Returns the indices of the edges in a state."""
        return np.array([place for place, each in enumerate(self.states) if each == state], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class PaidCosts:
    """One matching with all that it pays.

    Attributes:
        assignment: (n1,) int64, the node of graph 2 for each node of graph 1; -1 = unmatched.
        nodes: Number of nodes of both graphs.
        edges: The edges of both graphs.
        node_costs: (n1,) what a matched node pays: its assignment and half of its edges, so that all nodes together
            pay the objective without the cost of unmatched nodes; None without a problem.
    """

    assignment: NDArray[np.int64]
    nodes: tuple[int, int]
    edges: tuple[EdgeCosts, EdgeCosts]
    node_costs: NDArray[np.float64] | None


def assignment_of(where: str, matching: Any, place: int) -> tuple[NDArray[np.int64], Problem | None]:
    """Returns one assignment (n1,) of a result, a tensor or a list, and the problem where there is one."""
    if isinstance(matching, MatchResult):
        batch = len(matching.objective)
        rule = f"be a problem of the batch, in [0, {batch})"
        _check.option(where, "place", place, 0 <= place < batch, rule, "Count from 0.")
        count = int(matching.problem.node_counts()[0][place])
        return matching.assignment[place, :count].cpu().numpy(), matching.problem
    try:
        assignment = _whole(torch.as_tensor(matching))
    except (TypeError, ValueError, RuntimeError):
        assignment = torch.zeros(0, 0)
    if assignment.ndim != 1 or assignment.is_floating_point() or assignment.dtype == torch.bool:
        rule = "be a MatchResult or whole numbers (n1,): the node of graph 2 for each node of graph 1, -1 = none"
        cure = "Take result.assignment[0], or matching.argmax(1) of a complete matching."
        raise TypeError(_check.message(where, "matching", rule, _check.describe(matching), cure))
    return assignment.long().cpu().numpy(), None


def _whole(values: torch.Tensor) -> torch.Tensor:
    """Returns an empty list, which has no type of its own, as whole numbers."""
    return values.long() if tuple(values.shape) == (0,) else values


def target_of(where: str, target: Any, nodes: tuple[int, int]) -> NDArray[np.int64] | None:
    """Returns the true partners (n1,), -1 = none, of a target that may be a 0/1 matrix (n1, n2)."""
    if target is None:
        return None
    tensor = _whole(torch.as_tensor(target).detach().cpu())
    if tuple(tensor.shape) == nodes and tensor.ndim == 2:
        return torch.where(tensor.amax(1) > 0.5, tensor.argmax(1), -1).numpy() if nodes[1] else -np.ones(nodes[0], int)
    if tuple(tensor.shape) != nodes[:1] or tensor.is_floating_point():
        rule = f"hold the true partner of each node, whole numbers ({nodes[0]},), or be a 0/1 matrix {nodes}"
        raise ValueError(_check.message(where, "target", rule, _check.describe(target), "-1 = has no partner."))
    truth = tensor.long().numpy()
    if len(truth) and not -1 <= truth.min() <= truth.max() < nodes[1]:
        rule = f"hold nodes in [0, {nodes[1]}), or -1"
        raise ValueError(_check.message(where, "target", rule, truth.tolist(), "Check the order of the graphs."))
    return truth


def paid_costs(
    where: str,
    assignment: NDArray[np.int64],
    problem: Problem | None,
    graphs: Sequence[Graph] | None,
    place: int,
) -> PaidCosts:
    """Returns what the assignment of one problem of a batch pays; without a problem, which edges it keeps.

    Raises:
        TypeError: If the problem has no graphs.
        ValueError: If problem, graphs and assignment disagree about numbers of nodes.
    """
    nodes = _node_counts(where, problem, graphs, place)
    if len(assignment) != nodes[0] or (len(assignment) and not -1 <= assignment.min() <= assignment.max() < nodes[1]):
        rule = f"hold {nodes[0]} nodes of graph 2, each in [0, {nodes[1]}), or -1"
        raise ValueError(_check.message(where, "matching", rule, assignment.tolist(), "Check the order of the graphs."))
    if isinstance(problem, LawlerProblem):
        return _lawler(assignment, problem, place, nodes)
    if isinstance(problem, LinearProblem):
        costs = problem.costs[place, : nodes[0], : nodes[1]].detach().cpu().double().numpy()
        none = EdgeCosts(np.zeros((0, 2), np.int64), np.zeros(0), [])
        return PaidCosts(assignment, nodes, (none, none), _chosen(costs, assignment))
    return _structure(assignment, graphs or (), nodes)


def _node_counts(where: str, problem: Problem | None, graphs: Sequence[Graph] | None, place: int) -> tuple[int, int]:
    if problem is None and graphs is None:
        rule, cure = "come with graphs", "Pass graphs=(graph1, graph2), or a MatchResult, which knows its problem."
        raise TypeError(_check.message(where, "an assignment", rule, "none", cure))
    if isinstance(problem, KoopmansBeckmannProblem):
        rule, cure = "have sparse graphs", "Use draw_costs, which shows the permuted matrices."
        raise TypeError(_check.message(where, "matching", rule, f"that of a {type(problem).__name__}", cure))
    for graph in graphs or ():
        _check.indices(where, "edges", graph.edges[None].cpu(), None, graph.nodes.shape[-2])
    drawn = None if graphs is None else (graphs[0].nodes.shape[-2], graphs[1].nodes.shape[-2])
    if problem is None:
        return drawn or (0, 0)
    batch = problem.batch_size
    rule = f"be a problem of the batch, in [0, {batch})"
    _check.option(where, "place", place, 0 <= place < batch, rule, "Count from 0.")
    n1, n2 = (int(counts[place]) for counts in problem.node_counts())
    if drawn not in (None, (n1, n2)):
        rule = f"have {n1} and {n2} nodes, as the problem"
        raise ValueError(_check.message(where, "graphs", rule, drawn, "Check their order."))
    return n1, n2


def _lawler(assignment: NDArray[np.int64], problem: LawlerProblem, place: int, nodes: tuple[int, int]) -> PaidCosts:
    e1, e2 = problem.quadratic_costs.shape[1:]
    if problem.sizes is not None:
        e1, e2 = problem.sizes[place, 2:].tolist()
    one = LawlerProblem(
        problem.unary_costs[place : place + 1, : nodes[0], : nodes[1]].detach().cpu(),
        problem.quadratic_costs[place : place + 1, :e1, :e2].detach().cpu(),
        problem.edges1[place : place + 1, :e1].cpu(),
        problem.edges2[place : place + 1, :e2].cpu(),
    )
    paid: NDArray[np.bool_] = paid_pair_matrix(torch.from_numpy(assignment)[None], one)[0].bool().numpy()
    costs = np.where(paid, one.quadratic_costs[0].double().numpy(), 0.0)
    ends1, ends2 = one.edges1[0].numpy(), one.edges2[0].numpy()
    edges = (
        _merged(ends1, costs.sum(1), np.any(paid, 1), assignment),
        _merged(ends2, costs.sum(0), np.any(paid, 0), partners(assignment, nodes[1])),
    )
    shares = _chosen(one.unary_costs[0].double().numpy(), assignment)
    for side in (0, 1):
        np.add.at(shares, ends1[:, side], costs.sum(1) / 2)
    return PaidCosts(assignment, nodes, edges, shares)


def _structure(assignment: NDArray[np.int64], graphs: Sequence[Graph], nodes: tuple[int, int]) -> PaidCosts:
    """Returns which edges have a counterpart, whatever it would cost."""
    ends1, ends2 = (graph.edges.cpu().reshape(-1, 2).numpy() for graph in graphs)
    partner = partners(assignment, nodes[1])
    edges = (
        _merged(ends1, np.zeros(len(ends1)), _has_counterpart(ends1, ends2, assignment), assignment),
        _merged(ends2, np.zeros(len(ends2)), _has_counterpart(ends2, ends1, partner), partner),
    )
    return PaidCosts(assignment, nodes, edges, None)


def _chosen(costs: NDArray[np.float64], assignment: NDArray[np.int64]) -> NDArray[np.float64]:
    if costs.size == 0:
        return np.zeros(len(assignment))
    return np.where(assignment >= 0, costs[np.arange(len(assignment)), assignment], 0.0)


def partners(assignment: NDArray[np.int64], nodes: int) -> NDArray[np.int64]:
    """Returns the matching in the other direction."""
    partner = np.full(nodes, -1, dtype=np.int64)
    matched = assignment >= 0
    partner[assignment[matched]] = matched.nonzero()[0]
    return partner


def _has_counterpart(
    ends: NDArray[np.int64], others: NDArray[np.int64], partner: NDArray[np.int64]
) -> NDArray[np.bool_]:
    known = {tuple(sorted(edge)) for edge in others.tolist()}
    images = partner[ends].tolist() if len(ends) else []
    return np.array([tuple(sorted(edge)) in known for edge in images], dtype=bool)


def _merged(
    ends: NDArray[np.int64], costs: NDArray[np.float64], paid: NDArray[np.bool_], partner: NDArray[np.int64]
) -> EdgeCosts:
    """Returns directed edges that may repeat as undirected ones; loops are left out."""
    sums: dict[tuple[int, int], float] = {}
    is_paid: dict[tuple[int, int], bool] = {}
    for (i, j), cost, each in zip(ends.tolist(), costs.tolist(), paid.tolist(), strict=True):
        if i != j:
            edge = (min(i, j), max(i, j))
            sums[edge] = sums.get(edge, 0.0) + cost
            is_paid[edge] = is_paid.get(edge, False) or each
    states = [
        PAID if is_paid[edge] else BROKEN if partner[edge[0]] >= 0 and partner[edge[1]] >= 0 else OPEN for edge in sums
    ]
    return EdgeCosts(np.array(list(sums), dtype=np.int64).reshape(-1, 2), np.array(list(sums.values())), states)
