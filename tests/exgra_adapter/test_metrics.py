"""Scores: known answers, traps of the published scripts, intervals."""

import json
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exgra_adapter.data.records import Record, Turn
from exgra_adapter.evaluation.files import Prediction
from exgra_adapter.evaluation.macro_f1 import Classification, classify_answers, macro_f1
from exgra_adapter.evaluation.metrics import (
    bootstrap_interval,
    closed_accuracy,
    closest_candidate_accuracy,
    exact_match,
    score,
    summarise_items,
    unique_token_recall,
    words,
)
from exgra_adapter.evaluation.pairing import Answer
from exgra_adapter.evaluation.questions import Questions
from exgra_adapter.evaluation.vqa_report import report_scores

texts = st.text(alphabet="aBc 1.,-'é", max_size=12)


def record(identifier, answer, answer_type=None, question="Question?"):
    return Record(identifier, "image.png", (Turn(question, answer),), answer_type)


def predict(identifier, text, turn=0):
    return Prediction(identifier, turn, "Question?", "", text)


@pytest.mark.parametrize(
    ("reference", "prediction", "expected"),
    [
        ("no", "normal", 0),
        ("no", "No.", 1),
        ("no", "There is no fracture.", 1),
        ("yes", "yes, there is no fracture", 1),
        ("no", "yes, there is no fracture", 0),
        ("yes", "yes or no", 1),
        ("no", "yes or no", 0),
        ("yes", "", 0),
        ("yes", "eyes", 0),
        ("left", "on the left side", 1),
        ("left", "cleft", 0),
        ("right lung", "the right upper lung", 0),
        ("right lung", "in the right lung", 1),
    ],
)
def test_closed_accuracy_reads_whole_words_and_one_verdict(reference, prediction, expected):
    assert closed_accuracy(reference, prediction) == expected


@pytest.mark.parametrize(
    ("reference", "prediction", "expected"),
    [("right", "left or right", 0), ("left", "left or right", 1), ("upper left", "upper left", 1), ("left", "up", 0)],
)
def test_closed_accuracy_takes_the_first_listed_option(reference, prediction, expected):
    question = "Where? Choose from the following options: [left, right, upper left, upper]"
    assert closed_accuracy(reference, prediction, question) == expected


@pytest.mark.parametrize(
    ("reference", "prediction", "expected"),
    [
        ("left lung", "lung lung lung", 0.5),
        ("left left lung", "left", 0.5),
        ("CT", "a ct scan", 1),
        ("3.5 cm", "5 cm", 0.5),
        ("T2-weighted", "t2 weighted", 1),
        ("+", "+", 1),
        ("+", "-", 0),
        ("left", "", 0),
    ],
)
def test_recall_counts_distinct_words(reference, prediction, expected):
    assert unique_token_recall(reference, prediction) == expected


@given(texts, texts)
def test_item_scores_lie_between_0_and_1_and_agree(reference, prediction):
    recall = unique_token_recall(reference, prediction)
    assert 0 <= recall <= 1
    if exact_match(reference, prediction):
        assert recall == 1
        assert closed_accuracy(reference, prediction) == 1
    assert exact_match(reference, reference) == 1


@given(texts)
def test_repeating_an_answer_gains_nothing(text):
    assert unique_token_recall("left upper lobe", f"{text} {text}") == unique_token_recall("left upper lobe", text)


@given(texts)
def test_words_are_stable(text):
    assert words(" ".join(words(text))) == words(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("हाँ, बायाँ फेफड़ा।", ["हाँ", "बायाँ", "फेफड़ा"]),
        ("ไม่ใช่", ["ไม่ใช่"]),
        ("قَلْب", ["قَلْب"]),
        ("e\u0301tat: 1\ufe0f\u20e3 \u2764\ufe0f", ["\xe9tat", "1"]),
    ],
)
def test_marks_belong_to_the_letters_before_them(text, expected):
    assert words(text) == [unicodedata.normalize("NFKC", word) for word in expected]


