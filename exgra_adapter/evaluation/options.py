"""What commands share that let a model answer."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from exgra_adapter.console import positive


def add_answer_options(group: argparse._ActionsContainer, max_new_tokens: int) -> None:
    """Adds the options that say how a model gives one answer: `--max-new-tokens`, `--prompt`, `--precision`.

    Args:
        group: A parser, or a group of its options.
        max_new_tokens: The longest answer if the user says nothing.
    """
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


def add_generation_options(group: argparse._ActionsContainer, max_new_tokens: int) -> None:
    """Adds the options that say how a model answers many questions: those of one answer, `--batch-size` and so on.

    Args:
        group: A parser, or a group of its options.
        max_new_tokens: The longest answer if the user says nothing.
    """
    group.add_argument(
        "--batch-size", metavar="N", type=positive, default=16, help="questions at once (default: %(default)s)"
    )
    add_answer_options(group, max_new_tokens)
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


def refuse_generation_options(options: argparse.Namespace, default_of: Callable[[str], Any]) -> None:
    """Ends with the usage where no model answers, and options say how one should.

    Args:
        options: What was parsed, with `usage_error`.
        default_of: Says what an option is where it is not given.
    """
    names = ("batch_size", "max_new_tokens", "prompt", "precision", "on_error", "resume")
    known = (name for name in names if hasattr(options, name))
    given = [f"--{name.replace('_', '-')}" for name in known if getattr(options, name) != default_of(name)]
    if given:
        options.usage_error(f"{', '.join(given)} must come with --model: the answers of --pred are given already")
