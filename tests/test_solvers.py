"""The contract of every solver: one table of solvers, one test per property."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import graphmatch as gm
from graphmatch import _reference

Make = Callable[..., gm.Problem]


@dataclass(frozen=True)
class Contract:
    """A solver, a kind of problem it takes, and whether it promises the optimum."""

    solver: gm.Solver
    kind: str
    exact: bool
    threaded: bool = True
    scales: bool = True  # with the costs: not where an option is in their units

    def __str__(self) -> str:
        return f"{type(self.solver).__name__}-{self.kind}"


CONTRACTS = [
    Contract(gm.LAP(), "linear", exact=True),
    *(
        Contract(solver, kind, exact=isinstance(solver, gm.BranchAndBound))
        for solver in (
            gm.DualAscent(),
            gm.Tabu(steps=50, restarts=3),
            gm.Fusion(generations=10),
            gm.BranchAndBound(),
            gm.Portfolio(),
        )
        for kind in ("lawler", "koopmans_beckmann")
    ),
    Contract(gm.FAQ(starts=2, refine=True), "koopmans_beckmann", exact=False),
    Contract(gm.FAQ(linear_step="sinkhorn"), "koopmans_beckmann", exact=False),
    Contract(gm.Sinkhorn(max_iterations=200), "linear", exact=False, threaded=False, scales=False),
    Contract(gm.GumbelSinkhorn(max_iterations=100, samples=2), "linear", exact=False, threaded=False, scales=False),
    Contract(gm.SpectralMatching(), "lawler", exact=False, threaded=False),
    Contract(gm.SpectralMatching(), "koopmans_beckmann", exact=False, threaded=False),
    Contract(gm.RRWM(max_iterations=20), "lawler", exact=False, threaded=False),
    Contract(gm.IPFP(), "lawler", exact=False, threaded=False),
    Contract(gm.BruteForce(), "linear", exact=True, threaded=False),
    Contract(gm.BruteForce(), "lawler", exact=True, threaded=False),
    Contract(gm.BruteForce(), "koopmans_beckmann", exact=True, threaded=False),
]
every_solver = pytest.mark.parametrize("contract", CONTRACTS, ids=str)
scaling_solvers = pytest.mark.parametrize("contract", [c for c in CONTRACTS if c.scales], ids=str)
threaded_solvers = pytest.mark.parametrize("contract", [c for c in CONTRACTS if c.threaded], ids=str)

# What hypothesis varies; the numbers themselves come from the seed.
small_problems = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**31),
        "n1": st.integers(0, 4),
        "n2": st.integers(0, 5),
        "e1": st.integers(0, 9),
        "e2": st.integers(0, 9),
        "dtype": st.sampled_from([torch.float32, torch.float64]),
        "unmatched_cost": st.sampled_from([None, None, 0.0, -0.5, 2.0]),
        "forbidden": st.sampled_from([0.0, 0.0, 0.3]),
        "integers": st.booleans(),
    }
)


def tensors(problem: gm.Problem) -> dict[str, Tensor]:
    return {name: value for name, value in vars(problem).items() if isinstance(value, Tensor)}


def costs(problem: gm.Problem) -> dict[str, Tensor]:
    return {name: value for name, value in tensors(problem).items() if value.is_floating_point()}


def scaled(problem: gm.Problem, factor: float) -> gm.Problem:
    """The problem with every cost multiplied; flow carries the factor of a dense problem."""
    changed = {name: value * factor for name, value in costs(problem).items() if name != "distance"}
    if getattr(problem, "unmatched_cost", None) is not None:
        changed["unmatched_cost"] = problem.unmatched_cost * factor
    return replace(problem, **changed)


def one(problem: gm.Problem, index: int) -> gm.Problem:
    """Problem `index` of a batch, as a batch of one."""
    return replace(problem, **{name: value[index : index + 1] for name, value in tensors(problem).items()})


def magnitude(problem: gm.Problem) -> Tensor:
    """(b,) sum of all finite |cost|: sums in double are good to some 1e-15 of it."""
    if isinstance(problem, gm.KoopmansBeckmannProblem):
        problem = problem.to_lawler()
    total = torch.full((problem.batch_size,), abs(problem.unmatched_cost or 0.0), dtype=torch.float64)
    for value in costs(problem).values():
        total += torch.where(value.isfinite(), value.double().abs(), 0.0).flatten(1).sum(1)
    return total * max(problem.node_counts()[0].amax().item() if problem.batch_size else 1, 1)


def assert_is_answer(result: gm.MatchResult, problem: gm.Problem) -> None:
    """Every answer is injective, as large as demanded, costs what it says, and lies above its bound."""
    tolerance = 1e-13 * magnitude(problem)
    recomputed = _reference.objective(problem, result.assignment)
    count1, count2 = problem.node_counts()
    partial = getattr(problem, "unmatched_cost", None) is not None
    for b, status in enumerate(result.statuses):
        n1, n2 = int(count1[b]), int(count2[b])
        matched = [k for k in result.assignment[b].tolist() if k != -1]
        if status == gm.Status.INFEASIBLE:
            assert not partial
            assert matched == []
            assert result.objective[b] == result.lower_bound[b] == math.inf
            continue
        assert status in (gm.Status.OPTIMAL, gm.Status.FEASIBLE)
        assert len(set(matched)) == len(matched)
        assert all(0 <= k < n2 for k in matched)
        assert result.assignment[b, n1:].eq(-1).all()
        if not partial:
            assert len(matched) == min(n1, n2)
        assert abs(result.objective[b] - recomputed[b]) <= tolerance[b]
        assert result.lower_bound[b] <= result.objective[b]
    assert result.assignment.dtype == result.status.dtype == torch.int64
    assert result.objective.dtype == result.lower_bound.dtype == torch.float64


def assert_equal(first: gm.MatchResult, second: gm.MatchResult) -> None:
    """The same answers, bit by bit."""
    assert torch.equal(first.assignment, second.assignment)
    assert torch.equal(first.status, second.status)
    assert torch.equal(first.objective, second.objective)
    assert torch.equal(first.lower_bound, second.lower_bound)


def assert_agree(first: gm.MatchResult, second: gm.MatchResult, problem: gm.Problem, shift: float = 0.0) -> None:
    """Answers of two statements of one problem, up to `shift`: no bound excludes the other's matching; optima agree."""
    noise = 1e-12 * magnitude(problem) + 1e-12 * abs(shift)
    for b in range(problem.batch_size):
        if gm.Status.INFEASIBLE in (first.status[b], second.status[b]):
            assert first.status[b] == second.status[b]
            continue
        moved = second.objective[b] - shift
        assert first.lower_bound[b] <= moved + noise[b]
        assert second.lower_bound[b] - shift <= first.objective[b] + noise[b]
        if first.status[b] == second.status[b] == gm.Status.OPTIMAL:
            # A certificate allows max_gap (1e-6), relative to the objective or the largest cost.
            assert abs(first.objective[b] - moved) <= 2e-6 * magnitude(problem)[b] + noise[b]


