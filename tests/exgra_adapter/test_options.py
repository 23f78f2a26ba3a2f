"""Every stage, option and baseline trains: one step each, through the function that the command line calls."""

from __future__ import annotations

import json
import math
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from exgra_adapter.config import ALIGNED, TrainingConfig
from exgra_adapter.config_files import config_of
from exgra_adapter.data.files import read_records
from exgra_adapter.models import build_tiny_model, load_model
from exgra_adapter.runs import TrainingSummary, save_model
from exgra_adapter.training import train

Run = Any

QUICK: list[dict[str, Any]] = [
    {"objective": "none"},
    {"objective": "extended_text"},
    {"objective": "infonce"},
    {"legacy": True},
    {"relaxation": "sinkhorn"},
    {"reuse_answer_states": True, "texts": "answer"},
    {"dense_connector": "dci"},
]
REST: list[dict[str, Any]] = [
    {"gradient_accumulation": 2},
    {"precision": "bf16"},
    {"barycenter": "mean"},
    {"objective": "vlap"},
    {"objective": "optimal_transport"},
    {"objective": "none", "match_compute": True, "max_steps": None, "epochs": 1.0},
    {"objective": "siglip"},
    {"objective": "pairwise"},
    {"objective": "barycenter"},
    {"objective": "optimal_transport", "texts": "extended"},
    {"relaxation": "spectral"},
    {"gradient": "blackbox", "margin": 0.2},
    {"gradient": "fenchel_young"},
    {"texts": "answer"},
    {"texts": "extended"},
    {"reuse_answer_states": True},
    {"graph_scope": "local"},
    {"alignment_weight": 0.1},
    {"data_fraction": 0.5},
    {"projector": "linear"},
    {"dense_connector": "sci"},
    {"dense_connector": "sti"},
    {"tiny_size": 2},
    {"gradient_checkpointing": True},
    {"workers": 1},
    {"report_to": "tensorboard"},
    {"optimizer": "adafactor"},
    {"attention": "eager"},
]
OPTIONS = [*QUICK, *(pytest.param(options, marks=pytest.mark.slow) for options in REST)]
VIEWS = {"both": 2, "answer": 1, "extended": 1}


