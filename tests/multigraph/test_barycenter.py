"""Barycenters: the closed form for known correspondences, and the alternation for unknown ones."""

from __future__ import annotations

from itertools import pairwise, permutations, product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import graphmatch as gm
from graphmatch.multigraph.distance import aligned_square

ERROR_FORM = r"^\S.*: .+ must .+; got .+\. \S.*\.$"
EXACT = gm.BruteForce()


def generator_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_graph(size: int, seed: int, dim: int = 2) -> gm.StructuredGraph:
    generator = generator_of(seed)
    nodes = torch.randn(size, dim, generator=generator, dtype=torch.float64)
    return gm.StructuredGraph(nodes, torch.randn(size, size, generator=generator, dtype=torch.float64))


def part(graph: gm.StructuredGraph, order: Tensor) -> gm.StructuredGraph:
    return gm.StructuredGraph(graph.nodes[order], graph.structure[order][:, order])


def noisy_part(graph: gm.StructuredGraph, order: Tensor, noise: float, seed: int) -> gm.StructuredGraph:
    generator = generator_of(seed)
    chosen = part(graph, order)
    nodes, structure = (
        values + noise * torch.randn(values.shape, generator=generator, dtype=values.dtype)
        for values in (chosen.nodes, chosen.structure)
    )
    return gm.StructuredGraph(nodes, structure)


def copies(graph: gm.StructuredGraph, count: int, noise: float, sizes: list[int] | None = None):
    """Noisy copies in random numberings, some with fewer nodes, and the nodes of the graph that theirs are."""
    size = len(graph.nodes)
    orders = [torch.randperm(size, generator=generator_of(10 + seed)) for seed in range(count)]
    if sizes is not None:
        orders = [order[:kept] for order, kept in zip(orders, sizes, strict=True)]
    return [noisy_part(graph, order, noise, seed) for seed, order in enumerate(orders)], orders


def padded(rows: list[Tensor]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)


def objective(graphs, barycenter, weights, structure_weight: float = 0.5) -> float:
    distances = gm.sga_distances([(graph, barycenter) for graph in graphs], structure_weight, EXACT)
    return sum(weight * float(d) ** 2 for weight, d in zip(weights, distances, strict=True))


def test_nodes_are_means_as_in_exgra_med():
    views = [torch.randn(7, 5, generator=generator_of(seed)) for seed in range(3)]
    mean = gm.barycenter_graph([gm.knn_graph(view, k=2) for view in views])
    assert torch.allclose(mean.nodes, torch.stack(views).mean(0), atol=1e-6)
    union = {tuple(edge) for view in views for edge in gm.knn_graph(view, k=2).edges.tolist()}
    assert {tuple(edge) for edge in mean.to_graph().edges.tolist()} == union


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 5))
def test_closed_form_by_matrices(seed: int, count: int, size: int):
    """C = sum_s w_s P_s' C_s P_s, X = sum_s w_s P_s' X_s for any weights and numberings."""
    graphs = [random_graph(size, seed + place) for place in range(count)]
    labels = torch.stack([torch.randperm(size, generator=generator_of(seed + place)) for place in range(count)])
    weights = torch.rand(count, generator=generator_of(seed), dtype=torch.float64) + 0.1
    matrices = [torch.eye(size, dtype=torch.float64)[row] for row in labels]
    shares = weights / weights.sum()
    mean = gm.barycenter_graph(graphs, labels, weights)
    nodes = sum(w * P.T @ g.nodes for w, P, g in zip(shares, matrices, graphs, strict=True))
    structure = sum(w * P.T @ g.structure @ P for w, P, g in zip(shares, matrices, graphs, strict=True))
    torch.testing.assert_close(mean.nodes, nodes)
    torch.testing.assert_close(mean.structure, structure)


def test_absent_elements_are_averaged_over_the_others():
    first = gm.StructuredGraph(torch.tensor([[1.0], [2.0], [9.0]]), torch.tensor([[0.0, 4, 5], [6, 0, 5], [5, 5, 5]]))
    second = gm.StructuredGraph(torch.tensor([[8.0], [5.0]]), torch.tensor([[1.0, 2.0], [3.0, 0.0]]))
    # Node 2 of the first graph is left out; element 1 is in both graphs, 0 and 2 in one.
    labels = torch.tensor([[0, 1, -1], [2, 1, -1]])
    mean = gm.barycenter_graph([first, second], labels, [3.0, 1.0])
    assert mean.nodes.flatten().tolist() == [1.0, (3 * 2 + 5) / 4, 8.0]
    assert mean.structure.tolist() == [[0.0, 4.0, 0.0], [6.0, 0.0, 3.0], [0.0, 2.0, 1.0]]


