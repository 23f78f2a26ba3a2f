"""The native operations as PyTorch custom operators: the only caller of the compiled modules.

Solvers take CPU tensors in float32 or float64 and return (assignment, objective, lower_bound, status, iterations,
stage), none of them differentiable: gradients are the business of `graphmatch.gradients`.

They are defined by `torch.library.Library`, not by `torch.library.custom_op`, whose first call imports all of
torch._dynamo: seconds that a program which never compiles need not spend.
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from graphmatch import _native
from graphmatch._native import cpu as _cpu

Answers = tuple[Tensor, ...]

# Methods of `lawler_solve`, numbered as in csrc/core/lawler_solver.hpp.
DUAL_ASCENT, TABU, FUSION, BRANCH_AND_BOUND, PORTFOLIO = range(5)
# Methods of `qap_solve`, numbered as in csrc/core/qap_solver.hpp.
QAP_FAQ, QAP_TABU, QAP_DUAL_ASCENT, QAP_PORTFOLIO = range(4)

_LAWLER = (
    "Tensor unary_costs, Tensor quadratic_costs, Tensor edges1, Tensor edges2, Tensor? sizes, float? unmatched_cost"
)
_ANSWERS = "Tensor, Tensor, Tensor, Tensor, Tensor, Tensor"
# Duals of earlier solves: messages, potentials, their scale, and the matching found.
_STATE = "Tensor? messages, Tensor? potentials, Tensor? scale, Tensor? matching, bool keep_state"

_library = torch.library.Library("graphmatch", "DEF")
_library.define(
    "linear_assignment(Tensor costs, Tensor? sizes, float? unmatched_cost, int threads, Tensor? matching=None, "
    f"Tensor? row_duals=None) -> ({_ANSWERS}, Tensor, Tensor)",
    tags=torch.Tag.pt2_compliant_tag,
)
_library.define(
    f"lawler_solve({_LAWLER}, int method, int max_iterations, int runs, int steps, int max_nodes, float effort, "
    f"float max_gap, int seed, float? time_limit, int threads, {_STATE}) -> ({_ANSWERS}, Tensor, Tensor, Tensor)",
    tags=torch.Tag.pt2_compliant_tag,
)
_library.define(
    "qap_solve(Tensor flow, Tensor distance, Tensor? linear, Tensor? sizes, Tensor? start, int method, "
    "int max_iterations, int runs, int steps, float effort, float tolerance, bool sinkhorn, float temperature, "
    f"bool refine, float max_gap, int seed, float? time_limit, int threads) -> ({_ANSWERS})",
    tags=torch.Tag.pt2_compliant_tag,
)
_library.define(
    f"lawler_objective({_LAWLER}, Tensor assignment, int threads) -> Tensor", tags=torch.Tag.pt2_compliant_tag
)

linear_assignment = torch.ops.graphmatch.linear_assignment.default
lawler_solve = torch.ops.graphmatch.lawler_solve.default
qap_solve = torch.ops.graphmatch.qap_solve.default
lawler_objective = torch.ops.graphmatch.lawler_objective.default


def cuda_devices() -> int | None:
    """Number of CUDA devices the CUDA module can use; None where graphmatch was built without it."""
    module = _native.cuda()
    return None if module is None else int(module.device_count())


def _empty_answers(batch: int, rows: int, device: torch.device) -> Answers:
    def integers(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.int64, device=device)

    def doubles(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float64, device=device)

    return integers(batch, rows), doubles(batch), doubles(batch), integers(batch), integers(batch), integers(batch)


def _native_answers(answers: Answers, module: ModuleType = _cpu) -> object:
    names = ("assignment", "objective", "lower_bound", "status", "iterations", "stage")
    return module.Answers(**{name: tensor.data_ptr() for name, tensor in zip(names, answers, strict=True)})


def _empty_state(batch: int, unary_costs: Tensor, edge_count1: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns room for the duals of `batch` problems, at most one pair per edge; zeros where it stays unused."""
    rows, columns = unary_costs.shape[1:]
    pairs = min(edge_count1, rows * (rows - 1) // 2)
    device = unary_costs.device
    messages = torch.zeros(batch, 2 * pairs, columns + 1, dtype=torch.float32, device=device)
    potentials = torch.zeros(batch, columns, dtype=torch.float32, device=device)
    return messages, potentials, torch.zeros(batch, dtype=torch.float64, device=device)


def _native_states(state: tuple[Tensor, Tensor, Tensor], matching: Tensor | None, rows: int) -> object:
    messages, potentials, scale = state
    return _cpu.States(
        batch=scale.shape[0],
        rows=rows,
        columns=potentials.shape[1],
        pair_capacity=messages.shape[1] // 2,
        messages=messages.data_ptr(),
        potentials=potentials.data_ptr(),
        scale=scale.data_ptr(),
        assignment=0 if matching is None else matching.data_ptr(),
    )


def _empty_duals(costs: Tensor) -> tuple[Tensor, Tensor]:
    batch, rows, columns = costs.shape
    return costs.new_empty(batch, rows, dtype=torch.float64), costs.new_empty(batch, columns, dtype=torch.float64)


def _inner_contiguous(tensor: Tensor) -> Tensor:
    """Returns the tensor with each problem contiguous; a batch axis of stride 0 (shared by all problems) is kept."""
    if tensor.shape[0] > 0 and tensor[0].is_contiguous():
        return tensor
    return tensor.contiguous()


def _batch_stride(tensor: Tensor) -> int:
    return tensor.stride(0) if tensor.shape[0] > 1 else 0


def _lawler_arguments(
    module: ModuleType,
    unary_costs: Tensor,
    quadratic_costs: Tensor,
    edges1: Tensor,
    edges2: Tensor,
    sizes: Tensor | None,
    unmatched_cost: float | None,
) -> tuple[object, list[Tensor | None]]:
    """Returns a native module's view of a batch and the tensors that must outlive it."""
    names = ("unary", "quadratic", "edges1", "edges2")
    tensors = [_inner_contiguous(tensor) for tensor in (unary_costs, quadratic_costs, edges1, edges2)]
    sizes = None if sizes is None else sizes.contiguous()
    addresses = {name: tensor.data_ptr() for name, tensor in zip(names, tensors, strict=True)}
    strides = {f"{name}_batch_stride": _batch_stride(tensor) for name, tensor in zip(names, tensors, strict=True)}
    arguments = module.LawlerArguments(
        batch=unary_costs.shape[0],
        rows=unary_costs.shape[1],
        columns=unary_costs.shape[2],
        edge_count1=quadratic_costs.shape[1],
        edge_count2=quadratic_costs.shape[2],
        sizes=0 if sizes is None else sizes.data_ptr(),
        complete=unmatched_cost is None,
        unmatched_cost=0.0 if unmatched_cost is None else float(unmatched_cost),
        is_double=unary_costs.dtype == torch.float64,
        **addresses,
        **strides,
    )
    return arguments, [*tensors, sizes]


def _linear_arguments(
    costs: Tensor, sizes: Tensor | None, unmatched_cost: float | None
) -> tuple[object, list[Tensor | None]]:
    """Returns the native view of a batch of linear problems and the tensors that must outlive it."""
    costs = _inner_contiguous(costs)
    sizes = None if sizes is None else sizes.contiguous()
    arguments = _cpu.LinearArguments(
        batch=costs.shape[0],
        rows=costs.shape[1],
        columns=costs.shape[2],
        costs=costs.data_ptr(),
        batch_stride=_batch_stride(costs),
        sizes=0 if sizes is None else sizes.data_ptr(),
        complete=unmatched_cost is None,
        unmatched_cost=0.0 if unmatched_cost is None else float(unmatched_cost),
        is_double=costs.dtype == torch.float64,
    )
    return arguments, [costs, sizes]


def _linear_starts(matching: Tensor | None, row_duals: Tensor | None) -> tuple[object, list[Tensor]]:
    """Returns what earlier solves left, nothing if one of both is None, and the tensors that must outlive it."""
    if matching is None or row_duals is None:
        return _cpu.LinearStarts(batch=0, matching=0, row_duals=0), []
    alive = [matching.contiguous(), row_duals.contiguous()]
    addresses = {"matching": alive[0].data_ptr(), "row_duals": alive[1].data_ptr()}
    return _cpu.LinearStarts(batch=len(matching), **addresses), alive


def _budget(time_limit: float | None, threads: int) -> object:
    return _cpu.Budget(time_limit=-1.0 if time_limit is None else time_limit, threads=threads)


@torch.library.impl(_library, "linear_assignment", "CPU")
def _linear_assignment(
    costs: Tensor,
    sizes: Tensor | None,
    unmatched_cost: float | None,
    threads: int,
    matching: Tensor | None = None,
    row_duals: Tensor | None = None,
) -> Answers:
    """Exact linear assignment of costs (b, n1, n2); returns the answers and the duals of rows and columns."""
    problems, alive = _linear_arguments(costs, sizes, unmatched_cost)
    starts, old = _linear_starts(matching, row_duals)
    answers = _empty_answers(costs.shape[0], costs.shape[1], costs.device)
    row_kept, column_kept = _empty_duals(costs)
    _cpu.linear_assignment(
        problems=problems,
        starts=starts,
        budget=_budget(None, threads),
        answers=_native_answers(answers),
        duals=_cpu.Duals(rows=row_kept.data_ptr(), columns=column_kept.data_ptr()),
    )
    del alive, old
    return (*answers, row_kept, column_kept)


@torch.library.impl(_library, "lawler_solve", "CPU")
def _lawler_solve(
    unary_costs: Tensor,
    quadratic_costs: Tensor,
    edges1: Tensor,
    edges2: Tensor,
    sizes: Tensor | None,
    unmatched_cost: float | None,
    method: int,
    max_iterations: int,
    runs: int,
    steps: int,
    max_nodes: int,
    effort: float,
    max_gap: float,
    seed: int,
    time_limit: float | None,
    threads: int,
    messages: Tensor | None,
    potentials: Tensor | None,
    scale: Tensor | None,
    matching: Tensor | None,
    keep_state: bool,
) -> Answers:
    """Sparse Lawler problems by one of the native methods; returns the answers and the duals (empty unless kept)."""
    problems, alive = _lawler_arguments(_cpu, unary_costs, quadratic_costs, edges1, edges2, sizes, unmatched_cost)
    batch, rows, _ = unary_costs.shape
    answers = _empty_answers(batch, rows, unary_costs.device)
    kept = _empty_state(batch if keep_state else 0, unary_costs, edges1.shape[1])
    warm = _empty_state(0, unary_costs, edges1.shape[1])
    if messages is not None and potentials is not None and scale is not None and matching is not None:
        warm = (messages.contiguous(), potentials.contiguous(), scale.contiguous())
        matching = matching.contiguous()
    options = _cpu.LawlerOptions(
        method=method,
        max_gap=max_gap,
        seed=seed % 2**64,
        max_iterations=max_iterations,
        runs=runs,
        steps=steps,
        max_nodes=max_nodes,
        effort=effort,
    )
    _cpu.lawler_solve(
        problems,
        options,
        _native_states(warm, matching, rows),
        _native_states(kept, None, rows),
        _budget(time_limit, threads),
        _native_answers(answers),
    )
    del alive
    return (*answers, *kept)


@torch.library.impl(_library, "qap_solve", "CPU")
def _qap_solve(
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
) -> Answers:
    """Dense problems by one of the native methods; threads that a time limit would leave idle search as well."""
    batch, nodes, _ = flow.shape
    given = {"flow": flow, "distance": distance, "linear": linear, "start": start}
    tensors = {name: _inner_contiguous(tensor) for name, tensor in given.items() if tensor is not None}
    sizes = None if sizes is None else sizes.contiguous()
    answers = _empty_answers(batch, nodes, flow.device)
    problems = _cpu.QapArguments(
        batch=batch,
        nodes=nodes,
        sizes=0 if sizes is None else sizes.data_ptr(),
        is_double=flow.dtype == torch.float64,
        **{name: tensors[name].data_ptr() if name in tensors else 0 for name in given},
        **{f"{name}_batch_stride": _batch_stride(tensors[name]) if name in tensors else 0 for name in given},
    )
    options = _cpu.QapOptions(
        method=method,
        max_gap=max_gap,
        seed=seed % 2**64,
        max_iterations=max_iterations,
        runs=runs,
        steps=steps,
        effort=effort,
        tolerance=tolerance,
        sinkhorn=sinkhorn,
        temperature=temperature,
        refine=refine,
    )
    islands = 1 if time_limit is None else max(threads // max(batch, 1), 1)
    _cpu.qap_solve(problems, options, islands, _budget(time_limit, threads), _native_answers(answers))
    return answers


@torch.library.impl(_library, "lawler_objective", "CPU")
def _lawler_objective(
    unary_costs: Tensor,
    quadratic_costs: Tensor,
    edges1: Tensor,
    edges2: Tensor,
    sizes: Tensor | None,
    unmatched_cost: float | None,
    assignment: Tensor,
    threads: int,
) -> Tensor:
    """Objectives (b,) float64 of assignments (b, n1); NaN where an assignment is invalid."""
    problems, alive = _lawler_arguments(_cpu, unary_costs, quadratic_costs, edges1, edges2, sizes, unmatched_cost)
    assignment = assignment.contiguous()
    objective = torch.empty(unary_costs.shape[0], dtype=torch.float64)
    _cpu.lawler_objective(problems, assignment.data_ptr(), _budget(None, threads), objective.data_ptr())
    del alive
    return objective


@torch.library.register_fake("graphmatch::linear_assignment", lib=_library)
def _linear_assignment_fake(costs: Tensor, *others: object) -> Answers:
    return (*_empty_answers(costs.shape[0], costs.shape[1], costs.device), *_empty_duals(costs))


@torch.library.register_fake("graphmatch::lawler_solve", lib=_library)
def _lawler_solve_fake(unary_costs: Tensor, quadratic_costs: Tensor, *others: object) -> Answers:
    batch, rows, _ = unary_costs.shape
    kept = _empty_state(batch if others[-1] else 0, unary_costs, quadratic_costs.shape[1])
    return (*_empty_answers(batch, rows, unary_costs.device), *kept)


@torch.library.register_fake("graphmatch::qap_solve", lib=_library)
def _qap_solve_fake(flow: Tensor, *unused: object) -> Answers:
    return _empty_answers(flow.shape[0], flow.shape[1], flow.device)


@torch.library.register_fake("graphmatch::lawler_objective", lib=_library)
def _lawler_objective_fake(unary_costs: Tensor, *unused: object) -> Tensor:
    return unary_costs.new_empty(unary_costs.shape[0], dtype=torch.float64)
