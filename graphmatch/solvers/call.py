"""Native calls: what all of them share, and that of dense problems (`KoopmansBeckmannProblem`)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphmatch import _check, _cuda_qap_ops, _ops
from graphmatch.problem import KoopmansBeckmannProblem, Problem
from graphmatch.result import MatchResult

# Matrices of n^2 float64 that one search holds, and the largest n whose dual ascent holds n^4.
_MATRICES = 24
_DUAL_NODES = 48


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


def check_rounding(where: str, device: torch.device, on_cpu: bool) -> None:
    """Refuses a device whose scores cannot be rounded where they are, before any work is done."""
    host_costs(where, torch.empty(0, device=device), on_cpu)


def thread_count(where: str, threads: int | None) -> int:
    """Returns the number of threads of a call: the option, or PyTorch's."""
    if threads is None:
        return torch.get_num_threads()
    _check.option(where, "threads", threads, threads >= 1, "be at least 1", "None takes torch.get_num_threads().")
    return threads


def assemble(problem: Problem, answers: tuple[Tensor, ...], device: torch.device) -> MatchResult:
    """Returns answers (assignment, objective, bound, status, iterations[, stage]) as a result on the given device."""
    assignment, objective, bound, status, iterations, *stage = (answer.to(device) for answer in answers)
    return MatchResult(problem, assignment, objective, bound, status, iterations, stage[0] if stage else None)


@dataclass(frozen=True)
class QapCall:
    """What a solver class asks of the native solver of dense problems.

    Args:
        method: One of the numbers in `_ops`.
        max_iterations: Of FAQ, or rounds of the dual ascent.
        runs: Starts of FAQ, or tabu searches.
        steps: Moves of each tabu search.
        effort: Factor on the budgets of the portfolio.
        tolerance: Of FAQ: relative gain below which it ends.
        sinkhorn: Whether FAQ takes the softer step.
        temperature: Of that step.
        refine: Whether FAQ ends with exchanges that improve.
        seed: Of the random choices.
    """

    method: int
    max_iterations: int = 30
    runs: int = 1
    steps: int = 0
    effort: float = 1.0
    tolerance: float = 1e-4
    sinkhorn: bool = False
    temperature: float = 0.01
    refine: bool = False
    seed: int = 0


def solve_dense(
    where: str,
    problem: KoopmansBeckmannProblem,
    call: QapCall,
    *,
    max_gap: float,
    time_limit: float | None,
    threads: int | None,
    on_cpu: bool,
    start: Tensor | None = None,
) -> MatchResult:
    """Returns permutations with Gilmore-Lawler or better bounds; `start` (b, n, n) is where the first search begins.

    Problems on a GPU are solved there by the methods that can, unless `on_cpu` is set.
    """
    count = thread_count(where, threads)
    device = problem.flow.device
    stays = device.type == "cuda" and not on_cpu and call.method in _cuda_qap_ops.METHODS
    if not stays:
        _check.memory(where, _host_bytes(problem, call, count), "Reduce n or the number of threads.")

    def costs(given: Tensor) -> Tensor:
        return given.detach() if stays else host_costs(where, given, on_cpu)

    target = device if stays else torch.device("cpu")
    answers = _ops.qap_solve(
        costs(problem.flow),
        costs(problem.distance),
        None if problem.linear is None else costs(problem.linear),
        None if problem.sizes is None else problem.sizes.to(target),
        None if start is None else start.detach().to(target, torch.float64),
        call.method,
        call.max_iterations,
        call.runs,
        call.steps,
        call.effort,
        call.tolerance,
        call.sinkhorn,
        call.temperature,
        call.refine,
        max_gap,
        call.seed,
        time_limit,
        count,
    )
    return assemble(problem, answers, device)


def _host_bytes(problem: KoopmansBeckmannProblem, call: QapCall, threads: int) -> int:
    batch, nodes, _ = problem.flow.shape
    numbers = nodes**2 * _MATRICES
    if call.method == _ops.QAP_DUAL_ASCENT and nodes <= _DUAL_NODES:
        numbers += nodes**4
    return min(threads, max(batch, 1)) * 8 * numbers
