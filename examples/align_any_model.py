"""Add the alignment loss to any model of two towers: images of drawn scenes, and captions that say what they show.

You learn that it takes two lines (a module, and a term in the loss), and how to compare honestly: over several seeds.
A scene is two coloured shapes and how they lie to each other; training sees 160 scenes, and is tested on 96 others.
The script prints how often the nearest caption of an unseen image is its own, by the contrastive loss alone (as CLIP
is trained), by the alignment alone, and by both.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch
from _script import THEMES, hide_frame, label_curves, panels, run
from torch import Tensor, nn
from torch.nn import functional as F

import graphmatch as gm
from graphmatch import viz

COLOURS = {"red": (0.85, 0.2, 0.1), "blue": (0.1, 0.35, 0.85), "green": (0.1, 0.65, 0.35), "yellow": (0.95, 0.8, 0.2)}
SHAPES = ("circle", "square", "triangle")
PLACES = {"left of": (-1, 0), "above": (0, -1)}  # the others would name the same images a second time
WORDS = {word: number for number, word in enumerate([*COLOURS, *SHAPES, *PLACES])}
PIXELS, DIM, TRAINED_ON, UNSEEN, BATCH, STEPS, EVERY, SEEDS = 24, 32, 160, 96, 40, 160, 20, 3
ARMS = {"contrastive": (1.0, 0.0), "alignment": (0.0, 1.0), "both": (1.0, 1.0)}  # weights of the losses


def draw(colour: str, shape: str, x: float, y: float, canvas: Tensor) -> None:
    """Draws a shape around a place into a canvas (3, PIXELS, PIXELS)."""
    rows, columns = torch.meshgrid(torch.arange(PIXELS), torch.arange(PIXELS), indexing="ij")
    down, right = rows - y, columns - x
    inside = {
        "circle": down**2 + right**2 <= 4.2**2,
        "square": (down.abs() <= 3.8) & (right.abs() <= 3.8),
        "triangle": (down <= 3.8) & (right.abs() <= 0.55 * (down + 4.2)),
    }[shape]
    canvas[:, inside] = torch.tensor(COLOURS[colour])[:, None]


@dataclass(frozen=True)
class Scenes:
    """Images (n, 3, PIXELS, PIXELS), and their captions: as texts, and as numbers of words (n, 5)."""

    images: Tensor
    texts: list[str]
    words: Tensor


def scenes(generator: torch.Generator) -> Scenes:
    """Returns different scenes in random order: what is seen in training first."""
    every = [each for each in product(COLOURS, SHAPES, PLACES, COLOURS, SHAPES) if each[:2] != each[3:]]
    images, texts, words = [], [], []
    for place in torch.randperm(len(every), generator=generator)[: TRAINED_ON + UNSEEN].tolist():
        colour1, shape1, relation, colour2, shape2 = every[place]
        canvas = 0.92 + 0.03 * torch.randn(3, PIXELS, PIXELS, generator=generator)
        across, down = PLACES[relation]
        shaky = (torch.rand(4, generator=generator) * 3 - 1.5).tolist()
        middle = (PIXELS - 1) / 2
        draw(colour1, shape1, middle + 5.5 * across + shaky[0], middle + 5.5 * down + shaky[1], canvas)
        draw(colour2, shape2, middle - 5.5 * across + shaky[2], middle - 5.5 * down + shaky[3], canvas)
        images.append(canvas.clamp(0, 1))
        texts.append(f"a {colour1} {shape1}\n{relation} a {colour2} {shape2}")
        words.append([WORDS[word] for word in every[place]])
    return Scenes(torch.stack(images), texts, torch.tensor(words))


class TwoTowers(nn.Module):
    """A model as CLIP: images and captions in one space."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(
            *(nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1)),
            *(nn.ReLU(), nn.Flatten(), nn.Linear(32 * (PIXELS // 4) ** 2, DIM)),
        )
        self.text = nn.Sequential(nn.Embedding(len(WORDS), 16), nn.Flatten(), nn.Linear(5 * 16, 64), nn.ReLU())
        self.text.append(nn.Linear(64, DIM))
        self.scale = nn.Parameter(torch.tensor(2.3))

    def forward(self, images: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        """Returns features (n, DIM) of both."""
        return self.image(images), self.text(words)


def train(data: Scenes, contrastive_weight: float, alignment_weight: float, seed: int) -> tuple[TwoTowers, list[float]]:
    """Returns a trained model, and its retrieval of unseen captions in percent, every EVERY steps."""
    torch.manual_seed(seed)
    model, curve = TwoTowers(), []
    alignment = gm.PairwiseAlignment(dim=DIM, k=5, directions="both")  # what is added: this module ...
    optimizer = torch.optim.Adam([*model.parameters(), *alignment.parameters()], lr=2e-3)
    for step in range(STEPS + 1):
        if step % EVERY == 0:
            with torch.no_grad():
                unseen = model(data.images[TRAINED_ON:], data.words[TRAINED_ON:])
            curve.append(100 * float(gm.retrieval_accuracy(*unseen)))
        batch = torch.randperm(TRAINED_ON)[:BATCH]
        images, captions = model(data.images[batch], data.words[batch])
        logits = model.scale.exp() * gm.cosine_affinity(images, captions)
        own = torch.arange(BATCH)
        loss = contrastive_weight * (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        if alignment_weight:
            loss = loss + alignment_weight * alignment(images, captions)  # ... and this term
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model, curve


def main(output: Path, seed: int = 0, theme: str = "light") -> None:
    """Trains with each loss and several seeds; draws the curves, and what a model finds for images not trained on."""
    curves: dict[str, list[list[float]]] = {arm: [] for arm in ARMS}
    for each in range(seed, seed + SEEDS):
        data = scenes(torch.Generator().manual_seed(each))
        for arm, weights in ARMS.items():
            model, curve = train(data, *weights, each)
            curves[arm].append(curve)
    last = {arm: [curve[-1] for curve in found] for arm, found in curves.items()}
    print(f"own caption of {UNSEEN} retrieved, in per cent, by seed:")
    for arm, shares in last.items():
        print(f"  {arm + ':':<12} {', '.join(f'{share:.0f}' for share in shares)}; mean {sum(shares) / SEEDS:.1f}")
    gains = [both - alone for both, alone in zip(last["both"], last["contrastive"], strict=True)]
    print(f"alignment adds to the contrastive loss: {', '.join(f'{gain:+.0f}' for gain in gains)}")
    print(f"all above ten times chance: {min(map(min, last.values())) > 1000 / UNSEEN}")

    style = THEMES[theme]
    figure, axes = panels(theme, 12, 5, "Aab;Acd", width_ratios=(1.6, 1, 1))
    steps = range(0, STEPS + 1, EVERY)
    for (arm, found), colour, marker in zip(curves.items(), style.elements, "os^", strict=False):
        low, middle, high = (getattr(torch.tensor(found), name)(0) for name in ("amin", "mean", "amax"))
        axes["A"].fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
        axes["A"].plot(steps, middle, color=colour, linewidth=3, marker=marker, label=arm)
    axes["A"].set_ylim(0, 102)
    label_curves(axes["A"], theme, "training step", "retrieved, %", f"own caption among {UNSEEN} unseen, {SEEDS} seeds")
    with torch.no_grad():
        affinity = gm.cosine_affinity(*model(data.images[TRAINED_ON:], data.words[TRAINED_ON:]))
    for place, nearest in enumerate(affinity.argmax(1)[:4].tolist()):
        axes["abcd"[place]].imshow(data.images[TRAINED_ON + place].permute(1, 2, 0).numpy())
        mark = "✓" if nearest == place else "✗"
        hide_frame(axes["abcd"[place]], theme, f"{mark} {data.texts[TRAINED_ON + nearest]}")
        axes["abcd"[place]].title.set_color(style.right if nearest == place else style.wrong)
    viz.save_figure(figure, output)


if __name__ == "__main__":
    run(main)
