"""Answer files, generation and the command `exgra-med evaluate vqa`."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from exgra_adapter.cli import main
from exgra_adapter.data.records import Record, Turn, write_records
from exgra_adapter.evaluation.files import Prediction, read_answers, read_candidates, write_answers
from exgra_adapter.evaluation.generate import generate_answers
from exgra_adapter.models import build_tiny_model, load_model

QUESTIONS = ["Which organ is shown?", "Is a lesion visible?", "What?", "On which side of the picture are the lesions?"]


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """A tiny model with random weights, four pictures and a question about each."""
    folder = tmp_path_factory.mktemp("setting")
    (folder / "images").mkdir()
    generator = np.random.default_rng(0)
    records = []
    for number, question in enumerate(QUESTIONS):
        picture = generator.integers(0, 256, (64, 64), dtype=np.uint8)
        Image.fromarray(picture).save(folder / "images" / f"{number}.png")
        kind = "CLOSED" if number == 1 else "OPEN"
        records.append(Record(str(number), f"{number}.png", (Turn(question, "yes" if number == 1 else "liver"),), kind))
    write_records(folder / "test.json", records)
    model, processor = build_tiny_model([*QUESTIONS, "yes", "liver"], seed=0)
    with torch.no_grad():  # Random weights repeat one token; larger ones make the answers depend on the prompt.
        for parameter in model.model.language_model.parameters():
            parameter.mul_(3)
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    return folder, records


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def evaluate(*arguments: object) -> int:
    return main(["evaluate", "vqa", *map(str, arguments)])


def test_batches_with_padding_answer_like_single_questions(setting):
    folder, records = setting
    model, processor = load_model(folder / "model")
    options = {"max_new_tokens": 6, "console_progress": False}
    alone = generate_answers(model, processor, records, folder / "images", batch_size=1, **options)
    together = generate_answers(model, processor, records, folder / "images", batch_size=4, **options)
    assert alone == together
    assert [p.id for p in alone] == [r.id for r in records]
    assert len({p.prediction for p in alone}) > 1


def test_generation_restores_the_training_mode_and_leaves_the_weights_alone(setting):
    folder, records = setting
    model, processor = load_model(folder / "model")
    model.train()
    before = [parameter.clone() for parameter in model.parameters()]
    generate_answers(model, processor, records[:1], folder / "images", max_new_tokens=2, console_progress=False)
    assert model.training
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_an_unreadable_picture_fails_alone(setting, tmp_path):
    folder, records = setting
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes((folder / "images" / f"{number}.png").read_bytes())
    (tmp_path / "1.png").write_bytes(b"no picture")
    (tmp_path / "2.png").unlink()
    model, processor = load_model(folder / "model")
    predictions = generate_answers(model, processor, records, tmp_path, max_new_tokens=3, console_progress=False)
    assert [p.prediction is None for p in predictions] == [False, True, True, False]
    assert "1.png" in predictions[1].error
    intact = generate_answers(model, processor, records, folder / "images", max_new_tokens=3, console_progress=False)
    assert predictions[3] == intact[3]


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"max_new_tokens": 0}])
def test_generation_refuses_numbers_out_of_range(setting, wrong):
    folder, records = setting
    with pytest.raises(ValueError, match=r"^generate_answers: "):
        generate_answers(*load_model(folder / "model"), records, folder / "images", **wrong)


def test_answer_file_round_trip(tmp_path):
    predictions = [
        Prediction("7", 0, "Où?", "foie", "foie\u2028 line"),
        Prediction("7", 1, "Side?", "left", None, "no picture"),
    ]
    write_answers(tmp_path / "answers.jsonl", predictions)
    assert read_answers(tmp_path / "answers.jsonl") == predictions
    assert [path.name for path in tmp_path.iterdir()] == ["answers.jsonl"]


def test_answer_files_of_other_tools_are_read(tmp_path):
    path = write(
        tmp_path / "a.jsonl", {"question_id": 7, "text": 3.5, "model_id": "x"}, "", {"question_id": "b", "text": ""}
    )
    assert [(p.id, p.turn, p.prediction) for p in read_answers(path)] == [("7", 0, "3.5"), ("b", 0, "")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{broken", "line 2 must be a JSON object"),
        ("[1]", "line 2 must be a JSON object"),
        ({"text": "x"}, "line 2 must have the key 'question_id'"),
        ({"question_id": "b"}, "line 2 must have the key 'text'"),
        ({"question_id": True, "text": "x"}, "line 2: question_id must be"),
        ({"question_id": "b", "text": ["x"]}, "line 2: text must be"),
        ({"question_id": "b", "text": "x", "turn": -1}, "line 2: turn must be"),
        ({"question_id": "a", "text": "x"}, "line 2 must answer a new question; got question_id 'a', turn 0.* line 1"),
    ],
)
def test_broken_answer_files_are_refused_with_the_line(tmp_path, line, message):
    path = write(tmp_path / "a.jsonl", {"question_id": "a", "text": "liver"}, line)
    with pytest.raises(ValueError, match=message):
        read_answers(path)


def test_answer_files_must_be_text(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="must be UTF-8 text"):
        read_answers(path)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"0": []}', '{"0": [null]}'])
def test_broken_candidates_are_refused(tmp_path, content):
    path = tmp_path / "candidates.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"^read_candidates: "):
        read_candidates(path)


def test_command_scores_an_answer_file(setting, tmp_path, capsys):
    folder, _ = setting
    answers = write(
        tmp_path / "answers.jsonl", {"question_id": "0", "text": "The liver."}, {"question_id": "1", "text": "No."}
    )
    (tmp_path / "candidates.json").write_text('{"0": ["liver", "lung", 2]}')
    options = ["--gt", folder / "test.json", "--pred", answers, "--candidates", tmp_path / "candidates.json"]
    assert evaluate(*options, "--json", tmp_path / "scores.json") == 0
    table = capsys.readouterr().out
    assert "4 questions (3 open, 1 closed), 2 without an answer" in table
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["open_recall"]["value"] == pytest.approx(1 / 3)
    assert scores["closed_accuracy"]["value"] == 0
    assert scores["open_candidates"]["value"] == pytest.approx(1 / 3)
    assert evaluate(*options, "--json", "-") == 0
    assert json.loads(capsys.readouterr().out) == scores


def test_command_answers_and_scores(setting, tmp_path, capsys):
    folder, records = setting
    options = ["--model", folder / "model", "--data", folder / "test.json", "--images", folder / "images"]
    options += ["--output", tmp_path / "new" / "folder", "--max-new-tokens", 4]
    assert evaluate(*options) == 0
    assert "4 questions" in capsys.readouterr().out
    written = {path.name: path.read_bytes() for path in (tmp_path / "new" / "folder").iterdir()}
    assert sorted(written) == ["answers.jsonl", "scores.json"]
    assert [p.id for p in read_answers(tmp_path / "new" / "folder" / "answers.jsonl")] == [r.id for r in records]
    assert evaluate(*options) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "new" / "folder").iterdir()} == written


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--gt", "g.json"],
        ["--model", "m", "--data", "d.json"],
        ["--model", "m", "--gt", "g.json"],
        ["--gt", "g.json", "--pred", "p.jsonl", "--batch-size", "0"],
        ["--gt", "g.json", "--pred", "p.jsonl", "--seed", "-1"],
        ["--gt", "g.json", "--pred", "p.jsonl", "--unknown"],
    ],
)
def test_wrong_usage_has_exit_code_2(options):
    assert evaluate(*options) == 2


def test_failures_have_exit_code_1_and_one_sentence(setting, tmp_path, capsys):
    folder, _ = setting
    broken = write(tmp_path / "broken.jsonl", "{")
    unknown = write(tmp_path / "unknown.jsonl", {"question_id": "9", "text": "x"})
    (tmp_path / "object.json").write_text("{}")
    duplicates = write(
        tmp_path / "duplicates.json", (folder / "test.json").read_text().replace('"id": "1"', '"id": "0"')
    )
    truth = folder / "test.json"
    for options, message in [
        (["--gt", truth, "--pred", broken], "line 1"),
        (["--gt", truth, "--pred", unknown], "id '9'"),
        (["--gt", truth, "--pred", tmp_path / "absent.jsonl"], "absent.jsonl"),
        (["--gt", tmp_path / "object.json", "--pred", unknown], "list"),
        (["--gt", duplicates, "--pred", unknown], "unique"),
        (["--model", "x", "--data", truth, "--images", tmp_path / "absent", "--output", tmp_path], "absent"),
        (["--model", tmp_path, "--data", truth, "--images", folder / "images", "--output", tmp_path], "config.json"),
    ]:
        assert evaluate(*options) == 1
        captured = capsys.readouterr()
        assert message in captured.err
        assert "Traceback" not in captured.err
        assert captured.out == ""
