"""Answer files, generation and the command `exgra-med evaluate vqa`."""

import csv
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
from exgra_adapter.evaluation.questions import number_repeated_predictions, read_questions
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


@pytest.fixture
def typed(tmp_path):
    """Three questions with types, and answers to two of them, one with a comma, a quote and a line end."""
    samples = [
        {"id": 1, "question_type": "PRES", "answer_type": "CLOSED", "conversations": turn("Lesion?", "no")},
        {"id": 2, "question_type": "ORGAN, POS", "answer_type": "OPEN", "conversations": turn("Où?", "left lung")},
        {"id": 3, "modality": "CT", "answer_type": "OPEN", "conversations": turn("What?", "liver")},
    ]
    (tmp_path / "test.json").write_text(json.dumps([{"image": "a.png", **sample} for sample in samples]))
    answers = [{"question_id": 1, "text": "It is normal."}, {"question_id": 2, "text": 'left, "left"\nlung'}]
    return ["--gt", tmp_path / "test.json", "--pred", write(tmp_path / "answers.jsonl", *answers)]


def turn(question, answer):
    return [{"from": "human", "value": f"{question} <image>"}, {"from": "gpt", "value": answer}]


def test_command_shows_strict_and_published_scores_side_by_side(typed, tmp_path, capsys):
    assert evaluate(*typed, "--json", tmp_path / "scores.json", "--latex") == 0
    table = capsys.readouterr().out
    for text in ("strict", "published scripts", "macro-F1", "question_type", "modality", "ORGAN", "unknown", "TN 1"):
        assert text in table
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["closed_accuracy"]["value"] == scores["strict"]["metrics"]["closed_accuracy"]["value"] == 0
    assert scores["legacy"]["metrics"]["closed_accuracy"]["value"] == 1
    assert scores["strict"]["failed"] == 1
    assert scores["strict"]["by"]["question_type"]["POS"]["open_recall"]["value"] == 1
    assert scores["legacy"]["by"]["modality"]["CT"]["recall"]["value"] == 0
    assert [len(scores[kind]["items"]) for kind in ("strict", "legacy")] == [3, 3]
    row = table.splitlines()[-1]
    assert row.startswith("answers & 50.0 & 0.0 & 25.0 &")
    assert row.endswith(r"& 50.0 & 100.0 & 75.0 \\")


@pytest.mark.parametrize(("chosen", "left_out"), [("strict", "legacy"), ("legacy", "strict")])
def test_command_shows_one_kind_of_scores(typed, tmp_path, capsys, chosen, left_out):
    assert evaluate(*typed, "--metrics", chosen, "--json", tmp_path / "s.json", "--csv", tmp_path / "s.csv") == 0
    scores = json.loads((tmp_path / "s.json").read_text())
    assert chosen in scores
    assert left_out not in scores
    head = (tmp_path / "s.csv").read_text().splitlines()[0]
    assert f"{chosen}_exact_match" in head
    assert f"{left_out}_" not in head
    assert ("published scripts" in capsys.readouterr().out) == (chosen == "legacy")


