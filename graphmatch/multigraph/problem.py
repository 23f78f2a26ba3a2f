"""The multi-graph matching problem: quadratic assignment between every two of several graphs, consistent in cycles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from graphmatch import _check
from graphmatch.affinity import cosine_affinity, edge_features
from graphmatch.batch import stack_problems
from graphmatch.graphs import Graph
from graphmatch.problem import LawlerProblem, made_of

_WHERE = "MultiGraphProblem"


@dataclass(frozen=True, eq=False)
class MultiGraphProblem:
    """Matching problems between pairs of m graphs, whose matchings must agree: a -> b -> c never contradicts a -> c.

    objective = sum over the pairs (a, b) of the Lawler objective of X_ab, where X_ab matches the nodes that have the
    same label in a universe of elements; within a graph labels are distinct.

    Args:
        costs: A batch of p problems, one per pair; rows are nodes of the first graph of the pair, columns of the
            second. Its `unmatched_cost` holds for each of them: None = min(n_a, n_b) nodes must be matched, a number =
            the cost of each node of the first graph that is not.
        pairs: (p, 2) int64, two different graphs in [0, m) for each problem, every two graphs at most once; every graph
            is in a pair. Pairs that are left out cost nothing.
        universe_size: Largest number of elements that labels may name; None = as many as there are nodes, or, where
            matchings must be complete, as the largest graph has.

    Attributes:
        node_counts: (m,) int64, nodes of each graph.

    Raises:
        TypeError, ValueError: If an argument breaks the rules above, or a graph has different numbers of nodes.

    Source: P. Swoboda et al., "A convex relaxation for multi-graph matching", CVPR 2019 (partial matchings);
    D. Pachauri, R. Kondor, V. Singh, "Solving the multi-way matching problem by permutation synchronization", NIPS 2013
    (universe).

    Example:
        >>> import torch, graphmatch as gm
        >>> none = torch.zeros(0, 2, dtype=torch.int64)
        >>> costs = gm.LawlerProblem(-torch.eye(2).expand(3, 2, 2), torch.zeros(3, 0, 0), none, none)
        >>> problem = gm.MultiGraphProblem(costs, torch.tensor([[0, 1], [0, 2], [1, 2]]))
        >>> gm.solve_multigraph(problem).objective
        -6.0
    """

    costs: LawlerProblem
    pairs: Tensor
    universe_size: int | None = None

    def __post_init__(self) -> None:
        """Checks everything."""
        if not isinstance(self.costs, LawlerProblem):
            rule, cure = "be a LawlerProblem", "Its batch holds a problem per pair of graphs."
            raise TypeError(_check.message(_WHERE, "costs", rule, _check.describe(self.costs), cure))
        pairs = _check.integer(_WHERE, "pairs", _check.tensor(_WHERE, "pairs", self.pairs, 2, "(p, 2)")).cpu()
        _check.shape(_WHERE, "pairs", pairs, (self.costs.batch_size, 2), "two graphs per problem of the batch")
        _check_pairs(pairs)
        object.__setattr__(self, "pairs", pairs)
        object.__setattr__(self, "node_counts", _node_counts(pairs, self.costs))
        largest = int(self.node_counts.max())
        if self.universe_size is not None:
            rule = f"be at least {largest}, the nodes of the largest graph"
            holds = self.universe_size >= largest
            _check.option(_WHERE, "universe_size", self.universe_size, holds, rule, "None sets no limit.")

    node_counts: Tensor = None  # type: ignore[assignment]  # set above

    @classmethod
    def from_pairs(
        cls, problems: Mapping[tuple[int, int], LawlerProblem], universe_size: int | None = None
    ) -> MultiGraphProblem:
        """Returns the problem of a mapping from pairs of graphs to batches of one, as `gm.io.read_multigraph_dd` reads.

        Args:
            problems: Problems by pairs (a, b) of graph numbers in [0, m); rows are nodes of graph a.
            universe_size: See the class.

        Example:
            >>> import torch, graphmatch as gm
            >>> none = torch.zeros(0, 2, dtype=torch.int64)
            >>> one = gm.LawlerProblem(-torch.eye(2)[None], torch.zeros(1, 0, 0), none, none, unmatched_cost=0.0)
            >>> gm.MultiGraphProblem.from_pairs({(0, 1): one, (1, 2): one}).node_counts
            tensor([2, 2, 2])
        """
        where = f"{_WHERE}.from_pairs"
        if not isinstance(problems, Mapping):
            cure = "Pass {(a, b): problem, ...}."
            raise TypeError(_check.message(where, "problems", "be a mapping", _check.describe(problems), cure))
        for pair, problem in problems.items():
            is_pair = isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(graph, int) for graph in pair)
            if not is_pair or not isinstance(problem, LawlerProblem) or problem.batch_size != 1:
                rule = "map pairs of graph numbers to Lawler problems, a batch of one each"
                received = f"{pair!r}: {_check.describe(problem)}"
                raise TypeError(_check.message(where, "problems", rule, received, "See the example."))
        pairs = torch.tensor(list(problems), dtype=torch.int64).reshape(-1, 2)
        return cls(stack_problems(list(problems.values())), pairs, universe_size)

    @classmethod
    def from_graphs(
        cls,
        graphs: Sequence[Graph],
        edge_weight: float = 0.5,
        unmatched_cost: float | None = None,
        universe_size: int | None = None,
    ) -> MultiGraphProblem:
        """Returns the problem of all pairs of graphs, priced as `BarycenterAlignment` does.

        unary = -cosine of node features, quadratic = -edge_weight * inner product of unit edge features.

        Args:
            graphs: At least two graphs (n, d) with edges (e, 2), features of one length; sizes may differ.
            edge_weight: Weight of the edges.
            unmatched_cost: See the class.
            universe_size: See the class.

        Example:
            >>> import torch, graphmatch as gm
            >>> points = torch.tensor([[0.0, 1], [1, 0], [3, 3], [-2, 1]])
            >>> views = [points, points[[2, 0, 1, 3]], points[[3, 2, 1, 0]]]
            >>> problem = gm.MultiGraphProblem.from_graphs([gm.knn_graph(view, k=2) for view in views])
            >>> gm.solve_multigraph(problem).assignment[0]
            tensor([1, 2, 0, 3])
        """
        where = f"{_WHERE}.from_graphs"
        if len(graphs) < 2 or not all(isinstance(graph, Graph) and graph.nodes.ndim == 2 for graph in graphs):
            received = [_check.describe(getattr(graph, "nodes", graph)) for graph in graphs]
            raise ValueError(_check.message(where, "graphs", "be 2 or more graphs (n, d)", received, "See `Graph`."))
        features = [edge_features(graph.nodes, graph.edges) for graph in graphs]
        problems = {
            (a, b): LawlerProblem(
                -cosine_affinity(graphs[a].nodes, graphs[b].nodes)[None],
                -edge_weight * (features[a] @ features[b].T)[None],
                graphs[a].edges,
                graphs[b].edges,
                unmatched_cost=unmatched_cost,
            )
            for a, b in combinations(range(len(graphs)), 2)
        }
        return cls.from_pairs(problems, universe_size)

    def to_pairs(self) -> dict[tuple[int, int], LawlerProblem]:
        """Returns the problem of each pair by its graphs, a batch of one without padding: the inverse of `from_pairs`.

        Example:
            >>> import torch, graphmatch as gm
            >>> graphs = [gm.complete_graph(torch.rand(nodes, 2)) for nodes in (2, 3)]
            >>> problem = gm.MultiGraphProblem.from_graphs(graphs, unmatched_cost=0.0)
            >>> gm.io.write_multigraph_dd("two.dd", problem.to_pairs())
            >>> gm.MultiGraphProblem.from_pairs(gm.io.read_multigraph_dd("two.dd")).node_counts
            tensor([2, 3])
        """
        costs = self.costs
        problems = {}
        for place, (first, second) in enumerate(self.pairs.tolist()):
            n1, n2, e1, e2 = (
                (*costs.unary_costs.shape[1:], *costs.quadratic_costs.shape[1:])
                if costs.sizes is None
                else costs.sizes[place].tolist()
            )
            problems[first, second] = made_of(
                LawlerProblem,
                unary_costs=costs.unary_costs[place : place + 1, :n1, :n2],
                quadratic_costs=costs.quadratic_costs[place : place + 1, :e1, :e2],
                edges1=costs.edges1[place : place + 1, :e1],
                edges2=costs.edges2[place : place + 1, :e2],
                sizes=None,
                unmatched_cost=costs.unmatched_cost,
            )
        return problems

    @property
    def graph_count(self) -> int:
        """Number of graphs m."""
        return len(self.node_counts)

    @property
    def is_limited(self) -> bool:
        """Whether nodes may lack an element of their own: the universe is limited, or matchings must be complete."""
        return self.universe_size is not None or self.costs.unmatched_cost is None

    @property
    def largest_universe(self) -> int:
        """Number of elements that labels may name at most: `universe_size` or what None stands for."""
        if self.universe_size is not None:
            return self.universe_size
        counts = self.node_counts
        return int(counts.max() if self.costs.unmatched_cost is None else counts.sum())


def _check_pairs(pairs: Tensor) -> None:
    rows = pairs.tolist()
    cure = "Count the graphs from 0."
    if not rows:
        raise ValueError(_check.message(_WHERE, "pairs", "hold at least one pair", "none", "Add a problem."))
    seen: set[tuple[int, int]] = set()
    for first, second in rows:
        if first == second or min(first, second) < 0:
            rule = "hold two different graphs of at least 0 each"
            raise ValueError(_check.message(_WHERE, "pairs", rule, [first, second], cure))
        pair = (min(first, second), max(first, second))
        if pair in seen:
            raise ValueError(_check.message(_WHERE, "pairs", "hold every two graphs once", list(pair), "Drop one."))
        seen.add(pair)
    missing = sorted(set(range(max(map(max, rows)) + 1)) - {graph for row in rows for graph in row})
    if missing:
        rule = "name every graph between 0 and the largest"
        raise ValueError(_check.message(_WHERE, "pairs", rule, f"no pair with graph {missing[0]}", cure))


def _node_counts(pairs: Tensor, costs: LawlerProblem) -> Tensor:
    """Returns the nodes of each graph, or raises where two problems disagree about one."""
    sizes = torch.stack(costs.node_counts(), dim=1).cpu()
    counts = torch.zeros(int(pairs.max()) + 1, dtype=torch.int64)
    counts.scatter_reduce_(0, pairs.flatten(), sizes.flatten(), "amax")
    wrong = (counts[pairs] != sizes).nonzero()
    if len(wrong):
        place, side = wrong[0].tolist()
        graph = int(pairs[place, side])
        rule = f"give graph {graph} the {int(counts[graph])} nodes that it has in other pairs"
        cure = "Rows are nodes of the first graph of the pair, columns of the second."
        raise ValueError(_check.message(_WHERE, f"problem {place}", rule, int(sizes[place, side]), cure))
    return counts
