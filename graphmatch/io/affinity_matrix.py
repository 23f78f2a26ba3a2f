"""Affinity matrices of graph matching, the form in which pygmtools states its problems.

An affinity matrix K of a graph of n1 nodes and one of n2 nodes is square of size n1 n2. The pair of node i of graph 1
and node k of graph 2 has the number k n1 + i, as in the columns of an n1 x n2 matching matrix put below each other.
With x the matching in that order, x^T K x is maximised; our objective is -x^T K x.
"""

from __future__ import annotations

import torch
from torch import Tensor

from graphmatch import _check
from graphmatch.problem import LawlerProblem


def from_affinity_matrix(affinity: Tensor, n1: int, n2: int, unmatched_cost: float | None = None) -> LawlerProblem:
    """Returns the problem whose objective is -x^T K x, differentiable in K.

    Args:
        affinity: K, (n1 n2, n1 n2) or (b, n1 n2, n1 n2) floating point; it need not be symmetric.
        n1: Nodes of graph 1.
        n2: Nodes of graph 2.
        unmatched_cost: None = min(n1, n2) nodes must be matched, as in pygmtools; a number = cost of each unmatched
            node of graph 1.

    Returns:
        The diagonal becomes unary costs. Pairs of nodes that occur in an affinity of some problem of the batch become
        edges: (i, j) with i < j in graph 1, (k, l) in graph 2. Affinities of two pairs that share a node are left out:
        no matching earns them. For problems of different sizes call it for each, and `stack_problems`.

    Raises:
        TypeError, ValueError: If K has another shape or holds numbers that are not finite.

    Example:
        >>> import torch, graphmatch as gm
        >>> K = torch.zeros(4, 4)  # two nodes each; the pairs (0, 0), (1, 0), (0, 1), (1, 1)
        >>> K[1, 2] = 5.0
        >>> result = gm.solve(gm.io.from_affinity_matrix(K, 2, 2))
        >>> result.assignment, float(result.objective)
        (tensor([[1, 0]]), -5.0)
    """
    where = "from_affinity_matrix"
    for name, count in (("n1", n1), ("n2", n2)):
        if isinstance(count, bool) or not isinstance(count, int):
            raise TypeError(_check.message(where, name, "be an int", _check.describe(count), "Call it per problem."))
        _check.option(where, name, count, count >= 0, "be at least 0", "It is a number of nodes.")
    if isinstance(affinity, Tensor) and affinity.ndim == 2:
        affinity = affinity[None]
    shape_text = "(b, n1 n2, n1 n2) or (n1 n2, n1 n2)"
    _check.floating(where, "affinity", _check.tensor(where, "affinity", affinity, 3, shape_text))
    batch, size = affinity.shape[0], n1 * n2
    _check.shape(where, "affinity", affinity, (batch, size, size), "batch, and n1 n2 pairs of nodes twice")
    cure = "Too many pairs of nodes have an affinity: set small ones to 0, or reduce the batch."
    _check.memory(where, 2 * affinity.numel(), cure, affinity.device)
    _check.costs(where, "affinity", affinity, allow_infinite=False)
    unary = -affinity.diagonal(dim1=1, dim2=2).reshape(batch, n2, n1).mT
    # Axes: tail2, tail1, head2, head1 of the pairs (tail1, tail2) and (head1, head2); both orders of them are earned.
    pairs = affinity.reshape(batch, n2, n1, n2, n1)
    occurs = (pairs.detach() != 0).any(0)
    occurs = occurs | occurs.permute(2, 3, 0, 1)
    lower1 = torch.ones(n1, n1, dtype=torch.bool, device=affinity.device).triu(1)
    other2 = ~torch.eye(n2, dtype=torch.bool, device=affinity.device)
    edges1 = (occurs & other2[:, None, :, None]).any(2).any(0).logical_and(lower1).nonzero()
    edges2 = (occurs & lower1[None, :, None, :]).any(3).any(1).logical_and(other2).nonzero()
    (tail1, head1), (tail2, head2) = edges1.T[:, :, None], edges2.T[:, None, :]
    bytes_needed = 4 * batch * len(edges1) * len(edges2) * affinity.element_size()
    _check.memory(where, bytes_needed, cure, affinity.device)
    quadratic = -(pairs[:, tail2, tail1, head2, head1] + pairs[:, head2, head1, tail2, tail1])
    return LawlerProblem(unary, quadratic, edges1, edges2, unmatched_cost=unmatched_cost)


