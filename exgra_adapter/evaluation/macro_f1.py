"""Macro-F1 of answers: every possible answer weighs the same, however often it is right.

Answering is read as a classification. The *class* of a question is the words of its reference.

Closed questions. The class said is the option that the answer mentions first, in whole words: of yes and no, or of the
list in the question. Where the options are not known it is the reference if the answer has it, else the reference of
another such closed question, the one mentioned first.

Open questions. The classes are the references of all open questions. The class said is the one whose distinct words
have the largest F1 with those of the answer; an answer that shares no word with any, or that is equally close to
several, says none.

The F1 of a class is 2 TP / (2 TP + FP + FN). An answer that says no class, or none at all, is a miss of its reference.
The mean runs over the classes that occur as references among the questions at hand.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exgra_adapter.evaluation.metrics import Estimate, closed_options, first_mentioned, words
from exgra_adapter.evaluation.pairing import Answer, AnswerType

_CHUNK = 1 << 20  # Bootstrap indices drawn at once: 8 MB.


@dataclass(frozen=True)
class Classification:
    """One question read as a classification.

    Attributes:
        id: the record.
        turn: the question's position in the record.
        answer_type: how the question is scored.
        reference: the class wanted.
        said: the class said, or None.
    """

    id: str
    turn: int
    answer_type: AnswerType
    reference: str
    said: str | None


def classify_answers(answers: Sequence[Answer]) -> list[Classification]:
    """Reads answers as classes, as this module's text says; the order stays.

    Example:
        >>> answer = Answer("7", 0, "CLOSED", "Is it a lung?", "no", "No, a liver.")
        >>> classify_answers([answer])[0].said
        'no'
    """
    nearest = _Nearest({_class(answer.reference) for answer in answers if answer.answer_type == "OPEN"})
    unlisted = [
        reference.split()
        for reference in sorted({_class(answer.reference) for answer in answers if _has_no_options(answer)})
    ]
    classified = []
    for answer in answers:
        said = None
        if answer.prediction is not None:
            is_open = answer.answer_type == "OPEN"
            said = nearest.find(answer.prediction) if is_open else _closed_class(answer, answer.prediction, unlisted)
        reference = _class(answer.reference)
        classified.append(Classification(answer.id, answer.turn, answer.answer_type, reference, said))
    return classified


def macro_f1(items: Sequence[Classification], seed: int = 0, resamples: int = 2000) -> Estimate:
    """Macro-F1 of some questions with its percentile-bootstrap 95 % interval; the count is that of the questions.

    Questions are resampled, and a class without a reference in a resample is left out of its mean. With many classes of
    one question each the interval is wide and not centred.

    Args:
        items: questions, usually all open or all closed.
        seed: of the bootstrap.
        resamples: number of bootstrap samples.

    Raises:
        ValueError: there is no item.

    Example:
        >>> items = [Classification(str(i), 0, "CLOSED", "no", "no") for i in range(3)]
        >>> macro_f1([*items, Classification("3", 0, "CLOSED", "yes", "no")]).value  # (6 / 7 + 0) / 2
        0.42857142857142855
    """
    expected, said, classes = encode_classes(items)
    value = float(class_means(expected[None], said[None], classes)[0])
    means = np.concatenate(
        [class_means(expected[rows], said[rows], classes) for rows in resample(len(items), seed, resamples, classes)]
    )
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(value, float(low), float(high), len(items))


def encode_classes(items: Sequence[Classification]) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Numbers the classes: the wanted and the said class of each item, and the number of classes.

    A class that is nobody's reference, or none, is said as the number of classes.

    Raises:
        ValueError: there is no item.
    """
    if not items:
        raise ValueError("macro_f1: items must hold at least one question; got none. Pass the items of a score.")
    numbers = {name: number for number, name in enumerate(sorted({item.reference for item in items}))}
    expected = np.array([numbers[item.reference] for item in items])
    said = np.array([len(numbers) if item.said is None else numbers.get(item.said, len(numbers)) for item in items])
    return expected, said, len(numbers)


def class_means(expected: NDArray[np.int64], said: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Macro-F1 of each row.

    Args:
        expected: (rows, questions) classes wanted.
        said: (rows, questions) classes said; `classes` stands for none.
        classes: the number of classes.

    Returns:
        (rows,) means over the classes that a row wants.
    """
    rows, width = len(expected), classes + 1
    offsets = width * np.arange(rows)[:, None]

    def count(values: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.bincount((values + offsets).ravel(), minlength=rows * width).reshape(rows, width)[:, :classes]

    wanted = count(expected)
    hits = count(np.where(expected == said, expected, classes))
    scores = 2 * hits / np.maximum(wanted + count(said), 1)
    means: NDArray[np.float64] = scores.sum(axis=1) / (wanted > 0).sum(axis=1)
    return means


def resample(questions: int, seed: int, resamples: int, classes: int = 0) -> Iterable[NDArray[np.int64]]:
    """Draws bootstrap samples in pieces that fit memory: arrays of shape (rows, questions) of question numbers."""
    generator = np.random.default_rng(seed)
    rows = max(1, _CHUNK // max(questions, classes + 1))
    for start in range(0, resamples, rows):
        yield generator.integers(0, questions, size=(min(rows, resamples - start), questions))


class _Nearest:
    """The class that is closest to a text. An index of words keeps the search short with thousands of classes."""

    def __init__(self, classes: Iterable[str]) -> None:
        self._sizes: dict[str, int] = {}
        self._with_word: dict[str, list[str]] = defaultdict(list)
        for name in classes:
            distinct = set(name.split())
            self._sizes[name] = len(distinct)
            for word in distinct:
                self._with_word[word].append(name)

    def find(self, text: str) -> str | None:
        whole = _class(text)
        if whole in self._sizes:
            return whole
        said = set(words(text))
        shared: dict[str, int] = defaultdict(int)
        for word in said:
            for name in self._with_word.get(word, ()):
                shared[name] += 1
        closeness = {name: 2 * count / (self._sizes[name] + len(said)) for name, count in shared.items()}
        best = max(closeness.values(), default=0.0)
        closest = [name for name, value in closeness.items() if value == best]
        return closest[0] if len(closest) == 1 else None


def _class(text: str) -> str:
    """The name of an answer's class; an answer without words, such as "+", stands for itself."""
    return " ".join(words(text)) or text.strip()


def _has_no_options(answer: Answer) -> bool:
    return answer.answer_type == "CLOSED" and not closed_options(answer.reference, answer.question)


def _closed_class(answer: Answer, text: str, unlisted: list[list[str]]) -> str | None:
    expected, said = words(answer.reference), words(text)
    if not expected:
        return _class(text)
    options = closed_options(answer.reference, answer.question)
    # Without options the reference goes first, so that macro-F1 and accuracy agree on what is right.
    verdict = first_mentioned(options or [expected], said) or (None if options else first_mentioned(unlisted, said))
    return None if verdict is None else " ".join(verdict)
