"""Fusion moves: the best combination of two matchings, again and again."""

from __future__ import annotations

from dataclasses import dataclass

from graphmatch import _check, _ops
from graphmatch.solvers.base import LawlerCall, LawlerSolver


@dataclass(frozen=True)
class Fusion(LawlerSolver):
    """Solver for sparse quadratic problems: proposals fused into an incumbent, which never gets worse.

    Each generation draws a proposal (a linear assignment of noisy costs, or the incumbent perturbed), improves it by
    local search, and fuses it with the incumbent: of all matchings that take each node's partner from one of the two,
    the best. Where the two differ, nodes fall into cycles and paths that decide together, and up to 4096 combinations
    are enumerated: the fusion is then exact.

    Guarantee: a local optimum; the lower bound is that of one dual iteration, so it is weak. Deterministic for a seed,
    for any number of threads (unless a time limit ends it).

    Args:
        generations: Proposals.
        seed: Of the proposals.
        max_gap: Gap that counts as optimal, relative to |objective| or the largest |cost|, whichever is larger.
        time_limit: Seconds for the whole call, shared out among the problems of a batch; None = no limit.
        threads: Threads per call; None = `torch.get_num_threads()`.
        keep_state: Return the duals as `result.state` for warm starts.
        on_cpu: Accept tensors on other devices by copying them to the CPU and the answer back.

    Source: L. Hutschenreiter et al., "Fusion moves for graph matching", ICCV 2021; the exact inner step is our own.

    Example:
        >>> import torch, graphmatch as gm
        >>> edges = torch.combinations(torch.arange(5))
        >>> problem = gm.LawlerProblem(torch.zeros(1, 5, 5), -torch.eye(10)[None], edges, edges)
        >>> gm.Fusion().solve(problem).objective
        tensor([-10.], dtype=torch.float64)
    """

    generations: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        where = "Fusion"
        _check.option(where, "generations", self.generations, self.generations >= 1, "be at least 1", "Try 100.")

    def call(self) -> LawlerCall:
        """Returns the native call of this solver."""
        return LawlerCall(_ops.FUSION, runs=self.generations, seed=self.seed)
