"""The blocks of the README and of docs: their Python runs and prints what they show, commands and options exist."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import io
import math
import re
import shlex
import subprocess
import sys
import types
from pathlib import Path
from typing import NamedTuple

import pytest

import exgra_adapter.cli
import graphmatch.cli

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
SWITCHING = ROOT / "docs" / "switching.md"
DOCUMENTS = [README, *sorted((ROOT / "docs").rglob("*.md"))]
NUMBER = re.compile(r"[-+]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d+)?")
COMMAND_LINES = {"exgra-med": exgra_adapter.cli.main, "graphmatch": graphmatch.cli.main}


class Block(NamedTuple):
    """A fenced block: its language, its text, and the line where it starts."""

    language: str
    text: str
    line: int


def name_of(document: Path) -> str:
    """Where a document is, from the root."""
    return document.relative_to(ROOT).as_posix()


def blocks(document: Path) -> list[Block]:
    """The fenced blocks of a document, in order."""
    text = document.read_text(encoding="utf-8")
    return [
        Block(match[1], match[2], text.count("\n", 0, match.start()) + 1)
        for match in re.finditer(r"^```(\w*)[^\n]*\n(.*?)^```$", text, re.M | re.S)
    ]


def commands() -> list[tuple[str, list[str]]]:
    """The commands of all shell blocks in words, with their place: all of the README, our own of the others."""
    found = []
    for document in DOCUMENTS:
        for block in blocks(document):
            if block.language not in ("bash", "console", "sh", "shell"):
                continue
            lines = block.text.replace("\\\n", " ").splitlines()
            for part in (part for line in lines for part in re.split("&&|;", line)):
                words = without_torchrun(shlex.split(part, comments=True))
                if words and (document == README or words[0] in COMMAND_LINES or is_example(words)):
                    found.append((f"{name_of(document)}:{block.line}", words))
    return found


def is_example(words: list[str]) -> bool:
    """Whether a command starts one of the examples."""
    return words[0] == "python" and words[1:] != [] and words[1].startswith("examples/")


def without_torchrun(words: list[str]) -> list[str]:
    """The command that torchrun starts in each process."""
    if words[:1] != ["torchrun"] or "exgra_adapter" not in words:
        return words
    return ["exgra-med", *words[words.index("exgra_adapter") + 1 :]]


def same_output(shown: str, printed: str) -> bool:
    """Whether two outputs agree: the words exactly, the numbers to 1e-3, spaces and line ends not at all."""
    numbers = [[float(number) for number in NUMBER.findall(text)] for text in (shown, printed)]
    words = ["".join(NUMBER.sub("#", text).split()) for text in (shown, printed)]
    return words[0] == words[1] and all(
        math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-3) for a, b in zip(*numbers, strict=True)
    )


WITH_PYTHON = [document for document in DOCUMENTS if any(block.language == "python" for block in blocks(document))]


def test_a_document_shows_something_that_is_tried():
    tried = {place.split(":")[0] for place, _ in commands()} | {name_of(document) for document in WITH_PYTHON}
    reference = {name_of(document) for document in DOCUMENTS if document.parent.name == "api"}
    assert tried == {name_of(document) for document in DOCUMENTS} - reference
    assert README in WITH_PYTHON


@functools.cache
def help_text(program: str, *subcommands: str) -> str:
    """What `program subcommand ... --help` prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        try:
            code = COMMAND_LINES[program]([*subcommands, "--help"])
        except SystemExit as stop:
            code = stop.code
    assert code in (0, None), f"{program} {' '.join(subcommands)} --help ends with {code}"
    return printed.getvalue()


@pytest.mark.parametrize("document", WITH_PYTHON, ids=name_of)
def test_python_blocks_print_what_the_document_shows(document: Path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # A module of its own: dataclasses look theirs up.
    module = types.ModuleType("document")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    all_blocks = blocks(document)
    ran = 0
    for block, following in zip(all_blocks, [*all_blocks[1:], None], strict=True):
        if block.language != "python":
            continue
        printed = io.StringIO()
        # Blank lines in front make the line numbers of a traceback those of the document.
        code = compile("\n" * block.line + block.text, str(document), "exec", dont_inherit=True)
        with contextlib.redirect_stdout(printed):
            exec(code, module.__dict__)
        ran += 1
        if following is not None and following.language == "text":
            message = f"line {block.line} shows\n{following.text}\nand prints\n{printed.getvalue()}"
            assert same_output(following.text, printed.getvalue()), message
    assert ran > 0, "the document has no Python block"


def test_the_calls_of_the_table_run():
    namespace: dict[str, object] = {}
    exec(blocks(SWITCHING)[0].text, namespace)
    rows = re.findall(r"^\|.*\| `(gm\..*)` \|$", SWITCHING.read_text(encoding="utf-8"), re.M)
    assert len(rows) > 10
    for call in rows:
        assert eval(call, namespace) is not None, call


@functools.cache
def script_help(script: str) -> str:
    done = subprocess.run([sys.executable, ROOT / script, "--help"], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize(("place", "words"), [pytest.param(*c, id=f"{c[0]}-{' '.join(c[1][:3])}") for c in commands()])
def test_command_of_a_shell_block_exists(place: str, words: list[str]):
    words = [word for word in words if not re.fullmatch(r"[A-Z_]+=.*", word)]
    program, *arguments = words
    program = program.removeprefix(".venv/bin/")
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
        assert set(arguments) <= set(targets)
    elif program == "pip":
        extras = {extra for word in arguments for group in re.findall(r"\[(.*)\]", word) for extra in group.split(",")}
        assert extras <= set(importlib.metadata.metadata("graphmatch").get_all("Provides-Extra", []))
    elif program in COMMAND_LINES:
        subcommands = []
        for word in arguments:
            if word.startswith("-") or not re.search(rf"\b{re.escape(word)}\b", help_text(program, *subcommands)):
                break
            subcommands.append(word)
        assert subcommands or arguments[:1] == ["--help"], f"{program} has no command {arguments[:1]}"
        text = help_text(program, *subcommands)
        options = [word.split("=")[0] for word in arguments if word.startswith("--")]
        assert [option for option in options if not re.search(rf"{option}(?![\w-])", text)] == []
    elif is_example(words):
        assert (ROOT / arguments[0]).is_file()
        text = script_help(arguments[0])
        if arguments[0].endswith("captions_many_endpoints.py"):  # which hands other options on
            text += help_text("exgra-med", "caption")
        options = [word.split("=")[0] for word in arguments if word.startswith("--")]
        assert [option for option in options if not re.search(rf"{option}(?![\w-])", text)] == []
    else:
        assert program in ("cd", "git", "export"), f"{place}: this test does not know {program}"


def test_output_comparison_sees_differences():
    assert same_output("gap 1.0000\nassignment [1, 0]", "gap   1.0004\n\nassignment [1, 0]\n")
    assert not same_output("gap 1.00", "gap 1.01")
    assert not same_output("gap 1.0", "loss 1.0")
    assert not same_output("1.0 2.0", "1.0")
