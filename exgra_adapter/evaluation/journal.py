"""Results of long work, written down as they come: JSON lines behind a first line that says what the work is.

A process that is killed leaves at most one torn line at the end, which is dropped when the journal is read again.
Several processes that share some work write a journal each, `NAME.journal-0`, `NAME.journal-1` and so on; together they
say what is done, however many processes go on.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

Entry = dict[str, Any]
"""One line: `index`, the place of a question in the data, and its result."""


def journal_files(target: Path) -> list[Path]:
    """Finds the journals that belong to a result file."""
    return sorted(target.parent.glob(f"{glob.escape(target.name)}.journal-*"))


def remove_journals(target: Path) -> None:
    """Removes the journals that belong to a result file."""
    for path in journal_files(target):
        path.unlink()


def read_journals(target: Path, settings: Mapping[str, Any], caller: str) -> dict[int, Entry]:
    """Reads what is done and makes the journals ready to be continued: torn ends are cut off.

    Args:
        target: The result file that the journals belong to.
        settings: What the work is, as JSON values. Journals of other work are refused.
        caller: Begins error messages.

    Returns:
        The entries by index.

    Raises:
        ValueError: A journal is of other work, or damaged elsewhere than at its end.
    """
    entries: dict[int, Entry] = {}
    for path in journal_files(target):
        lines = _complete_lines(path, caller)
        if not lines:
            path.unlink()  # killed before the first line was complete
            continue
        _require_same_settings(path, lines[0], settings, caller)
        for number, line in enumerate(lines[1:], start=2):
            if not isinstance(line.get("index"), int):
                raise _damaged(path, number, caller)
            entries.setdefault(line["index"], line)
    return entries


class Journal:
    """The journal of one process, open for new entries.

    Args:
        target: The result file that it belongs to.
        process: Number of the process.
        settings: What the work is; the first line.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "answers.jsonl"
        >>> with Journal(target, 0, {"model": "a"}) as journal:
        ...     journal.append([{"index": 0, "text": "yes"}])
        >>> read_journals(target, {"model": "a"}, "example")
        {0: {'index': 0, 'text': 'yes'}}
    """

    def __init__(self, target: Path, process: int, settings: Mapping[str, Any]) -> None:
        self.path = target.parent / f"{target.name}.journal-{process}"
        self._settings = settings
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def append(self, entries: Iterable[Entry]) -> None:
        """Adds entries; they are on the disk when this returns."""
        lines: list[Mapping[str, Any]] = list(entries)
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab")
            if self._file.tell() == 0:
                lines = [{"settings": dict(self._settings)}, *lines]
        self._file.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode("utf-8"))
        self._file.flush()
        os.fsync(self._file.fileno())


def _complete_lines(path: Path, caller: str) -> list[Entry]:
    """Reads all lines and cuts off an incomplete one at the end."""
    content = path.read_bytes()
    complete = content[: content.rfind(b"\n") + 1]
    lines: list[Entry] = []
    for number, line in enumerate(complete.split(b"\n")[:-1], start=1):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise _damaged(path, number, caller)
        lines.append(value)
    if len(complete) < len(content):
        os.truncate(path, len(complete))
    return lines


def _require_same_settings(path: Path, first: Entry, settings: Mapping[str, Any], caller: str) -> None:
    earlier = first.get("settings")
    if not isinstance(earlier, dict):
        raise _damaged(path, 1, caller)
    # As JSON has them: tuples have become lists.
    now = json.loads(json.dumps(dict(settings)))
    changed = [name for name in {**now, **earlier} if earlier.get(name) != now.get(name)]
    if changed:
        name = changed[0]
        raise ValueError(
            f"{caller}: {name} must be the same when an interrupted run is continued ({earlier.get(name)!r} in "
            f"{path}); got {now.get(name)!r}. Give the old settings, start anew without resuming, or choose another "
            "output."
        )


def _damaged(path: Path, number: int, caller: str) -> ValueError:
    return ValueError(
        f"{caller}: {path}, line {number} must be what this package wrote; got something else. Remove the file, or "
        "start anew without resuming."
    )
