"""The tiny model, the collator and the two hooks of the alignment."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoProcessor, LlavaForConditionalGeneration, LlavaProcessor

from exgra_adapter.data.collator import IGNORED_LABEL, TEXT_PREFIX, Collator, CollatorOptions
from exgra_adapter.data.dataset import RecordDataset, Sample
from exgra_adapter.data.records import Record, Turn
from exgra_adapter.models import (
    DecoderTap,
    PackedTexts,
    build_tiny_model,
    encode_packed,
    encode_text,
    load_model,
    text_layout,
    tokenize_texts,
    visual_nodes,
)
from exgra_adapter.prompts import question_prompt


@pytest.fixture(scope="module")
def tiny(small_data) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    turns = [turn for record in small_data.records for turn in record.turns]
    return build_tiny_model([text for turn in turns for text in (turn.question, turn.answer)], seed=0)


@pytest.fixture(scope="module")
def samples(small_data) -> list[Sample]:
    dataset = RecordDataset(small_data.records, small_data.images)
    return [dataset[index] for index in range(len(dataset))]


def collator(processor: LlavaProcessor, max_length: int = 512, **options: Any) -> Collator:
    return Collator(processor, CollatorOptions(max_length, **options))


def aligned(processor: LlavaProcessor, **options: Any) -> Collator:
    return collator(processor, views=("answer", "extended"), layout="rows", **options)


def decode(processor: LlavaProcessor, row: torch.Tensor) -> str:
    return processor.tokenizer.decode(row[row != IGNORED_LABEL], skip_special_tokens=False)


def test_the_same_seed_gives_the_same_model(tiny):
    global_state = torch.get_rng_state()
    again, processor = build_tiny_model(["yes"], seed=3), build_tiny_model(["yes"], seed=3)[1]
    assert torch.equal(torch.get_rng_state(), global_state)
    assert again[1].tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    first, second = again[0].state_dict(), build_tiny_model(["yes"], seed=3)[0].state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert 0.5e6 < sum(parameter.numel() for parameter in tiny[0].parameters()) < 1.5e6
    with pytest.raises(ValueError, match=r"multiple of 8; got 30\. Use 32"):
        build_tiny_model(["yes"], seed=0, image_size=30)


def test_a_saved_model_answers_the_same(tiny, samples, tmp_path):
    model, processor = tiny
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded, loaded_processor = load_model(tmp_path)
    assert isinstance(loaded, LlavaForConditionalGeneration)
    assert isinstance(AutoProcessor.from_pretrained(tmp_path), LlavaProcessor)
    prompts = [question_prompt("Where is the lesion?"), question_prompt("Is there a lesion?")]
    answers = []
    for one, its_processor in ((model, processor), (loaded, loaded_processor)):
        images = [sample.image for sample in samples[:2]]
        inputs = its_processor(text=prompts, images=images, padding=True, padding_side="left", return_tensors="pt")
        answers.append(one.generate(**inputs, max_new_tokens=4, do_sample=False))
    assert torch.equal(*answers)


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has no config.json"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match="reads images and text and writes text; got 'llama'"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llava"}')
    with pytest.raises(ValueError, match="must be a complete model folder"):
        load_model(tmp_path)


def test_labels_are_the_answers_and_their_stop_tokens(tiny, samples):
    _, processor = tiny
    batch = collator(processor)(samples)
    assert set(batch) == {"input_ids", "attention_mask", "labels", "pixel_values"}
    stop = processor.tokenizer.eos_token
    for row, sample in enumerate(samples):
        expected = "".join(f" {turn.answer}{stop}" for turn in sample.record.turns)
        assert decode(processor, batch["labels"][row]) == expected
        taught = batch["labels"][row] != IGNORED_LABEL
        assert torch.equal(batch["labels"][row][taught], batch["input_ids"][row][taught])
        length = int(batch["attention_mask"][row].sum())
        assert batch["attention_mask"][row, :length].all(), "padding is on the right"
        assert int((batch["input_ids"][row] == processor.image_token_id).sum()) == 64


def test_training_and_generation_share_their_tokens(tiny, samples):
    """What stands ahead of the first label is, token by token, the prompt that generation uses."""
    _, processor = tiny
    batch = collator(processor)(samples[1:2])
    prompt = processor(text=question_prompt(samples[1].record.turns[0].question), images=samples[1].image)["input_ids"]
    before = int((batch["labels"][0] != IGNORED_LABEL).nonzero()[0])
    assert batch["input_ids"][0, :before].tolist() == list(torch.tensor(prompt).flatten())


def test_long_conversations_are_cut_but_never_silently_useless(tiny, samples):
    _, processor = tiny
    whole = collator(processor)(samples[:1])["input_ids"].shape[1]
    assert collator(processor, whole - 3)(samples[:1])["input_ids"].shape[1] == whole - 3
    with pytest.raises(ValueError, match=r"record '0' must have its first answer within max_length = 68 tokens \(64"):
        collator(processor, 68)(samples[:1])
    with pytest.raises(ValueError, match="must exceed the 64 tokens of the image; got 64"):
        collator(processor, 64)(samples[:1])


@pytest.mark.parametrize("text", ["a </s> b", "<pad>", "<s>"])
def test_text_that_spells_a_special_token_is_refused(tiny, samples, text):
    record = Record("7", "a.png", (Turn("q", text),))
    with pytest.raises(ValueError, match="record '7' must not spell a special token"):
        collator(tiny[1])([Sample(record, samples[0].image)])


def test_texts_of_the_alignment_are_one_batch(tiny, samples):
    _, processor = tiny
    batch = aligned(processor)(samples[:2])
    packed = PackedTexts.from_tensors(batch, TEXT_PREFIX)
    texts = [decode(processor, packed.input_ids[packed.owners == owner]) for owner in range(4)]
    first, second = (sample.record.turns for sample in samples[:2])
    assert [text.strip() for text in texts] == [
        " ".join(turn.answer for turn in first),
        second[0].answer,
        " ".join(turn.extended_answer or "" for turn in first),
        second[0].extended_answer,
    ]
    bare = Sample(Record("8", "a.png", (Turn("q", "a"),)), samples[0].image)
    with pytest.raises(ValueError, match=r"record '8' must have an extended answer .* extender=template"):
        aligned(processor)([bare])


def test_packed_texts_have_the_nodes_of_texts_alone(tiny, samples):
    model, processor = tiny
    assert text_layout(model) == "rows"
    packed = PackedTexts.from_tensors(aligned(processor)(samples), TEXT_PREFIX)
    views = [
        [" ".join(turn.answer for turn in sample.record.turns) for sample in samples],
        [" ".join(turn.extended_answer or "" for turn in sample.record.turns) for sample in samples],
    ]
    with torch.no_grad():
        nodes = packed.means(encode_packed(model, packed), 2 * len(samples))
        alone = encode_text(model, **tokenize_texts(processor, [text for view in views for text in view], 512))
    torch.testing.assert_close(nodes, alone, rtol=1e-5, atol=1e-5)


def test_a_text_node_does_not_depend_on_its_batch(tiny):
    """Trap 3: neither the longest text of the batch nor the side of the padding changes a node."""
    model, processor = tiny
    texts = [
        "left",
        "The lesion lies on the left side, and this text is much longer than the other one.",
        "two lesions",
    ]
    with torch.no_grad():
        together = encode_text(model, **tokenize_texts(processor, texts, 512))
        for text, node in zip(texts, together, strict=True):
            torch.testing.assert_close(encode_text(model, **tokenize_texts(processor, [text], 512))[0], node)
        reversed_order = encode_text(model, **tokenize_texts(processor, texts[::-1], 512))
        torch.testing.assert_close(reversed_order, together.flip(0))
        left = {name: _to_the_left(value, processor) for name, value in tokenize_texts(processor, texts, 512).items()}
        torch.testing.assert_close(encode_text(model, **left), together, rtol=1e-4, atol=1e-5)


def _to_the_left(values: torch.Tensor, processor: LlavaProcessor) -> torch.Tensor:
    """Moves the right padding of token ids or of a mask to the left: zeros in both, as the pad id is 0."""
    assert processor.tokenizer.pad_token_id == 0
    rows = []
    for row in values:
        length = int(row.nonzero().max()) + 1
        rows.append(torch.cat([row[length:], row[:length]]))
    return torch.stack(rows)


def test_averaging_padding_is_the_legacy_trap(tiny, samples):
    """Trap 3: the released recipe's means, for comparison only."""
    model, processor = tiny
    found = []
    for chosen in ([samples[1]], [samples[1], samples[0]]):  # the second has longer texts
        made = [aligned(processor, count_padding=counted)(chosen) for counted in (False, True)]
        packed = [PackedTexts.from_tensors(batch, TEXT_PREFIX) for batch in made]
        with torch.no_grad():
            found.append([each.means(encode_packed(model, each), 2 * len(chosen))[0] for each in packed])
    (honest, counted), (honest_again, counted_again) = found
    assert not torch.allclose(honest, counted)
    torch.testing.assert_close(honest, honest_again, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(counted, counted_again), "the mean of a row as long as the longest text"


def test_visual_nodes_are_means_of_projected_patches(tiny, samples):
    model, processor = tiny
    batch = collator(processor)(samples)
    with torch.no_grad():
        nodes = visual_nodes(model, batch["pixel_values"])
        vision = model.model.vision_tower(batch["pixel_values"], output_hidden_states=True).hidden_states[-2][:, 1:]
        torch.testing.assert_close(nodes, model.model.multi_modal_projector(vision).mean(1))
        tap = DecoderTap()
        with tap.attached(model):
            model(**batch)
            torch.testing.assert_close(tap.image_nodes(batch["input_ids"], processor.image_token_id), nodes)
        with pytest.raises(RuntimeError, match="must follow a forward pass"):
            tap.image_nodes(batch["input_ids"], processor.image_token_id)
        torch.testing.assert_close(visual_nodes(model, batch["pixel_values"].flip(0)), nodes.flip(0))
        mirrored = visual_nodes(model, batch["pixel_values"].flip(-1))
    assert (mirrored - nodes).norm(dim=-1).min() > 0.01 * nodes.norm(dim=-1).mean(), (
        "a frozen tower still sees the side"
    )