@every_solver
@given(arguments=small_problems)
def test_contract(contract: Contract, make_problem: Make, arguments: dict):
    problem = make_problem(contract.kind, **arguments)
    before = {name: value.clone() for name, value in tensors(problem).items()}
    result = gm.solve(problem, contract.solver)
    for name, value in tensors(problem).items():
        assert torch.equal(value, before[name]), f"{name} was modified"
    assert result.problem is problem
    assert_is_answer(result, problem)

    best = gm.BruteForce().solve(problem)
    tolerance = 1e-13 * magnitude(problem)
    assert torch.equal(result.status == gm.Status.INFEASIBLE, best.objective.isinf())
    feasible = best.objective.isfinite()
    assert (result.lower_bound <= best.objective + tolerance)[feasible].all()
    assert (result.objective >= best.objective - tolerance)[feasible].all()
    if contract.exact:
        assert (result.status[feasible] == gm.Status.OPTIMAL).all()
        assert ((result.objective - best.objective).abs() <= tolerance)[feasible].all()
    closed = feasible & (result.status == gm.Status.OPTIMAL)
    assert (result.objective - best.objective <= 1e-6 * magnitude(problem) + tolerance)[closed].all()


@every_solver
@given(arguments=small_problems)
def test_relabelling_nodes_changes_nothing(contract: Contract, make_problem: Make, arguments: dict):
    problem = make_problem(contract.kind, **arguments)
    generator = torch.Generator().manual_seed(arguments["seed"])

    def order(count: int) -> Tensor:
        return torch.randperm(count, generator=generator)

    if isinstance(problem, gm.KoopmansBeckmannProblem):
        rows, columns = order(problem.flow.shape[1]), order(problem.flow.shape[1])
        moved = gm.KoopmansBeckmannProblem(
            problem.flow[:, rows][:, :, rows],
            problem.distance[:, columns][:, :, columns],
            problem.linear[:, rows][:, :, columns],
        )
    elif isinstance(problem, gm.LinearProblem):
        rows, columns = order(problem.costs.shape[1]), order(problem.costs.shape[2])
        moved = replace(problem, costs=problem.costs[:, rows][:, :, columns])
    else:
        rows, columns = order(problem.unary_costs.shape[1]), order(problem.unary_costs.shape[2])
        edges1, edges2 = order(problem.edges1.shape[1]), order(problem.edges2.shape[1])
        moved = replace(
            problem,
            unary_costs=problem.unary_costs[:, rows][:, :, columns],
            quadratic_costs=problem.quadratic_costs[:, edges1][:, :, edges2],
            # Node r of the old graph is node rows.argsort()[r] of the new one.
            edges1=rows.argsort()[problem.edges1[:, edges1]],
            edges2=columns.argsort()[problem.edges2[:, edges2]],
        )
    assert_agree(gm.solve(problem, contract.solver), gm.solve(moved, contract.solver), problem)


