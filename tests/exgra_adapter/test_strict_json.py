"""NaN, infinities and halves of characters, which Python reads and JSON does not have: refused where they stand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exgra_adapter import strict_json
from exgra_adapter.data.files import read_records
from exgra_adapter.endpoint import JournalIndex
from exgra_adapter.endpoint.schema import parse_json_object
from exgra_adapter.evaluation.chat_files import read_questions
from exgra_adapter.evaluation.choices import read_choice_items
from exgra_adapter.evaluation.files import read_answers, read_candidates

NO_VALUES = ("NaN", "Infinity", "-Infinity", "1e999", "-1e999", r'"\ud800"')
TEXTS = st.text(st.characters(codec="utf-8"))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(VALUES, st.booleans())
def test_all_else_is_read_as_ever(value: object, plain: bool):
    text = json.dumps(value, ensure_ascii=plain)
    assert strict_json.decode(text) == json.loads(text) == value


@pytest.mark.parametrize("value", NO_VALUES)
@pytest.mark.parametrize("form", ["%s", "[1, %s]", '{"a": {"b": [%s]}}'])
def test_what_json_does_not_have_is_refused(value: str, form: str):
    with pytest.raises(ValueError, match=r"is no JSON value|is too large|half of a surrogate pair"):
        strict_json.decode(form % value)


def test_half_of_a_pair_is_refused_as_a_key_too():
    with pytest.raises(ValueError, match="half of a surrogate pair"):
        strict_json.decode(r'{"\udc00": 1}')
    assert strict_json.decode(r'"\ud83d\ude00"') == "\U0001f600"


def test_too_many_brackets_are_a_value_error():
    with pytest.raises(ValueError, match="too many brackets"):
        strict_json.decode("[" * 100_000)


@pytest.mark.parametrize("value", NO_VALUES)
@pytest.mark.parametrize("key", ["text", "question_id", "prompt", "answer", "error", "anything"])
def test_answer_files(tmp_path: Path, key: str, value: str):
    line = {"question_id": "1", "text": "yes", "prompt": "?", "answer": "no", key: "HERE"}
    path = tmp_path / "answers.jsonl"
    path.write_text('{"question_id": 0, "text": "a"}\n' + json.dumps(line).replace('"HERE"', value))
    with pytest.raises(ValueError, match=r"answers\.jsonl, line 2 must be a JSON object; .*what is missing is null"):
        read_answers(path)
    path.write_text(json.dumps(line).replace('"HERE"', "7"))
    assert len(read_answers(path)) == 1


@pytest.mark.parametrize("value", NO_VALUES)
def test_other_files(tmp_path: Path, value: str):
    def written(name: str, content: object) -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(content).replace('"HERE"', value))
        return path

    talk = [{"from": "human", "value": "?"}, {"from": "gpt", "value": "HERE"}]
    question = {"question_id": 1, "image": "a", "text": "HERE", "reference": "b", "fig_caption": "c"}
    choice = {
        "question_id": 1,
        "question": "?",
        "image_path": "a",
        "gt_answer": "A",
        "option_A": "A",
        "option_B": "HERE",
    }
    named = {"question_id": 1, "question": "?", "image_path": "a", "gt_answer": "A", "option_A": "A", "option_B": "B"}
    for read, path in (
        (read_candidates, written("candidates.json", {"0": ["yes", "HERE"]})),
        (read_records, written("records.json", [{"id": 1, "image": "a.png", "conversations": talk}])),
        (read_records, written("records.jsonl", {"id": "HERE", "image": "a.png", "conversations": talk})),
        (read_questions, written("questions.jsonl", question)),
        (read_choice_items, written("choices.json", [choice])),
        (read_choice_items, written("groups.json", [named | {"dataset": "HERE"}])),
    ):
        with pytest.raises(ValueError, match=path.name):
            read(path)
    path = tmp_path / "journal.jsonl"
    item = '{"key": "a", "status": "ok", "content": {"score": HERE}}'
    path.write_text(f'{{"format": 1, "run": {{}}}}\n{item.replace("HERE", value)}\n')
    with pytest.raises(ValueError, match=r"line 2 of .*journal\.jsonl"):
        JournalIndex(path)
    if "u" not in value:
        with pytest.raises(ValueError, match="broken JSON"):
            parse_json_object(f'{{"score": {value}}}')


def test_replies_are_found_in_linear_time():
    assert parse_json_object("```json\n" + "{}" + " " * 1_000_000 + "```") == {}
    for text in ("```json" + "\n" * 1_000_000, "```" + "a" * 1_000_000, "``` " * 200_000):
        with pytest.raises(ValueError, match="broken JSON"):
            parse_json_object(text)


def test_finite_numbers_of_any_length_stay(tmp_path: Path):
    assert strict_json.decode("1e308") == 1e308
    assert math.copysign(1, strict_json.decode("-0.0")) == -1
    assert strict_json.decode("1e-999") == 0
