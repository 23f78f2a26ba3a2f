"""The native operator that solves noisy copies of sparse problems: the answers of each copy by itself, their means."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import graphmatch as gm
from graphmatch import _ops, _sampling_ops
from graphmatch.noise import gaussian_noise, gumbel_noise

ANSWERS = ["assignment", "objective", "lower_bound", "status", "iterations"]
CENTERS = [f"center_{name}" for name in (*ANSWERS, "stage")]
NAMES = ["matching_means", "paid_means", *ANSWERS, *CENTERS, "messages", "potentials", "scale"]
SEED, KEY = 5, 11
NOISE = {_sampling_ops.GUMBEL: gumbel_noise, _sampling_ops.GAUSSIAN: gaussian_noise}


def lawler_tensors(problem: gm.LawlerProblem) -> tuple:
    tensors = (problem.unary_costs, problem.quadratic_costs, problem.edges1, problem.edges2)
    return (*tensors, problem.sizes, problem.unmatched_cost)


def budgets(method: int = _ops.BRANCH_AND_BOUND, max_gap: float = 1e-9) -> tuple:
    """Method, iterations, runs, steps, nodes, effort, gap and seed: exact on small problems."""
    return (method, 20, 2, 50, 100_000, 1.0, max_gap, 0)


def sample_arguments(problem: gm.LawlerProblem, **options: object) -> tuple:
    batch = problem.unary_costs.shape[0]
    chosen = {
        "unary_step": None,
        "quadratic_step": None,
        "signs": [0.0],
        "samples": 5,
        "noise_scale": 0.7,
        "keys": torch.full((batch,), KEY),
        "instances": torch.arange(batch),
        "noise_seed": SEED,
        "noise_kind": _sampling_ops.GUMBEL,
        "coupling": _sampling_ops.INDEPENDENT,
        "open_gap": -1.0,
        "weigh": False,
        "keep_assignments": True,
        "budgets": budgets(),
        "time_limit": None,
        "threads": 1,
        "state": (None, None, None, None),
        "keep_state": True,
    }
    assert chosen.keys() >= options.keys()
    chosen |= options
    flat = [chosen[name] for name in chosen if name not in ("budgets", "time_limit", "threads", "state", "keep_state")]
    ends = (*chosen["budgets"], chosen["time_limit"], chosen["threads"], *chosen["state"], chosen["keep_state"])
    return (*lawler_tensors(problem), *flat, *ends)


def solve_samples(problem: gm.LawlerProblem, **options: object) -> dict[str, Tensor]:
    return dict(zip(NAMES, _sampling_ops.lawler_samples(*sample_arguments(problem, **options)), strict=True))


def state_of(answers: dict[str, Tensor]) -> tuple[Tensor, ...]:
    return (answers["messages"], answers["potentials"], answers["scale"], answers["center_assignment"])


def steps_of(problem: gm.LawlerProblem, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random changes of all costs of a problem."""
    generator = torch.Generator().manual_seed(seed)

    def draw(costs: Tensor) -> Tensor:
        return torch.randn(costs.shape, generator=generator, dtype=torch.float64).to(costs.dtype)

    return draw(problem.unary_costs), draw(problem.quadratic_costs)


def copies(
    problem: gm.LawlerProblem,
    steps: tuple[Tensor | None, Tensor | None],
    sign: float,
    samples: int,
    scale: float = 0.7,
    kind: int = _sampling_ops.GUMBEL,
) -> gm.LawlerProblem:
    """The costs of all samples of one variant, sample after sample, as the operator's contract has them."""
    unary, quadratic = problem.unary_costs, problem.quadratic_costs
    noise = NOISE[kind](samples, unary, SEED, torch.tensor(KEY)).float().to(unary.dtype)
    noisy = unary - scale * noise
    if steps[0] is not None:
        noisy = noisy + sign * steps[0]
    if steps[1] is not None:
        quadratic = quadratic + sign * steps[1]
    return replace(
        problem,
        unary_costs=noisy.flatten(0, 1),
        quadratic_costs=quadratic.repeat(samples, 1, 1),
        edges1=problem.edges1.repeat(samples, 1, 1),
        edges2=problem.edges2.repeat(samples, 1, 1),
        sizes=None if problem.sizes is None else problem.sizes.repeat(samples, 1),
    )


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor], names: list[str] = NAMES) -> None:
    for name in names:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=0, equal_nan=True, msg=name)


