"""`exgra-med caption` against the misbehaving server, and the checks of replies."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exgra_adapter.captions.command import add_parser
from exgra_adapter.captions.filters import CHECKS, Limits, medical_terms, one_line, rejection
from exgra_adapter.captions.requests import CRITIQUE_POINTS, read_system_prompt, word_limit
from exgra_adapter.data.records import parse_sample, read_records
from exgra_adapter.endpoint import read_entries
from exgra_adapter.endpoint.settings import KEY_VARIABLE, URL_VARIABLE

KEY = "sk-very-secret-0123456789"


def _load_server() -> Any:
    path = Path(__file__).parents[1] / "fakes" / "openai_server.py"
    spec = importlib.util.spec_from_file_location("openai_server", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["openai_server"] = module
    spec.loader.exec_module(module)
    return module


fake = _load_server()


def sample(number: int, turns: int = 1) -> dict[str, Any]:
    messages = []
    for turn in range(turns):
        tag = "\n<image>" if turn == 0 else ""
        messages.append({"from": "human", "value": f"Which level is marked in study {number}, turn {turn}?{tag}"})
        messages.append({"from": "gpt", "value": f"left lung, level {number}"})
    return {"id": number, "image": f"{number}.png", "conversations": messages, "source": "mädchen"}


def write(path: Path, samples: Sequence[dict[str, Any]]) -> Path:
    path.write_text(json.dumps(samples, ensure_ascii=False), encoding="utf-8")
    return path


def asked(body: dict[str, Any]) -> dict[str, Any]:
    """The question and the answer in a request; a server without JSON-schema output gets a rule behind them."""
    return json.JSONDecoder().raw_decode(body["messages"][1]["content"])[0]


def revise(body: dict[str, Any]) -> dict[str, Any]:
    text = f"The {asked(body)['answer']}, is marked."
    return {"critique": dict.fromkeys(CRITIQUE_POINTS, "good"), "revision": text}


def server(plan: Any = None, reply: Any = revise) -> Any:
    return fake.OpenAIServer(reply, lambda body: asked(body)["question"], plan)


def caption(*arguments: Any) -> int:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    options = parser.parse_args(["caption", *map(str, arguments)])
    return options.run(options)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    monkeypatch.delenv(URL_VARIABLE, raising=False)


def test_300_pairs_against_all_faults(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    samples = [sample(number, 1 + number % 2) for number in range(200)]
    write(tmp_path / "in.json", samples)
    faults = dict.fromkeys(fake.RETRIED, 0.01)
    always = {"Which level is marked in study 9, turn 1?": "context"}
    common = ("in.json", "--output", "out.json", "--model", "fake", "--timeout", 0.9, "--first-wait", 0.1)
    with server(fake.Plan(faults=faults, slow_seconds=1.2, always=always)) as endpoint:
        assert caption(*common, "--endpoint", endpoint.url, "--price-input", 1, "--price-output", 2) == 1
    said = capfd.readouterr()
    assert "299 good, 0 rejected, 1 failed of 300 pairs; 199 of 200 samples" in said.out
    assert "Ask for them again" in said.err
    merged = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert [one["id"] for one in merged] == list(range(200))
    for before, after in zip(samples, merged, strict=True):
        extended = after.pop("conversations_long", None)
        assert after == before
        if before["id"] == 9:
            assert extended is None
        else:
            assert [one["value"] for one in extended[::2]] == [one["value"] for one in before["conversations"][::2]]
            assert {one["value"] for one in extended[1::2]} == {f"The left lung, level {before['id']}, is marked."}
    assert len(read_records(tmp_path / "out.json")) == 200
    report = (tmp_path / "out.report.md").read_text()
    assert "| good replies | 299 | 99.7 % |" in report
    assert "maximum context length" in report
    assert "| 1 | 9.1 |" in report
    assert (tmp_path / "out.report.png").stat().st_size > 5000

    with server() as endpoint:
        assert caption(*common, "--endpoint", endpoint.url, "--resume", "--retry-failed") == 0
        assert sum(endpoint.requests.values()) == 1
    assert all("conversations_long" in one for one in json.loads((tmp_path / "out.json").read_text(encoding="utf-8")))
    said_again = capfd.readouterr()
    for path in tmp_path.iterdir():
        assert KEY.encode() not in path.read_bytes()
    assert KEY not in said.out + said.err + said_again.out + said_again.err


def test_a_second_run_needs_resume_and_the_same_settings(tmp_path: Path) -> None:
    write(tmp_path / "in.json", [sample(1)])
    with server() as endpoint:
        common = ("in.json", "--output", "out.json", "--endpoint", endpoint.url)
        assert caption(*common, "--model", "fake") == 0
        with pytest.raises(ValueError, match="Add --resume"):
            caption(*common, "--model", "fake")
        with pytest.raises(ValueError, match="its model is 'fake', now it is 'other'"):
            caption(*common, "--model", "other", "--resume")
        write(tmp_path / "in.json", [sample(2)])
        with pytest.raises(ValueError, match="its input is"):
            caption(*common, "--model", "fake", "--resume")
        assert sum(endpoint.requests.values()) == 1


def test_other_limits_check_all_replies_again_without_asking(tmp_path: Path) -> None:
    write(tmp_path / "in.json", [sample(1)])
    with server() as endpoint:
        common = ("in.json", "--output", "out.json", "--endpoint", endpoint.url, "--model", "fake")
        caption(*common)
        assert caption(*common, "--resume", "--longest", 1.0) == 0
        assert sum(endpoint.requests.values()) == 1
    assert "conversations_long" in json.loads((tmp_path / "out.json").read_text())[0]


@pytest.mark.parametrize("fill", ["none", "template"])
def test_rejected_replies_are_left_out_or_filled(tmp_path: Path, fill: str) -> None:
    def mirrored(body: dict[str, Any]) -> dict[str, Any]:
        text = (
            "The right lung, level 1, is marked." if "turn 1" in asked(body)["question"] else revise(body)["revision"]
        )
        return {**revise(body), "revision": text}

    write(tmp_path / "in.json", [sample(1, 2)])
    with server(reply=mirrored) as endpoint:
        caption("in.json", "--output", "out.jsonl", "--endpoint", endpoint.url, "--model", "fake", "--fill", fill)
    merged = json.loads((tmp_path / "out.jsonl").read_text(encoding="utf-8"))
    if fill == "none":
        assert "conversations_long" not in merged
    else:
        first, second = (turn.extended_answer for turn in parse_sample(merged, "test").turns)
        assert first == "The left lung, level 1, is marked."
        assert "left lung, level 1" in second
    assert "The right lung, level 1, is marked." in (tmp_path / "out.report.md").read_text()


def test_extended_answers_that_exist_are_kept(tmp_path: Path) -> None:
    done = sample(1)
    done["conversatons_long"] = [done["conversations"][0], {"from": "gpt", "value": "As it was."}]
    write(tmp_path / "in.json", [done, sample(2)])
    with server() as endpoint:
        caption("in.json", "--output", "out.json", "--endpoint", endpoint.url, "--model", "fake")
        assert list(endpoint.requests) == ["Which level is marked in study 2, turn 0?"]
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))[0] == done


def test_what_nobody_reads_stays_as_it_was(tmp_path: Path) -> None:
    odd = {**sample(1), "note": "cut off \ud83d", "score": None, "source": "mädchen"}
    (tmp_path / "in.json").write_text(json.dumps([odd]))
    with server() as endpoint:
        assert caption("in.json", "--output", "out.json", "--endpoint", endpoint.url, "--model", "fake") == 0
    found = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))[0]
    assert found.pop("conversations_long")[1]["value"] == "The left lung, level 1, is marked."
    assert found == odd


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("data", "data/long.jsonl"),
        ("data", "data/long.json"),
        ("data/*.jsonl", "data/long.json"),
        ("d*/{part,long}-1.jsonl", "data/long-1.jsonl"),
    ],
)
def test_output_and_journal_are_no_input(tmp_path: Path, source: str, output: str) -> None:
    """The next pass over the folder would read them as samples."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "part-1.jsonl").write_text(json.dumps(sample(1)) + "\n")
    with server() as endpoint:
        arguments = (source, "--endpoint", endpoint.url, "--model", "fake")
        with pytest.raises(ValueError, match="be no part of the input"):
            caption(*arguments, "--output", output)
        assert [path.name for path in (tmp_path / "data").iterdir()] == ["part-1.jsonl"]
        assert caption(*arguments, "--output", "data/long/out.jsonl") == 0
        assert caption(*arguments, "--output", "data/long/out.jsonl", "--resume") == 0


