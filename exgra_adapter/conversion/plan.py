"""What a conversion is going to do: which tensor is written from which, what is left out and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

How = Literal["copied", "folded", "unfolded", "created"]


@dataclass(frozen=True)
class Transfer:
    """One tensor to write.

    Attributes:
        target: Its name in the output.
        source: Where its values come from: a name in the source, or a description of what was created.
        shape: Its shape.
        dtype: The type it is written in.
        how: `copied` bit for bit (unless the type changes), `folded` or `unfolded` by arithmetic, `created`.
        file: The file in the output, if it is not one of the model's weight files.
        order: Tensors are written in this order: that of the source's files, so that each is opened once.
        read: Returns the values, in any type.
    """

    target: str
    source: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    how: How
    order: str
    read: Callable[[], Tensor] = field(repr=False)
    file: str | None = None

    @property
    def bytes(self) -> int:
        """Size in the output."""
        return prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Dropped:
    """A tensor of the source that the output does not have."""

    source: str
    reason: str


@dataclass(frozen=True)
class Change:
    """A setting that differs from what the source says."""

    setting: str
    before: Any
    after: Any


@dataclass
class Plan:
    """Everything a conversion does.

    Attributes:
        direction: The format of the output.
        transfers: The tensors to write.
        dropped: The tensors left out.
        changes: The settings that are corrected.
        notes: What the user should know.
        write_companions: Writes configuration, tokenizer and so on into the output folder.
        settings: What `conversion.json` keeps for the way back.
    """

    direction: Literal["hugging-face", "original"]
    transfers: list[Transfer]
    dropped: list[Dropped]
    changes: list[Change]
    notes: list[str]
    write_companions: Callable[[Path], None]
    settings: dict[str, Any]


def find_problems(targets: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]]) -> list[str]:
    """Compares names and shapes of tensors with those a model has.

    Args:
        targets: What is there.
        expected: What the model has.

    Returns:
        One phrase per difference, empty if there is none.

    Example:
        >>> find_problems({"a": (2,), "b": (3,)}, {"a": (4,), "c": (1,)})
        ['a has shape (2,) instead of (4,)', 'c is missing', 'b is unknown']
    """
    problems = [
        f"{name} has shape {targets[name]} instead of {shape}"
        for name, shape in expected.items()
        if name in targets and targets[name] != shape
    ]
    problems += [f"{name} is missing" for name in expected if name not in targets]
    problems += [f"{name} is unknown" for name in targets if name not in expected]
    return problems


def summarize(items: list[str], most: int = 4) -> str:
    """Joins phrases for an error text; more than `most` are counted only.

    Example:
        >>> summarize(["a", "b", "c"], most=2)
        'a; b; and 1 more'
    """
    shown = items[:most]
    if len(items) > most:
        shown.append(f"and {len(items) - most} more")
    return "; ".join(shown)
