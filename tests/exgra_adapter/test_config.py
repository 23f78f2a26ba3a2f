"""Settings: files, presets and single values become one checked object."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exgra_adapter.config import ALIGNED, TrainingConfig, changed_settings
from exgra_adapter.config_files import config_of, preset_names, read_config

GIVEN = ["data=train.json", "images=images", "output=run"]
# What holds in every stage of the paper.
SHARED = {
    "warmup_ratio": 0.03,
    "weight_decay": 0.0,
    "max_length": 2048,
    "gradient_checkpointing": True,
    "tf32": True,
    "seed": 42,
    "precision": "bf16",
    "lora_rank": 0,
    "quantization": "none",
    "prompt": "released",
    "data_fraction": 1.0,
    "dense_connector": "keep",
    "max_steps": None,
}
STAGE1 = SHARED | {
    "stage": "stage1",
    "objective": "none",
    "learning_rate": 2e-3,
    "epochs": 1.0,
    "batch_size": 16,
    "gradient_accumulation": 2,  # on 4 GPUs 128 samples per step
}
STAGE2 = SHARED | {
    "stage": "stage2",
    "model": "runs/stage1",
    "objective": "barycenter",
    "alignment_weight": 1.0,
    "neighbours": 5,
    "barycenter": "leave_one_out",
    "texts": "both",
    "learning_rate": 2e-5,
    "epochs": 3.0,
    "batch_size": 16,  # on 4 GPUs 64 samples per step
    "gradient_accumulation": 1,
    "fsdp": "full",
    "graph_scope": "global",
    "legacy": False,
}
VQA = SHARED | {
    "stage": "vqa",
    "model": "runs/stage2",
    "objective": "none",
    "learning_rate": 2e-5,
    "epochs": 15.0,
    "batch_size": 32,
    "gradient_accumulation": 1,
}
DCI = {"model": "runs/stage1_dci"}
VQA_DCI = {"model": "runs/stage2_dci"}
BASELINE = {"objective": "none"}
PRESETS: dict[str, dict[str, Any]] = {
    "stage1": STAGE1,
    "stage1_dci": STAGE1 | {"dense_connector": "dci"},
    "stage2": STAGE2,
    "stage2_10": STAGE2 | {"data_fraction": 0.1},
    "stage2_40": STAGE2 | {"data_fraction": 0.4},
    "stage2_dci": STAGE2 | DCI,
    "stage2_10_dci": STAGE2 | DCI | {"data_fraction": 0.1},
    "stage2_40_dci": STAGE2 | DCI | {"data_fraction": 0.4},
    "stage2_llava_med": STAGE2 | BASELINE,
    "stage2_llava_med_10": STAGE2 | BASELINE | {"data_fraction": 0.1},
    "stage2_llava_med_40": STAGE2 | BASELINE | {"data_fraction": 0.4},
    "stage2_legacy": STAGE2 | {"legacy": True, "graph_scope": "local"},
    "vqa_rad": VQA,
    "vqa_rad_dci": VQA | VQA_DCI,
    "slake": VQA,
    "slake_dci": VQA | VQA_DCI,
    "pathvqa": VQA | {"allow_duplicate_ids": True},
    "pathvqa_dci": VQA | VQA_DCI | {"allow_duplicate_ids": True},
    "tiny": {"stage": "stage2", "model": "tiny", "objective": "barycenter", "learning_rate": 1e-3, "max_steps": 100},
}


def make(stage: str = "stage2", **values: Any) -> TrainingConfig:
    return config_of({"stage": stage, "data": "train.json", "images": "images", "output": "run"} | values)


def write(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def test_every_preset_has_the_numbers_of_the_paper():
    assert sorted(PRESETS) == preset_names()
    for name, expected in PRESETS.items():
        config = read_config(expected["stage"], name, GIVEN).resolved()
        assert {key: getattr(config, key) for key in expected} == expected, name
        assert (config.data, config.images, config.output) == (Path("train.json"), Path("images"), Path("run"))


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_is_for_its_stage(name):
    other = "vqa" if PRESETS[name]["stage"] != "vqa" else "stage1"
    with pytest.raises(
        ValueError, match=rf"settings must be for {other}, .* got stage '{PRESETS[name]['stage']}' in {name}"
    ):
        read_config(other, name, GIVEN)


def test_pairs_win_over_files(tmp_path):
    write(tmp_path, "base.yaml", "batch_size: 2\nseed: 1\nepochs: 4\nobjective: infonce\n")
    write(tmp_path, "middle.yaml", "based_on: base.yaml\nseed: 2\nepochs: 5\n")
    top = write(tmp_path, "top.yaml", "based_on: middle.yaml\nepochs: 6\n")
    config = read_config("stage2", top, [*GIVEN, "epochs=7", "epochs=8"])
    assert (config.batch_size, config.seed, config.epochs, config.objective) == (2, 2, 8.0, "infonce")


def test_a_file_may_change_a_preset_of_its_own_name(tmp_path, monkeypatch):
    own = write(tmp_path, "stage2.yaml", "based_on: stage2\nbatch_size: 8\n")
    assert read_config("stage2", own, GIVEN).batch_size == 8
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vqa_rad").mkdir()  # the output of a run, say
    assert read_config("vqa", "vqa_rad", GIVEN).epochs == 15


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.yaml": "based_on: a.yaml"}, r"based_on must not lead back to .*a.yaml; got a circle"),
        ({"a.yaml": "based_on: b.yaml", "b.yaml": "based_on: a.yaml"}, "got a circle"),
        ({"a.yaml": "based_on: stage3"}, r"a YAML file or a preset; got 'stage3'. Did you mean stage\d"),
        ({"a.yaml": "based_on: xyz"}, "got 'xyz'. Presets are pathvqa, "),
        ({"a.yaml": "based_on: b.yaml"}, r"must be a readable file; got b.yaml \(No such file"),
        ({}, r"must be a readable file; got .*a.yaml \(No such file"),
        ({"a.yaml": "batch_size: [1"}, "must be YAML; got an error"),
        ({"a.yaml": ""}, "must hold settings as `key: value`; got None"),
        ({"a.yaml": "- batch_size"}, r"got \['batch_size'\]"),
        ({"a.yaml": "1: 2"}, "must hold settings"),
        ({"a.yaml": "seed: 1\nepochs: 2\nseed: 1"}, "must hold each setting once; got seed twice"),
        ({"a.yaml": f"[{'9, ' * 50}9]"}, r"got \[9, 9, .{0,80}9?\.\.\. Add some"),
        ({"a.yaml": "batchsize: 2"}, "known names; got 'batchsize'. Did you mean batch_size?"),
        ({"a.yaml": "xyzzy: 2"}, "got 'xyzzy'. `exgra-med train --help` lists them"),
        ({"a.yaml": "stage: 2"}, "settings must be for stage2, as the command says; got stage 2"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, files, message):
    for name, text in files.items():
        write(tmp_path, name, text)
    with pytest.raises(ValueError, match=message):
        read_config("stage2", str(tmp_path / "a.yaml"), GIVEN)


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ValueError, match="must be YAML; got an error"):
        read_config("stage2", str(tmp_path / "a.yaml"), GIVEN)


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        ("learning_rate=1e-4", 1e-4),
        ("learning_rate=0.001", 1e-3),
        ("epochs=2", 2.0),
        ("batch_size=8", 8),
        ("max_steps=null", None),
        ("max_steps=none", None),
        ("images=none", None),
        ("deepspeed=none", None),
        ("objective=none", "none"),
        ("tf32=false", False),
        ("tf32=no", False),
        ("model=7", "7"),
        ("model=runs/a=b", "runs/a=b"),
        ("output=2024", Path("2024")),
        ("output=010", Path("010")),
        ("output=2024_05", Path("2024_05")),
        ("output=2024-05-01", Path("2024-05-01")),
        ("data_license=4.10", "4.10"),
        ("report_to=tensorboard,wandb", "tensorboard,wandb"),
        ("report_to=none", "none"),
        (" seed = 3", 3),
    ],
)
def test_values_take_the_type_of_their_field(pair, expected):
    value = getattr(read_config("stage2", None, [*GIVEN, pair]), pair.partition("=")[0].strip())
    assert value == expected
    assert type(value) is type(expected)


def test_texts_of_a_file_stay_as_they_are_written(tmp_path):
    write(tmp_path, "a.yaml", "output: 010\ndata: '7'\nimages: 1_0\nseed: 010\n<<: {batch_size: 3}")
    found = read_config("stage2", str(tmp_path / "a.yaml"))
    assert (found.output, found.data, found.images) == (Path("010"), Path("7"), Path("1_0"))
    assert (found.seed, found.batch_size) == (8, 3)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("batch_size", "must be key=value; got 'batch_size'"),
        ("=8", "must be key=value"),
        ("batch_size=8.5", "batch_size must be a whole number; got 8.5"),
        ("batch_size=many", "batch_size must be a whole number; got 'many'"),
        ("batch_size=true", "batch_size must be a whole number; got True"),
        ("batch_size=none", "batch_size must be a whole number; got 'none'"),
        ("learning_rate=fast", "learning_rate must be a number; got 'fast'"),
        ("learning_rate=true", "learning_rate must be a number; got True"),
        ("learning_rate=nan", "learning_rate must be positive and finite; got nan"),
        ("tf32=1", "tf32 must be true or false; got 1"),
        ("model=[a]", r"model must be a text; got \['a'\]"),
        ("model={", "model must be a YAML value; got '{'. Quote texts"),
        ("objective=contrastive", "objective must be one of none, extended_text, infonce, .* got 'contrastive'"),
        ("precision=16", "precision must be one of fp32, bf16, fp16; got '16'"),
        ("lerning_rate=1", "got 'lerning_rate'. Did you mean learning_rate?"),
        ("based_on=stage2", "got 'based_on'"),
    ],
)
def test_values_that_do_not_fit(pair, message):
    with pytest.raises(ValueError, match=message):
        read_config("stage2", None, [*GIVEN, pair])


@pytest.mark.parametrize("name", ["data", "output"])
def test_data_and_output_must_be_given(name):
    pairs = [pair for pair in GIVEN if not pair.startswith(name)]
    with pytest.raises(
        ValueError, match=rf"{name} must be given; got nothing. Add it to the file, or --set {name}=PATH"
    ):
        read_config("stage2", "stage2", pairs)
    assert read_config("stage2", None, [pair for pair in GIVEN if not pair.startswith("images")]).images is None


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        *(
            (name, 0, "be at least 1")
            for name in (
                "neighbours",
                "batch_size",
                "gradient_accumulation",
                "max_length",
                "logging_steps",
                "save_steps",
                "shuffle_buffer",
                "tiny_size",
            )
        ),
        *(
            (name, value, "be positive and finite")
            for name in ("epochs", "max_steps", "learning_rate", "lora_alpha", "max_gradient_norm")
            for value in (0, -1)
        ),
        *(
            (name, float("inf"), "finite")
            for name in ("epochs", "learning_rate", "alignment_weight", "margin", "weight_decay")
        ),
        *((name, -0.1, "be 0 or more and finite") for name in ("alignment_weight", "margin", "weight_decay")),
        *((name, value, r"lie in \[0, 1\)") for name in ("warmup_ratio", "lora_dropout") for value in (-0.1, 1.0)),
        *(("data_fraction", value, r"lie in \(0, 1\]") for value in (0.0, 1.5)),
        *((name, -1, "be 0 or more") for name in ("workers", "seed", "lora_rank")),
    ],
)
def test_numbers_have_a_range(name, value, rule):
    with pytest.raises(ValueError, match=rf"TrainingConfig: {name} must .*{rule}.*; got {value}"):
        make(**{name: value})


@pytest.mark.parametrize(
    ("values", "cured", "message"),
    [
        ({"resume": True, "overwrite": True}, {"overwrite": False}, "resume must not be combined with overwrite"),
        ({"streaming": True, "model": "m"}, {"max_steps": 9}, "streaming must come with max_steps"),
        ({"streaming": True, "max_steps": 9}, {"model": "m"}, "streaming must come with a model folder"),
        (
            {"streaming": True, "max_steps": 9, "model": "m", "match_compute": True},
            {"match_compute": False},
            "streaming must not be combined with match_compute",
        ),
        (
            {"streaming": True, "max_steps": 9, "model": "m", "data_fraction": 0.5},
            {"data_fraction": 1.0},
            "streaming must read all of the data",
        ),
        ({"quantization": "4bit"}, {"lora_rank": 8}, "quantization must come with lora_rank"),
        ({"lora_rank": 8, "stage": "stage1"}, {"stage": "vqa"}, "lora_rank must be 0 in stage1"),
        ({"lora_rank": 8, "projector": "mlp"}, {"projector": "keep"}, "lora_rank must be 0 where the projector is ex"),
        ({"lora_rank": 8, "dense_connector": "dci"}, {"lora_rank": 0}, "lora_rank must be 0 where the projector is ex"),
        ({"deepspeed": "zero2", "fsdp": "full"}, {"fsdp": "none"}, "deepspeed must not be combined with fsdp"),
        ({"deepspeed": "zero3"}, {"model": "runs/stage1"}, "deepspeed must start from a model folder with zero3"),
        (
            {"reuse_answer_states": True, "legacy": True},
            {"legacy": False},
            "reuse_answer_states must not be combined with legacy or texts=extended",
        ),
        (
            {"reuse_answer_states": True, "texts": "extended"},
            {"texts": "both"},
            "reuse_answer_states must not be combined with legacy or texts=extended",
        ),
        (
            {"match_compute": True, "objective": "barycenter"},
            {"objective": "extended_text"},
            "match_compute must come with an objective without text passes",
        ),
    ],
)
def test_settings_that_do_not_go_together(values, cured, message):
    with pytest.raises(ValueError, match=f"TrainingConfig: {message}"):
        make(**values)
    make(**(values | cured))


@pytest.mark.parametrize(
    ("stage", "values", "rate", "epochs", "objective"),
    [
        ("stage1", {}, 2e-3, 1, "none"),
        ("stage2", {}, 1e-3, 3, "barycenter"),
        ("vqa", {}, 1e-3, 15, "none"),
        ("stage1", {"model": "llava-7b"}, 2e-3, 1, "none"),
        ("stage2", {"model": "llava-7b"}, 2e-5, 3, "barycenter"),
        ("vqa", {"model": "llava-7b"}, 2e-5, 15, "none"),
        ("stage2", {"model": "llava-7b", "lora_rank": 8}, 2e-4, 3, "barycenter"),
        ("stage2", {"lora_rank": 8}, 1e-3, 3, "barycenter"),
        ("stage2", {"match_compute": True}, 1e-3, 3, "none"),
        ("stage2", {"learning_rate": 5e-6, "epochs": 0.5, "objective": "siglip"}, 5e-6, 0.5, "siglip"),
    ],
)
def test_what_is_left_out_follows_the_stage(stage, values, rate, epochs, objective):
    config = make(stage, **values).resolved()
    assert (config.learning_rate, config.epochs, config.objective) == (rate, epochs, objective)
    assert config.resolved() == config


def test_descendants_of_the_tiny_model_learn_as_fast(tmp_path):
    def rate() -> float | None:
        return make(model=str(tmp_path)).resolved().learning_rate

    for described, expected in (
        ({"text_config": {"hidden_size": 1024}}, 1e-3),
        ({"text_config": {"hidden_size": 1025}}, 2e-5),
        ({"text_config": []}, 2e-5),
        ([], 2e-5),
    ):
        (tmp_path / "config.json").write_text(json.dumps(described))
        assert rate() == expected
    (tmp_path / "config.json").rename(tmp_path / "base.json")
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text('{"text_config": {"hidden_size": 128}}')
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "base"}')
    assert rate() == 1e-3, "adapters on a narrow model"


def test_what_an_objective_needs():
    for name in sorted(ALIGNED):
        config = make(objective=name)
        assert config.is_aligned
        assert config.needs_extended_answers
        assert not make(objective=name, texts="answer").needs_extended_answers
        assert not make(objective=name, alignment_weight=0.0).is_aligned
        assert not make(objective=name, alignment_weight=0.0).needs_extended_answers
    assert not make(objective="none").needs_extended_answers
    assert make(objective="extended_text").needs_extended_answers
    assert not make(objective="extended_text").is_aligned


def test_changed_settings_are_those_that_differ():
    changed = changed_settings(make(seed=1, images=None, batch_size=16))
    assert changed == {"stage": "stage2", "data": "train.json", "images": None, "output": "run", "seed": 1}
    assert changed_settings(make())["images"] == "images"


changes = st.fixed_dictionaries(
    {},
    optional={
        "stage": st.sampled_from(["stage1", "stage2", "vqa"]),
        "images": st.one_of(st.none(), st.just("somewhere/else.tar")),
        "objective": st.sampled_from([None, "none", *sorted(ALIGNED)]),
        "learning_rate": st.one_of(st.none(), st.floats(1e-9, 1.0)),
        "epochs": st.one_of(st.none(), st.floats(0.1, 50)),
        "max_steps": st.one_of(st.none(), st.integers(1, 10**6)),
        "deepspeed": st.sampled_from([None, "zero2", "own.json"]),
        "tf32": st.booleans(),
        "seed": st.integers(0, 2**31),
        "model": st.sampled_from(["tiny", "7", "runs/stage1"]),
    },
)


@given(values=changes)
def test_settings_survive_a_file(values):
    """What a finished run keeps in settings.json is its settings."""
    config = make(**values)
    for each in (config, config.resolved()):
        assert config_of(json.loads(json.dumps(each.to_json()))) == each
        assert set(each.to_json()) == {field.name for field in dataclasses.fields(TrainingConfig)}


def test_every_setting_says_what_it_is_for():
    for field in dataclasses.fields(TrainingConfig):
        assert field.metadata["help"], field.name
