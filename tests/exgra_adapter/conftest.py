"""A small data set that the tests of training and of the command line share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exgra_adapter.data.records import Record, Turn, write_records

_SIDES = ("left", "right")


@dataclass(frozen=True)
class SmallData:
    """Where the data set lies."""

    data: Path
    images: Path
    records: list[Record]


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> SmallData:
    """Nine samples with extended answers: with batches of four, the last batch has one sample."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    records = []
    for index in range(9):
        side = _SIDES[index % 2]
        pixels = rng.integers(0, 60, (64, 64), dtype=np.uint8)
        pixels[20:40, 5 + 30 * (index % 2) : 20 + 30 * (index % 2)] += np.uint8(100 + 10 * index)
        Image.fromarray(pixels).save(folder / "images" / f"{index}.png")
        # No answer occurs twice: equal nodes could be matched either way, and rounding would decide.
        answer = f"{side}, level {index}"
        turns = [Turn("Where is the lesion?", answer, f"The lesion lies on the {side} side at level {index}.")]
        if index % 3 == 0:
            turns.append(Turn("Is there a lesion?", "yes", f"Yes, there is one lesion on the {side} side."))
        records.append(Record(str(index), f"{index}.png", tuple(turns), "OPEN"))
    write_records(folder / "train.json", records)
    return SmallData(folder / "train.json", folder / "images", records)
