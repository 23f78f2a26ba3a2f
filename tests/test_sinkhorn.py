"""Soft linear assignment: that it solves the stated problem, its limits, its gradients."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import optimize
from torch import Tensor

import graphmatch as gm
from graphmatch import sinkhorn

Make = Callable[..., gm.Problem]
SHAPES = [(3, 3), (2, 4), (4, 2)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)
partiality = pytest.mark.parametrize("unmatched_cost", [None, 0.3])


def plan_of(costs: Tensor, temperature: float, unmatched_cost: float | None = None, **options) -> sinkhorn.Plan:
    counts = tuple(torch.full((len(costs),), n) for n in costs.shape[1:])
    arguments = {"max_iterations": 1000, "tolerance": 1e-10, "gradient": "implicit", **options}
    return sinkhorn.entropic_plan(costs, counts, unmatched_cost, temperature, **arguments)


def primal(costs: np.ndarray, temperature: float, unmatched_cost: float | None) -> np.ndarray:
    """The minimiser of the stated problem by a general method: the flat plan."""
    n1, n2 = costs.shape
    slack1 = n1 if unmatched_cost is not None or n1 > n2 else 0
    slack2 = n2 if unmatched_cost is not None or n1 < n2 else 0
    linear = np.concatenate([costs.ravel(), np.full(slack1, unmatched_cost or 0.0), np.zeros(slack2)])
    sums = np.zeros((n1 + n2, len(linear)))
    for i, k in itertools.product(range(n1), range(n2)):
        sums[i, i * n2 + k] = sums[n1 + k, i * n2 + k] = 1
    sums[:slack1, n1 * n2 : n1 * n2 + slack1] = np.eye(slack1)
    sums[n1 : n1 + slack2, n1 * n2 + slack1 :] = np.eye(slack2)
    rank = np.linalg.matrix_rank(sums)  # a square problem has one equation too many
    answer = optimize.minimize(
        lambda p: linear @ p + temperature * (p * (np.log(p) - 1)).sum(),
        np.full(len(linear), 1 / (max(n1, n2) + 1)),
        jac=lambda p: linear + temperature * np.log(p),
        hess=lambda p: np.diag(temperature / p),
        bounds=optimize.Bounds(1e-12, 1, keep_feasible=True),
        constraints=optimize.LinearConstraint(sums[:rank], 1, 1),
        method="trust-constr",
        options={"gtol": 1e-10, "xtol": 1e-12, "barrier_tol": 1e-10, "maxiter": 2000},
    )
    return answer.x[: n1 * n2].reshape(n1, n2)


@shapes
@partiality
def test_the_plan_minimises_the_stated_problem(shape: tuple[int, int], unmatched_cost: float | None, rng):
    costs = torch.randn(1, *shape, generator=rng, dtype=torch.float64)
    plan = plan_of(costs, 0.5, unmatched_cost).matching[0].numpy()
    np.testing.assert_allclose(plan, primal(costs[0].numpy(), 0.5, unmatched_cost), atol=1e-5)


@pytest.mark.parametrize("shape", [*SHAPES, (20, 20), (15, 30), (30, 15)], ids=str)
@partiality
@pytest.mark.parametrize("temperature", [1.0, 0.1, 0.01, 0.001])
def test_marginals(shape: tuple[int, int], unmatched_cost: float | None, temperature: float, rng):
    costs = torch.rand(3, *shape, generator=rng, dtype=torch.float64)
    plan = plan_of(costs, temperature, unmatched_cost, tolerance=1e-8)
    n1, n2 = shape
    ones = torch.ones(3, dtype=torch.float64)
    for axis, unmatched, free in ((2, plan.unmatched1, n1 <= n2), (1, plan.unmatched2, n1 >= n2)):
        torch.testing.assert_close(
            plan.matching.sum(axis) + unmatched, ones[:, None].expand_as(unmatched), atol=1e-6, rtol=0
        )
        if free and unmatched_cost is None:
            assert unmatched.eq(0).all()
    assert (plan.error <= 1e-8).all()
    if unmatched_cost is None:
        torch.testing.assert_close(plan.matching.sum((1, 2)), min(shape) * ones, atol=1e-6, rtol=0)


@shapes
@partiality
def test_the_plan_is_the_exponential_of_its_potentials(shape: tuple[int, int], unmatched_cost: float | None, rng):
    costs = torch.randn(2, *shape, generator=rng, dtype=torch.float64)
    plan = plan_of(costs, 0.2, unmatched_cost)
    slack = (plan.potentials1[:, :, None] + plan.potentials2[:, None, :] - costs) / 0.2
    torch.testing.assert_close(plan.matching, slack.exp(), rtol=1e-6, atol=1e-9)
    if unmatched_cost is not None:
        torch.testing.assert_close(plan.unmatched1, ((plan.potentials1 - unmatched_cost) / 0.2).exp())
        torch.testing.assert_close(plan.unmatched2, (plan.potentials2 / 0.2).exp())


@pytest.mark.parametrize("shape", [(8, 8), (6, 9), (9, 6)], ids=str)
@partiality
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_low_temperatures_give_the_cheapest_matching(
    shape: tuple[int, int], unmatched_cost: float | None, dtype: torch.dtype, rng
):
    costs = torch.rand(5, *shape, generator=rng, dtype=dtype)
    best = gm.solve(gm.LinearProblem(costs, None, unmatched_cost)).matching
    soft = gm.Sinkhorn(temperature=2e-5)(costs, unmatched_cost=unmatched_cost)
    assert soft.dtype == dtype
    torch.testing.assert_close(soft, best, atol=0.01, rtol=0)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_high_temperatures_give_the_uniform_plan(shape: tuple[int, int], rng):
    costs = torch.randn(2, *shape, generator=rng, dtype=torch.float64)
    uniform = torch.full_like(costs, 1 / max(shape))
    torch.testing.assert_close(gm.Sinkhorn(temperature=1e8)(costs), uniform, atol=1e-7, rtol=0)


@pytest.mark.parametrize("temperature", [1e-30, 1e-3, 1e30])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_temperature_and_size_of_costs_gives_finite_plans_and_gradients(
    temperature: float, scale: float, dtype: torch.dtype, rng
):
    costs = (scale * torch.randn(2, 5, 5, generator=rng, dtype=dtype)).requires_grad_()
    matching = gm.Sinkhorn(temperature=temperature, max_iterations=100)(costs)
    assert matching.isfinite().all()
    torch.testing.assert_close(matching.sum(2), torch.ones(2, 5, dtype=dtype), atol=1e-3, rtol=0)
    if temperature > 1e-6 * scale:
        matching[:, 0, 0].sum().backward()
        assert costs.grad.isfinite().all()


@partiality
def test_forbidden_assignments_have_no_mass_and_the_others_do_not_see_them(unmatched_cost: float | None, rng):
    costs = torch.rand(1, 4, 4, generator=rng, dtype=torch.float64)
    costs[0, 0, 1:] = costs[0, 1:, 0] = torch.inf
    matching = gm.Sinkhorn(tolerance=1e-12)(costs, unmatched_cost=unmatched_cost)
    assert matching[costs == torch.inf].eq(0).all()
    rest = gm.Sinkhorn(tolerance=1e-12)(costs[:, 1:, 1:], unmatched_cost=unmatched_cost)
    torch.testing.assert_close(matching[:, 1:, 1:], rest)
    if unmatched_cost is None:
        assert matching[0, 0, 0] == pytest.approx(1)


def test_problems_without_a_complete_matching_stay_finite(rng):
    costs = torch.rand(2, 3, 3, generator=rng, dtype=torch.float64)
    costs[0, :2, 1:] = torch.inf
    costs[1, 0] = torch.inf
    costs.requires_grad_()
    for gradient in ("implicit", "unrolled"):
        matching = gm.Sinkhorn(max_iterations=50, gradient=gradient)(costs)
        (grad,) = torch.autograd.grad(matching.square().sum(), costs)
        assert matching.isfinite().all()
        assert grad.isfinite().all()
    assert matching[1, 0].eq(0).all()


@partiality
@pytest.mark.parametrize("garbage", [math.nan, math.inf, -1e30])
@pytest.mark.parametrize("gradient", ["implicit", "unrolled"])
def test_padding_is_inert(unmatched_cost: float | None, garbage: float, gradient: str, rng):
    sizes = torch.tensor([[3, 4], [4, 4], [4, 2], [1, 1], [0, 3], [2, 0]])
    costs = torch.full((6, 5, 6), garbage, dtype=torch.float64)
    parts = [torch.randn(*size, generator=rng, dtype=torch.float64) for size in sizes.tolist()]
    for place, part in enumerate(parts):
        costs[place, : part.shape[0], : part.shape[1]] = part
    costs.requires_grad_()
    soft = gm.Sinkhorn(temperature=0.3, gradient=gradient, tolerance=1e-12)
    together = soft(costs, sizes, unmatched_cost)
    weights = torch.randn(together.shape, generator=rng, dtype=torch.float64)
    (grads,) = torch.autograd.grad((weights * together).sum(), costs)
    assert together.isfinite().all()
    assert grads.isfinite().all()
    for place, part in enumerate(parts):
        n1, n2 = part.shape
        alone = part[None].clone().requires_grad_()
        matching = soft(alone, unmatched_cost=unmatched_cost)
        (grad,) = torch.autograd.grad((weights[place, :n1, :n2] * matching).sum(), alone)
        torch.testing.assert_close(together[place, :n1, :n2], matching[0])
        torch.testing.assert_close(grads[place, :n1, :n2], grad[0], atol=1e-8, rtol=1e-6)
        assert together[place, n1:].eq(0).all()
        assert together[place, :, n2:].eq(0).all()
        assert grads[place, n1:].eq(0).all()


@partiality
@pytest.mark.parametrize("shape", [(0, 2, 2), (2, 0, 3), (2, 3, 0), (1, 0, 0), (3, 1, 1)], ids=str)
def test_small_sizes(unmatched_cost: float | None, shape: tuple[int, int, int]):
    costs = torch.ones(shape, dtype=torch.float64, requires_grad=True)
    for soft in (gm.Sinkhorn(), gm.Sinkhorn(gradient="unrolled"), gm.GumbelSinkhorn(samples=2)):
        matching = soft(costs, unmatched_cost=unmatched_cost)
        assert matching.shape == shape
        (grad,) = torch.autograd.grad(matching.sum(), costs)
        assert grad.shape == shape
    if shape[1:] == (1, 1) and unmatched_cost is None:
        assert matching.eq(1).all()


@shapes
@partiality
def test_gradients_of_both_kinds(shape: tuple[int, int], unmatched_cost: float | None, rng):
    costs = torch.randn(2, *shape, generator=rng, dtype=torch.float64)
    costs[0, 0, 0] = torch.inf
    finite = costs.isfinite()
    values = costs[finite].requires_grad_()

    def matching(gradient: str, iterations: int) -> Callable[[Tensor], Tensor]:
        soft = gm.Sinkhorn(temperature=0.4, gradient=gradient, tolerance=1e-14, max_iterations=iterations)
        return lambda v: soft(costs.masked_scatter(finite, v), unmatched_cost=unmatched_cost)

    assert torch.autograd.gradcheck(matching("implicit", 1000), values, atol=1e-6)
    # Unrolled, it is the gradient of what was computed, converged or not.
    assert torch.autograd.gradcheck(matching("unrolled", 2), values, atol=1e-6)
    weights = torch.randn(costs.shape, generator=rng, dtype=torch.float64)
    implicit, unrolled = (
        torch.autograd.grad((weights * matching(gradient, 1000)(values)).sum(), values)[0]
        for gradient in ("implicit", "unrolled")
    )
    torch.testing.assert_close(implicit, unrolled, atol=1e-9, rtol=1e-7)


def test_gradients_of_single_precision_and_large_problems(rng):
    costs = torch.rand(2, 40, 50, generator=rng, dtype=torch.float64)
    weights = torch.randn(costs.shape, generator=rng, dtype=torch.float64)
    grads = []
    for dtype in (torch.float64, torch.float32, torch.float16):
        leaf = costs.half().to(dtype).requires_grad_()
        matching = gm.Sinkhorn(temperature=0.02)(leaf)
        assert matching.dtype == dtype
        (matching.double() * weights).sum().backward()
        grads.append(leaf.grad.double())
    torch.testing.assert_close(grads[1], grads[0], atol=1e-2, rtol=1e-2)
    torch.testing.assert_close(grads[2], grads[0], atol=5e-2, rtol=5e-2)


def test_a_constant_on_a_row_changes_nothing_and_has_no_gradient(rng):
    costs = torch.randn(2, 3, 5, generator=rng, dtype=torch.float64, requires_grad=True)
    soft = gm.Sinkhorn(tolerance=1e-12)
    torch.testing.assert_close(soft(costs), soft(costs + torch.tensor([5.0, -2.0, 100.0])[:, None]))
    (grad,) = torch.autograd.grad(soft(costs)[:, 0, 0].sum(), costs)
    assert grad.abs().amax() > 1e-3
    torch.testing.assert_close(grad.sum(2), torch.zeros(2, 3, dtype=torch.float64))


def test_inputs_of_any_layout_stay_as_they_are(rng):
    costs = torch.randn(4, 5, 3, generator=rng, dtype=torch.float64).permute(1, 2, 0)
    before = costs.clone()
    torch.testing.assert_close(gm.Sinkhorn()(costs), gm.Sinkhorn()(costs.contiguous()))
    assert torch.equal(costs, before)


def test_a_batch_is_its_problems_one_by_one(rng):
    easy = torch.randn(1, 6, 6, generator=rng, dtype=torch.float64)
    costs = torch.cat([easy, 100 * easy, 0 * easy])
    soft = gm.Sinkhorn(temperature=0.05)
    together = soft(costs)
    for place in range(3):
        torch.testing.assert_close(soft(costs[place : place + 1])[0], together[place], atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("temperature", [0.3, 0.01])
def test_the_bound_of_the_solver_is_close_at_low_temperatures(make_problem: Make, temperature: float):
    for unmatched_cost in (None, 0.1):
        for n1, n2 in ((6, 6), (5, 8), (8, 5)):
            problem = make_problem("linear", 0, batch=20, n1=n1, n2=n2, unmatched_cost=unmatched_cost)
            result, best = gm.solve(problem, gm.Sinkhorn(temperature=temperature)), gm.solve(problem)
            assert (result.lower_bound <= best.objective).all()
            assert (best.objective - result.lower_bound <= 2 * temperature * math.log(n1 * n2) * min(n1, n2)).all()
            if temperature == 0.01:
                torch.testing.assert_close(result.objective, best.objective)


def test_closed_gaps_are_called_optimal(make_problem: Make):
    problem = make_problem("linear", 1, batch=20, n1=6, n2=6)
    result = gm.solve(problem, gm.Sinkhorn(temperature=1e-3, max_gap=1e-2))
    open_gap = result.status == gm.Status.FEASIBLE
    assert result.statuses.count(gm.Status.OPTIMAL) > 10
    assert (result.gap[open_gap] > 1e-2).all()
    hot = gm.solve(problem, gm.Sinkhorn(temperature=10.0))
    assert torch.equal(hot.status == gm.Status.OPTIMAL, hot.objective - hot.lower_bound <= 1e-6)
    assert hot.statuses.count(gm.Status.FEASIBLE) > 10


def test_noise_depends_on_seed_and_key_alone(rng):
    costs = torch.rand(2, 4, 4, generator=rng)
    sampler = gm.GumbelSinkhorn(samples=3, reduction="none", seed=5)
    samples = sampler(costs, key=7)
    assert samples.shape == (3, 2, 4, 4)
    torch.manual_seed(1)
    assert torch.equal(sampler(costs, key=torch.tensor(7)), samples)
    more = gm.GumbelSinkhorn(samples=6, reduction="none", seed=5)(costs, key=7)
    torch.testing.assert_close(more[:3], samples)
    mean = gm.GumbelSinkhorn(samples=3, seed=5)(costs, key=7)
    torch.testing.assert_close(mean, samples.mean(0))
    for other in (sampler(costs, key=8), gm.GumbelSinkhorn(samples=3, reduction="none", seed=6)(costs, key=7)):
        assert (other - samples).abs().amax() > 0.1
    assert (samples[0, 0] - samples[1, 0]).abs().amax() > 0.01


def test_cold_samples_are_those_of_perturbed_matchings():
    # For two nodes the difference of sums of Gumbel noise decides: its distribution by simulation.
    costs = torch.tensor([[[0.0, 0.7], [0.7, 0.0]]], dtype=torch.float64)
    matching = gm.GumbelSinkhorn(temperature=1e-3, samples=4000)(costs)
    gumbel = np.random.default_rng(0).gumbel(size=(400_000, 4))
    expected = (gumbel[:, 0] + gumbel[:, 1] - gumbel[:, 2] - gumbel[:, 3] > -1.4).mean()
    assert matching[0, 0, 0].item() == pytest.approx(expected, abs=4 * 0.5 / math.sqrt(4000))


def test_gradients_of_samples(rng):
    costs = torch.randn(1, 3, 3, generator=rng, dtype=torch.float64, requires_grad=True)
    sampler = gm.GumbelSinkhorn(temperature=0.5, samples=2, tolerance=1e-14)
    assert torch.autograd.gradcheck(sampler, costs, atol=1e-6)


def test_more_samples_never_make_a_matching_worse(make_problem: Make):
    problem = make_problem("linear", 2, batch=10, n1=7, n2=7)
    few, many = (gm.solve(problem, gm.GumbelSinkhorn(samples=samples)) for samples in (1, 8))
    assert (many.objective <= few.objective).all()
    assert (many.objective < few.objective).any()
    assert (many.lower_bound >= few.lower_bound).all()


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: gm.Sinkhorn(temperature=0.0), "temperature must lie in .1e-30, 1e30.; got 0.0"),
        (lambda: gm.Sinkhorn(max_iterations=0), "max_iterations must be at least 1; got 0"),
        (lambda: gm.Sinkhorn(tolerance=-1.0), "tolerance must"),
        (lambda: gm.Sinkhorn(gradient="exact"), "gradient must be one of"),
        (lambda: gm.GumbelSinkhorn(samples=0), "GumbelSinkhorn: samples must be at least 1; got 0"),
        (lambda: gm.GumbelSinkhorn(noise_scale=0.0), "noise_scale must"),
        (lambda: gm.GumbelSinkhorn(reduction="sum"), "reduction must"),
        (lambda: gm.Sinkhorn()(torch.zeros(2, 2)), "costs must have shape"),
    ],
)
def test_wrong_arguments_are_named(make: Callable[[], object], argument: str):
    with pytest.raises(ValueError, match=argument):
        make()


def test_quadratic_problems_are_refused(make_problem: Make):
    with pytest.raises(TypeError, match="Sinkhorn: problem must be a LinearProblem"):
        gm.Sinkhorn().solve(make_problem("lawler", 0))
