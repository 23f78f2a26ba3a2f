"""The native search: construction, local search, and the portfolio that ends when its starts agree."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import graphmatch as gm
from graphmatch import _multigraph_ops
from graphmatch.multigraph.agreement import pair_support, spanning_merges, tree_labels
from graphmatch.multigraph.labels import cycle_consistency, matchings_of_labels

Make = Callable[..., gm.MultiGraphProblem]
Optimum = Callable[[gm.MultiGraphProblem], float]
Planted = Callable[..., tuple[Tensor, Tensor, Tensor]]


def planted_problem(graphs: int, nodes: int, seed: int, noise: float = 0.3) -> tuple[gm.MultiGraphProblem, Tensor]:
    """Shuffled noisy copies of one weighted graph with features, as Koopmans-Beckmann costs; and their true labels."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    joined = torch.rand(nodes, nodes, generator=generator) < 0.4
    weights = (joined * torch.rand(nodes, nodes, generator=generator, dtype=torch.float64)).triu(1)
    features = random(nodes, 8)
    labels = torch.stack([torch.randperm(nodes, generator=generator) for _ in range(graphs)])
    copies = []
    for order in labels:
        noisy = weights + noise * random(nodes, nodes) * (weights > 0)
        noisy = (noisy + noisy.T).abs()[order][:, order]
        copies.append((noisy, torch.nn.functional.normalize(features + random(nodes, 8), dim=1)[order]))
    problems = {}
    for a, b in torch.combinations(torch.arange(graphs)).tolist():
        (weights1, features1), (weights2, features2) = copies[a], copies[b]
        edges1, edges2 = weights1.nonzero(), weights2.nonzero()
        quadratic = -torch.outer(weights1[tuple(edges1.T)], weights2[tuple(edges2.T)])
        problems[a, b] = gm.LawlerProblem(-(features1 @ features2.T)[None], quadratic[None], edges1, edges2)
    return gm.MultiGraphProblem.from_pairs(problems), labels


def objective_of(problem: gm.MultiGraphProblem, labels: Tensor) -> float:
    return gm.LocalSearch(start=labels, sweeps=1).solve(problem).objective


@pytest.mark.parametrize("counts", [[3, 2, 3], [2, 2, 1, 2], [2, 1, 2, 1, 1]], ids=str)
@pytest.mark.parametrize("unmatched_cost", [None, 0.0])
def test_best_finds_the_optimum_of_small_problems(
    counts: list[int], unmatched_cost: float | None, make_multigraph: Make, multigraph_optimum: Optimum
):
    for seed in range(12):
        problem = make_multigraph(seed, counts, unmatched_cost=unmatched_cost)
        assert gm.solve_multigraph(problem).objective == pytest.approx(multigraph_optimum(problem), abs=1e-9)


@pytest.mark.parametrize("graphs", [3, 5, 8])
def test_best_recovers_planted_matchings(graphs: int):
    for seed in range(4):
        problem, labels = planted_problem(graphs, 16, seed)
        result = gm.solve_multigraph(problem)
        planted = matchings_of_labels(labels, problem.pairs)
        assert (result.assignment == planted).double().mean() > 0.97
        assert result.objective <= objective_of(problem, labels) + 1e-9
        assert result.consistency == 1.0


def test_best_finds_the_known_values_of_benchmark_files(data_folder: Path):
    folder = data_folder / "graph_matching_dd" / "mgm"
    known = {
        "minimal_synchronization_example.dd": -6.0,
        "house_instance_1_nNodes_10_nGraphs_8.txt.xz": -147.517154,
        "synthetic_complete_instance_1_nNodes_10_nGraphs_4.txt.xz": -558.47902,
    }
    for name, value in known.items():
        problem = gm.MultiGraphProblem.from_pairs(gm.io.read_multigraph_dd(folder / name))
        result = gm.solve_multigraph(problem)
        assert result.objective == pytest.approx(value, abs=1e-5)
        assert result.lower_bound <= value + 1e-5
        assert result.consistency == 1.0


@given(seed=st.integers(0, 2**31), counts=st.lists(st.integers(1, 5), min_size=2, max_size=5), partial=st.booleans())
def test_local_search_is_never_worse_than_its_start(seed: int, counts: list[int], partial: bool, make_multigraph: Make):
    problem = make_multigraph(seed, counts, unmatched_cost=0.1 if partial else None)
    start = gm.SequentialConstruction(effort=0.01, max_iterations=1)
    begun = start.solve(problem)
    improved = gm.LocalSearch(start=start).solve(problem)
    assert improved.objective <= begun.objective + 1e-9
    again = gm.LocalSearch(start=improved.labels, seed=3).solve(problem)
    assert again.objective <= improved.objective + 1e-9


