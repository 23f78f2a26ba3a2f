"""Robust tabu search on the true costs."""

from __future__ import annotations

from dataclasses import dataclass

from graphmatch import _check, _ops
from graphmatch.solvers.base import LawlerCall, LawlerSolver
from graphmatch.solvers.call import QapCall


@dataclass(frozen=True)
class Tabu(LawlerSolver):
    """Solver for quadratic problems without structure: tabu search with restarts.

    The first run starts from the rounding of one iteration of the dual ascent, the others from perturbed matchings and
    from linear assignments of noisy costs. Every step makes the cheapest allowed move: two nodes exchange partners, a
    node moves to a free partner, becomes unmatched, or takes the partner of another (the last two in partial problems).

    Dense problems have a table of the change of cost by every exchange; the first run starts from FAQ, the others from
    random permutations.

    Guarantee: a local optimum; the lower bound is that of one dual iteration (dense: of Gilmore and Lawler), so it is
    weak. Cost per step: sparse O(n1^2 + n1 n2), about 0.5 microseconds for 16 nodes and 3 for 100; dense O(n^2), about
    0.5 microseconds for 30 nodes and 1.5 for 64. Deterministic for a seed, for any number of threads (unless a time
    limit ends it).

    Args:
        steps: Moves of each run.
        restarts: Runs.
        seed: Of the tenures and the starts.
        max_gap: Gap that counts as optimal, relative to |objective| or the largest |cost|, whichever is larger.
        time_limit: Seconds for the whole call, shared out among the problems of a batch; None = no limit.
        threads: Threads per call; None = `torch.get_num_threads()`.
        keep_state: Return the duals as `result.state` for warm starts.
        on_cpu: Copy tensors on other devices to the CPU and the answer back. Without it problems on a GPU are solved
            there, all restarts at the same time and without waiting for the answers; a time limit cannot be kept, and
            costs and edges that break the rules are answered with INVALID.

    Source: E. Taillard, "Robust taboo search for the quadratic assignment problem", Parallel Computing 17 (1991).

    Example:
        >>> import torch, graphmatch as gm
        >>> edges = torch.combinations(torch.arange(5))
        >>> problem = gm.LawlerProblem(torch.zeros(1, 5, 5), -torch.eye(10)[None], edges, edges)
        >>> gm.Tabu().solve(problem).objective
        tensor([-10.], dtype=torch.float64)
    """

    has_cuda_kernel = True

    steps: int = 5000
    restarts: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        where = "Tabu"
        _check.option(where, "steps", self.steps, self.steps >= 1, "be at least 1", "5000 is the default.")
        _check.option(where, "restarts", self.restarts, self.restarts >= 1, "be at least 1", "4 is the default.")

    def call(self) -> LawlerCall:
        """Returns the native call of this solver."""
        return LawlerCall(_ops.TABU, runs=self.restarts, steps=self.steps, seed=self.seed)

    def dense_call(self, nodes: int) -> QapCall | None:
        """Returns the native call for dense problems."""
        return QapCall(_ops.QAP_TABU, runs=self.restarts, steps=self.steps, seed=self.seed)