CASES = {
    "complete": {},
    "partial": {"unmatched_cost": 0.3},
    "wide": {"n1": 3, "n2": 5},
    "tall": {"n1": 5, "n2": 3},
    "forbidden": {"forbidden": 0.2, "unmatched_cost": 0.0},
    "float32": {"dtype": torch.float32},
    "no edges": {"e1": 0},
}


@pytest.mark.parametrize("kind", NOISE)
@pytest.mark.parametrize("moved", ["none", "unary", "quadratic", "both"])
@pytest.mark.parametrize("case", CASES)
def test_samples_are_the_optima_of_the_noisy_copies(make_problem: Callable, case: str, moved: str, kind: int):
    problem = make_problem("lawler", 3, batch=3, **CASES[case])
    unary_step, quadratic_step = steps_of(problem)
    steps = (
        unary_step if moved in ("unary", "both") else None,
        quadratic_step if moved in ("quadratic", "both") else None,
    )
    signs, samples = [1.0, -0.5, 0.0], 6
    given = {"unary_step": steps[0], "quadratic_step": steps[1], "signs": signs, "samples": samples}
    answers = solve_samples(problem, noise_kind=kind, **given)
    assert answers["status"].eq(gm.Status.OPTIMAL).all()
    assignments = answers["assignment"].unflatten(0, (3, samples * 3))
    for variant, sign in enumerate(signs):
        noisy = copies(problem, steps, sign, samples, kind=kind)
        best = gm.solve(noisy, gm.BruteForce()).objective
        objective = answers["objective"][variant].flatten()
        torch.testing.assert_close(objective, best, rtol=1e-12, atol=1e-12)
        recomputed = _ops.lawler_objective(*lawler_tensors(noisy), assignments[variant], 1)
        assert torch.equal(objective, recomputed), "the costs are those of torch, bit for bit"
        assert (answers["lower_bound"][variant].flatten() <= best + 1e-12).all()


@pytest.mark.parametrize("method", [_ops.DUAL_ASCENT, _ops.TABU, _ops.FUSION, _ops.PORTFOLIO])
def test_every_method_returns_matchings_with_bounds(make_problem: Callable, method: int):
    problem = make_problem("lawler", 4, batch=2, n1=7, n2=7, e1=14, e2=14)
    steps = steps_of(problem)
    answers = solve_samples(
        problem,
        unary_step=steps[0],
        quadratic_step=steps[1],
        signs=[1.0, -1.0],
        budgets=budgets(method, 1e-6),
    )
    for variant, sign in enumerate([1.0, -1.0]):
        noisy = copies(problem, steps, sign, 5)
        exact = gm.solve(noisy, gm.BranchAndBound(max_gap=1e-9))
        assert exact.status.eq(gm.Status.OPTIMAL).all()
        assert (answers["objective"][variant].flatten() >= exact.objective - 1e-9).all()
        assert (answers["lower_bound"][variant].flatten() <= exact.objective + 1e-9).all()


def test_the_center_is_the_problem_itself(make_problem: Callable):
    problem = make_problem("lawler", 5, n1=6, n2=6, unmatched_cost=0.1)
    chosen = budgets(_ops.PORTFOLIO, 1e-6)
    steps = steps_of(problem)
    expected = _ops.lawler_solve(*lawler_tensors(problem), *chosen, None, 1, None, None, None, None, True)
    for given in ({}, {"unary_step": steps[0], "signs": [1.0, -1.0]}, {"quadratic_step": steps[1]}):
        answers = solve_samples(problem, budgets=chosen, **given)
        for name, value in zip(NAMES[7:], expected, strict=True):
            assert torch.equal(answers[name], value), name
    assert solve_samples(problem, keep_state=False)["scale"].shape == (0,)


