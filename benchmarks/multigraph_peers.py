"""Multi-graph solvers behind one face: something that builds their model of a case, and something that solves it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

import graphmatch as gm
from benchmarks.multigraph_cases import MultigraphCase
from benchmarks.peers import build_pylibmgm


@dataclass(frozen=True)
class Answer:
    """Matchings (p, n1) in the order of the case's instances, -1 = unmatched, and a bound where the solver has one."""

    assignment: np.ndarray
    lower_bound: float | None = None


@dataclass(frozen=True)
class Entrant:
    """A solver in the comparison.

    Attributes:
        name: In tables.
        build: Makes the solver's model of a case.
        solve: Returns what the solver finds, given the case and its model.
        package: What must be installed.
        largest: Most graphs that it gets: with more, one call takes longer than all the others together.
        planted_only: Whether it takes only complete problems made of weights and features.
        rounds: How often it solves each case.
        threads: How many it takes.
    """

    name: str
    build: Callable[[MultigraphCase], Any]
    solve: Callable[[MultigraphCase, Any], Answer]
    package: str
    largest: int = 16
    planted_only: bool = False
    rounds: int = 5
    threads: int = 1


def _graphmatch(name: str, method: gm.MultiGraphMethod) -> Entrant:
    def solve(_: MultigraphCase, problem: gm.MultiGraphProblem) -> Answer:
        result = method.solve(problem)
        return Answer(result.assignment.numpy(), result.lower_bound)

    return Entrant(name, MultigraphCase.problem, solve, "graphmatch")


def _build_pylibmgm(case: MultigraphCase) -> Any:
    model = importlib.import_module("pylibmgm").MgmModel()
    for pair, instance in case.instances.items():
        model.add_model(build_pylibmgm(instance, pair))
    return model


def _pylibmgm(level: str, threads: int = 1) -> Entrant:
    def solve(case: MultigraphCase, model: Any) -> Answer:
        mgm = importlib.import_module("pylibmgm")
        chosen = getattr(mgm.solver.OptimizationLevel, level)
        mgm.omp_set_num_threads(threads)
        if threads == 1:
            solution = mgm.solver.solve_mgm(model, chosen)
        else:
            solution = mgm.solver.solve_mgm_parallel(model, chosen, threads)
        # The number holds for all packages that share the runtime of OpenMP, PyTorch among them.
        mgm.omp_set_num_threads(1)
        labeling = solution.labeling()
        return Answer(np.stack([_numbers(labeling[pair]) for pair in case.instances]))

    name = f"pylibmgm {level}" + (f", {threads} threads" if threads > 1 else "")
    return Entrant(name, _build_pylibmgm, solve, "pylibmgm", rounds=2, threads=threads)


def _numbers(labels: Sequence[int | None]) -> np.ndarray:
    """Returns labels with -1 for None: a node that is left unmatched."""
    return np.array([-1 if label is None else label for label in labels], dtype=np.int64)


def _graphs(case: MultigraphCase) -> tuple[Tensor, Tensor]:
    """Returns edge weights (m, n, n) and the similarity of nodes (m, m, n, n)."""
    weights, features = (torch.from_numpy(np.stack(each)).float() for each in (case.weights, case.features))
    return weights, features[:, None] @ features[None].mT


def _affinity_matrices(case: MultigraphCase) -> Tensor:
    """Returns dense affinities (m, m, n^2, n^2), none of them negative, with the row k n + i for the pair (i, k)."""
    weights, alike = _graphs(case)
    graphs, nodes = weights.shape[:2]
    matrices = torch.empty(graphs, graphs, nodes**2, nodes**2)
    for a in range(graphs):
        for b in range(graphs):
            matrices[a, b] = torch.kron(weights[b], weights[a])
            matrices[a, b].diagonal().add_((alike[a, b] + 1).T.ravel())
    return matrices


def _pygmtools(
    name: str, build: Callable[[MultigraphCase], Any], match: Callable[[Any, Any], Tensor], largest: int = 16
) -> Entrant:
    def solve(case: MultigraphCase, model: Any) -> Answer:
        found = match(importlib.import_module("pygmtools"), model)
        return Answer(np.stack([found[pair].argmax(1).numpy() for pair in case.instances]))

    return Entrant(f"pygmtools {name}", build, solve, "pygmtools", largest, planted_only=True, rounds=1)


def _gamgm(pygm: Any, model: tuple[Tensor, Tensor]) -> Tensor:
    torch.manual_seed(0)
    return pygm.gamgm(*model, n_univ=model[0].shape[1], backend="pytorch")


OURS = [
    _graphmatch("Best", gm.Best(threads=1)),
    _graphmatch("Star, barycenter", gm.Star("barycenter")),
    _graphmatch("AllPairs", gm.AllPairs()),
    _graphmatch("Synchronize, cliques", gm.Synchronize("cliques")),
    _graphmatch("LocalSearch", gm.LocalSearch(threads=1)),
]
PEERS = [
    _pylibmgm("FAST"),
    _pylibmgm("DEFAULT"),
    _pylibmgm("EXHAUSTIVE"),
    _pylibmgm("EXHAUSTIVE", threads=2),
    _pygmtools("cao", _affinity_matrices, lambda pygm, model: pygm.cao(model, backend="pytorch"), largest=8),
    _pygmtools("mgm_floyd", _affinity_matrices, lambda pygm, model: pygm.mgm_floyd(model, backend="pytorch")),
    _pygmtools("gamgm", _graphs, _gamgm),
]
