"""Powers fitted to how a cost grows with a size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Power:
    """The fit cost = factor * size ^ exponent.

    Attributes:
        exponent: By least squares in logarithms.
        half_width: Of its 95 % interval, by Student's distribution; None with two points, which leave no error.
        factor: Cost at size 1.
        local: Exponent between the last two points alone: fixed costs count for less there.
    """

    exponent: float
    half_width: float | None
    factor: float
    local: float

    def __str__(self) -> str:
        """Returns the exponent with its interval."""
        interval = "" if self.half_width is None else f" ± {self.half_width:.2f}"
        return f"{self.exponent:.2f}{interval}"


def fit_power(sizes: Sequence[float], costs: Sequence[float]) -> Power | None:
    """Fits a power; None where fewer than two sizes differ.

    Raises:
        ValueError: If a size or a cost is not positive and finite.
    """
    points = [*sizes, *costs]
    if not all(math.isfinite(value) and value > 0 for value in points):
        raise ValueError(f"fit_power: sizes and costs must be positive and finite; got {points}. Leave others out.")
    if len(set(sizes)) < 2:
        return None
    order = np.argsort(sizes, kind="stable")
    x, y = np.log(np.asarray(sizes, dtype=float)[order]), np.log(np.asarray(costs, dtype=float)[order])
    line = stats.linregress(x, y)
    half_width = None
    if len(x) > 2:
        half_width = float(stats.t.ppf((1 + _CONFIDENCE) / 2, len(x) - 2) * line.stderr)
    local = float((y[-1] - y[-2]) / (x[-1] - x[-2])) if x[-1] > x[-2] else float(line.slope)
    return Power(float(line.slope), half_width, math.exp(float(line.intercept)), local)
