"""The solver around lpmp_py, against a stand-in with the same interface and the same traps."""

from __future__ import annotations

import copy
import importlib
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import graphmatch as gm
from graphmatch import _reference
from graphmatch.solvers import lpmp

Make = Callable[..., gm.Problem]
FAKES = Path(__file__).parent / "fakes"
PACKAGE = ("lpmp_py", "lpmp_py.raw_solvers")


@pytest.fixture(scope="module")
def stand_in() -> Iterator[ModuleType]:
    """The raw solvers of the stand-in, importable as lpmp_py; a real lpmp_py is out of reach meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        for name in PACKAGE:
            patch.delitem(sys.modules, name, raising=False)
        patch.syspath_prepend(FAKES)
        yield importlib.import_module(PACKAGE[1])
        for name in PACKAGE:
            sys.modules.pop(name, None)


@pytest.fixture
def raw(stand_in: ModuleType) -> Iterator[ModuleType]:
    """The stand-in as it is at the start of a process."""
    before = {name: getattr(stand_in, name) for name in ("old_build", "delay", "spoil")}
    stand_in.calls.clear()
    lpmp._check_build.cache_clear()
    yield stand_in
    vars(stand_in).update(before)


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a process of its own that finds the stand-in."""
    path = os.pathsep.join([str(FAKES), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)


def assert_optimal(result: gm.MatchResult, problem: gm.Problem) -> None:
    """The answers are those of enumeration, but for ties; nothing is claimed about bounds."""
    best = gm.BruteForce().solve(problem)
    infeasible = best.status == gm.Status.INFEASIBLE
    torch.testing.assert_close(result.objective, best.objective, rtol=1e-9, atol=1e-9)
    recomputed = _reference.objective(problem, result.assignment)[~infeasible]
    torch.testing.assert_close(result.objective[~infeasible], recomputed, rtol=1e-12, atol=1e-12)
    assert torch.equal(result.status == gm.Status.INFEASIBLE, infeasible)
    assert result.status[~infeasible].eq(int(gm.Status.FEASIBLE)).all()
    assert result.lower_bound[~infeasible].eq(-torch.inf).all()
    assert result.gap[~infeasible].eq(torch.inf).all()
    assert result.lower_bound[infeasible].eq(torch.inf).all()
    assert result.gap[infeasible].isnan().all()
    assert result.assignment[infeasible].eq(-1).all()
    assert result.assignment.dtype == result.status.dtype == result.iterations.dtype == torch.int64


@given(
    arguments=st.fixed_dictionaries(
        {
            "seed": st.integers(0, 2**31),
            "n1": st.integers(0, 4),
            "n2": st.integers(0, 5),
            "e1": st.integers(0, 9),
            "e2": st.integers(0, 9),
            "dtype": st.sampled_from([torch.float32, torch.float64]),
            "unmatched_cost": st.sampled_from([None, None, 0.0, -0.5, 2.0]),
            "forbidden": st.sampled_from([0.0, 0.0, 0.4]),
            "integers": st.booleans(),
        }
    )
)
def test_optimal_where_the_package_is(stand_in: ModuleType, make_problem: Make, arguments: dict):
    # Random edges: loops, repeats and both directions are among them.
    problem = make_problem("lawler", **arguments)
    before = copy.deepcopy(problem)
    result = gm.solve(problem, gm.LPMP())
    assert result.problem is problem
    for name, value in vars(problem).items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, getattr(before, name)), f"{name} was modified"
    assert_optimal(result, problem)


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (5, 3)], ids=str)
@pytest.mark.parametrize("forbidden", [0.0, 0.4])
@pytest.mark.parametrize("unmatched_cost", [None, -0.5, 2.0])
def test_what_may_stay_unmatched_and_what_may_not(
    raw: ModuleType, make_problem: Make, shape: tuple[int, int], forbidden: float, unmatched_cost: float | None
):
    n1, n2 = shape
    options = {"n1": n1, "n2": n2, "forbidden": forbidden, "unmatched_cost": unmatched_cost}
    problem = make_problem("lawler", 4, batch=8, **options)
    # Costs that a solver of partial matchings would rather not pay.
    problem = problem.with_costs(problem.unary_costs + 1.0, problem.quadratic_costs)
    result = gm.solve(problem, gm.LPMP())
    assert_optimal(result, problem)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_floating_point_type(raw: ModuleType, make_problem: Make, dtype: torch.dtype):
    problem = make_problem("lawler", 1, dtype=dtype)
    result = gm.solve(problem, gm.LPMP())
    assert_optimal(result, problem)
    assert result.matching.dtype == dtype


