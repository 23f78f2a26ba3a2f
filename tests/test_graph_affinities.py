"""Cosines between the nodes and edges of two graphs, from edge features and from inner products of nodes."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import graphmatch as gm
from graphmatch.graph_affinities import _Affinities, has_long_nodes

implementation = importlib.import_module("graphmatch.graph_affinities")  # the function has its name

Affinities = tuple[Tensor, Tensor]
# Of up to 8 nodes those of length 64 are long, those of length 6 are not.
LENGTHS = pytest.mark.parametrize("length", [6, 64], ids=["short", "long"])


def graphs_of(rng: torch.Generator, shapes: list[tuple[int, ...]], k: int = 3) -> list[gm.Graph]:
    return [gm.knn_graph(torch.randn(shape, generator=rng), k) for shape in shapes]


def expected_of(left: gm.Graph, right: gm.Graph) -> Affinities:
    exact = [gm.Graph(graph.nodes.double(), graph.edges) for graph in (left, right)]
    features = [gm.edge_features(graph.nodes, graph.edges) for graph in exact]
    return gm.cosine_affinity(exact[0].nodes, exact[1].nodes), gm.cosine_affinity(*features)


def check(found: Affinities, expected: Affinities, tolerance: float = 1e-6) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other.double(), rtol=0, atol=tolerance)


@LENGTHS
@pytest.mark.parametrize("batch", [(), (3,)], ids=["one pair", "batch"])
@pytest.mark.parametrize("neighbours", [None, 3])
def test_affinities_and_gradients_are_those_of_nodes_and_edge_features(
    rng: torch.Generator, length: int, batch: tuple[int, ...], neighbours: int | None
):
    graphs = graphs_of(rng, [(*batch, 6, length), (*batch, 8, length)])
    nodes = [graph.nodes.requires_grad_() for graph in graphs]
    assert has_long_nodes(graphs[0]) == (length == 64)
    found, expected = gm.graph_affinities(*graphs, neighbours), expected_of(*graphs)
    check(found, expected)
    for part in (slice(0, 1), slice(1, 2), slice(0, 2)):
        upstream = [torch.randn(each.shape, generator=rng, dtype=torch.float64) for each in expected[part]]
        gradients = [
            torch.autograd.grad(each[part], nodes, [u.to(each[0].dtype) for u in upstream], retain_graph=True)
            for each in (found, expected)
        ]
        for side in zip(*gradients, strict=True):
            torch.testing.assert_close(*side, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("parts", [1, 3])
def test_gradients_by_inner_products_are_those_of_differences(
    rng: torch.Generator, monkeypatch: pytest.MonkeyPatch, parts: int
):
    monkeypatch.setattr(implementation, "_part_count", lambda nodes: parts)
    graphs = [gm.Graph(graph.nodes.double(), graph.edges) for graph in graphs_of(rng, [(2, 4, 6), (2, 5, 6)], 2)]

    def affinities(left: Tensor, right: Tensor) -> Affinities:
        return _Affinities.apply(left, graphs[0].edges, right, graphs[1].edges)[:2]

    nodes = [graph.nodes.requires_grad_() for graph in graphs]
    check(affinities(*nodes), expected_of(*graphs), 1e-12)
    assert torch.autograd.gradcheck(affinities, nodes)


@LENGTHS
def test_only_one_graph_may_want_gradients(rng: torch.Generator, length: int):
    left, right = graphs_of(rng, [(6, length), (8, length)])
    right.nodes.requires_grad_()
    gm.graph_affinities(left, right)[1].sum().backward()
    assert left.nodes.grad is None
    assert right.nodes.grad is not None
    assert right.nodes.grad.any()


@LENGTHS
def test_edges_between_equal_nodes_and_zero_nodes_have_neither_direction_nor_gradient(
    rng: torch.Generator, length: int
):
    row = torch.randn(length, generator=rng)
    nodes = torch.stack([row, row, 0 * row, -row]).requires_grad_()
    edges = torch.tensor([[0, 1], [1, 0], [3, 3], [2, 0]])
    of_nodes, of_edges = gm.graph_affinities(gm.Graph(nodes, edges), gm.Graph(nodes.detach(), edges))
    assert of_edges[:3].eq(0).all()
    assert of_edges[:, :3].eq(0).all()
    assert of_nodes[2].eq(0).all()
    torch.testing.assert_close(torch.stack([of_edges[3, 3], of_nodes[0, 1]]), torch.ones(2))
    (of_edges[:3].sum() + of_nodes[2].sum()).backward()
    assert nodes.grad is not None
    assert nodes.grad.eq(0).all()


def test_rounding_errors_of_inner_products_are_no_edges(rng: torch.Generator):
    """Equal rows may have different inner products with each other and with themselves."""
    for count, length in ((10, 777), (18, 200)):
        for _ in range(10):
            left = gm.knn_graph(torch.randn(count, length, generator=rng), 1)
            nodes = 3 + torch.randn(count + 1, length, generator=rng)
            nodes[-1] = nodes[-3] = nodes[0]
            edges = torch.tensor([[0, count], [count - 2, count], [0, count - 2], *[[1, 1]] * count])
            right = gm.Graph(nodes, edges)
            assert has_long_nodes(right)
            assert gm.graph_affinities(left, right)[1].eq(0).all()


@LENGTHS
@pytest.mark.parametrize("scale", [1e-10, 1e15])
@pytest.mark.parametrize("offset", [0, 1000], ids=["around zero", "far from zero"])
def test_neither_scale_nor_offset_matters(rng: torch.Generator, length: int, scale: float, offset: float):
    graphs = graphs_of(rng, [(6, length), (8, length)])
    moved = [gm.Graph(scale * (graph.nodes + offset), graph.edges) for graph in graphs]
    check(gm.graph_affinities(*moved), expected_of(*moved))


def test_a_node_that_is_much_larger_leaves_others_their_edges(rng: torch.Generator):
    graphs = graphs_of(rng, [(6, 64), (8, 64)])
    for graph in graphs:
        graph.nodes[0] *= 1e9
    check(gm.graph_affinities(*graphs), expected_of(*graphs))


def test_inner_products_err_less_than_edge_features(rng: torch.Generator):
    """Where rows share most of what they are, as the encodings of similar texts do."""
    common = 30 * torch.randn(512, generator=rng)
    graphs = [gm.knn_graph(common + torch.randn(16, 512, generator=rng), 5) for _ in range(2)]
    features = [gm.edge_features(graph.nodes, graph.edges) for graph in graphs]
    _, exact = expected_of(*graphs)
    errors = [(each - exact).abs().max() for each in (gm.graph_affinities(*graphs)[1], features[0] @ features[1].mT)]
    assert errors[0] < errors[1]


@LENGTHS
def test_loss_scaling_scales_gradients(rng: torch.Generator, length: int):
    left, right = graphs_of(rng, [(6, length), (8, length)])
    left.nodes.requires_grad_()
    total = sum(each.square().sum() for each in gm.graph_affinities(left, right))
    one, large = (torch.autograd.grad(s * total, left.nodes, retain_graph=True)[0] for s in (1.0, 65536.0))
    torch.testing.assert_close(65536 * one, large)


@LENGTHS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_affinities_have_the_type_of_the_nodes(rng: torch.Generator, length: int, dtype: torch.dtype):
    graphs = [gm.Graph(graph.nodes.to(dtype), graph.edges) for graph in graphs_of(rng, [(6, length), (8, length)])]
    found = gm.graph_affinities(*graphs)
    assert {each.dtype for each in found} == {dtype}
    check(found, expected_of(*graphs), 8 * torch.finfo(dtype).eps)


@LENGTHS
def test_transforms_of_functions(rng: torch.Generator, length: int):
    left, right = graphs_of(rng, [(3, 6, length), (3, 8, length)])

    def total(first: Tensor, edges: Tensor, second: Tensor, others: Tensor) -> Tensor:
        of_nodes, of_edges = gm.graph_affinities(gm.Graph(first, edges), gm.Graph(second, others))
        return of_nodes.square().sum() + of_edges.square().sum()

    arguments = (left.nodes, left.edges, right.nodes, right.edges)
    mapped = torch.vmap(torch.func.grad(total))(*arguments)
    torch.testing.assert_close(mapped, torch.func.grad(total)(*arguments))


def test_graphs_without_nodes_or_edges():
    nothing = gm.Graph(torch.zeros(0, 64), torch.zeros(0, 2, dtype=torch.int64))
    lonely = gm.Graph(torch.zeros(1, 64), torch.zeros(0, 2, dtype=torch.int64))
    pair = gm.knn_graph(torch.rand(2, 64), 1)
    assert [each.shape for each in gm.graph_affinities(nothing, pair)] == [(0, 2), (0, 2)]
    assert [each.shape for each in gm.graph_affinities(pair, lonely)] == [(2, 1), (2, 0)]


EDGES = torch.tensor([[0, 1], [1, 0], [2, 0]])


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda long, other: gm.graph_affinities(long, gm.Graph(other.nodes[:, :32], EDGES)), ValueError, "one length"),
        (lambda long, other: gm.graph_affinities(long, gm.Graph(other.nodes, EDGES[None])), ValueError, "edges must"),
        (lambda long, other: gm.graph_affinities(gm.Graph(long.nodes, EDGES.float()), other), TypeError, "int64"),
        (lambda long, other: gm.graph_affinities(long, other, 2), ValueError, "2 of each node"),
    ],
    ids=["lengths", "batch", "type", "neighbours"],
)
def test_errors(call: Callable[[gm.Graph, gm.Graph], Tensor], error: type[Exception], says: str):
    with pytest.raises(error, match=says):
        call(gm.Graph(torch.rand(3, 64), EDGES), gm.Graph(torch.rand(3, 64), EDGES))
