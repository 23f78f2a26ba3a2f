"""`exgra-med evaluate chat` in a process of its own that is killed in the middle, and the memory that it takes."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from exgra_adapter.endpoint import EndpointSettings, Journal, read_entries
from exgra_adapter.evaluation.chat_files import read_candidate, read_questions
from exgra_adapter.evaluation.judge import presentations
from exgra_adapter.evaluation.judge_run import ask_judge, digest

_CODE = """
import argparse, sys
from exgra_adapter.evaluation import chat_command

def peak():
    # Not getrusage: its peak includes that of the process which started this one.
    return next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))

def score_chat(*arguments):
    print("judged with", peak())
    return scored(*arguments)

# The pictures take more memory than judging, so the peak is read before them too.
scored, chat_command.score_chat = chat_command.score_chat, score_chat
parser = argparse.ArgumentParser()
chat_command.add_parser(parser.add_subparsers())
options = parser.parse_args(sys.argv[1:])
code = options.run(options)
print("ended with", peak())
sys.exit(code)
"""
_IN_FLIGHT = 16
_NAMES = ("ours", "theirs")


def _load_server() -> Any:
    path = Path(__file__).parents[1] / "fakes" / "openai_server.py"
    spec = importlib.util.spec_from_file_location("openai_server", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["openai_server"] = module
    spec.loader.exec_module(module)
    return module


fake = _load_server()
# Every kind of misbehaviour that asking again helps against; late replies cost time and are rarer.
_FAULTS = dict.fromkeys(fake.RETRIED, 0.02) | {"slow": 0.002}


def _quality(answer: str) -> int:
    """What a fair judge gives: from 2 to 9, by the text alone."""
    return 2 + hashlib.blake2b(answer.encode(), digest_size=4).digest()[0] % 8


def _judge(body: dict[str, Any]) -> dict[str, Any]:
    """Moves a point from the second place to the first."""
    asked = json.loads(body["messages"][1]["content"])
    return {
        name: {"explanation": f"reasons for {asked[name]} ü", "score": _quality(asked[name]) + shift}
        for name, shift in (("answer_1", 1), ("answer_2", -1))
    }


def _write_inputs(folder: Path, count: int) -> None:
    """Questions of a common length with the answers of two models, the second one's in the opposite order."""
    words = "with mild oedema around it and no midline shift " * 4
    lines = [
        {"question_id": i, "image": f"{i // 4}.png", "text": f"What is in {i}?", "reference": f"{words}in {i}"}
        | {"fig_caption": f"caption {i // 4} {words}", "type": ("conversation", "detail")[i % 2]}
        | {"domain": ("mri", "ct_scan", "gross")[i % 3]}
        for i in range(count)
    ]
    (folder / "qa.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for name, order in zip(_NAMES, (1, -1), strict=True):
        answers = [{"question_id": i, "text": f"{name} says {i} {words}"} for i in range(count)][::order]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, answers)))


