"""The command `exgra-med`: demo, train, evaluate, chat, caption, data, convert, export, completion."""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from exgra_adapter.console import complain, provide_streams, say

_OVERVIEW = """\
exgra-med trains and evaluates LLaVA models with ExGra-Med's multi-graph alignment. For research, not for clinical use.

  exgra-med demo              everything once, on a synthetic data set: a few minutes on two cores, no network
  exgra-med train stage2      trains on your data with the alignment: --data train.json --images images --output runs/1
  exgra-med chat              talks about an image with a trained model: --model runs/1, and --web for a page

`exgra-med --help` lists everything with examples, `exgra-med COMMAND --help` explains a command."""
_DESCRIPTION = """\
Trains and evaluates LLaVA models with ExGra-Med's multi-graph alignment as an additional loss.
Nothing is downloaded: data, images and models are local files. For research, not for clinical use."""

_EPILOG = """\
Start with the demo: it draws a small synthetic data set, trains with and without the alignment and writes a report.
  exgra-med demo
Then train on data of your own:
  exgra-med data prepare vqa-rad SOURCE --images images --output data/vqa_rad
  exgra-med caption train.json --endpoint URL --model NAME --output extended.json
  exgra-med data check train.json --images images
  exgra-med train stage2 --data train.json --images images --output runs/stage2 --set extender=template
  exgra-med evaluate vqa --model runs/stage2 --data test.json --images images --output runs/stage2/test
Talk to it, in the terminal or on a page of this machine:
  exgra-med chat --model runs/stage2 --image images/1.png
  exgra-med chat --model runs/stage2 --web
Let your shell complete commands and options:
  exgra-med completion bash

Exit codes: 0 done, 1 failed with a sentence that says why, 2 wrong usage, 130 interrupted."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; without arguments it says what there is.

    Args:
        arguments: The arguments; None takes those of the process.

    Returns:
        The exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
    """
    provide_streams()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments:
        say(_OVERVIEW)
        return 0
    debug, options = False, argparse.Namespace()
    try:
        options = _parser().parse_args(arguments)
        debug = options.debug
        return int(options.run(options) or 0)
    except SystemExit as stop:  # argparse has said what is wrong, or has shown the help
        return int(stop.code or 0)
    except KeyboardInterrupt:
        complain("Interrupted; nothing is half written.")
        return 130
    except (ValueError, OSError, FloatingPointError) as error:
        if debug:
            raise
        complain(f"Error: {_with_hint(str(error), options)}")
        return 1
    except ImportError as error:
        if debug:
            raise
        complain(f"Error: {_about_package(error)}")
        return 1


def _about_package(error: ImportError) -> str:
    if not isinstance(error, ModuleNotFoundError) or error.name is None:
        return str(error)
    package = error.name.partition(".")[0]
    return f'exgra-med: {package} must be installed; got none. Install it with `pip install "graphmatch[exgra]"`.'


def _with_hint(message: str, options: argparse.Namespace) -> str:
    """Returns an error message with the known word or the existing file that is closest to what was given."""
    from graphmatch.command_line import missing_file, with_suggestion

    settings = [text.partition("=")[2] for text in getattr(options, "set", [])]
    values = [value for value in [*vars(options).values(), *settings] if isinstance(value, str | Path) and str(value)]
    # Whole paths: that of a folder also begins those of its files.
    named = [Path(value) for value in values if re.search(rf"{re.escape(str(value))}(?![\w/-]|\.\w)", message)]
    hints = [hint for hint in map(missing_file, named) if hint]
    return " ".join([with_suggestion(message), *hints[:1]])


def _parser() -> argparse.ArgumentParser:
    import graphmatch
    from exgra_adapter import export_command as export
    from exgra_adapter import train_command as training
    from exgra_adapter.captions import command as captions
    from exgra_adapter.chat import command as chat
    from exgra_adapter.conversion import command as conversion
    from exgra_adapter.data import command as data
    from exgra_adapter.evaluation import command as evaluation
    from graphmatch.command_line import Parser, add_completion

    form = argparse.RawDescriptionHelpFormatter
    parser: argparse.ArgumentParser = Parser(
        prog="exgra-med", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=form
    )
    parser.add_argument("--version", action="version", version=f"exgra-med {graphmatch.__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the whole traceback of an error")
    names = "{demo,train,evaluate,chat,caption,data,convert,export,completion}"
    subparsers = parser.add_subparsers(title="commands", required=True, metavar=names)

    demo = subparsers.add_parser(
        "demo",
        parents=[common],
        allow_abbrev=False,
        help="draw a synthetic data set, train a tiny model with and without alignment, write a report",
        description="Runs everything once, small: synthetic images, stage 1, stage 2 with and without alignment, "
        "fine-tuning, evaluation on held-out images. Takes a few minutes on two cores and needs no network.",
    )
    demo.add_argument(
        "--output", type=Path, default=Path("runs/demo"), help="folder of the report (default: %(default)s)"
    )
    demo.add_argument("--seed", type=int, default=0, help="seed of data, weights and noise (default: %(default)s)")
    demo.add_argument("--threads", type=int, default=None, help="CPU threads (default: what torch chooses)")
    demo.set_defaults(run=_demo)

    training.add_parser(subparsers, parents=[common])
    evaluation.add_parser(subparsers, parents=[common])
    chat.add_parser(subparsers, parents=[common])
    captions.add_parser(subparsers, parents=[common])
    data.add_parser(subparsers, parents=[common])
    conversion.add_parser(subparsers, parents=[common])
    export.add_parser(subparsers, parents=[common])
    add_completion(subparsers, parser, say, parents=[common])
    return parser


def _demo(options: argparse.Namespace) -> int:
    from exgra_adapter.demo.run import run_demo

    report = run_demo(options.output, options.seed, options.threads)
    say(f"Report: {report}")
    return 0
