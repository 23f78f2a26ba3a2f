"""The scores of a judge as numbers, without the texts that they are about."""

from __future__ import annotations

import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from exgra_adapter.evaluation.judge import ORDERS, Comparison
from exgra_adapter.key_table import hash_key

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

OTHER_REASONS = "other reasons"
_MOST_REASONS = 50


@dataclass(frozen=True)
class ScoreTable:
    """The scores of comparisons, one row each, in about 34 bytes.

    Attributes:
        names: The candidates, in the order of their first row.
        kinds: The kinds of questions, likewise.
        domains: The kinds of images, likewise.
        candidate: Place in `names`, shape (rows,).
        kind: Place in `kinds`, shape (rows,).
        domain: Place in `domains`, shape (rows,).
        question: Hash of the question's id, shape (rows,).
        image: Hash of the image's name, shape (rows,).
        answered: Whether the candidate gave an answer, shape (rows,).
        points: Scores from 1 to 10, 0 where there is no verdict, by order as in `ORDERS` and answer (reference,
            candidate), shape (rows, 2, 2).
        reasons: How often each reason for no verdict occurred; beyond the first 50 they are one.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    domains: tuple[str, ...]
    candidate: NDArray[np.uint32]
    kind: NDArray[np.uint32]
    domain: NDArray[np.uint32]
    question: NDArray[np.uint64]
    image: NDArray[np.uint64]
    answered: NDArray[np.bool_]
    points: NDArray[np.int8]
    reasons: Counter[str]

    def __len__(self) -> int:
        return len(self.candidate)

    @property
    def judged(self) -> NDArray[np.bool_]:
        """Whether both orders have a verdict, shape (rows,); one alone would carry the bias of its order."""
        return np.asarray(self.points.all(axis=(1, 2)))

    @property
    def means(self) -> Floats:
        """Mean scores of reference and candidate over both orders, shape (rows, 2); of use where `judged` holds."""
        return np.asarray(self.points.mean(axis=1, dtype=np.float64))

    @property
    def leads(self) -> Integers:
        """By how many points the candidate leads: when the reference comes first, when it does; shape (rows, 2)."""
        points = self.points.astype(np.int64)
        return points[:, :, 1] - points[:, :, 0]

    def at(self, rows: NDArray[np.bool_] | Integers) -> ScoreTable:
        """The table of some rows; `names`, `kinds`, `domains` and `reasons` stay."""
        return replace(
            self,
            candidate=self.candidate[rows],
            kind=self.kind[rows],
            domain=self.domain[rows],
            question=self.question[rows],
            image=self.image[rows],
            answered=self.answered[rows],
            points=self.points[rows],
        )

    def of_candidate(self, place: int) -> ScoreTable:
        """The rows of one candidate."""
        return self.at(self.candidate == place)


def tabulate(comparisons: Iterable[Comparison]) -> ScoreTable:
    """Keeps the scores of comparisons, which are read one by one.

    Example:
        >>> from exgra_adapter.evaluation.chat_files import ChatQuestion
        >>> from exgra_adapter.evaluation.judge import Verdict
        >>> question = ChatQuestion("0", "a.png", "Which organ?", "The liver.", "CT of the liver")
        >>> verdicts = {"reference_first": Verdict(10, 7), "candidate_first": Verdict(8, 9)}
        >>> tabulate([Comparison(question, "model", "Liver.", verdicts, {})]).means.tolist()
        [[9.0, 8.0]]
    """
    names: dict[str, int] = {}
    kinds: dict[str, int] = {}
    domains: dict[str, int] = {}
    places, hashes, points = array.array("I"), array.array("Q"), array.array("b")
    reasons: Counter[str] = Counter()
    for item in comparisons:
        question = item.question
        for known, value in ((names, item.candidate), (kinds, question.kind), (domains, question.domain)):
            places.append(known.setdefault(value, len(known)))
        hashes.extend((hash_key(question.id), hash_key(question.image)))
        points.append(item.answer is not None)
        for order in ORDERS:
            verdict = item.verdicts.get(order)
            points.extend((0, 0) if verdict is None else (verdict.reference, verdict.candidate))
        for reason in item.errors.values():
            reasons[reason if reason in reasons or len(reasons) < _MOST_REASONS else OTHER_REASONS] += 1
    of_places = np.asarray(places, np.uint32).reshape(-1, 3)
    of_hashes = np.asarray(hashes, np.uint64).reshape(-1, 2)
    of_points = np.asarray(points, np.int8).reshape(-1, 5)
    return ScoreTable(
        names=tuple(names),
        kinds=tuple(kinds),
        domains=tuple(domains),
        candidate=of_places[:, 0],
        kind=of_places[:, 1],
        domain=of_places[:, 2],
        question=of_hashes[:, 0],
        image=of_hashes[:, 1],
        answered=of_points[:, 0] > 0,
        points=of_points[:, 1:].reshape(-1, 2, 2),
        reasons=reasons,
    )


def in_order(values: NDArray[np.uint32] | NDArray[np.uint64]) -> tuple[Integers, Integers]:
    """Numbers distinct values by their first occurrence.

    Returns:
        Where each value occurs first, shape (number of values,), and each value's number, shape of `values`.

    Example:
        >>> first, numbers = in_order(np.array([7, 3, 7, 5], np.uint32))
        >>> first.tolist(), numbers.tolist()
        ([0, 1, 3], [0, 1, 0, 2])
    """
    _, first, numbers = np.unique(values, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return first[order], np.argsort(order)[numbers]
