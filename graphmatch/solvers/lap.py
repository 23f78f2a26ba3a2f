"""Linear assignment by shortest augmenting paths."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from graphmatch import (
    _check,
    _cuda_linear_ops,  # noqa: F401 (registers the CUDA kernels)
    _device,
    _ops,
)
from graphmatch.problem import LinearProblem, Problem
from graphmatch.result import LinearState, MatchResult, State
from graphmatch.solvers.base import assemble, check_state_tensors, host_costs, take_kind, thread_count
from graphmatch.solvers.samples import SampleAnswers, SampleCall, sample_linear


@dataclass(frozen=True)
class LAP:
    """Exact solver for `LinearProblem`: shortest augmenting paths with dual certificates.

    Guarantee: optimal up to float64 rounding, for costs in narrower types as well; the gap is that of the dual
    certificate (about 1e-15, on CUDA 1e-16 (n1 + n2)). `result.state` holds the duals.
    Cost: O(n1^2 n2) per problem at worst, nearer to O(n1 n2) for random costs; problems of a batch run over threads.
    Devices: CUDA tensors are solved where they are, a warp for each problem of up to 256 rows and columns and a block
    for each larger one, without waiting for the GPU; that needs a build with nvcc. Tensors elsewhere need `on_cpu`, and
    so do the noisy copies of gradient estimators on any device but the CPU.
    Ties: where a row, or a search on its behalf, finds several columns equally cheap, it takes the first free one, else
    the first, so that constant costs give x_i = i; the matching need not be the lexicographically first of all optimal
    ones, and CUDA may choose another one than the CPU. Deterministic.
    Warm starts: the matching of the state is returned if none is cheaper. Square problems without `unmatched_cost`
    on the CPU start from its duals, which halves the time where costs have hardly changed; others are solved anew.

    Args:
        threads: Threads per call on the CPU; None = `torch.get_num_threads()`.
        on_cpu: Solve on the CPU whatever the device: tensors are copied there and the answer back.

    Source: R. Jonker, A. Volgenant, Computing 38 (1987).

    Example:
        >>> import torch, graphmatch as gm
        >>> costs = torch.tensor([[[1.0, 2.0, 0.0], [2.0, 0.0, 9.0]]])
        >>> result = gm.LAP().solve(gm.LinearProblem(costs))
        >>> result.assignment
        tensor([[2, 1]])
        >>> gm.solve(gm.LinearProblem(costs + 0.1), gm.LAP(), state=result.state).assignment  # a warm start
        tensor([[2, 1]])
    """

    threads: int | None = None
    on_cpu: bool = False

    def __post_init__(self) -> None:
        """Checks the options."""
        _check.numbers(self)

    def solve(self, problem: Problem) -> MatchResult:
        """Returns optimal matchings; raises TypeError for quadratic problems."""
        return self._solve(problem, None)

    def solve_from(self, state: State, problem: Problem) -> MatchResult:
        """Returns the same, starting from the duals and matchings of an earlier solve of problems of these sizes."""
        return self._solve(problem, state)

    def sample(self, problem: Problem, call: SampleCall, state: State | None) -> SampleAnswers | None:
        """Returns noisy copies of linear problems, solved; None for others, and for those that stay on a GPU."""
        if not isinstance(problem, LinearProblem) or (_device.resident(problem.costs) and not self.on_cpu):
            return None
        if state is not None:
            _checked(state, problem)
        known = state if isinstance(state, LinearState) else None
        return sample_linear("LAP", problem, call, known, thread_count("LAP", self.threads), self.on_cpu)

    def _solve(self, problem: Problem, state: State | None) -> MatchResult:
        linear = take_kind("LAP", problem, LinearProblem, "Use DualAscent for quadratic costs.")
        costs = _solvable_costs(linear.costs, self.on_cpu)
        sizes = None if linear.sizes is None else linear.sizes.to(costs.device)
        warm = () if state is None else tuple(value.to(costs.device) for value in _checked(state, linear))
        threads = thread_count("LAP", self.threads)
        *answers, row_duals, column_duals = _ops.linear_assignment(costs, sizes, linear.unmatched_cost, threads, *warm)
        device = linear.costs.device
        result = assemble(problem, tuple(answers), device)
        return replace(result, state=LinearState(result.assignment, row_duals.to(device), column_duals.to(device)))


def _solvable_costs(costs: Tensor, on_cpu: bool) -> Tensor:
    """Returns costs in float32 or float64, where they are to be solved."""
    if on_cpu or not _device.resident(costs):
        return host_costs("LAP", costs, on_cpu)
    costs = costs.detach()
    return costs if costs.dtype in (torch.float32, torch.float64) else costs.float()


def _checked(state: State, problem: LinearProblem) -> tuple[Tensor, ...]:
    """Returns what the native solver starts from: the matching and the row duals."""
    if not isinstance(state, LinearState):
        raise TypeError(
            _check.message("LAP", "state", "be a LinearState", _check.describe(state), "Pass result.state of a LAP.")
        )
    batch, n1, n2 = problem.costs.shape
    expected: dict[str, tuple[torch.dtype, int, int | None]] = {
        "matching": (torch.int64, 2, n1),
        "row_duals": (torch.float64, 2, n1),
        "column_duals": (torch.float64, 2, n2),
    }
    check_state_tensors("LAP", state, expected, state.matching, (batch, n1, n2))
    return state.matching, state.row_duals
