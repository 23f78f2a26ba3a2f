"""What gradient estimators should return: in closed form, by quadrature, by enumeration, and as finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from graphmatch.noise import Noise, draw
from graphmatch.studies.problems import StudyProblem
from graphmatch.testing import EnumeratedProblem

# Entries of (samples, solutions, costs) that enumerating a true gradient may fill.
_LARGEST_TRUTH = 250_000_000
# Nodes of the trapezoidal rule, which is exact to rounding for integrands that are smooth and vanish at both ends.
_NODES = 4001


def study_problem(nodes: int, seed: int, samples: int) -> StudyProblem:
    """Returns a random problem of that many nodes and directed edges per graph, with its true gradient.

    With 4 nodes it is that of `graphmatch bench gradients`.

    Args:
        nodes: 2 to 7.
        seed: Of graphs, costs, loss and noise.
        samples: Draws behind the true gradient; fewer where solutions are many.
    """
    generator = torch.Generator().manual_seed(seed)
    arcs = torch.tensor([(i, j) for i in range(nodes) for j in range(nodes) if i != j])
    edges1, edges2 = (arcs[torch.randperm(len(arcs), generator=generator)[:nodes]] for _ in range(2))
    problem = EnumeratedProblem.quadratic(nodes, edges1, edges2)
    shape = (1, problem.vertices.shape[1])
    costs, upstream = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    upstream = upstream / upstream.square().mean().sqrt()
    draws = min(samples, _LARGEST_TRUTH // problem.vertices.numel())
    found = problem.smoothed_gradient(problem.split(costs), problem.split(upstream), "gaussian", 1.0, draws, seed)
    return StudyProblem(problem, costs, upstream, found.gradient[0], found.covariance[0])


def central_differences(function: Callable[[Tensor], Tensor], at: Tensor, step: float) -> Tensor:
    """Returns the central differences (d,) at (d,) of a function that takes (m, d) and returns (m,)."""
    shifts = step * torch.eye(len(at), dtype=at.dtype)
    above, below = function(torch.cat([at + shifts, at - shifts])).chunk(2)
    return (above - below) / (2 * step)


@dataclass(frozen=True, eq=False)
class Draws:
    """Noise drawn once: everything computed from it changes smoothly with the costs, or jumps at the same places.

    Attributes:
        vertices: (v, d) solutions.
        noise: (S, d) standard normal.
    """

    vertices: Tensor
    noise: Tensor

    @staticmethod
    def random(problem: EnumeratedProblem, samples: int, seed: int) -> Draws:
        generator = torch.Generator().manual_seed(seed)
        shape = (samples, problem.vertices.shape[1])
        return Draws(problem.vertices, torch.randn(shape, generator=generator, dtype=torch.float64))

    @staticmethod
    def of_estimate(problem: EnumeratedProblem, samples: int, seed: int) -> Draws:
        """Returns the noise of the first estimate of every estimator with Gaussian noise of scale 1 on all costs."""
        noise = Noise(samples, 1.0, "gaussian", "independent", True, seed)
        zero = torch.zeros(1, dtype=torch.int64)
        parts = [
            draw(noise, zero, zero, (shape[0], shape[1]), None, place, 0, samples).double().flatten(2)[:, 0]
            for place, shape in enumerate(problem.shapes)
        ]
        return Draws(problem.vertices, torch.cat(parts, 1))

    def minimum(self, costs: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the mean least cost (m,) of the noisy problems, and its gradient (m, d), their mean solution."""
        noisy = self.noise @ self.vertices.T
        values, means = [], []
        for each in costs @ self.vertices.T:
            least, best = (each - noisy).min(1)
            shares = torch.bincount(best, minlength=len(self.vertices)).to(costs) / len(noisy)
            values.append(least.mean())
            means.append(shares @ self.vertices)
        return torch.stack(values), torch.stack(means)


