"""Problems of several graphs, labels, cycle consistency and results."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import graphmatch as gm
from graphmatch import _reference
from graphmatch.multigraph.labels import compact_labels, matchings_of_labels, partner_table
from graphmatch.multigraph.result import evaluate_labels, result_of_labels

Make = Callable[..., gm.MultiGraphProblem]
NONE = torch.zeros(0, 2, dtype=torch.int64)


def linear(n1: int, n2: int, unmatched_cost: float | None = None, batch: int = 1) -> gm.LawlerProblem:
    """Problems without edges whose diagonal pays."""
    costs = -torch.eye(n1, n2, dtype=torch.float64).expand(batch, n1, n2)
    empty = torch.zeros(batch, 0, 0, dtype=torch.float64)
    return gm.LawlerProblem(costs, empty, NONE, NONE, unmatched_cost=unmatched_cost)


def test_from_pairs_keeps_order_and_sizes():
    problem = gm.MultiGraphProblem.from_pairs({(2, 0): linear(1, 3), (0, 1): linear(3, 2)})
    assert problem.pairs.tolist() == [[2, 0], [0, 1]]
    assert problem.node_counts.tolist() == [3, 2, 1]
    assert problem.graph_count == 3


@pytest.mark.parametrize(
    ("unmatched_cost", "universe_size", "expected"), [(None, None, 3), (0.0, None, 6), (None, 4, 4), (0.0, 5, 5)]
)
def test_the_largest_universe(unmatched_cost: float | None, universe_size: int | None, expected: int):
    pairs = {(0, 1): linear(3, 2, unmatched_cost), (0, 2): linear(3, 1, unmatched_cost)}
    assert gm.MultiGraphProblem.from_pairs(pairs, universe_size).largest_universe == expected


@pytest.mark.parametrize("edge_weight", [0.5, 2.0])
@pytest.mark.parametrize("unmatched_cost", [None, -0.2])
def test_from_graphs_prices_features_and_edges(edge_weight: float, unmatched_cost: float | None, rng: torch.Generator):
    graphs = [gm.knn_graph(torch.randn(n, 3, generator=rng), k=2) for n in (4, 5, 3)]
    problem = gm.MultiGraphProblem.from_graphs(graphs, edge_weight, unmatched_cost)
    assert problem.pairs.tolist() == [[0, 1], [0, 2], [1, 2]]
    assert problem.costs.unmatched_cost == unmatched_cost
    unary = -gm.cosine_affinity(graphs[1].nodes, graphs[2].nodes)
    torch.testing.assert_close(problem.costs.unary_costs[2, :5, :3], unary)
    features = [gm.edge_features(graph.nodes, graph.edges) for graph in graphs[1:]]
    expected = -edge_weight * features[0] @ features[1].T
    count1, count2 = expected.shape
    torch.testing.assert_close(problem.costs.quadratic_costs[2, :count1, :count2], expected)


@pytest.mark.parametrize(
    ("pairs", "text"),
    [
        ([[0, 1], [1, 0]], r"pairs must hold every two graphs once; got \[0, 1\]"),
        ([[0, 0], [1, 0]], r"pairs must hold two different graphs of at least 0 each; got \[0, 0\]"),
        ([[0, 1], [1, -2]], "pairs must hold two different graphs of at least 0 each"),
        ([[0, 1], [1, 3]], "pairs must name every graph between 0 and the largest; got no pair with graph 2"),
        ([[0, 1]], r"pairs must have shape \(2, 2\)"),
    ],
    ids=str,
)
def test_pairs_are_checked(pairs: list[list[int]], text: str):
    with pytest.raises(ValueError, match=f"^MultiGraphProblem: {text}"):
        gm.MultiGraphProblem(linear(2, 2, batch=2), torch.tensor(pairs))


def test_problems_are_checked():
    with pytest.raises(TypeError, match="costs must be a LawlerProblem; got list"):
        gm.MultiGraphProblem([], torch.tensor([[0, 1]]))
    with pytest.raises(TypeError, match="pairs must be an int64 tensor"):
        gm.MultiGraphProblem(linear(2, 2), torch.tensor([[0.0, 1.0]]))
    with pytest.raises(ValueError, match="pairs must hold at least one pair; got none"):
        gm.MultiGraphProblem(linear(2, 2, batch=0), NONE)
    with pytest.raises(ValueError, match="universe_size must be at least 3, the nodes of the largest graph; got 2"):
        gm.MultiGraphProblem(linear(3, 2), torch.tensor([[0, 1]]), 2)
    with pytest.raises(ValueError, match=r"must give graph 1 the [23] nodes that it has in other pairs; got"):
        gm.MultiGraphProblem.from_pairs({(0, 1): linear(3, 2), (1, 2): linear(3, 2)})
    with pytest.raises(TypeError, match="problems must be a mapping"):
        gm.MultiGraphProblem.from_pairs([linear(2, 2)])
    with pytest.raises(TypeError, match="problems must map pairs of graph numbers to Lawler problems"):
        gm.MultiGraphProblem.from_pairs({(0, 1): linear(2, 2, batch=2)})
    with pytest.raises(ValueError, match="graphs must be 2 or more graphs"):
        gm.MultiGraphProblem.from_graphs([gm.complete_graph(torch.eye(2))])


def test_labels_become_matchings_and_are_renumbered():
    labels = torch.tensor([[4, 2, 9], [9, 4, -1], [7, 5, 2]])
    pairs = torch.tensor([[0, 1], [1, 0], [0, 2], [1, 2]])
    assert matchings_of_labels(labels, pairs).tolist() == [[1, -1, 0], [2, 0, -1], [-1, 2, -1], [-1, -1, -1]]
    assert compact_labels(labels).tolist() == [[0, 1, 2], [2, 0, -1], [3, 4, 1]]
    empty = torch.zeros(2, 0, dtype=torch.int64)
    assert matchings_of_labels(empty, pairs[:1]).shape == (1, 0)
    assert compact_labels(empty).shape == (2, 0)


def test_partners_are_known_in_both_directions():
    table, known = partner_table(torch.tensor([[1, -1]]), torch.tensor([[2, 0]]), torch.tensor([2, 1, 2]))
    assert known.nonzero().tolist() == [[0, 2], [2, 0]]
    assert table[2, 0].tolist() == [1, -1, -1]
    assert table[0, 2].tolist() == [-1, 0, -1]
    assert bool((table[1] == -1).all())


def slow_consistency(assignment: torch.Tensor, pairs: torch.Tensor, counts: list[int]) -> float:
    """Cycle consistency as its definition says it."""
    partner = {}
    for matching, (a, b) in zip(assignment.tolist(), pairs.tolist(), strict=True):
        forward = {i: k for i, k in enumerate(matching) if k >= 0}
        partner[a, b], partner[b, a] = forward, {k: i for i, k in forward.items()}
    confirmed = steps = 0
    for (a, b), first in partner.items():
        for c in range(len(counts)):
            if c in (a, b) or (b, c) not in partner or (a, c) not in partner:
                continue
            for i, k in first.items():
                if k in partner[b, c]:
                    steps += 1
                    confirmed += partner[a, c].get(i, -1) == partner[b, c][k]
    return confirmed / steps if steps else 1.0


@given(seed=st.integers(0, 2**31), counts=st.lists(st.integers(0, 4), min_size=2, max_size=5))
def test_cycle_consistency_counts_confirmed_steps(seed: int, counts: list[int]):
    generator = torch.Generator().manual_seed(seed)
    pairs = torch.combinations(torch.arange(len(counts)))
    pairs = pairs[torch.rand(len(pairs), generator=generator) < 0.8]
    flipped = torch.rand(len(pairs), generator=generator) < 0.5
    pairs = torch.where(flipped[:, None], pairs.flip(1), pairs)
    assignment = torch.full((len(pairs), max(counts)), -1)
    for row, (a, b) in zip(assignment, pairs.tolist(), strict=True):
        size = min(counts[a], counts[b])
        size = int(torch.randint(size + 1, (1,), generator=generator))
        rows = torch.randperm(counts[a], generator=generator)[:size]
        row[rows] = torch.randperm(counts[b], generator=generator)[:size]
    found = gm.cycle_consistency(assignment, pairs, torch.tensor(counts))
    assert found == pytest.approx(slow_consistency(assignment, pairs, counts))


def test_cycle_consistency_checks_its_arguments():
    counts = torch.tensor([2, 2])
    with pytest.raises(TypeError, match="cycle_consistency: assignment must be an int64 tensor"):
        gm.cycle_consistency(torch.zeros(1, 2), torch.tensor([[0, 1]]), counts)
    with pytest.raises(ValueError, match=r"cycle_consistency: pairs must have shape \(1, 2\)"):
        gm.cycle_consistency(torch.zeros(1, 2, dtype=torch.int64), NONE, counts)


@given(
    seed=st.integers(0, 2**31),
    counts=st.lists(st.integers(0, 4), min_size=2, max_size=4),
    unmatched_cost=st.sampled_from([None, 0.0, -0.6]),
)
def test_labels_are_evaluated_as_their_matchings(
    seed: int, counts: list[int], unmatched_cost: float | None, make_multigraph: Make
):
    problem = make_multigraph(seed, counts, unmatched_cost=unmatched_cost, forbidden=0.2, missing=0.3)
    generator = torch.Generator().manual_seed(seed)
    labels = torch.full((len(counts), max(counts)), -1)
    for graph, count in enumerate(counts):
        labels[graph, :count] = torch.randperm(5, generator=generator)[:count]
    result = result_of_labels(problem, labels, 1e-6)
    expected = _reference.objective(problem.costs, result.assignment)
    if unmatched_cost is None:
        matched = (result.assignment >= 0).sum(1)
        expected[matched < problem.node_counts[problem.pairs].amin(1)] = torch.inf
    torch.testing.assert_close(result.pair_objectives, expected)
    assert torch.equal(evaluate_labels(problem, labels), result.pair_objectives)
    assert bool((result.pair_bounds == -torch.inf).all())


def result_with(objectives: list[float], bounds: list[float], max_gap: float = 1e-6) -> gm.MultiGraphResult:
    """A result of two pairs of three graphs with two nodes."""
    problem = gm.MultiGraphProblem(linear(2, 2, batch=2), torch.tensor([[0, 1], [1, 2]]))
    labels = torch.tensor([[0, 1], [1, 0], [0, 1]])
    values = (torch.tensor(numbers, dtype=torch.float64) for numbers in (objectives, bounds))
    return gm.MultiGraphResult(problem, labels, *values, max_gap)


@pytest.mark.parametrize(
    ("objectives", "bounds", "gap", "status"),
    [
        ([-2.0, -2.0], [-2.0, -2.0], 0.0, gm.Status.OPTIMAL),
        ([-2.0, -2.0], [-2.0, -3.0], 0.25, gm.Status.FEASIBLE),
        ([-2.0, -2.0], [-2.0, -math.inf], math.inf, gm.Status.FEASIBLE),
        ([-2.0, -2.0], [-2.0, -2.0 - 1e-7], 2.5e-8, gm.Status.OPTIMAL),
        ([0.0, 0.0], [0.0, 0.0], 0.0, gm.Status.OPTIMAL),
    ],
    ids=str,
)
def test_gaps_and_status(objectives: list[float], bounds: list[float], gap: float, status: gm.Status):
    result = result_with(objectives, bounds)
    assert result.objective == sum(objectives)
    assert result.lower_bound == sum(bounds)
    assert result.gap == pytest.approx(gap, rel=1e-6)
    assert result.status == status


@pytest.mark.parametrize("method", [gm.Best(), gm.AllPairs(), gm.Synchronize()], ids=str)
def test_gaps_near_zero_are_measured_by_the_costs(method: gm.Best | gm.AllPairs | gm.Synchronize):
    costs = torch.tensor([[0.7, 0.3], [0.1, 0.9]]).double()[None]  # no match is worth what it costs
    pair = gm.LawlerProblem(costs, torch.zeros(1, 0, 0).double(), NONE, NONE, unmatched_cost=0.0)
    result = gm.solve_multigraph(gm.MultiGraphProblem.from_pairs({(0, 1): pair, (1, 2): pair, (0, 2): pair}), method)
    assert result.lower_bound < result.objective == 0
    assert result.status == gm.Status.OPTIMAL


def test_a_broken_constraint_is_infeasible():
    result = result_with([math.inf, -1.0], [-2.0, -2.0])
    assert result.status == gm.Status.INFEASIBLE
    assert result.objective == math.inf


def test_matchings_between_any_two_graphs():
    result = result_with([-2.0, -2.0], [-2.0, -2.0])
    assert result.matching(0, 1).tolist() == [1, 0]
    assert result.matching(2, 0).tolist() == [0, 1]  # no pair of the problem
    assert result.universe_size == 2
    assert result.consistency == 1.0
    with pytest.raises(ValueError, match=r"matching: second must be a graph in \[0, 3\); got 3"):
        result.matching(0, 3)
    with pytest.raises(ValueError, match=r"matching: first must be a graph in \[0, 3\); got -1"):
        result.matching(-1, 0)


def test_consistency_before_is_that_of_the_pairs(make_multigraph: Make):
    problem = make_multigraph(0, [4, 4, 4, 4])
    pairwise = gm.solve(problem.costs, gm.BruteForce())
    result = result_of_labels(problem, torch.arange(4).repeat(4, 1), 1e-6, pairwise)
    expected = slow_consistency(pairwise.assignment, problem.pairs, [4] * 4)
    assert result.consistency_before == pytest.approx(expected)
    assert expected < 1
    assert math.isnan(replace(result, pairwise=None).consistency_before)
    torch.testing.assert_close(result.pair_bounds, pairwise.lower_bound)


@given(
    seed=st.integers(0, 2**31),
    counts=st.lists(st.integers(0, 4), min_size=2, max_size=4),
    missing=st.sampled_from([0.0, 0.5]),
)
def test_files_keep_problems(seed: int, counts: list[int], missing: float, make_multigraph: Make, tmp_path_factory):
    problem = make_multigraph(seed, counts, unmatched_cost=0.0, missing=missing)
    path = tmp_path_factory.mktemp("several") / "graphs.dd.xz"
    gm.io.write_multigraph_dd(path, problem.to_pairs())
    back = gm.MultiGraphProblem.from_pairs(gm.io.read_multigraph_dd(path))
    assert torch.equal(back.pairs, problem.pairs)
    assert torch.equal(back.node_counts, problem.node_counts)
    labels = gm.SequentialConstruction().solve(problem).labels
    torch.testing.assert_close(evaluate_labels(back, labels), evaluate_labels(problem, labels))
