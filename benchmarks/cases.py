"""Instances that the suites share: generated from seeds, the same on every machine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

import graphmatch as gm


@dataclass(frozen=True)
class Instance:
    """One sparse quadratic problem in numpy.

    Attributes:
        unary_costs: (n1, n2) float64.
        quadratic_costs: (e1, e2) float64.
        edges1: (e1, 2) int64.
        edges2: (e2, 2) int64.
        complete: Whether every node of graph 1 must be matched; otherwise it may stay unmatched at cost 0.
    """

    unary_costs: np.ndarray
    quadratic_costs: np.ndarray
    edges1: np.ndarray
    edges2: np.ndarray
    complete: bool = False

    def objective(self, assignment: np.ndarray) -> float:
        """Evaluates an assignment (n1,), -1 = unmatched: one judge for all solvers, independent of them.

        Raises:
            ValueError: If two nodes share a partner, or one has none and needs one.
        """
        matched = np.flatnonzero(assignment >= 0)
        if self.complete and len(matched) < len(assignment):
            raise ValueError(f"Instance: every node must be matched; got {assignment.tolist()}. Its solver is wrong.")
        if len(np.unique(assignment[matched])) != len(matched):
            raise ValueError(f"Instance: assignment must be injective; got {assignment.tolist()}. Its solver is wrong.")
        # An unmatched end has the image -1, which no edge of graph 2 has.
        images = assignment[self.edges1]
        paid = (images[:, None, :] == self.edges2[None, :, :]).all(-1)
        return float(self.unary_costs[matched, assignment[matched]].sum() + self.quadratic_costs[paid].sum())

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns the arguments of `gm.LawlerProblem`: a batch of one, in float64."""
        costs = (torch.from_numpy(self.unary_costs)[None], torch.from_numpy(self.quadratic_costs)[None])
        return *costs, torch.from_numpy(self.edges1), torch.from_numpy(self.edges2)

    def problem(self) -> gm.LawlerProblem:
        """Returns the instance as a batch of one problem."""
        return gm.LawlerProblem(*self.tensors(), unmatched_cost=None if self.complete else 0.0)


