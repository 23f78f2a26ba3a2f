"""The command `exgra-med convert`: checkpoints of the original format to Hugging Face and back."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from exgra_adapter.console import say

_DESCRIPTION = """\
Converts a LLaVA v0, LLaVA-Med or ExGra-Med checkpoint to a Hugging Face LlavaForConditionalGeneration folder, or back.
  exgra-med convert exgra-med-original exgra-med-hf --vision-tower clip-vit-large-patch14
  exgra-med convert exgra-med-hf exgra-med-again"""

_EPILOG = """\
The original format holds no vision tower: --vision-tower gives the folder of the CLIP model that its config.json names.
Nor does it say which dense connector a model has: --dense-connector does, where the projector is three times as wide.
DCI is folded into stock LLaVA, which every program that serves LLaVA can run.

Message passing goes to alignment.safetensors, from where exgra-med train takes it. Every tensor keeps its bits, there
and back; conversion.json lists what became of each. Files that could run code when read are refused."""


def add_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
    parents: Sequence[argparse.ArgumentParser] = (),
) -> None:
    """Adds `convert`; the parsed options get a `run` that takes them and returns the exit code."""
    parser = subparsers.add_parser(
        "convert",
        parents=list(parents),
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        help="convert checkpoints between the original format and Hugging Face",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("source", metavar="SOURCE", type=Path, help="checkpoint folder, in either format")
    parser.add_argument("output", metavar="OUTPUT", type=Path, help="folder to make; new or empty")
    parser.add_argument(
        "--to",
        choices=("hugging-face", "original"),
        default=None,
        help="format of the output (default: the one that SOURCE does not have)",
    )
    parser.add_argument(
        "--vision-tower",
        metavar="FOLDER",
        default=None,
        help="folder of the CLIP model; to the original format: the name to note as mm_vision_tower",
    )
    parser.add_argument(
        "--dense-connector",
        choices=("none", "dci", "sci"),
        default=None,
        help="dense connector that SOURCE was trained with; needed where its projector is three times as wide",
    )
    parser.add_argument(
        "--dtype",
        choices=("keep", "fp32", "bf16", "fp16"),
        default="keep",
        help="number type of all tensors (default: %(default)s)",
    )
    parser.add_argument(
        "--weights",
        choices=("safetensors", "bin"),
        default=None,
        help="kind of weight files (default: bin to the original format, else safetensors)",
    )
    parser.add_argument(
        "--shard-size", metavar="GB", type=_positive, default=2.0, help="largest weight file (default: %(default)s)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the report and write nothing")
    parser.set_defaults(run=_run, usage_error=parser.error)


def _run(options: argparse.Namespace) -> int:
    # Importing torch and transformers takes seconds: wrong usage is said before.
    from exgra_adapter.conversion.convert import convert
    from exgra_adapter.conversion.report import format_report

    plan = convert(
        options.source,
        options.output,
        to=options.to,
        vision_tower=options.vision_tower,
        dense_connector=options.dense_connector,
        dtype=options.dtype,
        weight_format=options.weights,
        shard_bytes=int(options.shard_size * 1e9),
        dry_run=options.dry_run,
    )
    say(format_report(plan))
    say(f"Nothing is written: --dry-run. Output would be {options.output}" if options.dry_run else str(options.output))
    return 0


def _positive(text: str) -> float:
    value = float(text)
    if not 1e-9 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a positive number; got {value}")
    return value
