"""From samples to batches: images, conversations with masked labels, and the texts of the alignment."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor
from transformers import ProcessorMixin

from exgra_adapter.data.dataset import Sample
from exgra_adapter.data.images import ImageError
from exgra_adapter.data.records import Record, Turn
from exgra_adapter.models.packing import Layout, pack_texts
from exgra_adapter.prompts import IMAGE_TAG, PromptFormat, prompt_format

IGNORED_LABEL = -100
"""Label of the tokens that the model does not learn to produce (PyTorch's own default)."""

TEXT_PREFIX = "text_"
"""Begins the names of what a batch holds for the alignment's text pass."""


@dataclass(frozen=True)
class CollatorOptions:
    """What a batch holds.

    Attributes:
        max_length: Conversations and texts are cut to this many tokens, image patches included.
        views: Texts that the alignment reads alone, in this order: "answer", "extended", both or none.
        layout: How they lie in rows; None = no alignment.
        answer_positions: Mark where the answers stand in the conversations.
        extended_conversations: A second conversation for every sample, with the extended answers.
        count_padding: Average texts over padding too, as the released recipe does; a node then depends on the longest
            text of its batch. For comparison only.
    """

    max_length: int = 2048
    views: tuple[Literal["answer", "extended"], ...] = ()
    layout: Layout | None = None
    answer_positions: bool = False
    extended_conversations: bool = False
    count_padding: bool = False


class Collator:
    """Makes one training batch of samples.

    The batch holds `input_ids`, `attention_mask`, `labels` `(n, t)`, padded on the right, and what the processor makes
    of the images. Labels are the token ids of every answer with its stop and `IGNORED_LABEL` elsewhere. With
    alignment, it also holds the packed texts (`PackedTexts`, names with the prefix `text_`), view after view, and
    `text_groups` `(3, n)` int64, equal where samples show the same image, answer, extended answer. The answers of
    several turns are joined: a sample is one node.

    Samples whose image could not be read are left out and counted in `skipped` `(1,)`.

    Args:
        processor: The model's processor, with a fast tokenizer.
        options: What the batch holds.
        prompt: The format of conversations, as in `prompt_format`.

    Raises:
        ValueError: At construction, where the tokenizer is slow, cannot pad or lacks what the prompt needs; on a call,
            where a sample has no answer token within `max_length`, holds a special token, or lacks an extended answer.
        ImageError: No sample of a batch has a readable image.
    """

    def __init__(self, processor: ProcessorMixin, options: CollatorOptions, prompt: str = "llava") -> None:
        if not processor.tokenizer.is_fast:
            raise ValueError(
                "Collator: processor must have a fast tokenizer, which knows where its tokens stand in the text; got "
                f"{type(processor.tokenizer).__name__}. Convert it with the tokenizers package."
            )
        if processor.tokenizer.pad_token is None:
            raise ValueError(
                "Collator: processor.tokenizer must have a padding token; got none. Set tokenizer.pad_token, for "
                "instance to tokenizer.eos_token."
            )
        self.processor = processor
        self.options = options
        self.prompt: PromptFormat = prompt_format(prompt, processor)
        self._refused = {*processor.tokenizer.all_special_tokens, processor.image_token, *self.prompt.reserved}

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Makes a batch of samples; what it holds is described above."""
        usable = [(sample.record, sample.image) for sample in samples if sample.image is not None]
        if not usable:
            raise ImageError(
                f"Collator: a batch must have a readable image; got none in {len(samples)} samples. The first: "
                f"{samples[0].problem}"
            )
        records, images = [record for record, _ in usable], [image for _, image in usable]
        if self.options.extended_conversations:
            records, images = [*records, *map(_extended_record, records)], [*images, *images]
        batch = self._conversations(records, images)
        if len(usable) < len(samples):
            batch["skipped"] = torch.tensor([len(samples) - len(usable)])
        if self.options.layout is not None:
            batch.update(self._texts(records))
            batch[f"{TEXT_PREFIX}groups"] = _groups(records, images)
        return batch

    def _conversations(self, records: Sequence[Record], images: Sequence[Image.Image]) -> dict[str, Tensor]:
        tokenizer: Any = self.processor.tokenizer
        image_token = self.processor.image_token
        made = self.processor(text=[image_token] * len(images), images=list(images), padding=True, return_tensors="pt")
        lengths = (made["input_ids"] == self.processor.image_token_id).sum(1).tolist()
        if max(lengths) >= self.options.max_length:
            raise ValueError(
                f"Collator: max_length must exceed the {max(lengths)} tokens of the image; got "
                f"{self.options.max_length}. Raise max_length."
            )
        texts, spans, answers = [], [], []
        for record, length in zip(records, lengths, strict=True):
            self._refuse_special_tokens(record)
            text, ranges = self.prompt.conversation([(turn.question, turn.answer) for turn in record.turns])
            shift = length * len(image_token) - len(IMAGE_TAG)  # the image stands ahead of every answer
            texts.append(text.replace(IMAGE_TAG, image_token * length, 1))
            spans.append([(start + shift, end + shift) for start, end in ranges])
            places = [
                (text.find(turn.answer, start), turn) for (start, _), turn in zip(ranges, record.turns, strict=True)
            ]
            answers.append([(place + shift, place + len(turn.answer) + shift) for place, turn in places])
        encoded = tokenizer(
            texts,
            padding=True,
            padding_side="right",
            truncation=True,
            max_length=self.options.max_length,
            return_offsets_mapping=True,
            return_tensors="pt",
        )
        input_ids = encoded["input_ids"]
        taught = _within(encoded["offset_mapping"], spans)
        for record, row, length in zip(records, taught, lengths, strict=True):
            if not row.any():
                raise ValueError(
                    f"Collator: record {record.id!r} must have its first answer within max_length = "
                    f"{self.options.max_length} tokens ({length} are the image); got a longer question. Raise "
                    "max_length or drop it."
                )
        batch = {
            "input_ids": input_ids,
            "attention_mask": encoded["attention_mask"],
            "labels": torch.where(taught, input_ids, IGNORED_LABEL),
            **{name: value for name, value in made.items() if name not in ("input_ids", "attention_mask")},
        }
        for name in ("mm_token_type_ids", "token_type_ids"):  # where the image is
            if name in batch:
                batch[name] = (input_ids == self.processor.image_token_id).to(made[name])
        if self.options.answer_positions:
            batch[f"{TEXT_PREFIX}answers"] = _overlapping(encoded["offset_mapping"], answers)
        return batch

    def _texts(self, records: Sequence[Record]) -> dict[str, Tensor]:
        if not self.options.views or self.options.layout is None:
            return {}
        read = {"answer": _answers, "extended": _extended_answers}
        texts = [text for view in self.options.views for text in read[view](records)]
        tokenizer: Any = self.processor.tokenizer
        encoded = tokenizer(
            texts, truncation=True, max_length=self.options.max_length, return_special_tokens_mask=True, padding=False
        )
        padding = tokenizer.pad_token_id
        layout = "padded" if self.options.count_padding else self.options.layout
        packed = pack_texts(encoded["input_ids"], encoded["special_tokens_mask"], padding, layout)
        if self.options.count_padding:
            rows = torch.arange(len(texts))[:, None].expand_as(packed.owners)
            packed = replace(packed, owners=rows.contiguous())
        return packed.tensors(TEXT_PREFIX)

    def _refuse_special_tokens(self, record: Record) -> None:
        """Text that spells a special token would move the end of an answer or the place of the image."""
        extended = "extended" in self.options.views
        for turn in record.turns:
            for text in (turn.question, turn.answer, (turn.extended_answer or "") if extended else ""):
                token = next((token for token in self._refused if token in text), None)
                if token is not None:
                    raise ValueError(
                        f"Collator: record {record.id!r} must not spell a special token of the model; got {token!r} in "
                        f"{text!r}. Remove it from the text."
                    )


def _within(offsets: Tensor, spans: Sequence[Sequence[tuple[int, int]]]) -> Tensor:
    """Returns bool (n, t): tokens that lie in one of the character ranges of their row."""
    first, last = offsets.unbind(-1)
    found = torch.zeros_like(first, dtype=torch.bool)
    for row, ranges in enumerate(spans):
        for start, end in ranges:
            found[row] |= (first[row] >= start) & (last[row] <= end) & (last[row] > first[row])
    return found


def _overlapping(offsets: Tensor, spans: Sequence[Sequence[tuple[int, int]]]) -> Tensor:
    """Returns bool (n, t): tokens with a character in one of the ranges of their row."""
    first, last = offsets.unbind(-1)
    found = torch.zeros_like(first, dtype=torch.bool)
    for row, ranges in enumerate(spans):
        for start, end in ranges:
            found[row] |= (first[row] < end) & (last[row] > start)
    return found


def _answers(records: Sequence[Record]) -> list[str]:
    return [" ".join(turn.answer for turn in record.turns) for record in records]


def _extended_answers(records: Sequence[Record]) -> list[str]:
    return [" ".join(turn.answer for turn in _extended_record(record).turns) for record in records]


def _extended_record(record: Record) -> Record:
    """Returns the record with its extended answers as answers."""
    turns = tuple(Turn(turn.question, turn.extended_answer) for turn in record.turns if turn.extended_answer)
    if len(turns) != len(record.turns):
        raise ValueError(
            f"Collator: record {record.id!r} must have an extended answer in every turn, because the objective reads "
            f"them; got {len(turns)} of {len(record.turns)}. Add conversations_long to the data, use "
            "extender=template, or set objective=none."
        )
    return replace(record, turns=turns)


def _groups(records: Sequence[Record], images: Sequence[Image.Image]) -> Tensor:
    """Returns int64 (3, n), a number for each image and text: equal ones have one number, on every process."""
    extended = [" ".join(turn.extended_answer or "" for turn in record.turns) for record in records]
    contents = (
        [f"{image.mode} {image.size} ".encode() + image.tobytes() for image in images],
        [text.encode() for text in _answers(records)],
        # Without extended answers nobody asks for this row.
        [text.encode() for text in extended],
    )
    return torch.tensor([[_number(content) for content in view] for view in contents])


def _number(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big") >> 1
