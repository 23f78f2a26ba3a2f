"""Alignment by graph matching: with barycenters, or pair by pair; the library's modules as objectives."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Sequence
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor, nn

import graphmatch as gm
from exgra_adapter.objectives.base import (
    BatchViews,
    Objective,
    ObjectiveResult,
    accepted_pairs,
    check_option,
    same_samples,
)
from exgra_adapter.objectives.relaxations import RecordedProblems, matching_parts

logger = logging.getLogger(__name__)

Directions = Literal["forward", "both"]


class _Matching(Objective):
    """Passes views and groups to an alignment of the library, and its findings on.

    Args:
        dim: Length d of the views.
        views: The views; None: all three.
        alignment: The module.
        layer: Takes the place of its matching layer; None keeps that.
        message_passing: False leaves the nodes as they are.
    """

    def __init__(
        self,
        dim: int,
        views: Sequence[str] | None,
        alignment: gm.BarycenterAlignment | gm.PairwiseAlignment,
        layer: nn.Module | None,
        message_passing: bool,
    ) -> None:
        super().__init__(dim, views)
        self.alignment = alignment
        self.legacy = False
        if isinstance(layer, RecordedProblems):
            layer.solver = alignment.layer.solver
        if layer is not None:
            alignment.add_module("layer", layer)
        if not message_passing:
            alignment.add_module("message_passing", _NoMessages())
        self._told = False

    @property
    def zero_gradient(self) -> Tensor:
        """0-d bool, whether the last backward pass found no gradient at all in the matchings."""
        return self.alignment.zero_gradient

    def _align(self, views: BatchViews) -> ObjectiveResult:
        self._tell_few_neighbours(len(views.image))
        nodes = [views.required(name) for name in self.views]
        rows = [views.group_row(name) for name in self.views]
        known = [row for row in rows if row is not None]
        groups = torch.stack(known) if known and not self.legacy else None
        details = self.alignment.details(*nodes, groups=groups)
        loss, accuracy, gap = details.loss, details.matching_accuracy, details.gap
        layer = self.alignment.layer
        if isinstance(layer, RecordedProblems):
            loss, accuracy, gap = self._fenchel_young(layer, self._accepted(rows, views.image))
        return ObjectiveResult(
            loss,
            {
                "retrieval": details.retrieval,
                "matching_accuracy": accuracy.detach(),
                "gap": gap.detach().to(loss.dtype),
            },
        )

    def _fenchel_young(self, layer: RecordedProblems, accepted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the loss of the recorded problems per node, the accuracy of their matchings, and the largest gap."""
        unary, quadratic, edges1, edges2 = layer.take()
        if self.alignment.directions == "both":
            accepted = torch.cat([accepted, accepted.mT])
        # Made anew: as a submodule it would have the layer's buffers a second time.
        supervised = gm.SupervisedMatchingLoss("fenchel_young", layer)
        loss = supervised(accepted.float(), unary, quadratic, edges1, edges2) / unary.shape[1]
        result = layer.result
        if result is None:
            raise ValueError("FenchelYoung: layer must have solved its problems; got no result. Report this.")
        accuracy = accepted.gather(2, result.assignment.clamp(min=0)[:, :, None]).float().mean()
        return loss, accuracy, result.gap.max()

    @abstractmethod
    def _accepted(self, rows: list[Tensor | None], like: Tensor) -> Tensor:
        """Returns the matches that are no mistakes, `(problems, n, n)` bool, in the order of the library's problems."""

    def _tell_few_neighbours(self, samples: int) -> None:
        if samples <= self.alignment.k and not self._told:
            self._told = True
            logger.warning(
                "%s: a graph of %d nodes has %d neighbours per node instead of %d; later ones are not mentioned",
                type(self).__name__,
                samples,
                samples - 1,
                self.alignment.k,
            )


