"""Solving as a program meets it: certificates, interrupts, forks, errors, and what a result says."""

from __future__ import annotations

import dataclasses
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import graphmatch as gm

Make = Callable[..., gm.Problem]


def test_certified_gap_is_what_was_asked_for(make_problem: Make):
    problem = make_problem("lawler", 12, batch=40, n1=6, n2=6, e1=10, e2=10)
    for max_gap in (0.0, 1e-6, 1e-2, 1.0):
        result = gm.solve(problem, gm.DualAscent(max_gap=max_gap))
        largest = torch.maximum(problem.unary_costs.abs().amax((1, 2)), problem.quadratic_costs.abs().amax((1, 2)))
        allowed = max_gap * torch.maximum(result.objective.abs(), largest)
        closed = result.absolute_gap <= allowed * (1 + 1e-12)
        assert torch.equal(result.status == gm.Status.OPTIMAL, closed)
    assert closed.all(), "a gap of 100 % closes at once"


NUMBERED = [
    (gm.Portfolio, "seed"),
    (gm.DualAscent, "max_iterations"),
    (gm.Tabu, "steps"),
    (gm.Fusion, "generations"),
    (gm.BranchAndBound, "max_nodes"),
    (gm.FAQ, "starts"),
    (gm.LAP, "threads"),
    (gm.Sinkhorn, "max_iterations"),
    (gm.GumbelSinkhorn, "samples"),
    (gm.RRWM, "max_iterations"),
    (gm.IMLE, "samples"),
    (gm.ScoreFunction, "seed"),
    (gm.Best, "starts"),
    (gm.LocalSearch, "seed"),
    (gm.SequentialConstruction, "max_iterations"),
]


@pytest.mark.parametrize(("kind", "name"), NUMBERED, ids=lambda value: getattr(value, "__name__", value))
def test_options_that_count_are_whole_numbers(kind: type, name: str):
    assert getattr(kind(**{name: torch.tensor(3)}), name) == 3, "whole numbers of any library"
    with pytest.raises(TypeError, match=rf"^{kind.__name__}: {name} must be a whole number; got float 10000\.0\."):
        kind(**{name: 1e4})
    with pytest.raises(ValueError, match=rf"^{kind.__name__}: {name} must fit into 64 bits; got {2**63}\."):
        kind(**{name: 2**63})


def _measured() -> list[tuple[type, str, bool]]:
    """All options of solvers and estimators that are numbers with a fraction, and whether they may be None."""
    kinds = [kind for kind in vars(gm).values() if isinstance(kind, type) and dataclasses.is_dataclass(kind)]
    fields = [(kind, field) for kind in kinds for field in dataclasses.fields(kind)]
    optional = {"float": False, "float | None": True}
    return [
        (kind, field.name, optional[field.type])
        for kind, field in fields
        if field.type in optional and hasattr(kind, "__post_init__") and not issubclass(kind, gm.Problem)
    ]


@pytest.mark.parametrize(("kind", "name", "optional"), _measured(), ids=lambda value: getattr(value, "__name__", value))
def test_options_that_measure_are_numbers(kind: type, name: str, optional: bool):
    assert getattr(kind(**{name: torch.tensor(0.5)}), name) == 0.5, "numbers of any library"
    for value, text in (
        (None, "NoneType None"),
        ("0.1", "str '0.1'"),
        (True, "bool True"),
        (torch.ones(2), "a tensor"),
    ):
        if not (optional and value is None):
            with pytest.raises(TypeError, match=rf"^{kind.__name__}: {name} must be a number; got {text}"):
                kind(**{name: value})
    with pytest.raises(ValueError, match=rf"^{kind.__name__}: {name} must .*; got nan\."):
        kind(**{name: float("nan")})
    with pytest.raises(ValueError, match=rf"^{kind.__name__}: {name} must fit into a float; got 1000000"):
        kind(**{name: 10**400})


