"""Multiple-choice questions: files, and how answers name options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exgra_adapter.evaluation.choices import LETTERS, ChoiceItem, choice_question, map_choice, read_choice_items

ORGANS = ("Lung", "Liver.", "Left kidney", "Right kidney")


def question(number: int, **changes: Any) -> dict[str, Any]:
    options = {f"option_{letter}": option for letter, option in zip(LETTERS, ORGANS, strict=False)}
    return {
        "dataset": "Chest CT" if number % 2 else "Fundus",
        "question_id": f"q{number}",
        "question_type": "Anatomy",
        "modality_type": "CT" if number % 2 else "Fundus Photography",
        "question": f"Which organ is shown in picture {number}?",
        "gt_answer": ORGANS[number % 4],
        "image_path": f"{number}.png",
        **options,
        **changes,
    }


def write(path: Path, *questions: Any) -> Path:
    path.write_text(json.dumps(list(questions)), encoding="utf-8")
    return path


def test_the_published_schema_is_read(data_folder):
    [found] = read_choice_items(data_folder / "medvqa" / "omnimedvqa" / "schema_example.json")
    assert (found.dataset, found.modality) == ("Covid CT", "CT(Computed Tomography)")
    assert found.options[found.answer] == "Chest region."
    assert len(found.options) == 4


def test_a_folder_is_read_file_after_file(tmp_path):
    write(tmp_path / "b.json", question(2, dataset="B"))
    write(tmp_path / "a.json", question(1, option_D="", option_C=None), question(2, modality_type=None))
    (tmp_path / "notes.txt").write_text("no questions")
    found = read_choice_items(tmp_path)
    assert [(each.dataset, each.id) for each in found] == [("Chest CT", "q1"), ("Fundus", "q2"), ("B", "q2")]
    assert found[0].options == ORGANS[:2]
    assert found[1].modality == "unknown"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"question_id": None}, "key 'question_id'"),
        ({"question": " "}, "key 'question'"),
        ({"image_path": True}, "key 'image_path'"),
        ({"gt_answer": "Brain"}, "'gt_answer' must be one of the options; got 'Brain'"),
        ({"option_B": None, "option_C": None, "option_D": ""}, "at least two options; got 1"),
        ({"question_id": "q0"}, "unique in their dataset; got 'q0' at sample 0"),
    ],
)
def test_broken_questions_are_refused(tmp_path, changes, message):
    path = write(tmp_path / "q.json", question(0), question(2, **changes))
    with pytest.raises(ValueError, match=rf"^read_choice_items: .*{message}"):
        read_choice_items(path)


@pytest.mark.parametrize("content", ["[]", "{", "[1]", ""])
def test_files_without_questions_are_refused(tmp_path, content):
    (tmp_path / "q.json").write_text(content)
    with pytest.raises(ValueError, match=r"^read_choice_items: "):
        read_choice_items(tmp_path)
    with pytest.raises(ValueError, match=r"^read_choice_items: "):
        read_choice_items(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("B", 1), ("b.", 1), ("(B)", 1), ("[b]", 1), ("B. Liver.", 1), ("B) the organ is large", 1), ("B: Lung", None),
        ("B.Liver", 1), ("**B**", 1), ("B\nbecause it is brown", 1), ("E", None), ("A. B. C.", None), ("A or B", None),
        ("A, B", None), ("B. Liver, not A. Lung", 1), ("A large liver", 1), ("a lung", 0), ("I think so.", None),
        ("The answer is C.", 2), ("Answer: (D)", 3), ("The answer is a mystery", None), ("Option A, or option B", None),
        ("LIVER", 1), ("left  kidney!", 2), ("It is the right kidney.", 3), ("kidney", None), ("lung and liver", None),
        ("", None), ("...", None), ("the lungs", None), ("The answer is E.", None), ("liver, liver", 1),
    ],
)  # fmt: skip
def test_answers_name_options_by_clear_rules(answer, expected):
    assert map_choice(answer, ORGANS) == expected


def test_options_that_only_signs_tell_apart():
    assert map_choice("T2+", ("T2", "T2+")) == 1
    assert map_choice("T2", ("T2", "T2+")) == 0
    assert map_choice("It shows T2", ("T2", "T2+")) is None
    assert map_choice("1", ("1", "2")) == 0
    assert map_choice("A. Vitamin C.", ("Vitamin C", "Vitamin D", "Iron")) == 0
    assert map_choice("It is no tumour", ("Tumour", "No tumour")) == 1


_WORDS = st.lists(st.sampled_from(["left", "lung", "Liver", "ödem", "2", "x-ray"]), min_size=1, max_size=3)


@given(
    st.lists(_WORDS.map(" ".join), min_size=2, max_size=5, unique_by=str.casefold),
    st.data(),
    st.sampled_from(["{}", " {}. ", "{}\n", "({})", "The answer is {}."]),
)
def test_letters_and_whole_texts_always_name_their_option(options, data, form):
    place = data.draw(st.integers(0, len(options) - 1))
    assert map_choice(form.format(LETTERS[place]), options) == place
    assert map_choice(f" {options[place].upper()}.", options) == place
    assert map_choice(f"{LETTERS[place]}. {options[place]}", options) == place


@given(st.text(), st.lists(st.text(min_size=1), min_size=1, max_size=26))
def test_any_text_is_mapped_or_not(answer, options):
    assert map_choice(answer, options) in (None, *range(len(options)))


def test_the_question_shows_all_options():
    assert choice_question(ChoiceItem("1", "d", "m", "t", "?", "a.png", ORGANS, 0)).splitlines()[1:5] == [
        "A. Lung", "B. Liver.", "C. Left kidney", "D. Right kidney",
    ]  # fmt: skip
