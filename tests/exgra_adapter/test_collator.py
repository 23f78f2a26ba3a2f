"""Batches: labels are exactly the answers, texts are those of the alignment, bad samples are counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from transformers import AutoTokenizer, CLIPImageProcessorPil, LlavaProcessor

from exgra_adapter.data.budget import compute_factor
from exgra_adapter.data.collator import IGNORED_LABEL, TEXT_PREFIX, Collator, CollatorOptions
from exgra_adapter.data.dataset import Sample
from exgra_adapter.data.images import ImageError
from exgra_adapter.data.records import Record, Turn, parse_sample
from exgra_adapter.models import PackedTexts, build_tiny_model
from exgra_adapter.prompts import IMAGE_ENDS, IMAGE_TAG

PATCHES = 64
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
FORMATS = ["llava", "released", "chat_template"]
STOPS = {"llava": "</s>", "released": "###", "chat_template": "</s>"}


def ready(processor: LlavaProcessor) -> LlavaProcessor:
    """With what every format needs."""
    processor.tokenizer.add_tokens(list(IMAGE_ENDS), special_tokens=True)
    processor.chat_template = TEMPLATE
    return processor


def tiny_processor() -> LlavaProcessor:
    words = ["Is there a lesion?", "yes, on the left side", "no", "Where is it? (level 5)"]
    return ready(build_tiny_model(words, seed=0)[1])


def llama_processor(folder: Path) -> LlavaProcessor:
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizers" / "tiny_llama_like_vqarad")
    tokenizer.add_tokens([IMAGE_TAG], special_tokens=True)
    image_processor = CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
    return ready(
        LlavaProcessor(
            image_processor=image_processor,
            tokenizer=tokenizer,
            patch_size=8,
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
        )
    )


PROCESSOR = tiny_processor()


def picture(seed: int = 0, size: tuple[int, int] = (64, 64)) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 255, (*size[::-1], 3), dtype=np.uint8))


def sample(*turns: tuple[str, ...], name: str = "7", image: Image.Image | None = None) -> Sample:
    return Sample(Record(name, "a.png", tuple(Turn(*turn) for turn in turns)), image or picture())


def collator(prompt: str = "llava", processor: LlavaProcessor = PROCESSOR, **options: Any) -> Collator:
    return Collator(processor, CollatorOptions(**({"max_length": 2048} | options)), prompt)


def aligned(**options: Any) -> Collator:
    return collator(views=("answer", "extended"), layout="rows", **options)


def runs(row: Tensor, where: Tensor) -> list[list[int]]:
    """The token ids of every stretch that is marked."""
    found: list[list[int]] = []
    before = False
    for token, marked in zip(row.tolist(), where.tolist(), strict=True):
        if marked and not before:
            found.append([])
        if marked:
            found[-1].append(token)
        before = marked
    return found


def decode(tokens: list[int], processor: LlavaProcessor = PROCESSOR) -> str:
    return str(processor.tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False))


words = st.sampled_from(
    ["yes", "no", "left", "lesion", "the", "1.5", "µm", "größer", "胸部", "X-ray", "🫁", "(5)", "a/b"]
)
signs = st.sampled_from([" ", " ", " ", ", ", "; ", ": ", "\n", "-", "... ", " <", "> "])
texts = (
    st.lists(st.tuples(words, signs), min_size=1, max_size=8)
    .map(lambda parts: "".join(part for pair in parts for part in pair).strip())
    .filter(bool)
)
conversations = st.lists(st.tuples(texts, texts), min_size=1, max_size=4)


def check_labels(turns: list[tuple[str, str]], prompt: str, processor: LlavaProcessor) -> None:
    batch = collator(prompt, processor)([sample(*turns)])
    taught = batch["labels"][0] != IGNORED_LABEL
    assert torch.equal(batch["labels"][0][taught], batch["input_ids"][0][taught])
    found = [decode(tokens, processor) for tokens in runs(batch["input_ids"][0], taught)]
    assert [text.removeprefix(" ") for text in found] == [
        f"{answer}\n###" if prompt == "released" else f"{answer}</s>" for _, answer in turns
    ]


@settings(max_examples=30)
@given(turns=conversations, prompt=st.sampled_from(FORMATS))
def test_labels_are_the_answers_and_their_stops(turns, prompt):
    check_labels(turns, prompt, PROCESSOR)


def test_labels_are_the_answers_with_the_tokens_of_llama(data_folder):
    """A tokenizer of another kind: no borders of words, and bytes for the characters that it does not know."""
    processor = llama_processor(data_folder)

    @settings(max_examples=30)
    @given(turns=conversations, prompt=st.sampled_from(FORMATS))
    def check(turns: list[tuple[str, str]], prompt: str) -> None:
        check_labels(turns, prompt, processor)

    check()


@settings(max_examples=15)
@given(turns=conversations, prompt=st.sampled_from(FORMATS))
def test_training_reads_the_tokens_that_generation_does(turns, prompt):
    """What stands ahead of an answer is, token by token, what the processor makes of that question's prompt."""
    made = collator(prompt)
    batch = made([sample(*turns)])
    taught = batch["labels"][0] != IGNORED_LABEL
    starts = (taught & ~torch.cat([torch.zeros(1, dtype=torch.bool), taught[:-1]])).nonzero().flatten().tolist()
    for index, start in enumerate(starts):
        asked = made.prompt.prompt(turns[index][0], turns[:index]).replace(IMAGE_TAG, PROCESSOR.image_token)
        inputs = PROCESSOR(text=[asked], images=[picture()], return_tensors="pt")
        assert batch["input_ids"][0, :start].tolist() == inputs["input_ids"][0].tolist()
        assert torch.equal(inputs["pixel_values"], batch["pixel_values"])


