"""The command `exgra-med`: demo, train, evaluate."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from exgra_adapter.config import TrainingConfig
from exgra_adapter.console import complain, say

_DESCRIPTION = """\
Trains and evaluates LLaVA models with ExGra-Med's multi-graph alignment as an additional loss.
Nothing is downloaded: data, images and models are local files. For research, not for clinical use."""

_EPILOG = """\
Start with the demo: it draws a small synthetic data set, trains with and without the alignment and writes a report.
  exgra-med demo
Then train on data of your own:
  exgra-med train --stage instruct --data train.json --images images --output runs/stage2 --extender template
  exgra-med evaluate vqa --model runs/stage2 --data test.json --images images --output runs/stage2/test

Exit codes: 0 done, 1 failed with a sentence that says why, 2 wrong usage, 130 interrupted."""

_TRAIN_EPILOG = """\
The data is a JSON list of samples such as
  {"id": "1", "image": "1.png", "conversations": [{"from": "human", "value": "Is there a lesion? <image>"},
                                                  {"from": "gpt", "value": "yes"}]}
The three stages, with the tiny model:
  exgra-med train --stage align    --data train.json --images images --output runs/stage1
  exgra-med train --stage instruct --data train.json --images images --output runs/stage2 --model runs/stage1 \\
                  --extender template
  exgra-med train --stage vqa      --data train.json --images images --output runs/vqa    --model runs/stage2

The output folder is a Hugging Face model folder with settings.json, history.jsonl and, with alignment on,
alignment.safetensors. A run that was interrupted or killed continues with the same command and --resume."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: The arguments; None takes those of the process.

    Returns:
        The exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    debug = False
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
        complain(f"Error: {error}")
        return 1


def _parser() -> argparse.ArgumentParser:
    from exgra_adapter.evaluation import command as evaluation

    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="exgra-med", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=form, allow_abbrev=False
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the whole traceback of an error")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="{demo,train,evaluate}")

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

    train = subparsers.add_parser(
        "train",
        parents=[common],
        allow_abbrev=False,
        formatter_class=form,
        help="train one stage on your data",
        description="Trains one stage and writes a Hugging Face model folder.",
        epilog=_TRAIN_EPILOG,
    )
    _add_config_options(train)
    train.set_defaults(run=_train, usage_error=train.error)

    evaluation.add_parser(subparsers, parents=[common])
    return parser


def _add_config_options(parser: argparse.ArgumentParser) -> None:
    """Makes one option of every field of TrainingConfig; its type, choices, default and help come from there."""
    kinds = get_type_hints(TrainingConfig)
    for field in dataclasses.fields(TrainingConfig):
        flag, kind = "--" + field.name.replace("_", "-"), kinds[field.name]
        required = field.default is dataclasses.MISSING
        text = field.metadata["help"].replace("%", "%%")
        if kind is bool:
            parser.add_argument(flag, action="store_true", help=text)
            continue
        if not required and field.default is not None:
            text += " (default: %(default)s)"
        extra: dict[str, Any] = (
            {"choices": get_args(kind)} if get_origin(kind) is Literal else {"type": _value_type(kind)}
        )
        if "choices" not in extra:
            extra["metavar"] = {Path: "PATH", int: "N", float: "X", str: "NAME"}[extra["type"]]
        parser.add_argument(flag, required=required, default=None if required else field.default, help=text, **extra)


def _value_type(kind: Any) -> Any:
    """The type inside `X | None`, or the type itself."""
    inner = [argument for argument in get_args(kind) if argument is not type(None)]
    return inner[0] if inner else kind


def _train(options: argparse.Namespace) -> int:
    names = [field.name for field in dataclasses.fields(TrainingConfig)]
    try:
        config = TrainingConfig(**{name: getattr(options, name) for name in names}).resolved()
    except ValueError as error:
        options.usage_error(str(error))
    # Importing transformers takes seconds: settings are checked before.
    from exgra_adapter.training import train

    say("Settings:")
    for name, value in config.to_json().items():
        say(f"  {name:<21} {json.dumps(value)}")
    summary = train(config)
    last = summary.history[-1] if summary.history else {}
    values = ", ".join(
        f"{name} {last[name]:.3f}" for name in ("ar_loss", "alignment_loss", "retrieval") if name in last
    )
    say(f"Trained {summary.steps} steps on {summary.samples} samples in {summary.seconds:.0f} s.")
    if values:
        say(f"Last logged: {values}.")
    if summary.skipped:
        say(f"Left out {summary.skipped} samples with unreadable images.")
    say(f"Model folder: {summary.output}")
    return 0


def _demo(options: argparse.Namespace) -> int:
    from exgra_adapter.demo.run import run_demo

    report = run_demo(options.output, options.seed, options.threads)
    say(f"Report: {report}")
    return 0
