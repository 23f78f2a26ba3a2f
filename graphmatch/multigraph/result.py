"""What every multi-graph method returns: consistent matchings with their cost, a certified bound and a status."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from graphmatch import _check, _ops
from graphmatch.multigraph.labels import compact_labels, cycle_consistency, matchings_of_labels
from graphmatch.multigraph.problem import MultiGraphProblem
from graphmatch.result import MatchResult, Status
from graphmatch.solvers.relaxation import real_edges
from graphmatch.solvers.rounding import largest_cost, real_nodes


@dataclass(frozen=True, eq=False)
class MultiGraphResult:
    """Matchings between several graphs, consistent in cycles because they follow from labels in a universe.

    Attributes:
        problem: What was solved.
        labels: (m, n) int64, the element of the universe that each node stands for, numbered from 0 in the order of the
            nodes; distinct within a graph; -1 = padding.
        pair_objectives: (p,) float64, cost of the matching of each pair; +inf where it breaks a constraint.
        pair_bounds: (p,) float64, no matching of the pair alone is cheaper; -inf where nothing was proven.
        max_gap: Gap that counts as optimal, relative to |objective| or the largest |cost|, whichever is larger.
        pairwise: The pairs solved each on its own, where the method did that; in general they contradict each other.

    Example:
        >>> import torch, graphmatch as gm
        >>> points = torch.tensor([[0.0, 1], [1, 0], [3, 3]])
        >>> graphs = [gm.complete_graph(points[order]) for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0])]
        >>> result = gm.solve_multigraph(gm.MultiGraphProblem.from_graphs(graphs))
        >>> result.labels
        tensor([[0, 1, 2],
                [2, 1, 0],
                [1, 2, 0]])
        >>> result.matching(1, 2), result.consistency
        (tensor([1, 0, 2]), 1.0)
    """

    problem: MultiGraphProblem
    labels: Tensor
    pair_objectives: Tensor
    pair_bounds: Tensor
    max_gap: float = 1e-6
    pairwise: MatchResult | None = None

    @cached_property
    def assignment(self) -> Tensor:
        """(p, n1) int64, the matching of each pair of the problem; -1 = unmatched or padding."""
        rows = self.problem.costs.unary_costs.shape[1]
        return matchings_of_labels(self.labels, self.problem.pairs)[:, :rows]

    def matching(self, first: int, second: int) -> Tensor:
        """Returns the matching between any two graphs: the node of the second for each node of the first, -1 = none."""
        graphs = self.problem.graph_count
        for name, graph in (("first", first), ("second", second)):
            holds = 0 <= graph < graphs
            _check.option("matching", name, graph, holds, f"be a graph in [0, {graphs})", "Count from 0.")
        matched = matchings_of_labels(self.labels, torch.tensor([[first, second]]))[0]
        return matched[: int(self.problem.node_counts[first])]

    @property
    def objective(self) -> float:
        """Total cost; +inf where a constraint is broken."""
        return float(self.pair_objectives.sum())

    @property
    def lower_bound(self) -> float:
        """No consistent matchings cost less: the sum of the bounds of all pairs; -inf where one is missing."""
        return min(float(self.pair_bounds.sum()), self.objective)

    @property
    def gap(self) -> float:
        """Relative gap (objective - lower_bound) / |objective|; 0 when closed, inf without a bound."""
        difference = self.objective - self.lower_bound
        if not difference > 0:
            return 0.0 if difference == 0 else math.nan
        return difference / max(abs(self.objective), torch.finfo(torch.float64).tiny)

    @property
    def status(self) -> Status:
        """OPTIMAL if the gap is at most `max_gap`; INFEASIBLE where no allowed matchings were found."""
        if not math.isfinite(self.objective):
            return Status.INFEASIBLE
        scale = max(abs(self.objective), self._largest_cost)
        closed = self.objective - self.lower_bound <= self.max_gap * scale
        return Status.OPTIMAL if closed else Status.FEASIBLE

    @cached_property
    def _largest_cost(self) -> float:
        costs = self.problem.costs
        left, right = real_edges(costs)
        allowed = real_nodes(costs, costs.unary_costs) & (costs.unary_costs != torch.inf)
        unary = torch.where(allowed, costs.unary_costs.detach(), 0)
        quadratic = torch.where(left[:, :, None] & right[:, None, :], costs.quadratic_costs.detach(), 0)
        largest = [float(largest_cost(each).max()) for each in (unary, quadratic)]
        return max(abs(costs.unmatched_cost or 0.0), *largest)

    @property
    def universe_size(self) -> int:
        """Number of elements in use."""
        return int(self.labels.max()) + 1 if self.labels.numel() else 0

    @cached_property
    def consistency(self) -> float:
        """Cycle consistency of the matchings, as `cycle_consistency` measures it; 1 by construction."""
        return cycle_consistency(self.assignment, self.problem.pairs, self.problem.node_counts)

    @cached_property
    def consistency_before(self) -> float:
        """Cycle consistency of the pairs solved each on its own; NaN where the method did not solve them."""
        if self.pairwise is None:
            return math.nan
        return cycle_consistency(self.pairwise.assignment.cpu(), self.problem.pairs, self.problem.node_counts)


def evaluate_labels(problem: MultiGraphProblem, labels: Tensor, threads: int = 1) -> Tensor:
    """Returns the objectives (p,) float64 of the matchings that labels (m, n) stand for; +inf where one is not allowed.

    Complete problems do not allow matchings of fewer than min(n_a, n_b) nodes.
    """
    costs = problem.costs
    assignment = matchings_of_labels(labels, problem.pairs)[:, : costs.unary_costs.shape[1]].contiguous()
    host = [tensor.detach().cpu() for tensor in (costs.unary_costs, costs.quadratic_costs)]
    host = [tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float() for tensor in host]
    edges = (costs.edges1.cpu(), costs.edges2.cpu())
    sizes = None if costs.sizes is None else costs.sizes.cpu()
    objective = _ops.lawler_objective(*host, *edges, sizes, costs.unmatched_cost, assignment, threads)
    objective = torch.where(objective.isnan(), torch.inf, objective)
    if costs.unmatched_cost is None:
        needed = problem.node_counts[problem.pairs].amin(1)
        objective = torch.where((assignment >= 0).sum(1) < needed, torch.inf, objective)
    return objective


def result_of_labels(
    problem: MultiGraphProblem,
    labels: Tensor,
    max_gap: float,
    pairwise: MatchResult | None = None,
) -> MultiGraphResult:
    """Returns the result of labels (m, n), however numbered, with the bounds of pairs that were solved alone."""
    labels = compact_labels(labels)
    objectives = evaluate_labels(problem, labels)
    bounds = torch.full_like(objectives, -torch.inf)
    if pairwise is not None:
        bounds = torch.minimum(pairwise.lower_bound.cpu(), objectives)
    return MultiGraphResult(problem, labels, objectives, bounds, max_gap, pairwise)
