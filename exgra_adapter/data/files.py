"""Files of records: one file, many shards, read whole or as a stream.

| name | content |
|---|---|
| `.json`, `.json.gz` | a list of samples |
| `.jsonl`, `.jsonl.gz` | a sample per line |
| `.parquet` | a sample per row: columns `id`, `image`, `conversations`, `conversations_long`, `answer_type` |
| `.tar` | WebDataset's layout: `KEY.json` with the sample and beside it its image |

Several files are named by a folder that holds one kind of them, by a pattern such as `train-*.parquet`, or by numbers
in braces, `shard-{000000..000009}.tar`; they are read in the order of their names.
"""

from __future__ import annotations

import fnmatch
import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from exgra_adapter.data.formats import RawSample, read_json_lines, read_json_list, read_parquet, read_tar
from exgra_adapter.data.records import Record, parse_sample

SHARD_SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet", ".tar")
"""Kinds of files that a folder may hold many of."""

_RANKS = 2**64
_MOST_FILES = 1_000_000


def read_records(path: Path, allow_duplicate_ids: bool = False) -> list[Record]:
    """Reads and checks all records of a file, of a folder or of a pattern.

    Args:
        path: The file or files, as this module's table says.
        allow_duplicate_ids: Accept ids that occur more than once; published PathVQA files number images, not questions.

    Returns:
        The records in the order of the files.

    Raises:
        ValueError: A file is missing or broken, or a sample breaks the format; the message names the file, the
            sample's number (from 0), its id and the key.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "train.jsonl"
        >>> messages = [{"from": "human", "value": "Is there a lesion? <image>"}, {"from": "gpt", "value": "yes"}]
        >>> _ = path.write_text(json.dumps({"id": 1, "image": "a.png", "conversations": messages}))
        >>> read_records(path)[0].turns[0].question
        'Is there a lesion?'
    """
    records: list[Record] = []
    first_place: dict[str, str] = {}
    for sample in raw_samples(path, "read_records"):
        record = parse_raw_sample(sample, "read_records")
        if not allow_duplicate_ids:
            earlier = first_place.setdefault(record.id, sample.where)
            if earlier != sample.where:
                raise ValueError(
                    f"read_records: ids must be unique; got id {record.id!r} at {earlier} and at {sample.where}. "
                    "Rename one, or allow duplicate ids if they name images rather than questions."
                )
        records.append(record)
    return records


def stream_records(path: Path) -> Iterator[Record]:
    """Reads and checks records one after the other, in constant memory for every format.

    Ids are not compared with each other, which would need memory for all of them.

    Args:
        path: The file or files, as this module's table says.

    Yields:
        The records in the order of the files.

    Raises:
        ValueError: As `read_records`, when the reading gets there.
    """
    for sample in raw_samples(path, "stream_records"):
        yield parse_raw_sample(sample, "stream_records")


def sample_fraction(records: Sequence[Record], fraction: float, seed: int) -> list[Record]:
    """Chooses a part of the records for data-efficiency runs.

    Records are ranked by a hash of the seed and their content, and the first of the ranking are kept. So a smaller part
    is contained in a larger one of the same seed, and the order of the file does not matter.

    Args:
        records: The records.
        fraction: The part to keep, above 0 and at most 1; rounded to whole records, at least one.
        seed: Chooses the ranking.

    Returns:
        The chosen records, in their old order.

    Raises:
        ValueError: `fraction` is not above 0 and at most 1.

    Example:
        >>> from exgra_adapter.data.records import Turn
        >>> records = [Record(str(i), "a.png", (Turn("?", "yes"),)) for i in range(10)]
        >>> [record.id for record in sample_fraction(records, 0.3, seed=0)]
        ['0', '5', '9']
    """
    require_fraction(fraction, "sample_fraction")
    count = max(1, round(fraction * len(records)))
    ranked = sorted(range(len(records)), key=lambda index: _rank(records[index], seed))
    return [records[index] for index in sorted(ranked[:count])]


def in_fraction(record: Record, fraction: float, seed: int) -> bool:
    """Whether a record of a stream belongs to the chosen part; the size of the part is right on average only.

    Parts of the same seed contain each other, as those of `sample_fraction` do.
    """
    return _rank(record, seed) < fraction * _RANKS


def require_fraction(fraction: float, caller: str) -> None:
    """Raises ValueError unless `fraction` is above 0 and at most 1."""
    if not 0 < fraction <= 1:
        raise ValueError(f"{caller}: fraction must be above 0 and at most 1; got {fraction}. Use 0.1 for 10 %.")


