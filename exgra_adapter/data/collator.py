"""From records to batches: images, conversations with masked labels, and the texts of the alignment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm
from transformers import LlavaProcessor

from exgra_adapter.data.images import ImageError, open_image
from exgra_adapter.data.records import Record
from exgra_adapter.models.nodes import tokenize_texts
from exgra_adapter.prompts import IMAGE_TAG, conversation_text

IGNORED_LABEL = -100
"""Label of the tokens that the model does not learn to produce (PyTorch's own default)."""


@dataclass(frozen=True)
class Sample:
    """One record with its decoded image."""

    record: Record
    image: Image.Image


class RecordDataset(Dataset[Sample]):
    """Records whose images are decoded when they are asked for.

    Args:
        records: The records.
        images: The image folder.

    Raises:
        ImageError: On access, where an image cannot be read.
    """

    def __init__(self, records: Sequence[Record], images: Path) -> None:
        self.records = list(records)
        self.images = Path(images)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        record = self.records[index]
        return Sample(record, open_image(self.images, record.image))


def check_images(
    records: Sequence[Record], images: Path, skip_bad: bool, progress: bool = False
) -> tuple[list[Record], int, str | None]:
    """Decodes every image once, before hours of training depend on it.

    Args:
        records: The records.
        images: The image folder.
        skip_bad: Leave out records with a bad image instead of raising.
        progress: Show a progress bar.

    Returns:
        The records with readable images, how many were left out, and why the first of them was.

    Raises:
        ImageError: An image is bad and `skip_bad` is False; the message names the record.
    """
    errors: dict[str, str | None] = {}
    for record in tqdm(records, desc="checking images", unit="record", disable=not progress):
        if record.image in errors:
            continue
        errors[record.image] = None
        try:
            open_image(images, record.image)
        except ImageError as error:
            if not skip_bad:
                raise ImageError(f"record {record.id!r}: {error}") from None
            errors[record.image] = str(error)
    kept = [record for record in records if errors[record.image] is None]
    reason = next((error for error in errors.values() if error is not None), None)
    return kept, len(records) - len(kept), reason


class Collator:
    """Makes one training batch of samples.

    The batch holds `input_ids`, `attention_mask`, `labels` `(n, t)` and `pixel_values` of the main pass, padded on the
    right. Labels are the token ids of every answer with its stop token and `IGNORED_LABEL` elsewhere. With
    `alignment`, it also holds `text_input_ids`, `text_attention_mask`, `text_mask` `(2n, u)`: the answers of all
    samples, then the extended answers of all samples. The answers of several turns are joined: a sample is one node.

    Args:
        processor: The model's processor, with a fast tokenizer.
        max_length: Conversations and texts are cut to this many tokens, image patches included.
        alignment: Whether the texts of the alignment are wanted.
        average_padding: Count padding as text in `text_mask`, as the released recipe does; a node then depends on the
            longest text of its batch. For comparison only.

    Raises:
        ValueError: At construction, where the tokenizer is slow or `max_length` leaves no room behind the image; on a
            call, where a sample has no answer token within `max_length`, holds a special token, or lacks an extended
            answer that the alignment needs.
    """

    def __init__(
        self, processor: LlavaProcessor, max_length: int, alignment: bool, average_padding: bool = False
    ) -> None:
        if not processor.tokenizer.is_fast:
            raise ValueError(
                "Collator: processor must have a fast tokenizer, which knows where its tokens stand in the text; got "
                f"{type(processor.tokenizer).__name__}. Convert it with the tokenizers package."
            )
        self.processor = processor
        self.max_length = max_length
        self.alignment = alignment
        self.average_padding = average_padding
        probe = processor(text=IMAGE_TAG, images=Image.new("RGB", (32, 32)))
        self._image_tokens = list(torch.tensor(probe["input_ids"]).flatten()).count(processor.image_token_id)
        if max_length <= self._image_tokens:
            raise ValueError(
                f"Collator: max_length must exceed the {self._image_tokens} tokens of the image; got {max_length}. "
                "Raise max_length."
            )

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Makes a batch of samples; what it holds is described above."""
        records = [sample.record for sample in samples]
        batch = self._conversations(records)
        images = self.processor.image_processor([sample.image for sample in samples], return_tensors="pt")
        batch["pixel_values"] = images["pixel_values"]
        if self.alignment:
            answers = [" ".join(turn.answer for turn in record.turns) for record in records]
            texts = tokenize_texts(self.processor, answers + _extended_answers(records), self.max_length)
            batch["text_input_ids"] = texts["input_ids"]
            batch["text_attention_mask"] = texts["attention_mask"]
            batch["text_mask"] = torch.ones_like(texts["text_mask"]) if self.average_padding else texts["text_mask"]
        return batch

    def _conversations(self, records: Sequence[Record]) -> dict[str, Tensor]:
        tokenizer: Any = self.processor.tokenizer
        image = self.processor.image_token * self._image_tokens
        texts, spans = [], []
        for record in records:
            self._refuse_special_tokens(record)
            text, ranges = conversation_text(
                [(turn.question, turn.answer) for turn in record.turns], tokenizer.eos_token
            )
            shift = len(image) - len(IMAGE_TAG)  # the tag stands in the first prompt, ahead of every answer
            texts.append(text.replace(IMAGE_TAG, image, 1))
            spans.append([(start + shift, end + shift) for start, end in ranges])
        encoded = tokenizer(
            texts,
            padding=True,
            padding_side="right",
            truncation=True,
            max_length=self.max_length,
            return_offsets_mapping=True,
            return_tensors="pt",
        )
        labels = torch.full_like(encoded["input_ids"], IGNORED_LABEL)
        for row, (record, ranges) in enumerate(zip(records, spans, strict=True)):
            first, last = encoded["offset_mapping"][row].unbind(-1)
            taught = torch.zeros_like(first, dtype=torch.bool)
            for start, end in ranges:
                taught |= (first >= start) & (last <= end) & (last > first)
            if not taught.any():
                raise ValueError(
                    f"Collator: record {record.id!r} must have its first answer within max_length = {self.max_length} "
                    f"tokens ({self._image_tokens} are the image); got a longer question. Raise max_length or drop it."
                )
            labels[row] = torch.where(taught, encoded["input_ids"][row], labels[row])
        return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"], "labels": labels}

    def _refuse_special_tokens(self, record: Record) -> None:
        """Text that spells a special token would move the end of an answer or the place of the image."""
        for turn in record.turns:
            for text in (turn.question, turn.answer):
                token = next((token for token in self.processor.tokenizer.all_special_tokens if token in text), None)
                if token is not None:
                    raise ValueError(
                        f"Collator: record {record.id!r} must not spell a special token of the model; got {token!r} in "
                        f"{text!r}. Remove it from the text."
                    )


def _extended_answers(records: Sequence[Record]) -> list[str]:
    texts = []
    for record in records:
        extended = [turn.extended_answer for turn in record.turns if turn.extended_answer]
        if len(extended) != len(record.turns):
            raise ValueError(
                f"Collator: record {record.id!r} must have an extended answer in every turn, because the alignment is "
                f"on; got {len(extended)} of {len(record.turns)}. Add conversations_long to the data, use the template "
                "extender, or switch the alignment off (alignment_weight = 0)."
            )
        texts.append(" ".join(extended))
    return texts
