"""Dense problems: what holds beyond the contract of every solver, on sizes where the native searches do the work."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import graphmatch as gm
from graphmatch import _reference
from graphmatch.solvers.base import state_without_duals

Make = Callable[..., gm.Problem]

SEARCHES = [
    gm.FAQ(starts=3, refine=True),
    gm.FAQ(linear_step="sinkhorn", starts=2),
    gm.Tabu(steps=300, restarts=2),
    gm.DualAscent(max_iterations=8),
    gm.Portfolio(effort=0.2),
]
every_search = pytest.mark.parametrize("solver", SEARCHES, ids=lambda solver: type(solver).__name__)


def random_problem(kind: str, seed: int, n: int, batch: int = 1) -> gm.KoopmansBeckmannProblem:
    """One family per branch of the native code: integers and reals, with and without symmetry and linear costs."""
    generator = torch.Generator().manual_seed(seed)

    def draw() -> Tensor:
        values = torch.randn(batch, n, n, generator=generator, dtype=torch.float64)
        return (3 * values).round() if "integer" in kind else values

    flow, distance, linear = draw(), draw(), None
    if "symmetric" in kind:
        flow = flow + flow.transpose(1, 2)
    if "linear" in kind:
        linear = draw()
    if "forbidden" in kind:
        linear = draw().masked_fill(torch.rand(batch, n, n, generator=generator) < 0.4, torch.inf)
    return gm.KoopmansBeckmannProblem(flow, distance, linear)


KINDS = ["integer symmetric", "integer linear", "real", "real symmetric linear", "integer forbidden", "real forbidden"]
every_kind = pytest.mark.parametrize("kind", KINDS)


def qaplib(folder: Path, name: str) -> tuple[gm.KoopmansBeckmannProblem, float]:
    """A file of the data folder and its best known value."""
    size, *numbers = (float(word) for word in (folder / f"{name}.dat").read_text().split())
    n = int(size)
    flow, distance = torch.tensor(numbers, dtype=torch.float64).reshape(2, 1, n, n)
    return gm.KoopmansBeckmannProblem(flow, distance), float((folder / f"{name}.sln").read_text().split()[1])


@every_kind
@pytest.mark.parametrize("n", [9, 10])
def test_the_portfolio_finds_what_branch_and_bound_proves(kind: str, n: int):
    for seed in range(3):
        problem = random_problem(kind, seed, n)
        found, exact = gm.solve(problem), gm.solve(problem, gm.BranchAndBound(max_nodes=10**7))
        assert exact.statuses == [gm.Status.OPTIMAL]
        torch.testing.assert_close(found.objective, exact.objective, rtol=1e-12, atol=1e-12)
        assert found.lower_bound <= exact.objective + 1e-9


@every_search
@every_kind
@pytest.mark.parametrize("n", [9, 17, 33])
def test_answers_cost_what_they_say(solver: gm.Solver, kind: str, n: int):
    problem = random_problem(kind, n, n, batch=2)
    result = gm.solve(problem, solver)
    assert result.assignment.sort().values.tolist() == [list(range(n))] * 2
    recomputed = _reference.objective(problem, result.assignment)
    assert recomputed.isfinite().all(), "a forbidden assignment was taken"
    torch.testing.assert_close(result.objective, recomputed, rtol=1e-12, atol=1e-9)
    assert (result.lower_bound <= result.objective).all()
    assert (result.iterations >= 1).all()


@every_search
def test_a_batch_is_its_problems_one_by_one_and_any_number_of_threads_agrees(solver: gm.Solver):
    problem = random_problem("real linear", 1, 11, batch=4)
    result = gm.solve(problem, replace(solver, threads=2))
    for index in range(4):
        alone = gm.KoopmansBeckmannProblem(*(value[index : index + 1] for value in _matrices(problem)))
        single = gm.solve(alone, replace(solver, threads=1))
        assert torch.equal(single.assignment[0], result.assignment[index])
        assert torch.equal(single.lower_bound[0], result.lower_bound[index])


@every_search
def test_padding_is_inert(solver: gm.Solver):
    problem = random_problem("integer linear", 2, 10)
    padded = []
    for matrix in _matrices(problem):
        room = torch.full((1, 13, 13), torch.nan, dtype=torch.float64)
        room[:, :10, :10] = matrix
        padded.append(room)
    result = gm.solve(gm.KoopmansBeckmannProblem(*padded, torch.tensor([10])), solver)
    expected = gm.solve(problem, solver)
    assert torch.equal(result.assignment[:, :10], expected.assignment)
    assert result.assignment[:, 10:].eq(-1).all()
    assert torch.equal(result.objective, expected.objective)
    assert torch.equal(result.lower_bound, expected.lower_bound)


@every_search
@every_kind
@pytest.mark.parametrize("exponent", [-30, 5])
def test_powers_of_two_scale_exactly(solver: gm.Solver, kind: str, exponent: int):
    problem = random_problem(kind, 3, 12)
    flow, distance, *linear = _matrices(problem)
    factor = 2.0**exponent
    larger = gm.KoopmansBeckmannProblem(flow * factor, distance, *(value * factor for value in linear))
    result, scaled = gm.solve(problem, solver), gm.solve(larger, solver)
    assert torch.equal(result.assignment, scaled.assignment)
    assert torch.equal(result.objective * factor, scaled.objective)
    assert torch.equal(result.lower_bound * factor, scaled.lower_bound)


@every_search
def test_no_permutation_is_allowed(solver: gm.Solver):
    problem = random_problem("real linear", 4, 10, batch=2)
    blocked = problem.linear.clone()
    blocked[0, :3, 1:] = torch.inf  # three facilities want location 0
    result = gm.solve(replace(problem, linear=blocked), solver)
    assert result.statuses[0] == gm.Status.INFEASIBLE
    assert result.assignment[0].eq(-1).all()
    assert result.objective[0] == result.lower_bound[0] == torch.inf
    assert result.objective[1].isfinite()


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_isomorphic_graphs_are_recovered(noise: float):
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(1, 40, 40, generator=generator, dtype=torch.float64)
    weights = weights + weights.transpose(1, 2)
    order = torch.randperm(40, generator=generator)
    other = torch.empty_like(weights)
    other[:, order[:, None], order[None, :]] = weights + noise * torch.randn(
        weights.shape, generator=generator, dtype=torch.float64
    )
    result = gm.solve(gm.KoopmansBeckmannProblem(weights, -other), gm.FAQ(starts=5))
    assert torch.equal(result.assignment[0], order)


def test_values_that_are_integers_have_integer_bounds_in_any_unit():
    problem = random_problem("integer symmetric", 5, 14)
    for solver in (gm.FAQ(), gm.DualAscent(max_iterations=3)):
        for unit in (1.0, 0.25):
            bound = gm.solve(replace(problem, flow=problem.flow * unit), solver).lower_bound / unit
            assert torch.equal(bound, bound.round())


def test_the_dual_ascent_raises_the_bound_and_can_prove():
    problem = random_problem("integer symmetric", 6, 12)
    bounds = [gm.solve(problem, gm.DualAscent(max_iterations=k)).lower_bound.item() for k in (1, 3, 10, 30)]
    assert bounds == sorted(bounds)
    assert bounds[0] < bounds[-1] <= gm.solve(problem).objective.item()
    # Linear costs that dwarf the others: the ascent closes the gap.
    flow = (torch.rand(1, 12, 12, generator=torch.Generator().manual_seed(7)) > 0.7).double()
    linear = 1000.0 * (1 - torch.eye(12, dtype=torch.float64)[None])
    easy = gm.KoopmansBeckmannProblem(flow, flow, linear)
    result = gm.solve(easy, gm.DualAscent())
    assert result.statuses == [gm.Status.OPTIMAL]
    assert result.assignment.tolist() == [list(range(12))]


def test_faq_starts_where_it_is_told():
    problem = random_problem("real symmetric linear", 8, 15)
    best = gm.solve(problem)
    corner = best.matching
    for initial in (corner, corner[0]):
        result = gm.solve(problem, gm.FAQ(initial=initial, max_iterations=0))
        assert torch.equal(result.assignment, best.assignment)
    other = gm.solve(problem, gm.FAQ(max_iterations=0))
    assert other.assignment.tolist() == [list(range(15))], "the barycenter has no preference: ties go to the lowest"


def test_padded_problems_start_where_they_are_told():
    sizes = torch.tensor([14, 9, 12, 10])
    problem = replace(random_problem("real linear", 5, 14, batch=4), sizes=sizes)
    best = gm.solve(problem)
    point = (best.assignment[:, :, None] == torch.arange(14)).double()
    starts = [(gm.FAQ(max_iterations=0, initial=point), None)]
    starts += [(solver, best.state) for solver in (gm.Tabu(steps=1, restarts=1), gm.DualAscent(max_iterations=1))]
    for solver, state in starts:
        torch.testing.assert_close(gm.solve(problem, solver, state=state).objective, best.objective)


@every_kind
def test_the_portfolio_decides_problems_of_few_nodes(kind: str):
    problem = random_problem(kind, 1, 8, batch=20)
    found, exact = gm.solve(problem, gm.Portfolio(effort=0.1)), gm.solve(problem, gm.BranchAndBound())
    assert set(found.statuses) <= {gm.Status.OPTIMAL, gm.Status.INFEASIBLE}
    torch.testing.assert_close(found.objective, exact.objective)


@pytest.mark.parametrize("effort", [0.05, 1.0])
def test_how_a_problem_is_solved_follows_from_its_own_size(effort: float):
    solver, sizes = gm.Portfolio(effort=effort), torch.tensor([8, 11, 0, 5, 9, 8])
    problem = replace(random_problem("real linear", 3, 11, batch=6), sizes=sizes)
    state, changed = gm.solve(problem, solver).state, replace(problem, flow=problem.flow + 0.1)
    for batch, start in ((problem, None), (changed, state)):
        together = gm.solve(batch, solver, state=start)
        for place, n in enumerate(sizes.tolist()):
            one = {name: getattr(batch, name)[place : place + 1, :n, :n] for name in ("flow", "distance", "linear")}
            began = None if start is None else state_without_duals(start.matching[place : place + 1, :n])
            alone = gm.solve(gm.KoopmansBeckmannProblem(**one), solver, state=began)
            assert together.assignment[place].tolist() == alone.assignment[0].tolist() + [-1] * (11 - n)
            for name in ("objective", "lower_bound", "status", "iterations", "stage"):
                assert getattr(together, name)[place] == getattr(alone, name)[0]


def test_a_warm_start_loses_nothing():
    problem = random_problem("real", 9, 20)
    first = gm.solve(problem, gm.Portfolio(effort=0.5))
    for solver in (gm.Portfolio(effort=1e-3), gm.Tabu(steps=1, restarts=1), gm.DualAscent(max_iterations=1)):
        again = gm.solve(problem, solver, state=first.state)
        assert again.objective <= first.objective
        twice = gm.KoopmansBeckmannProblem(*(value.repeat(2, 1, 1) for value in _matrices(problem)))
        assert (gm.solve(twice, solver, state=first.state).objective <= first.objective).all()


@pytest.mark.parametrize("batch", [1, 3])
def test_a_time_limit_is_kept_and_used(batch: int):
    problem = random_problem("real", 10, 30, batch=batch)
    began = time.perf_counter()
    result = gm.solve(problem, gm.Portfolio(time_limit=0.3, threads=2))
    # Generous above: what matters is that the search neither ends at once nor runs on.
    assert 0.15 < time.perf_counter() - began < 30
    assert result.assignment.sort().values.tolist() == [list(range(30))] * batch


def test_threads_that_a_time_limit_would_leave_idle_search_too():
    problem = random_problem("real", 11, 20)
    # One start is the same for every seed: each search takes as many steps, and the answer counts those of all.
    alone, together, unlimited = (
        gm.solve(problem, gm.FAQ(time_limit=limit, threads=threads)).iterations.item()
        for limit, threads in ((60.0, 1), (60.0, 3), (None, 3))
    )
    assert together == 3 * alone
    assert unlimited == alone


@pytest.mark.parametrize("n", [1, 2, 3])
@every_search
def test_tiny_problems(solver: gm.Solver, n: int):
    problem = random_problem("integer linear", 12, n)
    assert gm.solve(problem, solver).objective >= gm.solve(problem, gm.BruteForce()).objective


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"starts": 0}, r"starts must be at least 1; got 0"),
        ({"max_iterations": -1}, r"max_iterations must be at least 0; got -1"),
        ({"tolerance": -1.0}, r"tolerance must be at least 0"),
        ({"linear_step": "simplex"}, r"linear_step must be \"lap\" or \"sinkhorn\"; got 'simplex'"),
        ({"temperature": 0.0}, r"temperature must be positive"),
        ({"max_gap": -1.0}, r"max_gap must be at least 0"),
        ({"time_limit": 0.0}, r"time_limit must be positive seconds"),
    ],
    ids=str,
)
def test_options_of_faq_are_checked(options: dict, complaint: str):
    with pytest.raises(ValueError, match=f"^FAQ: {complaint}"):
        gm.FAQ(**options)


@pytest.mark.parametrize(
    ("initial", "error", "complaint"),
    [
        (torch.ones(4, 5), ValueError, r"initial must have shape \(1, 4, 4\)"),
        (torch.full((4, 4), torch.nan), ValueError, "initial must hold shares between 0 and 1"),
        (-torch.ones(4, 4), ValueError, "initial must hold shares between 0 and 1"),
        (torch.ones(4, 4, dtype=torch.int64), TypeError, "initial must be a floating-point tensor"),
        ([[1.0]], TypeError, "initial must be a torch.Tensor"),
    ],
    ids=["shape", "nan", "negative", "integer", "list"],
)
def test_the_start_of_faq_is_checked(initial: object, error: type[Exception], complaint: str):
    with pytest.raises(error, match=f"^FAQ: {complaint}"):
        gm.solve(random_problem("real", 0, 4), gm.FAQ(initial=initial))


def test_faq_takes_dense_problems_only(make_problem: Make):
    with pytest.raises(TypeError, match=r"^FAQ: problem must be a KoopmansBeckmannProblem; got LawlerProblem\. Use"):
        gm.solve(make_problem("lawler", 0), gm.FAQ())


@pytest.mark.parametrize(("name", "bound"), [("nug12", 493), ("nug30", 4539)])
def test_gilmore_lawler_bounds_of_the_literature(data_folder: Path, name: str, bound: int):
    problem, _ = qaplib(data_folder / "qaplib", name)
    assert gm.solve(problem, gm.FAQ()).lower_bound.item() == bound


def test_bounds_of_real_problems_are_below_their_best_known_values(data_folder: Path):
    for path in sorted((data_folder / "qaplib").glob("*.dat")):
        if int(path.read_text().split()[0]) > 64:
            continue
        problem, best = qaplib(path.parent, path.stem)
        result = gm.solve(problem, gm.FAQ(max_iterations=2))
        assert result.lower_bound.item() <= best, path.stem
        assert result.objective.item() >= best, path.stem
        if problem.flow.shape[1] <= 12:
            better = gm.solve(problem, gm.DualAscent(max_iterations=20)).lower_bound
            assert result.lower_bound.item() <= better.item() <= best, path.stem


def test_tiny_real_problems_are_decided(data_folder: Path):
    for path in sorted((data_folder / "qaplib" / "tiny").glob("*.dat")):
        problem, best = qaplib(path.parent, path.stem)
        result = gm.solve(problem)
        assert result.objective.item() == best, path.stem


@pytest.mark.parametrize("name", ["nug20", "chr12a", "esc16a", "had20", "scr20", "bur26a", "lipa20a", "rou20"])
def test_real_problems_are_solved_to_their_best_known_values(data_folder: Path, name: str):
    problem, best = qaplib(data_folder / "qaplib", name)
    assert gm.solve(problem, gm.Portfolio(effort=2.0)).objective.item() == best


def _matrices(problem: gm.KoopmansBeckmannProblem) -> list[Tensor]:
    return [value for value in (problem.flow, problem.distance, problem.linear) if value is not None]
