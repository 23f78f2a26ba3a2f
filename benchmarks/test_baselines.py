"""Relaxations that users know, ours against pygmtools and against the portfolio: time and objective.

All solve complete problems in float64 in one thread. What needs non-negative affinities gets the same ones on both
sides; pygmtools gets them as dense matrices, whose making is not timed.
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import graphmatch as gm
from benchmarks.cases import Instance, exgra_instance, unstructured_instance
from benchmarks.peers import installed
from graphmatch.solvers.relaxation import relax

_FAMILIES = {"unstructured": unstructured_instance, "exgra": lambda nodes, seed: exgra_instance(nodes, 1.0, seed)}
# The dense matrices of a batch of larger problems would not fit.
_CASES = [("unstructured", 20, 1), ("unstructured", 20, 64), ("unstructured", 50, 1)]
_CASES += [("exgra", 16, 1), ("exgra", 16, 64), ("exgra", 32, 1)]
_SOLVERS = {"sm": gm.SpectralMatching(), "rrwm": gm.RRWM(), "ipfp": gm.IPFP(), "portfolio": gm.Portfolio(threads=1)}

pytestmark = [
    pytest.mark.benchmark(group="baselines"),
    pytest.mark.parametrize(("family", "nodes", "batch"), _CASES, ids=str),
]


def _instances(family: str, nodes: int, batch: int) -> list[Instance]:
    return [replace(_FAMILIES[family](nodes, seed), complete=True) for seed in range(max(batch, 3))]


def _problems(instances: list[Instance], batch: int) -> list[gm.LawlerProblem]:
    """The instances one by one, or all of them as one batch."""
    problems = [instance.problem() for instance in instances]
    return problems if batch == 1 else [gm.stack_problems(problems)]


def _affinity_matrices(problem: gm.LawlerProblem, method: str) -> Tensor:
    """Dense affinities (b, n1 n2, n1 n2) with the row k n1 + i for the pair (i, k)."""
    affinities = relax(problem) if method == "ipfp" else relax(problem).non_negative()
    n1, n2 = affinities.unary.shape[1:]
    matrices = torch.diag_embed(affinities.unary.mT.flatten(1))
    tail, head = (problem.edges2[:, None, :, side] * n1 + problem.edges1[:, :, None, side] for side in (0, 1))
    places = torch.stack([tail * n1 * n2 + head, head * n1 * n2 + tail])
    halves = (0.5 * affinities.quadratic).expand(2, *affinities.quadratic.shape)
    for place, half in zip(places, halves, strict=True):
        matrices.flatten(1).scatter_add_(1, place.flatten(1), half.flatten(1))
    return matrices


def _run(benchmark: Any, target: Any, arguments: list[Any]) -> list[np.ndarray]:
    """Times passes over all arguments; returns the assignments of the instances one after the other."""

    def solve_all() -> list[Tensor]:
        return [target(argument) for argument in arguments]

    return list(torch.cat(benchmark.pedantic(solve_all, rounds=2, warmup_rounds=int(len(arguments) > 1))).numpy())


def _describe(
    benchmark: Any, solver: str, method: str, case: tuple[str, int, int], instances: list[Instance], found: list
) -> None:
    family, nodes, batch = case
    objectives = [instance.objective(assignment) for instance, assignment in zip(instances, found, strict=True)]
    benchmark.extra_info |= {"solver": solver, "method": method, "family": family, "nodes": nodes, "batch": batch}
    # A round solves all of them: the time divided by this is that of one problem.
    benchmark.extra_info |= {"problems": len(instances), "objective": float(np.mean(objectives))}


@pytest.mark.parametrize("method", _SOLVERS)
def test_graphmatch(benchmark: Any, method: str, family: str, nodes: int, batch: int):
    instances = _instances(family, nodes, batch)
    solver = _SOLVERS[method]
    problems = _problems(instances, batch)
    found = _run(benchmark, lambda problem: gm.solve(problem, solver).assignment, problems)
    _describe(benchmark, "graphmatch", method, (family, nodes, batch), instances, found)


@pytest.mark.skipif(not installed("pygmtools"), reason="pygmtools is not installed")
@pytest.mark.parametrize("method", ["sm", "rrwm", "ipfp"])
def test_pygmtools(benchmark: Any, method: str, family: str, nodes: int, batch: int):
    pygmtools = importlib.import_module("pygmtools")
    pygmtools.set_backend("pytorch")
    instances = _instances(family, nodes, batch)
    count = len(instances) if batch > 1 else 1
    sizes = torch.full((count,), nodes)

    def solve(matrices: Tensor) -> Tensor:
        scores = getattr(pygmtools, method)(matrices, sizes, sizes)
        return pygmtools.hungarian(scores).argmax(2)

    matrices = [_affinity_matrices(problem, method) for problem in _problems(instances, batch)]
    found = _run(benchmark, solve, matrices)
    _describe(benchmark, "pygmtools", method, (family, nodes, batch), instances, found)