def test_labels_of_a_multigraph_result_are_correspondences():
    points = torch.randn(5, 3, generator=generator_of(1))
    orders = [torch.tensor([0, 1, 2, 3, 4]), torch.tensor([3, 1, 0, 4, 2])]
    graphs = [gm.knn_graph(points[order], k=2) for order in orders]
    mean = gm.barycenter_graph(graphs, torch.stack(orders))
    assert torch.equal(mean.nodes, points)
    # Wider than the largest graph is fine.
    wide = torch.nn.functional.pad(torch.stack(orders), (0, 2), value=-1)
    assert torch.equal(gm.barycenter_graph(graphs, wide).structure, mean.structure)


def test_all_weight_on_one_graph_returns_it():
    graphs = [random_graph(4, seed) for seed in range(3)]
    mean = gm.barycenter_graph(graphs, weights=[0.0, 2.0, 0.0])
    assert torch.equal(mean.nodes, graphs[1].nodes)
    assert torch.equal(mean.structure, graphs[1].structure)
    estimate = gm.estimate_barycenter(graphs, weights=[0.0, 1.0, 0.0])
    assert float(gm.sga_distance(estimate.barycenter, graphs[1])) < 1e-9
    assert estimate.objective < 1e-15
    assert estimate.converged


@given(st.integers(0, 10**6))
def test_barycenter_of_two_graphs_is_the_midpoint(seed: int):
    left, right = random_graph(4, seed), random_graph(4, seed + 1)
    found = gm.sga_distance(left, right, solver=EXACT)
    middle = gm.geodesic(left, right, 0.5, matching=found.matching)
    labels = torch.stack([torch.arange(4), found.matching.argsort()])
    mean = gm.barycenter_graph([left, right], labels)
    torch.testing.assert_close(mean.nodes, middle.nodes)
    torch.testing.assert_close(mean.structure, middle.structure)
    estimate = gm.estimate_barycenter([left, right], solver=EXACT)
    # From one end the first mean is the midpoint.
    assert estimate.objective == pytest.approx(float(found) ** 2 / 4, rel=1e-9)
    assert float(gm.sga_distance(estimate.barycenter, middle)) < 1e-6


@given(st.integers(0, 10**6), st.sampled_from([0.2, 0.5, 0.8]))
def test_barycenter_minimises_the_squared_distances(seed: int, structure_weight: float):
    weights = [0.5, 0.3, 0.2]
    graphs = [random_graph(4, seed + place) for place in range(3)]
    estimate = gm.estimate_barycenter(graphs, None, weights, structure_weight, EXACT)
    least = objective(graphs, estimate.barycenter, weights, structure_weight)
    assert least == pytest.approx(estimate.objective, rel=1e-9)
    for trial in range(5):
        other = noisy_part(estimate.barycenter, torch.arange(4), 0.1 * 0.3**trial, seed + trial)
        assert objective(graphs, other, weights, structure_weight) > least
    for graph in graphs:
        assert objective(graphs, graph, weights, structure_weight) > least


@pytest.mark.parametrize("seed", range(4))
def test_planted_graph_is_recovered(seed: int):
    planted = random_graph(9, 100 + seed, dim=3)
    graphs, orders = copies(planted, 8, 0.1)
    estimate = gm.estimate_barycenter(graphs)
    assert estimate.converged
    # All correspondences are right: labels and orders differ by one renumbering.
    renumbering = estimate.labels[0][orders[0].argsort()]
    for row, order in zip(estimate.labels, orders, strict=True):
        assert torch.equal(row, renumbering[order])
    # The noise of the mean is 0.1 / sqrt(8), that of a copy 0.1.
    found = part(estimate.barycenter, renumbering)
    assert float(aligned_square(found, planted, torch.arange(9), 0.0, 9)) ** 0.5 < 1.6 * 0.1 * (3 / 8) ** 0.5
    error = float(gm.sga_distance(estimate.barycenter, planted))
    assert error < 0.5 * min(float(d) for d in gm.sga_distances([(graph, planted) for graph in graphs]))


