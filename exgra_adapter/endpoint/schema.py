"""Checks of replies against the part of JSON schema that requests use."""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any

from exgra_adapter.data.records import kind_of
from exgra_adapter.strict_json import DECODER

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}


def parse_json_object(text: str) -> dict[str, Any]:
    """Finds the JSON object in a reply: the whole text, a fenced block, or what starts at the first brace.

    Raises:
        ValueError: There is none.

    Example:
        >>> parse_json_object('Here it is: {"score": 7} as asked.')
        {'score': 7}
    """
    fenced = text.split("```", 2)
    candidates = [text] + ([fenced[1].lstrip(string.ascii_letters)] if len(fenced) == 3 else [])
    if "{" in text:
        candidates.append(text[text.index("{") :])
    for candidate in candidates:
        stripped = candidate.strip()
        try:
            value, end = DECODER.raw_decode(stripped)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and (end == len(stripped) or candidate is candidates[-1]):
            return value
    raise ValueError("broken JSON")


def schema_problem(value: Any, schema: Mapping[str, Any], where: str = "reply") -> str | None:
    """Says how a value breaks a schema.

    The keywords type, enum, required, properties, items, minimum, maximum, minLength and maxLength are checked; others
    are left to the endpoint.

    Args:
        value: What JSON held.
        schema: The schema.
        where: What the message calls the value.

    Returns:
        A sentence, or None if the value fits.

    Example:
        >>> schema = {"type": "object", "required": ["score"], "properties": {"score": {"type": "integer"}}}
        >>> schema_problem({"score": "7"}, schema)
        "key 'score' of reply must be of type integer; got a text"
        >>> schema_problem({"score": 7}, schema) is None
        True
    """
    kinds = schema.get("type")
    if kinds is not None:
        kinds = [kinds] if isinstance(kinds, str) else list(kinds)
        if not any(_is(value, kind) for kind in kinds):
            return f"{where} must be of type {' or '.join(kinds)}; got {kind_of(value)}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{where} must be one of {', '.join(map(str, schema['enum']))}; got {value!r}"
    if isinstance(value, dict):
        missing = [key for key in schema.get("required", ()) if key not in value]
        if missing:
            return f"{where} must have the keys {', '.join(schema['required'])}; {', '.join(missing)} missing"
        for key, inner in schema.get("properties", {}).items():
            problem = schema_problem(value[key], inner, f"key {key!r} of {where}") if key in value else None
            if problem:
                return problem
    elif isinstance(value, list) and "items" in schema:
        for index, element in enumerate(value):
            problem = schema_problem(element, schema["items"], f"element {index} of {where}")
            if problem:
                return problem
    size = len(value) if isinstance(value, str) else value
    low, high = ("minLength", "maxLength") if isinstance(value, str) else ("minimum", "maximum")
    if isinstance(size, int | float) and not isinstance(value, bool):
        if low in schema and size < schema[low]:
            return f"{where} must have {low} {schema[low]}; got {size}"
        if high in schema and size > schema[high]:
            return f"{where} must have {high} {schema[high]}; got {size}"
    return None


def _is(value: Any, kind: str) -> bool:
    # In Python a bool is an int; in JSON it is not. 7.0 is an integer in JSON.
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[kind])
