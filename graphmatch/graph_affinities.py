"""Affinities between the nodes and the edges of two graphs, from inner products of the nodes where these are long."""

from __future__ import annotations

from math import gcd
from typing import Any

import torch
from torch import Tensor

from graphmatch.affinity import check_edges, check_room, cosine_affinity, edge_features, inner_products, shortest
from graphmatch.graphs import Graph

# Edges shorter than this, relative to their ends, are rounding errors of float32.
_COINCIDENT = 1e-6
# Inner products are sums of so many parts on GPUs, which have little to do at a time with the few that there are.
_MOST_PARTS = 16


def graph_affinities(left: Graph, right: Graph, neighbours: int | None = None) -> tuple[Tensor, Tensor]:
    """Returns the cosines between the nodes of two graphs, and those between their edges.

    The same as `cosine_affinity` of the nodes, and of both graphs' `edge_features`. Where node features are at least
    four times as long as there are nodes, and not in float64, all comes from the inner products of the nodes, summed in
    float64: in less time and memory, and with smaller errors.

    Args:
        left: Nodes (n1, d) or (b, n1, d), edges (e1, 2) or (b, e1, 2).
        right: Nodes (n2, d) or (b, n2, d), edges (e2, 2) or (b, e2, 2).
        neighbours: How many edges every node of both graphs has, where they are grouped by node as those of `knn_graph`
            are; the same affinities in less time.

    Returns:
        (n1, n2) or (b, n1, n2) and (e1, e2) or (b, e1, e2), in [-1, 1], of the nodes' type; 0 for zero nodes, and for
        edges whose ends coincide.

    Example:
        >>> import torch, graphmatch as gm
        >>> left = gm.Graph(torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.tensor([[1, 0], [0, 1]]))
        >>> right = gm.Graph(torch.tensor([[1.0, 0.0], [2.0, 0.0]]), torch.tensor([[1, 0]]))
        >>> nodes, edges = gm.graph_affinities(left, right)
        >>> nodes[1], edges.flatten()
        (tensor([0.6000, 0.6000]), tensor([ 0.6000, -0.6000]))
    """
    where = "graph_affinities"
    for graph in (left, right):
        check_edges(where, graph.nodes, graph.edges, neighbours)
    of_one_length = left.nodes.ndim == right.nodes.ndim and left.nodes.shape[-1] == right.nodes.shape[-1]
    if of_one_length and has_long_nodes(left) and has_long_nodes(right):
        check_room(where, left.edges, right.edges)
        nodes, edges, *_ = _Affinities.apply(left.nodes, left.edges, right.nodes, right.edges)
        return nodes, edges
    features = (edge_features(graph.nodes, graph.edges, neighbours) for graph in (left, right))
    return cosine_affinity(left.nodes, right.nodes), inner_products(where, *features)


def has_long_nodes(graph: Graph) -> bool:
    """Returns whether inner products of the nodes are cheaper than edge features, and exact enough."""
    count, length = graph.nodes.shape[-2:]
    # float64 nodes would need a type of more digits.
    return graph.nodes.dtype != torch.float64 and length >= 4 * count and graph.edges.shape[-2] >= count


