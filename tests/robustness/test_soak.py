"""The programs of long runs, in miniature: they count, keep what they find, go on after a kill, and say so in JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(Path(__file__).parents[2])
    from . import soak
    from .fuzzing import Tally


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, place in (("WORK", "work"), ("FINDINGS", "work/findings"), ("STATE", "work/fuzzing.json")):
        monkeypatch.setattr(soak, name, tmp_path / place)
    (tmp_path / "work").mkdir()


def only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    kinds = [kind for kind in soak.all_formats() if kind.name in names]
    monkeypatch.setattr(soak, "all_formats", lambda: kinds)


@pytest.mark.slow
def test_fuzzing_counts_and_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    only(monkeypatch, "case.sln", "answers.jsonl")
    result = tmp_path / "robustness.json"
    assert soak.main(["fuzz", "--minutes", "0.05", "--output", str(result)]) == 0
    found = json.loads(result.read_text())
    fuzzing = found["fuzzing"]
    assert fuzzing["findings"] == 0
    assert 2.9 < fuzzing["cpu_seconds"] < 6
    assert set(fuzzing["per_reader"]) == {"case.sln", "answers.jsonl"}
    for counts in fuzzing["per_reader"].values():
        assert counts["accepted"] > 10
        assert counts["refused"] > 10
        assert counts["accepted"] + counts["refused"] == counts["inputs"]
    assert fuzzing["inputs"] == sum(counts["inputs"] for counts in fuzzing["per_reader"].values())
    assert found["commit"] == fuzzing["commit"]
    assert {"versions", "machine", "commit"} <= set(found)
    assert not soak.STATE.exists()


def test_a_killed_run_goes_on_with_the_readers_that_are_left(monkeypatch: pytest.MonkeyPatch):
    only(monkeypatch, "case.sln", "case.dat", "case.json")
    asked = []

    def fuzz(name: str, seconds: float, seed: int, progress: object) -> Tally:
        asked.append(name)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return Tally(10, 4, 6, seconds)

    monkeypatch.setattr(soak, "_fuzz_one", fuzz)
    with pytest.raises(KeyboardInterrupt):
        soak.fuzz_all(1.0, 0)
    assert soak.fuzz_all(1.0, 0)["inputs"] == 30
    assert asked == ["case.dat", "case.sln", "case.json", "case.json"]
    assert soak.fuzz_all(1.0, 1)["inputs"] == 30  # another seed is another run
    assert len(asked) == 7


CHILD = """
import json, os, sys, time
from pathlib import Path
name, seconds, seed, folder = sys.argv[1:]
tally = {"inputs": 5, "accepted": 2, "refused": 2, "seconds": float(seconds) / 2, "findings": {}}
Path(folder, name).write_bytes(b"last words")
if sys.argv[3] == "0":
    tally["findings"]["AssertionError: read"] = b"broken".hex()
    print(json.dumps(tally), flush=True)
    os.kill(os.getpid(), 11)
tally["seconds"] = float(seconds)
print(json.dumps(tally), flush=True)
"""


def test_processes_that_die_are_findings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    only(monkeypatch, "case.sln")
    (tmp_path / "child.py").write_text(CHILD)
    monkeypatch.setattr(soak, "_NICE", (sys.executable, str(tmp_path / "child.py")))
    popen = soak.subprocess.Popen
    # Without the words for the interpreter, the module and its options.
    monkeypatch.setattr(soak.subprocess, "Popen", lambda command, **others: popen(command[:2] + command[-4:], **others))
    assert soak.main(["fuzz", "--minutes", "1", "--output", str(tmp_path / "found.json")]) == 1
    found = json.loads((tmp_path / "found.json").read_text())["fuzzing"]
    assert (found["findings"], found["inputs"], found["cpu_seconds"]) == (2, 10, 60.0)
    assert sorted(path.read_bytes() for path in soak.FINDINGS.iterdir()) == [b"broken", b"last words"]


STRESS = """#!/bin/sh
echo "$TSAN_OPTIONS$ASAN_OPTIONS" > options
{text}
exit {code}
"""


@pytest.mark.parametrize(
    ("name", "text", "code", "findings"),
    [
        ("thread", "echo 'stress: 12 calls, 0 failures'", 0, 0),
        ("address", "echo 'stress: 12 calls, 0 failures'", 0, 0),
        ("thread", "echo 'failed: bounds (seed 3, problem 1)'; echo 'stress: 12 calls, 1 failures'", 1, 1),
        ("thread", "echo 'WARNING: ThreadSanitizer: data race (pid=1)'; echo 'stress: 12 calls, 0 failures'", 66, 1),
        ("address", "echo '==12==ERROR: AddressSanitizer: heap-buffer-overflow on address'", 1, 1),
        ("address", "echo 'csrc/core/lap.cpp:3:7: runtime error: signed integer overflow'", 1, 1),
        ("thread", "true", 0, 1),
        ("thread", "kill -9 $$", 0, 1),
    ],
)
def test_stress_counts_what_sanitizers_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, code: int, findings: int
):
    monkeypatch.chdir(tmp_path)
    program = tmp_path / name
    program.write_text(STRESS.format(text=text, code=code))
    program.chmod(0o755)
    result = tmp_path / "found.json"
    result.write_text(json.dumps({"fuzzing": {"inputs": 7}}))
    assert soak.main(["stress", str(program), "--minutes", "0.001", "--output", str(result)]) == (findings > 0)
    found = json.loads(result.read_text())
    assert found["fuzzing"] == {"inputs": 7}
    assert found["stress"]["findings"] == findings
    assert found["stress"]["sanitizer"].startswith(name.capitalize())
    assert found["stress"]["calls"] == (12 if "calls" in text else 0)
    assert soak.FINDINGS.exists() == (findings > 0)
