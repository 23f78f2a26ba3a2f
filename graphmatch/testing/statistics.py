"""What replicates of a random gradient say about its error: size, bias, and whether there is one."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from graphmatch import _check


class Bias(NamedTuple):
    """Norm of the bias relative to the norm of the expected gradient, and its standard error."""

    value: float
    standard_error: float


def relative_rmse(replicates: Tensor, expected: Tensor) -> float:
    """Returns the root mean squared error of replicates (r, d) relative to the norm of what is expected (d,)."""
    return float((replicates - expected).square().sum(1).mean().sqrt() / expected.norm())


def bias_of(replicates: Tensor, expected: Tensor, expected_covariance: Tensor | None = None) -> Bias:
    """Returns the relative bias of the replicates' mean, less what chance alone would make of it.

    Args:
        replicates: (r, d) independent estimates.
        expected: (d,).
        expected_covariance: (d, d) of the error of `expected`; None = none.

    Example:
        >>> import torch, graphmatch as gm
        >>> noise = torch.randn(2000, 3, generator=torch.Generator().manual_seed(0))
        >>> expected = torch.tensor([0.0, 3.0, 4.0])
        >>> bias = gm.testing.bias_of(0.1 * noise + 0.9 * expected, expected)
        >>> abs(bias.value - 0.1) < 4 * bias.standard_error
        True
    """
    difference, covariance = _mean_difference(replicates, expected, expected_covariance)
    distance = difference.square().sum()
    squared = (distance - covariance.trace()).clamp(min=0)
    # Along the bias where there is one; below the noise, what the noise alone would show.
    direction = difference / distance.sqrt().clamp(min=torch.finfo(distance.dtype).tiny)
    along = direction @ covariance @ direction
    error = torch.where(squared > along, along.sqrt(), covariance.trace().sqrt())
    norm = expected.double().norm()
    return Bias(float(squared.sqrt() / norm), float(error / norm))


def mean_test(replicates: Tensor, expected: Tensor, expected_covariance: Tensor | None = None) -> float:
    """Returns the probability that replicates with this mean would stray as far from it: small = biased.

    Hotelling's test: (mean - expected)' covariance^-1 (mean - expected), by the F distribution. Directions in which
    neither replicates nor expectation vary must agree up to rounding, or the answer is 0.

    Args:
        replicates: (r, d) independent estimates, r more than d; five times as many make a good test.
        expected: (d,).
        expected_covariance: (d, d) of the error of `expected`; None = none.

    Source: H. Hotelling, "The generalization of Student's ratio", Annals of Mathematical Statistics 2, 1931.

    Example:
        >>> import torch, graphmatch as gm
        >>> values = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
        >>> gm.testing.mean_test(values, torch.zeros(3)) > 0.01
        True
        >>> gm.testing.mean_test(values, torch.tensor([0.5, 0.0, 0.0])) > 1e-4
        False
    """
    from scipy.stats import f as f_distribution

    count, size = replicates.shape
    if count <= size:
        rule = f"hold more than {size} estimates of {size} numbers"
        raise ValueError(_check.message("mean_test", "replicates", rule, count, "Draw more of them."))
    difference, covariance = _mean_difference(replicates, expected, expected_covariance)
    variances, directions = torch.linalg.eigh(covariance)
    parts = directions.T @ difference
    varies = variances > 1e-12 * variances[-1]
    rounding = 1e-9 * (expected.double().norm() + difference.norm())
    if bool((parts[~varies].abs() > rounding).any()):
        return 0.0
    rank = int(varies.sum())
    if rank == 0:
        return 1.0
    statistic = float((parts[varies].square() / variances[varies]).sum())
    return float(f_distribution.sf(statistic * (count - rank) / (rank * (count - 1)), rank, count - rank))


def _mean_difference(replicates: Tensor, expected: Tensor, expected_covariance: Tensor | None) -> tuple[Tensor, Tensor]:
    """Returns mean - expected and the covariance of its error, in float64."""
    values = replicates.double()
    covariance = torch.cov(values.T, correction=1).reshape(values.shape[1], values.shape[1]) / len(values)
    if expected_covariance is not None:
        covariance = covariance + expected_covariance
    return values.mean(0) - expected.double(), covariance
