"""Tiny problems with all their solutions: exact marginals, and gradients to measure estimators against."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from graphmatch import _check
from graphmatch.gradients.base import Tensors

NOISES = ("gaussian", "gumbel")
_LARGEST_N = 7  # 5040 matchings
_BLOCK_ENTRIES = 1 << 20  # of (samples, solutions, costs) at a time


class Gibbs(NamedTuple):
    """Moments of the solutions y under p(y) = exp(-<c, y> / temperature) / Z.

    Attributes:
        mean: (b, d) float64, in the order of `EnumeratedProblem.flatten`.
        covariance: (b, d, d) float64.
    """

    mean: Tensor
    covariance: Tensor


class SmoothedGradient(NamedTuple):
    """A Monte-Carlo gradient and how sure it is.

    Attributes:
        gradient: (b, d) float64, in the order of `EnumeratedProblem.flatten`.
        covariance: (b, d, d) of its error; zero rows where there is no noise and hence no gradient.
    """

    gradient: Tensor
    covariance: Tensor

    @property
    def standard_error(self) -> Tensor:
        """(b, d) standard errors."""
        return self.covariance.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()


@dataclass(frozen=True, eq=False)
class EnumeratedProblem:
    """min_y <c, y> over solutions that are listed one by one.

    Build one with `assignment` or `quadratic`. `solve` goes wherever a function from costs to solutions is wanted, for
    instance into `graphmatch.gradients.FunctionOracle`.

    Attributes:
        vertices: (v, d) float64 zeros and ones, one solution per row; ties go to the first of them.
        shapes: Shape of each cost tensor without its batch axis; their sizes sum to d.
        edges1: (e1, 2) int64 edges of graph 1 of a quadratic problem, or None.
        edges2: (e2, 2) int64 edges of graph 2, or None.

    Example:
        >>> import torch, graphmatch as gm
        >>> problem = gm.testing.EnumeratedProblem.assignment(3)
        >>> problem.vertices.shape
        torch.Size([6, 9])
        >>> (matching,) = problem.solve((1 - torch.eye(3)[None],))
        >>> torch.equal(matching[0], torch.eye(3))
        True
        >>> problem.gibbs((torch.zeros(1, 3, 3),)).mean[0, 0]
        tensor(0.3333, dtype=torch.float64)
    """

    vertices: Tensor
    shapes: tuple[tuple[int, ...], ...]
    edges1: Tensor | None = None
    edges2: Tensor | None = None

    @staticmethod
    def assignment(n: int) -> EnumeratedProblem:
        """Returns the linear assignment of n to n nodes: costs (b, n, n), n! solutions.

        Raises:
            ValueError: If n is not from 1 to 7.
        """
        return EnumeratedProblem(_matchings("assignment", n).flatten(1), ((n, n),))

    @staticmethod
    def quadratic(n: int, edges1: Tensor, edges2: Tensor) -> EnumeratedProblem:
        """Returns the complete matchings of two graphs of n nodes: costs (b, n, n) and (b, e1, e2).

        A solution is [vec X; paid pairs], where the pair (e, f) with e = (i, j) and f = (k, l) is paid when i goes to
        k and j to l, as in `LawlerProblem`.

        Args:
            n: 1 to 7.
            edges1: (e1, 2) int64.
            edges2: (e2, 2) int64.

        Raises:
            TypeError, ValueError: For edges of another type or shape, or nodes out of range.
        """
        matchings = _matchings("quadratic", n)
        for name, edges in (("edges1", edges1), ("edges2", edges2)):
            _check.tensor("quadratic", name, edges, 2, "(e, 2)")
            _check.integer("quadratic", name, edges)
            _check.shape("quadratic", name, edges, (len(edges), 2), "one row (from, to) per edge")
            _check.indices("quadratic", name, edges[None], None, n)
        tails = matchings[:, edges1[:, 0, None], edges2[None, :, 0]]
        heads = matchings[:, edges1[:, 1, None], edges2[None, :, 1]]
        vertices = torch.cat([matchings.flatten(1), (tails * heads).flatten(1)], 1)
        return EnumeratedProblem(vertices, ((n, n), (len(edges1), len(edges2))), edges1, edges2)

    def flatten(self, costs: Tensors) -> Tensor:
        """Returns tensors (b, ...) shaped as the costs as one (b, d)."""
        return torch.cat([each.flatten(1) for each in costs], 1)

    def split(self, flat: Tensor) -> Tensors:
        """Returns (b, d) as tensors shaped as the costs: the inverse of `flatten`."""
        sizes = [math.prod(shape) for shape in self.shapes]
        return tuple(
            part.unflatten(1, shape) if len(shape) > 1 else part
            for part, shape in zip(flat.split(sizes, 1), self.shapes, strict=True)
        )

    def solve(self, costs: Tensors) -> Tensors:
        """Returns the cheapest solutions of any number of problems, shaped and typed as the costs."""
        flat = self.flatten(costs)
        vertices = self.vertices.to(flat)
        return self.split(vertices[(flat @ vertices.T).argmin(1)])

    def noisy_entries(self, everywhere: bool) -> int:
        """Returns how many costs, from the first one on, have noise: all, or those of the first tensor."""
        return sum(math.prod(shape) for shape in (self.shapes if everywhere else self.shapes[:1]))

    def gibbs(self, costs: Tensors, temperature: float = 1.0) -> Gibbs:
        """Returns exact mean and covariance of the solutions under the Gibbs distribution of the costs.

        The gradient of <g, mean> in the costs is -covariance @ g / temperature.
        """
        _check.number("gibbs", "temperature", temperature, "1.0 is the default.")
        _check.option("gibbs", "temperature", temperature, temperature > 0, "be positive", "1.0 is the default.")
        weights = torch.softmax(-(self.flatten(costs).double() @ self.vertices.T) / temperature, 1)
        mean = weights @ self.vertices
        centred = self.vertices - mean[:, None]
        return Gibbs(mean, torch.einsum("bv,bvi,bvj->bij", weights, centred, centred))

    def smoothed(
        self, costs: Tensors, noise: str = "gaussian", scale: float = 1.0, samples: int = 10_000, seed: int = 0,
        everywhere: bool = True,
    ) -> Tensor:  # fmt: skip
        """Returns the mean (b, d) of the solutions for costs - scale * Z; the arguments are as in `smoothed_gradient`.

        The same seed gives every problem and every call the same noise: differences of two calls are smooth.
        """
        flat = self.flatten(costs).double()
        total = torch.zeros_like(flat)
        for values in self._noise(noise, samples, seed, everywhere):
            moved = flat[:, None] - scale * values
            total += self.vertices[(moved @ self.vertices.T).argmin(2)].sum(1)
        return total / samples

    def smoothed_gradient(
        self, costs: Tensors, upstream: Tensors, noise: str = "gaussian", scale: float = 1.0, samples: int = 20_000,
        seed: int = 0, everywhere: bool = True,
    ) -> SmoothedGradient:  # fmt: skip
        """Returns the gradient of E<upstream, y(costs - scale * Z)> in the costs, without bias.

        Conditional Monte Carlo: given the noise on all costs but one, y switches once as that cost grows, and the
        derivative of the conditional mean is the jump of the loss times the density of the noise at the switch. It
        needs over ten times fewer samples than the score function.

        Args:
            costs: (b, ...) per cost tensor.
            upstream: Shaped as the costs.
            noise: "gaussian" or "gumbel", standard and independent.
            scale: Factor on the noise, in units of the costs.
            samples: Number of draws, the same ones for all problems.
            seed: Of the noise.
            everywhere: Noise on all costs, or on the first tensor only; then the gradient in the others is zero here.
        """
        flat, weights = self.flatten(costs).double(), self.flatten(upstream).double()
        _check.option("smoothed_gradient", "samples", samples, samples >= 2, "be at least 2", "20000 is the default.")
        _check.number("smoothed_gradient", "scale", scale, "1.0 is the default.")
        _check.option("smoothed_gradient", "scale", scale, scale > 0, "be positive", "1.0 is the default.")
        answers = [
            self._one_gradient(one, self.vertices @ weight, noise, scale, samples, seed, everywhere)
            for one, weight in zip(flat, weights, strict=True)
        ]
        gradients, covariances = zip(*answers, strict=True)
        return SmoothedGradient(torch.stack(gradients), torch.stack(covariances))

    def _one_gradient(
        self, costs: Tensor, losses: Tensor, noise: str, scale: float, samples: int, seed: int, everywhere: bool
    ) -> tuple[Tensor, Tensor]:
        active = self.noisy_entries(everywhere)
        paid = self.vertices[:, :active] > 0
        total = costs.new_zeros(active)
        squares = costs.new_zeros(active, active)
        for values in self._noise(noise, samples, seed, everywhere):
            moved = costs - scale * values
            objectives = (moved @ self.vertices.T)[..., None]
            with_it, with_index = torch.where(paid, objectives, torch.inf).min(1)
            without, without_index = torch.where(paid, torch.inf, objectives).min(1)
            switch = without - (with_it - moved[:, :active])
            jump = losses[with_index] - losses[without_index]
            derivative = -jump * _density(noise, (costs[:active] - switch) / scale) / scale
            total += derivative.sum(0)
            squares += derivative.T @ derivative
        mean = total / samples
        covariance = (squares / samples - mean[:, None] * mean) / (samples - 1)
        rest = len(costs) - active
        pad = torch.nn.functional.pad
        return pad(mean, (0, rest)), pad(covariance, (0, rest, 0, rest))

    def _noise(self, kind: str, samples: int, seed: int, everywhere: bool) -> Iterator[Tensor]:
        """Yields (count, d) standard noise, `samples` rows in all."""
        if kind not in NOISES:
            cure = "Both have a density."
            raise ValueError(
                _check.message("smoothed_gradient", "noise", "be 'gaussian' or 'gumbel'", repr(kind), cure)
            )
        generator = torch.Generator().manual_seed(seed)
        count, size = self.vertices.shape
        active = self.noisy_entries(everywhere)
        block = max(_BLOCK_ENTRIES // (count * size), 1)
        for first in range(0, samples, block):
            shape = (min(block, samples - first), size)
            if kind == "gaussian":
                values = torch.randn(shape, generator=generator, dtype=torch.float64)
            else:
                values = -torch.empty(shape, dtype=torch.float64).exponential_(generator=generator).log()
            values[:, active:] = 0
            yield values


def _matchings(where: str, n: int) -> Tensor:
    """Returns all permutation matrices (n!, n, n), in lexicographic order."""
    if not 1 <= n <= _LARGEST_N:
        raise ValueError(_check.message(where, "n", f"be from 1 to {_LARGEST_N}", n, "All n! matchings are listed."))
    orders = torch.tensor(list(itertools.permutations(range(n))))
    return torch.nn.functional.one_hot(orders, n).double()


def _density(kind: str, values: Tensor) -> Tensor:
    """Returns the density of standard noise; values may be infinite."""
    if kind == "gaussian":
        return torch.exp(-0.5 * values.square()) / math.sqrt(2 * math.pi)
    finite = values.clamp(-100, 1e4)
    return torch.exp(-finite - torch.exp(-finite))
