"""LoRA and QLoRA: what is trained, what is written, and that what is loaded is what was trained."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from exgra_adapter.config import TrainingConfig
from exgra_adapter.models import build_tiny_model, load_model
from exgra_adapter.models.llava import set_projector
from exgra_adapter.models.prepare import add_adapters, freeze, is_projector
from exgra_adapter.prompts import IMAGE_TAG
from exgra_adapter.runs import save_model
from exgra_adapter.training import AlignmentTrainer, TrainingSummary, train

ADAPTER, ALIGNMENT = "adapter_model.safetensors", "alignment.safetensors"


def config(small_data: Any, output: Path, stage: str = "stage2", **changes: Any) -> TrainingConfig:
    fast: dict[str, Any] = {"batch_size": 4, "max_steps": 2, "logging_steps": 1, "lora_rank": 4}
    if stage == "stage2":
        fast["neighbours"] = 2
    return TrainingConfig(stage, small_data.data, small_data.images, output, **(fast | changes))


@dataclasses.dataclass
class Trained:
    """A finished run: the PEFT model as it is at its end, and all parameters before and after."""

    summary: TrainingSummary
    model: Any
    before: dict[str, Tensor]
    after: dict[str, Tensor]


def refuse_network(*_: Any, **__: Any) -> None:
    raise AssertionError("training asks the hub for something")


@pytest.fixture(scope="module")
def trained(small_data, tmp_path_factory) -> Trained:
    seen: dict[str, Any] = {}
    original = AlignmentTrainer.train

    def copies(trainer: AlignmentTrainer) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in trainer.model.named_parameters()}

    def spying(self: AlignmentTrainer, *args: Any, **kwargs: Any) -> Any:
        seen.update(model=self.model, before=copies(self))
        result = original(self, *args, **kwargs)
        seen.update(after=copies(self))
        return result

    output = tmp_path_factory.mktemp("runs") / "lora"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AlignmentTrainer, "train", spying)
        patch.setattr("peft.utils.save_and_load.check_file_exists_on_hf_hub", refuse_network)
        # The warm-up's first step has the learning rate 0, and one side of an adapter starts as zeros.
        settings = config(small_data, output, learning_rate=1e-2, max_steps=3, save_steps=2)
        summary = train(settings, console_progress=False)
    seen["model"].eval()
    return Trained(summary, **seen)


@pytest.fixture(scope="module")
def base(small_data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "model"
    turns = [turn for record in small_data.records for turn in record.turns]
    model, processor = build_tiny_model([turn.answer for turn in turns], seed=0)
    save_model(model, processor, folder)
    return folder


def inputs(processor: Any, small_data: Any) -> dict[str, Tensor]:
    images = [Image.open(small_data.images / f"{index}.png").convert("RGB") for index in range(3)]
    texts = [f"USER: {IMAGE_TAG}\nWhere is the lesion? ASSISTANT: left, level {index}" for index in range(3)]
    return dict(processor(text=texts, images=images, padding=True, return_tensors="pt"))


def test_only_adapters_projector_and_message_passing_change(trained):
    names = trained.before.keys()
    assert names == trained.after.keys()
    adapters = {name for name in names if "lora_" in name}
    projector = {name for name in names if "modules_to_save" in name}
    messages = {name for name in names if name.startswith("alignment.") and "message_passing" in name}
    assert adapters
    assert projector
    assert messages
    assert all("language_model" in name for name in adapters)
    assert all(is_projector(name) for name in projector)
    changed = {name for name in names if not torch.equal(trained.before[name], trained.after[name])}
    assert changed == adapters | projector | messages


def test_the_output_holds_adapter_alignment_and_base(trained):
    output = trained.summary.output
    names = {path.name for path in output.iterdir()}
    assert {ADAPTER, "adapter_config.json", ALIGNMENT, "base", "README.md", "report", "settings.json"} <= names
    assert "model.safetensors" not in names
    assert not any(name.startswith((".", "checkpoint")) or name.endswith((".bin", ".pt")) for name in names)
    saved = set(load_file(output / ADAPTER))
    assert not any("alignment" in name for name in saved), "the objective has a file of its own"
    assert any(is_projector(name) for name in saved)
    described = json.loads((output / "adapter_config.json").read_text())
    assert described["base_model_name_or_path"] == "base", "relative: the folder can be moved"
    assert described["r"] == 4
    bare, _ = load_model(output / "base")
    assert torch.equal(bare.lm_head.weight, trained.before["base_model.model.lm_head.weight"])


@pytest.mark.parametrize("merge", [True, False])
def test_what_is_loaded_is_what_was_trained(trained, small_data, merge, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(trained.summary.output, moved)
    model, processor = load_model(moved, merge=merge)
    assert any("lora_" in name for name, _ in model.named_parameters()) != merge
    assert type(model).__name__ == ("LlavaForConditionalGeneration" if merge else type(trained.model).__name__)
    batch = inputs(processor, small_data)
    with torch.no_grad():
        logits, expected = (each(**batch).logits for each in (model, trained.model))
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4 if merge else 1e-6)
        bare, _ = load_model(moved / "base")
        assert (bare(**batch).logits - expected).abs().max() > 1e-2, "training changed what the model says"
    assert torch.equal(
        model.generate(**batch, max_new_tokens=3, do_sample=False),
        trained.model.generate(**batch, max_new_tokens=3, do_sample=False),
    )


def test_the_next_stage_starts_from_a_merged_adapter(trained, small_data, tmp_path):
    start = config(small_data, tmp_path / "vqa", "vqa", model=str(trained.summary.output), learning_rate=1e-9)
    whole = train(dataclasses.replace(start, lora_rank=0), False)
    assert (whole.output / "model.safetensors").is_file()
    assert not (whole.output / ADAPTER).exists()
    adapted = train(dataclasses.replace(start, output=tmp_path / "lora"), False)
    assert (adapted.output / ADAPTER).is_file()
    for run in (whole, adapted):
        model, processor = load_model(run.output)
        batch = inputs(processor, small_data)
        with torch.no_grad():
            torch.testing.assert_close(model(**batch).logits, trained.model(**batch).logits, rtol=1e-4, atol=1e-4)


def test_quantized_weights_take_no_second_adapter(trained, small_data, tmp_path):
    settings = config(small_data, tmp_path / "run", model=str(trained.summary.output), quantization="4bit")
    with pytest.raises(ValueError, match=r"must be a whole model with quantization=4bit; got .* Merge them first"):
        train(settings, False)


def test_defaults_know_the_size_of_a_model_with_adapters(trained, small_data, tmp_path):
    settings = config(small_data, tmp_path, model=str(trained.summary.output), lora_rank=0)
    assert settings.resolved().learning_rate == 1e-3


KILLED_RUN = """
import os, signal
from exgra_adapter import training
from exgra_adapter.config import TrainingConfig

