"""The native operators: registered as PyTorch expects, and the same numbers as their slow twin."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from itertools import chain, permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

import graphmatch as gm
from graphmatch import _ops, _reference


def lawler_tensors(problem: gm.LawlerProblem) -> tuple:
    return (
        problem.unary_costs,
        problem.quadratic_costs,
        problem.edges1,
        problem.edges2,
        problem.sizes,
        problem.unmatched_cost,
    )


def options(method: int = _ops.PORTFOLIO, max_gap: float = 1e-6, threads: int = 2) -> tuple:
    """Method, budgets (iterations, runs, steps, nodes, effort), gap, seed, time limit, threads."""
    return (method, 20, 2, 50, 1000, 1.0, max_gap, 0, None, threads)


def dense_tensors(linear: gm.LinearProblem, start: bool = False) -> tuple:
    """Flow, distance, linear costs, sizes and a point to start from, made of the square part of a linear problem."""
    n = min(linear.costs.shape[1:])
    costs = linear.costs[:, :n, :n].contiguous()
    sizes = None if linear.sizes is None else linear.sizes.amin(1)
    point = torch.full_like(costs, 1 / n, dtype=torch.float64) if start else None
    return costs, costs.transpose(1, 2), costs if start else None, sizes, point


def dense_options(method: int) -> tuple:
    """Method, budgets (iterations, runs, steps, effort), FAQ's options, gap, seed, time limit, threads."""
    return (method, 20, 2, 50, 0.1, 1e-4, True, 0.01, True, 1e-6, 0, None, 2)


def states(problem: gm.LawlerProblem) -> tuple:
    state = gm.solve(problem).state
    return (state.messages, state.potentials, state.scale, state.matching)


def operator(name: str) -> Callable:
    return getattr(_ops, name.removesuffix("_with_states").removesuffix("_from_a_start"))


def calls(problem: gm.LawlerProblem, linear: gm.LinearProblem) -> dict[str, tuple]:
    """Arguments for each operator."""
    assignment = gm.solve(problem).assignment
    return {
        "linear_assignment": (linear.costs, linear.sizes, linear.unmatched_cost, 2),
        "lawler_solve": (*lawler_tensors(problem), *options(), None, None, None, None, False),
        "lawler_solve_with_states": (*lawler_tensors(problem), *options(), *states(problem), True),
        "lawler_objective": (*lawler_tensors(problem), assignment, 2),
        "qap_solve": (*dense_tensors(linear), *dense_options(_ops.QAP_PORTFOLIO)),
        "qap_solve_from_a_start": (*dense_tensors(linear, start=True), *dense_options(_ops.QAP_FAQ)),
    }


@pytest.fixture(params=["full", "ragged"])
def arguments(request: pytest.FixtureRequest, make_problem: Callable) -> dict[str, tuple]:
    if request.param == "full":
        return calls(make_problem("lawler", 0, dtype=torch.float32), make_problem("linear", 0, dtype=torch.float32))
    ragged = [
        gm.stack_problems([make_problem(kind, n, n1=n, n2=n + 1, unmatched_cost=0.1) for n in (2, 4)])
        for kind in ("lawler", "linear")
    ]
    return calls(*ragged)


OPERATORS = [
    "linear_assignment",
    "lawler_solve",
    "lawler_solve_with_states",
    "lawler_objective",
    "qap_solve",
    "qap_solve_from_a_start",
]


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_pass_the_checks_of_torch(arguments: dict[str, tuple], name: str):
    checked = torch.library.opcheck(operator(name), arguments[name])
    assert set(checked.values()) == {"SUCCESS"}


@pytest.mark.parametrize("name", OPERATORS)
def test_fake_tensors_have_the_shapes_of_real_ones(arguments: dict[str, tuple], name: str):
    real = operator(name)(*arguments[name])
    with FakeTensorMode() as mode:
        moved = [mode.from_tensor(each) if isinstance(each, torch.Tensor) else each for each in arguments[name]]
        fake = operator(name)(*moved)
    pairs = zip(real, fake, strict=True) if isinstance(real, tuple) else [(real, fake)]
    for a, b in pairs:
        assert (a.shape, a.dtype, a.device) == (b.shape, b.dtype, b.device)


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_do_not_share_memory_with_their_arguments(arguments: dict[str, tuple], name: str):
    outputs = operator(name)(*arguments[name])
    taken = {each.data_ptr() for each in arguments[name] if isinstance(each, torch.Tensor)}
    for output in outputs if isinstance(outputs, tuple) else (outputs,):
        assert output.data_ptr() not in taken