def exgra_instance(nodes: int, noise: float, seed: int, neighbours: int = 5, dim: int = 64) -> Instance:
    """Draws one instance of the family "ExGra, N nodes, noise s": two noisy views of N clustered points.

    Points scatter with deviation 0.5 around N/4 centres; the second view adds noise of deviation `noise`. Each view
    has its own nearest-neighbour graph. Affinities are cosines of node and edge features with Gumbel noise of scale
    0.05, less 0.5; costs are their negatives, edges weighted by one half.

    The order of the draws is part of the definition: numbers are comparable wherever the family is used.
    """
    rng = np.random.default_rng(seed)
    clusters = max(2, nodes // 4)
    centres = rng.normal(size=(clusters, dim))
    members = rng.integers(0, clusters, nodes)
    view1 = centres[members] + 0.5 * rng.normal(size=(nodes, dim))
    view2 = view1 + noise * rng.normal(size=(nodes, dim))
    edges1, edges2 = (_nearest_neighbours(view, neighbours) for view in (view1, view2))
    nodes_alike = _cosines(view1, view2)
    unary = 0.5 - (nodes_alike + rng.gumbel(0, 0.05, nodes_alike.shape))
    edges_alike = _cosines(_differences(view1, edges1), _differences(view2, edges2))
    quadratic = 0.5 * (0.5 - (edges_alike + rng.gumbel(0, 0.05, edges_alike.shape)))
    return Instance(unary, quadratic, edges1, edges2)


def unstructured_instance(nodes: int, seed: int, density: int = 3) -> Instance:
    """Draws one instance of the family "unstructured": two random directed graphs, normal costs, complete matchings.

    Each graph has `density * nodes` edges, drawn without replacement; nothing relates one graph to the other. The order
    of the draws is part of the definition.
    """
    rng = np.random.default_rng(7 * nodes + seed)
    pairs = np.argwhere(~np.eye(nodes, dtype=bool))
    edges1, edges2 = (pairs[np.sort(rng.choice(len(pairs), density * nodes, replace=False))] for _ in range(2))
    unary = rng.normal(size=(nodes, nodes))
    return Instance(unary, rng.normal(size=(len(edges1), len(edges2))), edges1, edges2, complete=True)


def exgra_batch(nodes: int, noise: float, seeds: range, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns unary costs, quadratic costs and both edge lists of several instances, stacked along a batch axis."""
    parts = [exgra_instance(nodes, noise, seed).tensors() for seed in seeds]
    unary, quadratic = (torch.cat([part[place] for part in parts]).to(dtype) for place in (0, 1))
    edges1, edges2 = (torch.stack([part[place] for part in parts]) for place in (2, 3))
    return unary, quadratic, edges1, edges2


def clustered_views(count: int, nodes: int, dim: int, noise: float, seed: int) -> list[Tensor]:
    """Returns `count` noisy views (nodes, dim) of the same clustered points, float32, that ask for gradients."""
    generator = torch.Generator().manual_seed(seed)
    clusters = max(2, nodes // 4)
    members = torch.randint(clusters, (nodes,), generator=generator)
    points = torch.randn(clusters, dim, generator=generator)[members]
    points += 0.5 * torch.randn(nodes, dim, generator=generator)
    return [(points + noise * torch.randn(nodes, dim, generator=generator)).requires_grad_() for _ in range(count)]


def _nearest_neighbours(points: np.ndarray, neighbours: int) -> np.ndarray:
    squared = np.square(points[:, None, :] - points[None, :, :]).sum(-1)
    np.fill_diagonal(squared, np.inf)
    nearest = np.argsort(squared, axis=1, kind="stable")[:, : min(neighbours, len(points) - 1)]
    origins = np.broadcast_to(np.arange(len(points))[:, None], nearest.shape)
    return np.stack([origins, nearest], axis=-1).reshape(-1, 2)


def _differences(points: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return points[edges[:, 0]] - points[edges[:, 1]]


def _cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(left, axis=1)[:, None] * np.linalg.norm(right, axis=1)[None, :]
    return (left @ right.T) / lengths


@dataclass(frozen=True)
class DenseInstance:
    """One dense quadratic problem in numpy.

    Attributes:
        name: Of the file or the family.
        flow: (n, n) float64.
        distance: (n, n) float64.
        best: Best known value; None where nobody has published one.
    """

    name: str
    flow: np.ndarray
    distance: np.ndarray
    best: float | None = None

    @property
    def nodes(self) -> int:
        """Number of facilities n."""
        return len(self.flow)

    def objective(self, assignment: np.ndarray) -> float:
        """Evaluates a permutation (n,): one judge for all solvers, independent of them.

        Raises:
            ValueError: If the assignment is no permutation.
        """
        if not np.array_equal(np.sort(assignment), np.arange(self.nodes)):
            received = assignment.tolist()
            raise ValueError(f"DenseInstance: assignment must be a permutation; got {received}. Its solver is wrong.")
        return float((self.flow * self.distance[np.ix_(assignment, assignment)]).sum())

    def gap(self, assignment: np.ndarray) -> float | None:
        """Returns the excess over the best known value, relative to it unless that is 0; None where there is none."""
        if self.best is None:
            return None
        return (self.objective(assignment) - self.best) / (abs(self.best) or 1.0)

    def problem(self) -> gm.KoopmansBeckmannProblem:
        """Returns the instance as a batch of one problem."""
        return gm.KoopmansBeckmannProblem(torch.from_numpy(self.flow)[None], torch.from_numpy(self.distance)[None])


def dense_instance(family: str, nodes: int, seed: int) -> DenseInstance:
    """Draws one dense instance; the order of the draws is part of the definition.

    "uniform": both matrices symmetric, integers from 0 to 99: nothing to hold on to. "grid": distances between the
    cells of a grid as square as `nodes` allows, few and small flows: a layout problem.
    """
    rng = np.random.default_rng(1000 * nodes + seed)

    def symmetric(matrix: np.ndarray) -> np.ndarray:
        upper = np.triu(matrix, 1)
        return upper + upper.T

    if family == "uniform":
        flow, distance = (symmetric(rng.integers(0, 100, (nodes, nodes))) for _ in range(2))
    else:
        columns = int(np.ceil(np.sqrt(nodes)))
        cells = np.stack(np.divmod(np.arange(nodes), columns), axis=1)
        distance = np.abs(cells[:, None, :] - cells[None, :, :]).sum(-1)
        flow = symmetric(rng.integers(1, 11, (nodes, nodes)) * (rng.random((nodes, nodes)) < 0.4))
    return DenseInstance(f"{family}{nodes}-{seed}", flow.astype(np.float64), distance.astype(np.float64))