def test_planted_graph_is_recovered_from_parts():
    planted = random_graph(8, 3, dim=3)
    graphs, orders = copies(planted, 7, 0.05, [8, 5, 6, 8, 7, 6, 5])
    estimate = gm.estimate_barycenter(graphs)
    renumbering = estimate.labels[0][orders[0].argsort()]
    assert torch.equal(estimate.labels, padded([renumbering[order] for order in orders]))
    assert float(gm.sga_distance(estimate.barycenter, planted)) < 0.06
    mean = gm.barycenter_graph(graphs, estimate.labels)
    assert torch.equal(mean.nodes, estimate.barycenter.nodes)
    assert torch.equal(mean.structure, estimate.barycenter.structure)


def test_smaller_barycenters_leave_nodes_out():
    planted = random_graph(6, 5, dim=3)
    # The core is in all graphs, each has nodes of its own.
    graphs = []
    for seed in range(4):
        own = random_graph(8, 50 + seed, dim=3)
        nodes, structure = 3 * own.nodes, own.structure.clone()
        nodes[:6], structure[:6, :6] = planted.nodes, planted.structure
        graphs.append(part(gm.StructuredGraph(nodes, structure), torch.randperm(8, generator=generator_of(seed))))
    estimate = gm.estimate_barycenter(graphs, size=6, starts=4)
    assert estimate.labels.shape == (4, 8)
    assert (estimate.labels >= 0).sum(1).tolist() == [6] * 4
    assert list(estimate.objective_history) == sorted(estimate.objective_history, reverse=True)
    squares = [
        aligned_square(g, estimate.barycenter, row, 0.5, 6) for g, row in zip(graphs, estimate.labels, strict=True)
    ]
    assert estimate.objective == pytest.approx(float(torch.stack(squares).mean()))


@given(st.integers(0, 10**6), st.integers(2, 5))
def test_objective_never_rises(seed: int, count: int):
    sizes = [3 + (seed + place) % 4 for place in range(count)]
    graphs = [random_graph(size, seed + place) for place, size in enumerate(sizes)]
    estimate = gm.estimate_barycenter(graphs, starts=1, seed=seed)
    history = list(estimate.objective_history)
    assert estimate.converged
    assert all(after <= before for before, after in pairwise(history))
    for row, size in zip(estimate.labels, sizes, strict=True):
        assert row[:size].sort().values.unique().tolist() == row[:size].sort().values.tolist()
        assert (row[size:] == -1).all()
        assert row[:size].min() >= 0


def test_equal_seeds_equal_answers_and_more_starts_no_worse():
    graphs = [random_graph(6, seed) for seed in range(5)]
    first, second = (gm.estimate_barycenter(graphs, size=5, seed=3) for _ in range(2))
    assert torch.equal(first.labels, second.labels)
    assert first.objective_history == second.objective_history
    one, all_of_them = (gm.estimate_barycenter(graphs, starts=starts) for starts in (1, 9))
    assert all_of_them.objective <= one.objective
    assert torch.equal(one.labels, gm.estimate_barycenter(graphs, starts=1).labels)


def test_limit_of_iterations():
    graphs = [gm.knn_graph(graph.nodes, k=4) for graph in copies(random_graph(16, 1, dim=3), 8, 0.6)[0]]
    whole = gm.estimate_barycenter(graphs, starts=1)
    length = len(whole.objective_history)
    assert length > 1
    cut = gm.estimate_barycenter(graphs, starts=1, max_iterations=length - 1)
    assert cut.objective_history == whole.objective_history[:-1]
    assert whole.converged
    assert not cut.converged


def test_most_estimates_are_global_minima():
    orders = [torch.tensor(order) for order in permutations(range(3))]
    reached = 0
    for seed in range(20):
        graphs = [random_graph(3, 1000 * seed + place) for place in range(3)]
        least = torch.inf
        for pair in product(orders, orders):
            labels = torch.stack([torch.arange(3), *pair])
            mean = gm.barycenter_graph(graphs, labels)
            squares = [aligned_square(g, mean, row, 0.5, 3) for g, row in zip(graphs, labels, strict=True)]
            least = min(least, float(torch.stack(squares).mean()))
        found = gm.estimate_barycenter(graphs).objective
        assert found > least * (1 - 1e-9)
        reached += found < least * (1 + 1e-9)
    assert reached >= 16


