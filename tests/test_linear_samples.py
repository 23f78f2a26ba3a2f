"""The native operator that solves noisy copies of linear problems: the answers of each copy by itself, their means."""

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
from graphmatch.noise import gumbel_noise

SEED, KEY = 5, 11


def step_of(problem: gm.LinearProblem) -> Tensor:
    """A random change of the costs."""
    generator = torch.Generator().manual_seed(0)
    shape, dtype = problem.costs.shape, problem.costs.dtype
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def linear_arguments(problem: gm.LinearProblem, **options: object) -> tuple:
    batch = problem.costs.shape[0]
    chosen = {
        "unary_step": None,
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
        "threads": 1,
        "matching": None,
        "row_duals": None,
    }
    assert chosen.keys() >= options.keys()
    return (problem.costs, problem.sizes, problem.unmatched_cost, *(chosen | options).values())


ANSWERS = ["assignment", "objective", "lower_bound", "status", "iterations"]
NAMES = ["matching_means", *ANSWERS, *(f"center_{name}" for name in ANSWERS), "row_duals", "column_duals"]


def solve_linear(problem: gm.LinearProblem, **options: object) -> dict[str, Tensor]:
    answers = _sampling_ops.linear_samples(*linear_arguments(problem, **options))
    return dict(zip(NAMES, answers, strict=True))


CASES = {
    "complete": {},
    "partial": {"unmatched_cost": 0.3},
    "wide": {"n1": 3, "n2": 5},
    "tall": {"n1": 5, "n2": 3},
    "forbidden": {"forbidden": 0.2, "unmatched_cost": 0.0},
    "float32": {"dtype": torch.float32},
}


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_linear_samples_are_the_optima_of_the_noisy_copies(make_problem: Callable, case: str, warm: bool):
    problem = make_problem("linear", 3, batch=3, **CASES[case])
    step = step_of(problem)
    signs, samples = [1.0, -0.5], 7
    given = {"unary_step": step, "signs": signs, "samples": samples}
    answers = solve_linear(problem, **given)
    expected = _ops.linear_assignment(problem.costs, problem.sizes, problem.unmatched_cost, 1)
    for name, value in zip(NAMES[6:], [*expected[:5], *expected[6:]], strict=True):
        assert torch.equal(answers[name], value), name
    if warm:
        state = {"matching": answers["center_assignment"], "row_duals": answers["row_duals"]}
        first, answers = answers, solve_linear(problem, **given, **state)
        for name in NAMES[:6]:
            assert torch.equal(first[name], answers[name]), name
        assert {answers[name].shape[0] for name in NAMES[6:]} == {0}
    noise = gumbel_noise(samples, problem.costs, SEED, torch.tensor(KEY)).float().to(problem.costs.dtype)
    for variant, sign in enumerate(signs):
        noisy = replace(problem, costs=((problem.costs - 0.7 * noise) + sign * step).flatten(0, 1))
        best = gm.solve(noisy, gm.BruteForce())
        torch.testing.assert_close(answers["objective"][variant].flatten(), best.objective, rtol=1e-12, atol=1e-12)
        found = replace(best, assignment=answers["assignment"].unflatten(0, (2, samples * 3))[variant])
        mean = found.matching.unflatten(0, (samples, 3)).double().mean(0)
        assert torch.equal(answers["matching_means"][variant], mean.to(problem.costs.dtype))
        assert answers["status"][variant].eq(gm.Status.OPTIMAL).all()
        gap = answers["objective"][variant] - answers["lower_bound"][variant]
        assert ((gap >= 0) & (gap < 1e-5)).all()


def test_linear_samples_depend_on_nothing_but_their_own(make_problem: Callable):
    problem = make_problem("linear", 4, batch=3, n1=9, n2=9)
    given = {"unary_step": step_of(problem), "signs": [1.0, -1.0], "samples": 13}
    whole = solve_linear(problem, **given)
    for threads in (2, 8):
        again = solve_linear(problem, threads=threads, **given)
        assert all(torch.equal(whole[name], again[name]) for name in NAMES)
    fewer = solve_linear(problem, **{**given, "samples": 4})
    assert torch.equal(whole["objective"][:, :4], fewer["objective"])
    last = {"unary_step": given["unary_step"][2:], "keys": torch.tensor([KEY]), "instances": torch.tensor([2])}
    alone = solve_linear(replace(problem, costs=problem.costs[2:]), **{**given, **last})
    assert torch.equal(whole["matching_means"][:, 2:], alone["matching_means"])
    none = solve_linear(problem, **{**given, "keep_assignments": False})
    assert none["assignment"].shape == (0, 9)
    assert torch.equal(none["matching_means"], whole["matching_means"])


def test_linear_problems_without_an_answer_have_no_weight(make_problem: Callable):
    problem = make_problem("linear", 5, batch=3)
    problem.costs[1, 0] = math.inf
    problem.costs[2, 0, 0] = math.nan
    answers = solve_linear(problem)
    expected = [gm.Status.OPTIMAL, gm.Status.INFEASIBLE, gm.Status.INVALID]
    assert answers["status"][0].tolist() == [expected] * 5
    assert answers["matching_means"].flatten(2).sum(2).tolist() == [[4.0, 0.0, 0.0]]
    assert answers["row_duals"][1:].eq(0).all()


def test_linear_padding_is_inert(make_problem: Callable):
    parts = [make_problem("linear", n, batch=1, n1=n, n2=n + 1, unmatched_cost=0.1) for n in (0, 2, 4)]
    together = solve_linear(gm.stack_problems(parts), samples=6)
    for index, part in enumerate(parts):
        n1, n2 = part.costs.shape[1:]
        alone = solve_linear(part, samples=6, instances=torch.tensor([index]))
        padded = torch.zeros_like(together["matching_means"][:, index])
        padded[:, :n1, :n2] = alone["matching_means"][:, 0]
        assert torch.equal(together["matching_means"][:, index], padded)
        assert torch.equal(together["objective"][..., index], alone["objective"][..., 0])


@pytest.mark.parametrize("warm", [False, True])
def test_the_operator_passes_the_checks_of_torch(make_problem: Callable, warm: bool):
    parts = [make_problem("linear", n, batch=1, n1=n, n2=n, unmatched_cost=0.1) for n in (2, 4)]
    problem = gm.stack_problems(parts)
    given = {"unary_step": step_of(problem), "signs": [1.0, -1.0], "keep_assignments": not warm}
    if warm:
        known = solve_linear(problem)
        given |= {"matching": known["center_assignment"], "row_duals": known["row_duals"]}
    arguments = linear_arguments(problem, **given)
    assert set(torch.library.opcheck(_sampling_ops.linear_samples, arguments).values()) == {"SUCCESS"}
    real = _sampling_ops.linear_samples(*arguments)
    with FakeTensorMode() as mode:
        moved = [mode.from_tensor(each) if isinstance(each, Tensor) else each for each in arguments]
        fake = _sampling_ops.linear_samples(*moved)
    for a, b in zip(real, fake, strict=True):
        assert (a.shape, a.dtype, a.device) == (b.shape, b.dtype, b.device)
