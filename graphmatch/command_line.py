"""What command lines share: a parser that names the closest word, and completion for shells."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

SHELLS = ("bash", "zsh", "fish")
_CHOICES = re.compile(r"be one of (?P<known>[^;]+); got '(?P<given>[^']*)'")
_COMPLETION = """\
Writes a script to standard output; the shell then completes commands, options and their values with the Tab key:
  bash  {0} completion bash > ~/.local/share/bash-completion/completions/{0}
  zsh   {0} completion zsh > ~/.zfunc/_{0}     with `fpath+=~/.zfunc` before compinit in ~/.zshrc
  fish  {0} completion fish > ~/.config/fish/completions/{0}.fish
It holds for the next shell that is started; write it anew after an update."""


# The first columns of a row: what stands before the last gap of two spaces or more has none in it.
_FIRST_COLUMN = re.compile(r" +\S+(?: \S+)* {2,}(?=[^\s-])")
_LEAST_COLUMN = 24


class NarrowableFormatter(argparse.RawDescriptionHelpFormatter):
    """Leaves descriptions as they are written where the window has room; elsewhere sentences and tables are wrapped.

    Lines that are not indented are sentences, indented ones with a gap of two spaces are rows of a table; all others,
    such as commands, stay whole, so that they can be copied.
    """

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if all(len(line) <= width for line in text.splitlines()):
            return super()._fill_text(text, width, indent)
        filled: list[str] = []
        lines = text.splitlines()[::-1]
        while lines:
            line = lines.pop()
            column = _FIRST_COLUMN.match(line)
            start = column.end() if column else 0
            if not line.strip() or (line[0] == " " and (column is None or width - start < _LEAST_COLUMN)):
                filled.append(line)
                continue
            # What follows in the same column belongs to it.
            while lines and lines[-1][:start].isspace() == bool(start) and lines[-1][start : start + 1].strip():
                line += f" {lines.pop().strip()}"
            filled += textwrap.wrap(
                line[start:],
                width,
                initial_indent=line[:start],
                subsequent_indent=" " * start,
                break_long_words=False,
                break_on_hyphens=False,
            )
        return "".join(f"{indent}{line}\n" for line in filled)


class Parser(argparse.ArgumentParser):
    """A parser whose errors about unknown words say which known one is closest, also in all of its subcommands.

    Takes what `argparse.ArgumentParser` takes; options cannot be abbreviated unless they are told to.

    Example:
        >>> parser = Parser(prog="example", exit_on_error=False)
        >>> _ = parser.add_argument("--colour", choices=["red", "green"])
        >>> try:
        ...     parser.parse_args(["--colour", "gren"])
        ... except argparse.ArgumentError as error:
        ...     print(error)
        argument --colour: invalid choice: 'gren' (choose from red, green). Did you mean green?
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        options.setdefault("allow_abbrev", False)
        if options.get("formatter_class") is argparse.RawDescriptionHelpFormatter:
            options["formatter_class"] = NarrowableFormatter
        super().__init__(*arguments, **options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses arguments and refuses unknown ones, in the subcommand that they were given to."""
        if args is not None:
            self._refuse_misspelt_options(args)
        namespace, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self._refuse_options(unknown)
        return namespace, unknown

    def error(self, message: str) -> NoReturn:
        """Shows usage and message, and ends the program with code 2."""
        super().error(with_suggestion(message))

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        known = [str(choice) for choice in action.choices]
        text = f"invalid choice: {value!r} (choose from {', '.join(known)})"
        raise argparse.ArgumentError(action, _joined(text, did_you_mean(str(value), known)))

    def _refuse_misspelt_options(self, arguments: Sequence[str]) -> None:
        """Refuses the first long option that resembles a known one, before something required is found missing."""
        has_commands = any(isinstance(action, argparse._SubParsersAction) for action in self._actions)
        for argument in arguments:
            is_option = argument.startswith("--") and " " not in argument
            if argument == "--" or (has_commands and not argument.startswith("-")):
                return
            known = self._option_string_actions
            name = argument.partition("=")[0]
            if is_option and name not in known and closest(name, known):
                self._refuse_options([argument])

    def _refuse_options(self, arguments: Sequence[str]) -> None:
        options = [argument.partition("=")[0] for argument in arguments if argument.startswith("-")]
        hints = [did_you_mean(option, self._option_string_actions) for option in options]
        text = f"unrecognized arguments: {' '.join(arguments)}"
        self.error(_joined(text, next((hint for hint in hints if hint), "")))


def closest(given: str, known: Iterable[str]) -> str | None:
    """Returns the known word that a given one resembles most, in whatever case; None if none does.

    Example:
        >>> closest("portfolo", ["Portfolio", "Tabu"])
        'Portfolio'
    """
    words = {word.lower(): word for word in known}
    found = get_close_matches(given.lower(), list(words), 1)
    return words[found[0]] if found else None


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Returns a question about the closest known word, or nothing."""
    word = closest(given, known)
    return "" if word is None else f"Did you mean {word}?"


def with_suggestion(message: str) -> str:
    """Returns an error message with the closest word, where it says what the choices are and what was given.

    Example:
        >>> with_suggestion("train: texts must be one of both, answer; got 'boht'. Choose one of them.")
        "train: texts must be one of both, answer; got 'boht'. Choose one of them. Did you mean both?"
    """
    found = _CHOICES.search(message)
    if found is None or "Did you mean" in message:
        return message
    known = [word.strip("' ") for word in re.split(r", | or ", found["known"])]
    return _joined(message, did_you_mean(found["given"], known))


def similar_file(path: Path) -> Path | None:
    """Returns the file or folder beside a missing one whose name resembles it most; None if none does.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "car1.dd.xz").touch()
        >>> similar_file(folder / "car1.dd.xy").name
        'car1.dd.xz'
    """
    try:
        if path.exists() or not path.parent.is_dir():
            return None
        name = closest(path.name, [other.name for other in path.parent.iterdir()])
    except OSError:  # a folder that may not be listed
        return None
    return None if name is None else path.with_name(name)


def missing_file(path: Path) -> str:
    """Returns a question about the file that a missing one resembles, or nothing."""
    other = similar_file(path)
    return "" if other is None else f"Did you mean {other}?"


def _joined(text: str, hint: str) -> str:
    if not hint:
        return text
    return f"{text}{'' if text.endswith(('.', '?')) else '.'} {hint}"


def add_completion(commands: Any, parser: argparse.ArgumentParser, say: Callable[[str], None], **options: Any) -> None:
    """Adds the command `completion` to the subparsers of a parser.

    Args:
        commands: What `parser.add_subparsers` returned.
        parser: The whole parser, with all commands once the command runs.
        say: Prints the script.
        **options: Of `add_parser`.
    """
    completion = commands.add_parser(
        "completion",
        help="a script that lets your shell complete commands and options",
        description=_COMPLETION.format(parser.prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **options,
    )
    completion.add_argument("shell", choices=SHELLS, help="the shell that the script is for")

    def run(chosen: argparse.Namespace) -> int:
        say(completion_script(parser, chosen.shell))
        return 0

    completion.set_defaults(run=run)


def completion_script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Returns the script with which a shell completes a command line; arguments that are paths complete to files.

    Raises:
        ImportError: If shtab, which writes it, is not installed.
    """
    if importlib.util.find_spec("shtab") is None:
        text = "completion: shtab must be installed to write the script; got none. "
        raise ImportError(text + 'Install it with `pip install "graphmatch[completion]"`.')
    shtab = importlib.import_module("shtab")
    for action in _all_actions(parser):
        if action.type is Path and action.choices is None:
            folder = isinstance(action.metavar, str) and "DIR" in action.metavar
            action.complete = shtab.DIRECTORY if folder else shtab.FILE  # type: ignore[attr-defined]
    return str(shtab.complete(parser, shell=shell)).rstrip("\n")


def _all_actions(parser: argparse.ArgumentParser) -> Iterable[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in dict.fromkeys(action.choices.values()):
                yield from _all_actions(command)
