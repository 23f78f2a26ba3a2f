"""What a piece of work takes beside time: memory, and cores that were busy."""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_PROCESS = Path("/proc/self")


@dataclass
class Usage:
    """What a block of code took.

    Attributes:
        memory_bytes: By how much resident memory grew at most, above what was resident when the block began; results,
            caches and buffers that libraries keep included, what was there before (the costs) not. None where the
            system is not Linux, or does not tell.
        busy_cores: Processor time of all threads over time passed. Child processes do not count.
    """

    memory_bytes: int | None = None
    busy_cores: float = 0.0


@contextmanager
def watching() -> Iterator[Usage]:
    """Yields a `Usage` that is filled in when the block ends."""
    usage = Usage()
    before = _forget_peak()
    start, busy = time.perf_counter(), time.process_time()
    try:
        yield usage
    finally:
        busy, passed = time.process_time() - busy, time.perf_counter() - start
        usage.busy_cores = busy / passed if passed > 0 else 0.0
        if before is not None:
            usage.memory_bytes = max(_status("VmHWM") - before, 0)


def _forget_peak() -> int | None:
    """Sets the peak of resident memory to what is resident now and returns that; None where this cannot be done."""
    if not sys.platform.startswith("linux"):
        return None
    # Memory that was freed but is still resident would be used first, and not show.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    try:
        (_PROCESS / "clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return None
    return _status("VmRSS")


def _status(entry: str) -> int:
    lines = (_PROCESS / "status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{entry}:"))