def test_words_that_differ_in_their_vowel_signs_differ():
    assert exact_match("हाँ", "हूँ") == 0
    assert closed_accuracy("ใช่", "ไม่ใช่") == 0


def test_closest_candidate_needs_a_strict_winner():
    candidates = ["left lung", "right lung", "liver"]
    assert closest_candidate_accuracy("left lung", "left lung", candidates) == 1
    assert closest_candidate_accuracy("left lung", "lung", candidates) == 0
    assert closest_candidate_accuracy("left lung", "spleen", candidates) == 0


def test_score_counts_failures_and_missing_answers_as_wrong():
    records = [record("a", "liver", "OPEN"), record("b", "yes", "CLOSED"), record("c", "no", "CLOSED")]
    scores = score(records, [predict("a", "liver"), predict("b", None)])
    assert scores.failed == 2
    assert scores.exact_match.value == pytest.approx(1 / 3)
    assert scores.open_recall.value == 1
    assert scores.closed_accuracy.value == 0
    assert scores.summary.value == 0.5
    assert [item.failed for item in scores.items] == [False, True, True]


def test_failures_stay_in_the_denominator_of_either_kind():
    answers = {"OPEN": "liver", "CLOSED": "no"}
    records = [record(f"{kind} {number}", answer, kind) for kind, answer in answers.items() for number in range(4)]
    # One answer is right, one failed, one is wrong, one missing.
    said = [predict(f"{kind} {n}", text) for kind in answers for n, text in enumerate((answers[kind], None, "bone"))]
    scores = score(records, said)
    for found in (scores.open_recall, scores.closed_accuracy):
        assert (found.value, found.count) == (0.25, 4)
    assert (scores.failed, scores.exact_match.value, scores.summary.value) == (4, 0.25, 0.25)


def test_summary_weighs_open_and_closed_questions_alike():
    records = [record(str(i), "liver", "OPEN") for i in range(3)] + [record("c", "no", "CLOSED")]
    scores = score(records, [predict("0", "liver"), predict("c", "no")])
    assert scores.summary.value == pytest.approx((1 / 3 + 1) / 2)
    assert scores.summary.count == 4


def test_answer_type_follows_from_the_answer_where_the_file_does_not_say():
    scores = score([record("a", "Yes"), record("b", "liver")], [])
    assert [item.answer_type for item in scores.items] == ["CLOSED", "OPEN"]


def test_a_kind_of_question_that_does_not_occur_has_no_score():
    scores = score([record("a", "liver", "OPEN")], [predict("a", "liver")])
    assert scores.closed_accuracy is None
    assert scores.summary is None
    assert scores.open_candidates is None


def test_every_turn_is_a_question_of_its_own():
    turns = (Turn("Organ?", "liver"), Turn("Side?", "left"))
    scores = score([Record("a", "image.png", turns, "OPEN")], [predict("a", "left", turn=1)])
    assert [item.correct for item in scores.items] == [0, 1]


def test_candidates_are_scored_for_open_questions_only():
    records = [record("a", "liver", "OPEN"), record("b", "yes", "CLOSED"), record("c", "lung", "OPEN")]
    scores = score(records, [predict("a", "the liver"), predict("b", "yes")], candidates=["liver", "lung"])
    assert scores.open_candidates.value == 0.5
    assert scores.open_candidates.count == 2


@pytest.mark.parametrize(
    ("records", "predictions", "message"),
    [
        ([], [], "must hold at least one question"),
        ([record("a", "x")], [predict("a", "x"), predict("a", "y")], "answer each question once; got id 'a', turn 0"),
        ([record("a", "x")], [predict("b", "x")], "got 1 that do not, the first with id 'b'"),
        ([record("a", "x")], [predict("a", "x", turn=1)], "id 'a', turn 1"),
    ],
)
def test_score_refuses_what_does_not_fit(records, predictions, message):
    with pytest.raises(ValueError, match=message):
        score(records, predictions)