def test_a_given_state_takes_the_place_of_the_center(make_problem: Callable):
    problem = make_problem("lawler", 6, n1=8, n2=8, e1=16, e2=16)
    chosen = budgets(_ops.PORTFOLIO, 1e-3)
    first = solve_samples(problem, budgets=chosen)
    again = solve_samples(problem, budgets=chosen, state=state_of(first))
    assert_same(first, again, NAMES[:7])
    assert {again[name].shape[0] for name in NAMES[7:]} == {0}


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("coupling", range(3))
def test_answers_depend_on_nothing_but_their_own_sample(make_problem: Callable, coupling: int, warm: bool):
    problem = make_problem("lawler", 7, batch=3, n1=8, n2=8, e1=16, e2=16)
    steps = steps_of(problem)
    given = {"budgets": budgets(_ops.PORTFOLIO, 1e-3), "coupling": coupling, "samples": 13, "signs": [1.0, -1.0]}
    given |= {"unary_step": steps[0], "quadratic_step": steps[1]}
    if warm:
        given["state"] = state_of(solve_samples(problem))
    whole = solve_samples(problem, **given)
    for threads in (2, 8):
        assert_same(whole, solve_samples(problem, threads=threads, **given))
    fewer = solve_samples(problem, **{**given, "samples": 4})
    assert_same({"objective": whole["objective"][:, :4]}, fewer, ["objective"])
    one = solve_samples(problem, **{**given, "signs": [-1.0]})
    assert_same({"lower_bound": whole["lower_bound"][1:]}, one, ["lower_bound"])
    # The last problem by itself, still the third one to the noise.
    names = ("unary_costs", "quadratic_costs", "edges1", "edges2")
    last = replace(problem, **{name: getattr(problem, name)[2:] for name in names})
    alone = {**given, "unary_step": steps[0][2:], "quadratic_step": steps[1][2:], "instances": torch.tensor([2])}
    alone |= {"keys": torch.tensor([KEY])}
    if warm:
        alone["state"] = tuple(part[2:] for part in given["state"])
    found = solve_samples(last, **alone)
    assert_same({name: whole[name][..., 2:] for name in NAMES[3:7]}, found, NAMES[3:7])
    assert_same({name: whole[name][:, 2:] for name in NAMES[:2]}, found, NAMES[:2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_means_are_those_of_the_assignments(make_problem: Callable, dtype: torch.dtype):
    problem = make_problem("lawler", 8, batch=2, n1=3, n2=4, e1=8, e2=14, dtype=dtype, unmatched_cost=0.1)
    given = {"samples": 9, "signs": [1.0, -1.0], "unary_step": steps_of(problem)[0]}
    answers = solve_samples(problem, **given)
    for variant in range(2):
        noisy = copies(problem, (None, None), 0.0, 9)
        result = replace(gm.solve(noisy), assignment=answers["assignment"].unflatten(0, (2, 18))[variant])
        for name, pairs in (("matching_means", result.matching), ("paid_means", result.paid_pairs)):
            expected = pairs.unflatten(0, (9, 2)).double().mean(0).to(dtype)
            assert answers[name].dtype == dtype
            assert torch.equal(answers[name][variant], expected)
    assert answers["paid_means"].sum() > 0
    without = solve_samples(
        problem, samples=9, signs=[1.0, -1.0], unary_step=steps_of(problem)[0], keep_assignments=False
    )
    assert without["assignment"].shape == (0, 3)
    assert_same(answers, without, [name for name in NAMES if name != "assignment"])


@pytest.mark.parametrize("weigh", [False, True])
def test_open_gaps_lower_the_weight_of_a_sample(make_problem: Callable, weigh: bool):
    problem = make_problem("lawler", 9, batch=2, n1=10, n2=10, e1=30, e2=30)
    given = {"budgets": (_ops.DUAL_ASCENT, 3, 0, 0, 0, 1.0, 1e-6, 0), "samples": 12, "signs": [0.5, -0.5]}
    given["unary_step"] = steps_of(problem)[0]
    gaps = solve_samples(problem, **given)
    relative = (gaps["objective"] - gaps["lower_bound"]).clamp(min=0) / gaps["objective"].abs()
    largest = relative.amax(0)  # (samples, b)
    open_gap = largest.median().item()
    answers = solve_samples(problem, open_gap=open_gap, weigh=weigh, **given)
    weight = torch.where(largest <= open_gap, 1.0, (open_gap / largest * 2**20).round() / 2**20 if weigh else 0.0)
    assert 0 < weight.sum() < weight.numel()
    matched = torch.nn.functional.one_hot(answers["assignment"].unflatten(0, (2, 12, 2)), 10).double()
    expected = (matched * weight[None, ..., None, None]).sum(1) / weight.sum(0)[None, :, None, None]
    torch.testing.assert_close(answers["matching_means"], expected, rtol=1e-14, atol=0)
    closed = solve_samples(problem, open_gap=0.0, weigh=weigh, **given)
    assert closed["matching_means"].eq(0).all(), "no sample has any weight"


def test_problems_without_an_answer_have_no_weight(make_problem: Callable):
    problem = make_problem("lawler", 10, batch=3)
    problem.unary_costs[1, 0] = math.inf
    problem.quadratic_costs[2, 0, 0] = math.nan
    answers = solve_samples(problem, samples=3)
    for index, status in enumerate([gm.Status.OPTIMAL, gm.Status.INFEASIBLE, gm.Status.INVALID]):
        assert answers["status"][..., index].eq(status).all()
        assert answers["center_status"][index] == status
    assert answers["matching_means"].flatten(2).sum(2).tolist() == [[4.0, 0.0, 0.0]]
    assert answers["assignment"].unflatten(0, (3, 3))[:, 1:].eq(-1).all()
    assert answers["objective"][..., 1].eq(math.inf).all()
    assert answers["objective"][..., 2].isnan().all()
    # A step that is no number spoils its own variants only.
    step = torch.full_like(problem.quadratic_costs, math.nan)
    step[0] = 0.0
    mixed = solve_samples(problem, quadratic_step=step, signs=[1.0])
    assert mixed["status"][0, 0].tolist() == [gm.Status.OPTIMAL, gm.Status.INVALID, gm.Status.INVALID]


def test_padding_is_inert(make_problem: Callable):
    parts = [make_problem("lawler", n, batch=1, n1=n, n2=n + 1, e1=3 * n, e2=2 * n) for n in (2, 4)]
    stacked = gm.stack_problems(parts)
    steps = steps_of(stacked)
    given = {"signs": [1.0, -1.0], "samples": 4, "noise_kind": _sampling_ops.GAUSSIAN}
    together = solve_samples(stacked, unary_step=steps[0], quadratic_step=steps[1], **given)
    for index, part in enumerate(parts):
        n1, n2 = part.unary_costs.shape[1:]
        e1, e2 = part.quadratic_costs.shape[1:]
        own = {"unary_step": steps[0][index : index + 1, :n1, :n2], "instances": torch.tensor([index])}
        own["quadratic_step"] = steps[1][index : index + 1, :e1, :e2]
        alone = solve_samples(part, **own, **given)
        for name in NAMES[3:7]:
            assert torch.equal(together[name][..., index], alone[name][..., 0]), name
        padded = torch.zeros_like(together["matching_means"][:, index])
        padded[:, :n1, :n2] = alone["matching_means"][:, 0]
        assert torch.equal(together["matching_means"][:, index], padded)
        padded = torch.zeros_like(together["paid_means"][:, index])
        padded[:, :e1, :e2] = alone["paid_means"][:, 0]
        assert torch.equal(together["paid_means"][:, index], padded)


@pytest.mark.parametrize(
    "empty", [{"batch": 0}, {"n1": 0}, {"n2": 0}, {"e1": 0}, {"e2": 0}, {"n1": 0, "n2": 0}], ids=str
)
def test_empty_problems(make_problem: Callable, empty: dict[str, int]):
    problem = make_problem("lawler", 11, **empty)
    batch, n1, n2 = problem.unary_costs.shape
    answers = solve_samples(problem, samples=3, signs=[1.0, -1.0], unary_step=torch.zeros_like(problem.unary_costs))
    assert answers["objective"].shape == (2, 3, batch)
    assert answers["status"].eq(gm.Status.OPTIMAL).all()
    assert answers["matching_means"].shape == (2, batch, n1, n2)
    assert answers["matching_means"].sum().item() == pytest.approx(2 * batch * min(n1, n2))


@pytest.mark.parametrize("none", [{"samples": 0}, {"signs": []}], ids=str)
def test_nothing_to_sample(make_problem: Callable, none: dict):
    answers = solve_samples(make_problem("lawler", 12), **none)
    assert answers["objective"].numel() == 0
    assert answers["matching_means"].sum() == 0
    assert answers["center_status"].tolist() == [gm.Status.OPTIMAL] * 2


def test_a_time_limit_leaves_matchings_with_bounds(make_problem: Callable):
    problem = make_problem("lawler", 13, n1=12, n2=12, e1=40, e2=40)
    answers = solve_samples(problem, budgets=budgets(_ops.PORTFOLIO, 1e-9), time_limit=0.0, threads=2)
    assert answers["status"].le(gm.Status.FEASIBLE).all()
    assert answers["matching_means"].sum((2, 3)).eq(12).all()
    assert (answers["lower_bound"] <= answers["objective"]).all()


@pytest.mark.parametrize("size", [1e-30, 1e-3, 1e30])
def test_noise_of_another_order_than_the_costs(make_problem: Callable, size: float):
    problem = make_problem("lawler", 14)
    answers = solve_samples(problem, noise_scale=size, samples=8)
    noisy = copies(problem, (None, None), 0.0, 8, scale=size)
    best = gm.solve(noisy, gm.BruteForce()).objective
    torch.testing.assert_close(answers["objective"].flatten(), best, rtol=1e-12, atol=0)
    assert answers["status"].eq(gm.Status.OPTIMAL).all()


def operator_calls(make_problem: Callable) -> dict[str, tuple]:
    full = make_problem("lawler", 0, dtype=torch.float32)
    ragged = gm.stack_problems([make_problem("lawler", n, batch=1, n1=n, n2=n + 1, unmatched_cost=0.1) for n in (2, 4)])
    unary_step, quadratic_step = steps_of(ragged)
    moved = {"unary_step": unary_step, "quadratic_step": quadratic_step, "signs": [1.0, -1.0]}
    return {
        "lawler": sample_arguments(full),
        "lawler, steps and a state": sample_arguments(
            ragged, **moved, state=state_of(solve_samples(ragged)), keep_assignments=False
        ),
        "lawler, no duals": sample_arguments(ragged, keep_state=False, keep_assignments=False),
    }


@pytest.mark.parametrize("name", ["lawler", "lawler, steps and a state", "lawler, no duals"])
def test_operators_pass_the_checks_of_torch(make_problem: Callable, name: str):
    arguments = operator_calls(make_problem)[name]
    checked = torch.library.opcheck(_sampling_ops.lawler_samples, arguments)
    assert set(checked.values()) == {"SUCCESS"}
    real = _sampling_ops.lawler_samples(*arguments)
    with FakeTensorMode() as mode:
        moved = [mode.from_tensor(each) if isinstance(each, Tensor) else each for each in arguments]
        fake = _sampling_ops.lawler_samples(*moved)
    for a, b in zip(real, fake, strict=True):
        assert (a.shape, a.dtype, a.device) == (b.shape, b.dtype, b.device)
