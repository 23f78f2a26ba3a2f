"""Answer files (one JSON object per line) and score files (one JSON object).

An answer line has the keys of the published answer files, `question_id`, `prompt` and `text`, and besides them `turn`
(left out for 0), `answer` (the reference) and, for a question that could not be answered, `error` with `text` null.
Files written by other tools need `question_id` and `text` only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exgra_adapter import strict_json
from exgra_adapter.atomic import write_json_lines


@dataclass(frozen=True)
class Prediction:
    """What a model answered to one question.

    Attributes:
        id: the record's id.
        turn: the position of the question in the record.
        question: the question as the data file has it.
        answer: the reference answer.
        prediction: the model's answer, or None when it failed.
        error: why it failed, else None.
    """

    id: str
    turn: int
    question: str
    answer: str
    prediction: str | None
    error: str | None = None


def write_answers(path: Path, predictions: Iterable[Prediction]) -> None:
    """Writes an answer file; the file appears only when it is complete."""
    lines = []
    for item in predictions:
        line: dict[str, Any] = {"question_id": item.id}
        if item.turn:
            line["turn"] = item.turn
        line |= {"prompt": item.question, "text": item.prediction, "answer": item.answer}
        if item.error is not None:
            line["error"] = item.error
        lines.append(line)
    write_json_lines(path, lines)


def read_answers(path: Path, allow_duplicate_ids: bool = False) -> list[Prediction]:
    """Reads an answer file. Blank lines are ignored; ids and texts may be numbers.

    Args:
        path: the file.
        allow_duplicate_ids: accept lines that answer the same question id and turn.

    Raises:
        ValueError: the file does not exist, or a line is not a JSON object, lacks a key, has a value of the wrong type,
            or repeats a question; the message names the line.
    """
    if not path.is_file():
        raise ValueError(f"read_answers: path must be an existing answer file; got {path}. Check the name.")
    predictions: list[Prediction] = []
    lines: dict[tuple[str, int], int] = {}
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"read_answers: {path} must be UTF-8 text; got byte {error.start} that is not. Save it as UTF-8."
        ) from error
    # Only "\n" ends a line: str.splitlines would also break at characters that JSON allows inside a string.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        prediction = parse_answer(line, f"read_answers: {path}, line {number}")
        key = (prediction.id, prediction.turn)
        if key in lines and not allow_duplicate_ids:
            raise ValueError(
                f"read_answers: {path}, line {number} must answer a new question; got question_id {prediction.id!r}, "
                f"turn {prediction.turn}, answered in line {lines[key]} already. Remove one of the two lines."
            )
        lines[key] = number
        predictions.append(prediction)
    return predictions


def read_candidates(path: Path) -> list[str]:
    """Reads a candidates file: `{"0": [answers ...]}`; the answers may be numbers.

    Raises:
        ValueError: the file does not exist or does not have that form.
    """
    if not path.is_file():
        raise ValueError(f"read_candidates: path must be an existing JSON file; got {path}. Check the name.")
    try:
        content = strict_json.decode(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"read_candidates: {path} must be JSON; got {error}. Write it again.") from error
    answers = content.get("0") if isinstance(content, dict) else None
    if not isinstance(answers, list) or not answers or not all(_is_text(answer) for answer in answers):
        raise ValueError(
            f'read_candidates: {path} must have the form {{"0": [answers ...]}} with at least one answer; got '
            "something else. List every possible answer to the open questions."
        )
    return [str(answer) for answer in answers]


def parse_answer(line: str, where: str) -> Prediction:
    """Reads one line of an answer file.

    Args:
        line: the line, not blank.
        where: its place; begins error messages.

    Raises:
        ValueError: the line is not a JSON object, lacks a key, or has a value of the wrong type.

    Example:
        >>> parse_answer('{"question_id": 7, "text": "liver"}', "line 1").prediction
        'liver'
    """
    try:
        content = strict_json.decode(line)
    except ValueError as error:
        raise ValueError(
            f"{where} must be a JSON object; got {line[:60]!r} ({error}). Repair or remove the line; "
            "what is missing is null in JSON."
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{where} must be a JSON object; got {line[:60]!r}. Repair or remove the line.")
    for key in ("question_id", "text"):
        if key not in content:
            raise ValueError(f"{where} must have the key {key!r}; got {sorted(content)}. Add it.")
    identifier, text, turn = content["question_id"], content["text"], content.get("turn", 0)
    if not _is_text(identifier):
        raise ValueError(f"{where}: question_id must be a text or a number; got {identifier!r}. Repair the line.")
    if text is not None and not _is_text(text):
        raise ValueError(f"{where}: text must be a text, a number or null; got {text!r}. Repair the line.")
    if not isinstance(turn, int) or isinstance(turn, bool) or turn < 0:
        raise ValueError(f"{where}: turn must be an integer of at least 0; got {turn!r}. Repair the line.")
    return Prediction(
        id=str(identifier),
        turn=turn,
        question=str(content.get("prompt", "")),
        answer=str(content.get("answer", "")),
        prediction=None if text is None else str(text),
        error=None if content.get("error") is None else str(content["error"]),
    )


def _is_text(value: object) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)
