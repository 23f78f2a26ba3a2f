"""What is wrong with a data set, found before hours of training depend on it.

`check_records` reads everything, lists every finding and never stops at one; `check_images` is the part that training
runs first.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, cast

from PIL import Image
from tqdm import tqdm

from exgra_adapter.data.dataset import BadSamples
from exgra_adapter.data.files import parse_raw_sample, raw_samples
from exgra_adapter.data.images import ImageError, MissingImageError
from exgra_adapter.data.lengths import LengthStatistics, TokenCounter
from exgra_adapter.data.records import TURN_KEYS, Record, shows_nothing
from exgra_adapter.data.stores import FolderStore, ImageStore

SMALL_SIDE = 32
"""Images with a shorter side are suspicious: the models see 224 pixels and more."""
HUGE_PIXELS = 25_000_000
"""Images with more pixels are suspicious: decoding one takes as long as a training step."""

KINDS: dict[str, tuple[bool, str]] = {
    "broken_sample": (True, "samples that break the format"),
    "empty_answer": (True, "empty answers"),
    "duplicate_id": (True, "ids that occur more than once"),
    "missing_image": (True, "missing images"),
    "unreadable_image": (True, "unreadable images"),
    "special_token": (True, "texts that spell a special token of the model"),
    "no_room": (True, "samples whose first answer lies beyond max_length"),
    "too_long": (False, "samples that are cut at max_length"),
    "no_extended_answer": (False, "samples without extended answers"),
    "duplicate_sample": (False, "samples that repeat image and conversation of another one"),
    "same_image": (False, "images that look the same under different names"),
    "small_image": (False, f"images with a side below {SMALL_SIDE} pixels"),
    "huge_image": (False, f"images of more than {HUGE_PIXELS // 1_000_000} million pixels"),
    "blank_image": (False, "images of a single colour"),
}
"""Every kind of finding: whether training would stop at it, and what it is called."""

_AT_ONCE = 256
_Find: TypeAlias = Callable[..., None]


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Attributes:
        kind: A key of `KINDS`.
        subject: The record's id, the image's name, or the sample's place in its file.
        detail: What is the matter.
        problem: Whether training would stop at it; otherwise it is worth a look.
        message: The whole error of a missing image; empty for other findings.
    """

    kind: str
    subject: str
    detail: str
    problem: bool
    message: str = ""


