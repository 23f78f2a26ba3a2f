"""Soft linear assignment by Sinkhorn's iteration, with and without noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from graphmatch import _check, _reference
from graphmatch.noise import gumbel_noise
from graphmatch.problem import LinearProblem, Problem, unchecked
from graphmatch.result import MatchResult, Status
from graphmatch.sinkhorn import Gradient, Plan, entropic_plan
from graphmatch.solvers.base import take_kind
from graphmatch.solvers.call import check_rounding
from graphmatch.solvers.rounding import best_matching, closed, largest_cost, quantised, real_nodes

# Of the spread of the costs, what remains of the potentials that a bound begins with.
_POTENTIAL_BITS = 40


_COPIES = 10  # of all costs, that a solve needs at once


@dataclass(frozen=True)
class Sinkhorn:
    """Entropic linear assignment: a differentiable soft matching when called, a solver of `LinearProblem` in `solve`.

    `Sinkhorn(temperature)(costs)` returns the soft matching P (b, n1, n2): the minimiser of <costs, P> - temperature *
    entropy(P, unmatched masses) where every node of the smaller graph has mass 1 and every node of the larger one at
    most 1; with an `unmatched_cost` every node at most 1. `graphmatch.sinkhorn` states it exactly. It approaches the
    cheapest matching as the temperature falls and the uniform one as it rises. Computed in the log domain in the dtype
    of the costs, half precision in float32; on any device. Where forbidden costs leave no complete matching the
    entries are finite, and the sums are not 1.

    `solve` rounds the soft matching by linear assignment. Guarantee: a valid matching, not the best one: `LAP` is exact
    and faster. The lower bound is the dual value of the potentials, made feasible and evaluated in float64, rounded
    down; it falls short of the optimum by up to temperature * min(n1, n2) * log(n1 n2) or so.

    Cost: O(n1 n2) per iteration, all problems of the batch at once; the host waits for the device once in ten
    iterations to look at the convergence. 10 to 60 iterations for temperatures from 1/100 of the spread of the costs,
    hundreds for 1/1000. Deterministic; the neighbours in a batch change no more than rounding errors.

    Args:
        temperature: In units of the costs.
        max_iterations: Limit of iterations.
        tolerance: Largest relative violation of a sum that counts as converged; rounding errors permitting.
        gradient: "implicit" differentiates the fixed point (memory of one matching; exact when converged), "unrolled"
            the iterations that were made (memory of all of them, plain iterations from zero). Once differentiable or
            twice, respectively.
        max_gap: Gap that counts as optimal in `solve`, relative to |objective| or the largest |cost|.
        on_cpu: Let `solve` copy the soft matching of other devices to the CPU, where it is rounded.

    Source: M. Cuturi, "Sinkhorn distances", NeurIPS 2013; `graphmatch.sinkhorn` names those of the details.

    Example:
        >>> import torch, graphmatch as gm
        >>> costs = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]], requires_grad=True)
        >>> matching = gm.Sinkhorn(temperature=0.5)(costs)
        >>> matching.detach().round(decimals=3)
        tensor([[[0.8810, 0.1190],
                 [0.1190, 0.8810]]])
        >>> matching[0, 0, 0].backward()
        >>> bool(costs.grad[0, 0, 0] < 0)
        True
        >>> gm.solve(gm.LinearProblem(costs), gm.Sinkhorn(temperature=0.1)).assignment
        tensor([[0, 1]])
    """

    temperature: float = 0.1
    max_iterations: int = 1000
    tolerance: float = 1e-6
    gradient: Gradient = "implicit"
    max_gap: float = 1e-6
    on_cpu: bool = False

    def __post_init__(self) -> None:
        """Checks the options."""
        _check.numbers(self)
        where = type(self).__name__
        usable = 1e-30 <= self.temperature <= 1e30  # float32 knows no reciprocals of much smaller numbers
        _check.option(where, "temperature", self.temperature, usable, "lie in [1e-30, 1e30]", "LAP is its limit 0.")
        iterations = self.max_iterations
        _check.option(where, "max_iterations", iterations, iterations >= 1, "be at least 1", "1000 is the default.")
        _check.option(where, "tolerance", self.tolerance, 0 <= self.tolerance < 1, "lie in [0, 1)", "Try 1e-6.")
        _check.option(where, "max_gap", self.max_gap, 0 <= self.max_gap < torch.inf, "be at least 0", "Try 1e-6.")
        if self.gradient not in get_args(Gradient):
            rule = f"be one of {list(get_args(Gradient))}"
            raise ValueError(_check.message(where, "gradient", rule, repr(self.gradient), "Pick one."))

    def __call__(self, costs: Tensor, sizes: Tensor | None = None, unmatched_cost: float | None = None) -> Tensor:
        """Returns the soft matching (b, n1, n2) in the dtype of the costs; the arguments are those of `LinearProblem`.

        Differentiable in the costs. Zero where forbidden and in padding.
        """
        problem = _computable(LinearProblem(costs, sizes, unmatched_cost))
        return self._plan(problem).matching.to(costs.dtype)

    def solve(self, problem: Problem) -> MatchResult:
        """Returns the rounded soft matchings; raises TypeError for quadratic problems."""
        where = type(self).__name__
        linear = take_kind(where, problem, LinearProblem, "Use DualAscent for quadratic costs.")
        check_rounding(where, linear.costs.device, self.on_cpu)
        batch = linear.batch_size
        bytes_needed = _COPIES * torch.float64.itemsize * self._variant_count() * linear.costs.numel()
        _check.memory(where, bytes_needed, "Use fewer nodes, problems or samples.", linear.costs.device)
        with torch.no_grad():
            # In float64: equal costs in another type or layout then get equal answers.
            linear = unchecked(linear, costs=linear.costs.double())
            variants = self._variants(linear, 0, shared=True)
            count = self._variant_count()
            allowed = real_nodes(variants, variants.costs) & (variants.costs != torch.inf)
            plan = self._plan(variants)
            # What a match agrees with the plan, over leaving both its nodes unmatched.
            scores = plan.matching
            if linear.unmatched_cost is not None:
                scores = scores - plan.unmatched1[:, :, None] - plan.unmatched2[:, None, :]
            assignment, status = best_matching(where, scores, allowed, variants, self.on_cpu)
            # Objectives and bounds are those of the true costs: any column potentials give a bound of any costs.
            judged = unchecked(variants, costs=linear.costs.repeat(count, 1, 1))
            bounds = _dual_bound(judged, allowed, plan.potentials2)
            objectives = _reference.objective(judged, assignment)
        best = objectives.unflatten(0, (count, batch)).argmin(0) * batch + torch.arange(batch, device=status.device)
        infeasible = status[best] == int(Status.INFEASIBLE)
        objective = objectives[best].masked_fill(infeasible, torch.inf)
        bound = torch.minimum(bounds.unflatten(0, (count, batch)).amax(0), objective).masked_fill(infeasible, torch.inf)
        optimal = closed(objective, bound, largest_cost(torch.where(allowed[:batch], linear.costs, 0)), self.max_gap)
        answer = torch.where(optimal, int(Status.OPTIMAL), int(Status.FEASIBLE))
        answer = answer.masked_fill(infeasible, int(Status.INFEASIBLE))
        return MatchResult(problem, assignment[best], objective, bound, answer, plan.iterations[best])

    def _variant_count(self) -> int:
        return 1

    def _variants(self, problem: LinearProblem, key: Tensor | int, shared: bool) -> LinearProblem:
        """Returns what the iteration solves instead of the problem, variant after variant."""
        return problem

    def _plan(self, problem: LinearProblem) -> Plan:
        return entropic_plan(
            problem.costs,
            problem.node_counts(),
            problem.unmatched_cost,
            self.temperature,
            self.max_iterations,
            self.tolerance,
            self.gradient,
        )


@dataclass(frozen=True)
class GumbelSinkhorn(Sinkhorn):
    """Sinkhorn on noisy costs: approximate samples of matchings, or their mean; differentiable in the costs.

    When called it returns the mean of Sinkhorn(costs - noise_scale * Gumbel noise) over the samples, or each of them.
    As the temperature falls, samples approach those of perturb-and-MAP. `solve` rounds every sample and keeps the
    cheapest matching of the true costs and the best bound; there all problems of a batch share the noise of the first,
    so that the answer does not depend on the place in the batch.

    Noise is a function of (seed, key, sample, problem, row, column) alone, in float64: batch layout, padding, device
    and the number of samples do not change it. Guarantee, cost and the other options as `Sinkhorn`, per sample.

    Args:
        temperature: In units of the costs.
        max_iterations: Limit of iterations.
        tolerance: Largest relative violation of a sum that counts as converged; rounding errors permitting.
        gradient: "implicit" or "unrolled".
        max_gap: Gap that counts as optimal in `solve`, relative to |objective| or the largest |cost|.
        on_cpu: Let `solve` copy the soft matchings of other devices to the CPU, where they are rounded.
        noise_scale: In units of the costs.
        samples: Noise draws per problem.
        reduction: "mean" returns (b, n1, n2) when called, "none" every sample, (samples, b, n1, n2).
        seed: Any int.

    Source: G. Mena et al., "Learning latent permutations with Gumbel-Sinkhorn networks", ICLR 2018.

    Example:
        >>> import torch, graphmatch as gm
        >>> sampler = gm.GumbelSinkhorn(temperature=0.1, samples=200)
        >>> matching = sampler(torch.zeros(1, 2, 2))  # both matchings are as likely
        >>> bool((matching - 0.5).abs().max() < 0.1), torch.equal(matching, sampler(torch.zeros(1, 2, 2)))
        (True, True)
    """

    noise_scale: float = 1.0
    samples: int = 1
    reduction: Literal["mean", "none"] = "mean"
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        where = "GumbelSinkhorn"
        scale = self.noise_scale
        _check.option(where, "noise_scale", scale, 0 < scale < torch.inf, "be positive and finite", "Or use Sinkhorn.")
        _check.option(where, "samples", self.samples, self.samples >= 1, "be at least 1", "1 is the cheapest.")
        if self.reduction not in ("mean", "none"):
            rule = "be one of ['mean', 'none']"
            raise ValueError(_check.message(where, "reduction", rule, repr(self.reduction), "Pick one."))

    def __call__(
        self,
        costs: Tensor,
        sizes: Tensor | None = None,
        unmatched_cost: float | None = None,
        key: Tensor | int = 0,
    ) -> Tensor:
        """Returns the mean soft matching (b, n1, n2), or all (samples, b, n1, n2), in the dtype of the costs.

        Args:
            costs: (b, n1, n2) floating point; +inf forbids an assignment.
            sizes: (b, 2) int64, real (n1, n2) of each problem in a padded batch.
            unmatched_cost: As in `LinearProblem`.
            key: An int or a 0-d int64 tensor, for instance the number of the training step: other keys, other noise.
        """
        problem = self._variants(_computable(LinearProblem(costs, sizes, unmatched_cost)), key, shared=False)
        matching = self._plan(problem).matching.to(costs.dtype).unflatten(0, (self.samples, len(costs)))
        return matching.mean(0) if self.reduction == "mean" else matching

    def _variant_count(self) -> int:
        return self.samples

    def _variants(self, problem: LinearProblem, key: Tensor | int, shared: bool) -> LinearProblem:
        """Returns the problems with noise, sample after sample; all problems may share that of the first."""
        costs = problem.costs
        like = costs[:1].detach() if shared else costs.detach()
        bytes_needed = 3 * torch.float64.itemsize * self.samples * costs.numel()
        _check.memory("GumbelSinkhorn", bytes_needed, "Use fewer samples, nodes or problems.", costs.device)
        noise = gumbel_noise(self.samples, like, self.seed, torch.as_tensor(key, dtype=torch.int64))
        noisy = (costs - self.noise_scale * noise).flatten(0, 1)
        sizes = None if problem.sizes is None else problem.sizes.repeat(self.samples, 1)
        return unchecked(problem, costs=noisy, sizes=sizes)


def _computable(problem: LinearProblem) -> LinearProblem:
    """Returns the problem with costs in a type that the iteration takes and the unmatched cost fits in."""
    costs = problem.costs
    if abs(problem.unmatched_cost or 0.0) > torch.finfo(torch.float32).max / 4:
        return unchecked(problem, costs=costs.double())
    return unchecked(problem, costs=costs if costs.dtype in (torch.float32, torch.float64) else costs.float())


def _dual_bound(problem: LinearProblem, allowed: Tensor, potentials2: Tensor) -> Tensor:
    """Returns a lower bound (b,) of float64 problems from any column potentials (b, n2), rounded down.

    The dual of linear assignment is max sum(u) + sum(v) with u_i + v_k <= C_ik, where the potentials of nodes that may
    stay unmatched for nothing are at most 0, and u_i at most the cost of an unmatched node. v gives u as the largest
    that is feasible, and u then the largest v: every step can only raise the value.
    """
    costs = torch.where(allowed, problem.costs, torch.inf)
    count1, count2 = (count[:, None] for count in problem.node_counts())
    n1, n2 = costs.shape[1:]
    if n1 == 0 or n2 == 0:
        return (problem.unmatched_cost or 0.0) * count1[:, 0].double()
    rows, columns = (torch.arange(n, device=costs.device) < count for n, count in ((n1, count1), (n2, count2)))
    if problem.unmatched_cost is None:
        limit1 = torch.where(count1 > count2, 0.0, torch.inf)
        limit2 = torch.where(count1 < count2, 0.0, torch.inf)
    else:
        limit1, limit2 = torch.full_like(count1, problem.unmatched_cost, dtype=costs.dtype), torch.zeros_like(count2)
    # Square complete problems do not care for a constant; without it, equal potentials are exact zeros.
    start = torch.where(columns, potentials2, torch.inf).amin(1, keepdim=True)
    start = torch.where(torch.isinf(limit1) & torch.isinf(limit2) & start.isfinite(), start, 0.0)
    # Rounded to multiples of a power of two, they do not depend on the order of sums.
    guess = torch.where(columns, potentials2 - start, 0.0).nan_to_num(0.0, 0.0, 0.0)
    guess = quantised(
        guess, torch.maximum(largest_cost(torch.where(allowed, costs, 0)), largest_cost(guess)), _POTENTIAL_BITS
    )

    def value(potentials: Tensor) -> Tensor:
        first = torch.minimum((costs - potentials[:, None, :]).amin(2), limit1)
        first = torch.where(rows & (first != torch.inf), first, 0.0)
        second = torch.minimum((costs - first[:, :, None]).amin(1), limit2)
        second = torch.where(columns & (second != torch.inf), second, 0.0)
        size = first.abs().sum(1) + second.abs().sum(1)
        return first.sum(1) + second.sum(1) - (n1 + n2 + 4) * torch.finfo(torch.float64).eps * size

    # Zeros give the sum of the least costs, which is exact where the potentials are lost in rounding errors.
    return torch.maximum(value(guess), value(torch.zeros_like(guess)))
