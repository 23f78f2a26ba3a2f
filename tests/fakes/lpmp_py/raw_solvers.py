"""The raw solver: strict about its arguments, exact, and as unforgiving as the real one about parameters."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from itertools import combinations, permutations
from typing import Any

import numpy as np

INTEGERS = {"maxIter", "primalComputationInterval", "timeout"}
CHOICES = {"graphMatchingRounding": {"mcf", "fw"}, "graphMatchingConstruction": {"left", "right", "both_sides"}}

# What a test sets, and what it reads.
old_build = False
delay = 0.0
spoil: Callable[[np.ndarray], np.ndarray] | None = None
calls: list[dict[str, Any]] = []


def gm_solver(
    unary_costs: np.ndarray,
    quadratic_costs: np.ndarray,
    edges_left: np.ndarray,
    edges_right: np.ndarray,
    solver_params: dict[str, Any],
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the 0/1 masks of the cheapest matching, in which unmatched nodes are free."""
    _exit_on_bad_parameters(solver_params)
    _check(unary_costs, quadratic_costs, edges_left, edges_right)
    calls.append({"unary": unary_costs, "quadratic": quadratic_costs, "parameters": dict(solver_params)})
    time.sleep(delay)
    if old_build:
        return np.zeros_like(unary_costs), np.zeros_like(quadratic_costs)
    best, best_cost, best_pairs = None, np.inf, None
    for mask in _matchings(*unary_costs.shape):
        pairs = mask[edges_left[:, 0]][:, edges_right[:, 0]] * mask[edges_left[:, 1]][:, edges_right[:, 1]]
        cost = (unary_costs * mask).sum() + (quadratic_costs * pairs).sum()
        if cost < best_cost:
            best, best_cost, best_pairs = mask, cost, pairs
    if spoil is not None and len(unary_costs) > 2:
        best = spoil(best)
    unary_costs[:] = np.nan  # nothing of the caller's may depend on what it handed over
    return best, best_pairs


def _exit_on_bad_parameters(parameters: dict[str, Any]) -> None:
    for key, value in parameters.items():
        is_known = str(value) in CHOICES[key] if key in CHOICES else key in INTEGERS and str(value).isdigit()
        if not is_known or (key in INTEGERS and not 0 < int(value) < 2**31):
            os._exit(1)
    if INTEGERS - parameters.keys():
        os._exit(1)


def _check(unary: np.ndarray, quadratic: np.ndarray, left: np.ndarray, right: np.ndarray) -> None:
    assert unary.dtype == quadratic.dtype == np.float64
    assert left.dtype == right.dtype == np.intc
    assert quadratic.shape == (len(left), len(right))
    assert min(*unary.shape, *quadratic.shape) > 0
    for array in (unary, quadratic, left, right):
        assert array.flags.c_contiguous
        assert np.isfinite(array).all()
    for edges, count in ((left, len(unary)), (right, unary.shape[1])):
        assert edges.shape[1] == 2
        assert edges.min() >= 0
        assert edges.max() < count
        assert (edges[:, 0] != edges[:, 1]).all(), "a loop"
        assert len({*map(tuple, edges.tolist())}) == len(edges), "a repeated edge"


def _matchings(n1: int, n2: int) -> list[np.ndarray]:
    found = []
    for size in range(min(n1, n2) + 1):
        for rows in combinations(range(n1), size):
            for columns in permutations(range(n2), size):
                mask = np.zeros((n1, n2))
                mask[list(rows), list(columns)] = 1.0
                found.append(mask)
    return found