@dataclass
class DataReport:
    """What `check_records` found.

    Attributes:
        data: The file or files of records.
        images: What the images are in.
        samples: Samples in the files, broken ones included.
        turns: Turns of the samples that could be read.
        image_names: Different names of images.
        answer_types: Samples by answer type; `"none"` where the file does not say.
        turns_without_extended_answer: Turns without an extended answer.
        repeated: Samples that share `"image"`, `"answers"` or `"extended_answers"` with another sample;
            in one batch they are interchangeable.
        tokens: Token lengths of `"conversation"`, `"answers"` and `"extended_answers"`, where a tokenizer was given.
        findings: All findings.
        token_lengths: The lengths themselves, for plots; not written to files.
        image_sizes: Width and height of every readable image, for plots; not written to files.
    """

    data: str
    images: str
    samples: int = 0
    turns: int = 0
    image_names: int = 0
    answer_types: dict[str, int] = field(default_factory=dict)
    turns_without_extended_answer: int = 0
    repeated: dict[str, int] = field(default_factory=dict)
    tokens: dict[str, LengthStatistics] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    token_lengths: dict[str, list[int]] = field(default_factory=dict)
    image_sizes: list[tuple[int, int]] = field(default_factory=list)

    @property
    def problems(self) -> int:
        """How many findings training would stop at."""
        return sum(finding.problem for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Everything but the raw lengths and sizes, the findings grouped by kind."""
        groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for finding in self.findings:
            entry = {"subject": finding.subject, "detail": finding.detail}
            groups[finding.kind].append(entry | ({"message": finding.message} if finding.message else {}))
        return {
            "format": 1,
            "data": self.data,
            "images": self.images,
            "samples": self.samples,
            "turns": self.turns,
            "image_names": self.image_names,
            "answer_types": self.answer_types,
            "turns_without_extended_answer": self.turns_without_extended_answer,
            "repeated": self.repeated,
            "tokens": {name: vars(statistics) for name, statistics in self.tokens.items()},
            "problems": self.problems,
            "counts": {kind: len(found) for kind, found in groups.items()},
            "findings": groups,
        }


@dataclass(frozen=True)
class _ImageFacts:
    error: ImageError | None = None
    size: tuple[int, int] = (0, 0)
    digest: bytes = b""
    blank: bool = False


def check_records(
    data: Path,
    store: ImageStore | Path,
    tokens: TokenCounter | None = None,
    max_length: int = 2048,
    bad_samples: BadSamples = "raise",
    allow_duplicate_ids: bool = False,
    workers: int | None = None,
    progress: bool = False,
) -> DataReport:
    """Reads all records, decodes all images, counts all tokens, and lists what is wrong or worth a look.

    A finding is a problem where training with the same settings would stop at it, or lose the sample silently.

    Args:
        data: The file or files of records, see `exgra_adapter.data.files`.
        store: Where the images are; a path is a folder of images.
        tokens: Counts tokens; None leaves out whatever depends on a tokenizer.
        max_length: Longest conversation in tokens, image included.
        bad_samples: With `"skip"`, missing and unreadable images are no problem: training leaves them out.
        allow_duplicate_ids: Whether ids that occur more than once are no problem.
        workers: Threads that decode images; None for as many as there are processors, at most 8.
        progress: Show progress bars.

    Returns:
        The report.

    Raises:
        ValueError: A file cannot be read at all.

    Example:
        >>> import tempfile
        >>> from exgra_adapter.data.records import Turn, write_records
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_records(folder / "train.json", [Record("7", "a.png", (Turn("Is it a liver?", "yes"),))])
        >>> report = check_records(folder / "train.json", folder)
        >>> [(finding.kind, finding.subject) for finding in report.findings]
        [('missing_image', 'a.png')]
    """
    store = FolderStore(store) if isinstance(store, Path) else store
    report = DataReport(str(data), store.describe())
    allowed = {"missing_image", "unreadable_image"} if bad_samples == "skip" else set()
    allowed |= {"duplicate_id"} if allow_duplicate_ids else set()

    def find(kind: str, subject: str, detail: str, message: str = "") -> None:
        report.findings.append(Finding(kind, subject, detail, KINDS[kind][0] and kind not in allowed, message))

    records = _read_tolerantly(data, report, find, progress)
    report.turns = sum(len(record.turns) for record in records)
    report.answer_types = dict(sorted(Counter(record.answer_type or "none" for record in records).items()))
    _check_texts(records, report, find)
    _check_all_images(records, store, report, find, workers, progress)
    if tokens is not None:
        _check_tokens(records, tokens, max_length, report, find, progress)
    order = list(KINDS)
    report.findings.sort(key=lambda finding: order.index(finding.kind))
    return report


def check_images(
    records: Sequence[Record],
    store: ImageStore | Path,
    skip_bad: bool,
    progress: bool = False,
    workers: int | None = None,
) -> tuple[list[Record], int, str | None]:
    """Decodes every image once, before hours of training depend on it.

    Args:
        records: The records.
        store: Where the images are; a path is a folder of images.
        skip_bad: Leave out records with a bad image instead of raising.
        progress: Show a progress bar.
        workers: Threads that decode images; None for as many as there are processors, at most 8.

    Returns:
        The records with readable images, how many were left out, and why the first of them was.

    Raises:
        ImageError: An image is bad and `skip_bad` is False; the message names the first record that has it.
    """
    store = FolderStore(store) if isinstance(store, Path) else store
    users: dict[str, str] = {}
    for record in records:
        users.setdefault(record.image, record.id)
    bad: dict[str, str] = {}
    for name, facts in _inspect(list(users), store, workers, progress, facts_wanted=False):
        if facts.error is not None:
            if not skip_bad:
                raise ImageError(f"record {users[name]!r}: {facts.error}")
            bad[name] = str(facts.error)
    kept = [record for record in records if record.image not in bad]
    return kept, len(records) - len(kept), next(iter(bad.values()), None)


def _read_tolerantly(data: Path, report: DataReport, find: _Find, progress: bool) -> list[Record]:
    records: list[Record] = []
    places: dict[str, list[str]] = defaultdict(list)
    for sample in tqdm(
        raw_samples(data, "check_records"), desc="reading samples", unit="sample", disable=not progress, leave=False
    ):
        report.samples += 1
        try:
            record = parse_raw_sample(sample, "check_records")
        except ValueError as error:
            detail = str(error).removeprefix(f"check_records: {sample.where}").strip(" :")
            find("empty_answer" if _has_empty_answer(sample.content) else "broken_sample", sample.where, detail)
            continue
        records.append(record)
        places[record.id].append(sample.where)
    for identifier, where in places.items():
        if len(where) > 1:
            find("duplicate_id", identifier, f"{len(where)} times: {_first(where)}")
    return records


def _has_empty_answer(content: Any) -> bool:
    if not isinstance(content, Mapping):
        return False
    messages: list[Any] = next((content[key] for key in TURN_KEYS if isinstance(content.get(key), list)), [])
    answers = [
        message.get("value") for message in messages if isinstance(message, Mapping) and message.get("from") == "gpt"
    ]
    return any(answer is None or (isinstance(answer, str) and shows_nothing(answer)) for answer in answers)


def _check_texts(records: Sequence[Record], report: DataReport, find: _Find) -> None:
    bare = [(r, sum(not turn.extended_answer for turn in r.turns)) for r in records]
    report.turns_without_extended_answer = sum(count for _, count in bare)
    if report.turns_without_extended_answer < report.turns:  # where nobody wanted any, one number says it all
        for record, count in bare:
            if count:
                find("no_extended_answer", record.id, f"{count} of {len(record.turns)} turns")
    first: dict[Any, str] = {}
    for record in records:
        key = (record.image, tuple((turn.question, turn.answer) for turn in record.turns))
        if key in first:
            find("duplicate_sample", record.id, f"same as {first[key]!r}")
        else:
            first[key] = record.id
    report.repeated = {
        "image": _repeated(record.image for record in records),
        "answers": _repeated(" ".join(turn.answer for turn in record.turns) for record in records),
        "extended_answers": _repeated(
            " ".join(turn.extended_answer or "" for turn in record.turns) for record, count in bare if not count
        ),
    }


def _check_all_images(
    records: Sequence[Record],
    store: ImageStore,
    report: DataReport,
    find: _Find,
    workers: int | None,
    progress: bool,
) -> None:
    users: dict[str, list[str]] = defaultdict(list)
    for record in records:
        users[record.image].append(record.id)
    report.image_names = len(users)
    same: dict[Any, list[str]] = defaultdict(list)
    for name, facts in _inspect(list(users), store, workers, progress):
        if facts.error is not None:
            of_records = f"record {_first(users[name])}"
            if isinstance(facts.error, MissingImageError):
                find("missing_image", name, of_records, str(facts.error))
            else:
                find("unreadable_image", name, f"{of_records}: {str(facts.error).removeprefix('open_image: ')}")
            continue
        width, height = facts.size
        report.image_sizes.append(facts.size)
        same[facts.size, facts.digest].append(name)
        if min(facts.size) < SMALL_SIDE:
            find("small_image", name, f"{width} x {height} pixels")
        if width * height > HUGE_PIXELS:
            find("huge_image", name, f"{width} x {height} pixels")
        if facts.blank:
            find("blank_image", name, f"{width} x {height} pixels")
    for names in same.values():
        if len(names) > 1:
            find("same_image", names[0], f"same as {_first(names[1:])}")


def _check_tokens(
    records: Sequence[Record],
    tokens: TokenCounter,
    max_length: int,
    report: DataReport,
    find: _Find,
    progress: bool,
) -> None:
    lengths: dict[str, list[int]] = {"conversation": [], "answers": [], "extended_answers": []}
    counted = tqdm(
        tokens.count(records),
        desc="counting tokens",
        total=len(records),
        unit="sample",
        disable=not progress,
        leave=False,
    )
    for record, text in zip(records, counted, strict=True):
        lengths["conversation"].append(text.conversation)
        lengths["answers"].append(text.answers)
        if text.extended_answers is not None:
            lengths["extended_answers"].append(text.extended_answers)
        if text.special_token is not None:
            token, spelled = text.special_token
            find("special_token", record.id, f"{token!r} in {spelled[:80]!r}")
        if text.first_answer >= max_length:
            find("no_room", record.id, f"{text.first_answer} tokens ahead of it, {max_length} allowed")
        elif text.conversation > max_length:
            find("too_long", record.id, f"{text.conversation} tokens, {max_length} allowed")
    report.token_lengths = {name: values for name, values in lengths.items() if values}
    report.tokens = {name: LengthStatistics.of(values) for name, values in report.token_lengths.items()}


def _inspect(
    names: Sequence[str], store: ImageStore, workers: int | None, progress: bool, facts_wanted: bool = True
) -> Iterator[tuple[str, _ImageFacts]]:
    """Decodes images in threads, Pillow lets them run side by side, and yields what it learns in the order of names."""

    def inspect(name: str) -> _ImageFacts:
        try:
            image = store.open(name)
        except ImageError as error:
            return _ImageFacts(error)
        if not facts_wanted:
            return _ImageFacts()
        digest = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
        return _ImageFacts(None, image.size, digest, _is_blank(image))

    executor = ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1), thread_name_prefix="images")
    try:
        with tqdm(total=len(names), desc="checking images", unit="image", disable=not progress, leave=False) as bar:
            for start in range(0, len(names), _AT_ONCE):
                some = names[start : start + _AT_ONCE]
                for name, facts in zip(some, executor.map(inspect, some), strict=True):
                    bar.update()
                    yield name, facts
    finally:
        executor.shutdown(wait=True, cancel_futures=True)  # after Ctrl-C, only the images in work are finished


def _is_blank(image: Image.Image) -> bool:
    return all(low == high for low, high in cast("tuple[tuple[int, int], ...]", image.getextrema()))


def _repeated(values: Iterable[str]) -> int:
    return sum(count for count in Counter(values).values() if count > 1)


def _first(names: Sequence[str], count: int = 3) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
