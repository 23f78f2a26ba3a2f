"""Other families of models than LLaVA: images of any size, their own chat template, three-axis positions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    TrainingArguments,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from exgra_adapter.alignment import BatchAlignment
from exgra_adapter.data.collator import IGNORED_LABEL, TEXT_PREFIX, Collator, CollatorOptions
from exgra_adapter.data.dataset import Sample
from exgra_adapter.data.records import Record, Turn
from exgra_adapter.models.nodes import DecoderTap, encode_text, text_layout, tokenize_texts, visual_nodes
from exgra_adapter.models.prepare import add_adapters, freeze, is_projector, is_vision
from exgra_adapter.objectives import build_objective
from exgra_adapter.prompts import IMAGE_TAG
from exgra_adapter.trainer import AlignmentTrainer

WIDTH, PATCH = 32, 8
END = "<|im_end|>"
# The families' own form of a conversation.
TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    END,
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
# Width and height of images: 4 to 16 tokens each.
SIZES = [(64, 64), (32, 64), (48, 32), (32, 32), (64, 48), (48, 48)]


@dataclass(frozen=True)
class Family:
    """A model with its processor, and the parts of its names."""

    model: Any
    processor: Any
    projector: tuple[str, ...]


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    rng = np.random.default_rng(0)
    made = []
    for index, (width, height) in enumerate(SIZES):
        image = Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8))
        turns = [Turn("Where is the lesion?", f"Left, level {index}.", f"The lesion lies left at level {index}.")]
        if index % 2:
            turns.append(Turn("Is it large?", "no", f"No, it is small: {index} mm."))
        made.append(Sample(Record(str(index), f"{index}.png", tuple(turns)), image))
    return made


def tokenizer() -> PreTrainedTokenizerFast:
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    trained.train_from_iterator(["Where is the lesion? Left, level 1.", "The lesion lies left at level 2."], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=trained,
        eos_token=END,
        pad_token="<|endoftext|>",
        additional_special_tokens=SPECIAL[1:],
        chat_template=TEMPLATE,
    )


def without_video(processor_class: type) -> Any:
    """A processor of the class for images alone: the one for videos needs a package that reads them."""

    class Processor(processor_class):  # type: ignore[misc]
        def check_argument_for_proper_class(self, name: str, argument: Any) -> Any:
            return None if name == "video_processor" else super().check_argument_for_proper_class(name, argument)

    return Processor(
        image_processor=Qwen2VLImageProcessorPil(
            patch_size=PATCH, merge_size=2, size={"shortest_edge": 32 * 32, "longest_edge": 64 * 64}
        ),
        tokenizer=tokenizer(),
        video_processor=None,
        chat_template=TEMPLATE,
    )


def text_settings(vocabulary: int, **more: Any) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": WIDTH,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 0,
        **more,
    }


def qwen2_5_vl() -> Family:
    processor = without_video(Qwen2_5_VLProcessor)
    tokens = processor.tokenizer.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        vision_config={
            "depth": 2,
            "hidden_size": WIDTH,
            "intermediate_size": 48,
            "num_heads": 2,
            "patch_size": PATCH,
            "window_size": 4 * PATCH,
            "out_hidden_size": WIDTH,
            "fullatt_block_indexes": [1],
        },
        text_config=text_settings(
            len(processor.tokenizer), rope_parameters={"rope_type": "default", "mrope_section": [1, 1, 2]}
        ),
        image_token_id=tokens("<|image_pad|>"),
        video_token_id=tokens("<|video_pad|>"),
        vision_start_token_id=tokens("<|vision_start|>"),
        vision_end_token_id=tokens("<|vision_end|>"),
    )
    return Family(random_weights(Qwen2_5_VLForConditionalGeneration, config), processor, ("visual.merger.",))


def qwen3_vl() -> Family:
    processor = without_video(Qwen3VLProcessor)
    tokens = processor.tokenizer.convert_tokens_to_ids
    config = Qwen3VLConfig(
        vision_config={
            "depth": 2,
            "hidden_size": WIDTH,
            "intermediate_size": 48,
            "num_heads": 2,
            "patch_size": PATCH,
            "out_hidden_size": WIDTH,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
        },
        text_config=text_settings(
            len(processor.tokenizer),
            head_dim=8,
            rope_parameters={"rope_type": "default", "mrope_section": [2, 1, 1], "mrope_interleaved": True},
        ),
        image_token_id=tokens("<|image_pad|>"),
        video_token_id=tokens("<|video_pad|>"),
        vision_start_token_id=tokens("<|vision_start|>"),
        vision_end_token_id=tokens("<|vision_end|>"),
    )
    parts = ("visual.merger.", "visual.deepstack_merger_list.")
    return Family(random_weights(Qwen3VLForConditionalGeneration, config), processor, parts)


def random_weights(model_class: Callable[[Any], Any], config: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return model_class(config).eval()


MAKERS = {"qwen2_5_vl": qwen2_5_vl, "qwen3_vl": qwen3_vl}


@pytest.fixture(params=sorted(MAKERS))
def family(request) -> Family:
    return MAKERS[request.param]()


def make_collator(family: Family, **options: Any) -> Collator:
    return Collator(family.processor, CollatorOptions(max_length=512, **options), "chat_template")


def aligned_collator(family: Family) -> Collator:
    return make_collator(family, views=("answer", "extended"), layout=text_layout(family.model))


def image_inputs(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {"pixel_values": batch["pixel_values"], "image_grid_thw": batch["image_grid_thw"]}


def test_batches_of_images_of_any_size_teach_exactly_the_answers(family, samples):
    batch = make_collator(family)(samples)
    tokenizer = family.processor.tokenizer
    counts = (batch["input_ids"] == family.processor.image_token_id).sum(1).tolist()
    assert counts == [width * height // (2 * PATCH) ** 2 for width, height in SIZES]
    assert torch.equal(batch["mm_token_type_ids"], (batch["input_ids"] == family.processor.image_token_id).int())
    for row, sample in enumerate(samples):
        taught = batch["labels"][row] != IGNORED_LABEL
        answers = "".join(f"{turn.answer}{END}" for turn in sample.record.turns)
        assert tokenizer.decode(batch["labels"][row][taught], skip_special_tokens=False) == answers
        read = tokenizer.decode(batch["input_ids"][row][batch["attention_mask"][row].bool()])
        assert f"<|vision_start|>{'<|image_pad|>' * counts[row]}<|vision_end|>Where is the lesion?{END}" in read


def test_training_and_generation_share_their_tokens(family, samples):
    """What stands ahead of an answer is what the processor makes of the prompt that generation uses."""
    collator = make_collator(family)
    sample = samples[1]
    batch = collator([sample])
    first, second = ((turn.question, turn.answer) for turn in sample.record.turns)
    starts = _starts(batch["labels"][0] != IGNORED_LABEL)
    for start, (question, earlier) in zip(starts, [(first[0], ()), (second[0], (first,))], strict=True):
        prompt = collator.prompt.prompt(question, earlier).replace(IMAGE_TAG, family.processor.image_token)
        inputs = family.processor(text=[prompt], images=[sample.image], return_tensors="pt")
        assert torch.equal(batch["input_ids"][:, :start], inputs["input_ids"])
        assert torch.equal(batch["mm_token_type_ids"][:, :start], inputs["mm_token_type_ids"])
        assert torch.equal(batch["pixel_values"], inputs["pixel_values"])
    generated = family.model.generate(**inputs, max_new_tokens=2, do_sample=False)
    assert generated.shape[1] == inputs["input_ids"].shape[1] + 2


def _starts(taught: torch.Tensor) -> list[int]:
    before = torch.cat([torch.zeros(1, dtype=torch.bool), taught[:-1]])
    return (taught & ~before).nonzero().flatten().tolist()


def test_image_nodes_are_means_of_projected_patches(family, samples):
    batch = make_collator(family)(samples)
    model = family.model
    with torch.no_grad():
        nodes = visual_nodes(model, **image_inputs(batch))
        assert nodes.shape == (len(samples), WIDTH)
        alone = [visual_nodes(model, **image_inputs(make_collator(family)([sample]))) for sample in samples]
        torch.testing.assert_close(nodes, torch.cat(alone), rtol=1e-4, atol=1e-6)
        tap = DecoderTap()
        with tap.attached(model):
            outputs = model(**batch)
            assert outputs.loss.isfinite()
            torch.testing.assert_close(tap.image_nodes(batch["input_ids"], model.config.image_token_id), nodes)
            patches, real = tap.image_states(batch["input_ids"], model.config.image_token_id)
            assert real.sum(1).tolist() == [width * height // (2 * PATCH) ** 2 for width, height in SIZES]
            torch.testing.assert_close((patches * real[..., None]).sum(1) / real.sum(1)[:, None], nodes)
            assert tap.last_hidden_state is not None
            torch.testing.assert_close(model.lm_head(tap.last_hidden_state), outputs.logits)
    assert (nodes[0] - nodes[1]).norm() > 1e-3


def test_text_nodes_do_not_depend_on_their_batch(family):
    """Trap 3: in a family that cannot be packed, neither, on whichever side the padding is."""
    texts = ["left", "The lesion lies left at level 7 and is much longer than the other text.", "a b"]
    with torch.no_grad():
        made = tokenize_texts(family.processor, texts, 512)
        together = encode_text(family.model, **made)
        for text, node in zip(texts, together, strict=True):
            alone = encode_text(family.model, **tokenize_texts(family.processor, [text], 512))[0]
            torch.testing.assert_close(alone, node, rtol=1e-4, atol=1e-5)
        shift = (made["attention_mask"] == 0).sum(1)
        left = {
            name: torch.stack([row.roll(int(by)) for row, by in zip(value, shift, strict=True)])
            for name, value in made.items()
        }
        torch.testing.assert_close(encode_text(family.model, **left), together, rtol=1e-4, atol=1e-5)


def test_texts_lie_one_a_row(family, samples):
    """Nothing tells these language models packed texts apart; the collator must not pack for them."""
    assert text_layout(family.model) == "padded"
    batch = aligned_collator(family)(samples)
    assert batch[f"{TEXT_PREFIX}input_ids"].shape[0] == 2 * len(samples)
    assert f"{TEXT_PREFIX}padding" in batch


def test_parts_are_known_by_their_names(family):
    names = [name for name, _ in family.model.named_parameters()]
    projector = {name for name in names if is_projector(name)}
    assert projector == {name for name in names if any(part in name for part in family.projector)}
    assert {name for name in names if is_vision(name)} == {
        name for name in names if "visual." in name and name not in projector
    }
    for stage in ("stage1", "stage2", "vqa"):
        freeze(family.model, stage, family.processor)
        trained = {name for name, each in family.model.named_parameters() if each.requires_grad}
        language = set() if stage == "stage1" else {name for name in names if "visual." not in name}
        assert trained == projector | language


@pytest.fixture
def make_trainer(family, samples, tmp_path) -> Callable[..., AlignmentTrainer]:
    def build(weight: float, model: Any = None) -> AlignmentTrainer:
        torch.manual_seed(0)
        objective = build_objective("barycenter", WIDTH, neighbours=2)
        assert objective is not None
        arguments = TrainingArguments(
            output_dir=str(tmp_path),
            per_device_train_batch_size=6,
            max_steps=2,
            logging_steps=1,
            learning_rate=1e-3,
            disable_tqdm=True,
            remove_unused_columns=False,
            report_to="none",
            save_strategy="no",
            dataloader_pin_memory=False,
            use_cpu=True,
        )
        return AlignmentTrainer(
            model=family.model if model is None else model,
            args=arguments,
            train_dataset=samples,
            data_collator=aligned_collator(family) if weight else make_collator(family),
            processing_class=family.processor,
            alignment=BatchAlignment(objective, ("answer", "extended")) if weight else None,
            alignment_weight=weight,
        )

    return build


def test_the_alignment_reaches_projector_and_language_model(family, samples, make_trainer):
    freeze(family.model, "stage2", family.processor)
    found = []
    for weight in (0.0, 1.0):
        trainer = make_trainer(weight)
        trainer.compute_loss(family.model.train(), trainer.data_collator(samples)).backward()
        named = dict(family.model.named_parameters())
        found.append({name: each.grad.clone() for name, each in named.items() if each.grad is not None})
        family.model.zero_grad()
    assert found[0].keys() == found[1].keys(), "the alignment trains what the stage trains"
    assert not any(is_vision(name) for name in found[1])
    gain = {name: float((found[1][name] - found[0][name]).norm()) for name in found[0]}
    for part in (family.projector[0], *(f"language_model.layers.{layer}." for layer in range(3))):
        assert max(value for name, value in gain.items() if part in name) > 1e-4, part


def test_a_run_trains_every_part_and_leaves_vision_alone(family, make_trainer):
    freeze(family.model, "stage2", family.processor)
    trainer = make_trainer(1.0)
    assert trainer.alignment is not None
    named = [*family.model.named_parameters(), *trainer.alignment.objective.named_parameters()]
    before = {name: each.detach().clone() for name, each in named}
    trainer.train()
    for entry in trainer.state.log_history[:2]:
        assert entry["loss"] == pytest.approx(entry["ar_loss"] + entry["alignment_loss"], rel=1e-4)
        assert all(entry[f"gradient_norm_{part}"] > 0 for part in ("projector", "language_model", "alignment"))
    changed = {name for name, each in named if not torch.equal(before[name], each)}
    assert not any(is_vision(name) for name in changed)
    assert changed == {name for name in before if not is_vision(name)}


def test_adapters_lie_in_the_language_model_alone(family, make_trainer):
    freeze(family.model, "stage2", family.processor)
    adapted: Any = add_adapters(family.model, rank=2, alpha=4.0, dropout=0.0, quantized=False, checkpointing=False)
    trained = {name for name, each in adapted.named_parameters() if each.requires_grad}
    assert all(("lora_" in name and "language_model" in name) or is_projector(name) for name in trained)
    for part in family.projector:
        assert any(part in name for name in trained), part
    before = {name: each.detach().clone() for name, each in adapted.named_parameters()}
    make_trainer(1.0, adapted).train()
    changed = {name for name, each in adapted.named_parameters() if not torch.equal(before[name], each)}
    assert changed == trained
