"""Text files that are written piece by piece, and are either old or complete."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from exgra_adapter.atomic import shortened, umask


@contextmanager
def complete_file(path: Path) -> Iterator[IO[str]]:
    """Yields a temporary file beside `path` that takes its name when the block ends well, and vanishes otherwise.

    Args:
        path: The file to write, as UTF-8; missing parent folders are made. An existing file is replaced.

    Example:
        >>> place = Path(tempfile.mkdtemp()) / "note.txt"
        >>> with complete_file(place) as file:
        ...     _ = file.write("complete")
        ...     print(place.exists())
        False
        >>> place.read_text()
        'complete'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{shortened(path.name)}.", suffix=".partial")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes private files; a result is as readable as its folder.
        temporary.chmod(path.parent.stat().st_mode & 0o666 & ~umask())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
