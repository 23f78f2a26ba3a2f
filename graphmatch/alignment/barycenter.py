"""Alignment of several views of the same samples through their barycenters: the ExGra loss as a plain module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from graphmatch import _check
from graphmatch.alignment.base import Aligned, Directions, ViewAlignment
from graphmatch.alignment.graphs import (
    GraphBatch,
    composed,
    distances_of,
    equal_groups,
    equal_rows,
    padded,
    real_first,
)
from graphmatch.alignment.views import Views
from graphmatch.gradients import GradientEstimator
from graphmatch.released import ReleasedRecipe
from graphmatch.result import MatchResult
from graphmatch.solvers import Solver


class BarycenterAlignment(ViewAlignment):
    """Aligns the graphs of m views of N samples with their barycenters by the Hamming loss to the true matches.

    Row i of every view describes sample i, unless labels say otherwise; samples with the same row or group in a view
    (the same text, the same image) may take each other's place. Each view is a graph: samples are nodes, edges lead to
    the k nearest neighbours, two graph convolutions shared by all graphs pass messages. Each view is matched with the
    barycenter of the other views by a quadratic assignment problem with costs
        unary = -cosine of node features, quadratic = -edge_weight * inner product of unit edge features,
    and the m problems are solved in one call, in float32 whatever autocast says. The loss is differentiable by an
    estimator in all views and parameters.

    The barycenter's nodes are the samples that at least one of its views has, each the mean over the views that have
    it. A row of a view has a target if its sample is among them; other rows do not count, unless `unmatched_cost`
    allows them to stay unmatched: then it is an error to match them.

    With "leave_one_out" a view is matched with the mean of the *other* views. With "mean", as in the paper, the
    barycenter contains the view itself, which then matches it almost for free and stops teaching early.

    Args:
        dim: Length d of the node features.
        k: Neighbours per node.
        barycenter: "leave_one_out" or "mean".
        solver: Any solver for Lawler problems; None takes `Portfolio(max_gap=1e-3, effort=0.02, max_iterations=5)`:
            hasty, and on a GPU where the views are. Where graphmatch was built without its CUDA module it has
            `on_cpu=True` and copies the costs to the CPU.
        gradient: Any gradient estimator; None takes `IMLE(step=3.0, noise_scale=0.3)`: the noise asks for a margin, so
            that matchings that are barely right still teach.
        edge_weight: Weight of the edges in the cost; 0.5 lets both directions of an edge count once.
        dropout: Dropout between the convolutions.
        residual: Add the message passing to the node features instead of replacing them; the paper replaces.
        weights: A weight of at least 0 for each view in the barycenters; None = all weigh the same. Views without
            weight are matched as well.
        directions: "forward" matches views with barycenters; "both" solves the problems from barycenters to views as
            well, 2 m in all, and takes the mean.
        unmatched_cost: None = each problem matches as many nodes as the smaller graph has; a number = cost of each node
            on the left that stays unmatched.
        margin: While training, added to the costs of right matches: others win unless they cost more by this much for
            each node that they match wrongly. So matchings that are barely right still teach, with any estimator. In
            units of cosines; 0 adds nothing.
        legacy: The released training recipe of ExGra-Med in all its details, for comparison; see `ReleasedRecipe`. It
            fixes all other options but `dim`, `k` and `dropout`, and takes whole views only.

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

        The second view in another order, and a sample that the third one lacks:

        >>> image, text, extended = (view.detach() for view in views)
        >>> order = torch.tensor([3, 1, 0, 2, 7, 6, 5, 4])
        >>> labels = torch.stack([torch.arange(8), order, torch.arange(8)])
        >>> mask = torch.ones(3, 8, dtype=torch.bool)
        >>> mask[2, 5] = False
        >>> alignment = gm.BarycenterAlignment(dim=16, weights=[1, 2, 1])
        >>> alignment(image, image[order], image, mask=mask, labels=labels) < 0.5
        tensor(True)
    """

    graphs_in_halves = True

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
        weights: Sequence[float] | None = None,
        directions: Directions = "forward",
        unmatched_cost: float | None = None,
        margin: float = 0.0,
    ) -> None:
        where = "BarycenterAlignment"
        if barycenter not in ("leave_one_out", "mean"):
            rule = "be 'leave_one_out' or 'mean'"
            raise ValueError(_check.message(where, "barycenter", rule, repr(barycenter), "Pick one."))
        if legacy and (solver is not None or gradient is not None):
            rule, received = "be left out with legacy=True, which has its own", f"solver={solver}, gradient={gradient}"
            raise ValueError(_check.message(where, "solver and gradient", rule, received, "Drop them or legacy."))
        if legacy and (weights is not None or directions != "forward" or unmatched_cost is not None or margin):
            rule = "be left out with legacy=True, which has its own"
            received = f"weights={weights}, directions={directions!r}, unmatched_cost={unmatched_cost}, margin={margin}"
            names = "weights, directions, unmatched_cost and margin"
            raise ValueError(_check.message(where, names, rule, received, "Drop them or legacy."))
        super().__init__(
            dim,
            k,
            solver,
            gradient,
            edge_weight,
            dropout,
            residual and not legacy,
            directions,
            unmatched_cost,
            margin,
        )
        self.barycenter = barycenter
        self.weights = None if weights is None else _checked_weights(weights, barycenter)
        self.released = ReleasedRecipe(k) if legacy else None

    def _checked(
        self, views: tuple[Tensor, ...], mask: Tensor | None, labels: Tensor | None, groups: Tensor | None
    ) -> Views:
        where = "BarycenterAlignment"
        options = {"mask": mask, "labels": labels, "groups": groups}
        given = [name for name, value in options.items() if value is not None]
        if self.released is not None and given:
            names, rule = "mask, labels and groups", "be left out with legacy=True"
            raise ValueError(_check.message(where, names, rule, given, "The released recipe takes whole views."))
        if self.weights is not None and len(views) != len(self.weights):
            rule = f"be {len(self.weights)} tensors, as the weights"
            raise ValueError(_check.message(where, "views", rule, len(views), "Give each view a weight."))
        return super()._checked(views, mask, labels, groups)

    def _align(self, views: Views) -> Aligned:
        if self.released is None:
            return super()._align(views)
        with torch.autocast(device_type=views.nodes.device.type, enabled=False):
            return Aligned(*self.released.align(views.nodes, self.message_passing, self._watch))

    def _problems(self, views: Views) -> tuple[GraphBatch, Tensor, Tensor]:
        """Returns the graphs of the views and, after them, the barycenter of each."""
        left = torch.arange(len(views.nodes), device=views.nodes.device)
        graphs = self._whole(views) if views.elements is None else self._partial(views, views.elements)
        return graphs, left, left + len(left)

    def _partial(self, views: Views, elements: Tensor) -> GraphBatch:
        """Returns the graphs of views that lack samples, or have them in different orders, and their barycenters."""
        both = (views.graphs(), self._partial_barycenters(views, elements))
        counts = torch.cat([each.counts for each in both if each.counts is not None])
        size = int(counts.max())
        return GraphBatch(
            torch.cat([padded(each.nodes, size) for each in both]),
            torch.cat([_padded_square(each.distances, size) for each in both]),
            torch.cat([_padded_square(each.same, size) for each in both]),
            counts,
            torch.cat([padded(each.elements, size, -1) for each in both if each.elements is not None]),
        )

    def _accepted(self, graphs: GraphBatch, left: Tensor, right: Tensor) -> Tensor:
        """A node may take the place of one that its view, or the barycenter, cannot tell from it."""
        if graphs.elements is None:
            return graphs.same[left] | graphs.same[right]
        direct = graphs.counterparts(left, right)
        return composed(graphs.same[left], direct) | composed(direct, graphs.same[right])

    def _whole(self, views: Views) -> GraphBatch:
        """Returns the graphs of whole views and their barycenters."""
        nodes = torch.cat([views.nodes, self._barycenters(views.nodes)])
        distances = distances_of(nodes)
        same = equal_rows(nodes, distances)
        if views.groups is not None:
            in_all = self._equal_in_all(views.groups, views.groups >= -1)
            same = same | torch.cat([equal_groups(views.groups), in_all])
        return GraphBatch(nodes, distances, same)

    def _barycenters(self, nodes: Tensor) -> Tensor:
        """Returns the barycenters (m, N, d) of whole views."""
        if self.weights is not None:
            everywhere = torch.ones(nodes.shape[:2], dtype=torch.bool, device=nodes.device)
            means, _ = self._means(nodes, everywhere)
            return means
        if self.barycenter == "mean":
            return nodes.mean(0).expand_as(nodes)
        # Not total - view: views may differ much in size.
        return torch.stack([nodes.roll(shift, 0) for shift in range(1, len(nodes))]).mean(0)

    def _partial_barycenters(self, views: Views, elements: Tensor) -> GraphBatch:
        """Returns the barycenters of views that lack samples, or have them in different orders."""
        nodes, universe = views.nodes, views.universe
        # Row of each element in each view, by way of an extra element for rows that stand for none.
        rows = torch.arange(nodes.shape[1], device=nodes.device).expand_as(elements)
        row_of = elements.new_full((len(nodes), universe + 1), -1)
        row_of = row_of.scatter(1, torch.where(elements >= 0, elements, universe), rows)[:, :universe]
        present, row_of = row_of >= 0, row_of.clamp(min=0)
        values = nodes.gather(1, row_of[:, :, None].expand(-1, -1, nodes.shape[2]))
        means, exists = self._means(torch.where(present[:, :, None], values, 0), present)
        order = real_first(exists)
        counts = exists.sum(1)
        means = means.gather(1, order[:, :, None].expand_as(means))
        distances = distances_of(means)
        same = equal_rows(means, distances)
        if views.groups is not None:
            groups = torch.where(present, views.groups.gather(1, row_of), -1)
            equal = self._equal_in_all(groups, present).gather(1, order[:, :, None].expand_as(same))
            same = same | equal.gather(2, order[:, None, :].expand_as(same))
        return GraphBatch(means, distances, same, counts, torch.where(exists.gather(1, order), order, -1))

    def _shares(self, like: Tensor) -> Tensor:
        """Returns the weight of each view in the barycenter of each, (m, m)."""
        count = len(like)
        weights = (1.0,) * count if self.weights is None else self.weights
        shares = torch.stack([like.new_full((), weight) for weight in weights]).expand(count, count)
        if self.barycenter == "leave_one_out":
            shares = shares * (1 - torch.eye(count, dtype=like.dtype, device=like.device))
        return shares

    def _means(self, values: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the weighted means (m, U, d) of values (m, U, d) where they are present, and which exist, (m, U)."""
        shares = self._shares(values)[:, :, None] * present
        total = shares.sum(1)
        shares = shares / torch.where(total > 0, total, 1)[:, None, :]
        return torch.einsum("cvu,vud->cud", shares, values), total > 0

    def _equal_in_all(self, groups: Tensor, present: Tensor) -> Tensor:
        """Returns bool (m, U, U): elements that the same views of a barycenter have, in the same groups (m, U)."""
        absent = ~present
        equal = equal_groups(groups) | (absent[:, :, None] & absent[:, None, :])
        used = self._shares(groups.double()) > 0
        return torch.stack([(equal | ~each[:, None, None]).all(0) for each in used])

    def _last_result(self) -> MatchResult | None:
        return super()._last_result() if self.released is None else self.released.result


def _padded_square(values: Tensor, size: int) -> Tensor:
    return padded(padded(values, size).mT, size).mT


def _checked_weights(weights: Sequence[float], barycenter: str) -> tuple[float, ...]:
    where = "BarycenterAlignment"
    values = tuple(float(weight) for weight in weights)
    if not all(0 <= value < float("inf") for value in values):
        cure = "0 leaves a view out of the barycenters."
        raise ValueError(_check.message(where, "weights", "be finite and at least 0", values, cure))
    needed = 2 if barycenter == "leave_one_out" else 1
    if sum(value > 0 for value in values) < needed:
        rule = f"be positive for at least {needed} view{'s' if needed > 1 else ''}"
        raise ValueError(_check.message(where, "weights", rule, values, "Every barycenter needs a view."))
    largest = max(values)
    return tuple(value / largest for value in values)
