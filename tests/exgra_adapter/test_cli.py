"""The command line: what it teaches, what it refuses, and with which exit code."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import graphmatch
from exgra_adapter.cli import main
from exgra_adapter.config import TrainingConfig

PLACES = ["--data", "a", "--images", "b", "--output", "c"]


def train_arguments(small_data, output: Path, *more: str) -> list[str]:
    fast = ["max_steps=2", "batch_size=4", "neighbours=2", "logging_steps=1"]
    places = ["--data", str(small_data.data), "--images", str(small_data.images), "--output", str(output)]
    return ["train", "stage2", *places, *[part for setting in fast for part in ("--set", setting)], *more]


@pytest.mark.parametrize(
    ("arguments", "taught"),
    [
        (
            ["--help"],
            ["demo", "train", "evaluate", "convert", "export", "exgra-med train stage2", "completion", "Exit codes"],
        ),
        (
            ["train", "--help"],
            ["{stage1,stage2,vqa}", "warmup_ratio", "[0.03]", "--resume", "stage2_llava_med_10"],
        ),
        (["demo", "--help"], ["--output", "default: runs/demo"]),
        (["evaluate", "vqa", "--help"], ["--model", "--pred"]),
    ],
)
def test_help_teaches(capsys, arguments, taught):
    assert main(arguments) == 0
    text = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert [phrase for phrase in taught if phrase not in text] == []


def test_every_setting_has_a_help_text(capsys):
    main(["train", "--help"])
    text = capsys.readouterr().out
    for field in dataclasses.fields(TrainingConfig):
        assert field.metadata["help"]
        if field.name != "stage":
            assert re.search(rf"^  {field.name} .*{field.metadata['help'].split()[0]}", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dance"], "invalid choice"),
        (["trian", "stage1"], r"Did you mean train\?"),
        (["train", "stage4"], r"Did you mean stage[123]\?"),
        (["train", "stage1", "--dta", "a"], r"unrecognized arguments: --dta. Did you mean --data\?"),
        (["train", "stage1", *PLACES, "--set", "objective=infonc"], r"got 'infonc'.*Did you mean infonce\?"),
        (["evaluate", "vqaa"], r"Did you mean vqa\?"),
        (["data", "chek"], r"Did you mean check\?"),
        (["data", "prepare", "vqa-rdd"], r"Did you mean vqa-rad\?"),
        (["train"], "stage"),
        (["train", "third"], "invalid choice"),
        (["train", "stage1", "--speed", "9"], "--speed"),
        (["train", "stage1", "--output", "c"], "data must be given"),
        (["train", "stage1", *PLACES, "--set", "batch_size=x"], "batch_size must be a whole number; got 'x'"),
        (["train", "stage1", *PLACES, "--set", "batch_size=0"], "at least 1"),
        (["train", "stage1", *PLACES, "--set", "bach_size=2"], r"got 'bach_size'. Did you mean batch_size\?"),
        (["train", "stage1", *PLACES, "--config", "stage22"], "Did you mean"),
        (["train", "stage1", *PLACES, "--config", "stage2"], "must be for stage1, as the command says"),
        (["train", "stage1", *PLACES, "--resume", "--overwrite"], "both|two"),
        (["evaluate"], "required"),
    ],
)
def test_wrong_usage_ends_with_2(capsys, arguments, message):
    assert main(arguments) == 2
    assert re.search(message, capsys.readouterr().err)


def test_without_arguments_the_command_says_what_there_is(capsys):
    assert main([]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    for command in ("exgra-med demo", "exgra-med train stage2", "exgra-med chat", "exgra-med --help"):
        assert command in printed.out
    assert "not for clinical use" in printed.out
    assert len(printed.out.splitlines()) <= 12


def test_the_overview_imports_neither_torch_nor_transformers():
    code = "import sys; from exgra_adapter.cli import main; main([]); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"exgra-med {graphmatch.__version__}\n"


def test_the_file_that_a_missing_one_resembles_is_named(tmp_path, capsys):
    (tmp_path / "train.json").write_text("[]")
    places = ["--images", str(tmp_path), "--output", str(tmp_path / "out")]
    for given in (["--data", str(tmp_path / "trian.json")], ["--set", f"data={tmp_path / 'trian.json'}"]):
        assert main(["train", "stage1", *given, *places]) == 1
        assert capsys.readouterr().err.rstrip().endswith(f"Did you mean {tmp_path / 'train.json'}?")
    assert main(["train", "stage1", "--data", str(tmp_path / "other.csv"), *places]) == 1
    assert "Did you mean" not in capsys.readouterr().err


def test_a_missing_package_is_one_sentence(capsys, monkeypatch):
    def missing(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'transformers.models'", name="transformers.models")

    monkeypatch.setattr("exgra_adapter.cli._demo", missing)
    assert main(["demo"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("Error: exgra-med: transformers must be installed; got none.")
    assert 'pip install "graphmatch[exgra]"' in error
    with pytest.raises(ModuleNotFoundError):
        main(["demo", "--debug"])


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_commands_and_options(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in ("exgra-med", "train", "stage2", "evaluate", "vqa", "lmms", "overwrite"):
        assert word in script


def test_a_run_prints_its_settings_and_where_the_model_is(small_data, tmp_path, capsys):
    assert main(train_arguments(small_data, tmp_path, "--set", "alignment_weight=0.5")) == 0
    out = capsys.readouterr().out
    assert re.search(r"alignment_weight +0.5\n", out)
    assert re.search(r"learning_rate +0.001\n", out)
    assert "Trained 2 steps on 9 samples" in out
    assert re.search(r"The alignment takes .* of a step", out)
    assert f"Model folder: {tmp_path}" in out
    assert (tmp_path / "report" / "report.md").is_file()
    assert "not for clinical use" in (tmp_path / "README.md").read_text()
    assert json.loads((tmp_path / "settings.json").read_text())["alignment_weight"] == 0.5

    assert main(train_arguments(small_data, tmp_path, "--set", "alignment_weight=0.5")) == 1
    error = capsys.readouterr().err
    assert "--resume" in error
    assert "--overwrite" in error
    assert main(train_arguments(small_data, tmp_path, "--set", "alignment_weight=0.5", "--resume")) == 0


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
    arguments = ["train", "stage2", "--data", data, *images, "--output", str(tmp_path / "model")]
    settings = ("max_steps=2", "batch_size=8", "extender=template")
    assert main([*arguments, *[part for setting in settings for part in ("--set", setting)]]) == 0
    assert "Trained 2 steps on 347 samples" in capsys.readouterr().out
    test = json.loads((folder / "test_w_options_new_with_images.json").read_text())[:8]
    (tmp_path / "test.json").write_text(json.dumps(test))
    arguments = ["evaluate", "vqa", "--model", str(tmp_path / "model"), "--data", str(tmp_path / "test.json")]
    assert main([*arguments, *images, "--output", str(tmp_path / "scores"), "--max-new-tokens", "8"]) == 0
    assert len((tmp_path / "scores" / "answers.jsonl").read_text().splitlines()) == 8
    assert "8 questions" in capsys.readouterr().out