def test_arguments_that_measure_are_numbers():
    graph = gm.StructuredGraph(torch.zeros(2, 1), torch.zeros(2, 2))
    for name, call in {
        "t": lambda value: gm.geodesic(graph, graph, value),
        "structure_weight": lambda value: gm.estimate_barycenter([graph], structure_weight=value),
        "max_gap": lambda value: gm.sga_distance(graph, graph, max_gap=value),
        "threshold": graph.to_graph,
        "temperature": lambda value: gm.SupervisedMatchingLoss(temperature=value),
        "tolerance": lambda value: gm.fused_gromov_wasserstein(graph, graph, tolerance=value),
    }.items():
        with pytest.raises(TypeError, match=rf": {name} must be a number; got NoneType None\."):
            call(None)


def test_more_iterations_never_hurt(make_problem: Make):
    problem = make_problem("lawler", 13, batch=20, n1=8, n2=8, e1=24, e2=24)
    short = gm.solve(problem, gm.DualAscent(max_iterations=1))
    long = gm.solve(problem, gm.DualAscent(max_iterations=200))
    assert short.iterations.eq(1).all()
    assert long.iterations.gt(1).any()
    assert (long.objective <= short.objective).all()
    assert (long.lower_bound >= short.lower_bound - 1e-9).all()
    assert long.absolute_gap.sum() < short.absolute_gap.sum()


def test_planted_matchings_are_found_and_certified():
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(4, 16, 8, generator=generator)
    order = torch.stack([torch.randperm(16, generator=generator) for _ in range(4)])
    moved = torch.empty_like(points)
    moved.scatter_(1, order[:, :, None].expand(-1, -1, 8), points + 0.05 * torch.randn(4, 16, 8, generator=generator))
    left, right = gm.knn_graph(points, 4), gm.knn_graph(moved, 4)
    features = [gm.edge_features(graph.nodes, graph.edges) for graph in (left, right)]
    problem = gm.LawlerProblem(
        -gm.cosine_affinity(points, moved), -gm.cosine_affinity(*features), left.edges, right.edges
    )
    result = gm.solve(problem, gm.DualAscent(max_gap=1e-4))
    assert torch.equal(result.assignment, order)
    assert result.statuses == [gm.Status.OPTIMAL] * 4


INTERRUPTED = """
import sys, torch, graphmatch as gm
generator = torch.Generator().manual_seed(0)
batch, n, e = {batch}, {n}, {e}
edges = torch.randint(n, (2, e, 2), generator=generator)
unary, quadratic = torch.rand(1, n, n, generator=generator), torch.randn(1, e, e, generator=generator)
problem = gm.LawlerProblem(unary.expand(batch, -1, -1), quadratic.expand(batch, -1, -1), *edges)
print("started", flush=True)
try:
    gm.solve(problem, {solver})
except KeyboardInterrupt:
    result = gm.solve(gm.LinearProblem(torch.eye(3)[None]))  # the library goes on working
    print("interrupted", result.objective.item(), flush=True)
"""


@pytest.mark.parametrize(
    ("batch", "n", "e", "solver"),
    [
        (20_000, 24, 120, "gm.Portfolio(max_gap=0.0, threads=2)"),
        (2, 150, 900, "gm.Portfolio(max_gap=0.0, effort=1e5, threads=1)"),
        (2, 90, 700, "gm.Tabu(steps=10**9, threads=2)"),
        (2, 60, 300, "gm.Fusion(generations=10**9, threads=1)"),
        (2, 24, 120, "gm.BranchAndBound(max_nodes=10**12, threads=1)"),
    ],
    ids=["large_batch", "large_problems", "tabu", "fusion", "branch_and_bound"],
)
def test_ctrl_c_stops_a_long_solve(batch: int, n: int, e: int, solver: str):
    code = INTERRUPTED.format(batch=batch, n=n, e=e, solver=solver)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "started\n"
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(timeout=1)
        child.send_signal(signal.SIGINT)
        try:
            output, _ = child.communicate(timeout=30)  # to the end it would take minutes
        finally:
            child.kill()
    assert output == "interrupted 0.0\n"