def test_scores_do_not_depend_on_the_order_of_predictions():
    records = [record(str(i), "liver", "OPEN") for i in range(6)]
    predictions = [predict(str(i), "liver" if i % 2 else "lung") for i in range(6)]
    assert score(records, predictions) == score(records, predictions[::-1])


def test_summarise_items_averages_a_selection():
    scores = score([record("a", "liver"), record("b", "yes")], [predict("a", "liver")])
    assert summarise_items(scores.items[:1]).exact_match.value == 1
    with pytest.raises(ValueError, match="at least one question"):
        summarise_items([])


def test_interval_is_seeded_and_contains_the_mean():
    values = np.array([0.0] * 30 + [1.0] * 70)
    low, high = bootstrap_interval([values], seed=1)
    assert (low, high) == bootstrap_interval([values], seed=1)
    assert (low, high) != bootstrap_interval([values], seed=2)
    # Binomial: standard error 0.0458, so the interval is about 0.70 +- 0.09.
    assert low == pytest.approx(0.61, abs=0.02)
    assert high == pytest.approx(0.79, abs=0.02)


def test_interval_agrees_with_scipy():
    from scipy.stats import bootstrap

    values = np.random.default_rng(0).random(200)
    expected = bootstrap((values,), np.mean, n_resamples=5000, method="percentile", rng=0).confidence_interval
    assert bootstrap_interval([values], resamples=5000) == pytest.approx((expected.low, expected.high), abs=0.005)


def test_interval_does_not_depend_on_the_size_of_chunks(monkeypatch):
    values = [np.random.default_rng(0).random(50), np.random.default_rng(1).random(70)]
    whole = bootstrap_interval(values, resamples=40)
    monkeypatch.setattr("exgra_adapter.evaluation.metrics._CHUNK", 200)
    assert bootstrap_interval(values, resamples=40) == whole


def test_constant_scores_have_an_interval_of_width_0():
    assert bootstrap_interval([np.ones(5)]) == (1, 1)


@pytest.mark.needs_data
@pytest.mark.parametrize(
    ("folder", "truth", "answers", "name"),
    [
        ("data_rad_451", "test_w_options_new.json", "answer-file-mumc.jsonl", "mumc"),
        ("vqa_rad_451", "test.json", "answer-file-llava-zeorshot.jsonl", "zero shot"),
    ],
)
def test_strict_closed_accuracy_is_at_most_the_published_substring_test(data_folder, folder, truth, answers, name):
    from exgra_adapter.data.records import read_records
    from exgra_adapter.evaluation.files import read_answers

    golden = data_folder / "eval_golden" / folder
    scores = score(read_records(golden / truth), read_answers(golden / answers))
    published = json.loads((golden / "expected.json").read_text())["expected"][answers]["run_eval"]["metrics"]
    assert (scores.open_recall.count, scores.closed_accuracy.count) == (179, 272)
    assert 100 * scores.closed_accuracy.value <= published["yes/no accuracy"] + 1e-9


def classified(*pairs, answer_type="CLOSED"):
    return [Classification(str(i), 0, answer_type, wanted, said) for i, (wanted, said) in enumerate(pairs)]


def said_class(reference, prediction, question="Question?", others=(), answer_type="CLOSED"):
    answers = [Answer("x", 0, answer_type, question, reference, prediction)]
    answers += [Answer(str(i), 0, answer_type, "Question?", other, None) for i, other in enumerate(others)]
    return classify_answers(answers)[0].said


@pytest.mark.parametrize(
    ("reference", "prediction", "expected"),
    [
        ("no", "The heart is normal.", None),
        ("no", "yes, there is no fracture", "yes"),
        ("No", "No.", "no"),
        ("yes", None, None),
        ("left", "on the left, not on the right", "left"),
        ("left", "on the right", "right"),
        ("left", "yes", None),
        ("+", "+", "+"),
    ],
)
def test_the_class_said_to_a_closed_question(reference, prediction, expected):
    assert said_class(reference, prediction, others=["right", "yes"]) == expected


