"""The matching problems, as batches of tensors. Costs are minimised everywhere.

Every problem is checked when it is made: shapes, dtypes, devices, finite numbers, edges inside their graphs. On CUDA
tensors values are checked by the solver, which answers INVALID, since a check here would wait for the GPU. Ragged
batches are padded to the largest problem; `sizes` says how much of each is real, and padding never matters.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from graphmatch import _check, _device


def _check_sizes(where: str, sizes: Tensor | None, padded: tuple[int, ...], batch: int, names: str) -> None:
    if sizes is None:
        return
    _check.integer(where, "sizes", _check.tensor(where, "sizes", sizes, 2, f"(b, {len(padded)})"))
    _check.shape(where, "sizes", sizes, (batch, len(padded)), f"one row of {names} per problem")
    if _device.resident(sizes):
        return
    limits = torch.tensor(padded, device=sizes.device)
    if bool(((sizes < 0) | (sizes > limits)).any()):
        raise ValueError(
            _check.message(
                where, "sizes", f"lie between 0 and the padded sizes {padded}", sizes.tolist(), "Check the padding."
            )
        )


@dataclass(frozen=True, eq=False)
class LinearProblem:
    """A batch of linear assignment problems: minimise sum_i costs[i, x_i] over injective x.

    Args:
        costs: (b, n1, n2) floating point; +inf forbids an assignment.
        sizes: (b, 2) int64, real (n1, n2) of each problem in a padded batch; None = all are full size.
        unmatched_cost: None = min(n1, n2) nodes must be matched; a number = cost of each unmatched node of graph 1.

    Raises:
        TypeError, ValueError: If an argument breaks the rules above; the message says which and what to do. On CUDA
            tensors values are checked by the solver, which answers INVALID, since a check here would wait for the GPU.

    Example:
        >>> import torch, graphmatch as gm
        >>> gm.solve(gm.LinearProblem(torch.tensor([[[4.0, 1.0], [2.0, 3.0]]]))).assignment
        tensor([[1, 0]])
    """

    costs: Tensor
    sizes: Tensor | None = None
    unmatched_cost: float | None = None

    def __post_init__(self) -> None:
        """Checks everything."""
        where = type(self).__name__
        _check.floating(where, "costs", _check.tensor(where, "costs", self.costs, 3, "(b, n1, n2)"))
        batch, n1, n2 = self.costs.shape
        _check_sizes(where, self.sizes, (n1, n2), batch, "(n1, n2)")
        _check.unmatched_cost(where, self.unmatched_cost)
        _check.costs(where, "costs", _without_padding(self.costs, self.sizes, 0), allow_infinite=True)

    @property
    def batch_size(self) -> int:
        """Number of problems b."""
        return self.costs.shape[0]

    def node_counts(self) -> tuple[Tensor, Tensor]:
        """Returns the real node counts of both graphs, (b,) int64 each."""
        return _node_counts(self.costs, self.sizes)


@dataclass(frozen=True, eq=False)
class LawlerProblem:
    """A batch of sparse quadratic assignment problems in Lawler's form.

    objective(x) = sum_i unary[i, x_i] + sum_{e=(i,j), f=(k,l)} quadratic[e, f] [x_i = k] [x_j = l]
    over injective x, plus `unmatched_cost` per node with x_i = -1. Edges are directed and may repeat: costs add.

    Args:
        unary_costs: (b, n1, n2) floating point; +inf forbids an assignment.
        quadratic_costs: (b, e1, e2), same dtype.
        edges1: (b, e1, 2) int64 edges (i, j) of graph 1, or (e1, 2) shared by the batch.
        edges2: (b, e2, 2) int64 edges (k, l) of graph 2, or (e2, 2) shared by the batch.
        sizes: (b, 4) int64, real (n1, n2, e1, e2) of each problem in a padded batch; None = all are full size.
        unmatched_cost: None = min(n1, n2) nodes must be matched; a number = cost of each unmatched node of graph 1.

    Raises:
        TypeError, ValueError: If an argument breaks the rules above; the message says which and what to do. On CUDA
            tensors values are checked by the solver, which answers INVALID, since a check here would wait for the GPU.

    Source: E. L. Lawler, "The quadratic assignment problem", Management Science 9 (1963).

    Example:
        >>> import torch, graphmatch as gm
        >>> edges = torch.tensor([[0, 1], [1, 2]])  # the path 0 - 1 - 2 in both graphs
        >>> problem = gm.LawlerProblem(torch.tensor([[[0.0, 1, 1]] * 3]), -torch.eye(2)[None], edges, edges)
        >>> gm.solve(problem).assignment
        tensor([[0, 1, 2]])
    """

    unary_costs: Tensor
    quadratic_costs: Tensor
    edges1: Tensor
    edges2: Tensor
    sizes: Tensor | None = None
    unmatched_cost: float | None = None

    def __post_init__(self) -> None:
        """Checks everything; edges shared by the batch become a view with a batch axis."""
        where = type(self).__name__
        unary = _check.tensor(where, "unary_costs", self.unary_costs, 3, "(b, n1, n2)")
        quadratic = _check.tensor(where, "quadratic_costs", self.quadratic_costs, 3, "(b, e1, e2)")
        _check.floating(where, "unary_costs", unary)
        if quadratic.dtype != unary.dtype:
            cure = "Convert one of them."
            raise TypeError(
                _check.message(where, "quadratic_costs", f"be {unary.dtype} as unary_costs", quadratic.dtype, cure)
            )
        batch, n1, n2 = unary.shape
        for name in ("edges1", "edges2"):
            object.__setattr__(self, name, self._batched_edges(where, name, batch))
        e1, e2 = self.edges1.shape[1], self.edges2.shape[1]
        _check.shape(where, "quadratic_costs", quadratic, (batch, e1, e2), "batch, edges of graph 1, edges of graph 2")
        tensors = {name: getattr(self, name) for name in ("unary_costs", "quadratic_costs", "edges1", "edges2")}
        _check.same_device(where, tensors if self.sizes is None else {**tensors, "sizes": self.sizes})
        _check_sizes(where, self.sizes, (n1, n2, e1, e2), batch, "(n1, n2, e1, e2)")
        _check.unmatched_cost(where, self.unmatched_cost)
        counts1, counts2 = (None, None) if self.sizes is None else (self.sizes[:, 2], self.sizes[:, 3])
        limits1, limits2 = (n1, n2) if self.sizes is None else (self.sizes[:, 0], self.sizes[:, 1])
        _check.indices(where, "edges1", self.edges1, counts1, limits1)
        _check.indices(where, "edges2", self.edges2, counts2, limits2)
        _check.costs(where, "unary_costs", _without_padding(unary, self.sizes, 0), allow_infinite=True)
        _check.costs(where, "quadratic_costs", _without_padding(quadratic, self.sizes, 2), allow_infinite=False)

    def _batched_edges(self, where: str, name: str, batch: int) -> Tensor:
        edges = getattr(self, name)
        if isinstance(edges, Tensor) and edges.ndim == 2:
            edges = edges.expand(batch, *edges.shape)
        _check.integer(where, name, _check.tensor(where, name, edges, 3, "(b, e, 2) or (e, 2)"))
        _check.shape(where, name, edges, (batch, edges.shape[1], 2), "batch, edges, two end points")
        return edges

    @property
    def batch_size(self) -> int:
        """Number of problems b."""
        return self.unary_costs.shape[0]

    def node_counts(self) -> tuple[Tensor, Tensor]:
        """Returns the real node counts of both graphs, (b,) int64 each."""
        return _node_counts(self.unary_costs, self.sizes)

    def with_costs(self, unary_costs: Tensor, quadratic_costs: Tensor) -> LawlerProblem:
        """Returns the same graphs with other costs of the same shapes."""
        return replace(self, unary_costs=unary_costs, quadratic_costs=quadratic_costs)


@dataclass(frozen=True, eq=False)
class KoopmansBeckmannProblem:
    """A batch of dense quadratic assignment problems in Koopmans' and Beckmann's form.

    objective(x) = sum_ij flow[i, j] distance[x_i, x_j] + sum_i linear[i, x_i] over permutations x.

    Args:
        flow: (b, n, n) floating point.
        distance: (b, n, n), same dtype.
        linear: (b, n, n), same dtype, +inf forbids an assignment; None = no linear costs.
        sizes: (b,) int64, real n of each problem in a padded batch; None = all are full size.

    Raises:
        TypeError, ValueError: If an argument breaks the rules above; the message says which and what to do. On CUDA
            tensors values are checked by the solver, which answers INVALID, since a check here would wait for the GPU.

    Source: T. C. Koopmans, M. Beckmann, "Assignment problems and the location of economic activities", Econometrica 25
    (1957).

    Example:
        >>> import torch, graphmatch as gm
        >>> flow = torch.tensor([[[0.0, 3, 1], [3, 0, 0], [1, 0, 0]]])
        >>> distance = torch.tensor([[[0.0, 2, 5], [2, 0, 1], [5, 1, 0]]])
        >>> gm.solve(gm.KoopmansBeckmannProblem(flow, distance)).objective
        tensor([10.], dtype=torch.float64)
    """

    flow: Tensor
    distance: Tensor
    linear: Tensor | None = None
    sizes: Tensor | None = None

    def __post_init__(self) -> None:
        """Checks everything."""
        where = type(self).__name__
        flow = _check.floating(where, "flow", _check.tensor(where, "flow", self.flow, 3, "(b, n, n)"))
        batch, n = flow.shape[:2]
        _check.shape(where, "flow", flow, (batch, n, n), "square matrices")
        tensors = {"flow": flow, "distance": self.distance}
        if self.linear is not None:
            tensors["linear"] = self.linear
        for name, value in tensors.items():
            _check.floating(where, name, _check.tensor(where, name, value, 3, "(b, n, n)"))
            _check.shape(where, name, value, (batch, n, n), "as flow")
            if value.dtype != flow.dtype:
                raise TypeError(_check.message(where, name, f"be {flow.dtype} as flow", value.dtype, "Convert one."))
        _check.same_device(where, tensors)
        if self.sizes is not None:
            _check.integer(where, "sizes", _check.tensor(where, "sizes", self.sizes, 1, "(b,)"))
            _check_sizes(where, self.sizes[:, None], (n,), batch, "n")
        square = None if self.sizes is None else self.sizes[:, None].expand(batch, 2)
        for name, value in tensors.items():
            _check.costs(where, name, _without_padding(value, square, 0), allow_infinite=name == "linear")

    @property
    def batch_size(self) -> int:
        """Number of problems b."""
        return self.flow.shape[0]

    def node_counts(self) -> tuple[Tensor, Tensor]:
        """Returns the real node counts of both sides (equal), (b,) int64 each."""
        square = None if self.sizes is None else self.sizes[:, None].expand(self.batch_size, 2)
        return _node_counts(self.flow, square)

    def to_lawler(self) -> LawlerProblem:
        """Returns the equivalent Lawler problem: complete graphs with loops, n^4 quadratic costs per problem.

        In float64, where products of costs of the narrower types are exact.

        Example:
            >>> import torch, graphmatch as gm
            >>> gm.KoopmansBeckmannProblem(torch.ones(1, 3, 3), torch.ones(1, 3, 3)).to_lawler().quadratic_costs.shape
            torch.Size([1, 9, 9])
        """
        n = self.flow.shape[1]
        bytes_needed = self.batch_size * n**4 * torch.float64.itemsize
        _check.memory("KoopmansBeckmannProblem", bytes_needed, "A Lawler problem has n^4 costs: reduce n or the batch.")
        counts, _ = self.node_counts()
        real = torch.arange(n, device=self.flow.device) < counts[:, None]
        inside = (real[:, :, None] & real[:, None, :]).flatten(1)
        flow = torch.where(inside, self.flow.flatten(1).double(), 0)
        distance = torch.where(inside, self.distance.flatten(1).double(), 0)
        node = torch.arange(n, device=self.flow.device)
        edges = torch.cartesian_prod(node, node) if n else node.new_zeros(0, 2)
        linear = (torch.zeros_like(self.flow) if self.linear is None else self.linear).double()
        # Edges that touch padding lie outside the real graph: point them at node 0, where their zero costs are inert.
        edges = torch.where(inside[:, :, None], edges, 0)
        sizes = None
        if self.sizes is not None:
            pairs = torch.where(counts > 0, n * n, 0)
            sizes = torch.stack([counts, counts, pairs, pairs], dim=1)
        return LawlerProblem(linear, flow[:, :, None] * distance[:, None, :], edges, edges, sizes)


Problem = LinearProblem | LawlerProblem | KoopmansBeckmannProblem
P = TypeVar("P", bound=LinearProblem | LawlerProblem | KoopmansBeckmannProblem)
Q = TypeVar("Q")


def unchecked(problem: P, **changes: Any) -> P:
    """Returns the problem with other tensors that the caller vouches for: checks read every number once more."""
    changed = copy.copy(problem)
    for name, value in changes.items():
        object.__setattr__(changed, name, value)
    return changed


def made_of(kind: type[Q], **values: Any) -> Q:
    """Returns a problem of tensors that the caller vouches for, without checks."""
    problem = object.__new__(kind)
    for name, value in values.items():
        object.__setattr__(problem, name, value)
    return problem


def on_host(problem: P) -> P:
    """Returns a problem with its tensors on the CPU; values that could not be checked where they were are now.

    Raises:
        ValueError: If one of them breaks the rules of the problem's class.
    """
    tensors = {name: value for name, value in vars(problem).items() if isinstance(value, Tensor)}
    if all(value.device.type == "cpu" for value in tensors.values()):
        return problem
    moved: dict[str, Any] = {name: value.detach().cpu() for name, value in tensors.items()}
    if any(_device.resident(value) for value in tensors.values()):
        return replace(problem, **moved)
    return unchecked(problem, **moved)


def _node_counts(costs: Tensor, sizes: Tensor | None) -> tuple[Tensor, Tensor]:
    if sizes is not None:
        return sizes[:, 0], sizes[:, 1]
    batch, n1, n2 = costs.shape
    count1, count2 = (torch.full((), n, device=costs.device).expand(batch) for n in (n1, n2))
    return count1, count2


def _without_padding(costs: Tensor, sizes: Tensor | None, first: int) -> Tensor:
    """Returns costs with the padding of each problem set to zero; columns first, first + 1 of sizes are its extent."""
    if sizes is None:
        return costs
    rows = torch.arange(costs.shape[1], device=costs.device) < sizes[:, first, None]
    columns = torch.arange(costs.shape[2], device=costs.device) < sizes[:, first + 1, None]
    return torch.where(rows[:, :, None] & columns[:, None, :], costs, 0)