def test_gradients_of_the_closed_form():
    labels = torch.tensor([[0, 1, 2], [2, 0, -1]])
    graphs = [random_graph(3, 0), random_graph(2, 1)]

    def mean(*values: Tensor) -> tuple[Tensor, Tensor]:
        made = [
            gm.StructuredGraph(nodes, structure) for nodes, structure in zip(values[::2], values[1::2], strict=True)
        ]
        result = gm.barycenter_graph(made, labels, [0.7, 0.3])
        return result.nodes, result.structure

    inputs = [values.clone().requires_grad_() for graph in graphs for values in (graph.nodes, graph.structure)]
    assert torch.autograd.gradcheck(mean, inputs)


def test_gradients_of_the_estimate():
    graphs = [random_graph(4, 0) for _ in range(2)]
    nodes = graphs[0].nodes.clone().requires_grad_()
    estimate = gm.estimate_barycenter([gm.StructuredGraph(nodes, graphs[0].structure), graphs[1]])
    estimate.barycenter.nodes.sum().backward()
    assert torch.allclose(nodes.grad, torch.full((4, 2), 0.5, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_results_have_the_type_of_the_graphs(dtype: torch.dtype):
    points = torch.tensor([[0.0, 1.0], [2.0, 0.0], [3.0, 3.0]]).to(dtype)
    graphs = [gm.knn_graph(points[order], k=1) for order in ([0, 1, 2], [2, 0, 1])]
    assert gm.barycenter_graph(graphs).nodes.dtype == dtype
    estimate = gm.estimate_barycenter(graphs)
    assert estimate.barycenter.structure.dtype == dtype
    assert estimate.objective == 0


def bad_calls() -> dict:
    graph, larger = random_graph(2, 0), random_graph(3, 0)
    pair = [graph, graph]
    labels = torch.tensor
    return {
        "none": lambda: gm.barycenter_graph([]),
        "no list": lambda: gm.barycenter_graph(graph),
        "kind": lambda: gm.barycenter_graph([graph.nodes]),
        "sizes": lambda: gm.barycenter_graph([graph, larger]),
        "dtype": lambda: gm.barycenter_graph(pair, labels([[0.0, 1.0], [0.0, 1.0]])),
        "rows": lambda: gm.barycenter_graph(pair, labels([[0, 1]])),
        "narrow": lambda: gm.barycenter_graph([graph, larger], labels([[0, 1], [0, 1]])),
        "padding": lambda: gm.barycenter_graph([graph, larger], labels([[0, 1, 2], [0, 1, 2]])),
        "repeated": lambda: gm.barycenter_graph(pair, labels([[0, 0], [0, 1]])),
        "unused": lambda: gm.barycenter_graph(pair, labels([[0, 2], [0, 2]])),
        "without weight": lambda: gm.barycenter_graph(pair, labels([[0, 1], [2, 1]]), [1.0, 0.0]),
        "weights": lambda: gm.barycenter_graph(pair, weights=[1.0]),
        "negative": lambda: gm.barycenter_graph(pair, weights=[1.0, -1.0]),
        "zero": lambda: gm.barycenter_graph(pair, weights=[0.0, 0.0]),
        "infinite": lambda: gm.barycenter_graph(pair, weights=[torch.inf, 1.0]),
        "weights kind": lambda: gm.barycenter_graph(pair, weights=1.0),
        "too large": lambda: gm.estimate_barycenter([graph, larger], size=4),
        "too small": lambda: gm.estimate_barycenter(pair, size=0),
        "large without weight": lambda: gm.estimate_barycenter([graph, larger], size=3, weights=[1.0, 0.0]),
        "half a node": lambda: gm.estimate_barycenter(pair, size=1.5),
        "half a node, softly": lambda: gm.fused_gromov_wasserstein_barycenter(pair, size=1.5),
        "starts": lambda: gm.estimate_barycenter(pair, starts=0),
        "iterations": lambda: gm.estimate_barycenter(pair, max_iterations=0),
        "structure weight": lambda: gm.estimate_barycenter(pair, structure_weight=-0.1),
    }


@pytest.mark.parametrize("name", bad_calls())
def test_errors_say_what_to_do(name: str):
    with pytest.raises((TypeError, ValueError), match=ERROR_FORM):
        bad_calls()[name]()
