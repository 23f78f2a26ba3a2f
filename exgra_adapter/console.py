"""What the command lines share: printing, which is done nowhere else in the package, numbers in options, torchrun."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

# What is wrong is mostly wrong in every process: the main one says so, and torchrun ends the others before they do.
_HEAD_START = 20.0


def say(text: str = "") -> None:
    """Prints one line of results to standard output."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """Prints one line about an error to standard error."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def say_piece(text: str) -> None:
    """Prints a piece of a line of results to standard output."""
    sys.stdout.write(text)
    sys.stdout.flush()


def complain_piece(text: str) -> None:
    """Prints the beginning of a line to standard error."""
    sys.stderr.write(text)
    sys.stderr.flush()


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
