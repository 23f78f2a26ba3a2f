"""Graphs of NetworkX and PyTorch Geometric as graphs and matching problems; neither package is imported."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from numbers import Rational
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphmatch import _check
from graphmatch.affinity import cosine_affinity, edge_features
from graphmatch.graphs import Graph
from graphmatch.problem import LawlerProblem
from graphmatch.result import MatchResult

AttributeCost = str | Callable[[Mapping[str, Any], Mapping[str, Any]], float]
TensorCost = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class LabelledProblem:
    """A matching problem between two graphs whose nodes have labels, made by `from_networkx`.

    Attributes:
        problem: A batch of one.
        nodes1: The labels of the nodes of graph 1, in the order of the rows of the problem.
        nodes2: The labels of the nodes of graph 2, in the order of the columns.
    """

    problem: LawlerProblem
    nodes1: tuple[Hashable, ...]
    nodes2: tuple[Hashable, ...]

    def mapping(self, result: MatchResult | Tensor) -> dict[Hashable, Hashable]:
        """Returns the node of graph 2 for each node of graph 1 by their labels, None where it is unmatched.

        Args:
            result: Result of a solver, or an assignment (n1,) or (1, n1) int64 with -1 = unmatched.

        Raises:
            TypeError, ValueError: If it is no assignment of these graphs.

        Example:
            >>> import networkx as nx, torch, graphmatch as gm
            >>> labelled = gm.io.from_networkx(nx.path_graph("ab"), nx.path_graph("xyz"))
            >>> labelled.mapping(torch.tensor([2, -1]))
            {'a': 'z', 'b': None}
        """
        where = "LabelledProblem.mapping"
        assignment = result.assignment if isinstance(result, MatchResult) else result
        _check.integer(where, "result", assignment)
        if assignment.shape not in ((len(self.nodes1),), (1, len(self.nodes1))):
            rule = f"assign {len(self.nodes1)} nodes"
            raise ValueError(_check.message(where, "result", rule, f"shape {tuple(assignment.shape)}", "Pick one."))
        images = assignment.flatten().tolist()
        if not all(-1 <= image < len(self.nodes2) for image in images):
            rule = f"hold nodes in [0, {len(self.nodes2)}), or -1"
            raise ValueError(_check.message(where, "result", rule, images, "Solve this problem."))
        return {
            node: None if image < 0 else self.nodes2[image] for node, image in zip(self.nodes1, images, strict=True)
        }


def from_networkx(
    graph1: Any,
    graph2: Any,
    node_cost: AttributeCost | None = None,
    edge_cost: AttributeCost | None = None,
    unmatched_cost: float | None = None,
    dtype: torch.dtype = torch.float64,
) -> LabelledProblem:
    """Returns the problem of matching two graphs of NetworkX, with the labels of their nodes.

    An edge that is mapped onto an edge pays a cost, once. A directed edge must keep its direction; an undirected one
    may be mapped in both, so it is one arc of graph 1, from the node that comes first, and two arcs of graph 2.
    Parallel edges pay each.

    Args:
        graph1: `networkx.Graph`, `DiGraph` or a multigraph.
        graph2: Likewise; directed if graph1 is.
        node_cost: Cost of two nodes. A function of their two dictionaries of attributes, or the name of an attribute:
            the distance of two numbers or vectors, or of two other values 0 if they are equal and 1 if not. None: 0.
        edge_cost: Cost of two edges. A function of their two dictionaries of attributes, or the name of an attribute:
            minus the product of two numbers or vectors, or of two other values -1 if they are equal and 0 if not.
            None: -1, so that as many edges as possible are kept. With the product of weights, complete matchings of
            graphs of one size have the order of their squared disagreements sum_ij (A_ij - B_p(i)p(j))^2.
        unmatched_cost: None = min(n1, n2) nodes must be matched; a number = cost of each unmatched node of graph 1.
        dtype: Of the costs.

    Raises:
        TypeError, ValueError: If the graphs are none or of two kinds, an attribute is missing or of mixed types, or a
            cost is no finite number (+inf forbids two nodes).

    Example:
        >>> import networkx as nx, graphmatch as gm
        >>> labelled = gm.io.from_networkx(nx.star_graph(["hub", "a", "b"]), nx.path_graph([1, 2, 3]))
        >>> result = gm.solve(labelled.problem)
        >>> labelled.mapping(result)["hub"], float(result.objective)
        (2, -2.0)
    """
    where = "from_networkx"
    directed = [_is_directed(where, name, graph) for name, graph in (("graph1", graph1), ("graph2", graph2))]
    if directed[0] != directed[1]:
        received = " and ".join("directed" if value else "undirected" for value in directed)
        cure = "Convert one with graph.to_directed() or graph.to_undirected()."
        raise ValueError(_check.message(where, "both graphs", "be directed, or both undirected", received, cure))
    nodes1, nodes2 = dict(graph1.nodes(data=True)), dict(graph2.nodes(data=True))
    places1 = {node: place for place, node in enumerate(nodes1)}
    places2 = {node: place for place, node in enumerate(nodes2)}
    list1, list2 = list(graph1.edges(data=True)), list(graph2.edges(data=True))
    if not directed[0]:
        list1 = [
            (tail, head, data) if places1[tail] <= places1[head] else (head, tail, data) for tail, head, data in list1
        ]
        list2 += [(head, tail, data) for tail, head, data in list2 if tail != head]
    named1 = [(f"node {node!r}", data) for node, data in nodes1.items()]
    named2 = [(f"node {node!r}", data) for node, data in nodes2.items()]
    unary = _attribute_costs(where, "node_cost", node_cost, named1, named2)
    quadratic = _attribute_costs(
        where,
        "edge_cost",
        (lambda *_: -1.0) if edge_cost is None else edge_cost,
        [(f"edge {(tail, head)!r}", data) for tail, head, data in list1],
        [(f"edge {(tail, head)!r}", data) for tail, head, data in list2],
    )
    problem = LawlerProblem(
        unary[None].to(dtype),
        quadratic[None].to(dtype),
        _index([(places1[tail], places1[head]) for tail, head, _ in list1]),
        _index([(places2[tail], places2[head]) for tail, head, _ in list2]),
        unmatched_cost=unmatched_cost,
    )
    return LabelledProblem(problem, tuple(nodes1), tuple(nodes2))


def graph_from_networkx(graph: Any, features: str | Sequence[str] = (), dtype: torch.dtype = torch.float32) -> Graph:
    """Returns nodes and edges of a graph of NetworkX, numbered in the order of `graph.nodes`.

    Args:
        graph: `networkx.Graph`, `DiGraph` or a multigraph; an undirected edge becomes one in each direction.
        features: Attributes of the nodes, numbers or vectors of one length, that become the columns of `nodes`.
        dtype: Of the features.

    Raises:
        TypeError, ValueError: If it is no graph, or an attribute is missing or not made of numbers.

    Example:
        >>> import networkx as nx, graphmatch as gm
        >>> graph = nx.Graph([("a", "b")])
        >>> nx.set_node_attributes(graph, {"a": 1.0, "b": 2.0}, "size")
        >>> gm.io.graph_from_networkx(graph, "size")
        Graph(nodes=tensor([[1.],
                [2.]]), edges=tensor([[0, 1],
                [1, 0]]))
    """
    where = "graph_from_networkx"
    directed = _is_directed(where, "graph", graph)
    attributes = dict(graph.nodes(data=True))
    columns = []
    for name in [features] if isinstance(features, str) else features:
        values = _values(where, name, [(f"node {node!r}", data) for node, data in attributes.items()])
        numbers = _numbers(values)
        if numbers is None:
            rule = "name attributes that are numbers or vectors of one length"
            raise ValueError(_check.message(where, "features", rule, repr(name), "Encode it as numbers."))
        columns.append(numbers)
    places = {node: place for place, node in enumerate(attributes)}
    edges = [(places[tail], places[head]) for tail, head in graph.edges()]
    if not directed:
        edges += [(head, tail) for tail, head in edges if tail != head]
    nodes = torch.cat(columns, dim=1) if columns else torch.zeros(len(attributes), 0)
    return Graph(nodes.to(dtype), _index(edges))


def graph_from_pyg(data: Any) -> Graph:
    """Returns nodes and edges of a `torch_geometric.data.Data`: views of its x (n, d) and of its edge_index (2, e).

    Raises:
        TypeError, ValueError: If x or edge_index is missing or of another shape or type, or for a batch of graphs.

    Example:
        >>> import torch, graphmatch as gm
        >>> from torch_geometric.data import Data
        >>> gm.io.graph_from_pyg(Data(x=torch.zeros(2, 3), edge_index=torch.tensor([[0], [1]]))).edges
        tensor([[0, 1]])
    """
    return _pyg_graph("graph_from_pyg", "data", data)


def from_pyg(
    data1: Any,
    data2: Any,
    node_cost: TensorCost | None = None,
    edge_cost: TensorCost | None = None,
    unmatched_cost: float | None = None,
) -> LawlerProblem:
    """Returns the problem of matching two graphs of PyTorch Geometric, differentiable in their features.

    Edges are arcs, as PyTorch Geometric has them: an undirected edge is there in both directions, and its cost is paid
    for each.

    Args:
        data1: `torch_geometric.data.Data`, or anything with x (n1, d) floating point, edge_index (2, e1) int64 and,
            perhaps, edge_attr (e1, c) or (e1,).
        data2: Likewise.
        node_cost: Costs (n1, n2) of x (n1, d) of graph 1 and x (n2, d) of graph 2. None: minus their cosines.
        edge_cost: Costs (e1, e2) of the features of the edges of both graphs: edge_attr (e1, c) and (e2, c) if both
            have it, otherwise the normalised differences of the features of their ends (`edge_features`). None: minus
            their cosines, which tell single numbers apart by their signs only.
        unmatched_cost: None = min(n1, n2) nodes must be matched; a number = cost of each unmatched node of graph 1.

    Returns:
        A batch of one; `stack_problems` makes a batch of several.

    Raises:
        TypeError, ValueError: If a part of the data is missing or of another shape or type, or for a batch of graphs.

    Example:
        >>> import torch, graphmatch as gm
        >>> from torch_geometric.data import Data
        >>> edges = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> x = torch.eye(3)
        >>> problem = gm.io.from_pyg(Data(x=x, edge_index=edges), Data(x=x.flip(0), edge_index=edges))
        >>> gm.solve(problem).assignment
        tensor([[2, 1, 0]])
    """
    where = "from_pyg"
    graph1, graph2 = _pyg_graph(where, "data1", data1), _pyg_graph(where, "data2", data2)
    attributes = [getattr(data, "edge_attr", None) for data in (data1, data2)]
    if attributes[0] is None or attributes[1] is None:
        features1, features2 = edge_features(graph1.nodes, graph1.edges), edge_features(graph2.nodes, graph2.edges)
    else:
        features1 = _edge_attributes(where, "data1.edge_attr", attributes[0], graph1)
        features2 = _edge_attributes(where, "data2.edge_attr", attributes[1], graph2)
    unary = _tensor_costs(where, "node_cost", node_cost, graph1.nodes, graph2.nodes)
    quadratic = _tensor_costs(where, "edge_cost", edge_cost, features1, features2)
    return LawlerProblem(unary[None], quadratic[None], graph1.edges, graph2.edges, unmatched_cost=unmatched_cost)


def _is_directed(where: str, argument: str, graph: Any) -> bool:
    if not all(callable(getattr(graph, name, None)) for name in ("is_directed", "nodes", "edges")):
        cure = "Build one with networkx."
        raise TypeError(_check.message(where, argument, "be a graph of NetworkX", _check.describe(graph), cure))
    return bool(graph.is_directed())


def _index(edges: list[tuple[int, int]]) -> Tensor:
    return torch.tensor(edges, dtype=torch.int64).reshape(len(edges), 2)


def _attribute_costs(
    where: str,
    argument: str,
    cost: AttributeCost | None,
    items1: list[tuple[str, Mapping[str, Any]]],
    items2: list[tuple[str, Mapping[str, Any]]],
) -> Tensor:
    """Returns the costs (n1, n2) in float64 of named nodes or edges with these attributes."""
    cure = "Every node or edge is compared with every other one: use smaller or sparser graphs."
    _check.memory(where, 2 * torch.float64.itemsize * len(items1) * len(items2), cure)
    if cost is None or not items1 or not items2:
        return torch.zeros(len(items1), len(items2), dtype=torch.float64)
    if callable(cost):
        rows = [[_number(where, argument, cost(data1, data2)) for _, data2 in items2] for _, data1 in items1]
        return torch.tensor(rows, dtype=torch.float64)
    if not isinstance(cost, str):
        cure = "Leave it out for the default."
        raise TypeError(
            _check.message(where, argument, "be a function or the name of an attribute", _check.describe(cost), cure)
        )
    values1, values2 = _values(where, cost, items1), _values(where, cost, items2)
    numbers1, numbers2 = _numbers(values1), _numbers(values2)
    if numbers1 is not None and numbers2 is not None and numbers1.shape[1] == numbers2.shape[1]:
        if argument == "edge_cost":
            return -(numbers1 @ numbers2.T)
        # The faster mode loses the distance of close points.
        return torch.cdist(numbers1, numbers2, compute_mode="donot_use_mm_for_euclid_dist")
    if not all(map(_is_label, values1 + values2)) or any(_numbers([value]) is not None for value in values1 + values2):
        rule = "name an attribute of one type and length in both graphs"
        raise ValueError(_check.message(where, argument, rule, repr(cost), "Pass a function of both attributes."))
    equal = torch.tensor([[bool(value1 == value2) for value2 in values2] for value1 in values1], dtype=torch.float64)
    return 1 - equal if argument == "node_cost" else -equal


def _number(where: str, argument: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        cure = "It is called with two dictionaries of attributes."
        raise TypeError(_check.message(where, argument, "return a number", _check.describe(value), cure)) from None


def _values(where: str, name: str, items: list[tuple[str, Mapping[str, Any]]]) -> list[Any]:
    for item, data in items:
        if name not in data:
            cure = "Set it for all, or pass a function."
            raise ValueError(_check.message(where, item, f"have the attribute {name!r}", sorted(map(str, data)), cure))
    return [data[name] for _, data in items]


def _is_label(value: Any) -> bool:
    """Whether == says yes or no."""
    return isinstance(value, Hashable) and not isinstance(value, Tensor)


def _numbers(values: list[Any]) -> Tensor | None:
    """Returns numbers or vectors of one length as the rows of a float64 tensor; None if the values are others."""
    try:
        array = np.array([_array(value) for value in values])
    except (OverflowError, ValueError):
        return None
    if array.dtype.kind not in "biuf" or array.ndim not in (1, 2):
        return None
    return torch.from_numpy(array.astype(np.float64)).reshape(len(values), -1 if values else 1)


def _array(value: Any) -> np.ndarray[Any, Any]:
    if isinstance(value, Tensor):
        return value.detach().cpu().double().numpy()  # NumPy has no bfloat16
    # NumPy takes fractions, decimals and huge integers for objects of any kind.
    return np.asarray(float(value) if isinstance(value, Rational | Decimal) else value)


def _pyg_graph(where: str, argument: str, data: Any) -> Graph:
    if getattr(data, "num_graphs", 1) != 1:
        rule, cure = "be one graph", "Call it for each of data.to_data_list(), and stack_problems."
        raise ValueError(_check.message(where, argument, rule, f"a batch of {data.num_graphs}", cure))
    nodes = _check.tensor(where, f"{argument}.x", getattr(data, "x", None), 2, "(n, d)")
    _check.floating(where, f"{argument}.x", nodes)
    name = f"{argument}.edge_index"
    index = _check.integer(where, name, _check.tensor(where, name, getattr(data, "edge_index", None), 2, "(2, e)"))
    _check.shape(where, name, index, (2, index.shape[1]), "rows of tails and of heads")
    _check.indices(where, name, index.T, None, nodes.shape[0])
    return Graph(nodes, index.T)


def _edge_attributes(where: str, argument: str, value: Any, graph: Graph) -> Tensor:
    if isinstance(value, Tensor) and value.ndim == 1:
        value = value[:, None]
    _check.floating(where, argument, _check.tensor(where, argument, value, 2, "(e, c) or (e,)"))
    _check.shape(where, argument, value, (graph.edges.shape[0], value.shape[1]), "one row per edge")
    return value


def _tensor_costs(where: str, argument: str, cost: TensorCost | None, left: Tensor, right: Tensor) -> Tensor:
    if cost is None:
        if left.dtype != right.dtype:
            rule, cure = "be given for features of two types", "Or convert the features of one graph."
            received = f"None for {left.dtype} and {right.dtype}"
            raise TypeError(_check.message(where, argument, rule, received, cure))
        return -cosine_affinity(left, right)
    if not callable(cost):
        cure = "Leave it out for the default."
        raise TypeError(_check.message(where, argument, "be a function", _check.describe(cost), cure))
    costs = cost(left, right)
    _check.tensor(where, argument, costs, 2, "(n1, n2) or (e1, e2)")
    _check.shape(where, argument, costs, (left.shape[0], right.shape[0]), "one row per feature vector of graph 1")
    return costs
