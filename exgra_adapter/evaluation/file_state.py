"""Notices that a file which is read more than once has changed in between."""

from __future__ import annotations

from pathlib import Path


class FileState:
    """The size and time of a file when it was first read.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.txt"
        >>> _ = path.write_text("a")
        >>> state = FileState(path)
        >>> state.require_same("example")
        >>> _ = path.write_text("ab")
        >>> state.require_same("example")
        Traceback (most recent call last):
        ValueError: example: ...a.txt must stay as it is during the run; got other content. Give the command again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._state = _describe(path)

    def require_same(self, caller: str) -> None:
        """Checks that the file is the same.

        Args:
            caller: Opens the message of the error.

        Raises:
            ValueError: It has another size or time, or is gone.
        """
        if _describe(self._path) != self._state:
            raise ValueError(
                f"{caller}: {self._path} must stay as it is during the run; got other content. Give the command again."
            )


def _describe(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
