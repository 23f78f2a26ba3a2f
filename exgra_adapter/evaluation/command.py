"""The command `exgra-med evaluate`: answers and scores, one module per kind of evaluation."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from exgra_adapter.evaluation import (
    chat_command,
    classify_command,
    compare_command,
    lmms_eval_command,
    report_command,
    vqa_command,
)

# Each has an `add_parser(subparsers, parents)`, and its name is the word on the command line.
_KINDS = {
    "vqa": vqa_command,
    "classify": classify_command,
    "chat": chat_command,
    "compare": compare_command,
    "report": report_command,
    "export-lmms-eval": lmms_eval_command,
}


def add_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
    parents: Sequence[argparse.ArgumentParser] = (),
) -> None:
    """Adds `evaluate` and its kinds; the parsed options get a `run` that takes them and returns the exit code."""
    evaluate = subparsers.add_parser(
        "evaluate", allow_abbrev=False, help="answer questions with a model, score answers, compare scores"
    )
    kinds = evaluate.add_subparsers(title="what to evaluate", required=True, metavar=f"{{{','.join(_KINDS)}}}")
    for kind in _KINDS.values():
        kind.add_parser(kinds, parents)
