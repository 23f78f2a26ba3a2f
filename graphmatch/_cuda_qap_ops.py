"""Dense problems on the GPU: the operator `qap_solve` for CUDA tensors, by tabu search."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from graphmatch import _native, _ops
from graphmatch._dense_costs import DenseCosts, dense_costs, gilmore_lawler

# Methods of `qap_solve` that run where the tensors are.
METHODS = (_ops.QAP_TABU,)

# As in csrc/core/status.hpp and solution.hpp.
_OPTIMAL, _FEASIBLE, _INFEASIBLE, _INVALID = range(4)
_STAGE_TABU = 3


@torch.library.impl(_ops._library, "qap_solve", "CUDA")
def _qap_solve_cuda(
    flow: Tensor,
    distance: Tensor,
    linear: Tensor | None,
    sizes: Tensor | None,
    start: Tensor | None,
    method: int,
    max_iterations: int,
    runs: int,
    steps: int,
    effort: float,
    tolerance: float,
    sinkhorn: bool,
    temperature: float,
    refine: bool,
    max_gap: float,
    seed: int,
    time_limit: float | None,
    threads: int,
) -> _ops.Answers:
    """Runs all tabu searches of all problems at once; the first of a problem starts from what its bound assigns.

    Nothing waits for the device. Each problem gets the answer that it would get alone.
    """
    native = _checked_module(method, time_limit)
    batch, nodes, _ = flow.shape
    if batch == 0 or nodes == 0:
        return _empty_problems(batch, nodes, flow.device)
    costs = dense_costs(flow, distance, linear, sizes)
    bound, relaxed = gilmore_lawler(costs, threads)
    infeasible = bound == torch.inf
    goal = bound + max_gap * torch.maximum(bound.abs(), costs.largest_cost)
    starts = _starts(costs, relaxed, start, threads)
    given = tuple(None if matrix is None else matrix.double().contiguous() for matrix in (flow, distance, linear))
    permutations, objectives, iterations = _search(
        native, given, costs, costs.sizes.masked_fill(infeasible, 0), starts, goal, max(runs, 1), steps, seed
    )

    best = objectives.argmin(1, keepdim=True)  # the first of equals
    assignment = permutations.gather(1, best[:, :, None].expand(-1, 1, nodes)).squeeze(1)
    objective = objectives.gather(1, best).squeeze(1).masked_fill(infeasible, torch.inf)
    objective = objective.masked_fill(~costs.valid, torch.nan)
    lower_bound = torch.minimum(bound, objective)  # NaN where the objective is
    is_open = ~(objective - lower_bound <= max_gap * torch.maximum(objective.abs(), costs.largest_cost))
    status = is_open.long()  # _OPTIMAL or _FEASIBLE
    status = status.masked_fill(infeasible, _INFEASIBLE).masked_fill(~costs.valid, _INVALID)
    is_solved = costs.valid & ~infeasible
    iterations = iterations.sum(1).clamp(min=1).masked_fill(~is_solved, 0)
    stage = (is_solved & (costs.sizes > 0)).long() * _STAGE_TABU
    return assignment, objective, lower_bound, status, iterations, stage


def _checked_module(method: int, time_limit: float | None) -> ModuleType:
    if method not in METHODS:
        raise ValueError(
            "qap_solve: dense problems on a GPU must be solved by tabu search; got another method. "
            "Use Tabu, or set on_cpu=True on the solver to copy the problem to the CPU and the answer back."
        )
    if time_limit is not None:
        raise ValueError(
            f"qap_solve: time_limit must be None for CUDA tensors; got {time_limit}. "
            "Set the number of steps instead, or on_cpu=True."
        )
    return _native.required_cuda("dense problems")


def _empty_problems(batch: int, nodes: int, device: torch.device) -> _ops.Answers:
    """Returns the answers of problems without nodes: nothing to assign, at no cost."""
    zeros = torch.zeros(batch, dtype=torch.int64, device=device)
    objective = zeros.double()
    return zeros.new_empty(batch, nodes), objective, objective.clone(), zeros, zeros + 1, zeros.clone()


def _starts(costs: DenseCosts, relaxed: Tensor, start: Tensor | None, threads: int) -> Tensor:
    """Returns the permutations (b, s, n) that the first searches start from; `relaxed` is one where there is any."""
    if start is None:
        return relaxed[:, None].contiguous()
    wishes = (-start.double()).masked_fill(costs.forbidden, torch.inf)
    rounded, _, _, status, *_ = _ops.linear_assignment(wishes, costs.sizes[:, None].expand(-1, 2), None, threads)
    rounded = torch.where(status[:, None] < _INFEASIBLE, rounded, relaxed)
    return torch.stack([rounded, relaxed], dim=1)


def _search(
    native: ModuleType,
    given: tuple[Tensor | None, ...],
    costs: DenseCosts,
    sizes: Tensor,
    starts: Tensor,
    goal: Tensor,
    runs: int,
    steps: int,
    seed: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns permutations (b, runs, n), their objectives and the steps made (b, runs); problems of size 0 keep -1."""
    batch, nodes, _ = costs.flow.shape
    device = costs.flow.device
    permutations = torch.full((batch, runs, nodes), -1, device=device)
    objectives = torch.zeros(batch, runs, dtype=torch.float64, device=device)
    iterations = torch.zeros(batch, runs, dtype=torch.int64, device=device)
    scratch_bytes = native.qap_tabu_scratch_bytes(nodes=nodes, searches=batch * runs, device=device.index)
    tensors = {
        "flow": costs.flow.contiguous(),
        "distance": costs.distance.contiguous(),
        "linear": costs.linear.contiguous(),
        "sizes": sizes,
        "symmetric": costs.symmetric,
        "exact_in_float": costs.exact_in_float,
        "noise": costs.noise,
        "goal": goal,
        "starts": starts.contiguous(),
        "assignment": permutations,
        "objective": objectives,
        "iterations": iterations,
        "scratch": torch.empty(scratch_bytes, dtype=torch.uint8, device=device),
    }
    names = ("given_flow", "given_distance", "given_linear")
    native.qap_tabu(
        batch=batch,
        nodes=nodes,
        runs=runs,
        steps=steps,
        seed=seed % 2**64,
        start_count=starts.shape[1],
        device=device.index,
        stream=torch.cuda.current_stream(device).cuda_stream,
        **{name: 0 if matrix is None else matrix.data_ptr() for name, matrix in zip(names, given, strict=True)},
        **{name: tensor.data_ptr() for name, tensor in tensors.items()},
    )
    return permutations, objectives, iterations
