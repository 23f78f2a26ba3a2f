"""Assignment prediction: each view predicts which words the other one is assigned to."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from exgra_adapter.objectives.base import (
    BatchViews,
    Objective,
    ObjectiveResult,
    check_option,
    full_precision,
    same_samples,
    view_retrieval,
)


class AssignmentPrediction(Objective):
    """Swapped prediction of assignments to the words of the language model, between the image and each text.

    Words are the language model's input embeddings, which get no gradient here. With cosines s of a view's nodes and
    the words, the view predicts p = softmax(s / temperature), and its own assignment q is entropic transport of
    the batch to the words, with equal masses of words: `iterations` Sinkhorn sweeps on s / epsilon, without gradient.
    L = mean over texts of 1/2 [H(q_text, p_image) + H(q_image, p_text)], H the cross entropy, mean over samples.

    There are no negatives. Equal masses of words keep all samples from one word; samples of one group in a view
    (`BatchViews.groups`) share the mass of one, so that a repeated image or text does not take more than its part.

    Differs from the source in two points: there the masses of words follow their frequency, here they are equal; and of
    a large vocabulary a random subset serves, `max_words` rows drawn once by the seed.

    Cost: n x words x d per view, and an n x words matrix per view; no n x n matrix.

    Args:
        dim: Length d of the views and the words.
        views: The views; None: all three.
        temperature: Of the predictions.
        epsilon: Of the assignments.
        iterations: Sweeps.
        max_words: Words used.
        seed: Chooses them.

    Source: J. Park, J. Lee, K. Sohn, "Bridging vision and language spaces with assignment prediction", ICLR 2024;
        M. Caron et al., "Unsupervised learning of visual features by contrasting cluster assignments", NeurIPS 2020
        (swapped prediction, three sweeps, epsilon 0.05, temperature 0.1).

    Example:
        >>> import torch
        >>> from exgra_adapter.objectives import BatchViews, build_objective
        >>> words, nodes = torch.eye(4), torch.eye(4)
        >>> objective = build_objective("vlap", dim=4, views=("image", "answer"))
        >>> agreeing = objective(BatchViews(nodes, nodes, words=words)).loss
        >>> bool(agreeing < objective(BatchViews(nodes, nodes.roll(1, 0), words=words)).loss)
        True
    """

    def __init__(
        self,
        dim: int,
        views: Sequence[str] | None = None,
        temperature: float = 0.1,
        epsilon: float = 0.05,
        iterations: int = 3,
        max_words: int = 4096,
        seed: int = 0,
    ) -> None:
        super().__init__(dim, views)
        where = "AssignmentPrediction"
        for name, value in (("temperature", temperature), ("epsilon", epsilon)):
            usable = 1e-3 <= value < math.inf
            check_option(where, name, value, usable, "be finite and at least 0.001", "0.1 and 0.05 are the defaults.")
        check_option(where, "iterations", iterations, iterations >= 1, "be at least 1", "3 is the default.")
        check_option(where, "max_words", max_words, max_words >= 2, "be at least 2", "4096 is the default.")
        self.temperature, self.epsilon, self.iterations = temperature, epsilon, iterations
        self.max_words, self.seed = max_words, seed
        self.needs |= {"words"}
        self._rows: Tensor | None = None

    def _align(self, views: BatchViews) -> ObjectiveResult:
        nodes = {name: views.required(name) for name in self.views}
        groups = {name: views.group_row(name) for name in self.views}
        words = self._chosen(views.required("words").detach()).to(views.image.dtype)
        words = F.normalize(words, dim=-1)
        cosines = {name: F.normalize(value, dim=-1) @ words.T for name, value in nodes.items()}
        predicted = {name: F.log_softmax(each / self.temperature, 1) for name, each in cosines.items()}
        assigned = {
            name: assignments(each.detach() / self.epsilon, groups[name], self.iterations)
            for name, each in cosines.items()
        }
        losses = [
            -0.5 * (assigned[text] * predicted["image"] + assigned["image"] * predicted[text]).sum(1).mean()
            for text in self.views[1:]
        ]
        return ObjectiveResult(torch.stack(losses).mean(), {"retrieval": view_retrieval(nodes, groups)})

    def _chosen(self, words: Tensor) -> Tensor:
        """Returns the rows in use, in float32 at least."""
        if len(words) > self.max_words:
            if self._rows is None or self._rows.device != words.device or len(self._rows) != self.max_words:
                order = torch.randperm(len(words), generator=torch.Generator().manual_seed(self.seed))
                self._rows = order[: self.max_words].sort().values.to(words.device)
            words = words[self._rows]
        return full_precision(words)


@torch.no_grad()
def assignments(scores: Tensor, groups: Tensor | None, iterations: int) -> Tensor:
    """Returns the assignments `(n, w)` of samples to words, rows of sum 1, by entropic transport in the log domain.

    Args:
        scores: `(n, w)`, similarities divided by the weight of the entropy.
        groups: `(n,)`: samples of one group share the mass of one. None: all differ.
        iterations: Sweeps; each balances the words, then the samples.

    Example:
        >>> import torch
        >>> assignments(torch.tensor([[9.0, 8.0], [9.0, 0.0]]), None, iterations=50).round(decimals=2)
        tensor([[0.0200, 0.9800],
                [0.9800, 0.0200]])
    """
    shares = same_samples(groups, scores).sum(1).to(scores.dtype).reciprocal()
    log_samples = (shares / shares.sum()).log()[:, None]
    log_words = -math.log(scores.shape[1])
    u = log_samples
    for _ in range(iterations):
        v = log_words - torch.logsumexp(scores + u, 0, keepdim=True)
        u = log_samples - torch.logsumexp(scores + v, 1, keepdim=True)
    return torch.softmax(scores + v, 1)
