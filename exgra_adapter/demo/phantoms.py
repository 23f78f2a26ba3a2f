"""Draws the synthetic pictures of the demo: 64 x 64 grey phantoms with the look of four imaging modalities.

They are drawings that resemble medical images, not simulations of a scanner: enough for a tiny model to have
something to see.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from exgra_adapter.demo.anatomy import GRID, Anatomy, Mask, draw_anatomy, ellipse, pixel_grid, smooth_noise, soften
from exgra_adapter.demo.scenes import Modality, Scene

IMAGE_SIZE = 64
# Radii in grid units: 2.7 and 4.9 pixels of the final picture.
_LESION_RADIUS = {"small": 0.085, "large": 0.152}


@dataclass(frozen=True)
class Lesions:
    """The lesions of one phantom.

    Attributes:
        mask: (GRID, GRID) float64, the lesions themselves.
        rim: (GRID, GRID) float64, a thin ring around each.
        shadow: (GRID, GRID) float64, the column below each, where ultrasound is brighter.
    """

    mask: Mask
    rim: Mask
    shadow: Mask


def draw_phantom(scene: Scene, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Draws one scene.

    Args:
        scene: what to draw.
        generator: the source of every random choice; the same state gives the same picture.

    Returns:
        (64, 64) uint8 grey levels.

    Example:
        >>> picture = draw_phantom(Scene("CT", "lungs", 1, "left", "small"), np.random.default_rng(0))
        >>> picture.shape, str(picture.dtype)
        ((64, 64), 'uint8')
    """
    anatomy = draw_anatomy(scene.organ, generator)
    lesions = _draw_lesions(scene, anatomy.organ, generator)
    picture = _LOOKS[scene.modality](scene, anatomy, lesions, generator)
    factor = GRID // IMAGE_SIZE
    small = picture.reshape(IMAGE_SIZE, factor, IMAGE_SIZE, factor).mean(axis=(1, 3))
    return np.rint(np.clip(small, 0, 1) * 255).astype(np.uint8)


def _draw_lesions(scene: Scene, organ: Mask, generator: np.random.Generator) -> Lesions:
    y, x = pixel_grid()
    mask, rim, shadow = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
    if scene.size is None:
        return Lesions(mask, rim, shadow)
    radius = _LESION_RADIUS[scene.size] * float(generator.uniform(0.92, 1.08))
    for centre_x, centre_y in _place(scene, organ, radius, generator):
        radii = (radius * generator.uniform(0.9, 1.1), radius * generator.uniform(0.9, 1.1))
        angle = np.arctan2(y - centre_y, x - centre_x)
        wobble = 0.06 * np.sin(3 * angle + generator.uniform(0, 6))
        lesion = ellipse(x, y, (centre_x, centre_y), radii, wobble)
        mask = np.maximum(mask, lesion)
        rim = np.maximum(rim, ellipse(x, y, (centre_x, centre_y), (radii[0] + 0.03, radii[1] + 0.03), wobble) - lesion)
        below = soften(np.abs(x - centre_x) - 0.8 * radii[0]) * (y > centre_y)
        shadow = np.maximum(shadow, below * np.exp(-(y - centre_y) / 0.5))
    return Lesions(mask, rim * (1 - mask), shadow * (1 - mask))


def _place(scene: Scene, organ: Mask, radius: float, generator: np.random.Generator) -> list[tuple[float, float]]:
    """Chooses centres inside the organ on the scene's side, apart from each other and from the midline."""
    y, x = pixel_grid()
    sign = -1 if scene.side == "left" else 1
    # A lesion fits where a ring of its radius around the point lies inside the organ.
    angles = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    inside = np.minimum.reduce([_shifted(organ, radius * np.cos(a), radius * np.sin(a)) for a in angles])
    fits = np.minimum(inside, organ) * (sign * x > radius + 0.03) > 0.9
    points = np.stack([x[fits], y[fits]], axis=1)
    if len(points) < scene.count:
        # The pose left too little room: the roomiest points of the organ on this side will do.
        score = inside + organ - 0.1 * np.abs(x - sign * 0.4) - 10 * (sign * x < radius)
        best = np.argsort(-score, axis=None, kind="stable")[: 40 * scene.count]
        points = np.stack([x.ravel()[best], y.ravel()[best]], axis=1)
    # The best of many draws: a greedy choice in a narrow organ often leaves no room for the last lesion.
    draws = points[generator.integers(len(points), size=(200, scene.count))]
    gaps = np.linalg.norm(draws[:, :, None] - draws[:, None, :], axis=-1) + 10 * np.eye(scene.count)
    smallest = gaps.min(axis=(1, 2))
    roomy = np.flatnonzero(smallest > 2.5 * radius)
    chosen = draws[roomy[0] if roomy.size else int(smallest.argmax())]
    return [(float(centre[0]), float(centre[1])) for centre in chosen]


