"""Files that are lists of numbers, checked word by word: every complaint names the file and the line."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from graphmatch import _check
from graphmatch.io.files import read_bytes

COST_RULE = f"have a finite cost of at most {_check.LARGEST_COST:g}"
_CURE = "The format holds plain numbers only."
_LONGEST_SHOWN = 40


def shown(text: bytes) -> str:
    """Returns the beginning of a line or a word, as a literal."""
    text = text.strip()
    literal = repr(text[:_LONGEST_SHOWN])[1:]
    return literal + "..." if len(text) > _LONGEST_SHOWN else literal


class Words:
    """The words of a file, wherever its lines end.

    Args:
        where: The function that reads, for complaints.
        path: File name; .gz and .xz are decompressed.
        commas: Whether commas separate words as blanks do.
    """

    def __init__(self, where: str, path: Path, commas: bool = False):
        self._where = where
        self._name = path.name
        content = read_bytes(where, path)
        self._content = content.replace(b",", b" ") if commas else content
        self.words = self._content.split()

    def __len__(self) -> int:
        """Number of words."""
        return len(self.words)

    def error(self, index: int, rule: str, received: object, cure: str) -> ValueError:
        """Returns the complaint about a word; an index beyond the words means the last one."""
        last = 1
        for number, line in enumerate(self._content.splitlines(), start=1):
            count = len(line.split())
            if count:
                last = number
            index -= count
            if index < 0:
                break
        return ValueError(_check.message(self._where, f"line {last} of {self._name}", rule, received, cure))

    def integer(self, index: int, rule: str) -> int:
        """Returns a word as a whole number, or raises the complaint that it must follow the rule."""
        if index >= len(self.words):
            raise self.error(index, f"be followed by {rule}", "the end", "The file is empty or cut off.")
        word = self.words[index]
        try:
            # int() would skip underscores between digits.
            return int(word if b"_" not in word else b"")
        except ValueError:
            raise self.error(index, f"hold {rule}", shown(word), "Write a whole number.") from None

    def numbers(self, first: int, last: int | None = None) -> np.ndarray:
        """Returns words as float64 numbers that are costs, or raises the complaint about the first that is none."""
        words = self.words[first:last]
        try:
            if any(b"_" in word for word in words):
                raise ValueError("float() would skip underscores between digits")
            numbers = np.fromiter(map(float, words), np.float64, len(words))
        except ValueError:
            bad = next(place for place, word in enumerate(words) if not _is_number(word))
            raise self.error(first + bad, "hold numbers", shown(words[bad]), _CURE) from None
        wrong = np.flatnonzero(~(np.abs(numbers) <= _check.LARGEST_COST))
        if len(wrong):
            bad = int(wrong[0])
            raise self.error(first + bad, COST_RULE.replace("a finite cost", "finite costs"), shown(words[bad]), _CURE)
        return numbers


def _is_number(word: bytes) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return b"_" not in word
