"""Projectors: the dense connectors, their folding into stock LLaVA, linear and MLP."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from exgra_adapter.models import (
    DenseConnector,
    ExgraLlavaForConditionalGeneration,
    add_dense_connector,
    build_tiny_model,
    connector_layers,
    fold_dense_connector,
    load_model,
    projector_kind,
    set_projector,
    unfreeze_projector,
    visual_nodes,
)
from exgra_adapter.models.connector import fold_weights
from exgra_adapter.prompts import question_prompt

Tiny = tuple[LlavaForConditionalGeneration, LlavaProcessor]


@pytest.fixture(scope="module")
def deep() -> Tiny:
    """A tiny LLaVA with five vision layers: an odd number, so that the two halves differ."""
    model, processor = build_tiny_model(["Is there a lesion?", "yes, on the left"], seed=0)
    config = copy.deepcopy(model.config)
    config.vision_config.num_hidden_layers = 5
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return LlavaForConditionalGeneration(config).eval(), processor


def with_connector(deep: Tiny, kind: str) -> Tiny:
    """A copy of the model with a connector, all blocks of which have weights as if it had been trained."""
    model, processor = add_dense_connector(*copy.deepcopy(deep), kind)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.model.multi_modal_projector.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model, processor


def inputs_of(processor: LlavaProcessor) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, (2, 64, 64, 3), generator=generator, dtype=torch.uint8)
    images = [Image.fromarray(each.numpy()) for each in pixels]
    return processor(text=[question_prompt("Is there a lesion?")] * 2, images=images, return_tensors="pt")


def logits(model: LlavaForConditionalGeneration, processor: LlavaProcessor) -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs_of(processor)).logits


@pytest.mark.parametrize("kind", ["dci", "sci"])
def test_a_new_connector_changes_nothing_and_can_be_trained(deep, kind):
    before = logits(*deep)
    model, processor = add_dense_connector(*copy.deepcopy(deep), kind)
    torch.testing.assert_close(logits(model, processor), before)
    assert not any(parameter.is_meta for parameter in [*model.parameters(), *model.buffers()])
    model(**inputs_of(processor)).logits.square().mean().backward()
    gradient = model.model.multi_modal_projector.linear_1.weight.grad
    assert all(block.norm() > 0 for block in gradient.chunk(3, dim=1)), "blocks of zeros still learn"
    assert processor.num_additional_image_tokens == deep[1].num_additional_image_tokens


def test_dci_is_the_published_formula(deep):
    model, processor = with_connector(deep, "dci")
    connector = model.model.multi_modal_projector
    assert isinstance(model, ExgraLlavaForConditionalGeneration)
    assert isinstance(connector, DenseConnector)
    pixels = inputs_of(processor)["pixel_values"]
    with torch.no_grad():
        states = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states
        lower, upper = torch.stack(states[:2]).mean(0), torch.stack(states[2:5]).mean(0)
        features = torch.cat([states[-2], lower, upper], dim=-1)[:, 1:]
        expected = connector.linear_2(torch.nn.functional.gelu(connector.linear_1(features)))
        torch.testing.assert_close(visual_nodes(model, pixels), expected.mean(1))


def test_sti_appends_averages_of_eight_tokens(deep):
    model, processor = with_connector(deep, "sti")
    inputs = inputs_of(processor)
    assert model.config.image_seq_length == 64 + 2 * 8
    assert int((inputs["input_ids"][0] == processor.image_token_id).sum()) == 64 + 2 * 8
    assert deep[1].num_additional_image_tokens == 1, "the given processor stays as it was"
    projector = model.model.multi_modal_projector
    with torch.no_grad():
        states = model.model.vision_tower(inputs["pixel_values"], output_hidden_states=True).hidden_states
        last, first, second = (states[layer][:, 1:] for layer in model.config.vision_feature_layer)
        tokens = torch.cat([last, *(each.unflatten(1, (8, 8)).mean(2) for each in (first, second))], dim=1)
        expected = projector.linear_2(torch.nn.functional.gelu(projector.linear_1(tokens)))
        found = model.get_image_features(inputs["pixel_values"]).pooler_output
        torch.testing.assert_close(torch.stack(list(found)), expected)
        # 196 tokens, as 224 pixels in patches of 16 have: the last of 25 groups holds four.
        odd = torch.randn(1, 196, 3 * projector.width)
        grouped = projector.act(projector.linear_1(odd[:, -4:, projector.width : 2 * projector.width].mean(1)))
        torch.testing.assert_close(projector(odd)[:, 196 + 24], projector.linear_2(grouped))
        assert projector(odd).shape[1] == 196 + 2 * 25


@pytest.mark.parametrize("kind", ["dci", "sci", "sti"])
def test_a_connector_is_saved_and_loaded(deep, tmp_path, kind):
    model, processor = with_connector(deep, kind)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded, loaded_processor = load_model(tmp_path)
    assert type(loaded) is type(model)
    assert loaded.config.dense_connector == kind
    assert torch.equal(logits(loaded, loaded_processor), logits(model, processor))
    if kind == "sci":
        loaded = LlavaForConditionalGeneration.from_pretrained(tmp_path)
        assert torch.equal(logits(loaded, processor), logits(model, processor))
    else:
        with pytest.raises(RuntimeError, match="mismatch"):
            LlavaForConditionalGeneration.from_pretrained(tmp_path)


@pytest.mark.parametrize("kind", ["dci", "sci"])
def test_folded_connectors_compute_the_same_in_stock_llava(deep, kind):
    model, processor = with_connector(deep, kind)
    expected, inputs = logits(model, processor), inputs_of(processor)
    answer = model.generate(**inputs, max_new_tokens=5, do_sample=False)
    folded = fold_dense_connector(model)
    assert type(folded) is LlavaForConditionalGeneration
    assert folded.config.vision_feature_layer == ([0, 1, 2, 3, 4] if kind == "dci" else [-2, 0, 2])
    assert float((logits(folded, processor) - expected).abs().max()) <= 1e-5
    assert torch.equal(folded.generate(**inputs, max_new_tokens=5, do_sample=False), answer)


def test_sti_cannot_be_folded(deep):
    with pytest.raises(ValueError, match=r"must be dci or sci; got 'sti', whose additional tokens"):
        fold_dense_connector(with_connector(deep, "sti")[0])


def test_a_model_without_connector_is_folded_already(deep):
    assert fold_dense_connector(deep[0]) is deep[0]


@given(depth=st.integers(2, 24), width=st.integers(1, 5), seed=st.integers(0, 99))
def test_folding_is_exact_for_any_depth(depth, width, seed):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(3, 3 * width, generator=generator, dtype=torch.float64)
    states = torch.randn(depth, width, generator=generator, dtype=torch.float64)
    half = depth // 2
    combined = torch.cat([states[-1], states[:half].mean(0), states[half:].mean(0)])
    torch.testing.assert_close(fold_weights(weight, depth) @ states.flatten(), weight @ combined)


@given(depth=st.integers(2, 48), kind=st.sampled_from(["dci", "sci", "sti"]))
def test_layers_exist_at_any_depth(depth, kind):
    layers = connector_layers(kind, depth)
    assert all(-2 <= layer < depth for layer in layers)
    assert len(layers) == (depth if kind == "dci" else 3)
    assert {layer % (depth + 1) for layer in layers} >= {depth - 1}, "the layer that LLaVA reads is among them"


def test_wrong_connectors_are_refused(deep):
    with pytest.raises(ValueError, match=r"kind must be one of dci, sci, sti; got 'dcj'"):
        add_dense_connector(*copy.deepcopy(deep), "dcj")
    with pytest.raises(ValueError, match=r"depth must be at least 2.* got 1"):
        connector_layers("dci", 1)
    with pytest.raises(ValueError, match=r"must have no dense connector yet .* got dci and \[0, 1, 2, 3, 4\]"):
        add_dense_connector(*with_connector(deep, "dci"), "sci")
    config = copy.deepcopy(deep[0].config)
    config.dense_connector = "dci"
    with pytest.raises(ValueError, match=r"vision_feature_layer must be \[0, 1, 2, 3, 4\] for dci and 5"):
        ExgraLlavaForConditionalGeneration(config)


def test_a_linear_projector_loads_anywhere(deep, tmp_path):
    """Trap 11: a projector of one layer, and one of two, both load in the stock class; nothing is silently ignored."""
    model, processor = copy.deepcopy(deep)
    assert projector_kind(model) == "mlp"
    mlp = logits(model, processor)
    set_projector(model, "mlp")
    assert torch.equal(logits(model, processor), mlp), "a projector of the same kind stays"
    set_projector(model, "linear")
    projector = model.model.multi_modal_projector
    features = torch.randn(2, projector.linear_1.in_features)
    torch.testing.assert_close(projector(features), projector.linear_1(features))
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    stock = LlavaForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(logits(stock, processor), logits(model, processor))
    loaded = load_model(tmp_path)[0]
    assert projector_kind(loaded) == "linear"
    unfreeze_projector(loaded)
    trained = {name for name, value in loaded.model.multi_modal_projector.named_parameters() if value.requires_grad}
    assert trained == {"linear_1.weight", "linear_1.bias"}, "the identity stays one"
    set_projector(loaded, "mlp")
    assert all(parameter.requires_grad for parameter in loaded.model.multi_modal_projector.parameters())
    with pytest.raises(ValueError, match="kind must be one of linear, mlp; got 'quadratic'"):
        set_projector(loaded, "quadratic")


def test_a_linear_projector_takes_a_connector(deep):
    model, processor = copy.deepcopy(deep)
    set_projector(model, "linear")
    before = logits(model, processor)
    dense, processor = add_dense_connector(model, processor, "dci")
    torch.testing.assert_close(logits(dense, processor), before)
    assert projector_kind(dense) == "linear"
    torch.testing.assert_close(logits(fold_dense_connector(dense), processor), before)