def _shifted(mask: Mask, right: float, down: float) -> Mask:
    """Reads the mask at an offset in grid units, zero outside."""
    rows, columns = round(down * GRID / 2), round(right * GRID / 2)
    pad = GRID // 4
    padded = np.pad(mask, pad)
    return padded[pad + rows : pad + rows + GRID, pad + columns : pad + columns + GRID]


def _blur(picture: Mask, cells: int) -> Mask:
    """Smooths by averaging down to cells x cells and interpolating back."""
    image = Image.fromarray(np.ascontiguousarray(picture, dtype=np.float32))
    small = image.resize((cells, cells), Image.Resampling.BOX)
    return np.asarray(small.resize((GRID, GRID), Image.Resampling.BICUBIC), dtype=np.float64)


def _over(picture: Mask, mask: Mask, level: Mask | float) -> Mask:
    """Paints a grey level through a mask."""
    return picture * (1 - mask) + level * mask


def _ct(scene: Scene, anatomy: Anatomy, lesions: Lesions, generator: np.random.Generator) -> Mask:
    """Computed tomography: black air, even grey tissue, white bone, fine noise, the table below the body."""
    y, x = pixel_grid()
    table = soften(np.abs(y - 0.97 + 0.06 * x**2) - 0.012) * (1 - anatomy.body)
    level, detail, lesion = {
        "lungs": (0.10, 0.48, 0.66),
        "brain": (0.50, 0.22, 0.80),
        "kidney": (0.66, 0.40, 0.30),
        "liver": (0.56, 0.70, 0.30),
    }[scene.organ]
    picture = _over(np.full_like(x, 0.02), table, 0.45)
    picture = _over(picture, anatomy.body, 0.42)
    picture = _over(picture, anatomy.fat, 0.26)
    picture = _over(picture, anatomy.organ, level)
    picture = _over(picture, anatomy.detail, detail)
    picture = _over(picture, lesions.rim, 0.5 * level + 0.3)
    picture = _over(picture, lesions.mask, lesion)
    picture = _over(picture, anatomy.bone, 0.97)
    return picture + 0.022 * smooth_noise(generator, 80) * (0.3 + anatomy.body)


def _mri(scene: Scene, anatomy: Anatomy, lesions: Lesions, generator: np.random.Generator) -> Mask:
    """Magnetic resonance, T2-like: bright fluid and fat, black bone, shading of the receive coil, Rician noise."""
    y, x = pixel_grid()
    level, detail = {"lungs": (0.13, 0.42), "brain": (0.42, 0.74), "kidney": (0.42, 0.68), "liver": (0.38, 0.10)}[
        scene.organ
    ]
    picture = _over(np.full_like(x, 0.0), anatomy.body, 0.27)
    picture = _over(picture, anatomy.fat, 0.85)
    picture = _over(picture, anatomy.bone, 0.04)
    # The outer shell of an organ (cortex) differs from its core (medulla, white matter).
    core = np.clip(_blur(anatomy.organ, 16) * 2.6 - 1.5, 0, 1) * anatomy.organ
    picture = _over(picture, anatomy.organ, level + 0.14)
    picture = _over(picture, core, level)
    picture = _over(picture, anatomy.detail, detail)
    picture = _over(picture, lesions.rim, level + 0.28)
    picture = _over(picture, lesions.mask, 0.97)
    direction = generator.uniform(0, 2 * np.pi)
    shading = 1 + 0.22 * (np.cos(direction) * x + np.sin(direction) * y)
    ghost = 0.05 * np.roll(picture, int(generator.integers(20, 44)), axis=0)
    noise = [0.035 * smooth_noise(generator, 96) for _ in range(2)]
    return np.hypot(picture * shading + ghost + noise[0], noise[1])


