"""The published scores of visual question answering, number for number, so that new figures compare with printed ones.

They are lenient: a closed answer counts when the reference occurs anywhere in it, even inside a word ("no" in
"normal"); recall counts repeated words, so long answers win; the PathVQA variant drops wrong yes/no answers from its
denominator. `exgra_adapter.evaluation.metrics` has the strict scores. Here a failed answer counts as an empty text.

Exact match, F1, precision, recall and BLEU are means over the *open* questions alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from exgra_adapter.data.records import Record
from exgra_adapter.evaluation.files import Prediction
from exgra_adapter.evaluation.legacy_text import legacy_words, normalize_word, sentence_bleu
from exgra_adapter.evaluation.metrics import AnswerType, Estimate, estimate_mean, pair_answers

Verdict = Literal["tp", "fp", "tn", "fn"]

BLEU_WEIGHTS = {"bleu": (0.25, 0.25, 0.25, 0.25), "bleu_1": (1.0,), "bleu_2": (0.0, 1.0), "bleu_3": (0.0, 0.0, 1.0)}
"""The published BLEU-2 and BLEU-3 are precisions of 2-grams and 3-grams alone, not means with those of shorter ones."""

OPEN_METRICS = ("exact_match", "f1", "precision", "recall", *BLEU_WEIGHTS, "open_accuracy")
CLOSED_METRICS = ("closed_accuracy", "pathvqa_closed_accuracy")


@dataclass(frozen=True)
class LegacyItem:
    """The published scores of one question; a score that its type does not have is None.

    Attributes:
        id: the record.
        turn: the question's position in the record.
        answer_type: how the question is scored.
        exact_match: distinct shared words per word of the prediction.
        f1: harmonic mean of precision and recall.
        precision: share of the prediction's words that are in the reference.
        recall: shared words, counted as often as the prediction says them, per these and the missing words.
        bleu: BLEU-4.
        bleu_1: BLEU-1.
        bleu_2: precision of 2-grams with brevity penalty.
        bleu_3: precision of 3-grams with brevity penalty.
        open_accuracy: 1 if the candidate that the prediction covers best is the reference; None without candidates.
        closed_accuracy: 1 if the reference occurs in the prediction.
        pathvqa_closed_accuracy: the PathVQA variant's hit; None where that variant leaves the question out.
        verdict: true or false, positive (yes) or negative (no), of a question with the reference yes or no.
    """

    id: str
    turn: int
    answer_type: AnswerType
    exact_match: float | None = None
    f1: float | None = None
    precision: float | None = None
    recall: float | None = None
    bleu: float | None = None
    bleu_1: float | None = None
    bleu_2: float | None = None
    bleu_3: float | None = None
    open_accuracy: float | None = None
    closed_accuracy: float | None = None
    pathvqa_closed_accuracy: float | None = None
    verdict: Verdict | None = None


@dataclass(frozen=True)
class YesNoScores:
    """Yes/no questions as a detection of yes; the three scores are in [0, 1], or 0 where they are not defined."""

    tp: int
    fp: int
    tn: int
    fn: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class LegacyScores:
    """The published scores of one answer file, in [0, 1] (the scripts print percent).

    Attributes:
        metrics: name to mean with interval: `OPEN_METRICS`, `CLOSED_METRICS` and `summary`, the mean of recall and
            closed accuracy that papers report; a name without questions is left out.
        yes_no: the counts of the script that looks at modalities.
        items: the scores of each question.
    """

    metrics: dict[str, Estimate]
    yes_no: YesNoScores
    items: tuple[LegacyItem, ...]


def token_scores(reference: Sequence[str], prediction: Sequence[str]) -> tuple[float, float, float, float]:
    """The published exact match, F1, precision and recall of an answer's words; 0 where nothing is shared.

    Args:
        reference: Words of the reference.
        prediction: Words of the prediction.

    Example:
        >>> token_scores(["left", "lung"], ["lung", "lung", "seen"])
        (0.3333333333333333, 0.6666666666666666, 0.6666666666666666, 0.6666666666666666)
    """
    said, expected = Counter(prediction), Counter(reference)
    shared = said.keys() & expected.keys()
    if not shared:
        return 0.0, 0.0, 0.0, 0.0
    # Repetitions in the prediction count as hits, and in the reference only where the word is missing.
    hits = sum(said[word] for word in shared)
    missing = sum(count for word, count in expected.items() if word not in shared)
    precision, recall = hits / said.total(), hits / (hits + missing)
    return len(shared) / said.total(), 2 * precision * recall / (precision + recall), precision, recall


def legacy_open_accuracy(reference: str, prediction: str, candidates: Iterable[str]) -> float:
    """Returns 1 if the candidate with the largest share of words in the prediction is the reference, else 0.

    Of several such candidates the first counts.

    Example:
        >>> legacy_open_accuracy("left lung", "in the left lung", ["right lung", "left lung"])
        1.0
    """
    return CandidateList(candidates).accuracy(reference, prediction)


class CandidateList:
    """Candidates that are normalised once for many questions."""

    def __init__(self, candidates: Iterable[str]) -> None:
        self._names = [normalize_word(str(candidate).lower()) for candidate in candidates]
        self._words = [Counter(name.split()) for name in self._names]

    def accuracy(self, reference: str, prediction: str) -> float:
        """As `legacy_open_accuracy`."""
        said = set(legacy_words(prediction))
        shares = [len(words.keys() & said) / words.total() if words else 0.0 for words in self._words]
        best = self._names[shares.index(max(shares))] if shares else None
        return float(best == normalize_word(reference.lower()))


def legacy_closed_accuracy(reference: str, prediction: str) -> float:
    """Returns 1 if the normalised reference occurs in the normalised prediction, also inside a word, else 0.

    Example:
        >>> legacy_closed_accuracy("no", "The heart is normal."), legacy_closed_accuracy("yes", "Yes.")
        (1.0, 1.0)
    """
    return float(normalize_word(reference.lower()) in normalize_word(prediction.lower()))


def pathvqa_closed_accuracy(reference: str, prediction: str) -> float | None:
    """The closed score of the published PathVQA script: None for a question that leaves its denominator.

    A prediction with "yes" or "no" anywhere in it counts where it is right and is left out where it is wrong; any other
    prediction is wrong.

    Example:
        >>> [pathvqa_closed_accuracy("yes", text) for text in ("Yes.", "No.", "A liver.")]
        [1.0, None, 0.0]
    """
    expected, said = normalize_word(reference.lower()), normalize_word(prediction.lower())
    if "yes" not in said and "no" not in said:
        return 0.0
    return 1.0 if expected in said else None


def score_legacy(
    records: Sequence[Record],
    predictions: Sequence[Prediction],
    candidates: Sequence[str] | None = None,
    seed: int = 0,
    resamples: int = 2000,
) -> LegacyScores:
    """Scores predictions as the published scripts do.

    Args:
        records: the questions with their reference answers; without an answer type it is told as in `metrics.score`.
        predictions: at most one per question, in any order. A question without one is scored as an empty answer.
        candidates: possible answers to open questions; adds `open_accuracy`.
        seed: of the bootstrap.
        resamples: number of bootstrap samples.

    Raises:
        ValueError: there is no question, two predictions answer the same question, or one answers an unknown question.

    Example:
        >>> from exgra_adapter.data.records import Record, Turn
        >>> record = Record("7", "a.png", (Turn("Is it a lung?", "no", None),), "CLOSED")
        >>> scores = score_legacy([record], [Prediction("7", 0, "", "", "A normal liver.")])
        >>> scores.metrics["closed_accuracy"].value
        1.0
    """
    listed = None if candidates is None else CandidateList(candidates)
    items = []
    for answer in pair_answers(records, predictions):
        text = answer.prediction or ""
        if answer.answer_type == "OPEN":
            items.append(_open_item(answer.id, answer.turn, answer.reference, text, listed))
        else:
            items.append(_closed_item(answer.id, answer.turn, answer.reference, text))
    return summarise_legacy(items, seed, resamples)


def summarise_legacy(items: Sequence[LegacyItem], seed: int = 0, resamples: int = 2000) -> LegacyScores:
    """Averages the published scores of some questions, for example those of one modality."""
    groups: dict[str, list[np.ndarray]] = {}
    for name in (*OPEN_METRICS, *CLOSED_METRICS):
        values = [value for item in items if (value := getattr(item, name)) is not None]
        if values:
            groups[name] = [np.array(values)]
    if "recall" in groups and "closed_accuracy" in groups:
        groups["summary"] = groups["recall"] + groups["closed_accuracy"]
    metrics = {name: estimate_mean(values, seed, resamples) for name, values in groups.items()}
    return LegacyScores(metrics, _yes_no(items), tuple(items))


def _open_item(identifier: str, turn: int, reference: str, text: str, candidates: CandidateList | None) -> LegacyItem:
    expected, said = legacy_words(reference), legacy_words(text)
    exact, f1, precision, recall = token_scores(expected, said)
    item = LegacyItem(identifier, turn, "OPEN", exact, f1, precision, recall)
    bleu: dict[str, Any] = {name: sentence_bleu(expected, said, weights) for name, weights in BLEU_WEIGHTS.items()}
    return replace(item, **bleu, open_accuracy=None if candidates is None else candidates.accuracy(reference, text))


def _closed_item(identifier: str, turn: int, reference: str, text: str) -> LegacyItem:
    return LegacyItem(
        identifier,
        turn,
        "CLOSED",
        closed_accuracy=legacy_closed_accuracy(reference, text),
        pathvqa_closed_accuracy=pathvqa_closed_accuracy(reference, text),
        verdict=_verdict(normalize_word(reference.lower()), normalize_word(text.lower())),
    )


def _verdict(expected: str, said: str) -> Verdict | None:
    """A wanted no is met by yes first, then by no, and by neither it is not counted at all."""
    if expected == "yes":
        return "tp" if "yes" in said else "fn"
    if expected == "no":
        return "fp" if "yes" in said else "tn" if "no" in said else None
    return None


def _yes_no(items: Sequence[LegacyItem]) -> YesNoScores:
    count = Counter(item.verdict for item in items)
    tp, fp, tn, fn = (count[verdict] for verdict in ("tp", "fp", "tn", "fn"))
    precision = tp / (tp + fp) if tp else 0.0
    recall = tp / (tp + fn) if tp else 0.0
    f1 = 2 * precision * recall / (precision + recall) if tp else 0.0
    return YesNoScores(tp, fp, tn, fn, precision, recall, f1)
