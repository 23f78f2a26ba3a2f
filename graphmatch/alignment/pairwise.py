"""Alignment of several views of the same samples pair by pair."""

from __future__ import annotations

import torch
from torch import Tensor

from graphmatch.alignment.base import Directions, ViewAlignment
from graphmatch.alignment.graphs import GraphBatch, composed
from graphmatch.alignment.views import Views
from graphmatch.gradients import GradientEstimator
from graphmatch.solvers import Solver


class PairwiseAlignment(ViewAlignment):
    """Aligns the graphs of every two of m views of N samples by the Hamming loss to the true matches.

    As `BarycenterAlignment`, with the m (m - 1) / 2 problems between views instead of those between views and
    barycenters: all in one call, graphs and message passing once per view. Each view learns from every other one alone,
    and there are (m - 1) / 2 times as many problems; with two views they are those of the leave-one-out barycenter.

    A row has a target in another view if that view has its sample. Rows without one do not count, unless
    `unmatched_cost` allows them to stay unmatched: then it is an error to match them. Row i may be matched with row j
    if there is a sample that has a row equal to i in the one view and a row equal to j in the other: equal up to
    rounding, or of one group.

    Args:
        dim: Length d of the node features.
        k: Neighbours per node.
        solver: Any solver for Lawler problems; None as in `BarycenterAlignment`.
        gradient: Any gradient estimator; None takes `IMLE(step=3.0, noise_scale=0.3)`.
        edge_weight: Weight of the edges in the cost.
        dropout: Dropout between the convolutions.
        residual: Add the message passing to the node features instead of replacing them.
        directions: "forward" matches earlier views with later ones; "both" solves the reverse problems as well,
            m (m - 1) in all, and takes the mean.
        unmatched_cost: None = each problem matches as many nodes as the smaller graph has; a number = cost of each node
            on the left that stays unmatched.
        margin: While training, added to the costs of right matches: others win unless they cost more by this much for
            each node that they match wrongly. So matchings that are barely right still teach, with any estimator. In
            units of cosines; 0 adds nothing.

    Attributes:
        zero_gradient: 0-d bool tensor, whether the last backward pass found no gradient at all in the matchings;
            not kept when compiled.

    Example:
        >>> import torch, graphmatch as gm
        >>> views = [torch.randn(8, 16, requires_grad=True) for _ in range(4)]
        >>> alignment = gm.PairwiseAlignment(dim=16)
        >>> alignment(*views).backward()
        >>> alignment.layer.result.assignment.shape, views[3].grad.shape
        (torch.Size([6, 8]), torch.Size([8, 16]))
    """

    def __init__(
        self,
        dim: int,
        k: int = 5,
        solver: Solver | None = None,
        gradient: GradientEstimator | None = None,
        edge_weight: float = 0.5,
        dropout: float = 0.1,
        residual: bool = True,
        directions: Directions = "forward",
        unmatched_cost: float | None = None,
        margin: float = 0.0,
    ) -> None:
        super().__init__(dim, k, solver, gradient, edge_weight, dropout, residual, directions, unmatched_cost, margin)

    def _problems(self, views: Views) -> tuple[GraphBatch, Tensor, Tensor]:
        count = len(views.nodes)
        left, right = torch.triu_indices(count, count, 1, device=views.nodes.device).unbind(0)
        return views.graphs(), left, right

    def _accepted(self, graphs: GraphBatch, left: Tensor, right: Tensor) -> Tensor:
        direct = graphs.counterparts(left, right)
        return composed(composed(graphs.same[left], direct), graphs.same[right])
