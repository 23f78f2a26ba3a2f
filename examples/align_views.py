"""Align three views of a data set: three networks learn one common space, by way of barycenters.

You learn how `gm.BarycenterAlignment` turns a batch of any number of views into one loss, and how to follow it.
The data set is one of random blobs, each seen as an image, as an outline, and as a sound; no view knows of the others.
The script prints how often a blob's other view is its nearest neighbour, among 64 not trained on, before and after.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from _script import THEMES, hide_frame, label_curves, panels, run
from torch import Tensor, nn
from torch.nn import functional as F

import graphmatch as gm
from graphmatch import viz

NAMES = ("image", "outline", "sound")
TRAINED_ON, UNSEEN, BATCH, STEPS, EVERY, DIM = 768, 64, 48, 60, 4, 16


def blobs(count: int, generator: torch.Generator) -> list[Tensor]:
    """Returns three noisy views of the same blobs: pixels (n, 256), radii (n, 32) and samples of a sound (n, 64)."""
    waves = torch.arange(1, 5)
    shape = 0.22 * torch.randn(count, 2, 4, generator=generator) / waves.sqrt()

    def radius(angle: Tensor) -> Tensor:
        phase = angle[..., None] * waves
        return 0.6 + (shape[:, 0, None] * phase.cos() + shape[:, 1, None] * phase.sin()).sum(2)

    axis = torch.linspace(-1.2, 1.2, 16)
    x, y = torch.cartesian_prod(axis, axis).T
    image = torch.sigmoid((radius(torch.atan2(y, x)) - torch.hypot(x, y)) / 0.08)
    outline = radius(torch.linspace(0, 2 * math.pi, 33)[:-1])
    time = torch.linspace(0, 1, 64)
    tones = torch.sin(2 * math.pi * time * torch.tensor([2, 3, 5, 7, 11, 13, 17, 19])[:, None])
    sound = shape.flatten(1) @ tones
    return [view + 0.1 * torch.randn(view.shape, generator=generator) for view in (image, outline, sound)]


def tower(width: int) -> nn.Module:
    """Returns a network from a view of that width into the common space."""
    return nn.Sequential(nn.Linear(width, 96), nn.ReLU(), nn.Linear(96, DIM))


def retrieval(views: list[Tensor]) -> float:
    """Returns how often the nearest neighbour in another view is the same blob, in percent, over all ordered pairs."""
    pairs = [(a, b) for a in range(len(views)) for b in range(len(views)) if a != b]
    return 100 * sum(float(gm.retrieval_accuracy(views[a], views[b])) for a, b in pairs) / len(pairs)


def draw_views(axes: Any, views: list[Tensor], theme: str, title: str) -> None:
    """Draws the first 24 blobs in the plane of their two main axes, the views of each joined by lines."""
    style = THEMES[theme]
    points = torch.stack([F.normalize(view[:24], dim=1) for view in views])  # (3, 24, d)
    centred = points - points.mean((0, 1))
    plane = torch.linalg.svd(centred.flatten(0, 1), full_matrices=False)[2][:2].T
    flat = centred @ plane
    for blob in range(flat.shape[1]):
        triangle = flat[[0, 1, 2, 0], blob]
        axes.plot(*triangle.T.tolist(), color=style.faint, linewidth=1, zorder=1)
    for view, name, colour, marker in zip(flat, NAMES, style.elements, "os^", strict=False):
        axes.scatter(*view.T.tolist(), s=60, color=colour, marker=marker, label=name, zorder=2)
    hide_frame(axes, theme, title)


def main(output: Path, seed: int = 0, theme: str = "light") -> None:
    """Trains the three towers, and draws where they put blobs that they have never seen."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    train, unseen = blobs(TRAINED_ON, generator), blobs(UNSEEN, generator)
    towers = nn.ModuleList(tower(view.shape[1]) for view in train)
    alignment = gm.BarycenterAlignment(dim=DIM, k=5)
    optimizer = torch.optim.Adam([*towers.parameters(), *alignment.parameters()], lr=2e-3)

    curve, places = [], []
    for step in range(STEPS + 1):
        if step % EVERY == 0:
            with torch.no_grad():
                places.append([tower(view) for tower, view in zip(towers, unseen, strict=True)])
                details = alignment.eval().details(*places[-1])
            curve.append((step, retrieval(places[-1]), 100 * float(details.matching_accuracy)))
        batch = torch.randperm(TRAINED_ON, generator=generator)[:BATCH]
        # Each view is a graph; it is matched with the mean of the other two, and what is matched wrongly is the loss.
        loss = alignment.train()(*(tower(view[batch]) for tower, view in zip(towers, train, strict=True)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    steps, retrieved, matched = zip(*curve, strict=True)
    print(f"retrieval among {UNSEEN} unseen blobs: {retrieved[0]:.0f} % before, {retrieved[-1]:.0f} % after")
    print(f"matched with their barycenter: {matched[0]:.0f} % before, {matched[-1]:.0f} % after")
    print(f"training aligned the views: {retrieved[-1] > 50 > 5 * retrieved[0]}")

    figure, axes = panels(theme, 12, 4.4, "ABC", width_ratios=(1, 1, 1.15))
    draw_views(axes["A"], places[0], theme, f"before: {retrieved[0]:.0f} % retrieved")
    draw_views(axes["B"], places[-1], theme, f"after: {retrieved[-1]:.0f} % retrieved")
    look = {"frameon": False, "fontsize": 12, "labelcolor": THEMES[theme].text, "ncols": 3, "columnspacing": 0.8}
    axes["A"].legend(loc="upper center", bbox_to_anchor=(0.5, 0.02), handletextpad=0.1, **look)
    axes["C"].plot(steps, retrieved, color=THEMES[theme].right, linewidth=3, marker="o", label="nearest neighbour")
    axes["C"].plot(steps, matched, color=THEMES[theme].wrong, linewidth=3, marker="s", label="matching")
    axes["C"].set_ylim(0, 103)
    label_curves(axes["C"], theme, "training step", "right, %", "unseen blobs")
    viz.save_figure(figure, output)


if __name__ == "__main__":
    run(main)
