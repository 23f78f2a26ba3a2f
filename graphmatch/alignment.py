"""Alignment of several views of the same samples through their barycenter: the ExGra loss as a plain module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphmatch import _check
from graphmatch.affinity import edge_features
from graphmatch.gradients import IMLE, GradientEstimator
from graphmatch.graphs import knn_graph
from graphmatch.layers import MatchingLayer, MessagePassing
from graphmatch.losses import hamming_loss, retrieval_accuracy
from graphmatch.released import ReleasedRecipe
from graphmatch.solvers import Solver, quick_solver

# Rows closer than this, relative to their length, are one text or image that was encoded twice.
_SAME = 1e-5


@dataclass(frozen=True)
class AlignmentDetails:
    """What one alignment found. All scalars are 0-d tensors; only `loss` carries gradients.

    Attributes:
        loss: Mean Hamming loss of the matchings, in [0, 2].
        matching_accuracy: Share of nodes matched to their own barycenter node, or to an equal one, mean over views; NaN
            without nodes. While training with a noisy estimator the matchings are those of the noisy problems.
        retrieval: Top-1 retrieval between the views as they came in (before message passing), mean over ordered pairs.
        gap: Largest relative gap of the solved problems; 0 without nodes.
    """

    loss: Tensor
    matching_accuracy: Tensor
    retrieval: Tensor
    gap: Tensor


class BarycenterAlignment(nn.Module):
    """Aligns the graphs of K views of N samples with their barycenter by the Hamming loss to the identity.

    Row i of every view describes sample i; samples with the same row in a view (the same text, the same image) may take
    each other's place. Each view is a graph: samples are nodes, edges lead to the k nearest
    neighbours, two graph convolutions shared by all graphs pass messages. Each view is matched with the barycenter of
    the other views by a quadratic assignment problem with costs
        unary = -cosine of node features, quadratic = -edge_weight * inner product of unit edge features,
    and the K problems are solved in one call, in float32 whatever autocast says. The loss is differentiable by an
    estimator in all views and parameters.

    With "leave_one_out" a view is matched with the mean of the *other* views. With "mean", as in the paper, the
    barycenter contains the view itself, which then matches it almost for free and stops teaching early.

    Args:
        dim: Length d of the node features.
        k: Neighbours per node.
        barycenter: "leave_one_out" or "mean".
        solver: Any solver for Lawler problems; None takes
            `Portfolio(max_gap=1e-3, effort=0.02, max_iterations=5, on_cpu=True)`: hasty, and it copies costs of other
            devices to the CPU.
        gradient: Any gradient estimator; None takes `IMLE(step=3.0, noise_scale=0.3)`: the noise asks for a margin, so
            that matchings that are barely right still teach.
        edge_weight: Weight of the edges in the cost; 0.5 lets both directions of an edge count once.
        dropout: Dropout between the convolutions.
        residual: Add the message passing to the node features instead of replacing them; the paper replaces.
        legacy: The released training recipe of ExGra-Med in all its details, for comparison; see `ReleasedRecipe`. It
            fixes barycenter, solver, gradient, edge weight and residual.

    Attributes:
        zero_gradient: 0-d bool tensor, whether the last backward pass found no gradient at all in the matchings;
            not kept when compiled.

    Source: D. M. H. Nguyen et al., "ExGra-Med", arXiv 2410.02615, sections 3.2 and 3.3.

    Example:
        >>> import torch, graphmatch as gm
        >>> views = [torch.randn(8, 16, requires_grad=True) for _ in range(3)]
        >>> loss = gm.BarycenterAlignment(dim=16)(*views)
        >>> loss.backward()
        >>> loss.shape, views[0].grad.shape
        (torch.Size([]), torch.Size([8, 16]))
    """

    def __init__(
        self,
        dim: int,
        k: int = 5,
        barycenter: Literal["leave_one_out", "mean"] = "leave_one_out",
        solver: Solver | None = None,
        gradient: GradientEstimator | None = None,
        edge_weight: float = 0.5,
        dropout: float = 0.1,
        residual: bool = True,
        legacy: bool = False,
    ) -> None:
        super().__init__()
        where = "BarycenterAlignment"
        _check.option(where, "dim", dim, dim >= 1, "be at least 1", "It is the length of the node features.")
        _check.option(where, "k", k, k >= 1, "be at least 1", "5 is the paper's choice.")
        if barycenter not in ("leave_one_out", "mean"):
            rule = "be 'leave_one_out' or 'mean'"
            raise ValueError(_check.message(where, "barycenter", rule, repr(barycenter), "Pick one."))
        if legacy and (solver is not None or gradient is not None):
            rule, received = "be left out with legacy=True, which has its own", f"solver={solver}, gradient={gradient}"
            raise ValueError(_check.message(where, "solver and gradient", rule, received, "Drop them or legacy."))
        self.dim, self.k, self.barycenter, self.edge_weight = dim, k, barycenter, edge_weight
        self.message_passing = MessagePassing(dim, dropout, residual=residual and not legacy)
        self.layer = MatchingLayer(
            solver=quick_solver() if solver is None else solver,
            gradient=IMLE(step=3.0, noise_scale=0.3) if gradient is None else gradient,
        )
        self.released = ReleasedRecipe(k) if legacy else None
        self.zero_gradient = torch.zeros((), dtype=torch.bool)

    def forward(self, *views: Tensor) -> Tensor:
        """Returns the alignment loss of K >= 2 views (N, d), a scalar in [0, 2]."""
        loss, _, _ = self._align(self._checked(views))
        return loss

    def details(self, *views: Tensor) -> AlignmentDetails:
        """Returns the loss of K >= 2 views (N, d) with what there is to know about it."""
        checked = self._checked(views)
        loss, matching, target = self._align(checked)
        pairs = [(a, b) for a in range(len(views)) for b in range(len(views)) if a != b]
        retrieval = torch.stack([retrieval_accuracy(checked[a], checked[b]) for a, b in pairs]).mean()
        accuracy = (matching.detach() * target).sum(2).mean()
        return AlignmentDetails(loss, accuracy, retrieval, self._largest_gap(loss))

    def _checked(self, views: tuple[Tensor, ...]) -> Tensor:
        """Returns the views as one (K, N, d) tensor in float32 (float64 stays)."""
        where = "BarycenterAlignment"
        if len(views) < 2:
            raise ValueError(_check.message(where, "views", "be at least 2 tensors", len(views), "Pass each view."))
        for place, view in enumerate(views):
            _check.floating(where, f"view {place}", _check.tensor(where, f"view {place}", view, 2, "(N, d)"))
            _check.shape(where, f"view {place}", view, (views[0].shape[0], self.dim), "samples of view 0, dim")
        _check.same_device(where, {f"view {place}": view for place, view in enumerate(views)})
        for place, view in enumerate(views):
            _check.costs(where, f"view {place}", view.detach(), allow_infinite=False)
        kind = torch.float64 if all(view.dtype == torch.float64 for view in views) else torch.float32
        return torch.stack([view.to(kind) for view in views])

    def _align(self, views: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the loss, the matchings and their targets (K, N, N)."""
        # Solvers and nearest neighbours need more digits than autocast would leave them.
        with torch.autocast(device_type=views.device.type, enabled=False):
            if self.released is not None:
                return self.released.align(views, self.message_passing, self._watch)
            return self._align_with_barycenters(views)

    def _align_with_barycenters(self, views: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        count = views.shape[0]
        if self.barycenter == "leave_one_out":
            # Not total - view: views may differ much in size.
            others = [torch.cat([views[:place], views[place + 1 :]]) for place in range(count)]
            barycenters = torch.stack([other.mean(0) for other in others])
        else:
            barycenters = views.mean(0).expand_as(views)
        graphs = torch.cat([views, barycenters])
        edges = knn_graph(graphs, self.k).edges
        nodes = self.message_passing(graphs, edges)
        features = edge_features(nodes, edges)
        nodes = F.normalize(nodes, dim=-1)
        unary = self._watch(-torch.matmul(nodes[:count], nodes[count:].transpose(1, 2)))
        quadratic = -self.edge_weight * torch.matmul(features[:count], features[count:].transpose(1, 2))
        matching, _ = self.layer(unary, quadratic, edges[:count], edges[count:])
        target = (_equal_rows(views) | _equal_rows(barycenters)).to(matching.dtype)
        return hamming_loss(matching, target), matching, target

    def _watch(self, unary_costs: Tensor) -> Tensor:
        """Notes during the backward pass whether the matchings sent any gradient."""
        if unary_costs.requires_grad and not torch.compiler.is_compiling():
            unary_costs.register_hook(self._note_gradient)
        return unary_costs

    def _note_gradient(self, gradient: Tensor) -> None:
        self.zero_gradient = (gradient == 0).all()

    def _largest_gap(self, loss: Tensor) -> Tensor:
        result = self.layer.result
        if self.released is not None:
            result = self.released.result
        if result is None or result.gap.numel() == 0:
            return torch.zeros((), dtype=torch.float64, device=loss.device)
        return result.gap.max()


def _equal_rows(views: Tensor) -> Tensor:
    """Returns bool (K, N, N): whether rows i and j of a view (K, N, d) are the same up to rounding."""
    rows = views.detach()
    distance = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    own = torch.eye(views.shape[1], dtype=torch.bool, device=views.device)
    return own | (distance <= _SAME * rows.norm(dim=-1, keepdim=True))
