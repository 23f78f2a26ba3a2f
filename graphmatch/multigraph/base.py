"""What a multi-graph method is, and the solution of all pairs that several of them begin with."""

from __future__ import annotations

from typing import Protocol

from graphmatch import _check
from graphmatch.multigraph.problem import MultiGraphProblem
from graphmatch.multigraph.result import MultiGraphResult
from graphmatch.result import MatchResult
from graphmatch.solve import solve
from graphmatch.solvers import DualAscent, Portfolio, Solver


class MultiGraphMethod(Protocol):
    """Anything that matches several graphs at once: a frozen dataclass whose fields are its options."""

    def solve(self, problem: MultiGraphProblem) -> MultiGraphResult:
        """Returns consistent matchings with their cost and a bound."""
        ...


_FEW_PAIRS = 28  # of 8 graphs: more of them confirm each other, and need less care


def pair_solver(
    pairs: int = 1, threads: int | None = None, on_cpu: bool = False, time_limit: float | None = None
) -> Solver:
    """Returns the solver of so many pairs: quick, since what it misses is found together with the other graphs."""
    if pairs > _FEW_PAIRS:
        return DualAscent(max_iterations=10, threads=threads, keep_state=False, on_cpu=on_cpu, time_limit=time_limit)
    return Portfolio(
        effort=0.05, max_iterations=15, threads=threads, keep_state=False, on_cpu=on_cpu, time_limit=time_limit
    )


def solve_pairs(problem: MultiGraphProblem, solver: Solver | None) -> MatchResult:
    """Returns all pairs solved each on its own, in one native call."""
    return solve(problem.costs, pair_solver(len(problem.pairs)) if solver is None else solver)


def check_problem(where: str, problem: object) -> None:
    """Refuses anything but a `MultiGraphProblem`."""
    if not isinstance(problem, MultiGraphProblem):
        cure = "Build one with MultiGraphProblem.from_graphs or from_pairs."
        raise TypeError(_check.message(where, "problem", "be a MultiGraphProblem", _check.describe(problem), cure))
