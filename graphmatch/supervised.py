"""Losses of matchings whose right answers are known, wholly or in part."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from graphmatch import _check
from graphmatch.gradients import FenchelYoung
from graphmatch.layers import MatchingLayer
from graphmatch.losses import hamming_loss
from graphmatch.matching_relaxation import lawler_slopes, shares_of_ends
from graphmatch.problem import LawlerProblem, LinearProblem
from graphmatch.sinkhorn import Plan, entropic_plan
from graphmatch.solve import solve
from graphmatch.solvers import LAP

Kind = Literal["hamming", "cross_entropy", "fenchel_young"]

_WHERE = "SupervisedMatchingLoss"
# As those of `Sinkhorn`.
_MAX_ITERATIONS = 1000
_TOLERANCE = 1e-6


class SupervisedMatchingLoss(nn.Module):
    """Loss of the matchings that costs lead to, compared with known ones; takes linear and sparse quadratic costs.

    - "hamming": the Hamming distance per node with a target of the layer's matching, differentiable through whatever
      estimator the layer has. What is counted in the end, but silent where the matching is right.
    - "cross_entropy": -log of the probability that a node has its target, mean over nodes. Probabilities are those of
      entropic linear assignment, `Sinkhorn`, of the unary costs, or, with quadratic costs, of the costs linearised at
      the probabilities before, `relaxation_steps` times. Smooth, and never silent; no solver and no estimator.
    - "fenchel_young": `MatchingLayer.loss`, convex in all costs. Compares whole matchings, so what the target leaves
      open is completed first by the cheapest way to do so: of several accepted nodes those that are cheapest in unary
      costs, then free nodes by the layer's solver. Infinite where the target is forbidden.

    What does not count: padding, nodes of graph 1 outside the mask, and nodes without a target where all must be
    matched. Where the layer has an `unmatched_cost`, a node without a target should stay unmatched: it is an error to
    match it. Leave nodes whose target is unknown out by the mask.

    Args:
        kind: "hamming", "cross_entropy" or "fenchel_young".
        layer: What solves the problems; None takes `MatchingLayer()`, with `FenchelYoung()` for that kind. The
            cross-entropy takes nothing but its `unmatched_cost`.
        temperature: Of the probabilities, in units of the costs.
        relaxation_steps: Linearisations of quadratic costs, at least 1; each takes a Sinkhorn iteration to its end.

    Sources: M. Rolínek et al., "Deep graph matching via blackbox differentiation of combinatorial solvers", ECCV 2020
    (Hamming); R. Wang, J. Yan, X. Yang, "Learning combinatorial embedding networks for deep graph matching", ICCV 2019
    (cross-entropy); M. Blondel et al., "Learning with Fenchel-Young losses", JMLR 21 (2020); V. Cabannes, A. Rudi, F.
    Bach, "Structured prediction with partial labelling through the infimum loss", ICML 2020 (completed targets).

    Example:
        >>> import torch, graphmatch as gm
        >>> costs = torch.rand(1, 4, 4, requires_grad=True)
        >>> target = torch.tensor([[1, 0, 3, -1]])  # of the last node nothing is known
        >>> for kind in ("hamming", "cross_entropy", "fenchel_young"):
        ...     gm.SupervisedMatchingLoss(kind)(target, costs).backward()
        >>> costs.grad.shape
        torch.Size([1, 4, 4])
    """

    def __init__(
        self,
        kind: Kind = "hamming",
        layer: MatchingLayer | None = None,
        temperature: float = 0.1,
        relaxation_steps: int = 3,
    ) -> None:
        super().__init__()
        if kind not in get_args(Kind):
            rule = f"be one of {list(get_args(Kind))}"
            raise ValueError(_check.message(_WHERE, "kind", rule, repr(kind), "Pick one."))
        is_convex = kind == "fenchel_young"
        if is_convex and layer is not None and not isinstance(layer.gradient, FenchelYoung):
            rule, name = "have the gradient FenchelYoung for kind='fenchel_young'", type(layer.gradient).__name__
            cure = "Pass MatchingLayer(gradient=gm.FenchelYoung())."
            raise TypeError(_check.message(_WHERE, "layer", rule, name, cure))
        _check.number(_WHERE, "temperature", temperature, "0.1 suits cosines.")
        usable = 1e-30 <= temperature <= 1e30
        _check.option(_WHERE, "temperature", temperature, usable, "lie in [1e-30, 1e30]", "0.1 suits cosines.")
        steps = _check.whole_number(_WHERE, "relaxation_steps", relaxation_steps, "3 is the default.")
        _check.option(_WHERE, "relaxation_steps", steps, steps >= 1, "be at least 1", "3 is the default.")
        if layer is None:
            layer = MatchingLayer(gradient=FenchelYoung() if is_convex else None)
        self.kind, self.layer = kind, layer
        self.temperature, self.relaxation_steps = temperature, relaxation_steps

    def forward(
        self,
        target: Tensor,
        unary_costs: Tensor,
        quadratic_costs: Tensor | None = None,
        edges1: Tensor | None = None,
        edges2: Tensor | None = None,
        sizes: Tensor | None = None,
        mask: Tensor | None = None,
        instances: Tensor | None = None,
        step: int | Tensor | None = None,
    ) -> Tensor:
        """Returns the loss, a scalar in float32 at least.

        Args:
            target: What the nodes of graph 1 should be matched with. (b, n1) or (n1,) int64, a node of graph 2 for
                each, every one at most once, -1 = none. Or 0/1 of any type, (b, n1, n2), or (n1, n2) and not int64:
                rows of several ones accept any of them, rows of none have no target.
            unary_costs: (b, n1, n2) floating point.
            quadratic_costs: (b, e1, e2), or None for a linear assignment.
            edges1: (b, e1, 2) or (e1, 2) int64; with quadratic costs only.
            edges2: (b, e2, 2) or (e2, 2) int64; with quadratic costs only.
            sizes: Real sizes of a padded batch, as in `LawlerProblem` or `LinearProblem`.
            mask: (b, n1) or (n1,) bool, the nodes of graph 1 that count; None = all.
            instances: (b,) int64, as in `MatchingLayer`.
            step: As in `MatchingLayer`.

        Raises:
            TypeError, ValueError: If an argument breaks these rules, and as `MatchingLayer`.
        """
        unary = _wide(_check.tensor(_WHERE, "unary_costs", unary_costs, 3, "(b, n1, n2)"))
        quadratic = None if quadratic_costs is None else _wide(quadratic_costs)
        arguments = (unary, quadratic, edges1, edges2, sizes)
        # Checks what comes after; the classes know all rules.
        problem = _problem(self.layer.unmatched_cost, *arguments)
        given = {"target": target, "mask": mask, "unary_costs": unary}
        _check.same_device(_WHERE, {name: value for name, value in given.items() if isinstance(value, Tensor)})
        rows, columns = _real_nodes(problem)
        accepted = _accepted(target, unary, rows, columns)
        counted = rows if mask is None else rows & _checked_mask(mask, unary)
        if self.layer.unmatched_cost is None:
            counted = counted & accepted.any(2)
        with torch.autocast(device_type=unary.device.type, enabled=False):
            if self.kind == "cross_entropy":
                return self._cross_entropy(accepted, counted, problem)
            if self.kind == "hamming":
                solution = self.layer(*arguments, instances, step)
                matching = solution if isinstance(solution, Tensor) else solution[0]
                return hamming_loss(matching, accepted, counted)
            completed = self._completed(accepted, counted, problem)
            return self.layer.loss(completed, *arguments, instances, step)

    def _cross_entropy(self, accepted: Tensor, counted: Tensor, problem: LinearProblem | LawlerProblem) -> Tensor:
        plan = self._relaxed(problem)
        agreeing = torch.where(accepted, plan.matching, 0).sum(2)
        likelihood = torch.where(accepted.any(2), agreeing, plan.unmatched1)
        # What is forbidden has no likelihood at all: its loss is finite, and its gradient zero.
        losses = -likelihood.clamp(min=torch.finfo(likelihood.dtype).tiny).log()
        mean = torch.where(counted, losses, 0).sum() / counted.sum().clamp(min=1)
        costs = problem.costs if isinstance(problem, LinearProblem) else problem.unary_costs
        return mean.to(costs.dtype)

    def _relaxed(self, problem: LinearProblem | LawlerProblem) -> Plan:
        """Returns the entropic matchings in float64: likelihoods of nodes that are quite wrong are very small."""

        def plan(costs: Tensor) -> Plan:
            counts, cost = problem.node_counts(), problem.unmatched_cost
            return entropic_plan(costs, counts, cost, self.temperature, _MAX_ITERATIONS, _TOLERANCE, "implicit")

        if isinstance(problem, LinearProblem):
            return plan(problem.costs.double())
        unary, quadratic = problem.unary_costs.double(), problem.quadratic_costs.double()
        edges1, edges2 = problem.edges1, problem.edges2
        if problem.sizes is not None:
            real1, real2 = (
                torch.arange(count, device=unary.device) < problem.sizes[:, 2 + place, None]
                for place, count in enumerate(quadratic.shape[1:])
            )
            # Padding may hold anything.
            quadratic = torch.where(real1[:, :, None] & real2[:, None, :], quadratic, 0)
            edges1, edges2 = torch.where(real1[..., None], edges1, 0), torch.where(real2[..., None], edges2, 0)
        found = plan(unary)
        for _ in range(self.relaxation_steps if 0 not in unary.shape else 0):
            shares = shares_of_ends(found.matching, edges1, edges2)
            found = plan(lawler_slopes(unary, quadratic, shares, edges1, edges2))
        return found

    @torch.no_grad()
    def _completed(self, accepted: Tensor, counted: Tensor, problem: LinearProblem | LawlerProblem) -> Tensor:
        """Returns one allowed matching per problem, (b, n1, n2) bool, that agrees with the targets of nodes that count.

        Where some nodes of graph 1 are free, it is the cheapest such matching that the solver finds.
        """
        unary = problem.costs if isinstance(problem, LinearProblem) else problem.unary_costs
        chosen = _one_of_each(accepted & counted[:, :, None], unary, problem)
        rows, columns = _real_nodes(problem)
        if problem.unmatched_cost is None:
            free = rows & ~chosen.any(2)
            is_open = chosen.sum((1, 2)) < torch.minimum(rows.sum(1), columns.sum(1))
        else:
            free = rows & ~counted
            is_open = free.any(1)
        if not bool(is_open.any()):
            return chosen
        allowed = chosen | (free[:, :, None] & (columns & ~chosen.any(1))[:, None, :])
        costs = unary.masked_fill(~allowed, torch.inf)
        if isinstance(problem, LinearProblem):
            rest: LinearProblem | LawlerProblem = LinearProblem(costs, problem.sizes, problem.unmatched_cost)
        else:
            edges = (problem.edges1, problem.edges2)
            rest = LawlerProblem(costs, problem.quadratic_costs, *edges, problem.sizes, problem.unmatched_cost)
        assignment = solve(rest, self.layer.solver).assignment
        nodes = torch.arange(unary.shape[2], device=unary.device)
        return chosen | ((assignment[:, :, None] == nodes) & free[:, :, None])


def _wide(costs: Tensor) -> Tensor:
    is_half = isinstance(costs, Tensor) and costs.dtype in (torch.float16, torch.bfloat16)
    return costs.float() if is_half else costs


def _problem(
    unmatched_cost: float | None,
    unary: Tensor,
    quadratic: Tensor | None,
    edges1: Tensor | None,
    edges2: Tensor | None,
    sizes: Tensor | None,
) -> LinearProblem | LawlerProblem:
    given = [each is not None for each in (quadratic, edges1, edges2)]
    if any(given) != all(given):
        names = "quadratic_costs, edges1 and edges2"
        raise ValueError(_check.message(_WHERE, names, "come together", given, "Give all three or none."))
    if quadratic is None or edges1 is None or edges2 is None:
        return LinearProblem(unary, sizes, unmatched_cost)
    edges1, edges2 = (
        edges.expand(len(unary), *edges.shape) if isinstance(edges, Tensor) and edges.ndim == 2 else edges
        for edges in (edges1, edges2)
    )
    return LawlerProblem(unary, quadratic, edges1, edges2, sizes, unmatched_cost)


def _real_nodes(problem: LinearProblem | LawlerProblem) -> tuple[Tensor, Tensor]:
    """Returns which nodes of graph 1, (b, n1), and graph 2, (b, n2), are no padding."""
    costs = problem.costs if isinstance(problem, LinearProblem) else problem.unary_costs
    places = (torch.arange(count, device=costs.device) for count in costs.shape[1:])
    rows, columns = (
        place.expand(len(costs), -1) < count[:, None]
        for place, count in zip(places, problem.node_counts(), strict=True)
    )
    return rows, columns


def _checked_mask(mask: Tensor, unary: Tensor) -> Tensor:
    shape = tuple(unary.shape[:2])
    if tuple(_check.boolean(_WHERE, "mask", mask).shape) not in (shape, shape[1:]):
        rule = f"have shape {shape} or {shape[1:]}"
        raise ValueError(_check.message(_WHERE, "mask", rule, tuple(mask.shape), "One entry per node of graph 1."))
    return mask.expand(shape)


def _accepted(target: Tensor, unary: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Returns the accepted matches, bool (b, n1, n2), of a target in any of its forms; none in padding."""
    batch, n1, n2 = unary.shape
    if not isinstance(target, Tensor):
        cure = "Convert it with torch.as_tensor."
        raise TypeError(_check.message(_WHERE, "target", "be a torch.Tensor", _check.describe(target), cure))
    is_index = target.dtype == torch.int64 and target.ndim < 3
    shapes = [(batch, n1), (n1,)] if is_index else [(batch, n1, n2), (n1, n2)]
    if tuple(target.shape) not in shapes:
        rule = f"have shape {shapes[0]} or {shapes[1]}, as the unary costs"
        cure = "Pass a node of graph 2 per node of graph 1, or a 0/1 matrix per problem."
        raise ValueError(_check.message(_WHERE, "target", rule, _check.describe(target), cure))
    target = target.expand(shapes[0])
    if not is_index:
        if bool(((target != 0) & (target != 1)).any()):
            cure = "1 stands for a match that is right."
            raise ValueError(_check.message(_WHERE, "target", "hold 0 and 1 only", "other values", cure))
        return (target != 0) & rows[:, :, None] & columns[:, None, :]
    target = torch.where(rows, target, -1)
    limits = columns.sum(1, keepdim=True)
    bad = (target < -1) | (target >= limits)
    if bool(bad.any()):
        place = bad.nonzero()[0].tolist()
        rule = f"hold nodes in [-1, {int(limits[place[0]])})"
        raise ValueError(_check.message(_WHERE, "target", rule, int(target[tuple(place)]), "-1 stands for no target."))
    accepted = target[:, :, None] == torch.arange(n2, device=unary.device)
    if bool((accepted.sum(1) > 1).any()):
        problem, node = (accepted.sum(1) > 1).nonzero()[0].tolist()
        twice = f"node {node} for several in problem {problem}"
        cure = "Where nodes may take each other's place, pass a 0/1 matrix that accepts several."
        raise ValueError(_check.message(_WHERE, "target", "name each node of graph 2 at most once", twice, cure))
    return accepted


def _one_of_each(accepted: Tensor, unary: Tensor, problem: LinearProblem | LawlerProblem) -> Tensor:
    """Returns matchings (b, n1, n2) bool of as many accepted matches as possible, the cheapest in unary costs."""
    if 0 in accepted.shape or not bool((accepted.sum(1) > 1).any() | (accepted.sum(2) > 1).any()):
        return accepted
    allowed = accepted & torch.isfinite(unary)
    costs = torch.where(allowed, unary, 0).double()
    reward = 1 + 2 * costs.abs().amax((1, 2), keepdim=True) * min(unary.shape[1:])
    sizes = None if problem.sizes is None else problem.sizes[:, :2]
    pairs = LinearProblem(torch.where(allowed, costs - reward, torch.inf), sizes, unmatched_cost=0.0)
    assignment = solve(pairs, LAP(on_cpu=True)).assignment
    return assignment[:, :, None] == torch.arange(unary.shape[2], device=unary.device)
