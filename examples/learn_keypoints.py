"""Learn to match keypoints of images end to end: a small network, with graph matching as its last layer.

You learn how features become costs, and how `gm.MatchingLayer` sends gradients back through the discrete matching.
Images are made up: both of a pair show one texture; the second is turned, bent, lit otherwise, and noisy.
The script prints which share of keypoints is matched rightly before and after training, in pairs not trained on.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from _script import THEMES, label_curves, panels, run
from torch import Tensor, nn
from torch.nn import functional as F

import graphmatch as gm
from graphmatch import viz

KEYPOINTS, PATCH, PIXELS = 12, 9, 96
STEPS, BATCH, UNSEEN = 160, 12, 64


def square(centres: Tensor) -> Tensor:
    """Returns all places (m, 2) whose x and y are among the given ones, row after row."""
    return torch.cartesian_prod(centres, centres).flip(1)


class Pairs:
    """Pairs of images f(p) and f(bend(p)) with keypoints in random order.

    Attributes:
        points: Of both images, (b, KEYPOINTS, 2) in the unit square.
        patches: What both show around each keypoint, (b, KEYPOINTS, PATCH, PATCH).
        target: (b, KEYPOINTS, KEYPOINTS) 0/1, which keypoints belong together.
    """

    def __init__(self, count: int, generator: torch.Generator) -> None:
        def uniform(low: float, high: float, *shape: int) -> Tensor:
            return low + (high - low) * torch.rand(count, *shape, generator=generator)

        self.blobs, self.widths = uniform(-0.2, 1.2, 60, 2), uniform(0.03, 0.09, 1, 60)
        self.heights = torch.randn(count, 1, 60, generator=generator)
        angle, self.phases = uniform(-math.pi / 3, math.pi / 3), uniform(0, 2 * math.pi, 1, 2)
        rows = [[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]]
        stretch = torch.eye(2) + 0.15 * torch.randn(count, 2, 2, generator=generator)
        self.turn = stretch @ torch.stack([torch.stack(row, 1) for row in rows], 1)

        grid = torch.cartesian_prod(torch.linspace(0.2, 0.8, 4), torch.linspace(0.25, 0.75, 3))
        second = grid + uniform(-0.07, 0.07, KEYPOINTS, 2)
        self.target = F.one_hot(uniform(0, 1, KEYPOINTS).argsort(1), KEYPOINTS).float()
        self.points = self.target @ self.bend(second), second + uniform(-0.02, 0.02, KEYPOINTS, 2)
        window = square(0.02 * (torch.arange(PATCH) - PATCH // 2))
        around = [(points[:, :, None] + window).flatten(1, 2) for points in self.points]
        patches = []
        for seen in (self.texture(around[0]), self.texture(self.bend(around[1]))):
            lit = uniform(0.6, 1.6, 1) * seen + uniform(-1, 1, 1)
            noisy = lit + 0.1 * torch.randn(seen.shape, generator=generator)
            patches.append(noisy.reshape(count, KEYPOINTS, PATCH, PATCH))
        self.patches = patches[0], patches[1]

    def texture(self, places: Tensor) -> Tensor:
        """Returns the values (b, m) of the first images at places (b, m, 2): smooth random blobs."""
        nearness = torch.exp(-0.5 * (torch.cdist(places, self.blobs) / self.widths) ** 2)
        return (self.heights * nearness).sum(2)

    def bend(self, places: Tensor) -> Tensor:
        """Returns where places (b, m, 2) of the second images lie in the first: turned, stretched, in waves."""
        turned = 0.5 + (places - 0.5) @ self.turn.mT
        return turned + 0.05 * torch.sin(2 * math.pi * turned.flip(2) + self.phases)

    def images(self, place: int) -> list[Tensor]:
        """Returns both images of a pair, (PIXELS, PIXELS) each."""
        everywhere = square((torch.arange(PIXELS) + 0.5) / PIXELS).expand(len(self.blobs), -1, -1)
        both = self.texture(everywhere), self.texture(self.bend(everywhere))
        return [image[place].reshape(PIXELS, PIXELS) for image in both]


class Matcher(nn.Module):
    """A network that sees patches, and a matching of the graphs of its keypoints."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(1, 24, 3), nn.ReLU(), nn.Conv2d(24, 32, 3), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(32 * (PATCH - 4) ** 2, 48)),
        )
        self.edge_weight = nn.Parameter(torch.tensor(0.0))
        self.layer = gm.MatchingLayer(gradient=gm.IMLE(samples=2, step=2.0, noise_scale=0.2))

    def forward(self, pairs: Pairs) -> Tensor:
        """Returns matchings (b, n, n), differentiable in everything that made the costs."""
        features = [
            self.features(patch.flatten(0, 1)[:, None]).unflatten(0, patch.shape[:2]) for patch in pairs.patches
        ]
        graphs = [gm.knn_graph(points, k=4) for points in pairs.points]
        lengths = [length_of_edges(graph).log() for graph in graphs]
        alike = torch.exp(-((lengths[0][:, :, None] - lengths[1][:, None, :]) ** 2) / 0.02)
        unary = -gm.cosine_affinity(*features)
        matching, _ = self.layer(unary, -self.edge_weight * alike, graphs[0].edges, graphs[1].edges)
        return matching


def length_of_edges(graph: gm.Graph) -> Tensor:
    """Returns (b, e) lengths."""
    ends = [graph.nodes.gather(1, graph.edges[:, :, [side, side]]) for side in (0, 1)]
    return (ends[0] - ends[1]).norm(dim=2)


def main(output: Path, seed: int = 0, theme: str = "light") -> None:
    """Trains the matcher, and draws one unseen pair before and after."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    matcher = Matcher()
    optimizer = torch.optim.Adam(matcher.parameters(), lr=2e-3)
    unseen, curve, matchings = Pairs(UNSEEN, generator), [], []
    for step in range(STEPS + 1):
        if step % 20 == 0:
            with torch.no_grad():
                matchings.append(matcher.eval()(unseen))
            curve.append((step, 100 * float((matchings[-1] * unseen.target).sum() / unseen.target.sum())))
        pairs = Pairs(BATCH, generator)
        loss = gm.hamming_loss(matcher.train()(pairs), pairs.target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    steps, accuracies = zip(*curve, strict=True)
    print(f"keypoints of {UNSEEN} unseen pairs matched rightly: {accuracies[0]:.0f} % before training")
    print(f"after {STEPS} steps of {BATCH} pairs: {accuracies[-1]:.0f} %")
    print(f"learned weight of the edges: {matcher.edge_weight.item():.2f}")
    print(f"training helped: {accuracies[-1] > accuracies[0] + 20}")

    figure, axes = panels(theme, 12, 7.2, "AC;BC", width_ratios=(1.3, 1))
    graphs = [gm.Graph(PIXELS * points[0] - 0.5, gm.knn_graph(points[0], k=4).edges) for points in unseen.points]
    for name, letter, matching in (("before", "A", matchings[0]), ("after", "B", matchings[-1])):
        look = {"images": unseen.images(0), "target": unseen.target[0], "axes": axes[letter], "theme": theme}
        viz.draw_matching(matching[0].argmax(1), graphs, title=f"{name} training", **look)
    axes["C"].plot(steps, accuracies, color=THEMES[theme].right, linewidth=3, marker="o", markersize=7)
    axes["C"].set_ylim(0, 102)
    label_curves(axes["C"], theme, "training step", "matched rightly, %", "keypoints of unseen pairs")
    viz.save_figure(figure, output)


if __name__ == "__main__":
    run(main)
