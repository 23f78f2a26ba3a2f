"""The problems of one call of a matching layer, with their solver: solutions, and solutions of noisy copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor

from graphmatch.gradients.base import Reliability
from graphmatch.gradients.sampling import Answers, sample_means
from graphmatch.matching_kinds import KINDS
from graphmatch.noise import Noise, draw
from graphmatch.problem import LinearProblem, Problem, unchecked
from graphmatch.result import MatchResult, State
from graphmatch.solve import default_solver, solve
from graphmatch.solvers import SampleCall, SamplingSolver, Solver, WarmStartSolver
from graphmatch.solvers.samples import SampleAnswers


@dataclass(frozen=True, eq=False)
class Batch:
    """The b problems of a call and its solver."""

    kind: str
    costs: tuple[Tensor, ...]
    context: Sequence[Tensor | None]  # edges1, edges2, sizes, keys, instances
    unmatched_cost: float | None
    solver: Solver | None
    state: State | None

    def problem(self) -> Problem:
        """Returns the problems, checked."""
        edges: Any = self.context[:2]
        return KINDS[self.kind].problem(self.costs, edges, self.context[2], self.unmatched_cost)

    def answers(self, checked: Problem, costs: tuple[Tensor, ...]) -> Answers:
        """Returns the solutions of variants (m * b) of the problems, variant after variant."""
        variants = costs[0].shape[0] // max(self.costs[0].shape[0], 1)
        result = self.result(repeated(checked, costs, variants))
        certificates = (result.objective, result.lower_bound, result.status, result.iterations)
        return Answers(self.solutions(result), (result.assignment,), certificates)

    def native_samples(self, problem: Problem, call: SampleCall) -> SampleAnswers | None:
        """Returns all samples from one call of the solver; None if it takes no such calls."""
        solver = default_solver(problem) if self.solver is None else self.solver
        if call.noise.everywhere or not isinstance(solver, SamplingSolver):
            return None
        return solver.sample(problem, call, self.state)

    def samples(self, problem: Problem, call: SampleCall, with_center: bool) -> SampleAnswers:
        """Returns the same from any solver, which is given copies of the problems."""
        center = self.result(problem) if with_center else None
        batch = self if center is None else replace(self, state=center.state)
        sampled = sample_means(
            partial(batch.answers, problem),
            partial(self.draw, call.noise),
            self.costs,
            call.noise,
            call.steps,
            call.signs,
            call.keep,
            Reliability(call.open_gap, call.weigh),
        )
        return SampleAnswers(sampled.means, sampled.kept[0] if call.keep else None, sampled.certificates, center)

    def counters(self) -> tuple[Tensor, Tensor]:
        """Returns what the noise of each problem follows from."""
        keys, instances = self.context[3:]
        if keys is None or instances is None:
            raise ValueError("matching: keys and instances must be given with noise; got None. Pass int64 tensors.")
        return keys, instances

    def result(self, problem: Problem) -> MatchResult:
        """Returns what the solver finds, starting from the state where it can."""
        takes_one = self.solver is None or isinstance(self.solver, WarmStartSolver)
        return solve(problem, self.solver, self.state if takes_one else None)

    def solutions(self, result: MatchResult) -> tuple[Tensor, ...]:
        """Returns one 0/1 tensor per cost tensor."""
        return KINDS[self.kind].solutions(result.assignment, result.problem)

    def draw(self, noise: Noise, place: int, first: int, count: int) -> Tensor:
        """Returns standard noise (count, b, ...) on one cost tensor."""
        keys, instances = self.counters()
        shape = (self.costs[place].shape[1], self.costs[place].shape[2])
        extent = KINDS[self.kind].extent(place, self.context[2])
        return draw(noise, keys, instances, shape, extent, place, first, count)


def repeated(problem: Problem, costs: tuple[Tensor, ...], variants: int) -> Problem:
    """Returns a problem with `variants` copies of a checked batch, whose costs were moved by finite steps only."""
    sizes = problem.sizes
    if sizes is not None and variants != 1:
        sizes = sizes.repeat(variants, *[1] * (sizes.ndim - 1))
    if isinstance(problem, LinearProblem):
        return unchecked(problem, costs=costs[0], sizes=sizes)
    if hasattr(problem, "flow"):
        return unchecked(problem, linear=costs[0], flow=costs[1], distance=costs[2], sizes=sizes)
    edges = {name: getattr(problem, name) for name in ("edges1", "edges2")}
    if variants != 1:
        edges = {name: each.repeat(variants, 1, 1) for name, each in edges.items()}
    return unchecked(problem, unary_costs=costs[0], quadratic_costs=costs[1], sizes=sizes, **edges)