def to_affinity_matrix(problem: LawlerProblem) -> Tensor:
    """Returns the affinity matrix of a problem, for solvers that maximise x^T K x; differentiable in both costs.

    Args:
        problem: Unary costs are finite, as an affinity matrix cannot forbid; `unmatched_cost` is None or 0.

    Returns:
        K (b, n1 n2, n1 n2), symmetric, with x^T K x = -objective for every matching x. Padding has affinity 0. Terms
        that no matching pays are left out.

    Raises:
        TypeError, ValueError: If the problem has no such form, or K does not fit into memory.

    Example:
        >>> import torch, graphmatch as gm
        >>> edges = torch.tensor([[0, 1]])
        >>> problem = gm.LawlerProblem(torch.zeros(1, 2, 1), torch.tensor([[[-2.0]]]), edges, torch.zeros_like(edges))
        >>> gm.io.to_affinity_matrix(problem).shape
        torch.Size([1, 2, 2])
    """
    where = "to_affinity_matrix"
    if not isinstance(problem, LawlerProblem):
        cure = "Convert a KoopmansBeckmannProblem with to_lawler()."
        raise TypeError(_check.message(where, "problem", "be a LawlerProblem", _check.describe(problem), cure))
    if problem.unmatched_cost:
        cure = "Subtract it from every unary cost and set 0.0: every objective falls by n1 times the old number."
        raise ValueError(
            _check.message(where, "problem", "have an unmatched_cost of None or 0.0", problem.unmatched_cost, cure)
        )
    batch, n1, n2 = problem.unary_costs.shape
    bytes_needed = batch * (n1 * n2) ** 2 * problem.unary_costs.element_size()
    _check.memory(where, bytes_needed, "An affinity matrix has n1^2 n2^2 numbers: reduce the nodes or the batch.")
    unary, quadratic, edges1, edges2 = _without_padding(problem)
    if not bool(unary.isfinite().all()):
        cure = "Give forbidden assignments a large cost."
        raise ValueError(_check.message(where, "problem.unary_costs", "be finite", "an infinite cost", cure))
    (tail1, head1), (tail2, head2) = edges1.movedim(2, 0)[..., None], edges2.movedim(2, 0)[:, :, None]
    possible = ((tail1 != head1) & (tail2 != head2)) | ((tail1 == head1) & (tail2 == head2))
    halves = torch.where(possible, quadratic, 0).flatten(1) / -2
    size = n1 * n2
    places = ((tail2 * n1 + tail1) * size + head2 * n1 + head1).flatten(1)
    directed = unary.new_zeros(batch, size * size).scatter_add(1, places, halves).reshape(batch, size, size)
    return directed + directed.mT - torch.diag_embed(unary.mT.flatten(1))


def _without_padding(problem: LawlerProblem) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns costs and edges with zeros instead of padding, which may hold anything."""
    costs = problem.unary_costs, problem.quadratic_costs
    edges = problem.edges1, problem.edges2
    if problem.sizes is None:
        return *costs, *edges
    real = [
        torch.arange(extent, device=problem.sizes.device) < problem.sizes[:, axis, None]
        for axis, extent in enumerate((*costs[0].shape[1:], *costs[1].shape[1:]))
    ]
    unary = torch.where(real[0][:, :, None] & real[1][:, None, :], costs[0], 0)
    quadratic = torch.where(real[2][:, :, None] & real[3][:, None, :], costs[1], 0)
    return unary, quadratic, torch.where(real[2][..., None], edges[0], 0), torch.where(real[3][..., None], edges[1], 0)
