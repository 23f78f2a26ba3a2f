"""Sparse quadratic problems on the GPU: sound answers as good as the CPU's, queued without waiting, repeatable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import graphmatch as gm
from graphmatch import _ops, _reference

pytestmark = pytest.mark.cuda

SOLVERS = [gm.DualAscent(max_gap=1e-4), gm.Tabu(steps=200, restarts=3, max_gap=1e-4), gm.Portfolio(max_gap=1e-4)]
# Nodes of both graphs, edges of both, and the cost of an unmatched node.
SHAPES = [
    (5, 5, 12, 12, None),
    (5, 7, 12, 9, 0.2),
    (7, 5, 20, 9, None),
    (16, 16, 80, 80, None),
    (16, 16, 80, 80, 0.0),
    (33, 40, 120, 150, None),
    (40, 33, 120, 150, 0.1),
    (64, 64, 320, 320, None),
    (100, 110, 400, 300, 0.0),
]


def random_problem(shape: tuple, batch: int, seed: int, dtype: torch.dtype = torch.float64) -> gm.LawlerProblem:
    """Costs without structure; loops, repeated and opposite edges; a few forbidden assignments."""
    n1, n2, e1, e2, unmatched_cost = shape
    generator = torch.Generator().manual_seed(seed)

    def edges(count: int, nodes: int) -> Tensor:
        return torch.randint(nodes, (batch, count, 2), generator=generator)

    unary = torch.randn(batch, n1, n2, generator=generator, dtype=dtype)
    unary[torch.rand(batch, n1, n2, generator=generator) < 0.02] = torch.inf
    quadratic = torch.randn(batch, e1, e2, generator=generator, dtype=dtype)
    return gm.LawlerProblem(unary, quadratic, edges(e1, n1), edges(e2, n2), unmatched_cost=unmatched_cost)


def planted_problem(nodes: int, batch: int, noise: float = 0.3) -> gm.LawlerProblem:
    """Two noisy views of the same points, each with its nearest neighbours: what training sees."""
    generator = torch.Generator().manual_seed(nodes)
    points = torch.randn(batch, nodes, 16, generator=generator)
    first, second = (
        gm.knn_graph(points + scale * torch.randn(batch, nodes, 16, generator=generator), k=min(5, nodes - 1))
        for scale in (0.0, noise)
    )
    alike = torch.nn.functional.cosine_similarity(first.nodes[:, :, None], second.nodes[:, None], dim=-1)
    steps = [each.nodes.gather(1, each.edges[..., 1, None].expand(-1, -1, 16)) for each in (first, second)]
    starts = [each.nodes.gather(1, each.edges[..., 0, None].expand(-1, -1, 16)) for each in (first, second)]
    left, right = (torch.nn.functional.normalize(end - start, dim=-1) for end, start in zip(steps, starts, strict=True))
    quadratic = 0.25 - 0.5 * left @ right.mT
    return gm.LawlerProblem(0.5 - alike, quadratic, first.edges, second.edges, unmatched_cost=0.0)


def on_gpu(problem: gm.LawlerProblem) -> gm.LawlerProblem:
    names = ("unary_costs", "quadratic_costs", "edges1", "edges2", "sizes")
    moved = {name: getattr(problem, name).cuda() for name in names if getattr(problem, name) is not None}
    return replace(problem, **moved)


def check(problem: gm.LawlerProblem, result: gm.MatchResult) -> None:
    """Injective and complete, the objective recomputed, the bound below it."""
    assignment, objective = result.assignment.cpu(), result.objective.cpu()
    torch.testing.assert_close(objective, _reference.objective(problem, assignment), rtol=1e-9, atol=1e-9)
    assert (result.lower_bound.cpu() <= objective).all()
    for row in assignment:
        matched = row[row >= 0]
        assert len(matched.unique()) == len(matched)
        if problem.unmatched_cost is None:
            assert len(matched) == min(problem.unary_costs.shape[1:])


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_answers_are_sound_and_as_good_as_on_the_cpu(solver: gm.Solver, shape: tuple, dtype: torch.dtype):
    problem = random_problem(shape, 6, seed=sum(shape[:4]), dtype=dtype)
    result, known = solver.solve(on_gpu(problem)), solver.solve(problem)
    check(problem, result)
    assert (result.lower_bound.cpu() <= known.objective + 1e-6 * known.objective.abs()).all()
    assert (known.lower_bound <= result.objective.cpu() + 1e-6 * known.objective.abs()).all()
    slack = 0.02 if isinstance(solver, gm.Portfolio) else 0.08
    assert result.objective.mean().item() <= known.objective.mean().item() + slack * known.objective.abs().mean().item()
    both = (result.status.cpu() == gm.Status.OPTIMAL) & (known.status == gm.Status.OPTIMAL)
    torch.testing.assert_close(result.objective.cpu()[both], known.objective[both], rtol=2e-4, atol=1e-9)


@pytest.mark.parametrize("nodes", [2, 5, 16, 32, 64])
def test_structured_problems_are_certified_with_the_assignment_of_the_cpu(nodes: int):
    problem = planted_problem(nodes, 50)
    result, known = (gm.DualAscent(max_gap=1e-4).solve(each) for each in (on_gpu(problem), problem))
    check(problem, result)
    certified = (result.status.cpu() == gm.Status.OPTIMAL).double().mean()
    assert certified >= (known.status == gm.Status.OPTIMAL).double().mean() - 0.05
    assert certified >= 0.8
    same = (result.assignment.cpu() == known.assignment).all(1).double().mean()
    assert same >= 0.9


def test_tiny_problems_are_bounded_by_brute_force():
    problem = random_problem((4, 5, 9, 9, None), 200, seed=1)
    best = gm.BruteForce().solve(problem).objective
    for solver in SOLVERS:
        result = solver.solve(on_gpu(problem))
        assert (result.lower_bound.cpu() <= best + 1e-9).all()
        assert (result.objective.cpu() >= best - 1e-9).all()
    assert (result.objective.cpu() <= best + 1e-9).double().mean() > 0.97  # of the portfolio


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)
def test_ragged_batches_equal_single_problems(solver: gm.Solver):
    parts = [
        random_problem((*sizes, None), 1, seed=k) for k, sizes in enumerate([(5, 6, 9, 7), (9, 8, 20, 3), (1, 1, 0, 0)])
    ]
    stacked = gm.stack_problems(parts)
    result = solver.solve(on_gpu(stacked))
    for place, part in enumerate(parts):
        alone = solver.solve(on_gpu(part))
        torch.testing.assert_close(result.objective[place], alone.objective[0], rtol=1e-12, atol=1e-12)
        assert (result.assignment[place, part.unary_costs.shape[1] :] == -1).all()


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)
def test_the_same_answer_every_time_and_in_any_batch(solver: gm.Solver):
    problem = on_gpu(planted_problem(16, 300, noise=1.0))
    first, second = solver.solve(problem), solver.solve(problem)
    assert torch.equal(first.assignment, second.assignment)
    assert torch.equal(first.objective, second.objective)
    assert torch.equal(first.lower_bound, second.lower_bound)
    tensors = [each[:7] for each in (problem.unary_costs, problem.quadratic_costs, problem.edges1, problem.edges2)]
    few = solver.solve(gm.LawlerProblem(*tensors, unmatched_cost=0.0))
    torch.testing.assert_close(few.objective, first.objective[:7], rtol=1e-12, atol=1e-12)


def test_warm_starts_save_iterations_and_never_lose():
    problem = on_gpu(planted_problem(16, 50))
    solver = gm.DualAscent(max_gap=1e-4)
    cold = solver.solve(problem)
    warm = gm.solve(problem, solver, cold.state)
    assert (warm.objective <= cold.objective + 1e-9).all()
    assert warm.iterations.double().mean() < 0.7 * cold.iterations.double().mean()
    assert cold.state.messages.is_cuda


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)
def test_invalid_and_infeasible_problems_say_so(solver: gm.Solver):
    problem = on_gpu(random_problem((5, 5, 9, 9, None), 5, seed=3))
    unary, edges1 = problem.unary_costs.clone(), problem.edges1.clone()
    unary[1, 2, 2] = torch.nan
    unary[2, 3] = torch.inf
    edges1[3, 0, 0] = 99
    result = solver.solve(replace(problem, unary_costs=unary, edges1=edges1))
    assert result.status[1] == gm.Status.INVALID
    assert result.status[2] == gm.Status.INFEASIBLE
    assert result.status[3] == gm.Status.INVALID
    assert result.objective[1].isnan()
    assert result.objective[2] == torch.inf
    assert (result.assignment[1:4] == -1).all()


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)
def test_nobody_waits_and_the_current_stream_is_used(solver: gm.Solver, nobody_waits: Callable):
    problem = on_gpu(planted_problem(16, 20))
    known = solver.solve(problem)
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream), nobody_waits():
        result = solver.solve(problem)
    stream.synchronize()
    assert torch.equal(result.assignment, known.assignment)


def test_a_solve_can_be_captured_in_a_graph():
    problem = on_gpu(planted_problem(16, 20))
    tensors = (problem.unary_costs, problem.quadratic_costs, problem.edges1, problem.edges2, None, 0.0)
    options = (_ops.PORTFOLIO, 50, 0, 0, 0, 1.0, 1e-4, 0, None, 1)
    known = _ops.lawler_solve(*tensors, *options, None, None, None, None, False)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = _ops.lawler_solve(*tensors, *options, None, None, None, None, False)
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(captured[0], known[0])
    assert torch.equal(captured[1], known[1])


def test_solvers_without_a_kernel_refuse_unless_they_may_copy():
    problem = on_gpu(planted_problem(5, 2))
    with pytest.raises(ValueError, match="on_cpu=True"):
        gm.BranchAndBound().solve(problem)
    assert gm.BranchAndBound(on_cpu=True).solve(problem).assignment.is_cuda
    with pytest.raises(ValueError, match="time_limit"):
        gm.DualAscent(time_limit=1.0).solve(problem)
