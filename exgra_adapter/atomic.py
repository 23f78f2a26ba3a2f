"""Files and folders that are either old or complete, never half written."""

from __future__ import annotations

import glob
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

_LONGEST_NAME = 200


def write_text(path: Path, text: str) -> None:
    """Writes `text` to `path` as UTF-8: to a temporary file beside it first, which then takes its name.

    Args:
        path: The file to write; missing parent folders are made. An existing file is replaced.
        text: The whole content.

    Example:
        >>> import pathlib, tempfile
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> write_text(folder / "note.txt", "complete")
        >>> (folder / "note.txt").read_text()
        'complete'
    """
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Writes bytes to `path`, as `write_text` writes text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{shortened(path.name)}.", suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes private files; results get the permissions that a plain open() would give.
        Path(temporary).chmod(0o666 & ~umask())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Writes one JSON value, indented, with `write_text`.

    Args:
        path: The file to write.
        value: Anything `json.dumps` takes.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_json_lines(path: Path, values: Iterable[Any]) -> None:
    """Writes one JSON value per line with `write_text`.

    Args:
        path: The file to write.
        values: Anything `json.dumps` takes, one per line.
    """
    write_text(path, "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values))


@contextmanager
def complete_folder(output: Path, caller: str) -> Iterator[Path]:
    """Yields a hidden folder beside `output` that takes its name when the block ends well, and vanishes otherwise.

    Args:
        output: The folder to make. It must not exist, or be empty.
        caller: Begins error messages.

    Raises:
        ValueError: There is something in `output` already.

    Example:
        >>> import pathlib, tempfile
        >>> place = pathlib.Path(tempfile.mkdtemp()) / "model"
        >>> with complete_folder(place, "example") as folder:
        ...     _ = (folder / "config.json").write_text("{}")
        ...     print(place.exists())
        False
        >>> (place / "config.json").exists()
        True
    """
    output = Path(output)
    require_new_folder(output, caller)
    output.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{shortened(output.name)}."
    for left in output.parent.glob(f"{glob.escape(prefix)}*.partial"):
        logger.warning("%s is left from a run that was killed or still runs; remove it if none runs", left)
    folder = Path(tempfile.mkdtemp(dir=output.parent, prefix=prefix, suffix=".partial"))
    try:
        yield folder
        # mkdtemp makes private folders; a result is as readable as its parent, and belongs to the group of it.
        folder.chmod(output.parent.stat().st_mode & 0o2777 & ~umask())
        folder.replace(output)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def require_new_folder(output: Path, caller: str) -> None:
    """Checks that a folder can be made.

    Raises:
        ValueError: It is a file, or a folder with something in it.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(
            f"{caller}: output must be a new or empty folder; got {output}, which has something in it. "
            "Choose another name, or remove it first."
        )


def shortened(name: str) -> str:
    """Returns the beginning of a file's name, short enough for the name of a temporary file: systems take 255 bytes."""
    return os.fsencode(name)[:_LONGEST_NAME].decode(errors="ignore")


def umask() -> int:
    """Returns the permissions that new files do not get."""
    current = os.umask(0)
    os.umask(current)
    return current
