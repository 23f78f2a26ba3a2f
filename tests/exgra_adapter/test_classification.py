"""Multiple-choice questions: files, mapping of answers, likelihoods, accuracies, the command."""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from exgra_adapter.evaluation import classification, classify_command
from exgra_adapter.evaluation.choices import LETTERS, ChoiceItem, choice_question, map_choice, read_choice_items
from exgra_adapter.evaluation.classification import ChoiceResult, classify, score_choices
from exgra_adapter.evaluation.classification_report import format_classification, format_items, plot_accuracy
from exgra_adapter.evaluation.journal import Journal
from exgra_adapter.evaluation.likelihood import answer_log_likelihoods
from exgra_adapter.models import build_tiny_model, load_model
from exgra_adapter.prompts import IMAGE_TAG, prompt_format

SCRIPT = Path(__file__).parent / "distributed" / "classify.py"
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


def item(answer: int = 0, options: tuple[str, ...] = ORGANS, **changes: Any) -> ChoiceItem:
    values = {"id": "1", "dataset": "d", "modality": "m", "question_type": "t", "question": "?", "image": "a.png"}
    return ChoiceItem(**{**values, "options": options, "answer": answer, **changes})


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny random model, ten questions, and the images of all but one."""
    folder = tmp_path_factory.mktemp("classification")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    for number in range(10):
        if number != 4:
            picture = Image.fromarray(rng.integers(0, 256, (64, 64), dtype=np.uint8))
            picture.save(folder / "images" / f"{number}.png")
    (folder / "questions.json").write_text(json.dumps([question(number) for number in range(10)]))
    model, processor = build_tiny_model([*ORGANS, question(0)["question"]], seed=0)
    with torch.no_grad():  # Random weights find everything equally likely.
        for parameter in model.model.language_model.parameters():
            parameter.mul_(3)
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    return folder


def run(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    classify_command.add_parser(parser.add_subparsers(required=True))
    options = parser.parse_args(["classify", *map(str, arguments)])
    return int(options.run(options))


def run_together(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs the command in two processes."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port)]
    return subprocess.run(
        [*command, str(SCRIPT), *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


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


@pytest.mark.parametrize("prompt", ["llava", "chat_template"])
def test_likelihoods_are_those_of_a_loop_over_tokens(setting, prompt):
    model, processor = load_model(setting / "model")
    processor.chat_template = (
        "{% for m in messages %}<|{{ m.role }}|>{% for c in m.content %}{% if c.type == 'image' %}<image>"
        "{% else %}{{ c.text }}{% endif %}{% endfor %}{% if m.role == 'assistant' %}</s>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    pictures = [Image.open(setting / "images" / f"{number}.png").convert("RGB") for number in range(2)]
    asked = [
        ("Which organ?", "Lung", pictures[0]),
        ("Which of all these organs is shown here?", "Right kidney, without doubt", pictures[1]),
        ("Which organ?", "Lung", pictures[1]),
    ]
    found = answer_log_likelihoods(model, processor, prompt, asked, batch_size=2)
    formatted = prompt_format(prompt, processor)
    for (text, answer, picture), (likelihood, count) in zip(asked, found, strict=True):
        whole, _ = formatted.conversation([(text, answer)])
        before = formatted.prompt(text)
        images = [[picture]] * 2
        both = [processor(text=each.replace(IMAGE_TAG, "<image>"), images=image, return_tensors="pt")
                for each, image in zip((before, whole), images, strict=True)]  # fmt: skip
        start, tokens = both[0]["input_ids"].shape[1], both[1]["input_ids"]
        assert torch.equal(tokens[:, :start], both[0]["input_ids"])
        expected = 0.0
        for end in range(start, tokens.shape[1]):
            with torch.inference_mode():
                logits = model(
                    input_ids=tokens[:, :end],
                    attention_mask=torch.ones_like(tokens[:, :end]),
                    pixel_values=both[1]["pixel_values"],
                ).logits[0, -1]
            expected += float(logits.double().log_softmax(-1)[tokens[0, end]])
        assert count == tokens.shape[1] - start
        assert likelihood == pytest.approx(expected, rel=1e-5)
    assert found[0][0] != pytest.approx(found[2][0], rel=1e-4)  # the image counts
    assert found == answer_log_likelihoods(model, processor, prompt, asked, batch_size=2)


def test_an_option_is_chosen_by_each_rule():
    result = ChoiceResult(item(2), "C", (-9.0, -8.0, -8.5, -20.0), (1, 2, 4, 20), None)
    assert [result.chosen(rule) for rule in ("generation", "likelihood", "likelihood_per_token")] == [2, 1, 3]
    assert [result.correct(rule) for rule in ("generation", "likelihood")] == [True, False]
    assert ChoiceResult(item(), None, (-1.0, math.nan), (1, 1)).chosen("likelihood") is None
    # Files repeat options: whichever of the equal ones is chosen is right.
    assert ChoiceResult(item(1, ("no", "yes", "yes")), "C").correct("generation")


def test_failures_stay_in_the_denominator():
    results = [
        ChoiceResult(item(0, dataset="x"), "A"),
        ChoiceResult(item(0, dataset="x"), "Lung"),
        ChoiceResult(item(0, dataset="y", options=ORGANS[:2]), "none of them"),
        ChoiceResult(item(0, dataset="y"), error="no image"),
    ]
    scores = score_choices(results, "generation")
    found = scores.rules["generation"]
    assert (found.accuracy.value, found.accuracy.count, found.failed, found.unmapped) == (0.5, 4, 1, 1)
    assert {name: (each.value, each.count) for name, each in found.by_dataset.items()} == {"x": (1, 2), "y": (0, 2)}
    assert found.accuracy.low < 0.5 < found.accuracy.high
    assert scores.chance == pytest.approx((0.25 * 3 + 0.5) / 4)
    assert scores.chance_by["dataset"] == {"x": 0.25, "y": pytest.approx(0.375)}
    assert score_choices(results, "generation", seed=0) == scores
    with pytest.raises(ValueError, match="at least one question"):
        score_choices([], "both")


def test_table_and_lines_hold_every_group_and_question():
    odd = 'say "no",\nor \u2028 Où'
    results = [ChoiceResult(item(0, dataset="x" * 50, question=odd), odd, (-1.0, -2.0), (1, 2), None)]
    results = [ChoiceResult(item(0, ORGANS[:2], dataset="x" * 50, question=odd), odd, (-1.0, -2.0), (1, 2))]
    scores = score_choices(results, "both")
    table = format_classification(scores)
    assert "x" * 33 + "…" in table
    assert max(map(len, table.splitlines())) <= 120
    [line] = csv.DictReader(io.StringIO(format_items(results, scores)))
    assert (line["question"], line["text"], line["answer"]) == (odd, odd, "A")
    assert (line["generation_choice"], line["generation_correct"]) == ("", "0")
    assert (line["likelihood_choice"], line["likelihood_correct"]) == ("A", "1")
    assert [float(each) for each in line["log_likelihoods"].split()] == [-1, -2]


@pytest.mark.parametrize("count", [1, 30])
def test_bars_are_drawn_for_one_group_and_for_many(count):
    results = [ChoiceResult(item(0, dataset=f"data set {place}"), "A" if place % 3 else "B") for place in range(count)]
    picture = Image.open(io.BytesIO(plot_accuracy(score_choices(results, "generation"), "dataset")))
    assert picture.height > 20 * count
    assert np.unique(np.asarray(picture.convert("L"))).size > 10


def test_command_writes_everything_and_repeats_itself(setting, tmp_path, capsys):
    options = ["--model", setting / "model", "--data", setting / "questions.json", "--images", setting / "images"]
    options += ["--output", tmp_path / "out", "--max-new-tokens", 4, "--batch-size", 3]
    assert run(*options) == 0
    printed = capsys.readouterr().out
    assert "10 questions\n" in printed
    assert "1 questions could not be asked; the first: open_image" in printed
    written = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    pictures = ["accuracy_by_dataset.png", "accuracy_by_modality.png"]
    assert sorted(written) == [*pictures, "classification.json", "items.csv"]
    scores = json.loads(written["classification.json"])
    assert list(scores["rules"]) == ["generation", "likelihood", "likelihood_per_token"]
    assert scores["questions"] == scores["rules"]["likelihood"]["accuracy"]["count"] == 10
    assert [found["failed"] for found in scores["rules"].values()] == [1, 1, 1]
    assert scores["rules"]["likelihood"]["by_dataset"]["Fundus"]["count"] == 5
    lines = list(csv.DictReader(io.StringIO(written["items.csv"].decode())))
    assert [line["question_id"] for line in lines] == [f"q{number}" for number in range(10)]
    assert [bool(line["error"]) for line in lines] == [number == 4 for number in range(10)]
    right = sum(int(line["likelihood_correct"]) for line in lines)
    assert scores["rules"]["likelihood"]["accuracy"]["value"] == right / 10
    assert run(*options) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == written


def test_interrupted_classification_is_continued(setting, tmp_path, monkeypatch):
    items = read_choice_items(setting / "questions.json")
    kept: list[Any] = []

    def classified(output: str, write: Callable[..., None] = kept.append, **changes: Any) -> list[ChoiceResult]:
        values = {"batch_size": 4, "max_new_tokens": 3, "console_progress": False, **changes}
        target = tmp_path / output / "items.csv"
        return classify(setting / "model", items, setting / "images", target, write=write, **values)

    whole = classified("whole")
    assert kept == [whole]
    append = Journal.append

    def killed(self: Journal, entries: Any) -> None:
        append(self, entries)
        raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "append", killed)
    with pytest.raises(KeyboardInterrupt):
        classified("part")
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"^classify: method must be the same"):
        classified("part", method="likelihood")
    read = []
    score_options = classification._score_options

    def noted(reader: Any, asked: Any, *more: Any) -> Any:
        read.extend(each.id for each in asked)
        return score_options(reader, asked, *more)

    monkeypatch.setattr(classification, "_score_options", noted)
    assert classified("part") == whole
    assert read == [f"q{number}" for number in range(4, 10)]
    # Results that could not be written are not lost either.
    monkeypatch.undo()

    def full(results: list[ChoiceResult]) -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        classified("full", write=full)
    monkeypatch.setattr(classification.ModelReader, "loaded", property(lambda self: pytest.fail("asked again")))
    assert classified("full") == whole


@pytest.mark.parametrize("method", ["generation", "likelihood"])
def test_one_method_gives_what_both_give(setting, tmp_path, method):
    items = read_choice_items(setting / "questions.json")
    found = {}
    for each in (method, "both"):
        found[each] = classify(
            setting / "model", items, setting / "images", tmp_path / each, each, write=lambda _: None,
            console_progress=False, max_new_tokens=3,
        )  # fmt: skip
    for one, two in zip(*found.values(), strict=True):
        if method == "generation":
            assert (one.text, one.log_likelihoods) == (two.text, None)
        else:
            assert (one.text, one.log_likelihoods, one.tokens) == (None, two.log_likelihoods, two.tokens)


def test_an_option_that_spells_a_special_token_fails_alone(setting, tmp_path):
    items = [item(0, image="0.png"), item(0, ("a </s>", "b"), image="1.png"), item(1, image="2.png")]
    found = classify(
        setting / "model", items, setting / "images", tmp_path / "items.csv", write=lambda _: None,
        console_progress=False, max_new_tokens=3,
    )  # fmt: skip
    assert [each.error is None for each in found] == [True, False, True]
    assert "special token" in str(found[1].error)
    assert found[1].chosen("likelihood") is None


def test_the_question_shows_all_options():
    assert choice_question(item()).splitlines()[1:5] == [
        "A. Lung", "B. Liver.", "C. Left kidney", "D. Right kidney",
    ]  # fmt: skip


@pytest.mark.parametrize("wrong", [["--method", "guess"], ["--batch-size", "0"], []])
def test_wrong_usage_is_refused(wrong):
    with pytest.raises(SystemExit):
        run("--model", "m", "--data", "d", "--images", "i", *wrong)


@pytest.mark.slow
def test_two_processes_give_the_files_of_one(setting, tmp_path, capsys):
    options = ["--model", setting / "model", "--data", setting / "questions.json", "--images", setting / "images"]
    options += ["--max-new-tokens", 4, "--batch-size", 3]
    assert run(*options, "--output", tmp_path / "one") == 0
    done = run_together(*options, "--output", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("10 questions\n") == 1
    assert done.stdout.replace("/two", "/one") == capsys.readouterr().out
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two


@pytest.mark.slow
def test_an_error_of_the_other_process_ends_all_and_is_told(setting, tmp_path):
    options = ["--model", setting / "model", "--data", setting / "questions.json", "--images", setting / "images"]
    options += ["--output", tmp_path, "--max-new-tokens", 2, "--batch-size", 3, "--on-error", "raise"]
    done = run_together(*options)  # the image that is missing belongs to the second batch
    assert done.returncode == 1
    assert "process 2: open_image" in done.stderr
    assert "4.png" in done.stderr
    assert "every process must finish its share" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["items.csv.journal-0"]
