"""The estimate of memory: its sizes are those of the real classes, its table is the one in the documentation."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

import graphmatch as gm
from exgra_adapter.reporting.memory import (
    LANGUAGE_MODEL,
    MESSAGE_PASSING,
    PROJECTOR,
    VISION,
    format_memory_table,
    memory_estimate,
)

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "training.md"


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def saved_bytes(hidden: int, feed_forward: int, positions: int, precision: str) -> int:
    """What one layer of the real class keeps for its backward pass, weights apart."""
    config = LlamaConfig(
        hidden_size=hidden, intermediate_size=feed_forward, num_attention_heads=4, num_key_value_heads=4,
        num_hidden_layers=1, attn_implementation="sdpa",
    )  # fmt: skip
    layer, rotary = LlamaDecoderLayer(config, 0), LlamaRotaryEmbedding(config)
    states = torch.randn(1, positions, hidden, requires_grad=True)
    angles = rotary(states, torch.arange(positions)[None])
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        # Weights and their casts have no axis of positions, and the angles are the same for all layers.
        if (positions in tensor.shape and tensor.shape[-1] != angles[0].shape[-1]) or tensor.dim() == 4:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"),
    ):
        layer(states * 1, position_embeddings=angles, attention_mask=None)
    return sum(kept.values())


def test_the_sizes_are_those_of_the_real_model():
    vision = CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, patch_size=14
    )
    with torch.device("meta"):
        text = LlamaConfig(vocab_size=32004)
        model = LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text))
        alignment = gm.BarycenterAlignment(dim=4096, k=5)
    assert count(model.model.language_model) + count(model.lm_head) == LANGUAGE_MODEL
    assert count(model.model.multi_modal_projector) == PROJECTOR
    assert count(model.model.vision_tower) == VISION
    assert count(alignment) == MESSAGE_PASSING


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("feed_forward", [172, 512])
def test_activations_are_what_a_real_layer_keeps(precision, feed_forward):
    hidden, positions = 64, 250
    measured = saved_bytes(hidden, feed_forward, positions, precision)
    sizes = {"hidden": hidden, "feed_forward": feed_forward, "layers": 1, "vocabulary": 100}
    estimate = memory_estimate(
        10**6, 10**6, batch=1, tokens=positions, precision=precision, gradient_checkpointing=False, **sizes
    )
    assert estimate["activations"] == pytest.approx(measured, rel=0.08)


def test_full_fine_tuning_takes_sixteen_bytes_per_parameter_over_the_ranks():
    values = memory_estimate(10**9, 10**9, batch=1, tokens=1, world_size=4, sharding="full")
    assert values["weights"] + values["gradients"] + values["optimizer"] == 4e9
    alone = memory_estimate(10**9, 10**9, batch=1, tokens=1)
    assert alone["weights"] + alone["gradients"] + alone["optimizer"] == 16e9
    copies = memory_estimate(10**9, 10**9, batch=1, tokens=1, world_size=4)
    assert copies["gradients"] == 8e9  # buckets of plain data parallelism


def test_quantization_shrinks_the_frozen_linear_layers_alone():
    sizes = {"batch": 1, "tokens": 1, "hidden": 1000, "layers": 10, "feed_forward": 2000, "vocabulary": 10}
    linear, others = 10 * (4 * 1000**2 + 3 * 1000 * 2000), 10**6
    plain, four = (
        memory_estimate(linear + others, 0, quantization=kind, **sizes)["weights"] for kind in ("none", "4bit")
    )
    assert plain == 2 * (linear + others)
    assert memory_estimate(linear + others, 0, frozen_precision="fp32", **sizes)["weights"] == 2 * plain
    assert four == pytest.approx(0.516 * linear + 2 * others, rel=1e-3)


@given(
    st.integers(1, 64), st.integers(1, 4096), st.integers(0, 2048), st.integers(1, 64),
    st.sampled_from(["none", "gradients", "full"]), st.booleans(),
)  # fmt: skip
def test_more_work_never_needs_less_and_more_sharding_never_more(batch, tokens, texts, ranks, sharding, checkpoints):
    def total(sharding: str, batch: int, texts: int) -> float:
        return memory_estimate(
            7 * 10**9, 7 * 10**9, batch=batch, tokens=tokens, text_tokens=texts, world_size=ranks,
            sharding=sharding, gradient_checkpointing=checkpoints,
        )["total"]  # fmt: skip

    assert total(sharding, batch, texts) < total(sharding, batch + 1, texts)
    assert total(sharding, batch, texts) < total(sharding, batch, texts + 1)
    assert total("full", batch, texts) <= total("gradients", batch, texts) <= total("none", batch, texts)


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="trainable must be at most parameters = 1; got 2"):
        memory_estimate(1, 2, batch=1, tokens=1)
    with pytest.raises(ValueError, match="batch must be 0 or more"):
        memory_estimate(1, 1, batch=-1, tokens=1)
    with pytest.raises(ValueError, match="world_size must be 1 or more; got 0"):
        memory_estimate(1, 1, batch=1, tokens=1, world_size=0)


def test_the_documented_table_is_the_printed_one():
    table = format_memory_table()
    assert table in DOCUMENT.read_text(encoding="utf-8"), "run python -m exgra_adapter.reporting.memory, copy the table"
    assert table.count("too much") == 1


@pytest.mark.slow
def test_the_module_prints_the_table():
    command = [sys.executable, "-m", "exgra_adapter.reporting.memory"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert printed == format_memory_table() + "\n"