class BarycenterObjective(_Matching):
    """The ExGra alignment: the graph of each view is matched with the barycenter of the others.

    `graphmatch.BarycenterAlignment` does the work and describes it; this class chooses its parts by name. Loss: Hamming
    distance to the true matching per node, in [0, 2], mean over the problems.

    `gradient` chooses how the loss reaches the costs of a discrete matching: imle (None takes it), adaptive_imle,
    blackbox, perturbed, negative_identity, straight_through; fenchel_young replaces the Hamming loss by the
    Fenchel-Young loss of the true matching per node, which is convex in the costs and not bounded.

    `relaxation` replaces the solver: spectral, rrwm and ipfp by the eigenvector, the random walks and the projected
    fixed point of the literature, whose rounded matchings need an estimator as well; sinkhorn and gumbel_sinkhorn by
    soft matchings with their own gradient, whose Hamming loss and accuracy count shares of nodes.

    Cost per step: graphs and message passing O(n^2 d), costs O((n k)^2 d), and the solves, 1 + 3 per problem for imle
    and one sample; one native call, on the CPU.

    Args:
        dim: Length d of the views.
        views: The views; with two of them each is the barycenter of the other. None: all three.
        neighbours: k of the graphs.
        barycenter: "leave_one_out", the mean of the other views, or "mean", of all views, as in the paper, which each
            view then matches almost for free. None: leave_one_out, and the mean with legacy.
        legacy: The released recipe with all its details, for comparison. Its gradient is not homogeneous and its
            matching knows no groups; other options of the matching must be left out.
        edge_weight: Weight of the edges in the costs.
        directions: "forward" matches views with barycenters, "both" the other way round as well.
        margin: Added to the costs of right matches in training, in units of cosines, so that matchings that are barely
            right still teach.
        relaxation: none, spectral, rrwm, ipfp, sinkhorn or gumbel_sinkhorn.
        gradient: An estimator, see above.
        samples: Noise draws per step, for estimators and relaxations with noise. None: 1, and 64 for perturbed.
        noise_scale: Of the noise, in units of cosines. None: 0.3, and 0.1 for gumbel_sinkhorn.
        temperature: Of straight_through, sinkhorn and gumbel_sinkhorn, in units of cosines.
            None: 0.1 for the first, 0.3 for the others.
        message_passing: False: nodes are compared as they are, without the two graph convolutions.
        dropout: Between the convolutions.
        seed: Of the noise.

    Source: D. M. H. Nguyen et al., "ExGra-Med", arXiv:2410.02615, sections 3.2 and 3.3.

    Example:
        >>> import torch
        >>> from exgra_adapter.objectives import BatchViews, build_objective
        >>> nodes = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
        >>> result = build_objective("barycenter", dim=4, neighbours=3).eval()(BatchViews(nodes, nodes, nodes))
        >>> result.metrics["matching_accuracy"], result.metrics["retrieval"]
        (tensor(1.), tensor(1.))
    """

    def __init__(
        self,
        dim: int,
        views: Sequence[str] | None = None,
        neighbours: int = 5,
        barycenter: Literal["leave_one_out", "mean"] | None = None,
        legacy: bool = False,
        edge_weight: float = 0.5,
        directions: Directions = "forward",
        margin: float = 0.0,
        relaxation: str = "none",
        gradient: str | None = None,
        samples: int | None = None,
        noise_scale: float | None = None,
        temperature: float | None = None,
        message_passing: bool = True,
        dropout: float = 0.1,
        seed: int = 0,
    ) -> None:
        where = "BarycenterObjective"
        known = barycenter in (None, "leave_one_out", "mean")
        check_option(where, "barycenter", barycenter, known, "be leave_one_out or mean", "Or leave it out.")
        if legacy:
            _check_legacy(
                barycenter=(barycenter or "mean", "mean"),
                edge_weight=(edge_weight, 0.5),
                directions=(directions, "forward"),
                margin=(margin, 0.0),
                relaxation=(relaxation, "none"),
                gradient=(gradient, None),
                samples=(samples, None),
                noise_scale=(noise_scale, None),
                temperature=(temperature, None),
            )
            alignment = gm.BarycenterAlignment(dim, neighbours, dropout=dropout, legacy=True)
            layer = None
        else:
            solver, estimator, layer = matching_parts(
                where, relaxation, gradient, seed, samples=samples, noise_scale=noise_scale, temperature=temperature
            )
            alignment = gm.BarycenterAlignment(
                dim,
                neighbours,
                barycenter or "leave_one_out",
                solver,
                estimator,
                edge_weight=edge_weight,
                dropout=dropout,
                directions=directions,
                margin=margin,
            )
        super().__init__(dim, views, alignment, layer, message_passing)
        self.legacy = legacy

    def _accepted(self, rows: list[Tensor | None], like: Tensor) -> Tensor:
        # A node may take the place of one that its view, or the barycenter, cannot tell from it.
        same = torch.stack([same_samples(row, like) for row in rows])
        leaves_out = isinstance(self.alignment, gm.BarycenterAlignment) and self.alignment.barycenter != "mean"
        own = torch.eye(len(same), dtype=torch.bool, device=same.device) & leaves_out
        centre = (same[None] | own[:, :, None, None]).all(1)
        return same | centre


