"""What the measured steps say: the price of the alignment and its parts, relative to a step without it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

ALONE, CONTRAST, ALIGNED = "autoregressive", "InfoNCE", "barycenter"
# Phases that a step without alignment does not have, in the order of the picture.
PARTS = {
    "text": "text pass, forward",
    "text backward": "text pass, backward",
    "graph": "graphs, forward",
    "graph backward": "graphs, backward",
    "solve": "solving, forward",
    "solve backward": "solving, backward",
}


@dataclass(frozen=True)
class Price:
    """The price of the alignment at one point; shares are relative to the median step without alignment.

    Attributes:
        samples: Samples per batch, nodes of each graph.
        size: Of the model, in multiples of 128.
        width: Of the language model.
        parameters: Of the model.
        rounds: Steps of each kind.
        load: Of the machine at the end.
        alone: Median seconds of a step without alignment.
        overhead: Quartiles of (aligned step / step beside it without alignment) - 1.
        contrast: The same for InfoNCE on the same texts.
        parts: Median share of each part.
        extra_tokens: Tokens of the text pass per token of the main pass.
        memory: Peak bytes without and with alignment, or None.
    """

    samples: int
    size: int
    width: int
    parameters: int
    rounds: int
    load: float
    alone: float
    overhead: tuple[float, float, float]
    contrast: tuple[float, float, float]
    parts: dict[str, float]
    extra_tokens: float
    memory: tuple[int, int] | None

    @property
    def text(self) -> float:
        """Share of the text pass, both ways."""
        return self.parts["text"] + self.parts["text backward"]

    @property
    def graph(self) -> float:
        """Share of building graphs and costs, both ways."""
        return self.parts["graph"] + self.parts["graph backward"]

    @property
    def solve(self) -> float:
        """Share of solving, both ways."""
        return self.parts["solve"] + self.parts["solve backward"]

    @property
    def rest(self) -> float:
        """What the parts do not explain: more parameters for the optimizer, hooks, chance."""
        return self.overhead[1] - sum(self.parts.values())

    @property
    def extra_memory(self) -> float | None:
        """Peak memory with alignment relative to that without, less 1."""
        return None if self.memory is None else self.memory[1] / self.memory[0] - 1


def prices(result: dict[str, Any]) -> list[Price]:
    """Returns the price at every point of a result."""
    points = result["points"]
    return [_price(points, *map(int, key.split(" | ")[1:])) for key in points if key.startswith("time | ")]


def over_samples(result: dict[str, Any]) -> list[Price]:
    """Returns the prices at the size of the cross's centre, by samples."""
    found = [each for each in prices(result) if each.size == result["settings"]["centre"][1]]
    return sorted(found, key=lambda each: each.samples)


def over_widths(result: dict[str, Any]) -> list[Price]:
    """Returns the prices at the samples of the cross's centre, by width."""
    found = [each for each in prices(result) if each.samples == result["settings"]["centre"][0]]
    return sorted(found, key=lambda each: each.width)


def _price(points: dict[str, Any], samples: int, size: int) -> Price:
    timed = points[f"time | {samples} | {size}"]
    phases = timed["phases"][ALIGNED]
    bytes_of = [points.get(f"memory | {samples} | {size} | {arm}") for arm in (ALONE, ALIGNED)]
    known = [each["peak_bytes"] for each in bytes_of if each is not None]
    return Price(
        samples=samples,
        size=size,
        width=timed["width"],
        parameters=timed["parameters"],
        rounds=timed["rounds"],
        load=timed["load"],
        alone=timed["alone"],
        overhead=tuple(timed["overhead"]),
        contrast=tuple(timed["contrast"]),
        parts={part: phases.get(part, 0.0) / timed["alone"] for part in PARTS},
        extra_tokens=timed["tokens"]["text"] / timed["tokens"]["main"],
        memory=(known[0], known[1]) if len(known) == 2 else None,
    )
