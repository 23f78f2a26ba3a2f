"""Whole stages: freezing, outputs, resuming, and what is refused before the first step."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoProcessor, LlavaForConditionalGeneration, LlavaProcessor

from exgra_adapter.config import TrainingConfig
from exgra_adapter.data.records import Record, Turn, write_records
from exgra_adapter.trainer import AlignmentTrainer
from exgra_adapter.training import TrainingSummary, train


def config(small_data: Any, output: Path, stage: str = "stage2", **changes: Any) -> TrainingConfig:
    fast: dict[str, Any] = {"batch_size": 4, "max_steps": 2, "logging_steps": 1}
    if stage == "stage2" or changes.get("objective") == "barycenter":
        fast["neighbours"] = 2
    return TrainingConfig(stage, small_data.data, small_data.images, output, **(fast | changes))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def first_stage(small_data, tmp_path_factory) -> TrainingSummary:
    output = tmp_path_factory.mktemp("runs") / "stage1"
    return train(config(small_data, output, "stage1"), console_progress=False)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def changed_parts(before: Path, after: Path) -> set[str]:
    old, new = weights(before), weights(after)
    parts = ("vision_tower", "multi_modal_projector", "language_model", "lm_head")
    return {part for part in parts if any(part in name and not torch.equal(old[name], new[name]) for name in old)}


def test_each_stage_trains_its_own_parts(small_data, first_stage, tmp_path):
    assert not (first_stage.output / "alignment.safetensors").exists()
    assert "alignment_loss" not in first_stage.history[0]
    again = train(config(small_data, tmp_path / "stage1", "stage1", model=str(first_stage.output)), False)
    assert changed_parts(first_stage.output, again.output) == {"multi_modal_projector"}

    second = train(config(small_data, tmp_path / "stage2", model=str(first_stage.output)), False)
    language = {"multi_modal_projector", "language_model", "lm_head"}
    assert changed_parts(first_stage.output, second.output) == language
    assert (second.output / "alignment.safetensors").is_file()

    aligned = {"objective": "barycenter", "alignment_weight": 0.5}
    tuned = train(config(small_data, tmp_path / "vqa", "vqa", model=str(second.output), **aligned), False)
    assert changed_parts(second.output, tuned.output) == language
    before, after = (load_file(stage.output / "alignment.safetensors") for stage in (second, tuned))
    assert before["layer.calls"] + 2 == after["layer.calls"], "the alignment of stage 2 was continued"


def test_the_output_is_a_model_folder(first_stage):
    names = {path.name for path in first_stage.output.iterdir()}
    assert {"config.json", "model.safetensors", "settings.json", "summary.json", "history.jsonl"} <= names
    assert not any(name.startswith((".", "checkpoint")) or name.endswith(".bin") for name in names)
    _, report = LlavaForConditionalGeneration.from_pretrained(first_stage.output, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert isinstance(AutoProcessor.from_pretrained(first_stage.output), LlavaProcessor)
    lines = (first_stage.output / "history.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == first_stage.history
    assert [entry["step"] for entry in first_stage.history] == [1, 2]
    assert {"epoch", "loss", "ar_loss", "gradient_norm", "learning_rate"} <= first_stage.history[0].keys()
    assert first_stage.samples == 9


def test_the_history_of_an_aligned_run(small_data, tmp_path):
    summary = train(config(small_data, tmp_path, epochs=1, max_steps=None, legacy=True), console_progress=False)
    assert summary.steps == 3, "the last batch has one sample"
    for entry in summary.history:
        assert {"alignment_loss", "matching_accuracy", "retrieval", "zero_gradient_share"} <= entry.keys()
        assert entry["loss"] == pytest.approx(entry["ar_loss"] + entry["alignment_loss"], rel=1e-4)
    rates = [entry["learning_rate"] for entry in summary.history]
    assert rates[-1] < max(rates) <= 1e-3


def test_the_same_seed_gives_the_same_run(small_data, tmp_path):
    runs = [train(config(small_data, tmp_path / str(index), seed=index // 2), False) for index in range(3)]
    losses = [[entry["loss"] for entry in run.history] for run in runs]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


KILLED_RUN = """
import os, signal, sys
from pathlib import Path
from exgra_adapter import training
from exgra_adapter.config import TrainingConfig

step, steps = training.AlignmentTrainer.training_step, []

def dying_step(self, *args, **kwargs):
    steps.append(0)
    if len(steps) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *args, **kwargs)