@pytest.mark.parametrize("method", [gm.SequentialConstruction(), gm.LocalSearch(), gm.Best(seed=5)])
def test_answers_do_not_depend_on_the_number_of_threads(method: gm.MultiGraphMethod):
    problem, _ = planted_problem(5, 10, 1, noise=1.0)
    results = [type(method)(**{**vars(method), "threads": threads}).solve(problem) for threads in (1, 2, 8)]
    for result in results[1:]:
        assert torch.equal(result.labels, results[0].labels)
        assert torch.equal(result.pair_objectives, results[0].pair_objectives)


def test_order_of_construction_counts():
    problem, _ = planted_problem(4, 8, 0, noise=1.5)
    orders = [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]]
    results = [gm.SequentialConstruction(order=order).solve(problem) for order in orders]
    assert len({round(result.objective, 6) for result in results}) > 1
    assert all(result.consistency == 1.0 for result in results)


def test_time_limits_end_the_search():
    problem, _ = planted_problem(10, 24, 0, noise=2.0)
    start = time.monotonic()
    result = gm.Best(time_limit=0.05, starts=10_000, agreement=10_000).solve(problem)
    assert time.monotonic() - start < 20  # a loose limit, for loaded machines: without one it takes minutes
    assert result.consistency == 1.0
    assert result.lower_bound <= result.objective < 0


