"""What the baseline solvers share: the affinity matrix as an operator, and the way from scores to a matching."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from graphmatch import _check, _ops, _reference
from graphmatch.problem import KoopmansBeckmannProblem, LawlerProblem, Problem
from graphmatch.result import MatchResult, Status
from graphmatch.solvers.base import take_kind
from graphmatch.solvers.call import thread_count
from graphmatch.solvers.rounding import best_matching, real_nodes


class Affinity:
    """The symmetric matrix M of a batch of problems with x' M x = -objective(x), never formed: x is (b, n1, n2).

    Pairs of assignments that exclude each other are no part of it, neither are padding and forbidden assignments.

    Attributes:
        allowed: (b, n1, n2) bool.
        diagonal: (b, n1, n2) float64.
        lifted: Adds to every pair that fits, and to every assignment, what makes all entries of M at least zero: a
            constant for complete matchings, and what the Perron vector needs.
    """

    def __init__(self, problem: LawlerProblem, lifted: bool) -> None:
        unary = problem.unary_costs.detach().double()
        batch, n1, n2 = unary.shape
        device = unary.device
        self.allowed = real_nodes(problem, unary) & (unary < torch.inf)
        costs, edges1, edges2 = _real_edges(problem)
        loop1, loop2 = (edges[..., 0] == edges[..., 1] for edges in (edges1, edges2))
        both = loop1[:, :, None] & loop2[:, None, :]
        neither = ~loop1[:, :, None] & ~loop2[:, None, :]
        self.pairs = torch.where(neither, -0.5 * costs, 0.0)
        self.tail = (edges1[..., 0], edges2[..., 0])
        self.head = (edges1[..., 1], edges2[..., 1])
        self.diagonal = torch.where(self.allowed, -unary, 0.0)
        loops = _scattered(torch.where(both, -costs, 0.0), self.tail, (n1, n2))
        self.diagonal = torch.where(self.allowed, self.diagonal + loops, 0.0)
        self.lift_pairs = self.lift_diagonal = torch.zeros(batch, 1, 1, dtype=torch.float64, device=device)
        if lifted and unary.numel():
            # Arcs that occur in both directions, or twice, add up: the sum of all copies is a limit.
            copies = torch.maximum(_copies(problem, 1), _copies(problem, 2))
            self.lift_pairs = -2.0 * copies * _lowest(self.pairs)
            self.lift_diagonal = -_lowest(self.diagonal)

    def __call__(self, x: Tensor) -> Tensor:
        """Returns M x, (b, n1, n2)."""
        shape = (x.shape[1], x.shape[2])
        x = torch.where(self.allowed, x, 0.0)
        result = self.diagonal * x + _scattered(self.pairs * _gathered(x, self.head), self.tail, shape)
        result = result + _scattered(self.pairs * _gathered(x, self.tail), self.head, shape)
        rows, columns = x.sum(2, keepdim=True), x.sum(1, keepdim=True)
        result = result + self.lift_pairs * (rows.sum(1, keepdim=True) - rows - columns + x) + self.lift_diagonal * x
        return torch.where(self.allowed, result, 0.0)

    def shares(self, matching: Tensor) -> Tensor:
        """Returns (b, n1): what each matched node pays for itself and for all pairs with it."""
        lifts = self.lift_pairs, self.lift_diagonal
        self.lift_pairs, self.lift_diagonal = (torch.zeros_like(lift) for lift in lifts)
        paid = 2 * self(matching) - self.diagonal * matching
        self.lift_pairs, self.lift_diagonal = lifts
        return -(paid * matching).sum(2)


@dataclass(frozen=True, kw_only=True)
class BaselineSolver(ABC):
    """What the baselines have in common; each of them describes the options."""

    threads: int | None = None
    on_cpu: bool = False

    @abstractmethod
    def _scores(self, affinity: Affinity, problem: LawlerProblem) -> Tensor:
        """Returns how much each assignment is liked, (b, n1, n2) float64 of at least 0."""

    def solve(self, problem: Problem) -> MatchResult:
        """Returns matchings with weak lower bounds; dense problems are solved as Lawler problems."""
        where = type(self).__name__
        if isinstance(problem, KoopmansBeckmannProblem):
            lawler = problem.to_lawler()
        else:
            lawler = take_kind(where, problem, LawlerProblem, "Use LAP for linear costs.")
        device = lawler.unary_costs.device
        if device.type != "cpu" and not self.on_cpu:
            cure = "Set on_cpu=True: the scores stay on the device, their rounding visits the CPU."
            raise ValueError(_check.message(where, "the problem", "be on the CPU", f"device {device}", cure))
        edges = lawler.quadratic_costs.shape
        _check.memory(where, 8 * 8 * edges[0] * edges[1] * edges[2], "Reduce the batch or the number of edges.")
        affinity = Affinity(lawler, lifted=True)
        assignment, status = self._rounded(self._scores(affinity, lawler), affinity, lawler)
        assignment = self._without_losses(assignment, affinity, lawler)
        objective = _reference.objective(lawler, assignment)
        objective = torch.where(status == int(Status.INFEASIBLE), torch.inf, objective)
        bound = torch.minimum(self._bound(lawler), objective)
        closed = (objective <= bound) & (status != int(Status.INFEASIBLE))
        status = torch.where(closed, int(Status.OPTIMAL), status)
        return MatchResult(problem, assignment, objective, bound, status, torch.ones_like(status))

    def _rounded(self, scores: Tensor, affinity: Affinity, problem: LawlerProblem) -> tuple[Tensor, Tensor]:
        """Returns the matching of all nodes, as far as possible, with the largest sum of scores; and a status."""
        where = type(self).__name__
        # A match is always worth more than none, whatever its score.
        worth = 1.0 + _normalised(scores)
        assignment, status = best_matching(where, worth, affinity.allowed, problem, self.on_cpu, self.threads)
        return assignment, torch.where(status == int(Status.OPTIMAL), int(Status.FEASIBLE), status)

    def _linear(self, costs: Tensor, problem: LawlerProblem, unmatched_cost: float | None) -> tuple[Tensor, ...]:
        sizes = None if problem.sizes is None else problem.sizes[:, :2].cpu()
        threads = thread_count(type(self).__name__, self.threads)
        return _ops.linear_assignment(costs.cpu(), sizes, unmatched_cost, threads)

    @staticmethod
    def _without_losses(assignment: Tensor, affinity: Affinity, problem: LawlerProblem) -> Tensor:
        """Frees nodes one by one, the most expensive first, as long as that pays: in partial problems."""
        if problem.unmatched_cost is None or assignment.numel() == 0:
            return assignment
        columns = torch.arange(problem.unary_costs.shape[2], device=assignment.device)
        for _ in range(assignment.shape[1]):
            matching = (assignment[:, :, None] == columns).double()
            saving = torch.where(assignment >= 0, affinity.shares(matching) - problem.unmatched_cost, -torch.inf)
            most, node = saving.max(1)
            loses = most > 0
            if not bool(loses.any()):
                break
            freed = torch.where(loses[:, None], -1, assignment.gather(1, node[:, None]))
            assignment = assignment.scatter(1, node[:, None], freed)
        return assignment

    def _bound(self, problem: LawlerProblem) -> Tensor:
        """Returns (b,) float64: each arc costs at least its cheapest image, for every image of its tail."""
        unary = problem.unary_costs.detach().double()
        batch, n1, n2 = unary.shape
        costs, edges1, edges2 = _real_edges(problem)
        cheapest = torch.zeros(batch, edges1.shape[1], n2, dtype=torch.float64, device=unary.device)
        place = edges2[:, None, :, 0].expand(-1, edges1.shape[1], -1)
        cheapest = cheapest.scatter_reduce(2, place, costs, "amin") * _copies(problem, 2, directed=True)
        tails = edges1[:, :, 0, None].expand(-1, -1, n2)
        least = torch.zeros(batch, n1, n2, dtype=torch.float64, device=unary.device).scatter_add(1, tails, cheapest)
        slack = 1e-14 * (edges1.shape[1] + 2) * cheapest.abs().sum((1, 2))
        bound = self._linear(unary + least, problem, problem.unmatched_cost)[2].to(unary.device)
        return bound - slack


def uniform(allowed: Tensor) -> Tensor:
    """Returns equal shares of the allowed assignments that sum to 1, (b, n1, n2) float64."""
    return unit_sum(allowed.double())


def unit_sum(x: Tensor) -> Tensor:
    """Returns x (b, n1, n2) of at least 0, divided by its sum."""
    total = x.sum(2, keepdim=True).sum(1, keepdim=True)
    return torch.where(total > 0, x / total, 0.0)


def _real_edges(problem: LawlerProblem) -> tuple[Tensor, Tensor, Tensor]:
    """Returns costs (b, e1, e2) float64 and both edge lists; padding costs nothing and points at node 0."""
    costs = problem.quadratic_costs.detach().double()
    real1, real2 = _are_real(problem, 1), _are_real(problem, 2)
    costs = torch.where(real1[:, :, None] & real2[:, None, :], costs, 0.0)
    return costs, torch.where(real1[..., None], problem.edges1, 0), torch.where(real2[..., None], problem.edges2, 0)


def _are_real(problem: LawlerProblem, graph: int) -> Tensor:
    """Returns (b, e) bool: the edges of graph 1 or 2 that are not padding."""
    edges = problem.edges1 if graph == 1 else problem.edges2
    place = torch.arange(edges.shape[1], device=edges.device).expand(edges.shape[:2])
    return (
        torch.ones_like(place, dtype=torch.bool) if problem.sizes is None else place < problem.sizes[:, graph + 1, None]
    )


def _copies(problem: LawlerProblem, graph: int, directed: bool = False) -> Tensor:
    """Returns how often the most frequent pair of nodes of each problem is joined, at least 1, (b, 1, 1)."""
    nodes = problem.unary_costs.shape[graph]
    real = _are_real(problem, graph)
    costs = _real_edges(problem)[0]
    counted = (costs != 0).any(3 - graph)  # edges that never cost anything do not count
    edges = torch.where(real[..., None], problem.edges1 if graph == 1 else problem.edges2, 0)
    first, second = edges[..., 0], edges[..., 1]
    code = first * nodes + second
    if not directed:
        code = torch.minimum(first, second) * nodes + torch.maximum(first, second)
    counts = torch.zeros(len(edges), max(nodes * nodes, 1), dtype=torch.int64, device=edges.device)
    return counts.scatter_add(1, code, (real & counted).long()).amax(1).clamp(min=1)[:, None, None]


def _lowest(values: Tensor) -> Tensor:
    """Returns the lowest entry of each problem, at most 0, (b, 1, 1)."""
    if values.shape[1] * values.shape[2] == 0:
        return values.new_zeros(len(values), 1, 1)
    return values.flatten(1).amin(1).clamp(max=0.0)[:, None, None]


def _normalised(scores: Tensor) -> Tensor:
    """Returns scores divided by their largest of each problem."""
    if scores.numel() == 0:
        return scores
    largest = scores.flatten(1).amax(1)[:, None, None]
    return torch.where(largest > 0, scores / largest, 0.0)


def _gathered(x: Tensor, ends: tuple[Tensor, Tensor]) -> Tensor:
    """Returns x[b, ends1[b, e], ends2[b, f]], (b, e1, e2)."""
    first, second = ends
    lines = x.gather(1, first[:, :, None].expand(-1, -1, x.shape[2]))
    return lines.gather(2, second[:, None, :].expand(-1, first.shape[1], -1))


def _scattered(values: Tensor, ends: tuple[Tensor, Tensor], shape: tuple[int, int]) -> Tensor:
    """Adds values (b, e1, e2) up at [b, ends1[b, e], ends2[b, f]], (b, n1, n2)."""
    first, second = ends
    batch, count1, _ = values.shape
    columns = values.new_zeros(batch, count1, shape[1])
    columns = columns.scatter_add(2, second[:, None, :].expand(-1, count1, -1), values)
    return values.new_zeros(batch, *shape).scatter_add(1, first[:, :, None].expand(-1, -1, shape[1]), columns)
