"""Entropic linear assignment in the log domain, and its gradient. Batched; runs on any device.

With costs C (n1, n2), temperature t and h(p) = p (log p - 1), summed over all entries of a matrix or vector, the plan P
is the minimiser of a strictly convex problem over P, r, s >= 0, where r (n1) and s (n2) hold what stays unmatched:

    complete, n1 <= n2:   <C, P> + t h(P) + t h(s)                     with P 1 = 1,      P' 1 + s = 1
    complete, n1 >= n2:   <C, P> + t h(P) + t h(r)                     with P 1 + r = 1,  P' 1 = 1
    partial:              <C, P> + u sum(r) + t (h(P) + h(r) + h(s))   with P 1 + r = 1,  P' 1 + s = 1

(u = unmatched_cost; for n1 = n2 there is no slack.) The unmatched masses are one more row and one more column of the
costs, so that every case is P = exp((f_i + g_k - C_ik) / t) with one potential per row and column. The slack row of a
complete problem has the mass n2 - n1, and a potential as any other; in a partial problem the masses of both slacks are
free, and their potentials are zero.

Sinkhorn's iteration sets the potentials of all rows, then of all columns, to what makes their sums right. It converges
linearly, at low temperatures very slowly. So it begins at a higher temperature that falls geometrically, and every
tenth iteration is followed by a Newton step on the dual, solved by conjugate gradients, if that raises the dual
objective. "unrolled" differentiates the plain iteration, without either.

Sources: M. Cuturi, "Sinkhorn distances", NeurIPS 2013; B. Schmitzer, "Stabilized sparse scaling algorithms for entropy
regularized transport problems", SIAM J. Sci. Comput. 41 (2019), for the log domain and the falling temperature;
C. Brauer et al., "A Sinkhorn-Newton method for entropic optimal transport", 2017, for the Newton step; G. Luise et al.,
"Differential properties of Sinkhorn approximation for learning with Wasserstein distance", NeurIPS 2018, for the
implicit gradient.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from graphmatch import _check

Gradient = Literal["implicit", "unrolled"]

# Exponents of forbidden entries, and the least of all others: finite, so no gradient is inf - inf, and so far apart
# that no potential of allowed entries makes up for a forbidden one.
_FORBIDDEN, _LEAST = -1e30, -1e20
# Iterations between two looks at the convergence: each makes the host wait for the device.
_CHECK_EVERY = 10
_COPIES = 8  # of the costs, that an iteration needs at once
# Factor on the temperature per iteration while it falls.
_COOLING = 0.9
# Conjugate gradients per Newton step, and the largest changes of a potential that it tries, in temperatures.
_NEWTON_ITERATIONS = 60
_STEP_LENGTHS = (1.0, 30.0, 1000.0)


@dataclass(frozen=True, eq=False)
class Plan:
    """The entropic optimum of a batch, as far as the iteration got.

    Attributes:
        matching: (b, n1, n2), entries in [0, 1]; zero where forbidden and in padding.
        unmatched1: (b, n1) mass of each node of graph 1 that stays unmatched.
        unmatched2: (b, n2) mass of each node of graph 2 that stays unmatched.
        potentials1: (b, n1) f, in the units of the costs, moved so that the potentials of the slacks are zero.
        potentials2: (b, n2) g, likewise.
        error: (b,) largest violation of a marginal, relative to it.
        iterations: (b,) int64.
    """

    matching: Tensor
    unmatched1: Tensor
    unmatched2: Tensor
    potentials1: Tensor
    potentials2: Tensor
    error: Tensor
    iterations: Tensor


@dataclass(frozen=True, eq=False)
class _Augmented:
    """A batch with its slacks: exponents (b, n1 + 1, n2 + 1) at zero potentials, and the marginals.

    Rows and columns without any allowed entry (padding, slacks without mass) are not alive: their potentials stay zero.
    """

    exponents: Tensor
    allowed: Tensor
    log_mass1: Tensor
    log_mass2: Tensor
    alive1: Tensor
    alive2: Tensor
    # What was taken off the costs, in their units: potentials count from here.
    base1: Tensor
    base2: Tensor


def entropic_plan(
    costs: Tensor,
    counts: tuple[Tensor, Tensor],
    unmatched_cost: float | None,
    temperature: float,
    max_iterations: int,
    tolerance: float,
    gradient: Gradient,
) -> Plan:
    """Returns the entropic optimum; its masses are differentiable with respect to the costs.

    Args:
        costs: (b, n1, n2) float32 or float64; +inf forbids.
        counts: Real n1 and n2 of each problem, (b,) int64 each.
        unmatched_cost: None = complete, a number = partial.
        temperature: Positive, in units of the costs.
        max_iterations: Limit; every tenth iteration looks at the convergence of the whole batch.
        tolerance: Problems whose marginals are violated by no more (relative) are done, and no longer change.
        gradient: "implicit" differentiates the fixed point, "unrolled" the iterations.
    """
    unrolled = gradient == "unrolled" and torch.is_grad_enabled() and costs.requires_grad
    bytes_needed = _COPIES * costs.numel() * costs.element_size()
    _check.memory("Sinkhorn", bytes_needed, "Use fewer nodes, problems or samples.", costs.device)
    problem = _augment(costs if unrolled else costs.detach(), counts, unmatched_cost, temperature)
    partial = unmatched_cost is not None
    with torch.set_grad_enabled(unrolled):
        first, second, error, iterations = _iterate(
            problem, partial, max_iterations, tolerance, accelerated=not unrolled
        )
    if unrolled or not costs.requires_grad:
        plan = _plan(problem, second)
    else:
        # The gradient is blind to what the reduction took off: it would have cancelled.
        tracked = -(_with_slacks(costs, unmatched_cost) / temperature)
        plan = _ImplicitPlan.apply(tracked, problem.allowed, _plan(problem, second), partial)
    n1, n2 = costs.shape[1:]
    absolute1 = (problem.base1 + temperature * first).detach()
    absolute2 = (problem.base2 + temperature * second).detach()
    # f and g may be moved against each other; only one slack of a complete problem has a potential.
    slack = absolute2[:, n2:] - absolute1[:, n1:]
    return Plan(
        plan[:, :n1, :n2],
        plan[:, :n1, n2],
        plan[:, n1, :n2],
        absolute1[:, :n1] + slack,
        absolute2[:, :n2] - slack,
        error.detach(),
        iterations,
    )


def transport_plan(
    exponents: Tensor, mass1: Tensor, mass2: Tensor, potentials2: Tensor, max_iterations: int, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Returns the matrices exp(E_ik + f_i + g_k) with given sums of rows and columns, and the potentials g.

    Without a falling temperature: a start close to the solution pays.

    Args:
        exponents: (b, n1, n2), finite.
        mass1: (b, n1), sums of the rows; zero = padding.
        mass2: (b, n2), sums of the columns, in total as much.
        potentials2: (b, n2), g to start from, zeros if nothing is known.
        max_iterations: Limit; every tenth iteration looks at the convergence of the whole batch.
        tolerance: Largest relative violation of a sum, rounding errors permitting.
    """
    alive1, alive2 = mass1 > 0, mass2 > 0
    allowed = alive1[:, :, None] & alive2[:, None, :]
    # Potentials count from zero: nothing was taken off.
    nothing1, nothing2 = torch.zeros_like(mass1), torch.zeros_like(mass2)
    exponents = exponents.masked_fill(~allowed, _FORBIDDEN)
    log_mass1, log_mass2 = (torch.where(mass > 0, mass, 1.0).log() for mass in (mass1, mass2))
    problem = _Augmented(exponents, allowed, log_mass1, log_mass2, alive1, alive2, nothing1, nothing2)
    transposed = exponents.mT.contiguous()
    first, second = nothing1, potentials2
    floor = 16 * torch.finfo(exponents.dtype).eps
    for iteration in range(1, max_iterations + 1):
        previous, first = first, _balanced(exponents, second, problem.log_mass1, alive1, None)
        second = _balanced(transposed, first, problem.log_mass2, alive2, None)
        if iteration % _CHECK_EVERY == 0 and iteration < max_iterations:
            limit = (floor * (1 + first.abs().amax(1))).clamp(min=tolerance)
            if bool(((first - previous).abs().amax(1) <= limit).all()):
                break
            second = _newton(problem, False, second)
    return _plan(problem, second), second


