"""Linear assignment: SciPy's costs on every kind of matrix, duals that prove them, warm starts, and the one-liner."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch import Tensor

import graphmatch as gm

Make = Callable[..., gm.LinearProblem]

# What hypothesis varies; the numbers themselves come from the seed.
matrices = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**31),
        "n1": st.integers(0, 12),
        "n2": st.integers(0, 12),
        "dtype": st.sampled_from([torch.float32, torch.float64]),
        "forbidden": st.sampled_from([0.0, 0.0, 0.2, 0.6]),
        "integers": st.booleans(),
    }
)
unmatched_costs = st.sampled_from([None, None, 0.0, -1.0, 0.7])


def uniform(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def reduced(costs: Tensor) -> Tensor:
    """The costs less their optimal duals: the optimum is zero and many entries are."""
    state = gm.solve(gm.LinearProblem(costs)).state
    moved = costs - state.row_duals[:, :, None] - state.column_duals[:, None, :]
    return torch.where(moved < 1e-12, 0.0, moved)


FAMILIES: dict[str, Callable[[tuple[int, int, int]], Tensor]] = {
    "uniform": uniform,
    "few levels": lambda shape: (uniform(shape) * (1 + shape[1] // 10)).floor(),
    "zeros and ones": lambda shape: uniform(shape).round(),
    "reduced": lambda shape: reduced(uniform(shape)),
    # Every search of a product matrix visits most of the rows.
    "products": lambda shape: uniform((*shape[:2], 1), 1).sort(1).values * uniform((shape[0], 1, shape[2]), 2),
    "large numbers": lambda shape: torch.where(uniform(shape, 1) < 0.7, 1e9, uniform(shape, 2)),
    "large offsets": lambda shape: 1e6 * uniform((*shape[:2], 1), 1) + uniform(shape, 2),
}


def scipy_cost(matrix: Tensor, maximize: bool = False) -> float:
    """The optimum by SciPy; NaN where it finds the matrix infeasible."""
    values = matrix.double().numpy()
    try:
        rows, columns = linear_sum_assignment(values, maximize)
    except ValueError:
        return math.nan
    return float(values[rows, columns].sum())


def same_costs(result: gm.MatchResult, costs: Tensor) -> None:
    """The objective of every problem is SciPy's, or both find it infeasible."""
    best = torch.tensor([scipy_cost(matrix) for matrix in costs], dtype=torch.float64)
    assert torch.equal(best.isnan(), result.status == gm.Status.INFEASIBLE)
    finite = torch.where(costs.isfinite(), costs, 0).double().abs().flatten(1)
    tolerance = 1e-13 * (finite.amax(1) if finite.shape[1] else 0.0) * max(costs.shape[1:])
    feasible = best.isfinite()
    assert ((result.objective - best).abs() <= tolerance)[feasible].all()


def assert_certified(result: gm.MatchResult) -> None:
    """The duals are feasible, have their signs, and sum to the objective."""
    problem = result.problem
    state = result.state
    assert isinstance(state, gm.LinearState)
    assert state.row_duals.dtype == state.column_duals.dtype == torch.float64
    counts = torch.stack(problem.node_counts(), 1).tolist()
    for b, (n1, n2) in enumerate(counts):
        u, v = state.row_duals[b], state.column_duals[b]
        assert u[n1:].eq(0).all()
        assert v[n2:].eq(0).all()
        if result.status[b] == gm.Status.INFEASIBLE:
            assert u.eq(0).all()
            assert v.eq(0).all()
            continue
        u, v, costs = u[:n1], v[:n2], problem.costs[b, :n1, :n2].double()
        assert u.isfinite().all()
        assert v.isfinite().all()
        tolerance = 1e-14 * (1 + u.abs().sum() + v.abs().sum())
        assert (u[:, None] + v[None, :] <= costs + tolerance).all()
        if problem.unmatched_cost is not None:
            assert (u <= problem.unmatched_cost).all()
        elif n1 > n2:
            assert (u <= 0).all()
        if problem.unmatched_cost is not None or n1 < n2:
            assert (v <= 0).all()
        assert abs(u.sum() + v.sum() - result.objective[b]) <= tolerance
        assert 0 <= result.absolute_gap[b] <= tolerance


