"""Contrastive baselines on the same nodes as the alignment: InfoNCE and the pairwise sigmoid loss."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from exgra_adapter.objectives.base import (
    BatchViews,
    Objective,
    ObjectiveResult,
    accepted_pairs,
    check_option,
    view_retrieval,
)

# CLIP's limit: the least temperature is 1/100.
_LARGEST_SCALE = 100.0


class LearnedScale(nn.Module):
    """The factor exp(t) on similarities with a learned t, at most 100; its inverse is the temperature.

    Args:
        temperature: At the beginning.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        # Not 0-d: fully sharded data parallelism refuses such parameters.
        self.log_scale = nn.Parameter(torch.tensor([-math.log(temperature)]))

    def forward(self) -> Tensor:
        """Returns the factor, 0-d float32; in training it first brings t back below its limit."""
        if self.training:
            # The parameter, not the factor: beyond a clamp of the factor no gradient would lead back.
            with torch.no_grad():
                self.log_scale.clamp_(max=math.log(_LARGEST_SCALE))
        return self.log_scale.float().exp()[0]

    @property
    def temperature(self) -> Tensor:
        """The inverse of the factor, without gradient."""
        return torch.exp(-self.log_scale.detach().float())[0]


class _Contrastive(Objective):
    """Mean over the pairs of views of a loss on their matrix of cosines."""

    def __init__(self, dim: int, views: Sequence[str] | None, temperature: float) -> None:
        super().__init__(dim, views)
        usable = 1 / _LARGEST_SCALE <= temperature < math.inf
        check_option(
            type(self).__name__, "temperature", temperature, usable, "be finite and at least 0.01", "Try 0.07 or 0.1."
        )
        self.scale = LearnedScale(temperature)

    def _align(self, views: BatchViews) -> ObjectiveResult:
        nodes = {name: views.required(name) for name in self.views}
        groups = {name: views.group_row(name) for name in self.views}
        unit = {name: F.normalize(value, dim=-1) for name, value in nodes.items()}
        scale = self.scale()
        losses = [
            self._pair_loss(scale * unit[left] @ unit[right].T, accepted_pairs(groups[left], groups[right], unit[left]))
            for left, right in combinations(self.views, 2)
        ]
        metrics = {"retrieval": view_retrieval(nodes, groups), "temperature": self.scale.temperature}
        return ObjectiveResult(torch.stack(losses).mean(), metrics)

    @abstractmethod
    def _pair_loss(self, logits: Tensor, accepted: Tensor) -> Tensor:
        """Returns the loss of scaled cosines `(n, n)`; `accepted` says which pairs are no negatives."""


class InfoNCE(_Contrastive):
    """Symmetric cross entropy of each sample's own counterpart among those of the batch, for every pair of views.

    With cosines s and scale exp(t): L = 1/2 mean_i [-log softmax_j(exp(t) s_ij)_i] + 1/2 the same over columns, then
    the mean over pairs of views. Pairs that are no mismatch (`BatchViews.groups`) are left out of the sums over j: they
    are neither positives nor negatives, and a sample's own counterpart stays its only positive.

    Cost: one n x n matrix per pair of views. The text passes are those of the alignment, so the two are matched in
    compute by construction.

    Args:
        dim: Length d of the views.
        views: The views; None: all three.
        temperature: exp(-t) at the beginning; t is learned, exp(t) at most 100.

    Source: A. Radford et al., "Learning transferable visual models from natural language supervision", ICML 2021
        (symmetric loss, initial temperature 0.07, limit 100); A. van den Oord et al., arXiv:1807.03748.

    Example:
        >>> import torch
        >>> from exgra_adapter.objectives import BatchViews, build_objective
        >>> nodes = torch.eye(4)
        >>> result = build_objective("infonce", dim=4)(BatchViews(nodes, nodes, nodes))
        >>> result.metrics["retrieval"], bool(result.loss < 1e-5)
        (tensor(1.), True)
    """

    def __init__(self, dim: int, views: Sequence[str] | None = None, temperature: float = 0.07) -> None:
        super().__init__(dim, views, temperature)

    def _pair_loss(self, logits: Tensor, accepted: Tensor) -> Tensor:
        return symmetric_cross_entropy(logits, accepted)


class SigLIP(_Contrastive):
    """Sigmoid loss: every pair of samples is a binary decision of its own, for every pair of views.

    With cosines s, scale exp(t) and bias b: L = -1/n sum_ij log sigmoid(z_ij (exp(t) s_ij + b)), z_ij = 1 for pairs
    that belong together and -1 otherwise, then the mean over pairs of views. All pairs that are no mismatch
    (`BatchViews.groups`) are positives: unlike a softmax, the loss allows several per sample.

    Cost as `InfoNCE`.

    Args:
        dim: Length d of the views.
        views: The views; None: all three.
        temperature: exp(-t) at the beginning; t is learned, exp(t) at most 100.
        bias: b at the beginning; learned. At -10 the many negatives cost next to nothing at first.

    Source: X. Zhai et al., "Sigmoid loss for language image pre-training", ICCV 2023, algorithm 1 (t = log 10, b = -10
        at the beginning).

    Example:
        >>> import torch
        >>> from exgra_adapter.objectives import BatchViews, build_objective
        >>> nodes = torch.eye(4)
        >>> result = build_objective("siglip", dim=4)(BatchViews(nodes, nodes, nodes))
        >>> result.loss.detach().round(decimals=3)  # log 2 for each positive, at cosine 1
        tensor(0.6930)
    """

    def __init__(
        self, dim: int, views: Sequence[str] | None = None, temperature: float = 0.1, bias: float = -10.0
    ) -> None:
        super().__init__(dim, views, temperature)
        check_option("SigLIP", "bias", bias, math.isfinite(bias), "be finite", "-10 is the source's.")
        self.bias = nn.Parameter(torch.tensor([float(bias)]))

    def _pair_loss(self, logits: Tensor, accepted: Tensor) -> Tensor:
        signs = 2.0 * accepted - 1.0
        return -F.logsigmoid(signs * (logits + self.bias.float())).sum() / len(logits)


def symmetric_cross_entropy(logits: Tensor, accepted: Tensor) -> Tensor:
    """Returns the mean cross entropy of the diagonal of logits `(n, n)`, over rows and over columns.

    Args:
        logits: `(n, n)`.
        accepted: `(n, n)` bool; off the diagonal these pairs are left out.
    """
    own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    logits = logits.masked_fill(accepted & ~own, -torch.inf)
    target = torch.arange(len(logits), device=logits.device)
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))
