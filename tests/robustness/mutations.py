"""Broken files: changes of valid ones that can be listed, drawn by Hypothesis or by a generator, and replayed."""

from __future__ import annotations

import random
import re

KINDS = (
    "delete line",
    "repeat line",
    "swap lines",
    "number",
    "word",
    "cut",
    "byte",
    "bytes",
    "encoding",
    "long line",
    "nesting",
    "line ends",
    "mark",
)
NUMBERS = (
    b"-1", b"0", b"-0", b"1", b"2", b"+3", b"007", b"1_0", b"0x1", b"2147483647", b"2147483648", b"9223372036854775808",
    b"1" * 5000, b"-1e100", b"1e100", b"1.1e100", b"1e999", b"-1e999", b"5e-324", b"NaN", b"-nan", b"inf", b"Infinity",
    b"1.", b".5", b"1e", b"--1", b"1,5", b"\xd9\xa1", b"null", b"true", b"",
)  # fmt: skip
WORDS = (
    b"p", b"a", b"e", b"gm", b"c", b"n0", b"x", b"#", b'"', b"{", b"}", b"[", b"]", b",", b":", b"{}", b"[]", b"null",
    b'"id"', b'"from"', b'"value"', b'"human"', b'"gpt"', b'"<image>"', b'"conversations_long"', b'"question_id"',
    b'"text"', b'"turn"', b'"\\ud800"', b"\x00", b"\x0b", b"\x1c", b"\x85", b"\xc2\x85", b"\xe2\x80\xa8",
)  # fmt: skip
PIECES = (
    b"\xff",
    b"\x80\x00",
    b"\xed\xa0\x80",
    b"\xf0\x9f\xa9\xba",
    b"\x1f\x8b\x08",
    b"\xfd7zXZ\x00",
    b"\r",
    b"\n\n\n",
)
# Long lines are the slowest to read, and seldom say anything new.
_WEIGHTS = [1 if kind == "long line" else 5 for kind in KINDS]
_WINDOW = 1024
ENCODINGS = ("utf-16", "utf-16-le", "utf-32", "latin-1", "cp037")
LARGEST_PLACE = 9999

Change = tuple[str, int, int]


def random_changes(generator: random.Random) -> list[Change]:
    """Draws up to five changes."""
    return [
        (kind, int(generator.random() * (LARGEST_PLACE + 1)), int(generator.random() * (LARGEST_PLACE + 1)))
        for kind in generator.choices(KINDS, _WEIGHTS, k=int(generator.random() * 6))
    ]


def changed(text: bytes, changes: list[Change]) -> bytes:
    """Returns the text with all changes made to it, one after the other."""
    for kind, place, choice in changes:
        text = _changed(text, kind, place, choice)
    return text


def _changed(text: bytes, kind: str, place: int, choice: int) -> bytes:
    at = place % (len(text) + 1)
    match kind:
        case "delete line" | "repeat line" | "swap lines":
            return _with_other_lines(text, kind, place, choice)
        case "number":
            return _replaced(text, rb"[-+]?[0-9.]+(?:e[-+]?[0-9]+)?", place, NUMBERS[choice % len(NUMBERS)])
        case "word":
            return _replaced(text, rb'"[^"]*"|[^\s\[\]{},:"]+|[\[\]{},:]', place, WORDS[choice % len(WORDS)])
        case "cut":
            return text[:at]
        case "byte":
            return text[: at - 1] + bytes([choice % 256]) + text[at:] if at else text
        case "bytes":
            return text[:at] + PIECES[choice % len(PIECES)] + text[at:]
        case "encoding":
            return text.decode("utf-8", errors="replace").encode(ENCODINGS[choice % len(ENCODINGS)], errors="replace")
        case "long line":
            return text[:at] + (b" ", b"7", b"x", b"[", b"1 ")[choice % 5] * (1 << place % 17) + text[at:]
        case "nesting":
            depth = 1 + 3 * choice // 20
            opening, closing = ((b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]"))[place % 3]
            return _replaced(text, rb'"[^"]*"|[0-9.]+', place, opening * depth + b"1" + closing * depth)
        case "line ends":
            return text.replace(b"\n", (b"\r\n", b"\r", b" ", b"\n\n")[choice % 4])
        case _:
            return b"\xef\xbb\xbf" + text


def _with_other_lines(text: bytes, kind: str, place: int, choice: int) -> bytes:
    lines = text.split(b"\n")
    one, other = place % len(lines), choice % len(lines)
    if kind == "delete line":
        del lines[one]
    elif kind == "repeat line":
        lines.insert(other, lines[one])
    else:
        lines[one], lines[other] = lines[other], lines[one]
    return b"\n".join(lines)


def _replaced(text: bytes, pattern: bytes, place: int, by: bytes) -> bytes:
    """Returns the text with one of the parts that match the pattern replaced; of a long text, one near `place`."""
    start = place % len(text) if len(text) > 2 * _WINDOW else 0
    window = text[start : start + 2 * _WINDOW]
    found = list(re.finditer(pattern, window))
    if not found:
        return text
    match = found[place % len(found)]
    return text[: start + match.start()] + by + text[start + match.end() :]
