"""The message-passing solver of the external package lpmp_py, for machines where somebody has built it."""

from __future__ import annotations

import functools
import importlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphmatch import _check, _ops
from graphmatch.problem import KoopmansBeckmannProblem, LawlerProblem, Problem
from graphmatch.result import MatchResult, Status
from graphmatch.solvers.base import assemble, host_costs, take_kind, thread_count

# lpmp_py ends the whole process on a key it does not know or a value it cannot read: only what is known passes.
_PARAMETERS = {"graphMatchingConstruction": ("left", "right", "both_sides")}
_OPTIONS = {
    "maxIter": "max_iterations",
    "primalComputationInterval": "rounding_interval",
    "timeout": "time_limit (in seconds)",
    "graphMatchingRounding": "rounding",
}
_ROUNDINGS = ("mcf", "fw")
_LARGEST_INTEGER = 2**31 - 1
_DAY = 86_400.0

Costs = NDArray[np.float64]
Edges = NDArray[np.int64]
RawSolver = Callable[..., tuple[Any, Any]]


@dataclass(frozen=True)
class LPMP:
    """Solver for sparse quadratic problems by the package lpmp_py, which has to be built from source by hand.

    One call of lpmp_py per problem, one after the other. Costs are scaled by a power of two, loops and repeated edges
    are summed up first. Complete matchings are sought by a reward on every assignment, forbidden assignments by a large
    cost. What lpmp_py then returns is made valid by an exact linear assignment that keeps as many of its pairs as
    possible: forbidden and doubly used nodes are dropped and, where a complete matching is demanded, the missing pairs
    are filled in at the least linear cost. Problems without quadratic costs are solved by that assignment alone.

    Guarantee: a valid matching, or INFEASIBLE where no complete one exists. There is no certificate: the lower bound
    is -inf, the gap inf and the status FEASIBLE; `iterations` is 0, because lpmp_py does not report them. Cost: that of
    lpmp_py, a copy of the costs and O(n^3) per problem. Deterministic where lpmp_py is and no time limit ends it.

    Args:
        max_iterations: Limit of iterations per problem.
        rounding_interval: Iterations from one rounding to a matching to the next, at most max_iterations.
        rounding: "mcf" = linear assignment on the reparametrised costs, "fw" = Frank-Wolfe started there.
        time_limit: Seconds for the whole call but the import of lpmp_py; None = no limit. Each problem gets an equal
            share of what is left, at least one millisecond; how closely it is kept is up to lpmp_py.
        parameters: Further parameters of lpmp_py: "graphMatchingConstruction": "left", "right" or "both_sides".
        on_cpu: Accept tensors on other devices by copying them to the CPU and the answer back.

    Raises:
        TypeError, ValueError: If an option breaks the rules above; lpmp_py would end the process instead.

    Source: P. Swoboda et al., "A study of Lagrangean decompositions and dual ascent solvers for graph matching",
    CVPR 2017.

    Example:
        >>> import graphmatch as gm
        >>> solver = gm.LPMP(rounding="fw", time_limit=2.0)  # gm.solve(problem, solver) needs lpmp_py
        >>> solver.rounding_interval
        10
    """

    max_iterations: int = 100
    rounding_interval: int = 10
    rounding: Literal["mcf", "fw"] = "mcf"
    time_limit: float | None = None
    parameters: Mapping[str, int | float | str] = field(default_factory=dict, hash=False)
    on_cpu: bool = False

    def __post_init__(self) -> None:
        """Checks the options."""
        _check_integer("max_iterations", self.max_iterations, _LARGEST_INTEGER, "100 is the default.")
        cure = "Lower it to max_iterations, or no matching is rounded."
        _check_integer("rounding_interval", self.rounding_interval, self.max_iterations, cure)
        if self.rounding not in _ROUNDINGS:
            cure = "'mcf' is faster, 'fw' finds better matchings."
            raise ValueError(_check.message("LPMP", "rounding", f"be one of {_ROUNDINGS}", repr(self.rounding), cure))
        if self.time_limit is not None:
            limit = self.time_limit
            _check.number("LPMP", "time_limit", limit, "None is no limit.")
            _check.option("LPMP", "time_limit", limit, limit > 0, "be positive seconds", "None is no limit.")
        if not isinstance(self.parameters, Mapping):
            received = _check.describe(self.parameters)
            raise TypeError(_check.message("LPMP", "parameters", "be a mapping", received, "{} adds none."))
        for name, value in self.parameters.items():
            _check_parameter(name, value)
        object.__setattr__(self, "parameters", dict(self.parameters))

    def solve(self, problem: Problem) -> MatchResult:
        """Returns matchings; dense problems are solved as Lawler problems.

        Raises:
            ImportError: If lpmp_py cannot be imported.
            RuntimeError: If it fails at a problem whose answer is known.
        """
        if isinstance(problem, KoopmansBeckmannProblem):
            lawler = problem.to_lawler()
        else:
            lawler = take_kind("LPMP", problem, LawlerProblem, "Use LAP for linear costs.")
        _check.memory("LPMP", 5 * torch.float64.itemsize * lawler.quadratic_costs[:1].numel(), "Use fewer edges.")
        unary = host_costs("LPMP", lawler.unary_costs, self.on_cpu)
        quadratic = host_costs("LPMP", lawler.quadratic_costs, self.on_cpu)
        edges1, edges2 = lawler.edges1.cpu(), lawler.edges2.cpu()
        sizes = None if lawler.sizes is None else lawler.sizes.cpu()
        raw_solver = _load()
        _check_build(raw_solver)

        batch = lawler.batch_size
        extents = torch.tensor([*unary.shape[1:], *quadratic.shape[1:]]).expand(batch, 4) if sizes is None else sizes
        repair = torch.zeros(unary.shape, dtype=torch.float64)
        end = None if self.time_limit is None else time.monotonic() + self.time_limit
        for index, (n1, n2, e1, e2) in enumerate(extents.tolist()):
            instance = _Instance.of(
                unary[index, :n1, :n2],
                quadratic[index, :e1, :e2],
                edges1[index, :e1],
                edges2[index, :e2],
                lawler.unmatched_cost,
            )
            seconds = _DAY if end is None else (end - time.monotonic()) / (batch - index)
            found = instance.match(raw_solver, self._raw_parameters(seconds)) if instance.quadratic.size else None
            repair[index, :n1, :n2] = torch.from_numpy(instance.repair_costs(found))

        complete = lawler.unmatched_cost is None
        threads = thread_count("LPMP", None)
        # Unmatched nodes are free in what lpmp_py and the repair see: their cost is part of the linear costs there.
        assignment, _, _, status, *_ = _ops.linear_assignment(
            repair, extents[:, :2], None if complete else 0.0, threads
        )
        objective = _ops.lawler_objective(
            unary, quadratic, edges1, edges2, sizes, lawler.unmatched_cost, assignment, threads
        )
        infeasible = status == Status.INFEASIBLE
        answers = (
            assignment,
            torch.where(infeasible, torch.inf, objective),
            torch.where(infeasible, torch.inf, torch.full_like(objective, -torch.inf)),
            torch.where(infeasible, int(Status.INFEASIBLE), int(Status.FEASIBLE)),
            torch.zeros_like(status),
        )
        return assemble(problem, answers, lawler.unary_costs.device)

    def _raw_parameters(self, seconds: float) -> dict[str, int | float | str]:
        # The time limit is always given, because lpmp_py's own is unknown; mcf is what it does when not told.
        raw: dict[str, int | float | str] = {
            "maxIter": self.max_iterations,
            "primalComputationInterval": self.rounding_interval,
            "timeout": max(int(1000 * min(seconds, _DAY)), 1),
        }
        if self.rounding != "mcf":
            raw["graphMatchingRounding"] = self.rounding
        return {**raw, **self.parameters}


