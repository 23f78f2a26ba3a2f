"""The command `exgra-med data prepare`: public data sets in the training format."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from exgra_adapter.console import natural, positive, say

_DESCRIPTION = """\
Turns the files of a public data set, which you have downloaded, into the training format.
  exgra-med data prepare vqa-rad "VQA_RAD Dataset Public.json" --output data/vqa_rad --images images
  exgra-med data prepare slake Slake1.0 --output data/slake --subset 1 5 10 20 40 50

Writes into the output folder, all at once: train.json, validation.json, test.json, a file per subset,
candidates.json (answers to open training questions), statistics.md with statistics.png, statistics.json.
Numbers of rows are compared with the published ones. Nothing is downloaded, and pickles are never opened."""

_SOURCES = {
    "vqa-rad": "the published JSON file, or a folder with trainset.json and testset.json",
    "slake": "folder with train.json, validate.json, test.json (Slake1.0)",
    "pathvqa": "folder with pvqa_train.json, pvqa_val.json, pvqa_test.json (LXMERT layout), or one such file",
    "llava-med": "one JSON file: alignment pairs or instructions",
}


def add_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
    parents: Sequence[argparse.ArgumentParser] = (),
) -> None:
    """Adds `prepare`; the parsed options get a `run` that takes them and returns the exit code."""
    form = argparse.RawDescriptionHelpFormatter
    prepare = subparsers.add_parser(
        "prepare",
        allow_abbrev=False,
        formatter_class=form,
        help="a public data set in the training format",
        description=_DESCRIPTION,
    )
    data_sets = prepare.add_subparsers(title="data sets", required=True, metavar="{" + ",".join(_SOURCES) + "}")
    for name, source in _SOURCES.items():
        parser = data_sets.add_parser(
            name, parents=list(parents), allow_abbrev=False, formatter_class=form, help=source, description=_DESCRIPTION
        )
        parser.add_argument("source", metavar="SOURCE", type=Path, help=f"{source}; .gz and .xz are read too")
        _add_own_options(parser, name)
        _add_shared_options(parser)
        parser.set_defaults(run=_run, data_set=name)


def _add_own_options(parser: argparse.ArgumentParser, name: str) -> None:
    own = parser.add_argument_group(f"options of {name}")
    if name == "vqa-rad":
        own.add_argument(
            "--test-rephrasings",
            choices=("keep", "drop"),
            default="keep",
            help="training questions that are test questions in a template; the customary 3,064 training questions "
            "contain them (default: %(default)s)",
        )
    if name == "slake":
        own.add_argument(
            "--language", choices=("en", "zh", "all"), default="en", help="language of the rows (default: %(default)s)"
        )
    if name == "pathvqa":
        own.add_argument(
            "--ids",
            choices=("unique", "image"),
            default="unique",
            help="number the questions of an image, or repeat its id as published files do, which training then has "
            "to be told (default: %(default)s)",
        )
    if name == "llava-med":
        parser.set_defaults(answer_options="none")
    else:
        own.add_argument(
            "--answer-options",
            choices=("yes-no", "none"),
            default="yes-no",
            help="whether closed yes/no questions end with their two options (default: %(default)s)",
        )


def _add_shared_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", metavar="DIR", type=Path, required=True, help="new folder for the prepared data")
    parser.add_argument("--overwrite", action="store_true", help="replace a folder that an earlier run of this made")
    parser.add_argument("--images", metavar="DIR", type=Path, help="image folder; counts the images that are missing")
    parser.add_argument(
        "--missing-images",
        choices=("keep", "drop"),
        default="keep",
        help="samples without image (default: %(default)s)",
    )
    parser.add_argument(
        "--subset",
        metavar="PERCENT",
        type=float,
        nargs="+",
        default=(),
        help="also write subsets of the training data, such as 1 5 10 20 40 50; smaller ones are contained in larger",
    )
    parser.add_argument(
        "--subset-rows", metavar="N", type=positive, nargs="+", default=(), help="the same, by numbers of samples"
    )
    for split in ("validation", "test"):
        parser.add_argument(
            f"--{split}",
            metavar="PERCENT",
            type=float,
            help=f"make a {split} split of so many training images, where the source has none",
        )
    parser.add_argument(
        "--seed", metavar="N", type=natural, default=0, help="of subsets and splits (default: %(default)s)"
    )
    parser.add_argument("--partial", action="store_true", help="accept other numbers of rows than the published ones")
    parser.add_argument(
        "--bad-rows",
        choices=("raise", "skip"),
        default="raise",
        help="stop at a row that breaks the format, or skip and count it; rows without an answer are always skipped "
        "(default: %(default)s)",
    )


def _run(options: argparse.Namespace) -> int:
    from exgra_adapter.data.preparation.prepare import REPORT, Preparation, prepare

    splits = {split: share for split in ("validation", "test") if (share := getattr(options, split)) is not None}
    how = Preparation(
        seed=options.seed,
        images=options.images,
        missing_images=options.missing_images,
        test_rephrasings=getattr(options, "test_rephrasings", "keep"),
        bad_rows=options.bad_rows,
        partial=options.partial,
        percents=tuple(options.subset),
        row_counts=tuple(options.subset_rows),
        splits=splits,
        overwrite=options.overwrite,
    )
    facts = prepare(_layout(options), options.output, how, progress=True)
    say(format_summary(facts))
    say(f"Statistics: {options.output / REPORT}")
    return 0


def _layout(options: argparse.Namespace) -> Any:
    from exgra_adapter.data.preparation.llava_med import LlavaMed
    from exgra_adapter.data.preparation.pathvqa import PathVqa
    from exgra_adapter.data.preparation.slake import Slake
    from exgra_adapter.data.preparation.vqa_rad import VqaRad

    with_options = options.answer_options == "yes-no"
    if options.data_set == "vqa-rad":
        return VqaRad(options.source, with_options)
    if options.data_set == "slake":
        return Slake(options.source, options.language, with_options)
    if options.data_set == "pathvqa":
        return PathVqa(options.source, options.ids, with_options)
    return LlavaMed(options.source)


def format_summary(facts: dict[str, Any]) -> str:
    """Formats what was written, a line per file.

    Example:
        >>> split = {"rows": 3, "OPEN": 1, "CLOSED": 2, "images": 2}
        >>> facts = {"splits": {"test": split}, "subsets": {}, "candidates": 0, "missing_images": None}
        >>> print(format_summary(facts | {"skipped_rows": {"rows": 0}}))
        test.json          3 samples (1 open, 2 closed), 2 images
    """
    lines = []
    for name, part in [*facts["splits"].items(), *facts["subsets"].items()]:
        kinds = f"{part.get('OPEN', 0)} open, {part.get('CLOSED', 0)} closed"
        stated = part.get("OPEN", 0) + part.get("CLOSED", 0)
        images = f", {part['images']} images" if "images" in part else ""
        lines.append(f"{name + '.json':<18} {part['rows']} samples{f' ({kinds})' if stated else ''}{images}")
    if facts["candidates"]:
        lines.append(f"{'candidates.json':<18} {facts['candidates']} answers")
    missing = facts["missing_images"]
    if missing is not None:
        fate = "kept" if missing["kept"] else "left out"
        lines.append(f"missing images: {missing['images']}; {missing['rows']} samples without image, {fate}")
    if facts["skipped_rows"]["rows"]:
        lines.append(f"rows left out: {facts['skipped_rows']['rows']}")
    return "\n".join(lines)