def record_files(path: Path, caller: str) -> list[Path]:
    """Finds the files that a path, a folder or a pattern names, in the order of their names.

    Raises:
        ValueError: There are none, or a folder holds several kinds.
    """
    path = Path(path)
    if path.is_dir():
        return _folder_files(path, caller)
    if path.exists() or not re.search(r"[{*?\[]", str(path)):
        return [path]
    found: list[Path] = []
    for name in _expand_braces(str(path)):
        pattern = Path(name)
        if re.search(r"[*?\[]", name):
            parts = pattern.parts[1:] if pattern.is_absolute() else pattern.parts
            matches = Path(pattern.anchor).glob(str(Path(*parts)))
            found += [match for match in matches if not match.name.startswith(".")]
        else:
            found.append(pattern)
    if not found:
        raise ValueError(f"{caller}: path must match at least one file; got {path}, which matches none. Correct it.")
    return sorted(set(found))


def names_file(path: Path, file: Path) -> bool:
    """Whether a path, a folder or a pattern of records stands for a file, which need not exist.

    Example:
        >>> names_file(Path("data/train-*.jsonl"), Path("data/train-long.jsonl"))
        True
    """
    path, file = Path(path), Path(file)
    if path.is_dir():
        return file.resolve().parent == path.resolve()
    if path.exists() or not re.search(r"[{*?\[]", str(path)):
        return file.resolve() == path.resolve()
    place = str(file.absolute())
    for name in _expand_braces(str(path.absolute())):
        same_folder = "**" in name or name.count(os.sep) == place.count(os.sep)
        if same_folder and fnmatch.fnmatchcase(place, name):
            return True
    return False


def raw_samples(path: Path, caller: str, with_images: bool = False) -> Iterator[RawSample]:
    """Reads the samples of all files unchecked, one after the other.

    Args:
        path: The file or files.
        caller: Opens the message of errors.
        with_images: Read images inside parquet files with the samples, instead of saying where they lie.

    Raises:
        ValueError: A file cannot be read.
    """
    return itertools.chain.from_iterable(file_samples(file, caller, with_images) for file in record_files(path, caller))


def file_samples(file: Path, caller: str, with_images: bool = False) -> Iterator[RawSample]:
    """Reads the samples of one file unchecked; arguments and errors are those of `raw_samples`."""
    name = file.name.lower()
    if name.endswith((".jsonl", ".jsonl.gz")):
        return read_json_lines(file, caller)
    if name.endswith(".parquet"):
        return read_parquet(file, caller, with_images)
    if name.endswith((".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst")):
        return read_tar(file, caller)
    return read_json_list(file, caller)


def parse_raw_sample(sample: RawSample, caller: str) -> Record:
    """Checks one sample of a file.

    Raises:
        ValueError: It could not be decoded or breaks the format.
    """
    if sample.error is not None:
        raise ValueError(f"{caller}: {sample.where} {sample.error}.")
    return parse_sample(sample.content, f"{caller}: {sample.where}")


def _folder_files(folder: Path, caller: str) -> list[Path]:
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and not file.name.startswith(".")]
    kinds = {kind: [file for file in files if file.name.endswith(kind)] for kind in SHARD_SUFFIXES}
    present = [kind for kind, found in kinds.items() if found]
    if len(present) != 1:
        raise ValueError(
            f"{caller}: {folder} must be a readable file, or a folder with one kind of {', '.join(SHARD_SUFFIXES)} "
            f"files; got a folder with {' and '.join(present) or 'none'}. Name the files by a pattern."
        )
    return kinds[present[0]]


def _expand_braces(text: str) -> list[str]:
    """Expands the first braces, and those behind them by recursion: `{08..10}` to 08, 09, 10 and `{a,b}` to a, b."""
    match = re.search(r"\{([^{}]*)\}", text)
    if match is None:
        return [text]
    numbers = re.fullmatch(r"(\d+)\.\.(\d+)", match[1])
    if numbers:
        width = len(numbers[1])
        if int(numbers[2]) - int(numbers[1]) > _MOST_FILES:
            raise ValueError(
                f"record_files: braces must stand for at most {_MOST_FILES} files; got {match[0]}. Correct the numbers."
            )
        choices = [f"{number:0{width}}" for number in range(int(numbers[1]), int(numbers[2]) + 1)]
    else:
        choices = match[1].split(",")
    return [text[: match.start()] + choice + rest for choice in choices for rest in _expand_braces(text[match.end() :])]


def _rank(record: Record, seed: int) -> int:
    content = [seed, record.id, record.image, [(turn.question, turn.answer) for turn in record.turns]]
    digest = hashlib.blake2b(json.dumps(content).encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(digest, "big")
