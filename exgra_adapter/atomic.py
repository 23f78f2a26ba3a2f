"""Files that are either old or complete, never half written."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any


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
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes private files; results get the permissions that a plain open() would give.
        Path(temporary).chmod(0o666 & ~_umask())
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


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
