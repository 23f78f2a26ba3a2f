"""Asks a model every question of some records and collects its answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedModel, ProcessorMixin

from exgra_adapter.data.images import ImageError
from exgra_adapter.data.records import Record
from exgra_adapter.data.stores import FolderStore, ImageStore
from exgra_adapter.evaluation.files import Prediction
from exgra_adapter.prompts import IMAGE_TAG, PromptFormat, clean_answer, prompt_format


@dataclass(frozen=True)
class Query:
    """One question as it is put to a model, or the reason why it cannot be.

    Attributes:
        question: The question's text.
        image: Its image; None where `error` says why.
        error: Why it cannot be asked, else None.
        seed: Of the noise where answers are sampled; the other questions of a batch do not change it.
    """

    question: str
    image: Image.Image | None
    error: str | None = None
    seed: int = 0


def generate_answers(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    records: Sequence[Record],
    images: ImageStore | Path,
    batch_size: int = 16,
    max_new_tokens: int = 64,
    console_progress: bool = True,
    prompt: str = "llava",
) -> list[Prediction]:
    """Answers every question with greedy decoding, in this process and in memory.

    Each question is asked on its own, with the picture and without the earlier turns of its record. Prompts of one
    batch are padded on the left, so that every answer starts right after its question.
    `exgra_adapter.evaluation.answering.answer_questions` does the same from a model folder, over several processes, and
    continues after an interruption.

    Args:
        model: The model, on any device; its training mode is restored afterwards.
        processor: The processor that belongs to it.
        records: The questions.
        images: The folder with the pictures, or another store of them.
        batch_size: Questions answered at once, at least 1.
        max_new_tokens: Longest answer in tokens, at least 1.
        console_progress: Whether to show a progress bar.
        prompt: The format that the model was trained in, as in `prompt_format`.

    Returns:
        One prediction per question, in the order of the records and turns. A question that cannot be asked, mostly
        because its picture cannot be read, has the prediction None and says why in `error`; the others are answered all
        the same.

    Raises:
        ValueError: A number is below 1.
    """
    if batch_size < 1 or max_new_tokens < 1:
        raise ValueError(
            "generate_answers: batch_size and max_new_tokens must be at least 1; got "
            f"{batch_size} and {max_new_tokens}. Use positive numbers."
        )
    store = FolderStore(images) if isinstance(images, Path) else images
    formatted = prompt_format(prompt, processor)
    training = model.training
    model.eval()
    places = question_places(records)
    predictions: list[Prediction] = []
    try:
        with tqdm(
            total=len(places), desc="answering", unit="question", disable=not console_progress, leave=False
        ) as progress:
            for start in range(0, len(places), batch_size):
                batch = places[start : start + batch_size]
                queries = open_queries([(record.turns[turn].question, record.image) for record, turn in batch], store)
                answered = generate_texts(model, processor, formatted, queries, max_new_tokens)
                for (record, turn), (text, error) in zip(batch, answered, strict=True):
                    asked = record.turns[turn]
                    predictions.append(Prediction(record.id, turn, asked.question, asked.answer, text, error))
                progress.update(len(batch))
    finally:
        model.train(training)
    return predictions


def question_places(records: Sequence[Record]) -> list[tuple[Record, int]]:
    """Lists all questions, each as its record and its turn."""
    return [(record, turn) for record in records for turn in range(len(record.turns))]


def open_queries(
    questions: Sequence[tuple[str, str]], store: ImageStore, seeds: Sequence[int] | None = None
) -> list[Query]:
    """Opens the images of some questions; an image that several of them show is opened once.

    Args:
        questions: Texts with the names of their images.
        store: Where the images are.
        seeds: One for each question; None: zeros.
    """
    opened: dict[str, Image.Image | str] = {}
    for _, name in questions:
        if name not in opened:
            try:
                opened[name] = store.open(name)
            except ImageError as failure:
                opened[name] = str(failure)
    queries = []
    for (question, name), seed in zip(questions, seeds or [0] * len(questions), strict=True):
        found = opened[name]
        queries.append(
            Query(question, None, found, seed) if isinstance(found, str) else Query(question, found, None, seed)
        )
    return queries


def refused_text(texts: Sequence[str], processor: Any, prompt: PromptFormat) -> str | None:
    """Says why texts cannot be put to a model: they spell one of its special tokens; None where they do not."""
    refused = sorted({*processor.tokenizer.all_special_tokens, processor.image_token, *prompt.reserved})
    for text in texts:
        token = next((token for token in refused if token in text), None)
        if token is not None:
            return (
                f"generate_texts: a text must not spell a special token of the model; got {token!r} in {text[:80]!r}. "
                "Remove it from the text."
            )
    return None


@torch.inference_mode()
def generate_texts(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    prompt: PromptFormat,
    queries: Sequence[Query],
    max_new_tokens: int,
    temperature: float = 0.0,
) -> list[tuple[str | None, str | None]]:
    """Answers one batch of questions.

    Args:
        model: The model in evaluation mode, on any device.
        processor: Its processor.
        prompt: The format of questions.
        queries: The questions. Those with an error are not asked.
        max_new_tokens: Longest answer in tokens.
        temperature: 0 takes the likeliest token each time; above 0 tokens are drawn, by the seed of each query.

    Returns:
        For each query its answer and None, or None and why there is no answer.
    """
    errors = [query.error or refused_text([query.question], processor, prompt) for query in queries]
    asked = [query for query, error in zip(queries, errors, strict=True) if error is None]
    texts: Iterator[str] = iter(())
    if asked:
        prompts = [prompt.prompt(query.question) for query in asked]
        inputs = model_inputs(processor, prompts, [query.image for query in asked])
        inputs = inputs.to(model.device, model.dtype)
        seeds = [query.seed for query in asked]
        tokens = model.generate(**inputs, **generation_settings(processor, prompt, max_new_tokens, temperature, seeds))
        answers = tokens[:, inputs["input_ids"].shape[1] :]
        decoded = processor.tokenizer.batch_decode(answers, skip_special_tokens=True)
        stop = own_stop(processor, prompt)
        texts = (clean_answer(text, stop) for text in decoded)
    return [(next(texts), None) if error is None else (None, error) for error in errors]


def model_inputs(processor: ProcessorMixin, prompts: Sequence[str], images: Sequence[Image.Image | None]) -> Any:
    """Turns formatted prompts and their images into what a model reads, padded on the left, on the CPU."""
    return processor(
        images=list(images),
        text=[text.replace(IMAGE_TAG, processor.image_token) for text in prompts],
        padding=True,
        padding_side="left",
        return_tensors="pt",
    )


def own_stop(processor: Any, prompt: PromptFormat) -> str:
    """Returns the text that ends an answer where that is not the tokenizer's end-of-sequence token, else nothing."""
    return "" if prompt.stop == processor.tokenizer.eos_token else prompt.stop


