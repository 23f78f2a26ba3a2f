"""The questions of a visual chat evaluation and the answers that are compared on them.

A file of questions has one JSON object per line, with the keys of LLaVA-Med's 50-image evaluation:

| key | content |
|---|---|
| `question_id`, `image`, `text` | the question; `<image>` in it is left out |
| `gpt4_answer` (or `reference`) | the reference answer |
| `fig_caption` | the figure's caption; the judge sees it, a model does not |
| `in_text_mention` | a list of `{"tokens": sentence}` that mention the figure, or null; the judge sees them too |
| `type` | the kind of question: `conversation`, `detailed_description` |
| `domain` | flags such as `{"chest_xray": false, "mri": true}`, or a name |
| `pair_id` | finds captions in a file of captions |

The first flag that is set, in the order of the file, is the domain, so that every question counts once; in the 50-image
evaluation these are 37 questions about chest x-rays, 38 MRI, 40 CT, 44 histology and 34 gross pathology.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exgra_adapter import strict_json
from exgra_adapter.data.formats import RawSample, read_json_lines
from exgra_adapter.data.records import Record, Turn, kind_of, strip_image_tag, text_of
from exgra_adapter.evaluation.answer_file import AnswerFile
from exgra_adapter.evaluation.file_state import FileState
from exgra_adapter.key_table import KeyTable
from exgra_adapter.prompts import IMAGE_TAG

UNKNOWN = "unspecified"
"""The kind or domain of a question whose file does not say."""

_REFERENCE_KEYS = ("gpt4_answer", "reference")


@dataclass(frozen=True)
class ChatQuestion:
    """One question about an image, with what the judge may know.

    Attributes:
        id: Identifier as text.
        image: Name of the image file.
        text: The question.
        reference: The answer that candidates are compared with.
        caption: The figure's caption, empty where there is none.
        mentions: Sentences of the article that mention the figure.
        kind: The kind of question, such as `conversation`.
        domain: The kind of image, such as `mri`.
    """

    id: str
    image: str
    text: str
    reference: str
    caption: str = ""
    mentions: tuple[str, ...] = ()
    kind: str = UNKNOWN
    domain: str = UNKNOWN


@dataclass(frozen=True)
class Candidate:
    """The answers of one model.

    Attributes:
        name: What reports call it.
        answers: Question id to answer; a question without an answer has none, or None.
    """

    name: str
    answers: Mapping[str, str | None]

    def answer_to(self, question: ChatQuestion) -> str | None:
        """The answer, or None."""
        return self.answers.get(question.id)


class StandIn(Candidate):
    """Answers as long as the references, for an estimate before a model has answered."""

    def __init__(self, name: str) -> None:
        super().__init__(name, {})

    def answer_to(self, question: ChatQuestion) -> str:
        """The reference."""
        return question.reference


class QuestionFile(Collection[ChatQuestion]):
    """The questions of a file that `read_questions` has checked: read again in each pass, one in memory at a time.

    Raises:
        ValueError: While iterating: the file has changed since it was checked.
    """

    def __init__(self, path: Path, figures: Mapping[str, Mapping[str, Any]]) -> None:
        self._path, self._figures = path, figures
        self._state = FileState(path)
        ids = KeyTable((question.id, number) for number, (question, _) in enumerate(self._read()))
        if ids.repeated:
            self._refuse_repeated()
        self._count = len(ids)

    def __iter__(self) -> Iterator[ChatQuestion]:
        self._state.require_same("read_questions")
        for question, _ in self._read():
            yield question
        self._state.require_same("read_questions")

    def __len__(self) -> int:
        return self._count

    def __contains__(self, question: object) -> bool:
        return any(question == own for own in self)

    def _read(self) -> Iterator[tuple[ChatQuestion, str]]:
        for sample in read_json_lines(self._path, "read_questions"):
            yield _parse_question(sample, self._figures), sample.where

    def _refuse_repeated(self) -> None:
        places: dict[str, str] = {}
        for question, where in self._read():
            if question.id in places:
                raise ValueError(
                    f"read_questions: {where} must have a new question_id; got {question.id!r}, as "
                    f"{places[question.id]}. Rename one."
                )
            places[question.id] = where


def read_questions(path: Path, captions: Path | None = None) -> QuestionFile:
    """Checks a file of questions.

    Args:
        path: JSON lines with the keys of this module's table; a file, not a pipe, because it is read more than once.
        captions: A JSON object of lists of figures with `pair_id`, `fig_caption` and `in_text_mention`; gives the
            context of questions that have no caption of their own. It is held in memory.

    Returns:
        The questions in the order of the file. Memory does not grow with their number.

    Raises:
        ValueError: A file is missing, broken or empty, a key is missing or has a value of the wrong type, an id occurs
            twice, or a question has neither a caption nor a mention; the message names the place.

    Example:
        >>> import json, pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "qa.jsonl"
        >>> line = {"question_id": 0, "image": "a.png", "text": "Which organ?", "reference": "The liver.",
        ...         "fig_caption": "CT of the liver", "type": "conversation", "domain": {"mri": False, "ct_scan": True}}
        >>> _ = path.write_text(json.dumps(line))
        >>> [question.domain for question in read_questions(path)]
        ['ct_scan']
    """
    path = Path(path)
    if path.is_fifo():
        raise ValueError(
            f"read_questions: path must be a file, which is read more than once; got the pipe {path}. Save it first."
        )
    questions = QuestionFile(path, {} if captions is None else _read_captions(captions))
    if not questions:
        raise ValueError(f"read_questions: {path} must hold at least one question; got none. Check the file.")
    return questions


def to_records(questions: Collection[ChatQuestion]) -> list[Record]:
    """Returns what a model is asked: one record per question."""
    return [Record(item.id, item.image, (Turn(item.text, item.reference),), "OPEN") for item in questions]


def read_candidate(path: Path, name: str, questions: Collection[ChatQuestion]) -> Candidate:
    """Checks an answer file of `exgra-med evaluate` or of LLaVA-Med; an answer that shows nothing counts as none.

    Returns:
        The answers, which stay in the file: memory is 16 bytes for each.

    Raises:
        ValueError: The file is missing or broken, or answers a question that was not asked, or none of those asked.
    """
    return Candidate(name, AnswerFile(path, KeyTable((question.id, 0) for question in questions)))


def _parse_question(sample: RawSample, figures: Mapping[str, Mapping[str, Any]]) -> ChatQuestion:
    content, where = sample.content, f"read_questions: {sample.where}"
    if sample.error is not None:
        raise ValueError(f"{where} {sample.error}.")
    if not isinstance(content, Mapping):
        raise ValueError(f"{where} must be a JSON object; got {kind_of(content)}. Correct the line.")
    identifier = _text(content, ("question_id",), where)
    where = f"{where} (question_id {identifier!r})"
    context = content
    pair = content.get("pair_id")
    if not content.get("fig_caption") and isinstance(pair, str) and pair in figures:
        context = figures[pair]
    text = strip_image_tag(_text(content, ("text",), where))
    if not text:
        raise ValueError(f"{where}: key 'text' must hold a question; got {IMAGE_TAG} alone. Write the question.")
    caption = context.get("fig_caption") or ""
    if not isinstance(caption, str):
        raise ValueError(f"{where}: key 'fig_caption' must be text; got {kind_of(caption)}. Correct the value.")
    mentions = tuple(_mentions(context.get("in_text_mention"), where))
    if not caption.strip() and not mentions:
        raise ValueError(
            f"{where} must have key 'fig_caption' or 'in_text_mention', from which the judge knows the image; got "
            "neither. Add one, or name a file of captions that has its pair_id."
        )
    return ChatQuestion(
        id=identifier,
        image=_text(content, ("image",), where),
        text=text,
        reference=_text(content, _REFERENCE_KEYS, where),
        caption=caption.strip(),
        mentions=mentions,
        kind=_text(content, ("type",), where) if content.get("type") is not None else UNKNOWN,
        domain=_domain(content.get("domain"), where),
    )


def _mentions(value: Any, where: str) -> Iterator[str]:
    if value is not None and not isinstance(value, list):
        raise ValueError(f"{where}: key 'in_text_mention' must be a list or null; got {kind_of(value)}. Correct it.")
    for item in value or ():
        tokens = item.get("tokens") if isinstance(item, Mapping) else item
        if not isinstance(tokens, str):
            raise ValueError(
                f"{where}: key 'in_text_mention' must hold sentences under 'tokens'; got {kind_of(tokens)}. Correct it."
            )
        if tokens.strip():
            yield tokens.strip()


def _domain(value: Any, where: str) -> str:
    if value is None:
        return UNKNOWN
    if isinstance(value, str) and value.strip():
        return value.strip()
    if isinstance(value, Mapping) and all(isinstance(flag, bool) for flag in value.values()):
        return next((str(name) for name, flag in value.items() if flag), UNKNOWN)
    raise ValueError(
        f"{where}: key 'domain' must be a name or an object of true and false; got {str(value)[:60]!r}. Correct it."
    )


def _text(content: Mapping[str, Any], keys: Sequence[str], where: str) -> str:
    key = next((key for key in keys if key in content), None)
    if key is None:
        raise ValueError(f"{where} must have key {keys[0]!r}; got keys {sorted(map(str, content))}. Add it.")
    value = content[key]
    # bool is an int in Python, but True as an answer is a broken file, not a number.
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        got = "an empty text" if isinstance(value, str) else kind_of(value)
        raise ValueError(f"{where}: key {key!r} must be text or a number, not empty; got {got}. Correct the value.")
    return text_of(value, f"{where}: key {key!r}")


def _read_captions(path: Path) -> dict[str, Mapping[str, Any]]:
    try:
        content = strict_json.decode(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ValueError(f"read_questions: {path} must be a readable JSON file of captions; got {error}.") from error
    groups = content.values() if isinstance(content, Mapping) else [content]
    figures: dict[str, Mapping[str, Any]] = {}
    for group in groups:
        for figure in group if isinstance(group, list) else [group]:
            if not isinstance(figure, Mapping) or not isinstance(figure.get("pair_id"), str):
                raise ValueError(
                    f"read_questions: {path} must hold lists of figures with pair_id and fig_caption; got "
                    f"{str(figure)[:60]!r}. Check that it is a file of captions."
                )
            figures[figure["pair_id"]] = figure
    return figures
