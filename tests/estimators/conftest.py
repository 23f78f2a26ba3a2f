"""Small problems on which gradient estimators are compared with enumeration."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import graphmatch as gm
from graphmatch.noise import Noise, draw

BATCH, NODES, EDGES1, EDGES2 = 3, 4, 5, 6


class Case:
    """Three small problems, costs that want gradients, and the weights of a linear loss."""

    batch = BATCH

    def __init__(self, seed: int = 0, n1: int = NODES, n2: int = NODES, dtype: torch.dtype = torch.float64) -> None:
        generator = torch.Generator().manual_seed(seed)

        def random(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

        self.unary = random(BATCH, n1, n2).requires_grad_()
        self.quadratic = (0.5 * random(BATCH, EDGES1, EDGES2)).requires_grad_()
        self.edges1 = torch.randint(n1, (BATCH, EDGES1, 2), generator=generator)
        self.edges2 = torch.randint(n2, (BATCH, EDGES2, 2), generator=generator)
        self.weights = (random(BATCH, n1, n2), random(BATCH, EDGES1, EDGES2))
        self.random = random

    @property
    def costs(self) -> tuple[Tensor, Tensor]:
        return self.unary, self.quadratic

    def arguments(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.unary, self.quadratic, self.edges1, self.edges2

    def weighted(self, solutions: tuple[Tensor, ...]) -> Tensor:
        """The linear loss of each problem, (b,)."""
        pairs = zip(self.weights, solutions, strict=True)
        return sum((weight * solution).sum((1, 2)) for weight, solution in pairs)

    def gradients(self, layer: gm.MatchingLayer) -> tuple[Tensor | None, ...]:
        loss = self.weighted(layer(*self.arguments())).sum()
        return torch.autograd.grad(loss, self.costs, allow_unused=True)

    def enumerated(self, unary: Tensor, quadratic: Tensor, unmatched_cost: float | None = None) -> gm.MatchResult:
        costs = (unary.detach(), quadratic.detach())
        problem = gm.LawlerProblem(*costs, self.edges1, self.edges2, None, unmatched_cost)
        return gm.BruteForce().solve(problem)

    def noise(self, noise: Noise, key: int = 0) -> list[Tensor]:
        """Standard noise (S, b, ...) on the costs that have some."""
        keys, instances = torch.full((BATCH,), key), torch.arange(BATCH)
        noisy = self.costs if noise.everywhere else self.costs[:1]
        return [
            draw(noise, keys, instances, tuple(cost.shape[1:]), None, place, 0, noise.samples).double()
            for place, cost in enumerate(noisy)
        ]

    def noisy_solutions(self, noise: Noise) -> tuple[list[gm.MatchResult], list[Tensor]]:
        """The enumerated solution of each sample, and the noise."""
        drawn = self.noise(noise)
        results = []
        for k in range(noise.samples):
            moved = [cost.detach() for cost in self.costs]
            for place, each in enumerate(drawn):
                moved[place] = moved[place] - noise.scale * each[k].to(moved[place].dtype)
            results.append(self.enumerated(*moved))
        return results, drawn

    @staticmethod
    def baselines(losses: Tensor, group: int) -> Tensor:
        """The mean loss of all samples outside the group of each one, by loops."""
        rows = []
        for k in range(len(losses)):
            others = [j for j in range(len(losses)) if j // group != k // group]
            rows.append(losses[others].mean(0) if others else torch.zeros_like(losses[0]))
        return torch.stack(rows) if rows else losses

    @staticmethod
    def perturbed_gradient(
        estimator: gm.PerturbedOptimizer, losses: Tensor, noises: list[Tensor], group: int | None
    ) -> list[Tensor]:
        """The formula: -(1 / sigma) mean_k (L_k - b_k) nu'(Z_k)."""
        centred = losses if group is None else losses - Case.baselines(losses, group)
        return [
            -(shaped(centred, noise) * density_score(estimator.noise, noise)).mean(0) / estimator.noise_scale
            for noise in noises
        ]


def density_score(kind: str, values: Tensor) -> Tensor:
    """Minus the derivative of the log density by hand: -z^2 / 2, and -z - exp(-z)."""
    values = values.detach().requires_grad_()
    logarithm = -values.square() / 2 if kind == "gaussian" else -values - torch.exp(-values)
    return -torch.autograd.grad(logarithm.sum(), values)[0]


def shaped(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(*values.shape, *[1] * (like.ndim - values.ndim))


@pytest.fixture(scope="session")
def make_case() -> type[Case]:
    """Builds a case from a seed and, if need be, numbers of nodes and a dtype; see `Case`."""
    return Case
