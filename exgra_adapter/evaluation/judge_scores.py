"""Figures of a visual chat evaluation: relative scores, intervals, comparisons of candidates, position bias.

The *relative score* of a candidate is the mean of its scores divided by the mean of the reference's scores on the same
questions. Intervals are 95 % percentile bootstrap over images: the questions about one image are drawn together,
because their scores depend on each other.

Source: B. Efron and R. Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exgra_adapter.evaluation.judge import Comparison, by_candidate
from exgra_adapter.evaluation.metrics import Estimate

Floats = NDArray[np.float64]

OUTCOMES = ("reference better", "equal", "candidate better")

_CHUNK = 1 << 20  # Counts drawn at once: 8 MB.


@dataclass(frozen=True)
class GroupScore:
    """The scores of one candidate on one group of questions.

    Attributes:
        questions: All questions of the group.
        no_answer: Those that the candidate did not answer.
        no_verdict: Those that the judge did not judge in both orders.
        reference: Mean score of the reference over the judged questions, 1 to 10; None where none was judged.
        candidate: Mean score of the candidate over the same questions.
        relative: `candidate / reference`, failures left out.
        difference: `candidate - reference` in points, failures left out.
        relative_with_failures: As `relative`, over all questions: a failure scores 0, and its reference the mean of the
            judged ones.
        better: Judged questions where the candidate scored higher than the reference.
        equal: Those where both scored the same.
        worse: Those where it scored lower.
    """

    questions: int
    no_answer: int
    no_verdict: int
    reference: float | None
    candidate: float | None
    relative: Estimate | None
    difference: Estimate | None
    relative_with_failures: Estimate
    better: int
    equal: int
    worse: int

    @property
    def failed(self) -> int:
        """Questions that are left out of `relative`."""
        return self.no_answer + self.no_verdict


@dataclass(frozen=True)
class PositionBias:
    """How much the order of the two answers mattered.

    Attributes:
        pairs: Comparisons with a verdict in both orders.
        changed: Those whose outcome (better, equal, worse) depends on the order.
        reversed: Those of them where either order prefers the other answer.
        favours_first: Changed outcomes that moved to the answer shown first.
        favours_second: Changed outcomes that moved to the answer shown second.
        first_advantage: Mean lead in points of the answer shown first over the one shown second.
        spread: Mean absolute difference between the two scores that the same answer got, in points.
        outcomes: `outcomes[i][j]`: comparisons with outcome `OUTCOMES[i]` when the reference came first and
            `OUTCOMES[j]` when the candidate did.
    """

    pairs: int
    changed: int
    reversed: int
    favours_first: int
    favours_second: int
    first_advantage: Estimate | None
    spread: float | None
    outcomes: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class CandidateScores:
    """All figures of one candidate; kinds and domains in the order of the file of questions."""

    name: str
    overall: GroupScore
    kinds: dict[str, GroupScore]
    domains: dict[str, GroupScore]
    position_bias: PositionBias


@dataclass(frozen=True)
class PairedDifference:
    """How much higher the relative score of one candidate is than that of another, on questions judged for both."""

    first: str
    second: str
    questions: int
    difference: Estimate | None


@dataclass(frozen=True)
class ChatScores:
    """The result of an evaluation; `position_bias` is that of the judge over all candidates."""

    candidates: tuple[CandidateScores, ...]
    pairs: tuple[PairedDifference, ...]
    position_bias: PositionBias


def score_chat(comparisons: Sequence[Comparison], seed: int = 0, resamples: int = 2000) -> ChatScores:
    """Computes all figures.

    Args:
        comparisons: Of all candidates on the same questions.
        seed: Of the bootstrap.
        resamples: Number of bootstrap samples, at least 1.

    Raises:
        ValueError: There is no comparison.

    Example:
        >>> from exgra_adapter.evaluation.chat_files import ChatQuestion
        >>> from exgra_adapter.evaluation.judge import Verdict
        >>> question = ChatQuestion("0", "a.png", "Which organ?", "The liver.", "CT of the liver")
        >>> verdicts = {"reference_first": Verdict(10, 7), "candidate_first": Verdict(8, 9)}
        >>> scores = score_chat([Comparison(question, "model", "Liver.", verdicts, {})])
        >>> scores.candidates[0].overall.relative.value, scores.position_bias.reversed
        (0.8888888888888888, 1)
    """
    if not comparisons:
        raise ValueError("score_chat: comparisons must hold at least one; got none. Pass what `compare` returned.")
    groups = by_candidate(comparisons)
    pairs = (
        _paired(first, second, groups[first], groups[second], seed, resamples)
        for first, second in itertools.combinations(groups, 2)
    )
    return ChatScores(
        candidates=tuple(_score_candidate(name, items, seed, resamples) for name, items in groups.items()),
        pairs=tuple(pairs),
        position_bias=measure_position_bias(comparisons, seed, resamples),
    )


def measure_position_bias(comparisons: Sequence[Comparison], seed: int = 0, resamples: int = 2000) -> PositionBias:
    """Compares the verdicts of both orders; comparisons without both are left out."""
    judged = [item for item in comparisons if item.judged]
    outcomes = np.zeros((3, 3), dtype=int)
    for item in judged:
        behind, ahead = order_leads(item)
        outcomes[1 + _sign(behind), 1 + _sign(ahead)] += 1
    leads = np.array([order_leads(item) for item in judged], dtype=float).reshape(-1, 2)
    spreads = [abs(a - b) for item in judged for a, b in _score_pairs(item)]
    return PositionBias(
        pairs=len(judged),
        changed=int(outcomes.sum() - np.trace(outcomes)),
        reversed=int(outcomes[0, 2] + outcomes[2, 0]),
        # Above the diagonal the candidate does better when it comes first.
        favours_first=int(np.triu(outcomes, 1).sum()),
        favours_second=int(np.tril(outcomes, -1).sum()),
        first_advantage=_mean_over_images(judged, (leads[:, 1] - leads[:, 0]) / 2, seed, resamples),
        spread=float(np.mean(spreads)) if spreads else None,
        outcomes=tuple(tuple(int(count) for count in row) for row in outcomes),
    )


def order_leads(item: Comparison) -> tuple[int, int]:
    """By how many points the candidate of a judged comparison leads: when the reference comes first, when it does."""
    second, first = (item.verdicts[order] for order in ("reference_first", "candidate_first"))
    return second.candidate - second.reference, first.candidate - first.reference


def _score_candidate(name: str, items: Sequence[Comparison], seed: int, resamples: int) -> CandidateScores:
    def by(key: Callable[[Comparison], str]) -> dict[str, GroupScore]:
        members: dict[str, list[Comparison]] = {}
        for item in items:
            members.setdefault(key(item), []).append(item)
        return {group: _score_group(found, seed, resamples) for group, found in members.items()}

    return CandidateScores(
        name=name,
        overall=_score_group(items, seed, resamples),
        kinds=by(lambda item: item.question.kind),
        domains=by(lambda item: item.question.domain),
        position_bias=measure_position_bias(items, seed, resamples),
    )


def _score_group(items: Sequence[Comparison], seed: int, resamples: int) -> GroupScore:
    judged = [item for item in items if item.judged]
    reference = np.array([item.reference_score for item in judged])
    candidate = np.array([item.candidate_score for item in judged])
    typical = float(reference.mean()) if judged else 1.0
    all_reference = np.array([item.reference_score if item.judged else typical for item in items])
    all_candidate = np.array([item.candidate_score if item.judged else 0.0 for item in items])
    no_answer = sum(item.answer is None for item in items)
    with_failures = _ratio(items, all_candidate, all_reference, seed, resamples)
    return GroupScore(
        questions=len(items),
        no_answer=no_answer,
        no_verdict=len(items) - len(judged) - no_answer,
        reference=float(reference.mean()) if judged else None,
        candidate=float(candidate.mean()) if judged else None,
        relative=_ratio(judged, candidate, reference, seed, resamples) if judged else None,
        difference=_mean_over_images(judged, candidate - reference, seed, resamples),
        relative_with_failures=with_failures,
        better=int((candidate > reference).sum()),
        equal=int((candidate == reference).sum()),
        worse=int((candidate < reference).sum()),
    )


def _paired(
    first: str, second: str, ours: Sequence[Comparison], theirs: Sequence[Comparison], seed: int, resamples: int
) -> PairedDifference:
    others = {item.question.id: item for item in theirs if item.judged}
    pairs = [(item, others[item.question.id]) for item in ours if item.judged and item.question.id in others]
    if not pairs:
        return PairedDifference(first, second, 0, None)
    scores = np.array([[a.candidate_score, a.reference_score, b.candidate_score, b.reference_score] for a, b in pairs])

    def difference(sums: Floats) -> Floats:
        return np.asarray(sums[..., 0] / sums[..., 1] - sums[..., 2] / sums[..., 3])

    estimate = _bootstrap([item for item, _ in pairs], scores, difference, seed, resamples)
    return PairedDifference(first, second, len(pairs), estimate)


def _ratio(items: Sequence[Comparison], above: Floats, below: Floats, seed: int, resamples: int) -> Estimate:
    return _bootstrap(
        items, np.stack([above, below], 1), lambda sums: np.asarray(sums[..., 0] / sums[..., 1]), seed, resamples
    )


def _mean_over_images(items: Sequence[Comparison], values: Floats, seed: int, resamples: int) -> Estimate | None:
    return _ratio(items, values, np.ones(len(items)), seed, resamples) if items else None


def _bootstrap(
    items: Sequence[Comparison], values: Floats, statistic: Callable[[Floats], Floats], seed: int, resamples: int
) -> Estimate:
    """Resamples images, adds up the values of the questions about those drawn, and takes the statistic of the sums."""
    images = {image: place for place, image in enumerate(dict.fromkeys(item.question.image for item in items))}
    sums = np.zeros((len(images), values.shape[1]))
    np.add.at(sums, [images[item.question.image] for item in items], values)
    generator = np.random.default_rng(seed)
    rows = max(1, _CHUNK // len(images))
    found = []
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        counts = generator.multinomial(len(images), np.full(len(images), 1 / len(images)), size=size)
        found.append(statistic(counts @ sums))
    low, high = np.quantile(np.concatenate(found), [0.025, 0.975])
    return Estimate(float(statistic(values.sum(axis=0))), float(low), float(high), len(items))


def _score_pairs(item: Comparison) -> tuple[tuple[int, int], tuple[int, int]]:
    one, other = (item.verdicts[order] for order in ("reference_first", "candidate_first"))
    return (one.reference, other.reference), (one.candidate, other.candidate)


def _sign(value: int) -> int:
    return (value > 0) - (value < 0)
