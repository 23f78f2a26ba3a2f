"""Parts of the training data for data-efficiency runs, and splits where a source has none; both follow a seed."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from exgra_adapter.data.preparation.rows import Row

PERCENTS = (1, 5, 10, 20, 40, 50)
"""The parts that the literature on data efficiency reports."""


def nested_order(rows: Sequence[Row], seed: int) -> list[int]:
    """Orders rows such that every beginning of the order is a part with the whole's shares of answer types.

    Within an answer type, rows are ranked by a hash of the seed and their content; the one of rank r among n gets the
    place (r + 1/2) / n, and places are sorted. So a smaller part is contained in every larger one, each answer type has
    its share up to a row or two, and the order of the source does not matter.

    Args:
        rows: The rows.
        seed: Chooses the order.

    Returns:
        The positions of the rows.

    Example:
        >>> def row(number, kind):
        ...     return Row("train", "", {"id": str(number), "image": "a.png", "answer_type": kind, "conversations": []})
        >>> rows = [row(number, "OPEN" if number < 4 else "CLOSED") for number in range(8)]
        >>> [rows[position].answer_type for position in nested_order(rows, seed=0)[:2]].count("OPEN")
        1
    """
    strata: dict[str | None, list[tuple[int, int]]] = defaultdict(list)
    for position, row in enumerate(rows):
        strata[row.answer_type].append((_hash(seed, row.sample), position))
    places = []
    for members in strata.values():
        ranked = enumerate(sorted(members))
        places += [((rank + 0.5) / len(members), key, position) for rank, (key, position) in ranked]
    return [position for _, _, position in sorted(places)]


def rows_of_percent(percent: float, count: int, caller: str = "prepare") -> int:
    """The number of rows that some percent of `count` are: rounded, at least one.

    Raises:
        ValueError: `percent` is not above 0 and at most 100.
    """
    if not 0 < percent <= 100:
        raise ValueError(f"{caller}: a percentage must be above 0 and at most 100; got {percent:g}. Use 10 for 10 %.")
    return max(1, round(percent * count / 100))


def split_rows(rows: Sequence[Row], shares: dict[str, float], seed: int) -> list[Row]:
    """Moves training rows to other splits, image by image, so that no image is in two splits.

    Images are ranked by a hash of the seed and their name; each split takes the first that are left, until it has its
    share of the training images.

    Args:
        rows: The rows.
        shares: The percentage of the training images that each split gets, above 0; less than 100 in total.
        seed: Chooses the images.

    Returns:
        The rows, in their order, some with another split.

    Raises:
        ValueError: A split exists in the source, the shares are not as said, or too few images are left.
    """
    if not shares:
        return list(rows)
    for split, share in shares.items():
        if any(row.split == split for row in rows):
            raise ValueError(
                f"prepare: a {split} split must be made only where the source has none; got one with rows. "
                f"Leave out --{split}."
            )
        if not 0 < share < 100:
            raise ValueError(f"prepare: --{split} must be above 0 and below 100 percent; got {share:g}. Correct it.")
    images = sorted({row.image for row in rows if row.split == "train"}, key=lambda image: (_hash(seed, image), image))
    target: dict[str, str] = {}
    for split, share in shares.items():
        begin = len(target)
        target |= dict.fromkeys(images[begin : begin + max(1, round(share * len(images) / 100))], split)
    if len(target) >= len(images):
        raise ValueError(
            f"prepare: the splits must leave images for training; got {sum(shares.values()):g} percent of "
            f"{len(images)} images for other splits. Lower the percentages."
        )
    return [
        replace(row, split=target[row.image]) if row.split == "train" and row.image in target else row for row in rows
    ]


def _hash(seed: int, content: object) -> int:
    text = json.dumps([seed, content], sort_keys=True)
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "big")
