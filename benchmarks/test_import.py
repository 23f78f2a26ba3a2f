"""What `import graphmatch` costs beyond torch's own import, in fresh interpreters."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

# The child imports torch, waits for a line, imports graphmatch, and answers: the clock runs between the two lines.
_CHILD = """
import sys
import torch
print("ready", flush=True)
sys.stdin.readline()
import graphmatch
print("done", flush=True)
"""


def _start() -> tuple[tuple[subprocess.Popen[str]], dict[str, Any]]:
    child = subprocess.Popen([sys.executable, "-c", _CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    _expect(child, "ready")
    return (child,), {}


def _expect(child: subprocess.Popen[str], word: str) -> None:
    answer = child.stdout.readline().strip()
    if answer != word:
        raise RuntimeError(f"the child must answer {word!r}; got {answer!r}. Its error output says why.")


def _import(child: subprocess.Popen[str]) -> None:
    child.stdin.write("\n")
    child.stdin.flush()
    _expect(child, "done")


def _stop(child: subprocess.Popen[str]) -> None:
    child.communicate()


@pytest.mark.benchmark(group="import")
def test_import_beyond_torch(benchmark: Any):
    benchmark.pedantic(_import, setup=_start, teardown=_stop, rounds=5, warmup_rounds=1)
