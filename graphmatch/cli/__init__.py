"""The command `graphmatch`: solves files of matching problems, and says what they hold and what is installed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import graphmatch
from graphmatch.cli import bench, info, solve
from graphmatch.cli.console import complain, say
from graphmatch.command_line import Parser, add_completion, missing_file

_OVERVIEW = """\
graphmatch {version}: batched, differentiable graph matching for PyTorch.

  graphmatch solve FILE   a matching of a .dd file or of a .dat file of QAPLIB, its cost and a certified lower bound;
                          --plot out.png draws it
  graphmatch info         what is installed and in use, to paste into a bug report; with FILE: what a file holds
  graphmatch bench KIND   experiments: gradients (how good gradient estimators are), multigraph (how methods scale)

`graphmatch --help` lists everything with examples, `graphmatch COMMAND --help` explains a command."""
_EPILOG = """\
examples:
  graphmatch info                                    what is installed
  graphmatch info car1.dd.xz                         what a file holds
  graphmatch solve car1.dd.xz --time-limit 10        a matching, its cost and a certified lower bound
  graphmatch solve car1.dd.xz --plot car1.png        the same, with a picture of graphs, matching and costs
  graphmatch solve car1.dd.xz --json > answer.json   the same for programs
  graphmatch solve nug30.dat --output found.sln      a permutation for a problem of QAPLIB, as a file
  graphmatch bench gradients --output report         how good gradient estimators are: table, picture, numbers
  graphmatch bench multigraph --output report        how methods for several graphs scale, in time and objective
  graphmatch completion bash                         a script that lets your shell complete commands and options

Exit codes: 0 done, 1 no valid matching, 2 wrong usage or file, 130 interrupted."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; without arguments it says what there is.

    Args:
        arguments: The arguments; None takes those of the process.

    Returns:
        The exit code: 0 done, 1 no valid matching, 2 wrong usage or file, 130 interrupted.

    Raises:
        SystemExit: From argparse, with code 2 after wrong usage and 0 after the help.

    Example:
        >>> from graphmatch.cli import main
        >>> main(["solve", "absent.dd"])
        2
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments:
        say(_OVERVIEW.format(version=graphmatch.__version__))
        return 0
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        complain("interrupted")
        return 130
    except OSError as error:
        complain(_about_file(error) if error.filename else str(error))
    except MemoryError:
        complain("out of memory: use a smaller problem or fewer threads")
    except (ImportError, TypeError, ValueError) as error:
        complain(str(error))
    return 2


def _about_file(error: OSError) -> str:
    text = f"{error.filename}: {error.strerror}"
    hint = missing_file(Path(error.filename)) if isinstance(error, FileNotFoundError) else ""
    return f"{text}. {hint}" if hint else text


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="graphmatch",
        description="Batched, differentiable graph matching for PyTorch.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"graphmatch {graphmatch.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    solve.add_parser(commands)
    info.add_parser(commands)
    bench.add_parser(commands)
    add_completion(commands, parser, say)
    return parser
