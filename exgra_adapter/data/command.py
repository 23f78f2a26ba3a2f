"""The command `exgra-med data`: what is wrong with a data set, before training depends on it; public data sets."""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from exgra_adapter.atomic import write_json
from exgra_adapter.console import complain, natural, positive, say
from exgra_adapter.data.preparation import command as preparation

if TYPE_CHECKING:
    from exgra_adapter.data.check import DataReport

_DESCRIPTION = """\
Reads every sample, decodes every image and, with a tokenizer, counts every token; lists all that is wrong.
  exgra-med data check train.json --images images --tokenizer runs/stage1 --json report.json --plot report.png

Data: a .json list, .jsonl, .parquet, .tar shards in WebDataset's layout, a folder of them, or a pattern in quotes such
as 'train-*.parquet' or 'shard-{000000..000009}.tar'. Images: a folder, or uncompressed .tar archives; left out, the
images inside parquet files and shards."""

_EPILOG = """\
A problem is what training with the same settings would stop at; a note is worth a look.

Exit codes: 0 no problems, 1 problems found, or a sentence that says why nothing could be checked, 2 wrong usage."""

_SHOWN = 10
_WIDTH = 160


def add_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
    parents: Sequence[argparse.ArgumentParser] = (),
) -> None:
    """Adds `data check` and `data prepare`; parsed options get a `run` that takes them and returns the exit code."""
    data = subparsers.add_parser(
        "data", allow_abbrev=False, help="prepare public data sets, check data before training"
    )
    kinds = data.add_subparsers(title="what to do with the data", required=True, metavar="{check,prepare}")
    preparation.add_parser(kinds, parents)
    check = kinds.add_parser(
        "check",
        parents=list(parents),
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        help="samples, images, duplicates, token lengths",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    check.add_argument("data", metavar="DATA", type=Path, help="file, folder or pattern of records")
    check.add_argument("--images", metavar="PATH", type=Path, help="folder or .tar archives of images")
    check.add_argument("--tokenizer", metavar="DIR", type=Path, help="model folder; adds token lengths")
    check.add_argument(
        "--image-tokens", metavar="N", type=natural, help="tokens of an image (default: as config.json there says)"
    )
    check.add_argument(
        "--max-length",
        metavar="N",
        type=positive,
        default=2048,
        help="longest conversation in tokens, image included (default: %(default)s)",
    )
    check.add_argument(
        "--bad-samples",
        choices=("raise", "skip"),
        default="raise",
        help="skip: missing and unreadable images are no problem, training leaves them out (default: %(default)s)",
    )
    check.add_argument("--allow-duplicate-ids", action="store_true", help="ids that occur again are no problem")
    check.add_argument("--workers", metavar="N", type=positive, help="threads that decode images (default: at most 8)")
    check.add_argument(
        "--json", metavar="FILE|-", help="write all findings here; - writes them to standard output instead"
    )
    check.add_argument(
        "--plot", metavar="FILE", type=Path, help="draw token lengths and image sizes into this PNG file"
    )
    check.set_defaults(run=_run, usage_error=check.error)


def format_report(report: DataReport) -> str:
    """Formats a report: numbers first, then the findings of every kind, at most ten of each.

    Example:
        >>> from exgra_adapter.data.check import DataReport, Finding
        >>> report = DataReport("train.json", "folder images", samples=2, turns=2, image_names=2)
        >>> error = "open_image: images/a.png must be an existing image file"
        >>> report.findings.append(Finding("missing_image", "a.png", "record 7", True, error))
        >>> print(format_report(report))
        train.json: 2 samples with 2 turns
        folder images: 2 names of images
        extended answers: 2 of 2 turns
        <BLANKLINE>
        Problem: missing images: 1
          open_image: images/a.png must be an existing image file
          a.png: record 7
        <BLANKLINE>
        1 problem, 0 notes.
    """
    from exgra_adapter.data.check import KINDS

    kinds = ", ".join(f"{count} {kind}" for kind, count in report.answer_types.items())
    extended = report.turns - report.turns_without_extended_answer
    lines = [
        f"{report.data}: {report.samples} samples with {report.turns} turns" + (f" ({kinds})" if kinds else ""),
        f"{report.images}: {report.image_names} names of images" + _sizes(report),
        f"extended answers: {extended} of {report.turns} turns",
    ]
    if report.repeated:
        shared = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in report.repeated.items())
        lines.append(f"samples that share something with another sample: {shared}")
    if report.tokens:
        lines += ["", f"{'tokens':<18} {'min':>7} {'median':>9} {'95 %':>7} {'max':>7}"]
        for name, values in report.tokens.items():
            lines.append(
                f"{name.replace('_', ' '):<18} {values.minimum:>7} {values.median:>9.1f} "
                f"{values.percentile_95:>7} {values.maximum:>7}"
            )
    for kind, (_, title) in KINDS.items():
        found = [finding for finding in report.findings if finding.kind == kind]
        if found:
            lines += ["", f"{'Problem' if found[0].problem else 'Note'}: {title}: {len(found)}"]
            lines += [f"  {found[0].message}"] if found[0].message else []
            lines += [f"  {_shorten(f'{finding.subject}: {finding.detail}')}" for finding in found[:_SHOWN]]
            if len(found) > _SHOWN:
                lines.append(f"  and {len(found) - _SHOWN} more")
    notes = len(report.findings) - report.problems
    lines += ["", f"{_count(report.problems, 'problem')}, {_count(notes, 'note')}."]
    return "\n".join(lines)


def _run(options: argparse.Namespace) -> int:
    from PIL import Image

    from exgra_adapter.data.check import check_records
    from exgra_adapter.data.lengths import TokenCounter
    from exgra_adapter.data.stores import open_image_store

    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # it becomes a finding
    store = open_image_store(options.images, options.data)
    tokens = TokenCounter.from_folder(options.tokenizer, options.image_tokens) if options.tokenizer else None
    report = check_records(
        options.data,
        store,
        tokens,
        options.max_length,
        options.bad_samples,
        options.allow_duplicate_ids,
        options.workers,
        progress=True,
    )
    content = report.to_json()
    if options.json == "-":
        say(json.dumps(content, indent=2))
    else:
        say(format_report(report))
        if options.json is not None:
            write_json(Path(options.json), content)
    if options.plot is not None:
        from exgra_adapter.data.plots import plot_report

        plot_report(report, options.plot, options.max_length)
    if report.samples == 0:
        complain(f"Error: check_records: data must hold at least one sample; got none in {options.data}. Add samples.")
        return 1
    return 1 if report.problems else 0


def _sizes(report: DataReport) -> str:
    if not report.image_sizes:
        return ""
    widths, heights = zip(*report.image_sizes, strict=True)
    low, high = f"{min(widths)} x {min(heights)}", f"{max(widths)} x {max(heights)}"
    return f", {low} to {high} pixels" if low != high else f", {low} pixels"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _WIDTH else line[: _WIDTH - 3] + "..."
