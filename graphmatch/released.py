"""The alignment exactly as the released ExGra-Med training does it, for comparison only.

It differs from the default in every point listed under `ReleasedRecipe`; most of them are traps. In particular its
gradient is not homogeneous: it does not follow the scale of the loss, so loss scaling and loss weights distort it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from graphmatch.affinity import edge_features
from graphmatch.gradients.base import Forward, Oracle, Tensors, Upstream
from graphmatch.graphs import knn_graph
from graphmatch.layers import MatchingLayer
from graphmatch.message_passing import MessagePassing
from graphmatch.result import MatchResult
from graphmatch.solvers import quick_solver

_GUMBEL_SCALE = 0.05
_LAMBDA = 80.0


@dataclass(frozen=True)
class AbsoluteBlackBox:
    """Gradient (y(c + lambda g) - y(c)) / lambda with a fixed lambda: not homogeneous in g.

    Source: M. Vlastelica et al., ICLR 2020; lambda = 80 in M. Rolinek et al., ECCV 2020.
    """

    strength: float = _LAMBDA

    def forward(self, oracle: Oracle, costs: Tensors, training: bool) -> Forward:
        """Returns y(c)."""
        solved = oracle.solve(costs)
        return Forward(solved.solutions, solved.state, solved.report)

    def backward(
        self, oracle: Oracle, costs: Tensors, solutions: Tensors, saved: Tensors, upstream: Upstream, training: bool
    ) -> Tensors:
        """Returns (y(c + lambda g) - y(c)) / lambda."""
        steps = tuple(None if g is None else self.strength * g for g in upstream)
        targets = oracle.solve(costs, steps, saved).solutions
        return tuple((target - solution) / self.strength for target, solution in zip(targets, solutions, strict=True))


class ReleasedRecipe:
    """The released recipe: noise, edges, directions and gradient.

    - The barycenter is the mean of all views and not detached.
    - Each view is matched in both directions (view to barycenter, barycenter to view); the graph on the right reuses
      the edge list of the graph on the left.
    - unary = -(cosine + noise - 0.5), quadratic = -0.5 (inner product + noise - 0.5), Gumbel noise of scale 0.05: drawn
      once for the nodes of all problems, again for the edges of each problem, in training and evaluation alike.
    - Message passing replaces the node features; messages run from a node to the neighbours it chose, against the
      direction of the k-nearest-neighbour edges.
    - Nodes may stay unmatched at cost 0; both kinds of errors are summed and divided by N.
    - Gradient: black-box with lambda = 80.

    The solver is ours, the quick one of all alignments.

    Args:
        k: Neighbours per node.
    """

    def __init__(self, k: int) -> None:
        self.k = k
        self.layer = MatchingLayer(quick_solver(), AbsoluteBlackBox(), unmatched_cost=0.0)

    @property
    def result(self) -> MatchResult | None:
        """The result of the last solve."""
        return self.layer.result

    def align(
        self, views: Tensor, message_passing: MessagePassing, watch: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns loss, matchings and targets (2K, N, N) of views (K, N, d), view-to-barycenter problems first."""
        count, samples, _ = views.shape
        graphs = torch.cat([views, views.mean(0, keepdim=True)])
        edges = knn_graph(graphs, self.k).edges
        nodes = message_passing(graphs, edges.flip(-1))
        view = torch.arange(count, device=views.device)
        centre = torch.full_like(view, count)
        left, right = torch.cat([view, centre]), torch.cat([centre, view])
        unit = F.normalize(nodes, dim=-1)
        cosine = torch.matmul(unit[left], unit[right].transpose(1, 2))
        shared_edges = edges[left]
        inner = torch.matmul(
            edge_features(nodes[left], shared_edges), edge_features(nodes[right], shared_edges).transpose(1, 2)
        )
        unary = watch(-(cosine + _gumbel(cosine[0]) - 0.5))
        quadratic = -0.5 * (inner + _gumbel(inner) - 0.5)
        matching, _ = self.layer(unary, quadratic, shared_edges, shared_edges)
        target = torch.eye(samples, device=views.device)
        errors = matching * (1 - target) + (1 - matching) * target
        return errors.sum() / max(samples, 1) / len(left), matching, target.expand_as(matching)


def _gumbel(like: Tensor) -> Tensor:
    uniform = torch.rand_like(like).clamp(min=torch.finfo(like.dtype).tiny)
    return -_GUMBEL_SCALE * torch.log(-torch.log(uniform))
