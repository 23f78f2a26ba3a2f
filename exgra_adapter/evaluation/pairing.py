"""Questions with what a model said to them: the input of every score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from exgra_adapter.data.records import Record
from exgra_adapter.evaluation.files import Prediction

AnswerType = Literal["OPEN", "CLOSED"]


@dataclass(frozen=True)
class Answer:
    """One question, its reference and its prediction.

    Attributes:
        id: the record.
        turn: the question's position in the record.
        answer_type: how the question is scored.
        question: the question.
        reference: the answer in the data file.
        prediction: what the model said; None when it gave no answer.
    """

    id: str
    turn: int
    answer_type: AnswerType
    question: str
    reference: str
    prediction: str | None


def pair_answers(records: Sequence[Record], predictions: Sequence[Prediction]) -> list[Answer]:
    """Gives every question of the records its prediction.

    Args:
        records: the questions with their reference answers. A record without an answer type is closed when its
            answer is yes or no, else open.
        predictions: at most one per question, in any order. A question without one gets None.

    Returns:
        One answer per question, in the order of the records.

    Raises:
        ValueError: there is no question, two predictions answer the same question, or one answers an unknown question.

    Example:
        >>> from exgra_adapter.data.records import Turn
        >>> pair_answers([Record("7", "a.png", (Turn("Is it a lung?", "No."),))], [])[0].answer_type
        'CLOSED'
    """
    said = _by_question(predictions)
    answers = []
    for record in records:
        for position, turn in enumerate(record.turns):
            prediction = said.pop((record.id, position), None)
            text = None if prediction is None else prediction.prediction
            answer_type = record.answer_type or _guess_type(turn.answer)
            answers.append(Answer(record.id, position, answer_type, turn.question, turn.answer, text))
    if not answers:
        raise ValueError("score: records must hold at least one question; got none. Pass the records of the test file.")
    if said:
        name, position = next(iter(said))
        raise ValueError(
            f"score: predictions must answer questions of the data file; got {len(said)} that do not, the first with "
            f"id {name!r}, turn {position}. Check that the answers were made from this data file."
        )
    return answers


def _by_question(predictions: Sequence[Prediction]) -> dict[tuple[str, int], Prediction]:
    said: dict[tuple[str, int], Prediction] = {}
    for prediction in predictions:
        key = (prediction.id, prediction.turn)
        if key in said:
            raise ValueError(
                f"score: predictions must answer each question once; got id {prediction.id!r}, turn {prediction.turn} "
                "twice. Remove one of the two answers."
            )
        said[key] = prediction
    return said


def _guess_type(reference: str) -> AnswerType:
    from exgra_adapter.evaluation.metrics import words  # it needs this module

    return "CLOSED" if words(reference) in (["yes"], ["no"]) else "OPEN"