@dataclass(frozen=True)
class _Instance:
    """One problem as lpmp_py can take it: unmatched nodes are free, edges are distinct, no loops and have costs.

    Infinite unary costs stay; the largest finite number lies in [0.5, 1) unless all are zero.
    """

    unary: Costs
    quadratic: Costs
    edges1: Edges
    edges2: Edges
    complete: bool

    @classmethod
    def of(
        cls, unary_costs: Tensor, quadratic_costs: Tensor, edges1: Tensor, edges2: Tensor, unmatched_cost: float | None
    ) -> _Instance:
        unary = unary_costs.double().numpy() - (unmatched_cost or 0.0)
        quadratic, left, right = quadratic_costs.double().numpy(), edges1.numpy(), edges2.numpy()
        loop1, loop2 = left[:, 0] == left[:, 1], right[:, 0] == right[:, 1]
        # A loop mapped onto a loop is a linear cost; no injective map takes a loop to another edge, or back.
        np.add.at(unary, (left[loop1, :1], right[loop2, 0]), quadratic[np.ix_(loop1, loop2)])
        left, quadratic = _sum_repeats(left[~loop1], quadratic[np.ix_(~loop1, ~loop2)])
        right, transposed = _sum_repeats(right[~loop2], quadratic.T)
        quadratic = transposed.T
        paid1, paid2 = quadratic.any(axis=1), quadratic.any(axis=0)
        quadratic, left, right = quadratic[np.ix_(paid1, paid2)], left[paid1], right[paid2]
        finite = unary[np.isfinite(unary)]
        _, exponent = np.frexp(max(_largest(finite), _largest(quadratic)))
        scale = -int(exponent)
        complete = unmatched_cost is None
        return cls(np.ldexp(unary, scale), np.ldexp(quadratic, scale), left, right, complete)

    def match(self, raw_solver: RawSolver, parameters: dict[str, int | float | str]) -> NDArray[np.bool_]:
        """Returns the pairs (n1, n2) that lpmp_py chooses."""
        allowed = np.isfinite(self.unary)
        unary = np.where(allowed, self.unary, 0.0)
        # No two matchings differ by more than twice this.
        total = np.abs(unary).max(axis=1).sum() + np.abs(self.quadratic).max(axis=1).sum()
        reward = 0.0
        if self.complete and allowed.all():
            degree = np.bincount(self.edges1.ravel()).max()
            # Matching one more node changes at most this much, whatever else is matched.
            reward = 1.0 + 2.0 * (_largest(unary) + _largest(self.quadratic) * degree)
        elif self.complete:
            reward = 1.0 + 2.0 * total
        unary = np.where(allowed, unary - reward, 1.0 + 2.0 * total)
        mask, _ = raw_solver(
            np.ascontiguousarray(unary),
            np.ascontiguousarray(self.quadratic),
            np.ascontiguousarray(self.edges1, dtype=np.intc),
            np.ascontiguousarray(self.edges2, dtype=np.intc),
            parameters,
        )
        return (np.asarray(mask) > 0) & allowed

    def repair_costs(self, found: NDArray[np.bool_] | None) -> Costs:
        """Returns linear costs whose best matching keeps as many of the pairs found as possible; None = all are open.

        A found matching that is complete, or a partial one, is the only best: it comes back as it is.
        """
        if found is None:
            return self.unary
        if not self.complete:
            return np.where(found, -1.0, np.inf)
        span = 1.0 + 2.0 * min(self.unary.shape) * _largest(self.unary[np.isfinite(self.unary)])
        return np.where(found, self.unary - span, self.unary)


