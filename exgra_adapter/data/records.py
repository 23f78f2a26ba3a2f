"""Question-and-answer records: the public JSON format, checked completely before anything is trained on it.

A JSON file is a list of samples; `exgra_adapter.data.files` reads the other formats. One sample holds `id`, `image`,
`conversations` (turns of `human` and `gpt`, one of them after the other, `<image>` in the first question) and, where
extended answers exist, `conversations_long` with the same turns and richer answers. Evaluation files add `answer_type`.
The misspelled keys `conversatons` and `conversatons_long` of published files are read as well.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from exgra_adapter.atomic import write_json
from exgra_adapter.prompts import IMAGE_TAG

TURN_KEYS = ("conversations", "conversatons")
EXTENDED_KEYS = ("conversations_long", "conversatons_long")
_SPEAKERS = ("human", "gpt")


@dataclass(frozen=True)
class Turn:
    """One question with its answer, and the extended answer where there is one."""

    question: str
    answer: str
    extended_answer: str | None = None


@dataclass(frozen=True)
class Record:
    """One image with the conversation about it.

    Attributes:
        id: Identifier as text, whatever type the file used.
        image: Name of the image file, relative to the image folder.
        turns: At least one turn.
        answer_type: `"OPEN"`, `"CLOSED"` or None where the file does not say.
    """

    id: str
    image: str
    turns: tuple[Turn, ...]
    answer_type: Literal["OPEN", "CLOSED"] | None = None


def read_records(path: Path, allow_duplicate_ids: bool = False) -> list[Record]:
    """Reads and checks a file of records of any format, see `exgra_adapter.data.files.read_records`.

    Args:
        path: A JSON file, or whatever else `exgra_adapter.data.files` reads.
        allow_duplicate_ids: Accept ids that occur more than once; published PathVQA files number images, not questions.

    Returns:
        The records in file order.

    Raises:
        ValueError: The file is missing or broken, or a sample breaks the format; the message names the file, the
            sample's number (from 0), its id and the key.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "train.json"
        >>> write_records(path, [Record("7", "a.png", (Turn("Is there a lesion?", "yes"),))])
        >>> read_records(path)[0].turns[0].answer
        'yes'
    """
    from exgra_adapter.data import files  # it needs this module

    return files.read_records(path, allow_duplicate_ids)


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Writes records in the public JSON format, atomically.

    Args:
        path: The file to write.
        records: The records; a record has extended answers in all of its turns or in none.

    Raises:
        ValueError: Only some turns of a record have an extended answer.
    """
    write_json(Path(path), [_to_sample(record) for record in records])


def parse_sample(sample: Any, where: str) -> Record:
    """Checks one decoded sample completely.

    Args:
        sample: What JSON or another format held.
        where: Opens every error: the function and the sample's place.

    Returns:
        The record.

    Raises:
        ValueError: The sample breaks the format; the message names its id and the key.

    Example:
        >>> messages = [{"from": "human", "value": "How many? <image>"}, {"from": "gpt", "value": 2}]
        >>> parse_sample({"id": 7, "image": "a.png", "conversations": messages}, "sample 0").turns
        (Turn(question='How many?', answer='2', extended_answer=None),)
    """
    if not isinstance(sample, Mapping):
        raise ValueError(
            f"{where} must be a JSON object; got {kind_of(sample)}. Give it keys id, image and conversations."
        )
    identifier = text_of(_require(sample, ("id",), where), f"{where}: key 'id'")
    where = f"{where} (id {identifier!r})"
    image = text_of(_require(sample, ("image",), where), f"{where}: key 'image'")
    turns = _parse_turns(_require(sample, TURN_KEYS, where), f"{where}: key 'conversations'")
    extended_key = next((key for key in EXTENDED_KEYS if sample.get(key) is not None), None)
    if extended_key is None:
        parsed = tuple(Turn(question, answer) for question, answer in turns)
    else:
        extended = _parse_turns(sample[extended_key], f"{where}: key {extended_key!r}")
        if len(extended) != len(turns):
            raise ValueError(
                f"{where}: key {extended_key!r} must hold as many turns as the conversation ({len(turns)}); "
                f"got {len(extended)}. Repeat every turn with its extended answer."
            )
        parsed = tuple(Turn(*turn, long_answer) for turn, (_, long_answer) in zip(turns, extended, strict=True))
    answer_type = sample.get("answer_type")
    if answer_type not in (None, "OPEN", "CLOSED"):
        raise ValueError(
            f'{where}: key \'answer_type\' must be "OPEN" or "CLOSED"; got {answer_type!r}. Correct or drop it.'
        )
    return Record(identifier, image, parsed, cast(Literal["OPEN", "CLOSED"] | None, answer_type))