def test_csv_has_a_row_per_question(typed, tmp_path):
    assert evaluate(*typed, "--csv", tmp_path / "items.csv", "--latex", tmp_path / "row.tex", "--name", "a_b & c") == 0
    with (tmp_path / "items.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["1", "2", "3"]
    assert rows[1]["prediction"] == 'left, "left"\nlung'
    assert rows[1]["question_type"] == "ORGAN, POS"
    assert (rows[0]["strict_correct"], rows[0]["legacy_closed_accuracy"], rows[0]["legacy_recall"]) == (
        "0.0",
        "1.0",
        "",
    )
    assert (rows[2]["failed"], rows[2]["prediction"], rows[2]["strict_class_said"]) == ("1", "", "")
    comment, row = (tmp_path / "row.tex").read_text().splitlines()
    assert row.startswith(r"a\_b \& c & ")
    assert comment.count("&") == row.count("&") - 1


def test_by_chooses_the_groups(typed, tmp_path, capsys):
    assert evaluate(*typed, "--by", "modality", "--json", tmp_path / "s.json") == 0
    assert list(json.loads((tmp_path / "s.json").read_text())["strict"]["by"]) == ["modality"]
    capsys.readouterr()
    assert evaluate(*typed, "--by", "organ") == 1
    assert "got 'organ'. Choose from ['answer_type'" in capsys.readouterr().err


def test_what_a_program_wrote_for_a_missing_group_is_unknown(tmp_path):
    samples = [{"id": str(n), "image": "a.png", "conversations": turn("?", "yes")} for n in range(3)]
    for one, value in zip(samples, ("CT", float("nan"), None), strict=True):
        one["modality"] = value
    (tmp_path / "test.json").write_text(json.dumps(samples))
    assert read_questions(tmp_path / "test.json").groups["modality"] == [("CT",), ("unknown",), ("unknown",)]


def test_repeated_ids_are_told_apart_by_their_order(tmp_path, capsys):
    samples = [{"id": "x", "image": "a.png", "conversations": turn("?", text)} for text in ("yes", "liver", "no")]
    (tmp_path / "test.json").write_text(json.dumps(samples))
    lines = [{"question_id": "x", "text": text} for text in ("yes", "liver", "yes")]
    options = ["--gt", tmp_path / "test.json", "--pred", write(tmp_path / "answers.jsonl", *lines)]
    assert evaluate(*options) == 1
    assert "--allow-duplicate-ids" in capsys.readouterr().err
    assert evaluate(*options, "--allow-duplicate-ids", "--json", "-") == 0
    scores = json.loads(capsys.readouterr().out)
    assert [(item["id"], item["correct"]) for item in scores["items"]] == [("x", 1), ("x#2", 1), ("x#3", 0)]


@pytest.mark.parametrize("names", [["x", "x", "x#2"], ["x#2", "x", "x"]])
def test_ids_that_repeated_ones_get_are_refused(tmp_path, capsys, names):
    samples = [{"id": name, "image": "a.png", "conversations": turn("?", "yes")} for name in names]
    (tmp_path / "test.json").write_text(json.dumps(samples))
    lines = [{"question_id": name, "text": "yes"} for name in names]
    answers = write(tmp_path / "answers.jsonl", *lines)
    refusal = "ids must differ from those that repeated ids get; got 'x#2' beside 2 times 'x'. Rename one."
    assert evaluate("--gt", tmp_path / "test.json", "--pred", answers, "--allow-duplicate-ids") == 1
    assert refusal in capsys.readouterr().err
    with pytest.raises(ValueError, match=refusal):
        number_repeated_predictions(read_answers(answers, allow_duplicate_ids=True))
    other_turn = write(tmp_path / "turns.jsonl", *lines[:1], {"question_id": "x#2", "turn": 1, "text": "yes"})
    assert len(number_repeated_predictions(read_answers(other_turn))) == 2


def test_questions_are_sorted_by_the_keys_of_published_files(data_folder):
    questions = read_questions(data_folder / "eval_golden" / "vqa_rad_451" / "test.json")
    assert list(questions.groups) == ["question_type"]
    kinds = questions.groups["question_type"]
    assert len(kinds) == len(questions.records) == 451
    assert sum("PRES" in names for names in kinds) == 171
    repeated = read_questions(data_folder / "medvqa" / "pathvqa" / "test_w_options_new.json", allow_duplicate_ids=True)
    assert len({item.id for item in repeated.records}) == len(repeated.records) == 400


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


@pytest.mark.parametrize(
    "option",
    [
        ["--max-new-tokens", "3"],
        ["--batch-size", "1"],
        ["--prompt", "llava"],
        ["--precision", "bf16"],
        ["--on-error", "raise"],
        ["--no-resume"],
    ],
)
def test_answers_that_are_given_take_no_options_of_a_model(option, capsys):
    assert evaluate("--gt", "g.json", "--pred", "p.jsonl", *option) == 2
    name = option[0].replace("no-", "") if option == ["--no-resume"] else option[0]
    assert f"{name} must come with --model: the answers of --pred are given already" in capsys.readouterr().err


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
