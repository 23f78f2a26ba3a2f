"""Test questions with what their file says about them: question types, modalities, organs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from exgra_adapter.data.files import parse_raw_sample, raw_samples
from exgra_adapter.data.records import Record
from exgra_adapter.evaluation.files import Prediction

KNOWN_KEYS = ("question_type", "phrase_type", "content_type", "modality", "image_organ", "location")
"""Keys of VQA-RAD and SLAKE that sort questions; scores are broken down by those that a file has."""

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Questions:
    """The questions of a test file.

    Attributes:
        records: the questions with their reference answers.
        groups: key of the file to, for each record, the groups that it belongs to.
    """

    records: tuple[Record, ...]
    groups: Mapping[str, Sequence[tuple[str, ...]]]


def read_questions(path: Path, keys: Sequence[str] | None = None, allow_duplicate_ids: bool = False) -> Questions:
    """Reads the questions of a test file and how its keys sort them.

    A value with commas, such as VQA-RAD's "POS, PRES", puts a question into each of the groups.

    Args:
        path: a file of records, as `exgra_adapter.data.files` reads it.
        keys: the keys that sort the questions; None takes those of `KNOWN_KEYS` that occur.
        allow_duplicate_ids: number ids that occur again, as `number_repeated` does; published PathVQA files give the
            questions of one image the same id.

    Raises:
        ValueError: the file is broken, an id occurs twice, or no question has one of `keys`.

    Example:
        >>> import json, pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "test.json"
        >>> turns = [{"from": "human", "value": "Organ? <image>"}, {"from": "gpt", "value": "liver"}]
        >>> _ = path.write_text(json.dumps([{"id": 1, "image": "a.png", "modality": "CT", "conversations": turns}]))
        >>> read_questions(path).groups
        {'modality': [('CT',)]}
    """
    records: list[Record] = []
    contents: list[Mapping[str, Any]] = []
    places: dict[str, str] = {}
    for sample in raw_samples(path, "read_questions"):
        record = parse_raw_sample(sample, "read_questions")
        earlier = places.setdefault(record.id, sample.where)
        if earlier != sample.where and not allow_duplicate_ids:
            raise ValueError(
                f"read_questions: ids must be unique; got id {record.id!r} at {earlier} and at {sample.where}. "
                "Rename one, or pass --allow-duplicate-ids if they name images rather than questions."
            )
        records.append(record)
        contents.append(sample.content)
    for key in keys or ():
        if not any(key in content for content in contents):
            present = sorted({name for content in contents for name in content})
            raise ValueError(f"read_questions: by must name a key of {path}; got {key!r}. Choose from {present}.")
    chosen = keys if keys is not None else [key for key in KNOWN_KEYS if any(key in content for content in contents)]
    groups = {key: [_groups(content.get(key)) for content in contents] for key in chosen}
    names = number_repeated([record.id for record in records])
    renamed = (replace(record, id=name) for record, name in zip(records, names, strict=True))
    return Questions(tuple(renamed), groups)


def number_repeated(ids: Sequence[str]) -> list[str]:
    """Makes ids unique: the second occurrence of "a" becomes "a#2".

    Raises:
        ValueError: something else is called "a#2" already.

    Example:
        >>> number_repeated(["a", "b", "a"])
        ['a', 'b', 'a#2']
    """
    seen: Counter[str] = Counter()
    names = []
    for name in ids:
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    _require_new(names, ids)
    return names


def number_repeated_predictions(predictions: Sequence[Prediction]) -> list[Prediction]:
    """Numbers the answers to one id and turn in file order, so that they meet the questions of `read_questions`."""
    seen: Counter[tuple[str, int]] = Counter()
    numbered = []
    for prediction in predictions:
        seen[prediction.id, prediction.turn] += 1
        count = seen[prediction.id, prediction.turn]
        numbered.append(prediction if count == 1 else replace(prediction, id=f"{prediction.id}#{count}"))
    for turn in {turn for _, turn in seen}:
        before, after = ([each.id for each in part if each.turn == turn] for part in (predictions, numbered))
        _require_new(after, before)
    return numbered


def _require_new(names: Sequence[str], ids: Sequence[str]) -> None:
    """Refuses ids that others have got, which were repeated: nobody could say whose answer is whose."""
    taken = next((name for name, count in Counter(names).items() if count > 1), None)
    if taken is not None:
        repeated = taken.rpartition("#")[0]
        raise ValueError(
            f"number_repeated: ids must differ from those that repeated ids get; got {taken!r} beside "
            f"{ids.count(repeated)} times {repeated!r}. Rename one."
        )


def _groups(value: Any) -> tuple[str, ...]:
    # Programs write NaN for what is missing.
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value != value:
        return (UNKNOWN,)
    names = dict.fromkeys(part.strip() for part in str(value).split(","))
    return tuple(name for name in names if name) or (UNKNOWN,)
