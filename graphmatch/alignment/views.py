"""Views of the same samples: checked, without what is absent, with the elements that their rows stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graphmatch import _check, _device
from graphmatch.affinity import cosine_affinity
from graphmatch.alignment.graphs import (
    GraphBatch,
    composed,
    counterparts,
    distances_of,
    equal_groups,
    equal_rows,
    padded,
    real_first,
)
from graphmatch.losses import retrieval_accuracy

# Larger values have squares that float32 cannot add up: all directions would vanish, and with them the loss.
_LARGEST_VALUE = 1e16


@dataclass(frozen=True, eq=False)
class Views:
    """Views of samples, real rows first.

    Attributes:
        nodes: (m, n, d) float32 or float64; zero in padding.
        universe: Number of elements that rows stand for.
        counts: (m,) int64, real rows; None = all.
        elements: (m, n) int64 in [0, universe), distinct within a view, -1 = none or padding; None = row i
            is element i.
        groups: (m, n) int64, rows of a view with one number may take each other's place; -1 = in no group.
    """

    nodes: Tensor
    universe: int
    counts: Tensor | None = None
    elements: Tensor | None = None
    groups: Tensor | None = None

    def graphs(self) -> GraphBatch:
        """Returns the views as graphs."""
        distances = distances_of(self.nodes)
        same = equal_rows(self.nodes, distances)
        if self.groups is not None:
            same = same | equal_groups(self.groups)
        return GraphBatch(self.nodes, distances, same, self.counts, self.elements)

    def retrieval(self) -> Tensor:
        """Returns the top-1 retrieval between views, mean over ordered pairs; NaN without rows that have a counterpart.

        The share of rows with a counterpart whose nearest row of the other view by cosine is that counterpart, or in
        its group.
        """
        pairs = [(a, b) for a in range(len(self.nodes)) for b in range(len(self.nodes)) if a != b]
        if self.elements is None and self.groups is None:
            return torch.stack([retrieval_accuracy(self.nodes[a], self.nodes[b]) for a, b in pairs]).mean()
        nodes = self.nodes.detach()
        others = len(nodes) - 1
        pair = torch.arange(len(pairs), device=nodes.device)
        left, right = pair // others, pair % others
        right = right + (right >= left)
        same = torch.eye(nodes.shape[1], dtype=torch.bool, device=nodes.device).expand(len(nodes), -1, -1)
        if self.groups is not None:
            same = same | equal_groups(self.groups)
        direct = counterparts(self.elements, left, right, same)
        accepted = composed(composed(same[left], direct), same[right])
        cosines = cosine_affinity(nodes[left], nodes[right])
        if self.counts is not None:
            real = torch.arange(nodes.shape[1], device=nodes.device) < self.counts[right, None]
            cosines = cosines.masked_fill(~real[:, None, :], -torch.inf)
        if nodes.shape[1] == 0:
            return torch.full((), torch.nan, device=nodes.device)
        hits = accepted.gather(2, cosines.argmax(2, keepdim=True))[:, :, 0]
        return (hits.sum(1) / accepted.any(2).sum(1)).nanmean()


def checked_views(
    where: str,
    views: Sequence[Tensor],
    dim: int,
    mask: Tensor | None = None,
    labels: Tensor | None = None,
    groups: Tensor | None = None,
) -> Views:
    """Returns the views in float32 (float64 stays); see `ViewAlignment.forward` for the arguments."""
    if len(views) < 2:
        raise ValueError(_check.message(where, "views", "be at least 2 tensors", len(views), "Pass each view."))
    for place, view in enumerate(views):
        _check.floating(where, f"view {place}", _check.tensor(where, f"view {place}", view, 2, "(N, d)"))
        _check.shape(where, f"view {place}", view, (views[0].shape[0], dim), "samples of view 0, dim")
    shape = (len(views), views[0].shape[0])
    options = {"mask": mask, "labels": labels, "groups": groups}
    given = {name: option for name, option in options.items() if option is not None}
    _check_options(where, shape, given)
    _check.same_device(where, {**{f"view {place}": view for place, view in enumerate(views)}, **given})
    kind = torch.float64 if all(view.dtype == torch.float64 for view in views) else torch.float32
    if mask is not None:
        mask = mask.expand(shape)
        # Neither values nor gradients of what is absent pass here.
        views = [torch.where(present[:, None], view, 0) for view, present in zip(views, mask, strict=True)]
    largest = _check.LARGEST_COST if kind == torch.float64 else _LARGEST_VALUE
    cure = "Look for a division by zero or an overflow upstream, or scale all views alike."
    for place, view in enumerate(views):
        _check.costs(where, f"view {place}", view.detach(), False, largest, cure)
    nodes = torch.stack([view.to(kind) for view in views])
    groups = None if groups is None else groups.expand(shape)
    if mask is None and labels is None:
        return Views(nodes, shape[1], groups=groups)
    return _without_absent(where, nodes, mask, labels, groups)


def _check_options(where: str, shape: tuple[int, int], given: dict[str, Tensor]) -> None:
    for name, value in given.items():
        (_check.boolean if name == "mask" else _check.integer)(where, name, value)
        per_view = name == "labels" or (name == "groups" and "labels" in given)
        allowed = [shape] if per_view else [shape, shape[1:]]
        if tuple(value.shape) not in allowed:
            rule = "have shape " + " or ".join(str(each) for each in allowed)
            raise ValueError(_check.message(where, name, rule, tuple(value.shape), "Give an entry per view and row."))
        if name == "mask" or value.numel() == 0 or _device.resident(value):
            continue
        if int(value.min()) < -1:
            raise ValueError(_check.message(where, name, "be at least -1", int(value.min()), "-1 stands for none."))


def _without_absent(
    where: str, nodes: Tensor, mask: Tensor | None, labels: Tensor | None, groups: Tensor | None
) -> Views:
    """Returns the views without absent rows, and with labels renumbered from 0."""
    shape, device = nodes.shape[:2], nodes.device
    present = torch.ones(shape, dtype=torch.bool, device=device) if mask is None else mask
    names = torch.arange(shape[1], device=device).expand(shape) if labels is None else labels
    names = torch.where(present, names, -1)
    ordered = names.sort(dim=1).values
    repeated = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    if bool(repeated.any()):
        view, place = repeated.nonzero()[0].tolist()
        received = f"label {int(ordered[view, place])} twice in view {view}"
        cure = "Samples that may take each other's place have different labels and one group."
        raise ValueError(_check.message(where, "labels", "be distinct within a view", received, cure))
    known = names >= 0
    found, numbers = names[known].unique(return_inverse=True)
    elements = torch.full_like(names, -1).masked_scatter(known, numbers)
    counts = present.sum(1)
    order, count = real_first(present), int(counts.max())
    index = order[:, :, None].expand_as(nodes)
    return Views(
        padded(nodes.gather(1, index), count),
        len(found),
        counts,
        padded(elements.gather(1, order), count),
        None if groups is None else padded(torch.where(present, groups, -1).gather(1, order), count),
    )
