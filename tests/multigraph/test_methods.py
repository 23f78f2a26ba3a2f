"""The contract of every multi-graph method: one table of methods, one test per property."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import graphmatch as gm
from graphmatch import _reference

Make = Callable[..., gm.MultiGraphProblem]
Optimum = Callable[[gm.MultiGraphProblem], float]

METHODS: list[gm.MultiGraphMethod] = [
    gm.Star(0),
    gm.Star(),
    gm.Star("barycenter", certify=True),
    gm.AllPairs(),
    gm.Synchronize("cliques"),
    gm.Synchronize("spectral"),
    gm.Synchronize("projected_power"),
    gm.SequentialConstruction(),
    gm.LocalSearch(),
    gm.Best(),
]
every_method = pytest.mark.parametrize("method", METHODS, ids=str)

# What hypothesis varies; the numbers themselves come from the seed.
small_problems = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**31),
        "counts": st.lists(st.integers(0, 5), min_size=2, max_size=5),
        "unmatched_cost": st.sampled_from([None, 0.0, -0.4, 0.7]),
        "universe_size": st.sampled_from([None, 5, 7]),
        "missing": st.sampled_from([0.0, 0.0, 0.5]),
        "dtype": st.sampled_from([torch.float32, torch.float64]),
    }
)
tiny_problems = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**31),
        "counts": st.lists(st.integers(0, 3), min_size=3, max_size=3),
        "unmatched_cost": st.sampled_from([None, 0.0, 0.3]),
        "universe_size": st.sampled_from([None, 3, 4]),
        "missing": st.sampled_from([0.0, 0.5]),
    }
)


def check_result(problem: gm.MultiGraphProblem, result: gm.MultiGraphResult) -> None:
    """What holds for every result with a finite objective."""
    for graph, count in enumerate(problem.node_counts.tolist()):
        labels = result.labels[graph].tolist()
        assert len(set(labels[:count])) == count
        assert all(label >= 0 for label in labels[:count])
        assert labels[count:] == [-1] * (len(labels) - count)
    assert result.universe_size <= problem.largest_universe
    assert result.consistency == 1.0
    recomputed = _reference.objective(problem.costs, result.assignment)
    torch.testing.assert_close(result.pair_objectives, recomputed, rtol=1e-6, atol=1e-6)
    assert result.lower_bound <= result.objective
    matched = (result.assignment >= 0).sum(1)
    smaller = problem.node_counts[problem.pairs].amin(1)
    assert bool((matched <= smaller).all())
    if problem.costs.unmatched_cost is None:
        assert torch.equal(matched, smaller)


@every_method
@given(drawn=small_problems)
def test_results_are_consistent_and_priced_right(method: gm.MultiGraphMethod, drawn: dict, make_multigraph: Make):
    problem = make_multigraph(**drawn)
    check_result(problem, method.solve(problem))


@every_method
@given(drawn=small_problems)
def test_forbidden_costs_are_avoided_where_nodes_may_stay_alone(
    method: gm.MultiGraphMethod, drawn: dict, make_multigraph: Make
):
    partial = {**drawn, "universe_size": None, "unmatched_cost": drawn["unmatched_cost"] or 0.0}
    problem = make_multigraph(**partial, forbidden=0.4)
    result = method.solve(problem)
    assert math.isfinite(result.objective)
    check_result(problem, result)


@every_method
@given(drawn=tiny_problems)
def test_bounds_enclose_the_optimum(
    method: gm.MultiGraphMethod, drawn: dict, make_multigraph: Make, multigraph_optimum: Optimum
):
    problem = make_multigraph(**drawn)
    result = method.solve(problem)
    optimum = multigraph_optimum(problem)
    assert result.lower_bound <= optimum + 1e-6
    assert result.objective >= optimum - 1e-6


@every_method
def test_forbidden_complete_problems_are_solved_or_infeasible(
    method: gm.MultiGraphMethod, make_multigraph: Make, multigraph_optimum: Optimum
):
    solved = 0
    for seed in range(12):
        problem = make_multigraph(seed, [3, 3, 3], forbidden=0.15)
        result, optimum = method.solve(problem), multigraph_optimum(problem)
        assert result.objective >= optimum - 1e-6
        assert (result.status == gm.Status.INFEASIBLE) == math.isinf(result.objective)
        solved += math.isfinite(result.objective)
    assert solved >= 6


@every_method
def test_the_pairs_alone_decide_two_graphs(method: gm.MultiGraphMethod, make_multigraph: Make):
    for seed, unmatched_cost in enumerate([None, 0.0, 0.4]):
        problem = make_multigraph(seed, [4, 3], unmatched_cost=unmatched_cost)
        expected = float(gm.solve(problem.costs, gm.BruteForce()).objective)
        assert method.solve(problem).objective == pytest.approx(expected)


@every_method
def test_views_of_one_graph_are_matched_whatever_their_order(method: gm.MultiGraphMethod, rng: torch.Generator):
    points = torch.randn(7, 3, generator=rng, dtype=torch.float64)
    orders = [torch.randperm(7, generator=rng) for _ in range(4)]
    objectives = []
    for graphs in list(permutations(range(4)))[::6]:
        chosen = [gm.knn_graph(points[orders[graph]], k=2) for graph in graphs]
        result = method.solve(gm.MultiGraphProblem.from_graphs(chosen))
        for a, b in result.problem.pairs.tolist():
            matched = orders[graphs[b]][result.matching(a, b)]
            assert torch.equal(matched, orders[graphs[a]])
        objectives.append(result.objective)
    assert max(objectives) == pytest.approx(min(objectives))


@every_method
def test_the_order_and_direction_of_pairs_do_not_matter(method: gm.MultiGraphMethod, rng: torch.Generator):
    points = torch.randn(6, 3, generator=rng, dtype=torch.float64)
    graphs = [gm.knn_graph(points[torch.randperm(6, generator=rng)], k=2) for _ in range(4)]
    problem = gm.MultiGraphProblem.from_graphs(graphs)
    costs = problem.costs
    turned = gm.LawlerProblem(
        costs.unary_costs.transpose(1, 2).flip(0),
        costs.quadratic_costs.transpose(1, 2).flip(0),
        costs.edges2.flip(0),
        costs.edges1.flip(0),
        None if costs.sizes is None else costs.sizes[:, [1, 0, 3, 2]].flip(0),
    )
    other = gm.MultiGraphProblem(turned, problem.pairs.flip(0, 1))
    one, two = method.solve(problem), method.solve(other)
    assert one.objective == pytest.approx(two.objective)
    assert torch.equal(one.labels, two.labels)


@every_method
@pytest.mark.parametrize("counts", [[0, 0, 0], [0, 2, 0], [1, 1, 1], [1, 0, 3]], ids=str)
@pytest.mark.parametrize("unmatched_cost", [None, 0.5])
def test_empty_graphs_and_single_nodes(
    method: gm.MultiGraphMethod, counts: list[int], unmatched_cost: float | None, make_multigraph: Make
):
    problem = make_multigraph(0, counts, unmatched_cost=unmatched_cost)
    check_result(problem, method.solve(problem))


@every_method
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_every_float_type_is_taken(method: gm.MultiGraphMethod, dtype: torch.dtype, make_multigraph: Make):
    problem = make_multigraph(3, [3, 4, 4], unmatched_cost=0.2, dtype=dtype)
    check_result(problem, method.solve(problem))


@every_method
def test_answers_are_the_same_every_time_and_inputs_stay(method: gm.MultiGraphMethod, make_multigraph: Make):
    problem = make_multigraph(5, [5, 4, 5, 3], unmatched_cost=0.1, missing=0.3)
    before = problem.costs.unary_costs.clone(), problem.costs.quadratic_costs.clone()
    first, second = method.solve(problem), method.solve(problem)
    assert torch.equal(first.labels, second.labels)
    assert first.objective == second.objective
    assert torch.equal(problem.costs.unary_costs, before[0])
    assert torch.equal(problem.costs.quadratic_costs, before[1])


@every_method
def test_padding_is_inert(method: gm.MultiGraphMethod, make_multigraph: Make):
    problem = make_multigraph(7, [3, 5, 4, 2], unmatched_cost=0.2)
    costs = problem.costs
    unary, quadratic = costs.unary_costs.clone(), costs.quadratic_costs.clone()
    for pair, (n1, n2, e1, e2) in enumerate(costs.sizes.tolist()):
        unary[pair, n1:], unary[pair, :, n2:] = torch.nan, torch.nan
        quadratic[pair, e1:], quadratic[pair, :, e2:] = torch.nan, torch.nan
    padded = replace(problem, costs=costs.with_costs(unary, quadratic))
    assert torch.equal(method.solve(problem).labels, method.solve(padded).labels)


@every_method
def test_the_minimal_synchronization_example_is_solved(method: gm.MultiGraphMethod, data_folder):
    path = data_folder / "graph_matching_dd" / "mgm" / "minimal_synchronization_example.dd"
    problem = gm.MultiGraphProblem.from_pairs(gm.io.read_multigraph_dd(path))
    result = method.solve(problem)
    assert result.objective == -6.0
    assert result.labels.tolist() == [[0, 1]] * 3


@every_method
def test_anything_but_a_problem_is_refused(method: gm.MultiGraphMethod):
    with pytest.raises(TypeError, match="problem must be a MultiGraphProblem; got list"):
        method.solve([])
