"""The command `exgra-med caption`: extended answers from a language model."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from exgra_adapter.captions.filters import Limits
from exgra_adapter.captions.merge import Outcome, merge
from exgra_adapter.captions.requests import (
    Overview,
    estimate_tokens,
    items_for,
    look_over,
    read_system_prompt,
    stream_samples,
)
from exgra_adapter.console import complain, say
from exgra_adapter.data.extender import TemplateExtender
from exgra_adapter.data.files import names_file
from exgra_adapter.endpoint import (
    EndpointSettings,
    Item,
    Journal,
    JournalIndex,
    Summary,
    add_endpoint_options,
    run_batch,
    settings_from_options,
)
from exgra_adapter.reporting.markdown import duration, number

T = TypeVar("T")

_DESCRIPTION = """\
Asks a language model behind an OpenAI-compatible endpoint for an extended version of every answer.
  exgra-med caption train.json --endpoint http://localhost:8000/v1 --model NAME --dry-run
  exgra-med caption train.json --endpoint http://localhost:8000/v1 --model NAME --output train_long.json

Beside OUT.json, which is INPUT with conversations_long, there are OUT.journal.jsonl with every reply, and OUT.report.md
with OUT.report.png. Only texts are sent, no images. After a kill, Ctrl-C or a power cut, the same command with --resume
goes on; only the requests in flight are asked again."""

_EPILOG = """\
Replies are checked: length, refusals, language, yes or no, negation, numbers, medical terms. A sample with a failed or
rejected answer gets no extended answers, or with --fill template a sentence by template for these turns. The checks run
when OUT.json is written, so --resume with other limits checks all replies again and asks for none.

