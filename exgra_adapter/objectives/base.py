"""What every alignment objective takes and returns, and which pairs of samples are no mismatch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import permutations
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

VIEWS = ("image", "answer", "extended")
_PER_TOKEN = {"patches": "patch_mask", "tokens": "token_mask"}


@dataclass(frozen=True, eq=False)
class BatchViews:
    """The views of a batch of n samples; an objective reads `image` and what it names in `needs`.

    Attributes:
        image: `(n, d)` float32, the mean of the projected patches.
        answer: `(n, d)` float32, the mean over the answer's tokens of the language model's last hidden state.
        extended: `(n, d)`, the same for the extended answer.
        groups: `(3, n)` int64, 0 or more: samples with one number in a view (row 0 image, 1 answer, 2 extended) show
            the same image or text there, and are no mismatches and no negatives. None: all samples differ.
        patches: `(n, p, d)`, projected patches.
        patch_mask: `(n, p)`, 1 at real patches; None: all are real.
        tokens: `(n, t, d)`, last hidden states of one of the texts.
        token_mask: `(n, t)`, 1 at the text's own tokens; None: all are.
        words: `(vocabulary, d)`, the language model's input embeddings.
    """

    image: Tensor
    answer: Tensor | None = None
    extended: Tensor | None = None
    groups: Tensor | None = None
    patches: Tensor | None = None
    patch_mask: Tensor | None = None
    tokens: Tensor | None = None
    token_mask: Tensor | None = None
    words: Tensor | None = None

    def required(self, name: str) -> Tensor:
        """Returns a field that must be there; raises ValueError if it is None."""
        value: Tensor | None = getattr(self, name)
        if value is None:
            raise ValueError(
                f"BatchViews: {name} must be given; got None. This objective needs it, as its attribute needs says."
            )
        return value

    def group_row(self, name: str) -> Tensor | None:
        """Returns the groups `(n,)` of a view, or None."""
        return None if self.groups is None else self.groups[VIEWS.index(name)]


@dataclass(frozen=True, eq=False)
class ObjectiveResult:
    """What an objective found in a batch.

    Attributes:
        loss: 0-d, differentiable.
        metrics: 0-d tensors without gradients. Always `retrieval`, the mean over ordered pairs of views of the top-1
            retrieval; matchings add `matching_accuracy` and `gap`, objectives with a temperature `temperature`. Of one
            sample alone, retrieval and accuracy are 1.
    """

    loss: Tensor
    metrics: dict[str, Tensor]


class Objective(nn.Module, ABC):
    """An alignment loss on the views of a batch, computed in float32 at least, whatever autocast says.

    The gradient is homogeneous in the gradient that comes from above: loss weights, loss scaling and accumulation
    multiply it and do nothing else. A batch of one sample has nothing to be compared with: its loss is 0, attached to
    the graph.

    Args:
        dim: Length d of the views.
        views: The views that are aligned: "image" and at least one text. None: all three.

    Attributes:
        needs: Fields of `BatchViews` that `forward` reads besides `image`, `groups` and the masks.
        scope: "global": may be given the gathered nodes of all ranks; "local": only those of one rank, since it
            compares patches with tokens.

    Raises:
        ValueError: An option breaks its rule.
    """

    scope: ClassVar[Literal["global", "local"]] = "global"
    needs: frozenset[str]

    def __init__(self, dim: int, views: Sequence[str] | None = None) -> None:
        super().__init__()
        check_option(type(self).__name__, "dim", dim, dim >= 1, "be at least 1", "Pass the width of the model.")
        self.dim = dim
        self.views = checked_views(type(self).__name__, views)
        self.needs = frozenset(self.views) - {"image"}

    def forward(self, views: BatchViews) -> ObjectiveResult:
        """Returns loss and metrics of a batch.

        Raises:
            ValueError: A view that the objective needs is missing, or shapes disagree.
        """
        samples = self._check(views)
        with torch.autocast(device_type=views.image.device.type, enabled=False):
            result = self._align(_in_full_precision(views))
        if samples > 1:
            return result
        return ObjectiveResult(result.loss * 0, result.metrics)

    @abstractmethod
    def _align(self, views: BatchViews) -> ObjectiveResult:
        """Returns loss and metrics of checked views, outside of autocast."""

    def _check(self, views: BatchViews) -> int:
        where = type(self).__name__
        samples = len(views.image)
        check_option(where, "views", samples, samples >= 1, "hold at least 1 sample", "Leave empty batches out.")
        for name in ("image", *sorted(self.needs)):
            value = views.required(name)
            rows = len(value) if name == "words" else samples
            dims = 3 if name in _PER_TOKEN else 2
            if value.ndim != dims or tuple(value.shape) != (rows, *value.shape[1:-1], self.dim):
                shape = ("words, " if name == "words" else "n, ") + ("length, d" if dims == 3 else "d")
                raise ValueError(
                    f"{where}: {name} must have the shape ({shape}) with n = {samples}, d = {self.dim}; got "
                    f"{tuple(value.shape)}. Pass the views of one batch, and build the objective for their width."
                )
            mask_name = _PER_TOKEN.get(name)
            mask = None if mask_name is None else getattr(views, mask_name)
            if mask is not None and mask.shape != value.shape[:2]:
                raise ValueError(
                    f"{where}: {mask_name} must have the shape {tuple(value.shape[:2])} of {name}; got "
                    f"{tuple(mask.shape)}. Give an entry per position."
                )
        if views.groups is not None and tuple(views.groups.shape) != (len(VIEWS), samples):
            raise ValueError(
                f"{where}: groups must have the shape {(len(VIEWS), samples)}; got {tuple(views.groups.shape)}. "
                f"Give a row to each of {', '.join(VIEWS)}, whether it is used or not."
            )
        return samples


def accepted_pairs(left: Tensor | None, right: Tensor | None, like: Tensor) -> Tensor:
    """Returns bool `(n, n)`: whether sample j of the right view may take the place of the counterpart of sample i.

    It may if there is a sample whose left view is the same as that of i and whose right view is the same as that of j:
    an image that is in the batch with several questions belongs to the answer of each.

    Args:
        left: `(n,)` int64, groups of the left view; None: all samples differ.
        right: `(n,)`, groups of the right view.
        like: `(n, d)`, gives n and the device.

    Example:
        >>> import torch
        >>> image, text = torch.tensor([0, 0, 1]), torch.tensor([5, 6, 6])  # one image twice, one text twice
        >>> accepted_pairs(image, text, torch.zeros(3, 1)).int()
        tensor([[1, 1, 1],
                [1, 1, 1],
                [0, 1, 1]], dtype=torch.int32)
    """
    first, second = (same_samples(groups, like) for groups in (left, right))
    return torch.matmul(first.float(), second.float()) > 0.5


def same_samples(groups: Tensor | None, like: Tensor) -> Tensor:
    """Returns bool `(n, n)`: whether two samples have one group; None: all differ."""
    if groups is None:
        return torch.eye(len(like), dtype=torch.bool, device=like.device)
    return groups[:, None] == groups[None, :]


def view_retrieval(nodes: dict[str, Tensor], groups: dict[str, Tensor | None]) -> Tensor:
    """Returns the top-1 retrieval between views, the mean over ordered pairs: a 0-d tensor in [0, 1] without gradient.

    Args:
        nodes: `(n, d)` per view.
        groups: `(n,)` per view, or None.
    """
    unit = {name: F.normalize(value.detach(), dim=-1) for name, value in nodes.items()}
    return torch.stack(
        [
            retrieval(unit[left] @ unit[right].T, accepted_pairs(groups[left], groups[right], unit[left]))
            for left, right in permutations(unit, 2)
        ]
    ).mean()


def retrieval(similarity: Tensor, accepted: Tensor) -> Tensor:
    """Returns the share of rows `(n, n)` whose most similar column is accepted."""
    best = similarity.detach().argmax(1, keepdim=True)
    return accepted.gather(1, best).float().mean()


def check_option(where: str, name: str, value: object, holds: bool, rule: str, cure: str) -> None:
    """Raises ValueError if an option breaks its rule."""
    if not holds:
        raise ValueError(f"{where}: {name} must {rule}; got {value!r}. {cure}")


def checked_views(where: str, views: Sequence[str] | None) -> tuple[str, ...]:
    """Returns the views in their usual order; raises ValueError if an image or a text is missing."""
    if views is None:
        return VIEWS
    chosen = tuple(name for name in VIEWS if name in views)
    holds = not isinstance(views, str) and len(chosen) == len(views) and chosen[:1] == ("image",) and len(chosen) > 1
    check_option(
        where, "views", views, holds, "hold image and at least one of answer, extended, each once", "Or leave it out."
    )
    return chosen


def full_precision(values: Tensor) -> Tensor:
    """Returns half-precision values in float32, all others as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _in_full_precision(views: BatchViews) -> BatchViews:
    # Words stay as they are: whoever uses them takes a few rows only.
    given = {field.name: getattr(views, field.name) for field in fields(views) if field.name != "words"}
    return replace(
        views,
        **{
            name: full_precision(value)
            for name, value in given.items()
            if value is not None and value.is_floating_point()
        },
    )
