"""Alignment over training as an animation: two views of the same samples find each other."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphmatch import _check
from graphmatch.graphs import knn_graph
from graphmatch.io.files import as_path, write_bytes
from graphmatch.multigraph import MultiGraphProblem
from graphmatch.solve import solve
from graphmatch.viz.theme import Theme, check_picture_path, curve_axes, figure_of, head, legend, plain_axes, theme_of

ANIMATION_SUFFIXES = (".gif", ".webp", ".png")
_WHERE = "animate_alignment"
_LAST_FRAME = 4  # times as long as the others
_MOST_LINES = 200
Places = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class AlignmentFrame:
    """Two views of the same samples at one step of training, and their matching.

    Attributes:
        step: Step of training.
        first: (n, d) features of the first view.
        second: (n, d) features of the second view; row i describes sample i, as in the first.
        assignment: (n,) int64, the sample of the second view that each one of the first is matched with; -1 = none.
    """

    step: int
    first: Tensor
    second: Tensor
    assignment: Tensor

    def __post_init__(self) -> None:
        """Checks everything, and keeps copies on the CPU, which later steps do not change."""
        where = type(self).__name__
        first = _check.floating(where, "first", _check.tensor(where, "first", self.first, 2, "(n, d)"))
        second = _check.floating(where, "second", _check.tensor(where, "second", self.second, 2, "(n, d)"))
        _check.shape(where, "second", second, first.shape, "as first: row i of both is sample i")
        assignment = _check.integer(where, "assignment", _check.tensor(where, "assignment", self.assignment, 1, "(n,)"))
        _check.shape(where, "assignment", assignment, (len(first),), "a sample per row of first")
        outside = (assignment < -1) | (assignment >= len(first))
        if bool(outside.any()):
            rule, cure = f"hold samples in [0, {len(first)}), or -1", "Take that of a result."
            raise ValueError(_check.message(where, "assignment", rule, int(assignment[outside][0]), cure))
        for name, view in (("first", first), ("second", second)):
            if not bool(view.isfinite().all()):
                cure = "The training diverged: look at its loss."
                raise ValueError(_check.message(where, name, "hold finite features", "others", cure))
        for name in ("first", "second", "assignment"):
            value = getattr(self, name).detach()
            object.__setattr__(self, name, value.to("cpu", value.dtype, copy=True))

    @classmethod
    def of_views(cls, step: int, first: Tensor, second: Tensor, k: int = 5) -> AlignmentFrame:
        """Returns the frame of two views, matched as graphs of nearest neighbours priced as by `BarycenterAlignment`.

        Args:
            step: Step of training.
            first: (n, d) floating point.
            second: (n, d) floating point.
            k: Neighbours per node.

        Example:
            >>> import torch
            >>> from graphmatch import viz
            >>> points = torch.tensor([[0.0, 1], [1, 0], [3, 3]])
            >>> viz.AlignmentFrame.of_views(0, points, points + 0.01, k=1).accuracy
            1.0
        """
        graphs = [knn_graph(view.detach().cpu().float(), k) for view in (first, second)]
        assignment = solve(MultiGraphProblem.from_graphs(graphs).costs).assignment[0]
        return cls(step, first, second, assignment)

    @property
    def accuracy(self) -> float:
        """Share of samples that are matched with themselves."""
        right = self.assignment == torch.arange(len(self.assignment))
        return float(right.double().mean()) if len(right) else 1.0


def animate_alignment(
    frames: Sequence[AlignmentFrame],
    path: Any,
    *,
    seconds_per_frame: float = 0.2,
    names: Sequence[str] = ("first view", "second view"),
    title: str | None = None,
    theme: str | Theme = "light",
) -> Path:
    """Writes how two views of the same samples come together in training, as an animation that repeats.

    On the left stand both views and their matching: right (solid) or wrong (dashed). Features of more than two numbers
    are projected onto the two main axes of all frames together, so that movement is that of the features. On the right
    grows the share of samples matched with themselves. Of more than 200 samples only 200 matches are drawn.

    Args:
        frames: One for each step to show, all of the same samples.
        path: A file name that ends with .gif, .webp or .png (an animated PNG).
        seconds_per_frame: The last frame stays four times as long.
        names: Of the two views.
        title: Above both.
        theme: "light", "dark" or a `Theme`.

    Returns:
        The path. Whoever opens the file sees the old or the new one, never half of it.

    Raises:
        ImportError: If matplotlib is not installed.
        OSError: If the file cannot be written.
        ValueError: If the name ends with something else, or frames hold different samples.

    Example:
        >>> import torch
        >>> from graphmatch import viz
        >>> points = torch.tensor([[0.0, 1], [1, 0], [3, 3]])
        >>> frames = [viz.AlignmentFrame.of_views(step, points, points.flip(1) / (1 + step), k=1) for step in range(2)]
        >>> viz.animate_alignment(frames, "alignment.gif").name
        'alignment.gif'
    """
    style = theme_of(_WHERE, theme)
    target = as_path(_WHERE, path)
    suffix = check_picture_path(_WHERE, "path", target, ANIMATION_SUFFIXES)
    frames = _checked(frames, seconds_per_frame, names)
    drawing = _Drawing(frames, names, title, style)
    content = _encoded([drawing.picture(place) for place in range(len(frames))], suffix, seconds_per_frame)
    write_bytes(_WHERE, target, content)
    return target


def _checked(frames: Sequence[AlignmentFrame], seconds: float, names: Sequence[str]) -> Sequence[AlignmentFrame]:
    if not frames or not all(isinstance(frame, AlignmentFrame) for frame in frames):
        received = _check.describe(frames[0]) if len(frames) else "none"
        cure = "Make them with AlignmentFrame or AlignmentFrame.of_views."
        raise ValueError(_check.message(_WHERE, "frames", "be one or more frames", received, cure))
    shapes = sorted({tuple(frame.first.shape) for frame in frames})
    if len(shapes) > 1:
        rule, cure = "hold the same samples, with features of one length", "Follow one batch through the training."
        raise ValueError(_check.message(_WHERE, "frames", rule, f"shapes {shapes}", cure))
    _check.number(_WHERE, "seconds_per_frame", seconds, "0.2 is usual.")
    _check.option(_WHERE, "seconds_per_frame", seconds, 0.02 <= seconds <= 60, "lie in [0.02, 60]", "0.2 is usual.")
    _check.option(_WHERE, "names", len(names), len(names) == 2, "be two", "One for each view.")
    return frames


def _projected(frames: Sequence[AlignmentFrame]) -> list[tuple[Places, Places]]:
    """Returns two coordinates of every sample in every frame, with the same axes in all of them."""
    views = [view.double().numpy() for frame in frames for view in (frame.first, frame.second)]
    points = np.concatenate(views)
    centre = points.mean(0) if len(points) else 0.0
    axes = np.eye(points.shape[1], 2)
    if points.shape[1] > 2 and len(points):
        # A few thousand rows determine two axes as well as all of them.
        sample = (points - centre)[:: max(len(points) // 2000, 1)]
        axes = np.linalg.svd(sample, full_matrices=False)[2][:2].T
        axes = axes * np.where(axes[np.abs(axes).argmax(0), range(axes.shape[1])] < 0, -1.0, 1.0)
        axes = np.pad(axes, ((0, 0), (0, 2 - axes.shape[1])))
    flat = [(view - centre) @ axes for view in views]
    return list(zip(flat[::2], flat[1::2], strict=True))


class _Drawing:
    """One figure that shows frame after frame."""

    def __init__(self, frames: Sequence[AlignmentFrame], names: Sequence[str], title: str | None, theme: Theme) -> None:
        self.frames, self.theme, self.places = frames, theme, _projected(frames)
        self.figure = figure_of(_WHERE, theme, 8, 4.4)
        self.points, self.curve = self.figure.subplots(1, 2, width_ratios=(1.25, 1))
        self.steps = [frame.step for frame in frames]
        self.accuracies = [100 * frame.accuracy for frame in frames]
        self.names = names
        head(self.figure, theme, title)
        both = np.concatenate([view for views in self.places for view in views])
        low, high = (both.min(0), both.max(0)) if len(both) else (np.zeros(2), np.ones(2))
        self.extent = (low + high) / 2, np.maximum((high - low) / 2, 1e-9) * 1.08
        # Laid out once: axes that move from frame to frame would distract.
        self._draw(0)
        self.figure.canvas.draw()
        self.figure.set_layout_engine("none")

    def picture(self, place: int) -> Any:
        """Returns a frame as an image of Pillow."""
        from PIL import Image

        self._draw(place)
        self.figure.canvas.draw()
        return Image.fromarray(np.asarray(self.figure.canvas.buffer_rgba())[:, :, :3].copy())

    def _draw(self, place: int) -> None:
        self._draw_points(place)
        self._draw_curve(place)

    def _draw_points(self, place: int) -> None:
        from matplotlib.collections import LineCollection

        axes, theme, frame = self.points, self.theme, self.frames[place]
        first, second = self.places[place]
        axes.clear()
        plain_axes(axes, theme, f"step {frame.step}: {self.accuracies[place]:.0f} % right")
        assignment = frame.assignment.numpy()
        shown = (assignment >= 0).nonzero()[0][:_MOST_LINES]
        is_right = assignment[shown] == shown
        for chosen, colour, dashes in ((is_right, theme.right, "solid"), (~is_right, theme.wrong, (0, (3, 1.6)))):
            rows = shown[chosen]
            ends = np.stack([first[rows], second[assignment[rows]]], axis=1)
            axes.add_collection(LineCollection(list(ends), colors=colour, linestyles=[dashes], linewidths=1.8))
        size = 55 if len(first) <= 100 else 12
        axes.scatter(*first.T, s=size, c=theme.text, marker="o", zorder=3, label=self.names[0])
        look = {"facecolors": theme.page, "edgecolors": theme.text, "linewidths": 1.5}
        axes.scatter(*second.T, s=size, marker="s", zorder=3, label=self.names[1], **look)
        (x, y), (width, height) = self.extent
        axes.set_xlim(x - width, x + width)
        axes.set_ylim(y - height, y + height)
        look = {"frameon": False, "fontsize": 12, "labelcolor": theme.text, "handletextpad": 0.2}
        legend(axes, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=2, **look)

    def _draw_curve(self, place: int) -> None:
        axes, theme = self.curve, self.theme
        axes.clear()
        axes.plot(self.steps, self.accuracies, color=theme.faint, linewidth=1.2, alpha=0.5)
        axes.plot(self.steps[: place + 1], self.accuracies[: place + 1], color=theme.right, linewidth=2.8)
        axes.plot(self.steps[place], self.accuracies[place], color=theme.right, marker="o", markersize=9)
        axes.set_ylim(-3, 103)
        first, last = min(self.steps), max(self.steps)
        axes.set_xlim(first - 0.04 * (last - first or 1), last + 0.04 * (last - first or 1))
        axes.set_xlabel("step")
        axes.set_ylabel("matched rightly, %")
        curve_axes(axes, theme)


def _encoded(pictures: list[Any], suffix: str, seconds: float) -> bytes:
    milliseconds = round(1000 * seconds)
    durations = [milliseconds] * (len(pictures) - 1) + [_LAST_FRAME * milliseconds]
    options: dict[str, Any] = {"save_all": True, "duration": durations, "loop": 0}
    if suffix == ".gif":
        # One palette for all frames: colours would flicker otherwise.
        palette = pictures[len(pictures) // 2].quantize(128)
        pictures = [_in_palette(picture, palette) for picture in pictures]
    elif suffix == ".webp":
        options |= {"lossless": True, "quality": 60}
    buffer = io.BytesIO()
    kind = {".gif": "GIF", ".webp": "WEBP", ".png": "PNG"}[suffix]
    pictures[0].save(buffer, format=kind, append_images=pictures[1:], **options)
    return buffer.getvalue()


def _in_palette(picture: Any, palette: Any) -> Any:
    """Returns a picture in the colours of a palette, with exactly the colour of the page: no box shows on a page."""
    from PIL import Image

    pixels = np.asarray(picture)
    indices = np.asarray(picture.quantize(palette=palette, dither=0)).copy()
    colours = palette.getpalette()[: 3 * 128]
    indices[(pixels == pixels[0, 0]).all(2)] = len(colours) // 3
    reduced = Image.fromarray(indices)
    reduced.putpalette([*colours, *pixels[0, 0].tolist()])
    return reduced
