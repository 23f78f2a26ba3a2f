"""What one reader of the page has asked: a conversation with each model, and the answer that is being given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from exgra_adapter.chat.conversation import Conversation, open_chat_image
from exgra_adapter.chat.speaker import Answer, Speaker
from exgra_adapter.data.images import ImageError

Messages = list[dict[str, str]]
"""Questions and answers in turn, each with the keys `role` (`user` or `assistant`) and `content`."""

NO_ANSWER = "(the model answered nothing)"
_STOPPED = "(stopped)"


class Progress(NamedTuple):
    """How far an answer is.

    Attributes:
        messages: For each model all that was said.
        notice: One sentence about it, or nothing.
    """

    messages: list[Messages]
    notice: str = ""


class Session:
    """The conversations of one reader about one image, one with each model.

    Args:
        speakers: The models, in the order of their panels.
    """

    def __init__(self, speakers: Sequence[Speaker]) -> None:
        self._speakers = tuple(speakers)
        self._conversations = [Conversation() for _ in self._speakers]
        self._answer: Answer | None = None
        self._stopped = False

    @property
    def has_image(self) -> bool:
        """Whether there is an image to ask about."""
        return self._conversations[0].image is not None

    def show(self, path: Path, name: str | None = None) -> str:
        """Begins anew with an image file.

        Args:
            path: The file.
            name: What errors call it; None: the name of the file.

        Returns:
            A sentence about the image.

        Raises:
            ImageError: It cannot be read; then there is no image.
        """
        self.clear()
        try:
            image = open_chat_image(path)
        except ImageError as error:
            # Where uploads are kept tells nobody anything.
            raise ImageError(str(error).replace(str(path), name or path.name)) from None
        for conversation in self._conversations:
            conversation.show(image, path)
        return f"{name or path.name}, {image.width} x {image.height} pixels."

    def clear(self) -> None:
        """Forgets the image and what was said about it."""
        self.stop()
        self._conversations = [Conversation() for _ in self._speakers]

    def reset(self) -> None:
        """Begins anew with the same image."""
        self.stop()
        # An answer that is being given still belongs to the earlier ones.
        self._conversations = [Conversation(each.image, each.source) for each in self._conversations]

    def stop(self) -> None:
        """Ends the answers that are being given, or wait for their turn; what there is of them is kept."""
        self._stopped = True
        if self._answer is not None:
            self._answer.stop()

    def ask(self, question: str) -> Iterator[Progress]:
        """Puts a question to every model, one after the other, and yields what there is to see as it grows.

        Raises:
            ValueError: The question cannot be asked, see `Speaker.answer`.
        """
        self._stopped = False
        conversations = self._conversations
        notice = ""
        for place, (speaker, conversation) in enumerate(zip(self._speakers, conversations, strict=True)):
            before = conversation.forgotten
            answer = self._answer = speaker.answer(conversation, question)
            if self._stopped:
                answer.stop()
            if conversation.forgotten > before:
                notice = f"The conversation is longer than {speaker.name} reads: its oldest questions are forgotten."
            try:
                yield Progress(self._messages(conversations, place, question, ""), notice)
                for text in answer:
                    yield Progress(self._messages(conversations, place, question, text), notice)
            finally:  # The reader may be gone.
                answer.stop()
            if self._stopped:
                break
        yield Progress(self.messages(), "The answer was stopped." if self._stopped else notice)

    def messages(self) -> list[Messages]:
        """Returns all that was said, for each model."""
        return [_messages(conversation) for conversation in self._conversations]

    def _messages(
        self, conversations: Sequence[Conversation], speaking: int, question: str, text: str
    ) -> list[Messages]:
        """What was said, with the answer that is being given; models that wait show the question already."""
        shown = []
        for place, conversation in enumerate(conversations):
            messages = _messages(conversation)
            if place >= speaking:
                messages.append({"role": "user", "content": question.strip()})
            if place == speaking:
                messages.append({"role": "assistant", "content": text or "…"})
            shown.append(messages)
        return shown


def _messages(conversation: Conversation) -> Messages:
    messages = []
    for exchange in conversation.exchanges:
        answer = exchange.answer or NO_ANSWER
        messages.append({"role": "user", "content": exchange.question})
        messages.append({"role": "assistant", "content": f"{answer} {_STOPPED}" if exchange.stopped else answer})
    return messages
