"""What the command lines share: printing, which is done nowhere else in the package, numbers in options, torchrun."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

# What is wrong is mostly wrong in every process: the main one says so, and torchrun ends the others before they do.
_HEAD_START = 20.0


def provide_streams() -> None:
    """Opens the null device for each standard stream that was closed before the process began.

    Progress bars and loggers write to them too, and a file that is opened later would take the place of a closed one
    and receive what native code writes there.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115


def say(text: str = "") -> None:
    """Prints one line of results to standard output; a reader that has seen enough, such as `head`, is no error."""
    with suppress(BrokenPipeError):
        _write(sys.stdout, f"{text}\n")


def complain(text: str) -> None:
    """Prints one line about an error to standard error, if it can be written."""
    complain_piece(f"{text}\n")


def say_piece(text: str) -> None:
    """Prints a piece of a line of results to standard output.

    Raises:
        BrokenPipeError: Nobody reads any more; what is printed later goes nowhere.
    """
    _write(sys.stdout, text)


def complain_piece(text: str) -> None:
    """Prints the beginning of a line to standard error."""
    with suppress(OSError):
        _write(sys.stderr, text)


def _write(stream: TextIO | None, text: str) -> None:
    if stream is None:
        return
    # Answers and file names may hold letters that the encoding lacks, and bytes that are no text.
    encoding = stream.encoding or "utf-8"
    try:
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except OSError:
        # What is left in the buffer would fail once more when Python exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        raise


def positive(text: str) -> int:
    """Reads a whole number of at least 1, as an option's type."""
    return _at_least(1, text)


def natural(text: str) -> int:
    """Reads a whole number of at least 0, as an option's type."""
    return _at_least(0, text)


def _at_least(least: int, text: str) -> int:
    value = int(text)
    if value < least:
        raise argparse.ArgumentTypeError(f"must be at least {least}; got {value}")
    return value


def launched_rank() -> int:
    """Returns the number that torchrun gave this process; 0 without torchrun."""
    return int(os.environ.get("RANK", "0"))


@contextmanager
def main_process_complains_first() -> Iterator[None]:
    """Delays the errors of all processes but the main one, so that a user reads each only once."""
    try:
        yield
    except (ValueError, OSError):
        if launched_rank():
            time.sleep(_HEAD_START)
        raise