@pytest.mark.parametrize("prompt", FORMATS)
def test_words_around_an_image_tag_stay_apart(prompt):
    for text, question in (
        ("Is this<image>normal?", "Is this normal?"),
        ("<image>\nIs this normal?", "Is this normal?"),
        ("Is this normal?\n<image>", "Is this normal?"),
    ):
        messages = [{"from": "human", "value": text}, {"from": "gpt", "value": "yes"}]
        record = parse_sample({"id": 1, "image": "a.png", "conversations": messages}, "sample 0")
        row = collator(prompt)([Sample(record, picture())])["input_ids"][0]
        patches = (row == PROCESSOR.image_token_id).nonzero().flatten().tolist()
        assert len(patches) == PATCHES
        assert patches == list(range(patches[0], patches[0] + PATCHES)), "one image, in one piece"
        read = decode(row.tolist()).replace(IMAGE_TAG, "")
        assert " ".join(question.split()) in " ".join(read.split())


def test_batches_are_padded_on_the_right():
    samples = [sample(("Is there a lesion?", "yes")), sample(("Where?", "on the left side, level 5"), ("Why?", "no"))]
    batch = collator()(samples)
    assert set(batch) == {"input_ids", "attention_mask", "labels", "pixel_values"}
    lengths = batch["attention_mask"].sum(1)
    assert lengths[0] != lengths[1]
    for row, length in enumerate(lengths.tolist()):
        assert batch["attention_mask"][row, :length].all()
        assert (batch["labels"][row, length:] == IGNORED_LABEL).all()
    assert (batch["input_ids"] == PROCESSOR.image_token_id).sum(1).tolist() == [PATCHES, PATCHES]
    assert batch["pixel_values"].shape == (2, 3, 64, 64)


@pytest.mark.parametrize("prompt", FORMATS)
def test_long_conversations_are_cut_but_never_silently_useless(prompt):
    one = sample(("Is there a lesion?", "yes, on the left side"), ("Where?", "left"))
    whole = collator(prompt)([one])
    length = whole["input_ids"].shape[1]
    cut = collator(prompt, max_length=length - 3)([one])
    for name in ("input_ids", "labels", "attention_mask"):
        assert torch.equal(cut[name], whole[name][:, : length - 3])
    first = int((whole["labels"][0] != IGNORED_LABEL).nonzero()[0])
    assert (collator(prompt, max_length=first + 1)([one])["labels"] != IGNORED_LABEL).sum() == 1
    with pytest.raises(
        ValueError, match=rf"record '7' must have its first answer within max_length = {first} tokens \(64"
    ):
        collator(prompt, max_length=first)([one])
    with pytest.raises(ValueError, match="must exceed the 64 tokens of the image; got 64"):
        collator(prompt, max_length=PATCHES)([one])