class _Affinities(torch.autograd.Function):
    """U = N1 X1 X2' N2 and Q = W1 X1 X2' W2' of nodes X.

    N has one over the lengths of the nodes on its diagonal, W is the incidence matrix of the edges over their lengths.
    With the nodes of both graphs one below the other as Z, all of it follows from Z Z', so that the gradient in Z is a
    symmetric matrix times Z. The derivatives of the lengths make
        dX1 = (N1 dU N2 + W1' dQ W2) X2 - (N1 diag(s) N1 + W1' diag(r) W1) X1
    with s = row sums of dU * U, r = row sums of dQ * Q.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        left: Tensor, left_edges: Tensor, right: Tensor, right_edges: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        count, edge_count = left.shape[-2], left_edges.shape[-2]
        parts = _in_parts(torch.cat([left, right], -2))
        products = (parts @ parts.mT).sum(-3)
        squared = products.diagonal(dim1=-2, dim2=-1)
        inverse = squared.rsqrt().masked_fill(squared <= shortest(left) ** 2, 0)
        incidence = _incidence(torch.cat([left_edges, right_edges + count], -2), products)
        across = products[..., :count, count:]
        nodes = across * inverse[..., :count, None] * inverse[..., None, count:]
        edges = incidence[..., :edge_count, :count] @ across @ incidence[..., edge_count:, count:].mT
        return nodes.to(left.dtype), edges.to(left.dtype), parts, inverse, incidence

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[2:])
        ctx.set_materialize_grads(False)
        ctx.kinds = inputs[0].dtype, inputs[2].dtype
        ctx.save_for_backward(*output)

    @staticmethod
    def backward(
        ctx: Any, of_nodes: Tensor | None, of_edges: Tensor | None, *_: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        nodes, edges, parts, inverse, incidence = ctx.saved_tensors
        count, edge_count = nodes.shape[-2], edges.shape[-2]
        of_nodes, of_edges = (
            torch.zeros_like(value, dtype=parts.dtype) if gradient is None else gradient.to(parts.dtype)
            for value, gradient in ((nodes, of_nodes), (edges, of_edges))
        )
        first, second = incidence[..., :edge_count, :count], incidence[..., edge_count:, count:]
        across = of_nodes * inverse[..., :count, None] * inverse[..., None, count:] + first.mT @ of_edges @ second
        matrix = torch.diag_embed(-_sums(of_nodes * nodes) * inverse.square())
        matrix = matrix - incidence.mT @ (_sums(of_edges * edges)[..., None] * incidence)
        matrix[..., :count, count:] = across
        matrix[..., count:, :count] = across.mT
        gradient = (matrix.unsqueeze(-3) @ parts).transpose(-2, -3)
        sides = gradient[..., :count, :, :], gradient[..., count:, :, :]
        left, right = (_whole(side, kind) for side, kind in zip(sides, ctx.kinds, strict=True))
        return left, None, right, None


def _part_count(nodes: Tensor) -> int:
    return gcd(nodes.shape[-1], _MOST_PARTS) if nodes.is_cuda else 1


def _in_parts(nodes: Tensor) -> Tensor:
    """Returns nodes (..., n, d) in float64, cut along their features: (..., p, n, d / p)."""
    parts = nodes.unflatten(-1, (_part_count(nodes), -1)).transpose(-2, -3)
    return parts.to(torch.float64, memory_format=torch.contiguous_format)


def _whole(parts: Tensor, kind: torch.dtype) -> Tensor:
    """Returns (..., n, p, d / p) as (..., n, d)."""
    return parts.to(kind, memory_format=torch.contiguous_format).flatten(-2)


def _incidence(edges: Tensor, products: Tensor) -> Tensor:
    """Returns (..., e, n): one over the length of each edge at its first end, minus that at its second one.

    Zero for edges whose ends coincide.

    Args:
        edges: (..., e, 2).
        products: (..., n, n), inner products of the nodes.
    """
    signs = torch.arange(1, -2, -2, dtype=products.dtype, device=products.device)
    empty = products.new_zeros((*edges.shape[:-1], products.shape[-1]))
    ends = empty.scatter_add(-1, edges, signs.expand(edges.shape))
    squared = (ends @ products * ends).sum(-1, keepdim=True)
    largest = ends.abs() @ products.diagonal(dim1=-2, dim2=-1)[..., None]
    return ends * squared.rsqrt().masked_fill(squared <= _COINCIDENT**2 * largest, 0)


def _sums(values: Tensor) -> Tensor:
    """Returns the sums (..., m + n) of the rows and of the columns of (..., m, n)."""
    return torch.cat([values.sum(-1), values.sum(-2)], -1)
