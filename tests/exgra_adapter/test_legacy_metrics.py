"""Published scores: equal to the scripts' golden outputs, and hand-made cases for each of their habits."""

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exgra_adapter.data.records import Record, Turn, read_records
from exgra_adapter.evaluation.files import Prediction, read_answers, read_candidates
from exgra_adapter.evaluation.legacy import (
    BLEU_WEIGHTS,
    legacy_closed_accuracy,
    legacy_open_accuracy,
    pathvqa_closed_accuracy,
    score_legacy,
    summarise_legacy,
    token_scores,
)
from exgra_adapter.evaluation.legacy_text import legacy_words, normalize_word, sentence_bleu

texts = st.text(alphabet="aBn oyes1.,-'?", max_size=14)
word_lists = st.lists(st.sampled_from(["left", "lung", "upper", "no"]), max_size=6)

TRUTHS = {"vqa_rad_451": "test.json", "data_rad_451": "test_w_options_new.json", "handmade": "test.json"}
ANSWERS = [
    ("vqa_rad_451", "answer-file.jsonl"),
    ("vqa_rad_451", "answer-file-1epoch.jsonl"),
    ("vqa_rad_451", "answer-file-llava-zeorshot.jsonl"),
    ("data_rad_451", "answer-file-mumc.jsonl"),
    ("handmade", "answer-file.jsonl"),
]
PUBLISHED_NAMES = {
    "exact match score": "exact_match",
    "f1 score": "f1",
    "precision": "precision",
    "recall": "recall",
    "bleu_score": "bleu",
    "bleu_score_1": "bleu_1",
    "bleu_score_2": "bleu_2",
    "bleu_score_3": "bleu_3",
    "open accuracy": "open_accuracy",
    "yes/no accuracy": "closed_accuracy",
}


def record(identifier, answer, answer_type="OPEN"):
    return Record(identifier, "image.png", (Turn("Question?", answer),), answer_type)


def predict(identifier, text):
    return Prediction(identifier, 0, "Question?", "", text)


def golden_scores(folder, answers):
    truth = folder / TRUTHS[folder.name]
    candidates = read_candidates(folder / "candidate.json")
    return score_legacy(read_records(truth), read_answers(folder / answers), candidates, resamples=10)


@pytest.mark.parametrize(("name", "answers"), ANSWERS)
@pytest.mark.parametrize("script", ["run_eval", "run_eval_modalities", "run_eval_pvqa"])
def test_scores_equal_the_published_scripts(data_folder, name, answers, script):
    folder = data_folder / "eval_golden" / name
    expected = json.loads((folder / "expected.json").read_text())["expected"][answers][script]
    scores = golden_scores(folder, answers)
    names = dict(PUBLISHED_NAMES)
    if script == "run_eval_pvqa":
        names["yes/no accuracy"] = "pathvqa_closed_accuracy"
        # That script prints its two counts under each other's name.
        counts = scores.metrics["pathvqa_closed_accuracy"].count, scores.metrics["recall"].count
    else:
        counts = scores.metrics["recall"].count, scores.metrics["closed_accuracy"].count
    got = {old: 100 * scores.metrics[new].value for old, new in names.items()}
    got |= {key: getattr(scores.yes_no, key) for key in ("tp", "fp", "tn", "fn")}
    got |= {f"yes/no {key}": 100 * getattr(scores.yes_no, key) for key in ("precision", "recall", "f1")}
    metrics = expected["metrics"]
    assert {key: got[key] for key in metrics} == pytest.approx(metrics, abs=1e-9)
    # Tiny BLEU scores are compared in ratio as well; an absolute tolerance alone would accept 0.
    assert {key: got[key] for key in metrics} == pytest.approx(metrics, rel=1e-9, abs=0)
    assert expected["stdout"] == "num_open {} || num_close {}".format(*counts)


