"""Enumeration of every matching: the oracle of the tests."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations, permutations
from math import comb, factorial, inf, isinf, ldexp, perm
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphmatch import _check, _reference
from graphmatch.problem import KoopmansBeckmannProblem, LawlerProblem, LinearProblem, Problem
from graphmatch.result import MatchResult, Status, paid_pair_matrix

_CHUNK = 4096


@dataclass(frozen=True)
class BruteForce:
    """Exact solver for tiny problems of any kind: evaluates every matching with the reference objective.

    Guarantee: the optimum of the reference objective in float64; of equal ones the first in lexicographic order
    (unmatched last). The bound is that less what rounding may have added: nothing where sums are exact, as those of
    whole numbers are. Cost: n! matchings for complete problems (n = 8: 40,320), more for partial ones.

    Args:
        max_matchings: Refuse problems with more matchings than this.

    Example:
        >>> import torch, graphmatch as gm
        >>> gm.BruteForce().solve(gm.LinearProblem(torch.tensor([[[1.0, 2.0], [0.0, 9.0]]]))).objective
        tensor([2.], dtype=torch.float64)
    """

    max_matchings: int = 2_000_000

    def solve(self, problem: Problem) -> MatchResult:
        """Returns optimal matchings; raises ValueError for problems that are too large to enumerate."""
        count1, count2 = (counts.tolist() for counts in problem.node_counts())
        width = _first_size(problem)
        device = problem.node_counts()[0].device
        assignments, objectives, bounds = [], [], []
        for index, (n1, n2) in enumerate(zip(count1, count2, strict=True)):
            candidates = self._candidates(n1, n2, problem).to(device)
            padding = torch.full((len(candidates), width - n1), -1, device=device)
            candidates = torch.cat([candidates, padding], dim=1)
            assignment, value, bound = _best(_select(problem, index), candidates)
            assignments.append(assignment)
            objectives.append(value)
            bounds.append(bound)
        objective = torch.tensor(objectives, dtype=torch.float64, device=device)
        lower_bound = torch.tensor(bounds, dtype=torch.float64, device=device)
        status = torch.where(objective.isinf(), int(Status.INFEASIBLE), int(Status.OPTIMAL))
        assignment = (
            torch.stack(assignments) if assignments else torch.empty(0, width, dtype=torch.int64, device=device)
        )
        return MatchResult(problem, assignment, objective, lower_bound, status, torch.ones_like(status))

    def _candidates(self, n1: int, n2: int, problem: Problem) -> Tensor:
        """Returns all matchings (m, n1) in lexicographic order, -1 = unmatched last."""
        partial = not isinstance(problem, KoopmansBeckmannProblem) and problem.unmatched_cost is not None
        sizes = range(min(n1, n2) + 1) if partial else [min(n1, n2)]
        count = sum(comb(n1, k) * comb(n2, k) * factorial(k) for k in sizes)
        _check.option(
            "BruteForce",
            "the problem",
            count,
            count <= self.max_matchings,
            f"have at most {self.max_matchings} matchings",
            "Use DualAscent, or raise max_matchings.",
        )
        cure = "Use DualAscent, which does not enumerate."
        _check.memory("BruteForce", 5 * torch.int64.itemsize * count * max(n1, 1), cure)
        found = []
        for size in sizes:
            for rows in combinations(range(n1), size):
                images = np.array(list(permutations(range(n2), size)), dtype=np.int64).reshape(perm(n2, size), size)
                block = np.full((len(images), n1), n2, dtype=np.int64)
                block[:, list(rows)] = images
                found.append(block)
        stacked = np.concatenate(found)
        ordered = stacked[np.lexsort(stacked.T[::-1])] if n1 else stacked
        return torch.from_numpy(np.where(ordered == n2, -1, ordered))


def _best(problem: Problem, candidates: Tensor) -> tuple[Tensor, float, float]:
    """Returns the first best of the candidates (m, n1) for a batch of one problem, its objective and a bound."""
    chunks = candidates.split(_CHUNK)
    values = torch.cat([_reference.objective(_repeat(problem, len(chunk)), chunk) for chunk in chunks])
    place = int(values.argmin())
    best = float(values[place])
    if isinf(best):
        return torch.full_like(candidates[0], -1), torch.inf, torch.inf
    return candidates[place], best, _bound(problem, candidates, values, best)


def _bound(problem: Problem, candidates: Tensor, values: Tensor, best: float) -> float:
    """Returns what no candidate costs less than in exact arithmetic: values (m,) less what rounding may have added."""
    positive = _positive(problem)
    costs = [value[value.isfinite()] for value in _tensor_fields(positive).values() if value.is_floating_point()]
    if not isinstance(positive, KoopmansBeckmannProblem):
        costs.append(torch.full((candidates.shape[1],), positive.unmatched_cost or 0.0, dtype=torch.float64))
    sums, units = [float(each.sum()) for each in costs], [_unit(each) for each in costs]
    if isinstance(positive, KoopmansBeckmannProblem):  # flows and distances are multiplied
        sums, units = [sums[0] * sums[1], *sums[2:]], [units[0] * units[1], *units[2:]]
    most = sum(sums)
    if most < 2**53 * min(units):
        return best  # all sums are exact
    # Of n numbers, added in any order, no sum is off by more than n eps / 2 times the sum of their sizes.
    epsilon = torch.finfo(torch.float64).eps
    near = values - (sum(map(len, costs)) + 4) * epsilon * most <= best
    bounds = []
    for chunk, value in zip(candidates[near].split(_CHUNK), values[near].split(_CHUNK), strict=True):
        size = _reference.objective(_repeat(positive, len(chunk)), chunk)
        terms = _paid_terms(problem, chunk) + chunk.shape[1] + 4
        bounds.append(float((value - terms * (epsilon * size + 5e-324)).min()))  # products may underflow
    return min(bounds)


def _unit(values: Tensor) -> float:
    """Returns the largest power of two that all values are multiples of; inf for zeros."""
    mantissa, exponent = torch.frexp(values[values != 0])
    bits = (mantissa * 2.0**53).long()
    units = exponent + torch.frexp((bits & -bits).double()).exponent - 54
    return ldexp(1.0, int(units.min())) if len(units) else inf


def _positive(problem: Problem) -> Problem:
    """Returns a problem with the sizes of all costs, in float64."""
    fields: dict[str, Any] = {
        name: value.abs().double() for name, value in _tensor_fields(problem).items() if value.is_floating_point()
    }
    if not isinstance(problem, KoopmansBeckmannProblem) and problem.unmatched_cost is not None:
        fields["unmatched_cost"] = abs(problem.unmatched_cost)
    return replace(problem, **fields)


def _paid_terms(problem: Problem, candidates: Tensor) -> Tensor:
    """Returns how many quadratic costs the objective of each candidate (m, n1) adds, (m,) or one for all."""
    repeated = _repeat(problem, len(candidates))
    if isinstance(repeated, LawlerProblem):
        return paid_pair_matrix(candidates, repeated).bool().flatten(1).sum(1)
    return torch.tensor(0 if isinstance(problem, LinearProblem) else candidates.shape[1] ** 2)


def _first_size(problem: Problem) -> int:
    if isinstance(problem, LinearProblem):
        return problem.costs.shape[1]
    return problem.unary_costs.shape[1] if isinstance(problem, LawlerProblem) else problem.flow.shape[1]


def _tensor_fields(problem: Problem) -> dict[str, Any]:
    return {name: value for name, value in vars(problem).items() if isinstance(value, Tensor)}


def _select(problem: Problem, index: int) -> Problem:
    fields: dict[str, Any] = {name: value[index : index + 1] for name, value in _tensor_fields(problem).items()}
    return replace(problem, **fields)


def _repeat(problem: Problem, count: int) -> Problem:
    """Returns a batch of `count` views of one problem."""
    views: dict[str, Any] = {
        name: value.expand(count, *value.shape[1:]) for name, value in _tensor_fields(problem).items()
    }
    return replace(problem, **views)
