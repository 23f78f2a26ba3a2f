"""The objectives in plain PyTorch: slow, obvious, differentiable. The specification of the native code."""

from __future__ import annotations

import torch
from torch import Tensor

from graphmatch.problem import KoopmansBeckmannProblem, LawlerProblem, LinearProblem, Problem
from graphmatch.result import matching_matrix, paid_pair_matrix


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