@given(arguments=matrices, maximize=st.booleans())
def test_one_matrix_costs_what_it_does_in_scipy(make_problem: Make, arguments: dict, maximize: bool):
    costs = make_problem("linear", batch=1, **arguments).costs[0]
    costs = -costs if maximize else costs
    best = scipy_cost(costs, maximize)
    if math.isnan(best):
        with pytest.raises(ValueError, match=r"^linear_assignment: costs must allow a matching of min\(n1, n2\) rows"):
            gm.linear_assignment(costs, maximize)
        return
    row_ind, col_ind = gm.linear_assignment(costs, maximize=maximize)
    assert row_ind.dtype == col_ind.dtype == torch.int64
    assert len(row_ind) == len(col_ind) == min(costs.shape)
    assert torch.equal(row_ind, row_ind.unique())
    assert len(col_ind.unique()) == len(col_ind)
    assert costs[row_ind, col_ind].double().sum().item() == pytest.approx(best, rel=1e-12, abs=1e-12)


@given(arguments=matrices)
def test_batches_cost_what_they_do_in_scipy(make_problem: Make, arguments: dict):
    costs = make_problem("linear", batch=3, **arguments).costs
    result = gm.linear_assignment(costs)
    same_costs(result, costs)
    assert_certified(result)
    same_costs(gm.linear_assignment(-costs, maximize=True), costs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(2, 31, 31), (2, 64, 64), (1, 130, 130), (2, 40, 75), (2, 75, 40)], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_larger_matrices_cost_what_they_do_in_scipy(family: str, shape: tuple[int, int, int], dtype: torch.dtype):
    # Float32 costs are numbers of their own: SciPy's double arithmetic is the measure.
    costs = FAMILIES[family](shape).to(dtype)
    result = gm.linear_assignment(costs)
    same_costs(result, costs)
    assert_certified(result)
    assert result.statuses == [gm.Status.OPTIMAL] * shape[0]


@given(arguments=matrices, unmatched_cost=unmatched_costs)
def test_duals_prove_the_optimum(make_problem: Make, arguments: dict, unmatched_cost: float | None):
    problem = make_problem("linear", batch=3, unmatched_cost=unmatched_cost, **arguments)
    assert_certified(gm.solve(problem))
    n1, n2 = problem.costs.shape[1:]
    sizes = torch.tensor([[n1, n2], [n1 // 2, n2], [n1, n2 // 2]])
    assert_certified(gm.solve(replace(problem, sizes=sizes)))


@given(arguments=matrices, unmatched_cost=unmatched_costs, change=st.sampled_from([0.0, 0.01, 1.0, 1e6]))
def test_warm_starts_find_the_optimum(make_problem: Make, arguments: dict, unmatched_cost: float | None, change: float):
    # Every problem starts where another one of the same sizes stopped.
    problem = make_problem("linear", batch=2, unmatched_cost=unmatched_cost, **arguments)
    state = gm.solve(problem).state
    noise = make_problem("linear", batch=4, **arguments | {"seed": arguments["seed"] + 1}).costs
    moved = replace(problem, costs=problem.costs.repeat(2, 1, 1) + change * noise.clamp(max=10.0))
    warm, cold = gm.solve(moved, state=state), gm.solve(moved)
    assert torch.equal(warm.status, cold.status)
    feasible = cold.status == gm.Status.OPTIMAL
    torch.testing.assert_close(warm.objective[feasible], cold.objective[feasible], rtol=1e-12, atol=1e-12)
    assert_certified(warm)


@pytest.mark.parametrize("family", FAMILIES)
def test_large_warm_starts_find_the_optimum(family: str):
    costs = FAMILIES[family]((3, 60, 60))
    state = gm.solve(gm.LinearProblem(costs)).state
    moved = costs.repeat(2, 1, 1) + costs.abs().mean() * 0.05 * uniform((6, 60, 60), 3)
    result = gm.solve(gm.LinearProblem(moved), state=state)
    same_costs(result, moved)
    assert_certified(result)


@pytest.mark.parametrize("unmatched_cost", [None, 0.4])
def test_a_matching_is_kept_while_none_is_cheaper(unmatched_cost: float | None):
    # All permutations of equal costs are optimal: the state decides.
    problem = gm.LinearProblem(torch.zeros(4, 5, 5), unmatched_cost=unmatched_cost)
    chosen = torch.stack([torch.randperm(5, generator=torch.Generator().manual_seed(seed)) for seed in range(4)])
    state = replace(gm.solve(problem).state, matching=chosen)
    result = gm.solve(problem, state=state)
    assert torch.equal(result.assignment, chosen)
    assert result.stages == [gm.Stage.WARM_START] * 4
    assert_certified(result)
    dearer = problem.costs.clone()
    dearer[torch.arange(4), 0, chosen[:, 0]] = 1.0
    result = gm.solve(replace(problem, costs=dearer), state=state)
    assert result.objective.eq(0).all()
    assert result.stages == [gm.Stage.NONE] * 4


@pytest.mark.parametrize("unmatched_cost", [None, 0.4])
@pytest.mark.parametrize("shape", [(9, 9), (7, 10), (10, 7)], ids=str)
@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf, 1e300, -1e300, 1e20, -1e17, -3.0], ids=str)
def test_garbage_in_a_state_is_harmless(shape: tuple[int, int], garbage: float, unmatched_cost: float | None):
    costs = uniform((8, *shape))
    costs[uniform(costs.shape, 1) < 0.1] = torch.inf
    problem = gm.LinearProblem(costs, unmatched_cost=unmatched_cost)
    cold = gm.solve(problem)
    for share, numbers in product((0.2, 1.0), ([0, 0, 1], [-1], [-7, 2**40, 3])):
        state = cold.state
        spoilt = {
            name: torch.where(uniform(value.shape, 2) < share, garbage, value)
            for name, value in (("row_duals", state.row_duals), ("column_duals", state.column_duals))
        }
        matching = torch.tensor(numbers).repeat(8, shape[0])[:, : shape[0]]
        result = gm.solve(problem, state=gm.LinearState(matching, **spoilt))
        torch.testing.assert_close(result.objective, cold.objective, rtol=1e-12, atol=0)
        assert_certified(result)


def test_states_that_do_not_fit_are_refused(make_problem: Make):
    problem = make_problem("linear", 0, batch=4, n1=3, n2=5)
    state = gm.solve(problem).state
    with pytest.raises(ValueError, match=r"^LAP: state.column_duals must be that of 4 problems with n1 = 3, n2 = 6"):
        gm.solve(make_problem("linear", 0, batch=4, n1=3, n2=6), state=state)
    with pytest.raises(ValueError, match=r"^LAP: state.row_duals must be that of 4 problems"):
        gm.solve(problem, state=replace(state, row_duals=state.row_duals.float()))
    with pytest.raises(ValueError, match=r"^LAP: state must have a batch size that divides 6"):
        gm.solve(make_problem("linear", 0, batch=6, n1=3, n2=5), state=state)
    with pytest.raises(TypeError, match=r"^LAP: state must be a LinearState; got MatchResult"):
        gm.solve(problem, state=gm.solve(problem))


@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (9, 2), (5, 5), (8, 8), (17, 17), (33, 40), (40, 33)], ids=str)
@pytest.mark.parametrize("value", [0.0, 1.0, -0.1])
def test_equal_costs_match_equal_indices(shape: tuple[int, int], value: float):
    for dtype in (torch.float32, torch.float64):
        row_ind, col_ind = gm.linear_assignment(torch.full(shape, value, dtype=dtype))
        assert torch.equal(row_ind, torch.arange(min(shape)))
        assert torch.equal(col_ind, torch.arange(min(shape)))