def loss_gradient(
    problem: EnumeratedProblem, costs: Tensor, losses: Tensor, samples: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Returns the gradient (d,) of E L(y(c - Z)) for any loss (v,) of the solutions, and the covariance of its error.

    A cost without noise that only one solution pays makes every loss a linear one.
    """
    count, size = problem.vertices.shape
    shapes = ((size,), (count,))
    extended = EnumeratedProblem(torch.cat([problem.vertices, torch.eye(count, dtype=torch.float64)], 1), shapes)
    parts = (costs, torch.zeros(1, count, dtype=torch.float64))
    slopes = (torch.zeros_like(costs), losses[None])
    found = extended.smoothed_gradient(parts, slopes, "gaussian", 1.0, samples, seed, everywhere=False)
    return found.gradient[0, :size], found.covariance[0, :size, :size]


# One node that is matched with the cheapest of m nodes


def cheapest_shares(costs: Tensor, noise: str) -> Tensor:
    """Returns how often each of m noisy costs is the least, (b, m) for (b, m): exact to rounding."""
    if noise == "gumbel":
        return torch.softmax(-costs, 1)
    density, tail, width = _at_nodes(costs)
    return (density * _others(tail)).sum(2) * width


def cheapest_gradient(costs: Tensor, losses: Tensor, noise: str) -> Tensor:
    """Returns the gradient (m,) of E<losses, y(costs - Z)> at (m,), exact to rounding."""
    if noise == "gumbel":
        shares = torch.softmax(-costs, 0)
        return -shares * (losses - shares @ losses)
    densities, tails, width = _at_nodes(costs[None])
    density, tail = densities[0], tails[0]
    # The share of i grows with the cost of k where both are least at once.
    pairs = torch.stack([_without(tail, i) for i in range(len(costs))])
    jacobian = torch.einsum("in,kn,ikn->ik", density, density, pairs) * width
    jacobian.fill_diagonal_(0)
    jacobian -= torch.diag(jacobian.sum(1))  # a common change of all costs changes nothing
    return losses @ jacobian


def _at_nodes(costs: Tensor) -> tuple[Tensor, Tensor, float]:
    """Returns density and upper tail of each noisy cost at the nodes, (b, m, nodes), and the distance of the nodes."""
    nodes = torch.linspace(float(costs.min()) - 12, float(costs.max()) + 12, _NODES, dtype=costs.dtype)
    centred = nodes - costs[..., None]
    density = torch.exp(-0.5 * centred.square()) / math.sqrt(2 * math.pi)
    return density, torch.special.ndtr(-centred), float(nodes[1] - nodes[0])


def _others(tail: Tensor) -> Tensor:
    """Returns for each cost the product of the tails of all others, (b, m, nodes)."""
    each = range(tail.shape[1])
    return torch.stack([tail[:, [k for k in each if k != i]].prod(1) for i in each], 1)


def _without(tail: Tensor, left_out: int) -> Tensor:
    """Returns for each k the product of the tails (m, nodes) of all but k and the one that is left out."""
    each = range(len(tail))
    return torch.stack([tail[[j for j in each if j not in (left_out, k)]].prod(0) for k in each])


# Two solutions


def two_solutions_gradient(problem: EnumeratedProblem, costs: Tensor, upstream: Tensor) -> Tensor:
    """Returns the gradient (d,) of E<upstream, y(costs - Z)> with normal Z where there are two solutions: exact."""
    difference = problem.vertices[1] - problem.vertices[0]
    deviation = difference.norm()
    density = torch.exp(-0.5 * ((costs @ difference) / deviation) ** 2) / (deviation * math.sqrt(2 * math.pi))
    return -(upstream @ difference) * density * difference


# What estimators without noise are gradients of


def interpolated_loss(problem: EnumeratedProblem, upstream: Tensor, factor: float, costs: Tensor) -> Tensor:
    """Returns (min <c + factor g, y> - min <c, y>) / factor of costs (m, d), (m,): what `BlackBox` differentiates."""
    ahead, here = (((costs + shift) @ problem.vertices.T).amin(1) for shift in (factor * upstream, 0))
    return (ahead - here) / factor


def identity_loss(problem: EnumeratedProblem, upstream: Tensor, costs: Tensor) -> Tensor:
    """Returns -<g, c> of costs (m, d) without means of rows, columns and pairs: what `NegativeIdentity` does."""
    unary, quadratic = problem.split(costs)
    unary = unary - unary.mean(1, keepdim=True) - unary.mean(2, keepdim=True) + unary.mean((1, 2), keepdim=True)
    quadratic = quadratic - quadratic.mean((1, 2), keepdim=True)
    return -(problem.flatten((unary, quadratic)) * upstream).sum(1)


def relaxed_loss(problem: EnumeratedProblem, upstream: Tensor, temperature: float, at: Tensor, costs: Tensor) -> Tensor:
    """Returns the loss of a soft matching of costs (m, d), (m,): what `StraightThroughSinkhorn` differentiates.

    The costs are linearised at the solution of `at` (d,), which stays as it is when they change.
    """
    assert problem.edges1 is not None
    assert problem.edges2 is not None
    unary, quadratic = problem.split(costs)
    hard = problem.solve(problem.split(at[None]))[0][0]
    (tails1, heads1), (tails2, heads2) = problem.edges1.T, problem.edges2.T
    slopes = unary.clone()
    for e, f in torch.cartesian_prod(torch.arange(len(tails1)), torch.arange(len(tails2))).tolist():
        slopes[:, tails1[e], tails2[f]] += quadratic[:, e, f] * hard[heads1[e], heads2[f]]
        slopes[:, heads1[e], heads2[f]] += quadratic[:, e, f] * hard[tails1[e], tails2[f]]
    soft = _sinkhorn(slopes / temperature)
    pairs = soft[:, tails1[:, None], tails2[None]] * soft[:, heads1[:, None], heads2[None]]
    return (problem.flatten((soft, pairs)) * upstream).sum(1)


def _sinkhorn(costs: Tensor) -> Tensor:
    """Returns the doubly stochastic matrices (m, n, n) of costs in units of the temperature."""
    logarithm = -costs
    for _ in range(3000):
        logarithm = logarithm - logarithm.logsumexp(2, keepdim=True)
        logarithm = logarithm - logarithm.logsumexp(1, keepdim=True)
    return logarithm.exp()
