"""The command `exgra-med export`: a model folder for other programs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from exgra_adapter.console import say

_DESCRIPTION = """\
Writes a model as a stock Hugging Face folder that transformers, vLLM and others load without this package:
merges LoRA adapters, folds a DCI connector, turns a timm vision tower into a ViTModel, and compares the result with the
original.
  exgra-med export runs/stage2 exported --dtype bf16"""

_EPILOG = """\
An STI connector cannot be exported: it adds tokens that stock LLaVA does not have.
chat_template.jinja makes servers ask the model as it was taught. alignment.safetensors and README.md come along. The
folder appears when it is complete, or not at all."""

_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def add_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
    parents: Sequence[argparse.ArgumentParser] = (),
) -> None:
    """Adds `export`; the parsed options get a `run` that takes them and returns the exit code."""
    export = subparsers.add_parser(
        "export",
        parents=list(parents),
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        help="write a model for other programs",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    export.add_argument("model", metavar="MODEL", type=Path, help="model folder (the output of exgra-med train)")
    export.add_argument("output", metavar="OUTPUT", type=Path, help="folder to write; it must not exist or be empty")
    export.add_argument(
        "--dtype", choices=list(_DTYPES), default="fp32", help="numbers of the weights (default: %(default)s)"
    )
    export.add_argument(
        "--prompt",
        choices=("llava", "released", "chat_template"),
        help="conversation format of the chat template (default: the one that the model was trained in)",
    )
    export.set_defaults(run=_run, usage_error=export.error)


def _run(options: argparse.Namespace) -> int:
    # Importing torch and transformers takes seconds; the help does without.
    import torch

    from exgra_adapter.models.export import export_model

    report = export_model(options.model, options.output, getattr(torch, _DTYPES[options.dtype]), options.prompt)
    for change in report.changes:
        say(f"{change[0].upper()}{change[1:]}.")
    if report.prompt is not None:
        say(f"Chat template: {report.prompt}")
    say(
        f"Largest difference of the logits: {report.largest_difference:.2e} "
        f"(the largest logit is {report.largest_logit:.2e})."
    )
    say(f"Model folder: {report.output}")
    return 0
