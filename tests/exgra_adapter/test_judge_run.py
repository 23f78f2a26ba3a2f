"""Judging through a real local endpoint that misbehaves by a seeded plan, with a judge whose scores follow the text."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exgra_adapter.endpoint import EndpointSettings, RefusedByEndpoint
from exgra_adapter.evaluation import chat_command, judge
from exgra_adapter.evaluation.chat_files import Candidate, ChatQuestion, StandIn
from exgra_adapter.evaluation.judge_run import ask_judge, estimate_use
from exgra_adapter.evaluation.judge_scores import score_chat
from exgra_adapter.evaluation.judge_table import tabulate


def _load_server() -> Any:
    path = Path(__file__).parents[1] / "fakes" / "openai_server.py"
    spec = importlib.util.spec_from_file_location("openai_server", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["openai_server"] = module
    spec.loader.exec_module(module)
    return module


fake = _load_server()
INSTRUCTIONS = "Grade."
KEY = "sk-very-secret-0123456789"


def quality(answer: str) -> int:
    """What the fair judge gives: from 2 to 9, by the text alone."""
    return 2 + hashlib.blake2b(answer.encode(), digest_size=4).digest()[0] % 8


def judging(bias: int) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A judge that moves `bias` points from the second place to the first."""

    def reply(body: dict[str, Any]) -> dict[str, Any]:
        asked = json.loads(body["messages"][1]["content"])
        return {
            name: {"explanation": f"reasons for {asked[name]}", "score": quality(asked[name]) + shift}
            for name, shift in (("answer_1", bias), ("answer_2", -bias))
        }

    return reply


def make_questions(count: int) -> list[ChatQuestion]:
    kinds, domains = ("conversation", "detailed_description"), ("mri", "ct_scan", "gross")
    return [
        ChatQuestion(
            str(i),
            f"{i // 4}.png",
            f"What is in {i}?",
            f"reference {i}",
            f"caption {i // 4}",
            (),
            kinds[i % 2],
            domains[i % 3],
        )
        for i in range(count)
    ]


def make_candidates(questions: list[ChatQuestion], *names: str) -> list[Candidate]:
    return [Candidate(name, {item.id: f"{name} says {item.id} – ü" for item in questions}) for name in names]


def settings_for(url: str, **others: Any) -> EndpointSettings:
    return EndpointSettings(url, "fake-judge", KEY, **{"concurrency": 8, "timeout": 5.0, **others})


def fair_scores(questions: list[ChatQuestion], candidates: list[Candidate]) -> Any:
    """The scores without an endpoint and without bias."""

    def verdict_on(item: judge.Presentation) -> judge.Verdict:
        return judge.parse_verdict(judging(0)({"messages": item.messages(INSTRUCTIONS)}), item.order)

    return score_chat(tabulate(judge.compare(questions, candidates, verdict_on)), resamples=100)


def test_failures_are_reported_and_can_be_asked_again(tmp_path: Path) -> None:
    questions = make_questions(6)
    candidates = make_candidates(questions, "ours")
    refused = next(judge.presentations(questions, candidates))
    key = fake.hash_of_messages({"messages": refused.messages(INSTRUCTIONS)})
    journal = tmp_path / "verdicts.jsonl"
    plan = fake.Plan(always={key: "refusal"})
    with fake.OpenAIServer(judging(0), plan=plan) as server:
        table, use = ask_judge(settings_for(server.url), questions, candidates, INSTRUCTIONS, journal)
        assert (use.requests, use.failed, use.errors) == (12, 1, {"the model refused to answer": 1})
        overall = score_chat(table).candidates[0].overall
        assert (overall.failed, overall.no_verdict, overall.relative.count) == (1, 1, 5)
        asked = sum(server.requests.values())
        again = settings_for(server.url)
        with pytest.raises(ValueError, match="--resume"):
            ask_judge(again, questions, candidates, INSTRUCTIONS, journal)
        assert ask_judge(again, questions, candidates, INSTRUCTIONS, journal, resume=True)[1].failed == 1
        assert sum(server.requests.values()) == asked
        server.plan = fake.Plan()
        table, use = ask_judge(again, questions, candidates, INSTRUCTIONS, journal, resume=True, retry_failed=True)
        assert use.failed == 0
        assert sum(server.requests.values()) == asked + 1
    assert (
        score_chat(table, resamples=100).candidates[0].overall
        == fair_scores(questions, candidates).candidates[0].overall
    )