@pytest.fixture(scope="module")
def base(small_data, tmp_path_factory) -> Path:
    """A saved tiny model, so that single options need not make one."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    texts = [text for record in small_data.records for turn in record.turns for text in (turn.question, turn.answer)]
    save_model(*build_tiny_model(texts, seed=0), folder)
    return folder


@pytest.fixture
def run(small_data, base, tmp_path) -> Run:
    def start(**options: Any) -> TrainingSummary:
        settings = {"stage": "stage2", "data": small_data.data, "images": small_data.images, "model": str(base)}
        settings |= {"output": tmp_path / "run", "batch_size": 4, "max_steps": 1, "logging_steps": 1, "seed": 0}
        settings |= options
        if settings.get("tiny_size"):
            del settings["model"]
        return train(config_of(settings), console_progress=False)

    return start


def name_of(options: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items())


@pytest.mark.parametrize("options", OPTIONS, ids=name_of)
def test_an_option_trains_and_leaves_a_model(run, options):
    summary = run(**options)
    resolved = TrainingConfig("stage2", "d", "i", "o", **options).resolved()
    entry = summary.history[0]
    assert math.isfinite(entry["loss"])
    aligned = resolved.objective in ALIGNED
    assert ("alignment_loss" in entry) == aligned == (summary.output / "alignment.safetensors").is_file()
    if aligned:
        expected = entry["ar_loss"] + resolved.alignment_weight * entry["alignment_loss"]
        assert entry["loss"] == pytest.approx(expected, rel=1e-3)
        assert 0 <= entry["retrieval"] <= 1
        assert entry["seconds_graph"] > 0
        assert entry["gradient_norm_projector"] > 0
    read_alone = VIEWS[resolved.texts] - resolved.reuse_answer_states
    assert (entry.get("tokens_text", 0) > 0) == (aligned and read_alone > 0)
    model, processor = load_model(summary.output)
    assert model.num_parameters() > 0
    image = Image.new("RGB", (64, 64))
    inputs = processor(text=f"{processor.image_token} side?", images=image, return_tensors="pt")
    with torch.no_grad():
        assert model(**inputs).logits.isfinite().all()
    report = (summary.output / "report" / "report.md").read_text(encoding="utf-8")
    changed = [name for name in options if name not in ("max_steps", "epochs")]
    assert all(f"`{name}`" in report for name in changed)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["stage1", "vqa"])
def test_other_stages_align_if_they_are_told_to(run, stage):
    assert "alignment_loss" not in run(stage=stage).history[0]
    assert "alignment_loss" in run(stage=stage, objective="barycenter", overwrite=True).history[0]


@pytest.mark.slow
def test_baselines_cost_the_tokens_that_they_say(run):
    tokens = {}
    for options in ({"objective": "none"}, {}, {"objective": "infonce"}, {"reuse_answer_states": True}):
        entry = run(**options, overwrite=True).history[0]
        tokens[name_of(options)] = (entry["tokens_main"], entry.get("tokens_text", 0))
    (main, none), both, infonce, reused = tokens.values()
    assert none == 0
    assert both == infonce, "compute-matched by construction"
    assert {main} == {each[0] for each in (both, infonce, reused)}
    assert 0 < reused[1] < both[1]
    longer = run(objective="none", match_compute=True, max_steps=None, epochs=4.0, overwrite=True)
    # Nine samples make three batches.
    assert longer.steps > 4 * 3


def test_a_stream_trains_like_the_files_that_it_reads(run, small_data, tmp_path):
    records = read_records(small_data.data)
    (tmp_path / "shards").mkdir()
    for shard in range(2):
        with tarfile.open(tmp_path / "shards" / f"{shard}.tar", "w") as archive:
            for record in records[shard::2]:
                sample = next(each for each in json.loads(small_data.data.read_text()) if each["id"] == record.id)
                (tmp_path / "sample.json").write_text(json.dumps(sample))
                archive.add(tmp_path / "sample.json", f"{record.id}.json")
                archive.add(small_data.images / record.image, f"{record.id}.png")
    summary = run(data=tmp_path / "shards", images=None, streaming=True, max_steps=4)
    assert summary.steps == 4
    assert all(math.isfinite(entry["alignment_loss"]) for entry in summary.history)
    with pytest.raises(ValueError, match="streaming must come with max_steps"):
        run(data=tmp_path / "shards", images=None, streaming=True, max_steps=None)


def test_images_from_an_archive_give_the_same_run(run, small_data, tmp_path):
    with tarfile.open(tmp_path / "images.tar", "w") as archive:
        for path in sorted(small_data.images.iterdir()):
            archive.add(path, path.name)
    first = run()
    second = run(images=tmp_path / "images.tar", output=tmp_path / "archive")
    expected, found = (load_file(each.output / "model.safetensors") for each in (first, second))
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_bad_images_are_left_out_of_a_running_training(run, small_data, tmp_path, monkeypatch):
    """Trap 10: an image that breaks while training runs is counted, and no other sample takes its place."""
    images = tmp_path / "images"
    shutil.copytree(small_data.images, images)
    from exgra_adapter import training

    check = training.check_images

    def checked(*arguments: Any, **keywords: Any) -> Any:
        found = check(*arguments, **keywords)
        (images / "3.png").write_bytes(b"broken")
        return found

    monkeypatch.setattr(training, "check_images", checked)
    summary = run(images=images, bad_samples="skip", max_steps=3)
    assert (summary.samples, summary.skipped) == (9, 1)


def test_what_a_conversion_back_needs_goes_on_to_the_next_model(run, base, tmp_path):
    model = tmp_path / "converted"
    shutil.copytree(base, model)
    for name in ("conversion.json", "tokenizer.model", "unfolded_projector.safetensors"):
        (model / name).write_text(name)
    output = run(model=str(model)).output
    assert (output / "conversion.json").read_text() == "conversion.json"
    assert (output / "tokenizer.model").is_file()
    assert not (output / "unfolded_projector.safetensors").exists(), "the projector is another one now"


def test_trackers_get_every_value(run):
    output = run(report_to="tensorboard", max_steps=2).output
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(output / "logs"))
    events.Reload()
    assert {"train/ar_loss", "train/alignment_loss", "train/retrieval"} <= set(events.Tags()["scalars"])
    assert not (output / "checkpoints").exists()


def test_what_an_objective_does_not_know_is_refused(run):
    """Trap 11: no setting is silently ignored."""
    with pytest.raises(ValueError, match="gradient must be left out with objective=infonce"):
        run(objective="infonce", gradient="blackbox")
    with pytest.raises(ValueError, match="neighbours must be left out with objective=none"):
        run(objective="none", neighbours=3)
