"""Reads the docstrings as what they are, plain text with `code` and examples, not Markdown."""

from __future__ import annotations

import ast
import re
from typing import Any

import griffe

# Of what Markdown would take for its own signs: <c, y> is no tag, x[i] [j] no link, 2 * n no emphasis.
_SIGNS = re.compile(r"(?<!\\)[<*\[\]_]")
_EXAMPLE = re.compile(r"^Example:(?=\n)", re.M)
# Its further lines are indented, which would make it a box with its first line as title.
_SOURCE = re.compile(r"^Source: .*(?:\n {4,}\S.*)+", re.M)
_ARGUMENT = re.compile(r"^\s+\**\w+(, \w+)*:(?=\s)")


class PlainDocstrings(griffe.Extension):
    """Makes `Example:` a section of code, and protects formulas."""

    def on_class_members(self, *, node: Any, cls: griffe.Class, **kwargs: Any) -> None:
        """Turns fields made by `option(default, help)` into defaults, and their help into the class's arguments."""
        texts = {}
        for name, member in cls.members.items():
            value = getattr(member, "value", None)
            if isinstance(value, griffe.ExprCall) and str(value.function) == "option":
                default, text = value.arguments
                member.value = default
                texts[name] = ast.literal_eval(str(text))
        if texts and cls.docstring is not None:
            first, _, rest = cls.docstring.value.partition("\n\n")
            arguments = "\n".join(f"    {name}: {text[0].upper()}{text[1:]}." for name, text in texts.items())
            cls.docstring.value = f"{first}\n\nArgs:\n{arguments}\n\n{rest}"

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Changes the docstring of an object before it is parsed."""
        if obj.docstring is not None:
            obj.docstring.value = plain(obj.docstring.value)


def plain(text: str) -> str:
    """Returns a docstring whose text, but for code and examples, means itself in Markdown."""
    text = _SOURCE.sub(lambda source: re.sub(r"\n +", "\n", source[0]), text)
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
