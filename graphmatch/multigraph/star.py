"""All graphs matched with one: a graph in the centre, or the mean of all others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphmatch import _check, _ops
from graphmatch.multigraph.aggregate import Aggregator
from graphmatch.multigraph.base import check_problem, pair_solver
from graphmatch.multigraph.candidates import cheapest_labels
from graphmatch.multigraph.labels import compact_labels, real_nodes
from graphmatch.multigraph.problem import MultiGraphProblem
from graphmatch.multigraph.result import MultiGraphResult, evaluate_labels
from graphmatch.problem import LinearProblem, unchecked
from graphmatch.result import MatchResult
from graphmatch.solve import solve
from graphmatch.solvers import LAP, DualAscent, Solver

_CENTRES = ("cheapest", "barycenter")


@dataclass(frozen=True)
class Star:
    """Multi-graph method: every graph is matched with a centre, and thereby with every other graph.

    Takes m - 1 quadratic problems instead of m (m - 1) / 2, at the price of the errors of both arms in each matching.
    With "barycenter" rounds follow the star in which all m graphs are matched anew, each with the mean of all others
    (their costs added up, element by element), in one native call; those graphs move whose moves pay together.

    Guarantee: matchings are consistent, and rounds never raise the cost. Pairs that were not solved have no bound
    unless `certify` is set. Pairs that are not in the problem cost nothing: a graph without a pair with the centre is
    left unmatched at first, or matched by unary costs with the others where the universe is limited. Deterministic.

    Args:
        centre: Number of a graph; or "cheapest": of the graphs with most pairs the one whose linear assignments to all
            others, of unary costs alone, cost least, the first of equal ones; or "barycenter", see above.
        rounds: Most rounds of the barycenter; they end when nothing changes.
        solver: Solver of all problems; None = a hasty `Portfolio`.
        max_gap: Relative gap that counts as optimal.
        certify: Bound all pairs by `DualAscent`, in one more native call.

    Example:
        >>> import torch, graphmatch as gm
        >>> points = torch.tensor([[0.0, 1], [1, 0], [3, 3]])
        >>> graphs = [gm.complete_graph(points[order]) for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0])]
        >>> problem = gm.MultiGraphProblem.from_graphs(graphs)
        >>> result = gm.Star().solve(problem)
        >>> result.matching(1, 2), result.lower_bound
        (tensor([1, 0, 2]), -inf)
        >>> gm.Star("barycenter", certify=True).solve(problem).status
        <Status.OPTIMAL: 0>
    """

    centre: int | str = "cheapest"
    rounds: int = 10
    solver: Solver | None = None
    max_gap: float = 1e-6
    certify: bool = False

    def __post_init__(self) -> None:
        """Checks the options."""
        _check.numbers(self)
        is_graph = isinstance(self.centre, int) and not isinstance(self.centre, bool) and self.centre >= 0
        if not is_graph and self.centre not in _CENTRES:
            rule = "be a graph number, 'cheapest' or 'barycenter'"
            raise ValueError(_check.message("Star", "centre", rule, repr(self.centre), "Count the graphs from 0."))
        _check.option("Star", "rounds", self.rounds, self.rounds >= 0, "be at least 0", "0 leaves the star as it is.")
        _check.budget("Star", self.max_gap, None)

    def solve(self, problem: MultiGraphProblem) -> MultiGraphResult:
        """Returns consistent matchings with their cost and a bound."""
        check_problem("Star", problem)
        centre = self._centre(problem)
        arms = (problem.pairs == centre).any(1).nonzero()[:, 0]
        solver = pair_solver() if self.solver is None else self.solver
        matched = _solve_some(problem, arms, solver)
        labels = _star_labels(problem, centre, arms, matched.assignment.cpu())
        labels = cheapest_labels(problem, labels[None])
        objectives = evaluate_labels(problem, labels, torch.get_num_threads())
        if self.centre == "barycenter":
            aggregator = Aggregator(problem)
            for _ in range(self.rounds):
                better = _barycenter_round(aggregator, labels, objectives, solver)
                if better is None:
                    break
                labels, objectives = better
        bounds = torch.full_like(objectives, -torch.inf)
        bounds[arms] = matched.lower_bound.cpu()
        if self.certify:
            bounded = DualAscent(max_gap=self.max_gap, keep_state=False, on_cpu=True).solve(problem.costs)
            bounds = torch.maximum(bounds, bounded.lower_bound.cpu())
        return MultiGraphResult(
            problem, compact_labels(labels), objectives, torch.minimum(bounds, objectives), self.max_gap
        )

    def _centre(self, problem: MultiGraphProblem) -> int:
        if isinstance(self.centre, int):
            graphs = problem.graph_count
            rule = f"be a graph in [0, {graphs})"
            _check.option("Star", "centre", self.centre, self.centre < graphs, rule, "Count the graphs from 0.")
            return self.centre
        costs = problem.costs
        sizes = None if costs.sizes is None else costs.sizes[:, :2]
        linear = solve(LinearProblem(costs.unary_costs, sizes, costs.unmatched_cost), LAP(on_cpu=True)).objective.cpu()
        total = torch.zeros(problem.graph_count, dtype=torch.float64)
        pairs = torch.zeros(problem.graph_count, dtype=torch.int64)
        for side in (0, 1):
            total.index_add_(0, problem.pairs[:, side], linear)
            pairs.index_add_(0, problem.pairs[:, side], torch.ones_like(problem.pairs[:, side]))
        return int(torch.where(pairs == pairs.max(), total, torch.inf).argmin())


def _solve_some(problem: MultiGraphProblem, places: Tensor, solver: Solver) -> MatchResult:
    """Returns some of the pairs solved, in one native call."""
    costs = problem.costs
    device = costs.unary_costs.device
    names = ("unary_costs", "quadratic_costs", "edges1", "edges2", "sizes")
    some = {name: getattr(costs, name) for name in names}
    some = {name: None if value is None else value[places.to(device)] for name, value in some.items()}
    return solve(unchecked(costs, **some), solver)


def _star_labels(problem: MultiGraphProblem, centre: int, arms: Tensor, assignment: Tensor) -> Tensor:
    """Returns the labels (m, n) of matchings with the centre, whose nodes name the elements."""
    graphs, nodes = problem.graph_count, int(problem.node_counts.max())
    labels = torch.full((graphs, nodes), -1)
    labels[centre] = torch.arange(nodes)
    arm, row = (assignment >= 0).nonzero(as_tuple=True)
    column = assignment[arm, row]
    first, second = problem.pairs[arms[arm]].T
    centre_is_first = first == centre
    graph = torch.where(centre_is_first, second, first)
    labels[graph, torch.where(centre_is_first, column, row)] = torch.where(centre_is_first, row, column)
    if not problem.is_limited:
        labels = torch.where(labels >= 0, labels, nodes + torch.arange(graphs * nodes).reshape(graphs, nodes))
    return torch.where(real_nodes(problem.node_counts, nodes), labels, -1)


def _barycenter_round(
    aggregator: Aggregator, labels: Tensor, objectives: Tensor, solver: Solver
) -> tuple[Tensor, Tensor] | None:
    """Returns cheaper labels and what they cost, after all graphs were matched anew with all others; None = none."""
    aggregated = aggregator.aggregate(labels)
    costs = aggregated.costs
    matched = solve(costs, solver)
    tensors = (costs.unary_costs, costs.quadratic_costs, costs.edges1, costs.edges2, costs.sizes, costs.unmatched_cost)
    before = _ops.lawler_objective(*tensors, aggregated.assignment_of(labels), torch.get_num_threads())
    # Moves of single graphs: each is worth its gain while the others stay, several together may be worth less.
    gains = torch.where(matched.objective.isfinite(), before - matched.objective, -torch.inf)
    gains = torch.where(gains.isnan(), torch.inf, gains)
    order = torch.argsort(gains, descending=True, stable=True)
    paying = int((gains > 1e-9 * before.abs()).sum())
    if paying == 0:
        return None
    moved = aggregated.labels_of(matched.assignment)
    candidates = []
    for count in sorted({paying, *(2**power for power in range(paying.bit_length()))}, reverse=True):
        candidate = labels.clone()
        candidate[order[:count]] = moved[order[:count]]
        candidates.append(candidate)
    best = cheapest_labels(aggregator.problem, torch.stack(candidates))
    cost = evaluate_labels(aggregator.problem, best, torch.get_num_threads())
    return (best, cost) if float(cost.sum()) < float(objectives.sum()) else None
