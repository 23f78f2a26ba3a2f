"""Objectives and noise in plain PyTorch: slow, obvious, on any device. The specification of the native code."""

from __future__ import annotations

import torch
from torch import Tensor

from graphmatch.problem import KoopmansBeckmannProblem, LawlerProblem, LinearProblem, Problem
from graphmatch.result import matching_matrix, paid_pair_matrix

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as int64, 2^64 / golden ratio
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def _shifted(value: Tensor, bits: int) -> Tensor:
    """Logical shift to the right; the one of int64 tensors copies the sign."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _hash(value: Tensor) -> Tensor:
    """One round of SplitMix64 (G. Steele et al., OOPSLA 2014): int64 to int64, wrapping."""
    value = value + _GOLDEN
    value = (value ^ _shifted(value, 30)) * _MIX_1
    value = (value ^ _shifted(value, 27)) * _MIX_2
    return value ^ _shifted(value, 31)


def _unmatched_total(assignment: Tensor, problem: LinearProblem | LawlerProblem) -> Tensor:
    if problem.unmatched_cost is None:
        return torch.zeros(assignment.shape[0], dtype=torch.float64, device=assignment.device)
    count1, _ = problem.node_counts()
    real = torch.arange(assignment.shape[1], device=assignment.device) < count1[:, None]
    return problem.unmatched_cost * ((assignment < 0) & real).sum(1).double()


def _paid(costs: Tensor, indicator: Tensor) -> Tensor:
    # Not a product: forbidden assignments cost infinity, and 0 * inf is not 0.
    return torch.where(indicator > 0, costs.double(), 0.0).flatten(1).sum(1)


def objective(problem: Problem, assignment: Tensor) -> Tensor:
    """Returns the objective (b,) float64 of assignments (b, n1) with -1 = unmatched.

    Example:
        >>> import torch, graphmatch as gm
        >>> objective(gm.LinearProblem(torch.tensor([[[4.0, 1.0], [2.0, 3.0]]])), torch.tensor([[1, 0]]))
        tensor([3.], dtype=torch.float64)
    """
    if isinstance(problem, LinearProblem):
        linear = _paid(problem.costs, matching_matrix(assignment, problem.costs))
        return linear + _unmatched_total(assignment, problem)
    if isinstance(problem, LawlerProblem):
        linear = _paid(problem.unary_costs, matching_matrix(assignment, problem.unary_costs))
        quadratic = _paid(problem.quadratic_costs, paid_pair_matrix(assignment, problem))
        return linear + quadratic + _unmatched_total(assignment, problem)
    return _koopmans_beckmann(problem, assignment)


def _koopmans_beckmann(problem: KoopmansBeckmannProblem, assignment: Tensor) -> Tensor:
    permutation = matching_matrix(assignment, problem.flow).double()
    count, _ = problem.node_counts()
    real = torch.arange(assignment.shape[1], device=assignment.device) < count[:, None]
    flow = torch.where(real[:, :, None] & real[:, None, :], problem.flow.double(), 0.0)
    distance = torch.where(real[:, :, None] & real[:, None, :], problem.distance.double(), 0.0)
    moved = permutation @ distance @ permutation.transpose(1, 2)
    total = (flow * moved).flatten(1).sum(1)
    return total if problem.linear is None else total + _paid(problem.linear, permutation)


def _uniform(samples: int, like: Tensor, seed: int, key: Tensor) -> Tensor:
    batch, rows, columns = like.shape

    def counter(size: int) -> Tensor:
        return torch.arange(size, device=like.device)

    state = _hash(_hash(key.to(like.device) + _hash(torch.tensor(seed, device=like.device))) + counter(samples))
    state = _hash(state[:, None] + counter(batch))
    state = _hash(state[..., None] + counter(rows))
    state = _hash(state[..., None] + counter(columns))
    # 53 random bits, centred between two representable values: never 0 or 1.
    return ((_shifted(state, 11).double() + 0.5) * 2.0**-53).clamp(max=1 - 2.0**-53)


def uniform_noise(samples: int, like: Tensor, seed: int, key: Tensor) -> Tensor:
    """Returns what `graphmatch.noise.uniform_noise` does."""
    return _uniform(samples, like, seed, key).float().clamp(max=1 - 2.0**-24).to(like.dtype)


def gumbel_noise(samples: int, like: Tensor, seed: int, key: Tensor) -> Tensor:
    """Returns what `graphmatch.noise.gumbel_noise` does."""
    return -torch.log(-torch.log(_uniform(samples, like, seed, key))).float().to(like.dtype)


def gaussian_noise(samples: int, like: Tensor, seed: int, key: Tensor) -> Tensor:
    """Returns what `graphmatch.noise.gaussian_noise` does."""
    return torch.special.ndtri(_uniform(samples, like, seed, key)).float().to(like.dtype)
