"""The default solver: every method where it pays."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from graphmatch import _check, _device, _ops
from graphmatch.problem import KoopmansBeckmannProblem, Problem, unchecked
from graphmatch.result import MatchResult, State
from graphmatch.solvers.base import LawlerCall, LawlerSolver, check_state, state_without_duals
from graphmatch.solvers.call import QapCall, check_rounding

_DECIDED_NODES = 8
_DECIDING_TREE = 1_000_000  # there are 109,601 partial permutations of 8 nodes
_HASTY = 0.1
_LEAST_SECONDS = 1e-3  # of a limit that is spent


@dataclass(frozen=True)
class Portfolio(LawlerSolver):
    """Solver for quadratic problems of both kinds: every method where it pays, problem by problem.

    Sparse problems (`LawlerProblem`): the dual ascent comes first and certifies structured ones within a few
    iterations. What is left open gets a short tabu search, a proof attempt (labels that cannot improve are removed;
    branch and bound decides the rest), longer tabu searches whose matchings are fused with the best one, and a more
    patient proof where the gap is small by then. It ends on the certificate, when nothing improves, or when the
    budget is spent.

    Dense problems (`KoopmansBeckmannProblem`): FAQ, then tabu searches of a pool of permutations and of their
    crossings, pool after pool, until several in a row find nothing better. A time limit is used up, by all threads,
    whatever the effort. Lower bounds are those of Gilmore and Lawler; up to 16 nodes the dual ascent of Hahn and
    Grant helps, and up to 8 branch and bound decides, unless the effort is below 0.1.

    On a GPU sparse problems get the dual ascent, then, unless the effort is below 0.1, tabu searches; the other stages
    run on the CPU only. All problems of a batch are solved at the same time, nothing waits for the answers, and costs
    and edges that break the rules are answered with INVALID. A time limit cannot be kept there.

    `result.stages` says what found the matching. Below effort 0.1 nothing larger than 12 nodes is proven, and noisy
    copies for gradient estimators get the dual ascent with its local search alone: their errors average out.

    Guarantee: the lower bound is re-evaluated in float64 and rounded down; a matching is returned in every case.
    Deterministic for a seed: the same answer for any number of threads and any batch layout (unless a time limit ends
    it). Cost on one core of a 2023 server: 16 nodes with 5 neighbours 0.06 ms when structured, 0.5 ms when not; 64
    nodes 1 ms and 20 ms; dense problems of 30 nodes take 0.4 s, of 64 nodes 3 s, and reach or nearly reach the best
    known values long before that.

    Args:
        effort: Factor on the budgets of everything after the dual ascent: 0.1 is hasty, 10 is thorough.
        max_iterations: Limit of iterations of the first dual ascent.
        seed: Of the random choices.
        max_gap: Gap that counts as optimal, relative to |objective| or the largest |cost|, whichever is larger.
        time_limit: Seconds for the whole call, shared out among the problems of a batch; None = no limit.
        threads: Threads per call; None = `torch.get_num_threads()`.
        keep_state: Return the duals as `result.state` for warm starts.
        on_cpu: Copy tensors on other devices to the CPU and the answer back. Without it sparse problems on a GPU are
            solved there, see above, and those on other devices are refused.

    Source: the sources of its parts: `DualAscent`, `Tabu`, `Fusion`, `BranchAndBound`, `FAQ`; U. Benlic, J.-K. Hao,
        Expert Systems with Applications 42 (2015) (crossings).

    Example:
        >>> import torch, graphmatch as gm
        >>> edges = torch.tensor([[0, 1], [1, 2]])
        >>> problem = gm.LawlerProblem(torch.tensor([[[0.0, 1, 1]] * 3]), -torch.eye(2)[None], edges, edges)
        >>> result = gm.Portfolio(max_gap=1e-4).solve(problem)
        >>> result.assignment, result.statuses
        (tensor([[0, 1, 2]]), [<Status.OPTIMAL: 0>])
    """

    has_cuda_kernel = True

    effort: float = 1.0
    max_iterations: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        where = "Portfolio"
        _check.option(where, "effort", self.effort, 0 < self.effort <= 1e6, "lie in (0, 1e6]", "1.0 is the default.")
        iterations = self.max_iterations
        _check.option(where, "max_iterations", iterations, iterations >= 1, "be at least 1", "200 is the default.")

    def call(self) -> LawlerCall:
        """Returns the native call of this solver."""
        return LawlerCall(_ops.PORTFOLIO, max_iterations=self.max_iterations, effort=self.effort, seed=self.seed)

    def converted_call(self) -> LawlerCall:
        """Returns the native call for dense problems of few nodes: they are decided, unless in haste."""
        if self.effort < _HASTY:
            return self.call()
        iterations = self.max_iterations
        return LawlerCall(_ops.BRANCH_AND_BOUND, max_iterations=iterations, max_nodes=_DECIDING_TREE, seed=self.seed)

    def dense_call(self, nodes: int) -> QapCall | None:
        """Returns the native call for dense problems; small ones are decided by branch and bound."""
        if nodes <= _DECIDED_NODES:
            return None
        effort = self.effort if self.time_limit is None else torch.inf
        return QapCall(_ops.QAP_PORTFOLIO, effort=effort, seed=self.seed)

    def _solve(self, problem: Problem, state: State | None) -> MatchResult:
        if not isinstance(problem, KoopmansBeckmannProblem) or problem.sizes is None:
            return super()._solve(problem, state)
        nodes = problem.flow.shape[1]
        check_rounding("Portfolio", problem.flow.device, self.on_cpu)
        few = problem.sizes <= _DECIDED_NODES
        if nodes <= _DECIDED_NODES or not bool(few.any()):
            return super()._solve(problem, state)
        return self._solve_apart(problem, few, state)

    def _solve_apart(self, problem: KoopmansBeckmannProblem, few: Tensor, state: State | None) -> MatchResult:
        """Returns answers of a batch, those of few nodes (b,) apart: how one is solved follows from its own size."""
        begin = time.monotonic()
        batch, nodes, _ = problem.flow.shape
        device = problem.flow.device
        matching = None
        if state is not None:
            known = check_state("Portfolio", state, (batch, nodes, nodes)).matching.to(device)
            matching = known.repeat(batch // max(len(known), 1), 1)
        assignment = torch.full((batch, nodes), -1, device=device)
        objective, bound = (torch.zeros(batch, dtype=torch.float64, device=device) for _ in range(2))
        status, iterations, stage = (torch.zeros(batch, dtype=torch.int64, device=device) for _ in range(3))
        for chosen, count in ((few, _DECIDED_NODES), (~few, nodes)):
            if not bool(chosen.any()):
                continue
            costs = {"flow": problem.flow, "distance": problem.distance, "linear": problem.linear}
            cut = {name: None if each is None else each[chosen, :count, :count] for name, each in costs.items()}
            part = unchecked(problem, sizes=None if problem.sizes is None else problem.sizes[chosen], **cut)
            start = None if matching is None else state_without_duals(matching[chosen, :count])
            limit = self.time_limit
            if limit is not None:
                limit = max(limit - (time.monotonic() - begin), _LEAST_SECONDS)
            answer = LawlerSolver._solve(replace(self, time_limit=limit), part, start)
            assignment[chosen, :count] = answer.assignment
            objective[chosen], bound[chosen] = answer.objective, answer.lower_bound
            status[chosen], iterations[chosen] = answer.status, answer.iterations
            if answer.stage is not None:
                stage[chosen] = answer.stage
        kept = state_without_duals(assignment) if self.keep_state else None
        return MatchResult(problem, assignment, objective, bound, status, iterations, stage, kept)


def quick_solver() -> Portfolio:
    """Returns the portfolio for losses that solve anew in every step: hasty, where the costs are.

    Without the CUDA module it copies costs of other devices to the CPU. Its matchings cost less than those of 100
    iterations of the dual ascent, in less time; proofs are not its business.
    """
    return Portfolio(max_gap=1e-3, effort=0.02, max_iterations=5, on_cpu=not _device.has_kernels())
