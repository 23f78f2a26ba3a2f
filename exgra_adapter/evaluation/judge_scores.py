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

from exgra_adapter.evaluation.judge_table import Floats, ScoreTable, in_order
from exgra_adapter.evaluation.metrics import Estimate

OUTCOMES = ("reference better", "equal", "candidate better")

_CHUNK = 1 << 15  # Counts drawn at once, 256 KiB: memory does not follow the number of images.


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


def score_chat(table: ScoreTable, seed: int = 0, resamples: int = 2000) -> ChatScores:
    """Computes all figures.

    Args:
        table: The scores of all candidates on the same questions.
        seed: Of the bootstrap.
        resamples: Number of bootstrap samples, at least 1.

    Raises:
        ValueError: The table is empty.

    Example:
        >>> from exgra_adapter.evaluation.chat_files import ChatQuestion
        >>> from exgra_adapter.evaluation.judge import Comparison, Verdict
        >>> from exgra_adapter.evaluation.judge_table import tabulate
        >>> question = ChatQuestion("0", "a.png", "Which organ?", "The liver.", "CT of the liver")
        >>> verdicts = {"reference_first": Verdict(10, 7), "candidate_first": Verdict(8, 9)}
        >>> scores = score_chat(tabulate([Comparison(question, "model", "Liver.", verdicts, {})]))
        >>> scores.candidates[0].overall.relative.value, scores.position_bias.reversed
        (0.8888888888888888, 1)
    """
    if not len(table):
        raise ValueError("score_chat: table must hold at least one comparison; got none. Pass what was judged.")
    groups = [table.of_candidate(place) for place in range(len(table.names))]
    pairs = itertools.combinations(zip(table.names, groups, strict=True), 2)
    return ChatScores(
        candidates=tuple(
            _score_candidate(name, rows, seed, resamples) for name, rows in zip(table.names, groups, strict=True)
        ),
        pairs=tuple(_paired(*first, *second, seed, resamples) for first, second in pairs),
        position_bias=measure_position_bias(table, seed, resamples),
    )


def measure_position_bias(table: ScoreTable, seed: int = 0, resamples: int = 2000) -> PositionBias:
    """Compares the verdicts of both orders; comparisons without both are left out."""
    judged = table.at(table.judged)
    leads = judged.leads
    outcomes = np.zeros((3, 3), dtype=int)
    np.add.at(outcomes, tuple(1 + np.sign(leads).T), 1)
    spreads = np.abs(np.diff(judged.points.astype(int), axis=1))
    return PositionBias(
        pairs=len(judged),
        changed=int(outcomes.sum() - np.trace(outcomes)),
        reversed=int(outcomes[0, 2] + outcomes[2, 0]),
        # Above the diagonal the candidate does better when it comes first.
        favours_first=int(np.triu(outcomes, 1).sum()),
        favours_second=int(np.tril(outcomes, -1).sum()),
        first_advantage=_mean_over_images(judged, (leads[:, 1] - leads[:, 0]) / 2, seed, resamples),
        spread=float(spreads.mean()) if len(judged) else None,
        outcomes=tuple(tuple(int(count) for count in row) for row in outcomes),
    )


def _score_candidate(name: str, table: ScoreTable, seed: int, resamples: int) -> CandidateScores:
    def by(column: NDArray[np.uint32], labels: Sequence[str]) -> dict[str, GroupScore]:
        first, _ = in_order(column)
        return {labels[place]: _score_group(table.at(column == place), seed, resamples) for place in column[first]}

    return CandidateScores(
        name=name,
        overall=_score_group(table, seed, resamples),
        kinds=by(table.kind, table.kinds),
        domains=by(table.domain, table.domains),
        position_bias=measure_position_bias(table, seed, resamples),
    )


def _score_group(table: ScoreTable, seed: int, resamples: int) -> GroupScore:
    found = table.judged
    judged = table.at(found)
    reference, candidate = judged.means.T
    typical = float(reference.mean()) if len(judged) else 1.0
    # A failure scores 0, and its reference what is typical.
    means = np.where(found[:, None], table.means, [typical, 0.0])
    no_answer = int((~table.answered).sum())
    return GroupScore(
        questions=len(table),
        no_answer=no_answer,
        no_verdict=len(table) - len(judged) - no_answer,
        reference=float(reference.mean()) if len(judged) else None,
        candidate=float(candidate.mean()) if len(judged) else None,
        relative=_ratio(judged, candidate, reference, seed, resamples) if len(judged) else None,
        difference=_mean_over_images(judged, candidate - reference, seed, resamples),
        relative_with_failures=_ratio(table, means[:, 1], means[:, 0], seed, resamples),
        better=int((candidate > reference).sum()),
        equal=int((candidate == reference).sum()),
        worse=int((candidate < reference).sum()),
    )


def _paired(
    first: str, ours: ScoreTable, second: str, theirs: ScoreTable, seed: int, resamples: int
) -> PairedDifference:
    ours, theirs = ours.at(ours.judged), theirs.at(theirs.judged)
    _, one, other = np.intersect1d(ours.question, theirs.question, return_indices=True)
    if not len(one):
        return PairedDifference(first, second, 0, None)
    order = np.argsort(one)
    ours, theirs = ours.at(one[order]), theirs.at(other[order])

    def difference(sums: Floats) -> Floats:
        return np.asarray(sums[..., 1] / sums[..., 0] - sums[..., 3] / sums[..., 2])

    estimate = _bootstrap(ours, np.concatenate([ours.means, theirs.means], axis=1), difference, seed, resamples)
    return PairedDifference(first, second, len(ours), estimate)


def _ratio(table: ScoreTable, above: Floats, below: Floats, seed: int, resamples: int) -> Estimate:
    return _bootstrap(
        table, np.stack([above, below], 1), lambda sums: np.asarray(sums[..., 0] / sums[..., 1]), seed, resamples
    )


def _mean_over_images(table: ScoreTable, values: Floats, seed: int, resamples: int) -> Estimate | None:
    return _ratio(table, values, np.ones(len(table)), seed, resamples) if len(table) else None


def _bootstrap(
    table: ScoreTable, values: Floats, statistic: Callable[[Floats], Floats], seed: int, resamples: int
) -> Estimate:
    """Resamples images, adds up the values of the questions about those drawn, and takes the statistic of the sums."""
    first, images = in_order(table.image)
    sums = np.zeros((len(first), values.shape[1]))
    np.add.at(sums, images, values)
    generator = np.random.default_rng(seed)
    rows = max(1, _CHUNK // len(first))
    found = []
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        counts = generator.multinomial(len(first), np.full(len(first), 1 / len(first)), size=size)
        found.append(statistic(counts @ sums))
    low, high = np.quantile(np.concatenate(found), [0.025, 0.975])
    return Estimate(float(statistic(values.sum(axis=0))), float(low), float(high), len(table))
