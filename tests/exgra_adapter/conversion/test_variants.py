"""Forms of both formats that are seen less often, and refusals of what does not fit them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from exgra_adapter.conversion import checkpoint, output
from exgra_adapter.conversion.convert import convert
from exgra_adapter.conversion.names import on_disk
from exgra_adapter.conversion.projector import unfold_dci

HEAD, EMBEDDINGS = "language_model.lm_head.weight", "language_model.model.embed_tokens.weight"


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes a JSON file."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_weights(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})


@pytest.fixture
def converted(make_original, tmp_path) -> Callable[..., Path]:
    """Makes a Hugging Face folder of a checkpoint of this variant."""

    def make(connector: str | None = None, **variant: Any) -> Path:
        original = make_original(**variant, **({} if connector is None else {"connector": connector}))
        convert(original.folder, tmp_path / "new", vision_tower=original.tower, dense_connector=connector)
        return tmp_path / "new"

    return make


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "pytorch_model.bin", weights_only=True)


def test_a_tower_of_the_source_s_own_may_list_its_positions(make_original, tmp_path):
    original = make_original(vision_prefix="model.vision_tower.vision_tower.vision_model.")
    positions = "model.vision_tower.vision_tower.vision_model.embeddings.position_ids"
    tensors = weights_of(original.folder) | {positions: torch.arange(5)[None]}
    torch.save(tensors, original.folder / "pytorch_model.bin")
    plan = convert(original.folder, tmp_path / "new", vision_tower=original.tower)
    assert positions in {item.source for item in plan.dropped}
    assert not any("position_ids" in transfer.target for transfer in plan.transfers)


def test_positions_and_ties_of_hugging_face_folders(converted, tmp_path):
    folder = converted()

    def tie(tensors: dict[str, torch.Tensor]) -> None:
        del tensors[HEAD]
        tensors["vision_tower.vision_model.embeddings.position_ids"] = torch.arange(5)[None]

    edit_weights(folder / "model.safetensors", tie)
    edit(folder / "config.json", lambda c: (c.update(tie_word_embeddings=True), c["text_config"].update(
        tie_word_embeddings=True)))  # fmt: skip
    plan = convert(folder, tmp_path / "back")
    back = weights_of(tmp_path / "back")
    # The original ties nothing unless it did before: its head is a copy.
    assert torch.equal(back["lm_head.weight"], back["model.embed_tokens.weight"])
    assert any("position_ids" in item.source for item in plan.dropped)


def test_class_tokens_and_padded_images_are_settings_and_notes(make_original, tmp_path):
    original = make_original()
    edit(original.folder / "config.json",
         lambda c: c.update(mm_vision_select_feature="cls_patch", image_aspect_ratio="pad"))  # fmt: skip
    plan = convert(original.folder, tmp_path / "new", vision_tower=original.tower)
    config = json.loads((tmp_path / "new" / "config.json").read_text())
    assert (config["vision_feature_select_strategy"], config["image_seq_length"]) == ("full", 5)
    assert any("pads images to squares" in note for note in plan.notes)
    convert(tmp_path / "new", tmp_path / "back")
    assert json.loads((tmp_path / "back" / "config.json").read_text())["mm_vision_select_feature"] == "cls_patch"


def test_missing_marks_of_images_are_noted(make_original, tmp_path):
    original = make_original()

    def without(content: dict[str, Any]) -> None:
        content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] not in ("<im_start>", "<im_end>")]

    edit(original.folder / "tokenizer.json", without)
    for name in ("added_tokens.json",):
        (original.folder / name).unlink(missing_ok=True)
    edit(original.folder / "tokenizer_config.json", lambda c: c.pop("added_tokens_decoder", None))
    plan = convert(original.folder, tmp_path / "new", vision_tower=original.tower)
    assert any("its tokenizer has no <im_start> and <im_end>" in note for note in plan.notes)


def test_the_original_s_own_tokenizer_file_travels_along(make_original, tmp_path):
    original = make_original()
    (original.folder / "tokenizer.model").write_bytes(b"sentencepiece")
    convert(original.folder, tmp_path / "new", vision_tower=original.tower)
    plan = convert(tmp_path / "new", tmp_path / "back")
    for folder in ("new", "back"):
        assert (tmp_path / folder / "tokenizer.model").read_bytes() == b"sentencepiece"
    assert not any("own tokenizer class cannot read" in note for note in plan.notes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(mm_vision_select_layer=-3), "builds on layer -2; got mm_vision_select_layer -3"),
        (lambda c: c.pop("hidden_size"), "must give hidden_size as a positive number"),
    ],
)
def test_settings_that_do_not_fit_a_dense_connector(make_original, tmp_path, change, message):
    original = make_original(connector="dci")
    edit(original.folder / "config.json", change)
    with pytest.raises(ValueError, match=message):
        convert(original.folder, tmp_path / "new", vision_tower=original.tower, dense_connector="dci")


def test_projectors_and_embeddings_that_do_not_fit(make_original, tmp_path):
    original = make_original()
    path, whole = original.folder / "pytorch_model.bin", weights_of(original.folder)
    torch.save(whole | {"model.mm_projector.0.weight": torch.ones(16, 9)}, path)
    with pytest.raises(ValueError, match=r"must take 8 features .* or 24 \(dense connector\); got 9"):
        convert(original.folder, tmp_path / "new", vision_tower=original.tower)
    torch.save({name: value for name, value in whole.items() if "embed_tokens" not in name}, path)
    with pytest.raises(ValueError, match=r"must hold model.embed_tokens.weight; got none"):
        convert(original.folder, tmp_path / "new", vision_tower=original.tower)


def test_towers_that_do_not_fit(make_original, tmp_path):
    original = make_original()
    edit_weights(original.tower / "model.safetensors", lambda t: t.update(surprise=torch.ones(2)))
    with pytest.raises(ValueError, match=r"must hold a CLIP model; got the unknown tensor surprise"):
        convert(original.folder, tmp_path / "new", vision_tower=original.tower)
    for content in ("{", "[]"):
        (original.tower / "config.json").write_text(content)
        with pytest.raises(ValueError, match=r"config.json must be a JSON object; got an error"):
            convert(original.folder, tmp_path / "new", vision_tower=original.tower)


def test_tokenizers_that_do_not_fit(make_original, tmp_path):
    original = make_original()
    files = {path: path.read_bytes() for path in original.folder.glob("*token*")}

    def refused(message: str) -> None:
        with pytest.raises(ValueError, match=message):
            convert(original.folder, tmp_path / "new", vision_tower=original.tower)
        for path, content in files.items():
            path.write_bytes(content)

    config, tokens = original.folder / "tokenizer_config.json", original.folder / "tokenizer.json"
    edit(config, lambda c: c.pop("eos_token"))
    refused("must have a eos_token; got none")
    for path in files:
        path.write_bytes(path.read_bytes().replace(b"<im_patch>", b"<my_patch>"))
    refused("must know <im_patch>")
    tokens.unlink()
    refused("must hold tokenizer.json or tokenizer.model")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), "source must hold tokenizer.json"),
        (lambda folder: (folder / "conversion.json").write_text("{"), "must be a report that this command wrote"),
        (lambda folder: (folder / "conversion.json").write_text("[]"), "must be a report that this command wrote"),
        (lambda folder: (folder / "config.json").unlink(), "must be a model folder with config.json"),
        (
            lambda folder: edit(folder / "config.json", lambda c: c["text_config"].update(
                rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0})),
            "has plain rotary embeddings",
        ),
    ],
)  # fmt: skip
def test_hugging_face_folders_that_do_not_fit(converted, tmp_path, change, message):
    folder = converted()
    change(folder)
    with pytest.raises(ValueError, match=message):
        convert(folder, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_report_of_another_conversion_says_nothing(converted, tmp_path):
    folder = converted()
    edit(folder / "conversion.json", lambda c: c.update(direction="original"))
    with pytest.raises(ValueError, match=r"must name its vision tower; got none"):
        convert(folder, tmp_path / "back")
    convert(folder, tmp_path / "back", vision_tower="some/clip")


def test_options_that_do_not_fit(converted, tmp_path):
    folder = converted(connector="dci")
    with pytest.raises(ValueError, match=r"must be what vision_feature_layer says, dci; got sci"):
        convert(folder, tmp_path / "back", dense_connector="sci")
    with pytest.raises(ValueError, match=r"shard_bytes must be at least 1; got 0"):
        convert(folder, tmp_path / "back", shard_bytes=0)


def test_a_trained_linear_projector_behind_dci_has_no_original_form(converted, tmp_path):
    folder = converted(connector="dci", projector="linear")
    second = "multi_modal_projector.linear_2.weight"
    edit_weights(folder / "model.safetensors", lambda t: t.update({second: torch.ones_like(t[second])}))
    with pytest.raises(ValueError, match=r"must have an identity as its second layer; got a trained one"):
        convert(folder, tmp_path / "back")


def test_message_passing_of_another_model_is_refused(converted, tmp_path):
    folder = converted(message_passing=True)
    edit_weights(
        folder / "alignment.safetensors", lambda t: t.update({"message_passing.conv1.lin_rel.bias": torch.ones(3)})
    )
    with pytest.raises(ValueError, match=r"must hold two graph convolutions as wide as the language model"):
        convert(folder, tmp_path / "back")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "must be JSON"),
        ("[]", "must have a weight_map"),
        ('{"weight_map": {}}', "must have a weight_map"),
        ('{"weight_map": {"model.norm.weight": 3}}', "must have a weight_map"),
    ],
)
def test_a_broken_index_is_named(make_original, tmp_path, content, message):
    original = make_original(shards=2)
    (original.folder / "pytorch_model.bin.index.json").write_text(content)
    with pytest.raises(ValueError, match=rf"pytorch_model.bin.index.json {message}"):
        convert(original.folder, tmp_path / "new", vision_tower=original.tower)


def test_a_folder_without_weights_is_refused(make_original, tmp_path):
    original = make_original()
    (original.folder / "pytorch_model.bin").unlink()
    with pytest.raises(ValueError, match=r"folder must hold .* or one of them in shards with its index"):
        convert(original.folder, tmp_path / "new", vision_tower=original.tower)


def test_quantized_files_are_refused(make_original, tmp_path):
    original = make_original(kind="safetensors")
    tensors = {"model.norm.weight": torch.ones(16).to(torch.float8_e8m0fnu)}
    save_file(tensors, original.folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"must hold tensors of common types; got model.norm.weight"):
        convert(original.folder, tmp_path / "new", vision_tower=original.tower)


def test_pickles_are_read_by_a_torch_that_reads_them_safely(make_original, tmp_path, monkeypatch):
    original = make_original()
    monkeypatch.setattr(checkpoint, "torch", SimpleNamespace(__version__="2.5.1+cpu"))
    with pytest.raises(ValueError, match=r"safely needs torch 2.6 or newer; got 2.5.1"):
        convert(original.folder, tmp_path / "new", vision_tower=original.tower)


def test_a_full_disk_is_found_before_anything_is_written(make_original, tmp_path, monkeypatch):
    original = make_original()
    monkeypatch.setattr(output.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(OSError, match=r"the output needs 0.0 GB; got 0.0 GB of free space"):
        convert(original.folder, tmp_path / "new", vision_tower=original.tower)
    assert not (tmp_path / "new").exists()


def test_two_layers_cannot_be_unfolded():
    with pytest.raises(ValueError, match=r"must have at least 4 layers; got 2"):
        unfold_dci(torch.ones(3, 4), 2)


def test_other_names_stay():
    assert on_disk("image_newline") == "image_newline"
