"""How likely a model finds given answers: teacher forcing, many answers at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from exgra_adapter.data.collator import IGNORED_LABEL, Collator, CollatorOptions
from exgra_adapter.data.dataset import Sample
from exgra_adapter.data.records import Record, Turn

# No answer is cut: the likelihood of a part would win over that of a whole.
_NO_LIMIT = 1 << 20


@torch.inference_mode()
def answer_log_likelihoods(
    model: Any,
    processor: Any,
    prompt: str,
    asked: Sequence[tuple[str, str, Image.Image]],
    batch_size: int = 16,
) -> list[tuple[float, int]]:
    """Computes the log-likelihood of answers to questions about images.

    It is that of the tokens which training would teach: the answer and the stop behind it. So it is the
    log-probability that the model, drawing token by token, says this answer and nothing more.

    Args:
        model: The model in evaluation mode, on any device.
        processor: Its processor, with a fast tokenizer.
        prompt: The name of the format that the model was trained in, as in `prompt_format`.
        asked: Question, answer and image.
        batch_size: Answers scored at once.

    Returns:
        For each answer the log-likelihood in nats, a sum over tokens, and the number of tokens.

    Raises:
        ValueError: The tokenizer is slow or cannot pad, or a text spells a special token.
    """
    collate = Collator(processor, CollatorOptions(max_length=_NO_LIMIT), prompt)
    scored: list[tuple[float, int]] = []
    for start in range(0, len(asked), batch_size):
        samples = [
            Sample(Record(str(number), "", (Turn(question, answer),)), image)
            for number, (question, answer, image) in enumerate(asked[start : start + batch_size])
        ]
        batch = collate(samples)
        labels = batch.pop("labels")[:, 1:]
        inputs = {name: _to_model(values, model) for name, values in batch.items()}
        rows, columns = torch.where(labels != IGNORED_LABEL)
        # A distribution over the vocabulary at the few places that are taught, in full precision.
        logits = model(**inputs).logits[rows.to(model.device), columns.to(model.device)].float()
        targets = labels[rows, columns].to(model.device)
        found = logits.log_softmax(-1).gather(1, targets[:, None])[:, 0].double().cpu()
        sums = torch.zeros(len(samples), dtype=torch.float64).index_add_(0, rows, found)
        counts = torch.bincount(rows, minlength=len(samples))
        scored += zip(sums.tolist(), counts.tolist(), strict=True)
    return scored


def _to_model(values: Tensor, model: Any) -> Tensor:
    return values.to(model.device, model.dtype) if values.is_floating_point() else values.to(model.device)
