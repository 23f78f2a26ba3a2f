"""What commands share that let a model answer."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from exgra_adapter.console import positive

# What is wrong is mostly wrong in every process: the main one says so, and torchrun ends the others before they do.
_HEAD_START = 20.0


def add_generation_options(group: argparse._ActionsContainer, max_new_tokens: int) -> None:
    """Adds the options that say how a model answers: `--batch-size`, `--max-new-tokens` and so on.

    Args:
        group: A parser, or a group of its options.
        max_new_tokens: The longest answer if the user says nothing.
    """
    group.add_argument(
        "--batch-size", metavar="N", type=positive, default=16, help="questions at once (default: %(default)s)"
    )
    group.add_argument(
        "--max-new-tokens",
        metavar="N",
        type=positive,
        default=max_new_tokens,
        help="longest answer (default: %(default)s)",
    )
    group.add_argument(
        "--prompt",
        choices=("llava", "released", "chat_template"),
        help="conversation format (default: the one that the model was trained in)",
    )
    group.add_argument(
        "--precision",
        choices=("fp32", "bf16", "fp16"),
        default="fp32",
        help="numbers of the model; GPUs are fastest with bf16 (default: %(default)s)",
    )
    group.add_argument(
        "--on-error",
        choices=("count", "raise"),
        default="count",
        help="a question that cannot be asked counts as wrong, or ends the command (default: %(default)s)",
    )
    group.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="go on where an interrupted run stopped (default: yes)",
    )


def launched_rank() -> int:
    """Returns the number that torchrun gave this process; 0 without torchrun."""
    return int(os.environ.get("RANK", "0"))


@contextmanager
def main_process_complains_first() -> Iterator[None]:
    """Delays the errors of all processes but the main one, so that a user reads each only once."""
    try:
        yield
    except (ValueError, OSError):
        if launched_rank():
            time.sleep(_HEAD_START)
        raise
