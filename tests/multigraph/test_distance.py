"""The distance of structured graphs: a metric with geodesics where matchings are optimal, and honest elsewhere."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import graphmatch as gm
from graphmatch import _reference
from graphmatch.multigraph import distance as module
from graphmatch.multigraph.distance import aligned_square, alignment_costs

ERROR_FORM = r"^\S.*: .+ must .+; got .+\. \S.*\.$"
EXACT = gm.BruteForce()
weights = st.sampled_from([0.1, 0.5, 0.9])


@st.composite
def graphs(draw, count: int = 1, least: int = 1, most: int = 5) -> list[gm.StructuredGraph]:
    """Graphs of one size: features and structures of any kind, symmetric or not, with loops or without."""
    size = draw(st.integers(least, most))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    kind = draw(st.sampled_from(["weighted", "binary", "symmetric"]))
    return [random_graph(size, generator, kind) for _ in range(count)]


def random_graph(size: int, generator: torch.Generator, kind: str = "weighted") -> gm.StructuredGraph:
    nodes = torch.randn(size, 2, generator=generator, dtype=torch.float64)
    structure = torch.randn(size, size, generator=generator, dtype=torch.float64)
    if kind == "binary":
        structure = (structure > 0.5).double()
    if kind == "symmetric":
        structure = structure + structure.T
    return gm.StructuredGraph(nodes, structure)


def renumbered(graph: gm.StructuredGraph, order: torch.Tensor) -> gm.StructuredGraph:
    return gm.StructuredGraph(graph.nodes[order], graph.structure[order][:, order])


def shuffled(graph: gm.StructuredGraph, seed: int) -> tuple[gm.StructuredGraph, torch.Tensor]:
    order = torch.randperm(len(graph.nodes), generator=torch.Generator().manual_seed(seed))
    return renumbered(graph, order), order


def by_hand(left: gm.StructuredGraph, right: gm.StructuredGraph, weight: float) -> float:
    """The distance from its definition, over all permutations."""
    size = len(left.nodes)
    best = float("inf")
    for order in permutations(range(size)):
        nodes = sum(float(((left.nodes[i] - right.nodes[order[i]]) ** 2).sum()) for i in range(size))
        pairs = sum(
            float((left.structure[i, j] - right.structure[order[i], order[j]]) ** 2)
            for i in range(size)
            for j in range(size)
        )
        best = min(best, (1 - weight) * nodes / size + weight * pairs / size**2)
    return best**0.5


@given(graphs(2, most=4), weights)
def test_distance_is_the_minimum_of_its_definition(pair, weight: float):
    result = gm.sga_distance(*pair, structure_weight=weight)
    assert float(result) == pytest.approx(by_hand(*pair, weight), abs=1e-9)
    assert result.status is gm.Status.OPTIMAL
    assert result.lower_bound <= float(result)
    assert float(result) ** 2 == pytest.approx(
        float(aligned_square(*pair, result.matching, weight, len(pair[0].nodes)))
    )


@given(graphs(2, least=2, most=6), weights)
def test_default_solver_agrees_with_enumeration(pair, weight: float):
    default, exact = gm.sga_distance(*pair, weight), gm.sga_distance(*pair, weight, solver=EXACT)
    assert float(default) == pytest.approx(float(exact), abs=1e-7)
    assert default.lower_bound <= float(exact) + 1e-12


@given(graphs(2, most=6), weights)
def test_distance_is_symmetric(pair, weight: float):
    there, back = gm.sga_distance(*pair, weight, EXACT), gm.sga_distance(*pair[::-1], weight, EXACT)
    assert float(there) == pytest.approx(float(back), abs=1e-10)


@given(graphs(most=6), st.integers(0, 99), weights)
def test_renumbered_graphs_are_at_distance_zero(single, seed: int, weight: float):
    graph = single[0]
    other, order = shuffled(graph, seed)
    result = gm.sga_distance(graph, other, weight)
    assert float(result) == 0
    assert result.lower_bound == 0
    assert result.status is gm.Status.OPTIMAL
    assert torch.equal(order[result.matching], torch.arange(len(order)))


@given(graphs(least=2, most=6), st.integers(0, 99), st.sampled_from(["attribute", "edge", "loop"]))
def test_changed_graphs_are_not(single, seed: int, what: str):
    graph = single[0]
    other, _ = shuffled(graph, seed)
    nodes, structure = other.nodes.clone(), other.structure.clone()
    size = len(nodes)
    if what == "attribute":
        nodes[0, 1] += 0.25
        expected = (0.5 * 0.25**2 / size) ** 0.5
    else:
        structure[0, 0 if what == "loop" else 1] += 3.0
        expected = (0.5 * 3.0**2 / size**2) ** 0.5
    # Undoing the change is one matching; no other can be free, since the sums of features or entries differ.
    distance = float(gm.sga_distance(graph, gm.StructuredGraph(nodes, structure)))
    assert 1e-3 < distance <= expected + 1e-9


@given(graphs(3, least=2, most=5), weights)
def test_triangle_inequality(triple, weight: float):
    first, second, third = triple
    pairs = [(first, second), (second, third), (first, third)]
    ab, bc, ac = map(float, gm.sga_distances(pairs, weight, EXACT))
    assert ac <= ab + bc + 1e-12
    assert ab <= ac + bc + 1e-12


def test_matchings_that_are_not_optimal_make_no_metric():
    graph = random_graph(4, torch.Generator().manual_seed(3))
    other, _ = shuffled(graph, 1)
    assert float(gm.sga_distance(graph, other)) == 0
    assert float(aligned_square(graph, other, torch.arange(4), 0.5, 4)) > 0.1


@given(graphs(2, least=2, most=5), weights)
def test_midpoint_is_half_way(pair, weight: float):
    left, right = pair
    middle = gm.geodesic(left, right, 0.5, weight, EXACT)
    whole = float(gm.sga_distance(left, right, weight, EXACT))
    halves = [float(d) for d in gm.sga_distances([(left, middle), (middle, right)], weight, EXACT)]
    assert halves == pytest.approx([whole / 2] * 2, abs=1e-9)


@given(graphs(2, least=2, most=5), weights, st.floats(0, 1), st.floats(0, 1))
def test_geodesics_have_constant_speed(pair, weight: float, s: float, t: float):
    left, right = pair
    found = gm.sga_distance(left, right, weight, EXACT)
    start, end = (gm.geodesic(left, right, share, weight, matching=found.matching) for share in (s, t))
    between = float(gm.sga_distance(start, end, weight, EXACT))
    assert between == pytest.approx(abs(s - t) * float(found), abs=1e-9)


def test_ends_of_a_geodesic_are_the_graphs():
    generator = torch.Generator().manual_seed(0)
    left, right = random_graph(5, generator), random_graph(5, generator)
    matching = gm.sga_distance(left, right).matching
    start, end = gm.geodesic(left, right, 0.0), gm.geodesic(left, right, 1.0)
    assert torch.equal(start.nodes, left.nodes)
    assert torch.equal(start.structure, left.structure)
    assert torch.equal(end.nodes, right.nodes[matching])
    assert torch.equal(end.structure, right.structure[matching][:, matching])


def test_many_pairs_of_different_sizes_in_one_call():
    generator = torch.Generator().manual_seed(1)
    pairs = [(random_graph(size, generator), random_graph(size, generator)) for size in (1, 5, 3, 6)]
    together = gm.sga_distances(pairs)
    assert [float(result) for result in together] == pytest.approx([by_hand(*pair, 0.5) for pair in pairs], abs=1e-9)
    for result, (left, _) in zip(together, pairs, strict=True):
        assert result.matching.sort().values.tolist() == list(range(len(left.nodes)))
    assert gm.sga_distances([]) == []


@pytest.mark.parametrize("symmetric", [False, True])
def test_sparse_costs_are_the_same_up_to_a_constant(symmetric: bool, monkeypatch):
    generator = torch.Generator().manual_seed(2)
    left, right = (random_graph(6, generator, "binary") for _ in range(2))
    if symmetric:
        left, right = (gm.StructuredGraph(g.nodes, g.structure + g.structure.T) for g in (left, right))
    full = gm.sga_distance(left, right, 0.7)
    monkeypatch.setattr(module, "_FULL_NODES", 0)
    problem, constant = alignment_costs(left, right, 0.7, 6)
    assert len(problem.edges1[0]) < 15
    for seed in range(5):
        order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
        paid = float(_reference.objective(problem, order[None])) + constant
        assert paid == pytest.approx(float(aligned_square(left, right, order, 0.7, 6)), abs=1e-12)
    sparse = gm.sga_distance(left, right, 0.7)
    assert float(sparse) == pytest.approx(float(full), abs=1e-9)
    assert sparse.lower_bound == pytest.approx(float(full), abs=1e-6)
    assert sparse.status is gm.Status.OPTIMAL


def test_large_sparse_graphs():
    generator = torch.Generator().manual_seed(4)
    points = torch.randn(60, 3, generator=generator)
    order = torch.randperm(60, generator=generator)
    result = gm.sga_distance(gm.knn_graph(points, k=4), gm.knn_graph(points[order], k=4))
    assert torch.equal(order[result.matching], torch.arange(60))
    assert float(result) == 0
    assert result.status is gm.Status.OPTIMAL


def test_heuristic_solvers_give_upper_bounds_and_say_so():
    generator = torch.Generator().manual_seed(5)
    left, right = random_graph(9, generator), random_graph(9, generator)
    rough = gm.sga_distance(left, right, solver=gm.Tabu())
    exact = gm.sga_distance(left, right)
    assert rough.lower_bound <= float(exact) <= float(rough) + 1e-9
    assert exact.status is gm.Status.OPTIMAL
    assert rough.status is gm.Status.FEASIBLE
    assert gm.sga_distance(left, right, solver=gm.Tabu(), max_gap=10.0).status is gm.Status.OPTIMAL


def test_weight_of_the_structure():
    generator = torch.Generator().manual_seed(6)
    graph = random_graph(4, generator)
    other_nodes = gm.StructuredGraph(graph.nodes + 1, graph.structure)
    other_structure = gm.StructuredGraph(graph.nodes, graph.structure + 1)
    assert float(gm.sga_distance(graph, other_nodes, 1.0)) == 0
    assert float(gm.sga_distance(graph, other_structure, 0.0)) == 0
    assert float(gm.sga_distance(graph, other_nodes, 0.0)) == pytest.approx(2**0.5)
    assert float(gm.sga_distance(graph, other_structure, 1.0)) == pytest.approx(1.0)


def test_gradient_of_the_distance():
    generator = torch.Generator().manual_seed(7)
    left, right = random_graph(4, generator), random_graph(4, generator)

    def distance(nodes: torch.Tensor, structure: torch.Tensor) -> torch.Tensor:
        return gm.sga_distance(gm.StructuredGraph(nodes, structure), right).distance

    inputs = (left.nodes.clone().requires_grad_(), left.structure.clone().requires_grad_())
    assert torch.autograd.gradcheck(distance, inputs)
    same = gm.StructuredGraph(left.nodes.clone().requires_grad_(), left.structure)
    gm.sga_distance(same, left).distance.backward()
    assert torch.equal(same.nodes.grad, torch.zeros(4, 2, dtype=torch.float64))


def test_padded_graphs_of_unequal_sizes():
    generator = torch.Generator().manual_seed(8)
    sizes = (2, 3, 4)
    small, middle, large = (random_graph(size, generator).padded(4) for size in sizes)
    ab, bc, ac = map(float, gm.sga_distances([(small, middle), (middle, large), (small, large)]))
    assert ac <= ab + bc + 1e-9
    assert float(gm.sga_distance(small, shuffled(small, 3)[0])) == 0
    assert small.structure[2:].abs().sum() + small.structure[:, 2:].abs().sum() + small.nodes[2:].abs().sum() == 0


@pytest.mark.parametrize("size", [0, 1])
def test_tiny_graphs(size: int):
    graph = gm.StructuredGraph(torch.ones(size, 2), torch.ones(size, size))
    other = gm.StructuredGraph(torch.zeros(size, 2), torch.zeros(size, size))
    result = gm.sga_distance(graph, other)
    assert float(result) == pytest.approx(size * 1.5**0.5)
    assert result.status is gm.Status.OPTIMAL


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_types_and_graphs_of_either_kind(dtype: torch.dtype):
    nodes = torch.tensor([[0.0], [1.0], [3.0]]).to(dtype)
    graph = gm.Graph(nodes, torch.tensor([[0, 1], [1, 2], [0, 1]]))
    structure = torch.tensor([[0, 2, 0], [0, 0, 1], [0, 0, 0]]).to(dtype)
    assert float(gm.sga_distance(graph, gm.StructuredGraph(nodes, structure))) == 0
    assert gm.geodesic(graph, graph).nodes.dtype == dtype


def test_structure_to_edges_and_back():
    graph = gm.knn_graph(torch.tensor([[0.0], [1.0], [3.0], [7.0]]), k=2)
    back = gm.StructuredGraph.from_graph(graph).to_graph()
    assert sorted(back.edges.tolist()) == sorted(graph.edges.tolist())
    half = gm.StructuredGraph(torch.zeros(2, 1), torch.tensor([[0.0, 0.5], [-0.75, 0.0]]))
    assert half.to_graph().edges.tolist() == [[0, 1], [1, 0]]
    assert half.to_graph(0.5).edges.tolist() == [[1, 0]]


def bad_calls() -> dict:
    graph = gm.StructuredGraph(torch.zeros(2, 1), torch.zeros(2, 2))
    larger = gm.StructuredGraph(torch.zeros(3, 1), torch.zeros(3, 3))
    zeros = torch.zeros
    return {
        "sizes": lambda: gm.sga_distance(graph, larger),
        "kind": lambda: gm.sga_distance(graph, zeros(2, 1)),
        "features": lambda: gm.sga_distance(graph, gm.StructuredGraph(zeros(2, 2), zeros(2, 2))),
        "dtypes": lambda: gm.sga_distance(graph, gm.StructuredGraph(zeros(2, 1).double(), zeros(2, 2).double())),
        "weight": lambda: gm.sga_distance(graph, graph, structure_weight=1.5),
        "gap": lambda: gm.sga_distance(graph, graph, max_gap=-1.0),
        "pairs": lambda: gm.sga_distances([graph]),
        "t": lambda: gm.geodesic(graph, graph, 1.5),
        "matching type": lambda: gm.geodesic(graph, graph, matching=torch.tensor([0.0, 1.0])),
        "matching": lambda: gm.geodesic(graph, graph, matching=torch.tensor([0, 0])),
        "matching size": lambda: gm.geodesic(graph, graph, matching=torch.tensor([0])),
        "padding": lambda: larger.padded(2),
        "threshold": lambda: graph.to_graph(-1.0),
        "structure shape": lambda: gm.StructuredGraph(zeros(2, 1), zeros(2, 3)),
        "structure dtype": lambda: gm.StructuredGraph(zeros(2, 1), zeros(2, 2).double()),
        "not finite": lambda: gm.StructuredGraph(torch.full((2, 1), torch.nan), zeros(2, 2)),
        "edges": lambda: gm.StructuredGraph.from_graph(gm.Graph(zeros(2, 1), torch.tensor([[0, 2]]))),
    }


@pytest.mark.parametrize("name", bad_calls())
def test_errors_say_what_to_do(name: str):
    with pytest.raises((TypeError, ValueError), match=ERROR_FORM):
        bad_calls()[name]()