@pytest.mark.parametrize("nodes", [1, 3, 9, 70])
def test_ties_do_not_depend_on_threads_or_the_batch(nodes: int):
    # Enough small problems that threads take them in groups.
    costs = (3 * uniform((37, nodes, nodes))).floor()
    sizes = torch.randint(nodes + 1, (37, 2), generator=torch.Generator().manual_seed(0))
    problem = gm.LinearProblem(costs, sizes)
    expected = gm.solve(problem, gm.LAP(threads=1))
    for threads in (2, 3, 8):
        result = gm.solve(problem, gm.LAP(threads=threads))
        assert torch.equal(result.assignment, expected.assignment)
        assert torch.equal(result.state.row_duals, expected.state.row_duals)
        assert torch.equal(result.state.column_duals, expected.state.column_duals)
        assert torch.equal(result.lower_bound, expected.lower_bound)
    order = torch.arange(36, -1, -1)
    turned = gm.solve(gm.LinearProblem(costs[order], sizes[order]))
    assert torch.equal(turned.assignment, expected.assignment[order])
    # The same numbers in another type are the same problem.
    single = gm.solve(gm.LinearProblem(costs.float(), sizes))
    assert torch.equal(single.assignment, expected.assignment)
    assert torch.equal(single.state.column_duals, expected.state.column_duals)


@pytest.mark.parametrize(
    "convert",
    [
        lambda costs: costs.tolist(),
        lambda costs: costs.numpy(),
        lambda costs: costs.int(),
        lambda costs: costs.to(torch.uint8),
        lambda costs: costs.numpy().astype(np.uint16),
        lambda costs: costs.numpy().astype(">f4"),
        lambda costs: costs.numpy()[::-1, ::-1].copy()[::-1, ::-1],
        lambda costs: np.asfortranarray(costs.numpy()),
        lambda costs: costs.half(),
        lambda costs: costs.bfloat16(),
        lambda costs: costs.clone().requires_grad_(),
    ],
)
@pytest.mark.parametrize("maximize", [False, True])
def test_whatever_holds_numbers_is_taken(convert: Callable, maximize: bool):
    costs = (20 * uniform((6, 8))).floor()
    row_ind, col_ind = gm.linear_assignment(convert(costs), maximize)
    assert costs[row_ind, col_ind].sum() == scipy_cost(costs, maximize)
    assert not row_ind.requires_grad