def _with_slacks(costs: Tensor, unmatched_cost: float | None) -> Tensor:
    """Returns costs (b, n1 + 1, n2 + 1): the last column leaves a node of graph 1 unmatched, the last row one of 2."""
    padded = torch.nn.functional.pad(costs, (0, 1, 0, 1))
    if unmatched_cost:
        slack = padded.new_zeros(padded.shape[1:])
        slack[:-1, -1] = unmatched_cost
        padded = padded + slack
    return padded


def _augment(
    costs: Tensor, counts: tuple[Tensor, Tensor], unmatched_cost: float | None, temperature: float
) -> _Augmented:
    n1, n2 = costs.shape[1:]
    count1, count2 = (count[:, None] for count in counts)
    nodes1, nodes2 = (torch.arange(n + 1, device=costs.device) for n in (n1, n2))
    if unmatched_cost is None:
        slack1, slack2 = (count2 - count1).clamp(min=0), (count1 - count2).clamp(min=0)
    else:
        slack1 = slack2 = torch.ones_like(count1)  # free: any positive number
    mass1 = torch.where(nodes1 < n1, (nodes1 < count1).long(), slack1)
    mass2 = torch.where(nodes2 < n2, (nodes2 < count2).long(), slack2)
    corner = (nodes1[:, None] == n1) & (nodes2 == n2)
    augmented = _with_slacks(costs, unmatched_cost)
    allowed = (mass1[:, :, None] > 0) & (mass2[:, None, :] > 0) & ~corner & (augmented != torch.inf)
    pinned1, pinned2 = ((nodes == n) & (unmatched_cost is not None) for nodes, n in ((nodes1, n1), (nodes2, n2)))
    # Each row, then each column, is reduced by its least entry: exponents of any costs then begin at zero.
    reduced = torch.where(allowed, augmented, torch.inf)
    base1 = _finite(reduced.amin(2)).masked_fill(pinned1, 0)
    reduced = reduced - base1[:, :, None]
    base2 = _finite(reduced.amin(1)).masked_fill(pinned2, 0)
    reduced = torch.where(allowed, reduced - base2[:, None, :], 0)
    exponents = (-(reduced / temperature)).clamp(min=_LEAST).masked_fill(~allowed, _FORBIDDEN)
    return _Augmented(
        exponents,
        allowed,
        mass1.clamp(min=1).to(costs.dtype).log(),
        mass2.clamp(min=1).to(costs.dtype).log(),
        allowed.any(2) & ~pinned1,
        allowed.any(1) & ~pinned2,
        base1,
        base2,
    )


