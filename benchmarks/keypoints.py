"""Pairs of real landmark sets: CMU house and hotel frames, Willow ducks and wine bottles, from the data folder.

Only coordinates are used. Each side is turned, jittered, centred, scaled to unit deviation and shuffled by itself; the
left side lacks two of the landmarks of the right one. Frames or images of the test pairs occur in no training pair.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

Split = Literal["train", "test"]

_CMU = ("house", "hotel")
_WILLOW = ("duck", "winebottle")
CATEGORIES = (*_CMU, *_WILLOW)


class Pairs(NamedTuple):
    """Landmarks to match.

    Attributes:
        left: (b, n1, 2) float32 coordinates.
        right: (b, n2, 2), n2 >= n1.
        target: (b, n1, n2) 0/1, one in each row.
        category: (b,) int64, index in `CATEGORIES`; -1 = generated.
    """

    left: Tensor
    right: Tensor
    target: Tensor
    category: Tensor

    def take(self, places: Tensor | slice) -> Pairs:
        """Returns some of the pairs."""
        return Pairs(*(each[places] for each in self))


@dataclass(frozen=True)
class Difficulty:
    """What is done to the landmarks.

    Attributes:
        landmarks: Of the right side, drawn anew for each pair where an image has more.
        missing: Of them absent on the left.
        turn: Largest rotation of each side, in degrees.
        jitter: Deviation of the noise of each coordinate, where coordinates have deviation 1.
        apart: Least number of frames between the two sides of a CMU pair.
    """

    landmarks: int = 10
    missing: int = 2
    turn: float = 90.0
    jitter: float = 0.05
    apart: int = 20


def images(folder: Path) -> dict[str, np.ndarray]:
    """Returns the landmarks (images, landmarks, 2) of each category; equal places correspond."""
    found = {}
    for name in _CMU:
        path = folder / "keypoints" / "cmu" / f"{name}_landmarks.csv"
        with path.open(encoding="utf-8", newline="") as lines:
            rows = sorted(
                (int(r["frame"]), int(r["point"]), float(r["x"]), float(r["y"])) for r in csv.DictReader(lines)
            )
        frames = 1 + rows[-1][0]
        found[name] = np.array([row[2:] for row in rows]).reshape(frames, -1, 2)
    path = folder / "keypoints" / "willow" / "pts_coord.json"
    willow = json.loads(path.read_text(encoding="utf-8"))
    return found | {name: np.array([willow[name][image] for image in sorted(willow[name])]) for name in _WILLOW}


def draw_pairs(
    landmarks: dict[str, np.ndarray], split: Split, count: int, seed: int, difficulty: Difficulty | None = None
) -> Pairs:
    """Returns pairs of images of one category, categories in turn.

    CMU frames are split in time, the first half for training; Willow images by a random half.
    """
    rng = np.random.default_rng((seed, split == "test"))
    own = {name: _half(name, len(points), split) for name, points in landmarks.items()}
    apart = (difficulty or Difficulty()).apart

    def two(place: int) -> tuple[np.ndarray, np.ndarray]:
        name = list(landmarks)[place % len(landmarks)]
        while True:
            first, second = rng.choice(own[name], 2, replace=False)
            if name not in _CMU or abs(int(first) - int(second)) >= apart:
                return landmarks[name][first], landmarks[name][second]

    pairs = _pairs(two, count, difficulty or Difficulty(), rng)
    names = torch.tensor([CATEGORIES.index(name) for name in landmarks])
    return pairs._replace(category=names[torch.arange(count) % len(names)])


def generated_pairs(count: int, seed: int, shape_seed: int = 0, difficulty: Difficulty | None = None) -> Pairs:
    """Returns pairs of deformed copies of one random shape: no data folder needed."""
    chosen = difficulty or Difficulty()
    shape = np.random.default_rng((shape_seed, 2)).normal(size=(chosen.landmarks, 2))
    rng = np.random.default_rng((seed, 3))

    def two(place: int) -> tuple[np.ndarray, np.ndarray]:
        left, right = (shape @ (np.eye(2) + 0.15 * rng.normal(size=(2, 2))) for _ in range(2))
        return left, right

    return _pairs(two, count, chosen, rng)


def _half(name: str, count: int, split: Split) -> np.ndarray:
    """Returns the images of a split; which those of Willow are does not depend on the seed of a run."""
    order = np.arange(count) if name in _CMU else np.random.default_rng(0).permutation(count)
    return order[: count // 2] if split == "train" else order[count // 2 :]


def _pairs(
    two: Callable[[int], tuple[np.ndarray, np.ndarray]], count: int, difficulty: Difficulty, rng: np.random.Generator
) -> Pairs:
    size, kept = difficulty.landmarks, difficulty.landmarks - difficulty.missing
    left, right = np.empty((count, kept, 2)), np.empty((count, size, 2))
    target = np.zeros((count, kept, size))
    for place in range(count):
        one, other = two(place)
        chosen = rng.permutation(len(one))[:size]
        order = rng.permutation(size)
        # chosen is in random order already: its head is the left side.
        left[place] = _seen(one[chosen[:kept]], difficulty, rng)
        right[place] = _seen(other[chosen[order]], difficulty, rng)
        target[place, order[order < kept], np.flatnonzero(order < kept)] = 1
    tensors = (torch.from_numpy(each).float() for each in (left, right, target))
    return Pairs(*tensors, torch.full((count,), -1))


def _seen(points: np.ndarray, difficulty: Difficulty, rng: np.random.Generator) -> np.ndarray:
    """Returns points as one side shows them: turned, jittered, centred and scaled."""
    angle = np.radians(difficulty.turn) * rng.uniform(-1, 1)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = _normalised(points) @ turn.T + difficulty.jitter * rng.normal(size=points.shape)
    return _normalised(points)


def _normalised(points: np.ndarray) -> np.ndarray:
    """Returns points with mean 0 and coordinates of mean square 1."""
    points = points - points.mean(0)
    return points / np.sqrt((points**2).mean())


def accuracy(matching: Tensor, pairs: Pairs) -> Tensor:
    """Returns the share of the left landmarks matched correctly, (b,)."""
    return (matching * pairs.target).sum((1, 2)) / pairs.target.sum((1, 2))
