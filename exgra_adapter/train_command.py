"""The command `exgra-med train`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

from exgra_adapter.config import Stage, TrainingConfig, changed_settings
from exgra_adapter.config_files import preset_names, read_config
from exgra_adapter.console import launched_rank, main_process_complains_first, say

_DESCRIPTION = """\
Trains one stage on your data and writes a Hugging Face model folder with a report and a model card.
  stage1  trains the projector                     2e-3, 1 epoch
  stage2  trains projector and language model, with the alignment of three graphs     2e-5, 3 epochs
  vqa     fine-tunes on questions and answers      2e-5, 15 epochs"""

_EXAMPLES = """\
The data is a list of samples such as
  {"id": "1", "image": "1.png", "conversations": [{"from": "human", "value": "Is there a lesion? <image>"},
                                                  {"from": "gpt", "value": "yes"}]}
The three stages, with the tiny model:
  exgra-med train stage1 --data train.json --images images --output runs/stage1
  exgra-med train stage2 --data train.json --images images --output runs/stage2 --model runs/stage1 \\
                  --set extender=template
  exgra-med train vqa    --data train.json --images images --output runs/vqa    --model runs/stage2
On four GPUs, with the paper's settings:
  torchrun --nproc-per-node 4 -m exgra_adapter train stage2 --config stage2 --data ... --images ... --output ...

A run that was interrupted or killed continues with the same command and --resume."""

_PATHS = ("data", "images", "output", "model")
_SHOWN_WIDTH = 110


def add_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
    parents: Sequence[argparse.ArgumentParser] = (),
) -> None:
    """Adds `train`; the parsed options get a `run` that takes them and returns the exit code."""
    train = subparsers.add_parser(
        "train",
        parents=list(parents),
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        help="train one stage on your data",
        description=_DESCRIPTION,
        epilog=f"{_EXAMPLES}\n\nPresets:\n{_presets()}\n\nSettings, for --set and YAML files:\n{_settings()}",
    )
    train.add_argument("stage", choices=get_args(Stage), help="what to train")
    train.add_argument("--config", metavar="FILE", help="YAML file with settings, or the name of a preset")
    train.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="one setting; wins over the file; repeatable"
    )
    kinds = {"data": "FILE", "images": "PATH", "output": "DIR", "model": "DIR"}
    for name in _PATHS:
        train.add_argument(f"--{name}", metavar=kinds[name], help=f"the same as --set {name}={kinds[name]}")
    train.add_argument("--resume", action="store_true", help="continue an interrupted run in the output folder")
    train.add_argument("--overwrite", action="store_true", help="start anew in an output folder that holds a run")
    train.add_argument("--dry-run", action="store_true", help="print the settings and stop")
    train.set_defaults(run=_train, usage_error=train.error)


def _presets() -> str:
    return textwrap.fill(", ".join(preset_names()), _SHOWN_WIDTH, initial_indent="  ", subsequent_indent="  ")


def _settings() -> str:
    kinds = get_type_hints(TrainingConfig)
    lines = []
    for field in dataclasses.fields(TrainingConfig):
        if field.name == "stage":
            continue
        choices = next(
            (get_args(each) for each in (kinds[field.name], *get_args(kinds[field.name])) if _texts(each)), ()
        )
        text = field.metadata["help"]
        if choices:
            text += f" ({' | '.join(choices)})"
        if field.default is not dataclasses.MISSING and field.default is not None and "default:" not in text:
            text += f" [{json.dumps(field.default)}]"
        lines.append(
            textwrap.fill(f"{field.name:<22} {text}", _SHOWN_WIDTH, initial_indent="  ", subsequent_indent=" " * 25)
        )
    return "\n".join(lines)


def _texts(kind: Any) -> bool:
    values = get_args(kind)
    return bool(values) and all(isinstance(value, str) for value in values)


def _train(options: argparse.Namespace) -> int:
    given = {name: getattr(options, name) for name in _PATHS if getattr(options, name) is not None}
    flags = [f"{name}=true" for name in ("resume", "overwrite") if getattr(options, name)]
    paths = [f"{name}={json.dumps(value)}" for name, value in given.items()]
    try:
        config = read_config(options.stage, options.config, [*options.set, *paths, *flags]).resolved()
    except ValueError as error:
        if launched_rank():
            return 2  # every process was given the same, and the main one says what is wrong
        options.usage_error(str(error))
    if options.dry_run:
        _say_settings(config)
        return 0
    # Importing transformers takes seconds: settings are checked before.
    from exgra_adapter.distributed import is_main_process
    from exgra_adapter.reporting.measures import format_overhead, measure_overhead
    from exgra_adapter.training import train

    if launched_rank() == 0:
        _say_settings(config)
    with main_process_complains_first():
        summary = train(config)
    if not is_main_process():
        return 0
    last = summary.history[-1] if summary.history else {}
    values = ", ".join(
        f"{name} {last[name]:.3f}" for name in ("ar_loss", "alignment_loss", "retrieval") if name in last
    )
    say(f"Trained {summary.steps} steps on {summary.samples} samples in {summary.seconds:.0f} s.")
    if values:
        say(f"Last logged: {values}.")
    overhead = measure_overhead(summary.history)
    if overhead is not None:
        say(format_overhead(overhead))
    if summary.skipped:
        say(f"Left out {summary.skipped} samples with unreadable images.")
    say(f"Report: {Path(summary.output) / 'report' / 'report.md'}")
    say(f"Model folder: {summary.output}")
    return 0


def _say_settings(config: TrainingConfig) -> None:
    changed = changed_settings(config)
    say("Settings (* = not the default):")
    for name, value in config.to_json().items():
        say(f"{'*' if name in changed else ' '} {name:<21} {json.dumps(value)}")
