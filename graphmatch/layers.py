"""Neural-network modules: matching as a layer, and message passing on graphs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphmatch import _check
from graphmatch.gradients import IMLE, GradientEstimator, estimated_solution
from graphmatch.problem import LawlerProblem, LinearProblem, unchecked
from graphmatch.result import MatchResult, State
from graphmatch.solve import solve
from graphmatch.solvers import Solver, WarmStartSolver


class MatchingLayer(nn.Module):
    """Solves matching problems in the forward pass and estimates the gradients of both costs in the backward pass.

    Half-precision costs are solved in float32. Noise differs from call to call in training (the counter of calls is
    part of the state dict) and is off in evaluation.

    Args:
        solver: Any solver; None takes `solve`'s choice.
        gradient: Any gradient estimator; None takes `IMLE()`.
        unmatched_cost: None = min(n1, n2) nodes must be matched; a number = cost of each unmatched node of graph 1.

    Attributes:
        result: The `MatchResult` of the last forward solve (of the noisy costs while training with `IMLE`, sample
            after sample): bounds, gaps and statuses.

    Example:
        >>> import torch, graphmatch as gm
        >>> graph = gm.knn_graph(torch.rand(6, 2), k=2)
        >>> unary = torch.rand(1, 6, 6, requires_grad=True)
        >>> quadratic = torch.rand(1, 12, 12, requires_grad=True)
        >>> matching, paid_pairs = gm.MatchingLayer()(unary, quadratic, graph.edges, graph.edges)
        >>> gm.hamming_loss(matching, torch.eye(6)).backward()
        >>> unary.grad.shape, quadratic.grad.shape
        (torch.Size([1, 6, 6]), torch.Size([1, 12, 12]))
    """

    calls: Tensor

    def __init__(
        self,
        solver: Solver | None = None,
        gradient: GradientEstimator | None = None,
        unmatched_cost: float | None = None,
    ) -> None:
        super().__init__()
        self.solver = solver
        self.gradient: GradientEstimator = IMLE() if gradient is None else gradient
        self.unmatched_cost = unmatched_cost
        self.result: MatchResult | None = None
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(
        self,
        unary_costs: Tensor,
        quadratic_costs: Tensor | None = None,
        edges1: Tensor | None = None,
        edges2: Tensor | None = None,
        sizes: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Returns the 0/1 matching (b, n1, n2), and the paid pairs (b, e1, e2) if there are quadratic costs.

        Args:
            unary_costs: (b, n1, n2) floating point.
            quadratic_costs: (b, e1, e2), or None for a linear assignment.
            edges1: (b, e1, 2) or (e1, 2) int64; with quadratic costs only.
            edges2: (b, e2, 2) or (e2, 2) int64; with quadratic costs only.
            sizes: Real sizes of a padded batch, as in `LawlerProblem` or `LinearProblem`.

        Raises:
            TypeError, ValueError: As the problem classes; and if only some of the quadratic arguments are given.
        """
        quadratic_arguments = (quadratic_costs, edges1, edges2)
        if any(each is None for each in quadratic_arguments) != all(each is None for each in quadratic_arguments):
            rule = "come together"
            received = [each is not None for each in quadratic_arguments]
            names = "quadratic_costs, edges1 and edges2"
            raise ValueError(_check.message("MatchingLayer", names, rule, received, "Give all three or none."))
        problem: LinearProblem | LawlerProblem
        if quadratic_costs is None or edges1 is None or edges2 is None:
            problem = LinearProblem(_solvable(unary_costs), sizes, self.unmatched_cost)
            costs: tuple[Tensor, ...] = (problem.costs,)
        else:
            costs = (_solvable(unary_costs), _solvable(quadratic_costs))
            problem = LawlerProblem(*costs, edges1, edges2, sizes, self.unmatched_cost)
        oracle = _ProblemOracle(problem, self.solver)
        key = self.calls.clone()
        if self.training:
            self.calls += 1
        solutions = estimated_solution(self.gradient, oracle, costs, key, self.training)
        self.result = oracle.first_result
        solutions = tuple(
            _keep_real(solution, sizes, 2 * place).to(unary_costs.dtype) for place, solution in enumerate(solutions)
        )
        return solutions[0] if quadratic_costs is None else (solutions[0], solutions[1])