def _start(folder: Path, url: str, *more: str) -> subprocess.Popen[str]:
    options = ["--data", "qa.jsonl", "--output", "out", "--judge", "fake", "--endpoint", url, "--first-wait", "0.02"]
    options += [part for name in _NAMES for part in ("--pred", f"{name}.jsonl")]
    return subprocess.Popen(
        [sys.executable, "-c", _CODE, "chat", *options, "--timeout", "3", "--concurrency", str(_IN_FLIGHT), *more],
        cwd=folder,
        env={**os.environ, "OPENAI_API_KEY": "sk-very-secret", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _killed_run(folder: Path, count: int, kills: int) -> dict[str, Any]:
    """Judges to the end through several kills and checks everything that must hold; returns what was measured."""
    _write_inputs(folder, count)
    requests = 4 * count
    out, journal = folder / "out", folder / "out" / "verdicts.jsonl"
    started = time.monotonic()
    with fake.OpenAIServer(_judge, plan=fake.Plan(faults=_FAULTS, slow_seconds=4.0), keep_bodies=False) as server:
        for kill in range(kills):
            process = _start(folder, server.url, *(["--resume"] if kill else []))
            target = (kill + 1) * requests // (kills + 1)
            while not journal.exists() or journal.read_bytes().count(b"\n") <= target:
                assert process.poll() is None, process.communicate()
                time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            assert [path.name for path in out.iterdir()] == ["verdicts.jsonl"]
        process = _start(folder, server.url, "--resume")
        said, errors = process.communicate()
        assert process.returncode == 0, errors
    keys = Counter(entry["key"] for entry in read_entries(journal))
    assert len(keys) == requests
    assert set(keys.values()) == {1}
    # Nothing is judged twice but what was in flight at a kill.
    again = sum(server.answered.values()) - requests
    assert 0 <= again <= kills * _IN_FLIGHT
    items = [json.loads(line) for line in (out / "items.jsonl").read_text().splitlines()]
    assert [(item["candidate"], item["question_id"]) for item in items] == [
        (name, str(i)) for name in _NAMES for i in range(count)
    ]
    # The bias of the order cancels, for every question.
    assert all(item["candidate_score"] == _quality(item["answer"]) for item in items)
    assert all(item["reference_score"] == _quality(item["reference"]) for item in items)
    assert all(item["answer"].startswith(f"{item['candidate']} says {item['question_id']} ") for item in items)
    scores = json.loads((out / "scores.json").read_text())
    assert scores["judge"]["requests"] == requests
    assert scores["judge"]["failed"] == 0
    assert scores["position_bias"]["first_advantage"]["value"] == 2
    assert "sk-very-secret" not in said + errors + journal.read_text() + (out / "report.md").read_text()
    return {
        "seconds": round(time.monotonic() - started, 1),
        "requests": sum(server.requests.values()),
        "asked_again": again,
        "judged_kib": int(said.split("judged with")[1].split()[0]),
        "ended_kib": int(said.split("ended with")[1].split()[0]),
        "faults": dict(server.faults),
    }


def test_judging_that_is_killed_twice_loses_nothing(tmp_path: Path) -> None:
    _killed_run(tmp_path, count=100, kills=2)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_ten_thousand_requests_killed_five_times(tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    (tmp_path / "large").mkdir()
    small = _killed_run(tmp_path / "small", 250, 1)
    large = _killed_run(tmp_path / "large", 2500, 5)
    logging.getLogger(__name__).info("one thousand requests: %s; ten thousand: %s", small, large)
    (tmp_path / "found.json").write_text(json.dumps([small, large]))
    # Every kind of misbehaviour took place.
    assert set(large["faults"]) == set(_FAULTS)
    assert large["judged_kib"] - small["judged_kib"] < 4 * 1024
    assert large["ended_kib"] - small["ended_kib"] < 4 * 1024


def _judged_peak(folder: Path, count: int) -> int:
    """Bytes at the peak of reading and judging, where the journal has all replies."""
    folder.mkdir()
    _write_inputs(folder, count)
    settings = EndpointSettings("http://localhost/v1", "fake")
    run = {"task": "chat judge", **settings.describe(), "instructions": digest("Grade.")}
    questions = read_questions(folder / "qa.jsonl")
    with Journal(folder / "verdicts.jsonl", run) as journal:
        for item in presentations(
            questions, [read_candidate(folder / f"{name}.jsonl", name, questions) for name in _NAMES]
        ):
            journal.write(item.key("Grade."), "ok", content=_judge({"messages": item.messages("Grade.")}))
    tracemalloc.start()
    try:
        questions = read_questions(folder / "qa.jsonl")
        candidates = [read_candidate(folder / f"{name}.jsonl", name, questions) for name in _NAMES]
        _, use = ask_judge(
            settings,
            questions,
            candidates,
            "Grade.",
            folder / "verdicts.jsonl",
            items=folder / "items.jsonl",
            resume=True,
        )
        assert use.requests == 4 * count
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_follow_the_texts(tmp_path: Path) -> None:
    _judged_peak(tmp_path / "first", 4)  # imports, and what libraries keep
    few, many = _judged_peak(tmp_path / "few", 10), _judged_peak(tmp_path / "many", 260)
    # A thousand more requests, with 2 MB of texts: indices and scores are some 60 bytes a request.
    assert many - few < 1000 * 150
