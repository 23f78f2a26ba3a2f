"""The first minute with the command `graphmatch`: no arguments, wrong words, completion of shells."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import graphmatch as gm
from graphmatch import cli, command_line
from graphmatch.command_line import Parser, similar_file, with_suggestion


def refused(arguments: list[str], capsys: pytest.CaptureFixture) -> str:
    """What a command says that ends with code 2, without the lines of its usage."""
    try:
        code = cli.main(arguments)
    except SystemExit as stopped:
        code = stopped.code
    assert code == 2
    return " ".join(capsys.readouterr().err.split("error: ", maxsplit=1)[1].split())


def test_without_arguments_the_command_says_what_there_is(capsys: pytest.CaptureFixture):
    assert cli.main([]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert gm.__version__ in printed.out
    for command in ("graphmatch solve FILE", "graphmatch info", "graphmatch bench", "graphmatch --help"):
        assert command in printed.out
    assert len(printed.out.splitlines()) <= 12


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["slove", "a.dd"], "solve"),
        (["Info"], "info"),
        (["bench", "gradient"], "gradients"),
        (["--verson"], "--version"),
        (["solve", "a.dd", "--time-limt", "3"], "--time-limit"),
        (["solve", "a.dd", "--time-limt=3"], "--time-limit"),
        (["solve", "--max-gpa", "0.1"], "--max-gap"),
        (["solve", "a.dd", "--solver", "portfolo"], "Portfolio"),
        (["solve", "a.dd", "--method", "localsearch"], "LocalSearch"),
        (["solve", "a.dd", "--theme", "drak"], "dark"),
        (["solve", "a.dd", "--plot", "a.pgn"], ".png"),
        (["completion", "bsh"], "bash"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_wrong_words_are_answered_with_the_closest(arguments: list[str], word: str, capsys: pytest.CaptureFixture):
    assert refused(arguments, capsys).endswith(f"Did you mean {word}?")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["zzz"], "invalid choice: 'zzz' (choose from solve, info, bench, completion)"),
        (["info", "--quxbaz"], "unrecognized arguments: --quxbaz"),
        (["solve"], "the following arguments are required: FILE"),
        (["solve", "a.dd", "b.dd"], "unrecognized arguments: b.dd"),
        (["solve", "--quxbaz"], "the following arguments are required: FILE"),
    ],
    ids=str,
)
def test_nothing_is_suggested_where_nothing_is_close(arguments: list[str], text: str, capsys: pytest.CaptureFixture):
    assert refused(arguments, capsys).endswith(text)


@pytest.mark.parametrize("command", ["solve", "info"])
def test_the_file_that_a_missing_one_resembles_is_named(tmp_path: Path, capsys: pytest.CaptureFixture, command: str):
    (tmp_path / "car1.dd.xz").touch()
    (tmp_path / "nug12.sln").touch()
    said = refused([command, str(tmp_path / "car1.dd.zx")], capsys)
    assert said == f"{tmp_path / 'car1.dd.zx'}: No such file or directory. Did you mean {tmp_path / 'car1.dd.xz'}?"
    assert refused([command, str(tmp_path / "other.xyz")], capsys).endswith("No such file or directory")
    assert refused([command, str(tmp_path / "absent" / "car1.dd.zx")], capsys).endswith("No such file or directory")


@pytest.mark.parametrize("command", ["solve", "info"])
def test_the_suffix_of_qaplib_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture, command: str):
    path = tmp_path / "small.dta"
    path.write_text("2\n0 1\n1 0\n0 2\n2 0\n")
    said = refused([command, str(path)], capsys)
    assert said.endswith("The names of QAPLIB files end with .dat, that of this one with .dta.")
    other = tmp_path / "small.txt"
    other.write_text("2\n0 1\n")
    assert ".dat" not in refused([command, str(other)], capsys)


def test_similar_files():
    assert similar_file(Path(__file__)) is None, "it is there"
    assert similar_file(Path(__file__).with_name("test_cli_sugestions.py")) == Path(__file__)


def test_folders_that_may_not_be_listed_give_no_hint(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    def refuse(folder: Path):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert cli.main(["info", str(tmp_path / "absent.dd")]) == 2
    assert capsys.readouterr().err.endswith("absent.dd: No such file or directory\n")


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        ("f: x must be one of red, green or blue; got 'gren'. Pick one.", " Did you mean green?"),
        ("f: x must be one of 'red', 'green'; got 'reed'. Pick one.", " Did you mean red?"),
        ("f: x must be one of red, green; got 'violet'. Pick one.", ""),
        ("f: x must be one of red, green; got 'reed'. Did you mean green?", ""),
        ("f: x must be one of red, green; got 3. Pick one.", ""),
        ("f: x must be positive; got 'red'.", ""),
    ],
)
def test_messages_with_choices_get_a_hint(message: str, hint: str):
    assert with_suggestion(message) == message + hint


def nested() -> Parser:
    parser = Parser(prog="outer")
    parser.add_argument("--loud", action="store_true")
    commands = parser.add_subparsers(required=True, metavar="command")
    inner = commands.add_parser("inner").add_subparsers(required=True, metavar="kind").add_parser("leaf")
    inner.add_argument("--colour", choices=["red", "green"])
    inner.add_argument("--number", type=int, required=True)
    inner.add_argument("rest", nargs="*")
    return parser


def test_every_level_of_a_parser_suggests(capsys: pytest.CaptureFixture):
    for arguments, program, hint in [
        (["iner"], "outer", "inner"),
        (["--lod", "inner"], "outer", "--loud"),
        (["inner", "laef"], "outer inner", "leaf"),
        (["inner", "leaf", "--numbr", "3"], "outer inner leaf", "--number"),
        (["inner", "leaf", "--number", "3", "--color", "red"], "outer inner leaf", "--colour"),
        (["inner", "leaf", "--number", "3", "--colour", "gren"], "outer inner leaf", "green"),
    ]:
        with pytest.raises(SystemExit):
            nested().parse_args(arguments)
        said = capsys.readouterr().err
        assert said.startswith(f"usage: {program} ")
        assert said.endswith(f"Did you mean {hint}?\n")


def test_what_is_right_is_parsed():
    parse = nested().parse_args
    assert parse(["--loud", "inner", "leaf", "--number", "-3", "--colour=red"]).number == -3
    assert parse(["inner", "leaf", "--number", "3", "--", "--numbr"]).rest == ["--numbr"]
    assert parse(["inner", "leaf", "--number", "3", "a sentence", "--"]).rest[0] == "a sentence"
    with pytest.raises(SystemExit):
        parse(["inner", "leaf", "--num", "3"])  # options are not abbreviated


def test_without_shtab_completion_says_how_to_get_it(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    find = command_line.importlib.util.find_spec
    monkeypatch.setattr(
        command_line.importlib.util, "find_spec", lambda name, *rest: None if name == "shtab" else find(name, *rest)
    )
    assert refused(["completion", "bash"], capsys).endswith('Install it with `pip install "graphmatch[completion]"`.')


@pytest.mark.parametrize("shell", command_line.SHELLS)
def test_the_script_is_that_of_the_whole_parser(
    shell: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    """With a stand-in for shtab: the parser is complete, and paths are marked as such."""
    seen = {}

    def complete(parser: argparse.ArgumentParser, shell: str) -> str:
        seen[shell] = {action.dest: getattr(action, "complete", None) for action in command_line._all_actions(parser)}
        return f"# {parser.prog} for {shell}\n"

    stand_in = SimpleNamespace(FILE="file", DIRECTORY="folder", complete=complete)
    monkeypatch.setattr(command_line.importlib.util, "find_spec", lambda name, *rest: stand_in)
    monkeypatch.setattr(command_line.importlib, "import_module", lambda name: stand_in)
    assert cli.main(["completion", shell]) == 0
    assert capsys.readouterr().out == f"# graphmatch for {shell}\n"
    assert seen[shell]["file"] == seen[shell]["plot"] == "file"
    assert seen[shell]["output"] == "folder"
    assert seen[shell]["solver"] is seen[shell]["shell"] is None


COMPLETE = """
source "$1"
COMP_WORDS=("${@:2}")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
COMPREPLY=()
handler=$(complete -p graphmatch | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
"$handler" graphmatch "${COMP_WORDS[$COMP_CWORD]}" "${COMP_WORDS[$COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("words", "found", "missing"),
    [
        (["graphmatch", "so"], {"solve"}, {"info"}),
        (["graphmatch", "solve", "--so"], {"--solver"}, {"--seed"}),
        (["graphmatch", "solve", "--solver", "Po"], {"Portfolio"}, {"Tabu"}),
        (["graphmatch", "bench", "gr"], {"gradients"}, {"multigraph"}),
        (["graphmatch", "solve", "car"], {"car1.dd"}, {"other"}),
    ],
    ids=" ".join,
)
def test_bash_completes(words: list[str], found: set[str], missing: set[str], tmp_path: Path):
    (tmp_path / "car1.dd").touch()
    (tmp_path / "other").touch()
    script = tmp_path / "script.sh"
    with script.open("w") as file:
        command = [sys.executable, "-m", "graphmatch", "completion", "bash"]
        subprocess.run(command, check=True, stdout=file, env=os.environ)
    command = ["bash", "--norc", "-c", COMPLETE, "bash", str(script), *words]
    answer = subprocess.run(command, check=True, cwd=tmp_path, capture_output=True, text=True).stdout
    offered = {word.strip() for word in answer.split()}
    assert found <= offered
    assert not missing & offered


def test_help_fits_narrow_windows(monkeypatch):
    written = (
        "A first sentence that is longer than the window is wide,\nand its end. More.\n\n"
        "  name    what it means, in more words than there is room for\n"
        "          and the end of it\n"
        "  command --with many --options that are --copied whole  --end\n"
    )
    parser = Parser(prog="x", epilog=written, formatter_class=argparse.RawDescriptionHelpFormatter)
    monkeypatch.setenv("COLUMNS", "82")
    assert parser.format_help().endswith(f"\n\n{written}")
    monkeypatch.setenv("COLUMNS", "42")
    assert parser.format_help().endswith(
        "\n\nA first sentence that is longer than the\nwindow is wide, and its end. More.\n\n"
        "  name    what it means, in more words\n          than there is room for and the\n          end of it\n"
        "  command --with many --options that are --copied whole  --end\n"
    )
