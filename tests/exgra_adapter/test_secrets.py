"""The key of an endpoint appears in no file, no message and no trace, whatever the endpoint does with it."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from exgra_adapter.captions.requests import CRITIQUE_POINTS
from exgra_adapter.cli import main
from exgra_adapter.endpoint import EndpointSettings
from exgra_adapter.endpoint.settings import KEY_VARIABLE, URL_VARIABLE

KEY = 'sk-"very\\secret/0123456789+'
FORMS = (KEY, json.dumps(KEY)[1:-1], quote(KEY, safe=""), "0123456789")
ROOT = Path(__file__).resolve().parents[2]
QUESTION = {"question_id": 1, "image": "a.png", "text": "?", "reference": "a", "fig_caption": "b"}
SAMPLES = [
    {"id": number, "image": "a.png", "conversations": [
        {"from": "human", "value": f"Which {number}?\n<image>"}, {"from": "gpt", "value": "left lung"}]}
    for number in range(6)
]  # fmt: skip
ECHOES = ("caption", "wrong schema", "401", *(pytest.param(echo, marks=pytest.mark.slow) for echo in
          ("no JSON", "500", "context")))  # fmt: skip


def _load_server() -> Any:
    path = Path(__file__).parents[1] / "fakes" / "openai_server.py"
    spec = importlib.util.spec_from_file_location("openai_server", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["openai_server"] = module
    spec.loader.exec_module(module)
    return module


fake = _load_server()


def reply(echo: str, command: str) -> Any:
    """What the model says: it repeats the key in one way or another."""
    if echo == "no JSON":
        return f"Your key is {KEY}"
    if echo == "wrong schema":
        return {"critique": KEY, "revision": [KEY], KEY: 1, "answer_1": KEY, "answer_2": KEY}
    if command == "caption":
        return {"critique": dict.fromkeys(CRITIQUE_POINTS, KEY), "revision": f"The left lung {KEY} is shown."}
    return {name: {"explanation": KEY, "score": 5} for name in ("answer_1", "answer_2")}


def run(folder: Path, command: list[str], url: str, debug: bool) -> str:
    """Runs a command in a process of its own, and returns everything that it says."""
    environment = os.environ | {KEY_VARIABLE: KEY, URL_VARIABLE: url, "PYTHONPATH": str(ROOT), "TQDM_DISABLE": "1"}
    arguments = [*command, "--first-wait", "0.001", "--max-attempts", "2", *(["--debug"] if debug else [])]
    found = subprocess.run(
        [sys.executable, "-m", "exgra_adapter", *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    return found.stdout + found.stderr


def require_no_secret(text: str, where: str) -> None:
    for form in FORMS:
        assert form not in text, f"{where} has the key: {text[max(0, text.index(form) - 80) :][:200]}"


@pytest.mark.parametrize("echo", ECHOES)
@pytest.mark.parametrize("command", ["caption", "chat"])
def test_no_output_has_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, echo: str):
    handler = fake._Handler._error

    def repeat(self: Any, status: int, message: str, headers: Any = None, code: Any = None) -> None:
        handler(self, status, f"{message} Key {KEY}, {quote(KEY, safe='')}, {json.dumps(KEY)}", headers, KEY)

    monkeypatch.setattr(fake._Handler, "_error", repeat)
    (tmp_path / "in.json").write_text(json.dumps(SAMPLES))
    (tmp_path / "qa.jsonl").write_text(json.dumps(QUESTION))
    (tmp_path / "ours.jsonl").write_text(json.dumps({"question_id": 1, "text": "an answer"}))
    commands = {
        "caption": ["caption", "in.json", "--output", "out.json", "--model", "fake"],
        "chat": ["evaluate", "chat", "--data", "qa.jsonl", "--pred", "ours.jsonl", "--output", "out", "--judge", "m"],
    }
    plan = fake.Plan(faults={echo: 1.0} if echo in fake.FAULTS else {}, most_faults=99)
    with fake.OpenAIServer(lambda body: reply(echo, command), plan=plan) as server:
        said = run(tmp_path, commands[command], server.url, debug=True)
        assert f"Bearer {KEY}" in server.keys_seen, said
    require_no_secret(said, "the terminal")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name.endswith("jsonl") and "qa" not in path.name and "ours" not in path.name for path in files)
    for path in files:
        require_no_secret(path.read_bytes().decode("utf-8", errors="replace"), path.name)
    if echo == "caption":
        journal = next(path for path in files if "journal" in path.name or "verdicts" in path.name)
        assert "[key]" in journal.read_text()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--api-key", KEY],
        [f"--api-key={KEY}"],
        ["--key", KEY],
        ["--endpoint", f"http://user:{KEY}@localhost/v1"],
        ["--endpoint", f"user:{quote(KEY)}@localhost/v1"],
        ["--endpoint", f"http://localhost/v1?api-key={quote(KEY)}"],
        ["--endpoint", f"http://localhost/v1#{quote(KEY)}"],
    ],
)
def test_a_key_on_the_command_line_is_refused_and_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], arguments: list[str]
):
    (tmp_path / "in.json").write_text(json.dumps(SAMPLES))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    monkeypatch.setenv(URL_VARIABLE, "http://localhost:9/v1")
    try:
        code = main(["caption", "in.json", "--output", "out.json", "--model", "fake", *arguments])
    except SystemExit as refused:
        code = refused.code
    assert code
    said = "".join(capfd.readouterr())
    require_no_secret(said, "the terminal")
    assert KEY_VARIABLE in said
    assert [path.name for path in tmp_path.iterdir()] == ["in.json"]


def test_debugging_output_of_the_packages_has_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "in.json").write_text(json.dumps(SAMPLES[:1]))
    monkeypatch.setenv("OPENAI_LOG", "debug")
    with fake.OpenAIServer(lambda body: reply("caption", "caption")) as server:
        said = run(tmp_path, ["caption", "in.json", "--output", "out.json", "--model", "m"], server.url, debug=True)
    assert "DEBUG" in said
    # The packages log requests as they are, apart from their headers.
    require_no_secret(said, "the terminal")


def test_short_keys_hide_nothing_and_stay():
    assert EndpointSettings("http://localhost/v1", "m", "none").masked("none of them") == "none of them"


def test_settings_are_shown_without_the_key(caplog: pytest.LogCaptureFixture):
    settings = EndpointSettings("http://localhost/v1", "m", KEY)
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("any").warning("%s %r %s", settings, [settings], settings.describe())
    require_no_secret(caplog.text, "the log")
