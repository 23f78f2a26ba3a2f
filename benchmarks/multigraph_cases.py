"""Sets of graphs that the multi-graph suite matches, and the one judge of all solvers' matchings."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

import graphmatch as gm
from benchmarks.cases import Instance
from graphmatch import _ops

Pair = tuple[int, int]


@dataclass(frozen=True, eq=False)
class MultigraphCase:
    """Sparse quadratic problems between the pairs of several graphs, in numpy.

    Attributes:
        name: Of the file, or family and seed.
        instances: One problem per pair (a, b), a < b; rows are nodes of graph a.
        weights: Symmetric edge weights (n, n) of each graph, where the problems are made of them.
        features: Unit node features (n, d) of each graph, likewise.
        planted: (m, n) int64, the node of the common origin that each node stands for, where there is one.
    """

    name: str
    instances: dict[Pair, Instance]
    weights: tuple[np.ndarray, ...] = ()
    features: tuple[np.ndarray, ...] = ()
    planted: np.ndarray | None = None

    @property
    def graphs(self) -> int:
        """Number of graphs m."""
        return 1 + max(max(pair) for pair in self.instances)

    def problem(self) -> gm.MultiGraphProblem:
        """Returns the case as graphmatch's problem, every check included."""
        return gm.MultiGraphProblem.from_pairs({pair: each.problem() for pair, each in self.instances.items()})

    def judge(self, assignment: np.ndarray) -> dict[str, float]:
        """Returns objective (+inf where a rule is broken), consistency and accuracy of matchings (p, n1), -1 = none.

        They come in the order of the instances. The objective is that of the pairwise matchings as they are, consistent
        or not.
        """
        problem = _judged(self)
        costs = problem.costs
        matched = torch.from_numpy(np.ascontiguousarray(assignment, dtype=np.int64))
        tensors = (costs.unary_costs, costs.quadratic_costs, costs.edges1, costs.edges2, costs.sizes)
        objectives = _ops.lawler_objective(*tensors, costs.unmatched_cost, matched, 1)
        needed = problem.node_counts[problem.pairs].amin(1)
        if costs.unmatched_cost is None and bool(((matched >= 0).sum(1) < needed).any()):
            objectives = torch.full_like(objectives, torch.inf)
        verdict = {
            "objective": float(objectives.sum()),
            "consistency": gm.multigraph.cycle_consistency(matched, problem.pairs, problem.node_counts),
        }
        if self.planted is not None:
            node_of = np.argsort(self.planted, axis=1)
            truth = np.stack([node_of[second][self.planted[first]] for first, second in self.instances])
            verdict["accuracy"] = float((assignment == truth).mean())
        return verdict


@cache
def _judged(case: MultigraphCase) -> gm.MultiGraphProblem:
    return case.problem()


@cache
def planted_case(graphs: int, seed: int, nodes: int = 16, noise: float = 0.3) -> MultigraphCase:
    """Draws noisy, shuffled copies of one weighted graph; matchings are complete.

    Edge weights w and unit node features f: unary costs are -f f', quadratic costs -w w' for every two edges, which
    come in both directions. The order of the random draws is part of the definition.
    """
    rng = np.random.default_rng(100 * graphs + seed)
    base = np.triu((rng.random((nodes, nodes)) < 0.4) * rng.random((nodes, nodes)), 1)
    base += base.T
    origin = rng.normal(size=(nodes, 8))
    weights, features, planted = [], [], []
    for _ in range(graphs):
        order = rng.permutation(nodes)
        change = noise * np.triu(rng.normal(size=(nodes, nodes)) * (base > 0), 1)
        weights.append(np.abs(base + change + change.T)[np.ix_(order, order)])
        noisy = (origin + rng.normal(size=origin.shape))[order]
        features.append(noisy / np.linalg.norm(noisy, axis=1, keepdims=True))
        planted.append(order)
    instances = {}
    for a, b in combinations(range(graphs), 2):
        edges1, edges2 = np.argwhere(weights[a] > 0), np.argwhere(weights[b] > 0)
        quadratic = -np.outer(weights[a][tuple(edges1.T)], weights[b][tuple(edges2.T)])
        instances[a, b] = Instance(-(features[a] @ features[b].T), quadratic, edges1, edges2, complete=True)
    name = f"m = {graphs}, seed {seed}"
    return MultigraphCase(name, instances, tuple(weights), tuple(features), np.stack(planted))


def _real_folder() -> Path:
    return Path(os.environ.get("GRAPHMATCH_DATA", "")) / "graph_matching_dd" / "mgm"


def real_files() -> list[str]:
    """Returns the names of the real instances; none where `GRAPHMATCH_DATA` does not lead to them."""
    return sorted(path.name for path in _real_folder().glob("*") if path.suffix in {".xz", ".dd"})


@cache
def real_case(file: str) -> MultigraphCase:
    """Reads a real instance; nodes may stay unmatched at cost 0."""
    instances = {}
    for pair, problem in gm.io.read_multigraph_dd(_real_folder() / file).items():
        parts = (problem.unary_costs, problem.quadratic_costs, problem.edges1, problem.edges2)
        instances[pair] = Instance(*(part[0].numpy() for part in parts))
    return MultigraphCase(file.split(".")[0], instances)
