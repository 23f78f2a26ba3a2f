"""The three kinds of matching problems, as estimators see them: cost tensors, problems, solutions."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from graphmatch.gradients.base import Tensors, Upstream
from graphmatch.problem import KoopmansBeckmannProblem, LawlerProblem, LinearProblem, Problem, made_of
from graphmatch.result import matching_matrix, paid_pair_matrix


class Kind(Protocol):
    """How a kind of problem is made of cost tensors, and what its solutions are.

    The first cost tensor is (b, n1, n2): the cost of each assignment.
    """

    def problem(self, costs: Tensors, edges: Tensors, sizes: Tensor | None, unmatched_cost: float | None) -> Problem:
        """Returns the checked problem."""
        ...

    def unchecked(self, costs: Tensors, context: Upstream, unmatched_cost: float | None) -> Problem:
        """Returns the same for tensors that were checked before; context holds edges1, edges2 and sizes first."""
        ...

    def solutions(self, assignment: Tensor, problem: Problem) -> Tensors:
        """Returns the derivative of the objective in each cost tensor at an assignment (b, n1)."""
        ...

    def extent(self, place: int, sizes: Tensor | None) -> Tensor | None:
        """Returns the real rows and columns (b, 2) of cost tensor `place`; None = all."""
        ...


class _Linear:
    """Costs (costs,); solutions (matching,)."""

    def problem(self, costs: Tensors, edges: Tensors, sizes: Tensor | None, unmatched_cost: float | None) -> Problem:
        return LinearProblem(costs[0], sizes, unmatched_cost)

    def unchecked(self, costs: Tensors, context: Upstream, unmatched_cost: float | None) -> Problem:
        return made_of(LinearProblem, costs=costs[0], sizes=context[2], unmatched_cost=unmatched_cost)

    def solutions(self, assignment: Tensor, problem: Problem) -> Tensors:
        return (matching_matrix(assignment, _as(problem, LinearProblem).costs),)

    def extent(self, place: int, sizes: Tensor | None) -> Tensor | None:
        return sizes


class _Lawler:
    """Costs (unary, quadratic); solutions (matching, paid pairs)."""

    def problem(self, costs: Tensors, edges: Tensors, sizes: Tensor | None, unmatched_cost: float | None) -> Problem:
        return LawlerProblem(costs[0], costs[1], edges[0], edges[1], sizes, unmatched_cost)

    def unchecked(self, costs: Tensors, context: Upstream, unmatched_cost: float | None) -> Problem:
        tensors: dict[str, Any] = {
            "unary_costs": costs[0],
            "quadratic_costs": costs[1],
            "edges1": context[0],
            "edges2": context[1],
        }
        return made_of(LawlerProblem, **tensors, sizes=context[2], unmatched_cost=unmatched_cost)

    def solutions(self, assignment: Tensor, problem: Problem) -> Tensors:
        lawler = _as(problem, LawlerProblem)
        return matching_matrix(assignment, lawler.unary_costs), paid_pair_matrix(assignment, lawler)

    def extent(self, place: int, sizes: Tensor | None) -> Tensor | None:
        return None if sizes is None else sizes[:, 2 * place : 2 * place + 2]


class _Dense:
    """Costs (linear, flow, distance); solutions (matching X, X distance X', X' flow X)."""

    def problem(self, costs: Tensors, edges: Tensors, sizes: Tensor | None, unmatched_cost: float | None) -> Problem:
        return KoopmansBeckmannProblem(costs[1], costs[2], costs[0], sizes)

    def unchecked(self, costs: Tensors, context: Upstream, unmatched_cost: float | None) -> Problem:
        linear, flow, distance = costs
        return made_of(KoopmansBeckmannProblem, flow=flow, distance=distance, linear=linear, sizes=context[2])

    def solutions(self, assignment: Tensor, problem: Problem) -> Tensors:
        dense = _as(problem, KoopmansBeckmannProblem)
        matching = matching_matrix(assignment, dense.flow)
        flow, distance = (self._real(each, dense.sizes) for each in (dense.flow, dense.distance))
        return (
            matching,
            matching @ distance @ matching.transpose(1, 2),
            matching.transpose(1, 2) @ flow @ matching,
        )

    def extent(self, place: int, sizes: Tensor | None) -> Tensor | None:
        return None if sizes is None else sizes[:, None].expand(-1, 2)

    @staticmethod
    def _real(costs: Tensor, sizes: Tensor | None) -> Tensor:
        """Returns costs with zero padding, which may hold anything."""
        if sizes is None:
            return costs
        real = torch.arange(costs.shape[1], device=costs.device) < sizes[:, None]
        return torch.where(real[:, :, None] & real[:, None, :], costs, 0)


P = TypeVar("P")


def _as(problem: Problem, kind: type[P]) -> P:
    if not isinstance(problem, kind):
        raise TypeError(f"matching: problem must be a {kind.__name__}; got {type(problem).__name__}. Build that one.")
    return problem


KINDS: dict[str, Kind] = {"linear": _Linear(), "lawler": _Lawler(), "dense": _Dense()}
