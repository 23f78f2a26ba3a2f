"""From the files of a public data set to a folder in the training format."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tqdm.auto import tqdm

from exgra_adapter.atomic import complete_folder, shortened, write_json, write_text
from exgra_adapter.data.images import image_path
from exgra_adapter.data.preparation.plots import plot_statistics
from exgra_adapter.data.preparation.rows import SPLITS, Layout, Row, SourceRow, UnansweredError
from exgra_adapter.data.preparation.statistics import collect_statistics, format_statistics
from exgra_adapter.data.preparation.subsets import nested_order, rows_of_percent, split_rows

logger = logging.getLogger(__name__)

STATISTICS, REPORT, PICTURE, CANDIDATES = "statistics.json", "statistics.md", "statistics.png", "candidates.json"
MADE_BY = "exgra-med data prepare"
_EXAMPLES = 10


@dataclass(frozen=True)
class Preparation:
    """What is made of a source.

    Attributes:
        seed: Chooses subsets and splits.
        images: The folder of images, to count those that are missing; None does not look.
        missing_images: `drop` leaves samples without an image out.
        test_rephrasings: `drop` leaves training questions out that say in other words what test questions ask.
        bad_rows: `skip` leaves rows that break the format out, with a count. Rows without an answer always are.
        partial: Accept other numbers of rows than the published ones.
        percents: Subsets of the training data, in percent.
        row_counts: Subsets of the training data, in samples.
        splits: Percentages of the training images that go to `validation` and `test`.
        overwrite: Replace an output folder that an earlier run made.
    """

    seed: int = 0
    images: Path | None = None
    missing_images: Literal["keep", "drop"] = "keep"
    test_rephrasings: Literal["keep", "drop"] = "keep"
    bad_rows: Literal["raise", "skip"] = "raise"
    partial: bool = False
    percents: Sequence[float] = ()
    row_counts: Sequence[int] = ()
    splits: Mapping[str, float] = field(default_factory=dict)
    overwrite: bool = False


def prepare(layout: Layout, output: Path, how: Preparation | None = None, progress: bool = False) -> dict[str, Any]:
    """Reads a public data set and writes it as a folder, which appears only when it is complete.

    The folder holds `train.json`, `validation.json` and `test.json` where there are such rows, the subsets
    `train_10_percent.json` or `train_300_rows.json`, `candidates.json` with the answers to open training questions, and
    `statistics.json`, `.md` and `.png`.

    Args:
        layout: The data set, for example `VqaRad(folder)`.
        output: The folder to make.
        how: The options; None takes the defaults.
        progress: Show a progress bar on a terminal.

    Returns:
        What `statistics.json` holds.

    Raises:
        ValueError: The source is missing or broken, has other numbers of rows than the published one, or the output
            folder has something in it.

    Example:
        >>> import tempfile
        >>> from exgra_adapter.data.preparation.llava_med import LlavaMed
        >>> folder = Path(tempfile.mkdtemp())
        >>> talk = [{"from": "human", "value": "Describe it. <image>"}, {"from": "gpt", "value": "A chest X-ray."}]
        >>> pairs = [{"id": "1", "image": "a.jpg", "conversatons": talk}]
        >>> _ = (folder / "alignment.json").write_text(json.dumps(pairs))
        >>> prepare(LlavaMed(folder / "alignment.json"), folder / "prepared")["splits"]["train"]["rows"]
        1
    """
    how = how or Preparation()
    _require_replaceable(Path(output), how.overwrite)
    rows, skipped = _read(layout, how.bad_rows, progress)
    if not rows:
        reason = f"; the first problem: {skipped[0][1]}" if skipped else ""
        raise ValueError(f"prepare: {layout.name} must have at least one row; got none{reason}. Check the source.")
    if not how.partial:
        _check_counts(layout, rows, skipped)
    if not layout.repeated_ids:
        _check_ids(rows)
    rephrasings = [row for row in rows if row.rephrases_test]
    if how.test_rephrasings == "drop":
        rows = [row for row in rows if not row.rephrases_test]
    missing = _missing_images(rows, how.images)
    rows_without_image = sum(row.image in missing for row in rows)
    if how.missing_images == "drop":
        if how.images is None:
            raise ValueError("prepare: missing_images=drop must come with images; got no folder. Name it.")
        rows = [row for row in rows if row.image not in missing]
        if not rows:
            raise ValueError(f"prepare: {how.images} must hold images of the data set; got none of them. Check it.")
    rows = split_rows(rows, dict(how.splits), how.seed)
    by_split = {split: found for split in SPLITS if (found := [row for row in rows if row.split == split])}
    subsets = _subsets(by_split.get("train", []), how)
    candidates = _candidates(by_split.get("train", []))
    facts = {
        "made_by": MADE_BY,
        "format": 1,
        "data_set": layout.name,
        "sources": [_describe_file(file) for file in layout.files().values()],
        "seed": how.seed,
        "options": _settings(layout, how),
        "skipped_rows": {"rows": len(skipped), "examples": [reason for _, reason in skipped[:_EXAMPLES]]},
        "test_rephrasings": {"rows": len(rephrasings), "kept": how.test_rephrasings == "keep"},
        "missing_images": None
        if how.images is None
        else {
            "images": len(missing),
            "rows": rows_without_image,
            "kept": how.missing_images == "keep",
            "examples": sorted(missing)[:_EXAMPLES],
        },
        "candidates": len(candidates),
        "subsets": {name: _count(part) for name, part in subsets.items()},
        **collect_statistics(by_split),
    }
    with _folder(Path(output), how.overwrite) as folder:
        for name, part in [*by_split.items(), *subsets.items()]:
            _write_samples(folder / f"{name}.json", part)
        if candidates:
            write_json(folder / CANDIDATES, {"0": candidates})
        plot_statistics(facts, folder / PICTURE)
        write_text(folder / REPORT, format_statistics(facts, PICTURE))
        write_json(folder / STATISTICS, facts)
    return facts


def _read(layout: Layout, bad_rows: str, progress: bool) -> tuple[list[Row], list[tuple[str, str]]]:
    """Reads all rows; returns them with the split and the problem of each that was skipped."""
    rows: list[Row] = []
    skipped: list[tuple[str, str]] = []
    for row in tqdm(layout.read(), desc=f"reading {layout.name}", unit=" rows", disable=None if progress else True):
        converted, problem = _convert(layout, row, bad_rows)
        rows += converted
        if problem is not None:
            skipped.append((row.split, problem))
    if skipped:
        logger.warning("%d rows of the source are left out; the first: %s", len(skipped), skipped[0][1])
    return rows, skipped


def _convert(layout: Layout, row: SourceRow, bad_rows: str) -> tuple[list[Row], str | None]:
    try:
        return layout.convert(row), None
    except UnansweredError as error:
        return [], str(error)
    except ValueError as error:
        if bad_rows == "raise":
            raise ValueError(f"{error} Or leave such rows out with --bad-rows skip.") from None
        return [], str(error)


def _check_counts(layout: Layout, rows: list[Row], skipped: list[tuple[str, str]]) -> None:
    """Compares with the published counts, in which rows are that have been skipped here."""
    got = {split: Counter(_count([row for row in rows if row.split == split])) for split in SPLITS}
    for split, _ in skipped:
        if split in got:
            got[split]["rows"] += 1
    wrong = [
        f"{got[split][kind]} instead of {count} {split} {kind if kind == 'rows' else f'rows of type {kind}'}"
        for split, counts in layout.expected().items()
        for kind, count in counts.items()
        if got[split][kind] != count
    ]
    if wrong:
        raise ValueError(
            f"prepare: {layout.name} must have as many rows as the published data set; got {'; '.join(wrong)}. "
            "Complete the source, or accept a part of it with --partial."
        )


def _check_ids(rows: list[Row]) -> None:
    first: dict[str, str] = {}
    for row in rows:
        earlier = first.setdefault(row.sample["id"], row.where)
        if earlier is not row.where:
            raise ValueError(
                f"{row.where} must have an id of its own; got {row.sample['id']!r}, which occurs before: {earlier}. "
                "Remove the row that is there twice."
            )


def _missing_images(rows: list[Row], folder: Path | None) -> set[str]:
    if folder is None:
        return set()
    if not folder.is_dir():
        raise ValueError(f"prepare: images must be an existing folder; got {folder}. Check the path.")
    return {image for image in {row.image for row in rows} if not image_path(folder, image).is_file()}


def _subsets(rows: list[Row], how: Preparation) -> dict[str, list[Row]]:
    sizes = {f"train_{percent:g}_percent": rows_of_percent(percent, len(rows)) for percent in how.percents}
    sizes |= {f"train_{count}_rows": count for count in how.row_counts}
    for name, size in sizes.items():
        if not 0 < size <= len(rows):
            raise ValueError(
                f"prepare: the subset {name} must have at least 1 and at most {len(rows)} rows, those of the training "
                f"data; got {size}. Choose another size."
            )
    order = nested_order(rows, how.seed) if sizes else []
    return {name: [rows[position] for position in sorted(order[:size])] for name, size in sizes.items()}


def _candidates(rows: list[Row]) -> list[str]:
    """Answers to open training questions as people phrased them, in small letters, in the order of appearance."""
    asked = (row for row in rows if row.answer_type == "OPEN" and row.phrased_by_people)
    return list(dict.fromkeys(answer.lower() for row in asked for answer in row.texts("gpt")))


def _count(rows: list[Row]) -> dict[str, int]:
    return {"rows": len(rows), **Counter(row.answer_type for row in rows if row.answer_type)}


def _settings(layout: Layout, how: Preparation) -> dict[str, Any]:
    settings = {key: value for key, value in vars(layout).items() if key != "source"}
    settings |= {key: value for key, value in vars(how).items() if key not in ("seed", "overwrite")}
    in_json = {Path: str, tuple: list}
    return {
        key: next((convert(value) for kind, convert in in_json.items() if isinstance(value, kind)), value)
        for key, value in settings.items()
    }


def _describe_file(file: Path) -> dict[str, Any]:
    with file.open("rb") as content:
        digest = hashlib.sha256()
        for piece in iter(lambda: content.read(1 << 20), b""):
            digest.update(piece)
    return {"file": file.name, "bytes": file.stat().st_size, "sha256": digest.hexdigest()}


def _write_samples(path: Path, rows: list[Row]) -> None:
    """Writes a JSON list with one sample per line; the folder around it is what appears atomically."""
    with path.open("w", encoding="utf-8") as file:
        for position, row in enumerate(rows):
            file.write("[\n" if position == 0 else ",\n")
            file.write(json.dumps(row.sample, ensure_ascii=False))
        file.write("\n]\n")


def _require_replaceable(output: Path, overwrite: bool) -> None:
    """Refuses to replace what no earlier run has made."""
    if not overwrite or not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    try:
        made_by = json.loads((output / STATISTICS).read_text(encoding="utf-8")).get("made_by")
    except (OSError, ValueError, AttributeError):
        made_by = None
    if made_by != MADE_BY:
        raise ValueError(
            f"prepare: overwrite must meet a folder that `{MADE_BY}` made; got {output}, which has something else in "
            "it. Choose another name, or remove it first."
        )


@contextmanager
def _folder(output: Path, overwrite: bool) -> Iterator[Path]:
    """A hidden folder that becomes `output`; an earlier one stays until the new one is complete."""
    if not overwrite or not output.exists():
        with complete_folder(output, "prepare") as folder:
            yield folder
        return
    with tempfile.TemporaryDirectory(
        dir=output.parent, prefix=f".{shortened(output.name)}.", suffix=".partial"
    ) as place:
        with complete_folder(Path(place) / "new", "prepare") as folder:
            yield folder
        earlier = output.replace(Path(place) / "old")
        try:
            (Path(place) / "new").replace(output)
        except BaseException:
            earlier.replace(output)
            raise