def test_booleans_are_counted():
    likes = torch.tensor([[True, True, False], [True, False, False], [False, True, True]])
    row_ind, col_ind = gm.linear_assignment(likes, maximize=True)
    assert likes[row_ind, col_ind].sum() == 3


@pytest.mark.parametrize(
    ("costs", "maximize", "error", "complaint"),
    [
        (torch.zeros(3), False, ValueError, r"costs must have shape \(n1, n2\) or \(b, n1, n2\); got \(3,\)"),
        (torch.zeros(1, 1, 1, 1), False, ValueError, r"costs must have shape"),
        (
            torch.zeros(2, 2, dtype=torch.complex64),
            False,
            TypeError,
            r"costs must hold real numbers; got torch.complex64",
        ),
        (np.array([["a"]]), False, TypeError, r"costs must hold real numbers of at most 64 bits; got <U1"),
        (torch.full((2, 2), math.inf), False, ValueError, r"costs must allow a matching"),
        (torch.full((2, 2), -math.inf), True, ValueError, r"costs must allow a matching .*got too many -inf"),
    ],
)
def test_what_is_no_matrix_of_costs_is_refused(costs: object, maximize: bool, error: type, complaint: str):
    with pytest.raises(error, match=f"^linear_assignment: {complaint}"):
        gm.linear_assignment(costs, maximize)


@pytest.mark.parametrize(
    ("value", "maximize"), [(math.nan, False), (math.nan, True), (-math.inf, False), (math.inf, True)]
)
def test_numbers_that_scipy_calls_invalid_are_refused(value: float, maximize: bool):
    costs = torch.zeros(2, 2)
    costs[1, 0] = value
    with pytest.raises(ValueError, match=r"costs must hold finite costs \(\+inf = forbidden is allowed\)"):
        gm.linear_assignment(costs, maximize)
    with pytest.raises(ValueError, match="invalid"):
        linear_sum_assignment(costs.numpy(), maximize)


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)], ids=str)
def test_empty_matrices(shape: tuple[int, int]):
    row_ind, col_ind = gm.linear_assignment(torch.zeros(shape))
    assert row_ind.shape == col_ind.shape == (0,)
    assert gm.linear_assignment(torch.zeros(0, *shape)).assignment.shape == (0, shape[0])


@pytest.mark.parametrize("unmatched_cost", [None, -0.5])
@pytest.mark.parametrize(
    "gradient", [gm.BlackBox(step=0.7), gm.IMLE(samples=4), gm.IMLE(samples=4, symmetric=False)], ids=repr
)
def test_gradients_equal_those_by_enumeration(gradient: gm.GradientEstimator, unmatched_cost: float | None):
    # LAP starts the targets from the forward solve, BruteForce cannot: the solutions are the same.
    weights = uniform((5, 4, 4), 1) - 0.5
    gradients = []
    for solver in (gm.LAP(), gm.BruteForce()):
        costs = (uniform((5, 4, 4)) - 0.5).requires_grad_()
        (weights * gm.MatchingLayer(solver, gradient, unmatched_cost)(costs)).sum().backward()
        gradients.append(costs.grad)
    assert gradients[0].abs().amax((1, 2)).gt(0).sum() >= 3
    torch.testing.assert_close(gradients[0], gradients[1])


def test_a_target_that_changes_nothing_sends_no_gradient():
    # Both matchings stay optimal at the target [[0, 1], [-1, 0]], for which a cold solve swaps: the one shown stays.
    upstream = torch.tensor([[[0.0, 1.0], [-1.0, 0.0]]])
    assert gm.solve(gm.LinearProblem(upstream)).assignment.tolist() == [[1, 0]]
    costs = torch.zeros(1, 2, 2, requires_grad=True)
    (gm.MatchingLayer(gm.LAP(), gm.BlackBox())(costs) * upstream).sum().backward()
    assert costs.grad.eq(0).all()


def test_ties_of_linear_assignments_go_to_the_lowest_column():
    result = gm.solve(gm.LinearProblem(torch.ones(1, 3, 5)))
    assert result.assignment.tolist() == [[0, 1, 2]]