@pytest.mark.parametrize("factor", [2.0**-60, 1e-3, 1e30])
@pytest.mark.parametrize("unmatched_cost", [None, 0.25])
def test_costs_of_any_size_reach_the_package_at_one_scale(
    raw: ModuleType, make_problem: Make, factor: float, unmatched_cost: float | None
):
    problem = make_problem("lawler", 2, unmatched_cost=unmatched_cost)
    scaled = replace(
        problem.with_costs(problem.unary_costs * factor, problem.quadratic_costs * factor),
        unmatched_cost=None if unmatched_cost is None else unmatched_cost * factor,
    )
    result, expected = gm.solve(scaled, gm.LPMP()), gm.solve(problem, gm.LPMP())
    assert torch.equal(result.assignment, expected.assignment)
    assert all(0.1 < np.abs(call["quadratic"]).max() <= 1.0 for call in raw.calls)


def test_dense_problems(raw: ModuleType, make_problem: Make):
    problem = make_problem("koopmans_beckmann", 3, forbidden=0.2)
    result = gm.solve(problem, gm.LPMP())
    assert result.problem is problem
    assert_optimal(result, problem)


def test_ragged_batches_solve_each_problem_alone(raw: ModuleType, make_problem: Make):
    shapes = [(3, 4, 5, 6), (4, 2, 6, 3), (0, 3, 0, 2), (1, 1, 2, 2), (3, 3, 0, 4)]
    problems = [
        make_problem("lawler", seed, batch=1, n1=n1, n2=n2, e1=e1, e2=e2)
        for seed, (n1, n2, e1, e2) in enumerate(shapes)
    ]
    together = gm.stack_problems(problems)
    unary, quadratic = together.unary_costs.clone(), together.quadratic_costs.clone()
    for index, (n1, n2, e1, e2) in enumerate(shapes):
        unary[index, n1:] = unary[index, :, n2:] = torch.nan
        quadratic[index, e1:] = quadratic[index, :, e2:] = -torch.inf
    padded = together.with_costs(unary, quadratic)
    result = gm.solve(padded, gm.LPMP())
    for index, problem in enumerate(problems):
        alone = gm.solve(problem, gm.LPMP())
        n1 = shapes[index][0]
        assert torch.equal(result.assignment[index, :n1], alone.assignment[0])
        assert result.assignment[index, n1:].eq(-1).all()
        assert_optimal(alone, problem)
    torch.testing.assert_close(result.objective, gm.BruteForce().solve(padded).objective, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("batch", [0, 2])
@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0), (1, 1), (1, 3), (3, 1)], ids=str)
@pytest.mark.parametrize("unmatched_cost", [None, 0.5])
def test_small_sizes(
    raw: ModuleType, make_problem: Make, shape: tuple[int, int], unmatched_cost: float | None, batch: int
):
    n1, n2 = shape
    problem = make_problem("lawler", 0, batch=batch, n1=n1, n2=n2, e1=2, e2=2, unmatched_cost=unmatched_cost)
    assert_optimal(gm.solve(problem, gm.LPMP()), problem)


def test_complete_matchings_need_detours_around_forbidden_assignments(raw: ModuleType):
    # Nodes 0 and 1 need columns 0 and 1. Taking (2, 0) gains more than a node is worth, and leads them astray after.
    unary = torch.tensor([[[50, 50, torch.inf], [0, 40, torch.inf], [-50, 50, 50]]], dtype=torch.float64)
    edges = torch.tensor([[0, 1], [1, 2]])
    problem = gm.LawlerProblem(unary, torch.eye(2, dtype=torch.float64)[None], edges, edges)
    assert_optimal(gm.solve(problem, gm.LPMP()), problem)


def spoiled(rule: str) -> Callable[[np.ndarray], np.ndarray]:
    """What a careless solver makes of a matching."""

    def apply(mask: np.ndarray) -> np.ndarray:
        mask = mask.copy()
        if rule == "empty":
            mask[:] = 0
        elif rule == "incomplete":
            mask[0] = 0
        elif rule == "repeats":
            mask[0] = mask[1]
        elif rule == "all":
            mask[:] = 1
        return mask

    return apply


