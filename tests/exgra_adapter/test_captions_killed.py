"""`exgra-med caption` in a process of its own that is killed or interrupted in the middle."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from exgra_adapter.captions.requests import CRITIQUE_POINTS
from exgra_adapter.endpoint import read_entries

_CODE = """
import argparse, sys
from exgra_adapter.captions.command import add_parser
parser = argparse.ArgumentParser()
add_parser(parser.add_subparsers())
options = parser.parse_args(sys.argv[1:])
code = options.run(options)
# Not getrusage: its peak includes that of the process which started this one.
print("peak", next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
sys.exit(code)
"""
_IN_FLIGHT = 16


def _load_server() -> Any:
    path = Path(__file__).parents[1] / "fakes" / "openai_server.py"
    spec = importlib.util.spec_from_file_location("openai_server", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["openai_server"] = module
    spec.loader.exec_module(module)
    return module


fake = _load_server()


def _asked(body: dict[str, Any]) -> dict[str, Any]:
    return json.JSONDecoder().raw_decode(body["messages"][1]["content"])[0]


def _revise(body: dict[str, Any]) -> dict[str, Any]:
    return {"critique": dict.fromkeys(CRITIQUE_POINTS, "good"), "revision": f"The {_asked(body)['answer']}, is marked."}


def _server(plan: Any) -> Any:
    return fake.OpenAIServer(_revise, lambda body: _asked(body)["question"], plan, keep_bodies=False)


def _write_input(path: Path, count: int) -> None:
    with path.open("w") as file:
        for number in range(count):
            question = {"from": "human", "value": f"Which level is marked in study {number}? <image>"}
            answer = {"from": "gpt", "value": f"left lung, level {number}"}
            file.write(json.dumps({"id": number, "image": "a.png", "conversations": [question, answer]}) + "\n")


def _start(folder: Path, url: str, *more: str) -> subprocess.Popen[str]:
    options = ["in.jsonl", "--output", "out.jsonl", "--endpoint", url, "--model", "fake", "--first-wait", "0.05"]
    options += ["--timeout", "3", "--concurrency", str(_IN_FLIGHT), *more]
    return subprocess.Popen(
        [sys.executable, "-c", _CODE, "caption", *options],
        cwd=folder,
        env={**os.environ, "OPENAI_API_KEY": "sk-very-secret", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _wait_for_lines(journal: Path, count: int, process: subprocess.Popen[str]) -> None:
    while not journal.exists() or journal.read_bytes().count(b"\n") < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def _killed_run(folder: Path, count: int, kills: int, faults: dict[str, float]) -> dict[str, Any]:
    """Runs to the end through several kills; returns what was measured."""
    _write_input(folder / "in.jsonl", count)
    journal = folder / "out.journal.jsonl"
    started = time.monotonic()
    with _server(fake.Plan(faults=faults, slow_seconds=4.0, retry_after=0.1)) as endpoint:
        for kill in range(kills):
            process = _start(folder, endpoint.url, *(["--resume"] if kill else []))
            _wait_for_lines(journal, (kill + 1) * count // (kills + 1), process)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            assert not (folder / "out.jsonl").exists()
        process = _start(folder, endpoint.url, "--resume")
        said, errors = process.communicate()
        assert process.returncode == 0, errors
    keys = Counter(entry["key"] for entry in read_entries(journal))
    assert keys == Counter(f"{number}.0" for number in range(count))
    merged = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert [one["id"] for one in merged] == list(range(count))
    assert all(
        one["conversations_long"][1]["value"] == f"The left lung, level {number}, is marked."
        for number, one in enumerate(merged)
    )
    again = sum(times - 1 for times in endpoint.answered.values())
    # Only requests in flight at a kill are answered twice.
    assert again <= kills * _IN_FLIGHT
    assert max(endpoint.answered.values()) <= 1 + kills
    assert "sk-very-secret" not in said + errors + journal.read_text() + (folder / "out.report.md").read_text()
    return {
        "seconds": round(time.monotonic() - started, 1),
        "requests": sum(endpoint.requests.values()),
        "asked_again": again,
        "peak_kib": int(said.split("peak")[1]),
        "faults": dict(endpoint.faults),
    }


def test_a_run_that_is_killed_twice_loses_nothing(tmp_path: Path) -> None:
    _killed_run(tmp_path, 300, 2, {"429": 0.02, "500": 0.02, "cut": 0.02, "broken_json": 0.02})


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_thousand_items_killed_five_times(tmp_path: Path) -> None:
    faults = dict.fromkeys(("429", "500", "503", "broken_json", "wrong_schema", "cut", "cut_body", "no_choices"), 0.01)
    faults |= {"429_retry_after": 0.005, "slow": 0.002, "fenced": 0.02}
    (tmp_path / "small").mkdir()
    (tmp_path / "large").mkdir()
    small = _killed_run(tmp_path / "small", 1000, 1, faults)
    large = _killed_run(tmp_path / "large", 10_000, 5, faults)
    logging.getLogger(__name__).info("one thousand items: %s; ten thousand: %s", small, large)
    assert all(large["faults"].get(fault) for fault in faults)
    assert large["peak_kib"] - small["peak_kib"] < 8 * 1024


def test_ctrl_c_ends_cleanly_and_says_how_to_go_on(tmp_path: Path) -> None:
    _write_input(tmp_path / "in.jsonl", 2000)
    journal = tmp_path / "out.journal.jsonl"
    with _server(fake.Plan(delay=0.02)) as endpoint:
        process = _start(tmp_path, endpoint.url)
        _wait_for_lines(journal, 50, process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "go on with --resume" in errors
    assert "Traceback" not in errors
    assert journal.read_bytes().endswith(b"\n")
    assert 49 <= len(list(read_entries(journal))) < 2000
    assert not (tmp_path / "out.jsonl").exists()
