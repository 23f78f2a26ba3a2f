"""The gradient of matchings through an entropic relaxation at a solution, as a PyTorch operator.

An operator because Sinkhorn's iteration looks at its convergence, which tracing and vmap could not follow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graphmatch.gradients.base import along, overflowed
from graphmatch.matching_kinds import KINDS
from graphmatch.matching_ops import fold, unfold
from graphmatch.sinkhorn import Plan, costs_gradient, entropic_plan

# Of the iteration; as those of `Sinkhorn`.
_MAX_ITERATIONS = 1000
_TOLERANCE = 1e-6

_library = torch.library.Library("graphmatch", "FRAGMENT")
_library.define(
    "matching_relaxed(Tensor[] costs, Tensor matching, Tensor?[] context, Tensor?[] upstream, str kind, "
    "float? unmatched_cost, float temperature) -> Tensor[]",
    tags=torch.Tag.pt2_compliant_tag,
)


@dataclass(frozen=True, eq=False)
class _Relaxation:
    """The Sinkhorn relaxation of a batch: plans for costs (b, n1, n2), and the gradients of what depends on them."""

    extent: Tensor | None
    unmatched_cost: float | None
    temperature: float

    def plan(self, costs: Tensor) -> Plan:
        batch, n1, n2 = costs.shape
        if self.extent is None:
            count1, count2 = (torch.full((), n, device=costs.device).expand(batch) for n in (n1, n2))
        else:
            count1, count2 = self.extent[:, 0], self.extent[:, 1]
        counts = (count1, count2)
        limits = (_MAX_ITERATIONS, _TOLERANCE)
        return entropic_plan(costs, counts, self.unmatched_cost, self.temperature, *limits, gradient="implicit")

    def gradient(self, plan: Plan, upstream: Tensor) -> Tensor:
        return costs_gradient(plan, upstream, self.unmatched_cost, self.temperature)


def _linear_gradients(relaxation: _Relaxation, costs: list[Tensor], upstream: list[Tensor]) -> list[Tensor]:
    return [relaxation.gradient(relaxation.plan(costs[0]), upstream[0])]


def _lawler_gradients(
    relaxation: _Relaxation, costs: list[Tensor], upstream: list[Tensor], hard: Tensor, edges1: Tensor, edges2: Tensor
) -> list[Tensor]:
    tails, heads = (edges1[..., 0], edges2[..., 0]), (edges1[..., 1], edges2[..., 1])
    unary, quadratic = costs
    by_tails, by_heads = shares_of_ends(hard, edges1, edges2)
    slopes = lawler_slopes(unary, quadratic, (by_tails, by_heads), edges1, edges2)
    plan = relaxation.plan(slopes)
    soft = shares_of_ends(plan.matching, edges1, edges2)
    inner = relaxation.gradient(plan, lawler_slopes(upstream[0], upstream[1], soft, edges1, edges2))
    return [inner, by_tails * _spread(inner, *tails) + by_heads * _spread(inner, *heads)]


def shares_of_ends(matching: Tensor, edges1: Tensor, edges2: Tensor) -> tuple[Tensor, Tensor]:
    """Returns what a matching pays of each pair of edges per match of their tails, and per match of their heads.

    The pairs paid are double * P[tails] * P[heads] + single * P[tails]; both results are (b, e1, e2).
    """
    tails, heads = (edges1[..., 0], edges2[..., 0]), (edges1[..., 1], edges2[..., 1])
    loops1, loops2 = (edges[..., 0] == edges[..., 1] for edges in (edges1, edges2))
    # A loop is paid by one assignment, and no loop is mapped onto an edge that is none.
    single = (loops1[:, :, None] & loops2[:, None, :]).to(matching.dtype)
    double = (~loops1[:, :, None] & ~loops2[:, None, :]).to(matching.dtype)
    return double * _spread(matching, *heads) + single, double * _spread(matching, *tails)


def lawler_slopes(
    unary: Tensor, quadratic: Tensor, shares: tuple[Tensor, Tensor], edges1: Tensor, edges2: Tensor
) -> Tensor:
    """Returns the slopes (b, n1, n2) of the costs of a soft matching whose `shares_of_ends` are given."""
    by_tails, by_heads = shares
    slopes = unary + _gathered(quadratic * by_tails, edges1[..., 0], edges2[..., 0], unary)
    return slopes + _gathered(quadratic * by_heads, edges1[..., 1], edges2[..., 1], unary)


def _dense_gradients(
    relaxation: _Relaxation, costs: list[Tensor], upstream: list[Tensor], hard: Tensor
) -> list[Tensor]:
    linear, flow, distance = costs
    plan = relaxation.plan(linear + flow @ hard @ distance.mT + flow.mT @ hard @ distance)
    soft = plan.matching
    # The solutions are P, P distance P' and P' flow P.
    first, second, third = upstream
    first = first + second @ soft @ distance.mT + second.mT @ soft @ distance
    first = first + flow @ soft @ third.mT + flow.mT @ soft @ third
    inner = relaxation.gradient(plan, first)
    return [
        inner,
        inner @ distance @ hard.mT + hard @ distance @ inner.mT,
        inner.mT @ flow @ hard + hard.mT @ flow @ inner,
    ]


def _spread(matching: Tensor, nodes1: Tensor, nodes2: Tensor) -> Tensor:
    """Returns matching[nodes1[e], nodes2[f]] of each pair of edges, (b, e1, e2)."""
    rows = matching.gather(1, nodes1[:, :, None].expand(-1, -1, matching.shape[2]))
    return rows.gather(2, nodes2[:, None, :].expand(-1, rows.shape[1], -1))


def _gathered(pairs: Tensor, nodes1: Tensor, nodes2: Tensor, like: Tensor) -> Tensor:
    """Returns the sums of pairs (b, e1, e2) at [nodes1[e], nodes2[f]], (b, n1, n2): the adjoint of `_spread`."""
    batch, n1, n2 = like.shape
    rows = pairs.new_zeros(batch, n1, pairs.shape[2]).scatter_add(1, nodes1[:, :, None].expand_as(pairs), pairs)
    return pairs.new_zeros(batch, n1, n2).scatter_add(2, nodes2[:, None, :].expand_as(rows), rows)


@torch.library.impl(_library, "matching_relaxed", "CompositeExplicitAutograd")
def _matching_relaxed(
    costs: list[Tensor],
    matching: Tensor,
    context: list[Tensor | None],
    upstream: list[Tensor | None],
    kind: str,
    unmatched_cost: float | None,
    temperature: float,
) -> list[Tensor]:
    """The gradients in the costs of <upstream, relaxed solutions>."""
    if 0 in matching.shape:
        return [torch.zeros_like(cost, memory_format=torch.contiguous_format) for cost in costs]
    inside = [_inside(cost, KINDS[kind].extent(place, context[2])) for place, cost in enumerate(costs)]
    edges = [_real_edges(each, context[2], place) for place, each in enumerate(context[:2])]
    real = [torch.where(mask, cost, 0) for mask, cost in zip(inside, costs, strict=True)]
    # Where the upstream gradient is not finite, products with zeros would be neither.
    given = [
        torch.zeros_like(cost) if g is None else torch.where(mask & torch.isfinite(g), g, 0)
        for cost, g, mask in zip(real, upstream, inside, strict=True)
    ]
    relaxation = _Relaxation(KINDS[kind].extent(0, context[2]), unmatched_cost, temperature)
    edges1, edges2 = edges
    if kind == "linear":
        found = _linear_gradients(relaxation, real, given)
    elif kind == "dense":
        found = _dense_gradients(relaxation, real, given, matching)
    elif edges1 is None or edges2 is None:
        raise ValueError("matching: edges1 and edges2 must be given; got None. Pass those of the problem.")
    else:
        found = _lawler_gradients(relaxation, real, given, matching, edges1, edges2)
    bad = overflowed(tuple(upstream))
    # A problem without a solution has none that a change of costs could change.
    hopeless = (matching.sum((1, 2)) == 0) & (unmatched_cost is None)
    gradients = []
    for cost, gradient, mask in zip(real, found, inside, strict=True):
        kept = mask & (cost != torch.inf) & ~along(hopeless, cost)
        known = torch.where(kept, gradient, 0)
        gradients.append(torch.where(along(bad, cost) & mask, torch.nan, known))
    return gradients


def _inside(like: Tensor, extent: Tensor | None) -> Tensor:
    if extent is None:
        return torch.ones_like(like, dtype=torch.bool)
    rows = torch.arange(like.shape[1], device=like.device) < extent[:, 0, None]
    columns = torch.arange(like.shape[2], device=like.device) < extent[:, 1, None]
    return rows[:, :, None] & columns[:, None, :]


def _real_edges(edges: Tensor | None, sizes: Tensor | None, place: int) -> Tensor | None:
    """Returns edges whose padding, which may hold anything, joins node 0 to itself."""
    if edges is None or sizes is None:
        return edges
    real = torch.arange(edges.shape[1], device=edges.device) < sizes[:, 2 + place, None]
    return torch.where(real[..., None], edges, 0)


@torch.library.register_fake("graphmatch::matching_relaxed", lib=_library)
def _matching_relaxed_fake(costs: list[Tensor], *rest: Any) -> list[Tensor]:
    return [torch.empty_like(cost, memory_format=torch.contiguous_format) for cost in costs]


def _matching_relaxed_vmap(
    info: Any, dims: Any, costs: Any, matching: Any, context: Any, upstream: Any, *call: Any
) -> tuple[list[Tensor], list[int]]:
    folded = [fold(info, each, dim) for each, dim in zip((costs, matching, context, upstream), dims[:4], strict=True)]
    outputs = torch.ops.graphmatch.matching_relaxed(*folded, *call)
    return unfold(info, outputs, [0] * len(outputs))


torch.library.register_vmap("graphmatch::matching_relaxed", _matching_relaxed_vmap, lib=_library)
