"""From Hugging Face back to the original format: every tensor keeps its bits."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoProcessor, LlavaForConditionalGeneration, PreTrainedTokenizerFast

from exgra_adapter.conversion.checkpoint import Checkpoint
from exgra_adapter.conversion.convert import convert
from exgra_adapter.conversion.projector import UNFOLDED_FILE
from exgra_adapter.models import build_tiny_model


def digest(value: Tensor) -> str:
    content = value.contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(f"{value.dtype} {tuple(value.shape)} ".encode() + content).hexdigest()


def digests(tensors: dict[str, Tensor]) -> dict[str, str]:
    """Hashes of all tensors that the way there does not drop."""
    return {name: digest(value) for name, value in tensors.items() if "inv_freq" not in name}


def read_all(folder: Path) -> dict[str, Tensor]:
    checkpoint = Checkpoint(folder)
    return {name: checkpoint.read(name).clone() for name in checkpoint.tensors}


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 1000),
    projector=st.sampled_from(["mlp", "linear"]),
    connector=st.sampled_from(["none", "dci"]),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    message_passing=st.booleans(),
    tied=st.booleans(),
    vision_prefix=st.sampled_from([None, "model.vision_tower.", "model.vision_tower.vision_tower.vision_model."]),
    weight_format=st.sampled_from(["bin", "safetensors", None]),
    shard_bytes=st.sampled_from([3000, 10**9]),
)
def test_there_and_back_keeps_every_bit(make_original, tmp_path_factory, seed, weight_format, shard_bytes, **variant):
    place = tmp_path_factory.mktemp("back")
    original = make_original(f"{place.name}-original", seed=seed, **variant)
    connector = {"none": None}.get(original.connector, original.connector)
    convert(original.folder, place / "new", vision_tower=original.tower, dense_connector=connector)
    convert(place / "new", place / "back", weight_format=weight_format, shard_bytes=shard_bytes)
    assert digests(read_all(place / "back")) == digests(original.tensors)
    suffixes = {path.suffix for path in (place / "back").glob("*model*") if path.suffix != ".json"}
    assert suffixes == {f".{weight_format or 'bin'}"}


def test_sci_goes_back_bit_by_bit(make_original, tmp_path):
    original = make_original(connector="sci", layers=16, dtype=torch.float16)
    convert(original.folder, tmp_path / "new", vision_tower=original.tower, dense_connector="sci")
    convert(tmp_path / "new", tmp_path / "back")
    assert digests(read_all(tmp_path / "back")) == digests(original.tensors)


def test_there_back_and_there_again_is_the_same_model(make_original, tmp_path):
    original = make_original(message_passing=True)
    convert(original.folder, tmp_path / "new", vision_tower=original.tower)
    convert(tmp_path / "new", tmp_path / "back")
    convert(tmp_path / "back", tmp_path / "again", vision_tower=original.tower)
    for file in ("model.safetensors", "alignment.safetensors"):
        assert digests(load_file(tmp_path / "again" / file)) == digests(load_file(tmp_path / "new" / file))
    for file in ("config.json", "generation_config.json", "processor_config.json", "tokenizer.json"):
        assert (tmp_path / "again" / file).read_text() == (tmp_path / "new" / file).read_text()


def test_settings_come_back_corrected(make_original, tmp_path):
    original = make_original()
    convert(original.folder, tmp_path / "new", vision_tower=original.tower)
    convert(tmp_path / "new", tmp_path / "back")
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    tokens = original.tokenizer
    corrected = {
        "bos_token_id": tokens.bos_token_id,
        "eos_token_id": tokens.eos_token_id,
        "pad_token_id": tokens.convert_tokens_to_ids("[PAD]"),
        "vocab_size": len(tokens),
    }
    assert {key: config[key] for key in original.config} == original.config | corrected
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path / "back")
    text = "is there a lesion? <im_start><im_patch><im_end>###"
    assert tokenizer(text)["input_ids"] == tokens(text)["input_ids"]
    added = json.loads((tmp_path / "back" / "added_tokens.json").read_text())
    assert added == {name: tokens.convert_tokens_to_ids(name) for name in added}
    assert list(added) == ["[PAD]", "<im_patch>", "<im_start>", "<im_end>"]


def test_every_name_under_which_hugging_face_stores_tensors_is_read(make_original, tmp_path):
    original = make_original()
    convert(original.folder, tmp_path / "new", vision_tower=original.tower)
    model = LlavaForConditionalGeneration.from_pretrained(tmp_path / "new")
    shutil.copytree(tmp_path / "new", tmp_path / "saved")
    model.save_pretrained(tmp_path / "saved")
    shutil.copytree(tmp_path / "new", tmp_path / "memory")
    save_file(model.state_dict(), tmp_path / "memory" / "model.safetensors", {"format": "pt"})
    assert "model.language_model.norm.weight" in load_file(tmp_path / "memory" / "model.safetensors")
    for name in ("saved", "memory"):
        convert(tmp_path / name, tmp_path / f"{name}-back")
        assert digests(read_all(tmp_path / f"{name}-back")) == digests(original.tensors)


def test_dci_unfolds_to_rounding_without_the_kept_layer(make_original, tmp_path):
    original = make_original(connector="dci", layers=4)
    convert(original.folder, tmp_path / "new", vision_tower=original.tower, dense_connector="dci")
    (tmp_path / "new" / UNFOLDED_FILE).unlink()
    convert(tmp_path / "new", tmp_path / "back")
    back, name = read_all(tmp_path / "back"), "model.mm_projector.0.weight"
    torch.testing.assert_close(back[name], original.tensors[name], rtol=1e-5, atol=1e-6)
    del back[name], original.tensors[name]
    assert digests(back) == digests(original.tensors)


def test_a_folded_projector_that_was_trained_is_not_unfolded_silently(make_original, tmp_path):
    original = make_original(connector="dci", layers=4)
    convert(original.folder, tmp_path / "new", vision_tower=original.tower, dense_connector="dci")
    tensors = load_file(tmp_path / "new" / "model.safetensors")
    tensors["multi_modal_projector.linear_1.weight"] += torch.randn(16, 32)
    save_file(tensors, tmp_path / "new" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"blocks that differ within a half\. It was trained after folding"):
        convert(tmp_path / "new", tmp_path / "back")


def test_a_trained_second_linear_layer_is_multiplied_in(make_original, tmp_path):
    original = make_original(projector="linear")
    convert(original.folder, tmp_path / "new", vision_tower=original.tower)
    tensors = load_file(tmp_path / "new" / "model.safetensors")
    second = torch.randn(16, 16)
    tensors["multi_modal_projector.linear_2.weight"] = second
    tensors["multi_modal_projector.linear_2.bias"] += 1
    save_file(tensors, tmp_path / "new" / "model.safetensors", {"format": "pt"})
    plan = convert(tmp_path / "new", tmp_path / "back")
    back = read_all(tmp_path / "back")
    before = original.tensors
    expected = second @ before["model.mm_projector.weight"]
    torch.testing.assert_close(back["model.mm_projector.weight"], expected, rtol=1e-5, atol=1e-5)
    expected = second @ before["model.mm_projector.bias"] + 1
    torch.testing.assert_close(back["model.mm_projector.bias"], expected, rtol=1e-5, atol=1e-5)
    assert any("product of two trained linear layers" in note for note in plan.notes)


def test_a_model_that_was_never_in_the_original_format(tmp_path):
    model, processor = build_tiny_model(["is there a lesion?"], seed=0)
    model.save_pretrained(tmp_path / "tiny")
    processor.save_pretrained(tmp_path / "tiny")
    with pytest.raises(ValueError, match=r"must name its vision tower; got none for one of width 128 with 2 layers"):
        convert(tmp_path / "tiny", tmp_path / "back")
    plan = convert(tmp_path / "tiny", tmp_path / "back", vision_tower="some/clip")
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    assert config["mm_vision_tower"] == "some/clip"
    assert config["hidden_size"] == 128
    assert config["mm_use_im_start_end"] is False
    assert {item.reason.split(" ", 1)[0] for item in plan.dropped} == {"the"}
    assert set(read_all(tmp_path / "back")) == {transfer.target for transfer in plan.transfers}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["vision_config"].update(model_type="siglip_vision_model"), "got llama with siglip_vision_model"),
        (lambda c: c.update(projector_hidden_act="relu"), "must be gelu or linear for the original format; got relu"),
        (lambda c: c.update(vision_feature_layer=[-2, -3]), r"got \[-2, -3\]. The original format has no name"),
        (lambda c: c["text_config"].update(num_hidden_layers=3), r"layers.2.\S+ is missing"),
    ],
)
def test_what_the_original_format_has_no_place_for_is_refused(make_original, tmp_path, change, message):
    original = make_original()
    convert(original.folder, tmp_path / "new", vision_tower=original.tower)
    path = tmp_path / "new" / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        convert(tmp_path / "new", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_the_processor_of_a_round_trip_still_loads(make_original, tmp_path):
    original = make_original()
    convert(original.folder, tmp_path / "new", vision_tower=original.tower)
    convert(tmp_path / "new", tmp_path / "back")
    convert(tmp_path / "back", tmp_path / "again", vision_tower=original.tower)
    assert AutoProcessor.from_pretrained(tmp_path / "again").image_token == "<im_patch>"
