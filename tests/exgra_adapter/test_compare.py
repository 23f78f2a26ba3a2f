"""Paired comparison of two models: differences, intervals, McNemar's test, the command."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exgra_adapter.cli import main
from exgra_adapter.data.records import Record, Turn, write_records
from exgra_adapter.evaluation.compare import compare_items, mcnemar, read_items
from exgra_adapter.evaluation.files import Prediction, write_answers
from exgra_adapter.evaluation.questions import Questions
from exgra_adapter.evaluation.vqa_report import report_scores

CLOSED = [Record(f"c{i}", "a.png", (Turn("Lesion?", "yes" if i % 2 else "no"),), "CLOSED") for i in range(20)]
OPEN = [Record(f"o{i}", "a.png", (Turn("Organ?", "left lung" if i % 2 else "liver"),), "OPEN") for i in range(12)]
RECORDS = [*CLOSED, *OPEN]


def answers(right):
    """Answers that are right where `right` says so, and otherwise have nothing in common with the reference."""
    wrong = {"yes": "no", "no": "yes", "liver": "left lung", "left lung": "liver"}
    return [
        Prediction(record.id, 0, "", "", record.turns[0].answer if hit else wrong[record.turns[0].answer])
        for record, hit in zip(RECORDS, right, strict=True)
    ]


def items(right, records=RECORDS, **options):
    content = report_scores(Questions(tuple(records), {}), answers(right), resamples=1, **options).to_json()
    return read_items(json.loads(json.dumps(content)), "scores.json")


HALF = [i % 3 != 0 for i in range(32)]
MOST = [i % 5 != 0 for i in range(32)]


def test_differences_are_those_of_the_scores():
    found = compare_items(items(MOST), items(HALF), resamples=200)
    for name, first, second in (
        ("strict closed_accuracy", np.mean(MOST[:20]), np.mean(HALF[:20])),
        ("legacy closed_accuracy", np.mean(MOST[:20]), np.mean(HALF[:20])),
        ("strict open_recall", np.mean(MOST[20:]), np.mean(HALF[20:])),
        ("strict exact_match", np.mean(MOST), np.mean(HALF)),
    ):
        value = found[name]
        assert (value.first, value.second) == pytest.approx((first, second))
        assert value.difference == pytest.approx(first - second)
        assert value.low <= value.difference <= value.high
    summary = found["strict summary"]
    halves = found["strict open_recall"], found["strict closed_accuracy"]
    assert summary.difference == pytest.approx(np.mean([half.difference for half in halves]))
    assert (summary.count, found["strict open_recall"].count) == (32, 12)


def test_macro_f1_is_that_of_the_report():
    report = report_scores(Questions(tuple(RECORDS), {}), answers(MOST), resamples=10)
    found = compare_items(items(MOST), items(HALF), resamples=50)
    for name in ("macro_f1_open", "macro_f1_closed"):
        value = found[f"strict {name}"]
        assert value.first == pytest.approx(report.overall.strict[name].value)
        assert value.low <= value.difference <= value.high


def test_the_same_model_differs_by_exactly_0():
    for value in compare_items(items(HALF), items(HALF), resamples=50).values():
        assert (value.difference, value.low, value.high) == (0, 0, 0)
        assert value.mcnemar is None or value.mcnemar.p_value == 1


def test_pairs_make_the_interval_narrower_than_two_intervals():
    generator = np.random.default_rng(0)
    hard = generator.random(32) < 0.5
    better = hard | (generator.random(32) < 0.1)
    value = compare_items(items(better), items(hard), resamples=2000)["strict exact_match"]
    alone = report_scores(Questions(tuple(RECORDS), {}), answers(hard)).overall.strict["exact_match"]
    assert value.high - value.low < alone.high - alone.low


def test_swapping_the_models_turns_the_signs():
    there, back = (
        compare_items(*pair, resamples=100) for pair in ((items(MOST), items(HALF)), (items(HALF), items(MOST)))
    )
    assert there.keys() == back.keys()
    for name, value in there.items():
        turned = back[name]
        assert turned.difference == pytest.approx(-value.difference)
        assert (turned.low, turned.high) == pytest.approx((-value.high, -value.low))
        if value.mcnemar is not None:
            assert turned.mcnemar.p_value == pytest.approx(value.mcnemar.p_value)


@pytest.mark.parametrize(
    ("only_first", "only_second", "p_value"), [(0, 0, 1), (1, 0, 1), (5, 0, 2 / 32), (8, 2, 112 / 1024), (3, 3, 1)]
)
def test_mcnemar_by_hand(only_first, only_second, p_value):
    first = [1] * only_first + [0] * only_second + [1, 0]
    second = [0] * only_first + [1] * only_second + [1, 0]
    test = mcnemar(first, second)
    assert (test.only_first, test.only_second) == (only_first, only_second)
    assert test.p_value == pytest.approx(p_value)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=40))
def test_mcnemar_p_values_are_probabilities(pairs):
    test = mcnemar([a for a, _ in pairs], [b for _, b in pairs])
    assert 0 < test.p_value <= 1


def test_different_questions_are_refused():
    with pytest.raises(ValueError, match=r"got 12 that the second lacks \(id 'o0', id 'o1', id 'o10', \.\.\.\)"):
        compare_items(items(HALF), {key: value for key, value in items(HALF).items() if key[0][0] == "c"})
    with pytest.raises(ValueError, match="got 32 that the first lacks"):
        compare_items({}, items(HALF))
    with pytest.raises(ValueError, match="at least one question"):
        compare_items({}, {})


def test_different_references_and_types_are_refused():
    other = [Record(r.id, r.image, (Turn("Organ?", "spleen"),), "OPEN") if r.id == "o3" else r for r in RECORDS]
    with pytest.raises(ValueError, match=r"same reference .* 'left lung' and 'spleen' for id 'o3'"):
        compare_items(items(HALF), items(HALF, other))
    other = [Record(r.id, r.image, r.turns, "OPEN") for r in RECORDS]
    with pytest.raises(ValueError, match=r"same answer type .* 'CLOSED' and 'OPEN' for id 'c0'"):
        compare_items(items(HALF), items(HALF, other))


def test_metrics_that_only_one_file_has_are_left_out():
    found = compare_items(items(HALF), items(HALF, shown="strict"), resamples=10)
    assert {name.split()[0] for name in found} == {"strict"}


@pytest.mark.parametrize(
    "content",
    [{}, {"items": 3}, {"items": [{}]}, {"items": [3]}, {"items": [{"id": "a", "turn": 0, "answer_type": "OPEN"}]}],
)
def test_other_json_is_no_scores_file(content):
    with pytest.raises(ValueError, match=r"^read_items: x\.json must be a scores file"):
        read_items(content, "x.json")


def test_a_question_that_occurs_twice_is_refused():
    item = {"id": "a", "turn": 0, "answer_type": "OPEN", "exact": 1, "correct": 1}
    with pytest.raises(ValueError, match="each question once; got id 'a'"):
        read_items({"items": [item, item]}, "x.json")


@pytest.fixture
def files(tmp_path):
    write_records(tmp_path / "test.json", RECORDS)
    for name, right in (("a", MOST), ("b", HALF)):
        write_answers(tmp_path / f"{name}.jsonl", answers(right))
        options = ["--gt", tmp_path / "test.json", "--pred", tmp_path / f"{name}.jsonl"]
        assert main(["evaluate", "vqa", *map(str, options), "--json", str(tmp_path / f"{name}.json")]) == 0
    return tmp_path


def compare(*arguments: object) -> int:
    return main(["evaluate", "compare", *map(str, arguments)])


def test_command_gives_the_same_for_scores_and_for_answers(files, capsys):
    capsys.readouterr()
    assert compare(files / "a.json", files / "b.json", "--resamples", 100, "--json", files / "scores.json") == 0
    table = capsys.readouterr().out
    assert "McNemar" in table
    assert "published scripts" in table
    options = ["--gt", files / "test.json", "--resamples", 100, "--json"]
    assert compare(files / "a.jsonl", files / "b.jsonl", *options, "-") == 0
    from_answers = json.loads(capsys.readouterr().out)
    assert compare(files / "a.json", files / "b.jsonl", *options, files / "mixed.json") == 0
    from_scores, mixed = (json.loads((files / name).read_text()) for name in ("scores.json", "mixed.json"))
    assert from_answers["metrics"] == from_scores["metrics"] == mixed["metrics"]
    assert from_scores["metrics"]["strict closed_accuracy"]["mcnemar"]["only_first"] > 0


def test_command_draws_the_differences(files):
    assert compare(files / "a.json", files / "b.json", "--resamples", 20, "--plot", files / "new" / "plot.png") == 0
    assert (files / "new" / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_command_reports_failures_in_one_sentence(files, capsys):
    lines = (files / "a.jsonl").read_text().splitlines(keepends=True)
    (files / "short.jsonl").write_text("".join(lines[:-2]))
    (files / "empty.jsonl").write_text("")
    (files / "broken.json").write_text("{")
    (files / "list.json").write_text("[]")
    truth = ["--gt", files / "test.json"]
    for options, message in [
        ([files / "short.jsonl", files / "b.jsonl", *truth], "2 that the first lacks"),
        ([files / "a.jsonl", files / "empty.jsonl", *truth], "32 that the second lacks"),
        ([files / "broken.json", files / "b.json"], "broken.json must be a scores file"),
        ([files / "list.json", files / "b.json"], "got list"),
        ([files / "absent.json", files / "b.json"], "absent.json must be an existing file"),
        ([files / "test.json", files / "b.json"], "got list"),
    ]:
        capsys.readouterr()
        assert compare(*options) == 1
        captured = capsys.readouterr()
        assert message in captured.err
        assert "Traceback" not in captured.err
        assert captured.out == ""


def test_wrong_usage_has_exit_code_2():
    assert compare(Path("a.json")) == 2
    assert compare("a.jsonl", "b.jsonl") == 2
    assert compare("a.json", "b.json", "--gt", "test.json") == 2
    for option in (["--candidates", "c.json"], ["--allow-duplicate-ids"]):
        assert compare("a.json", "b.json", *option) == 2, "scores files were scored before"
    assert compare("a.json", "b.json", "--resamples", 0) == 2
