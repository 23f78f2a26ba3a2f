"""What all data sets share: a row of a source, a sample made from it, and the questions' answer options."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from exgra_adapter.data.images import require_safe_name
from exgra_adapter.data.records import kind_of, parse_sample
from exgra_adapter.prompts import IMAGE_TAG

YES_NO_OPTIONS = ' (Answer with either "Yes" or "No").'
"""Follows a closed question whose answer is yes or no, as in the published training files."""

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One row of a source file, not checked yet.

    Attributes:
        split: The part of the data set that it belongs to.
        where: Its place, for messages.
        content: The decoded row.
    """

    split: str
    where: str
    content: Any


@dataclass(frozen=True, slots=True)
class Row:
    """One sample in the training format with what the statistics want to know about it.

    Attributes:
        split: `train`, `validation` or `test`.
        where: Its place in the source, for messages.
        sample: The sample, checked by `parse_sample`.
        phrased_by_people: False for questions filled into templates; their answers are no candidates.
        rephrases_test: The question says in other words what a test question asks.
    """

    split: str
    where: str
    sample: dict[str, Any]
    phrased_by_people: bool = True
    rephrases_test: bool = False

    @property
    def image(self) -> str:
        """The image's name."""
        return str(self.sample["image"])

    @property
    def answer_type(self) -> str | None:
        """`OPEN`, `CLOSED`, or None where the source does not say."""
        return self.sample.get("answer_type")

    def texts(self, speaker: str) -> list[str]:
        """What `human` or `gpt` says, turn by turn."""
        return [message["value"] for message in self.sample["conversations"] if message["from"] == speaker]


class UnansweredError(ValueError):
    """A question has no answer. Such rows are always left out, with a count: they teach nothing and test nothing."""


class Layout(Protocol):
    """The files of one public data set.

    Attributes:
        name: What the data set is called.
        repeated_ids: Whether several samples may share an id.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def repeated_ids(self) -> bool: ...  # noqa: D102

    def files(self) -> dict[str, Path]:
        """The source files, by what they hold."""

    def expected(self) -> Mapping[str, Mapping[str, int]]:
        """How many `rows`, and where known how many `OPEN` and `CLOSED` ones, the published splits have."""

    def read(self) -> Iterator[SourceRow]:
        """Reads the source, row by row."""

    def convert(self, row: SourceRow) -> list[Row]:
        """Makes samples of a row; ValueError says what is wrong with it."""


def vqa_sample(
    identifier: Any,
    image: str,
    question: str,
    answer: Any,
    where: str,
    answer_type: str | None = None,
    options: bool = True,
    **about: str | None,
) -> dict[str, Any]:
    r"""Makes and checks a sample of one question.

    Args:
        identifier: A text or a number, written as text.
        image: The image's name, relative to the image folder.
        question: The question; white space around it is dropped.
        answer: The answer, a text or a number.
        where: Opens every error: the row's place.
        answer_type: `OPEN` or `CLOSED`, in any case; None takes `CLOSED` for yes and no, else `OPEN`.
        options: Whether the question names the options yes and no where they are the options.
        about: Further keys, left out where they are None: such as `question_type`, `modality` and
            `location`, by which evaluations group questions.

    Raises:
        UnansweredError: The answer is empty.
        ValueError: Another value is missing or empty, or one is of the wrong type.

    Example:
        >>> sample = vqa_sample(7, "a.png", "Is there a lesion?", "No", "row 0", modality="CT")
        >>> sample["conversations"][0]["value"]
        'Is there a lesion? (Answer with either "Yes" or "No").\n<image>'
        >>> sample["answer_type"], sample["modality"]
        ('CLOSED', 'CT')
    """
    for key, value in (("question", question), ("image", image), ("answer type", answer_type or "")):
        if not isinstance(value, str):
            raise ValueError(f"{where}: the {key} must be a text; got {kind_of(value)}. Correct the row.")
    if not question.strip():
        raise ValueError(f"{where}: the question must not be empty; got {question!r}. Correct or drop the row.")
    said = _plain(answer)
    if said == "":
        raise UnansweredError(f"{where}: the answer must not be empty; got {answer!r}. Correct or drop the row.")
    is_yes_no = isinstance(said, str) and said.lower() in ("yes", "no")
    kind = (answer_type or ("CLOSED" if is_yes_no else "OPEN")).strip().upper()
    suffix = YES_NO_OPTIONS if options and is_yes_no and kind == "CLOSED" else ""
    asked = f"{question.strip()}{suffix}\n{IMAGE_TAG}"
    sample: dict[str, Any] = {"id": _plain(identifier), "image": image, "answer_type": kind}
    sample |= {key: value for key, value in about.items() if value is not None}
    sample["conversations"] = [{"from": "human", "value": asked}, {"from": "gpt", "value": said}]
    check_sample(sample, where)
    return sample


def check_sample(sample: dict[str, Any], where: str) -> None:
    """Checks a sample in the training format completely, and that its image's name stays in the image folder.

    Raises:
        ValueError: It breaks the format; the message opens with `where`.
    """
    record = parse_sample(sample, where)
    require_safe_name(record.image, where)


def require_keys(content: Any, keys: tuple[str, ...], where: str) -> Mapping[str, Any]:
    """Returns a row as a mapping that has some keys.

    Raises:
        ValueError: It is no JSON object, or lacks a key.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"{where} must be a JSON object; got {kind_of(content)}. Check the file.")
    missing = [key for key in keys if key not in content]
    if missing:
        raise ValueError(
            f"{where} must have the keys {', '.join(keys)}; got a row without {', '.join(missing)}. "
            "Check that this is the file of this data set."
        )
    return content


def text_or_none(content: Mapping[str, Any], key: str) -> str | None:
    """Returns a descriptive value as text without white space around it, None where it is missing, null or empty."""
    value = content.get(key)
    return (str(value).strip() or None) if isinstance(value, str | int | float) else None


def _plain(value: Any) -> Any:
    """Numbers and texts as stripped text; the rest stays, for `parse_sample` to refuse."""
    return value if isinstance(value, bool) or not isinstance(value, str | int | float) else str(value).strip()
