"""Neural-network modules that pass messages along the edges of graphs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphmatch import _check


class GraphConvolution(nn.Module):
    """Graph convolution with maximum aggregation: W_rel max_{j in N(i)} x_j + W_root x_i + bias.

    The neighbours of node i are the heads of its own edges (i, j), so every node with edges receives messages.
    Parameters are named as in PyTorch Geometric's `GraphConv`, which this layer can exchange weights with.

    Args:
        in_features: Length of the node features.
        out_features: Length of the results.

    Source: C. Morris et al., "Weisfeiler and Leman go neural", AAAI 2019.

    Example:
        >>> import torch, graphmatch as gm
        >>> graph = gm.knn_graph(torch.rand(4, 3), k=2)
        >>> gm.GraphConvolution(3, 8)(graph.nodes, graph.edges).shape
        torch.Size([4, 8])
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.lin_rel = nn.Linear(in_features, out_features)
        self.lin_root = nn.Linear(in_features, out_features, bias=False)

    def forward(self, nodes: Tensor, edges: Tensor, neighbours: int | None = None) -> Tensor:
        """Returns (n, out) or (b, n, out) for nodes (n, in) or (b, n, in) and edges (e, 2) or (b, e, 2).

        `neighbours`: how many edges every node has, where they are grouped by node as those of `knn_graph` are; the
        same messages in less time. Where several neighbours send the same, the gradient goes to the first of them, else
        to all in equal parts.
        """
        if neighbours:
            _check.neighbours("GraphConvolution", edges, nodes.shape[-2], neighbours)
            strongest, _ = _StrongestNeighbour.apply(nodes, edges[..., 1], neighbours)
        else:
            strongest = _strongest(nodes, edges)
        # In the type of the nodes, whatever type the model keeps its weights in.
        weights = (self.lin_rel.weight, self.lin_rel.bias, self.lin_root.weight)
        relation, bias, root = (weight.to(nodes.dtype) for weight in weights)
        return F.linear(strongest, relation, bias) + F.linear(nodes, root)


def _strongest(nodes: Tensor, edges: Tensor) -> Tensor:
    """Returns max_{j in N(i)} x_j; nodes without neighbours get zeros."""
    features = nodes.shape[-1]
    origin = edges[..., 0, None].expand(*edges.shape[:-1], features)
    messages = nodes.gather(-2, edges[..., 1, None].expand(*edges.shape[:-1], features))
    return torch.zeros_like(nodes).scatter_reduce(-2, origin, messages, "amax", include_self=False)


class _StrongestNeighbour(torch.autograd.Function):
    """The same from the heads (..., n * k) of edges grouped by node, k each, and the nodes (..., n, d) that sent it."""

    generate_vmap_rule = True

    @staticmethod
    def forward(nodes: Tensor, heads: Tensor, neighbours: int) -> tuple[Tensor, Tensor]:
        messages = nodes.gather(-2, heads[..., None].expand(*heads.shape, nodes.shape[-1]))
        by_node = (nodes.shape[-2], neighbours)
        # Not argmax, which takes 30 times as long on a CPU.
        strongest, place = messages.unflatten(-2, by_node).max(-2)
        return strongest, heads.unflatten(-1, by_node).gather(-1, place)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, None, None]:
        if upstream is None:
            return None, None, None
        (sender,) = ctx.saved_tensors
        return torch.zeros_like(upstream).scatter_add(-2, sender, upstream), None, None


class MessagePassing(nn.Module):
    """Two graph convolutions of constant width with ReLU and dropout between them, added to the nodes' own features.

    Args:
        dim: Length of the node features.
        dropout: Share of activations dropped in training.
        residual: Add the input to the result. Without it a random initialisation hides the nodes' own features, and an
            alignment of the results teaches the inputs much less.

    Example:
        >>> import torch, graphmatch as gm
        >>> graph = gm.knn_graph(torch.rand(4, 3), k=2)
        >>> gm.MessagePassing(3)(graph.nodes, graph.edges).shape
        torch.Size([4, 3])
    """

    def __init__(self, dim: int, dropout: float = 0.1, residual: bool = True) -> None:
        super().__init__()
        self.residual = residual
        self.conv1 = GraphConvolution(dim, dim)
        self.conv2 = GraphConvolution(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, nodes: Tensor, edges: Tensor, neighbours: int | None = None) -> Tensor:
        """Returns node features of the same shape; arguments as in `GraphConvolution`."""
        hidden = self.dropout(torch.relu(self.conv1(nodes, edges, neighbours)))
        passed = self.conv2(hidden, edges, neighbours)
        return nodes + passed if self.residual else passed
