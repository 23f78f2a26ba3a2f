"""Dense quadratic assignment in SciPy's conventions: one call for two matrices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from graphmatch import _check
from graphmatch.problem import KoopmansBeckmannProblem
from graphmatch.result import Status
from graphmatch.solve import solve
from graphmatch.solvers import FAQ, Portfolio, Solver, Tabu

_WHERE = "quadratic_assignment"
_STARTS = 10  # SciPy makes one; ten of ours still take less time
_OPTIONS = ("maximize", "partial_match", "rng", "seed", "time_limit", "max_gap")
# The options of each method.
_METHODS = {
    "faq": (*_OPTIONS, "P0", "shuffle_input", "maxiter", "tol"),
    "2opt": (*_OPTIONS, "partial_guess"),
    "tabu": _OPTIONS,
    "portfolio": _OPTIONS,
}


@dataclass(frozen=True, eq=False)
class QuadraticAssignmentResult:
    """A permutation and what is known about it; fields can be read as `result.fun` or as `result["fun"]`.

    Attributes:
        col_ind: (n,) int64, the node of B for each node of A; a tensor if A is one, otherwise a NumPy array.
        fun: Objective sum_ij A[i, j] B[col_ind[i], col_ind[j]].
        nit: Iterations of the solver.
        lower_bound: The best objective lies between lower_bound and upper_bound: when minimising, upper_bound is fun
            and lower_bound is certified by the solver; when maximising, the other way round.
        upper_bound: See lower_bound.
        status: OPTIMAL if the gap is certified to be at most `max_gap`.
    """

    col_ind: Any
    fun: float
    nit: int
    lower_bound: float
    upper_bound: float
    status: Status

    @property
    def gap(self) -> float:
        """Relative gap (upper_bound - lower_bound) / |fun|; 0 when closed."""
        difference = self.upper_bound - self.lower_bound
        return difference / max(abs(self.fun), torch.finfo(torch.float64).tiny) if difference > 0 else 0.0

    def keys(self) -> list[str]:
        """Returns the names of the fields."""
        return [field.name for field in fields(self)]

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __getitem__(self, name: str) -> Any:
        if name not in self.keys():
            raise KeyError(name)
        return getattr(self, name)


def quadratic_assignment(
    A: ArrayLike | Tensor,  # noqa: N803
    B: ArrayLike | Tensor,  # noqa: N803
    method: str = "faq",
    options: Mapping[str, Any] | None = None,
) -> QuadraticAssignmentResult:
    """Minimises trace(A^T P B P^T) = sum_ij A[i, j] B[p(i), p(j)] over permutations p, as the function of SciPy does.

    Calls of `scipy.optimize.quadratic_assignment` work as they are. For a batch of problems, linear costs or gradients
    use `KoopmansBeckmannProblem`.

    Args:
        A: (n, n) matrix of finite numbers: a tensor on the CPU, an array or nested lists.
        B: (n, n), likewise.
        method: "faq" (`FAQ` and exchanges that improve its answer), "2opt" (such exchanges alone), both from the start
            that the options give and nine random ones; "tabu" (`Tabu`) or "portfolio" (`Portfolio`, the strongest).
        options: Any of

            - maximize (False): look for the largest objective instead.
            - partial_match (None): (m, 2) integers; node partial_match[k, 0] of A is matched to partial_match[k, 1] of
              B. The nodes that are left form a smaller problem with linear costs.
            - rng, seed (None): whole number or `numpy.random.Generator`; None is seed 0: equal calls, equal answers.
            - time_limit (None): seconds. max_gap (1e-6): relative gap that counts as optimal.
            - partial_guess (None), for "2opt": (m, 2) integers as in partial_match, to start from: the answer is not
              worse. Nodes left out are matched in their order.
            - P0, for "faq": "barycenter" (default), "randomized", or a doubly stochastic matrix to start from.
            - maxiter (30), tol (0.03), for "faq": limit of steps; a step that gains less than tol^2 / 10 of the
              objective is the last. shuffle_input (False) is accepted and has no effect.

    Returns:
        Permutation, objective and certified bounds, in float64 whatever the types of A and B.

    Raises:
        TypeError, ValueError: If A and B are no square matrices of one size with finite numbers, for an unknown method
            or option, or for one that breaks the rules above.

    Source: J. T. Vogelstein et al., "Fast approximate quadratic programming for graph matching", PLOS ONE 10 (2015);
    D. Fishkind et al., "Seeded graph matching", Pattern Recognition 87 (2019), for partial_match.

    Example:
        >>> import numpy as np, graphmatch as gm
        >>> A = np.array([[0, 80, 150, 170], [80, 0, 130, 100], [150, 130, 0, 120], [170, 100, 120, 0]])
        >>> B = np.array([[0, 5, 2, 7], [0, 0, 3, 8], [0, 0, 0, 3], [0, 0, 0, 0]])
        >>> result = gm.quadratic_assignment(A, B, method="portfolio")
        >>> result.fun, result.col_ind
        (3260.0, array([0, 3, 2, 1]))
    """
    name = method.lower() if isinstance(method, str) else method
    if name not in _METHODS:
        rule = f"be one of {', '.join(map(repr, _METHODS))}"
        raise ValueError(_check.message(_WHERE, "method", rule, repr(method), "'portfolio' is the strongest."))
    flow, distance = _matrix("A", A), _matrix("B", B)
    if flow.shape != distance.shape:
        received = f"{tuple(flow.shape)} and {tuple(distance.shape)}"
        raise ValueError(_check.message(_WHERE, "A and B", "have the same size", received, "Add isolated nodes."))
    chosen = _Options.of(name, options, flow.shape[0])
    sign = -1.0 if chosen.maximize else 1.0
    reduced = _Reduced(sign * flow, distance, chosen.partial_match)
    result = solve(reduced.problem, _solver_for(name, chosen, reduced))
    permutation = reduced.permutation(result.assignment[0])
    cost = _cost(sign * flow, distance, permutation)
    if chosen.partial_guess is not None:
        guess = reduced.completed(chosen.partial_guess)
        guessed = _cost(sign * flow, distance, guess)
        permutation, cost = (guess, guessed) if guessed < cost else (permutation, cost)
    bound = min(float(result.lower_bound[0]) + reduced.constant - reduced.rounding, cost)
    low, high = sorted((sign * bound + 0.0, sign * cost + 0.0))  # + 0.0: no negative zero
    return QuadraticAssignmentResult(
        permutation if isinstance(A, Tensor) else permutation.numpy(),
        sign * cost + 0.0,
        int(result.iterations[0]),
        low,
        high,
        result.statuses[0],
    )


def _solver_for(method: str, options: _Options, reduced: _Reduced) -> Solver:
    """Returns the solver that answers for a method."""
    common: dict[str, Any] = {"seed": options.seed, "time_limit": options.time_limit, "max_gap": options.max_gap}
    if method == "portfolio":
        return Portfolio(**common)
    if method == "tabu":
        return Tabu(**common)
    nodes = reduced.problem.flow.shape[1]
    if method == "2opt":
        guess = None if options.partial_guess is None else reduced.restricted(reduced.completed(options.partial_guess))
        initial = None if guess is None else torch.eye(nodes, dtype=torch.float64)[guess]
        return FAQ(_STARTS, max_iterations=0, initial=initial, refine=True, **common)
    steps: dict[str, Any] = {"max_iterations": options.maxiter, "tolerance": options.tol**2 / 10, "refine": True}
    return FAQ(_STARTS, initial=_start(options.P0, nodes, options.seed), **steps, **common)


def _start(point: str | np.ndarray, nodes: int, seed: int) -> Tensor | None:
    """Returns where FAQ begins: a matrix, a random one near the barycenter, or None for the barycenter."""
    if not isinstance(point, str):
        return torch.from_numpy(np.array(point, dtype=np.float64))
    if point == "barycenter":
        return None
    random = torch.rand(nodes, nodes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for _ in range(20):  # Sinkhorn's iteration, as exact as a start has to be
        random = random / random.sum(1, keepdim=True)
        random = random / random.sum(0, keepdim=True)
    return (random + 1 / max(nodes, 1)) / 2


def _cost(flow: Tensor, distance: Tensor, permutation: Tensor) -> float:
    return float((flow * distance[permutation[:, None], permutation]).sum())


def _matrix(argument: str, value: ArrayLike | Tensor) -> Tensor:
    """Returns a square matrix of finite numbers as a float64 tensor of its own."""
    cure = "Pass a matrix of real numbers."
    if isinstance(value, Tensor):
        if value.device.type != "cpu":
            rule, cure = "be on the CPU", "Move it with tensor.cpu()."
            raise ValueError(_check.message(_WHERE, argument, rule, f"device {value.device}", cure))
        if value.is_complex() or value.layout != torch.strided:
            raise TypeError(_check.message(_WHERE, argument, "hold real numbers", _check.describe(value), cure))
        matrix = value.detach().double().clone()
    else:
        try:
            array = np.asarray(value)
            if np.iscomplexobj(array):
                raise TypeError("complex numbers")
            matrix = torch.from_numpy(np.array(array, dtype=np.float64))
        except (TypeError, ValueError) as error:
            received = f"{type(value).__name__} ({error})"
            raise TypeError(_check.message(_WHERE, argument, "hold real numbers", received, cure)) from None
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        rule = "be a square matrix (n, n)"
        raise ValueError(_check.message(_WHERE, argument, rule, f"shape {tuple(matrix.shape)}", "Add isolated nodes."))
    _check.costs(_WHERE, argument, matrix, allow_infinite=False)
    return matrix


@dataclass(frozen=True, eq=False)
class _Options:
    """The options of a call, checked."""

    maximize: bool = False
    partial_match: Tensor | None = None
    partial_guess: Tensor | None = None
    seed: int = 0
    time_limit: float | None = None
    max_gap: float = 1e-6
    P0: str | np.ndarray = "barycenter"
    shuffle_input: bool = False
    maxiter: int = 30
    tol: float = 0.03

    @classmethod
    def of(cls, method: str, options: object, nodes: int) -> _Options:
        """Returns the options of a method for matrices of that size, or raises the complaint about one."""
        if options is not None and not isinstance(options, Mapping):
            cure = 'Pass options={"maximize": True}, for instance.'
            raise TypeError(_check.message(_WHERE, "options", "be a mapping", _check.describe(options), cure))
        given = {name: value for name, value in (options or {}).items() if value is not None}
        for name in given:
            if name not in _METHODS[method]:
                rule = f"hold the options of method {method!r} only: {', '.join(_METHODS[method])}"
                raise ValueError(_check.message(_WHERE, "options", rule, repr(name), "Leave it out."))
        for name in ("maximize", "shuffle_input"):
            if not isinstance(given.get(name, False), bool | np.bool_):
                raise TypeError(_check.message(_WHERE, name, "be True or False", repr(given[name]), "Pass a bool."))
        for name in ("partial_match", "partial_guess"):
            if name in given:
                given[name] = _pairs(name, given[name], nodes)
        if "rng" in given and "seed" in given:
            rule = "not come together with seed"
            raise ValueError(_check.message(_WHERE, "rng", rule, "both", "Keep one of the two."))
        given["seed"] = _seed(given.pop("rng", given.get("seed", 0)))
        if "P0" in given:
            fixed = len(given.get("partial_match", ()))
            _check_start(given["P0"], nodes - fixed)
        for name, kind in (("maxiter", int), ("tol", float)):
            value = given.get(name, 1)
            is_number = isinstance(value, int | np.integer | kind) and not isinstance(value, bool)
            if not is_number:
                raise TypeError(_check.message(_WHERE, name, "be a number", repr(value), "Leave it out."))
            _check.option(_WHERE, name, value, bool(value > 0), "be positive", "Leave it out.")
        return cls(**given)


def _seed(value: object) -> int:
    if isinstance(value, np.random.Generator):
        return int(value.integers(2**31))
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        cure = "None is seed 0."
        raise TypeError(_check.message(_WHERE, "rng", "be a whole number or a numpy.random.Generator", value, cure))
    _check.option(_WHERE, "seed", int(value), 0 <= int(value) < 2**63, "lie in [0, 2^63)", "None is seed 0.")
    return int(value)


def _pairs(argument: str, value: object, nodes: int) -> Tensor:
    """Returns (m, 2) int64 pairs of nodes, each node at most once."""
    array = np.asarray(value)
    if array.size == 0:
        return torch.empty(0, 2, dtype=torch.int64)
    if array.ndim != 2 or array.shape[1] != 2 or array.dtype.kind not in "iu":
        received = f"shape {array.shape}, {array.dtype}"
        cure = "A row holds a node of A and its node of B."
        raise ValueError(_check.message(_WHERE, argument, "be a matrix (m, 2) of integers", received, cure))
    if array.min() < 0 or array.max() >= nodes:
        received = f"{array.min()} to {array.max()}"
        raise ValueError(_check.message(_WHERE, argument, f"hold nodes in [0, {nodes})", received, "Count from 0."))
    if any(len(set(column)) < len(column) for column in array.T.tolist()):
        cure = "Keep one of the rows."
        raise ValueError(_check.message(_WHERE, argument, "name each node once", array.tolist(), cure))
    return torch.from_numpy(array.astype(np.int64))


def _check_start(value: object, nodes: int) -> None:
    cure = '"barycenter" is the default.'
    if isinstance(value, str):
        holds = value in ("barycenter", "randomized")
        rule = 'be "barycenter", "randomized" or a doubly stochastic matrix'
        if not holds:
            raise ValueError(_check.message(_WHERE, "P0", rule, repr(value), cure))
        return
    matrix = np.asarray(value)
    if matrix.shape != (nodes, nodes) or matrix.dtype.kind not in "fiub":
        rule = f"be a matrix ({nodes}, {nodes}): one row for each node of A without a partial match"
        raise ValueError(_check.message(_WHERE, "P0", rule, f"shape {matrix.shape}, {matrix.dtype}", cure))
    sums = np.concatenate([matrix.sum(0), matrix.sum(1)])
    if not (np.all(matrix >= 0) and np.allclose(sums, 1, atol=1e-3)):
        received = f"sums from {sums.min():g} to {sums.max():g}"
        raise ValueError(_check.message(_WHERE, "P0", "be doubly stochastic", received, cure))


class _Reduced:
    """The problem that is left when some nodes are matched, which costs `constant` less than the whole.

    With F the matched nodes of A, q their partners, and R the others:
    sum_ij A_ij B_p(i)p(j) = sum_{i,j in F} A_ij B_q(i)q(j) + sum_{i,j in R} A_ij B_p(i)p(j)
    + sum_{i in R} sum_{s in F} (A_is B_p(i)q(s) + A_si B_q(s)p(i)), and the last sum is linear in p.

    Attributes:
        problem: A batch of one.
        constant: The first sum.
        rounding: No less than what the constant and the linear costs lost in float64; 0 where they are exact.
    """

    def __init__(self, flow: Tensor, distance: Tensor, pairs: Tensor | None):
        nodes = torch.arange(flow.shape[0])
        rows, columns = (nodes[:0], nodes[:0]) if pairs is None else pairs.T
        self._matched = rows, columns
        self._free = nodes[~torch.isin(nodes, rows)], nodes[~torch.isin(nodes, columns)]
        self.constant, self.rounding = 0.0, 0.0
        if len(rows) == 0:
            self.problem = KoopmansBeckmannProblem(flow[None], distance[None])
            return
        free1, free2 = self._free
        linear = self._linear(flow, distance)
        self.problem = KoopmansBeckmannProblem(
            flow[free1[:, None], free1][None], distance[free2[:, None], free2][None], linear[None]
        )
        fixed = flow[rows[:, None], rows], distance[columns[:, None], columns]
        self.constant = float((fixed[0] * fixed[1]).sum())
        size = float((fixed[0] * fixed[1]).abs().sum() + self._linear(flow.abs(), distance.abs()).sum())
        whole = torch.equal(flow, flow.round()) and torch.equal(distance, distance.round())
        if not whole or size >= 2.0**53:
            self.rounding = (2 * len(rows) ** 2 + 4) * torch.finfo(torch.float64).eps * size

    def _linear(self, flow: Tensor, distance: Tensor) -> Tensor:
        (rows, columns), (free1, free2) = self._matched, self._free
        leaving = flow[free1[:, None], rows] @ distance[free2[:, None], columns].T
        return leaving + flow[rows[:, None], free1].T @ distance[columns[:, None], free2]

    def permutation(self, assignment: Tensor) -> Tensor:
        """Returns the permutation of all nodes for an assignment of those that are left."""
        permutation = torch.empty(len(self._free[0]) + len(self._matched[0]), dtype=torch.int64)
        permutation[self._matched[0]] = self._matched[1]
        permutation[self._free[0]] = self._free[1][assignment.cpu()]
        return permutation

    def restricted(self, permutation: Tensor) -> Tensor:
        """Returns the assignment of the nodes that are left, the inverse of `permutation`."""
        place = torch.empty_like(permutation)
        place[self._free[1]] = torch.arange(len(self._free[1]))
        return place[permutation[self._free[0]]]

    def completed(self, guess: Tensor) -> Tensor:
        """Returns the permutation of a guess: what it contradicts is matched as before, what is left in its order."""
        nodes, partners = self._matched
        consistent = ~torch.isin(guess[:, 0], nodes) & ~torch.isin(guess[:, 1], partners)
        nodes = torch.cat([nodes, guess[consistent, 0]])
        partners = torch.cat([partners, guess[consistent, 1]])
        every = torch.arange(len(self._free[0]) + len(self._matched[0]))
        permutation = torch.empty_like(every)
        permutation[nodes] = partners
        permutation[every[~torch.isin(every, nodes)]] = every[~torch.isin(every, partners)]
        return permutation