@pytest.mark.parametrize("prompt", FORMATS)
@pytest.mark.parametrize("place", ["question", "answer", "extended"])
def test_text_that_spells_a_special_token_is_refused(prompt, place):
    for token in {"<pad>", "<s>", "</s>", IMAGE_TAG, STOPS[prompt]}:
        turn = {"question": "q", "answer": "a", "extended": "e"} | {place: f"before {token} behind"}
        with pytest.raises(
            ValueError, match=r"record '7' must not spell a special token of the model; got .* in 'before"
        ):
            collator(prompt, views=("answer", "extended"), layout="rows")([sample(tuple(turn.values()))])


def test_what_structures_another_format_is_ordinary_text():
    batch = collator("llava")([sample(("q ### Human:", "a ###"))])
    assert decode(batch["labels"][0][batch["labels"][0] != IGNORED_LABEL].tolist()) == " a ###</s>"


def test_bad_images_are_left_out_and_counted():
    """Trap 10: an image that cannot be read is never replaced by another sample."""
    good = [sample(("Is there a lesion?", "yes"), name=str(seed), image=picture(seed)) for seed in range(3)]
    bad = Sample(Record("bad", "bad.png", (Turn("q", "a", "e"),)), None, "bad.png is torn")
    expected = collator()(good)
    batch = collator()([good[0], bad, good[1], good[2], bad])
    assert batch.pop("skipped").tolist() == [2]
    assert batch.keys() == expected.keys(), "nothing is counted where nothing is left out"
    assert all(torch.equal(batch[name], expected[name]) for name in expected)
    with pytest.raises(
        ImageError, match=r"must have a readable image; got none in 2 samples. The first: bad.png is torn"
    ):
        collator()([bad, bad])


def test_texts_of_the_alignment_lie_view_after_view():
    first = sample(("Is there a lesion?", "yes", "Yes, there is one."), ("Where?", "left", "On the left side."))
    second = sample(("Where is it?", "no", "There is none."))
    batch = aligned()([first, second])
    packed = PackedTexts.from_tensors(batch, TEXT_PREFIX)
    assert packed is not None
    texts = [decode(packed.input_ids[packed.owners == owner].tolist()).strip() for owner in range(4)]
    assert texts == ["yes left", "no", "Yes, there is one. On the left side.", "There is none."]
    assert (packed.input_ids == PROCESSOR.tokenizer.bos_token_id).sum() == 4, "read, and in no mean"
    assert not (packed.owners[packed.input_ids == PROCESSOR.tokenizer.bos_token_id] >= 0).any()
    only = collator(views=("extended",), layout="rows")([first, second])
    assert int(only[f"{TEXT_PREFIX}owners"].max()) == 1
    none = collator(layout="rows")([first, second])
    assert {name for name in none if name.startswith(TEXT_PREFIX)} == {f"{TEXT_PREFIX}groups"}


def test_a_text_has_the_same_tokens_alone_and_behind_its_question():
    batch = aligned(answer_positions=True)([sample(("Is there a lesion?", "yes, on the left side", "Yes."))])
    packed = PackedTexts.from_tensors(batch, TEXT_PREFIX)
    assert packed is not None
    assert (
        batch["input_ids"][0][batch[f"{TEXT_PREFIX}answers"][0]].tolist()
        == packed.input_ids[packed.owners == 0].tolist()
    )


@settings(max_examples=20)
@given(turns=conversations, prompt=st.sampled_from(FORMATS))
def test_answer_positions_are_the_answers_without_stops(turns, prompt):
    batch = collator(prompt, layout="rows", answer_positions=True)([sample(*turns)])
    where = batch[f"{TEXT_PREFIX}answers"][0]
    assert where.dtype == torch.bool
    found = [decode(tokens).removeprefix(" ") for tokens in runs(batch["input_ids"][0], where)]
    assert found == [answer for _, answer in turns]
    assert (batch["labels"][0][where] != IGNORED_LABEL).all()


def test_extended_answers_are_required_where_they_are_read():
    bare = sample(("q", "a"), ("r", "b", "long"), name="8")
    for made in (aligned(), collator(views=("extended",), layout="rows"), collator(extended_conversations=True)):
        with pytest.raises(ValueError, match=r"record '8' must have an extended answer in every turn.*got 1 of 2"):
            made([bare])
    collator(views=("answer",), layout="rows")([bare])


