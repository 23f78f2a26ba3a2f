"""What a visual chat evaluation says: a table for the terminal, JSON, Markdown, and a line per question."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from exgra_adapter.evaluation.judge import ORDERS, Comparison
from exgra_adapter.evaluation.judge_scores import OUTCOMES, ChatScores, GroupScore, PositionBias
from exgra_adapter.evaluation.metrics import Estimate
from exgra_adapter.reporting.markdown import number, percent, table

RELATIVE, AGREEMENT = "relative_scores.png", "order_agreement.png"

_MOST_ERRORS = 5


@dataclass(frozen=True)
class JudgeUse:
    """What judging took.

    Attributes:
        requests: Requests that were due, two for every answer.
        failed: Those without a usable reply.
        input_tokens: As the endpoint counted them, over all runs into the same journal.
        output_tokens: Likewise.
        cost: In the currency of the prices given; None where there were none.
        errors: How often each reason for a failure occurred.
    """

    requests: int
    failed: int
    input_tokens: int
    output_tokens: int
    cost: float | None = None
    errors: dict[str, int] = field(default_factory=dict)


def format_scores(scores: ChatScores) -> str:
    """Formats the relative scores as a table for the terminal."""
    width = max(len("all questions"), *(len(name) for name, _ in _groups(scores, 0)))
    lines: list[str] = []
    for place, candidate in enumerate(scores.candidates):
        lines += [
            *([""] if lines else []),
            candidate.name,
            f"{'':<{width}} {'questions':>9} {'failed':>6} {'reference':>9} {'candidate':>9} {'relative':>8}"
            f"   {'95 % interval':<16} {'failures as 0':>13}",
        ]
        for name, group in _groups(scores, place):
            relative = "-" if group.relative is None else f"{100 * group.relative.value:.1f}"
            lines.append(
                f"{name:<{width}} {group.questions:>9} {group.failed:>6} {_points(group.reference):>9} "
                f"{_points(group.candidate):>9} {relative:>8}   {_interval(group.relative):<16} "
                f"{100 * group.relative_with_failures.value:>13.1f}"
            )
    for pair in scores.pairs:
        lines += ["", f"{pair.first} minus {pair.second}: {_difference(pair.difference)} ({pair.questions} questions)"]
    return "\n".join([*lines, "", *_bias_lines(scores.position_bias)])


def report_json(scores: ChatScores, settings: dict[str, Any], use: JudgeUse) -> dict[str, Any]:
    """Returns everything as one JSON object: settings, use of the judge, scores as fractions (1.0 is the reference)."""
    return {"format": 1, "settings": settings, "judge": asdict(use), "outcomes": list(OUTCOMES), **asdict(scores)}


def item_line(item: Comparison) -> dict[str, Any]:
    """Returns the JSON object of one candidate and question: both verdicts, mean scores, or why there are none."""
    line: dict[str, Any] = {
        "candidate": item.candidate,
        "question_id": item.question.id,
        "type": item.question.kind,
        "domain": item.question.domain,
        "image": item.question.image,
        "question": item.question.text,
        "reference": item.question.reference,
        "answer": item.answer,
        "reference_score": item.reference_score if item.judged else None,
        "candidate_score": item.candidate_score if item.judged else None,
        "verdicts": {order: asdict(item.verdicts[order]) for order in ORDERS if order in item.verdicts},
    }
    if item.answer is None:
        line["error"] = "no answer"
    elif item.errors:
        line["error"] = "; ".join(f"{order}: {reason}" for order, reason in item.errors.items())
    return line


def format_report(scores: ChatScores, settings: dict[str, Any], use: JudgeUse, pictures: Sequence[str]) -> str:
    """Formats the Markdown report.

    Args:
        scores: The figures.
        settings: What the run was given; names and values are listed.
        use: What judging took.
        pictures: Names of the pictures beside the report.
    """
    overall = scores.candidates[0].overall
    parts = [
        "# Visual chat evaluation",
        f"A language model graded the answers of {len(scores.candidates)} candidate(s) and the reference answers to "
        f"{overall.questions} questions, from 1 to 10. It knew each image from its caption only. Every pair of answers "
        "was graded in both orders; a score is the mean of both. Relative score: mean of the candidate's scores "
        "divided by that of the reference's. Intervals: 95 %, bootstrap over images. The figures depend on the judge: "
        "compare them only with those of the same judge and instructions. For research, not for clinical use.",
        "## Scores",
        _score_table(scores, "all"),
        _failure_statement(scores),
    ]
    if RELATIVE in pictures:
        parts.append(f"![Relative scores]({RELATIVE})")
    parts += ["### By kind of question", _score_table(scores, "kinds")]
    parts += ["### By domain", _score_table(scores, "domains")]
    if scores.pairs:
        rows = [
            [f"{pair.first} - {pair.second}", str(pair.questions), *_paired_cells(pair.difference)]
            for pair in scores.pairs
        ]
        head = ["candidates", "questions", "difference (points of percent)", "95 % interval", "clear"]
        parts += [
            "### Candidates compared",
            table(head, rows),
            "Differences of relative scores on the questions that were judged for both; clear: the interval leaves out "
            "0. With many pairs some are clear by chance.",
        ]
    parts += ["## Did the order matter?", *_bias_parts(scores)]
    if AGREEMENT in pictures:
        parts.append(f"![Agreement between the orders]({AGREEMENT})")
    cost = "not known (no prices given)" if use.cost is None else number(use.cost)
    rows = [
        ["requests", number(use.requests)],
        ["without a usable reply", number(use.failed)],
        ["input tokens", number(use.input_tokens)],
        ["output tokens", number(use.output_tokens)],
        ["cost", cost],
    ]
    parts += ["## The judge", table(["quantity", "value"], rows)]
    if use.errors:
        common = sorted(use.errors.items(), key=lambda pair: (-pair[1], pair[0]))[:_MOST_ERRORS]
        parts.append(table(["reason for no reply", "requests"], [[reason, str(count)] for reason, count in common]))
    rows = [[name, str(value)] for name, value in settings.items()]
    parts += ["## Settings", table(["setting", "value"], rows, numbers=False)]
    return "\n\n".join(parts) + "\n"


def _groups(scores: ChatScores, place: int) -> Iterator[tuple[str, GroupScore]]:
    candidate = scores.candidates[place]
    yield "all questions", candidate.overall
    for groups in (candidate.kinds, candidate.domains):
        for name, group in groups.items():
            yield f"  {name.replace('_', ' ')}", group


def _score_table(scores: ChatScores, part: str) -> str:
    head = ["candidate", "questions", "failed", "reference's score", "own score", "relative", "95 % interval"]
    head += ["failures as 0", "better / equal / worse"]
    if part != "all":
        head.insert(0, "type" if part == "kinds" else "domain")
    rows = []
    names = [""] if part == "all" else list(getattr(scores.candidates[0], part))
    for name in names:
        for candidate in scores.candidates:
            group: GroupScore = candidate.overall if part == "all" else getattr(candidate, part)[name]
            relative = None if group.relative is None else group.relative.value
            cells = [candidate.name, str(group.questions), str(group.failed)]
            cells += [_points(group.reference), _points(group.candidate), percent(relative), _interval(group.relative)]
            cells += [percent(group.relative_with_failures.value), f"{group.better} / {group.equal} / {group.worse}"]
            rows.append(cells if part == "all" else [name.replace("_", " "), *cells])
    return table(head, rows)


def _failure_statement(scores: ChatScores) -> str:
    lines = []
    for candidate in scores.candidates:
        group = candidate.overall
        if group.failed:
            lines.append(
                f"- {candidate.name}: {group.failed} of {group.questions} questions are left out of the scores "
                f"({group.no_answer} without an answer, {group.no_verdict} without a verdict in both orders); counted "
                f"as 0 they give {percent(group.relative_with_failures.value)}."
            )
    return "\n".join(lines) if lines else "No question failed; the scores are those of all questions."


def _bias_parts(scores: ChatScores) -> list[str]:
    rows = []
    for name, bias in [*((item.name, item.position_bias) for item in scores.candidates), ("all", scores.position_bias)]:
        advantage = bias.first_advantage
        cells = [name, str(bias.pairs), _share(bias.changed, bias.pairs), _share(bias.reversed, bias.pairs)]
        cells += [str(bias.favours_first), str(bias.favours_second)]
        if advantage is None:
            cells += ["-", "-"]
        else:
            cells += [f"{advantage.value:+.2f}", f"{advantage.low:+.2f} to {advantage.high:+.2f}"]
        rows.append([*cells, _points(bias.spread)])
    rows = rows if len(scores.candidates) > 1 else rows[:1]
    head = ["candidate", "pairs", "outcome changed", "reversed", "to the first", "to the second"]
    head += ["lead of the first (points)", "95 % interval", "spread (points)"]
    outcomes = [
        [f"reference first: {name}", *map(str, row)]
        for name, row in zip(OUTCOMES, scores.position_bias.outcomes, strict=True)
    ]
    return [
        table(head, rows),
        "Outcome: candidate better, equal or worse than the reference. Changed outcomes moved to the answer shown "
        "first or to that shown second; reversed ones turned from better to worse or back. Spread: mean difference "
        "between the two scores that one answer got.",
        table(["", *(f"candidate first: {name}" for name in OUTCOMES)], outcomes),
    ]


def _bias_lines(bias: PositionBias) -> list[str]:
    if bias.first_advantage is None:
        return ["No answer was judged in both orders."]
    return [
        f"The order changed {bias.changed} of {bias.pairs} outcomes ({bias.reversed} reversed); the answer shown first "
        f"leads by {bias.first_advantage.value:+.2f} points on average."
    ]


def _paired_cells(estimate: Estimate | None) -> list[str]:
    if estimate is None:
        return ["-", "-", "-"]
    clear = "yes" if estimate.low > 0 or estimate.high < 0 else "no"
    return [f"{100 * estimate.value:+.1f}", f"{100 * estimate.low:+.1f} to {100 * estimate.high:+.1f}", clear]


def _difference(estimate: Estimate | None) -> str:
    value, interval, _ = _paired_cells(estimate)
    return "no question was judged for both" if estimate is None else f"{value} points of percent, {interval}"


def _interval(estimate: Estimate | None) -> str:
    return "-" if estimate is None else f"{100 * estimate.low:.1f} - {100 * estimate.high:.1f}"


def _points(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _share(count: int, total: int) -> str:
    return f"{count} ({percent(count / total)})" if total else str(count)
