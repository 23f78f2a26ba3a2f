"""Linear assignment on the GPU: the CPU's costs with duals that prove them, queued without waiting, repeatable."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import graphmatch as gm
from graphmatch import _cuda_linear_ops, _native, _ops

# Warps, blocks in shared memory, and blocks in global memory, which the last two need.
SHAPES = [
    (40, 1, 1),
    (40, 5, 5),
    (40, 16, 16),
    (9, 33, 40),
    (9, 40, 33),
    (9, 64, 64),
    (3, 100, 256),
    (3, 256, 256),
    (3, 257, 31),
    (3, 300, 300),
    (2, 700, 650),
    (2, 20, 9000),
    (2, 9000, 20),
]
EMPTY = [(3, 0, 0), (3, 0, 4), (3, 4, 0), (0, 4, 4)]

FAMILIES = {
    "uniform": lambda values: values,
    "few levels": lambda values: (7 * values).floor(),
    "large offsets": lambda values: values + 1e6 * values[:, :, :1],
}


def uniform(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def on_gpu(problem: gm.LinearProblem) -> gm.LinearProblem:
    sizes = None if problem.sizes is None else problem.sizes.cuda()
    return replace(problem, costs=problem.costs.cuda(), sizes=sizes)


def assert_certified(result: gm.MatchResult) -> None:
    """Duals are feasible, have their signs, and sum to what the matching costs."""
    problem, state = result.problem, result.state
    assert isinstance(state, gm.LinearState)
    assert state.row_duals.device == state.column_duals.device == result.objective.device == problem.costs.device
    n1, n2 = (count.cpu() for count in problem.node_counts())
    costs, objective = problem.costs.cpu().double(), result.objective.cpu()
    found = result.status.cpu() == gm.Status.OPTIMAL
    u, v, assignment = state.row_duals.cpu(), state.column_duals.cpu(), result.assignment.cpu()
    real_row, real_column = torch.arange(u.shape[1]) < n1[:, None], torch.arange(v.shape[1]) < n2[:, None]
    assert u[~(real_row & found[:, None])].eq(0).all()
    assert v[~(real_column & found[:, None])].eq(0).all()
    assert assignment[~(real_row & found[:, None])].eq(-1).all()
    tolerance = 1e-12 * (1 + u.abs().sum(1) + v.abs().sum(1))
    slack = costs - u[:, :, None] - v[:, None, :] + tolerance[:, None, None]
    assert slack[real_row[:, :, None] & real_column[:, None, :] & found[:, None, None]].ge(0).all()
    may_stay_free = torch.full_like(found, problem.unmatched_cost is not None)
    assert v[may_stay_free | (n1 < n2)].le(0).all()
    if problem.unmatched_cost is None:
        assert u[n1 > n2].le(0).all()
        assert (assignment >= 0).sum(1)[found].eq(torch.minimum(n1, n2)[found]).all()
    else:
        assert u[found].le(max(problem.unmatched_cost, 0.0)).all()
    gap = objective - result.lower_bound.cpu()
    assert gap[found].ge(0).all()
    margin = (n1 + n2) * torch.finfo(torch.float64).eps * (u.abs().sum(1) + v.abs().sum(1))
    assert (gap <= tolerance + margin)[found].all()
    paid = costs.gather(2, assignment.clamp(min=0)[:, :, None])[:, :, 0] if v.shape[1] else torch.zeros_like(u)
    alone = real_row.double() * (problem.unmatched_cost or 0.0)
    total = torch.where(assignment >= 0, paid, alone).sum(1)
    assert ((total - objective).abs() <= tolerance)[found].all()


def assert_equals_the_cpu(problem: gm.LinearProblem) -> gm.MatchResult:
    expected = gm.solve(problem)
    result = gm.solve(on_gpu(problem))
    assert torch.equal(result.status.cpu(), expected.status)
    torch.testing.assert_close(result.objective.cpu(), expected.objective, rtol=1e-12, atol=1e-9)
    assert_certified(result)
    return result


def test_without_the_cuda_module_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_native, "cuda", lambda: None)
    with pytest.raises(RuntimeError, match=r"^graphmatch: .* CUDA module; got a build without it\. .*on_cpu=True"):
        _cuda_linear_ops._linear_assignment(torch.zeros(1, 2, 2), None, None, 1)


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_costs_are_those_of_the_cpu(family: str, shape: tuple[int, int, int], dtype: torch.dtype):
    assert_equals_the_cpu(gm.LinearProblem(FAMILIES[family](uniform(shape)).to(dtype)))


@pytest.mark.cuda
@pytest.mark.parametrize("shape", [*SHAPES[1:9], *EMPTY], ids=str)
@pytest.mark.parametrize("unmatched_cost", [None, 0.3, 0.0, -1.0])
@pytest.mark.parametrize("forbidden", [0.0, 0.3, 0.9])
def test_forbidden_and_unmatched_nodes(shape: tuple[int, int, int], unmatched_cost: float | None, forbidden: float):
    costs = uniform(shape).masked_fill(uniform(shape, 1) < forbidden, torch.inf)
    assert_equals_the_cpu(gm.LinearProblem(costs, unmatched_cost=unmatched_cost))


@pytest.mark.cuda
@pytest.mark.parametrize("unmatched_cost", [None, 0.2])
@pytest.mark.parametrize("nodes", [11, 64, 270])
def test_padded_batches(nodes: int, unmatched_cost: float | None):
    sizes = torch.randint(nodes + 1, (40, 2), generator=torch.Generator().manual_seed(0))
    sizes[::4, 1] = sizes[::4, 0]
    assert_equals_the_cpu(gm.LinearProblem(uniform((40, nodes, nodes)), sizes, unmatched_cost))


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_costs(dtype: torch.dtype):
    assert_equals_the_cpu(gm.LinearProblem(uniform((5, 20, 20)).to(dtype)))


@pytest.mark.cuda
def test_shared_and_turned_costs():
    costs = uniform((1, 30, 30)).expand(6, 30, 30)
    assert_equals_the_cpu(gm.LinearProblem(costs))
    assert_equals_the_cpu(gm.LinearProblem(uniform((6, 30, 20)).transpose(1, 2)))


@pytest.mark.cuda
@pytest.mark.parametrize("nodes", [4, 300])
def test_invalid_numbers_and_sizes_are_told_apart(nodes: int):
    costs = uniform((5, nodes, nodes)).cuda()
    costs[1, 2, 3] = math.nan
    costs[2, 0, 0] = -math.inf
    costs[3] = math.inf
    sizes = torch.tensor([[nodes, nodes]] * 5).cuda()
    sizes[4] = torch.tensor([nodes + 1, -1])
    assignment, objective, bound, status, *_ = _ops.linear_assignment(costs, sizes, None, 1)
    assert status.tolist() == [0, 3, 3, 2, 3]
    assert objective[[1, 2, 4]].isnan().all()
    assert bound[[1, 2, 4]].isnan().all()
    assert objective[3] == bound[3] == math.inf
    assert assignment[1:].eq(-1).all()
    assert _ops.linear_assignment(costs, None, math.nan, 1)[3].eq(3).all()


@pytest.mark.cuda
def test_matchings_of_a_state_are_kept_while_none_is_cheaper(nobody_waits: Callable):
    problem = on_gpu(gm.LinearProblem(torch.zeros(4, 5, 5)))
    chosen = torch.stack([torch.randperm(5, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]).cuda()
    state = replace(gm.solve(problem).state, matching=chosen)
    with nobody_waits():
        kept = gm.solve(problem, state=state)
    assert torch.equal(kept.assignment, chosen)
    assert kept.stages == [gm.Stage.WARM_START] * 4
    twice = gm.solve(replace(problem, costs=problem.costs.repeat(2, 1, 1)), state=state)
    assert torch.equal(twice.assignment, chosen.repeat(2, 1))
    for garbage in ([0, 0, 1, 2, 3], [-1] * 5, [5, 0, 1, 2, 3], [-7, 2**40, 0, 1, 2]):
        wrong = replace(state, matching=torch.tensor([garbage] * 4).cuda())
        assert gm.solve(problem, state=wrong).stages == [gm.Stage.NONE] * 4
    dearer = problem.costs.clone()
    dearer[torch.arange(4), 0, chosen[:, 0]] = 1.0
    result = gm.solve(replace(problem, costs=dearer), state=state)
    assert result.objective.eq(0).all()
    assert_certified(result)


@pytest.mark.cuda
@pytest.mark.parametrize("shape", [(100, 16, 16), (20, 64, 70), (5, 300, 300), (2, 20, 9000)], ids=str)
def test_every_run_gives_the_same_bits(shape: tuple[int, int, int]):
    costs = (5 * uniform(shape)).floor().cuda()
    first = _ops.linear_assignment(costs, None, None, 1)
    turned = _ops.linear_assignment(costs.flip(0), None, None, 1)
    for again, reversed_, expected in zip(_ops.linear_assignment(costs, None, None, 1), turned, first, strict=True):
        assert torch.equal(again, expected)
        assert torch.equal(reversed_.flip(0), expected)


@pytest.mark.cuda
@pytest.mark.parametrize("shape", SHAPES[4:], ids=str)
def test_nobody_waits_for_the_gpu(shape: tuple[int, int, int], nobody_waits: Callable):
    problem = on_gpu(gm.LinearProblem(uniform(shape)))
    with nobody_waits():
        gm.LAP().solve(problem)


@pytest.mark.cuda
@pytest.mark.parametrize("shape", [(30, 16, 16), (3, 300, 300), (2, 20, 9000)], ids=str)
def test_graphs_replay_on_new_costs(shape: tuple[int, int, int]):
    costs = uniform(shape).cuda()
    _ops.linear_assignment(costs, None, None, 1)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = _ops.linear_assignment(costs, None, None, 1)
    for seed in (1, 2):
        costs.copy_(uniform(shape, seed))
        graph.replay()
        torch.testing.assert_close(captured[1], _ops.linear_assignment(costs, None, None, 1)[1], rtol=0, atol=0)


@pytest.mark.cuda
def test_the_current_stream_is_used():
    expected = gm.solve(gm.LinearProblem(uniform((50, 20, 20))))
    costs = torch.zeros(50, 20, 20, dtype=torch.float64, device="cuda")
    source = uniform((50, 20, 20)).cuda()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        costs.copy_(source)
        objective = _ops.linear_assignment(costs, None, None, 1)[1]
    stream.synchronize()
    torch.testing.assert_close(objective.cpu(), expected.objective, rtol=1e-12, atol=0)


@pytest.mark.cuda
def test_on_cpu_solves_on_the_cpu():
    problem = gm.LinearProblem((9 * uniform((6, 12, 12))).floor())
    expected, result = gm.solve(problem), gm.solve(on_gpu(problem), gm.LAP(on_cpu=True))
    assert torch.equal(result.assignment.cpu(), expected.assignment)
    assert result.state.row_duals.is_cuda
