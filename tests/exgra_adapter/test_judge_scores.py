"""Figures of a visual chat evaluation against counting by hand."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exgra_adapter.evaluation.chat_files import ChatQuestion
from exgra_adapter.evaluation.judge import Comparison, Verdict
from exgra_adapter.evaluation.judge_plots import plot_chat
from exgra_adapter.evaluation.judge_report import (
    AGREEMENT,
    RELATIVE,
    JudgeUse,
    format_report,
    format_scores,
    item_line,
    report_json,
)
from exgra_adapter.evaluation.judge_scores import ChatScores, measure_position_bias, score_chat
from exgra_adapter.evaluation.judge_table import OTHER_REASONS, tabulate

_USE = JudgeUse(requests=4, failed=0, input_tokens=1200, output_tokens=80)


def _comparison(
    index: int,
    reference_first: tuple[int, int] | None,
    candidate_first: tuple[int, int] | None,
    *,
    candidate: str = "model",
    answered: bool = True,
    image: str | None = None,
) -> Comparison:
    """A comparison with scores (reference, candidate) in each order."""
    kind, domain = ("conversation", "description")[index % 2], ("mri", "ct_scan", "gross")[index % 3]
    question = ChatQuestion(str(index), image or f"{index // 2}.png", f"q{index}", "ref", "caption", (), kind, domain)
    given = {"reference_first": reference_first, "candidate_first": candidate_first}
    return Comparison(
        question,
        candidate,
        "said" if answered else None,
        {order: Verdict(*scores, "a", "b") for order, scores in given.items() if scores is not None},
        {order: "status 500" for order, scores in given.items() if scores is None and answered},
    )


def _score(items: list[Comparison], **options: Any) -> ChatScores:
    return score_chat(tabulate(items), **options)


def test_scores_by_hand() -> None:
    items = [_comparison(0, (8, 4), (6, 6)), _comparison(1, (10, 10), (10, 10)), _comparison(2, (9, 3), (9, 5))]
    scores = _score(items)
    (model,) = scores.candidates
    assert model.overall.reference == pytest.approx((7 + 10 + 9) / 3)
    assert model.overall.candidate == pytest.approx((5 + 10 + 4) / 3)
    assert model.overall.relative.value == pytest.approx(19 / 26)
    assert model.overall.difference.value == pytest.approx(-7 / 3)
    assert (model.overall.better, model.overall.equal, model.overall.worse) == (0, 1, 2)
    assert model.overall.relative_with_failures == model.overall.relative
    assert list(model.kinds) == ["conversation", "description"]
    assert model.kinds["conversation"].relative.value == pytest.approx(9 / 16)
    assert model.domains["ct_scan"].relative.value == 1
    assert sum(group.questions for group in model.domains.values()) == 3


def test_failures_are_counted_and_shown_both_ways() -> None:
    items = [
        _comparison(0, (8, 4), (8, 4)),
        _comparison(1, None, None, answered=False),
        _comparison(2, (9, 9), None),
        _comparison(3, None, None),
    ]
    overall = _score(items).candidates[0].overall
    assert (overall.questions, overall.failed, overall.no_answer, overall.no_verdict) == (4, 3, 1, 2)
    assert overall.relative.value == 0.5
    assert overall.relative.count == 1
    assert overall.relative_with_failures.value == pytest.approx(0.5 / 4)
    report = format_report(_score(items), {}, _USE, [])
    assert "3 of 4 questions are left out of the scores (1 without an answer, 2 without a verdict" in report
    lines = [item_line(item) for item in items]
    assert [line.get("error") for line in lines] == [
        None,
        "no answer",
        "candidate_first: status 500",
        "reference_first: status 500; candidate_first: status 500",
    ]
    assert [line["candidate_score"] for line in lines] == [4, None, None, None]


def test_reasons_are_counted_up_to_a_number_of_them() -> None:
    question = _comparison(0, None, None).question
    errors = [f"reason {i % 60}" for i in range(180)]
    table = tabulate(Comparison(question, "m", "said", {}, {"reference_first": error}) for error in errors)
    assert table.reasons.total() == 180
    assert len(table.reasons) == 51
    assert table.reasons["reason 49"] == 3
    assert table.reasons[OTHER_REASONS] == 30


def test_nothing_judged_is_no_score_and_no_error(tmp_path: Path) -> None:
    items = [_comparison(0, None, None), _comparison(1, None, None, answered=False)]
    scores = _score(items)
    overall = scores.candidates[0].overall
    assert overall.relative is None
    assert overall.difference is None
    assert overall.relative_with_failures.value == 0
    assert scores.position_bias.first_advantage is None
    assert plot_chat(scores, tabulate(items), tmp_path) == []
    assert "No answer was judged in both orders." in format_scores(scores)
    json.dumps(report_json(scores, {}, _USE), allow_nan=False)
    format_report(scores, {}, _USE, [])
    with pytest.raises(ValueError, match="must hold at least one"):
        _score([])


@given(
    st.lists(st.tuples(st.integers(2, 9), st.integers(2, 9)), min_size=1, max_size=12),
    st.integers(-1, 1),
)
def test_the_swap_cancels_a_position_bias_exactly(quality: list[tuple[int, int]], bias: int) -> None:
    """A judge that moves points from one place to the other gives the scores of a fair one."""
    fair = [_comparison(i, (r, c), (r, c)) for i, (r, c) in enumerate(quality)]
    biased = [_comparison(i, (r + bias, c - bias), (r - bias, c + bias)) for i, (r, c) in enumerate(quality)]
    expected, got = _score(fair, resamples=50), _score(biased, resamples=50)
    assert got.candidates[0].overall == expected.candidates[0].overall
    assert got.candidates[0].domains == expected.candidates[0].domains
    assert got.position_bias.first_advantage.value == 2 * bias
    assert expected.position_bias.changed == 0
    # Only differences of at most twice the bias can change the outcome.
    close = sum(abs(r - c) < 2 * abs(bias) or (bias != 0 and abs(r - c) == 2) for r, c in quality)
    assert got.position_bias.changed == close


@given(st.lists(st.tuples(*[st.integers(1, 10)] * 4), min_size=1, max_size=15))
def test_position_bias_counts_add_up(scores: list[tuple[int, int, int, int]]) -> None:
    items = [_comparison(i, (a, b), (c, d)) for i, (a, b, c, d) in enumerate(scores)]
    bias = measure_position_bias(tabulate(items), resamples=20)
    signs = [(np.sign(b - a), np.sign(d - c)) for a, b, c, d in scores]
    assert bias.pairs == len(scores) == sum(map(sum, bias.outcomes))
    assert bias.changed == sum(one != other for one, other in signs) == bias.favours_first + bias.favours_second
    assert bias.reversed == sum(one * other < 0 for one, other in signs)
    assert bias.favours_first == sum(other > one for one, other in signs)
    assert bias.first_advantage.value == pytest.approx(np.mean([(a - b + d - c) / 2 for a, b, c, d in scores]))
    assert bias.spread == pytest.approx(np.mean([[abs(a - c), abs(b - d)] for a, b, c, d in scores]))


def test_candidates_are_compared_on_common_questions() -> None:
    ours = [_comparison(i, (10, 9), (10, 9), candidate="ours") for i in range(8)]
    theirs = [_comparison(i, (10, 6), (10, 6), candidate="theirs") for i in range(6)]
    theirs += [_comparison(6, None, (1, 10), candidate="theirs"), _comparison(7, None, None, candidate="theirs")]
    (pair,) = _score([*ours, *theirs]).pairs
    assert (pair.first, pair.second, pair.questions) == ("ours", "theirs", 6)
    assert pair.difference.value == pytest.approx(0.3)
    assert pair.difference.low == pytest.approx(0.3)  # every resample has the same difference
    three = _score([*ours, *theirs, *(_comparison(i, None, None, candidate="none") for i in range(8))])
    assert [(item.first, item.second) for item in three.pairs] == list(
        itertools.combinations(["ours", "theirs", "none"], 2)
    )
    assert three.pairs[1].difference is None
    assert "ours minus none: no question was judged for both" in format_scores(three)


def test_intervals_are_repeatable_and_wider_over_few_images() -> None:
    rng = np.random.default_rng(0)
    by_image = rng.integers(2, 10, 10)
    items = {
        shared: [
            _comparison(i, (10, score), (10, score), image=f"{i // 10 if shared else i}.png")
            for i in range(100)
            for score in [int(by_image[i // 10])]
        ]
        for shared in (True, False)
    }
    estimates = {shared: _score(found, seed=3).candidates[0].overall.relative for shared, found in items.items()}
    assert estimates[True] == _score(items[True], seed=3).candidates[0].overall.relative
    widths = {shared: estimate.high - estimate.low for shared, estimate in estimates.items()}
    # Ten questions about one image that get one score are worth one question: sqrt(10) times the width.
    assert 2.5 < widths[True] / widths[False] < 4
    assert estimates[False].low < estimates[False].value < estimates[False].high


def test_intervals_cover_the_truth() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(100):
        scores = rng.integers(1, 11, (60, 2))
        items = [_comparison(i, (r, c), (r, c), image=f"{i}.png") for i, (r, c) in enumerate(scores.tolist())]
        relative = _score(items, seed=trial, resamples=300).candidates[0].overall.relative
        covered += relative.low <= 1 <= relative.high
    assert 88 <= covered <= 100


def test_report_table_json_and_pictures(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    items = [
        _comparison(i, (9, int(rng.integers(2, 9))), (8, int(rng.integers(3, 10))), candidate=name)
        for name in ("small | model", "large_model_äöü")
        for i in range(24)
    ]
    scores = _score(items)
    pictures = plot_chat(scores, tabulate(items), tmp_path)
    assert pictures == [RELATIVE, AGREEMENT]
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    report = format_report(scores, {"judge": "fake"}, _USE, pictures)
    assert "small \\| model" in report
    assert all(f"]({name})" in report for name in pictures)
    assert "No question failed" in report
    assert "| cost | not known (no prices given) |" in report
    assert report.count("large_model_äöü - ") == 0
    assert "small \\| model - large_model_äöü" in report
    terminal = format_scores(scores)
    assert "  ct scan" in terminal
    assert f"{100 * scores.candidates[1].overall.relative.value:.1f}" in terminal
    content = json.loads(json.dumps(report_json(scores, {"seed": 0}, _USE), allow_nan=False))
    assert content["candidates"][0]["overall"]["relative"]["value"] == scores.candidates[0].overall.relative.value
    assert content["judge"]["input_tokens"] == 1200
    # An older picture is removed where there is nothing to draw.
    nothing = [_comparison(0, None, None)]
    plot_chat(_score(nothing), tabulate(nothing), tmp_path)
    assert not list(tmp_path.glob("*.png"))
