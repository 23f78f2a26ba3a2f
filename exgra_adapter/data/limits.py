"""How much may be read at once: bounds against files that are made, or broken, to fill the memory.

| variable | bounds | default |
|---|---|---|
| `EXGRA_MOST_SAMPLE_BYTES` | one sample of a data file | 256 MiB |
| `EXGRA_MOST_IMAGE_BYTES` | one image file inside an archive, images of a parquet row group | 1 GiB |
| `EXGRA_MOST_UNPACKED_BYTES` | what a compressed file unpacks to | 1 GiB, or 250 times the file where that is more |

An image has at most `PIL.Image.MAX_IMAGE_PIXELS` pixels beside that.
"""

from __future__ import annotations

import gzip
import io
import lzma
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

SAMPLE_VARIABLE = "EXGRA_MOST_SAMPLE_BYTES"
IMAGE_VARIABLE = "EXGRA_MOST_IMAGE_BYTES"
UNPACKED_VARIABLE = "EXGRA_MOST_UNPACKED_BYTES"

# Text shrinks to a tenth; gzip makes at most a thousandth of anything, and xz much less.
_LARGEST_RATIO = 250
_UNPACK: dict[str, Callable[[Path], Any]] = {".gz": gzip.GzipFile, ".xz": lzma.LZMAFile}
_MAGIC = {b"\x1f\x8b": ".gz", b"\xfd7zXZ": ".xz"}


def most_sample_bytes() -> int:
    """Returns how long one sample may be."""
    return _limit(SAMPLE_VARIABLE, 2**28)


def most_image_bytes() -> int:
    """Returns how long one image file may be, where it has to be read as a whole."""
    return _limit(IMAGE_VARIABLE, 2**30)


def most_unpacked_bytes(path: Path) -> int:
    """Returns what a compressed file may unpack to."""
    return _limit(UNPACKED_VARIABLE, max(2**30, _LARGEST_RATIO * path.stat().st_size))


def too_long(caller: str, what: str, limit: int, variable: str) -> ValueError:
    """Returns the error about something that is longer than its limit; `what` may be."""
    return ValueError(
        f"{caller}: {what} must have at most {limit} bytes; got more. If that is meant, raise the limit with the "
        f"environment variable {variable}."
    )


def open_unpacked(path: Path, caller: str, by_name: bool = False) -> IO[bytes]:
    """Opens a file that may be compressed with gzip or xz, to be read from its beginning to its end.

    Args:
        path: The file.
        caller: Opens the message of errors.
        by_name: Unpack what is called `.gz` and nothing else, instead of looking at the first bytes.

    Returns:
        What is in it. Reading more than `most_unpacked_bytes` raises ValueError.

    Raises:
        OSError: The file cannot be opened.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "bomb.gz"
        >>> _ = path.write_bytes(gzip.compress(bytes(2**20)))
        >>> os.environ["EXGRA_MOST_UNPACKED_BYTES"] = "100000"
        >>> try:
        ...     open_unpacked(path, "example").read()
        ... except ValueError as error:
        ...     print(str(error).split(";")[0].replace(str(path.parent), "..."))
        ... finally:
        ...     del os.environ["EXGRA_MOST_UNPACKED_BYTES"]
        example: the unpacked .../bomb.gz must have at most 100000 bytes
    """
    if by_name:
        kind = ".gz" if path.suffix == ".gz" else ""
    else:
        with path.open("rb") as file:
            start = file.read(6)
        kind = next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), "")
    if not kind:
        return path.open("rb")
    limit = most_unpacked_bytes(path)
    error = too_long(caller, f"the unpacked {path}", limit, UNPACKED_VARIABLE)
    return io.BufferedReader(_Bounded(_UNPACK[kind](path), limit, error), 1 << 16)


class _Bounded(io.RawIOBase):
    """Reads another file, up to a limit."""

    def __init__(self, file: IO[bytes], limit: int, error: ValueError) -> None:
        self._file, self._left, self._error = file, limit, error

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Reads as many bytes as fit."""
        part = self._file.read(len(buffer))
        self._left -= len(part)
        if self._left < 0:
            raise self._error
        buffer[: len(part)] = part
        return len(part)

    def close(self) -> None:
        """Closes both."""
        self._file.close()
        super().close()


def _limit(variable: str, usual: int) -> int:
    text = os.environ.get(variable, "").strip()
    if not text:
        return usual
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{variable} must be a number of bytes, at least 1; got {text!r}. Correct or unset it.")
    return int(text)
