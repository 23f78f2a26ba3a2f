"""Vision towers from timm inside LLaVA: their form, their weights, connectors, and their stock twin.

`test_towers.py` runs this file in a process of its own. timm needs torchvision, and a torchvision for GPUs beside a CPU
build of torch cannot be imported, which would take transformers along in every other test. Here two placeholders, which
nothing calls, stand for the operators that it misses. Both packages may lie in the folder `timm` of the environment.
"""

from __future__ import annotations

import copy
import re
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(sys.prefix) / "timm"))


def import_torchvision() -> None:
    """Imports torchvision; where that fails for want of an operator, defines it and tries again."""
    try:
        __import__("torchvision")
    except RuntimeError as error:
        missing = re.fullmatch(r"operator torchvision::(\w+) does not exist", str(error))
        if missing is None:
            raise
        schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        torch.library.define(f"torchvision::{missing[1]}", schema)
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        import_torchvision()


import_torchvision()

# ruff: noqa: E402 - transformers looks for torchvision when it is imported.
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPImageProcessorPil, LlavaForConditionalGeneration, LlavaProcessor

from exgra_adapter.models import (
    ExgraLlavaForConditionalGeneration,
    add_dense_connector,
    build_tiny_model,
    export_model,
    fold_dense_connector,
    load_model,
    set_vision_tower,
    visual_nodes,
)
from exgra_adapter.models.towers import TimmTower, read_tower_weights, timm_vision_config, to_vit
from exgra_adapter.prompts import question_prompt

SMALL = {"embed_dim": 64, "depth": 3, "num_heads": 4, "img_size": 64, "patch_size": 8}


def build_tower(architecture: str = "vit_base_patch16_224", **changes):
    config = timm_vision_config(architecture, **(SMALL | changes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tower = TimmTower(config).eval()
        with torch.no_grad():
            # Fresh vision transformers have zeros in places where a mistake would then not show.
            for parameter in tower.parameters():
                parameter.add_(torch.randn(parameter.shape) * 0.05)
    return tower


@pytest.fixture(scope="module")
def towered() -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    return set_vision_tower(*build_tiny_model(["Is there a lesion?", "yes"], seed=0), build_tower())


def inputs_of(processor: LlavaProcessor) -> dict[str, torch.Tensor]:
    pixels = torch.randint(0, 256, (90, 70, 3), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    return processor(
        text=question_prompt("Is there a lesion?"), images=Image.fromarray(pixels.numpy()), return_tensors="pt"
    )


def logits(model: LlavaForConditionalGeneration, processor: LlavaProcessor) -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs_of(processor)).logits


def test_hidden_states_have_the_form_of_clip():
    tower, pixels = build_tower(), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        states = tower(pixels).hidden_states
        final, blocks = tower.timm_model.forward_intermediates(pixels, return_prefix_tokens=True, output_fmt="NLC")
    assert [tuple(state.shape) for state in states] == [(2, 1 + 64, 64)] * 4
    for state, (patches, prefix) in zip(states[1:], blocks, strict=True):
        assert torch.equal(state, torch.cat([prefix, patches], dim=1))
    torch.testing.assert_close(tower(pixels).last_hidden_state, final)
    assert not torch.equal(states[0], states[1]), "the embeddings come first"
    assert not any(block._forward_hooks or block._forward_pre_hooks for block in tower.timm_model.blocks)


def test_registers_are_left_out():
    tower = build_tower(reg_tokens=4)
    with torch.no_grad():
        output = tower(torch.randn(1, 3, 64, 64))
    assert {tuple(state.shape) for state in output.hidden_states} == {(1, 65, 64)}


def test_llava_projects_the_second_last_layer_without_class_token(towered):
    model, processor = towered
    assert isinstance(model, ExgraLlavaForConditionalGeneration)
    assert isinstance(processor.image_processor, CLIPImageProcessorPil)
    inputs = inputs_of(processor)
    assert inputs["pixel_values"].shape == (1, 3, 64, 64)
    with torch.no_grad():
        states = model.model.vision_tower(inputs["pixel_values"]).hidden_states
        expected = model.model.multi_modal_projector(states[2][:, 1:]).mean(1)
        torch.testing.assert_close(visual_nodes(model, inputs["pixel_values"]), expected)
        changed = inputs["pixel_values"].flip(-1)
    assert not torch.allclose(visual_nodes(model, changed), expected)
    model.generate(**inputs, max_new_tokens=2, do_sample=False)


@pytest.mark.parametrize("kind", [None, "dci", "sci", "sti"])
def test_tower_and_connector_are_saved_and_loaded(towered, tmp_path, kind):
    model, processor = copy.deepcopy(towered)
    if kind is not None:
        model, processor = add_dense_connector(model, processor, kind)
    if kind == "dci":
        torch.testing.assert_close(logits(model, processor), logits(*towered))
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded, loaded_processor = load_model(tmp_path)
    state = model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())
    assert torch.equal(logits(loaded, loaded_processor), logits(model, processor))


def test_the_tower_is_frozen_as_any_other(towered):
    model, processor = copy.deepcopy(towered)
    model.model.vision_tower.requires_grad_(False)
    model(**inputs_of(processor)).logits.square().mean().backward()
    assert all(parameter.grad is None for parameter in model.model.vision_tower.parameters())
    assert model.model.multi_modal_projector.linear_1.weight.grad.norm() > 0


@pytest.mark.parametrize("layout", ["open_clip", "timm", "wrapper"])
def test_weights_of_published_checkpoints_are_read(tmp_path, layout):
    source = build_tower()
    state = {name: value.clone() for name, value in source.timm_model.state_dict().items()}
    target = TimmTower(source.config)
    if layout == "open_clip":
        state = {f"visual.trunk.{name}": value for name, value in state.items()}
        state |= {"visual.head.proj.weight": torch.zeros(2, 2), "text.proj.weight": torch.zeros(2, 2)}
        path = tmp_path / "open_clip_pytorch_model.bin"
        torch.save(state, path)
    else:
        path = tmp_path / "model.safetensors"
        save_file({("timm_model." if layout == "wrapper" else "") + name: value for name, value in state.items()}, path)
    read_tower_weights(target, path)
    expected = source.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in target.state_dict().items())


