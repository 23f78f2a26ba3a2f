"""Matching as a layer of a neural network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from graphmatch import _check
from graphmatch.gradients import IMLE, FenchelYoung, GradientEstimator, ScoreFunction, estimated_solution
from graphmatch.gradients.base import Tensors, Upstream
from graphmatch.matching_kinds import KINDS
from graphmatch.matching_ops import CENTER_SIZE, number_of
from graphmatch.matching_oracle import MatchingOracle, SampleCertificates
from graphmatch.result import MatchResult
from graphmatch.solvers import Solver


class MatchingLayer(nn.Module):
    """Solves matching problems in the forward pass and estimates the gradients of their costs in the backward pass.

    Half-precision costs are solved in float32. Noise differs from call to call in training (the counter of calls is
    part of the state dict) and is off in evaluation. Works under torch.compile, torch.func.vmap and autocast. On a GPU
    neither pass waits for anything, with `Portfolio`, `DualAscent`, `Tabu` or `LAP` and any estimator but
    `StraightThroughSinkhorn`.

    Args:
        solver: Any solver; None takes `solve`'s choice.
        gradient: Any gradient estimator; None takes `IMLE()`.
        unmatched_cost: None = min(n1, n2) nodes must be matched; a number = cost of each unmatched node of graph 1.

    Attributes:
        calls: 0-d int64, training calls so far: the default `step` of the noise.
        memory: State of an estimator that adapts itself, None for others.

    Example:
        >>> import torch, graphmatch as gm
        >>> graph = gm.knn_graph(torch.rand(6, 2), k=2)
        >>> unary = torch.rand(1, 6, 6, requires_grad=True)
        >>> quadratic = torch.rand(1, 12, 12, requires_grad=True)
        >>> matching, paid_pairs = gm.MatchingLayer()(unary, quadratic, graph.edges, graph.edges)
        >>> gm.hamming_loss(matching, torch.eye(6)).backward()
        >>> unary.grad.shape, quadratic.grad.shape
        (torch.Size([1, 6, 6]), torch.Size([1, 12, 12]))
    """

    calls: Tensor
    memory: Tensor | None

    def __init__(
        self,
        solver: Solver | None = None,
        gradient: GradientEstimator | None = None,
        unmatched_cost: float | None = None,
    ) -> None:
        super().__init__()
        self.solver = solver
        self.gradient: GradientEstimator = IMLE() if gradient is None else gradient
        self.unmatched_cost = unmatched_cost
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        initial = getattr(self.gradient, "initial_memory", None)
        self.register_buffer("memory", None if initial is None else initial())
        self._last: tuple[str, Tensors, Upstream, Tensors] | None = None
        self._targets = SampleCertificates()

    def forward(
        self,
        unary_costs: Tensor,
        quadratic_costs: Tensor | None = None,
        edges1: Tensor | None = None,
        edges2: Tensor | None = None,
        sizes: Tensor | None = None,
        instances: Tensor | None = None,
        step: int | Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Returns the matching (b, n1, n2), and the paid pairs (b, e1, e2) if there are quadratic costs.

        Entries are 0/1, or their means over the samples of an estimator that perturbs.

        Args:
            unary_costs: (b, n1, n2) floating point.
            quadratic_costs: (b, e1, e2), or None for a linear assignment.
            edges1: (b, e1, 2) or (e1, 2) int64; with quadratic costs only.
            edges2: (b, e2, 2) or (e2, 2) int64; with quadratic costs only.
            sizes: Real sizes of a padded batch, as in `LawlerProblem` or `LinearProblem`.
            instances: (b,) int64, what the noise of each problem follows from; None = its place in the batch. Give the
                numbers of the samples in the data set, and the result does not depend on batches or ranks.
            step: What the noise follows from as well; None = the number of training calls so far. On a GPU a number or
                a tensor there: the copy of one would wait.

        Raises:
            TypeError, ValueError: As the problem classes; and if only some of the quadratic arguments are given.
        """
        kind, costs, edges = self._arguments(unary_costs, quadratic_costs, edges1, edges2)
        solutions = self._solutions(kind, costs, edges, sizes, instances, step)
        if kind == "linear":
            return _keep_real(solutions[0], sizes, 0).to(unary_costs.dtype)
        matching, pairs = (_keep_real(each, sizes, 2 * place) for place, each in enumerate(solutions))
        return matching.to(unary_costs.dtype), pairs.to(unary_costs.dtype)

    def dense(
        self,
        flow: Tensor,
        distance: Tensor,
        linear: Tensor | None = None,
        sizes: Tensor | None = None,
        instances: Tensor | None = None,
        step: int | Tensor | None = None,
    ) -> Tensor:
        """Returns the matching (b, n, n) of dense problems; differentiable in flow, distance and linear costs.

        Args:
            flow: (b, n, n) floating point, as in `KoopmansBeckmannProblem`.
            distance: (b, n, n).
            linear: (b, n, n), or None.
            sizes: (b,) real sizes of a padded batch.
            instances: As in `forward`.
            step: As in `forward`.

        Example:
            >>> import torch, graphmatch as gm
            >>> flow = torch.rand(1, 5, 5, requires_grad=True)
            >>> matching = gm.MatchingLayer(gradient=gm.BlackBox(step=0.5)).dense(flow, torch.rand(1, 5, 5))
            >>> gm.hamming_loss(matching, torch.eye(5)).backward()
            >>> flow.grad.shape
            torch.Size([1, 5, 5])
        """
        assignment_costs = torch.zeros_like(flow) if linear is None else linear
        costs = tuple(_solvable(each) for each in (assignment_costs, flow, distance))
        matching = self._solutions("dense", costs, (None, None), sizes, instances, step)[0]
        square = None if sizes is None else sizes[:, None].expand(-1, 2)
        return _keep_real(matching, square, 0).to(flow.dtype)

    def loss(
        self,
        target: Tensor,
        unary_costs: Tensor,
        quadratic_costs: Tensor | None = None,
        edges1: Tensor | None = None,
        edges2: Tensor | None = None,
        sizes: Tensor | None = None,
        instances: Tensor | None = None,
        step: int | Tensor | None = None,
    ) -> Tensor:
        """Returns the mean Fenchel-Young loss of matchings that should be the target, a scalar; see `FenchelYoung`.

        Args:
            target: (n1, n2) or (b, n1, n2) 0/1, a matching each; the pairs it pays follow from it.
            unary_costs: As in `forward`, and so are all others.
            quadratic_costs: (b, e1, e2), or None.
            edges1: (b, e1, 2) or (e1, 2).
            edges2: (b, e2, 2) or (e2, 2).
            sizes: Real sizes of a padded batch.
            instances: (b,) int64.
            step: What the noise follows from as well.

        Raises:
            TypeError, ValueError: As `forward`; and if the gradient estimator is no `FenchelYoung`.

        Example:
            >>> import torch, graphmatch as gm
            >>> layer = gm.MatchingLayer(gm.LAP(), gm.FenchelYoung()).eval()
            >>> layer.loss(torch.eye(2), torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]))
            tensor(2.)
        """
        estimator = self.gradient
        if not isinstance(estimator, FenchelYoung):
            rule, name = "be a FenchelYoung for a loss", type(estimator).__name__
            raise TypeError(_check.message("MatchingLayer", "gradient", rule, name, "Pass gradient=gm.FenchelYoung()."))
        kind, costs, edges = self._arguments(unary_costs, quadratic_costs, edges1, edges2)
        goal = _keep_real(_check.target("MatchingLayer", target, costs[0].shape), sizes, 0)
        oracle = self._oracle(kind, costs, edges, sizes, instances, step)
        losses, report = estimator.reported_loss(oracle, costs, oracle.completed(costs, goal), self.training)
        self._note(kind, costs, oracle, report)
        return losses.mean() if len(losses) else losses.sum()

    def expected_loss(
        self,
        function: Callable[..., Tensor],
        unary_costs: Tensor,
        quadratic_costs: Tensor | None = None,
        edges1: Tensor | None = None,
        edges2: Tensor | None = None,
        sizes: Tensor | None = None,
        instances: Tensor | None = None,
        step: int | Tensor | None = None,
    ) -> Tensor:
        """Returns the mean over noisy matchings of any loss of each problem, (b,); see `ScoreFunction`.

        Args:
            function: Takes a 0/1 matching (b, n1, n2), and the paid pairs (b, e1, e2) if there are quadratic costs;
                returns the loss of each problem, (b,). Called once per sample.
            unary_costs: As in `forward`, and so are all others.
            quadratic_costs: (b, e1, e2), or None.
            edges1: (b, e1, 2) or (e1, 2).
            edges2: (b, e2, 2) or (e2, 2).
            sizes: Real sizes of a padded batch.
            instances: (b,) int64.
            step: What the noise follows from as well.

        Raises:
            TypeError, ValueError: As `forward`; and if the gradient estimator is no `ScoreFunction`.
        """
        estimator = self.gradient
        if not isinstance(estimator, ScoreFunction):
            rule, name = "be a ScoreFunction for an expected loss", type(estimator).__name__
            raise TypeError(
                _check.message("MatchingLayer", "gradient", rule, name, "Pass gradient=gm.ScoreFunction().")
            )
        kind, costs, edges = self._arguments(unary_costs, quadratic_costs, edges1, edges2)
        oracle = self._oracle(kind, costs, edges, sizes, instances, step)

        def typed(*solutions: Tensor) -> Tensor:
            return function(*(each.to(unary_costs.dtype) for each in solutions))

        losses, report = estimator.reported_loss(oracle, costs, typed, self.training)
        self._note(kind, costs, oracle, report)
        return losses

    @property
    def solver(self) -> Solver | None:
        """The solver; may be replaced."""
        return self._solver

    @solver.setter
    def solver(self, solver: Solver | None) -> None:
        # Looked up here, not in `forward`: the table of all solvers is no business of torch.compile.
        self._solver, self._solver_number = solver, number_of(solver)

    def __getstate__(self) -> dict[str, Any]:
        """Returns what is copied and saved: all but the last call."""
        return {**self.__dict__, "_last": None, "_targets": SampleCertificates()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restores a layer; numbers of solvers are those of the process."""
        super().__setstate__(state)
        self.solver = self._solver

    @property
    def result(self) -> MatchResult | None:
        """The last forward solve, without noise: matchings, bounds, gaps and statuses; None before the first one."""
        if self._last is None:
            return None
        kind, costs, context, report = self._last
        problem = KINDS[kind].unchecked(costs, context, self.unmatched_cost)
        assignment, objective, bound, status, iterations, stage = report[:CENTER_SIZE]
        return MatchResult(problem, assignment, objective, bound, status, iterations, stage)

    @property
    def samples(self) -> SampleCertificates:
        """Certificates (S, b) of the noisy problems of the last forward pass; S = 0 where there was no noise."""
        if self._last is None:
            return SampleCertificates()
        objective, bound, status, _ = self._last[3][CENTER_SIZE:]
        return SampleCertificates(*(each.flatten(0, 1) for each in (objective, bound, status)))

    @property
    def targets(self) -> SampleCertificates:
        """Certificates (V, S, b) of the V variants that the last backward pass solved; not kept when compiled."""
        return self._targets

    def _arguments(
        self, unary_costs: Tensor, quadratic_costs: Tensor | None, edges1: Tensor | None, edges2: Tensor | None
    ) -> tuple[str, Tensors, Upstream]:
        """Returns kind, costs and edges of a call."""
        given = [each is not None for each in (quadratic_costs, edges1, edges2)]
        if any(given) != all(given):
            names = "quadratic_costs, edges1 and edges2"
            raise ValueError(_check.message("MatchingLayer", names, "come together", given, "Give all three or none."))
        _check.tensor("MatchingLayer", "unary_costs", unary_costs, 3, "(b, n1, n2)")
        if quadratic_costs is None:
            return "linear", (_solvable(unary_costs),), (None, None)
        edges = tuple(_batched(each, unary_costs.shape[0]) for each in (edges1, edges2))
        return "lawler", (_solvable(unary_costs), _solvable(quadratic_costs)), edges

    def _oracle(
        self, kind: str, costs: Tensors, edges: Upstream, sizes: Tensor | None, instances: Tensor | None, step: object
    ) -> MatchingOracle:
        """Returns the solver of a call, and counts it."""
        batch, device = costs[0].shape[0], costs[0].device
        key = self._key(step, device)
        if self.training and step is None:
            self.calls += 1
        if instances is None:
            instances = torch.arange(batch, device=device)
        _check.counters("MatchingLayer", instances, batch)
        context = (*edges, sizes, key.expand(batch), instances)
        memory = self.memory
        self._targets = SampleCertificates()
        return MatchingOracle(kind, self._solver_number, self.unmatched_cost, context, memory, self._targets)

    def _key(self, step: object, device: torch.device) -> Tensor:
        """Returns what the noise of a call follows from, 0-d int64 on the device."""
        if isinstance(step, Tensor) and not (step.is_floating_point() or step.is_complex()):
            return step.to(device, torch.int64)
        if step is not None:
            number = _check.whole_number("MatchingLayer", "step", step, "Count the calls.")
            return torch.full((), number, dtype=torch.int64, device=device)
        if self.calls.device.type == "cpu" and device.type == "cuda" and not torch.compiler.is_compiling():
            # A layer that was not moved to the GPU: a number goes there with the call, the copy of a tensor would wait.
            return torch.full((), int(self.calls), dtype=torch.int64, device=device)
        return self.calls.clone().to(device)

    def _solutions(
        self, kind: str, costs: Tensors, edges: Upstream, sizes: Tensor | None, instances: Tensor | None, step: object
    ) -> Tensors:
        oracle = self._oracle(kind, costs, edges, sizes, instances, step)
        solutions, report = estimated_solution(self.gradient, oracle, costs, self.training)
        self._note(kind, costs, oracle, report)
        return solutions

    def _note(self, kind: str, costs: Tensors, oracle: MatchingOracle, report: Tensors) -> None:
        self._last = (kind, tuple(cost.detach() for cost in costs), oracle.tensors, report)


def _batched(edges: Tensor | None, batch: int) -> Tensor | None:
    """Returns edges with a batch axis; the problem classes refuse what is no tensor."""
    return edges.expand(batch, *edges.shape) if isinstance(edges, Tensor) and edges.ndim == 2 else edges


def _solvable(costs: Tensor) -> Tensor:
    """Returns costs in a type that solvers take; gradients flow through the conversion."""
    # The problem classes refuse what is no tensor.
    is_half = isinstance(costs, Tensor) and costs.dtype in (torch.float16, torch.bfloat16)
    return costs.float() if is_half else costs


def _keep_real(solution: Tensor, sizes: Tensor | None, first: int) -> Tensor:
    """Stops gradients that a loss sends into the padding, which would change the size of the perturbation."""
    if sizes is None:
        return solution
    rows = torch.arange(solution.shape[1], device=solution.device) < sizes[:, first, None]
    columns = torch.arange(solution.shape[2], device=solution.device) < sizes[:, first + 1, None]
    return torch.where(rows[:, :, None] & columns[:, None, :], solution, 0)
