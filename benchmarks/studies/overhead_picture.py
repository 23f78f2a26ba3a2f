"""The picture of the overhead study: the parts of the overhead, and peak memory, over graph size and model width."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.ticker import PercentFormatter

from benchmarks.output import BLUE, GREEN, GREY, ORANGE, figure
from benchmarks.studies.overhead_figures import PARTS, Price, over_samples, over_widths

_BLACK, _PALE = "#000000", "#BBBBBB"
# One colour per part, dark forward and light backward.
_COLOURS = {
    "text": BLUE,
    "text backward": "#7FB8DC",
    "graph": GREEN,
    "graph backward": "#80CFB9",
    "solve": ORANGE,
    "solve backward": "#EAAE7F",
}
_MEGABYTE = 1e6


def draw(result: dict[str, Any], path: Path) -> None:
    """Draws the four panels."""
    by_samples, by_width = over_samples(result), over_widths(result)
    samples, width = by_width[0].samples, by_samples[0].width
    with figure(path, width=15, height=11.5) as canvas:
        (time_samples, time_width), (memory_samples, memory_width) = canvas.subplots(2, 2, sharey="row")
        labels = [str(each.samples) for each in by_samples], [str(each.width) for each in by_width]
        _time(time_samples, by_samples, labels[0])
        _time(time_width, by_width, labels[1])
        _memory(memory_samples, by_samples, labels[0])
        _memory(memory_width, by_width, labels[1])
        for axes in (time_samples, memory_samples):
            axes.set_xlabel(f"samples per batch = nodes per graph; width {width}")
        for axes in (time_width, memory_width):
            axes.set_xlabel(f"width of the language model; {samples} samples per batch")
        time_samples.set_ylabel("added to a step without alignment")
        memory_samples.set_ylabel("peak memory, MB")
        time_samples.set_title("Time over the number of samples")
        time_width.set_title("Time over the model's width")
        memory_samples.set_title("Memory over the number of samples")
        memory_width.set_title("Memory over the model's width")
        handles = [*_legend(time_samples), *_legend(memory_samples)]
        canvas.legend(handles=handles, loc="outside lower center", ncols=3)


def _legend(axes: Axes) -> list[Any]:
    """Returns the handles of a panel, bars before marks."""
    return sorted(axes.get_legend_handles_labels()[0], key=lambda handle: not isinstance(handle, BarContainer))


def _time(axes: Axes, found: list[Price], labels: list[str]) -> None:
    places = list(range(len(found)))
    base = [0.0] * len(found)
    for part, name in PARTS.items():
        heights = [each.parts[part] for each in found]
        axes.bar(places, heights, bottom=base, width=0.62, color=_COLOURS[part], label=name)
        base = [low + height for low, height in zip(base, heights, strict=True)]
    middles = [each.overhead[1] for each in found]
    reach = [
        [each.overhead[1] - each.overhead[0] for each in found],
        [each.overhead[2] - each.overhead[1] for each in found],
    ]
    style: dict[str, Any] = {"linestyle": "", "markersize": 10, "markeredgewidth": 2.4}
    axes.errorbar(
        places, middles, yerr=reach, fmt="_", color=_BLACK, elinewidth=1.6, markersize=22, markeredgewidth=2.6,
        label="whole overhead, median and quartiles",
    )  # fmt: skip
    shifted = [place + 0.42 for place in places]
    axes.plot(
        shifted, [each.contrast[1] for each in found], marker="x", color=GREY, label="InfoNCE, same texts", **style
    )
    axes.plot(
        shifted, [each.extra_tokens for each in found], marker="D", color=GREY, fillstyle="none", label="extra tokens",
        **style,
    )  # fmt: skip
    axes.set_xticks(places, labels)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(visible=False, axis="x")


def _memory(axes: Axes, found: list[Price], labels: list[str]) -> None:
    places = list(range(len(found)))
    known = [(place, each.memory) for place, each in zip(places, found, strict=True) if each.memory is not None]
    alone = [memory[0] / _MEGABYTE for _, memory in known]
    extra = [(memory[1] - memory[0]) / _MEGABYTE for _, memory in known]
    at = [place for place, _ in known]
    axes.bar(at, alone, width=0.62, color=_PALE, label="memory without alignment")
    axes.bar(at, extra, bottom=alone, width=0.62, color=BLUE, hatch="//", edgecolor="white", label="memory it adds")
    for place, low, more in zip(at, alone, extra, strict=True):
        axes.annotate(f"{more / low:+.0%}", (place, low + max(more, 0)), ha="center", va="bottom", fontsize=13)
    axes.set_xticks(places, labels)
    axes.grid(visible=False, axis="x")