def test_weights_of_another_tower_are_refused(tmp_path):
    save_file(
        {name: value.clone() for name, value in build_tower(depth=2).state_dict().items()}, tmp_path / "a.safetensors"
    )
    with pytest.raises(ValueError, match=r"must hold blocks\.2\.norm1\.weight of shape \(64,\); got None"):
        read_tower_weights(build_tower(), tmp_path / "a.safetensors")


def test_other_architectures_are_refused():
    with pytest.raises(ValueError, match=r"architecture must be one that timm .* knows; got 'vit_tiniest'"):
        timm_vision_config("vit_tiniest")
    with pytest.raises(ValueError, match="must be a timm vision transformer with a class token; got 'resnet18'"):
        timm_vision_config("resnet18")
    with pytest.raises(ValueError, match="images and patches must be square; got images of 64 x 32"):
        timm_vision_config("vit_base_patch16_224", **(SMALL | {"img_size": (64, 32)}))
    for changes in ({"reg_tokens": 4}, {"init_values": 0.1}, {"qk_norm": True}, {"pre_norm": True}):
        with pytest.raises(ValueError, match="must be a plain vision transformer"):
            to_vit(build_tower(**changes))


def test_the_stock_twin_has_the_same_hidden_states():
    for changes in ({}, {"qkv_bias": False}):
        tower, pixels = build_tower(**changes), torch.randn(2, 3, 64, 64)
        with torch.no_grad():
            expected, found = tower(pixels), to_vit(tower)(pixels, output_hidden_states=True)
        for one, other in zip(expected.hidden_states[:-1], found.hidden_states[:-1], strict=True):
            torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)


def test_export_needs_neither_timm_nor_the_connector(towered, tmp_path):
    model, processor = add_dense_connector(*copy.deepcopy(towered), "dci")
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    report = export_model(tmp_path / "model", tmp_path / "stock")
    assert report.changes == ("folded the DCI connector", "turned the timm tower into a ViTModel")
    assert report.largest_difference < 1e-5
    stock = LlavaForConditionalGeneration.from_pretrained(tmp_path / "stock")
    torch.testing.assert_close(logits(stock, processor), logits(model, processor), rtol=1e-4, atol=1e-5)
    assert stock.config.vision_config.model_type == "vit"


def test_a_folded_connector_keeps_the_tower(towered):
    model, processor = add_dense_connector(*copy.deepcopy(towered), "dci")
    expected = logits(model, processor)
    folded = fold_dense_connector(model)
    assert isinstance(folded, ExgraLlavaForConditionalGeneration)
    torch.testing.assert_close(logits(folded, processor), expected)


def test_the_tower_comes_before_the_connector(towered):
    model, processor = add_dense_connector(*copy.deepcopy(towered), "sci")
    with pytest.raises(ValueError, match="model must have no dense connector; got 'sci'"):
        set_vision_tower(model, processor, build_tower())
