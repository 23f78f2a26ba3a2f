"""The solvers of sparse problems beyond their contract: each against the others, both cost layouts, real instances."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import graphmatch as gm
from graphmatch import _reference

Make = Callable[..., gm.LawlerProblem]

SOLVERS = [
    gm.DualAscent(),
    gm.Tabu(steps=100, restarts=3),
    gm.Fusion(generations=10),
    gm.BranchAndBound(max_nodes=2000),
    gm.Portfolio(),
]
every_solver = pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)
unmatched_costs = pytest.mark.parametrize("unmatched_cost", [None, -0.5], ids=["complete", "partial"])

# The files of one pair of graphs whose values are published.
BENCHMARKS = [
    *(f"car_motor/car{number}.dd.xz" for number in (1, 2, 8, 9, 10, 11, 15, 22, 30)),
    *(f"car_motor/motor{number}.dd.xz" for number in (1, 4, 5, 6, 11, 12, 14, 15)),
    "gm/motor1.dd.xz",
    "gm/opengm1.dd.xz",
    *(f"house_sparse/house-sparse{number}.dd.xz" for number in (1, 3, 11, 76, 105)),
]


def total_cost(problem: gm.LawlerProblem) -> Tensor:
    """(b,) sum of all finite |cost|: sums in double are good to some 1e-15 of it."""
    unary = torch.where(problem.unary_costs.isfinite(), problem.unary_costs.double().abs(), 0.0)
    unmatched = abs(problem.unmatched_cost or 0.0) * problem.unary_costs.shape[1]
    return unary.flatten(1).sum(1) + problem.quadratic_costs.double().abs().flatten(1).sum(1) + unmatched


def assert_valid(result: gm.MatchResult, problem: gm.LawlerProblem) -> None:
    """Injective, as large as demanded, priced right, above a finite bound."""
    n1, n2 = problem.unary_costs.shape[1:]
    for row, status in zip(result.assignment.tolist(), result.statuses, strict=True):
        assert status in (gm.Status.OPTIMAL, gm.Status.FEASIBLE)
        matched = [k for k in row if k != -1]
        assert len(set(matched)) == len(matched)
        assert all(0 <= k < n2 for k in matched)
        assert problem.unmatched_cost is not None or len(matched) == min(n1, n2)
    recomputed = _reference.objective(problem, result.assignment)
    assert ((result.objective - recomputed).abs() <= 1e-13 * total_cost(problem)).all()
    assert (result.lower_bound <= result.objective).all()
    assert result.lower_bound.isfinite().all()


def assert_holds(result: gm.MatchResult, optimum: Tensor, problem: gm.LawlerProblem) -> None:
    """The answer is valid and its bound does not exceed the known optimum; where it is certified, it is the optimum."""
    assert_valid(result, problem)
    tolerance = 1e-13 * total_cost(problem)
    assert (result.lower_bound <= optimum + tolerance).all()
    assert (result.objective >= optimum - tolerance).all()
    largest = torch.maximum(
        torch.where(problem.unary_costs.isfinite(), problem.unary_costs.double().abs(), 0.0).amax((1, 2)),
        problem.quadratic_costs.double().abs().amax((1, 2)),
    ).clamp(min=abs(problem.unmatched_cost or 0.0))
    allowed = 1e-6 * torch.maximum(result.objective.abs(), largest) + tolerance
    assert (result.objective - optimum <= allowed)[result.status == gm.Status.OPTIMAL].all()


def unstructured(seed: int, n1: int, n2: int, batch: int = 4, **options) -> gm.LawlerProblem:
    """Independent random costs and edges, about five of either graph per node; loops, repeats, both directions."""
    generator = torch.Generator().manual_seed(seed)
    dtype, unmatched_cost = options.get("dtype", torch.float64), options.get("unmatched_cost")
    unary = torch.randn(batch, n1, n2, generator=generator, dtype=torch.float64)
    unary[torch.rand(unary.shape, generator=generator) < options.get("forbidden", 0.0)] = torch.inf
    quadratic = torch.randn(batch, 5 * n1, 5 * n2, generator=generator, dtype=torch.float64)
    edges = [torch.randint(n, (batch, 5 * n, 2), generator=generator) for n in (n1, n2)]
    return gm.LawlerProblem(unary.to(dtype), quadratic.to(dtype), *edges, None, unmatched_cost)


def with_useless_columns(problem: gm.LawlerProblem, count: int, cost: float) -> gm.LawlerProblem:
    """The problem among `count` more nodes of graph 2, one price to take any of them, spread between the others."""
    batch, n1, n2 = problem.unary_costs.shape
    place = torch.linspace(0, n2 + count - 1, n2).round().long()
    unary = torch.full((batch, n1, n2 + count), cost, dtype=problem.unary_costs.dtype)
    unary[:, :, place] = problem.unary_costs
    return replace(problem, unary_costs=unary, edges2=place[problem.edges2])


@unmatched_costs
@pytest.mark.parametrize("n", [5, 8])
def test_the_portfolio_is_never_worse_than_its_parts_on_small_problems(n: int, unmatched_cost: float | None):
    problem = unstructured(1, n, n + 1, batch=20, unmatched_cost=unmatched_cost)
    for seed in (0, 1):
        best = gm.solve(problem, gm.Portfolio(seed=seed))
        for part in (gm.DualAscent(), gm.Tabu(steps=1000, seed=seed), gm.Fusion(seed=seed)):
            result = gm.solve(problem, part)
            tolerance = 1e-6 * total_cost(problem)  # a gap that counts as closed
            assert (best.objective <= result.objective + tolerance).all(), type(part).__name__
            assert (best.lower_bound >= result.lower_bound - tolerance).all(), type(part).__name__


@unmatched_costs
@pytest.mark.parametrize("n", [14, 20])
def test_the_portfolio_is_better_than_its_parts_on_most_problems(n: int, unmatched_cost: float | None):
    problem = unstructured(1, n, n + 1, batch=30, unmatched_cost=unmatched_cost)
    for seed in (0, 1):
        best = gm.solve(problem, gm.Portfolio(seed=seed))
        # With budgets that take no longer. Each has its lucky problems.
        for part in (gm.DualAscent(), gm.Tabu(steps=10 * n, restarts=2, seed=seed), gm.Fusion(5, seed=seed)):
            result = gm.solve(problem, part)
            assert best.objective.sum() < result.objective.sum(), type(part).__name__
            worse = best.objective > result.objective + 1e-9
            better = best.objective < result.objective - 1e-9
            assert worse.sum() < better.sum(), type(part).__name__


@unmatched_costs
@pytest.mark.parametrize("shape", [(8, 8), (5, 8), (8, 5)], ids=str)
@pytest.mark.parametrize("forbidden", [0.0, 0.2])
def test_branch_and_bound_is_exact_and_honest_when_cut_short(
    shape: tuple[int, int], unmatched_cost: float | None, forbidden: float
):
    # The largest problems with few enough matchings to enumerate: 8 x 8 partial ones have 1.4 million.
    if shape == (8, 8) and unmatched_cost is not None:
        shape = (6, 7)
    problem = unstructured(2, *shape, forbidden=forbidden, unmatched_cost=unmatched_cost)
    optimum = gm.solve(problem, gm.BruteForce()).objective
    assert optimum.isfinite().all()
    full = gm.solve(problem, gm.BranchAndBound())
    assert_holds(full, optimum, problem)
    assert full.statuses == [gm.Status.OPTIMAL] * 4
    for max_nodes in (1, 10, 100):
        # One iteration of the dual leaves the tree something to do.
        short = gm.solve(problem, gm.BranchAndBound(max_nodes=max_nodes, max_iterations=1))
        assert_holds(short, optimum, problem)
        # A gap that counts as closed separates two proofs.
        assert (full.lower_bound >= short.lower_bound - 1e-6 * total_cost(problem)).all()
        if max_nodes == 1 and shape == (8, 8):
            assert gm.Status.FEASIBLE in short.statuses


@every_solver
@unmatched_costs
def test_threads_and_batch_do_not_change_a_bit(solver: gm.Solver, unmatched_cost: float | None):
    sizes = [14 + index % 7 for index in range(23)]
    parts = [unstructured(10 + k, n, n, 1, unmatched_cost=unmatched_cost) for k, n in enumerate(sizes)]
    problem = gm.stack_problems(parts)
    first = gm.solve(problem, replace(solver, threads=1))
    for threads in (2, 8):
        again = gm.solve(problem, replace(solver, threads=threads))
        for name in ("assignment", "objective", "lower_bound", "status", "iterations", "stage"):
            assert torch.equal(getattr(again, name), getattr(first, name)), name
        for name in ("messages", "potentials", "scale"):
            assert torch.equal(getattr(again.state, name), getattr(first.state, name)), name
    for index in (0, 6, 22):
        alone = gm.solve(parts[index], solver)
        assert torch.equal(alone.assignment[0], first.assignment[index, : sizes[index]])
        assert alone.objective[0] == first.objective[index]
        assert alone.lower_bound[0] == first.lower_bound[index]


@pytest.mark.parametrize("name", ["Tabu", "Fusion", "Portfolio"])
def test_seeds_differ(name: str):
    problem = unstructured(3, 24, 24, batch=12)
    options = {"Tabu": {"steps": 30, "restarts": 3}, "Fusion": {"generations": 2}, "Portfolio": {"effort": 0.1}}[name]
    solver = getattr(gm, name)(**options)
    results = [gm.solve(problem, replace(solver, seed=seed)) for seed in (0, 1, 2**40)]
    assert torch.equal(results[0].assignment, gm.solve(problem, solver).assignment)
    for first, second in [(0, 1), (0, 2), (1, 2)]:
        assert not torch.equal(results[first].assignment, results[second].assignment)


@every_solver
@unmatched_costs
@pytest.mark.parametrize("cost", [math.inf, 50.0], ids=["forbidden", "expensive"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_many_columns_agree_with_few(solver: gm.Solver, unmatched_cost: float | None, cost: float, dtype: torch.dtype):
    # More than 96 columns with few edges: the dual ascent looks at the stored costs only.
    for shape in ((5, 5), (4, 6)):
        small = unstructured(4, *shape, unmatched_cost=unmatched_cost, dtype=dtype)
        optimum = gm.solve(small, gm.BruteForce()).objective
        for count in (95, 115):
            large = with_useless_columns(small, count, cost)
            result = gm.solve(large, solver)
            assert_holds(result, optimum, large)
            if isinstance(solver, gm.BranchAndBound | gm.Portfolio):
                assert result.statuses == [gm.Status.OPTIMAL] * 4


@unmatched_costs
def test_both_layouts_of_the_costs_ascend_alike(unmatched_cost: float | None):
    # 96 columns are the most that are kept as full matrices whatever they hold. Forbidden columns change nothing else.
    small = unstructured(5, 10, 60, unmatched_cost=unmatched_cost)
    solver = gm.DualAscent(max_iterations=20, max_gap=0.0)
    dense = gm.solve(with_useless_columns(small, 36, math.inf), solver)
    sparse = gm.solve(with_useless_columns(small, 37, math.inf), solver)
    scale = total_cost(small) / small.quadratic_costs.shape[1]
    assert ((dense.lower_bound - sparse.lower_bound).abs() <= 0.02 * scale).all()
    for first, second in [(dense, sparse), (sparse, dense)]:
        assert (first.lower_bound <= second.objective).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@unmatched_costs
@pytest.mark.parametrize("columns", [110, 130])
def test_wide_problems_have_bounds_below_every_matching(columns: int, unmatched_cost: float | None, dtype: torch.dtype):
    problem = unstructured(6, 12, columns, unmatched_cost=unmatched_cost, dtype=dtype)
    results = [gm.solve(problem, solver) for solver in SOLVERS]
    best = torch.stack([result.objective for result in results]).amin(0)
    for result in results:
        assert_valid(result, problem)
        assert (result.lower_bound <= best).all()


@every_solver
@pytest.mark.parametrize("sign", [-1.0, 1.0], ids=["rewards", "penalties"])
@pytest.mark.parametrize("integers", [False, True], ids=["real", "integer"])
@unmatched_costs
def test_costs_of_one_sign_and_ties(
    solver: gm.Solver, sign: float, integers: bool, unmatched_cost: float | None, make_problem: Make
):
    for seed in range(4):
        problem = make_problem(
            "lawler", seed, batch=5, n1=5, n2=5, e1=15, e2=15, integers=integers, unmatched_cost=unmatched_cost
        )
        problem = replace(problem, quadratic_costs=sign * problem.quadratic_costs.abs())
        assert_holds(gm.solve(problem, solver), gm.solve(problem, gm.BruteForce()).objective, problem)


@every_solver
def test_loops_repeats_and_both_directions_add_up(solver: gm.Solver):
    # By hand: 0 -> 0 and 1 -> 1 pay the loop (1), the pair forth (2) and back (8), and its repetition (2 + 8 again).
    edges1 = torch.tensor([[0, 0], [0, 1], [1, 0], [0, 1], [1, 0]])
    edges2 = torch.tensor([[0, 0], [0, 1], [1, 0]])
    quadratic = torch.zeros(1, 5, 3)
    quadratic[0, 0, 0] = -1.0
    quadratic[0, [1, 3], 1] = -2.0
    quadratic[0, [2, 4], 2] = -8.0
    result = gm.solve(gm.LawlerProblem(torch.zeros(1, 2, 2), quadratic, edges1, edges2), solver)
    assert result.assignment.tolist() == [[0, 1]]
    assert result.objective.item() == -21.0
    assert result.lower_bound.item() <= -21.0


@every_solver
@unmatched_costs
@pytest.mark.parametrize("sizes", ["1e-30", "1e30", "mixed", "large unary", "large quadratic"])
def test_costs_of_very_different_sizes(solver: gm.Solver, sizes: str, unmatched_cost: float | None):
    for seed in range(5):
        problem = unstructured(seed, 4, 5, unmatched_cost=unmatched_cost)
        generator = torch.Generator().manual_seed(seed)

        def factor(values: Tensor, large: str, generator: torch.Generator = generator) -> Tensor | float:
            if sizes == "mixed":
                exponents = torch.randint(-30, 31, values.shape, generator=generator, dtype=torch.float64)
                return 10.0**exponents
            return float(sizes) if sizes in ("1e-30", "1e30") else 1e30 if sizes == large else 1e-30

        unary, quadratic = problem.unary_costs, problem.quadratic_costs
        problem = replace(
            problem,
            unary_costs=unary * factor(unary, "large unary"),
            quadratic_costs=quadratic * factor(quadratic, "large quadratic"),
        )
        result = gm.solve(problem, solver)
        assert_holds(result, gm.solve(problem, gm.BruteForce()).objective, problem)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "solver",
    [
        gm.DualAscent(max_iterations=10**9, max_gap=0.0),
        gm.Tabu(steps=10**9),
        gm.Fusion(generations=10**9),
        gm.BranchAndBound(max_nodes=10**12, max_gap=0.0),
        gm.Portfolio(effort=1e5, max_gap=0.0),
    ],
    ids=lambda solver: type(solver).__name__,
)
@unmatched_costs
def test_a_time_limit_is_shared_by_the_batch(solver: gm.Solver, unmatched_cost: float | None):
    # Without a limit the searches would take hours.
    problem = unstructured(7, 40, 40, batch=12, unmatched_cost=unmatched_cost)
    for threads in (1, 2):
        assert_valid(gm.solve(problem, replace(solver, time_limit=0.2, threads=threads)), problem)


@pytest.mark.parametrize("file", BENCHMARKS)
def test_benchmark_instances_reach_their_published_values(file: str, data_folder: Path):
    folder = data_folder / "graph_matching_dd"
    with (folder / "index.csv").open(encoding="utf-8", newline="") as table:
        known = {row["file"]: row["benchmark_best_value_300s"] for row in csv.DictReader(table)}
    result = gm.solve(gm.io.read_dd(folder / file), gm.Portfolio(max_gap=1e-4))
    # A gap of 1e-4 counts as closed; the matching itself is the published one.
    assert result.objective.item() == pytest.approx(float(known[file]), rel=1e-6)
    assert result.lower_bound.item() <= float(known[file]) + 1e-6 * abs(float(known[file]))


def test_every_benchmark_of_one_pair_of_graphs_is_listed(data_folder: Path):
    with (data_folder / "graph_matching_dd" / "index.csv").open(encoding="utf-8", newline="") as table:
        files = {row["file"] for row in csv.DictReader(table) if row["n_pairwise_problems"] == "1"}
    assert files == set(BENCHMARKS)