def test_only_what_is_new_is_asked(tmp_path: Path) -> None:
    questions = make_questions(5)
    ours, theirs = make_candidates(questions, "ours", "theirs")
    journal = tmp_path / "verdicts.jsonl"
    with fake.OpenAIServer(judging(0)) as server:
        settings = settings_for(server.url, price_input=1.0, price_output=2.0)
        _, use = ask_judge(settings, questions, [ours], INSTRUCTIONS, journal)
        assert sum(server.requests.values()) == 10
        assert use.cost == pytest.approx((use.input_tokens + 2 * use.output_tokens) / 1e6)
        changed = Candidate("ours", {**ours.answers, "3": "something else"})
        left = estimate_use(questions, [changed, theirs], INSTRUCTIONS, settings, journal)
        assert (left.requests, left.done) == (20, 8)
        table, _ = ask_judge(settings, questions, [changed, theirs], INSTRUCTIONS, journal, resume=True)
        assert sum(server.requests.values()) == 10 + 2 + 10
        assert table.means[3, 1] == quality("something else")
        for others in ({"instructions": "Grade strictly."}, {"settings": settings_for(server.url, temperature=0.5)}):
            with pytest.raises(ValueError, match="must come from the same run"):
                ask_judge(
                    **{"settings": settings, "questions": questions, "candidates": [ours], "journal": journal}
                    | {"instructions": INSTRUCTIONS, "resume": True}
                    | others
                )


def test_an_endpoint_without_json_schema_judges_too(tmp_path: Path) -> None:
    def reply(body: dict[str, Any]) -> dict[str, Any]:
        text = body["messages"][1]["content"]
        asked = json.loads(text[: text.rindex("}\n\nReply") + 1])
        return {name: {"explanation": "", "score": quality(asked[name])} for name in ("answer_1", "answer_2")}

    questions = make_questions(3)
    candidates = make_candidates(questions, "ours")
    with fake.OpenAIServer(reply, plan=fake.Plan(formats=())) as server:
        settings = settings_for(server.url, concurrency=1)
        table, _ = ask_judge(settings, questions, candidates, INSTRUCTIONS, tmp_path / "verdicts.jsonl")
    assert table.means[:, 1].tolist() == [quality(f"ours says {i} – ü") for i in range(3)]


def _write_inputs(folder: Path, count: int = 8) -> tuple[list[ChatQuestion], list[str]]:
    questions = make_questions(count)
    lines = [
        {"question_id": int(q.id), "image": q.image, "text": f"{q.text}\n<image>", "gpt4_answer": q.reference}
        | {"fig_caption": q.caption, "type": q.kind, "domain": {"mri": False, q.domain: True}}
        for q in questions
    ]
    (folder / "qa.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for name in ("ours", "theirs"):
        answers = [{"question_id": int(q.id), "text": f"{name} says {q.id}"} for q in questions]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, answers)))
    options = ["--data", str(folder / "qa.jsonl"), "--output", str(folder / "out")]
    return questions, options


