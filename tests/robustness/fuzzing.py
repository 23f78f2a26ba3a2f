"""Fuzzing of one reader: changed files until the time is up, and what broke the reader.

As a program, `python -m tests.robustness.fuzzing NAME SECONDS SEED FOLDER`, it fuzzes one reader and prints its tally
as JSON, anew every second. If it dies, the file that killed it lies in the folder.
"""

from __future__ import annotations

import gzip
import itertools
import json
import lzma
import random
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType

import pytest
from PIL import Image

from graphmatch import _check

from . import strict_readers
from .loose_readers import MOST_PIXELS, loosely_read
from .mutations import LARGEST_PLACE, Change, changed, random_changes
from .readers import MACHINE_BYTES, Format, strictly_read

LONGEST = 5.0
"""Seconds of processor time; a reader that takes longer hangs."""
MOST_BYTES = 3 * 2**30
"""Address space that a reader may take beside what the program has at its start."""

PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": lambda text: gzip.compress(text, 1),
    ".xz": lambda text: lzma.compress(text, preset=0),
}
_POOL, _LONGEST_SOURCE = 64, 4096
_DEEP = 500


class Hanging(BaseException):
    """A reader takes too long; no `except Exception` on the way may stop it."""


@dataclass
class Tally:
    """What fuzzing has done so far.

    Attributes:
        inputs: Files read.
        accepted: Those that the reader took.
        refused: Those that it refused by name, as it should.
        seconds: Processor time.
        findings: What went wrong, by kind, with the shortest file that shows it, in hexadecimal digits.
    """

    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    seconds: float = 0.0
    findings: dict[str, str] = field(default_factory=dict)

    def find(self, error: BaseException, content: bytes) -> None:
        """Notes a finding."""
        kind = f"{type(error).__name__}: {str(error)[:80]}"
        if kind not in self.findings or 2 * len(content) < len(self.findings[kind]):
            self.findings[kind] = content.hex()


def all_formats() -> list[Format]:
    """Every reader that is fuzzed."""
    return [*strictly_read(), *loosely_read()]


def check(kind: Format, path: Path, content: bytes) -> bool:
    """Checks one file; returns whether it is valid."""
    path.write_bytes(content)
    complaint = None
    answer = None
    with time_limit(LONGEST):
        try:
            answer = kind.read(path)
        except (ValueError, OSError) as error:
            complaint = str(error)
    if complaint is not None:
        assert path.name in complaint or str(path.parent) in complaint, f"a refusal without a name: {complaint}"
    if kind.strict is None:
        return complaint is None
    try:
        expected = kind.strict(content)
    except strict_readers.Refused:
        assert complaint is not None, "a broken file was read"
        return False
    if complaint is not None and nesting(content) > _DEEP:
        return False  # how deep is too deep depends on who calls
    assert complaint is None, f"a good file was refused: {complaint}"
    assert answer == expected, "a file was read as another one"
    return True


def nesting(content: bytes) -> int:
    """Returns how many brackets are open at once, at most; those in strings count too."""
    steps = (1 if byte in b"[{" else -1 for byte in content if byte in b"[]{}")
    return max(itertools.accumulate(steps), default=0)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises `Hanging` in a block that takes more processor time."""
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def sources(kind: Format, folder: Path) -> list[bytes]:
    """Valid files, not compressed."""
    found = []
    for seed in range(8):
        path = folder / kind.name
        kind.write(path, seed)
        content = path.read_bytes()
        found.append(strict_readers.unpacked(path.suffix, content))
        assert check(kind, path, content), f"a valid {kind.name} was refused"
    return found


def broken(kind: Format, source: bytes, changes: list[Change], damage: list[Change]) -> bytes:
    """Changes of the text and, in compressed files, of the compressed bytes."""
    pack = PACK.get(kind.name[kind.name.rfind(".") :])
    content = changed(source, changes)
    return content if pack is None else changed(pack(content), damage)


@contextmanager
def small_machine() -> Iterator[None]:
    """Lets readers believe in little memory and small images, and notices those that hang."""

    def give_up(number: int, frame: FrameType | None) -> None:
        raise Hanging(f"more than {LONGEST:g} s")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_check, "_ALWAYS_FREE", 0)
        patch.setattr(_check, "available_memory", lambda: MACHINE_BYTES)
        patch.setattr(Image, "MAX_IMAGE_PIXELS", MOST_PIXELS)
        before = signal.signal(signal.SIGVTALRM, give_up)
        try:
            yield
        finally:
            signal.signal(signal.SIGVTALRM, before)


def fuzz(
    kind: Format, folder: Path, seconds: float, seed: int, report: Callable[[Tally], None] = lambda tally: None
) -> Tally:
    """Fuzzes one reader within `small_machine`.

    Changed files that are still valid become sources themselves, so that changes pile up.

    Args:
        kind: The reader.
        folder: Where the file is; the input that is being read lies there under the reader's name.
        seconds: Processor time.
        seed: Chooses the files.
        report: Called about every second.
    """
    generator = random.Random(f"{kind.name} {seed}")
    valid = sources(kind, folder)
    kept = len(valid)
    path = folder / kind.name
    tally = Tally()
    begun, reported = time.process_time(), 0.0
    while tally.seconds < seconds:
        for _ in range(20):
            source = generator.choice(valid)
            changes = random_changes(generator)
            damage = [("byte", generator.randint(0, LARGEST_PLACE), generator.randint(0, 255))]
            content = broken(kind, source, changes, damage if generator.random() < 0.2 else [])
            tally.inputs += 1
            try:
                accepted = check(kind, path, content)
            except (Exception, Hanging) as error:  # noqa: BLE001  # all of them are findings
                tally.find(error, content)
                continue
            tally.accepted += accepted
            tally.refused += not accepted
            if accepted and len(content) < _LONGEST_SOURCE and generator.random() < 0.1:
                bare = strict_readers.unpacked(path.suffix, content)
                place = generator.randint(kept, _POOL)
                valid[place : place + 1] = [bare]
        tally.seconds = time.process_time() - begun
        if tally.seconds - reported > 1.0:
            reported = tally.seconds
            report(tally)
    return tally


def main(name: str, seconds: str, seed: str, place: str) -> None:
    folder = Path(place)
    kind = next(kind for kind in all_formats() if kind.name == name)
    room = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (room + MOST_BYTES, resource.RLIM_INFINITY))

    def report(tally: Tally) -> None:
        print(json.dumps(asdict(tally)), flush=True)  # noqa: T201  # the parent reads it

    with small_machine():
        report(fuzz(kind, folder, float(seconds), int(seed), report))


if __name__ == "__main__":
    main(*sys.argv[1:])
