"""The gradient of matchings through an entropic relaxation at a solution, as a PyTorch operator.

An operator because Sinkhorn's iteration looks at its convergence, which tracing and vmap could not follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from graphmatch.gradients.base import along, overflowed
from graphmatch.matching_kinds import KINDS
from graphmatch.matching_ops import fold, unfold
from graphmatch.sinkhorn import entropic_plan

# Of the iteration; as those of `Sinkhorn`.
_MAX_ITERATIONS = 1000
_TOLERANCE = 1e-6

_library = torch.library.Library("graphmatch", "FRAGMENT")
_library.define(
    "matching_relaxed(Tensor[] costs, Tensor matching, Tensor?[] context, Tensor?[] upstream, str kind, "
    "float? unmatched_cost, float temperature) -> Tensor[]",
    tags=torch.Tag.pt2_compliant_tag,
)


def relaxed_solutions(
    costs: Sequence[Tensor],
    matching: Tensor,
    context: Sequence[Tensor | None],
    kind: str,
    unmatched_cost: float | None,
    temperature: float,
) -> list[Tensor]:
    """Returns the soft matching at a hard one, and what it pays of the other costs; differentiable in the costs.

    Args:
        costs: (b, ...) float32 or float64 with zero padding.
        matching: (b, n1, n2) 0/1, where the objective is linearised.
        context: edges1, edges2 and sizes first, None where there are none.
        kind: "linear", "lawler" or "dense".
        unmatched_cost: As in the problem classes.
        temperature: In units of the costs.
    """
    extent = KINDS[kind].extent(0, context[2])
    batch, n1, n2 = costs[0].shape
    full = torch.tensor([n1, n2], device=costs[0].device).expand(batch, 2) if extent is None else extent

    def soft(slopes: Tensor) -> Tensor:
        counts = (full[:, 0], full[:, 1])
        plan = entropic_plan(slopes, counts, unmatched_cost, temperature, _MAX_ITERATIONS, _TOLERANCE, "implicit")
        return plan.matching

    if kind == "linear":
        return [soft(costs[0])]
    if kind == "dense":
        linear, flow, distance = costs
        there, back = flow @ matching @ distance.mT, flow.mT @ matching @ distance
        plan = soft(linear + there + back)
        return [plan, plan @ distance @ plan.mT, plan.mT @ flow @ plan]
    edges1, edges2 = context[:2]
    if edges1 is None or edges2 is None:
        raise ValueError("matching: edges1 and edges2 must be given; got None. Pass those of the problem.")
    tails, heads = (edges1[..., 0], edges2[..., 0]), (edges1[..., 1], edges2[..., 1])
    loops = (edges1[..., 0] == edges1[..., 1])[:, :, None], (edges2[..., 0] == edges2[..., 1])[:, None, :]
    # A loop is paid by one assignment, and no loop is mapped onto an edge that is none.
    single = (loops[0] & loops[1]).to(matching.dtype)
    double = (~loops[0] & ~loops[1]).to(matching.dtype)
    unary, quadratic = costs
    at_tails, at_heads = _spread(matching, *tails), _spread(matching, *heads)
    slopes = unary + _gathered(quadratic * (double * at_heads + single), *tails, unary)
    plan = soft(slopes + _gathered(quadratic * double * at_tails, *heads, unary))
    soft_tails, soft_heads = _spread(plan, *tails), _spread(plan, *heads)
    return [plan, double * soft_tails * soft_heads + single * soft_tails]


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
    context = [_real_edges(edges, context[2], place) for place, edges in enumerate(context[:2])] + context[2:]
    with torch.enable_grad():
        real = [torch.where(mask, cost.detach(), 0).requires_grad_() for mask, cost in zip(inside, costs, strict=True)]
        soft = relaxed_solutions(real, matching.detach(), context, kind, unmatched_cost, temperature)
        pairs = [(y, g) for y, g in zip(soft, upstream, strict=True) if g is not None]
        # Where the upstream gradient is not finite, products with zeros would be neither.
        total = torch.stack([(y * torch.where(torch.isfinite(g), g, 0)).sum() for y, g in pairs]).sum()
        found = torch.autograd.grad(total, real, allow_unused=True)
    bad = overflowed(tuple(upstream))
    # A problem without a solution has none that a change of costs could change.
    hopeless = (matching.sum((1, 2)) == 0) & (unmatched_cost is None)
    gradients = []
    for cost, gradient, mask in zip(real, found, inside, strict=True):
        kept = mask & (cost != torch.inf) & ~along(hopeless, cost)
        known = torch.zeros_like(cost) if gradient is None else torch.where(kept, gradient, 0)
        gradients.append(torch.where(along(bad, cost) & mask, torch.nan, known).detach())
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