def test_listed_options_are_the_only_classes_of_their_question():
    question = "Side? Choose from [left, right]"
    assert said_class("left", "axial, on the right", question, others=["axial"]) == "right"
    assert said_class("left", "axial", question, others=["axial"]) is None


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        ("Left lung.", "left lung"),
        ("the left lung is seen", "left lung"),
        ("lung", None),
        ("spleen", None),
        ("", None),
        (None, None),
    ],
)
def test_the_class_said_to_an_open_question_is_the_closest_reference(prediction, expected):
    others = ["right lung", "liver"]
    assert said_class("left lung", prediction, others=others, answer_type="OPEN") == expected


def test_macro_f1_by_hand():
    items = classified(("yes", "yes"), ("yes", "no"), ("no", "no"), ("left", None), ("no", "spleen"))
    # yes: 2 TP / (2 + 0 + 1); no: 2 / (2 + 1 + 1); left: 0. "spleen" is nobody's reference.
    assert macro_f1(items).value == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert macro_f1(items).count == 5
    with pytest.raises(ValueError, match="at least one question"):
        macro_f1([])


def test_macro_f1_agrees_with_a_plain_count():
    generator = np.random.default_rng(3)
    names = ["yes", "no", "left", "right"]
    wanted, said = ([names[i] for i in generator.integers(0, 4, 200)] for _ in range(2))
    plain = []
    for name in names:
        true = sum(w == s == name for w, s in zip(wanted, said, strict=True))
        plain.append(2 * true / (wanted.count(name) + said.count(name)))
    found = macro_f1(classified(*zip(wanted, said, strict=True)), resamples=500)
    assert found.value == pytest.approx(np.mean(plain))
    assert found.low < found.value < found.high
    assert found.high - found.low < 0.2


def test_always_yes_has_a_low_macro_f1():
    found = macro_f1(classified(*[("yes", "yes")] * 9, ("no", "yes")))
    assert found.value == pytest.approx(18 / 19 / 2)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["a", "b", "c", None])), min_size=1, max_size=12))
def test_macro_f1_is_1_only_for_right_answers(pairs):
    found = macro_f1(classified(*pairs), resamples=20)
    assert 0 <= found.low <= found.high <= 1
    assert (found.value == 1) == all(wanted == said for wanted, said in pairs)


@given(st.lists(st.tuples(st.sampled_from(["yes", "no", "left lung"]), texts), min_size=1, max_size=6))
def test_closed_classes_and_closed_accuracy_agree(pairs):
    answers = [Answer(str(i), 0, "CLOSED", "?", wanted, said) for i, (wanted, said) in enumerate(pairs)]
    for item, (wanted, said) in zip(classify_answers(answers), pairs, strict=True):
        assert (item.said == item.reference) == closed_accuracy(wanted, said)


def test_groups_are_scored_on_their_own():
    records = (
        record("a", "yes", "CLOSED"),
        Record("b", "b.png", (Turn("?", "liver"), Turn("?", "lung")), "OPEN"),
        record("c", "no", "CLOSED"),
    )
    questions = Questions(records, {"question_type": [("PRES",), ("ORGAN",), ("PRES", "SIZE")]})
    predictions = [predict("a", "yes"), predict("b", "liver"), predict("b", "liver", 1), predict("c", "normal")]
    groups = report_scores(questions, predictions, resamples=10).by["question_type"]
    assert {name: group.questions for name, group in groups.items()} == {"ORGAN": 2, "PRES": 2, "SIZE": 1}
    assert groups["ORGAN"].strict["open_recall"].value == 0.5
    assert groups["ORGAN"].strict["macro_f1_open"].value == pytest.approx((2 / 3 + 0) / 2)
    assert "closed_accuracy" not in groups["ORGAN"].strict
    assert groups["PRES"].strict["closed_accuracy"].value == 0.5
    assert groups["PRES"].legacy["closed_accuracy"].value == 1
    assert groups["SIZE"].strict["macro_f1_closed"].value == 0
