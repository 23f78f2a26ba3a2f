"""From real-valued scores to matchings, by linear assignment."""

from __future__ import annotations

import torch
from torch import Tensor

from graphmatch import _ops
from graphmatch.problem import LawlerProblem, LinearProblem
from graphmatch.solvers.call import host_costs, thread_count

# Scores that differ by less are ties: what rounding errors make of equal scores does not decide.
_SCORE_BITS = {torch.float32: 16, torch.float64: 30}


def power_of_two(values: Tensor) -> Tensor:
    """Returns the least power of two above each non-negative value, float64; 1 for zero."""
    values = values.double()
    return torch.where(values > 0, values / torch.frexp(values).mantissa, 1.0)


def quantised(values: Tensor, scale: Tensor, bits: int) -> Tensor:
    """Returns float64 values (b, ...) as multiples of 2^-bits times the power of two above scale (b,)."""
    unit = power_of_two(scale).view(-1, *[1] * (values.ndim - 1)) * 2.0**-bits
    unit = unit.clamp(min=5e-324)  # that of the smallest numbers would be zero
    return (values.double() / unit).round() * unit


def real_nodes(problem: LinearProblem | LawlerProblem, costs: Tensor) -> Tensor:
    """Returns (b, n1, n2) bool: the pairs of nodes that are not padding."""
    count1, count2 = problem.node_counts()
    rows = torch.arange(costs.shape[1], device=costs.device) < count1[:, None]
    columns = torch.arange(costs.shape[2], device=costs.device) < count2[:, None]
    return rows[:, :, None] & columns[:, None, :]


def largest_cost(costs: Tensor) -> Tensor:
    """Returns the largest |cost| (b,) of costs (b, ...) without infinite ones; 0 where there are none."""
    return costs.abs().flatten(1).amax(1) if costs.numel() else costs.new_zeros(len(costs))


def closed(objective: Tensor, bound: Tensor, scale: Tensor, max_gap: float) -> Tensor:
    """Returns (b,) bool: whether the gap is at most max_gap, relative to |objective| or the scale (b,) of the costs."""
    return objective - bound <= max_gap * torch.maximum(objective.abs(), scale)


def best_matching(
    where: str, scores: Tensor, allowed: Tensor, problem: LinearProblem | LawlerProblem, on_cpu: bool
) -> tuple[Tensor, Tensor]:
    """Returns the assignment (b, n1) of the highest sum of scores, and its status (b,), on the device of the scores.

    Complete or partial as the problem; in partial ones only positive scores are worth a match. Exact, on the CPU: the
    scores of other devices are copied there if `on_cpu` allows it. Ties go to the lowest index.

    Args:
        where: Name of the solver, for errors.
        scores: (b, n1, n2) float32 or float64, finite where allowed.
        allowed: (b, n1, n2) bool.
        problem: Its sizes and whether it is partial count.
        on_cpu: Whether scores may be copied to the CPU.
    """
    bits = _SCORE_BITS[scores.dtype]
    scores = torch.where(allowed, scores, 0)
    costs = torch.where(allowed, -quantised(scores, largest_cost(scores), bits), torch.inf)
    sizes = torch.stack(problem.node_counts(), dim=1).cpu()
    partial = None if problem.unmatched_cost is None else 0.0
    answers = _ops.linear_assignment(host_costs(where, costs, on_cpu), sizes, partial, thread_count(where, None))
    return answers[0].to(scores.device), answers[3].to(scores.device)
