"""All scores of one answer file: strict and published ones side by side, overall and for each group of questions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from exgra_adapter.evaluation.files import Prediction
from exgra_adapter.evaluation.legacy import LegacyScores, score_legacy, summarise_legacy
from exgra_adapter.evaluation.macro_f1 import Classification, classify_answers, macro_f1
from exgra_adapter.evaluation.metrics import Estimate, Scores, score, summarise_items
from exgra_adapter.evaluation.pairing import Answer, pair_answers
from exgra_adapter.evaluation.questions import Questions

Choice = Literal["legacy", "strict", "both"]

STRICT_METRICS = (
    "exact_match",
    "open_recall",
    "closed_accuracy",
    "summary",
    "open_candidates",
    "macro_f1_open",
    "macro_f1_closed",
)


@dataclass(frozen=True)
class GroupScores:
    """Means with intervals for some of the questions; metrics without a question are left out."""

    questions: int
    strict: dict[str, Estimate]
    legacy: dict[str, Estimate]


@dataclass(frozen=True)
class VqaReport:
    """The scores of one answer file.

    Attributes:
        answers: the questions with what was said.
        scores: the strict scores.
        classifications: what macro-F1 reads in the answers.
        legacy: the published scores.
        overall: the means over all questions.
        by: key of the test file to group to the means over the group's questions.
        seed: of the bootstrap.
        shown: which scores the outputs have.
    """

    answers: tuple[Answer, ...]
    scores: Scores
    classifications: tuple[Classification, ...]
    legacy: LegacyScores
    overall: GroupScores
    by: dict[str, dict[str, GroupScores]]
    seed: int
    shown: Choice = "both"

    def to_json(self) -> dict[str, Any]:
        """The content of a scores file. The strict scores also stand at the top, under their own names."""
        content: dict[str, Any] = {"format": 1, "seed": self.seed, **asdict(self.scores)}
        if self.shown != "legacy":
            content["strict"] = {
                "metrics": {name: asdict(value) for name, value in self.overall.strict.items()},
                "failed": self.scores.failed,
                "by": self._groups("strict"),
                "items": [asdict(item) for item in self.classifications],
            }
        if self.shown != "strict":
            content["legacy"] = {
                "metrics": {name: asdict(value) for name, value in self.overall.legacy.items()},
                "yes_no": asdict(self.legacy.yes_no),
                "by": self._groups("legacy"),
                "items": [asdict(item) for item in self.legacy.items],
            }
        return content

    def _groups(self, kind: Literal["strict", "legacy"]) -> dict[str, Any]:
        return {
            key: {
                name: {"questions": group.questions} | {n: asdict(v) for n, v in getattr(group, kind).items()}
                for name, group in groups.items()
            }
            for key, groups in self.by.items()
        }


def report_scores(
    questions: Questions,
    predictions: Sequence[Prediction],
    candidates: Sequence[str] | None = None,
    seed: int = 0,
    resamples: int = 2000,
    shown: Choice = "both",
) -> VqaReport:
    """Scores predictions in every way.

    Args:
        questions: the questions, their reference answers and groups.
        predictions: at most one per question, in any order. A question without one counts as wrong.
        candidates: possible answers to open questions; adds the closest-candidate scores.
        seed: of the bootstrap.
        resamples: number of bootstrap samples.
        shown: which scores the outputs have.

    Raises:
        ValueError: there is no question, two predictions answer the same question, or one answers an unknown question.

    Example:
        >>> from exgra_adapter.data.records import Record, Turn
        >>> record = Record("7", "a.png", (Turn("Is it a lung?", "no"),), "CLOSED")
        >>> report = report_scores(Questions((record,), {}), [Prediction("7", 0, "", "", "A normal liver.")])
        >>> report.overall.strict["closed_accuracy"].value, report.overall.legacy["closed_accuracy"].value
        (0.0, 1.0)
    """
    answers = pair_answers(questions.records, predictions)
    scores = score(questions.records, predictions, candidates, seed, resamples)
    legacy = score_legacy(questions.records, predictions, candidates, seed, resamples)
    classifications = classify_answers(answers)
    overall = GroupScores(len(answers), _strict(scores, classifications, seed, resamples), dict(legacy.metrics))
    by: dict[str, dict[str, GroupScores]] = {}
    for key, memberships in questions.groups.items():
        members: dict[str, list[int]] = defaultdict(list)
        position = 0
        for record, names in zip(questions.records, memberships, strict=True):
            for _ in record.turns:
                for name in names:
                    members[name].append(position)
                position += 1
        by[key] = {}
        for name in sorted(members):
            chosen = members[name]
            part = summarise_items([scores.items[index] for index in chosen], seed, resamples)
            strict = _strict(part, [classifications[index] for index in chosen], seed, resamples)
            published = summarise_legacy([legacy.items[index] for index in chosen], seed, resamples)
            by[key][name] = GroupScores(len(chosen), strict, dict(published.metrics))
    return VqaReport(tuple(answers), scores, tuple(classifications), legacy, overall, by, seed, shown)


def _strict(
    scores: Scores, classifications: Sequence[Classification], seed: int, resamples: int
) -> dict[str, Estimate]:
    metrics: dict[str, Estimate | None] = {name: getattr(scores, name, None) for name in STRICT_METRICS}
    for answer_type, name in (("OPEN", "macro_f1_open"), ("CLOSED", "macro_f1_closed")):
        items = [item for item in classifications if item.answer_type == answer_type]
        metrics[name] = macro_f1(items, seed, resamples) if items else None
    return {name: value for name, value in metrics.items() if value is not None}
