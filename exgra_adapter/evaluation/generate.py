"""Asks a model every question of some records and collects its answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm
from transformers import PreTrainedModel, ProcessorMixin

from exgra_adapter.data.images import ImageError, open_image
from exgra_adapter.data.records import Record
from exgra_adapter.evaluation.files import Prediction
from exgra_adapter.prompts import IMAGE_TAG, PromptFormat, clean_answer, prompt_format


@dataclass(frozen=True)
class _Request:
    """One question with its picture, or with the reason why there is none."""

    record: Record
    turn: int
    image: Image.Image | None
    error: str | None = None

    def answered(self, text: str | None) -> Prediction:
        turn = self.record.turns[self.turn]
        return Prediction(self.record.id, self.turn, turn.question, turn.answer, text, self.error)


def generate_answers(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    records: Sequence[Record],
    images: Path,
    batch_size: int = 16,
    max_new_tokens: int = 64,
    console_progress: bool = True,
    prompt: str = "llava",
) -> list[Prediction]:
    """Answers every question with greedy decoding.

    Each question is asked on its own, with the picture and without the earlier turns of its record. Prompts of one
    batch are padded on the left, so that every answer starts right after its question.

    Args:
        model: The model, on any device; its training mode is restored afterwards.
        processor: The processor that belongs to it.
        records: The questions.
        images: The folder with the pictures.
        batch_size: Questions answered at once, at least 1.
        max_new_tokens: Longest answer in tokens, at least 1.
        console_progress: Whether to show a progress bar.
        prompt: The format that the model was trained in, as in `prompt_format`.

    Returns:
        One prediction per question, in the order of the records and turns. A question whose picture cannot be read has
        the prediction None and says why in `error`; the others are answered all the same.

    Raises:
        ValueError: A number is below 1.
    """
    if batch_size < 1 or max_new_tokens < 1:
        raise ValueError(
            "generate_answers: batch_size and max_new_tokens must be at least 1; got "
            f"{batch_size} and {max_new_tokens}. Use positive numbers."
        )
    formatted = prompt_format(prompt, processor)
    training = model.training
    model.eval()
    total = sum(len(record.turns) for record in records)
    predictions: list[Prediction] = []
    try:
        with tqdm(
            total=total, desc="answering", unit="question", disable=not console_progress, leave=False
        ) as progress:
            for batch in _batches(_requests(records, images), batch_size):
                predictions += _answer(model, processor, formatted, batch, max_new_tokens)
                progress.update(len(batch))
    finally:
        model.train(training)
    return predictions


def _requests(records: Sequence[Record], images: Path) -> Iterator[_Request]:
    for record in records:
        try:
            image, error = open_image(images, record.image), None
        except ImageError as failure:
            image, error = None, str(failure)
        for turn in range(len(record.turns)):
            yield _Request(record, turn, image, error)


def _batches(requests: Iterator[_Request], size: int) -> Iterator[list[_Request]]:
    batch: list[_Request] = []
    for request in requests:
        batch.append(request)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


@torch.inference_mode()
def _answer(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    prompt: PromptFormat,
    batch: list[_Request],
    max_new_tokens: int,
) -> list[Prediction]:
    readable = [request for request in batch if request.image is not None]
    texts: Iterator[str] = iter(())
    if readable:
        tokenizer = processor.tokenizer
        inputs = processor(
            images=[request.image for request in readable],
            text=[
                prompt.prompt(request.record.turns[request.turn].question).replace(IMAGE_TAG, processor.image_token)
                for request in readable
            ],
            padding=True,
            padding_side="left",
            return_tensors="pt",
        ).to(model.device, model.dtype)
        stop = tokenizer.eos_token_id
        own_stop = prompt.stop != tokenizer.eos_token
        stop_text = {"stop_strings": prompt.stop, "tokenizer": tokenizer} if own_stop else {}
        tokens = model.generate(
            **inputs,
            do_sample=False,
            num_beams=1,
            max_new_tokens=max_new_tokens,
            eos_token_id=stop,
            pad_token_id=stop if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
            **stop_text,
        )
        answers = tokens[:, inputs["input_ids"].shape[1] :]
        decoded = tokenizer.batch_decode(answers, skip_special_tokens=True)
        texts = (clean_answer(text, prompt.stop if own_stop else "") for text in decoded)
    return [request.answered(None if request.image is None else next(texts)) for request in batch]
