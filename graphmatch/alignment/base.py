"""What all alignments share: graphs of the views, problems between graphs, targets, loss and report."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphmatch import _check, _device
from graphmatch.affinity import edge_features
from graphmatch.alignment.graphs import GraphBatch, neighbour_edges
from graphmatch.alignment.views import Views, checked_views
from graphmatch.gradients import IMLE, GradientEstimator
from graphmatch.graph_affinities import graph_affinities, has_long_nodes
from graphmatch.graphs import Graph
from graphmatch.layers import MatchingLayer
from graphmatch.losses import hamming_loss
from graphmatch.message_passing import MessagePassing
from graphmatch.result import MatchResult
from graphmatch.solvers import Solver, quick_solver

Directions = Literal["forward", "both"]


@dataclass(frozen=True)
class AlignmentDetails:
    """What one alignment found. All scalars are 0-d tensors; only `loss` carries gradients.

    Attributes:
        loss: Mean Hamming loss of the matchings, in [0, 2] where all nodes must be matched.
        matching_accuracy: Share of nodes with a counterpart that are matched to it, or to an equal one, over all
            problems; NaN without such nodes. While training with a noisy estimator or a margin the matchings are those
            of the noisy problems, and of costs with the margin.
        retrieval: Top-1 retrieval between the views as they came in (before message passing), mean over ordered pairs.
        gap: Largest relative gap of the solved problems; 0 without nodes.
    """

    loss: Tensor
    matching_accuracy: Tensor
    retrieval: Tensor
    gap: Tensor


@dataclass(frozen=True, eq=False)
class Aligned:
    """Loss and matchings of p problems.

    Attributes:
        loss: 0-d.
        matching: (p, n, n).
        target: (p, n, n) 0/1, the accepted matches.
    """

    loss: Tensor
    matching: Tensor
    target: Tensor


class ViewAlignment(nn.Module):
    """Hamming loss of matchings between graphs that come from m >= 2 views of samples; the base of all alignments.

    A subclass says which graphs are matched, and which matches are right.

    Class attribute:
        graphs_in_halves: Whether the first half of the graphs are the left ones of the problems in order, and the
            second half the right ones.

    Args:
        dim: Length d of the node features.
        k: Neighbours per node.
        solver: None takes the quick one.
        gradient: None takes `IMLE(step=3.0, noise_scale=0.3)`.
        edge_weight: Weight of the edges in the cost.
        dropout: Dropout between the convolutions.
        residual: Add the message passing to the node features instead of replacing them.
        directions: "forward" or "both".
        unmatched_cost: Of the matching layer.
        margin: Added to the costs of right matches while training.
    """

    graphs_in_halves = False

    def __init__(
        self,
        dim: int,
        k: int,
        solver: Solver | None,
        gradient: GradientEstimator | None,
        edge_weight: float,
        dropout: float,
        residual: bool,
        directions: Directions,
        unmatched_cost: float | None,
        margin: float,
    ) -> None:
        super().__init__()
        where = type(self).__name__
        dim = _check.whole_number(where, "dim", dim, "It is the length of the node features.")
        k = _check.whole_number(where, "k", k, "5 is the paper's choice.")
        _check.option(where, "dim", dim, dim >= 1, "be at least 1", "It is the length of the node features.")
        _check.option(where, "k", k, k >= 1, "be at least 1", "5 is the paper's choice.")
        if directions not in get_args(Directions):
            rule = "be 'forward' or 'both'"
            raise ValueError(_check.message(where, "directions", rule, repr(directions), "Pick one."))
        _check.unmatched_cost(where, unmatched_cost)
        numbers = {
            "edge_weight": (edge_weight, "0.5 counts both directions of an edge once."),
            "dropout": (dropout, "0.1 is the default."),
            "margin": (margin, "0.3 is large for cosines."),
        }
        for name, (value, cure) in numbers.items():
            _check.number(where, name, value, cure)
        finite = -_check.LARGEST_COST <= edge_weight <= _check.LARGEST_COST
        _check.option(where, "edge_weight", edge_weight, finite, "be finite", numbers["edge_weight"][1])
        _check.option(where, "dropout", dropout, 0 <= dropout <= 1, "be between 0 and 1", numbers["dropout"][1])
        fits = 0 <= margin <= _check.LARGEST_COST
        _check.option(where, "margin", margin, fits, "be finite and at least 0", "0.3 is large for cosines.")
        self.dim, self.k, self.edge_weight, self.directions, self.margin = dim, k, edge_weight, directions, margin
        self.message_passing = MessagePassing(dim, dropout, residual=residual)
        self.layer = MatchingLayer(
            solver=quick_solver() if solver is None else solver,
            gradient=IMLE(step=3.0, noise_scale=0.3) if gradient is None else gradient,
            unmatched_cost=unmatched_cost,
        )
        self.zero_gradient = torch.zeros((), dtype=torch.bool)

    def forward(
        self, *views: Tensor, mask: Tensor | None = None, labels: Tensor | None = None, groups: Tensor | None = None
    ) -> Tensor:
        """Returns the alignment loss of m >= 2 views, a scalar.

        Without mask and labels torch.compile makes one graph of it, and on a GPU neither this nor the backward pass
        waits for anything; with them shapes depend on values.

        Args:
            views: (N, d) floating point each.
            mask: (N,) or (m, N) bool, False = the view lacks the sample, or the row is padding: it takes no part in
                graphs, barycenters and loss, whatever it holds. None = all are there.
            labels: (m, N) int64, rows of different views with one label describe one sample; distinct within a view.
                -1 = no counterpart: the row is a node of its view's graph, and has no target. None = row i of every
                view describes sample i.
            groups: (N,) or (m, N) int64, rows of a view with one number may take each other's place, as the encodings
                of one image do; -1 = in no group. With labels (m, N) only. Equal rows need no groups.

        Raises:
            TypeError, ValueError: If an argument breaks these rules. Values of CUDA tensors are not checked: NaN in a
                view makes its problems INVALID, see `layer.result`.
        """
        return self._align(self._checked(views, mask, labels, groups)).loss

    def details(
        self, *views: Tensor, mask: Tensor | None = None, labels: Tensor | None = None, groups: Tensor | None = None
    ) -> AlignmentDetails:
        """Returns the loss of m >= 2 views (N, d) with what there is to know about it; arguments as in `forward`."""
        checked = self._checked(views, mask, labels, groups)
        aligned = self._align(checked)
        has_target = (aligned.target > 0).any(2)
        accuracy = _mean_where((aligned.matching.detach() * aligned.target).sum(2), has_target)
        return AlignmentDetails(aligned.loss, accuracy, checked.retrieval(), self._largest_gap(aligned.loss))

    def _checked(
        self, views: tuple[Tensor, ...], mask: Tensor | None, labels: Tensor | None, groups: Tensor | None
    ) -> Views:
        return checked_views(type(self).__name__, views, self.dim, mask, labels, groups)

    def _align(self, views: Views) -> Aligned:
        """Returns loss and matchings, computed in the type of the views whatever autocast says."""
        # Solvers and nearest neighbours need more digits than autocast would leave them.
        with torch.autocast(device_type=views.nodes.device.type, enabled=False):
            graphs, left, right = self._problems(views)
            return self._matched(graphs, left, right)

    @abstractmethod
    def _problems(self, views: Views) -> tuple[GraphBatch, Tensor, Tensor]:
        """Returns graphs and the two graphs of each problem, (p,) int64 each."""

    @abstractmethod
    def _accepted(self, graphs: GraphBatch, left: Tensor, right: Tensor) -> Tensor:
        """Returns the matches that count as right, bool (p, n, n)."""

    def _matched(self, graphs: GraphBatch, left: Tensor, right: Tensor) -> Aligned:
        edges, edge_counts = neighbour_edges(graphs, self.k)
        whole = graphs.counts is None  # then every node has as many edges
        neighbours = edges.shape[1] // graphs.nodes.shape[1] if whole and graphs.nodes.shape[1] else None
        nodes = self.message_passing(graphs.nodes, edges, neighbours)
        of_nodes, of_edges = self._affinities(Graph(nodes, edges), neighbours, left, right)
        unary, quadratic = -of_nodes, -self.edge_weight * of_edges
        accepted = self._accepted(graphs, left, right)
        if self.training and self.margin:
            unary = unary + self.margin * accepted
        if self.directions == "both":
            unary, quadratic, accepted = (
                torch.cat([each, each.transpose(1, 2)]) for each in (unary, quadratic, accepted)
            )
            left, right = torch.cat([left, right]), torch.cat([right, left])
        sizes = None
        if graphs.counts is not None and edge_counts is not None:
            ends = (graphs.counts[left], graphs.counts[right], edge_counts[left], edge_counts[right])
            sizes = torch.stack(ends, dim=1)
        matching, _ = self.layer(self._watch(unary), quadratic, edges[left], edges[right], sizes)
        # A node without a counterpart is wrong to be matched only where it need not be.
        every_node_counts = graphs.elements is None or self.layer.unmatched_cost is not None
        target = accepted.to(matching.dtype)
        loss = hamming_loss(matching, target, None if every_node_counts else accepted.any(2))
        return Aligned(loss, matching, target)

    def _affinities(self, graphs: Graph, neighbours: int | None, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the affinities (p, n, n) and (p, e, e) of the left and right graphs, of g in all."""
        if has_long_nodes(graphs):
            nodes, edges = (self._sides(each, left, right) for each in (graphs.nodes, graphs.edges))
            return graph_affinities(Graph(nodes[0], edges[0]), Graph(nodes[1], edges[1]), neighbours)
        # Those of a graph serve all problems that it is in.
        unit, features = F.normalize(graphs.nodes, dim=-1), edge_features(graphs.nodes, graphs.edges, neighbours)
        return self._products(unit, left, right), self._products(features, left, right)

    def _products(self, values: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """Returns the inner products (p, n, n) of values (g, n, d) of the left and right graphs."""
        first, second = self._sides(values, left, right)
        return torch.matmul(first, second.transpose(1, 2))

    def _sides(self, values: Tensor, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """Returns values (g, n, d) of the left and of the right graphs, (p, n, d) each."""
        first, second = values.chunk(2) if self.graphs_in_halves else (values[left], values[right])
        return first, second

    def _watch(self, unary_costs: Tensor) -> Tensor:
        """Notes during the backward pass whether the matchings sent any gradient."""
        if unary_costs.requires_grad and not torch.compiler.is_compiling():
            unary_costs.register_hook(self._note_gradient)
        return unary_costs

    def _note_gradient(self, gradient: Tensor) -> None:
        self.zero_gradient = (gradient == 0).all()

    def _last_result(self) -> MatchResult | None:
        return self.layer.result

    def _largest_gap(self, loss: Tensor) -> Tensor:
        result = self._last_result()
        if result is None or result.gap.numel() == 0:
            return torch.zeros((), dtype=torch.float64, device=loss.device)
        return result.gap.max()


def _mean_where(values: Tensor, mask: Tensor) -> Tensor:
    """Returns the mean of the values where the mask holds; NaN where it does nowhere."""
    if _device.resident(values):  # how many it holds for is not known here
        return torch.where(mask, values, 0).sum() / mask.sum()
    return values[mask].mean()
