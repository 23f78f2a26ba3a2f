"""The CUDA module: what it does without a GPU, and its objectives against the reference where there is one."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest
import torch

import graphmatch as gm
from graphmatch import _reference


@pytest.fixture
def native() -> ModuleType:
    return importlib.import_module("graphmatch._native_cuda")


def evaluate(native: ModuleType, problem: gm.LawlerProblem, assignment: torch.Tensor, device: int) -> torch.Tensor:
    """Calls the kernel on contiguous tensors that lie on the device."""
    batch, rows, columns = problem.unary_costs.shape
    edge_count1, edge_count2 = problem.quadratic_costs.shape[1:]
    arrays = {
        "unary": problem.unary_costs,
        "quadratic": problem.quadratic_costs,
        "edges1": problem.edges1,
        "edges2": problem.edges2,
    }
    arguments = native.LawlerArguments(
        batch=batch,
        rows=rows,
        columns=columns,
        edge_count1=edge_count1,
        edge_count2=edge_count2,
        sizes=0 if problem.sizes is None else problem.sizes.data_ptr(),
        complete=problem.unmatched_cost is None,
        unmatched_cost=problem.unmatched_cost or 0.0,
        is_double=problem.unary_costs.dtype == torch.float64,
        **{name: array.data_ptr() for name, array in arrays.items()},
        **{f"{name}_batch_stride": array.stride(0) for name, array in arrays.items()},
    )
    objective = torch.empty(batch, dtype=torch.float64, device=problem.unary_costs.device)
    native.lawler_objective(
        arguments,
        assignment=assignment.data_ptr(),
        objective=objective.data_ptr(),
        device=device,
        stream=torch.cuda.current_stream().cuda_stream if objective.is_cuda else 0,
    )
    return objective


def random_problem(rng: torch.Generator, dtype: torch.dtype, device: str) -> gm.LawlerProblem:
    """Three problems of different sizes, padded to 9 x 11 nodes and 300 x 17 edges."""
    sizes = torch.tensor([[9, 11, 300, 17], [4, 3, 5, 1], [1, 2, 0, 4]])
    unary = torch.randn(3, 9, 11, generator=rng, dtype=dtype)
    quadratic = torch.randn(3, 300, 17, generator=rng, dtype=dtype)
    edges1 = torch.zeros(3, 300, 2, dtype=torch.int64)
    edges2 = torch.zeros(3, 17, 2, dtype=torch.int64)
    for index, (rows, columns, count1, count2) in enumerate(sizes.tolist()):
        edges1[index, :count1] = torch.randint(rows, (count1, 2), generator=rng)
        edges2[index, :count2] = torch.randint(columns, (count2, 2), generator=rng)
    tensors = [tensor.to(device) for tensor in (unary, quadratic, edges1, edges2, sizes)]
    return gm.LawlerProblem(*tensors, unmatched_cost=0.25)


@pytest.mark.cuda_module
def test_without_a_gpu_there_are_no_devices_and_calls_say_why(native: ModuleType, rng: torch.Generator):
    if torch.cuda.is_available():
        assert native.device_count() == torch.cuda.device_count()
        device, reason = native.device_count(), "invalid device ordinal"
    else:
        assert native.device_count() == 0
        device, reason = 0, "CUDA"
    problem = random_problem(rng, torch.float32, "cpu")
    with pytest.raises(RuntimeError, match=f"lawler_objective: CUDA error .*{reason}"):
        evaluate(native, problem, torch.zeros(3, 9, dtype=torch.int64), device)


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_objectives_equal_the_reference_every_time(native: ModuleType, rng: torch.Generator, dtype: torch.dtype):
    problem = random_problem(rng, dtype, "cuda")
    assignment = torch.full((3, 9), -1)
    assignment[0, [0, 2, 3, 5, 8]] = torch.tensor([10, 0, 4, 3, 7])
    assignment[1, [1, 3]] = torch.tensor([2, 0])
    assignment = assignment.cuda()
    answers = [evaluate(native, problem, assignment, torch.cuda.current_device()) for _ in range(2)]
    torch.testing.assert_close(answers[0], _reference.objective(problem, assignment), rtol=1e-12, atol=1e-12)
    assert torch.equal(*answers)
