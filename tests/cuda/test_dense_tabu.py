"""Dense tabu search on the GPU: against enumeration, the CPU, and itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

import graphmatch as gm
from graphmatch import _ops, _reference

pytestmark = pytest.mark.cuda

KINDS = ["integer symmetric", "integer linear", "real", "real symmetric linear", "integer forbidden", "real forbidden"]
every_kind = pytest.mark.parametrize("kind", KINDS)


def random_problem(kind: str, seed: int, nodes: int, batch: int) -> gm.KoopmansBeckmannProblem:
    generator = torch.Generator().manual_seed(seed)

    def draw() -> Tensor:
        values = torch.randn(batch, nodes, nodes, generator=generator, dtype=torch.float64)
        return (3 * values).round() if "integer" in kind else values

    flow, distance, linear = draw(), draw(), None
    if "symmetric" in kind:
        flow, distance = flow + flow.mT, distance + distance.mT
    if "linear" in kind:
        linear = draw()
    if "forbidden" in kind:
        linear = draw().masked_fill(torch.rand(batch, nodes, nodes, generator=generator) < 0.3, torch.inf)
    return gm.KoopmansBeckmannProblem(flow, distance, linear)


def moved(problem: gm.KoopmansBeckmannProblem) -> gm.KoopmansBeckmannProblem:
    given = (problem.flow, problem.distance, problem.linear, problem.sizes)
    return gm.KoopmansBeckmannProblem(*(None if tensor is None else tensor.cuda() for tensor in given))


def solve_there(problem: gm.KoopmansBeckmannProblem, **options: object) -> gm.MatchResult:
    result = gm.solve(moved(problem), gm.Tabu(**options))
    assert result.assignment.is_cuda
    return result


def operator_arguments(problem: gm.KoopmansBeckmannProblem, runs: int = 2, steps: int = 500) -> tuple:
    tensors = (problem.flow, problem.distance, problem.linear, problem.sizes, None)
    return *tensors, _ops.QAP_TABU, 30, runs, steps, 1.0, 1e-4, False, 0.01, False, 1e-6, 0, None, 1


@every_kind
@pytest.mark.parametrize("nodes", [1, 2, 3, 5, 7])
def test_small_problems_are_solved(kind: str, nodes: int):
    problem = random_problem(kind, nodes, nodes, batch=8)
    found = solve_there(problem, steps=2000, restarts=8)
    optimum = gm.solve(problem, gm.BruteForce())
    torch.testing.assert_close(found.objective.cpu(), optimum.objective, rtol=1e-12, atol=1e-12)
    assert bool((found.lower_bound.cpu() <= optimum.objective + 1e-12).all())
    infeasible = optimum.status == int(gm.Status.INFEASIBLE)
    assert torch.equal(found.status.cpu() == int(gm.Status.INFEASIBLE), infeasible)


@every_kind
@pytest.mark.parametrize("nodes", [20, 30])
def test_the_same_steps_find_as_good_permutations_as_on_the_cpu(kind: str, nodes: int):
    problem = random_problem(kind, nodes, nodes, batch=16)
    options = {"steps": 5000, "restarts": 4}
    there, here = solve_there(problem, **options), gm.solve(problem, gm.Tabu(**options))
    torch.testing.assert_close(
        there.objective.cpu(), _reference.objective(problem, there.assignment.cpu()), rtol=1e-12, atol=1e-12
    )
    assert bool((there.lower_bound <= there.objective).all())
    torch.testing.assert_close(there.lower_bound.cpu(), here.lower_bound, rtol=1e-9, atol=1e-9)
    # Other starts lead to other local optima: better ones here, worse ones there.
    scale = here.objective.abs().mean()
    assert (there.objective.cpu() - here.objective).mean() <= 0.02 * scale


@every_kind
def test_a_batch_equals_its_problems_one_by_one_every_time(kind: str):
    problem = moved(random_problem(kind, 3, 12, batch=5))
    whole, again = (_ops.qap_solve(*operator_arguments(problem)) for _ in range(2))
    for first, second in zip(whole, again, strict=True):
        assert torch.equal(first, second)
    for b in range(5):
        linear = None if problem.linear is None else problem.linear[b : b + 1]
        single = gm.KoopmansBeckmannProblem(problem.flow[b : b + 1], problem.distance[b : b + 1], linear)
        for one, all_of_them in zip(_ops.qap_solve(*operator_arguments(single)), whole, strict=True):
            torch.testing.assert_close(one[0], all_of_them[b], rtol=1e-13, atol=1e-13)


def test_padding_changes_nothing():
    singles = [random_problem("integer linear", n, n, batch=1) for n in (1, 4, 9, 16)]
    sizes = torch.tensor([1, 4, 9, 16])
    padded = [
        torch.cat(
            [
                pad(getattr(each, name), (0, 16 - n, 0, 16 - n), value=torch.nan)
                for each, n in zip(singles, (1, 4, 9, 16), strict=True)
            ]
        )
        for name in ("flow", "distance", "linear")
    ]
    found = solve_there(gm.KoopmansBeckmannProblem(*padded, sizes), steps=300)
    emptied = sizes * torch.tensor([1, 0, 1, 1])
    without = solve_there(gm.KoopmansBeckmannProblem(*padded, emptied), steps=300)
    assert without.objective[1] == 0
    assert without.status[1] == int(gm.Status.OPTIMAL)
    for b, single in enumerate(singles):
        alone = solve_there(single, steps=300)
        nodes = single.flow.shape[1]
        assert torch.equal(found.assignment[b, :nodes], alone.assignment[0])
        assert bool((found.assignment[b, nodes:] == -1).all())
        assert found.objective[b] == alone.objective[0]
        assert b == 1 or without.objective[b] == alone.objective[0]


@pytest.mark.parametrize("shape", [(0, 5, 5), (3, 0, 0)])
def test_nothing_to_solve(shape: tuple[int, ...]):
    empty = torch.zeros(shape, device="cuda")
    found = gm.solve(gm.KoopmansBeckmannProblem(empty, empty), gm.Tabu())
    assert found.assignment.shape == shape[:2]
    assert bool((found.objective == 0).all())


def test_broken_numbers_and_forbidden_problems():
    flow = torch.ones(3, 4, 4, device="cuda")
    linear = torch.zeros(3, 4, 4, device="cuda")
    flow[0, 1, 2], linear[1, 2] = torch.nan, torch.inf
    problem = gm.problem.made_of(gm.KoopmansBeckmannProblem, flow=flow, distance=flow, linear=linear, sizes=None)
    assignment, objective, bound, status, *_ = _ops.qap_solve(*operator_arguments(problem))
    statuses = [gm.Status.INVALID, gm.Status.INFEASIBLE, gm.Status.OPTIMAL]
    assert status.tolist() == [int(each) for each in statuses]
    assert bool(objective[0].isnan())
    assert objective[1:].tolist() == [torch.inf, 16.0]
    assert bound[1:].tolist() == [torch.inf, 16.0]
    assert bool((assignment[:2] == -1).all())


@pytest.mark.parametrize("nodes", [64, 130, 260])
@pytest.mark.parametrize("kind", ["integer symmetric", "real"])
def test_tables_that_leave_shared_memory(kind: str, nodes: int):
    problem = random_problem(kind, nodes, nodes, batch=2)
    found = solve_there(problem, steps=2000, restarts=2)
    expected = _reference.objective(problem, found.assignment.cpu())
    torch.testing.assert_close(found.objective.cpu(), expected, rtol=1e-12, atol=1e-9)
    here = gm.solve(problem, gm.Tabu(steps=2000, restarts=2))
    assert (found.objective.cpu() - here.objective).mean() <= 0.03 * here.objective.abs().mean()


def test_long_searches_refresh_their_tables():
    problem = random_problem("real", 1, 9, batch=2)
    found = solve_there(problem, steps=140_000, restarts=2)
    best = gm.solve(problem, gm.Portfolio()).objective
    torch.testing.assert_close(found.objective.cpu(), best, rtol=1e-12, atol=1e-12)


@every_kind
def test_nothing_waits_for_the_gpu(kind: str, nobody_waits: Callable):
    arguments = operator_arguments(moved(random_problem(kind, 0, 10, batch=3)))
    _ops.qap_solve(*arguments)
    with nobody_waits():
        _ops.qap_solve(*arguments)


def test_searches_start_from_what_is_known():
    problem = moved(random_problem("integer linear", 0, 12, batch=2))
    solver = gm.Tabu(steps=3000)
    known = gm.solve(problem, solver)
    warm = gm.Tabu(steps=1, restarts=1).solve_from(known.state, problem)
    assert bool((warm.objective <= known.objective).all())


def test_other_methods_say_what_to_do():
    problem = moved(random_problem("real", 0, 4, batch=1))
    with pytest.raises(ValueError, match="on_cpu=True"):
        gm.solve(problem, gm.FAQ())
    with pytest.raises(ValueError, match="on_cpu=True"):
        gm.solve(problem, gm.Tabu(time_limit=1.0))
    assert gm.solve(problem, gm.FAQ(on_cpu=True)).assignment.is_cuda
    assert gm.solve(problem, gm.Tabu(on_cpu=True, time_limit=1.0)).assignment.is_cuda