def test_a_dry_run_asks_nothing_and_estimates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "in.json", [sample(number) for number in range(10)])
    assert caption("in.json", "--dry-run", "--price-input", 1, "--price-output", 4) == 0
    said = capsys.readouterr().out
    assert "10 question-answer pairs, 0 of them answered by an earlier run: 10 requests" in said
    assert "cost: about 0.0" in said
    assert [path.name for path in tmp_path.iterdir()] == ["in.json"]


def test_the_estimate_is_near_what_the_endpoint_counts() -> None:
    # Four bytes per token: the built-in prompt has about 1.3 tokens per word with common tokenizers.
    prompt = read_system_prompt()
    assert 1.1 < (len(prompt.encode()) / 4) / len(prompt.split()) < 1.7


@pytest.mark.parametrize(("content", "message"), [("[]", None), ("[{}]", "must have key 'id'"), ("[", "must be JSON")])
def test_empty_and_broken_inputs(tmp_path: Path, content: str, message: str | None) -> None:
    (tmp_path / "in.json").write_text(content)
    with server() as endpoint:
        arguments = ("in.json", "--output", "out.json", "--endpoint", endpoint.url, "--model", "fake")
        if message is None:
            assert caption(*arguments) == 0
            assert json.loads((tmp_path / "out.json").read_text()) == []
        else:
            with pytest.raises(ValueError, match=message):
                caption(*arguments)
            assert not (tmp_path / "out.json").exists()
        assert not endpoint.requests


