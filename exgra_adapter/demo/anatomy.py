"""Outlines of the synthetic organs: soft masks on a square grid with coordinates from -1 to 1.

Every function returns masks in [0, 1] whose border is one or two pixels wide, so that a picture drawn from them needs
no further smoothing. Nothing here knows how a modality looks; `exgra_adapter.demo.phantoms` does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from exgra_adapter.demo.scenes import Organ

Mask = NDArray[np.float64]
GRID = 128  # Pictures are drawn at twice their final 64 x 64 size and averaged down.
_BORDER = 2.5 / GRID


@dataclass(frozen=True)
class Anatomy:
    """The masks of one phantom, each (GRID, GRID) float64 in [0, 1].

    Attributes:
        body: the whole cross-section (torso or head).
        fat: the rim below the skin.
        bone: the skull, or the spine and ribs.
        organ: the organ that the question is about.
        detail: structures inside the organ: vessels, ventricles and fissures, the renal pelvis.
    """

    body: Mask
    fat: Mask
    bone: Mask
    organ: Mask
    detail: Mask


@dataclass(frozen=True)
class Pose:
    """A small random shift, scale and rotation, so that no two phantoms have the same outline."""

    shift: tuple[float, float]
    scale: tuple[float, float]
    angle: float

    @classmethod
    def draw(cls, generator: np.random.Generator) -> Pose:
        """Draws a pose of at most 4 % shift, 7 % scaling and 6 degrees."""
        return cls(
            shift=(float(generator.uniform(-0.04, 0.04)), float(generator.uniform(-0.04, 0.04))),
            scale=(float(generator.uniform(0.93, 1.05)), float(generator.uniform(0.93, 1.05))),
            angle=float(np.deg2rad(generator.uniform(-6, 6))),
        )

    def coordinates(self) -> tuple[Mask, Mask]:
        """Returns the (x, y) coordinates of every pixel in the organ's own frame; x points right, y down."""
        y, x = pixel_grid()
        x, y = x - self.shift[0], y - self.shift[1]
        cosine, sine = np.cos(self.angle), np.sin(self.angle)
        return (cosine * x + sine * y) / self.scale[0], (cosine * y - sine * x) / self.scale[1]


def pixel_grid() -> tuple[Mask, Mask]:
    """Returns the (y, x) coordinates of the pixel centres, each (GRID, GRID), from -1 to 1."""
    axis = (np.arange(GRID) + 0.5) / GRID * 2 - 1
    y, x = np.meshgrid(axis, axis, indexing="ij")
    return y, x


def ellipse(
    x: Mask, y: Mask, centre: tuple[float, float], radii: tuple[float, float], wobble: Mask | float = 0
) -> Mask:
    """Returns a soft ellipse; `wobble` adds to the relative radius (0.03 = 3 % larger)."""
    distance = np.hypot((x - centre[0]) / radii[0], (y - centre[1]) / radii[1]) - 1 - wobble
    return soften(distance * min(radii))


def soften(distance: Mask) -> Mask:
    """Turns a signed distance (negative inside, in grid units) into a mask with a soft border."""
    return np.clip(0.5 - distance / (2 * _BORDER), 0, 1)


def smooth_noise(generator: np.random.Generator, cells: int | tuple[int, int]) -> Mask:
    """Returns a (GRID, GRID) random field of unit standard deviation that varies over 1 / cells of the picture."""
    rows, columns = (cells, cells) if isinstance(cells, int) else cells
    coarse = generator.standard_normal((rows, columns)).astype(np.float32)
    field = np.asarray(Image.fromarray(coarse).resize((GRID, GRID), Image.Resampling.BICUBIC), dtype=np.float64)
    return field / max(float(field.std()), 1e-6)


def draw_anatomy(organ: Organ, generator: np.random.Generator) -> Anatomy:
    """Draws the outlines of `organ` with a random pose."""
    return _DRAWERS[organ](Pose.draw(generator), generator)


def _torso(pose: Pose, organ: Mask, detail: Mask) -> Anatomy:
    x, y = pose.coordinates()
    # A torso in cross-section is flatter than an ellipse at the back.
    body = soften((((np.abs(x) / 0.95) ** 2.6 + (np.abs(y) / 0.86) ** 2.6) ** (1 / 2.6) - 1) * 0.86)
    inner = soften((((np.abs(x) / 0.88) ** 2.6 + (np.abs(y) / 0.79) ** 2.6) ** (1 / 2.6) - 1) * 0.79)
    spine = np.maximum(ellipse(x, y, (0, 0.60), (0.12, 0.09)), ellipse(x, y, (0, 0.73), (0.035, 0.09)))
    wings = np.maximum(ellipse(x, y, (-0.12, 0.68), (0.10, 0.028)), ellipse(x, y, (0.12, 0.68), (0.10, 0.028)))
    angle = np.arctan2(y, x)
    radius = np.hypot(x / 0.84, y / 0.755)
    # Ribs are cut obliquely, so that only short arcs of each lie in the plane.
    ribs = soften((np.abs(radius - 1) - 0.025) * 0.8) * (np.cos(10 * angle + 0.6) > 0.35) * (np.abs(x) > 0.25)
    bone = np.maximum.reduce([spine, wings, ribs])
    organ = organ * inner * (1 - bone)
    return Anatomy(body=body, fat=body * (1 - inner), bone=bone * body, organ=organ, detail=detail * organ)


