"""What the command line prints, and nowhere else in the package is anything printed."""

from __future__ import annotations

import sys


def say(text: str = "") -> None:
    """Prints one line of results to standard output."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """Prints one line about an error to standard error."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
