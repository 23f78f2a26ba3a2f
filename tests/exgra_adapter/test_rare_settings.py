"""Settings of training that few runs use, and what runs leave behind or find in their folder."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from exgra_adapter import training
from exgra_adapter.arguments import training_arguments
from exgra_adapter.cli import main
from exgra_adapter.clock import PhaseClock
from exgra_adapter.config import TrainingConfig
from exgra_adapter.models import load_model
from exgra_adapter.models.llava import projector_kind
from exgra_adapter.models.prepare import freeze, train_rows
from exgra_adapter.models.tiny import build_tiny_model
from exgra_adapter.prompts import IMAGE_ENDS
from exgra_adapter.runs import TrainingSummary, last_checkpoint, write_result
from exgra_adapter.trainer import AlignmentTrainer
from exgra_adapter.training import train


def config(small_data: Any, output: Path, stage: str = "stage2", **changes: Any) -> TrainingConfig:
    fast: dict[str, Any] = {"batch_size": 4, "max_steps": 1, "logging_steps": 1}
    return TrainingConfig(stage, small_data.data, small_data.images, output, **(fast | changes))


@pytest.mark.parametrize("objective", ["optimal_transport", "vlap"])
def test_objectives_on_patches_tokens_and_words_train(small_data, tmp_path, objective):
    summary = train(config(small_data, tmp_path, objective=objective), console_progress=False)
    (entry,) = summary.history
    assert entry["alignment_loss"] > 0
    assert entry["loss"] == pytest.approx(entry["ar_loss"] + entry["alignment_loss"], rel=1e-4)


def test_a_part_of_the_data_and_another_projector(small_data, tmp_path):
    changes = {"objective": "none", "data_fraction": 0.5, "projector": "linear"}
    summary = train(config(small_data, tmp_path, **changes), console_progress=False)
    assert 0 < summary.samples < 9
    model, _ = load_model(summary.output)
    assert projector_kind(model) == "linear"


def test_matched_compute_takes_more_steps(small_data, tmp_path):
    changes = {"objective": "none", "max_steps": None, "epochs": 1, "match_compute": True}
    longer = train(config(small_data, tmp_path / "longer", **changes), console_progress=False)
    plain = train(config(small_data, tmp_path / "plain", **changes | {"match_compute": False}), console_progress=False)
    assert plain.steps == 3
    assert longer.steps > plain.steps


def test_the_first_stage_trains_the_marks_of_images_and_no_other_word(small_data):
    model, processor = build_tiny_model(["is there a lesion?"], seed=0)
    processor.tokenizer.add_tokens(list(IMAGE_ENDS), special_tokens=True)
    model.resize_token_embeddings(len(processor.tokenizer))
    freeze(model, "stage1", processor)
    embeddings = model.get_input_embeddings()
    embeddings(torch.arange(len(processor.tokenizer))).square().sum().backward()
    trained = embeddings.weight.grad.abs().sum(1).nonzero()[:, 0].tolist()
    assert trained == sorted(processor.tokenizer.convert_tokens_to_ids(list(IMAGE_ENDS)))
    assert not model.get_decoder().layers[0].mlp.up_proj.weight.requires_grad


def test_rows_are_trained_in_any_type():
    embeddings = nn.Embedding(5, 3, dtype=torch.bfloat16).requires_grad_(False)
    train_rows(embeddings, [3])
    embeddings(torch.arange(5)).float().sum().backward()
    assert embeddings.weight.grad.dtype == torch.bfloat16
    assert embeddings.weight.grad.abs().sum(1).tolist() == [0, 0, 0, 3, 0]


def test_models_without_a_known_projector_are_refused():
    with pytest.raises(ValueError, match=r"freeze: the model must have a projector named like .*; got Linear without"):
        freeze(nn.Linear(2, 2), "stage1", None)


def test_adapters_are_resumed_from_their_checkpoint(small_data, tmp_path, monkeypatch):
    settings = config(small_data, tmp_path / "run", max_steps=3, save_steps=1, lora_rank=2)
    whole = train(dataclasses.replace(settings, output=tmp_path / "whole"), console_progress=False)
    step, steps = AlignmentTrainer.training_step, []

    def failing(self: AlignmentTrainer, *args: Any, **kwargs: Any) -> Any:
        steps.append(0)
        if len(steps) == 3:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    monkeypatch.setattr(AlignmentTrainer, "training_step", failing)
    with pytest.raises(KeyboardInterrupt):
        train(settings, console_progress=False)
    monkeypatch.undo()
    (settings.output / ".partial-of-a-killed-run").mkdir()
    resumed = train(dataclasses.replace(settings, resume=True), console_progress=False)
    assert [entry["loss"] for entry in resumed.history] == [entry["loss"] for entry in whole.history]
    assert not list(settings.output.glob(".partial*"))


def test_a_run_goes_on_from_its_last_complete_checkpoint(small_data, tmp_path):
    settings = config(small_data, tmp_path).resolved()
    assert last_checkpoint(settings) is None
    for step in (9, 10, 8, 11):
        folder = tmp_path / "checkpoints" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        if step < 11:  # the last one was being written when the run was killed
            (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    assert last_checkpoint(settings) == tmp_path / "checkpoints" / "checkpoint-10"
    assert not folder.exists()
    assert last_checkpoint(dataclasses.replace(settings, overwrite=True)) is None


def test_a_missing_tensorboard_is_named(small_data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match=r"the package tensorboard must be installed .*; got none. Install it"):
        train(config(small_data, tmp_path, report_to="tensorboard"), console_progress=False)


def test_results_replace_folders_of_an_earlier_run(tmp_path):
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "old.md").write_text("old")
    summary = TrainingSummary(tmp_path, [{"step": 1}], 4, 0, 1, 0.5)

    def describe(folder: Path) -> None:
        (folder / "report").mkdir()
        (folder / "report" / "report.md").write_text("new")

    write_result(summary, lambda folder: (folder / "model.safetensors").touch(), describe)
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["report.md"]
    assert json.loads((tmp_path / "summary.json").read_text())["samples"] == 4
    assert not list(tmp_path.glob(".partial*"))


def test_a_process_with_several_gpus_is_refused(small_data, tmp_path, monkeypatch):
    monkeypatch.setattr("exgra_adapter.arguments.TrainingArguments", lambda **_: SimpleNamespace(n_gpu=2))
    monkeypatch.setattr("exgra_adapter.arguments._checkpointing", lambda _: {})
    with pytest.raises(ValueError, match=r"one process must see one GPU; got 2. Start it with torchrun"):
        training_arguments(config(small_data, tmp_path).resolved(), tmp_path)


def test_a_configuration_of_deepspeed_is_handed_on(small_data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "deepspeed", SimpleNamespace())
    seen: dict[str, Any] = {}
    monkeypatch.setattr(
        "exgra_adapter.arguments.TrainingArguments", lambda **given: seen.update(given) or SimpleNamespace(n_gpu=1)
    )
    monkeypatch.setattr("exgra_adapter.arguments._checkpointing", lambda _: {})
    training_arguments(config(small_data, tmp_path, deepspeed="zero2").resolved(), tmp_path)
    assert json.loads(Path(seen["deepspeed"]).read_text())["zero_optimization"]["stage"] == 2


def arguments(small_data: Any, output: Path) -> list[str]:
    places = ["--data", str(small_data.data), "--images", str(small_data.images), "--output", str(output)]
    settings = ("max_steps=1", "batch_size=4", "objective=none", "bad_samples=skip")
    return ["train", "stage2", *places, *[part for setting in settings for part in ("--set", setting)]]


def test_a_dry_run_shows_settings_and_writes_nothing(small_data, tmp_path, capsys):
    assert main([*arguments(small_data, tmp_path / "run"), "--dry-run"]) == 0
    assert "max_steps" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_launched_processes_leave_wrong_usage_to_the_main_one(small_data, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main([*arguments(small_data, tmp_path / "run"), "--set", "batch_size=0"]) == 2
    assert capsys.readouterr().err == ""


def test_the_command_says_what_was_left_out(small_data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(training, "train", lambda _: TrainingSummary(tmp_path, [], 7, 2, 1, 3.2))
    assert main(arguments(small_data, tmp_path / "run")) == 0
    assert "Left out 2 samples with unreadable images." in capsys.readouterr().out


def test_a_clock_that_is_off_costs_nothing_and_one_of_a_gpu_waits_for_it(monkeypatch):
    waits = []
    monkeypatch.setattr(torch.cuda, "synchronize", waits.append)
    clock = PhaseClock(torch.device("cuda", 0))
    clock.enabled = False
    with clock.phase("forward"):
        pass
    assert (clock.take(), waits) == ({}, [])
    clock.enabled = True
    with clock.phase("forward"):
        pass
    assert list(clock.take()) == ["forward"]
    assert waits == [torch.device("cuda", 0)] * 2
