"""The native operations as PyTorch custom operators: the only caller of the compiled modules.

Operators take CPU tensors in float32 or float64 and return (assignment, objective, lower_bound, status, iterations),
none of them differentiable: gradients are the business of `graphmatch.gradients`.

They are defined by `torch.library.Library`, not by `torch.library.custom_op`, whose first call imports all of
torch._dynamo: seconds that a program which never compiles need not spend.
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from graphmatch import _native
from graphmatch._native import cpu as _cpu

Answers = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]

_LAWLER = (
    "Tensor unary_costs, Tensor quadratic_costs, Tensor edges1, Tensor edges2, Tensor? sizes, float? unmatched_cost"
)
_ANSWERS = "(Tensor, Tensor, Tensor, Tensor, Tensor)"

_library = torch.library.Library("graphmatch", "DEF")
_library.define(
    f"linear_assignment(Tensor costs, Tensor? sizes, float? unmatched_cost, int threads) -> {_ANSWERS}",
    tags=torch.Tag.pt2_compliant_tag,
)
_library.define(
    f"lawler_dual_ascent({_LAWLER}, int max_iterations, float max_gap, float? time_limit, int threads) -> {_ANSWERS}",
    tags=torch.Tag.pt2_compliant_tag,
)
_library.define(
    f"lawler_objective({_LAWLER}, Tensor assignment, int threads) -> Tensor", tags=torch.Tag.pt2_compliant_tag
)

linear_assignment = torch.ops.graphmatch.linear_assignment.default
lawler_dual_ascent = torch.ops.graphmatch.lawler_dual_ascent.default
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

    return integers(batch, rows), doubles(batch), doubles(batch), integers(batch), integers(batch)


def _native_answers(answers: Answers) -> object:
    names = ("assignment", "objective", "lower_bound", "status", "iterations")
    return _cpu.Answers(**{name: tensor.data_ptr() for name, tensor in zip(names, answers, strict=True)})


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


def _budget(time_limit: float | None, threads: int) -> object:
    return _cpu.Budget(time_limit=-1.0 if time_limit is None else time_limit, threads=threads)


@torch.library.impl(_library, "linear_assignment", "CPU")
def _linear_assignment(costs: Tensor, sizes: Tensor | None, unmatched_cost: float | None, threads: int) -> Answers:
    """Exact linear assignment of costs (b, n1, n2)."""
    costs = _inner_contiguous(costs)
    sizes = None if sizes is None else sizes.contiguous()
    answers = _empty_answers(costs.shape[0], costs.shape[1], costs.device)
    _cpu.linear_assignment(
        batch=costs.shape[0],
        rows=costs.shape[1],
        columns=costs.shape[2],
        costs=costs.data_ptr(),
        batch_stride=_batch_stride(costs),
        sizes=0 if sizes is None else sizes.data_ptr(),
        complete=unmatched_cost is None,
        unmatched_cost=0.0 if unmatched_cost is None else float(unmatched_cost),
        is_double=costs.dtype == torch.float64,
        budget=_budget(None, threads),
        answers=_native_answers(answers),
    )
    return answers


@torch.library.impl(_library, "lawler_dual_ascent", "CPU")
def _lawler_dual_ascent(
    unary_costs: Tensor,
    quadratic_costs: Tensor,
    edges1: Tensor,
    edges2: Tensor,
    sizes: Tensor | None,
    unmatched_cost: float | None,
    max_iterations: int,
    max_gap: float,
    time_limit: float | None,
    threads: int,
) -> Answers:
    """Dual ascent on sparse Lawler problems."""
    problems, alive = _lawler_arguments(_cpu, unary_costs, quadratic_costs, edges1, edges2, sizes, unmatched_cost)
    answers = _empty_answers(unary_costs.shape[0], unary_costs.shape[1], unary_costs.device)
    options = _cpu.DualAscentOptions(max_iterations=max_iterations, max_gap=max_gap)
    _cpu.lawler_dual_ascent(problems, options, _budget(time_limit, threads), _native_answers(answers))
    del alive
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


@torch.library.impl(_library, "lawler_objective", "CUDA")
def _lawler_objective_cuda(
    unary_costs: Tensor,
    quadratic_costs: Tensor,
    edges1: Tensor,
    edges2: Tensor,
    sizes: Tensor | None,
    unmatched_cost: float | None,
    assignment: Tensor,
    threads: int,
) -> Tensor:
    cuda = _native.cuda()
    if cuda is None:
        raise RuntimeError(
            "graphmatch: objectives of CUDA tensors must be evaluated by the CUDA module; got a build without it. "
            "Rebuild graphmatch where nvcc is on PATH, or move the tensors to the CPU."
        )
    problems, alive = _lawler_arguments(cuda, unary_costs, quadratic_costs, edges1, edges2, sizes, unmatched_cost)
    assignment = assignment.contiguous()
    objective = unary_costs.new_empty(unary_costs.shape[0], dtype=torch.float64)
    stream = torch.cuda.current_stream(unary_costs.device).cuda_stream
    cuda.lawler_objective(
        problems,
        assignment=assignment.data_ptr(),
        objective=objective.data_ptr(),
        device=unary_costs.device.index,
        stream=stream,
    )
    del alive
    return objective


@torch.library.register_fake("graphmatch::linear_assignment", lib=_library)
def _linear_assignment_fake(costs: Tensor, sizes: Tensor | None, unmatched_cost: float | None, threads: int) -> Answers:
    return _empty_answers(costs.shape[0], costs.shape[1], costs.device)


@torch.library.register_fake("graphmatch::lawler_dual_ascent", lib=_library)
def _lawler_dual_ascent_fake(unary_costs: Tensor, *unused: object) -> Answers:
    return _empty_answers(unary_costs.shape[0], unary_costs.shape[1], unary_costs.device)


@torch.library.register_fake("graphmatch::lawler_objective", lib=_library)
def _lawler_objective_fake(unary_costs: Tensor, *unused: object) -> Tensor:
    return unary_costs.new_empty(unary_costs.shape[0], dtype=torch.float64)