def test_an_edited_system_prompt_is_sent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert caption("--print-system-prompt") == 0
    edited = capsys.readouterr().out + "Prefer short sentences.\n"
    (tmp_path / "prompt.txt").write_text(edited)
    write(tmp_path / "in.json", [sample(1)])
    with server() as endpoint:
        arguments = ("in.json", "--output", "out.json", "--endpoint", endpoint.url, "--model", "fake")
        caption(*arguments, "--system-prompt", "prompt.txt")
    assert next(iter(endpoint.bodies.values()))["messages"][0] == {"role": "system", "content": edited.strip()}


def test_address_and_key_come_from_the_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "in.json", [sample(1)])
    monkeypatch.delenv(KEY_VARIABLE)
    with server() as endpoint:
        (tmp_path / ".env").write_text(f"{URL_VARIABLE}={endpoint.url}\n{KEY_VARIABLE}='sk-from-file'\n")
        assert caption("in.json", "--output", "out.json", "--model", "fake") == 0
        assert endpoint.keys_seen == {"Bearer sk-from-file"}


ANSWERS = {
    "Pneumothorax in the left lung.": ("There is a pneumothorax in the left lung.", None),
    "two lesions": ("The image shows 2 lesions in total.", None),
    "benign cyst": ("The finding is a malignant cyst.", "terms"),
    "yes": ("Yes, the heart is enlarged.", None),
    "no": ("No pleural effusion is seen.", None),
    "No.": ("The image shows a mass.", "verdict"),
    "No acute fracture": ("There is an acute fracture.", "negation"),
    "lesion of 2.5 cm": ("The lesion is 3.5 cm wide.", "numbers"),
    "liver": ("I'm sorry, but I cannot see the liver.", "refusal"),
    "the liver is enlarged": ("Die Leber ist auf dem Bild und im Vergleich", "language"),
    "the spleen": ("脾脏位于左上腹部", "language"),
    "heart": ("heart " * 40, "too_long"),
    "the heart and both lungs look normal today": ("heart lungs", "too_short"),
    "CT": ("This is an MRI image.", "terms"),
    "T2 weighted": ("The image is a T2 weighted image.", None),
    "脾脏": ("脾脏位于左上腹部。", None),
    "α-synuclein": ("The staining shows α-synuclein.", None),
    "kidneys": ("The kidney is shown.", None),
    "1": ("There is one lesion.", None),
    "Medical therapy, supportive therapy": ("The organ system can be identified as the chest.", "terms"),
    "1 ": ("Here one can see the liver.", "numbers"),
    "transverse plane": ("The image shows the coronal plane.", "terms"),
    "right temporal lobe": ("The lesion is seen in the right temporal lobe of the brain.", None),
    "No": ('No, judging by this image, to the question "do the lungs look normal".', None),
    "": ("", "empty"),
    "\u200b": ("\u200b", "empty"),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_checks(answer: str) -> None:
    text, expected = ANSWERS[answer]
    assert rejection("What is shown?", answer, text) == expected
    assert expected is None or expected in CHECKS


@given(st.text(max_size=200), st.text(max_size=200), st.text(max_size=300))
def test_checks_take_any_text_and_a_repeated_answer_is_good(question: str, answer: str, text: str) -> None:
    assert rejection(question, answer, one_line(text)) in (None, *CHECKS)
    repeated = " ".join(answer.split())
    found = rejection(question, repeated, repeated)
    # A repeated answer says the same in the same words; its own language may be another one than the question's.
    assert found in (None, "language", "empty")
    assert len(one_line(text).splitlines()) <= 1


def test_limits_and_terms() -> None:
    assert [word_limit("x " * count) for count in (1, 2, 3, 10)] == [20, 20, 6, 20]
    assert medical_terms("Haemorrhage in the left basal ganglia on FLAIR") == {"haemorrhage", "left", "flair"}
    with pytest.raises(ValueError, match="kept_terms between 0 and 1"):
        Limits(kept_terms=2)


def test_journal_entries_carry_critique_and_tokens(tmp_path: Path) -> None:
    write(tmp_path / "in.json", [sample(1)])
    with server() as endpoint:
        caption("in.json", "--output", "out.json", "--endpoint", endpoint.url, "--model", "fake")
    (entry,) = read_entries(tmp_path / "out.journal.jsonl")
    assert entry["key"] == "0.0"
    assert set(entry["content"]["critique"]) == set(CRITIQUE_POINTS)
    assert entry["input_tokens"] > 0