@every_solver
@given(arguments=small_problems, constant=st.sampled_from([-3.0, 0.25, 100.0]))
def test_a_constant_on_a_row_shifts_complete_problems(
    contract: Contract, make_problem: Make, arguments: dict, constant: float
):
    n1, n2 = sorted((max(arguments["n1"], 1), max(arguments["n2"], 1)))
    arguments = {**arguments, "n1": n1, "n2": n2, "unmatched_cost": None, "dtype": torch.float64}
    problem = make_problem(contract.kind, **arguments)
    name = {"linear": "costs", "lawler": "unary_costs", "koopmans_beckmann": "linear"}[contract.kind]
    raised = getattr(problem, name).clone()
    raised[:, 0] += constant
    shifted = replace(problem, **{name: raised})
    assert_agree(gm.solve(problem, contract.solver), gm.solve(shifted, contract.solver), shifted, constant)


@scaling_solvers
@given(arguments=small_problems, exponent=st.sampled_from([-40, -1, 3, 60]))
def test_powers_of_two_scale_exactly(contract: Contract, make_problem: Make, arguments: dict, exponent: int):
    problem = make_problem(contract.kind, **arguments)
    factor = 2.0**exponent
    result, larger = gm.solve(problem, contract.solver), gm.solve(scaled(problem, factor), contract.solver)
    assert torch.equal(result.assignment, larger.assignment)
    assert torch.equal(result.status, larger.status)
    assert torch.equal(result.objective * factor, larger.objective)
    assert torch.equal(result.lower_bound * factor, larger.lower_bound)