def test_items_equal_the_published_scripts(data_folder):
    folder = data_folder / "eval_golden" / "handmade"
    expected = json.loads((folder / "expected.json").read_text())["per_item"]
    truths = {item.id: item.turns[0].answer for item in read_records(folder / "test.json")}
    said = {item.id: item.prediction for item in read_answers(folder / "answer-file.jsonl")}
    items = golden_scores(folder, "answer-file.jsonl").items
    assert len(items) == len(expected)
    for item, wanted in zip(items, expected, strict=True):
        assert (item.id, item.answer_type) == (str(wanted["id"]), wanted["type"])
        assert normalize_word(truths[item.id].lower()) == wanted["gt_normalized"]
        assert normalize_word(said[item.id].lower()) == wanted["pred_normalized"]
        exact, *others = token_scores(legacy_words(truths[item.id]), legacy_words(said[item.id]))
        assert exact == pytest.approx(wanted["exact"], abs=1e-12)
        assert others == pytest.approx(wanted["f1_precision_recall"], abs=1e-12)
        assert item.open_accuracy == wanted["open_accuracy"]
        assert item.closed_accuracy == wanted["closed_hit"]


def test_normalisation_equals_the_published_one(data_folder):
    lines = (data_folder / "eval_golden" / "normalize_word" / "cases.jsonl").read_text().splitlines()
    cases = [json.loads(line) for line in lines]
    assert len(cases) > 900
    wrong = [case for case in cases if normalize_word(case["input"].lower()) != case["lower_then_normalize_word"]]
    assert wrong == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Left Lung", "left lung"),
        ("a/b", "b"),  # the mark becomes a space, and then "a" is an article
        ("left -right", "left right"),
        ("4,500 x-ray", "4500 xray"),
        ("x-ray", "x ray"),
        ("3.5 cm.", "3.5 cm"),
        ("none of three", "0 of 3"),
        ("cant tell, its dark", "can't tell its dark"),
        ("shouldntve shouldnt've shouldn'tve", "shouldntve shouldn't've shouldn't've"),
        ("semi-colon: 50%", "semi colon: 50%"),
        (" \n\t", ""),
        ("où?", "où"),
    ],
)
def test_normalisation(text, expected):
    assert normalize_word(text) == expected


def test_normalisation_removes_32_full_stops():
    assert normalize_word("x." * 40) == "x" * 32 + "x." * 8


@given(texts)
def test_normalised_words_are_small_and_without_articles(text):
    found = legacy_words(text)
    assert not {"a", "an", "the"} & set(found)
    assert all(word == word.lower() and "," not in word for word in found)


@pytest.mark.parametrize(
    ("reference", "prediction", "expected"),
    [
        ("effusion", "effusion effusion", (0.5, 1, 1, 1)),
        ("left left lung", "left", (1, 2 / 3, 1, 0.5)),
        # Saying a word again raises recall: 3 hits and 1 missing word.
        ("left lung", "left left left", (1 / 3, 6 / 7, 1, 0.75)),
        ("left lung", "right", (0, 0, 0, 0)),
        ("left", "", (0, 0, 0, 0)),
        ("", "left", (0, 0, 0, 0)),
    ],
)
def test_token_scores(reference, prediction, expected):
    assert token_scores(reference.split(), prediction.split()) == pytest.approx(expected)


@given(word_lists, word_lists)
def test_token_scores_and_bleu_lie_between_0_and_1(reference, prediction):
    scores = [*token_scores(reference, prediction)]
    scores += [sentence_bleu(reference, prediction, weights) for weights in BLEU_WEIGHTS.values()]
    assert all(0 <= score <= 1 + 1e-12 for score in scores)
    assert (max(scores) == 0) == (not set(reference) & set(prediction))


@given(st.lists(st.sampled_from(["left", "lung", "upper"]), min_size=4, max_size=8))
def test_bleu_of_the_reference_itself_is_1(sentence):
    assert sentence_bleu(sentence, sentence, (0.25,) * 4) == pytest.approx(1)


