"""Texts in few rows: what the language model computes for each is what it computes for the text alone."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from exgra_adapter.models.nodes import encode_packed, text_layout
from exgra_adapter.models.packing import PACKABLE, Layout, PackedTexts, pack_texts

PADDING, BEGIN, VOCABULARY = 0, 1, 97
ROW = 256

FAMILIES = sorted(PACKABLE)
ATTENTION = ["eager", "sdpa"]
LAYOUTS: list[Layout] = ["rows", "single_row", "padded"]

# Texts shorter and longer than the attention window of the models, and one longer than a row.
texts_of_some_lengths = st.lists(
    st.one_of(st.integers(1, 12), st.integers(13, 60), st.just(ROW + 20)), min_size=1, max_size=7
)


def language_model(family: str, attention: str, window: int | None = 16) -> nn.Module:
    """A tiny random model of a family, float32, with a sliding attention window where the family has one."""
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "bos_token_id": BEGIN,
        "eos_token_id": 2,
        "pad_token_id": PADDING,
    }
    if family in ("mistral", "phi3"):
        sizes["sliding_window"] = window
    if family.startswith("qwen"):
        # All layers: by default only those above `max_window_layers` have the window.
        sizes |= {"use_sliding_window": window is not None, "sliding_window": window, "max_window_layers": 0}
    config = AutoConfig.for_model(family, **sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()


@pytest.fixture(scope="module", params=FAMILIES)
def family(request) -> str:
    return request.param


@pytest.fixture(scope="module", params=ATTENTION)
def model(request, family) -> nn.Module:
    return language_model(family, request.param)


def random_texts(lengths: list[int], seed: int = 0) -> list[list[int]]:
    """Token ids behind the begin-of-sequence token, which is special."""
    generator = torch.Generator().manual_seed(seed)
    return [[BEGIN, *torch.randint(3, VOCABULARY, (length,), generator=generator).tolist()] for length in lengths]


def special_of(texts: list[list[int]]) -> list[list[int]]:
    return [[int(token == BEGIN) for token in text] for text in texts]


def packed_nodes(model: Any, texts: list[list[int]], layout: Layout) -> Tensor:
    packed = pack_texts(texts, special_of(texts), PADDING, layout)
    return packed.means(encode_packed(model, packed), len(texts))


def nodes_alone(model: Any, texts: list[list[int]]) -> Tensor:
    """The definition: the mean over the text's own tokens, each text in a pass of its own, nothing packed or padded."""
    found = []
    for text in texts:
        hidden = model.get_decoder()(input_ids=torch.tensor([text]), use_cache=False).last_hidden_state[0]
        found.append(hidden[1:].mean(0))
    return torch.stack(found)


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=texts_of_some_lengths)
def test_packed_texts_are_texts_alone(model, layout, lengths):
    """Trap 3: a node does not depend on the other texts of its batch, nor on the longest."""
    texts = random_texts(lengths)
    with torch.no_grad():
        torch.testing.assert_close(packed_nodes(model, texts, layout), nodes_alone(model, texts), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_of_packed_texts_are_those_of_texts_alone(model, layout):
    texts = random_texts([9, 2, 30, 1, 17])
    weights = torch.randn(len(texts), 32, generator=torch.Generator().manual_seed(1))
    found = []
    for nodes in (packed_nodes(model, texts, layout), nodes_alone(model, texts)):
        (nodes * weights).sum().backward()
        found.append({name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None})
        model.zero_grad()
    assert found[0].keys() == found[1].keys()
    assert any(value.abs().sum() > 0 for value in found[0].values())
    for name, gradient in found[1].items():
        torch.testing.assert_close(
            found[0][name], gradient, rtol=1e-4, atol=1e-5, msg=lambda text, n=name: f"{n} {text}"
        )


@pytest.mark.parametrize("name", sorted(PACKABLE - {"llama"}))
def test_the_windows_of_the_models_above_are_at_work(name):
    texts = random_texts([60])
    with torch.no_grad():
        windowed, whole = (nodes_alone(language_model(name, "sdpa", window), texts) for window in (16, None))
    assert (windowed - whole).abs().max() > 1e-4


def test_padding_and_special_tokens_receive_no_gradient():
    """They are in no mean, and no text attends to another row's end."""
    model: Any = language_model("llama", "sdpa")
    texts = random_texts([3, 5])
    packed = pack_texts(texts, special_of(texts), PADDING)
    embeddings = model.get_input_embeddings()(packed.input_ids).detach().requires_grad_()
    hidden = model.get_decoder()(
        inputs_embeds=embeddings, position_ids=packed.position_ids, use_cache=False
    ).last_hidden_state
    packed.means(hidden, 2)[0].sum().backward()
    assert embeddings.grad is not None
    touched = (embeddings.grad.abs().sum(-1) > 0)[0]
    first = (packed.owners[0] == 0).nonzero().flatten()
    allowed = torch.zeros_like(touched)
    allowed[int(first[0]) - 1 : int(first[-1]) + 1] = True  # its begin-of-sequence token is attended to
    assert touched[allowed].all()
    assert not touched[~allowed].any()


def test_a_node_does_not_depend_on_the_longest_text():
    """Trap 3: the same text beside a short and beside a long one has the same node, bit for bit in its own row."""
    model: Any = language_model("llama", "sdpa")
    own, short, long = random_texts([4, 2, 200])
    with torch.no_grad():
        for layout in LAYOUTS:
            beside_short = packed_nodes(model, [own, short], layout)[0]
            beside_long = packed_nodes(model, [own, long], layout)[0]
            torch.testing.assert_close(beside_short, beside_long, rtol=1e-5, atol=1e-6)


def test_other_words_of_a_neighbour_change_nothing():
    """Packing leaks nothing from one text into the next, which a causal model would read without a border."""
    model: Any = language_model("llama", "sdpa")
    first, second, other = random_texts([6, 7, 6], seed=5)
    with torch.no_grad():
        before, after = (packed_nodes(model, [one, second], "single_row")[1] for one in (first, other))
        torch.testing.assert_close(before, after, rtol=0, atol=1e-6)
        # Positions that run on over the border are what the model cannot tell apart: the check above can fail.
        packed = pack_texts([first, second], special_of([first, second]), PADDING, "single_row")
        running = PackedTexts(packed.input_ids, torch.arange(packed.input_ids.shape[1])[None], packed.owners)
        leaking = running.means(encode_packed(model, running), 2)[1]
    assert (leaking - before).abs().max() > 1e-3


@given(lengths=st.lists(st.integers(1, 400), min_size=1, max_size=40))
def test_rows_hold_every_text_once_and_hardly_any_padding(lengths):
    """First fit by decreasing length takes at most 11/9 of the fewest rows plus 2/3 (Dosa 2007)."""
    texts = random_texts(lengths)
    packed = pack_texts(texts, special_of(texts), PADDING)
    rows, width = packed.input_ids.shape
    longest, total = max(map(len, texts)), sum(map(len, texts))
    assert longest <= width <= max(ROW, longest)
    assert rows <= 11 / 9 * total_rows_needed(lengths, max(ROW, longest)) + 6 / 9
    for place, text in enumerate(texts):
        mine = packed.owners == place
        assert packed.input_ids[mine].tolist() == text[1:], "the begin-of-sequence token is not averaged"
        assert packed.position_ids[mine].tolist() == list(range(1, len(text)))
        assert mine.any(1).sum() == 1
    assert int((packed.owners >= 0).sum()) == total - len(texts)
    for row in range(rows):
        starts = (packed.position_ids[row] == 0).nonzero().flatten().tolist()
        assert starts[0] == 0, "a row starts with a text"
        steps = packed.position_ids[row].diff()
        assert ((steps == 1) | (packed.position_ids[row][1:] == 0)).all()


def total_rows_needed(lengths: list[int], capacity: int) -> int:
    """A lower bound of the fewest rows: what all texts together fill, and texts of which no two share a row."""
    sizes = [length + 1 for length in lengths]
    return max(math.ceil(sum(sizes) / capacity), sum(2 * size > capacity for size in sizes))


def test_answers_of_a_usual_batch_fill_a_tenth_of_the_padded_rows():
    """Sixteen short answers and their longer versions, one of them long: the padding share of a batch of that kind."""
    lengths = [3, 5, 2, 8, 4, 6, 1, 9, 12, 3, 7, 2, 5, 4, 6, 80, *[20, 31, 18, 40, 22, 35, 16, 28, 45, 19, 33, 21, 26]]
    lengths += [24, 30, 150]
    texts = random_texts(lengths)
    packed, padded = (pack_texts(texts, special_of(texts), PADDING, layout) for layout in ("rows", "padded"))
    assert packed.input_ids.numel() < 0.2 * padded.input_ids.numel()
    assert sum(map(len, texts)) > 0.8 * packed.input_ids.numel()


def test_layouts():
    texts = random_texts([3, 300, 5])
    rows, single, padded = (pack_texts(texts, special_of(texts), PADDING, layout) for layout in LAYOUTS)
    assert rows.input_ids.shape == (2, 301), "a row is as wide as the longest text"
    assert single.input_ids.shape == (1, 311), "FlashAttention takes one row, without padding"
    assert padded.input_ids.shape == (3, 301)
    assert rows.padding is None
    assert single.padding is None
    assert padded.padding is not None
    assert padded.padding.sum(1).tolist() == [4, 301, 6]
    one = pack_texts(texts[:1], special_of(texts[:1]), PADDING)
    assert one.input_ids.tolist() == [texts[0]], "one text is neither padded nor packed"


def test_packed_texts_travel_as_tensors():
    texts = random_texts([3, 5])
    for layout in LAYOUTS:
        packed = pack_texts(texts, special_of(texts), PADDING, layout)
        named = packed.tensors("text_")
        assert all(name.startswith("text_") for name in named)
        assert ("text_padding" in named) == (layout == "padded")
        again = PackedTexts.from_tensors({**named, "labels": texts}, "text_")
        assert again is not None
        assert again.tensors("text_").keys() == named.keys()
    assert PackedTexts.from_tensors({"labels": texts}, "text_") is None


@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=6), layout=st.sampled_from(LAYOUTS))
def test_states_are_the_texts_own_in_order(lengths, layout):
    texts = random_texts(lengths)
    packed = pack_texts(texts, special_of(texts), PADDING, layout)
    hidden = packed.input_ids[:, :, None].float()  # the state of a token is its id
    states, mask = packed.states(hidden, len(texts))
    assert states.shape == (len(texts), max(lengths), 1)
    for place, text in enumerate(texts):
        assert states[place, mask[place], 0].tolist() == text[1:]
    means = packed.means(hidden, len(texts))
    torch.testing.assert_close(means[:, 0], (states[..., 0] * mask).sum(1) / mask.sum(1))


