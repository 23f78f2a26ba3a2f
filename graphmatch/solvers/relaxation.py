"""What the baselines that relax a matching to real numbers share: the product with the affinity matrix, and a bound.

The affinity matrix M of a Lawler problem has a row and a column per pair of nodes (i, k). It is symmetric, and
x' M x = -objective(x) for every matching x (unmatched nodes aside): -unary on the diagonal, half of -quadratic[e, f] at
(tail, head) and at (head, tail) of the two edges. It is never formed: M x takes four passes over the quadratic costs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from graphmatch import _check, _ops, _reference
from graphmatch.problem import KoopmansBeckmannProblem, LawlerProblem, Problem, unchecked
from graphmatch.result import MatchResult, Status, matching_matrix
from graphmatch.solvers.base import take_kind
from graphmatch.solvers.call import check_rounding, host_costs, thread_count
from graphmatch.solvers.rounding import best_matching, closed, largest_cost, power_of_two, real_nodes


@dataclass(frozen=True, eq=False)
class Relaxation:
    """A batch of Lawler problems in the form that relaxations work on; padding is zero everywhere.

    Attributes:
        problem: The problem, with costs in float32 or float64.
        allowed: (b, n1, n2) bool, neither forbidden nor padding.
        unary: (b, n1, n2) affinities -cost / scale, those of pairs of loops included; zero where not allowed.
        quadratic: (b, e1, e2) affinities -cost / scale of all other pairs; zero where no matching pays them.
        unmatched: Affinity of an unmatched node, (b,); zero in complete problems.
        scale: (b,) the power of two above the largest |cost|: exact, so that scaled costs get the same matchings.
        largest: (b,) float64, the largest |cost|.
    """

    problem: LawlerProblem
    allowed: Tensor
    unary: Tensor
    quadratic: Tensor
    unmatched: Tensor
    scale: Tensor
    largest: Tensor

    @cached_property
    def _places(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Tails and heads of all edges of graph 1, then of graph 2, as rows of all problems stacked."""
        _, n1, n2 = self.unary.shape
        left, right = real_edges(self.problem)
        tail1, head1 = _stacked(self.problem.edges1, left, n1)
        tail2, head2 = _stacked(self.problem.edges2, right, n2)
        return tail1, head1, tail2, head2

    def product(self, x: Tensor) -> Tensor:
        """Returns M x, (b, n1, n2), of x (b, n1, n2); both are zero where not allowed."""
        tail1, head1, tail2, head2 = self._places
        forwards = _moved(x, self.quadratic, tail1, head1, tail2, head2)
        backwards = _moved(x, self.quadratic, head1, tail1, head2, tail2)
        return torch.where(self.allowed, self.unary * x + 0.5 * (forwards + backwards), 0)

    def non_negative(self) -> Relaxation:
        """Returns affinities without negative ones, for methods that need a non-negative matrix.

        They are raised by the mean where it is negative, unary and quadratic ones apart, and what is still negative
        becomes zero: the bad half of the pairs of assignments is left out rather than told apart.
        """
        return replace(
            self, unary=_raised(self.unary, self.allowed), quadratic=_raised(self.quadratic, _edge_pairs(self.problem))
        )

    def uniform(self) -> Tensor:
        """Returns (b, n1, n2) with equal entries where allowed, of sum 1."""
        return normalised(self.allowed.to(self.unary.dtype))

    def matching(self, where: str, scores: Tensor, on_cpu: bool) -> tuple[Tensor, Tensor]:
        """Returns assignment and status of the highest sum of scores."""
        return best_matching(where, scores, self.allowed, self.problem, on_cpu)

    def value(self, matching: Tensor, product: Tensor) -> Tensor:
        """Returns x' M x and what unmatched nodes add, up to a constant, (b,); `product` is M x."""
        return dot(matching, product) - self.unmatched * matching.flatten(1).sum(1)


def dot(left: Tensor, right: Tensor) -> Tensor:
    """Returns the inner products (b,) of two batches (b, ...)."""
    return (left * right).flatten(1).sum(1)


def normalised(x: Tensor) -> Tensor:
    """Returns x (b, n1, n2), non-negative, divided by its sum; zeros stay."""
    total = x.flatten(1).sum(1)[:, None, None]
    return x / torch.where(total > 0, total, 1)


