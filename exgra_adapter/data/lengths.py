"""Token lengths of records, counted as training sees them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exgra_adapter.data.records import Record
from exgra_adapter.prompts import IMAGE_TAG, conversation_text

_AT_ONCE = 512


@dataclass(frozen=True)
class LengthStatistics:
    """Token lengths in one line; the percentile is the smallest length that 95 % of the texts do not exceed."""

    count: int
    minimum: int
    median: float
    percentile_95: int
    maximum: int

    @classmethod
    def of(cls, lengths: Sequence[int]) -> LengthStatistics:
        """Summarises at least one length.

        Example:
            >>> LengthStatistics.of([3, 1, 2])
            LengthStatistics(count=3, minimum=1, median=2.0, percentile_95=3, maximum=3)
        """
        values = np.asarray(lengths)
        high = int(np.percentile(values, 95, method="inverted_cdf"))
        return cls(len(values), int(values.min()), float(np.median(values)), high, int(values.max()))


@dataclass(frozen=True)
class TextLengths:
    """Tokens of one record.

    Attributes:
        conversation: The whole prompt with all answers and the image's tokens.
        first_answer: Tokens ahead of the first answer.
        answers: The answers of all turns, joined.
        extended_answers: The extended answers of all turns, joined; None where a turn has none.
        special_token: A special token of the model that a text spells, and that text; None where none does.
    """

    conversation: int
    first_answer: int
    answers: int
    extended_answers: int | None
    special_token: tuple[str, str] | None


class TokenCounter:
    """Counts tokens with a model's tokenizer.

    Args:
        tokenizer: A fast tokenizer of transformers.
        image_tokens: Tokens that the model puts in the place of an image.

    Raises:
        ValueError: The tokenizer is slow, has no end-of-sequence token, or `image_tokens` is negative.
    """

    def __init__(self, tokenizer: Any, image_tokens: int) -> None:
        if not tokenizer.is_fast or tokenizer.eos_token is None:
            raise ValueError(
                "TokenCounter: tokenizer must be a fast one with an end-of-sequence token; got "
                f"{type(tokenizer).__name__}. Convert it with the tokenizers package."
            )
        if image_tokens < 0:
            raise ValueError(f"TokenCounter: image_tokens must be at least 0; got {image_tokens}. Count the patches.")
        self.tokenizer = tokenizer
        self.image_tokens = image_tokens
        self._knows_image = IMAGE_TAG in tokenizer.get_vocab()

    @classmethod
    def from_folder(cls, folder: Path, image_tokens: int | None = None) -> TokenCounter:
        """Loads the tokenizer of a model folder; nothing is downloaded and no weights are read.

        Args:
            folder: A folder with a tokenizer and, for the size of the image, `config.json`.
            image_tokens: Tokens of an image; None takes `image_seq_length` of `config.json`.

        Raises:
            ValueError: There is no tokenizer, or the size of an image is not known.
        """
        from transformers import AutoTokenizer  # takes seconds

        folder = Path(folder)
        if not folder.is_dir():
            raise ValueError(f"TokenCounter: folder must be an existing folder; got {folder}. Check the path.")
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"TokenCounter: {folder} must hold a tokenizer of transformers; got an error: {reason}. "
                "Give a model folder."
            ) from None
        return cls(tokenizer, _image_tokens(folder) if image_tokens is None else image_tokens)

    def count(self, records: Sequence[Record]) -> Iterator[TextLengths]:
        """Counts the tokens of every record, in order.

        Args:
            records: The records.

        Yields:
            The lengths of one record.
        """
        for start in range(0, len(records), _AT_ONCE):
            yield from self._count(records[start : start + _AT_ONCE])

    def _count(self, records: Sequence[Record]) -> Iterator[TextLengths]:
        conversations, starts, shifts = [], [], []
        for record in records:
            turns = [(turn.question, turn.answer) for turn in record.turns]
            text, spans = conversation_text(turns, self.tokenizer.eos_token)
            # A tokenizer that does not know the tag would count its letters.
            tag = IMAGE_TAG if self._knows_image else ""
            conversations.append(text.replace(IMAGE_TAG, tag, 1))
            starts.append(spans[0][0] - len(IMAGE_TAG) + len(tag))
            shifts.append(self.image_tokens - (1 if self._knows_image else 0))
        encoded = self.tokenizer(conversations, return_offsets_mapping=True, verbose=False)
        answers = [" ".join(turn.answer for turn in record.turns) for record in records]
        extended = [" ".join(turn.extended_answer or "" for turn in record.turns) for record in records]
        answer_tokens = self.tokenizer(answers, verbose=False)["input_ids"]
        extended_tokens = self.tokenizer(extended, verbose=False)["input_ids"]
        for row, record in enumerate(records):
            offsets = encoded["offset_mapping"][row]
            ahead = next(
                (index for index, (first, last) in enumerate(offsets) if first >= starts[row] and last > first),
                len(offsets),
            )
            yield TextLengths(
                conversation=len(offsets) + shifts[row],
                first_answer=ahead + shifts[row],
                answers=len(answer_tokens[row]),
                extended_answers=(
                    len(extended_tokens[row]) if all(turn.extended_answer for turn in record.turns) else None
                ),
                special_token=self._special_token(record),
            )

    def _special_token(self, record: Record) -> tuple[str, str] | None:
        texts = (text for turn in record.turns for text in (turn.question, turn.answer, turn.extended_answer) if text)
        pairs = ((token, text) for text in texts for token in self.tokenizer.all_special_tokens if token in text)
        return next(pairs, None)


def _image_tokens(folder: Path) -> int:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return int(config["image_seq_length"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(
            f"TokenCounter: {folder} must have a config.json with image_seq_length, the tokens of an image; got none. "
            "Say how many tokens an image takes (--image-tokens)."
        ) from None
