"""The chat in the terminal: what lines do, what goes where, Ctrl-C, pipes, a real terminal."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from exgra_adapter.chat import terminal
from exgra_adapter.chat.terminal import Terminal, _complete, _read
from exgra_adapter.cli import main
from exgra_adapter.data.records import read_records

QUESTION = "Which organ is shown?"
COMMAND = [sys.executable, "-m", "exgra_adapter", "chat", "--device", "cpu"]


@pytest.fixture
def chat(speaker, monkeypatch, capsys):
    """Pipes lines into a chat; returns what it wrote to standard output and to standard error."""

    def run(*lines: str, image: Path | None = None) -> tuple[list[str], list[str]]:
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        assert Terminal(speaker, interactive=False).run(image) == 0
        printed = capsys.readouterr()
        return printed.out.splitlines(), printed.err.splitlines()

    return run


def test_answers_go_to_standard_output_and_the_rest_to_standard_error(chat, setting):
    answers, rest = chat(QUESTION, "", QUESTION, image=setting.image())
    assert len(answers) == 2
    assert all(answers)
    assert re.fullmatch(r"Model first on cpu\. For research, not for clinical use\.", rest[0])
    assert rest[1:] == ["Image 0.png, 80 x 64 pixels."]


def test_images_by_command_alone_and_within_a_question(chat, setting):
    path, spaced = setting.image(), setting.image("two words.png")
    answers, rest = chat(
        f"/image {path}",
        QUESTION,
        str(setting.image("1.png")),  # an absolute path, which begins as commands do
        f"{path} {QUESTION}",
        f"/image {spaced}",
        f"/image '{spaced}'",
        str(spaced).replace(" ", r"\ "),
        f"Look at '{spaced}' : {QUESTION}",
        f"file://{str(spaced).replace(' ', '%20')}",
    )
    assert len(answers) == 3
    assert answers[0] == answers[1]
    shown = [line.partition(",")[0].removeprefix("Image ") for line in rest[1:]]
    assert shown == ["0.png", "1.png", "0.png", *["two words.png"] * 5]
    assert rest[2].endswith("A new image begins anew: 1 question forgotten.")


def test_reset_keeps_the_image(chat, setting):
    answers, rest = chat(QUESTION, QUESTION, "/reset", QUESTION, image=setting.image())
    assert answers[0] == answers[2]
    assert answers[0] != answers[1]
    assert rest[-1] == "Begun anew with the same image; 2 questions forgotten."


def test_conversations_are_saved_whole(chat, setting, tmp_path):
    file = tmp_path / "new folder" / "chat.json"
    (tmp_path / "notes.txt").write_text("mine")
    answers, rest = chat(
        f"/save {file}",
        QUESTION,
        QUESTION,
        f"/save {file}",
        f"/save {file}",
        f"/save {tmp_path / 'notes.txt'}",
        f"/save {tmp_path}",
        "/save /proc/chat.json",
        "/save",
        image=setting.image(),
    )
    [record] = read_records(file)
    assert [turn.question for turn in record.turns] == [QUESTION] * 2
    assert [turn.answer for turn in record.turns] == answers
    [saved] = json.loads(file.read_text())
    assert saved["image_folder"] == str(setting.images)
    assert saved["settings"] == {
        "model": str(setting.model),
        "prompt": "llava",
        "max_new_tokens": 12,
        "temperature": 0.0,
        "seed": 0,
        "history": True,
    }
    assert [path.name for path in file.parent.iterdir()] == ["chat.json"]
    assert (tmp_path / "notes.txt").read_text() == "mine"
    for line, message in zip(
        rest[2:],
        [
            "must follow an answer",
            "Saved 2 questions",
            "Saved 2 questions",
            "must name a new file",
            "must name a new file",
            "must name a file that can be written",
            "must be followed by a path",
        ],
        strict=True,
    ):
        assert message in line


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/imge a.png", r"got /imge\. Did you mean /image\?"),
        ("/qiut", r"Did you mean /quit\?"),
        ("/xyzzy", r"/help lists the commands"),
        ("/nowhere/a.png what is it?", "There is no such file either"),
        ("/image", "must be followed by a path"),
        ("/image none.png", r"must be an existing file; got none\.png"),
        ("/image ~nobody_here/a.png", "must be an existing file"),
        ("/image {images}", "got the folder"),
        ("{images}", "got the folder"),
        ("/image {images}/broken.png", "must be a readable image"),
        ("/image {images}/bomb.png", "pixels; got more"),
        ("what is <image>?", "must not spell a special token"),
        ("it's \"open", None),
    ],
)
def test_what_is_wrong_is_one_sentence_and_the_chat_goes_on(chat, setting, line, message):
    answers, rest = chat(QUESTION, line.format(images=setting.images), QUESTION, image=setting.image())
    assert len(answers) == (3 if message is None else 2)
    if message is not None:
        assert len(rest) == 3
        assert re.search(message, rest[2])
        assert "Traceback" not in rest[2]


def test_without_an_image_questions_wait(chat):
    answers, rest = chat(QUESTION)
    assert answers == []
    assert "must follow an image" in rest[1]


def test_help_and_quit(chat):
    answers, rest = chat("/help", "/quit", "/help")
    assert answers == []
    listed = [line.split()[0] for line in rest if line.startswith("  /")]
    assert listed == ["/image", "/reset", "/save", "/help", "/quit"]


def test_a_model_that_fails_is_one_sentence_and_the_chat_goes_on(chat, setting, speaker, monkeypatch):
    generate, failures = speaker.model.generate, [RuntimeError("shapes\ndiffer"), torch.OutOfMemoryError("no more")]

    def sometimes(**inputs):
        if failures:
            raise failures.pop(0)
        return generate(**inputs)

    monkeypatch.setattr(speaker.model, "generate", sometimes)
    answers, rest = chat(QUESTION, QUESTION, QUESTION, "/reset", image=setting.image())
    assert len([answer for answer in answers if answer]) == 1
    assert [line.partition(";")[0] for line in rest[2:]] == [
        "chat: the model must be able to answer",
        "chat: the conversation must fit into the memory of cpu",
        "Begun anew with the same image",
    ]
    assert rest[-1].endswith("1 question forgotten.")


def test_forgetting_is_said(make_speaker, setting, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{QUESTION}\n" * 8))
    Terminal(make_speaker(folder=setting.forgetful, max_new_tokens=30), interactive=False).run(setting.image())
    assert (
        "The conversation is longer than the model reads: 1 question forgotten, the oldest." in capsys.readouterr().err
    )


def test_text_that_changes_as_it_grows_is_shown_anew(speaker, setting, monkeypatch, capsys):
    class Changing:
        stopped, text = False, "don't"

        def __iter__(self):
            return iter(["don", "don '", "don't"])

        def stop(self):
            pass

    monkeypatch.setattr(speaker, "answer", lambda *_: Changing())
    monkeypatch.setattr(sys, "stdin", io.StringIO("?\n"))
    Terminal(speaker, interactive=False).run()
    assert capsys.readouterr().out == "don '\ndon't\n"


def test_answers_cannot_steer_the_terminal(speaker, setting, monkeypatch, capsys):
    class Steering:
        stopped, text = False, "a"

        def __iter__(self):
            return iter(["a\tb\n\x1b[2J\x9b1m\x07\rc"])

        def stop(self):
            pass

    monkeypatch.setattr(speaker, "answer", lambda *_: Steering())
    monkeypatch.setattr(sys, "stdin", io.StringIO("?\n"))
    Terminal(speaker, interactive=False).run()
    assert capsys.readouterr().out == "a\tb\n\ufffd[2J\ufffd1m\ufffd\ufffdc\n"


def test_a_line_that_names_no_image_is_a_question(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "liver").mkdir()
    (tmp_path / "notes.txt").write_text("")
    for line in ("Is the liver shown?", "liver", "what is in notes.txt", "x" * 5000, "a\0b", "'open", "~nobody_here ?"):
        assert _read(line) == (None, line)


def test_completion_of_commands_and_paths(setting, monkeypatch):
    monkeypatch.chdir(setting.images.parent)
    assert [_complete("/re", state) for state in (0, 1)] == ["/reset", None]
    assert _complete("ima", 0) == "images/"
    assert _complete("images/bro", 0) == "images/broken.png"


def piped(setting, text: str | bytes, *more: str) -> subprocess.CompletedProcess[bytes]:
    command = [*COMMAND, "--model", str(setting.model), "--max-new-tokens", "6", *more]
    content = text.encode() if isinstance(text, str) else text
    return subprocess.run(command, input=content, capture_output=True, check=False, timeout=240)


def test_a_pipe_is_a_chat(setting, tmp_path):
    lines = (
        f"/image {setting.image()}\n{QUESTION}\n".encode()
        + b"\xff\xfe is no UTF-8\n"
        + f"/save {tmp_path}/a.json".encode()
    )
    ended = piped(setting, lines)
    assert ended.returncode == 0, ended.stderr
    assert len(ended.stdout.splitlines()) == 2
    assert b"Saved 2 questions" in ended.stderr
    assert b"You:" not in ended.stdout + ended.stderr
    assert len(read_records(tmp_path / "a.json")[0].turns) == 2


def test_answers_that_nobody_reads_end_the_chat(speaker, setting, monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    lines = iter([f"{QUESTION}\n"] * 3)
    monkeypatch.setattr(sys, "stdin", lines)
    with os.fdopen(writing, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert Terminal(speaker, interactive=False).run(setting.image()) == 0
    assert len(list(lines)) == 2


def test_letters_that_the_output_lacks_are_escaped(make_speaker, setting, monkeypatch, tmp_path):
    chat = Terminal(make_speaker(folder=setting.talkative), interactive=False)
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{QUESTION}\n"))
    path = tmp_path / "answers.txt"
    with path.open("w", encoding="ascii") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert chat.run(setting.image()) == 0
    (exchange,) = chat.conversation.exchanges
    assert not exchange.stopped
    assert not exchange.answer.isascii()
    assert b"\\ufffd" in path.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--model", "{model}", "--image", "none.png"], 1, "image must be an existing file; got none.png"),
        (["--model", "{images}"], 1, "must be a folder with a Hugging Face model"),
        (["--model", "{model}", "--temperature", "-1"], 2, "must be at least 0"),
        (["--model", "{model}", "--temperature", "nan"], 2, "must be at least 0"),
        (["--model", "{model}", "--seed", "-1"], 2, "must be at least 0"),
        (["--model", "{model}", "--compare", "{other}"], 2, "--compare: only with --web"),
        (["--model", "{model}", "--port", "80000"], 2, "at most 65535"),
        (["--model", "{model}", "--devise", "cpu"], 2, "Did you mean --device?"),
        ([], 2, "--model"),
    ],
)
def test_wrong_options_are_refused(setting, capsys, arguments, code, message):
    places = {"model": setting.model, "other": setting.other, "images": setting.images}
    assert main(["chat", *[argument.format(**places) for argument in arguments]]) == code
    assert message in capsys.readouterr().err


class TypedChat:
    """A chat in a terminal of its own."""

    def __init__(self, model: Path, *more: str) -> None:
        self.screen, child = pty.openpty()
        command = [*COMMAND, "--model", str(model), *more]
        environment = {**os.environ, "TERM": "dumb", "COLUMNS": "200"}
        self.process = subprocess.Popen(
            command, stdin=child, stdout=child, stderr=child, env=environment, start_new_session=True
        )
        os.close(child)
        self.seen = ""

    def wait_for(self, pattern: str, seconds: float = 120) -> str:
        """Reads until a pattern appears behind what was waited for before."""
        ends = time.monotonic() + seconds
        while not (found := re.search(pattern, self.seen)):
            left = max(0, ends - time.monotonic())
            if not select.select([self.screen], [], [], left)[0]:
                raise AssertionError(f"{pattern} did not appear in {self.seen!r}")
            try:
                self.seen += os.read(self.screen, 4096).decode(errors="replace")
            except OSError:  # the other end is closed
                raise AssertionError(f"{pattern} did not appear in {self.seen!r}") from None
        before, self.seen = self.seen[: found.end()], self.seen[found.end() :]
        return before

    def type(self, text: str) -> None:
        os.write(self.screen, text.encode())

    def interrupt(self) -> None:
        os.kill(self.process.pid, signal.SIGINT)

    def interrupt_prompt(self, pattern: str) -> None:
        """Interrupts until a pattern appears: Python misses a signal between its prompt and its wait for keys."""
        for _ in range(10):
            self.interrupt()
            with contextlib.suppress(AssertionError):
                self.wait_for(pattern, seconds=5)
                return
        raise AssertionError(f"{pattern} did not appear after Ctrl-C in {self.seen!r}")

    def end(self) -> int:
        try:
            return self.process.wait(60)
        finally:
            self.process.kill()
            self.process.wait()
            os.close(self.screen)


def test_ctrl_c_stops_an_answer_and_leaves_at_the_prompt(setting, tmp_path):
    chat = TypedChat(setting.talkative, "--image", str(setting.image()), "--max-new-tokens", "1900")
    try:
        chat.wait_for(r"/help lists")
        chat.wait_for(r"You: ")
        chat.type(f"{QUESTION}\n")
        chat.wait_for(r"Model: \S+")
        chat.interrupt()
        chat.wait_for(r"The answer was stopped\.")
        chat.wait_for(r"You: ")
        chat.type(f"/save {tmp_path}/a.json\n")
        chat.wait_for(r"Saved 1 question to")
        chat.wait_for(r"You: ")
        chat.interrupt_prompt(r"Interrupted")
    finally:
        code = chat.end()
    assert code == 130
    [saved] = json.loads((tmp_path / "a.json").read_text())
    assert saved["conversations"][1]["stopped"] is True


def test_ctrl_d_leaves(setting):
    chat = TypedChat(setting.model)
    try:
        chat.wait_for(r"You: ")
        chat.type("/hlep\n")
        chat.wait_for(r"Did you mean /help\?")
        chat.wait_for(r"You: ")
        chat.type("\x04")
    finally:
        code = chat.end()
    assert code == 0


def test_lines_can_be_edited_where_python_has_readline(monkeypatch):
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(terminal, "import_module", missing)
    terminal._edit_lines()
