"""What every solver returns: matchings with objectives, certified bounds and a status per problem."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from graphmatch import _device
from graphmatch.problem import LawlerProblem, Problem


class Status(IntEnum):
    """How the search for one problem ended. `text` says it in a sentence."""

    OPTIMAL = 0
    FEASIBLE = 1
    INFEASIBLE = 2
    INVALID = 3

    @property
    def text(self) -> str:
        """What the status means and what to do about it."""
        return _TEXTS[self]


_TEXTS = {
    Status.OPTIMAL: "The gap is certified to be at most max_gap.",
    Status.FEASIBLE: "The matching is valid, its gap is open: more effort, iterations or time may close it.",
    Status.INFEASIBLE: "No matching satisfies the constraints: forbid fewer assignments or give an unmatched_cost.",
    Status.INVALID: "The costs or edges break the problem's contract.",
}


class Stage(IntEnum):
    """What found a matching; exact and simple solvers have no stages."""

    NONE = 0
    WARM_START = 1
    DUAL_ASCENT = 2
    TABU = 3
    FUSION = 4
    BRANCH_AND_BOUND = 5
    FAQ = 6
    MEMETIC = 7


@dataclass(frozen=True, eq=False)
class SolverState:
    """Where a solver stopped: pass it to the next `solve` of problems on the same graphs, whatever their costs.

    The duals are feasible for any costs, so the bounds of the next solve hold as always; they are useful for costs that
    are close: a problem that the dual ascent certified, and whose old matching is still optimal, takes one iteration.

    Attributes:
        matching: (b, n1) int64, the matchings found.
        messages: (b, 2 p, n2 + 1) float32, two rows for each pair of nodes joined by edges, in units of `scale`.
        potentials: (b, n2) float32, in units of `scale`.
        scale: (b,) float64; 0 = nothing stored.
    """

    matching: Tensor
    messages: Tensor
    potentials: Tensor
    scale: Tensor


@dataclass(frozen=True, eq=False)
class LinearState:
    """Optimal duals and matchings of linear problems: a certificate, and a warm start for the next `solve` by `LAP`.

    row_duals[i] + column_duals[k] <= costs[i, k]. Where columns may stay free (n1 < n2, or with an `unmatched_cost`)
    column_duals <= 0, where rows may (n1 > n2) row_duals <= 0, and an `unmatched_cost` is an upper limit of row_duals.
    So no matching is cheaper than the sum of all duals; it equals the objective up to rounding.

    Attributes:
        matching: (b, n1) int64, the matchings found.
        row_duals: (b, n1) float64 in units of the costs; 0 for padding and where there is no matching.
        column_duals: (b, n2) float64, likewise.

    Example:
        >>> import torch, graphmatch as gm
        >>> state = gm.solve(gm.LinearProblem(torch.tensor([[[4.0, 1.0], [2.0, 3.0]]]))).state
        >>> float(state.row_duals.sum() + state.column_duals.sum())
        3.0
    """

    matching: Tensor
    row_duals: Tensor
    column_duals: Tensor


State = SolverState | LinearState


@dataclass(frozen=True, eq=False)
class MatchResult:
    """Matchings of a batch of problems.

    Attributes:
        problem: What was solved.
        assignment: (b, n1) int64, the node of graph 2 for each node of graph 1; -1 = unmatched or padding.
        objective: (b,) float64, recomputed from the costs; +inf where infeasible.
        lower_bound: (b,) float64, no matching is cheaper; rounded down, so it holds in spite of float arithmetic.
        status: (b,) int64, a `Status` per problem.
        iterations: (b,) int64, iterations of the solver.
        stage: (b,) int64, a `Stage` per problem: what found the matching; None for solvers without stages.
        state: Where the solver stopped, for a warm start of the next one; None for solvers that have no use for it.

    Example:
        >>> import torch, graphmatch as gm
        >>> result = gm.solve(gm.LinearProblem(torch.tensor([[[4.0, 1.0], [2.0, 3.0]]])))
        >>> result.matching
        tensor([[[0., 1.],
                 [1., 0.]]])
        >>> result.statuses
        [<Status.OPTIMAL: 0>]
    """

    problem: Problem
    assignment: Tensor
    objective: Tensor
    lower_bound: Tensor
    status: Tensor
    iterations: Tensor
    stage: Tensor | None = None
    state: State | None = None

    @property
    def absolute_gap(self) -> Tensor:
        """Objective - lower_bound, (b,) float64, in the units of the costs; NaN without a matching."""
        return self.objective - self.lower_bound

    @property
    def gap(self) -> Tensor:
        """Relative gap (objective - lower_bound) / |objective|, (b,) float64; 0 when closed, NaN without a matching.

        Where the objective is near zero look at `absolute_gap`.
        """
        return relative_gap(self.objective, self.lower_bound)

    @property
    def statuses(self) -> list[Status]:
        """The status of each problem as an enum."""
        return [Status(value) for value in self.status.tolist()]

    @property
    def stages(self) -> list[Stage]:
        """What found the matching of each problem, as an enum."""
        return [Stage.NONE] * len(self.objective) if self.stage is None else [Stage(v) for v in self.stage.tolist()]

    @property
    def matching(self) -> Tensor:
        """0/1 matching matrices (b, n1, n2) in the dtype of the costs."""
        return matching_matrix(self.assignment, _first_costs(self.problem))

    @property
    def paid_pairs(self) -> Tensor:
        """0/1 (b, e1, e2) in the dtype of the costs: the quadratic costs that the matching pays (Lawler problems)."""
        if not isinstance(self.problem, LawlerProblem):
            raise TypeError(
                f"MatchResult: paid_pairs must be asked of a LawlerProblem; got {type(self.problem).__name__}. "
                "Convert a KoopmansBeckmannProblem with to_lawler()."
            )
        return paid_pair_matrix(self.assignment, self.problem)


def relative_gap(objective: Tensor, lower_bound: Tensor) -> Tensor:
    """Returns (objective - lower_bound) / |objective|, 0 where closed, NaN without a solution."""
    difference = objective - lower_bound
    return torch.where(difference <= 0, 0.0, difference / objective.abs().clamp(min=torch.finfo(torch.float64).tiny))


def _first_costs(problem: Problem) -> Tensor:
    if isinstance(problem, LawlerProblem):
        return problem.unary_costs
    return problem.flow if hasattr(problem, "flow") else problem.costs


def matching_matrix(assignment: Tensor, like: Tensor) -> Tensor:
    """Returns the 0/1 matrices (b, n1, n2) of assignments (b, n1), in dtype and shape of the costs `like`."""
    columns = torch.arange(like.shape[2], device=assignment.device)
    return (assignment[:, :, None] == columns).to(like.dtype)


def paid_pair_matrix(assignment: Tensor, problem: LawlerProblem) -> Tensor:
    """Returns 0/1 (b, e1, e2): 1 where left edge e is mapped onto right edge f and its quadratic cost is paid."""
    nodes = problem.unary_costs.shape[2]
    return paid_pairs_of(assignment, problem.quadratic_costs, problem.edges1, problem.edges2, problem.sizes, nodes)


def paid_pairs_of(
    assignment: Tensor, like: Tensor, edges1: Tensor, edges2: Tensor, sizes: Tensor | None, nodes: int
) -> Tensor:
    """Returns the same of tensors that were checked before, in dtype and shape of the quadratic costs `like`."""
    if assignment.shape[1] == 0:
        return torch.zeros_like(like)
    _, count1, count2 = like.shape
    real = None
    if sizes is not None:
        left = torch.arange(count1, device=edges1.device) < sizes[:, 2, None]
        right = torch.arange(count2, device=edges1.device) < sizes[:, 3, None]
        real = left[:, :, None] & right[:, None, :]
        edges1 = torch.where(left[:, :, None], edges1, 0)  # padding may hold anything
    if _device.resident(edges1):  # edges of problems that are INVALID may lead anywhere
        edges1 = edges1.clamp(0, assignment.shape[1] - 1)
    # One number per pair of nodes of graph 2, so that one comparison decides; below 0 with an unmatched node.
    assignment = assignment.masked_fill(assignment < 0, -nodes * (nodes + 1))
    image = assignment.gather(1, edges1.flatten(1)).unflatten(1, (count1, 2))
    wanted = torch.add(image[..., 1], image[..., 0], alpha=nodes)
    offered = torch.add(edges2[..., 1], edges2[..., 0], alpha=nodes)
    paid = wanted[:, :, None] == offered[:, None, :]
    return (paid if real is None else paid & real).to(like.dtype)
