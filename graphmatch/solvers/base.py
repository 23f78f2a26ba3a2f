"""What a solver is, and what all of them share."""

from __future__ import annotations

from typing import Protocol, TypeVar

import torch
from torch import Tensor

from graphmatch import _check
from graphmatch.problem import Problem
from graphmatch.result import MatchResult


class Solver(Protocol):
    """Anything that turns a batch of problems into matchings with bounds."""

    def solve(self, problem: Problem) -> MatchResult:
        """Returns matchings, objectives and lower bounds of every problem of the batch."""
        ...


P = TypeVar("P")


def take_kind(where: str, problem: object, kind: type[P], cure: str) -> P:
    """Returns the problem, or raises a TypeError that says which kind the solver takes."""
    if not isinstance(problem, kind):
        raise TypeError(_check.message(where, "problem", f"be a {kind.__name__}", type(problem).__name__, cure))
    return problem


def host_costs(where: str, costs: Tensor, on_cpu: bool) -> Tensor:
    """Returns costs on the CPU in float32 or float64, the two types native solvers take."""
    if costs.device.type != "cpu" and not on_cpu:
        raise ValueError(
            _check.message(
                where,
                "the problem",
                "be on the CPU",
                f"device {costs.device}",
                "Set on_cpu=True on the solver to copy it there and the answer back.",
            )
        )
    costs = costs.detach().cpu()
    return costs if costs.dtype in (torch.float32, torch.float64) else costs.float()


def thread_count(where: str, threads: int | None) -> int:
    """Returns the number of threads of a call: the option, or PyTorch's."""
    if threads is None:
        return torch.get_num_threads()
    _check.option(where, "threads", threads, threads >= 1, "be at least 1", "None takes torch.get_num_threads().")
    return threads


def check_budget(where: str, time_limit: float | None, max_gap: float) -> None:
    """Checks the options that every iterative solver has."""
    if time_limit is not None:
        _check.option(where, "time_limit", time_limit, time_limit > 0, "be positive seconds", "None is no limit.")
    _check.option(where, "max_gap", max_gap, 0 <= max_gap < torch.inf, "be at least 0", "1e-6 is the default.")


def assemble(problem: Problem, answers: tuple[Tensor, ...], device: torch.device) -> MatchResult:
    """Returns native answers (assignment, objective, bound, status, iterations) as a result on the given device."""
    return MatchResult(problem, *(answer.to(device) for answer in answers))
