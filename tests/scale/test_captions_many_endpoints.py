"""Captions from several endpoints, of which one misbehaves and one dies: nothing is lost, nothing is asked twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from exgra_adapter.captions.requests import CRITIQUE_POINTS

SAMPLES, PART, IN_FLIGHT = 240, 80, 4


@pytest.fixture(scope="module")
def fake(load_file: Callable[[Path], ModuleType]) -> Any:
    return load_file(Path(__file__).parents[1] / "fakes" / "openai_server.py")


def asked(body: dict[str, Any]) -> dict[str, Any]:
    return json.JSONDecoder().raw_decode(body["messages"][1]["content"])[0]


def revise(body: dict[str, Any]) -> dict[str, Any]:
    return {"critique": dict.fromkeys(CRITIQUE_POINTS, "good"), "revision": f"The {asked(body)['answer']}, is marked."}


def server(fake: Any, plan: Any, reply: Callable[[dict[str, Any]], Any] = revise) -> Any:
    return fake.OpenAIServer(reply, lambda body: asked(body)["question"], plan, keep_bodies=False)


def write_input(path: Path, count: int = SAMPLES) -> None:
    samples = []
    for number in range(count):
        question = {"from": "human", "value": f"Which level is marked in study {number}? <image>"}
        answer = {"from": "gpt", "value": f"left lung, level {number}"}
        samples.append({"id": number, "image": "a.png", "conversations": [question, answer]})
    path.write_text(json.dumps(samples))


def command(scripts: Path, *endpoints: Any) -> list[str]:
    options = ["in.json", "--output", "out.json", "--part", PART, "--model", "fake", "--concurrency", IN_FLIGHT]
    options += ["--first-wait", 0.02, "--max-attempts", 5, "--timeout", 5]
    for endpoint in endpoints:
        options += ["--endpoint", getattr(endpoint, "url", endpoint)]
    return [sys.executable, str(scripts / "captions_many_endpoints.py"), *map(str, options)]


def start(folder: Path, words: list[str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENAI_API_KEY": "sk-very-secret"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(words, cwd=folder, env=environment, text=True, **pipes)


def answered(*servers: Any) -> Counter[str]:
    total: Counter[str] = Counter()
    for each in servers:
        with each.lock:
            total += each.answered
    return total


def wait_until(reached: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not reached():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def assert_complete(output: Path) -> None:
    merged = json.loads(output.read_text())
    assert [sample["id"] for sample in merged] == list(range(SAMPLES))
    for sample in merged:
        expected = f"The left lung, level {sample['id']}, is marked."
        assert sample["conversations_long"][1]["value"] == expected


@pytest.mark.slow  # its waits are those of a server that does not answer
def test_an_endpoint_that_dies_leaves_its_part_to_the_others(scripts: Path, fake: Any, tmp_path: Path) -> None:
    write_input(tmp_path / "in.json")
    faults = dict.fromkeys(("429", "500", "cut", "broken_json"), 0.03)
    dead = threading.Event()

    def reply_while_alive(body: dict[str, Any]) -> dict[str, Any]:
        if dead.is_set():
            raise ConnectionAbortedError  # connections that are open end too
        return revise(body)

    with server(fake, fake.Plan(faults=faults, delay=0.02)) as steady:
        with server(fake, fake.Plan(delay=0.05), reply_while_alive) as mortal:
            process = start(tmp_path, command(scripts, mortal, steady))
            wait_until(lambda: len(answered(mortal)) >= PART // 4, process)
            dead.set()
        said, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
        assert f"{mortal.url} was given up: " in errors
        assert f"{SAMPLES} samples in out.json" in said
    assert_complete(tmp_path / "out.json")
    total = answered(mortal, steady)
    assert len(total) == SAMPLES
    assert PART // 4 <= len(answered(mortal)) < PART
    # What was in flight when the endpoint died may have been answered there too.
    assert sum(times - 1 for times in total.values()) <= IN_FLIGHT
    kinds = (".jsonl", ".log", ".md", ".json")
    files = [path for path in (tmp_path / "out.json.parts").iterdir() if path.suffix in kinds]
    assert len(files) > SAMPLES // PART
    written = "".join(path.read_text() for path in files)
    assert "sk-very-secret" not in said + errors + written


@pytest.mark.slow
def test_a_killed_run_goes_on(scripts: Path, fake: Any, tmp_path: Path) -> None:
    write_input(tmp_path / "in.json")
    with server(fake, fake.Plan(delay=0.03)) as first, server(fake, fake.Plan(delay=0.03)) as second:
        process = start(tmp_path, command(scripts, first, second))
        wait_until(lambda: len(answered(first, second)) >= SAMPLES // 3, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not (tmp_path / "out.json").exists()
        process = start(tmp_path, command(scripts, first, second))
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
        assert_complete(tmp_path / "out.json")
        total = answered(first, second)
        assert sum(times - 1 for times in total.values()) <= 2 * IN_FLIGHT
        # All is there: nothing is asked, and another input is refused.
        before = answered(first, second)
        assert subprocess.run(command(scripts, first), cwd=tmp_path, capture_output=True, check=False).returncode == 0
        assert answered(first, second) == before
        write_input(tmp_path / "in.json", SAMPLES - 1)
        other = subprocess.run(command(scripts, first), cwd=tmp_path, capture_output=True, text=True, check=False)
        assert other.returncode == 1
        assert "must hold the parts of the same input" in other.stderr
        assert len(json.loads((tmp_path / "out.json").read_text())) == SAMPLES


def test_ctrl_c_ends_cleanly(scripts: Path, fake: Any, tmp_path: Path) -> None:
    write_input(tmp_path / "in.json")
    with server(fake, fake.Plan(delay=0.05)) as only:
        process = start(tmp_path, command(scripts, only))
        wait_until(lambda: len(answered(only)) >= 10, process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 130
        assert "the same command goes on" in errors
        assert "Traceback" not in errors
        time.sleep(0.3)
        before = answered(only)
        time.sleep(0.5)
        assert answered(only) == before, "the command ended too"
    assert not (tmp_path / "out.json").exists()


@pytest.mark.slow
def test_without_any_endpoint_left_the_run_says_how_to_go_on(scripts: Path, fake: Any, tmp_path: Path) -> None:
    write_input(tmp_path / "in.json")
    words = [*command(scripts, "http://127.0.0.1:9/v1", "http://127.0.0.1:9/v2"), "--max-attempts", "1"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1
    assert done.stderr.count("was given up") == 2
    assert "3 of 3 parts are open and none is left" in done.stderr
    with server(fake, fake.Plan()) as endpoint:
        done = subprocess.run(command(scripts, endpoint), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert_complete(tmp_path / "out.json")


@pytest.mark.slow
def test_items_that_fail_are_named_and_do_not_keep_the_rest(scripts: Path, fake: Any, tmp_path: Path) -> None:
    write_input(tmp_path / "in.json")
    hopeless = "Which level is marked in study 7?"
    with server(fake, fake.Plan(always={hopeless: "context"})) as endpoint:
        done = subprocess.run(command(scripts, endpoint), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Items failed in 1 parts; see part-00000.log" in done.stderr
    merged = json.loads((tmp_path / "out.json").read_text())
    assert [sample["id"] for sample in merged if "conversations_long" not in sample] == [7]
    assert endpoint.requests[hopeless] == 2, "once, and once again"


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (["--part", "0"], 2, "--part must be at least 1; got 0"),
        (["--endpoint", "http://127.0.0.1:9/v1"], 2, "must be given once for each endpoint"),
        (["--output", "out.txt"], 2, "must end in .json or .jsonl; got out.txt"),
        (["--output", "in.json"], 2, "must be another file than INPUT"),
        (["--no-such-option"], 2, "--no-such-option"),
    ],
)
def test_wrong_options_end_before_anything_is_asked(
    scripts: Path, tmp_path: Path, change: list[str], code: int, message: str
) -> None:
    write_input(tmp_path / "in.json")
    words = [*command(scripts, "http://127.0.0.1:9/v1"), *change]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, message in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr


def test_a_broken_input_is_named(scripts: Path, tmp_path: Path) -> None:
    for text, message in (('[{"id": 1}]', "in.json"), ("[]", "must have samples"), (None, "in.json")):
        (tmp_path / "in.json").unlink(missing_ok=True)
        if text is not None:
            (tmp_path / "in.json").write_text(text)
        words = command(scripts, "http://127.0.0.1:9/v1")
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr
        assert not list(tmp_path.glob("*.parts"))
