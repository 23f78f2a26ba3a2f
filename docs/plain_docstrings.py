"""Reads the docstrings as what they are, plain text with `code` and examples, not Markdown."""

from __future__ import annotations

import re
from typing import Any

import griffe

# Of what Markdown would take for its own signs: <c, y> is no tag, x[i] [j] no link, 2 * n no emphasis.
_SIGNS = re.compile(r"(?<!\\)[<*\[\]_]")
_EXAMPLE = re.compile(r"^Example:(?=\n)", re.M)
_ARGUMENT = re.compile(r"^\s+\**\w+(, \w+)*:(?=\s)")


class PlainDocstrings(griffe.Extension):
    """Makes `Example:` a section of code, and protects formulas."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Changes the docstring of an object before it is parsed."""
        if obj.docstring is not None:
            obj.docstring.value = plain(obj.docstring.value)


def plain(text: str) -> str:
    """Returns a docstring whose text, but for code and examples, means itself in Markdown."""
    before, example, after = _EXAMPLE.split(text, maxsplit=1)[0], _EXAMPLE.search(text), ""
    if example is not None:
        after = "Examples:" + text[example.end() :]
    return "\n".join(_protected(line) for line in before.split("\n")) + after


def _protected(line: str) -> str:
    name = _ARGUMENT.match(line)
    start = name.end() if name else 0
    parts = re.split(r"(`[^`]*`)", line[start:])
    return line[:start] + "".join(
        part if place % 2 else _SIGNS.sub(lambda sign: "\\" + sign[0], part) for place, part in enumerate(parts)
    )
