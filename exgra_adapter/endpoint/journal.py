"""An append-only journal of finished items: kill -9 loses the requests in flight and nothing else.

The first line describes the run; each further line is one item, `{"key": ..., "status": "ok" | "failed", ...}`. A later
line of a key replaces an earlier one. Lines reach the operating system one by one, and the disk every few seconds.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from exgra_adapter import strict_json
from exgra_adapter.key_table import KeyTable

_FORMAT = 1
_SYNC_SECONDS = 5.0
_MOST_TOKENS = 2**63


class Journal:
    """Writes a journal, and knows what earlier runs finished; use it as `with`.

    Memory is 16 bytes per item of earlier runs, and about 40 while the file is opened.

    Args:
        path: The file; it is made, or continued with `resume`. An incomplete last line is cut off.
        run: What decides about the replies, without secrets; a continued journal must have the same.
        resume: Continue an existing journal.

    Raises:
        ValueError: The journal exists and `resume` is False, comes from another run, or is broken.
        OSError: Another process writes it.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "journal.jsonl"
        >>> with Journal(path, {"model": "m"}) as journal:
        ...     journal.write("a", "ok", content={"score": 7})
        >>> with Journal(path, {"model": "m"}, resume=True) as journal:
        ...     journal.status("a"), journal.status("b")
        ('ok', None)
    """

    def __init__(self, path: Path, run: Mapping[str, Any], resume: bool = False) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = self.path.open("ab")
        try:
            self._lock()
            self._cut_torn_line()
            empty = self.path.stat().st_size == 0
            if not empty and not resume:
                raise ValueError(
                    f"Journal: {self.path} must be a new file; it holds an earlier run. Continue it with --resume, or "
                    "remove it."
                )
            if empty:
                self._append({"format": _FORMAT, "run": dict(run)})
                self._sync()
            self.index = JournalIndex(self.path)
            _require_same_run(self.index.run, json.loads(json.dumps(dict(run))), self.path)
        except BaseException:
            self._file.close()
            raise
        self._synced = time.monotonic()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Brings everything to the disk and lets other processes write."""
        if not self._file.closed:
            self._sync()
            self._file.close()

    def write(self, key: str, status: str, **fields: Any) -> None:
        """Appends one item.

        Args:
            key: Identifies the item.
            status: `"ok"` or `"failed"`.
            fields: Anything `json.dumps` takes.
        """
        self._append({"key": key, "status": status, **fields})
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            self._sync()

    def status(self, key: str) -> str | None:
        """What earlier runs say of an item: `"ok"`, `"failed"`, or None if nothing. Lines of this run do not count."""
        return self.index.status(key)

    def _append(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line, ensure_ascii=False).encode("utf-8") + b"\n")
        self._file.flush()

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(
                f"Journal: {self.path} must have one writer; another process writes it. Wait for that run, or stop it."
            ) from None

    def _cut_torn_line(self) -> None:
        """Removes what follows the last line end: a line that a killed process has not finished."""
        with self.path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            keep, step = end, 1 << 16
            while keep:
                start = max(0, keep - step)
                file.seek(start)
                found = file.read(keep - start).rfind(b"\n")
                if found >= 0:
                    keep = start + found + 1
                    break
                keep = start
        if keep < end:
            self._file.truncate(keep)


class JournalIndex:
    """Finds the lines of a journal by key, in any order, with 16 bytes of memory per item.

    Keys are kept as hashes of 64 bits: two of 600,000 keys are taken for one with a probability of one in 10^8.

    Args:
        path: The journal; an incomplete last line does not count.

    Attributes:
        run: The description of the run.
        ok: Number of items whose last line says `"ok"`.
        failed: Number of items whose last line says `"failed"`.
        input_tokens: Sum over all lines, replaced ones included: what was paid for.
        output_tokens: Likewise.

    Raises:
        ValueError: The file is missing, or a line is broken; the message has its number.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.run: dict[str, Any] = {}
        self.input_tokens = self.output_tokens = 0
        self._places = KeyTable(self._read())
        self.ok = int((self._places.numbers & np.uint64(1)).sum())
        self.failed = len(self._places) - self.ok
        self._file: IO[bytes] | None = None

    def _read(self) -> Iterator[tuple[str, int]]:
        """The key of each line with its place: the offset, shifted by a bit that says whether the item is good."""
        for number, (offset, entry) in enumerate(_lines(self.path)):
            if number == 0:
                self.run = _read_header(entry, self.path)
                continue
            self.input_tokens += entry.get("input_tokens", 0)
            self.output_tokens += entry.get("output_tokens", 0)
            yield entry["key"], offset << 1 | (entry["status"] == "ok")

    def status(self, key: str) -> str | None:
        """`"ok"`, `"failed"`, or None where the journal has no such key."""
        place = self._places.get(key)
        return None if place is None else ("ok" if place & 1 else "failed")

    def entry(self, key: str) -> dict[str, Any] | None:
        """The last line of a key, or None."""
        place = self._places.get(key)
        if place is None:
            return None
        if self._file is None:
            self._file = self.path.open("rb")
        self._file.seek(place >> 1)
        entry: dict[str, Any] = json.loads(self._file.readline())
        return entry

    def close(self) -> None:
        """Closes the file that `entry` has opened."""
        if self._file is not None:
            self._file.close()
            self._file = None


def read_entries(path: Path) -> Iterator[dict[str, Any]]:
    """Reads the items of a journal in the order of the file, replaced lines included; memory is one line.

    Raises:
        ValueError: The file is missing, or a line is broken.
    """
    lines = _lines(Path(path))
    first = next(lines, None)
    if first is not None:
        _read_header(first[1], Path(path))
    for _, entry in lines:
        yield entry


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The offset and content of each complete line."""
    if not path.is_file():
        raise ValueError(f"Journal: path must name an existing file; got {path}. Check the spelling.")
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                entry = strict_json.decode(line.decode("utf-8"))
                good = isinstance(entry, dict) and (number == 1 or _is_item(entry))
            except ValueError:
                good = False
            if not good:
                raise ValueError(
                    f"Journal: line {number} of {path} must be a JSON object with key and status; got something else. "
                    "Remove that line."
                )
            yield offset, entry
            offset += len(line)


def _is_item(entry: dict[str, Any]) -> bool:
    counts = [entry.get(name, 0) for name in ("input_tokens", "output_tokens")]
    return (
        isinstance(entry.get("key"), str)
        and entry.get("status") in ("ok", "failed")
        and all(type(count) is int and 0 <= count < _MOST_TOKENS for count in counts)
    )


def _read_header(entry: dict[str, Any], path: Path) -> dict[str, Any]:
    run = entry.get("run")
    if entry.get("format") != _FORMAT or not isinstance(run, dict):
        raise ValueError(
            f"Journal: line 1 of {path} must describe the run in format {_FORMAT}; got another line. Name a journal."
        )
    return run


def _require_same_run(earlier: dict[str, Any], run: dict[str, Any], path: Path) -> None:
    for name in sorted(earlier.keys() | run.keys()):
        if earlier.get(name) != run.get(name):
            raise ValueError(
                f"Journal: {path} must come from the same run; its {name} is {_short(earlier.get(name))}, now it is "
                f"{_short(run.get(name))}. Use the same settings, or start a new journal."
            )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
