"""Paired comparison of two models on the same questions.

The difference of a metric is bootstrapped over questions, and both models are scored on the same resample: what makes a
question hard for both does not widen the interval. Metrics that are right or wrong for each question also get McNemar's
exact test. Its null hypothesis: a question that only one model answers right is as likely to be either's.

Sources: B. Efron and R. Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3; Q. McNemar, Note on the
sampling error of the difference between correlated proportions or percentages, Psychometrika 12, 1947.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exgra_adapter.evaluation.legacy import OPEN_METRICS
from exgra_adapter.evaluation.macro_f1 import Classification, class_means, encode_classes, resample
from exgra_adapter.evaluation.metrics import bootstrap_interval

Key = tuple[str, int]
_RIGHT_OR_WRONG = (
    "strict exact_match",
    "strict closed_accuracy",
    "strict open_candidates",
    "legacy open_accuracy",
    "legacy closed_accuracy",
)
_SHOWN = 3


@dataclass(frozen=True)
class ItemValues:
    """What a scores file says about one question.

    Attributes:
        answer_type: how the question is scored.
        values: metric, such as "strict closed_accuracy", to the question's score.
        classification: the question read as a classification, where the file has it.
    """

    answer_type: str
    values: Mapping[str, float]
    classification: Classification | None


@dataclass(frozen=True)
class McNemar:
    """McNemar's exact test.

    Attributes:
        only_first: questions that only the first model has right.
        only_second: questions that only the second model has right.
        p_value: two-sided; 1 where no question tells the models apart.
    """

    only_first: int
    only_second: int
    p_value: float


@dataclass(frozen=True)
class Difference:
    """One metric of two models.

    Attributes:
        first: the first model's score, in [0, 1].
        second: the second model's score.
        difference: first minus second.
        low: the lower end of the difference's 95 % interval.
        high: the upper end.
        count: the number of questions.
        mcnemar: the exact test, for metrics that are right or wrong for each question.
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    count: int
    mcnemar: McNemar | None = None


def read_items(content: Mapping[str, Any], name: str) -> dict[Key, ItemValues]:
    """Takes the scores of each question from the content of a scores file.

    Args:
        content: what `exgra-med evaluate vqa --json` writes.
        name: the file, for messages.

    Returns:
        (id, turn) to the question's scores.

    Raises:
        ValueError: the content has another form, or names a question twice.
    """
    values: dict[Key, dict[str, float]] = {}
    types: dict[Key, str] = {}
    classes: dict[Key, Classification] = {}
    try:
        for item in content["items"]:
            key = (str(item["id"]), int(item["turn"]))
            if key in values:
                raise ValueError(
                    f"read_items: {name} must hold each question once; got id {key[0]!r}, turn {key[1]} twice. "
                    "Score the answers again."
                )
            opened = item["answer_type"] == "OPEN"
            types[key] = item["answer_type"]
            values[key] = {"strict exact_match": float(item["exact"])}
            values[key]["strict open_recall" if opened else "strict closed_accuracy"] = float(item["correct"])
            if item.get("candidate") is not None:
                values[key]["strict open_candidates"] = float(item["candidate"])
        for item in content.get("strict", {}).get("items", ()):
            key = (str(item["id"]), int(item["turn"]))
            classes[key] = Classification(*key, item["answer_type"], str(item["reference"]), item["said"])
        for item in content.get("legacy", {}).get("items", ()):
            key = (str(item["id"]), int(item["turn"]))
            # The PathVQA variant scores different questions for different models, so it has no pairs.
            for metric in (*OPEN_METRICS, "closed_accuracy"):
                if item[metric] is not None:
                    values[key][f"legacy {metric}"] = float(item[metric])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"read_items: {name} must be a scores file of exgra-med evaluate vqa; got one where {error!r} was raised. "
            "Score the answers again, with --json."
        ) from error
    return {key: ItemValues(types[key], values[key], classes.get(key)) for key in values}