@pytest.mark.parametrize("rule", ["empty", "incomplete", "repeats", "all"])
@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (5, 3)], ids=str)
@pytest.mark.parametrize("unmatched_cost", [None, 0.5])
def test_answers_that_are_no_matchings_are_made_valid(
    raw: ModuleType, make_problem: Make, rule: str, shape: tuple[int, int], unmatched_cost: float | None
):
    n1, n2 = shape
    problem = make_problem("lawler", 5, n1=n1, n2=n2, unmatched_cost=unmatched_cost, forbidden=0.1)
    exact = gm.solve(problem, gm.LPMP())
    raw.spoil = spoiled(rule)
    result = gm.solve(problem, gm.LPMP())
    recomputed = _reference.objective(problem, result.assignment)
    torch.testing.assert_close(result.objective, recomputed, rtol=1e-12, atol=1e-12)
    assert result.objective.isfinite().all()
    assert result.statuses == [gm.Status.FEASIBLE] * 2
    for b in range(2):
        matched = [k for k in result.assignment[b].tolist() if k >= 0]
        assert len(set(matched)) == len(matched)
        if unmatched_cost is None:
            assert len(matched) == min(n1, n2)
        elif rule == "empty":
            assert not matched
        if rule == "incomplete" and n1 == n2 and unmatched_cost is None:
            # The one missing pair has one place left.
            assert torch.equal(result.assignment[b], exact.assignment[b])
    assert torch.equal(gm.solve(problem, gm.LPMP()).assignment, result.assignment)


def test_parameters_reach_the_package(raw: ModuleType, make_problem: Make):
    problem = make_problem("lawler", 6, batch=1)
    gm.solve(problem, gm.LPMP())
    assert raw.calls[-1]["parameters"] == {"maxIter": 100, "primalComputationInterval": 10, "timeout": 86_400_000}
    construction = {"graphMatchingConstruction": "both_sides"}
    gm.solve(problem, gm.LPMP(7, 2, "fw", 1e12, construction))
    assert raw.calls[-1]["parameters"] == {
        "maxIter": 7,
        "primalComputationInterval": 2,
        "timeout": 86_400_000,
        "graphMatchingRounding": "fw",
        **construction,
    }


def test_the_time_limit_is_shared_out_in_milliseconds(raw: ModuleType, make_problem: Make):
    problem = make_problem("lawler", 7, batch=4)
    gm.solve(problem, gm.LPMP(time_limit=80.0))
    shares = [call["parameters"]["timeout"] for call in raw.calls[-4:]]
    # A problem that needs no time leaves its share to the others.
    assert 15_000 < shares[0] <= 20_000
    assert 60_000 < shares[-1] <= 80_000
    raw.delay = 0.02
    gm.solve(problem, gm.LPMP(time_limit=0.01))
    assert [call["parameters"]["timeout"] for call in raw.calls[-3:]] == [1, 1, 1]


def test_the_build_is_checked_once(raw: ModuleType, make_problem: Make):
    problem = make_problem("lawler", 8, batch=3)
    for _ in range(2):
        gm.solve(problem, gm.LPMP())
    assert len(raw.calls) == 1 + 2 * 3


def test_a_build_that_returns_empty_matchings_is_refused(raw: ModuleType, make_problem: Make):
    raw.old_build = True
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"got the matching \[\[0.0, 0.0\], .* Rebuild it .* numpy==1.26"):
            gm.solve(make_problem("lawler", 9), gm.LPMP())


@pytest.mark.parametrize("missing", PACKAGE)
def test_without_the_package_one_sentence_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, raw: ModuleType, make_problem: Make, missing: str
):
    for name in PACKAGE:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r"^LPMP: the package lpmp_py must be importable; got .* Build it from"):
        gm.solve(make_problem("lawler", 10), gm.LPMP())


def test_a_package_of_another_shape_is_as_good_as_none(
    monkeypatch: pytest.MonkeyPatch, raw: ModuleType, make_problem: Make
):
    monkeypatch.delattr(raw, "gm_solver")
    with pytest.raises(ImportError, match=r"has no attribute 'gm_solver'. Build it from .* or use gm.Portfolio"):
        gm.solve(make_problem("lawler", 10), gm.LPMP())