def _x_ray(scene: Scene, anatomy: Anatomy, lesions: Lesions, generator: np.random.Generator) -> Mask:
    """Radiography: one projection through everything, so soft edges, overlapping ribs and a bright spine."""
    y, x = pixel_grid()
    if scene.organ == "brain":
        body = anatomy.body
        bones = 0.55 * anatomy.bone + 0.10 * soften(np.abs(y - 0.62 - 0.2 * x**2) - 0.03) * anatomy.body
        depth = 0.42 * body
    else:
        body = soften(np.abs(x) - 0.93 + 0.10 * np.clip(-y - 0.55, 0, 1) * 4)
        # Ribs run down and outwards from the spine.
        arcs = 15 * (y - 0.55 * np.abs(x) + 0.45 * x**2) + generator.uniform(-0.5, 0.5)
        ribs = np.clip(2.2 * np.cos(arcs) - 0.9, 0, 1) * soften(np.abs(x) - 0.84) * (1 - soften(np.abs(x) - 0.10))
        ribs = ribs * soften(y - (0.80 if scene.organ == "lungs" else 0.0))
        discs = 0.8 + 0.2 * np.sign(np.sin(11 * y))
        bones = 0.10 * ribs + 0.22 * soften(np.abs(x) - 0.11) * discs
        depth = 0.40 * body * np.sqrt(np.clip(1 - (x / 1.02) ** 2, 0, 1))
    organ = {"lungs": -0.30, "brain": 0.03, "kidney": 0.16, "liver": 0.18}[scene.organ]
    detail = {"lungs": 0.20, "brain": -0.06, "kidney": 0.06, "liver": 0.03}[scene.organ]
    film = 0.04 + depth + bones + organ * _blur(anatomy.organ, 48) + detail * _blur(anatomy.detail, 48)
    film = _blur(film, 56) + 0.34 * _blur(lesions.mask, 56)
    marker = soften(np.maximum(np.abs(x - 0.86), np.abs(y + 0.86)) - 0.045)
    return _over(film, marker, 1.0) + 0.012 * smooth_noise(generator, 64) + 0.02 * smooth_noise(generator, 5)


def _ultrasound(scene: Scene, anatomy: Anatomy, lesions: Lesions, generator: np.random.Generator) -> Mask:
    """Ultrasound: a fan on black, speckle, bright borders, dark fluid and brighter tissue behind it."""
    y, x = pixel_grid()
    apex = 1.75
    radius, angle = np.hypot(x, y + apex), np.arctan2(x, y + apex)
    fan = soften((np.abs(angle) - 0.56) * radius) * soften(0.80 - radius) * soften(radius - 2.70)
    border = np.clip(4 * _blur(anatomy.organ, 40) * (1 - _blur(anatomy.organ, 40)), 0, 1) ** 2
    level, detail = {"lungs": (0.16, 0.45), "brain": (0.28, 0.06), "kidney": (0.22, 0.74), "liver": (0.50, 0.08)}[
        scene.organ
    ]
    layers = 0.34 + 0.07 * np.sin(26 * radius)
    picture = _over(layers, anatomy.organ, level)
    picture = _over(picture, anatomy.detail, detail)
    picture = picture + 0.45 * border + 0.30 * anatomy.bone
    picture = picture * (1 + 0.9 * lesions.shadow)
    picture = _over(picture, lesions.rim, 0.80)
    # Speckle is the magnitude of a complex field; it is wider across the beam than along it.
    speckle = np.hypot(smooth_noise(generator, (56, 38)), smooth_noise(generator, (56, 38))) / 1.25
    picture = _over(picture * (0.55 + 0.45 * speckle), lesions.mask, 0.03)
    attenuation = 1.25 - 0.22 * radius
    return fan * attenuation * picture


_LOOKS: dict[Modality, Callable[[Scene, Anatomy, Lesions, np.random.Generator], Mask]] = {
    "CT": _ct,
    "MRI": _mri,
    "X-ray": _x_ray,
    "ultrasound": _ultrasound,
}