def fixed_point(
    step: Callable[[Tensor], Tensor], x: Tensor, max_iterations: int, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Returns x (b, n1, n2) after repeated steps, and the number of steps (b,).

    A problem that moves by no more than the tolerance, summed over its entries, is done. Every tenth step looks at that
    and makes the host wait for the device.
    """
    running = torch.ones(len(x), dtype=torch.bool, device=x.device)
    iterations = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    for iteration in range(max_iterations):
        moved = step(x)
        change = (moved - x).abs().flatten(1).sum(1)
        x = torch.where(running[:, None, None], moved, x)
        iterations = iterations + running
        if iteration % 10 == 9:
            running = running & (change > tolerance)
            if not bool(running.any()):
                break
    return x, iterations


def _raised(affinities: Tensor, counted: Tensor) -> Tensor:
    total = affinities.flatten(1).sum(1) / counted.flatten(1).sum(1).clamp(min=1)
    raised = (affinities - total.clamp(max=0)[:, None, None]).clamp(min=0)
    return torch.where(counted, raised, 0)


def real_edges(problem: LawlerProblem) -> tuple[Tensor, Tensor]:
    """Returns (b, e1) and (b, e2) bool: the edges that are not padding."""
    batch, e1, e2 = problem.quadratic_costs.shape
    device = problem.quadratic_costs.device
    sizes = torch.tensor([[0, 0, e1, e2]], device=device).expand(batch, 4) if problem.sizes is None else problem.sizes
    edges1, edges2 = (torch.arange(e, device=device) < sizes[:, place, None] for place, e in ((2, e1), (3, e2)))
    return edges1, edges2


def _edge_pairs(problem: LawlerProblem) -> Tensor:
    """Returns (b, e1, e2) bool: the pairs of real edges between different nodes, in both graphs."""
    left, right = real_edges(problem)
    loops1, loops2 = (edges[..., 0] == edges[..., 1] for edges in (problem.edges1, problem.edges2))
    return (left & ~loops1)[:, :, None] & (right & ~loops2)[:, None, :]


def _without_loops(problem: LawlerProblem, allowed: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Returns the unary costs with those of pairs of loops added, and the quadratic costs of all other pairs.

    Both are zero where no injective map pays them: a loop and an edge that is none are never mapped to each other.
    """
    batch, n1, n2 = allowed.shape
    unary = torch.where(allowed, problem.unary_costs.to(dtype), 0)
    costs = problem.quadratic_costs.to(dtype)
    quadratic = torch.where(_edge_pairs(problem), costs, 0)
    left, right = real_edges(problem)
    loops1, loops2 = (edges[..., 0] == edges[..., 1] for edges in (problem.edges1, problem.edges2))
    if unary.numel() and quadratic.numel():
        loops = torch.where((left & loops1)[:, :, None] & (right & loops2)[:, None, :], costs, 0)
        places1, places2 = _stacked(problem.edges1, left, n1)[0], _stacked(problem.edges2, right, n2)[0]
        rows = _added_rows(loops.flatten(0, 1), places1, batch * n1)
        rows = rows.view(batch, n1, -1).mT.reshape(len(places2), n1)
        unary = unary + _added_rows(rows, places2, batch * n2).view(batch, n2, n1).mT
    return torch.where(allowed, unary, 0), quadratic


def _added_rows(rows: Tensor, places: Tensor, count: int) -> Tensor:
    return rows.new_zeros(count, rows.shape[1]).index_add_(0, places, rows)


def _stacked(edges: Tensor, real: Tensor, nodes: int) -> tuple[Tensor, Tensor]:
    """Returns tails and heads (b e,) of edges (b, e, 2) as rows of b * nodes; padding points at the first row."""
    offsets = torch.arange(len(edges), device=edges.device)[:, None] * nodes
    tail, head = (torch.where(real, edges[..., side], 0) + offsets for side in (0, 1))
    return tail.flatten(), head.flatten()


def _moved(x: Tensor, weights: Tensor, to1: Tensor, from1: Tensor, to2: Tensor, from2: Tensor) -> Tensor:
    """Returns y (b, n1, n2), y[to1_e, to2_f] = sum of weights[e, f] x[from1_e, from2_f] over all pairs of edges.

    One graph after the other and whole rows at a time, in the order of the edges: on the CPU always the same sum.
    """
    batch, n1, n2 = x.shape
    _, e1, e2 = weights.shape
    columns = x.mT.reshape(batch * n2, n1).index_select(0, from2)
    pairs = columns.view(batch, e2, n1).mT.reshape(batch * n1, e2).index_select(0, from1)
    pairs *= weights.reshape(batch * e1, e2)
    rows = x.new_zeros(batch * n1, e2).index_add_(0, to1, pairs)
    rows = rows.view(batch, n1, e2).mT.reshape(batch * e2, n1)
    return x.new_zeros(batch * n2, n1).index_add_(0, to2, rows).view(batch, n2, n1).mT


def relax(problem: LawlerProblem) -> Relaxation:
    """Returns the problem as affinities without units."""
    allowed = real_nodes(problem, problem.unary_costs) & (problem.unary_costs != torch.inf)
    unary, quadratic = _without_loops(problem, allowed, problem.unary_costs.dtype)
    largest = torch.maximum(largest_cost(unary), largest_cost(quadratic)).double()
    largest = largest.clamp(min=abs(problem.unmatched_cost or 0.0))
    scale = power_of_two(largest)
    divisor = scale[:, None, None].to(unary.dtype)
    # As a tensor: PyTorch multiplies numbers with the inverse of a tensor, which the smallest scales do not have.
    unmatched = (torch.full_like(scale, -(problem.unmatched_cost or 0.0)) / scale).to(unary.dtype)
    return Relaxation(problem, allowed, -unary / divisor, -quadratic / divisor, unmatched, scale, largest)


@dataclass(frozen=True, kw_only=True)
class RelaxationSolver(ABC):
    """What the baselines have in common; each of them describes the options."""

    max_iterations: int = 100
    tolerance: float = 1e-4
    max_gap: float = 1e-6
    on_cpu: bool = False

    def __post_init__(self) -> None:
        """Checks the options."""
        _check.numbers(self)
        where = type(self).__name__
        iterations = self.max_iterations
        _check.option(where, "max_iterations", iterations, iterations >= 1, "be at least 1", "100 is plenty.")
        _check.option(where, "tolerance", self.tolerance, 0 <= self.tolerance < 1, "lie in [0, 1)", "Try 1e-6.")
        _check.option(where, "max_gap", self.max_gap, 0 <= self.max_gap < torch.inf, "be at least 0", "Try 1e-6.")

    @abstractmethod
    def matchings(self, relaxation: Relaxation) -> tuple[Tensor, Tensor, Tensor]:
        """Returns assignments (b, n1), statuses and iterations (b,)."""

    def solve(self, problem: Problem) -> MatchResult:
        """Returns matchings and bounds; dense problems are solved as Lawler problems."""
        where = type(self).__name__
        if isinstance(problem, KoopmansBeckmannProblem):
            lawler = problem.to_lawler()
        else:
            lawler = take_kind(where, problem, LawlerProblem, "Use LAP for linear costs.")
        check_rounding(where, lawler.unary_costs.device, self.on_cpu)
        _check.memory(where, _working_bytes(lawler), "Use fewer edges.", lawler.unary_costs.device)
        lawler = unchecked(
            lawler,
            unary_costs=_computable(lawler.unary_costs.detach()),
            quadratic_costs=_computable(lawler.quadratic_costs.detach()),
        )
        with torch.no_grad():
            relaxation = relax(lawler)
            if lawler.unary_costs.numel():
                assignment, status, iterations = self.matchings(relaxation)
            else:
                assignment, status = relaxation.matching(where, relaxation.unary, self.on_cpu)
                iterations = torch.zeros_like(status)
            if lawler.unmatched_cost is not None:
                assignment = _without_losses(relaxation, assignment)
            infeasible = status == int(Status.INFEASIBLE)
            objective = _objective(lawler, assignment).masked_fill(infeasible, torch.inf)
            bound = separate_bound(where, lawler, relaxation.allowed, self.on_cpu)
            bound = torch.minimum(bound, objective).masked_fill(infeasible, torch.inf)
            optimal = closed(objective, bound, relaxation.largest, self.max_gap)
            answer = torch.where(optimal, int(Status.OPTIMAL), int(Status.FEASIBLE))
        answer = answer.masked_fill(infeasible, int(Status.INFEASIBLE))
        return MatchResult(problem, assignment, objective, bound, answer, iterations)


def _working_bytes(problem: LawlerProblem) -> int:
    """Returns an upper limit of the bytes that are needed beside the costs."""
    batch, e1, e2 = problem.quadratic_costs.shape
    _, n1, n2 = problem.unary_costs.shape
    return torch.float64.itemsize * batch * (6 * e1 * e2 + 4 * (n1 * e2 + n2 * e1) + 8 * n1 * n2)


def _computable(costs: Tensor) -> Tensor:
    return costs if costs.dtype in (torch.float32, torch.float64) else costs.float()


def _objective(problem: LawlerProblem, assignment: Tensor) -> Tensor:
    if assignment.device.type != "cpu":
        return _reference.objective(problem, assignment)
    return _ops.lawler_objective(
        problem.unary_costs,
        problem.quadratic_costs,
        problem.edges1,
        problem.edges2,
        problem.sizes,
        problem.unmatched_cost,
        assignment,
        torch.get_num_threads(),
    )


def _without_losses(relaxation: Relaxation, assignment: Tensor) -> Tensor:
    """Returns assignments without the matches that cost more than they save, the costliest of each problem first."""
    like = relaxation.unary
    for _ in range(min(like.shape[1:]) if like.numel() else 0):
        matching = matching_matrix(assignment, like)
        # What the value of x' M x loses with a match: twice its row of M, less the diagonal that counts once.
        gains = 2 * relaxation.product(matching) - like - relaxation.unmatched[:, None, None]
        worst, place = torch.where(matching > 0, gains, torch.inf).amin(2).min(1)
        losing = worst < 0
        if not bool(losing.any()):
            break
        assignment = assignment.scatter(
            1, place[:, None], torch.where(losing, -1, assignment.gather(1, place[:, None])[:, 0])[:, None]
        )
    return assignment


def separate_bound(where: str, problem: LawlerProblem, allowed: Tensor, on_cpu: bool) -> Tensor:
    """Returns a lower bound (b,): one linear assignment where every edge takes its cheapest image on its own.

    If i is matched to k, an edge (i, j) pays at least the least cost among the edges (k, l), or nothing. Half of each
    edge's cost is paid by its tail and half by its head. Evaluated in float64, rounded down.

    Source: P. C. Gilmore, SIAM J. Appl. Math. 10 (1962); E. L. Lawler (1963), without the inner assignments.
    """
    unary, quadratic = _without_loops(problem, allowed, torch.float64)
    batch, n1, n2 = unary.shape
    total, size = torch.zeros_like(unary), unary.abs().sum(2)
    left, right = real_edges(problem)
    if unary.numel() and quadratic.numel():
        merged, tails, heads = _merged_pairs(quadratic, problem.edges2, right, n2)
        sums = quadratic.abs().sum(2).flatten()
        for ends1, ends2 in zip(_stacked(problem.edges1, left, n1), (tails, heads), strict=True):
            least = merged.new_zeros(batch * n2, merged.shape[1])
            least.scatter_reduce_(0, ends2[:, None].expand(merged.shape), merged, "amin")
            rows = least.view(batch, n2, -1).mT.reshape(-1, n2)
            total += total.new_zeros(batch * n1, n2).index_add_(0, ends1, rows).view(batch, n1, n2)
            size += size.new_zeros(batch * n1).index_add_(0, ends1, sums).view(batch, n1)
    terms = (left.sum(1) + right.sum(1) + 4)[:, None, None]  # those of padding add nothing
    costs = unary + 0.5 * total
    costs = costs - terms * torch.finfo(torch.float64).eps * (unary.abs() + size[:, :, None])
    costs = host_costs(where, torch.where(allowed, costs, torch.inf), on_cpu)
    sizes = torch.stack(problem.node_counts(), dim=1).cpu()
    answers = _ops.linear_assignment(costs, sizes, problem.unmatched_cost, thread_count(where, None))
    return answers[2].to(unary.device)


def _merged_pairs(quadratic: Tensor, edges2: Tensor, real: Tensor, nodes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns costs (b e2, e1) with those of equal edges of graph 2 summed, and the ends (b e2,) they belong to.

    What is left over after the sums is zero, and belongs to the first node.
    """
    batch, e1, e2 = quadratic.shape
    codes = torch.where(real, edges2[..., 0] * nodes + edges2[..., 1], 0)
    ordered, order = codes.sort(dim=1, stable=True)
    new = torch.ones_like(ordered)
    new[:, 0] = 0
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    group = new.cumsum(1)
    offsets = torch.arange(batch, device=codes.device)[:, None]
    place = torch.zeros_like(group).scatter(1, order, group) + offsets * e2
    merged = quadratic.new_zeros(batch * e2, e1).index_add_(0, place.flatten(), quadratic.mT.reshape(-1, e1))
    pairs = torch.zeros_like(codes).scatter(1, group, ordered)
    tails, heads = (ends + offsets * nodes for ends in (pairs // nodes, pairs % nodes))
    return merged, tails.flatten(), heads.flatten()
