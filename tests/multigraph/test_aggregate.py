"""Aggregated problems: their objective changes as the true one does when a graph gets other labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import graphmatch as gm
from graphmatch import _reference
from graphmatch.multigraph.aggregate import AggregatedProblems, Aggregator
from graphmatch.multigraph.candidates import cheapest_labels, settled_labels
from graphmatch.multigraph.labels import matchings_of_labels
from graphmatch.multigraph.result import evaluate_labels

Make = Callable[..., gm.MultiGraphProblem]
problems = {
    "seed": st.integers(0, 2**31),
    "counts": st.lists(st.integers(0, 4), min_size=2, max_size=5),
    "missing": st.sampled_from([0.0, 0.5]),
    "universe_size": st.sampled_from([None, 4, 6]),
}
partial_problems = st.fixed_dictionaries({**problems, "unmatched_cost": st.sampled_from([0.0, 0.7])})
complete_problems = st.fixed_dictionaries({**problems, "unmatched_cost": st.none()})


def random_labels(problem: gm.MultiGraphProblem, seed: int) -> Tensor:
    """Any labels that the universe has; complete problems need not like them."""
    generator = torch.Generator().manual_seed(seed)
    counts = problem.node_counts.tolist()
    labels = torch.full((len(counts), max(counts)), -1)
    for graph, count in enumerate(counts):
        labels[graph, :count] = torch.randperm(problem.largest_universe, generator=generator)[:count]
    return labels


def change(aggregated: AggregatedProblems, graph: int, before: Tensor, after: Tensor) -> float:
    """What the aggregated problem of one graph says about its new labels."""
    costs = aggregated.costs
    tensors = (costs.unary_costs, costs.quadratic_costs, costs.edges1, costs.edges2, costs.sizes)
    one = gm.LawlerProblem(*(tensor[graph : graph + 1] for tensor in tensors), costs.unmatched_cost)
    values = [
        float(_reference.objective(one, aggregated.assignment_of(labels)[graph : graph + 1]))
        for labels in (before, after)
    ]
    return values[1] - values[0]


def matches(problem: gm.MultiGraphProblem, labels: Tensor) -> int:
    """Matched nodes in all pairs."""
    return int((matchings_of_labels(labels, problem.pairs) >= 0).sum())


@given(drawn=partial_problems)
def test_aggregated_costs_change_as_the_true_ones(drawn: dict, make_multigraph: Make):
    problem = make_multigraph(**drawn)
    labels, other = random_labels(problem, 1), random_labels(problem, 2)
    aggregated = Aggregator(problem).aggregate(labels)
    for graph in range(problem.graph_count):
        moved = labels.clone()
        moved[graph] = other[graph]
        true = float((evaluate_labels(problem, moved) - evaluate_labels(problem, labels)).sum())
        assert abs(change(aggregated, graph, labels, moved) - true) < 1e-9


@given(drawn=complete_problems)
def test_rewards_count_the_matches_of_complete_problems(drawn: dict, make_multigraph: Make):
    problem = make_multigraph(**drawn)
    # The same costs without the demand to be complete, so that any labels have a price.
    free = gm.MultiGraphProblem(replace(problem.costs, unmatched_cost=0.0), problem.pairs, problem.largest_universe)
    labels, other = random_labels(problem, 1), random_labels(problem, 2)
    aggregated = Aggregator(problem).aggregate(labels)
    if len(set(problem.node_counts.tolist())) == 1:
        assert not bool(aggregated.rewards.any())
    for graph in range(problem.graph_count):
        moved = labels.clone()
        moved[graph] = other[graph]
        true = float((evaluate_labels(free, moved) - evaluate_labels(free, labels)).sum())
        gained = float(aggregated.rewards[graph]) * (matches(problem, moved) - matches(problem, labels))
        assert abs(change(aggregated, graph, labels, moved) - (true - gained)) < 1e-8


def test_complete_matchings_win_over_any_cost(make_multigraph: Make):
    for seed in range(10):
        problem = make_multigraph(seed, [2, 4, 3, 4])
        labels = settled_labels(problem, random_labels(problem, seed)[None])[0]
        aggregated = Aggregator(problem).aggregate(labels)
        moved = aggregated.labels_of(gm.solve(aggregated.costs, gm.BruteForce()).assignment)
        for graph in range(4):
            one = labels.clone()
            one[graph] = moved[graph]
            before, after = evaluate_labels(problem, labels).sum(), evaluate_labels(problem, one).sum()
            assert float(after) <= float(before) + 1e-9


def test_forbidden_members_forbid_an_element(make_multigraph: Make):
    problem = make_multigraph(4, [3, 3, 3], unmatched_cost=0.0, forbidden=0.4)
    labels = torch.tensor([[0, 1, 2], [0, 1, 3], [0, 2, 3]])
    unary = Aggregator(problem).aggregate(labels).costs.unary_costs
    pairs = {frozenset(pair): place for place, pair in enumerate(problem.pairs.tolist())}
    for graph in range(3):
        for element in range(4):
            for node in range(3):
                expected = False
                for other in set(range(3)) - {graph}:
                    for member in (labels[other] == element).nonzero()[:, 0].tolist():
                        pair = pairs[frozenset((graph, other))]
                        costs = problem.costs.unary_costs[pair]
                        is_first = problem.pairs[pair, 0] == graph
                        expected |= bool(costs[node, member].isinf() if is_first else costs[member, node].isinf())
                assert bool(unary[graph, node, element].isinf()) == expected


@given(drawn=partial_problems)
def test_labels_and_matchings_name_the_same(drawn: dict, make_multigraph: Make):
    problem = make_multigraph(**drawn)
    labels = random_labels(problem, 3)
    aggregated = Aggregator(problem).aggregate(labels)
    assignment = aggregated.assignment_of(labels)
    named = aggregated.labels_of(assignment)
    assert torch.equal(named[assignment >= 0], labels[assignment >= 0])
    assert torch.equal(aggregated.assignment_of(named), assignment)


@given(drawn=partial_problems, share=st.sampled_from([0.0, 0.5]))
def test_looked_up_costs_choose_the_cheapest(drawn: dict, share: float, make_multigraph: Make):
    problem = make_multigraph(**drawn, forbidden=share if drawn["universe_size"] is None else 0.0)
    candidates = torch.stack([random_labels(problem, seed) for seed in range(4)])
    settled = torch.cat([settled_labels(problem, one[None]) for one in candidates])
    direct = torch.stack([evaluate_labels(problem, one).sum() for one in candidates])
    repaired = torch.stack([evaluate_labels(problem, one).sum() for one in settled])
    expected = torch.where(direct.isinf(), repaired, direct).min()
    found = evaluate_labels(problem, cheapest_labels(problem, candidates)).sum()
    assert abs(float(found - expected)) < 1e-9


@pytest.mark.parametrize("unmatched_cost", [None, 0.0])
def test_settled_labels_avoid_forbidden_nodes(unmatched_cost: float | None):
    none = torch.zeros(0, 2, dtype=torch.int64)
    only = torch.full((1, 3, 3), torch.inf)
    only[0, [0, 1, 2], [1, 2, 0]] = 5.0
    one = gm.LawlerProblem(only, torch.zeros(1, 0, 0), none, none, unmatched_cost=unmatched_cost)
    problem = gm.MultiGraphProblem.from_pairs({(0, 1): one}, universe_size=3)
    for wish in ([-1, -1, -1], [0, 1, 2], [2, 0, -1]):
        labels = settled_labels(problem, torch.tensor([[[0, 1, 2], wish]]))
        assert labels.tolist() == [[[0, 1, 2], [2, 0, 1]]]


@given(seed=st.integers(0, 2**31), universe_size=st.sampled_from([4, 6]))
def test_allowed_labels_stay(seed: int, universe_size: int, make_multigraph: Make):
    complete = make_multigraph(seed, [4, 4, 4])
    partial = make_multigraph(seed, [4, 2, 3], unmatched_cost=0.0, universe_size=universe_size)
    for problem in (complete, partial):
        labels = torch.stack([random_labels(problem, seed + variant) for variant in range(3)])
        assert torch.equal(settled_labels(problem, labels), labels)


@given(drawn=complete_problems)
def test_settled_labels_are_complete(drawn: dict, make_multigraph: Make):
    problem = make_multigraph(**drawn)
    candidates = torch.stack([random_labels(problem, seed) for seed in range(3)])
    candidates[0] = -1
    for labels in settled_labels(problem, candidates):
        assert bool(evaluate_labels(problem, labels).isfinite().all())