def generation_settings(
    processor: Any, prompt: PromptFormat, max_new_tokens: int, temperature: float, seeds: Sequence[int]
) -> dict[str, Any]:
    """Returns the arguments of `generate` that do not depend on the inputs.

    Args:
        processor: The model's processor.
        prompt: The format of questions.
        max_new_tokens: Longest answer in tokens.
        temperature: 0 takes the likeliest token each time; above 0 tokens are drawn.
        seeds: Of the draws, one for each question of the batch.
    """
    tokenizer = processor.tokenizer
    end = tokenizer.eos_token_id
    settings: dict[str, Any] = {
        "do_sample": False,
        "num_beams": 1,
        "num_return_sequences": 1,
        "max_new_tokens": max_new_tokens,
        "eos_token_id": end,
        "pad_token_id": end if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
    }
    stop = own_stop(processor, prompt)
    if stop:
        settings |= {"stop_strings": stop, "tokenizer": tokenizer}
    if temperature > 0:
        settings["logits_processor"] = LogitsProcessorList([_SamplingNoise(seeds, temperature)])
    return settings


class _SamplingNoise(LogitsProcessor):
    """Gumbel noise, with which the largest value is a draw from the softmax, from a generator for each row.

    Drawn by one generator for all rows, an answer would depend on the other questions of its batch.

    Source: C. Maddison et al., A* Sampling, NeurIPS 2014, section 2.
    """

    def __init__(self, seeds: Sequence[int], temperature: float) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._temperature = temperature

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Adds the noise to scores `(rows, vocabulary)`."""
        rows = [torch.rand(scores.shape[1], generator=each, dtype=torch.float64) for each in self._generators]
        gumbel = -(-torch.stack(rows).clamp_min(1e-300).log()).log()
        return scores.double() / self._temperature + gumbel.to(scores.device)
