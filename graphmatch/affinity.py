"""Affinities between nodes and between edges of two graphs. Affinities are maximised; costs are their negatives."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor

from graphmatch import _check


def edge_features(nodes: Tensor, edges: Tensor, neighbours: int | None = None) -> Tensor:
    """Returns the L2-normalised differences nodes[i] - nodes[j] of the edges (i, j).

    Args:
        nodes: (n, d) or (b, n, d) floating point.
        edges: (e, 2) or (b, e, 2) int64, node indices.
        neighbours: How many edges every node has, where they are grouped by node as those of `knn_graph` are; the same
            features in less time.

    Returns:
        (e, d) or (b, e, d) unit vectors; zero where both ends coincide.

    Example:
        >>> import torch, graphmatch as gm
        >>> gm.edge_features(torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.tensor([[1, 0]]))
        tensor([[0.6000, 0.8000]])
    """
    check_edges("edge_features", nodes, edges, neighbours)
    if neighbours:
        return _UnitDifferences.apply(nodes, edges[..., 1], neighbours)[0]
    index = edges[..., None].expand(*edges.shape, nodes.shape[-1])
    ends = nodes.unsqueeze(-2).expand(*nodes.shape[:-1], 2, nodes.shape[-1]).gather(-3, index)
    return _unit(ends[..., 0, :] - ends[..., 1, :])


def cosine_affinity(left: Tensor, right: Tensor) -> Tensor:
    """Returns the cosines between all rows of two sets of vectors.

    Args:
        left: (n1, d) or (b, n1, d) floating point.
        right: (n2, d) or (b, n2, d).

    Returns:
        (n1, n2) or (b, n1, n2) in [-1, 1]; 0 for zero vectors.

    Example:
        >>> import torch, graphmatch as gm
        >>> gm.cosine_affinity(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 3.0]]))
        tensor([[1., 0.]])
    """
    return inner_products("cosine_affinity", _unit(left), _unit(right))


def check_edges(where: str, nodes: Tensor, edges: Tensor, neighbours: int | None) -> None:
    """Checks the shapes of nodes and edges, and that every node has so many edges, if that is said."""
    _check.integer(where, "edges", edges)
    if edges.ndim != nodes.ndim or edges.shape[-1] != 2:
        rule = "have shape (e, 2) for nodes (n, d), or (b, e, 2) for (b, n, d)"
        received = f"edges {tuple(edges.shape)}, nodes {tuple(nodes.shape)}"
        raise ValueError(_check.message(where, "edges", rule, received, "Check both."))
    if neighbours:
        _check.neighbours(where, edges, nodes.shape[-2], neighbours)


def check_room(where: str, left: Tensor, right: Tensor) -> None:
    """Checks that there is memory to compare each of (..., n1, :) with each of (..., n2, :)."""
    bytes_needed = prod(left.shape[:-1]) * right.shape[-2] * left.element_size()
    cure = "Every vector is compared with every other one: use fewer, such as the edges of knn_graph."
    _check.memory(where, bytes_needed, cure, left.device)


def inner_products(where: str, left: Tensor, right: Tensor) -> Tensor:
    """Returns the inner products (..., n1, n2) of vectors (..., n1, d) and (..., n2, d)."""
    if left.shape[-1] != right.shape[-1] or left.ndim != right.ndim:
        received = f"{tuple(left.shape)} and {tuple(right.shape)}"
        raise ValueError(_check.message(where, "left and right", "hold vectors of one length", received, "Check both."))
    check_room(where, left, right)
    return torch.matmul(left, right.transpose(-1, -2))


def _unit(vectors: Tensor) -> Tensor:
    """Returns vectors of length 1; zero vectors stay and have no gradient, also in half precision."""
    lengths = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    limit = shortest(vectors)
    return torch.where(lengths > limit, vectors / lengths.clamp(min=limit), 0)


def shortest(vectors: Tensor) -> float:
    """Returns the length from which on a vector has a direction: the usual 1e-12 is zero in half precision."""
    return max(1e-12, torch.finfo(vectors.dtype).tiny)


class _UnitDifferences(torch.autograd.Function):
    """Unit vectors from heads (..., n * k) to their nodes (..., n, d), k each, and one over the lengths they had.

    A graph's edges outweigh all else that an alignment holds: half the passes over memory of what autograd would do.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(nodes: Tensor, heads: Tensor, neighbours: int) -> tuple[Tensor, Tensor]:
        ends = nodes.gather(-2, heads[..., None].expand(*heads.shape, nodes.shape[-1]))
        differences = nodes.unsqueeze(-2) - ends.unflatten(-2, (nodes.shape[-2], neighbours))
        lengths = torch.linalg.vector_norm(differences, dim=-1, keepdim=True)
        # Where both ends coincide, there is no direction and no gradient.
        inverse = torch.where(lengths > shortest(nodes), 1 / lengths, 0)
        return (differences * inverse).flatten(-3, -2), inverse.flatten(-3, -2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: tuple[Tensor, Tensor]) -> None:
        _, heads, ctx.neighbours = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(heads, *output)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, None, None]:
        if upstream is None:
            return None, None, None
        heads, unit, inverse = ctx.saved_tensors
        along = torch.einsum("...d,...d->...", upstream, unit)[..., None]
        gradient = torch.addcmul(upstream, unit, along, value=-1) * inverse
        at_nodes = gradient.unflatten(-2, (-1, ctx.neighbours)).sum(-2)
        at_heads = torch.zeros_like(at_nodes).scatter_add(-2, heads[..., None].expand_as(unit), gradient)
        return at_nodes - at_heads, None, None
