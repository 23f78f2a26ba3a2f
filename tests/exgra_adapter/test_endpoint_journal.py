"""The journal of finished items: torn lines, two writers, other runs; and a run that is killed again and again."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exgra_adapter.endpoint import Journal, JournalIndex, read_entries

RUN = {"model": "m"}


def make(path: Path, count: int) -> bytes:
    with Journal(path, RUN) as journal:
        for index in range(count):
            journal.write(f"item {index}", "ok" if index % 3 else "failed", content="ä" * index, input_tokens=index)
    return path.read_bytes()


def test_a_journal_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "journal.jsonl"
    make(path, 10)
    index = JournalIndex(path)
    assert (index.ok, index.failed, index.input_tokens, index.run) == (6, 4, 45, RUN)
    assert index.status("item 3") == "failed"
    assert index.status("item 10") is None
    assert [index.entry(f"item {number}")["content"] for number in (7, 2, 5)] == ["ä" * 7, "ä" * 2, "ä" * 5]
    assert index.entry("nothing") is None
    index.close()


def test_the_last_line_of_a_key_counts_and_all_tokens_do(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    make(path, 4)
    with Journal(path, RUN, resume=True) as journal:
        journal.write("item 0", "ok", content="now", input_tokens=100)
        assert journal.status("item 0") == "failed"  # what earlier runs say
    index = JournalIndex(path)
    assert (index.status("item 0"), index.ok, index.failed, index.input_tokens) == ("ok", 3, 1, 106)
    assert index.entry("item 0")["content"] == "now"
    index.close()


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_journal_cut_anywhere_goes_on_with_its_complete_lines(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("cut") / "j.jsonl"
    whole = make(path, 6)
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    complete = max(0, whole[:cut].count(b"\n") - 1)
    with Journal(path, RUN, resume=True) as journal:
        assert [journal.status(f"item {index}") is not None for index in range(6)] == [
            index < complete for index in range(6)
        ]
        journal.write("new", "ok")
    assert [entry["key"] for entry in read_entries(path)] == [f"item {index}" for index in range(complete)] + ["new"]


def test_a_broken_line_in_the_middle_is_refused_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    lines = make(path, 4).splitlines(keepends=True)
    for broken in (b"{]\n", b'{"key": 3}\n', b"\xff\n", b"\n"):
        path.write_bytes(b"".join([*lines[:2], broken, *lines[2:]]))
        with pytest.raises(ValueError, match=r"line 3 of .*Remove that line"):
            Journal(path, RUN, resume=True)
    path.write_text('{"id": 1}\n')
    with pytest.raises(ValueError, match=r"line 1 of .* must describe the run"):
        Journal(path, RUN, resume=True)
    assert path.read_text() == '{"id": 1}\n'


def test_another_run_and_a_forgotten_resume_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    make(path, 1)
    with pytest.raises(ValueError, match="Continue it with --resume"):
        Journal(path, RUN)
    with pytest.raises(ValueError, match="its model is 'm', now it is 'other'"):
        Journal(path, {"model": "other"}, resume=True)
    with Journal(path, RUN, resume=True):
        pass


def test_one_process_writes(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    with Journal(path, RUN) as journal:
        journal.write("a", "ok")
        code = f"from exgra_adapter.endpoint import Journal; Journal({str(path)!r}, {RUN!r}, True)"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "another process writes it" in other.stderr
        journal.write("b", "ok")
    assert [entry["key"] for entry in read_entries(path)] == ["a", "b"]


def test_every_line_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    code = (
        "import sys, os\nfrom exgra_adapter.endpoint import Journal\n"
        f"journal = Journal({str(path)!r}, {RUN!r})\n"
        "for index in range(100):\n    journal.write(f'item {index}', 'ok')\nos.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(read_entries(path))) == 100