def test_extended_conversations_double_the_batch():
    samples = [
        sample(("Is there a lesion?", "yes", "Yes, on the left side."), image=picture(1)),
        sample(("Where?", "left", "On the left side."), image=picture(2)),
    ]
    plain, doubled = collator()(samples), collator(extended_conversations=True)(samples)
    longer = collator()([sample((t.question, t.extended_answer)) for each in samples for t in each.record.turns])
    assert torch.equal(doubled["pixel_values"], plain["pixel_values"].repeat(2, 1, 1, 1))
    for row, (expected, number) in enumerate([(plain, 0), (plain, 1), (longer, 0), (longer, 1)]):
        kept = expected["attention_mask"][number].bool()
        for name in ("input_ids", "labels"):
            assert torch.equal(doubled[name][row][doubled["attention_mask"][row].bool()], expected[name][number][kept])
    assert compute_factor([each.record for each in samples], collator(), False) > 1


def test_counting_padding_is_the_released_means():
    """Trap 3: with `count_padding` a node is the mean over the padded row, so it depends on the longest text."""
    short, long = sample(("q", "yes", "yes")), sample(("q", "no", "on the left side, " * 6))
    found = []
    for batch in ([short], [short, long]):
        packed = PackedTexts.from_tensors(aligned(count_padding=True)(batch), TEXT_PREFIX)
        assert packed is not None
        assert packed.padding is not None
        hidden = torch.randn(*packed.input_ids.shape, 5, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(packed.means(hidden, len(packed.input_ids)), hidden.mean(1))
        found.append((packed.owners[0] == 0).sum())
    assert found[0] < found[1]
    honest = PackedTexts.from_tensors(aligned()([short, long]), TEXT_PREFIX)
    assert honest is not None
    assert (honest.owners == 0).sum() == 1


def test_samples_with_the_same_image_or_text_are_one_group():
    """Trap 8: duplicates in a batch are known, so that they are not counted as mismatches."""
    one, other = picture(1), picture(2)
    batch = aligned()(
        [
            sample(("Is there a lesion?", "yes", "Yes, one."), image=one),
            sample(("Where is it?", "left", "Yes, one."), image=one.copy()),
            sample(("Is it large?", "yes", "Yes, large."), image=other),
        ]
    )
    image, answer, extended = batch[f"{TEXT_PREFIX}groups"].tolist()
    assert image[0] == image[1] != image[2]
    assert answer[0] == answer[2] != answer[1]
    assert extended[0] == extended[1] != extended[2]
    assert batch[f"{TEXT_PREFIX}groups"].dtype == torch.int64
    assert min(image + answer + extended) >= 0


def test_images_of_other_sizes_are_other_images():
    """Trap 8: black images of as many pixels, but of another shape, are not duplicates."""
    shapes = [(32, 64), (64, 32), (32, 64)]
    samples = [sample(("q", "a", "e"), image=Image.new("RGB", shape)) for shape in shapes]
    image = aligned()(samples)[f"{TEXT_PREFIX}groups"][0].tolist()
    assert image[0] == image[2] != image[1]


GROUPS = """
from PIL import Image
from exgra_adapter.data.collator import _groups
from exgra_adapter.data.records import Record, Turn
print(_groups([Record("1", "a.png", (Turn("q", "yes", "Yes."),))], [Image.new("RGB", (4, 4))]).tolist())
"""


@pytest.mark.slow
def test_groups_are_the_same_on_every_process():
    """Trap 8: with one graph over all processes, a duplicate may lie on another one."""
    command = [sys.executable, "-c", GROUPS]
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    record = Record("1", "a.png", (Turn("q", "yes", "Yes."),))
    here = aligned()([Sample(record, Image.new("RGB", (4, 4)))])[f"{TEXT_PREFIX}groups"]
    assert json.loads(done.stdout) == here.tolist()


def test_tokenizers_that_cannot_be_used_are_refused():
    slow = SimpleNamespace(tokenizer=SimpleNamespace(is_fast=False))
    with pytest.raises(ValueError, match="must have a fast tokenizer"):
        collator(processor=slow)  # type: ignore[arg-type]
    unpadded = tiny_processor()
    unpadded.tokenizer.pad_token = None
    with pytest.raises(ValueError, match=r"must have a padding token; got none. Set tokenizer.pad_token"):
        collator(processor=unpadded)
