"""The baselines that relax matchings to real numbers: their operator, bound and rounding, and what they find."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import graphmatch as gm
from graphmatch import _reference
from graphmatch.solvers import relaxation
from graphmatch.solvers.call import check_rounding
from graphmatch.solvers.relaxation import relax, separate_bound

Make = Callable[..., gm.Problem]
SOLVERS = [gm.SpectralMatching(), gm.RRWM(max_iterations=30), gm.IPFP()]
every_solver = pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)


def affinity_matrix(problem: gm.LawlerProblem, index: int) -> Tensor:
    """The symmetric matrix (n1 n2, n1 n2) of one problem, entry by entry, -cost."""
    n2 = problem.unary_costs.shape[2]
    matrix = torch.diag(-problem.unary_costs[index].flatten().nan_to_num(0, 0, 0))
    for e, (i, j) in enumerate(problem.edges1[index].tolist()):
        for f, (k, m) in enumerate(problem.edges2[index].tolist()):
            if (i == j) == (k == m):  # others are never paid by an injective map
                half = 0.5 * problem.quadratic_costs[index, e, f]
                matrix[i * n2 + k, j * n2 + m] -= half
                matrix[j * n2 + m, i * n2 + k] -= half
    return matrix


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_product_is_that_of_the_dense_matrix(make_problem: Make, dtype: torch.dtype, rng):
    for seed in range(10):
        # More edges than pairs of nodes: loops and repeated edges are among them.
        problem = make_problem("lawler", seed, batch=3, n1=3, n2=4, e1=15, e2=19, dtype=dtype, forbidden=0.2)
        relaxed = relax(problem)
        x = torch.where(relaxed.allowed, torch.rand(3, 3, 4, generator=rng).to(dtype), 0)
        product = relaxed.product(x) * relaxed.scale[:, None, None].to(dtype)
        for index in range(3):
            expected = (affinity_matrix(problem, index) @ x[index].flatten()).view(3, 4)
            expected = torch.where(relaxed.allowed[index], expected, 0)
            torch.testing.assert_close(product[index], expected)


def test_the_quadratic_form_is_minus_the_objective(make_problem: Make):
    for seed in range(20):
        problem = make_problem("lawler", seed, n1=4, n2=5, e1=14, e2=19)
        relaxed = relax(problem)
        assignment = torch.stack([torch.randperm(5)[:4] for _ in range(2)])
        matching = gm.result.matching_matrix(assignment, problem.unary_costs)
        value = relaxed.value(matching, relaxed.product(matching)) * relaxed.scale
        torch.testing.assert_close(value, -_reference.objective(problem, assignment))


def planted(batch: int, nodes: int, edges: int, seed: int) -> tuple[gm.LawlerProblem, Tensor]:
    """Isomorphic weighted graphs whose edges alone tell the matching, and that matching."""
    generator = torch.Generator().manual_seed(seed)
    pairs = torch.combinations(torch.arange(nodes))
    edges1 = torch.stack([pairs[torch.randperm(len(pairs), generator=generator)[:edges]] for _ in range(batch)])
    images = torch.stack([torch.randperm(nodes, generator=generator) for _ in range(batch)])
    order = torch.stack([torch.randperm(edges, generator=generator) for _ in range(batch)])
    edges2 = torch.stack([images[b][edges1[b]][order[b]] for b in range(batch)])
    weights1 = torch.rand(batch, edges, generator=generator, dtype=torch.float64)
    weights2 = weights1.gather(1, order)
    quadratic = -torch.exp(-50 * (weights1[:, :, None] - weights2[:, None, :]).square())
    return gm.LawlerProblem(torch.zeros(batch, nodes, nodes, dtype=torch.float64), quadratic, edges1, edges2), images


@every_solver
def test_planted_isomorphisms_are_recovered(solver: gm.Solver):
    problem, images = planted(batch=8, nodes=10, edges=35, seed=0)
    result = gm.solve(problem, solver)
    right = (result.assignment == images).all(1)
    assert right.all() if not isinstance(solver, gm.IPFP) else right.sum() >= 4


@every_solver
def test_ragged_batches(solver: gm.Solver, make_problem: Make):
    sizes = [(3, 5), (5, 3), (1, 4), (4, 4)]
    for unmatched_cost in (None, 0.2):
        parts = [
            make_problem("lawler", seed, batch=1, n1=n1, n2=n2, e1=7, e2=9, unmatched_cost=unmatched_cost)
            for seed, (n1, n2) in enumerate(sizes)
        ]
        together = gm.solve(gm.stack_problems(parts), solver)
        for place, part in enumerate(parts):
            alone = gm.solve(part, solver)
            assert torch.equal(together.assignment[place, : sizes[place][0]], alone.assignment[0])
            torch.testing.assert_close(together.objective[place], alone.objective[0])
            torch.testing.assert_close(together.lower_bound[place], alone.lower_bound[0])


def test_bounds_allow_for_the_rounding_of_real_edges_only():
    edges = torch.tensor([[0, 1], [1, 0]])
    large = gm.LawlerProblem(torch.zeros(1, 2, 2).double(), torch.full((1, 2, 2), 1e20).double(), edges, edges)
    other = gm.LawlerProblem(
        torch.zeros(1, 2, 2).double(), torch.zeros(1, 60, 60).double(), edges.repeat(30, 1), edges.repeat(30, 1)
    )
    alone, padded = gm.solve(large, gm.IPFP()), gm.solve(gm.stack_problems([large, other]), gm.IPFP())
    torch.testing.assert_close(padded.lower_bound[:1], alone.lower_bound, rtol=1e-15, atol=0)


@every_solver
def test_no_match_of_a_partial_problem_costs_more_than_it_saves(solver: gm.Solver, make_problem: Make):
    for seed in range(10):
        problem = make_problem("lawler", seed, batch=4, n1=6, n2=6, e1=14, e2=14, unmatched_cost=0.1)
        result = gm.solve(problem, solver)
        for node in range(6):
            without = result.assignment.clone()
            without[:, node] = -1
            assert (_reference.objective(problem, without) >= result.objective - 1e-9).all()
    free = make_problem("lawler", 0, n1=5, n2=5, unmatched_cost=0.0)
    costly = gm.LawlerProblem(free.unary_costs.abs(), free.quadratic_costs.abs(), free.edges1, free.edges2, None, 0.0)
    assert gm.solve(costly, solver).assignment.eq(-1).all()


@every_solver
def test_costs_of_one_sign_are_told_apart(solver: gm.Solver):
    # All costs are positive, no affinity is: the methods must not take them for equal.
    unary = torch.full((1, 5, 5), 2.0)
    unary[0, torch.arange(5), torch.tensor([3, 1, 4, 0, 2])] = 1.0
    edges = torch.combinations(torch.arange(5))
    problem = gm.LawlerProblem(unary, torch.full((1, 10, 10), 0.5), edges, edges)
    assert gm.solve(problem, solver).assignment.tolist() == [[3, 1, 4, 0, 2]]


@pytest.mark.parametrize("unmatched_cost", [None, 0.3])
def test_the_bound_is_valid_and_tight_where_edges_do_not_compete(make_problem: Make, unmatched_cost: float | None):
    slack = []
    for seed in range(40):
        problem = make_problem("lawler", seed, n1=4, n2=4, e1=12, e2=18, unmatched_cost=unmatched_cost)
        best = gm.BruteForce().solve(problem).objective
        bound = separate_bound("test", problem, relax(problem).allowed, on_cpu=False)
        assert (bound <= best).all()
        slack.append(best - bound)
    assert torch.cat(slack).min() < 3.0
    linear = make_problem("lawler", 0, e1=0, e2=0, unmatched_cost=unmatched_cost)
    bound = separate_bound("test", linear, relax(linear).allowed, on_cpu=False)
    torch.testing.assert_close(bound, gm.BruteForce().solve(linear).objective)


def test_equal_edges_of_graph_2_are_merged_before_the_bound_takes_the_least():
    # Two copies of an edge cost -1 and +1: together nothing, while the cheaper one alone would bound by -1.
    edges1, edges2 = torch.tensor([[0, 1]]), torch.tensor([[0, 1], [0, 1]])
    problem = gm.LawlerProblem(torch.zeros(1, 2, 2), torch.tensor([[[-1.0, 1.0]]]), edges1, edges2)
    bound = separate_bound("test", problem, relax(problem).allowed, on_cpu=False)
    assert bound.item() == pytest.approx(0, abs=1e-12)
    assert bound.item() <= 0


@every_solver
def test_the_best_of_many_iterations(solver: gm.Solver, make_problem: Make):
    problem = make_problem("lawler", 3, batch=6, n1=8, n2=8, e1=24, e2=24)
    result = gm.solve(problem, solver)
    lap = gm.solve(gm.LinearProblem(problem.unary_costs)).assignment
    assert result.objective.mean() < _reference.objective(problem, lap).mean()
    assert (result.iterations >= 1).all()
    portfolio = gm.solve(problem)
    assert (portfolio.objective <= result.objective + 1e-9).all()
    assert (result.lower_bound <= portfolio.objective).all()


@every_solver
def test_wrong_arguments_are_named(solver: gm.Solver, make_problem: Make):
    kind = type(solver)
    with pytest.raises(ValueError, match=f"{kind.__name__}: max_iterations must be at least 1; got 0"):
        kind(max_iterations=0)
    with pytest.raises(ValueError, match="tolerance must"):
        kind(tolerance=-1.0)
    with pytest.raises(ValueError, match="max_gap must"):
        kind(max_gap=math.nan)
    with pytest.raises(TypeError, match=f"{kind.__name__}: problem must be a LawlerProblem"):
        gm.solve(make_problem("linear", 0), solver)


def test_wrong_arguments_of_rrwm_are_named():
    with pytest.raises(ValueError, match="walk must lie in"):
        gm.RRWM(walk=0.0)
    with pytest.raises(ValueError, match="inflation must lie in"):
        gm.RRWM(inflation=0.0)


@every_solver
def test_gradients_do_not_pass_and_layers_take_the_solvers(solver: gm.Solver, make_problem: Make):
    problem = make_problem("lawler", 4)
    unary = problem.unary_costs.clone().requires_grad_()
    layer = gm.MatchingLayer(solver=solver, gradient=gm.BlackBox())
    matching, _ = layer(unary, problem.quadratic_costs, problem.edges1, problem.edges2)
    matching[:, 0, 0].sum().backward()
    assert unary.grad.isfinite().all()
    assert not gm.solve(problem.with_costs(unary, problem.quadratic_costs), solver).objective.requires_grad


def test_the_work_is_where_the_tensors_are():
    # Tensors without numbers stand for those of another device: the iterations must not ask the CPU for any.
    x = torch.rand(2, 3, 4, device="meta")
    edges = torch.zeros(10, dtype=torch.int64, device="meta")
    moved = relaxation._moved(x, torch.rand(2, 5, 5, device="meta"), edges, edges, edges, edges)
    assert moved.shape == (2, 3, 4)
    assert moved.device.type == "meta"


@pytest.mark.parametrize("name", ["SpectralMatching", "RRWM", "IPFP", "Sinkhorn"])
def test_other_devices_are_refused_unless_the_rounding_may_use_the_cpu(name: str):
    with pytest.raises(ValueError, match=rf"{name}: the problem must be on the CPU; got device meta. Set on_cpu=True"):
        check_rounding(name, torch.device("meta"), on_cpu=False)