def _lungs(pose: Pose, generator: np.random.Generator) -> Anatomy:
    x, y = pose.coordinates()
    left = ellipse(x + 0.10 * (y - 0.1), y, (-0.46, -0.02), (0.33, 0.62))
    right = ellipse(x - 0.10 * (y - 0.1), y, (0.46, -0.02), (0.33, 0.62))
    heart = ellipse(x, y, (0.12, 0.16), (0.25, 0.27))
    base = soften(0.52 - 0.20 * np.cos(2.2 * (np.abs(x) - 0.45)) - y + 0.06)
    organ = np.maximum(left, right) * (1 - heart) * (1 - base)
    vessels = np.zeros_like(x)
    for side in (-1.0, 1.0):
        for angle in generator.uniform(-1.1, 1.1, 6):
            length = generator.uniform(0.12, 0.38)
            vessels = np.maximum(vessels, _stroke(x, y, (side * 0.20, 0.02), angle, side * length, 0.018))
    return _torso(pose, organ, vessels)


def _liver(pose: Pose, generator: np.random.Generator) -> Anatomy:
    x, y = pose.coordinates()
    wave = 0.02 * np.sin(5 * x + generator.uniform(0, 6))
    top = -0.62 + 0.26 * np.clip(x + 0.2, 0, 2) ** 1.5
    bottom = 0.44 - 0.54 * (x + 0.55) + 0.20 * (x + 0.1) ** 2
    wedge = np.maximum.reduce([top - y, y - bottom + wave, -0.80 - x, x - 0.72])
    lobe = np.maximum(soften(wedge), ellipse(x, y, (-0.47, 0.02), (0.33, 0.55)))
    vessels = np.zeros_like(x)
    for angle in (-0.85, -0.35, 0.25, 0.8):
        angle += generator.uniform(-0.15, 0.15)
        vessels = np.maximum(vessels, _stroke(x, y, (0.02, 0.02), angle + np.pi, generator.uniform(0.35, 0.55), 0.022))
    vessels = np.maximum(vessels, _stroke(x, y, (0.02, 0.0), generator.uniform(-0.5, -0.3), 0.35, 0.02))
    return _torso(pose, lobe, vessels)


def _kidney(pose: Pose, generator: np.random.Generator) -> Anatomy:
    x, y = pose.coordinates()
    bent = y - 0.20 * x**2 + 0.10
    bean = ellipse(x, bent, (0, 0), (0.76, 0.46), 0.012 * np.sin(6 * x + generator.uniform(0, 6)))
    hilum = ellipse(x, y, (0.0, 0.44), (0.18, 0.20))
    calyces = [ellipse(x, bent, (c, 0.04 + 0.2 * abs(c)), (0.055, 0.10)) for c in (-0.34, -0.12, 0.12, 0.34)]
    pelvis = np.maximum.reduce([ellipse(x, bent, (0, 0.16), (0.38, 0.075)), *calyces])
    return _torso(pose, bean * (1 - hilum), pelvis)


def _brain(pose: Pose, generator: np.random.Generator) -> Anatomy:
    x, y = pose.coordinates()
    angle = np.arctan2(y, x)
    body = ellipse(x, y, (0, 0), (0.80, 0.95))
    scalp = ellipse(x, y, (0, 0), (0.755, 0.905))
    cavity = ellipse(x, y, (0, 0), (0.68, 0.825))
    folds = 0.022 * np.sin(15 * angle + generator.uniform(0, 6)) + 0.012 * np.sin(23 * angle + generator.uniform(0, 6))
    organ = ellipse(x, y, (0, 0), (0.645, 0.79), folds)
    fissure = soften(np.abs(x + 0.012 * np.sin(9 * y)) - 0.012) * soften(0.30 - np.abs(y))
    horns = [
        ellipse(x + side * 0.16 * y, y, (side * 0.11, centre), (0.065, 0.17)) for side in (-1, 1) for centre in (-0.14,)
    ]
    rear = [ellipse(x - side * 0.25 * y, y, (side * 0.10, 0.20), (0.05, 0.15)) for side in (-1, 1)]
    detail = np.maximum.reduce([fissure, *horns, *rear])
    return Anatomy(body=body, fat=body * (1 - scalp), bone=scalp * (1 - cavity), organ=organ, detail=detail * organ)


def _stroke(x: Mask, y: Mask, start: tuple[float, float], angle: float, length: float, width: float) -> Mask:
    """A line that tapers from `width` to a third of it."""
    direction = np.array([np.cos(angle), np.sin(angle)]) * length
    along = ((x - start[0]) * direction[0] + (y - start[1]) * direction[1]) / length**2
    nearest = np.clip(along, 0, 1)
    distance = np.hypot(x - start[0] - nearest * direction[0], y - start[1] - nearest * direction[1])
    return soften(distance - width * (1 - 0.67 * nearest))


_DRAWERS: dict[Organ, Callable[[Pose, np.random.Generator], Anatomy]] = {
    "lungs": _lungs,
    "brain": _brain,
    "kidney": _kidney,
    "liver": _liver,
}
