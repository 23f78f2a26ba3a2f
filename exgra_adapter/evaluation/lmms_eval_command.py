"""The command `exgra-med evaluate export-lmms-eval`: a test file as a task of lmms-eval."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from exgra_adapter.console import positive, say

_DESCRIPTION = """\
Writes a task folder for lmms-eval, which scores any of its models with it; the scores are those of this package.
  exgra-med evaluate export-lmms-eval --data test.json --images images --output tasks/vqa_rad
  python -m lmms_eval --include_path tasks/vqa_rad --tasks vqa_rad --model MODEL --batch_size 1

Writes TASK.yaml, utils.py and TASK.jsonl (one document per question, with the image's absolute path). This package
must be installed where lmms-eval runs."""


def add_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
    parents: Sequence[argparse.ArgumentParser] = (),
) -> None:
    """Adds `export-lmms-eval`; the parsed options get a `run` that takes them and returns the exit code."""
    parser = subparsers.add_parser(
        "export-lmms-eval",
        parents=list(parents),
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        help="a test file as a task of lmms-eval",
        description=_DESCRIPTION,
    )
    parser.add_argument("--data", metavar="FILE", type=Path, required=True, help="test file, one question per record")
    parser.add_argument("--images", metavar="DIR", type=Path, required=True, help="folder of its images")
    parser.add_argument("--output", metavar="DIR", type=Path, required=True, help="new folder for the task")
    parser.add_argument("--task", metavar="NAME", help="name of the task (default: the name of the output folder)")
    parser.add_argument("--post-prompt", metavar="TEXT", default="", help="text behind every question (default: none)")
    parser.add_argument(
        "--max-new-tokens", metavar="N", type=positive, default=64, help="longest answer (default: %(default)s)"
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from exgra_adapter.evaluation.lmms_eval import export_lmms_eval

    count = export_lmms_eval(
        options.data, options.images, options.output, options.task, options.post_prompt, options.max_new_tokens
    )
    say(f"{count} questions: {options.output}")
    return 0
