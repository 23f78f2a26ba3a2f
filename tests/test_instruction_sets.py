"""The versions of the native core for SSE2, AVX2 and AVX-512 give the same answers, bit for bit.

The compiler's choice among them asks the processor alone, and no environment variable changes that. Linux can let
CPUID fault instead, where processor and hypervisor take part: a handler then hides what a test does not want found.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SOURCES = Path(__file__).resolve().parent / "instruction_sets"
COMPILER = shutil.which(os.environ.get("CXX", "g++"))
AVX2, AVX512F = 1 << 5, 1 << 16  # of EBX of leaf 7 of CPUID
HIDDEN = {512: 0, 256: AVX512F, 128: AVX512F | AVX2}

pytestmark = [
    pytest.mark.skipif(
        sys.platform != "linux" or platform.machine() != "x86_64", reason="there is one version on this system"
    ),
    pytest.mark.skipif(COMPILER is None, reason="no compiler for what hides instruction sets"),
]


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The library that hides instruction sets, and a copy to load afterwards: it tells what was chosen."""
    folder = tmp_path_factory.mktemp("instruction_sets")
    mask, probe = folder / "mask.so", folder / "probe.so"
    source = SOURCES / "masked_cpuid.cpp"
    subprocess.run([str(COMPILER), "-O1", "-shared", "-fPIC", "-Wall", "-Wextra", source, "-o", mask], check=True)
    shutil.copy(mask, probe)
    return [str(mask), str(probe)]


@pytest.fixture(scope="module")
def runs(libraries: list[str]) -> dict[int, dict[str, Any]]:
    """What each setting answers, by the bits of the widest register it leaves."""
    answers = {}
    for width, hidden in HIDDEN.items():
        command = [sys.executable, str(SOURCES / "solve_masked.py"), *libraries, str(hidden)]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=90).stdout
        answers[width] = json.loads(answer)
    if not all(answer["hidden"] for answer in answers.values()):
        pytest.skip("processor or kernel cannot hide instruction sets from one thread")
    return answers


def widest(runs: dict[int, dict[str, Any]]) -> int:
    """The bits of this processor's widest registers."""
    return runs[512]["register_bits"]


def test_each_setting_leaves_the_registers_it_should(runs: dict[int, dict[str, Any]]):
    expected = {width: min(width, widest(runs)) for width in HIDDEN}
    assert {width: answer["register_bits"] for width, answer in runs.items()} == expected


@pytest.mark.parametrize("width", [256, 512])
def test_answers_are_those_of_the_baseline(runs: dict[int, dict[str, Any]], width: int):
    if width > widest(runs):
        pytest.skip(f"this processor has no registers of {width} bits")
    baseline, answers = runs[128]["answers"], runs[width]["answers"]
    assert len(baseline["solutions"]) > 30
    for group, expected in baseline.items():
        different = [name for name, answer in answers[group].items() if answer != expected[name]]
        assert different == [], f"{group} that differ from those of SSE2"