Exit codes: 0 done, 1 some items failed (all else is written), or a sentence that says what is wrong, 2 wrong usage,
130 interrupted."""


def add_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
    parents: Sequence[argparse.ArgumentParser] = (),
) -> None:
    """Adds `caption`; the parsed options get a `run` that takes them and returns the exit code."""
    caption = subparsers.add_parser(
        "caption",
        parents=list(parents),
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        help="let a language model write extended answers",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    caption.add_argument("input", metavar="INPUT", type=Path, nargs="?", help="file, folder or pattern of records")
    caption.add_argument("--output", metavar="OUT", type=Path, help="file to write, .json or .jsonl; it is replaced")
    caption.add_argument("--resume", action="store_true", help="go on with the journal of an earlier run")
    caption.add_argument("--retry-failed", action="store_true", help="with --resume: ask again for failed items")
    caption.add_argument("--dry-run", action="store_true", help="ask nothing; estimate requests, tokens and cost")
    caption.add_argument(
        "--system-prompt", metavar="FILE", type=Path, help="instructions to use instead of the built-in"
    )
    caption.add_argument("--print-system-prompt", action="store_true", help="show the instructions, to edit them")
    caption.add_argument(
        "--fill",
        choices=("none", "template"),
        default="none",
        help="what replaces failed answers (default: %(default)s)",
    )
    limits, defaults = caption.add_argument_group("checks of replies"), Limits()
    limits.add_argument(
        "--longest",
        metavar="X",
        type=float,
        default=defaults.longest,
        help="longest text, as a multiple of the word limit (default: %(default)s)",
    )
    limits.add_argument(
        "--shortest",
        metavar="X",
        type=float,
        default=defaults.shortest,
        help="shortest text, as a multiple of the answer (default: %(default)s)",
    )
    limits.add_argument(
        "--kept-terms",
        metavar="X",
        type=float,
        default=defaults.kept_terms,
        help="share of medical terms to keep (default: %(default)s)",
    )
    add_endpoint_options(caption)
    caption.set_defaults(run=_run, usage_error=caption.error)


def _run(options: argparse.Namespace) -> int:
    prompt = read_system_prompt(options.system_prompt)
    if options.print_system_prompt:
        say(prompt)
        return 0
    if options.input is None:
        options.usage_error("the following arguments are required: INPUT")
    if options.output is None and not options.dry_run:
        options.usage_error("the following arguments are required: --output (or --dry-run)")
    if options.retry_failed and not options.resume:
        options.usage_error("--retry-failed goes with --resume")
    limits = Limits(options.longest, options.shortest, options.kept_terms)
    if options.dry_run:
        return _estimate(options, prompt)
    return _caption(options, settings_from_options(options), prompt, limits)


def _caption(options: argparse.Namespace, settings: EndpointSettings, prompt: str, limits: Limits) -> int:
    from exgra_adapter.captions.report import write_report  # matplotlib takes a while

    output: Path = options.output
    journal_path, report_path = output.with_suffix(".journal.jsonl"), output.with_suffix(".report.md")
    is_input = any(names_file(options.input, file) for file in (output, journal_path))
    if output.suffix not in (".json", ".jsonl") or is_input:
        raise ValueError(
            f"caption: output must end in .json or .jsonl, and be no part of the input {options.input}, nor its "
            f"journal; got {output}. Choose another name or folder."
        )
    if journal_path.exists() and journal_path.stat().st_size and not options.resume:
        raise ValueError(
            f"caption: output must have no journal yet; {journal_path} holds an earlier run. Add --resume to go on "
            "with it, or remove it."
        )
    overview = look_over(_with_progress(stream_samples(options.input), "reading", None))
    try:
        with Journal(journal_path, _run_description(settings, prompt, overview), options.resume) as journal:
            summary = run_batch(
                settings,
                items_for(stream_samples(options.input), prompt),
                journal,
                retry_failed=options.retry_failed,
                total=overview.pairs,
                description="captions",
            )
    except KeyboardInterrupt:
        complain(f"Interrupted. Finished items are in {journal_path}; go on with --resume.")
        return 130
    index = JournalIndex(journal_path)
    samples = _with_progress(stream_samples(options.input), "merging", overview.samples)
    outcome = merge(samples, index, output, limits, TemplateExtender() if options.fill == "template" else None)
    index.close()
    named = {"input": options.input, "output": output, "journal": journal_path}
    write_report(report_path, outcome, index, settings, limits, named)
    _tell(summary, outcome, output, report_path)
    if outcome.failed:
        complain(
            f"{outcome.failed} of {outcome.pairs} items failed; {report_path} says why. Ask for them again with "
            "--resume --retry-failed."
        )
    return 1 if outcome.failed else 0


def _run_description(settings: EndpointSettings, prompt: str, overview: Overview) -> dict[str, Any]:
    """What decides about replies. Where the model runs and how long its replies may be can change from run to run."""
    return {
        "command": "caption",
        "model": settings.model,
        "temperature": settings.temperature,
        "system_prompt": hashlib.blake2b(prompt.encode("utf-8"), digest_size=16).hexdigest(),
        "input": overview.digest,
        "pairs": overview.pairs,
    }


def _estimate(options: argparse.Namespace, prompt: str) -> int:
    samples, extended = 0, 0
    pairs, known, sent, received = 0, 0, 0.0, 0.0
    index = _earlier_run(options)
    first: Item | None = None
    for sample in _with_progress(stream_samples(options.input), "reading", None):
        samples += 1
        extended += sample.is_extended
        for item in items_for(iter([sample]), prompt):
            pairs += 1
            status = index.status(item.key) if index is not None else None
            if status == "ok" or (status == "failed" and not options.retry_failed):
                known += 1
                continue
            first = first or item
            tokens = estimate_tokens(item)
            sent, received = sent + tokens[0], received + tokens[1]
    say(f"{samples:,} samples, {extended:,} of them with extended answers already")
    say(f"{pairs:,} question-answer pairs, {known:,} of them answered by an earlier run: {pairs - known:,} requests")
    say(f"about {number(round(sent))} input tokens and at most about {number(round(received))} output tokens")
    if options.price_input is None or options.price_output is None:
        say("cost: unknown; give --price-input and --price-output, per million tokens")
    else:
        say(f"cost: about {(sent * options.price_input + received * options.price_output) / 1e6:,.2f}")
    if first is not None:
        say(f"The first request says: {first.messages[-1]['content']}")
    return 0


def _earlier_run(options: argparse.Namespace) -> JournalIndex | None:
    if options.output is None or not options.resume:
        return None
    path = options.output.with_suffix(".journal.jsonl")
    return JournalIndex(path) if path.exists() else None


def _tell(summary: Summary, outcome: Outcome, output: Path, report: Path) -> None:
    cost = "" if summary.cost is None else f", cost {summary.cost:,.2f}"
    say(
        f"Asked for {summary.done + summary.failed:,} items in {duration(summary.seconds)}, {summary.attempts:,} "
        f"requests, {summary.input_tokens:,} input and {summary.output_tokens:,} output tokens{cost}"
    )
    say(
        f"{outcome.good:,} good, {sum(outcome.rejected.values()):,} rejected, {outcome.failed:,} failed of "
        f"{outcome.pairs:,} pairs; {outcome.extended:,} of {outcome.samples:,} samples have new extended answers"
    )
    say(f"Data: {output}")
    say(f"Report: {report}")


def _with_progress(values: Iterable[T], description: str, total: int | None) -> Iterator[T]:
    return iter(tqdm(values, desc=description, total=total, unit="sample", leave=False))