class PairwiseObjective(_Matching):
    """Baseline of the paper's ablation: graphs of every two views are matched, instead of views with barycenters.

    `graphmatch.PairwiseAlignment` does the work; options, losses and costs as `BarycenterObjective`, with m (m - 1) / 2
    problems for m views, which for three views are as many.

    Args:
        dim: Length d of the views.
        views: The views; None: all three.
        neighbours: k of the graphs.
        edge_weight: Weight of the edges in the costs.
        directions: "forward" or "both".
        margin: Added to the costs of right matches in training.
        relaxation: none, spectral, rrwm, ipfp, sinkhorn or gumbel_sinkhorn.
        gradient: An estimator; None: imle.
        samples: Noise draws per step.
        noise_scale: Of the noise.
        temperature: Of straight_through, sinkhorn and gumbel_sinkhorn.
        message_passing: False: nodes are compared as they are.
        dropout: Between the convolutions.
        seed: Of the noise.

    Source: D. M. H. Nguyen et al., "ExGra-Med", arXiv:2410.02615, the ablation of the barycenter.

    Example:
        >>> import torch
        >>> from exgra_adapter.objectives import BatchViews, build_objective
        >>> nodes = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
        >>> objective = build_objective("pairwise", dim=4, views=("image", "answer"), neighbours=3).eval()
        >>> objective(BatchViews(nodes, nodes)).loss.detach()
        tensor(0.)
    """

    def __init__(
        self,
        dim: int,
        views: Sequence[str] | None = None,
        neighbours: int = 5,
        edge_weight: float = 0.5,
        directions: Directions = "forward",
        margin: float = 0.0,
        relaxation: str = "none",
        gradient: str | None = None,
        samples: int | None = None,
        noise_scale: float | None = None,
        temperature: float | None = None,
        message_passing: bool = True,
        dropout: float = 0.1,
        seed: int = 0,
    ) -> None:
        solver, estimator, layer = matching_parts(
            "PairwiseObjective",
            relaxation,
            gradient,
            seed,
            samples=samples,
            noise_scale=noise_scale,
            temperature=temperature,
        )
        alignment = gm.PairwiseAlignment(
            dim,
            neighbours,
            solver,
            estimator,
            edge_weight=edge_weight,
            dropout=dropout,
            directions=directions,
            margin=margin,
        )
        super().__init__(dim, views, alignment, layer, message_passing)

    def _accepted(self, rows: list[Tensor | None], like: Tensor) -> Tensor:
        return torch.stack([accepted_pairs(left, right, like) for left, right in combinations(rows, 2)])


class _NoMessages(nn.Module):
    """Takes the place of `graphmatch.MessagePassing`: nodes stay as they are."""

    def forward(self, nodes: Tensor, edges: Tensor, neighbours: int | None = None) -> Tensor:
        """Returns the nodes."""
        return nodes


def _check_legacy(**options: tuple[object, object]) -> None:
    """Refuses options, (value, default) each, that the released recipe would ignore."""
    for name, (value, default) in options.items():
        rule = f"be left out or {default!r} with legacy"
        check_option("BarycenterObjective", name, value, value == default, rule, "The released recipe has its own.")
