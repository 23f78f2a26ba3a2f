"""The problems of the gradient study: small enough to enumerate, with the gradient of the smoothed loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from graphmatch.gradients import AdaptiveIMLE, FunctionOracle, GradientEstimator, estimated_solution
from graphmatch.gradients.base import Tensors
from graphmatch.layers import MatchingLayer
from graphmatch.solvers import BranchAndBound
from graphmatch.testing import EnumeratedProblem

NODES, EDGES = 4, 4
_BLOCK = 1 << 13  # samples of one call: what they need stays in the cache


@dataclass(frozen=True, eq=False)
class StudyProblem:
    """One problem, a linear loss <g, y>, and the gradient of E<g, y(c - Z)> with standard normal Z on all costs.

    Attributes:
        problem: Complete matchings of two graphs of 4 nodes and 4 directed edges: d = 32 costs.
        costs: (1, d) float64, standard normal.
        upstream: (1, d), normal, of root mean square 1.
        reference: (d,) the gradient.
        covariance: (d, d) of its error.
    """

    problem: EnumeratedProblem
    costs: Tensor
    upstream: Tensor
    reference: Tensor
    covariance: Tensor

    @staticmethod
    def random(seed: int, samples: int) -> StudyProblem:
        """Returns the problem of a seed, its gradient from that many draws."""
        generator = torch.Generator().manual_seed(seed)
        arcs = torch.tensor([(i, j) for i in range(NODES) for j in range(NODES) if i != j])
        edges1, edges2 = (arcs[torch.randperm(len(arcs), generator=generator)[:EDGES]] for _ in range(2))
        problem = EnumeratedProblem.quadratic(NODES, edges1, edges2)
        shape = (1, problem.vertices.shape[1])
        costs, upstream = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
        upstream = upstream / upstream.square().mean().sqrt()
        parts = problem.split(costs), problem.split(upstream)
        found = problem.smoothed_gradient(*parts, "gaussian", 1.0, samples, seed)
        return StudyProblem(problem, costs, upstream, found.gradient[0], found.covariance[0])

    @property
    def peak(self) -> float:
        """Largest entry of the upstream gradient: lambda g is the perturbation of size lambda * peak."""
        return float(self.upstream.abs().amax())

    def estimates(self, estimator: GradientEstimator, samples: int, repetitions: int, errors: float = 0.0) -> Tensor:
        """Returns (repetitions, d) independent estimates, with a solver that errs in this share of its answers."""
        block = max(_BLOCK // samples, 1)
        solve = self._fallible(errors) if errors else self.problem.solve
        parts = [
            self._estimates(estimator, solve, torch.arange(first, min(first + block, repetitions)))
            for first in range(0, repetitions, block)
        ]
        return torch.cat(parts).double()

    def _fallible(self, share: float) -> Callable[[Tensors], Tensors]:
        """Returns a solver that takes the second best solution in a random share of its answers."""
        generator = torch.Generator().manual_seed(0)

        def solve(costs: Tensors) -> Tensors:
            flat = self.problem.flatten(costs)
            vertices = self.problem.vertices.to(flat)
            best, second = (flat @ vertices.T).topk(2, largest=False).indices.unbind(1)
            wrong = torch.rand(len(flat), generator=generator) < share
            return self.problem.split(vertices[torch.where(wrong, second, best)])

        return solve

    def _estimates(
        self, estimator: GradientEstimator, solve: Callable[[Tensors], Tensors], instances: Tensor
    ) -> Tensor:
        leaf = self.costs.float().expand(len(instances), -1).clone().requires_grad_()
        initial = getattr(estimator, "initial_memory", None)
        oracle = FunctionOracle(solve, None, None if initial is None else initial(), instances)
        solutions, _ = estimated_solution(estimator, oracle, self.problem.split(leaf), training=True)
        return self._gradients(leaf, self.problem.flatten(solutions))

    def adapted_step(self, estimator: AdaptiveIMLE, batch: int, calls: int) -> float:
        """Returns the step of an adaptive estimator after that many calls on batches of this problem."""
        memory = estimator.initial_memory()
        costs = self.costs.float().expand(batch, -1)
        for call in range(calls):
            leaf = costs.clone().requires_grad_()
            oracle = FunctionOracle(self.problem.solve, torch.tensor(call), memory)
            solutions, _ = estimated_solution(estimator, oracle, self.problem.split(leaf), training=True)
            self._gradients(leaf, self.problem.flatten(solutions))
        return float(estimator.step_of(memory))

    def layer_estimate(self, estimator: GradientEstimator) -> Tensor:
        """Returns (1, d), one estimate through a matching layer, which knows what the solutions do not depend on."""
        leaf = self.costs.clone().requires_grad_()
        unary, quadratic = self.problem.split(leaf)
        solutions = MatchingLayer(BranchAndBound(), estimator)(
            unary, quadratic, self.problem.edges1, self.problem.edges2
        )
        return self._gradients(leaf, self.problem.flatten(tuple(solutions)))

    def _gradients(self, leaf: Tensor, solutions: Tensor) -> Tensor:
        return torch.autograd.grad((solutions * self.upstream.to(leaf)).sum(), leaf)[0]

    def gibbs_gradient(self) -> Tensor:
        """Returns (1, d), the exact gradient of the Gibbs distribution of temperature 1."""
        covariance = self.problem.gibbs(self.problem.split(self.costs)).covariance[0]
        return -(self.upstream @ covariance)

    def marginals_error(self, estimator: GradientEstimator, expected: Tensor, samples: int, repetitions: int) -> float:
        """Returns the root mean squared error (not relative) of the mean solutions that the forward pass shows."""
        costs = self.problem.split(self.costs.expand(repetitions, -1).contiguous())
        oracle = FunctionOracle(self.problem.solve)
        with torch.no_grad():
            means = self.problem.flatten(estimated_solution(estimator, oracle, costs, training=True)[0])
        return float((means - expected).square().sum(1).mean().sqrt())