BAD_OPTIONS = [
    ({"parameters": {"maxIterations": 5}}, "use the keys .* got 'maxIterations'. Remove it"),
    ({"parameters": {"timeout": 1000}}, r"leave out what is an option; got 'timeout'. Give it as time_limit"),
    ({"parameters": {"graphMatchingConstruction": "both"}}, "be one of .*; got 'both'"),
    ({"rounding": "mcf_ps"}, "rounding must be one of .*; got 'mcf_ps'"),
    ({"max_iterations": 0}, "max_iterations must be an integer from 1 .* got 0"),
    ({"max_iterations": 1e2}, "max_iterations must be an integer from 1 .* got 100.0"),
    ({"max_iterations": 2**31}, "max_iterations must be an integer from 1 to 2147483647"),
    ({"rounding_interval": True}, "rounding_interval must be an integer from 1 to 100; got True"),
    ({"max_iterations": 5}, "rounding_interval must be an integer from 1 to 5; got 10"),
    ({"time_limit": 0.0}, "time_limit must be positive seconds; got 0.0"),
    ({"time_limit": float("nan")}, "time_limit must be positive seconds; got nan"),
]


@pytest.mark.parametrize(("options", "text"), BAD_OPTIONS, ids=lambda value: str(value)[:40])
def test_options_that_would_end_the_process_raise(options: dict, text: str):
    with pytest.raises(ValueError, match=f"^LPMP: .*{text}"):
        gm.LPMP(**options)


def test_parameters_that_are_no_mapping():
    with pytest.raises(TypeError, match=r"^LPMP: parameters must be a mapping"):
        gm.LPMP(parameters=["maxIter"])


def test_an_unknown_key_ends_the_stand_in_but_not_the_solver():
    # Shown first: the stand-in has the trap at all.
    bare = run("from lpmp_py.raw_solvers import gm_solver as g; g(0, 0, 0, 0, {'nonsense': 1})")
    assert (bare.returncode, bare.stdout, bare.stderr) == (1, "", "")
    code = """
import torch, graphmatch as gm
edges = torch.tensor([[0, 1], [1, 2]])
problem = gm.LawlerProblem(torch.zeros(1, 3, 3), -torch.eye(2)[None], edges, edges)
try:
    gm.solve(problem, gm.LPMP(parameters={"nonsense": 1}))
except ValueError as error:
    print(error)
print(gm.solve(problem, gm.LPMP()).objective.item())
"""
    done = run(code)
    assert done.returncode == 0, done.stderr
    sentence, objective = done.stdout.splitlines()
    assert sentence.startswith("LPMP: parameters must use the keys ['graphMatchingConstruction']; got 'nonsense'.")
    assert objective == "-2.0"


def test_linear_problems_are_refused(raw: ModuleType, make_problem: Make):
    with pytest.raises(TypeError, match=r"^LPMP: problem must be a LawlerProblem; got LinearProblem. Use LAP"):
        gm.solve(make_problem("linear", 11), gm.LPMP())


def test_nothing_is_printed(raw: ModuleType, make_problem: Make, capfd: pytest.CaptureFixture[str]):
    gm.solve(make_problem("lawler", 12), gm.LPMP())
    assert capfd.readouterr() == ("", "")


def test_it_is_a_value(raw: ModuleType):
    parameters = {"graphMatchingConstruction": "left"}
    solver = gm.LPMP(parameters=parameters)
    parameters["nonsense"] = "too late"
    for same in (copy.deepcopy(solver), pickle.loads(pickle.dumps(solver)), replace(solver)):
        assert same == solver
        assert hash(same) == hash(solver)
    assert solver.parameters == {"graphMatchingConstruction": "left"}
    assert solver != gm.LPMP()


def test_it_goes_with_a_gradient_estimator(raw: ModuleType, make_problem: Make):
    problem = make_problem("lawler", 13)
    unary = problem.unary_costs.clone().requires_grad_()
    layer = gm.MatchingLayer(gm.LPMP(), gm.BlackBox())
    matching, _ = layer(unary, problem.quadratic_costs, problem.edges1, problem.edges2)
    expected = gm.MatchingLayer(gm.BruteForce(), gm.BlackBox())(
        unary, problem.quadratic_costs, problem.edges1, problem.edges2
    )[0]
    assert torch.equal(matching, expected)
    matching.square().sum().backward()
    assert unary.grad.isfinite().all()
