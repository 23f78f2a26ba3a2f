"""What the CUDA operators pass to their module: a stand-in reads the addresses and lets the CPU module solve there.

Kernels are tested on a GPU (`tests/cuda`); here it is the Python around them: every tensor arrives where it belongs, in
the type that the module reads, and answers come back as on the CPU.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import graphmatch as gm
from graphmatch import _cuda_lawler_ops, _cuda_linear_ops, _cuda_qap_ops, _native, _ops, _reference, _sampling_ops
from graphmatch._dense_costs import dense_costs

_cpu = _native.cpu
STREAM = 77
SCRATCH = 48
STEPS = (0, 100, 2, 30)


def at(address: int, *shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
    """The memory at an address as a tensor."""
    count = torch.Size(shape).numel() * dtype.itemsize
    memory = (ctypes.c_byte * count).from_address(address)
    return torch.frombuffer(memory, dtype=dtype).reshape(shape)


@dataclass
class CudaModule:
    """Has the classes and functions of `_native_cuda`; addresses are those of the host."""

    calls: list[dict[str, Any]] = field(default_factory=list)
    LawlerArguments = staticmethod(lambda **values: values)
    LawlerOptions = staticmethod(lambda **values: values)
    States = staticmethod(lambda **values: values)
    LinearArguments = staticmethod(lambda **values: values)
    LinearStarts = staticmethod(lambda **values: values)
    Answers = staticmethod(lambda **values: values)
    Duals = staticmethod(lambda **values: values)
    budget = _cpu.Budget(time_limit=-1.0, threads=1)

    def linear_scratch_bytes(self, problems: dict[str, Any], *, device: int | None) -> int:
        assert device is None
        return SCRATCH

    def linear_assignment(self, **call: Any) -> None:
        self.calls.append(call)
        self.check_place(call["scratch_bytes"], call)
        _cpu.linear_assignment(
            problems=_cpu.LinearArguments(**call["problems"]),
            starts=_cpu.LinearStarts(batch=0, matching=0, row_duals=0),
            budget=self.budget,
            answers=_cpu.Answers(**call["answers"]),
            duals=_cpu.Duals(**call["duals"]),
        )

    def lawler_scratch_bytes(self, problems: dict[str, Any], *, runs: int, limit: int, device: int | None) -> int:
        assert device is None
        assert limit >= 1 << 30
        return SCRATCH * runs

    def lawler_solve(self, problems: dict[str, Any], options: dict[str, Any], **call: Any) -> None:
        """Each run of a problem has answers of its own; of several runs each makes a number of steps of its own."""
        self.calls.append({"problems": problems, "options": options, **call})
        runs, batch, rows = call["runs"], problems["batch"], problems["rows"]
        self.check_place(call["scratch_size"] // runs, call)
        for run in range(runs):
            answers = _ops._empty_answers(batch, rows, torch.device("cpu"))
            steps = options["steps"] if runs == 1 else STEPS[run]
            _cpu.lawler_solve(
                _cpu.LawlerArguments(**problems),
                _cpu.LawlerOptions(**{**options, "steps": steps, "runs": 1}, max_nodes=0),
                _cpu.States(**call["warm"]),
                _cpu.States(**call["kept"]),
                self.budget,
                _ops._native_answers(answers),
            )
            for answer, address in zip(answers, call["answers"].values(), strict=True):
                shape = (batch, runs, *answer.shape[1:])
                at(address, *shape, dtype=answer.dtype)[:, run] = answer

    def lawler_objective(self, problems: dict[str, Any], **call: Any) -> None:
        self.check_place(SCRATCH, {**call, "scratch": 1})
        _cpu.lawler_objective(_cpu.LawlerArguments(**problems), call["assignment"], self.budget, call["objective"])

    def noise(self, *, stream_of_costs: int, device: int | None, stream: int, **call: Any) -> None:
        self.check_place(SCRATCH, {"scratch": 1, "device": device, "stream": stream})
        names = ("kind", "coupling", "seed")
        options = _cpu.NoiseOptions(**{name: call.pop(name) for name in names}, stream=stream_of_costs)
        _cpu.noise(options=options, **call)

    def qap_tabu_scratch_bytes(self, *, nodes: int, searches: int, device: int | None) -> int:
        assert device is None
        return SCRATCH

    def qap_tabu(self, **call: Any) -> None:
        """Searches that end where they begin; those without a start of their own begin at the identity."""
        self.calls.append(call)
        self.check_place(SCRATCH, call)
        batch, nodes, runs = call["batch"], call["nodes"], call["runs"]
        starts = at(call["starts"], batch, call["start_count"], nodes)
        flow, distance = (
            at(call[f"given_{name}"], batch, nodes, nodes, dtype=torch.float64) for name in ("flow", "distance")
        )
        for b, size in enumerate(at(call["sizes"], batch).tolist()):
            for run in range(runs):
                found = starts[b, run, :size] if run < call["start_count"] else torch.arange(size)
                paid = (flow[b, :size, :size] * distance[b][found][:, found]).sum()
                at(call["assignment"], batch, runs, nodes)[b, run, :size] = found
                at(call["objective"], batch, runs, dtype=torch.float64)[b, run] = paid
                at(call["iterations"], batch, runs)[b, run] = call["steps"]

    def check_place(self, scratch: int, call: dict[str, Any]) -> None:
        """Scratch memory is there, and work is queued on the current stream."""
        assert scratch == SCRATCH
        assert call["scratch"] != 0
        assert call["device"] is None
        assert call["stream"] == STREAM


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> CudaModule:
    made = CudaModule()
    monkeypatch.setattr(_native, "cuda", lambda: made)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=STREAM))
    return made


def lawler_tensors(problem: gm.LawlerProblem) -> tuple:
    tensors = (problem.unary_costs, problem.quadratic_costs, problem.edges1, problem.edges2, problem.sizes)
    return (*tensors, problem.unmatched_cost)


def ragged(problem: gm.LawlerProblem) -> gm.LawlerProblem:
    """The problem with other strides and smaller second problems."""
    sizes = torch.tensor([[4, 4, 6, 6], [3, 2, 0, 0], [4, 4, 5, 6]])[: problem.batch_size]
    return replace(problem, unary_costs=problem.unary_costs.mT.contiguous().mT, sizes=sizes)


def options(method: int, runs: int = 1, time_limit: float | None = None, steps: int = 30) -> tuple:
    return (method, 20, runs, steps, 100, 1.0, 1e-6, -3, time_limit, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("unmatched_cost", [None, 0.0, -0.5])
@pytest.mark.parametrize("sizes", [None, [[4, 5], [0, 0], [2, 5]]])
def test_linear_problems_arrive(
    module: CudaModule, make_problem: Callable, dtype: torch.dtype, unmatched_cost: float | None, sizes: list | None
):
    problem = make_problem("linear", 0, batch=3, n1=4, n2=5, dtype=dtype)
    counts = None if sizes is None else torch.tensor(sizes)
    for costs in (problem.costs, problem.costs.mT.contiguous().mT, problem.costs[:1].expand(3, -1, -1)):
        expected = _ops.linear_assignment(costs, counts, unmatched_cost, 1)
        answers = _cuda_linear_ops._linear_assignment(costs, counts, unmatched_cost, 1)
        assert len(answers) == len(expected)
        for answer, wanted in zip(answers, expected, strict=True):
            assert answer.dtype == wanted.dtype
            assert torch.equal(answer, wanted)
    assert [call["problems"]["batch_stride"] for call in module.calls] == [20, 20, 0]


@pytest.mark.parametrize("with_duals", [False, True])
def test_linear_starts_arrive_with_their_duals_only(module: CudaModule, make_problem: Callable, with_duals: bool):
    problem = make_problem("linear", 0, batch=4, n1=3, n2=3)
    matching = torch.tensor([[0, 1, 2], [2, 1, 0]]).mT.contiguous().mT
    _cuda_linear_ops._linear_assignment(
        problem.costs, None, None, 1, matching, torch.zeros(2, 3).double() if with_duals else None
    )
    starts = module.calls[0]["starts"]
    assert starts["row_duals"] == 0
    assert starts["batch"] == (2 if with_duals else 0)
    assert (starts["matching"] != 0) == with_duals


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("unmatched_cost", [None, 0.0, -0.5])
@pytest.mark.parametrize("method", [_ops.DUAL_ASCENT, _ops.PORTFOLIO])
def test_sparse_problems_arrive_with_their_states(
    module: CudaModule, make_problem: Callable, dtype: torch.dtype, unmatched_cost: float | None, method: int
):
    whole = make_problem("lawler", 1, batch=3, dtype=dtype, unmatched_cost=unmatched_cost)
    for problem in (whole, ragged(whole)):
        state: tuple = (None, None, None, None)
        for _ in range(2):  # cold, then from what the first solve kept
            expected = _ops.lawler_solve(*lawler_tensors(problem), *options(method), *state, True)
            answers = _cuda_lawler_ops._lawler_solve(*lawler_tensors(problem), *options(method), *state, True)
            assert len(answers) == len(expected)
            for answer, wanted in zip(answers, expected, strict=True):
                assert answer.dtype == wanted.dtype
                assert torch.equal(answer, wanted)
            state = (*answers[6:], answers[0].mT.contiguous().mT)
    assert [call["warm"]["batch"] for call in module.calls] == [0, 3, 0, 3]
    assert [call["runs"] for call in module.calls] == [1] * 4


def test_of_several_searches_the_best_becomes_the_answer(module: CudaModule, make_problem: Callable):
    problem = make_problem("lawler", 2, batch=6, n1=12, n2=12, e1=60, e2=60)
    tensors = lawler_tensors(problem)
    none = (None, None, None, None)
    runs = [_ops.lawler_solve(*tensors, *options(_ops.TABU, steps=steps), *none, False) for steps in STEPS]
    answers = _cuda_lawler_ops._lawler_solve(*tensors, *options(_ops.TABU, runs=4), *none, False)
    best = torch.stack([run[1] for run in runs]).argmin(0)
    assert 0 not in best
    for place in range(6):
        every = torch.stack([run[place] for run in runs])
        assert torch.equal(answers[place], every[best, torch.arange(6)])
    assert [tensor.shape[0] for tensor in answers[6:]] == [0, 0, 0]
    assert module.calls[0]["options"]["seed"] == 2**64 - 3
    # Room for states belongs to one search of a problem.
    kept = _cuda_lawler_ops._lawler_solve(*tensors, *options(_ops.TABU, runs=4), *none, True)[6:]
    assert module.calls[-1]["kept"]["batch"] == 0
    assert all(int(tensor.count_nonzero()) == 0 for tensor in kept)
    assert [tensor.shape[0] for tensor in kept] == [6, 6, 6]


def test_invalid_problems_stay_invalid_among_several_searches(module: CudaModule, make_problem: Callable):
    problem = make_problem("lawler", 2, batch=2)
    unary = problem.unary_costs.clone()
    unary[1, 0, 0] = torch.nan
    tensors = (unary, *lawler_tensors(problem)[1:])
    answers = _cuda_lawler_ops._lawler_solve(*tensors, *options(_ops.TABU, runs=3), *(None,) * 4, False)
    assert answers[3][1] == int(gm.Status.INVALID)
    assert answers[1].isnan().tolist() == [False, True]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_objectives_arrive(module: CudaModule, make_problem: Callable, dtype: torch.dtype):
    problem = ragged(make_problem("lawler", 3, batch=3, dtype=dtype, unmatched_cost=0.25))
    assignment = torch.tensor([[3, 2, 1, 0], [1, -1, 0, -1], [0, 1, -1, 9]]).mT.contiguous().mT
    expected = _ops.lawler_objective(*lawler_tensors(problem), assignment, 1)
    objective = _cuda_lawler_ops._lawler_objective_cuda(*lawler_tensors(problem), assignment, 1)
    torch.testing.assert_close(objective, expected, rtol=0, atol=0, equal_nan=True)
    assert objective.isnan().tolist() == [False, False, True]


def test_time_limits_are_refused(module: CudaModule, make_problem: Callable):
    tensors = lawler_tensors(make_problem("lawler", 0))
    with pytest.raises(ValueError, match=r"lawler_solve: time_limit must be None for CUDA tensors; got 1.0"):
        _cuda_lawler_ops._lawler_solve(*tensors, *options(_ops.TABU, time_limit=1.0), *(None,) * 4, False)
    assert module.calls == []


@pytest.mark.parametrize("coupling", [0, 1])
@pytest.mark.parametrize("sizes", [None, [[3, 4], [2, 2]]])
def test_noise_arrives(module: CudaModule, coupling: int, sizes: list | None):
    keys, instances = torch.tensor([5, 6, 7, 8])[::2], torch.tensor([1, 0])
    counts = None if sizes is None else torch.tensor(sizes)
    arguments = (keys, instances, 4, 2, 3, 4, counts, -1, 3, 1, coupling)
    assert torch.equal(_sampling_ops._noise_cuda(*arguments), _sampling_ops._noise(*arguments))


def test_noise_that_the_gpu_does_not_draw_is_refused(module: CudaModule, monkeypatch: pytest.MonkeyPatch):
    keys = torch.tensor([5])
    with pytest.raises(RuntimeError, match=r"noise must be one that the GPU draws; got orthogonal samples"):
        _sampling_ops._noise_cuda(keys, keys, 4, 0, 3, 4, None, 0, 0, 1, _sampling_ops.ORTHOGONAL)
    monkeypatch.setattr(_native, "cuda", lambda: None)
    with pytest.raises(RuntimeError, match=r"got a build without the CUDA module"):
        _sampling_ops._noise_cuda(keys, keys, 4, 0, 3, 4, None, 0, 0, 1, 0)


@pytest.mark.parametrize("sizes", [None, [4, 0, 3]])
def test_dense_problems_arrive(module: CudaModule, make_problem: Callable, sizes: list | None):
    problem = make_problem("koopmans_beckmann", 0, batch=3, integers=True, dtype=torch.float32)
    problem = replace(problem, linear=None, sizes=None if sizes is None else torch.tensor(sizes))
    arguments = (problem.flow, problem.distance, None, problem.sizes, None)
    rest = (_ops.QAP_TABU, 1, 3, 7, 1.0, 1e-4, False, 0.01, False, 1e-6, -1, None, 1)
    assignment, objective, bound, _, iterations, _ = _cuda_qap_ops._qap_solve_cuda(*arguments, *rest)
    torch.testing.assert_close(objective, _reference.objective(problem, assignment), rtol=1e-12, atol=1e-12)
    best = gm.solve(problem, gm.BruteForce())
    assert bool((bound <= best.objective).all())
    assert bool((objective >= best.objective).all())
    assert iterations.tolist() == [21] * 3
    (call,) = module.calls
    assert (call["runs"], call["steps"], call["seed"], call["start_count"]) == (3, 7, 2**64 - 1, 1)
    costs = dense_costs(problem.flow, problem.distance, None, problem.sizes)
    for name in ("flow", "distance", "linear"):
        assert call[name] != 0
    assert call["given_linear"] == 0
    assert costs.sizes.tolist() == (sizes or [4, 4, 4])


def test_dense_problems_without_nodes_need_no_kernel(module: CudaModule):
    rest = (_ops.QAP_TABU, 1, 3, 7, 1.0, 1e-4, False, 0.01, False, 1e-6, 0, None, 1)
    for shape in ((0, 4, 4), (2, 0, 0)):
        flow = torch.zeros(shape)
        answers = _cuda_qap_ops._qap_solve_cuda(flow, flow, None, None, None, *rest)
        expected = _ops.qap_solve(flow, flow, None, None, None, *rest)
        assert [each.tolist() for each in answers[:4]] == [each.tolist() for each in expected[:4]]
        assert [each.dtype for each in answers] == [each.dtype for each in expected]
    assert module.calls == []