INTERRUPTED = """
import torch, graphmatch as gm
graphs = [gm.knn_graph(torch.randn(30, 3, generator=torch.Generator().manual_seed(k)), 5) for k in range(8)]
problem = gm.MultiGraphProblem.from_graphs(graphs)
print("started", flush=True)
try:
    gm.Best(starts=100_000, agreement=100_000).solve(problem)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_stops_a_long_search():
    with subprocess.Popen([sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "started\n"
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(timeout=1)
        child.send_signal(signal.SIGINT)
        try:
            output, _ = child.communicate(timeout=30)  # to the end it would take hours
        finally:
            child.kill()
    assert output == "interrupted\n"


def test_proven_answers_are_optimal():
    none = torch.zeros(0, 2, dtype=torch.int64)
    costs = gm.LawlerProblem(-torch.eye(4).expand(6, 4, 4), torch.zeros(6, 0, 0), none, none)
    result = gm.solve_multigraph(gm.MultiGraphProblem(costs, torch.combinations(torch.arange(4))))
    assert result.status == gm.Status.OPTIMAL
    assert result.objective == pytest.approx(-24.0)
    assert result.lower_bound == pytest.approx(-24.0)


def test_no_nodes_and_no_costs(make_multigraph: Make):
    for counts in ([0, 0], [0, 3, 0], [1, 1, 1]):
        for method in (gm.SequentialConstruction(), gm.LocalSearch(), gm.Best()):
            result = method.solve(make_multigraph(0, counts, edges=0))
            assert result.labels.shape == (len(counts), max(counts))
            assert result.objective == pytest.approx(float(result.pair_objectives.sum()))


def test_largest_and_smallest_costs_keep_their_answer():
    problem, _ = planted_problem(4, 6, 2)
    expected = gm.solve_multigraph(problem)
    for factor in (1e-30, 1e30):
        costs = problem.costs.with_costs(factor * problem.costs.unary_costs, factor * problem.costs.quadratic_costs)
        result = gm.solve_multigraph(gm.MultiGraphProblem(costs, problem.pairs))
        assert torch.equal(result.labels, expected.labels)
        assert result.objective == pytest.approx(factor * expected.objective)


def test_supported_pairs_come_first(planted_matchings: Planted):
    labels, pairs, assignment = planted_matchings(0, 8, 12, 0.2)
    none = torch.zeros(0, 2, dtype=torch.int64)
    count = len(pairs)
    costs = gm.LawlerProblem(torch.zeros(count, 12, 12), torch.zeros(count, 0, 0), none, none)
    problem = gm.MultiGraphProblem(costs, pairs)
    support, agree = pair_support(assignment, problem)
    assert not agree
    right = (assignment == matchings_of_labels(labels, pairs)).all(1)
    values = support[pairs[:, 0], pairs[:, 1]]
    assert values[right].min() > values[~right].max()
    tree = spanning_merges(support)
    assert len(tree) == 7
    composed = tree_labels(assignment, problem, tree)
    assert torch.equal(matchings_of_labels(composed, pairs), matchings_of_labels(labels, pairs))
    truth = matchings_of_labels(labels, pairs)
    assert pair_support(truth, problem)[1]
    assert cycle_consistency(truth, pairs, problem.node_counts) == 1.0


def test_trees_of_partial_matchings_give_the_rest_elements_of_its_own(planted_matchings: Planted):
    _, pairs, assignment = planted_matchings(1, 4, 5, 0.0, missing=0.5)
    none = torch.zeros(0, 2, dtype=torch.int64)
    costs = gm.LawlerProblem(torch.zeros(6, 5, 5), torch.zeros(6, 0, 0), none, none, unmatched_cost=0.0)
    for universe_size in (None, 5):
        problem = gm.MultiGraphProblem(costs, pairs, universe_size)
        labels = tree_labels(assignment, problem, spanning_merges(pair_support(assignment, problem)[0]))
        assert all(len(row.unique()) == 5 for row in labels)
        assert int(labels.min()) >= 0
        assert universe_size is None or int(labels.max()) < universe_size


def arguments_of(problem: gm.MultiGraphProblem, labels: Tensor, merges: Tensor, universe: int = 0) -> tuple:
    costs = problem.costs
    tensors = (costs.unary_costs, costs.quadratic_costs, costs.edges1, costs.edges2, costs.sizes)
    graphs = (problem.pairs, problem.node_counts, universe, labels, merges)
    return (*tensors, costs.unmatched_cost, *graphs, 10, 0.05, 5, 0, 2, 2, -1e9, 1e-6, None, 1)


def test_the_operator_passes_the_checks_of_torch(make_multigraph: Make):
    problem = make_multigraph(0, [3, 2, 3], unmatched_cost=0.0)
    merges = torch.tensor([[[0, 1], [0, 2]]] * 2)
    arguments = arguments_of(problem, torch.full((2, 3, 3), -1), merges)
    checked = torch.library.opcheck(_multigraph_ops.multigraph_search, arguments)
    assert set(checked.values()) == {"SUCCESS"}


def test_native_code_refuses_what_would_break_it(make_multigraph: Make):
    problem = make_multigraph(0, [2, 2, 2], unmatched_cost=0.0)
    good, merges = torch.tensor([[[0, 1]] * 3]), torch.zeros(1, 2, 2, dtype=torch.int64)
    wrong = {
        "distinct": torch.tensor([[[0, 0], [0, 1], [0, 1]]]),
        "all must be missing": torch.tensor([[[0, 1], [-1, -1], [0, 1]]]),
        "elements": torch.tensor([[[0, 99], [0, 1], [0, 1]]]),
    }
    for text, labels in wrong.items():
        with pytest.raises(ValueError, match=text):
            _multigraph_ops.multigraph_search(*arguments_of(problem, labels, merges))
    with pytest.raises(ValueError, match="merges must name graphs"):
        _multigraph_ops.multigraph_search(*arguments_of(problem, good, merges + 3))
    with pytest.raises(ValueError, match="fit into the universe"):
        _multigraph_ops.multigraph_search(*arguments_of(problem, good, merges, universe=1))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: gm.Best(starts=0), "Best: starts must be at least 1; got 0"),
        (lambda: gm.Best(agreement=0), "Best: agreement must be at least 1; got 0"),
        (lambda: gm.LocalSearch(sweeps=0), "LocalSearch: sweeps must be at least 1; got 0"),
        (lambda: gm.LocalSearch(effort=0), "LocalSearch: effort must lie in"),
        (lambda: gm.SequentialConstruction(max_iterations=0), "SequentialConstruction: max_iterations must be at"),
        (lambda: gm.Best(time_limit=-1.0), "Best: time_limit must be positive"),
    ],
)
def test_wrong_options_are_refused(make: Callable[[], object], text: str):
    with pytest.raises(ValueError, match=text):
        make()


def test_wrong_starts_and_orders_are_refused(make_multigraph: Make):
    problem = make_multigraph(0, [2, 2, 2])
    with pytest.raises(ValueError, match="order must name each of the 3 graphs once; got"):
        gm.SequentialConstruction(order=[0, 0, 1]).solve(problem)
    cases = {
        "distinct labels": torch.tensor([[0, 0], [0, 1], [0, 1]]),
        "have shape": torch.tensor([[0, 1]]),
        "at most 2 elements": torch.tensor([[0, 1], [2, 1], [0, 1]]),
    }
    for text, start in cases.items():
        with pytest.raises(ValueError, match=text):
            gm.LocalSearch(start=start).solve(problem)
    with pytest.raises(TypeError, match="problem must be a MultiGraphProblem"):
        gm.solve_multigraph(problem.costs)