def _largest(values: Costs) -> float:
    return float(np.abs(values).max(initial=0.0))


def _sum_repeats(edges: Edges, costs: Costs) -> tuple[Edges, Costs]:
    """Returns the distinct edges (e, 2) and for each the sum of its rows of costs (e, ...)."""
    distinct, place = np.unique(edges, axis=0, return_inverse=True)
    if len(distinct) == len(edges):
        return edges, costs
    sums = np.zeros((len(distinct), costs.shape[1]))
    np.add.at(sums, place.reshape(-1), costs)
    return distinct, sums


def _check_integer(argument: str, value: object, largest: int, cure: str) -> None:
    holds = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= largest
    if not holds:
        raise ValueError(_check.message("LPMP", argument, f"be an integer from 1 to {largest}", repr(value), cure))


def _check_parameter(name: object, value: object) -> None:
    if name in _OPTIONS:
        cure = f"Give it as {_OPTIONS[str(name)]}."
        raise ValueError(_check.message("LPMP", "parameters", "leave out what is an option", repr(name), cure))
    if name not in _PARAMETERS:
        rule = f"use the keys {sorted(_PARAMETERS)}"
        cure = "Remove it: lpmp_py ends the process on a key it does not know."
        raise ValueError(_check.message("LPMP", "parameters", rule, repr(name), cure))
    allowed = _PARAMETERS[str(name)]
    if value not in allowed:
        cure = "Choose one: lpmp_py ends the process on a value it does not know."
        raise ValueError(_check.message("LPMP", f"parameters[{name!r}]", f"be one of {allowed}", repr(value), cure))


def _load() -> RawSolver:
    try:
        return importlib.import_module("lpmp_py.raw_solvers").gm_solver
    except (ImportError, AttributeError) as error:  # compiled modules for another NumPy fail with either
        raise ImportError(
            _check.message(
                "LPMP",
                "the package lpmp_py",
                "be importable",
                error,
                "Build it from the source of the LPMP project (the PyPI package of that name does not build), "
                "or use gm.Portfolio().",
            )
        ) from error


@functools.cache
def _check_build(raw_solver: RawSolver) -> None:
    """Checks once per process that lpmp_py solves a problem at all: some builds return empty matchings silently."""
    edge = np.array([[0, 1]], dtype=np.intc)
    parameters = {"maxIter": 100, "primalComputationInterval": 10, "timeout": 1000}
    mask, _ = raw_solver(-np.eye(2), -np.ones((1, 1)), edge, edge.copy(), parameters)
    if not np.array_equal(mask, np.eye(2)):
        raise RuntimeError(
            _check.message(
                "LPMP",
                "lpmp_py",
                "match node 0 to 0 and 1 to 1 in a test problem",
                f"the matching {np.asarray(mask).tolist()}",
                "Rebuild it against the installed NumPy (a build for NumPy 1 returns empty matchings under NumPy 2), "
                "install numpy==1.26.*, or use gm.Portfolio().",
            )
        )
