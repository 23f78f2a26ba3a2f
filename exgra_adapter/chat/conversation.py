"""What was said about an image so far, and how it is written down."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from exgra_adapter.data.images import ImageError, decode_image
from exgra_adapter.data.limits import IMAGE_VARIABLE, most_image_bytes, too_long
from exgra_adapter.prompts import IMAGE_TAG
from graphmatch.command_line import missing_file

MOST_QUESTION_CHARACTERS = 4000
"""Longest question; a model's context is filled long before."""


@dataclass(frozen=True)
class Exchange:
    """A question and what the model said.

    Attributes:
        question: The question.
        answer: The answer, without white space around it; empty where the model said nothing.
        stopped: Whether the answer was ended before the model ended it.
    """

    question: str
    answer: str
    stopped: bool = False


@dataclass
class Conversation:
    """One image and the questions about it.

    Models are taught with one image ahead of all questions: another image begins anew.

    Attributes:
        image: The image, 8-bit RGB; None before there is one.
        source: Where it came from.
        exchanges: Everything asked and answered, oldest first.
        forgotten: How many of the oldest the model no longer sees, because its context is full.

    Example:
        >>> conversation = Conversation()
        >>> conversation.show(Image.new("RGB", (2, 2)), Path("liver.png"))
        0
        >>> conversation.exchanges.append(Exchange("Which organ is it?", "liver"))
        >>> conversation.show(Image.new("RGB", (2, 2)), Path("brain.png"))
        1
        >>> conversation.exchanges
        []
    """

    image: Image.Image | None = None
    source: Path | None = None
    exchanges: list[Exchange] = field(default_factory=list)
    forgotten: int = 0

    def show(self, image: Image.Image, source: Path) -> int:
        """Begins anew with an image; returns how many exchanges about the earlier one are gone."""
        self.image, self.source = image, source
        return self.reset()

    def reset(self) -> int:
        """Begins anew with the same image; returns how many exchanges are gone."""
        gone = len(self.exchanges)
        self.exchanges, self.forgotten = [], 0
        return gone

    def to_json(self) -> dict[str, Any]:
        """Returns a sample in the format of training data; exchanges without an answer are left out.

        Example:
            >>> conversation = Conversation(source=Path("images/liver.png"))
            >>> conversation.exchanges.append(Exchange("Which organ is it?", "li", stopped=True))
            >>> sample = conversation.to_json()
            >>> sample["image"], sample["image_folder"]
            ('liver.png', 'images')
            >>> sample["conversations"][1]
            {'from': 'gpt', 'value': 'li', 'stopped': True}
        """
        messages: list[dict[str, Any]] = []
        for exchange in self.exchanges:
            if not exchange.answer:
                continue
            tag = "" if messages else f"\n{IMAGE_TAG}"
            messages.append({"from": "human", "value": exchange.question + tag})
            stopped = {"stopped": True} if exchange.stopped else {}
            messages.append({"from": "gpt", "value": exchange.answer, **stopped})
        return {
            "id": "chat",
            "image": None if self.source is None else self.source.name,
            "image_folder": None if self.source is None else str(self.source.parent),
            "conversations": messages,
        }


def open_chat_image(path: Path) -> Image.Image:
    """Opens an image that a user names, within the limits for images of data sets.

    Args:
        path: An image file.

    Returns:
        The image, 8-bit RGB, upright.

    Raises:
        ImageError: There is no such file, or it is a folder, unreadable or too large; one sentence.

    Example:
        >>> try:
        ...     open_chat_image(Path("none.png"))
        ... except ImageError as error:
        ...     print(error)
        chat: image must be an existing file; got none.png. Check the path.
    """
    try:
        if path.is_dir():
            raise ImageError(f"chat: image must be a file; got the folder {path}. Name an image inside it.")
        if not path.is_file():
            hint = missing_file(path)
            raise ImageError(f"chat: image must be an existing file; got {path}. {hint or 'Check the path.'}")
        if path.stat().st_size > most_image_bytes():
            raise ImageError(str(too_long("chat", str(path), most_image_bytes(), IMAGE_VARIABLE)))
    except (OSError, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        # A name that is too long or has a NUL, a folder that may not be entered.
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"chat: image must be a readable file; got an error: {reason}. Check the path.") from None
    try:
        return decode_image(path, str(path))
    except ImageError as error:
        text = (
            str(error).replace("open_image:", "chat:").replace("Replace it or skip bad samples.", "Take another one.")
        )
        raise ImageError(text) from None