class _ProblemOracle:
    """argmin over the matchings of given graphs, as a function of the cost tensors."""

    def __init__(self, problem: LinearProblem | LawlerProblem, solver: Solver | None) -> None:
        self.problem = problem
        self.solver = solver
        self.first_result: MatchResult | None = None

    def __call__(self, costs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        variants = costs[0].shape[0] // max(self.problem.batch_size, 1)
        problem = _with_costs(self.problem, tuple(cost.detach() for cost in costs), variants)
        result = solve(problem, self.solver, self._warm_start(variants))
        if self.first_result is None:
            self.first_result = result
        if isinstance(problem, LawlerProblem):
            return result.matching, result.paid_pairs
        return (result.matching,)

    def _warm_start(self, variants: int) -> State | None:
        """Returns where the first solve stopped: later ones ask for nearby costs, as the targets of a gradient do."""
        first = self.first_result
        takes_one = self.solver is None or isinstance(self.solver, WarmStartSolver)
        if first is None or first.state is None or not takes_one:
            return None
        known = first.problem.batch_size // max(self.problem.batch_size, 1)
        return first.state if known and variants % known == 0 else None


def _with_costs(
    problem: LinearProblem | LawlerProblem, costs: tuple[Tensor, ...], variants: int
) -> LinearProblem | LawlerProblem:
    # The first problem was checked, and estimators move its costs by finite steps only.
    if variants == 1:
        names = ("costs",) if isinstance(problem, LinearProblem) else ("unary_costs", "quadratic_costs")
        return unchecked(problem, **dict(zip(names, costs, strict=True)))
    sizes = None if problem.sizes is None else problem.sizes.repeat(variants, 1)
    if isinstance(problem, LinearProblem):
        return unchecked(problem, costs=costs[0], sizes=sizes)
    edges1, edges2 = (edges.repeat(variants, 1, 1) for edges in (problem.edges1, problem.edges2))
    return unchecked(problem, unary_costs=costs[0], quadratic_costs=costs[1], edges1=edges1, edges2=edges2, sizes=sizes)


def _solvable(costs: Tensor) -> Tensor:
    """Returns costs in a type that solvers take; gradients flow through the conversion."""
    # The problem classes refuse what is no tensor.
    is_half = isinstance(costs, Tensor) and costs.dtype in (torch.float16, torch.bfloat16)
    return costs.float() if is_half else costs


def _keep_real(solution: Tensor, sizes: Tensor | None, first: int) -> Tensor:
    """Stops gradients that a loss sends into the padding, which would change the size of the perturbation."""
    if sizes is None:
        return solution
    rows = torch.arange(solution.shape[1], device=solution.device) < sizes[:, first, None]
    columns = torch.arange(solution.shape[2], device=solution.device) < sizes[:, first + 1, None]
    return torch.where(rows[:, :, None] & columns[:, None, :], solution, 0)


class GraphConvolution(nn.Module):
    """Graph convolution with maximum aggregation: W_rel max_{j in N(i)} x_j + W_root x_i + bias.

    The neighbours of node i are the heads of its own edges (i, j), so every node with edges receives messages.
    Parameters are named as in PyTorch Geometric's `GraphConv`, which this layer can exchange weights with.

    Args:
        in_features: Length of the node features.
        out_features: Length of the results.

    Source: C. Morris et al., "Weisfeiler and Leman go neural", AAAI 2019.

    Example:
        >>> import torch, graphmatch as gm
        >>> graph = gm.knn_graph(torch.rand(4, 3), k=2)
        >>> gm.GraphConvolution(3, 8)(graph.nodes, graph.edges).shape
        torch.Size([4, 8])
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.lin_rel = nn.Linear(in_features, out_features)
        self.lin_root = nn.Linear(in_features, out_features, bias=False)

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        """Returns (n, out) or (b, n, out) for nodes (n, in) or (b, n, in) and edges (e, 2) or (b, e, 2)."""
        features = nodes.shape[-1]
        origin = edges[..., 0, None].expand(*edges.shape[:-1], features)
        messages = nodes.gather(-2, edges[..., 1, None].expand(*edges.shape[:-1], features))
        # Nodes without neighbours keep the zeros.
        strongest = torch.zeros_like(nodes).scatter_reduce(-2, origin, messages, "amax", include_self=False)
        # In the type of the nodes, whatever type the model keeps its weights in.
        weights = (self.lin_rel.weight, self.lin_rel.bias, self.lin_root.weight)
        relation, bias, root = (weight.to(nodes.dtype) for weight in weights)
        return F.linear(strongest, relation, bias) + F.linear(nodes, root)


class MessagePassing(nn.Module):
    """Two graph convolutions of constant width with ReLU and dropout between them, added to the nodes' own features.

    Args:
        dim: Length of the node features.
        dropout: Share of activations dropped in training.
        residual: Add the input to the result. Without it a random initialisation hides the nodes' own features, and an
            alignment of the results teaches the inputs much less.

    Example:
        >>> import torch, graphmatch as gm
        >>> graph = gm.knn_graph(torch.rand(4, 3), k=2)
        >>> gm.MessagePassing(3)(graph.nodes, graph.edges).shape
        torch.Size([4, 3])
    """

    def __init__(self, dim: int, dropout: float = 0.1, residual: bool = True) -> None:
        super().__init__()
        self.residual = residual
        self.conv1 = GraphConvolution(dim, dim)
        self.conv2 = GraphConvolution(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        """Returns node features of the same shape."""
        passed = self.conv2(self.dropout(torch.relu(self.conv1(nodes, edges))), edges)
        return nodes + passed if self.residual else passed
