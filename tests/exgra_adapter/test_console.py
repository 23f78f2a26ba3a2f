"""What the command line writes where nobody reads, where letters are missing, and where there is no room."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from exgra_adapter import console
from exgra_adapter.cli import main

COMMAND = [sys.executable, "-m", "exgra_adapter"]


def run_module(*arguments: str, **options: Any) -> subprocess.CompletedProcess:
    return subprocess.run([*COMMAND, *arguments], check=False, text=True, timeout=60, **options)


def check(small_data, *more: str) -> list[str]:
    return ["data", "check", str(small_data.data), "--images", str(small_data.images), *more]


def test_readers_that_leave_are_no_error(small_data):
    reading, writing = os.pipe()
    os.close(reading)
    finished = run_module(*check(small_data), stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert finished.returncode == 0
    assert "Broken" not in finished.stderr


def test_errors_that_nobody_reads_keep_their_exit_code(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    finished = run_module("data", "check", str(tmp_path / "absent.json"), stdout=writing, stderr=writing)
    os.close(writing)
    assert finished.returncode == 1


def test_streams_may_be_closed(small_data, tmp_path, monkeypatch):
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    assert main(check(small_data)) == 0
    assert main(["data", "check", str(tmp_path / "absent.json")]) == 1
    for name in ("stdin", "stdout", "stderr"):
        getattr(sys, name).close()


def test_closed_streams_leave_their_places_to_no_other_file():
    code = (
        "import os; os.closerange(0, 3); from exgra_adapter.console import provide_streams; import sys;"
        "sys.stdin = sys.stdout = sys.stderr = None; provide_streams(); sys.exit(os.open(os.devnull, os.O_RDONLY))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 3


def test_letters_that_the_output_lacks_are_escaped(monkeypatch, tmp_path):
    for encoding, shown in (("ascii", b"l\\xe9sion \\u0151 \\udcff\n"), ("utf-8", "lésion ő \\udcff\n".encode())):
        path = tmp_path / encoding
        with path.open("w", encoding=encoding) as stream:
            monkeypatch.setattr(sys, "stdout", stream)
            console.say("lésion ő \udcff")
        assert path.read_bytes() == shown


def test_json_stays_json_whatever_the_encoding(small_data, tmp_path, monkeypatch):
    named = tmp_path / "l\xe9sions.json"
    named.write_bytes(small_data.data.read_bytes())
    with (tmp_path / "report.json").open("w+", encoding="ascii") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(["data", "check", str(named), "--images", str(small_data.images), "--json", "-"]) == 0
        stream.seek(0)
        assert "l\xe9sions.json" in json.dumps(json.load(stream), ensure_ascii=False)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_a_full_disk_is_an_error(small_data):
    with Path("/dev/full").open("w") as full:
        finished = run_module(*check(small_data), stdout=full, stderr=subprocess.PIPE)
    assert finished.returncode == 1
    assert finished.stderr.endswith("Error: [Errno 28] No space left on device\n")
