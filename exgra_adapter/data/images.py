"""Image files: opened safely, refused with one clear sentence."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path, PureWindowsPath

import numpy as np
from PIL import Image, ImageOps

MOST_ASPECT = 200
"""Longest side of an image, in multiples of the other."""

_FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")


class ImageError(ValueError):
    """An image is missing, unreadable, truncated, too large, or its name leaves the image folder."""


class MissingImageError(ImageError):
    """There is no image of that name."""


def require_safe_name(name: str, caller: str, source: object = None) -> None:
    """Refuses image names that could lead out of the place where images are.

    Args:
        name: The image's name as a record has it.
        caller: Opens the message of the error.
        source: What the name is looked up in, for the message.

    Raises:
        ImageError: The name is absolute, has a drive, a backslash or a NUL, or goes up with `..`.
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
        received = repr(name) if source is None else f"{name!r} in {source}"
        raise ImageError(
            f"{caller}: name must stay inside the image folder; got {received}. "
            "Use a relative name without '..' and backslashes."
        )


def image_path(folder: Path, name: str) -> Path:
    """Joins folder and image name; names that would leave the folder are refused.

    Symbolic links inside the folder are followed wherever they lead: names come with the data, links were made by
    whoever owns the folder.

    Args:
        folder: The image folder.
        name: File name relative to it; subfolders are written with `/`.

    Raises:
        ImageError: The name is absolute, has a drive or a backslash, or goes up with `..`.

    Example:
        >>> image_path(Path("images"), "ct/1.png").as_posix()
        'images/ct/1.png'
    """
    require_safe_name(name, "image_path", folder)
    return Path(folder) / name


def open_image(folder: Path, name: str) -> Image.Image:
    """Opens and fully decodes an image of a folder, see `decode_image`.

    Args:
        folder: The image folder.
        name: File name relative to it.

    Raises:
        ImageError: As `decode_image`, or the name leaves the folder; `MissingImageError` where there is no such file.
    """
    path = image_path(folder, name)
    try:
        exists = path.is_file()
    except OSError:  # a name that is too long for the file system, a folder that may not be entered
        exists = False
    if not exists:
        raise MissingImageError(
            f"open_image: {path} must be an existing image file; got nothing there. Check the image folder."
        )
    return decode_image(path, str(path))


def decode_image(source: Path | bytes, label: str) -> Image.Image:
    """Fully decodes an image as 8-bit RGB, upright as its EXIF orientation says.

    Greyscale images of more than 8 bits are scaled over their own range; plain conversion would clip them to white.
    Pixels that are no number are black, infinite ones the end of the range.
    BMP, GIF, JPEG, JPEG 2000, PNG, PPM, TIFF and WebP are read; formats that Pillow hands to other programs are not.
    Safe to call from several threads.

    Args:
        source: An image file, or its content.
        label: What errors call the image.

    Raises:
        ImageError: The image is unreadable, truncated, has more pixels than Pillow's limit
            (`PIL.Image.MAX_IMAGE_PIXELS`), or a side of more than `MOST_ASPECT` times the other.

    Example:
        >>> decode_image(b"P5 2 1 255 ab", "two.pgm").getpixel((0, 0))
        (97, 97, 97)
    """
    too_large = f"open_image: {label} must have at most {Image.MAX_IMAGE_PIXELS} pixels; got more. Make it smaller."
    try:
        with Image.open(source if isinstance(source, Path) else io.BytesIO(source), formats=_FORMATS) as file:
            # Pillow refuses from twice its limit on and warns below; filters of warnings are shared by all threads.
            if Image.MAX_IMAGE_PIXELS is not None and file.width * file.height > Image.MAX_IMAGE_PIXELS:
                raise ImageError(too_large)
            # Image processors enlarge the shorter side to the model's: a line of pixels would fill the memory.
            if max(file.size) > MOST_ASPECT * min(file.size):
                raise ImageError(
                    f"open_image: {label} must have sides of at most {MOST_ASPECT} to 1; got {file.width} x "
                    f"{file.height} pixels. Replace it or skip bad samples."
                )
            image = ImageOps.exif_transpose(file)
            image.load()
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(too_large) from None
    except (OSError, SyntaxError, TypeError, ValueError, EOFError, struct.error, zlib.error) as error:
        reason = str(error).split(" <_io")[0].split("'")[0].strip() or type(error).__name__
        raise ImageError(
            f"open_image: {label} must be a readable image; got an error: {reason}. Replace it or skip bad samples."
        ) from None
    if image.mode.startswith(("I", "F")):
        image = _to_8_bits(image)
    return image.convert("RGB")


def _to_8_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image, dtype=np.float64)
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    return Image.fromarray(((values - low) * (255.0 / max(high - low, 1e-12))).round().astype(np.uint8))
