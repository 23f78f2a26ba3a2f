"""Scores as tables for the console, a row for a paper, and a table of items for a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from exgra_adapter.evaluation.legacy import CLOSED_METRICS, OPEN_METRICS
from exgra_adapter.evaluation.metrics import Estimate
from exgra_adapter.evaluation.vqa_report import GroupScores, VqaReport

STRICT_NAMES = {
    "exact_match": "exact match",
    "open_recall": "open recall",
    "closed_accuracy": "closed accuracy",
    "summary": "summary",
    "open_candidates": "closest candidate",
    "macro_f1_open": "macro-F1, open",
    "macro_f1_closed": "macro-F1, closed",
}
LEGACY_NAMES = {
    "exact_match": "exact match, open",
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "bleu": "BLEU",
    "bleu_1": "BLEU-1",
    "bleu_2": "BLEU-2",
    "bleu_3": "BLEU-3",
    "open_accuracy": "open accuracy",
    "closed_accuracy": "closed accuracy",
    "pathvqa_closed_accuracy": "closed, PathVQA",
    "summary": "summary",
}
_GROUP_COLUMNS = (
    ("strict", "open_recall", "recall"),
    ("strict", "closed_accuracy", "closed"),
    ("strict", "summary", "summary"),
    ("strict", "macro_f1_open", "F1 open"),
    ("strict", "macro_f1_closed", "F1 closed"),
    ("legacy", "recall", "recall*"),
    ("legacy", "closed_accuracy", "closed*"),
    ("legacy", "summary", "summary*"),
)
_LATEX_SPECIAL = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}
_WIDTH = 20


def format_report(report: VqaReport) -> str:
    """Formats the scores of a report as tables in percent.

    Example:
        >>> from exgra_adapter.data.records import Record, Turn
        >>> from exgra_adapter.evaluation.files import Prediction
        >>> from exgra_adapter.evaluation.questions import Questions
        >>> from exgra_adapter.evaluation.vqa_report import report_scores
        >>> record = Record("7", "a.png", (Turn("Is it a liver?", "yes"),), "CLOSED")
        >>> answer = Prediction("7", 0, "", "", "Yes.")
        >>> print(format_report(report_scores(Questions((record,), {}), [answer], shown="strict")))
        1 questions (0 open, 1 closed), 0 without an answer
        <BLANKLINE>
        strict               score   95 % interval
        exact match          100.0   100.0 - 100.0
        closed accuracy      100.0   100.0 - 100.0
        macro-F1, closed     100.0   100.0 - 100.0
    """
    opened = sum(answer.answer_type == "OPEN" for answer in report.answers)
    total = len(report.answers)
    parts = [f"{total} questions ({opened} open, {total - opened} closed), {report.scores.failed} without an answer"]
    if report.shown != "legacy":
        parts.append(_estimates("strict", STRICT_NAMES, report.overall.strict))
    if report.shown != "strict":
        yes_no = report.legacy.yes_no
        parts.append(
            f"{_estimates('published scripts', LEGACY_NAMES, report.overall.legacy)}\n"
            f"yes/no: TP {yes_no.tp}, FP {yes_no.fp}, TN {yes_no.tn}, FN {yes_no.fn}; precision "
            f"{100 * yes_no.precision:.1f}, recall {100 * yes_no.recall:.1f}, F1 {100 * yes_no.f1:.1f}"
        )
    parts += [_group_table(key, groups, report) for key, groups in report.by.items()]
    if report.by and report.shown != "strict":
        parts[-1] += "\n* as the published scripts count"
    return "\n\n".join(parts)


def latex_row(report: VqaReport, name: str) -> str:
    r"""Formats a comment that names the columns and a row of a LaTeX table, in percent.

    Args:
        report: the scores.
        name: the first cell; special characters are escaped.

    Returns:
        Two lines; a score that the questions do not have is a dash.

    Example:
        >>> from exgra_adapter.data.records import Record, Turn
        >>> from exgra_adapter.evaluation.questions import Questions
        >>> from exgra_adapter.evaluation.vqa_report import report_scores
        >>> record = Record("7", "a.png", (Turn("Is it a liver?", "yes"),), "CLOSED")
        >>> print(latex_row(report_scores(Questions((record,), {}), [], shown="legacy"), "my_model"))
        % model & published recall & published closed accuracy & published summary \\
        my\_model & -- & 0.0 & -- \\
    """
    columns = _shown_columns(report)
    full_names = {"strict": STRICT_NAMES, "legacy": LEGACY_NAMES}
    prefix = {"strict": "", "legacy": "published "}
    head = ["model", *(prefix[kind] + full_names[kind][metric] for kind, metric, _ in columns)]
    cells = [_percent(_metric(report.overall, kind, metric), "--") for kind, metric, _ in columns]
    escaped = "".join(_LATEX_SPECIAL.get(character, character) for character in name)
    return f"% {' & '.join(head)} \\\\\n{' & '.join([escaped, *cells])} \\\\"


def item_table(report: VqaReport, groups: Mapping[str, Sequence[Sequence[str]]]) -> str:
    """Formats the scores of each question as CSV; a score that a question does not have is empty.

    Args:
        report: the scores.
        groups: key of the test file to the groups of each record, as `Questions` has them.
    """
    strict, legacy = report.shown != "legacy", report.shown != "strict"
    head = ["id", "turn", "answer_type", *groups, "question", "reference", "prediction", "failed"]
    if strict:
        head += [f"strict_{name}" for name in ("exact_match", "correct", "candidate", "class", "class_said")]
    if legacy:
        head += [f"legacy_{name}" for name in (*OPEN_METRICS, *CLOSED_METRICS)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    record = -1
    items = zip(report.answers, report.scores.items, report.classifications, report.legacy.items, strict=True)
    for answer, item, classification, published in items:
        record += answer.turn == 0
        row: list[Any] = [answer.id, answer.turn, answer.answer_type]
        row += [", ".join(groups[key][record]) for key in groups]
        row += [answer.question, answer.reference, answer.prediction, int(item.failed)]
        if strict:
            row += [item.exact, item.correct, item.candidate, classification.reference, classification.said]
        if legacy:
            row += [getattr(published, name) for name in (*OPEN_METRICS, *CLOSED_METRICS)]
        writer.writerow(row)
    return text.getvalue()


def _estimates(title: str, names: Mapping[str, str], values: Mapping[str, Estimate]) -> str:
    lines = [f"{title:<{_WIDTH}} {'score':>5}   95 % interval"]
    for key, name in names.items():
        if key in values:
            value, low, high = (100 * number for number in (values[key].value, values[key].low, values[key].high))
            lines.append(f"{name:<{_WIDTH}} {value:>5.1f}   {low:>5.1f} - {high:.1f}")
    return "\n".join(lines)


def _group_table(key: str, groups: Mapping[str, GroupScores], report: VqaReport) -> str:
    columns = _shown_columns(report)
    width = max(_WIDTH, *(len(name) for name in groups))
    lines = [" ".join([f"{key:<{width}}", f"{'n':>5}", *(f"{short:>9}" for _, _, short in columns)])]
    for name, group in groups.items():
        cells = [f"{_percent(_metric(group, kind, metric), '-'):>9}" for kind, metric, _ in columns]
        lines.append(" ".join([f"{name:<{width}}", f"{group.questions:>5}", *cells]))
    return "\n".join(lines)


def _shown_columns(report: VqaReport) -> list[tuple[str, str, str]]:
    return [column for column in _GROUP_COLUMNS if report.shown in ("both", column[0])]


def _metric(scores: GroupScores, kind: str, name: str) -> Estimate | None:
    return (scores.strict if kind == "strict" else scores.legacy).get(name)


def _percent(value: Estimate | None, missing: str) -> str:
    return missing if value is None else f"{100 * value.value:.1f}"
