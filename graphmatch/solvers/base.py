"""What a solver is, and what all of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from graphmatch import _check, _cuda_lawler_ops, _device, _ops  # noqa: F401 (registers kernels)
from graphmatch.problem import KoopmansBeckmannProblem, LawlerProblem, Problem, on_host
from graphmatch.result import MatchResult, SolverState, State
from graphmatch.solvers.call import QapCall, assemble, check_rounding, host_costs, solve_dense, thread_count
from graphmatch.solvers.samples import SampleAnswers, SampleCall, sample_lawler


class Solver(Protocol):
    """Anything that turns a batch of problems into matchings with bounds."""

    def solve(self, problem: Problem) -> MatchResult:
        """Returns matchings, objectives and lower bounds of every problem of the batch."""
        ...


@runtime_checkable
class WarmStartSolver(Protocol):
    """A solver that can continue from where another solve stopped."""

    def solve(self, problem: Problem) -> MatchResult:
        """As `Solver.solve`."""
        ...

    def solve_from(self, state: State, problem: Problem) -> MatchResult:
        """Returns the same, starting from the duals and matchings of an earlier solve of problems on these graphs."""
        ...


P = TypeVar("P")


def take_kind(where: str, problem: object, kind: type[P], cure: str) -> P:
    """Returns the problem, or raises a TypeError that says which kind the solver takes."""
    if not isinstance(problem, kind):
        raise TypeError(_check.message(where, "problem", f"be a {kind.__name__}", type(problem).__name__, cure))
    return problem


@dataclass(frozen=True)
class LawlerCall:
    """What a solver class asks of the native solver of Lawler problems.

    Args:
        method: One of the numbers in `_ops`.
        max_iterations: Of the dual ascent, per problem.
        runs: Tabu searches or generations of fusion.
        steps: Moves of each tabu search.
        max_nodes: Of branch and bound.
        effort: Factor on the budgets of the portfolio.
        seed: Of the random choices.
    """

    method: int
    max_iterations: int = 1
    runs: int = 0
    steps: int = 0
    max_nodes: int = 0
    effort: float = 1.0
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class LawlerSolver(ABC):
    """What all native solvers of sparse quadratic problems have in common; each of them describes the options.

    Attributes:
        has_cuda_kernel: Whether sparse problems on a GPU are solved there; the host does not wait for the answers.
    """

    has_cuda_kernel: ClassVar[bool] = False

    max_gap: float = 1e-6
    time_limit: float | None = None
    threads: int | None = None
    keep_state: bool = True
    on_cpu: bool = False

    def __post_init__(self) -> None:
        """Checks the options."""
        _check.numbers(self)
        _check.budget(type(self).__name__, self.max_gap, self.time_limit)

    @abstractmethod
    def call(self) -> LawlerCall:
        """Returns the native call of this solver."""

    def dense_call(self, nodes: int) -> QapCall | None:
        """Returns the native call for dense problems of this size; None = they are solved as Lawler problems."""
        return None

    def converted_call(self) -> LawlerCall:
        """Returns the native call for dense problems that are solved as Lawler problems."""
        return self.call()

    def solve(self, problem: Problem) -> MatchResult:
        """Returns matchings and bounds."""
        return self._solve(problem, None)

    def solve_from(self, state: State, problem: Problem) -> MatchResult:
        """Returns the same, starting from the state of an earlier solve of problems on the same graphs."""
        return self._solve(problem, state)

    def _solve(self, problem: Problem, state: State | None) -> MatchResult:
        where = type(self).__name__
        if isinstance(problem, KoopmansBeckmannProblem):
            dense = self.dense_call(problem.flow.shape[1])
            if dense is not None:
                return self._solve_dense(problem, dense, state)
            lawler, call = problem.to_lawler(), self.converted_call()
        else:
            lawler, call = take_kind(where, problem, LawlerProblem, "Use LAP for linear costs."), self.call()
        threads = thread_count(where, self.threads)
        device = lawler.unary_costs.device
        known = None if state is None else check_state(where, state, tuple(lawler.unary_costs.shape))
        if self.stays(lawler.unary_costs):
            self._check_kernel(device)
            costs = [_solvable(each) for each in (lawler.unary_costs, lawler.quadratic_costs)]
        else:
            check_rounding(where, device, self.on_cpu)
            _check.memory(where, _working_bytes(lawler, threads), "Use fewer edges, smaller graphs or fewer threads.")
            lawler = on_host(lawler)
            costs = [host_costs(where, each, self.on_cpu) for each in (lawler.unary_costs, lawler.quadratic_costs)]
        warm: tuple[Tensor | None, ...] = (None, None, None, None)
        if known is not None:
            duals = (known.messages, known.potentials, known.scale, known.matching)
            warm = tuple(value.to(lawler.unary_costs.device) for value in duals)
        *answers, messages, potentials, scale = _ops.lawler_solve(
            *costs,
            lawler.edges1,
            lawler.edges2,
            lawler.sizes,
            lawler.unmatched_cost,
            *self._options(call, threads),
            *warm,
            self.keep_state,
        )
        result = assemble(problem, tuple(answers), device)
        if not self.keep_state:
            return result
        kept = (messages.to(device), potentials.to(device), scale.to(device))
        return replace(result, state=SolverState(result.assignment, *kept))

    def sample(self, problem: Problem, call: SampleCall, state: State | None) -> SampleAnswers | None:
        """Returns noisy copies of sparse problems, solved; None for others, and on a GPU, where copies are solved."""
        if not isinstance(problem, LawlerProblem) or self.stays(problem.unary_costs):
            return None
        where = type(self).__name__
        threads = thread_count(where, self.threads)
        _check.memory(where, _working_bytes(problem, threads), "Use fewer edges, smaller graphs or fewer threads.")
        known = None if state is None else check_state(where, state, tuple(problem.unary_costs.shape))
        options = self._options(self.call(), threads)
        return sample_lawler(where, problem, call, known, options, self.on_cpu, self.keep_state)

    def stays(self, costs: Tensor) -> bool:
        """Returns whether problems with these costs are to be solved on the GPU where they are."""
        return _device.resident(costs) and not self.on_cpu

    def _check_kernel(self, device: torch.device) -> None:
        """Refuses what cannot be solved on the GPU."""
        where = type(self).__name__
        cure = "Set on_cpu=True on the solver to copy it there and the answer back."
        if not self.has_cuda_kernel:
            cure = f"{cure[:-1]}, or use Portfolio, DualAscent or Tabu, which solve sparse problems on the GPU."
        elif not _device.has_kernels():
            cure = f"{cure[:-1]}: graphmatch was built without nvcc."
        else:
            if self.time_limit is not None:
                rule, cure = "be None on a GPU, which keeps no time", "Use max_iterations or steps, or on_cpu=True."
                raise ValueError(_check.message(where, "time_limit", rule, self.time_limit, cure))
            return
        raise ValueError(_check.message(where, "the problem", "be on the CPU", f"device {device}", cure))

    def _options(self, call: LawlerCall, threads: int) -> tuple[object, ...]:
        """Returns the arguments of the native solver from method to threads."""
        budgets = (call.max_iterations, call.runs, call.steps, call.max_nodes, call.effort)
        return call.method, *budgets, self.max_gap, call.seed, self.time_limit, threads

    def _solve_dense(self, problem: KoopmansBeckmannProblem, call: QapCall, state: State | None) -> MatchResult:
        where = type(self).__name__
        batch, nodes, _ = problem.flow.shape
        start = None
        if state is not None:
            device = problem.flow.device
            matching = check_state(where, state, (batch, nodes, nodes)).matching.to(device)
            matching = matching.repeat(batch // max(len(matching), 1), 1)
            start = (matching[:, :, None] == torch.arange(nodes, device=device)).double()
        result = solve_dense(
            where,
            problem,
            call,
            max_gap=self.max_gap,
            time_limit=self.time_limit,
            threads=self.threads,
            on_cpu=self.on_cpu,
            start=start,
        )
        return replace(result, state=state_without_duals(result.assignment)) if self.keep_state else result


def state_without_duals(matching: Tensor) -> SolverState:
    """Returns the state of dense problems with these matchings (b, n): they have no duals to keep."""
    batch, nodes = matching.shape
    device = matching.device
    return SolverState(
        matching,
        torch.zeros(batch, 0, nodes + 1, device=device),
        torch.zeros(batch, nodes, device=device),
        torch.zeros(batch, dtype=torch.float64, device=device),
    )


def _solvable(costs: Tensor) -> Tensor:
    """Returns costs in float32 or float64, the two types native solvers take."""
    costs = costs.detach()
    return costs if costs.dtype in (torch.float32, torch.float64) else costs.float()


def check_state(where: str, state: State, shape: tuple[int, ...]) -> SolverState:
    """Checks that a state is one of problems of shape (b, n1, n2), whose problem i takes entry i modulo its batch."""
    if not isinstance(state, SolverState):
        raise TypeError(
            _check.message(where, "state", "be a SolverState", _check.describe(state), "Pass result.state.")
        )
    batch, n1, n2 = shape
    expected = {
        "scale": (torch.float64, 1, None),
        "matching": (torch.int64, 2, n1),
        "potentials": (torch.float32, 2, n2),
        "messages": (torch.float32, 3, n2 + 1),
    }
    check_state_tensors(where, state, expected, state.scale, (batch, n1, n2))
    if state.messages.shape[1] % 2:
        rule = "have two rows per pair"
        raise ValueError(
            _check.message(where, "state.messages", rule, state.messages.shape[1], "Solve without a state first.")
        )
    return state


def check_state_tensors(
    where: str,
    state: State,
    expected: dict[str, tuple[torch.dtype, int, int | None]],
    first: Tensor,
    sizes: tuple[int, int, int],
) -> None:
    """Checks the tensors of a state; problem i of a batch takes entry i modulo the state's batch.

    Args:
        where: Name of the solver.
        state: What is checked.
        expected: Dtype, number of axes and last size (None = any) of each attribute.
        first: The attribute that says how many problems the state is of.
        sizes: (b, n1, n2) of the problem to be solved.
    """
    batch, n1, n2 = sizes
    count = first.shape[0] if isinstance(first, Tensor) and first.ndim else -1
    for name, (dtype, axes, width) in expected.items():
        value = getattr(state, name)
        fits = isinstance(value, Tensor) and value.dtype == dtype and value.ndim == axes and value.shape[0] == count
        if not fits or (width is not None and value.shape[-1] != width):
            rule = f"be that of {max(count, 0)} problems with n1 = {n1}, n2 = {n2}"
            raise ValueError(
                _check.message(where, f"state.{name}", rule, _check.describe(value), "Solve without a state first.")
            )
    if (count == 0 and batch > 0) or (count > 0 and batch % count):
        rule = f"have a batch size that divides {batch}"
        raise ValueError(_check.message(where, "state", rule, count, "Pass the state of the same problems."))


def _working_bytes(problem: LawlerProblem, threads: int) -> int:
    """Returns an upper limit of the bytes that the problems solved at the same time need beside their costs."""
    batch, n1, n2 = problem.unary_costs.shape
    pairs = min(problem.quadratic_costs.shape[1], n1 * (n1 - 1) // 2)
    entries = min(2 * problem.quadratic_costs.shape[2], n2 * (n2 - 1))
    stride = -(-n2 // 16) * 16
    tables = min(pairs * n2 * stride * 4, 256_000_000)
    tree = min(8 * n1 * n1 * (n2 + 8), 512_000_000)
    return min(threads, batch) * (tables + tree + pairs * (entries + 4 * stride) * 4 + 24 * n1 * (n1 + stride))
