"""The command line: what it teaches, what it refuses, and with which exit code."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from exgra_adapter.cli import main
from exgra_adapter.config import TrainingConfig


def train_arguments(small_data, output: Path, *more: str) -> list[str]:
    fast = ["--max-steps", "2", "--batch-size", "4", "--neighbours", "2", "--logging-steps", "1"]
    places = ["--data", str(small_data.data), "--images", str(small_data.images), "--output", str(output)]
    return ["train", "--stage", "instruct", *places, *fast, *more]


@pytest.mark.parametrize(
    ("arguments", "taught"),
    [
        (["--help"], ["demo", "train", "evaluate", "exgra-med train --stage", "Exit codes", "not for clinical use"]),
        (
            ["train", "--help"],
            ["--stage {align,instruct,vqa}", "default: 0.03", "--resume", '"conversations"', "--extender"],
        ),
        (["demo", "--help"], ["--output", "default: runs/demo"]),
        (["evaluate", "vqa", "--help"], ["--model", "--pred"]),
    ],
)
def test_help_teaches(capsys, arguments, taught):
    assert main(arguments) == 0
    text = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert [phrase for phrase in taught if phrase not in text] == []


def test_every_setting_is_an_option_with_a_help_text(capsys):
    main(["train", "--help"])
    text = capsys.readouterr().out
    for field in dataclasses.fields(TrainingConfig):
        assert f"--{field.name.replace('_', '-')}" in text
        assert field.metadata["help"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required"),
        (["dance"], "invalid choice"),
        (["train"], "--stage, --data, --images, --output"),
        (["train", "--stage", "third"], "invalid choice"),
        (["train", "--stage", "align", "--data", "a", "--images", "b", "--output", "c", "--speed", "9"], "--speed"),
        (
            ["train", "--stage", "align", "--data", "a", "--images", "b", "--output", "c", "--batch-size", "x"],
            "invalid int",
        ),
        (
            ["train", "--stage", "align", "--data", "a", "--images", "b", "--output", "c", "--batch-size", "0"],
            "at least 1",
        ),
        (
            ["train", "--stage", "align", "--data", "a", "--images", "b", "--output", "c", "--resume", "--overwrite"],
            "both|two",
        ),
        (["evaluate"], "required"),
    ],
)
def test_wrong_usage_ends_with_2(capsys, arguments, message):
    assert main(arguments) == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_run_prints_its_settings_and_where_the_model_is(small_data, tmp_path, capsys):
    assert main(train_arguments(small_data, tmp_path, "--alignment-weight", "0.5")) == 0
    out = capsys.readouterr().out
    assert re.search(r"alignment_weight +0.5\n", out)
    assert re.search(r"learning_rate +0.001\n", out)
    assert "Trained 2 steps on 9 samples" in out
    assert f"Model folder: {tmp_path}" in out
    assert json.loads((tmp_path / "settings.json").read_text())["alignment_weight"] == 0.5

    assert main(train_arguments(small_data, tmp_path, "--alignment-weight", "0.5")) == 1
    error = capsys.readouterr().err
    assert "--resume" in error
    assert "--overwrite" in error
    assert main(train_arguments(small_data, tmp_path, "--alignment-weight", "0.5", "--resume")) == 0


def test_failures_are_one_sentence_and_end_with_1(small_data, tmp_path, capsys):
    arguments = train_arguments(small_data, tmp_path / "out")
    arguments[arguments.index("--data") + 1] = str(tmp_path / "none.json")
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("Error: read_records: path must name an existing file; got ")
    assert "Traceback" not in error
    with pytest.raises(ValueError, match=r"none\.json"):
        main([*arguments, "--overwrite", "--debug"])


def test_ctrl_c_ends_with_130(small_data, tmp_path, capsys, monkeypatch):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("exgra_adapter.training.AlignmentTrainer.training_step", interrupt)
    assert main(train_arguments(small_data, tmp_path)) == 130
    assert "Interrupted" in capsys.readouterr().err


def test_train_and_evaluate_on_real_images(data_folder, tmp_path, capsys):
    folder = data_folder / "medvqa" / "vqa_rad"
    images = ["--images", str(folder / "images")]
    data = str(folder / "train_w_options_new_with_images.json")
    arguments = ["train", "--stage", "instruct", "--data", data, *images, "--output", str(tmp_path / "model")]
    assert main([*arguments, "--max-steps", "2", "--batch-size", "8", "--extender", "template"]) == 0
    assert "Trained 2 steps on 347 samples" in capsys.readouterr().out
    test = json.loads((folder / "test_w_options_new_with_images.json").read_text())[:8]
    (tmp_path / "test.json").write_text(json.dumps(test))
    arguments = ["evaluate", "vqa", "--model", str(tmp_path / "model"), "--data", str(tmp_path / "test.json")]
    assert main([*arguments, *images, "--output", str(tmp_path / "scores"), "--max-new-tokens", "8"]) == 0
    assert len((tmp_path / "scores" / "answers.jsonl").read_text().splitlines()) == 8
    assert "8 questions" in capsys.readouterr().out
