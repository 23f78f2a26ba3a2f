"""The one verb: solve a batch of problems with a solver."""

from __future__ import annotations

from graphmatch import _check
from graphmatch.problem import KoopmansBeckmannProblem, LawlerProblem, LinearProblem, Problem
from graphmatch.result import MatchResult, State
from graphmatch.solvers import LAP, Portfolio, Solver, WarmStartSolver


def solve(problem: Problem, solver: Solver | None = None, state: State | None = None) -> MatchResult:
    """Solves every problem of a batch in one native call.

    Args:
        problem: A `LinearProblem`, `LawlerProblem` or `KoopmansBeckmannProblem`; costs are minimised.
        solver: Any solver; None takes `LAP()` for linear problems and `Portfolio()` for quadratic ones.
        state: `result.state` of an earlier solve of problems on the same graphs: a warm start. The batch may hold
            several variants of those problems, variant after variant.

    Returns:
        Assignments, objectives, certified lower bounds and a status per problem. No gradient: see `MatchingLayer`.

    Raises:
        TypeError: If the problem is none of the three kinds, or of a kind that the solver does not take; if the solver
            has no use for a state.
        ValueError: If the state is of problems of other sizes.

    Example:
        >>> import torch, graphmatch as gm
        >>> edges = torch.tensor([[0, 1], [1, 2], [2, 0]])
        >>> problem = gm.LawlerProblem(torch.zeros(1, 3, 3), -torch.eye(3)[None], edges, edges)
        >>> result = gm.solve(problem)
        >>> float(result.objective), bool(result.gap <= 1e-6)
        (-3.0, True)
    """
    if not isinstance(problem, LinearProblem | LawlerProblem | KoopmansBeckmannProblem):
        raise TypeError(
            _check.message(
                "solve",
                "problem",
                "be a LinearProblem, LawlerProblem or KoopmansBeckmannProblem",
                _check.describe(problem),
                "Build one from your costs.",
            )
        )
    if solver is None:
        solver = default_solver(problem)
    if state is None:
        return solver.solve(problem)
    if not isinstance(solver, WarmStartSolver):
        rule = "be left out for a solver that cannot be warm-started"
        raise TypeError(
            _check.message("solve", "state", rule, type(solver).__name__, "Use Portfolio, DualAscent or LAP.")
        )
    return solver.solve_from(state, problem)


def default_solver(problem: Problem) -> Solver:
    """Returns what `solve` takes when it is not told."""
    return LAP() if isinstance(problem, LinearProblem) else Portfolio()