step, steps = training.AlignmentTrainer.training_step, []

def dying_step(self, *args, **kwargs):
    steps.append(0)
    if len(steps) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *args, **kwargs)

training.AlignmentTrainer.training_step = dying_step
training.train(TrainingConfig(**{values}), console_progress=False)
"""


@pytest.mark.slow
def test_a_killed_run_resumes_with_the_same_result(small_data, tmp_path):
    settings = config(small_data, tmp_path / "killed", max_steps=5, save_steps=2, lora_dropout=0.1)
    whole = train(dataclasses.replace(settings, output=tmp_path / "whole"), console_progress=False)
    script = KILLED_RUN.replace("{values}", repr(settings.to_json()))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False, env=environment
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (settings.output / ADAPTER).exists()
    resumed = train(dataclasses.replace(settings, resume=True), console_progress=False)
    assert [entry["step"] for entry in resumed.history] == list(range(1, 6))
    for name in (ADAPTER, ALIGNMENT):
        expected, found = (load_file(run.output / name) for run in (whole, resumed))
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[key], found[key]) for key in expected), name
    losses = [[entry["loss"] for entry in run.history] for run in (whole, resumed)]
    assert losses[0] == losses[1]


def test_the_identity_of_a_linear_projector_stays(small_data, base, tmp_path):
    """Adapters copy the projector and train the copy: what was frozen in it stays frozen."""
    model, processor = load_model(base)
    set_projector(model, "linear")
    save_model(model, processor, tmp_path / "linear")
    summary = train(config(small_data, tmp_path / "run", model=str(tmp_path / "linear"), learning_rate=1e-2), False)
    merged, _ = load_model(summary.output)
    before, after = (dict(each.model.multi_modal_projector.named_parameters()) for each in (model, merged))
    assert torch.equal(after["linear_2.weight"], torch.eye(len(after["linear_2.weight"])))
    assert torch.equal(before["linear_2.bias"], after["linear_2.bias"])
    assert not torch.equal(before["linear_1.weight"], after["linear_1.weight"])


def test_adapters_start_as_nothing(base, small_data):
    model, processor = load_model(base)
    batch = inputs(processor, small_data)
    with torch.no_grad():
        before = model(**batch).logits
        freeze(model, "stage2", processor)
        adapted: Any = add_adapters(model, 2, 4.0, 0.0, False, False)
        torch.testing.assert_close(adapted.eval()(**batch).logits, before, rtol=0, atol=1e-6)
    trained = sum(each.numel() for each in adapted.parameters() if each.requires_grad)
    assert trained < 0.2 * sum(each.numel() for each in adapted.parameters())


def test_gradient_checkpointing_changes_nothing(small_data, base, tmp_path):
    settings = config(small_data, tmp_path / "run", model=str(base), lora_dropout=0.0)
    plain = train(settings, False)
    again = train(dataclasses.replace(settings, output=tmp_path / "again", gradient_checkpointing=True), False)
    losses = [[entry["loss"] for entry in run.history] for run in (plain, again)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_qlora_trains_and_is_loaded_as_it_was_trained(small_data, base, tmp_path, bits):
    pytest.importorskip("bitsandbytes")
    summary = train(config(small_data, tmp_path / "run", model=str(base), quantization=bits), False)
    assert [entry["step"] for entry in summary.history] == [1, 2]
    for entry in summary.history:
        assert all(entry[f"gradient_norm_{part}"] > 0 for part in ("projector", "language_model", "alignment"))
    saved = load_file(summary.output / ADAPTER)
    assert all(value.is_floating_point() for value in saved.values())
    assert any(value.abs().sum() > 0 for name, value in saved.items() if "lora_B" in name)
    assert (summary.output / ALIGNMENT).is_file()

    model, processor = load_model(summary.output, quantization=bits)
    with torch.no_grad():
        assert model(**inputs(processor, small_data)).logits.isfinite().all()
    merged, _ = load_model(summary.output)
    assert not any("lora_" in name for name, _ in merged.named_parameters()), "adapters go onto unrounded weights too"


@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_only_the_language_model_is_quantized(base, bits):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    model, processor = load_model(base, quantization=bits)
    kinds = (bitsandbytes.nn.Linear4bit, bitsandbytes.nn.Linear8bitLt)
    quantized = {name for name, module in model.named_modules() if isinstance(module, kinds)}
    assert quantized
    assert all(".language_model.layers." in name for name in quantized)
    freeze(model, "stage2", processor)
    whole = {name for name, each in model.named_parameters() if each.requires_grad}
    assert not any(name.rpartition(".")[0] in quantized for name in whole), "numbers of few bits have no gradient"
    adapted: Any = add_adapters(model, 2, 4.0, 0.0, True, False)
    trained = {name for name, each in adapted.named_parameters() if each.requires_grad}
    assert trained
    assert all("lora_" in name or is_projector(name) for name in trained)


def test_a_run_that_overwrites_another_leaves_nothing_of_its_model(small_data, tmp_path):
    """Adapters beside a whole model would be loaded in its place, and a whole model beside adapters as their base."""
    run, new = tmp_path / "run", tmp_path / "new"
    adapted = dataclasses.replace(config(small_data, run, max_steps=1), overwrite=True)
    train(adapted, console_progress=False)
    (run / "mine.txt").write_text("kept")
    train(dataclasses.replace(adapted, lora_rank=0), console_progress=False)
    train(dataclasses.replace(adapted, lora_rank=0, output=new), console_progress=False)
    loaded, expected = (load_model(folder)[0].state_dict() for folder in (run, new))
    assert all(torch.equal(value, loaded[name]) for name, value in expected.items())
    train(adapted, console_progress=False)
    assert load_model(run)[0].name_or_path == str(run / "base")
    assert (run / "mine.txt").read_text() == "kept"


def test_adapters_in_the_folder_of_their_model_keep_it(small_data, tmp_path):
    whole = config(small_data, tmp_path, max_steps=1, lora_rank=0)
    train(whole, console_progress=False)
    before = load_file(tmp_path / "model.safetensors")
    train(dataclasses.replace(whole, model=str(tmp_path), lora_rank=4, overwrite=True), console_progress=False)
    after = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert load_model(tmp_path)[0].name_or_path == str(tmp_path)
