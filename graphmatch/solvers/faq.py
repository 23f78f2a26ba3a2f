"""Fast approximate quadratic assignment: Frank-Wolfe over the doubly stochastic matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from graphmatch import _check, _ops
from graphmatch.problem import KoopmansBeckmannProblem, Problem
from graphmatch.result import MatchResult
from graphmatch.solvers.base import take_kind
from graphmatch.solvers.call import QapCall, solve_dense


@dataclass(frozen=True)
class FAQ:
    """Solver for dense quadratic problems (`KoopmansBeckmannProblem`): a good matching in very little time.

    Minimises the objective over doubly stochastic matrices P by steps towards the linear assignment of the gradient
    with an exact line search, and rounds the end point. The softer step heads for the Sinkhorn matrix of the gradient,
    which averages over assignments that are nearly as good, until it stalls; then the harder one takes over.

    Guarantee: a valid matching, and the Gilmore-Lawler lower bound; `Portfolio` finds better matchings in more time.
    Cost: per step one matrix product (two for asymmetric matrices) and one linear assignment, about 0.03 ms for 30
    nodes and 0.15 ms for 64. Problems of a batch run over threads. Deterministic for a seed.

    Args:
        starts: Runs; the first begins at `initial`, the others at random interior points. The best answer counts.
        max_iterations: Steps of each run.
        tolerance: A run ends when a step lowers the objective by less than this, relative to its size.
        linear_step: "lap" or "sinkhorn".
        temperature: Of the Sinkhorn step, relative to the range of the gradient.
        initial: (n, n) or (b, n, n) doubly stochastic matrix, rows are nodes of graph 1; None = the barycenter, 1/n.
        refine: End each run with exchanges of two nodes as long as they improve (2-opt).
        seed: Of the random starts.
        max_gap: Gap that counts as optimal, relative to |objective| or the largest |cost|, whichever is larger.
        time_limit: Seconds for the whole call, shared out among the problems of a batch; None = no limit.
        threads: Threads per call; None = `torch.get_num_threads()`.
        on_cpu: Accept tensors on other devices by copying them to the CPU and the answer back.

    Source: J. T. Vogelstein et al., "Fast approximate quadratic programming for graph matching", PLoS ONE 10 (2015);
        A. Saad-Eldin et al., "Graph matching via optimal transport", arXiv 2111.05366 (the Sinkhorn step).

    Example:
        >>> import torch, graphmatch as gm
        >>> path = torch.tensor([[[0.0, 1, 0], [1, 0, 1], [0, 1, 0]]])
        >>> moved = path[:, [1, 0, 2]][:, :, [1, 0, 2]]  # its middle is node 0
        >>> gm.FAQ().solve(gm.KoopmansBeckmannProblem(path, -moved)).assignment[:, 1]
        tensor([0])
    """

    starts: int = 1
    max_iterations: int = 100
    tolerance: float = 1e-5
    linear_step: Literal["lap", "sinkhorn"] = "lap"
    temperature: float = 0.01
    initial: Tensor | None = None
    refine: bool = False
    seed: int = 0
    max_gap: float = 1e-6
    time_limit: float | None = None
    threads: int | None = None
    on_cpu: bool = False

    def __post_init__(self) -> None:
        """Checks the options."""
        _check.numbers(self)
        where = "FAQ"
        _check.option(where, "starts", self.starts, self.starts >= 1, "be at least 1", "1 is the default.")
        iterations = self.max_iterations
        _check.option(where, "max_iterations", iterations, iterations >= 0, "be at least 0", "100 is the default.")
        _check.option(where, "tolerance", self.tolerance, self.tolerance >= 0, "be at least 0", "1e-5 is the default.")
        known = self.linear_step in ("lap", "sinkhorn")
        if not known:
            rule = 'be "lap" or "sinkhorn"'
            raise ValueError(_check.message(where, "linear_step", rule, repr(self.linear_step), "Pick one."))
        warm = 0 < self.temperature < torch.inf
        _check.option(where, "temperature", self.temperature, warm, "be positive", "0.01 is the default.")
        _check.budget(where, self.max_gap, self.time_limit)

    def solve(self, problem: Problem) -> MatchResult:
        """Returns matchings with Gilmore-Lawler bounds; raises TypeError for other problems."""
        cure = "Use Portfolio for a LawlerProblem, LAP for linear costs."
        dense = take_kind("FAQ", problem, KoopmansBeckmannProblem, cure)
        call = QapCall(
            _ops.QAP_FAQ,
            max_iterations=self.max_iterations,
            runs=self.starts,
            tolerance=self.tolerance,
            sinkhorn=self.linear_step == "sinkhorn",
            temperature=self.temperature,
            refine=self.refine,
            seed=self.seed,
        )
        return solve_dense(
            "FAQ",
            dense,
            call,
            max_gap=self.max_gap,
            time_limit=self.time_limit,
            threads=self.threads,
            on_cpu=self.on_cpu,
            start=self._start(dense),
        )

    def _start(self, problem: KoopmansBeckmannProblem) -> Tensor | None:
        """Returns `initial` with a batch axis, checked to be finite and not negative."""
        start = self.initial
        if start is None:
            return None
        if isinstance(start, Tensor) and start.ndim == 2:
            start = start.expand(problem.batch_size, *start.shape)
        _check.floating("FAQ", "initial", _check.tensor("FAQ", "initial", start, 3, "(n, n) or (b, n, n)"))
        _check.shape("FAQ", "initial", start, tuple(problem.flow.shape), "as flow")
        if not bool(((start >= 0) & (start <= 2)).all()):
            rule, cure = "hold shares between 0 and 1", "Rows and columns should sum to 1."
            raise ValueError(_check.message("FAQ", "initial", rule, "others", cure))
        return start
