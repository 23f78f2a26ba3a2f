"""Small problems of several graphs, the true optimum of the smallest, and planted matchings."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import combinations, product

import pytest
import torch
from torch import Tensor

import graphmatch as gm
from graphmatch import _reference


def _make_multigraph(
    seed: int,
    counts: list[int],
    *,
    unmatched_cost: float | None = None,
    universe_size: int | None = None,
    missing: float = 0.0,
    forbidden: float = 0.0,
    edges: int = 4,
    dtype: torch.dtype = torch.float64,
) -> gm.MultiGraphProblem:
    """Random costs and edges, either graph of a pair first; shares of pairs are missing, of unary costs forbidden."""
    generator = torch.Generator().manual_seed(seed)

    def chance(share: float) -> bool:
        return float(torch.rand(1, generator=generator)) < share

    problems = {}
    for a, b in combinations(range(len(counts)), 2):
        if b > a + 1 and chance(missing):
            continue
        first, second = (a, b) if chance(0.5) else (b, a)
        n1, n2 = counts[first], counts[second]
        edges1 = torch.randint(max(n1, 1), (edges if n1 else 0, 2), generator=generator)
        edges2 = torch.randint(max(n2, 1), (edges + 1 if n2 else 0, 2), generator=generator)
        unary = torch.randn(1, n1, n2, generator=generator, dtype=torch.float64)
        unary = unary.masked_fill(torch.rand(unary.shape, generator=generator) < forbidden, torch.inf)
        quadratic = torch.randn(1, len(edges1), len(edges2), generator=generator, dtype=torch.float64)
        problems[first, second] = gm.LawlerProblem(
            unary.to(dtype), quadratic.to(dtype), edges1, edges2, unmatched_cost=unmatched_cost
        )
    return gm.MultiGraphProblem.from_pairs(problems, universe_size)


def _labellings(problem: gm.MultiGraphProblem) -> Iterator[list[list[int]]]:
    """All labels, each way to share elements once."""
    counts = problem.node_counts.tolist()

    def extend(chosen: list[list[int]], used: int) -> Iterator[list[list[int]]]:
        if len(chosen) == len(counts):
            yield chosen
            return
        for image in product(range(-1, used), repeat=counts[len(chosen)]):
            taken = [label for label in image if label >= 0]
            highest = used + image.count(-1)
            if len(set(taken)) < len(taken) or highest > problem.largest_universe:
                continue
            fresh = iter(range(used, highest))
            yield from extend([*chosen, [label if label >= 0 else next(fresh) for label in image]], highest)

    return extend([], 0)


def _pair_costs(problem: gm.MultiGraphProblem, pair: int) -> dict[tuple[int, ...], float]:
    """The cost of every matching of one pair."""
    costs = problem.costs
    n1, n2 = problem.node_counts[problem.pairs[pair]].tolist()
    every = product(range(-1, n2), repeat=n1)
    allowed = [x for x in every if len({k for k in x if k >= 0}) == sum(k >= 0 for k in x)]
    rows = costs.unary_costs.shape[1]
    table = torch.tensor([[*x, *[-1] * (rows - n1)] for x in allowed]).reshape(len(allowed), rows)

    def repeated(value: Tensor) -> Tensor:
        return value[pair].expand(len(allowed), *value.shape[1:])

    tensors = (costs.unary_costs, costs.quadratic_costs, costs.edges1, costs.edges2, costs.sizes)
    views = [None if value is None else repeated(value) for value in tensors]
    values = _reference.objective(gm.LawlerProblem(*views, costs.unmatched_cost), table).tolist()
    least = min(n1, n2) if costs.unmatched_cost is None else 0
    return {x: v if sum(k >= 0 for k in x) >= least else math.inf for x, v in zip(allowed, values, strict=True)}


def _multigraph_optimum(problem: gm.MultiGraphProblem) -> float:
    """The least cost of consistent matchings, by enumeration."""
    tables = [_pair_costs(problem, pair) for pair in range(len(problem.pairs))]
    best = math.inf
    for labels in _labellings(problem):
        total = 0.0
        for (a, b), table in zip(problem.pairs.tolist(), tables, strict=True):
            where = {label: node for node, label in enumerate(labels[b])}
            total += table[tuple(where.get(label, -1) for label in labels[a])]
        best = min(best, total)
    return best


def _planted_matchings(
    seed: int, graphs: int, nodes: int, corrupted: float, missing: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """True labels (m, n), pairs, and the matchings of the pairs, of which a share is random; a share of nodes is -1."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.stack([torch.randperm(nodes, generator=generator) for _ in range(graphs)])
    pairs = torch.combinations(torch.arange(graphs))
    assignment = labels.argsort(1)[pairs[:, 1]].gather(1, labels[pairs[:, 0]])
    for pair in torch.randperm(len(pairs), generator=generator)[: round(corrupted * len(pairs))].tolist():
        assignment[pair] = torch.randperm(nodes, generator=generator)
    assignment[torch.rand(assignment.shape, generator=generator) < missing] = -1
    return labels, pairs, assignment


@pytest.fixture(scope="session")
def make_multigraph() -> Callable[..., gm.MultiGraphProblem]:
    """See `_make_multigraph`."""
    return _make_multigraph


@pytest.fixture(scope="session")
def multigraph_optimum() -> Callable[[gm.MultiGraphProblem], float]:
    """See `_multigraph_optimum`; for three graphs of up to three nodes."""
    return _multigraph_optimum


@pytest.fixture(scope="session")
def planted_matchings() -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """See `_planted_matchings`."""
    return _planted_matchings
