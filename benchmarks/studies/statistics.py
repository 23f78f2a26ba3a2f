"""Means over seeds, their intervals, and differences between arms of equal seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

Results = Mapping[int, Mapping[str, Any]]


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval from Student's t; without an interval where there is one value only."""

    mean: float
    low: float
    high: float
    count: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of 0."""
        return self.low > 0 or self.high < 0


def interval(values: Sequence[float]) -> Interval:
    """The mean of values that are independent and about normal, such as results of seeds."""
    array = np.asarray(values, dtype=np.float64)
    mean = float(array.mean())
    if len(array) < 2:
        return Interval(mean, -np.inf, np.inf, len(array))
    half = float(stats.t.ppf(0.975, len(array) - 1) * array.std(ddof=1) / np.sqrt(len(array)))
    return Interval(mean, mean - half, mean + half, len(array))


def estimate(results: Results, measure: str) -> Interval | None:
    """The mean of a measure over the seeds of an arm; None where it was not measured."""
    values = [each[measure] for each in results.values() if each.get(measure) is not None]
    return interval(values) if values else None


def difference(first: Results, second: Results, measure: str) -> Interval | None:
    """`first` minus `second`, paired by seed: arms of one seed share data, stage 1 and the order of samples."""
    pairs = [
        first[seed][measure] - second[seed][measure]
        for seed in first
        if seed in second and first[seed].get(measure) is not None and second[seed].get(measure) is not None
    ]
    return interval(pairs) if pairs else None
