"""Whole files in and out: compressed by suffix, complete or refused, replaced in one step."""

from __future__ import annotations

import gzip
import lzma
import os
import threading
import zlib
from pathlib import Path
from typing import BinaryIO, cast

from graphmatch import _check

_READ_SIZE = 1 << 20
_LONGEST_NAME = 200  # in that of a temporary file: systems take 255 bytes
_WORD_FACTOR = 8  # of the memory that the words of a text take, to that of the text


def as_path(where: str, path: object) -> Path:
    """Checks that `path` names a file, and returns it as a Path."""
    if not isinstance(path, str | os.PathLike):
        cure = "Pass a str or a pathlib.Path."
        raise TypeError(_check.message(where, "path", "be a file name", _check.describe(path), cure))
    return Path(path)


def read_bytes(where: str, path: Path) -> bytes:
    """Returns what a file holds, decompressed where its name ends in .gz or .xz.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If the compressed data are damaged or end too early; the message says after which line. If the
            file, unpacked, is so long that its words would not fit into memory.
    """
    parts: list[bytes] = []
    length, checked = 0, _READ_SIZE
    try:
        with _open(path) as stream:
            # Not read(): it would lose what comes before the place where a damaged file breaks.
            while part := stream.read1(_READ_SIZE):  # type: ignore[attr-defined]
                parts.append(part)
                length += len(part)
                if length > checked:  # a small file may unpack to a terabyte
                    cure = f"{path.name} is too long: is it a file of this format?"
                    _check.memory(where, _WORD_FACTOR * length, cure)
                    checked = length + length // 8
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
        lines = sum(part.count(b"\n") for part in parts)
        rule = f"be a complete {path.suffix} file"
        received = f"one that breaks after line {lines} ({str(error).rstrip('.')})"
        raise ValueError(_check.message(where, path.name, rule, received, "Copy it again from its source.")) from None
    return b"".join(parts)


def write_bytes(where: str, path: Path, content: bytes) -> None:
    """Writes a file, compressed where its name ends in .gz or .xz; whoever opens it sees the old or the new one.

    Raises:
        OSError: If the file cannot be written; an existing file is then unchanged.
        ValueError: If the path names something that is no regular file.
    """
    # Renaming onto a device or a pipe would replace it by a file.
    if path.exists() and not path.is_file():
        cure = "Choose another name."
        raise ValueError(_check.message(where, "path", "name a new or a regular file", repr(str(path)), cure))
    if path.suffix == ".gz":
        content = gzip.compress(content, mtime=0)  # the same bytes at any time
    elif path.suffix == ".xz":
        content = lzma.compress(content)
    target = path.resolve()  # a link stays a link
    name = os.fsencode(target.name)[:_LONGEST_NAME].decode(errors="ignore")
    temporary = target.with_name(f".{name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # else the name may reach the disk before the content
        temporary.replace(target)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None  # not of a file that nobody knows
    finally:
        temporary.unlink(missing_ok=True)


def _open(path: Path) -> BinaryIO:
    if path.suffix == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    if path.suffix == ".xz":
        return cast(BinaryIO, lzma.open(path, "rb"))
    return path.open("rb")
