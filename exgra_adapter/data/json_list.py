"""A JSON list read piece by piece."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from exgra_adapter.data.limits import SAMPLE_VARIABLE, most_sample_bytes, too_long
from exgra_adapter.data.records import kind_of

_PIECE = 1 << 18
_LONGEST_EXAMINED = 1 << 24
_SPACE = re.compile(r"[ \t\n\r]*")


class JsonList:
    """Iterates, once, over the elements of a JSON list.

    One element and one piece of the file are in memory, however long the list is. An element is decoded anew when the
    next piece of the file has to be read for it, so time is linear in the length of the file.

    Args:
        file: The text.
        path: What errors call the file.
        caller: Opens the message of errors.

    Raises:
        ValueError: While iterating: the text is not JSON, with line and column, not a list, or an element is longer
            than `limits.most_sample_bytes`.

    Example:
        >>> import io
        >>> list(JsonList(io.StringIO('[1, {"a": 2}]'), Path("numbers.json"), "example"))
        [1, {'a': 2}]
    """

    def __init__(self, file: IO[str], path: Path, caller: str) -> None:
        self._file, self._path, self._caller = file, path, caller
        self._text, self._at = "", 0
        self._line, self._column = 1, 1  # of the start of the text
        self._most = most_sample_bytes()

    def __iter__(self) -> Iterator[Any]:
        if self._next_character() != "[":
            self._refuse_other_values()
        self._at += 1
        if self._next_character() == "]":
            self._at += 1
        else:
            while True:
                yield self._element()
                separator = self._next_character()
                self._at += 1
                if separator == "]":
                    break
                if separator != ",":
                    raise self._error("Expecting ',' delimiter", self._at - 1)
                self._next_character()
        if self._next_character():
            raise self._error("Extra data", self._at)

    def _element(self) -> Any:
        decoder = json.JSONDecoder()
        while True:
            start = self._at
            try:
                value, end = decoder.raw_decode(self._text, start)
                # A number at the end of the text may go on in the next piece.
                if end < len(self._text) or not self._read_on():
                    self._at += end - start
                    return value
            except json.JSONDecodeError as error:
                # What is cut off looks like an error until the rest has been read.
                kept = error.pos - start
                if not self._read_on():
                    raise self._error(error.msg, self._at + kept) from None
            except (RecursionError, ValueError) as error:  # too many brackets, a number of thousands of digits
                raise self._error(str(error).split(";")[0], self._at) from None

    def _next_character(self) -> str:
        """Skips white space; an empty text is the end of the file."""
        while True:
            match = _SPACE.match(self._text, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read_on():
                return ""

    def _read_on(self) -> bool:
        done = self._text[: self._at]
        lines = done.count("\n")
        self._column = len(done) - done.rfind("\n") if lines else self._column + len(done)
        self._line += lines
        rest = self._text[self._at :]
        if len(rest) > self._most:
            where = f"each sample of {self._path}, as that in line {self._line}, column {self._column},"
            raise too_long(self._caller, where, self._most, SAMPLE_VARIABLE)
        # As much again as is there already: a long element is not decoded anew for each small piece.
        piece = self._file.read(max(_PIECE, len(rest)))
        self._text, self._at = rest + piece, 0
        return bool(piece)

    def _refuse_other_values(self) -> None:
        text = self._text[self._at :] + self._file.read(_LONGEST_EXAMINED)
        cure = "Put the samples into [ ... ]."
        try:
            if self._file.read(1):
                raise json.JSONDecodeError("Extra data", "", 0)  # or one that goes on for long: as little a list
            kind = kind_of(json.loads(text))
        except json.JSONDecodeError as error:
            if error.msg != "Extra data":
                self._text, self._at = text, 0
                raise self._error(error.msg, error.pos) from None
            kind, cure = "several values", "Name a file with one sample per line .jsonl."
        except (RecursionError, ValueError) as error:  # too many brackets, a number of thousands of digits
            raise self._error(str(error).split(";")[0], self._at) from None
        raise ValueError(f"{self._caller}: {self._path} must hold a JSON list of samples; got {kind}. {cure}")

    def _error(self, message: str, at: int) -> ValueError:
        before = self._text[:at]
        lines = before.count("\n")
        column = at - before.rfind("\n") if lines else self._column + at
        return ValueError(
            f"{self._caller}: {self._path} must be JSON; got an error at line {self._line + lines}, column {column}: "
            f"{message}. Repair the file; one with a sample per line must be named .jsonl."
        )