def _parse_turns(messages: Any, where: str) -> list[tuple[str, str]]:
    """Checks alternation and image tags; returns (question, answer) pairs."""
    if not isinstance(messages, Sequence) or isinstance(messages, str):
        raise ValueError(
            f"{where} must be a list of messages; got {kind_of(messages)}. Write [{{'from': ..., 'value': ...}}]."
        )
    if not messages or len(messages) % 2:
        raise ValueError(
            f"{where} must hold questions and answers in pairs; got {len(messages)} messages. Add or drop a message."
        )
    texts = []
    for index, message in enumerate(messages):
        here = f"{where}, message {index}"
        if not isinstance(message, Mapping):
            raise ValueError(f"{here} must be a JSON object; got {kind_of(message)}. Give it keys from and value.")
        speaker, expected = _require(message, ("from",), here), _SPEAKERS[index % 2]
        if speaker != expected:
            raise ValueError(
                f"{here} must come from {expected!r} (human and gpt take turns, human first); got {speaker!r}. "
                "Put the turns in order."
            )
        text = text_of(_require(message, ("value",), here), f"{here}, key 'value'")
        allowed = 1 if index == 0 else 0
        if text.count(IMAGE_TAG) > allowed:
            raise ValueError(
                f"{here} may hold {IMAGE_TAG} {'once' if allowed else 'never (it belongs into the first question)'}; "
                f"got it {text.count(IMAGE_TAG)} times. Remove the extra tag."
            )
        text = strip_image_tag(text)
        if shows_nothing(text):
            raise ValueError(
                f"{here}, key 'value' must not be empty; got {message['value']!r}. Fill it in or drop the turn."
            )
        texts.append(text)
    return list(zip(texts[::2], texts[1::2], strict=True))


def strip_image_tag(text: str) -> str:
    """Removes the tag with the white space around it; a single space keeps the words on both sides apart.

    Example:
        >>> strip_image_tag("Is this <image>  a liver? ")
        'Is this a liver?'
    """
    # A regular expression of white space, tag, white space would need quadratic time for long runs of white space.
    return " ".join(part.strip() for part in text.split(IMAGE_TAG)).strip()


def _to_sample(record: Record) -> dict[str, Any]:
    sample: dict[str, Any] = {"id": record.id, "image": record.image}
    if record.answer_type is not None:
        sample["answer_type"] = record.answer_type
    sample["conversations"] = _to_messages([(turn.question, turn.answer) for turn in record.turns])
    extended = [(turn.question, turn.extended_answer) for turn in record.turns if turn.extended_answer is not None]
    if extended:
        if len(extended) != len(record.turns):
            raise ValueError(
                f"write_records: record {record.id!r} must have extended answers in all turns or in none; got "
                f"{len(extended)} of {len(record.turns)}. Fill the missing ones with extend_records."
            )
        sample["conversations_long"] = _to_messages(extended)
    return sample


def _to_messages(turns: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    messages = []
    for index, (question, answer) in enumerate(turns):
        tag = f"\n{IMAGE_TAG}" if index == 0 else ""
        messages += [{"from": "human", "value": question + tag}, {"from": "gpt", "value": answer}]
    return messages


def _require(mapping: Mapping[str, Any], keys: Sequence[str], where: str) -> Any:
    for key in keys:
        if key in mapping:
            return mapping[key]
    raise ValueError(f"{where} must have key {keys[0]!r}; got keys {sorted(map(str, mapping))}. Add it.")


def text_of(value: Any, where: str) -> str:
    """Returns a value of a file as text, without white space around it.

    Args:
        value: A text that is not empty, or a finite number.
        where: Opens every error.

    Raises:
        ValueError: It is something else.

    Example:
        >>> text_of(7, "key 'id'")
        '7'
    """
    # bool is an int in Python, but True as an answer is a broken file, not a number.
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{where} must be text or a number; got {kind_of(value)}. Correct the value.")
    # Python reads NaN and Infinity, which JSON does not have; programs write NaN for what is missing.
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} must be text or a finite number; got {value}. Fill it in.")
    text = str(value).strip()
    if shows_nothing(text):
        raise ValueError(f"{where} must not be empty; got {value!r}. Fill it in.")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError(f"{where} must be text; got half of a surrogate pair, which is no character. Correct it.")
    return text


def shows_nothing(text: str) -> bool:
    r"""Says whether a text has no character that a reader would see: white space, of no width too, and controls only.

    Example:
        >>> shows_nothing(" \u200b\ufeff"), shows_nothing("-")
        (True, False)
    """
    return all(character.isspace() or unicodedata.category(character) in ("Cc", "Cf") for character in text)


def kind_of(value: Any) -> str:
    """The JSON name of a value's type, for messages."""
    if value is None:
        return "null"
    names = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), type(value).__name__)
