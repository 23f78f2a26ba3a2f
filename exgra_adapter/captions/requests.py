"""What the language model is asked: one request for each question with its answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from exgra_adapter.data.files import parse_raw_sample, raw_samples
from exgra_adapter.data.records import Record
from exgra_adapter.endpoint import Item

CRITIQUE_POINTS = ("helpfulness", "relevance", "accuracy", "detail", "structure")
SCHEMA_NAME = "extended_answer"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "critique": {
            "type": "object",
            "properties": {point: {"type": "string"} for point in CRITIQUE_POINTS},
            "required": list(CRITIQUE_POINTS),
            "additionalProperties": False,
        },
        "revision": {"type": "string"},
    },
    "required": ["critique", "revision"],
    "additionalProperties": False,
}
"""Every reply has a critique of the answer, which makes the model think first, and the extended answer."""

SHORT_LIMIT = 20
"""Longest extended answer in words for answers of one or two words."""

_SHORT_WORDS, _FACTOR = 2, 2
_CRITIQUE_TOKENS, _MESSAGE_TOKENS = 120, 4
_BYTES_PER_TOKEN = 4.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample of the input.

    Attributes:
        position: Its number, from 0.
        content: What the file has, unchanged.
        record: The same, checked.
    """

    position: int
    content: dict[str, Any]
    record: Record

    @property
    def is_extended(self) -> bool:
        """Whether the file has extended answers already; they are kept, and nothing is asked."""
        return self.record.turns[0].extended_answer is not None

    def key(self, turn: int) -> str:
        """Identifies a turn in the journal. Ids need not be unique, positions are."""
        return f"{self.position}.{turn}"


@dataclass(frozen=True)
class Overview:
    """What a first pass over the input finds.

    Attributes:
        samples: Number of samples.
        extended: Samples that have extended answers already.
        pairs: Question-answer pairs to ask about.
        digest: Hash of all questions and answers, which a resumed run must share.
    """

    samples: int
    extended: int
    pairs: int
    digest: str


def read_system_prompt(path: Path | None = None) -> str:
    """Reads the system prompt of a file; None reads the one that comes with the package.

    Raises:
        ValueError: The file is missing, empty or not UTF-8.
    """
    if path is None:
        return (files("exgra_adapter.captions") / "system_prompt.txt").read_text(encoding="utf-8").strip()
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise ValueError(
            f"read_system_prompt: path must name an existing file; got {path}. Start from the one that "
            "exgra-med caption --print-system-prompt shows."
        ) from None
    except UnicodeDecodeError:
        raise ValueError(f"read_system_prompt: {path} must be UTF-8 text; got other bytes. Convert it.") from None
    if not text:
        raise ValueError(f"read_system_prompt: {path} must hold a prompt; got an empty file. Write one.")
    return text


def count_words(text: str) -> int:
    """Words between spaces; of scripts without spaces, two signs count as one.

    Example:
        >>> count_words("left lower lobe"), count_words("脾脏位于左上腹部")
        (3, 4)
    """
    if text.isascii():
        return len(text.split())
    signs = sum("\u2e80" <= letter <= "\ud7af" for letter in text)
    return sum(not word[0] >= "\u2e80" for word in text.split()) + (signs + 1) // 2


def word_limit(answer: str) -> int:
    """Longest extended answer in words: twice the answer's, and 20 for answers of one or two words.

    Example:
        >>> word_limit("yes"), word_limit("left lower lobe"), word_limit("a " * 30)
        (20, 6, 60)
    """
    words = count_words(answer)
    return SHORT_LIMIT if words <= _SHORT_WORDS else _FACTOR * words


def messages_for(question: str, answer: str, system_prompt: str) -> list[dict[str, Any]]:
    """The chat of one request.

    Example:
        >>> messages_for("Is there a lesion?", "yes", "Improve the answer.")[1]["content"]
        '{"question": "Is there a lesion?", "answer": "yes", "word limit": 20}'
    """
    content = {"question": question, "answer": answer, "word limit": word_limit(answer)}
    return [
        {"role": "system", "content": system_prompt},
        {"role": "user", "content": json.dumps(content, ensure_ascii=False)},
    ]


def stream_samples(path: Path) -> Iterator[Sample]:
    """Reads the samples one by one, in constant memory.

    Raises:
        ValueError: A file or sample is broken.
    """
    for position, raw in enumerate(raw_samples(path, "caption")):
        yield Sample(position, raw.content, parse_raw_sample(raw, "caption"))


def items_for(samples: Iterator[Sample], system_prompt: str) -> Iterator[Item]:
    """The requests for all turns of samples that have no extended answers yet."""
    for sample in samples:
        if not sample.is_extended:
            for number, turn in enumerate(sample.record.turns):
                yield Item(
                    sample.key(number), messages_for(turn.question, turn.answer, system_prompt), SCHEMA, SCHEMA_NAME
                )


def look_over(samples: Iterator[Sample]) -> Overview:
    """Counts and hashes the input; a broken sample stops here, before anything is paid for."""
    digest = hashlib.blake2b(digest_size=16)
    count = extended = pairs = 0
    for sample in samples:
        count += 1
        extended += sample.is_extended
        pairs += 0 if sample.is_extended else len(sample.record.turns)
        texts = [sample.is_extended, *((turn.question, turn.answer) for turn in sample.record.turns)]
        digest.update(json.dumps(texts).encode("utf-8"))
    return Overview(count, extended, pairs, digest.hexdigest())


def estimate_tokens(item: Item, answer_words: int | None = None) -> tuple[float, float]:
    """Estimates the tokens of one request and of its reply, at four bytes of text per token.

    Args:
        item: The request.
        answer_words: Words of the extended answer; None takes the limit.

    Returns:
        Input and output tokens.
    """
    texts = [message["content"] for message in item.messages]
    limit = json.loads(texts[-1])["word limit"] if answer_words is None else answer_words
    sent = sum(len(text.encode("utf-8")) / _BYTES_PER_TOKEN + _MESSAGE_TOKENS for text in texts)
    # The schema is sent with the request, and most endpoints count it.
    schema = len(json.dumps(item.schema)) / _BYTES_PER_TOKEN
    return sent + schema, _CRITIQUE_TOKENS + 1.5 * limit
