"""Robust tabu search on the true costs."""

from __future__ import annotations

from dataclasses import dataclass

from graphmatch import _check, _ops
from graphmatch.problem import Problem
from graphmatch.result import MatchResult, SolverState
from graphmatch.solvers.base import LawlerCall, check_budget


@dataclass(frozen=True)
class Tabu:
    """Solver for sparse quadratic problems without structure: tabu search with restarts.

    The first run starts from the rounding of one iteration of the dual ascent, the others from perturbed matchings and
    from linear assignments of noisy costs. Every step makes the cheapest allowed move: two nodes exchange partners, a
    node moves to a free partner, becomes unmatched, or takes the partner of another (the last two in partial problems).

    Guarantee: a local optimum; the lower bound is that of one dual iteration, so it is weak. Cost: O(n1^2 + n1 n2)
    vectorised per step, about 0.5 microseconds for 16 nodes and 3 for 100. Deterministic for a seed, for any number of
    threads (unless a time limit ends it).

    Args:
        steps: Moves of each run.
        restarts: Runs.
        seed: Of the tenures and the starts.
        max_gap: Gap that counts as optimal, relative to |objective| or the largest |cost|, whichever is larger.
        time_limit: Seconds for the whole call, shared out among the problems of a batch; None = no limit.
        threads: Threads per call; None = `torch.get_num_threads()`.
        keep_state: Return the duals as `result.state` for warm starts.
        on_cpu: Accept tensors on other devices by copying them to the CPU and the answer back.

    Source: E. Taillard, "Robust taboo search for the quadratic assignment problem", Parallel Computing 17 (1991).

    Example:
        >>> import torch, graphmatch as gm
        >>> edges = torch.combinations(torch.arange(5))
        >>> problem = gm.LawlerProblem(torch.zeros(1, 5, 5), -torch.eye(10)[None], edges, edges)
        >>> gm.Tabu().solve(problem).objective
        tensor([-10.], dtype=torch.float64)
    """

    steps: int = 5000
    restarts: int = 4
    seed: int = 0
    max_gap: float = 1e-6
    time_limit: float | None = None
    threads: int | None = None
    keep_state: bool = True
    on_cpu: bool = False

    def __post_init__(self) -> None:
        """Checks the options."""
        where = "Tabu"
        _check.option(where, "steps", self.steps, self.steps >= 1, "be at least 1", "5000 is the default.")
        _check.option(where, "restarts", self.restarts, self.restarts >= 1, "be at least 1", "4 is the default.")
        check_budget(where, self.time_limit, self.max_gap)

    def solve(self, problem: Problem) -> MatchResult:
        """Returns matchings and bounds; dense problems are solved as Lawler problems."""
        return self._solve(None, problem)

    def solve_from(self, state: SolverState, problem: Problem) -> MatchResult:
        """Returns the same, starting from the state of an earlier solve of problems on the same graphs."""
        return self._solve(state, problem)

    def _solve(self, state: SolverState | None, problem: Problem) -> MatchResult:
        return LawlerCall(_ops.TABU, runs=self.restarts, steps=self.steps, seed=self.seed).solve(
            "Tabu",
            problem,
            state,
            max_gap=self.max_gap,
            time_limit=self.time_limit,
            threads=self.threads,
            keep_state=self.keep_state,
            on_cpu=self.on_cpu,
        )