@given(
    seed=st.integers(0, 2**31),
    n1=st.integers(0, 5),
    n2=st.integers(0, 5),
    e1=st.integers(0, 12),
    e2=st.integers(0, 12),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    unmatched_cost=st.sampled_from([None, 0.0, 0.7]),
)
def test_objectives_equal_their_slow_twin(make_problem: Callable, seed: int, **arguments: object):
    problem = make_problem("lawler", seed, batch=3, **arguments)
    n1, n2 = problem.unary_costs.shape[1:]
    generator = torch.Generator().manual_seed(seed)
    # Random injective assignments, some nodes unmatched.
    images = torch.stack([torch.randperm(n1 + n2, generator=generator)[:n1] for _ in range(3)])
    assignment = torch.where(images < n2, images, -1)
    total = _ops.lawler_objective(*lawler_tensors(problem), assignment, 2)
    torch.testing.assert_close(total, _reference.objective(problem, assignment), rtol=1e-12, atol=1e-12)


def test_objective_of_a_padded_problem(make_problem: Callable):
    problems = [make_problem("lawler", n, batch=1, n1=n, n2=n) for n in (1, 3, 5)]
    stacked = gm.stack_problems(problems)
    assignment = gm.solve(stacked).assignment
    total = _ops.lawler_objective(*lawler_tensors(stacked), assignment, 1)
    expected = torch.cat([_reference.objective(each, gm.solve(each).assignment) for each in problems])
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("place", [-2, 4, 10**12, -(10**12)])
def test_assignments_out_of_range_have_no_objective(make_problem: Callable, place: int):
    problem = make_problem("lawler", 1)
    assignment = torch.tensor([[0, 1, 2, 3], [0, place, 2, 3]])
    total = _ops.lawler_objective(*lawler_tensors(problem), assignment, 1)
    assert math.isfinite(total[0])
    assert math.isnan(total[1])


def test_the_core_refuses_what_the_problem_classes_would(make_problem: Callable):
    # Tensors may change after a problem was checked: the core must not follow bad edges or numbers.
    problem = make_problem("lawler", 2, batch=1)
    unary, quadratic, edges1, edges2, *rest = lawler_tensors(problem)
    spoilt = [
        (unary.clone().fill_(math.nan), quadratic, edges1, edges2),
        (unary, quadratic.clone().fill_(math.inf), edges1, edges2),
        (unary, quadratic, edges1 + 1000, edges2),
        (unary, quadratic, edges1, edges2 - 1000),
    ]
    for tensors in spoilt:
        answers = _ops.lawler_solve(*tensors, *rest, *options(), None, None, None, None, False)
        assignment, objective, bound, status = answers[:4]
        assert status.tolist() == [gm.Status.INVALID]
        assert assignment.eq(-1).all()
        assert objective.isnan().all()
        assert bound.isnan().all()
    oversized = torch.tensor([[9, 9, 9, 9]])
    with pytest.raises(ValueError, match="sizes of problem 0 must fit into the padded batch"):
        _ops.lawler_solve(unary, quadratic, edges1, edges2, oversized, None, *options(), None, None, None, None, False)
    with pytest.raises(ValueError, match="sizes of problem 0 must fit into the padded batch"):
        _ops.linear_assignment(unary, torch.tensor([[9, 9]]), None, 1)
    result = gm.solve(problem)
    assert result.objective.isfinite().all(), "a failed call leaves the pool usable"


def test_linear_assignment_equals_scipy(rng: torch.Generator):
    from scipy.optimize import linear_sum_assignment

    for rows, columns in chain([(30, 30), (7, 40), (40, 7)], [(64, 64)] * 3):
        costs = torch.rand(1, rows, columns, generator=rng, dtype=torch.float64)
        _, objective, bound, status, *_ = _ops.linear_assignment(costs, None, None, 1)
        best = costs[0][linear_sum_assignment(costs[0].numpy())].sum()
        assert objective.item() == pytest.approx(best.item(), rel=1e-12)
        assert 0 <= objective.item() - bound.item() <= 1e-12 * (rows + columns)
        assert status.item() == gm.Status.OPTIMAL


def exact_optimum(problem: gm.LawlerProblem) -> Fraction:
    """The optimum of one complete problem with as many nodes on either side, in rational arithmetic."""
    unary, quadratic, edges1, edges2 = (tensor[0].tolist() for tensor in lawler_tensors(problem)[:4])
    totals = []
    for image in permutations(range(len(unary))):
        total = sum((Fraction(unary[i][k]) for i, k in enumerate(image)), Fraction(0))
        for (i, j), costs in zip(edges1, quadratic, strict=True):
            paid = [cost for edge, cost in zip(edges2, costs, strict=True) if edge == [image[i], image[j]]]
            total += sum(map(Fraction, paid), Fraction(0))
        totals.append(total)
    return min(totals)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("solver", [gm.DualAscent(max_gap=0.0), gm.BranchAndBound(max_gap=0.0)], ids=repr)
def test_bounds_hold_in_exact_arithmetic(make_problem: Callable, solver: gm.Solver, dtype: torch.dtype):
    # Few nodes and many edges: most costs are sums of several, whose rounding the bound has to cover.
    for seed in range(400):
        n = 1 + seed % 3
        problem = make_problem("lawler", seed, batch=1, n1=n, n2=n, e1=seed % 10, e2=9, dtype=dtype)
        bound = gm.solve(problem, solver).lower_bound.item()
        assert Fraction(bound) <= exact_optimum(problem)