def _chat(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser()
    chat_command.add_parser(parser.add_subparsers())
    options = parser.parse_args(["chat", *arguments])
    return options.run(options)


def test_command_writes_everything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _, options = _write_inputs(tmp_path)
    options += ["--pred", str(tmp_path / "ours.jsonl"), "--pred", f"the others={tmp_path / 'theirs.jsonl'}"]
    with fake.OpenAIServer(judging(1)) as server:
        (tmp_path / ".env").write_text(f"OPENAI_API_KEY={KEY}\nOPENAI_BASE_URL={server.url}\n")
        judged = ["--judge", "fake-judge", "--price-input", "1000", "--price-output", "2000"]
        assert _chat([*options, *judged]) == 0
        assert server.keys_seen == {f"Bearer {KEY}"}
        assert next(iter(server.bodies.values()))["model"] == "fake-judge"
        shown = capsys.readouterr().out
        requests = sum(server.requests.values())
        assert requests == 32
        with pytest.raises(ValueError, match="must not hold an earlier run"):
            _chat([*options, *judged])
        assert _chat([*options, *judged, "--resume"]) == 0
        assert sum(server.requests.values()) == requests
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {
        "items.jsonl",
        "order_agreement.png",
        "relative_scores.png",
        "report.md",
        "scores.json",
        "verdicts.jsonl",
    }
    items = [json.loads(line) for line in (out / "items.jsonl").read_text().splitlines()]
    assert len(items) == 16
    assert items[0]["candidate_score"] == quality("ours says 0")
    assert items[0]["verdicts"]["candidate_first"]["candidate"] == quality("ours says 0") + 1
    assert items[0]["verdicts"]["candidate_first"]["candidate_explanation"] == "reasons for ours says 0"
    scores = json.loads((out / "scores.json").read_text())
    assert [item["name"] for item in scores["candidates"]] == ["ours", "the others"]
    assert scores["position_bias"]["first_advantage"]["value"] == 2
    assert scores["judge"]["cost"] > 0
    report = (out / "report.md").read_text()
    assert "the others" in report
    assert "detailed description" in report
    assert all(KEY not in path.read_text(errors="replace") for path in out.iterdir())
    assert "the others" in shown
    assert "cost" in shown


def test_command_estimates_without_asking(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, options = _write_inputs(tmp_path)
    options += ["--pred", str(tmp_path / "ours.jsonl"), "--model", str(tmp_path / "model"), "--dry-run"]
    assert _chat(options) == 0
    shown = capsys.readouterr().out
    assert "8 questions, 2 candidate(s): 32 requests, 0 of them done" in shown
    assert "cost: not known; give --price-input and --price-output" in shown
    assert not (tmp_path / "out").exists()
    assert _chat([*options, "--price-input", "2.5", "--price-output", "10"]) == 0
    assert "cost: about 0." in capsys.readouterr().out


def test_estimates_are_near_what_is_counted() -> None:
    questions = make_questions(4)
    settings = EndpointSettings("http://localhost/v1", "m", price_input=1.0, price_output=1.0)
    instructions = judge.read_instructions()
    found = estimate_use(questions, [StandIn("m")], instructions, settings, Path("nowhere"))
    words = sum(
        len(message["content"].split())
        for item in judge.presentations(questions, [StandIn("m")])
        for message in item.messages(instructions)
    )
    # English has about four tokens in three words; the estimate must not be below, nor far above.
    assert words < found.input_tokens < 2.5 * words
    assert found.cost == pytest.approx((found.input_tokens + found.output_tokens) / 1e6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give at least one --pred or --model"),
        (["--pred", "a=x.jsonl", "--pred", "a=y.jsonl"], "different names"),
        (["--pred", "=x.jsonl"], "NAME=PATH"),
        (["--model", "a b=x", "--model", "a_b=y"], "must differ in letters or digits"),
        (["--pred", "x.jsonl", "--retry-failed"], "--retry-failed needs --resume"),
        (["--model", "x"], "--model needs --images"),
    ],
)
def test_wrong_usage_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    _, options = _write_inputs(tmp_path)
    with pytest.raises(SystemExit) as stop:
        _chat([*options, *arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_refusing_endpoint_ends_the_run_and_nothing_is_reported(tmp_path: Path) -> None:
    _, options = _write_inputs(tmp_path)
    with fake.OpenAIServer(judging(0), plan=fake.Plan(faults={"401": 1.0})) as server:
        arguments = [*options, "--pred", str(tmp_path / "ours.jsonl"), "--judge", "m", "--endpoint", server.url]
        with pytest.raises(RefusedByEndpoint, match="401"):
            _chat(arguments)
    assert not (tmp_path / "out" / "report.md").exists()


def test_a_model_folder_answers_first(tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    from exgra_adapter.models.tiny import build_tiny_model

    questions, options = _write_inputs(tmp_path, count=4)
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "images" / "0.png")
    model, processor = build_tiny_model([questions[0].text, questions[0].reference], seed=0)
    model.save_pretrained(tmp_path / "tiny model")
    processor.save_pretrained(tmp_path / "tiny model")
    options += ["--model", str(tmp_path / "tiny model"), "--images", str(tmp_path / "images"), "--judge", "m"]
    options += ["--max-new-tokens", "4"]
    with fake.OpenAIServer(judging(0)) as server:
        _chat([*options, "--endpoint", server.url])
        answers = (tmp_path / "out" / "answers_tiny_model.jsonl").read_text()
        assert len(answers.splitlines()) == 4
        scores = json.loads((tmp_path / "out" / "scores.json").read_text())
        assert scores["candidates"][0]["name"] == "tiny model"
        # Answers of an earlier run are kept: the model is not needed any more.
        (tmp_path / "tiny model" / "model.safetensors").unlink()
        asked = sum(server.requests.values())
        _chat([*options, "--endpoint", server.url, "--resume"])
        assert sum(server.requests.values()) == asked
        # Those of another model are none of its answers.
        other = [*options, "--endpoint", server.url, "--resume"]
        other[other.index("--model") + 1] = f"tiny model={tmp_path / 'other'}"
        with pytest.raises(ValueError, match=r"model must be that of the answers in .*another name"):
            _chat(other)
        with pytest.raises(ValueError, match="max_new_tokens must be that of the answers in"):
            _chat([*options, "--endpoint", server.url, "--resume", "--max-new-tokens", "5"])
    assert (tmp_path / "out" / "answers_tiny_model.jsonl").read_text() == answers
