"""Images of every usual kind as arrays that matplotlib draws."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from graphmatch import _check

_CHANNELS = (1, 3, 4)
_PLAIN_MODES = ("1", "L", "I", "F", "I;16", "I;16L", "I;16B", "RGB", "RGBA")  # of Pillow


def image_array(where: str, image: Any) -> NDArray[Any]:
    """Returns an image as an array (h, w) or (h, w, 3 or 4) of uint8, or of floating point in [0, 1].

    Args:
        where: Begins error messages.
        image: An array or tensor (h, w), (h, w, c) or (c, h, w), an image of Pillow, or the name of a file.

    Raises:
        OSError: If a file cannot be read.
        ValueError: If it is none of these.
    """
    if isinstance(image, str | os.PathLike):
        from matplotlib.image import imread

        image = imread(os.fspath(image))
    array = _as_array(image)
    if array.ndim == 3 and array.shape[0] in _CHANNELS and array.shape[2] not in _CHANNELS:
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    is_image = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in _CHANNELS)
    if not is_image or array.size == 0 or array.dtype.kind not in "bufi":
        rule = "be images: (h, w), (h, w, 3 or 4) or (3 or 4, h, w), of Pillow, or file names"
        received = f"{type(image).__name__} of shape {array.shape}, {array.dtype}"
        raise ValueError(_check.message(where, "images", rule, received, "One of a batch is batch[0]."))
    if array.ndim == 2 or array.dtype == np.uint8:
        return array
    if array.dtype.kind == "b":
        return array.astype(np.float64)
    largest = 1.0 if array.dtype.kind == "f" else 255.0
    array = array.astype(np.float64)
    low, high = float(array.min()), float(array.max())
    # Images that were normalised for a network, or have 16 bits, would be clipped.
    return array / largest if low >= 0 and high <= largest else (array - low) / max(high - low, 1e-12)


def _as_array(image: Any) -> NDArray[Any]:
    if isinstance(image, Tensor):
        # NumPy has no bfloat16.
        image = image.detach().cpu()
        return np.asarray(image.float() if image.is_floating_point() else image)
    mode = getattr(image, "mode", None)
    if isinstance(mode, str) and hasattr(image, "convert") and mode not in _PLAIN_MODES:
        # Palettes, inks and the like: their numbers are no colours.
        image = image.convert("RGBA")
    return np.asarray(image)
