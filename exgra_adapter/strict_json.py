"""JSON as files should have it: Python's own reader also takes NaN, infinities and halves of characters."""

from __future__ import annotations

import json
import math
from typing import Any


def decode(text: str) -> Any:
    """Decodes one JSON value without NaN, infinities, numbers beyond a double, and halves of surrogate pairs.

    Python's reader takes all of these, and what is made of them fails much later, or is taken for a word.

    Args:
        text: The whole text.

    Returns:
        The value.

    Raises:
        ValueError: The text is no JSON; the message says what and where.

    Example:
        >>> decode('{"score": 1e3}')
        {'score': 1000.0}
        >>> decode("[NaN]")
        Traceback (most recent call last):
        ValueError: NaN is no JSON value
    """
    try:
        value = DECODER.decode(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise ValueError("too many brackets inside each other") from None
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair, which is no character") from None
    return value


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"the number {digits[:40]} is too large")
    return number


DECODER = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)
"""What `decode` decodes with, for texts that go on behind a value."""