@every_solver
@pytest.mark.parametrize("factor", [1e-3, 1e6, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_costs_of_any_size(contract: Contract, make_problem: Make, factor: float, dtype: torch.dtype):
    for seed in range(5):
        large = scaled(make_problem(contract.kind, seed, dtype=dtype, e1=8, e2=8), factor)
        result = gm.solve(large, contract.solver)
        assert_is_answer(result, large)
        assert_agree(result, gm.BruteForce().solve(large), large)


@every_solver
@given(arguments=small_problems)
def test_a_batch_is_its_problems_one_by_one(contract: Contract, make_problem: Make, arguments: dict):
    problem = make_problem(contract.kind, batch=3, **arguments)
    result = gm.solve(problem, contract.solver)
    for index in range(3):
        alone = gm.solve(one(problem, index), contract.solver)
        assert torch.equal(alone.assignment[0], result.assignment[index])
        assert torch.equal(alone.objective[0], result.objective[index])
        assert torch.equal(alone.lower_bound[0], result.lower_bound[index])
        assert torch.equal(alone.status[0], result.status[index])


def pad(value: Tensor, extra: int, garbage: float) -> Tensor:
    """Appends `extra` rows and columns of garbage to each matrix of a batch."""
    batch, rows, columns = value.shape
    padded = torch.full((batch, rows + extra, columns + extra), garbage, dtype=value.dtype)
    padded[:, :rows, :columns] = value
    return padded


@every_solver
@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf, -1e9], ids=str)
@pytest.mark.parametrize("unmatched_cost", [None, 0.1])
def test_padding_is_inert(contract: Contract, make_problem: Make, garbage: float, unmatched_cost: float | None):
    for seed in range(3):
        problem = make_problem(contract.kind, seed, n1=3, n2=4, unmatched_cost=unmatched_cost)
        full = {name: pad(value, 2, garbage) for name, value in costs(problem).items()}
        if contract.kind == "lawler":
            sizes = torch.tensor([[3, 4, 6, 6]] * 2)
            for name in ("edges1", "edges2"):
                full[name] = torch.cat([getattr(problem, name), torch.tensor([[[-1, 999], [-7, 0]]] * 2)], dim=1)
        else:
            sizes = torch.tensor([3, 3]) if contract.kind == "koopmans_beckmann" else torch.tensor([[3, 4]] * 2)
        padded = replace(problem, **full, sizes=sizes)
        result, expected = gm.solve(padded, contract.solver), gm.solve(problem, contract.solver)
        assert torch.equal(result.assignment[:, :3], expected.assignment)
        assert result.assignment[:, 3:].eq(-1).all()
        torch.testing.assert_close(result.objective, expected.objective, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(result.lower_bound, expected.lower_bound, rtol=1e-12, atol=1e-12)
        if contract.kind == "lawler":
            assert torch.equal(result.paid_pairs[:, :6, :6], expected.paid_pairs)
            assert result.paid_pairs.sum() == expected.paid_pairs.sum()


@every_solver
@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0), (1, 1), (1, 3), (3, 1)], ids=str)
@pytest.mark.parametrize("unmatched_cost", [None, 0.5])
@pytest.mark.parametrize("batch", [0, 1, 2])
def test_small_sizes(
    contract: Contract, make_problem: Make, shape: tuple[int, int], unmatched_cost: float | None, batch: int
):
    n1, n2 = shape
    problem = make_problem(contract.kind, 0, batch=batch, n1=n1, n2=n2, e1=2, e2=2, unmatched_cost=unmatched_cost)
    result = gm.solve(problem, contract.solver)
    assert result.assignment.shape == (batch, n1)
    assert result.gap.shape == result.absolute_gap.shape == (batch,)
    assert_is_answer(result, problem)
    assert_agree(result, gm.BruteForce().solve(problem), problem)


@every_solver
@pytest.mark.parametrize("unmatched_cost", [None, 0.0])
def test_ties(contract: Contract, make_problem: Make, unmatched_cost: float | None):
    problem = scaled(make_problem(contract.kind, 0, unmatched_cost=unmatched_cost), 0.0)
    result = gm.solve(problem, contract.solver)
    assert_is_answer(result, problem)
    assert result.objective.eq(0).all()
    assert result.gap.eq(0).all()
    assert result.statuses == [gm.Status.OPTIMAL] * 2


@every_solver
def test_infeasible_problems_are_reported_and_do_not_touch_their_neighbours(contract: Contract, make_problem: Make):
    problem = make_problem(contract.kind, 3, batch=3)
    name = {"linear": "costs", "lawler": "unary_costs", "koopmans_beckmann": "linear"}[contract.kind]
    blocked = getattr(problem, name).clone()
    blocked[1, 2] = torch.inf
    result = gm.solve(replace(problem, **{name: blocked}), contract.solver)
    expected = gm.solve(problem, contract.solver)
    assert result.statuses[1] == gm.Status.INFEASIBLE
    assert result.assignment[1].eq(-1).all()
    assert result.objective[1] == result.lower_bound[1] == math.inf
    assert result.gap[1].isnan()
    for index in (0, 2):
        assert torch.equal(result.assignment[index], expected.assignment[index])
        assert result.objective[index] == expected.objective[index]


@every_solver
def test_forbidden_assignments_are_avoided_at_any_price(contract: Contract, make_problem: Make):
    name = {"linear": "costs", "lawler": "unary_costs", "koopmans_beckmann": "linear"}[contract.kind]
    problem = make_problem(contract.kind, 5)
    values = torch.full((2, 4, 4), torch.inf, dtype=torch.float64)
    allowed = torch.tensor([2, 0, 3, 1])
    values[:, torch.arange(4), allowed] = 1e9
    result = gm.solve(replace(problem, **{name: values}), contract.solver)
    assert result.assignment.tolist() == [allowed.tolist()] * 2


