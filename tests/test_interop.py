"""Graphs of NetworkX and PyTorch Geometric: costs of every matching by the graphs themselves, labels, gradients."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Batch, Data

import graphmatch as gm
from graphmatch import _reference

KINDS = [nx.Graph, nx.DiGraph, nx.MultiGraph, nx.MultiDiGraph]


def random_graph(kind: type, seed: int, n: int, loops: bool = True) -> Any:
    """A graph with labels in no order, weights on edges, positions and colours on nodes."""
    rng = np.random.default_rng(seed)
    graph = kind()
    for name in rng.permutation(n):
        graph.add_node(
            f"v{name}", position=rng.normal(size=2), size=float(rng.normal()), colour=str(rng.choice(["r", "b"]))
        )
    pairs = [(f"v{i}", f"v{j}") for i in range(n) for j in range(n) if loops or i != j]
    for index in rng.permutation(len(pairs))[: rng.integers(0, len(pairs) + 1)]:
        graph.add_edge(*pairs[index], weight=float(rng.integers(1, 5)), kind=str(rng.choice(["x", "y"])))
    return graph


def assignments(n1: int, n2: int) -> torch.Tensor:
    """Every complete matching (m, n1), n1 <= n2."""
    rows = list(itertools.permutations(range(n2), n1))
    return torch.tensor(rows, dtype=torch.int64).reshape(len(rows), n1)


def by_hand(graph1: Any, graph2: Any, mapping: dict, edge_value: Any) -> float:
    """The sum over edges of graph 1 and the edges of graph 2 between the images of their ends."""
    total = 0.0
    for tail, head, data in graph1.edges(data=True):
        for k, l, other in graph2.edges(data=True):  # noqa: E741
            ends = (mapping[tail], mapping[head])
            if ends == (k, l) or (not graph1.is_directed() and ends == (l, k)):
                total += edge_value(data, other)
    return total


@given(seed=st.integers(0, 10**6), kind=st.sampled_from(KINDS), n1=st.integers(0, 3), more=st.integers(0, 1))
def test_every_matching_costs_what_the_graphs_say(seed: int, kind: type, n1: int, more: int):
    graph1, graph2 = random_graph(kind, seed, n1), random_graph(kind, seed + 1, n1 + more)
    named = {
        None: lambda data, other: -1,
        "weight": lambda data, other: -data["weight"] * other["weight"],
        "kind": lambda data, other: -(data["kind"] == other["kind"]),
        (lambda data, other: data["weight"] - 2 * other["weight"]): lambda data, other: (
            data["weight"] - 2 * other["weight"]
        ),
    }
    for edge_cost, value in named.items():
        labelled = gm.io.from_networkx(graph1, graph2, edge_cost=edge_cost)
        assert labelled.nodes1 == tuple(graph1.nodes)
        for assignment in assignments(n1, n1 + more):
            mapping = labelled.mapping(assignment)
            objective = float(_reference.objective(labelled.problem, assignment[None]))
            assert objective == pytest.approx(by_hand(graph1, graph2, mapping, value))


@pytest.mark.parametrize("name", ["position", "size", "colour"])
def test_costs_of_nodes(name: str):
    graph1, graph2 = random_graph(nx.Graph, 0, 3), random_graph(nx.Graph, 1, 4)
    costs = gm.io.from_networkx(graph1, graph2, node_cost=name).problem.unary_costs[0]
    for (_, data1), row in zip(graph1.nodes(data=True), costs, strict=True):
        for (_, data2), cost in zip(graph2.nodes(data=True), row, strict=True):
            a, b = data1[name], data2[name]
            expected = float(a != b) if name == "colour" else float(np.linalg.norm(np.atleast_1d(a) - np.atleast_1d(b)))
            assert float(cost) == pytest.approx(expected, abs=1e-12)
    function = gm.io.from_networkx(graph1, graph2, lambda a, b: float("inf") if a["colour"] != b["colour"] else 0)
    assert torch.equal(
        function.problem.unary_costs[0].isinf(),
        gm.io.from_networkx(graph1, graph2, "colour").problem.unary_costs[0] > 0,
    )


def test_products_order_matchings_as_squared_disagreements():
    graph1, graph2 = (random_graph(nx.Graph, seed, 4, loops=False) for seed in (2, 3))
    labelled = gm.io.from_networkx(graph1, graph2, edge_cost="weight")
    a = torch.tensor(nx.to_numpy_array(graph1, labelled.nodes1))
    b = torch.tensor(nx.to_numpy_array(graph2, labelled.nodes2))
    for p in assignments(4, 4):
        disagreement = float(((a - b[p][:, p]) ** 2).sum())
        constant = float((a**2).sum() + (b**2).sum())
        objective = float(_reference.objective(labelled.problem, p[None]))
        assert disagreement == pytest.approx(constant + 4 * objective)  # each edge twice, each product twice


def test_a_shuffled_graph_is_recovered_with_its_labels():
    graph = nx.random_geometric_graph(9, 0.6, seed=1)
    names = dict(zip(graph, np.random.default_rng(0).permutation(list("abcdefghi")).tolist(), strict=True))
    other = nx.relabel_nodes(graph, names)
    shuffled = nx.Graph()
    shuffled.add_nodes_from(sorted(other.nodes(data=True)))
    shuffled.add_edges_from(other.edges)
    labelled = gm.io.from_networkx(graph, shuffled, node_cost="pos")
    result = gm.solve(labelled.problem)
    assert labelled.mapping(result) == labelled.mapping(result.assignment) == names
    assert float(result.objective) == pytest.approx(-graph.number_of_edges())
    assert all(shuffled.has_edge(names[tail], names[head]) for tail, head in graph.edges)


def test_unmatched_nodes_and_dtypes():
    path, edge = nx.path_graph(3), nx.path_graph(2)
    labelled = gm.io.from_networkx(path, edge, unmatched_cost=0.5, dtype=torch.float32)
    assert labelled.problem.unary_costs.dtype == torch.float32
    result = gm.solve(labelled.problem)
    assert float(result.objective) == pytest.approx(-0.5)
    assert list(labelled.mapping(result).values()).count(None) == 1
    empty = gm.io.from_networkx(nx.Graph(), path, "x", "y")
    assert empty.problem.unary_costs.shape == (1, 0, 3)
    assert empty.mapping(gm.solve(empty.problem)) == {}


def test_mapping_takes_assignments_of_these_graphs_only():
    labelled = gm.io.from_networkx(nx.path_graph(2), nx.path_graph(3))
    for wrong, error in [
        (torch.tensor([0]), ValueError),
        (torch.tensor([0, 3]), ValueError),
        (torch.tensor([0, -2]), ValueError),
        (torch.tensor([[0, 1], [1, 0]]), ValueError),
        ([0, 1], TypeError),
        (torch.tensor([0.0, 1.0]), TypeError),
    ]:
        with pytest.raises(error, match=r"LabelledProblem.mapping: result must"):
            labelled.mapping(wrong)


@pytest.mark.parametrize("kind", KINDS)
def test_graphs_of_networkx(kind: type):
    graph = random_graph(kind, 4, 5)
    converted = gm.io.graph_from_networkx(graph, ["size", "position"], dtype=torch.float64)
    order = list(graph)
    for row, node in zip(converted.nodes.tolist(), order, strict=True):
        assert row == [graph.nodes[node]["size"], *graph.nodes[node]["position"]]
    expected = sorted(
        arc
        for tail, head in graph.edges()
        for arc in ({(tail, head)} if graph.is_directed() else {(tail, head), (head, tail)})
    )
    assert sorted((order[i], order[j]) for i, j in converted.edges.tolist()) == expected
    bare = gm.io.graph_from_networkx(nx.empty_graph(3))
    assert bare.nodes.shape == (3, 0)
    assert bare.edges.shape == (0, 2)


PATH = nx.path_graph(3)
SIZED = random_graph(nx.Graph, 0, 3)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ((PATH, "graph"), TypeError, "graph2 must be a graph of NetworkX; got str"),
        ((torch.zeros(2, 2), PATH), TypeError, "graph1 must be a graph of NetworkX; got a tensor"),
        ((PATH, nx.DiGraph(PATH)), ValueError, "both graphs must be directed, or both undirected; got undirected and"),
        ((PATH, PATH, "size"), ValueError, r"node 0 must have the attribute 'size'; got \[\]"),
        ((SIZED, PATH, "size"), ValueError, "node 0 must have the attribute 'size'"),
        (
            (SIZED, SIZED, None, "length"),
            ValueError,
            r"edge \('v.', 'v.'\) must have the attribute 'length'; got \['kind'",
        ),
        ((PATH, PATH, 3), TypeError, "node_cost must be a function or the name of an attribute; got int 3"),
        ((PATH, PATH, None, 3), TypeError, "edge_cost must be a function or the name of an attribute"),
        ((PATH, PATH, lambda a, b: "x"), TypeError, "node_cost must return a number; got str 'x'"),
    ],
)
def test_what_is_no_problem_is_refused(arguments: tuple, error: type[Exception], text: str):
    with pytest.raises(error, match=f"from_networkx: {text}"):
        gm.io.from_networkx(*arguments)


def test_attributes_of_mixed_types_are_refused():
    ones, words, vectors, ragged = (nx.path_graph(2) for _ in range(4))
    nx.set_node_attributes(ones, 1.0, "x")
    nx.set_node_attributes(words, "a", "x")
    nx.set_node_attributes(vectors, {0: [1.0, 2.0], 1: [3.0, 4.0]}, "x")
    nx.set_node_attributes(ragged, {0: [1.0], 1: [3.0, 4.0]}, "x")
    for other in (words, vectors, ragged):
        with pytest.raises(ValueError, match="node_cost must name an attribute of one type and length in both graphs"):
            gm.io.from_networkx(ones, other, node_cost="x")
    with pytest.raises(ValueError, match="node_cost must name an attribute"):
        gm.io.from_networkx(ragged, ragged, node_cost="x")
    with pytest.raises(ValueError, match="LawlerProblem: unary_costs must hold finite costs"):
        gm.io.from_networkx(ones, ones, node_cost=lambda a, b: float("nan"))
    with pytest.raises(ValueError, match="graph_from_networkx: features must name attributes that are numbers"):
        gm.io.graph_from_networkx(words, "x")
    with pytest.raises(ValueError, match="graph_from_networkx: node 0 must have the attribute 'y'"):
        gm.io.graph_from_networkx(words, "y")
    with pytest.raises(TypeError, match="graph_from_networkx: graph must be a graph of NetworkX"):
        gm.io.graph_from_networkx(None)


def with_attribute(values: list) -> nx.Graph:
    graph = nx.path_graph(len(values))
    nx.set_node_attributes(graph, dict(enumerate(values)), "x")
    return graph


@pytest.mark.parametrize("values", [[1.0, None], [1, "1"], [(1, 2), (3,)], [2.5, (1.0, 2.0)]], ids=str)
def test_numbers_beside_something_else_are_no_labels(values: list):
    with pytest.raises(ValueError, match="node_cost must name an attribute of one type and length in both graphs"):
        gm.io.from_networkx(with_attribute(values), with_attribute(values), node_cost="x")


@pytest.mark.parametrize(
    "kind", [Fraction, Decimal, np.float32, torch.tensor, lambda value: torch.tensor(value, dtype=torch.bfloat16)]
)
def test_numbers_of_every_kind_have_distances(kind: Callable):
    numbers = with_attribute([kind(each) for each in (0.5, 2.0, 8.0)])
    costs = gm.io.from_networkx(numbers, with_attribute([1, 2, 3]), node_cost="x").problem.unary_costs[0]
    assert costs.tolist() == [[0.5, 1.5, 2.5], [1.0, 0.0, 1.0], [7.0, 6.0, 5.0]]
    assert gm.io.graph_from_networkx(numbers, "x").nodes.flatten().tolist() == [0.5, 2.0, 8.0]
    huge = gm.io.from_networkx(with_attribute([2**70, 0]), with_attribute([2**70, 0]), node_cost="x")
    assert huge.problem.unary_costs[0].tolist() == [[0.0, 2.0**70], [2.0**70, 0.0]]


def test_costs_of_features_are_functions_of_one_type():
    single, double = random_data(0, 3, 2), random_data(1, 3, 2, dtype=torch.float64)
    with pytest.raises(TypeError, match="from_pyg: node_cost must be given for features of two types; got None for"):
        gm.io.from_pyg(single, double)
    for name in ("node_cost", "edge_cost"):
        with pytest.raises(TypeError, match=f"from_pyg: {name} must be a function; got str 'x'"):
            gm.io.from_pyg(single, single, **{name: "x"})


def random_data(seed: int, n: int, e: int, attributes: int | None = None, dtype: torch.dtype = torch.float32) -> Data:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=generator).to(dtype)
    attr = None if attributes is None else torch.randn(e, attributes, generator=generator).to(dtype)
    tails = torch.randint(max(n, 1), (e,), generator=generator)
    heads = (tails + torch.randint(1, max(n, 2), (e,), generator=generator)) % max(n, 1)  # no loops
    return Data(x=x, edge_index=torch.stack([tails, heads]), edge_attr=attr)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("attributes", [None, 3])
def test_cosines_of_pyg_graphs(dtype: torch.dtype, attributes: int | None):
    data1, data2 = random_data(0, 4, 6, attributes, dtype), random_data(1, 5, 7, attributes, dtype)
    problem = gm.io.from_pyg(data1, data2)
    assert torch.equal(problem.edges1[0], data1.edge_index.T)
    assert torch.equal(problem.unary_costs[0], -gm.cosine_affinity(data1.x, data2.x))
    features = [
        gm.edge_features(data.x, data.edge_index.T) if attributes is None else data.edge_attr for data in (data1, data2)
    ]
    assert torch.equal(problem.quadratic_costs[0], -gm.cosine_affinity(*features))
    graph = gm.io.graph_from_pyg(data1)
    assert graph.nodes is data1.x
    assert torch.equal(graph.edges, data1.edge_index.T)


def test_functions_of_features():
    data1, data2 = random_data(0, 3, 5), random_data(1, 3, 4)
    data1.edge_attr, data2.edge_attr = torch.arange(5.0), torch.arange(4.0)  # one number per edge
    problem = gm.io.from_pyg(data1, data2, torch.cdist, lambda a, b: (a - b.T).abs(), unmatched_cost=1.0)
    assert torch.equal(problem.unary_costs[0], torch.cdist(data1.x, data2.x))
    assert problem.quadratic_costs[0, 4, 1] == 3
    assert problem.unmatched_cost == 1.0
    data1.edge_attr = None  # one side without: both by their ends
    assert gm.io.from_pyg(data1, data2).quadratic_costs.abs().max() <= 1 + 1e-6


def test_gradients_reach_the_features():
    data1, data2 = random_data(0, 3, 4, dtype=torch.float64), random_data(1, 3, 4, dtype=torch.float64)
    data1.x.requires_grad_()
    problem = gm.io.from_pyg(data1, data2)
    (problem.unary_costs.sum() + problem.quadratic_costs.sum()).backward()
    assert data1.x.grad.abs().max() > 0
    assert gm.io.from_pyg(random_data(0, 0, 0), random_data(1, 2, 1)).unary_costs.shape == (1, 0, 2)


def test_what_is_no_pyg_graph_is_refused():
    good = random_data(0, 3, 4, 2)

    def changed(**parts: Any) -> SimpleNamespace:
        return SimpleNamespace(**{"x": good.x, "edge_index": good.edge_index, "edge_attr": good.edge_attr, **parts})

    for data, error, text in [
        (Data(edge_index=good.edge_index), TypeError, "data2.x must be a torch.Tensor; got NoneType"),
        (Data(x=good.x), TypeError, "data2.edge_index must be a torch.Tensor"),
        (changed(x=good.x.long()), TypeError, "data2.x must be a floating-point tensor"),
        (changed(x=good.x[0]), ValueError, r"data2.x must have shape \(n, d\)"),
        (changed(edge_index=good.edge_index.float()), TypeError, "data2.edge_index must be an int64 tensor"),
        (changed(edge_index=good.edge_index.T), ValueError, r"data2.edge_index must have shape \(2, 2\)"),
        (changed(edge_index=good.edge_index + 2), ValueError, r"data2.edge_index must hold node indices in \[0, 3\)"),
        (changed(edge_attr=good.edge_attr[:2]), ValueError, r"data2.edge_attr must have shape \(4, 2\)"),
        (changed(edge_attr=good.edge_attr.long()), TypeError, "data2.edge_attr must be a floating-point tensor"),
        (Batch.from_data_list([good, good]), ValueError, "data2 must be one graph; got a batch of 2"),
        (None, TypeError, "data2.x must be a torch.Tensor"),
    ]:
        with pytest.raises(error, match=f"from_pyg: {text}"):
            gm.io.from_pyg(good, data)
    with pytest.raises(ValueError, match=r"from_pyg: node_cost must have shape \(3, 3\)"):
        gm.io.from_pyg(good, good, node_cost=lambda a, b: a)
    with pytest.raises(TypeError, match=r"from_pyg: edge_cost must be a torch.Tensor"):
        gm.io.from_pyg(good, good, edge_cost=lambda a, b: 0.0)
    with pytest.raises(ValueError, match="graph_from_pyg: data must be one graph"):
        gm.io.graph_from_pyg(Batch.from_data_list([good, good]))
