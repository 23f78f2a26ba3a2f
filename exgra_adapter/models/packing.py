"""Texts of different lengths in few rows, so that one pass of the language model reads hardly any padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

PACKABLE = frozenset({"llama", "mistral", "phi3", "qwen2", "qwen3"})
"""Language models that keep texts in one row apart by their positions alone, by `model_type`."""

Layout = Literal["rows", "single_row", "padded"]

_ROW = 256


@dataclass(frozen=True, eq=False)
class PackedTexts:
    """m texts in r rows of t tokens.

    Attributes:
        input_ids: (r, t) int64.
        position_ids: (r, t) int64, counted from 0 within each text: what tells the texts of a row apart.
        owners: (r, t) int64, the text that a token is averaged for; -1 = none, as for padding and special tokens.
        padding: (r, t) int64, 0 at padding of one text a row; None where rows are packed.
    """

    input_ids: Tensor
    position_ids: Tensor
    owners: Tensor
    padding: Tensor | None = None

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """Returns the tensors by name, for a batch."""
        found = {f"{prefix}{each.name}": getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in found.items() if value is not None}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], prefix: str) -> PackedTexts | None:
        """Returns what `tensors` wrote, or None where there is nothing."""
        names = [each.name for each in fields(cls)]
        found = {name: tensors[f"{prefix}{name}"] for name in names if f"{prefix}{name}" in tensors}
        return cls(**found) if found else None

    def means(self, hidden: Tensor, count: int) -> Tensor:
        """Returns the mean (count, d) float32 of hidden states (r, t, d) over the tokens of each text.

        A matrix product, because scattered sums on a GPU depend on the order of its threads.
        """
        owners = self.owners.flatten()
        shares = (owners == torch.arange(count, device=owners.device)[:, None]).float()
        shares = shares / shares.sum(1, keepdim=True).clamp(min=1)
        with torch.autocast(hidden.device.type, enabled=False):
            return shares @ hidden.flatten(0, 1).float()

    def states(self, hidden: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Returns the hidden states of each text's own tokens, (count, longest, d), and where there are any, bool."""
        owners = self.owners.flatten()
        mine = owners == torch.arange(count, device=owners.device)[:, None]
        longest = int(mine.sum(1).max())
        order = (~mine).long().argsort(dim=1, stable=True)[:, :longest]
        return hidden.flatten(0, 1)[order], mine.gather(1, order)


def pack_texts(
    texts: Sequence[Sequence[int]], special: Sequence[Sequence[int]], padding_id: int, layout: Layout = "rows"
) -> PackedTexts:
    """Packs token ids of texts.

    Rows are filled by decreasing length, each text into the first row with room: at most 11/9 of the fewest rows. They
    are as wide as the longest text, and 256 tokens where that is shorter.

    Args:
        texts: Token ids of each text; at least one that is not special.
        special: 1 at the special tokens of each text, which no mean counts.
        padding_id: Fills the rows.
        layout: "rows"; "single_row" for attention kernels that take nothing else (FlashAttention 2); "padded", one text
            a row, for language models that are not in `PACKABLE`.

    Returns:
        The rows.

    Raises:
        ValueError: A text has no token of its own.

    Example:
        >>> packed = pack_texts([[1, 7, 8], [1, 9]], [[1, 0, 0], [1, 0]], padding_id=0)
        >>> packed.input_ids.tolist(), packed.position_ids.tolist(), packed.owners.tolist()
        ([[1, 7, 8, 1, 9]], [[0, 1, 2, 0, 1]], [[-1, 0, 0, -1, 1]])
    """
    for place, marks in enumerate(special):
        if all(marks):
            raise ValueError(
                f"pack_texts: texts must hold a token of their own each; got none in text {place}. Fill in the answer."
            )
    rows = _rows([len(text) for text in texts], layout)
    width = max(sum(len(texts[place]) for place in row) for row in rows)
    shape = (len(rows), width)
    input_ids = torch.full(shape, padding_id, dtype=torch.int64)
    position_ids, owners = torch.zeros(shape, dtype=torch.int64), torch.full(shape, -1)
    padding = torch.zeros(shape, dtype=torch.int64)
    for number, row in enumerate(rows):
        start = 0
        for place in row:
            end = start + len(texts[place])
            input_ids[number, start:end] = torch.tensor(texts[place])
            position_ids[number, start:end] = torch.arange(end - start)
            own = torch.tensor(special[place]) == 0
            owners[number, start:end] = torch.where(own, place, -1)
            padding[number, start:end] = 1
            start = end
        # Padding is one more text, which nobody averages.
        position_ids[number, start:] = torch.arange(width - start)
    return PackedTexts(input_ids, position_ids, owners, padding if layout == "padded" else None)


def _rows(lengths: Sequence[int], layout: Layout) -> list[list[int]]:
    """Returns the texts of each row: first fit, longest first."""
    if layout == "single_row":
        return [list(range(len(lengths)))]
    if layout == "padded":
        return [[place] for place in range(len(lengths))]
    capacity = max(_ROW, *lengths)
    rows: list[list[int]] = []
    room: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda each: (-lengths[each], each)):
        row = next((number for number, free in enumerate(room) if free >= lengths[place]), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(capacity)
        rows[row].append(place)
        room[row] -= lengths[place]
    return rows