def test_bleu_by_hand():
    reference, prediction = ["right", "upper", "lobe", "of", "lung"], ["right", "upper", "lung"]
    brevity = 2.718281828459045 ** (1 - 5 / 3)
    assert sentence_bleu(reference, prediction, (1,)) == pytest.approx(brevity)
    assert sentence_bleu(reference, prediction, (0, 1)) == pytest.approx(brevity / 2)
    assert sentence_bleu(reference, prediction, (0.5, 0.5)) == pytest.approx(brevity * 0.5**0.5)
    # Repeated words count as often as the reference has them.
    assert sentence_bleu(["left"], ["left"] * 4, (1,)) == pytest.approx(0.25)
    assert sentence_bleu(["left"], ["left"], (0, 1)) == pytest.approx(sys.float_info.min)
    assert sentence_bleu([], ["left"], (1,)) == 0
    with pytest.raises(ValueError, match="weights"):
        sentence_bleu(["left"], ["left"], ())


@pytest.mark.parametrize(
    ("reference", "prediction", "hit", "pathvqa_hit"),
    [
        ("no", "A normal heart.", 1, 1),
        ("yes", "Yes!", 1, 1),
        ("yes", "no", 0, None),
        ("yes", "A fracture.", 0, 0),
        ("yes", "", 0, 0),
        ("one", "12/13/14", 1, 0),
        ("left", "no, the left", 1, 1),
        ("the", "anything", 1, 0),
    ],
)
def test_closed_answers(reference, prediction, hit, pathvqa_hit):
    assert legacy_closed_accuracy(reference, prediction) == hit
    assert pathvqa_closed_accuracy(reference, prediction) == pathvqa_hit


def test_the_first_of_the_best_covered_candidates_is_the_answer():
    candidates = ["left", "left lung", "Left", "liver"]
    assert legacy_open_accuracy("left", "the left lung", candidates) == 1
    assert legacy_open_accuracy("left lung", "the left lung", candidates) == 0
    assert legacy_open_accuracy("left lung", "lung", ["left lung"]) == 1
    assert legacy_open_accuracy("left lung", "spleen", ["left lung", "liver"]) == 1  # all are covered by nothing
    assert legacy_open_accuracy("left", "left", []) == 0
    assert legacy_open_accuracy("left", "left", ["the", "left"]) == 1


def test_yes_no_counts():
    truths = ["yes", "yes", "no", "no", "no", "left"]
    said = ["yes", "liver", "yes and no", "not", "liver", "yes"]
    records = [record(str(i), truth, "CLOSED") for i, truth in enumerate(truths)]
    scores = score_legacy(records, [predict(str(i), text) for i, text in enumerate(said)])
    counts = scores.yes_no
    assert (counts.tp, counts.fp, counts.tn, counts.fn) == (1, 1, 1, 1)
    assert (counts.precision, counts.recall, counts.f1) == (0.5, 0.5, 0.5)
    assert "summary" not in scores.metrics
    assert "recall" not in scores.metrics


def test_failures_are_empty_answers_and_stay_in_the_denominator():
    records = [
        record("a", "left lung"),
        record("b", "liver"),
        record("c", "no", "CLOSED"),
        record("d", "yes", "CLOSED"),
    ]
    scores = score_legacy(records, [predict("a", "left"), predict("b", None), predict("c", "no")], ["left lung"])
    assert scores.metrics["recall"].value == 0.25
    assert scores.metrics["closed_accuracy"].value == 0.5
    assert scores.metrics["pathvqa_closed_accuracy"].value == 0.5
    assert scores.metrics["summary"].value == 0.375
    assert scores.metrics["summary"].count == 4
    assert [item.verdict for item in scores.items] == [None, None, "tn", "fn"]


def test_a_selection_of_items_has_scores_of_its_own():
    scores = score_legacy([record("a", "left"), record("b", "liver")], [predict("a", "left"), predict("b", "lung")])
    assert scores.metrics["recall"].value == 0.5
    assert summarise_legacy(scores.items[:1]).metrics["recall"].value == 1
    assert summarise_legacy([]).metrics == {}