@every_solver
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_costs_are_taken_at_their_word(contract: Contract, make_problem: Make, dtype: torch.dtype):
    half = make_problem(contract.kind, 1, dtype=dtype)
    full = replace(half, **{name: value.float() for name, value in costs(half).items()})
    result = gm.solve(half, contract.solver)
    assert_equal(result, gm.solve(full, contract.solver))
    assert_is_answer(result, half)
    assert result.matching.dtype == dtype


@every_solver
def test_memory_layout_does_not_matter(contract: Contract, make_problem: Make):
    problem = make_problem(contract.kind, 7)
    strange = {}
    for name, value in tensors(problem).items():
        # Every second element of something larger, with the axes stored in another order.
        room = value.new_full((*[2 * size for size in reversed(value.shape)],), 7).permute(2, 1, 0)
        room[::2, ::2, ::2] = value
        strange[name] = room[::2, ::2, ::2]
        assert not strange[name].is_contiguous()
    assert_equal(gm.solve(replace(problem, **strange), contract.solver), gm.solve(problem, contract.solver))


@every_solver
def test_tensors_shared_by_the_batch(contract: Contract, make_problem: Make):
    problem = one(make_problem(contract.kind, 8), 0)
    shared = {name: value.expand(4, *value.shape[1:]) for name, value in tensors(problem).items()}
    result, alone = gm.solve(replace(problem, **shared), contract.solver), gm.solve(problem, contract.solver)
    assert torch.equal(result.assignment, alone.assignment.expand(4, -1))
    assert torch.equal(result.objective, alone.objective.expand(4))
    assert torch.equal(result.lower_bound, alone.lower_bound.expand(4))


@pytest.mark.parametrize("solver", [gm.DualAscent(), gm.BruteForce()], ids=["DualAscent", "BruteForce"])
def test_edges_without_a_batch_axis(solver: gm.Solver, make_problem: Make):
    problem = make_problem("lawler", 9)
    same = {name: getattr(problem, name)[:1].expand(2, -1, -1) for name in ("edges1", "edges2")}
    flat = {name: getattr(problem, name)[0] for name in ("edges1", "edges2")}
    assert_equal(gm.solve(replace(problem, **flat), solver), gm.solve(replace(problem, **same), solver))


@threaded_solvers
def test_any_number_of_threads_gives_the_same_answer(contract: Contract, make_problem: Make):
    problem = make_problem(contract.kind, 10, batch=23, n1=6, n2=6, e1=14, e2=14)
    results = [gm.solve(problem, replace(contract.solver, threads=threads)) for threads in (1, 2, 8)]
    assert_equal(results[0], results[1])
    assert_equal(results[0], results[2])


@threaded_solvers
def test_eight_python_threads_at_once(contract: Contract, make_problem: Make):
    problems = [make_problem(contract.kind, seed, batch=9, n1=6, n2=6, e1=14, e2=14) for seed in range(8)]
    expected = [gm.solve(problem, contract.solver) for problem in problems]
    solver = replace(contract.solver, threads=2)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            for result, truth in zip(pool.map(lambda p: gm.solve(p, solver), problems), expected, strict=True):
                assert_equal(result, truth)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("repeats", [1, 60])
def test_many_edges_per_pair_of_nodes_end(repeats: int):
    # Large float gains with many exact ties: rounding must not keep the local search busy for ever.
    nodes = torch.arange(10)
    edges1 = torch.combinations(nodes).repeat(repeats, 1)
    edges2 = torch.cartesian_prod(nodes, nodes)
    edges2 = edges2[edges2[:, 0] != edges2[:, 1]]
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        weights = torch.rand(1, len(edges1), 1, generator=generator)
        problem = gm.LawlerProblem(torch.zeros(1, 10, 10), weights.expand(-1, -1, len(edges2)), edges1, edges2)
        result = gm.solve(problem, gm.DualAscent(max_iterations=30))
        assert_is_answer(result, problem)
        # All matchings cost the same.
        assert result.objective.item() == pytest.approx(weights.sum().item(), rel=1e-4)


@pytest.mark.parametrize("unmatched_cost", [None, 0.1])
def test_a_time_limit_still_gives_matchings_with_bounds(make_problem: Make, unmatched_cost: float | None):
    problem = make_problem("lawler", 14, batch=5, n1=12, n2=12, e1=60, e2=60, unmatched_cost=unmatched_cost)
    result = gm.solve(problem, gm.DualAscent(time_limit=1e-9, max_gap=0.0))
    assert_is_answer(result, problem)
    assert result.iterations.eq(1).all()
    assert result.lower_bound.isfinite().all()
