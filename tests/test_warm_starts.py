"""Warm starts: quick where costs are close, right whatever the state holds, and refused where they cannot fit."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor

import graphmatch as gm
from graphmatch import _reference

Make = Callable[..., gm.LawlerProblem]

SOLVERS = [
    gm.DualAscent(),
    gm.Tabu(steps=50, restarts=3),
    gm.Fusion(generations=5),
    gm.BranchAndBound(),
    gm.Portfolio(),
]
every_solver = pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)
unmatched_costs = pytest.mark.parametrize("unmatched_cost", [None, -0.5], ids=["complete", "partial"])
small = {"batch": 6, "n1": 4, "n2": 5, "e1": 9, "e2": 9}


def randn(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def planted(batch: int, n: int, noise: float, seed: int = 0) -> gm.LawlerProblem:
    """Structured problems: noisy copies of point sets, their nearest-neighbour graphs, negated similarities."""
    points = randn((batch, n, 8), seed).float()
    moved = points + noise * randn((batch, n, 8), seed + 1).float()
    left, right = gm.knn_graph(points, 4), gm.knn_graph(moved, 4)
    features = [gm.edge_features(graph.nodes, graph.edges) for graph in (left, right)]
    unary, quadratic = gm.cosine_affinity(points, moved), gm.cosine_affinity(*features)
    return gm.LawlerProblem(-unary, -quadratic, left.edges, right.edges)


def noisy(problem: gm.LawlerProblem, sigma: float, seed: int) -> gm.LawlerProblem:
    """The problem with Gaussian noise on its unary costs."""
    noise = sigma * randn(problem.unary_costs.shape, seed)
    return replace(problem, unary_costs=problem.unary_costs + noise.to(problem.unary_costs.dtype))


def garbled(state: gm.SolverState, garbage: list[float], share: float, seed: int) -> gm.SolverState:
    """The state with a share of its numbers overwritten."""
    generator = torch.Generator().manual_seed(seed)

    def spoil(values: Tensor) -> Tensor:
        chosen = torch.tensor(garbage, dtype=values.dtype)[
            torch.randint(len(garbage), values.shape, generator=generator)
        ]
        return torch.where(torch.rand(values.shape, generator=generator) < share, chosen, values)

    return replace(state, messages=spoil(state.messages), potentials=spoil(state.potentials))


def assert_holds(result: gm.MatchResult, optimum: Tensor, problem: gm.LawlerProblem) -> None:
    """A valid matching, priced right, with a finite bound at most the known optimum."""
    n1, n2 = problem.unary_costs.shape[1:]
    tolerance = 1e-9 * optimum.abs().clamp(min=1)
    assert torch.equal(result.status == gm.Status.INFEASIBLE, optimum.isinf())
    feasible = optimum.isfinite()
    for row in result.assignment[feasible].tolist():
        matched = [k for k in row if k != -1]
        assert len(set(matched)) == len(matched)
        assert all(0 <= k < n2 for k in matched)
        assert problem.unmatched_cost is not None or len(matched) == min(n1, n2)
    error = result.objective - _reference.objective(problem, result.assignment)
    assert (error.abs() <= tolerance)[feasible].all()
    assert result.lower_bound[feasible].isfinite().all()
    assert (result.lower_bound <= optimum + tolerance)[feasible].all()
    assert (result.lower_bound <= result.objective)[feasible].all()
    assert (result.objective >= optimum - tolerance)[feasible].all()


@every_solver
@unmatched_costs
def test_the_same_problem_again_is_no_worse(solver: gm.Solver, unmatched_cost: float | None, make_problem: Make):
    problem = make_problem("lawler", 0, batch=6, n1=9, n2=10, e1=40, e2=40, unmatched_cost=unmatched_cost)
    first = gm.solve(problem, solver)
    again = gm.solve(problem, solver, state=first.state)
    assert (again.objective <= first.objective).all()
    proven = first.status == gm.Status.OPTIMAL
    assert torch.equal(again.objective[proven], first.objective[proven])
    unchanged = again.objective == first.objective
    assert (again.stage == gm.Stage.WARM_START)[unchanged].all()


@pytest.mark.parametrize(
    "solver", [gm.DualAscent(), gm.Portfolio(), gm.BranchAndBound()], ids=lambda s: type(s).__name__
)
def test_a_certified_problem_is_certified_in_one_iteration(solver: gm.Solver):
    problem = planted(batch=30, n=16, noise=0.2)
    first = gm.solve(problem, solver)
    assert first.statuses == [gm.Status.OPTIMAL] * 30
    assert first.iterations.gt(1).any()
    again = gm.solve(problem, solver, state=first.state)
    assert again.statuses == [gm.Status.OPTIMAL] * 30
    assert again.iterations.eq(1).all()
    assert again.stages == [gm.Stage.WARM_START] * 30
    assert torch.equal(again.assignment, first.assignment)
    assert torch.equal(again.objective, first.objective)


@pytest.mark.parametrize(
    "solver", [gm.DualAscent(max_gap=1e-4), gm.Portfolio(max_gap=1e-4)], ids=lambda s: type(s).__name__
)
def test_close_costs_need_few_iterations(solver: gm.Solver):
    for noise in (0.2, 0.5):
        problem = planted(batch=40, n=16, noise=noise)
        state = gm.solve(problem, solver).state
        near = noisy(problem, 0.05, seed=2)
        cold, warm = gm.solve(near, solver), gm.solve(near, solver, state=state)
        assert warm.iterations.median() <= 4
        assert warm.iterations.median() < cold.iterations.median()
        closed = (warm.status == gm.Status.OPTIMAL) & (cold.status == gm.Status.OPTIMAL)
        assert closed.sum() >= 30
        torch.testing.assert_close(warm.objective[closed], cold.objective[closed], rtol=2e-4, atol=0)


@every_solver
@unmatched_costs
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_unrelated_costs_keep_their_bounds(
    solver: gm.Solver, unmatched_cost: float | None, dtype: torch.dtype, make_problem: Make
):
    problem = make_problem("lawler", 1, unmatched_cost=unmatched_cost, **small)
    state = gm.solve(problem, solver).state
    for seed, (size, forbidden) in enumerate(
        [(1.0, 0.0), (1.0, 0.3), (1e-4, 0.0), (1e6, 0.0), (1e20, 0.3), (0.0, 0.0)]
    ):
        unary = (size * randn(problem.unary_costs.shape, seed)).to(dtype)
        unary[torch.rand(unary.shape, generator=torch.Generator().manual_seed(seed)) < forbidden] = torch.inf
        quadratic = (size * randn(problem.quadratic_costs.shape, seed + 50)).to(dtype)
        # The rule for unmatched nodes changes too.
        for rule in (unmatched_cost, None, 0.25 * size):
            other = replace(problem, unary_costs=unary, quadratic_costs=quadratic, unmatched_cost=rule)
            assert_holds(gm.solve(other, solver, state=state), gm.solve(other, gm.BruteForce()).objective, other)


@every_solver
def test_other_graphs_of_the_same_size_keep_their_bounds(solver: gm.Solver, make_problem: Make):
    state = gm.solve(make_problem("lawler", 2, **small), solver).state
    for seed in (3, 4):
        for edges in (0, 3, 9, 16):
            other = make_problem("lawler", seed, **{**small, "e1": edges})
            assert_holds(gm.solve(other, solver, state=state), gm.solve(other, gm.BruteForce()).objective, other)


@every_solver
@unmatched_costs
@pytest.mark.parametrize(
    "garbage",
    [[math.nan], [math.inf], [-math.inf], [1e38], [-1e38], [1e10, -1e10], [7.0, -7.0, math.nan, math.inf, 1e20, -1e38]],
    ids=str,
)
def test_garbage_in_the_duals_is_harmless(
    solver: gm.Solver, unmatched_cost: float | None, garbage: list[float], make_problem: Make
):
    problem = make_problem("lawler", 5, unmatched_cost=unmatched_cost, forbidden=0.1, **small)
    optimum = gm.solve(problem, gm.BruteForce()).objective
    state = gm.solve(problem, solver).state
    for seed, share in enumerate((0.05, 0.5, 1.0)):
        result = gm.solve(problem, solver, state=garbled(state, garbage, share, seed))
        assert_holds(result, optimum, problem)


@every_solver
@unmatched_costs
@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf, 1e-300, 1e300], ids=str)
def test_garbage_in_the_scale_is_harmless(
    solver: gm.Solver, unmatched_cost: float | None, scale: float, make_problem: Make
):
    problem = make_problem("lawler", 6, unmatched_cost=unmatched_cost, **small)
    state = gm.solve(problem, solver).state
    broken = replace(state, scale=torch.full_like(state.scale, scale))
    assert_holds(gm.solve(problem, solver, state=broken), gm.solve(problem, gm.BruteForce()).objective, problem)


@every_solver
@unmatched_costs
@pytest.mark.parametrize(
    "matching",
    [[0, 0, 1, 2], [5, 6, 7, 8], [0, 1, 2, 2**62], [-1, -1, -1, -1], [-7, 1, -(2**40), 3], [3, -1, 3, 0], [0, 1, 2, 3]],
    ids=str,
)
def test_matchings_that_do_not_fit_are_ignored(
    solver: gm.Solver, unmatched_cost: float | None, matching: list[int], make_problem: Make
):
    problem = make_problem("lawler", 7, unmatched_cost=unmatched_cost, **small)
    blocked = problem.unary_costs.clone()
    blocked[:, 0, 0] = torch.inf
    problem = replace(problem, unary_costs=blocked)
    state = replace(gm.solve(problem, solver).state, matching=torch.tensor([matching] * 6))
    assert_holds(gm.solve(problem, solver, state=state), gm.solve(problem, gm.BruteForce()).objective, problem)


@every_solver
def test_states_serve_variants_of_their_batch(solver: gm.Solver):
    problem = planted(batch=4, n=9, noise=0.3)
    state = gm.solve(problem, solver).state
    variants = [noisy(problem, 0.02, seed) for seed in range(5)]
    costs = torch.cat([variant.unary_costs for variant in variants])
    others = [value.repeat(5, 1, 1) for value in (problem.quadratic_costs, problem.edges1, problem.edges2)]
    together = gm.solve(gm.LawlerProblem(costs, *others), solver, state=state)
    apart = [gm.solve(variant, solver, state=state) for variant in variants]
    for name in ("assignment", "objective", "lower_bound", "iterations", "stage"):
        assert torch.equal(getattr(together, name), torch.cat([getattr(result, name) for result in apart])), name


@every_solver
def test_ragged_batches(solver: gm.Solver):
    parts = [planted(batch=1, n=n, noise=0.2, seed=n) for n in (6, 9, 12)]
    problem = gm.stack_problems(parts)
    first = gm.solve(problem, solver)
    again = gm.solve(problem, solver, state=first.state)
    assert (again.objective <= first.objective).all()
    for index, part in enumerate(parts):
        n = part.unary_costs.shape[1]
        alone = gm.solve(part, solver)
        warm = gm.solve(part, solver, state=alone.state)
        assert warm.objective[0] == again.objective[index]
        assert warm.iterations[0] == again.iterations[index]
        assert torch.equal(warm.assignment[0], again.assignment[index, :n])
        assert again.assignment[index, n:].eq(-1).all()


@every_solver
@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0), (1, 1), (1, 3), (3, 1)], ids=str)
@pytest.mark.parametrize("batch", [0, 1, 2])
def test_small_sizes(solver: gm.Solver, shape: tuple[int, int], batch: int, make_problem: Make):
    problem = make_problem("lawler", 8, batch=batch, n1=shape[0], n2=shape[1], e1=2, e2=2)
    first = gm.solve(problem, solver)
    again = gm.solve(problem, solver, state=first.state)
    assert torch.equal(again.assignment, first.assignment)
    assert torch.equal(again.objective, first.objective)


@every_solver
def test_states_are_not_modified_and_dense_problems_have_them_too(solver: gm.Solver, make_problem: Make):
    for kind in ("lawler", "koopmans_beckmann"):
        problem = make_problem(kind, 9)
        first = gm.solve(problem, solver)
        before = {name: value.clone() for name, value in vars(first.state).items()}
        again = gm.solve(problem, solver, state=first.state)
        assert (again.objective <= first.objective).all()
        for name, value in vars(first.state).items():
            assert torch.equal(value, before[name]), name


@every_solver
def test_no_state_unless_kept(solver: gm.Solver, make_problem: Make):
    problem = make_problem("lawler", 10)
    with_state, without = gm.solve(problem, solver), gm.solve(problem, replace(solver, keep_state=False))
    assert with_state.state is not None
    assert without.state is None
    assert torch.equal(with_state.assignment, without.assignment)
    assert torch.equal(with_state.lower_bound, without.lower_bound)
    assert gm.solve(problem, replace(solver, keep_state=False), state=with_state.state).state is None


@every_solver
@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        ({"n1": 3}, r"state\.matching must be that of 6 problems with n1 = 4, n2 = 5; got .* shape \(6, 3\)"),
        ({"n2": 4}, r"state\.potentials must be that of 6 problems with n1 = 4, n2 = 5; got .* shape \(6, 4\)"),
        ({"batch": 4}, r"state must have a batch size that divides 6; got 4\. Pass the state of the same problems\."),
        ({"batch": 12}, r"state must have a batch size that divides 6; got 12\."),
        ({"batch": 0}, r"state must have a batch size that divides 6; got 0\."),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_states_of_other_sizes_are_refused(solver: gm.Solver, other: dict, complaint: str, make_problem: Make):
    state = gm.solve(make_problem("lawler", 11, **{**small, **other}), solver).state
    with pytest.raises(ValueError, match=f"^{type(solver).__name__}: {complaint}"):
        gm.solve(make_problem("lawler", 11, **small), solver, state=state)


@pytest.mark.parametrize(
    ("name", "spoil", "complaint"),
    [
        ("scale", lambda value: value[:3], r"state\.matching must be that of 3 problems"),
        ("scale", lambda value: value.float(), r"state\.scale must be that of 6 problems"),
        ("matching", lambda value: value.double(), r"state\.matching must be that of 6 problems"),
        ("potentials", lambda value: value[:5], r"state\.potentials must be that of 6 problems"),
        ("potentials", lambda value: value[0], r"state\.potentials must be that of 6 problems"),
        ("messages", lambda value: value[:, :, :-1], r"state\.messages must be that of 6 problems"),
        ("messages", lambda value: value[:, :-1], r"state\.messages must have two rows per pair"),
        ("messages", lambda value: value.tolist(), r"state\.messages must be that of 6 problems"),
    ],
)
def test_states_put_together_wrongly_are_refused(name: str, spoil: Callable, complaint: str, make_problem: Make):
    problem = make_problem("lawler", 11, **small)
    state = gm.solve(problem).state
    with pytest.raises(ValueError, match=f"^Portfolio: {complaint}"):
        gm.solve(problem, state=replace(state, **{name: spoil(getattr(state, name))}))


@every_solver
def test_only_states_are_states(solver: gm.Solver, make_problem: Make):
    problem = make_problem("lawler", 12)
    with pytest.raises(TypeError, match=f"^{type(solver).__name__}: state must be a SolverState; got MatchResult"):
        gm.solve(problem, solver, state=gm.solve(problem, solver))


def test_solvers_without_warm_starts_refuse_a_state(make_problem: Make):
    problem = make_problem("lawler", 13)
    state = gm.solve(problem).state
    sentence = "^solve: state must be left out for a solver that cannot be warm-started; got BruteForce. Use Portfolio"
    with pytest.raises(TypeError, match=sentence):
        gm.solve(problem, gm.BruteForce(), state=state)


def test_states_of_the_other_kind_of_problem_are_refused(make_problem: Make):
    lawler, linear = make_problem("lawler", 13), make_problem("linear", 13)
    with pytest.raises(TypeError, match=r"^LAP: state must be a LinearState; got SolverState"):
        gm.solve(linear, state=gm.solve(lawler).state)
    with pytest.raises(TypeError, match=r"^Portfolio: state must be a SolverState; got LinearState"):
        gm.solve(lawler, state=gm.solve(linear).state)


@dataclass(frozen=True)
class Spy:
    """A solver that notes how it is called."""

    solver: Any = field(default_factory=gm.Portfolio)
    calls: list[tuple[str, int]] = field(default_factory=list)

    def solve(self, problem: gm.Problem) -> gm.MatchResult:
        self.calls.append(("cold", problem.batch_size))
        return self.solver.solve(problem)

    def solve_from(self, state: gm.SolverState, problem: gm.Problem) -> gm.MatchResult:
        self.calls.append(("warm", problem.batch_size))
        return self.solver.solve_from(state, problem)


def layer_gradients(solver: gm.Solver, gradient: gm.GradientEstimator, train: bool) -> list[Tensor]:
    """Gradients of the unary and quadratic costs of two small structured problems."""
    problem = planted(batch=2, n=6, noise=0.3)
    costs = [value.clone().requires_grad_() for value in (problem.unary_costs, problem.quadratic_costs)]
    layer = gm.MatchingLayer(solver, gradient).train(train)
    matching, paid_pairs = layer(*costs, problem.edges1, problem.edges2)
    target = torch.eye(6).roll(1, 0).expand(2, -1, -1)
    (gm.hamming_loss(matching, target) + 0.1 * paid_pairs.sum()).backward()
    return [cost.grad for cost in costs]


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("gradient", [gm.BlackBox(), gm.IMLE(samples=3)], ids=lambda value: type(value).__name__)
def test_backward_solves_start_where_the_forward_solve_stopped(gradient: gm.GradientEstimator, train: bool):
    spy = Spy()
    layer_gradients(spy, gradient, train)
    (kind, _), *others = spy.calls
    assert kind == "cold"
    assert others
    assert {kind for kind, _ in others} == {"warm"}


@pytest.mark.parametrize("solver", [gm.BruteForce(), gm.Portfolio(keep_state=False)], ids=lambda s: type(s).__name__)
def test_gradients_are_the_same_without_warm_starts(solver: gm.Solver):
    # All solve these problems to the optimum, so the targets have the same solutions.
    for gradient in (gm.BlackBox(), gm.IMLE(samples=3)):
        warm = layer_gradients(gm.Portfolio(), gradient, train=True)
        for first, second in zip(warm, layer_gradients(solver, gradient, train=True), strict=True):
            torch.testing.assert_close(first, second)


def test_layers_without_states_solve_cold():
    spy = Spy(gm.Portfolio(keep_state=False))
    layer_gradients(spy, gm.BlackBox(), train=True)
    assert {kind for kind, _ in spy.calls} == {"cold"}