def compare_items(
    first: Mapping[Key, ItemValues], second: Mapping[Key, ItemValues], seed: int = 0, resamples: int = 10000
) -> dict[str, Difference]:
    """Compares two models in every metric that both have.

    Args:
        first: (id, turn) to the first model's scores, as `read_items` returns them.
        second: the second model's.
        seed: of the bootstrap.
        resamples: number of bootstrap samples.

    Returns:
        Metric, such as "strict open_recall", to its difference, first minus second.

    Raises:
        ValueError: the two hold different questions, or score a question as of different types or references.

    Example:
        >>> right, wrong = (ItemValues("CLOSED", {"strict closed_accuracy": value}, None) for value in (1.0, 0.0))
        >>> both = compare_items({("1", 0): right, ("2", 0): right}, {("1", 0): right, ("2", 0): wrong})
        >>> both["strict closed_accuracy"].difference, both["strict closed_accuracy"].mcnemar.only_first
        (0.5, 1)
    """
    _require_same_questions(first, second)
    keys = list(first)
    pairs: dict[str, NDArray[np.float64]] = {}
    for metric in dict.fromkeys(name for key in keys for name in first[key].values):
        both = [
            (first[key].values[metric], second[key].values[metric])
            for key in keys
            if metric in first[key].values and metric in second[key].values
        ]
        if both:
            pairs[metric] = np.array(both)
    differences = {}
    for metric, values in pairs.items():
        test = mcnemar(values[:, 0], values[:, 1]) if metric in _RIGHT_OR_WRONG else None
        differences[metric] = replace(_difference([values], seed, resamples), mcnemar=test)
    for kind, opened in (("strict", "strict open_recall"), ("legacy", "legacy recall")):
        closed = f"{kind} closed_accuracy"
        if opened in pairs and closed in pairs:
            differences[f"{kind} summary"] = _difference([pairs[opened], pairs[closed]], seed, resamples)
    for answer_type, name in (("OPEN", "strict macro_f1_open"), ("CLOSED", "strict macro_f1_closed")):
        found = _macro_f1_difference(first, second, answer_type, seed, resamples)
        if found is not None:
            differences[name] = found
    return differences


def mcnemar(first: Iterable[float], second: Iterable[float]) -> McNemar:
    """McNemar's exact two-sided test of two models' right (1) and wrong (0) answers to the same questions.

    Example:
        >>> mcnemar([1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1]).p_value
        0.0625
    """
    outcomes = list(zip(first, second, strict=True))
    only_first, only_second = (sum(pair == wanted for pair in outcomes) for wanted in ((1, 0), (0, 1)))
    discordant = only_first + only_second
    if not discordant:
        return McNemar(only_first, only_second, 1.0)
    # Every command of exgra-med would wait for this import.
    from scipy.stats import binomtest

    p_value = float(binomtest(only_first, discordant).pvalue)
    return McNemar(only_first, only_second, p_value)


def _difference(groups: list[NDArray[np.float64]], seed: int, resamples: int) -> Difference:
    """Each group has shape (questions, 2); the score is the mean of the groups' means."""
    first, second = (float(value) for value in np.mean([group.mean(axis=0) for group in groups], axis=0))
    deltas = [group[:, 0] - group[:, 1] for group in groups]
    low, high = bootstrap_interval(deltas, seed, resamples)
    difference = float(np.mean([delta.mean() for delta in deltas]))
    return Difference(first, second, difference, low, high, sum(map(len, groups)))


def _macro_f1_difference(
    first: Mapping[Key, ItemValues], second: Mapping[Key, ItemValues], answer_type: str, seed: int, resamples: int
) -> Difference | None:
    keys = [key for key, item in first.items() if item.answer_type == answer_type]
    sides = []
    for items in (first, second):
        classified = [found for key in keys if (found := items[key].classification) is not None]
        if not classified or len(classified) != len(keys):
            return None
        sides.append(encode_classes(classified))
    (expected, said_first, classes), (_, said_second, _) = sides

    def score(rows: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.stack([class_means(expected[rows], said[rows], classes) for said in (said_first, said_second)])

    whole = score(np.arange(len(keys))[None])[:, 0]
    drawn = np.concatenate([score(rows) for rows in resample(len(keys), seed, resamples, classes)], axis=1)
    low, high = np.quantile(drawn[0] - drawn[1], [0.025, 0.975])
    values = (float(whole[0]), float(whole[1]), float(whole[0] - whole[1]), float(low), float(high))
    return Difference(*values, len(keys))


def _require_same_questions(first: Mapping[Key, ItemValues], second: Mapping[Key, ItemValues]) -> None:
    missing = {"second": first.keys() - second.keys(), "first": second.keys() - first.keys()}
    if any(missing.values()):
        parts = [f"{len(keys)} that the {side} lacks ({_few(keys)})" for side, keys in missing.items() if keys]
        raise ValueError(
            f"compare: both files must hold the same questions; got {' and '.join(parts)}. "
            "Answer the same test file with both models; a question without an answer has the text null."
        )
    if not first:
        raise ValueError("compare: both files must hold at least one question; got none. Check the files.")
    properties: tuple[tuple[str, Callable[[ItemValues], object]], ...] = (
        ("answer type", lambda item: item.answer_type),
        ("reference", lambda item: item.classification and item.classification.reference),
    )
    for name, read in properties:
        for key in first:
            values = read(first[key]), read(second[key])
            if values[0] != values[1] and None not in values:
                raise ValueError(
                    f"compare: both files must be scored with the same {name} of each question; got {values[0]!r} and "
                    f"{values[1]!r} for id {key[0]!r}, turn {key[1]}. Score both with the same test file."
                )


def _few(keys: Iterable[Key]) -> str:
    ordered = sorted(keys)
    shown = ", ".join(f"id {name!r}" + (f" turn {turn}" if turn else "") for name, turn in ordered[:_SHOWN])
    return shown + (", ..." if len(ordered) > _SHOWN else "")
