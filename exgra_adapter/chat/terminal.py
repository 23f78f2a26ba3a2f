"""The chat in a terminal, or over a pipe: answers go to standard output, everything else to standard error."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from glob import escape
from importlib import import_module
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from PIL import Image

from exgra_adapter.atomic import write_json
from exgra_adapter.chat.conversation import Conversation, open_chat_image
from exgra_adapter.chat.speaker import Answer, Speaker
from exgra_adapter.console import complain, complain_piece, say, say_piece
from graphmatch.command_line import did_you_mean

NOTICE = "For research, not for clinical use."
_HELP = {
    "/image PATH": "show an image; begins anew, for models know one image per conversation",
    "/reset": "begin anew with the same image",
    "/save FILE": "write the conversation as JSON, in the format of training data",
    "/help": "this list",
    "/quit": "leave; so does Ctrl-D",
}
_COMMANDS = tuple(line.partition(" ")[0] for line in _HELP)
_HINTS = (
    "A path may also stand in a question, and a file may be dropped on the window. Ctrl-C stops an answer; at the "
    "prompt it leaves."
)
_ASK, _REPLY = "You: ", "Model: "
_SUFFIXES = {".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# A word of a line, as terminals write dropped files: in quotes, or up to a space without a backslash before it.
_WORD = re.compile(r"'(?P<single>[^']*)'|\"(?P<double>[^\"]*)\"|(?P<bare>(?:\\.|[^\s\\])+)")


class _Request(NamedTuple):
    """What a line asks for: to show an image, to answer a question, or both."""

    image: Path | None
    question: str


@dataclass
class Terminal:
    """A chat that reads lines and writes answers.

    Attributes:
        speaker: The model.
        interactive: Whether a person types: then prompts are shown, and answers are preceded by who gives them.
        conversation: What was said so far.
    """

    speaker: Speaker
    interactive: bool
    conversation: Conversation = field(default_factory=Conversation)

    def run(self, image: Path | None = None) -> int:
        """Chats until the input ends or `/quit`.

        Args:
            image: Shown at the beginning.

        Returns:
            The exit code 0.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed at the prompt.
            ImageError: The first image cannot be shown.
        """
        complain(f"Model {self.speaker.name} on {self.speaker.device}. {NOTICE}")
        if image is not None:
            self._show(image)
        if self.interactive:
            complain("Show an image with /image PATH and ask about it; /help lists what else there is.")
        for line in _lines(self.interactive):
            try:
                if not self._obey(line.strip()):
                    break
            except BrokenPipeError:  # nobody reads the answers
                break
            except (ValueError, OSError) as error:
                complain(_one_line(str(error)))
        return 0

    def _obey(self, line: str) -> bool:
        """Does what a line says; False ends the chat."""
        if not line:
            return True
        # Absolute paths begin as commands do: what exists is a path.
        request = _read(line)
        if request.image is None and line.startswith("/"):
            return self._command(line)
        if request.image is not None:
            self._show(request.image)
        if request.question:
            self._ask(request.question)
        return True

    def _command(self, line: str) -> bool:
        command, _, rest = line.partition(" ")
        rest = rest.strip()
        if command == "/quit":
            return False
        if command == "/help":
            for name, text in _HELP.items():
                complain(f"  {name:<12} {text}")
            complain(_HINTS)
        elif command == "/reset":
            gone = self.conversation.reset()
            complain(f"Begun anew with the same image; {_count(gone)} forgotten.")
        elif command in ("/image", "/save") and not rest:
            raise ValueError(f"chat: {command} must be followed by a path; got none. Write {command} PATH.")
        elif command == "/image":
            self._show(_path(rest))
        elif command == "/save":
            self._save(_path(rest))
        else:
            hint = did_you_mean(command, _COMMANDS) or "/help lists the commands."
            if "/" in command[1:]:
                hint = "There is no such file either; a question must not begin with a slash."
            raise ValueError(f"chat: a command must be one of {', '.join(_COMMANDS)}; got {command}. {hint}")
        return True

    def _show(self, path: Path) -> None:
        image: Image.Image = open_chat_image(path)
        gone = self.conversation.show(image, path)
        dropped = f" A new image begins anew: {_count(gone)} forgotten." if gone else ""
        complain(f"Image {path.name}, {image.width} x {image.height} pixels.{dropped}")

    def _ask(self, question: str) -> None:
        before = self.conversation.forgotten
        answer = self.speaker.answer(self.conversation, question)
        more = self.conversation.forgotten - before
        if more:
            complain(f"The conversation is longer than the model reads: {_count(more)} forgotten, the oldest.")
        if self.interactive:
            complain_piece(_REPLY)
        self._print(answer)
        if answer.stopped:
            complain("The answer was stopped.")
        elif not answer.text:
            complain("The model answered nothing.")

    def _print(self, answer: Answer) -> None:
        """Writes an answer as it grows; Ctrl-C stops it, and what there is of it stays."""
        written = ""
        try:
            while True:
                try:
                    for grown in answer:
                        # What a terminal would obey, such as the beginning of an escape sequence, is shown as a mark.
                        text = _CONTROL.sub("\ufffd", grown)
                        if text.startswith(written):
                            say_piece(text[len(written) :])
                        else:  # Some tokenizers change the space before a word when they see the word.
                            say_piece(f"\n{text}")
                        written = text
                    break
                except KeyboardInterrupt:
                    answer.stop()
        finally:
            answer.stop()
            say()

    def _save(self, path: Path) -> None:
        if path.is_dir() or (path.exists() and path.suffix != ".json"):
            raise ValueError(
                f"chat: /save must name a new file or one that ends in .json; got {path}, which exists. "
                "Choose another name."
            )
        sample = self.conversation.to_json()
        if not sample["conversations"]:
            raise ValueError("chat: /save must follow an answer; got a conversation without one. Ask something first.")
        try:
            write_json(path, [{**sample, "settings": self.speaker.settings()}])
        except OSError as error:
            raise ValueError(
                f"chat: /save must name a file that can be written; got {path} ({error.strerror}). Choose another one."
            ) from None
        complain(f"Saved {_count(len(sample['conversations']) // 2)} to {path}.")


def _lines(interactive: bool) -> Iterator[str]:
    """Yields what is typed or piped, until it ends."""
    if not interactive:
        reconfigure = getattr(sys.stdin, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
        yield from sys.stdin
        return
    _edit_lines()
    try:
        while True:
            yield input(_ASK)
    except EOFError:
        say()
    except KeyboardInterrupt:
        say()
        raise


def _edit_lines() -> None:
    """Arrow keys bring earlier lines back and Tab completes, where Python has readline; nothing is kept on disk."""
    with contextlib.suppress(ImportError):
        readline = import_module("readline")
        readline.set_completer_delims(" \t\n")
        readline.set_completer(_complete)
        readline.parse_and_bind("tab: complete")


def _complete(text: str, state: int) -> str | None:
    """The completion number `state` of a command or a path."""
    commands = [command for command in _COMMANDS if command.startswith(text)] if text.startswith("/") else []
    folder, _, start = text.rpartition("/")
    places = Path(f"{folder}/" if "/" in text else ".").glob(f"{escape(start)}*")
    before = text[: len(text) - len(start)]
    paths = sorted(f"{before}{place.name}{'/' if place.is_dir() else ''}" for place in places)
    found = [*commands, *paths]
    return found[state] if state < len(found) else None


def _read(line: str) -> _Request:
    """Finds the image that a line names by its path, alone or within a question."""
    whole = _path(line)
    # A question of one word may also be the name of a folder.
    if _exists(whole) and ("/" in line or whole.suffix.lower() in _SUFFIXES):
        return _Request(whole, "")
    if line.startswith("/") and line.partition(" ")[0] in _COMMANDS:
        return _Request(None, line)
    for word in _WORD.finditer(line):
        path = _path(word[0])
        if path.suffix.lower() in _SUFFIXES and _exists(path):
            return _Request(path, f"{line[: word.start()].strip()} {line[word.end() :].strip()}".strip())
    return _Request(None, line)


def _path(text: str) -> Path:
    """The path that a text names: as it stands, or in quotes, with backslashes, or as an address of a file."""
    text = text.strip()
    if text.startswith("file://"):
        return Path(unquote(urlsplit(text).path))
    if _exists(Path(text)):
        return Path(text)
    word = _WORD.fullmatch(text)
    if word is not None:
        bare = word["bare"]
        text = re.sub(r"\\(.)", r"\1", bare) if bare is not None else word["single"] or word["double"] or ""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # the home of somebody who does not exist
        return Path(text)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a question that is too long for a name, or has a NUL
        return False


def _count(exchanges: int) -> str:
    return f"{exchanges} question{'' if exchanges == 1 else 's'}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
