"""A model folder answers the questions of a file: batched, over several processes, and on after an interruption.

While the work is not finished, journals lie beside the answer file, `answers.jsonl.journal-0` and so on, with a line
for each question. The answer file appears when every question is answered, and the journals vanish.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from exgra_adapter.data.images import ImageError
from exgra_adapter.data.records import Record
from exgra_adapter.data.stores import ImageStore, open_image_store
from exgra_adapter.distributed import on_main_process
from exgra_adapter.evaluation.files import Prediction, write_answers
from exgra_adapter.evaluation.generate import Query, generate_texts, open_queries, question_places
from exgra_adapter.evaluation.journal import Entry
from exgra_adapter.evaluation.sharing import (
    content_digest,
    evaluation_device,
    join_processes,
    model_digest,
    run_batches,
)
from exgra_adapter.prompts import PromptFormat, prompt_format

OnError = Literal["count", "raise"]
"""What happens to a question that cannot be asked: it counts as one without an answer, or ends the evaluation."""

Precision = Literal["fp32", "bf16", "fp16"]
"""Numbers of the weights and of the arithmetic."""

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def trained_prompt(model_folder: Path) -> str:
    """Returns the format that a model was trained in, as its settings say; "llava" where they do not.

    Example:
        >>> trained_prompt(Path("a model from elsewhere"))
        'llava'
    """
    try:
        settings = json.loads((Path(model_folder) / "settings.json").read_text(encoding="utf-8"))
        return str(settings.get("prompt", "llava"))
    except (OSError, ValueError, AttributeError):
        return "llava"


def answer_questions(
    model_folder: Path,
    records: Sequence[Record],
    images: ImageStore | Path,
    answers_file: Path,
    batch_size: int = 16,
    max_new_tokens: int = 64,
    prompt: str | None = None,
    resume: bool = True,
    *,
    on_error: OnError = "count",
    precision: Precision = "fp32",
    temperature: float = 0.0,
    seed: int = 0,
    console_progress: bool = True,
) -> list[Prediction]:
    """Lets a model answer every question of some records and writes the answer file.

    Each question is asked on its own, with its image and without the earlier turns of its record. Under torchrun, the
    batches are shared by the processes, each with its own copy of the model; the answers are those of one process.
    Nothing else needs to be set up. A caller writes files of its own on the main process only.

    Args:
        model_folder: The model, as `load_model` takes it.
        records: The questions; ids may occur more than once.
        images: A folder or tar archive with the images, or another store of them.
        answers_file: The file to write, see `exgra_adapter.evaluation.files`.
        batch_size: Questions answered at once, at least 1.
        max_new_tokens: Longest answer in tokens, at least 1.
        prompt: The format that the model was trained in, as in `prompt_format`; None: what its folder says.
        resume: Continue interrupted work that lies beside `answers_file`; otherwise it is thrown away.
        on_error: What happens to a question whose image cannot be read, or whose text spells a special token.
        precision: Of weights and arithmetic. fp16 and bf16 are for GPUs.
        temperature: 0 takes the likeliest token each time; above 0 tokens are drawn.
        seed: Of these draws; the answer to a question depends on it and on the place of the question only.
        console_progress: Whether to show a progress bar.

    Returns:
        One prediction per question, in the order of the records and turns, in every process. A question that could not
        be asked has the prediction None and says why in `error`.

    Raises:
        ValueError: An argument is out of range, the model cannot be loaded, or the interrupted work was another: of
            another model, other questions or other settings.
        ImageError: An image cannot be read and `on_error` is "raise".

    Example:
        >>> import tempfile
        >>> from exgra_adapter.data.records import Turn
        >>> from exgra_adapter.models import build_tiny_model
        >>> folder = Path(tempfile.mkdtemp())
        >>> for part in build_tiny_model(["Is there a lesion?"], seed=0):
        ...     _ = part.save_pretrained(folder)
        >>> record = Record("7", "missing.png", (Turn("Is there a lesion?", "yes"),))
        >>> prediction = answer_questions(folder, [record], folder, folder / "answers.jsonl", console_progress=False)[0]
        >>> prediction.prediction is None, "missing.png" in prediction.error
        (True, True)
    """
    check_generation("answer_questions", batch_size, max_new_tokens, on_error, precision, temperature)
    store = open_image_store(images, images) if isinstance(images, Path) else images
    places = question_places(records)
    reader = ModelReader(model_folder, trained_prompt(model_folder) if prompt is None else prompt, precision)

    def prepare(batch: range) -> list[Query]:
        asked = [places[index] for index in batch]
        questions = [(record.turns[turn].question, record.image) for record, turn in asked]
        return open_queries(questions, store, [draw_seed(seed, index) for index in batch])

    def compute(queries: list[Query]) -> list[Entry]:
        answers = reader.generate(queries, max_new_tokens, temperature)
        refuse_failures([error for _, error in answers], on_error)
        return [{"text": text, **({} if error is None else {"error": error})} for text, error in answers]

    def predictions(entries: Sequence[Entry]) -> list[Prediction]:
        made = []
        for (record, turn), entry in zip(places, entries, strict=True):
            asked = record.turns[turn]
            made.append(Prediction(record.id, turn, asked.question, asked.answer, entry["text"], entry.get("error")))
        return made

    join_processes()
    settings = {
        **reader.settings(),
        "data": content_digest([[r.id, r.image, turn, r.turns[turn].question] for r, turn in places]),
        "images": store.describe(),
        "max_new_tokens": max_new_tokens,
        "on_error": on_error,
        "temperature": temperature,
        "seed": seed,
    }
    entries = run_batches(
        len(places),
        batch_size,
        prepare,
        compute,
        answers_file,
        settings,
        lambda results: write_answers(answers_file, predictions(results)),
        caller="answer_questions",
        resume=resume,
        console_progress=console_progress,
    )
    return predictions(entries)


@dataclass(frozen=True)
class ModelReader:
    """A model folder that is loaded when the first question is put to it.

    Attributes:
        folder: The model folder.
        prompt: The name of its prompt format.
        precision: Of weights and arithmetic.
        device: Where it runs; None: `evaluation_device`.
    """

    folder: Path
    prompt: str
    precision: Precision = "fp32"
    device: torch.device | None = None

    @cached_property
    def loaded(self) -> tuple[Any, Any, PromptFormat]:
        """The model on its device, its processor and its prompt format."""
        # Importing transformers' model classes takes seconds, which finished work does not need.
        from exgra_adapter.models.load import load_model

        model, processor = load_model(self.folder, _DTYPES[self.precision])
        formatted = prompt_format(self.prompt, processor)
        return model.to(self.device or evaluation_device()).eval(), processor, formatted

    def generate(
        self, queries: Sequence[Query], max_new_tokens: int, temperature: float = 0.0
    ) -> list[tuple[str | None, str | None]]:
        """Answers one batch, see `generate_texts`."""
        model, processor, formatted = self.loaded
        return generate_texts(model, processor, formatted, queries, max_new_tokens, temperature)

    def settings(self) -> dict[str, Any]:
        """What answers depend on, as JSON values. Every process must call it."""
        digest = on_main_process(lambda: model_digest(self.folder))
        return {"format": 1, "model": digest, "prompt": self.prompt, "precision": self.precision}


def check_generation(
    caller: str, batch_size: int, max_new_tokens: int, on_error: str, precision: str, temperature: float = 0.0
) -> None:
    """Checks the arguments that evaluations by a model share.

    Raises:
        ValueError: One is out of range.
    """
    if batch_size < 1 or max_new_tokens < 1:
        raise ValueError(
            f"{caller}: batch_size and max_new_tokens must be at least 1; got {batch_size} and {max_new_tokens}. "
            "Use positive numbers."
        )
    if on_error not in get_args(OnError):
        raise ValueError(f"{caller}: on_error must be 'count' or 'raise'; got {on_error!r}. Choose one.")
    if precision not in get_args(Precision):
        raise ValueError(f"{caller}: precision must be fp32, bf16 or fp16; got {precision!r}. Choose one.")
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"{caller}: temperature must be at least 0 and finite; got {temperature}. 0 is greedy.")


def refuse_failures(errors: Sequence[str | None], on_error: OnError) -> None:
    """Raises ImageError for the first failed question of a batch, if failures are to end the evaluation."""
    failed = next((error for error in errors if error is not None), None)
    if failed is not None and on_error == "raise":
        raise ImageError(failed)


def draw_seed(seed: int, index: int) -> int:
    """Returns the seed of one question's noise."""
    return int(content_digest([seed, index])[:15], 16)
