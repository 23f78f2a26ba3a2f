"""The command `exgra-med chat`."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from exgra_adapter.console import natural
from exgra_adapter.evaluation.options import add_answer_options

_DESCRIPTION = """\
Talks about an image with a trained model: in the terminal, or with --web on a page of this machine.
  exgra-med chat --model runs/vqa --image images/1.png
  exgra-med chat --model runs/vqa --web
  exgra-med chat --model runs/with --compare runs/without --web
Nothing is downloaded and nothing is sent anywhere. For research, not for clinical use."""

_EPILOG = """\
In the terminal:
  /image PATH   show an image; a path in a question and a file dropped on the window do too
  /reset        begin anew with the same image
  /save FILE    write the conversation as JSON, in the format of training data
  /help, /quit
Ctrl-C stops an answer, at the prompt it leaves with code 130; Ctrl-D and /quit leave with code 0. Lines may be piped:
  printf '/image images/1.png\\nIs there a lesion?\\n' | exgra-med chat --model runs/vqa
Answers go to standard output, everything else to standard error.

The page listens to this machine alone unless --host says otherwise; there is no password."""

_WEB_ONLY = ("compare", "host", "port")
_HOST, _PORT = "127.0.0.1", 7860


def add_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
    parents: Sequence[argparse.ArgumentParser] = (),
) -> None:
    """Adds `chat`; the parsed options get a `run` that takes them and returns the exit code."""
    chat = subparsers.add_parser(
        "chat",
        parents=list(parents),
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        help="talk about an image with a trained model, in the terminal or on a page",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    chat.add_argument(
        "--model", metavar="DIR", type=Path, required=True, help="model folder (the output of exgra-med train)"
    )
    chat.add_argument("--image", metavar="FILE", type=Path, help="image to begin with")
    answers = chat.add_argument_group("answers")
    answers.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: a GPU where there is one)")
    add_answer_options(answers, max_new_tokens=256)
    answers.add_argument(
        "--temperature",
        metavar="T",
        type=_temperature,
        default=0.0,
        help="0 takes the likeliest token each time, above 0 tokens are drawn (default: %(default)s)",
    )
    answers.add_argument(
        "--seed",
        metavar="N",
        type=natural,
        default=0,
        help="of the draws; the same conversation gets the same answers (default: %(default)s)",
    )
    answers.add_argument(
        "--history",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="put questions together with the earlier ones (default: yes); models that were taught single questions "
        "answer better without",
    )
    page = chat.add_argument_group("page")
    page.add_argument("--web", action="store_true", help="serve a page instead of chatting in the terminal")
    page.add_argument(
        "--compare", metavar="DIR", type=Path, help="second model, which answers the same questions beside the first"
    )
    page.add_argument(
        "--host", default="127.0.0.1", help="address to listen at; others than this machine's own open the page to the "
        "network, without a password (default: %(default)s)"
    )  # fmt: skip
    page.add_argument(
        "--port", metavar="N", type=_port, default=_PORT, help="port; 0 takes a free one (default: %(default)s)"
    )
    chat.set_defaults(run=_run, usage_error=chat.error)


def _temperature(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0 and finite; got {text}")
    return value


def _port(text: str) -> int:
    value = natural(text)
    if value > 65535:
        raise argparse.ArgumentTypeError(f"must be at most 65535; got {value}")
    return value


def _run(options: argparse.Namespace) -> int:
    usual: dict[str, Any] = {"compare": None, "host": _HOST, "port": _PORT}
    given = [f"--{name}" for name in _WEB_ONLY if getattr(options, name) != usual[name]]
    if given and not options.web:
        options.usage_error(f"{', '.join(given)}: only with --web")
    if options.web:
        # Before a model of gigabytes is loaded.
        from exgra_adapter.chat.server import require_gradio, serve

        require_gradio()
    from exgra_adapter.chat.conversation import open_chat_image

    if options.image is not None:
        open_chat_image(options.image)
    # Importing torch and transformers takes seconds; the help does without.
    from exgra_adapter.chat.speaker import Speaker

    folders = [options.model] if options.compare is None else [options.model, options.compare]
    speakers = [
        Speaker(
            folder,
            options.device,
            options.max_new_tokens,
            options.temperature,
            options.seed,
            options.prompt,
            options.precision,
            options.history,
        )
        for folder in folders
    ]
    if options.web:
        return serve(speakers, options.host, options.port, options.image)
    from exgra_adapter.chat.terminal import Terminal

    return Terminal(speakers[0], sys.stdin.isatty() and sys.stdout.isatty()).run(options.image)
