"""What the command line writes: results to standard output, errors and progress to standard error."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_FIRST_SHOWN = 1.0  # seconds without a sign of life
_INTERVAL = 0.5
_CLEAR_LINE = "\r\x1b[K"


def say(text: str) -> None:
    """Writes results; a reader that is not there, or has seen enough and left, such as `head`, is no error."""
    if sys.stdout is None:  # closed before the process began
        return
    # File names may hold letters that the encoding of the output lacks, and bytes that are no text.
    encoding = sys.stdout.encoding or "utf-8"
    text = text.encode(encoding, "backslashreplace").decode(encoding)
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except OSError as error:
        # What is left in the buffer would fail once more when Python exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise


def complain(text: str) -> None:
    """Writes one line about an error, if there is a reader."""
    if sys.stderr is None:
        return
    sys.stderr.write(f"graphmatch: error: {' '.join(text.split())}\n")


def table(rows: dict[str, str]) -> str:
    """Returns names and values as aligned lines."""
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())


@contextmanager
def elapsed_time(time_limit: float | None, quiet: bool) -> Iterator[None]:
    """Shows on a terminal how long the work inside has taken, once that is more than a second.

    A native call says nothing before it ends: a thread of its own looks at the clock.
    """
    if quiet or not _is_watched():
        yield
        return
    done = threading.Event()
    limit = "" if time_limit is None else f" of at most {time_limit:g} s"
    watch = threading.Thread(target=_show_time, args=(done, limit), daemon=True)
    watch.start()
    try:
        yield
    finally:
        done.set()
        watch.join()


def gap_text(answer: dict[str, Any]) -> str:
    """Returns both gaps of an answer as a row shows them; an objective of 0 leaves no relative one."""
    is_open = answer["objective"] == 0 and answer["absolute_gap"] != 0
    gaps = (None if is_open else answer["gap"], "relative"), (answer["absolute_gap"], "absolute")
    return ", ".join(f"{'none' if gap is None else format(gap, '.3g')} {kind}" for gap, kind in gaps)


def _is_watched() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def _show_time(done: threading.Event, limit: str) -> None:
    start = time.monotonic()
    if done.wait(_FIRST_SHOWN):
        return
    while True:
        sys.stderr.write(f"{_CLEAR_LINE}solving: {time.monotonic() - start:.0f} s{limit}")
        sys.stderr.flush()
        if done.wait(_INTERVAL):
            break
    sys.stderr.write(_CLEAR_LINE)
    sys.stderr.flush()


@contextmanager
def progress(quiet: bool) -> Iterator[Callable[[str], None]]:
    """Yields what shows on a terminal which part of the work has begun, and after how many seconds."""
    if quiet or not _is_watched():
        yield lambda text: None
        return
    start = time.monotonic()

    def show(text: str) -> None:
        sys.stderr.write(f"{_CLEAR_LINE}{time.monotonic() - start:.0f} s: {text}")
        sys.stderr.flush()

    try:
        yield show
    finally:
        sys.stderr.write(_CLEAR_LINE)
        sys.stderr.flush()