def _finite(values: Tensor) -> Tensor:
    return torch.where(values == torch.inf, 0, values)


def _iterate(
    problem: _Augmented, partial: bool, max_iterations: int, tolerance: float, accelerated: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns the potentials in units of the temperature, the violation of the marginals, and the iterations taken."""
    exponents = problem.exponents
    # Reductions along rows of memory are the fast ones, and their order does not depend on the batch.
    transposed = exponents.transpose(1, 2).contiguous()
    batch = exponents.shape[0]
    first, second = torch.zeros_like(problem.log_mass1), torch.zeros_like(problem.log_mass2)
    error = torch.full((batch,), torch.inf, dtype=exponents.dtype, device=exponents.device)
    iterations = torch.zeros(batch, dtype=torch.int64, device=exponents.device)
    running = torch.ones(batch, dtype=torch.bool, device=exponents.device)
    cooling = _cooling(problem, max_iterations) if accelerated else iter(())
    ratio: Tensor | None = None
    for iteration in range(max_iterations):
        ratio = next(cooling, None)
        new_first = _balanced(exponents, second, problem.log_mass1, problem.alive1, ratio)
        new_second = _balanced(transposed, new_first, problem.log_mass2, problem.alive2, ratio)
        moved = (new_first - first).detach().abs().amax(1)
        first = torch.where(running[:, None], new_first, first)
        second = torch.where(running[:, None], new_second, second)
        error = torch.where(running, moved, error)
        iterations = iterations + running
        if iteration % _CHECK_EVERY == _CHECK_EVERY - 1 and iteration < max_iterations - 1:
            # Below some rounding errors of the potentials there is nothing to gain.
            floor = 16 * torch.finfo(exponents.dtype).eps * (1 + first.detach().abs().amax(1))
            warm = ~running if ratio is None else (ratio < 1).flatten()
            running = running & (warm | (error > floor.clamp(min=tolerance)))
            if not bool(running.any()):
                break
            if accelerated:
                second = torch.where((running & ~warm)[:, None], _newton(problem, partial, second), second)
    # Rows last: their sums are exact, those of the columns as good as the tolerance.
    first = _balanced(exponents, second, problem.log_mass1, problem.alive1, None)
    return first, second, error, iterations


def _newton(problem: _Augmented, partial: bool, second: Tensor) -> Tensor:
    """Returns column potentials of a higher dual objective, or those given, by one truncated Newton step.

    The dual objective as a function of the column potentials alone, the rows balanced, has the gradient (masses - sums
    of the columns) and the Hessian -(D2 - P' D1^-1 P).
    """
    mass1 = torch.where(problem.alive1, problem.log_mass1.exp(), 0)
    mass2 = torch.where(problem.alive2, problem.log_mass2.exp(), 0)

    def dual(potentials: Tensor) -> tuple[Tensor, Tensor]:
        rows = _balanced(problem.exponents, potentials, problem.log_mass1, problem.alive1, None)
        plan = _plan(problem, potentials)
        value = (mass1 * rows).sum(1) + (mass2 * potentials).sum(1)
        return plan, value - plan[:, -1].sum(1) if partial else value

    plan, value = dual(second)
    best = second
    roots1 = torch.where(mass1 > 0, mass1, torch.inf).rsqrt()
    sums2 = torch.where(problem.alive2, plan.sum(1), 0)
    roots2 = torch.where(sums2 > 0, sums2, torch.inf).rsqrt()
    scaled = plan * roots1[:, :, None] * roots2[:, None, :]
    right = roots2 * (mass2 - sums2)
    limit = 0.01 * right.norm(dim=1, keepdim=True)
    step = roots2 * _conjugate_gradients(scaled, right, limit, min(_NEWTON_ITERATIONS, min(plan.shape[1:]) + 5))
    longest = step.abs().amax(1, keepdim=True)
    for length in _STEP_LENGTHS:
        moved = second + step * (length / longest.clamp(min=length))
        moved_value = dual(moved)[1]
        better = moved_value > value
        best = torch.where(better[:, None], moved, best)
        value = torch.where(better, moved_value, value)
    return best


def _cooling(problem: _Augmented, max_iterations: int) -> Iterator[Tensor]:
    """Yields (b, 1, 1) temperature / raised temperature of each iteration, rising to 1 in half of the iterations."""
    # The mean of logarithms is a typical size that no single huge cost decides.
    sizes = torch.where(problem.allowed, -problem.exponents, 0).log1p().sum((1, 2), keepdim=True)
    level = -sizes / problem.allowed.sum((1, 2), keepdim=True).clamp(min=1)
    steps = max_iterations // 2
    slope = (-level / max(steps, 1)).clamp(min=-math.log(_COOLING))
    for step in range(steps):
        yield (level + slope * step).clamp(max=0).exp()


def _balanced(exponents: Tensor, other: Tensor, log_mass: Tensor, alive: Tensor, ratio: Tensor | None) -> Tensor:
    """Returns the potentials (b, n) of the rows that give each of them its mass, at the raised temperature if any."""
    if ratio is None:
        sums = (exponents + other[:, None, :]).logsumexp(2)
        return torch.where(alive, log_mass - sums, 0)
    sums = ((exponents + other[:, None, :]) * ratio).logsumexp(2)
    return torch.where(alive, (log_mass - sums) / ratio[:, :, 0], 0)


def _plan(problem: _Augmented, second: Tensor) -> Tensor:
    """Returns exp(exponents + potentials) with the rows balanced: exact sums even where potentials are huge."""
    logarithms = problem.exponents + second[:, None, :]
    balanced = logarithms.softmax(2) * problem.log_mass1.exp()[:, :, None]
    # The potential of the slack of a partial problem is zero. Only while its column sum is far off it may be large.
    free = logarithms.clamp(max=60).exp()
    return torch.where(problem.allowed, torch.where(problem.alive1[:, :, None], balanced, free), 0)


class _ImplicitPlan(torch.autograd.Function):
    """The plan as a function of its exponents, by the implicit function theorem on the marginals.

    d P = P o (d E + d F 1' + 1 d G') keeps every row and column sum. The adjoint potentials (l, m) therefore solve
    [diag(P 1), P; P', diag(P' 1)] (l, m) = ((P o U) 1, (P o U)' 1) for the upstream gradient U, and the gradient is
    P o (U - l 1' - 1 m'). Memory: one plan, whatever the number of iterations.
    """

    @staticmethod
    def forward(ctx: Any, exponents: Tensor, allowed: Tensor, plan: Tensor, partial: bool) -> Tensor:
        ctx.save_for_backward(plan)
        ctx.partial = partial
        return plan.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        (plan,) = ctx.saved_tensors
        return _exponents_gradient(plan, upstream, ctx.partial), None, None, None


def costs_gradient(plan: Plan, upstream: Tensor, unmatched_cost: float | None, temperature: float) -> Tensor:
    """Returns the gradient in the costs (b, n1, n2) of <upstream, plan.matching>: that of "implicit", by hand.

    Args:
        plan: Of `entropic_plan`.
        upstream: (b, n1, n2).
        unmatched_cost: As for the plan.
        temperature: As for the plan.
    """
    slack1 = torch.nn.functional.pad(plan.unmatched1, (0, 1))
    whole = torch.cat([torch.cat([plan.matching, plan.unmatched2[:, None, :]], 1), slack1[:, :, None]], 2)
    padded = torch.nn.functional.pad(upstream, (0, 1, 0, 1))
    return -_exponents_gradient(whole, padded, unmatched_cost is not None)[:, :-1, :-1] / temperature


def _exponents_gradient(plan: Tensor, upstream: Tensor, partial: bool) -> Tensor:
    """Returns the gradient of `_ImplicitPlan` in the exponents of a plan with its slacks."""
    weighted = plan * upstream
    right1, right2 = weighted.sum(2), weighted.sum(1)
    sums1, sums2 = plan.sum(2), plan.sum(1)
    if partial:  # the slacks' potentials are constants
        sums1[:, -1] = sums2[:, -1] = right1[:, -1] = right2[:, -1] = 0
    adjoint1, adjoint2 = _adjoint_potentials(plan, sums1, sums2, right1, right2)
    return weighted - plan * (adjoint1[:, :, None] + adjoint2[:, None, :])


def _adjoint_potentials(
    plan: Tensor, sums1: Tensor, sums2: Tensor, right1: Tensor, right2: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns (l, m) of `_ImplicitPlan`; zero sums leave a potential out.

    With rows eliminated and both sides scaled by the roots of the sums, the matrix is I - A'A, A = D1^-1/2 P D2^-1/2:
    positive semidefinite, eigenvalues in [0, 1]. Its null space (constants added to rows and taken off columns) does
    not reach the gradient.
    """
    roots1, roots2 = (torch.where(sums > 0, sums, torch.inf).rsqrt() for sums in (sums1, sums2))
    scaled = plan * roots1[:, :, None] * roots2[:, None, :]
    right1, right2 = roots1 * right1, roots2 * right2
    size = (right1.square().sum(1, keepdim=True) + right2.square().sum(1, keepdim=True)).sqrt()
    # Exact arithmetic would need min(n1, n2) + 1 iterations.
    limit = 4 * torch.finfo(plan.dtype).eps * size
    iterations = 3 * min(plan.shape[1:]) + 10
    solution = _conjugate_gradients(scaled, right2 - (right1[:, None, :] @ scaled)[:, 0], limit, iterations)
    adjoint1 = roots1 * (right1 - (scaled @ solution[:, :, None])[:, :, 0])
    return adjoint1, roots2 * solution


def _conjugate_gradients(scaled: Tensor, right: Tensor, limit: Tensor, max_iterations: int) -> Tensor:
    """Returns x (b, n2) with (I - A'A) x = right for A (b, n1, n2), up to residuals of norm `limit` (b, 1)."""
    residual = direction = right
    solution = torch.zeros_like(right)
    squared = right.square().sum(1, keepdim=True)
    for iteration in range(max_iterations):
        going = squared > limit.square()
        if iteration % _CHECK_EVERY == 0 and not bool(going.any()):
            break
        product = direction - ((scaled @ direction[:, :, None]).mT @ scaled)[:, 0]
        curvature = (direction * product).sum(1, keepdim=True)
        going = going & (curvature > 0)
        step = torch.where(going, squared / curvature, 0)
        solution = solution + step * direction
        residual = residual - step * product
        previous, squared = squared, residual.square().sum(1, keepdim=True)
        direction = torch.where(going, residual + squared / previous * direction, direction)
    return solution