training.AlignmentTrainer.training_step = dying_step
values = {values!r}
training.train(TrainingConfig(**values), console_progress=False)
"""


def test_a_killed_run_resumes_with_the_same_result(small_data, tmp_path):
    settings = config(small_data, tmp_path / "killed", max_steps=5, save_steps=2)
    whole = train(dataclasses.replace(settings, output=tmp_path / "whole"), console_progress=False)

    script = KILLED_RUN.replace("{values!r}", repr(settings.to_json()))
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (settings.output / "model.safetensors").exists()
    half_written = settings.output / "checkpoints" / "checkpoint-3"
    half_written.mkdir()
    (half_written / "model.safetensors").write_text("cut")

    resumed = train(dataclasses.replace(settings, resume=True), console_progress=False)
    assert [entry["step"] for entry in resumed.history] == list(range(1, 6))
    for name in ("model.safetensors", "alignment.safetensors"):
        expected, found = (load_file(run.output / name) for run in (whole, resumed))
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[key], found[key]) for key in expected), name
    losses = [[entry["loss"] for entry in run.history] for run in (whole, resumed)]
    assert losses[0] == losses[1]

    finished = train(dataclasses.replace(settings, resume=True), console_progress=False)
    assert finished == resumed, "a finished run is only read"
    with pytest.raises(ValueError, match=r"seed must be the same when a run is resumed \(42\); got 1"):
        train(dataclasses.replace(settings, resume=True, seed=1), console_progress=False)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_run_killed_after_its_last_step_takes_no_other(small_data, first_stage, tmp_path, monkeypatch, streaming):
    """The last step cuts an epoch short, with which the Trainer would go on."""
    settings = config(small_data, tmp_path / "killed", streaming=streaming, model=str(first_stage.output), max_steps=4)
    whole = train(dataclasses.replace(settings, output=tmp_path / "whole"), console_progress=False)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("exgra_adapter.training.write_result", killed)
        with pytest.raises(KeyboardInterrupt):
            train(settings, console_progress=False)
    resumed = train(dataclasses.replace(settings, resume=True), console_progress=False)
    assert (resumed.steps, len(resumed.history)) == (whole.steps, len(whole.history))
    for name in ("model.safetensors", "alignment.safetensors"):
        assert (resumed.output / name).read_bytes() == (whole.output / name).read_bytes()


def test_what_a_resumed_run_counts_is_what_the_whole_run_counts(small_data, first_stage, tmp_path, monkeypatch):
    images = tmp_path / "images"
    shutil.copytree(small_data.images, images)
    (images / "0.png").write_bytes(b"broken")
    more = {"images": images, "bad_samples": "skip", "streaming": True, "model": str(first_stage.output)}
    settings = config(small_data, tmp_path / "killed", max_steps=7, save_steps=3, logging_steps=2)
    settings = dataclasses.replace(settings, **more)
    whole = train(dataclasses.replace(settings, output=tmp_path / "whole"), console_progress=False)
    assert whole.skipped > 1, "the stream begins anew"
    assert [entry.get("skipped", 0) for entry in whole.history][-1] == whole.skipped
    assert [entry["step"] for entry in whole.history] == [2, 3, 4, 6, 7]
    step = AlignmentTrainer.training_step

    def dying(self: AlignmentTrainer, *arguments: Any, **options: Any) -> Any:
        if self.state.global_step == 3:
            raise KeyboardInterrupt
        return step(self, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(AlignmentTrainer, "training_step", dying)
        with pytest.raises(KeyboardInterrupt):
            train(settings, console_progress=False)
    resumed = train(dataclasses.replace(settings, resume=True), console_progress=False)
    assert resumed.skipped == whole.skipped
    assert len(resumed.history) == len(whole.history)
    for expected, found in zip(whole.history, resumed.history, strict=True):
        assert expected.keys() == found.keys()
        timed = {name for name in expected if name.startswith("seconds_")}
        assert {name: expected[name] for name in expected.keys() - timed} == {
            name: found[name] for name in found.keys() - timed
        }


def test_a_run_killed_while_it_wrote_its_settings_is_started_again(small_data, tmp_path):
    (tmp_path / ".writable1").touch()
    (tmp_path / ".settings.json.2.partial").write_text("{")
    (tmp_path / ".partial3").mkdir()
    train(config(small_data, tmp_path, "stage1", resume=True), console_progress=False)
    assert not list(tmp_path.glob(".*"))


def test_an_interrupt_leaves_nothing_half_written(small_data, tmp_path, monkeypatch):
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("exgra_adapter.training.AlignmentTrainer.training_step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(config(small_data, tmp_path), console_progress=False)
    assert {path.name for path in tmp_path.iterdir()} <= {"settings.json", "checkpoints"}


def test_a_run_that_fails_on_its_data_leaves_the_output_as_it_was(small_data, tmp_path):
    settings = config(small_data, tmp_path / "run", "stage1")
    wrong = dataclasses.replace(settings, data=tmp_path / "missing.json")
    with pytest.raises(ValueError, match="must name an existing file"):
        train(wrong, console_progress=False)
    assert list((tmp_path / "run").iterdir()) == []
    train(settings, console_progress=False)
    before = contents(tmp_path / "run")
    with pytest.raises(ValueError, match="must name an existing file"):
        train(dataclasses.replace(wrong, overwrite=True), console_progress=False)
    assert contents(tmp_path / "run") == before


def test_an_output_folder_in_use_is_kept(small_data, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    settings = config(small_data, tmp_path, "stage1")
    with pytest.raises(ValueError, match=r"must be an empty folder; got .* --resume, .* --overwrite"):
        train(settings, console_progress=False)
    train(dataclasses.replace(settings, overwrite=True), console_progress=False)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="must be a folder that can be written to"):
        train(dataclasses.replace(settings, output=tmp_path / "file"), console_progress=False)


def test_missing_extended_answers_are_named_or_written(small_data, tmp_path):
    records = [Record(str(i), f"{i}.png", (Turn("Is there a lesion?", "yes"),)) for i in range(4)]
    write_records(tmp_path / "bare.json", records)
    settings = dataclasses.replace(config(small_data, tmp_path / "out"), data=tmp_path / "bare.json", max_steps=1)
    with pytest.raises(ValueError, match=r"got none for id '0' .* extender=template"):
        train(settings, console_progress=False)
    train(dataclasses.replace(settings, extender="template", overwrite=True), console_progress=False)


def test_bad_images_stop_or_are_counted(small_data, tmp_path):
    records = [*small_data.records[:4], Record("bad", "bad.png", (Turn("q", "a", "long"),))]
    write_records(tmp_path / "some.json", records)
    settings = dataclasses.replace(config(small_data, tmp_path / "out"), data=tmp_path / "some.json", max_steps=1)
    with pytest.raises(ValueError, match=r"record 'bad': .*bad.png must be an existing image file"):
        train(settings, console_progress=False)
    summary = train(dataclasses.replace(settings, bad_samples="skip", overwrite=True), console_progress=False)
    assert (summary.samples, summary.skipped) == (4, 1)
    with pytest.raises(ValueError, match=r"images must be an existing folder or \.tar"):
        train(dataclasses.replace(settings, images=tmp_path / "none", overwrite=True), console_progress=False)
    write_records(tmp_path / "some.json", [])
    with pytest.raises(ValueError, match="at least one usable sample"):
        train(dataclasses.replace(settings, overwrite=True), console_progress=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stage": "third"}, "stage must be one of stage1, stage2, vqa; got 'third'"),
        ({"batch_size": 0}, "batch_size must be at least 1; got 0"),
        ({"alignment_weight": -1.0}, "alignment_weight must be 0 or more"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive and finite"),
        ({"warmup_ratio": 1.0}, r"warmup_ratio must lie in \[0, 1\)"),
        ({"seed": -1}, "seed must be 0 or more"),
        ({"resume": True, "overwrite": True}, "resume must not be combined with overwrite"),
    ],
)
def test_settings_are_checked(small_data, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        config(small_data, tmp_path, **change) if "stage" not in change else config(
            small_data, tmp_path, change["stage"]
        )


def test_defaults_follow_the_stage(small_data, first_stage, tmp_path):
    def rate(stage: str, model: str) -> float | None:
        return config(small_data, tmp_path, stage, model=model).resolved().learning_rate

    assert [rate(stage, "tiny") for stage in ("stage1", "stage2", "vqa")] == [2e-3, 1e-3, 1e-3]
    assert rate("stage2", str(first_stage.output)) == 1e-3
    assert rate("stage2", "llava-7b") == 2e-5
    objectives = [config(small_data, tmp_path, stage).resolved().objective for stage in ("stage1", "stage2", "vqa")]
    assert objectives == ["none", "barycenter", "none"]


def test_sixteen_bit_precision(small_data, tmp_path):
    summary = train(config(small_data, tmp_path / "bf16", precision="bf16"), console_progress=False)
    assert all(value.dtype == torch.float32 for value in weights(summary.output).values())
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="fp16 must run on a GPU"):
            train(config(small_data, tmp_path / "fp16", precision="fp16"), console_progress=False)
