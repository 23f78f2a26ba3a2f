"""Strict scores for visual question answering.

Vocabulary: an *item* is one question (a record and a turn). Its *reference* is the answer in the data file; its
*prediction* is what the model said, or None when it failed to answer. A failed or missing prediction is wrong; it never
leaves the denominator.

All comparisons are made on words: case, punctuation and white space do not count, hyphens separate words, and a word is
never found inside another ("no" does not occur in "normal").
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from exgra_adapter.data.records import Record
from exgra_adapter.evaluation.files import Prediction
from exgra_adapter.evaluation.pairing import Answer, AnswerType, pair_answers

_WORD = re.compile(r"\d+(?:[.,]\d+)+|[^\W_]+(?:['\u2019][^\W_]+)*")
_OPTIONS = re.compile(r"\[([^\[\],]*,[^\[\]]*)\]")
_YES_NO = ("yes", "no")
_CHUNK = 1 << 20  # Bootstrap indices drawn at once: 8 MB.


@dataclass(frozen=True)
class Estimate:
    """A mean over items with its percentile-bootstrap 95 % interval.

    Attributes:
        value: the mean, in [0, 1].
        low: the lower end of the interval.
        high: the upper end of the interval.
        count: the number of items averaged.
    """

    value: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class ItemScore:
    """The scores of one question.

    Attributes:
        id: the record.
        turn: the question's position in the record.
        answer_type: how the question is scored.
        failed: the model gave no answer.
        exact: 1 if the words of the prediction are those of the reference, else 0.
        correct: open questions: unique-token recall; closed questions: closed accuracy.
        candidate: open questions with candidates: 1 if the reference is the closest candidate; else None.
    """

    id: str
    turn: int
    answer_type: AnswerType
    failed: bool
    exact: float
    correct: float
    candidate: float | None = None


@dataclass(frozen=True)
class Scores:
    """The scores of one answer file. A field is None where no question is of that type.

    Attributes:
        exact_match: over all questions.
        open_recall: unique-token recall over the open questions.
        closed_accuracy: whole-word accuracy over the closed questions.
        summary: the mean of open_recall and closed_accuracy, the figure that papers report.
        open_candidates: accuracy of the closest candidate over the open questions, where candidates were given.
        failed: the number of questions without an answer; each counts as wrong.
        items: the scores of each question.
    """

    exact_match: Estimate
    open_recall: Estimate | None
    closed_accuracy: Estimate | None
    summary: Estimate | None
    open_candidates: Estimate | None
    failed: int
    items: tuple[ItemScore, ...]


def words(text: str) -> list[str]:
    """Splits a text into comparable words.

    Example:
        >>> words("Yes, a T2-weighted MRI: 3.5 cm.")
        ['yes', 'a', 't2', 'weighted', 'mri', '3.5', 'cm']
    """
    text = unicodedata.normalize("NFKC", text).casefold()
    return _WORD.findall(text) if text.isascii() else [text[slice(*m.span())] for m in _WORD.finditer(_joined(text))]


def exact_match(reference: str, prediction: str) -> float:
    """Returns 1 if both texts have the same words in the same order, else 0.

    A reference without any word (such as "+") is compared as it stands.

    Example:
        >>> exact_match("Left lung", "left lung."), exact_match("left lung", "the left lung")
        (1.0, 0.0)
    """
    expected = words(reference)
    if not expected:
        return float(reference.strip() == prediction.strip())
    return float(expected == words(prediction))


def unique_token_recall(reference: str, prediction: str) -> float:
    """Returns the share of the reference's distinct words that the prediction contains, in [0, 1].

    Repeating a word gains nothing.

    Example:
        >>> unique_token_recall("left upper lobe", "the left left lobe")
        0.6666666666666666
    """
    expected = set(words(reference))
    if not expected:
        return exact_match(reference, prediction)
    return len(expected & set(words(prediction))) / len(expected)


def closed_accuracy(reference: str, prediction: str, question: str = "") -> float:
    """Returns 1 if the prediction gives the reference's answer to a closed question, else 0.

    Where the options are known, the one mentioned first is the verdict, so that listing all of them gains nothing.
    They are yes and no for a reference of "yes" or "no", or the bracketed list of the question ("[left, right]").
    Otherwise the reference must occur in the prediction as a run of whole words.

    Example:
        >>> closed_accuracy("no", "The heart is normal."), closed_accuracy("no", "No, the heart is normal.")
        (0.0, 1.0)
        >>> closed_accuracy("right", "left or right", "Which side? Choose from [left, right]")
        0.0
    """
    expected, said = words(reference), words(prediction)
    if not expected:
        return exact_match(reference, prediction)
    return float(first_mentioned(closed_options(reference, question) or [expected], said) == expected)


def closed_options(reference: str, question: str = "") -> list[list[str]]:
    """The answers that a closed question leaves to choose from, as words; empty where they are not known.

    Example:
        >>> closed_options("yes"), closed_options("left", "Which side? [left, right]"), closed_options("left")
        ([['yes'], ['no']], [['left'], ['right']], [])
    """
    expected = words(reference)
    for listed in _OPTIONS.findall(question):
        options = [words(option) for option in listed.split(",")]
        if expected in options:
            return [option for option in options if option]
    return [[word] for word in _YES_NO] if len(expected) == 1 and expected[0] in _YES_NO else []


def first_mentioned(options: Iterable[list[str]], said: list[str]) -> list[str] | None:
    """Returns the option whose run of words occurs first; of several at one place the longest; None without any.

    Example:
        >>> first_mentioned([["left"], ["upper", "left"], ["upper"]], words("In the upper left lobe."))
        ['upper', 'left']
    """
    found = [(at, -len(option), option) for option in options if (at := _find(option, said)) >= 0]
    return min(found)[2] if found else None


def closest_candidate_accuracy(reference: str, prediction: str, candidates: Iterable[str]) -> float:
    """Returns 1 if the reference is closer to the prediction than every other candidate, else 0.

    Closeness is the F1 score of the distinct words. A tie is wrong, and so is a prediction that shares no word with the
    reference.

    Example:
        >>> closest_candidate_accuracy("left lung", "in the left lung", ["right lung", "left lung", "liver"])
        1.0
    """
    expected, said = set(words(reference)), set(words(prediction))
    own = _f1(expected, said)
    others = (set(words(candidate)) for candidate in candidates)
    return float(own > 0 and all(_f1(other, said) < own for other in others if other != expected))


def score(
    records: Sequence[Record],
    predictions: Sequence[Prediction],
    candidates: Sequence[str] | None = None,
    seed: int = 0,
    resamples: int = 2000,
) -> Scores:
    """Scores predictions against the answers in the records.

    Args:
        records: the questions with their reference answers. A record without an answer type is closed when its
            answer is yes or no, else open.
        predictions: at most one per question, in any order. A question without one counts as wrong.
        candidates: possible answers to open questions; adds `open_candidates`.
        seed: of the bootstrap.
        resamples: number of bootstrap samples.

    Raises:
        ValueError: there is no question, two predictions answer the same question, or one answers an unknown question.

    Example:
        >>> from exgra_adapter.data.records import Record, Turn
        >>> record = Record("7", "a.png", (Turn("Which organ?", "liver", None),), "OPEN")
        >>> score([record], [Prediction("7", 0, "Which organ?", "liver", "The liver.")]).open_recall.value
        1.0
    """
    items = [_score_answer(answer, candidates) for answer in pair_answers(records, predictions)]
    return _summarise(items, seed, resamples)


def summarise_items(items: Sequence[ItemScore], seed: int = 0, resamples: int = 2000) -> Scores:
    """Averages the scores of some questions, for example those of one topic.

    Raises:
        ValueError: there is no item.
    """
    if not items:
        raise ValueError("summarise_items: items must hold at least one question; got none. Pass the items of a score.")
    return _summarise(list(items), seed, resamples)


def bootstrap_interval(
    groups: Sequence[NDArray[np.float64]], seed: int = 0, resamples: int = 2000, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap of the mean of the groups' means; every group is resampled on its own.

    Source: B. Efron and R. Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3.

    Args:
        groups: arrays of item scores, none empty.
        seed: of the random numbers; the same seed gives the same interval.
        resamples: number of bootstrap samples, at least 1.
        level: coverage, between 0 and 1.

    Returns:
        The lower and the upper end.

    Example:
        >>> low, high = bootstrap_interval([np.array([0.0, 1.0] * 50)])
        >>> round(low, 1), round(high, 1)
        (0.4, 0.6)
    """
    generator = np.random.default_rng(seed)
    means = np.zeros(resamples)
    for group in groups:
        rows = max(1, _CHUNK // len(group))
        for start in range(0, resamples, rows):
            stop = min(start + rows, resamples)
            chosen = generator.integers(0, len(group), size=(stop - start, len(group)))
            means[start:stop] += group[chosen].mean(axis=1) / len(groups)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def estimate_mean(groups: Sequence[NDArray[np.float64]], seed: int = 0, resamples: int = 2000) -> Estimate:
    """The mean of the groups' means with its interval, as `bootstrap_interval` finds it.

    Example:
        >>> estimate_mean([np.ones(3), np.zeros(1)]).value
        0.5
    """
    value = float(np.mean([group.mean() for group in groups]))
    low, high = bootstrap_interval(groups, seed, resamples)
    return Estimate(value, low, high, sum(len(group) for group in groups))


def _score_answer(answer: Answer, candidates: Sequence[str] | None) -> ItemScore:
    closed, text = answer.answer_type == "CLOSED", answer.prediction
    no_candidate = None if closed or candidates is None else 0.0
    item = ItemScore(answer.id, answer.turn, answer.answer_type, text is None, 0.0, 0.0, no_candidate)
    if text is None:
        return item
    exact = exact_match(answer.reference, text)
    if closed:
        return replace(item, exact=exact, correct=closed_accuracy(answer.reference, text, answer.question))
    if candidates is not None:
        item = replace(item, candidate=closest_candidate_accuracy(answer.reference, text, candidates))
    return replace(item, exact=exact, correct=unique_token_recall(answer.reference, text))


def _summarise(items: list[ItemScore], seed: int, resamples: int) -> Scores:
    def estimate(*groups: list[float]) -> Estimate | None:
        return estimate_mean([np.array(group) for group in groups], seed, resamples) if all(groups) else None

    open_items = [item.correct for item in items if item.answer_type == "OPEN"]
    closed_items = [item.correct for item in items if item.answer_type == "CLOSED"]
    return Scores(
        exact_match=estimate_mean([np.array([item.exact for item in items])], seed, resamples),
        open_recall=estimate(open_items),
        closed_accuracy=estimate(closed_items),
        summary=estimate(open_items, closed_items),
        open_candidates=estimate([item.candidate for item in items if item.candidate is not None]),
        failed=sum(item.failed for item in items),
        items=tuple(items),
    )


def _joined(text: str) -> str:
    """Puts letters for the marks behind letters, such as the vowels of Hindi and Thai, which would end words."""
    letters = []
    behind_letter = False
    for character in text:
        kind = unicodedata.category(character)
        is_mark = behind_letter and kind in ("Mn", "Mc") and not "\ufe00" <= character <= "\ufe0f"
        behind_letter = is_mark or kind[0] == "L"
        letters.append("x" if is_mark else character)
    return "".join(letters)


def _find(run: list[str], text: list[str]) -> int:
    """The position of a run of words in a text, or -1."""
    return next((at for at in range(len(text) - len(run) + 1) if text[at : at + len(run)] == run), -1)


def _f1(first: set[str], second: set[str]) -> float:
    shared = len(first & second)
    return 2 * shared / (len(first) + len(second)) if shared else 0.0
