"""From the original format to Hugging Face: what is written loads completely and computes the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoConfig, AutoProcessor, GenerationConfig, LlavaForConditionalGeneration, LlavaProcessor

import graphmatch as gm
from exgra_adapter.alignment import load_alignment
from exgra_adapter.conversion.convert import convert


def load(folder: Path, **options) -> LlavaForConditionalGeneration:
    model, info = LlavaForConditionalGeneration.from_pretrained(folder, output_loading_info=True, **options)
    assert {name: list(found) for name, found in info.items() if found} == {}
    return model.eval()


def question(folder: Path) -> dict[str, torch.Tensor]:
    processor = AutoProcessor.from_pretrained(folder)
    pixels = torch.randint(0, 256, (20, 30, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return processor(
        text="is there a lesion? <im_start><im_patch><im_end>###",
        images=Image.fromarray(pixels.numpy()),
        return_tensors="pt",
    )


def compare_logits(original, output: Path, **tolerance) -> None:
    inputs, model = question(output), load(output, dtype=torch.float32)
    expected = original.logits(inputs["input_ids"], inputs["pixel_values"], model.config.image_token_index)
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).logits, expected, **tolerance)


@pytest.mark.parametrize(
    "variant",
    [
        {},
        {"projector": "linear"},
        {"shards": 3},
        {"kind": "safetensors"},
        {"kind": "safetensors", "shards": 3, "dtype": torch.bfloat16},
        {"dtype": torch.float16, "extra_rows": 5},
        {"clip": "safetensors"},
        {"clip": "bin", "message_passing": True},
        {"tied": True},
        {"connector": "sci", "layers": 16},
        {"connector": "sci", "layers": 16, "projector": "linear"},
    ],
    ids=lambda variant: "-".join(f"{value}".removeprefix("torch.") for value in variant.values()) or "plain",
)
def test_the_converted_model_computes_the_same(make_original, tmp_path, variant):
    original = make_original(**variant)
    connector = original.connector if original.connector != "none" else None
    convert(original.folder, tmp_path / "new", vision_tower=original.tower, dense_connector=connector, shard_bytes=9000)
    compare_logits(original, tmp_path / "new", rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("projector", ["mlp", "linear"])
@pytest.mark.parametrize("layers", [2, 4, 24])
def test_folded_dci_computes_the_same_in_stock_llava(make_original, tmp_path, layers, projector):
    original = make_original(connector="dci", layers=layers, projector=projector)
    convert(original.folder, tmp_path / "new", vision_tower=original.tower, dense_connector="dci")
    config = AutoConfig.from_pretrained(tmp_path / "new")
    assert config.vision_feature_layer == list(range(layers))
    compare_logits(original, tmp_path / "new", rtol=1e-5, atol=1e-5)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 1000),
    projector=st.sampled_from(["mlp", "linear"]),
    connector=st.sampled_from(["none", "dci"]),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    shards=st.integers(1, 4),
    kind=st.sampled_from(["bin", "safetensors"]),
    message_passing=st.booleans(),
    shard_bytes=st.sampled_from([1, 3000, 10**9]),
)
def test_every_variant_loads_with_no_key_missing_or_left_over(
    make_original, tmp_path_factory, seed, shard_bytes, **variant
):
    place = tmp_path_factory.mktemp("any")
    original = make_original(f"{place.name}-original", seed=seed, **variant)
    connector = {"none": None}.get(original.connector, original.connector)
    convert(
        original.folder,
        place / "new",
        vision_tower=original.tower,
        dense_connector=connector,
        shard_bytes=shard_bytes,
    )
    assert load(place / "new").dtype == variant["dtype"]


def test_settings_are_read_from_the_tokenizer_not_from_the_config(make_original, tmp_path):
    original = make_original(extra_rows=3)
    plan = convert(original.folder, tmp_path / "new", vision_tower=original.tower)
    ids = {name: original.tokenizer.convert_tokens_to_ids(name) for name in ("<s>", "</s>", "[PAD]", "<im_patch>")}
    config = AutoConfig.from_pretrained(tmp_path / "new")
    for holder in (config, config.text_config, GenerationConfig.from_pretrained(tmp_path / "new")):
        found = (holder.bos_token_id, holder.eos_token_id, holder.pad_token_id)
        assert found == (ids["<s>"], ids["</s>"], ids["[PAD]"])
    assert config.image_token_index == ids["<im_patch>"]
    assert config.image_seq_length == 4
    assert config.text_config.vocab_size == len(original.tokenizer) + 3
    assert config.text_config.max_position_embeddings == 2048
    corrected = {change.setting: (change.before, change.after) for change in plan.changes}
    assert corrected["bos_token_id"] == (0, ids["<s>"])
    assert corrected["pad_token_id"] == (-1, ids["[PAD]"])
    assert corrected["vocab_size"] == (7, len(original.tokenizer) + 3)


def test_one_placeholder_becomes_one_token_per_patch(make_original, tmp_path):
    original = make_original()
    convert(original.folder, tmp_path / "new", vision_tower=original.tower)
    processor = AutoProcessor.from_pretrained(tmp_path / "new")
    assert isinstance(processor, LlavaProcessor)
    ids = question(tmp_path / "new")["input_ids"][0].tolist()
    start, patch, end = (original.tokenizer.convert_tokens_to_ids(f"<im_{part}>") for part in ("start", "patch", "end"))
    assert ids[ids.index(start) :][:6] == [start, patch, patch, patch, patch, end]
    text = "is there a lesion? yes"
    assert processor.tokenizer(text)["input_ids"] == original.tokenizer(text)["input_ids"]
    assert "<im" not in processor.tokenizer.decode(ids, skip_special_tokens=True)


def test_dtype_converts_every_tensor_and_refuses_what_does_not_fit(make_original, tmp_path):
    original = make_original(message_passing=True)
    convert(original.folder, tmp_path / "half", vision_tower=original.tower, dtype="bf16")
    for file in ("model.safetensors", "alignment.safetensors"):
        kinds = {value.dtype for name, value in load_file(tmp_path / "half" / file).items() if name != "layer.calls"}
        assert kinds == {torch.bfloat16}
    name = "language_model.model.norm.weight"
    written = load_file(tmp_path / "half" / "model.safetensors")[name]
    assert torch.equal(written, original.tensors["model.norm.weight"].bfloat16())
    original.tensors["model.norm.weight"][0] = 1e6
    torch.save(original.tensors, original.folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"norm.weight must fit torch.float16; got numbers up to 1e\+06"):
        convert(original.folder, tmp_path / "fp16", vision_tower=original.tower, dtype="fp16")
    assert not (tmp_path / "fp16").exists()


def test_message_passing_computes_what_pytorch_geometric_computes(make_original, tmp_path):
    geometric = pytest.importorskip("torch_geometric.nn")
    original = make_original(message_passing=True)
    convert(original.folder, tmp_path / "new", vision_tower=original.tower)
    alignment = gm.BarycenterAlignment(16)
    load_alignment(alignment, tmp_path / "new")
    graph = gm.knn_graph(torch.randn(9, 16, generator=torch.Generator().manual_seed(0)), k=3)
    # Messages run from the head of an edge to its origin here, from the first row to the second there.
    incoming = graph.edges.flip(1).T
    nodes = graph.nodes
    for layer in (1, 2):
        theirs = geometric.GraphConv(16, 16, aggr="max")
        start = f"model.message_pass_node_features.conv{layer}."
        theirs.load_state_dict({k.removeprefix(start): v for k, v in original.tensors.items() if k.startswith(start)})
        ours = getattr(alignment.message_passing, f"conv{layer}")
        torch.testing.assert_close(ours(nodes, graph.edges), theirs(nodes, incoming), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("prefix", ["model.vision_tower.", "model.vision_tower.vision_tower.vision_model."])
def test_a_tower_inside_the_checkpoint_is_used(make_original, tmp_path, prefix):
    inside = make_original(vision_prefix=prefix, seed=1)
    other = make_original("other", seed=2)
    plan = convert(inside.folder, tmp_path / "new", vision_tower=other.tower)
    compare_logits(inside, tmp_path / "new", rtol=1e-6, atol=1e-6)
    assert any("holds its own vision tower" in note for note in plan.notes)


def test_the_report_names_every_tensor(make_original, tmp_path):
    original = make_original(message_passing=True, projector="linear", clip="bin")
    plan = convert(original.folder, tmp_path / "new", vision_tower=original.tower)
    report = json.loads((tmp_path / "new" / "conversion.json").read_text())
    sources = {row["source"] for row in report["tensors"]} | {row["source"] for row in report["dropped"]}
    assert set(original.tensors) <= sources
    assert {row["reason"] for row in report["dropped"]} == {
        "follows from config.json",
        "counts from 0: made anew",
        "not part of the vision tower",
    }
    written = load_file(tmp_path / "new" / "model.safetensors") | load_file(tmp_path / "new" / "alignment.safetensors")
    assert {row["target"]: row["bytes"] for row in report["tensors"]} == {
        name: value.nbytes for name, value in written.items()
    }
    created = {row["target"]: row["source"] for row in report["tensors"] if row["how"] == "created"}
    assert created == {
        "multi_modal_projector.linear_2.weight": "identity",
        "multi_modal_projector.linear_2.bias": "zeros",
        "layer.calls": "zeros",
    }
    assert report["totals"]["bytes"] == sum(transfer.bytes for transfer in plan.transfers)
