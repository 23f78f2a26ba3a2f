"""Soft matching of structured graphs of any sizes, and barycenters under it: entropic fused Gromov-Wasserstein.

A coupling T (n1, n2) >= 0 of two graphs has the masses p of the nodes of one and q of the other as its sums. With the
share a of the structure and the temperature t it minimises

    F(T) = (1 - a) sum_ij |x_i - y_j|^2 T_ij  +  a sum_ijkl (C_ik - D_jl)^2 T_ij T_kl  +  t sum_ij T_ij (log T_ij - 1).

The problem is not convex. From the product of the masses each step solves the problem with the second sum made linear,
which is entropic transport (Sinkhorn's iteration), and moves towards the solution: all the way if F falls, otherwise
half of it and so on. The fixed points are those of Peyré's projected gradient; F never rises.

The barycenter of graphs with weights w_s minimises sum_s w_s F_s(T_s) over (X, C) and all couplings. Given the
couplings T_s (n_s, N) and its masses p it is

    X = sum_s w_s diag(1/p) T_s' X_s,      C = sum_s w_s T_s' C_s T_s / (p p').

For uniform masses, graphs of one size and the coupling P / n of a permutation, the first two sums are the square of
`sga_distance`: this is its relaxation.

Sources: G. Peyré, M. Cuturi, J. Solomon, "Gromov-Wasserstein averaging of kernel and distance matrices", ICML 2016;
T. Vayer et al., "Optimal transport for structured data with application on graphs", ICML 2019; K. Bredies,
D. A. Lorenz, P. Maass, "A generalized conditional gradient method and its connection to an iterative shrinkage
method", Comput. Optim. Appl. 42 (2009), for the steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from graphmatch import _check
from graphmatch.graphs import Graph
from graphmatch.multigraph.structured import (
    StructuredGraph,
    check_structure_weight,
    normalised_weights,
    structured,
    structured_graphs,
)
from graphmatch.sinkhorn import transport_plan

# Sinkhorn iterations per step.
_BALANCINGS = 1000
# Relative violation of the masses that no step exceeds.
_ACCURACY = 1e-6
# Halvings of a step before it counts as none.
_HALVINGS = 20
# Steps of the couplings between two averagings.
_STEPS = 20


@dataclass(frozen=True, eq=False)
class SoftMatching:
    """A coupling of two graphs.

    Attributes:
        coupling: (n1, n2) in the dtype of the graphs, sums `masses`.
        distance: Square root of the transport costs of features and structure, without the entropy. A stationary value,
            which need not be the smallest.
        objective: F, with the entropy.
        converged: Whether the last step moved less mass than `tolerance`.
    """

    coupling: Tensor
    distance: float
    objective: float
    converged: bool


@dataclass(frozen=True, eq=False)
class SoftBarycenter:
    """A barycenter under soft matching.

    Attributes:
        barycenter: N nodes, in the dtype of the graphs; differentiable in their features and structures, with the
            couplings constant.
        couplings: (n_s, N) for each graph: its masses along the rows, those of the barycenter along the columns.
        objective_history: sum_s w_s F_s after each averaging, never rising by more than 1e-6, the accuracy of the
            masses.
        converged: Whether the last round moved less mass than `tolerance` in each coupling.
    """

    barycenter: StructuredGraph
    couplings: tuple[Tensor, ...]
    objective_history: tuple[float, ...]
    converged: bool


def fused_gromov_wasserstein(
    left: Graph | StructuredGraph,
    right: Graph | StructuredGraph,
    structure_weight: float = 0.5,
    temperature: float = 0.01,
    masses: tuple[Tensor, Tensor] | None = None,
    max_iterations: int = 1000,
    tolerance: float = 1e-7,
) -> SoftMatching:
    """Returns a soft matching of two graphs of any sizes: a stationary point of entropic fused Gromov-Wasserstein.

    `graphmatch.multigraph.fused_gromov_wasserstein` states the problem. Computed in float64, without gradient. Cost per
    step: O(n1^2 n2 + n1 n2^2) and the Sinkhorn iterations, O(n1 n2) each.

    Args:
        left: n1 nodes.
        right: n2 nodes, features of the same length and dtype.
        structure_weight: Share a of the structure, in [0, 1].
        temperature: Weight t > 0 of the entropy, in units of squared distances: epsilon in the literature. Low ones
            take more iterations and leave more local minima.
        masses: (n1,) and (n2,) positive, each scaled to sum 1; None = uniform.
        max_iterations: Limit of steps.
        tolerance: Mass whose movement in a step counts as none.

    Raises:
        TypeError, ValueError: If an argument breaks the rules above.

    Example:
        >>> import torch, graphmatch as gm
        >>> left = gm.knn_graph(torch.tensor([[0.0], [0.5], [3.0], [3.5]]), k=1)
        >>> right = gm.knn_graph(torch.tensor([[3.0], [0.0]]), k=1)
        >>> result = gm.fused_gromov_wasserstein(left, right)
        >>> result.coupling.argmax(1), result.converged
        (tensor([1, 1, 0, 0]), True)
    """
    where = "fused_gromov_wasserstein"
    graphs = structured_graphs(where, [left, right])
    _check_options(where, structure_weight, temperature, max_iterations, tolerance)
    first, second = _masses(where, "masses", graphs, masses)
    with torch.no_grad():
        problem = _Problem.of([graphs[1]], [second], graphs[0], first, structure_weight, temperature, tolerance)
        coupling, moved = problem.improved(problem.start(), max_iterations)
        distance = problem.transport(coupling).clamp(min=0).sqrt()
        objective = problem.objective(coupling)
    converged = float(moved.max()) <= tolerance
    return SoftMatching(coupling[0].to(graphs[0].nodes.dtype), float(distance), float(objective), converged)


def fused_gromov_wasserstein_barycenter(
    graphs: Sequence[Graph | StructuredGraph],
    size: int | None = None,
    weights: Tensor | Sequence[float] | None = None,
    structure_weight: float = 0.5,
    temperature: float = 0.01,
    masses: Sequence[Tensor] | None = None,
    barycenter_masses: Tensor | None = None,
    start: Graph | StructuredGraph | None = None,
    seed: int = 0,
    max_iterations: int = 1000,
    tolerance: float = 1e-7,
) -> SoftBarycenter:
    """Returns a barycenter of graphs of any sizes under entropic fused Gromov-Wasserstein, with soft couplings.

    It alternates between the couplings of all graphs (one batch) and the closed form of the barycenter, and ends in a
    local minimum. The higher the temperature, the closer the nodes of the barycenter are to their common mean.
    Computed in float64. Deterministic for a seed.

    Args:
        graphs: m >= 1 graphs, features of one length and dtype; sizes may differ.
        size: Nodes N >= 1 of the barycenter; None = those of the largest graph.
        weights: (m,) not negative, scaled to sum 1; None = equal.
        structure_weight: Share a of the structure, in [0, 1].
        temperature: Weight t > 0 of the entropy, in units of squared distances.
        masses: For each graph (n_s,) positive, scaled to sum 1; None = uniform.
        barycenter_masses: (N,) positive, scaled to sum 1; None = uniform.
        start: Graph of N nodes to start from; None = N nodes of one of the largest graphs, drawn by the seed.
        seed: Of the start.
        max_iterations: Limit of averagings.
        tolerance: Mass whose movement in a round counts as none.

    Raises:
        TypeError, ValueError: If an argument breaks the rules above.

    Source: the module's.

    Example:
        >>> import torch, graphmatch as gm
        >>> graphs = [gm.knn_graph(torch.tensor(points), k=1) for points in ([[0.0], [1.0]], [[3.0], [0.0]])]
        >>> result = gm.fused_gromov_wasserstein_barycenter(graphs)
        >>> result.barycenter.nodes.flatten().sort().values, result.couplings[0].shape
        (tensor([0., 2.]), torch.Size([2, 2]))
    """
    where = "fused_gromov_wasserstein_barycenter"
    taken = structured_graphs(where, graphs)
    shares = normalised_weights(where, weights, len(taken), taken[0].nodes)
    _check_options(where, structure_weight, temperature, max_iterations, tolerance)
    counts = [len(graph.nodes) for graph in taken]
    size = max(counts) if size is None else _check.whole_number(where, "size", size, "None takes the largest.")
    _check.option(where, "size", size, size >= 1, "be at least 1", "None takes that of the largest graph.")
    given = _masses(where, "masses", taken, masses)
    own = None if barycenter_masses is None else [barycenter_masses]
    if start is None:
        start = _drawn(taken[counts.index(max(counts))], size, seed)
    else:
        start = structured(where, "start", start)
        _check.shape(where, "start.nodes", start.nodes, (size, taken[0].nodes.shape[1]), "size, features")
    (mass,) = _masses(where, "barycenter_masses", [start], own)
    with torch.no_grad():
        problem = _Problem.of(taken, given, start, mass, structure_weight, temperature, tolerance)
        coupling = problem.start()
        history: list[float] = []
        converged = False
        while len(history) < max_iterations and not converged:
            before = coupling
            coupling, _ = problem.improved(coupling, _STEPS)
            problem = problem.averaged(coupling, shares)
            history.append(float(problem.objective(coupling) @ shares))
            converged = float((coupling - before).abs().sum((1, 2)).max()) <= tolerance
    couplings = tuple(part[:, :count].T for part, count in zip(coupling, counts, strict=True))
    barycenter = _mean(taken, couplings, shares, mass)
    dtype = taken[0].nodes.dtype
    return SoftBarycenter(barycenter, tuple(part.to(dtype) for part in couplings), tuple(history), converged)


@dataclass(frozen=True, eq=False)
class _Problem:
    """Couplings (m, N, n) of one graph of N nodes with m others, padded to n nodes without mass; all in float64."""

    nodes: Tensor  # (N, d)
    structure: Tensor  # (N, N)
    mass: Tensor  # (N,)
    other_nodes: Tensor  # (m, n, d)
    other_structures: Tensor  # (m, n, n)
    other_masses: Tensor  # (m, n)
    structure_weight: float
    temperature: float
    tolerance: float

    @classmethod
    def of(
        cls,
        others: list[StructuredGraph],
        other_masses: list[Tensor],
        graph: StructuredGraph,
        mass: Tensor,
        structure_weight: float,
        temperature: float,
        tolerance: float,
    ) -> _Problem:
        width = max(len(other.nodes) for other in others)
        extra = [width - len(other.nodes) for other in others]
        padded = list(zip(others, other_masses, extra, strict=True))
        return cls(
            graph.nodes.detach().double(),
            graph.structure.detach().double(),
            mass,
            torch.stack([pad(other.nodes.detach().double(), (0, 0, 0, more)) for other, _, more in padded]),
            torch.stack([pad(other.structure.detach().double(), (0, more, 0, more)) for other, _, more in padded]),
            torch.stack([pad(masses, (0, more)) for _, masses, more in padded]),
            structure_weight,
            temperature,
            tolerance,
        )

    def start(self) -> Tensor:
        """Returns the products of the masses."""
        return self.mass[:, None] * self.other_masses[:, None, :]

    def averaged(self, coupling: Tensor, shares: Tensor) -> _Problem:
        """Returns the problem with the barycenter for given couplings in place of the graph."""
        nodes = torch.einsum("s,sij,sjd->id", shares, coupling, self.other_nodes) / self.mass[:, None]
        pulled = coupling @ self.other_structures @ coupling.mT
        structure = torch.einsum("s,sij->ij", shares, pulled) / (self.mass[:, None] * self.mass)
        others = (self.other_nodes, self.other_structures, self.other_masses)
        options = (self.structure_weight, self.temperature, self.tolerance)
        return _Problem(nodes, structure, self.mass, *others, *options)

    def improved(self, coupling: Tensor, max_steps: int) -> tuple[Tensor, Tensor]:
        """Returns couplings after steps that lower F, and the mass (m,) that the last one would have moved."""
        potential = torch.zeros_like(self.other_masses)
        moved = torch.full((len(coupling),), torch.inf, dtype=torch.float64, device=coupling.device)
        mass = self.mass.expand(len(coupling), -1)
        accuracy = _ACCURACY
        for _ in range(max_steps):
            exponents = -self._gradient(coupling) / self.temperature
            target, potential = transport_plan(exponents, mass, self.other_masses, potential, _BALANCINGS, accuracy)
            direction = target - coupling
            moved = direction.abs().sum((1, 2))
            if float(moved.max()) <= self.tolerance:
                break
            # Masses that are off by more than a share of what moves would decide the step.
            accuracy = min(_ACCURACY, 0.01 * max(float(moved.max()), self.tolerance))
            length = self._length(coupling, target)
            coupling = coupling + length[:, None, None] * direction
            if not bool((length > 0).any()):
                break
        return coupling, moved

    def objective(self, coupling: Tensor) -> Tensor:
        """Returns F (m,)."""
        return self.transport(coupling) + self.temperature * _negative_entropy(coupling)

    def transport(self, coupling: Tensor) -> Tensor:
        """Returns F without the entropy, (m,)."""
        share = self.structure_weight
        linear = (self._feature_costs() * coupling).sum((1, 2))
        quadratic = (_structure_costs(self.structure, self.other_structures, coupling) * coupling).sum((1, 2))
        return (1 - share) * linear + share * quadratic

    def _feature_costs(self) -> Tensor:
        nodes = self.nodes.expand(len(self.other_nodes), -1, -1)
        return torch.cdist(nodes, self.other_nodes, compute_mode="donot_use_mm_for_euclid_dist").square()

    def _gradient(self, coupling: Tensor) -> Tensor:
        """Returns the gradient of F without the entropy."""
        along = _structure_costs(self.structure, self.other_structures, coupling)
        against = _structure_costs(self.structure.mT, self.other_structures.mT, coupling)
        return (1 - self.structure_weight) * self._feature_costs() + self.structure_weight * (along + against)

    def _length(self, coupling: Tensor, target: Tensor) -> Tensor:
        """Returns the first of the step lengths 1, 1/2, 1/4 ... (m,) that lowers F; 0 where none does.

        With T' = T + s D, D = S - T for the target S, F changes by s^2 a <L x D, D> + t (KL(T', T) + s <D, log T - log
        S>): no difference of large numbers, so that small gains are seen.
        """
        direction = target - coupling
        bend = _structure_costs(self.structure, self.other_structures, direction)
        curvature = self.structure_weight * (bend * direction).sum((1, 2))
        least = torch.finfo(torch.float64).tiny
        floored = coupling.clamp(min=least)
        slope = (direction * (floored.log() - target.clamp(min=least).log())).sum((1, 2))
        chosen = torch.zeros_like(slope)
        length = 1.0
        for _ in range(_HALVINGS):
            change = length * direction
            divergence = ((coupling + change) * (change / floored).log1p() - change).nan_to_num(0.0).sum((1, 2))
            gain = length**2 * curvature + self.temperature * (divergence + length * slope)
            chosen = torch.where((chosen == 0) & (gain < 0), length, chosen)
            if bool((chosen > 0).all()):
                break
            length /= 2
        return chosen


def _structure_costs(first: Tensor, second: Tensor, coupling: Tensor) -> Tensor:
    """Returns sum_kl (C_ik - D_jl)^2 T_kl for C (N, N), D (m, n, n) and T (m, N, n), of any sign."""
    rows, columns = coupling.sum(2), coupling.sum(1)
    constant = (rows @ first.square().mT)[:, :, None] + (second.square() @ columns[:, :, None]).mT
    return constant - 2 * first @ coupling @ second.mT


def _negative_entropy(coupling: Tensor) -> Tensor:
    return (torch.xlogy(coupling, coupling) - coupling).sum((1, 2))


def _mean(
    graphs: list[StructuredGraph], couplings: tuple[Tensor, ...], shares: Tensor, mass: Tensor
) -> StructuredGraph:
    """Returns the barycenter for given couplings, in the dtype of the graphs and differentiable in them."""
    parts = list(zip(graphs, couplings, shares, strict=True))
    nodes = torch.stack([share * part.T @ graph.nodes.double() for graph, part, share in parts]).sum(0)
    structure = torch.stack([share * part.T @ graph.structure.double() @ part for graph, part, share in parts]).sum(0)
    dtype = graphs[0].nodes.dtype
    return StructuredGraph((nodes / mass[:, None]).to(dtype), (structure / (mass[:, None] * mass)).to(dtype))


def _drawn(graph: StructuredGraph, size: int, seed: int) -> StructuredGraph:
    """Returns `size` nodes of a graph, each as often as any other or once more, in their order."""
    count = len(graph.nodes)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    kept = order.repeat(-(-size // max(count, 1)))[:size].sort().values.to(graph.nodes.device)
    return StructuredGraph(graph.nodes[kept], graph.structure[kept][:, kept])


def _masses(where: str, argument: str, graphs: list[StructuredGraph], masses: Sequence[Tensor] | None) -> list[Tensor]:
    """Returns the masses of the nodes of each graph, (n,) float64 with sum 1."""
    if masses is None:
        masses = [torch.ones(len(graph.nodes)) for graph in graphs]
    if len(masses) != len(graphs):
        cure = "None takes uniform ones."
        raise ValueError(_check.message(where, argument, f"be {len(graphs)} tensors", len(masses), cure))
    taken = []
    for graph, values in zip(graphs, masses, strict=True):
        _check.tensor(where, argument, values, 1, "(n,)")
        _check.shape(where, argument, values, (len(graph.nodes),), "a mass per node")
        values = values.detach().to(graph.nodes.device, torch.float64)
        if not bool((values > 0).all() & values.sum().isfinite()) or len(values) == 0:
            rule, cure = "be positive and finite, of at least one node", "Leave nodes without mass out."
            raise ValueError(_check.message(where, argument, rule, values.tolist(), cure))
        taken.append(values / values.sum())
    return taken


def _check_options(
    where: str, structure_weight: float, temperature: float, max_iterations: int, tolerance: float
) -> None:
    check_structure_weight(where, structure_weight)
    _check.number(where, "temperature", temperature, "0.01 is the default.")
    _check.whole_number(where, "max_iterations", max_iterations, "Try 1000.")
    _check.number(where, "tolerance", tolerance, "1e-7 is the default.")
    holds = 0 < temperature < torch.inf
    _check.option(where, "temperature", temperature, holds, "be positive and finite", "0.01 is the default.")
    _check.option(where, "max_iterations", max_iterations, max_iterations >= 1, "be at least 1", "Try 1000.")
    _check.option(where, "tolerance", tolerance, tolerance > 0, "be positive", "1e-7 is the default.")
