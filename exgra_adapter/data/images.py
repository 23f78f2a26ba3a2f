"""Image files: opened safely, refused with one clear sentence."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path, PureWindowsPath

import numpy as np
from PIL import Image, ImageOps


class ImageError(ValueError):
    """An image is missing, unreadable, truncated, too large, or its name leaves the image folder."""


def image_path(folder: Path, name: str) -> Path:
    """Joins folder and image name; names that would leave the folder are refused.

    Args:
        folder: The image folder.
        name: File name relative to it; subfolders are written with `/`.

    Raises:
        ImageError: The name is absolute, has a drive or a backslash, or goes up with `..`.

    Example:
        >>> image_path(Path("images"), "ct/1.png").as_posix()
        'images/ct/1.png'
    """
    windows = PureWindowsPath(name)
    if (
        windows.is_absolute()
        or windows.drive
        or name.startswith("/")
        or "\\" in name
        or "\0" in name
        or ".." in windows.parts
    ):
        raise ImageError(
            f"image_path: name must stay inside the image folder; got {name!r}. "
            "Use a relative name without '..' and backslashes."
        )
    return Path(folder) / name


def open_image(folder: Path, name: str) -> Image.Image:
    """Opens and fully decodes an image as 8-bit RGB, upright as its EXIF orientation says.

    Greyscale images of more than 8 bits are scaled over their own range; plain conversion would clip them to white.

    Args:
        folder: The image folder.
        name: File name relative to it.

    Raises:
        ImageError: The file is missing, unreadable, truncated, or has more pixels than Pillow's limit
            (`PIL.Image.MAX_IMAGE_PIXELS`).
    """
    path = image_path(folder, name)
    if not path.is_file():
        raise ImageError(
            f"open_image: {path} must be an existing image file; got nothing there. Check the image folder."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                image = ImageOps.exif_transpose(file)
                image.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(
            f"open_image: {path} must have at most {Image.MAX_IMAGE_PIXELS} pixels; got more. Make the image smaller."
        ) from None
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        reason = str(error).split(" <_io")[0].split("'")[0].strip() or type(error).__name__
        raise ImageError(
            f"open_image: {path} must be a readable image; got an error: {reason}. Replace the file or skip bad images."
        ) from None
    if image.mode.startswith(("I", "F")):
        image = _to_8_bits(image)
    return image.convert("RGB")


def _to_8_bits(image: Image.Image) -> Image.Image:
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    low, high = values.min(), values.max()
    return Image.fromarray(((values - low) * (255.0 / max(high - low, 1e-12))).round().astype(np.uint8))