FORKED = """
import os, torch, graphmatch as gm
torch.set_num_threads({torch_threads})
problem = gm.LinearProblem(torch.rand(8, 6, 6, generator=torch.Generator().manual_seed(0)))
expected = gm.solve(problem, gm.LAP(threads=4)).objective
child = os.fork()
if child == 0:
    same = torch.equal(gm.solve(problem, gm.LAP(threads=4)).objective, expected)
    os._exit(0 if same else 3)
assert os.waitpid(child, 0)[1] == 0
assert torch.equal(gm.solve(problem, gm.LAP(threads=4)).objective, expected)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.parametrize("torch_threads", [1, 4], ids=["own_pool", "team_of_torch"])
def test_works_after_a_fork(torch_threads: int):
    subprocess.run([sys.executable, "-c", FORKED.format(torch_threads=torch_threads)], check=True, timeout=60)


def test_threads_of_any_caller_and_any_team_agree(make_problem: Make):
    problem = make_problem("lawler", 14, batch=64, n1=9, n2=9, e1=30, e2=30)
    expected = gm.solve(problem, gm.Portfolio(threads=1))
    before = torch.get_num_threads()
    try:
        for team in (1, 3, 4):
            torch.set_num_threads(team)
            with ThreadPoolExecutor(4) as callers:
                results = list(callers.map(lambda count: gm.solve(problem, gm.Portfolio(threads=count)), [3, 4] * 8))
            results.append(gm.solve(problem))
            for result in results:
                assert torch.equal(result.assignment, expected.assignment)
                assert torch.equal(result.lower_bound, expected.lower_bound)
    finally:
        torch.set_num_threads(before)


ERROR_FORM = r"^\S.*: .+ must .+; got .+\. \S.*\.$"


@pytest.mark.parametrize(
    ("call", "error", "about"),
    [
        (lambda make: gm.solve(torch.eye(3)), TypeError, "solve: problem"),
        (lambda make: gm.solve(None), TypeError, "solve: problem"),
        (lambda make: gm.LAP().solve(make("lawler", 0)), TypeError, "LAP: problem"),
        (lambda make: gm.DualAscent().solve(make("linear", 0)), TypeError, "DualAscent: problem"),
        (lambda make: gm.DualAscent(max_iterations=0), ValueError, "DualAscent: max_iterations"),
        (lambda make: gm.DualAscent(max_gap=-1.0), ValueError, "DualAscent: max_gap"),
        (lambda make: gm.DualAscent(max_gap=math.nan), ValueError, "DualAscent: max_gap"),
        (lambda make: gm.DualAscent(time_limit=0.0), ValueError, "DualAscent: time_limit"),
        (lambda make: gm.DualAscent(time_limit=math.nan), ValueError, "DualAscent: time_limit"),
        (lambda make: gm.DualAscent(threads=0).solve(make("lawler", 0)), ValueError, "DualAscent: threads"),
        (lambda make: gm.LAP(threads=0).solve(make("linear", 0)), ValueError, "LAP: threads"),
        (lambda make: gm.BruteForce().solve(make("linear", 0, n1=12, n2=12)), ValueError, "BruteForce: the problem"),
        (lambda make: gm.solve(make("linear", 0)).paid_pairs, TypeError, "MatchResult: paid_pairs"),
    ],
)
def test_errors_say_what_to_do(make_problem: Make, call: Callable, error: type[Exception], about: str):
    with pytest.raises(error, match=ERROR_FORM) as caught:
        call(make_problem)
    assert str(caught.value).startswith(about)


def test_matchings_and_paid_pairs_price_the_problem(make_problem: Make):
    problem = make_problem("lawler", 16, unmatched_cost=0.0)
    result = gm.solve(problem)
    unary = (problem.unary_costs * result.matching).sum((1, 2))
    quadratic = (problem.quadratic_costs * result.paid_pairs).sum((1, 2))
    torch.testing.assert_close(unary + quadratic, result.objective)


def test_every_status_has_a_text():
    assert all(status.text.endswith(".") for status in gm.Status)


def test_the_default_solver_follows_the_kind_of_problem(make_problem: Make):
    for kind, solver in [("linear", gm.LAP()), ("lawler", gm.Portfolio()), ("koopmans_beckmann", gm.Portfolio())]:
        problem = make_problem(kind, 15)
        result, expected = gm.solve(problem), gm.solve(problem, solver)
        for name in ("assignment", "objective", "lower_bound", "status"):
            assert torch.equal(getattr(result, name), getattr(expected, name))
