"""The distance between structured graphs, by exact quadratic assignment, and the geodesics between them.

Graphs with n nodes, features x and structure C are points of a Euclidean space with the norm

    |G|^2 = (1 - a) / n  sum_i |x_i|^2  +  a / n^2  sum_ij C_ij^2,      a = structure_weight,

and renumbering the nodes moves points without changing distances. The distance of two graphs is that between the sets
of all their numberings:

    d(G, H)^2 = min over permutations p of  (1 - a) / n sum_i |x_i - y_p(i)|^2 + a / n^2 sum_ij (C_ij - D_p(i)p(j))^2

A quotient of a Euclidean space by finitely many isometries is a metric space with geodesics. So for 0 < a < 1 d is
symmetric, zero for graphs that are equal up to numbering and for no others, and satisfies the triangle inequality; the
straight line to the closest numbering is a geodesic. With a = 0 or a = 1, graphs that differ in the other part alone
are at distance zero. All of this holds for optimal matchings only: a matching that is not optimal gives an upper bound.
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
from graphmatch.multigraph.structured import (
    StructuredGraph,
    check_structure_weight,
    squared_distances,
    structured,
    structured_graphs,
)
from graphmatch.problem import LawlerProblem
from graphmatch.result import Status
from graphmatch.solve import solve
from graphmatch.solvers import BranchAndBound, Portfolio, Solver

# Up to this size all pairs of nodes are priced: tighter bounds where features say little, n^4 / 2 numbers.
_FULL_NODES = 24
# Of the squared distance, relative to the largest cost.
_GAP = 1e-9


@dataclass(frozen=True, eq=False)
class SgaDistance:
    """A distance between two graphs and what is known about it; `float(result)` is the distance.

    Attributes:
        distance: 0-d float64, that of the matching found: an upper bound of the distance between the graphs. It is
            differentiable in features and structures, the matching being constant; the gradient at zero is zero.
        lower_bound: The distance is certified to be no smaller.
        matching: (n,) int64, the node of the right graph for each node of the left one.
        status: OPTIMAL if the bounds are closed up to `max_gap`; only then the properties of a metric hold.
    """

    distance: Tensor
    lower_bound: float
    matching: Tensor
    status: Status

    def __float__(self) -> float:
        return float(self.distance.detach())


def sga_distance(
    left: Graph | StructuredGraph,
    right: Graph | StructuredGraph,
    structure_weight: float = 0.5,
    solver: Solver | None = None,
    max_gap: float = 1e-6,
) -> SgaDistance:
    """Returns the structure-graph-alignment distance of two graphs with the same number of nodes.

    d^2 = min over permutations p of (1 - a) mean_i |x_i - y_p(i)|^2 + a mean_ij (C_ij - D_p(i)p(j))^2 with a =
    structure_weight, features x, y and structures C, D; the structure of a `Graph` is its adjacency matrix. For
    optimal matchings and 0 < a < 1 it is a metric on graphs up to numbering; see `graphmatch.multigraph.distance`.

    Args:
        left: n nodes.
        right: n nodes, features of the same length.
        structure_weight: Share a of the structure, in [0, 1]; alpha in the fused Gromov-Wasserstein literature.
        solver: Any solver for Lawler problems. None takes `Portfolio` and, where that leaves a gap, `BranchAndBound`:
            graphs of up to about 12 nodes are proven whatever they are, sparse ones with telling features of 60 nodes
            in milliseconds; what stays open takes some seconds each.
        max_gap: Largest distance - lower_bound that counts as optimal, relative to the distance or the norm of a graph,
            whichever is largest.

    Returns:
        The distance in float64 with a certified lower bound, the matching and a status.

    Raises:
        TypeError, ValueError: If the arguments are no graphs with the same number of nodes, or an option breaks the
            rules above. Graphs of unequal sizes: make them equal with `StructuredGraph.padded` (the distances between
            graphs padded to one size are a metric again), or compare them by `fused_gromov_wasserstein`.

    Source: D. M. H. Nguyen et al., "ExGra-Med", arXiv 2410.02615, section 3 (structured graphs are a geodesic space).

    Example:
        >>> import torch, graphmatch as gm
        >>> points = torch.tensor([[0.0, 1.0], [2.0, 0.0], [3.0, 3.0]])
        >>> path = gm.Graph(points, torch.tensor([[0, 1], [1, 2]]))
        >>> same = gm.Graph(points[[2, 0, 1]], torch.tensor([[1, 2], [2, 0]]))
        >>> result = gm.sga_distance(path, same)
        >>> float(result), result.matching, result.status.name
        (0.0, tensor([1, 2, 0]), 'OPTIMAL')
    """
    return _distances("sga_distance", [(left, right)], structure_weight, solver, max_gap)[0]


def sga_distances(
    pairs: Sequence[tuple[Graph | StructuredGraph, Graph | StructuredGraph]],
    structure_weight: float = 0.5,
    solver: Solver | None = None,
    max_gap: float = 1e-6,
) -> list[SgaDistance]:
    """Returns `sga_distance` of every pair; one call of the solver finds all matchings.

    Args:
        pairs: Pairs of graphs; sizes may differ from pair to pair, not within one.
        structure_weight: See `sga_distance`.
        solver: See `sga_distance`.
        max_gap: See `sga_distance`.

    Raises:
        TypeError, ValueError: As `sga_distance`.

    Example:
        >>> import torch, graphmatch as gm
        >>> points = torch.tensor([[0.0], [1.0], [3.0]])
        >>> graphs = [gm.knn_graph(scale * points, k=1) for scale in (1.0, 1.0, 2.0)]
        >>> [round(float(d), 3) for d in gm.sga_distances([(graphs[0], graphs[1]), (graphs[0], graphs[2])])]
        [0.0, 1.291]
    """
    return _distances("sga_distances", pairs, structure_weight, solver, max_gap)


def geodesic(
    left: Graph | StructuredGraph,
    right: Graph | StructuredGraph,
    t: float = 0.5,
    structure_weight: float = 0.5,
    solver: Solver | None = None,
    matching: Tensor | None = None,
) -> StructuredGraph:
    """Returns the graph at the share t of the way from one graph to another, in the numbering of the left one.

    Features and structure are (1 - t) times those of the left graph plus t times those of the right graph, matched
    optimally. With G_t = geodesic(left, right, t) then d(G_s, G_t) = |s - t| d(left, right) for s, t in [0, 1]; G_0.5
    is the midpoint, and the barycenter of both graphs.

    Args:
        left: n nodes.
        right: n nodes, features of the same length and dtype.
        t: In [0, 1].
        structure_weight: See `sga_distance`.
        solver: See `sga_distance`.
        matching: (n,) int64, `sga_distance(left, right).matching` if it is known: nothing is solved then.

    Raises:
        TypeError, ValueError: As `sga_distance`, and if the matching is no permutation.

    Example:
        >>> import torch, graphmatch as gm
        >>> left = gm.knn_graph(torch.tensor([[0.0], [1.0], [3.0]]), k=1)
        >>> right = gm.knn_graph(torch.tensor([[5.0], [0.0], [1.0]]), k=1)
        >>> middle = gm.geodesic(left, right, 0.5)
        >>> middle.nodes.flatten()
        tensor([0., 1., 4.])
        >>> float(gm.sga_distance(left, middle)), float(gm.sga_distance(left, right))
        (0.40..., 0.81...)
    """
    where = "geodesic"
    _check.number(where, "t", t, "0.5 is the midpoint.")
    _check.option(where, "t", t, 0 <= t <= 1, "lie in [0, 1]", "0.5 is the midpoint.")
    first, second = _equal_sizes(where, (left, right))
    if matching is None:
        matching = _distances(where, [(first, second)], structure_weight, solver, 1.0)[0].matching
    else:
        _check_permutation(where, matching, len(first.nodes))
    nodes, structure = second.nodes[matching], second.structure[matching][:, matching]
    # Not lerp: both ends are exact this way.
    return StructuredGraph((1 - t) * first.nodes + t * nodes, (1 - t) * first.structure + t * structure)


def _check_permutation(where: str, matching: object, count: int) -> None:
    values = _check.integer(where, "matching", _check.tensor(where, "matching", matching, 1, "(n,)"))
    _check.shape(where, "matching", values, (count,), "a node of the right graph per node of the left one")
    if not torch.equal(values.sort().values, torch.arange(count, device=values.device)):
        rule = f"be a permutation of 0 to {count - 1}"
        raise ValueError(_check.message(where, "matching", rule, values.tolist(), "Take that of sga_distance."))


def _equal_sizes(where: str, pair: object) -> list[StructuredGraph]:
    if not isinstance(pair, Sequence) or len(pair) != 2:
        received = type(pair).__name__
        raise TypeError(_check.message(where, "pairs", "be pairs of graphs", received, "Pass [(left, right), ...]."))
    structured(where, "left", pair[0])
    structured(where, "right", pair[1])
    graphs = structured_graphs(where, pair)
    sizes = [len(graph.nodes) for graph in graphs]
    if sizes[0] != sizes[1]:
        cure = "Pad the smaller one with StructuredGraph.padded, or use fused_gromov_wasserstein."
        raise ValueError(_check.message(where, "graphs", "have the same number of nodes", sizes, cure))
    return graphs


def _distances(
    where: str, pairs: Sequence[object], structure_weight: float, solver: Solver | None, max_gap: float
) -> list[SgaDistance]:
    check_structure_weight(where, structure_weight)
    _check.number(where, "max_gap", max_gap, "1e-6 is the default.")
    _check.option(where, "max_gap", max_gap, max_gap >= 0, "be at least 0", "1e-6 is the default.")
    graphs = [_equal_sizes(where, pair) for pair in pairs]
    if not graphs:
        return []
    sizes = [len(left.nodes) for left, _ in graphs]
    parts = [alignment_costs(left, right, structure_weight, len(left.nodes)) for left, right in graphs]
    assignment, bounds = _solved([problem for problem, _ in parts], solver)
    results = []
    for place, ((left, right), size) in enumerate(zip(graphs, sizes, strict=True)):
        matching = assignment[place, :size]
        square = aligned_square(left, right, matching, structure_weight, size)
        distance = torch.where(square > 0, torch.where(square > 0, square, 1.0).sqrt(), 0.0)
        value = float(distance.detach())
        lower_bound = min(max(float(bounds[place]) + parts[place][1], 0.0) ** 0.5, value)
        scale = max(value, _norm(left, structure_weight), _norm(right, structure_weight))
        closed = value - lower_bound <= max_gap * scale
        results.append(SgaDistance(distance, lower_bound, matching, Status.OPTIMAL if closed else Status.FEASIBLE))
    return results


def _solved(problems: list[LawlerProblem], solver: Solver | None) -> tuple[Tensor, Tensor]:
    """Returns assignments (b, n) and lower bounds (b,); without a solver, those of the portfolio and of a search."""
    if solver is not None:
        answers = solve(stack_problems(problems), solver)
        return answers.assignment, answers.lower_bound
    answers = solve(stack_problems(problems), Portfolio(max_gap=_GAP, keep_state=False, on_cpu=True))
    assignment, bounds = answers.assignment, answers.lower_bound
    unproven = (answers.status != int(Status.OPTIMAL)).nonzero()[:, 0]
    if len(unproven):
        batch = stack_problems([problems[place] for place in unproven.tolist()])
        search = solve(batch, BranchAndBound(max_gap=_GAP, keep_state=False, on_cpu=True))
        found = pad(search.assignment, (0, assignment.shape[1] - search.assignment.shape[1]), value=-1)
        better = search.objective < answers.objective[unproven]
        assignment[unproven] = torch.where(better[:, None], found, assignment[unproven])
        bounds[unproven] = torch.maximum(search.lower_bound, bounds[unproven])
    return assignment, bounds


def _norm(graph: StructuredGraph, structure_weight: float) -> float:
    size = max(len(graph.nodes), 1)
    nodes = float(graph.nodes.detach().double().square().sum()) / size
    structure = float(graph.structure.detach().double().square().sum()) / size**2
    return ((1 - structure_weight) * nodes + structure_weight * structure) ** 0.5


def aligned_square(
    left: StructuredGraph, right: StructuredGraph, matching: Tensor, structure_weight: float, size: int
) -> Tensor:
    """Returns the squared distance along a matching, 0-d float64, with sums divided by `size` and its square.

    Args:
        left: n1 nodes.
        right: n2 nodes.
        matching: (n1,) int64, -1 = unmatched: the node and its pairs do not count.
        structure_weight: In [0, 1].
        size: What makes the sums means.
    """
    rows = (matching >= 0).nonzero()[:, 0]
    columns = matching[rows]
    nodes = (left.nodes[rows].double() - right.nodes[columns].double()).square().sum()
    first, second = left.structure[rows][:, rows], right.structure[columns][:, columns]
    pairs = (first.double() - second.double()).square().sum()
    size = max(size, 1)
    return (1 - structure_weight) / size * nodes + structure_weight / size**2 * pairs


def alignment_costs(
    left: StructuredGraph, right: StructuredGraph, structure_weight: float, size: int
) -> tuple[LawlerProblem, float]:
    """Returns the problem whose objective plus the constant is `aligned_square`, a batch of one in float64.

    Args:
        left: n1 nodes.
        right: n2 nodes.
        structure_weight: In [0, 1].
        size: What makes the sums means.

    Small graphs and those of unequal sizes price all pairs of nodes by (C - D)^2, n1^2 n2^2 / 2 costs. Others price the
    pairs with an entry in both structures by -2 C D: the other terms are constant when all nodes are matched.
    """
    full = len(left.nodes) != len(right.nodes) or len(left.nodes) <= _FULL_NODES
    size = max(size, 1)
    share, pair_share = (1 - structure_weight) / size, structure_weight / size**2
    features = [graph.nodes.detach().double() for graph in (left, right)]
    first, second = (graph.structure.detach().double() for graph in (left, right))
    own = (first.diagonal()[:, None] - second.diagonal()).square()
    unary = share * squared_distances(*features) + pair_share * own
    # Edges of the left graph stand for both directions, so they come once.
    edges1, edges2 = _pairs(first, full).triu(1).nonzero(), _pairs(second, full).nonzero()
    count = len(edges1) * len(edges2)
    _check.memory("the distance", 3 * 8 * count, "Use smaller graphs or structures with fewer entries.")
    there = [structure[edges[:, 0], edges[:, 1]] for structure, edges in ((first, edges1), (second, edges2))]
    back = [structure[edges[:, 1], edges[:, 0]] for structure, edges in ((first, edges1), (second, edges2))]
    if full:
        quadratic = (there[0][:, None] - there[1]).square() + (back[0][:, None] - back[1]).square()
        constant = 0.0
    else:
        quadratic = -2 * (there[0][:, None] * there[1] + back[0][:, None] * back[1])
        squares = first.square().sum() + second.square().sum()
        own_squares = first.diagonal().square().sum() + second.diagonal().square().sum()
        constant = pair_share * float(squares - own_squares)
        # Rounded down: it is a part of a lower bound.
        constant -= float(squares) * pair_share * 4 * size * torch.finfo(torch.float64).eps
    return LawlerProblem(unary[None], pair_share * quadratic[None], edges1, edges2), constant


def _pairs(structure: Tensor, every: bool) -> Tensor:
    """Returns (n, n) bool: different nodes, all pairs or those with an entry in either direction."""
    different = ~torch.eye(len(structure), dtype=torch.bool, device=structure.device)
    return different if every else different & ((structure != 0) | (structure != 0).T)
