"""What the command lines share: printing, which is done nowhere else in the package, and numbers in options."""

from __future__ import annotations

import argparse
import sys


def say(text: str = "") -> None:
    """Prints one line of results to standard output."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """Prints one line about an error to standard error."""
    sys.stderr.write(f"{text}\n")
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
