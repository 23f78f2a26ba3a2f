"""`graphmatch info`: what a bug report needs to know."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import sys

import pytest
import torch

import graphmatch as gm
from graphmatch import cli
from graphmatch.cli import info


def test_a_bug_report_gets_versions_and_machine(capsys: pytest.CaptureFixture):
    assert cli.main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {name: value.strip() for name, value in (line.split("  ", maxsplit=1) for line in lines)}
    assert rows["graphmatch"] == gm.__version__
    assert rows["threads"].startswith(str(torch.get_num_threads()))
    assert f"numpy {importlib.metadata.version('numpy')}" in rows["packages"]
    assert rows["system"] == platform.platform()
    assert rows["processor"]
    assert rows["instruction set"] in ("AVX-512", "AVX2", "SSE2", "baseline")
    assert rows["CUDA of torch"].startswith(str(torch.version.cuda or "none"))
    assert rows["CPU module"].startswith("built by ")


def test_programs_get_the_same(capsys: pytest.CaptureFixture):
    assert cli.main(["info", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["packages"]["scipy"] == importlib.metadata.version("scipy")
    assert content["cuda_module"] == (content["cuda_devices"] is not None)
    assert len(content["gpus"]) == torch.cuda.device_count()
    assert content["cpus"] >= 1


@pytest.mark.parametrize(
    ("machine", "system", "compiler", "flags", "expected"),
    [
        ("x86_64", "linux", "GCC (Debian) 12.2.0", "fpu avx2 avx512f", "AVX-512"),
        ("x86_64", "linux", "GCC (Debian) 12.2.0", "fpu avx avx2", "AVX2"),
        ("x86_64", "linux", "GCC (Debian) 12.2.0", "fpu avx", "SSE2"),
        ("x86_64", "linux", "clang version 17.0.1", "fpu avx avx2", "SSE2"),
        ("x86_64", "darwin", "", "", "SSE2"),
        ("aarch64", "linux", "GCC (GNU) 13.1", "", "baseline"),
    ],
)
def test_the_instruction_set_is_what_the_loader_chooses(
    monkeypatch: pytest.MonkeyPatch, machine: str, system: str, compiler: str, flags: str, expected: str
):
    monkeypatch.setattr(info.platform, "machine", lambda: machine)
    monkeypatch.setattr(info.sys, "platform", system)
    monkeypatch.setattr(info, "_compiler", lambda: compiler)
    monkeypatch.setattr(info, "_cpu_line", lambda name: flags if name == "flags" else "")
    assert info._instruction_set() == expected


@pytest.mark.skipif(platform.machine() != "x86_64" or sys.platform != "linux", reason="one version on this system")
def test_the_instruction_set_agrees_with_torch():
    of_torch = {"AVX512": "AVX-512", "AVX2": "AVX2"}.get(torch.backends.cpu.get_cpu_capability(), "SSE2")
    order = ["SSE2", "AVX2", "AVX-512"]
    # Torch asks for more of AVX-512 than its foundation, and may be told to use less.
    assert order.index(info._instruction_set()) >= order.index(of_torch) or "GCC" not in info._compiler()


def test_packages_that_are_not_installed_are_named(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(info, "_PACKAGES", ("numpy", "surely-not-installed"))
    assert cli.main(["info"]) == 0
    assert "; not installed: surely-not-installed" in capsys.readouterr().out
    assert cli.main(["info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["packages"]["surely-not-installed"] is None
