"""Ragged batches: problems of different sizes padded into one."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, overload

import torch
from torch import Tensor

from graphmatch import _check
from graphmatch.problem import LawlerProblem, LinearProblem, made_of


def _pad_and_stack(tensors: Sequence[Tensor]) -> Tensor:
    """Stacks tensors (a, ...) of unequal trailing shapes into one, padded with zeros, along the batch axis."""
    shapes = [tuple(tensor.shape[1:]) for tensor in tensors]
    if len(set(shapes)) == 1:
        return torch.cat(list(tensors))
    shape = [max(extents) for extents in zip(*shapes, strict=True)]
    batch = sum(tensor.shape[0] for tensor in tensors)
    cure = "All problems are padded to the largest: stack those of similar sizes."
    _check.memory("stack_problems", batch * prod(shape) * tensors[0].element_size(), cure, tensors[0].device)
    stacked = tensors[0].new_zeros(batch, *shape)
    start = 0
    for tensor in tensors:
        inside = tuple(slice(0, extent) for extent in tuple(tensor.shape[1:]))
        region = (slice(start, start + tensor.shape[0]), *inside)
        stacked[region] = tensor
        start += tensor.shape[0]
    return stacked


def _full_sizes(sizes: Tensor | None, *costs: Tensor) -> Tensor:
    """Returns the sizes of a problem batch, written out where the problems fill it."""
    if sizes is not None:
        return sizes
    extents = [extent for cost in costs for extent in tuple(cost.shape[1:])]
    return torch.tensor(extents, device=costs[0].device).expand(costs[0].shape[0], len(extents))


@overload
def stack_problems(problems: Sequence[LinearProblem]) -> LinearProblem: ...
@overload
def stack_problems(problems: Sequence[LawlerProblem]) -> LawlerProblem: ...
def stack_problems(problems: Sequence[Any]) -> LinearProblem | LawlerProblem:
    """Returns one padded batch of all problems, in order; gradients flow back to each.

    Args:
        problems: One or more problems of the same kind, dtype, device and unmatched_cost; each may be a batch itself.

    Raises:
        TypeError, ValueError: If the list is empty or mixes kinds, dtypes or unmatched costs.

    Example:
        >>> import torch, graphmatch as gm
        >>> batch = gm.stack_problems([gm.LinearProblem(torch.rand(1, n, n)) for n in (2, 5)])
        >>> batch.sizes
        tensor([[2, 2],
                [5, 5]])
        >>> gm.solve(batch).assignment[0, 2:]
        tensor([-1, -1, -1])
    """
    where = "stack_problems"
    if not problems:
        raise ValueError(
            _check.message(where, "problems", "hold at least one problem", "none", "Skip the empty batch.")
        )
    first = problems[0]
    if not isinstance(first, LinearProblem | LawlerProblem):
        raise TypeError(
            _check.message(
                where, "problems", "be LinearProblem or LawlerProblem", type(first).__name__, "Convert them."
            )
        )
    signature = _signature(first)
    for other in problems[1:]:
        if _signature(other) != signature:
            received = f"{signature} and {_signature(other)}"
            rule = "share kind, dtype, device and unmatched_cost"
            raise ValueError(_check.message(where, "problems", rule, received, "Stack them separately."))
    if isinstance(first, LinearProblem):
        sizes = torch.cat([_full_sizes(problem.sizes, problem.costs) for problem in problems])
        costs = _pad_and_stack([problem.costs for problem in problems])
        return made_of(LinearProblem, costs=costs, sizes=sizes, unmatched_cost=first.unmatched_cost)
    sizes = torch.cat(
        [_full_sizes(problem.sizes, problem.unary_costs, problem.quadratic_costs) for problem in problems]
    )
    # What each of them was checked for holds for all.
    tensors = {
        name: _pad_and_stack([getattr(problem, name) for problem in problems])
        for name in ("unary_costs", "quadratic_costs", "edges1", "edges2")
    }
    return made_of(LawlerProblem, **tensors, sizes=sizes, unmatched_cost=first.unmatched_cost)


def _signature(problem: LinearProblem | LawlerProblem) -> tuple[str, torch.dtype, str, float | None]:
    """Returns what problems of one batch must share."""
    costs = problem.costs if isinstance(problem, LinearProblem) else problem.unary_costs
    return type(problem).__name__, costs.dtype, str(costs.device), problem.unmatched_cost