@pytest.mark.parametrize("texts", [[[BEGIN]], [[BEGIN, 5], [BEGIN]]])
def test_a_text_without_a_token_of_its_own_is_refused(texts):
    with pytest.raises(ValueError, match=rf"hold a token of their own each; got none in text {len(texts) - 1}\."):
        pack_texts(texts, special_of(texts), PADDING)


def test_means_are_taken_in_float32():
    packed = pack_texts([[5, 6]], [[0, 0]], PADDING)
    hidden = torch.full((1, 2, 4), 1 / 3, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        means = packed.means(hidden, 1)
    assert means.dtype == torch.float32
    torch.testing.assert_close(means[0], hidden[0, 0].float().detach(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("family", "attention", "layout"),
    [
        ("llama", "sdpa", "rows"),
        ("qwen3", "eager", "rows"),
        ("llama", "flash_attention_2", "single_row"),
        ("qwen2", "kernels-community/flash-attn2", "single_row"),
        ("qwen2_5_vl_text", "sdpa", "padded"),
        ("gemma2", "flash_attention_2", "padded"),
    ],
)
def test_the_layout_follows_language_model_and_attention(family, attention, layout):
    config = AutoConfig.for_model(family)
    config._attn_implementation_internal = attention
    assert text_layout(SimpleNamespace(config=config)) == layout
