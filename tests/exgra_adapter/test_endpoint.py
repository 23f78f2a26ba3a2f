"""The client of chat endpoints against a real local server that misbehaves by a seeded plan."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exgra_adapter.endpoint import (
    ChatClient,
    EndpointSettings,
    FailedItem,
    Item,
    Journal,
    RefusedByEndpoint,
    Reply,
    read_entries,
    run_batch,
)
from exgra_adapter.endpoint.batch import Summary
from exgra_adapter.endpoint.client import EndpointError, _read_completion, _retry_after


def _load_server() -> Any:
    path = Path(__file__).parents[1] / "fakes" / "openai_server.py"
    spec = importlib.util.spec_from_file_location("openai_server", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["openai_server"] = module
    spec.loader.exec_module(module)
    return module


fake = _load_server()
SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "string"}, "score": {"type": "integer", "minimum": 1, "maximum": 10}},
    "required": ["answer", "score"],
    "additionalProperties": False,
}
KEY = "sk-very-secret-0123456789"


def reply(body: dict[str, Any]) -> dict[str, Any]:
    return {"answer": body["messages"][0]["content"].splitlines()[0].upper(), "score": 7}


def key_of(body: dict[str, Any]) -> str:
    return body["messages"][0]["content"].splitlines()[0]


def server(plan: Any = None) -> Any:
    return fake.OpenAIServer(reply, key_of, plan)


def settings(url: str, **others: Any) -> EndpointSettings:
    return EndpointSettings(url, "fake", **{"api_key": KEY, "timeout": 5.0, "concurrency": 8, **others})


def messages(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def ask(url: str, text: str = "hello", first_wait: float = 0.01, **others: Any) -> Reply:
    async def run() -> Reply:
        async with ChatClient(settings(url, **others), first_wait) as client:
            return await client.ask(messages(text), SCHEMA, "answer")

    return asyncio.run(run())


def items(count: int) -> Iterator[Item]:
    return (Item(f"item {index}", messages(f"item {index}"), SCHEMA) for index in range(count))


def run(url: str, path: Path, count: int, resume: bool = False, others: Any = None, **options: Any) -> Summary:
    with Journal(path, {"model": "fake"}, resume) as journal:
        chosen = settings(url, **(others or {}))
        return run_batch(chosen, items(count), journal, first_wait=0.01, show_progress=False, **options)


def test_a_good_reply_has_content_and_counts() -> None:
    with server() as endpoint:
        answer = ask(endpoint.url)
    assert answer.content == {"answer": "HELLO", "score": 7}
    assert (answer.attempts, answer.input_tokens, answer.output_tokens) == (1, 1, 4)
    body = endpoint.bodies["hello"]
    assert body["response_format"]["json_schema"]["schema"] == SCHEMA
    assert endpoint.keys_seen == {f"Bearer {KEY}"}


@pytest.mark.parametrize("fault", fake.RETRIED)
def test_passing_faults_are_retried(fault: str) -> None:
    plan = fake.Plan(faults={fault: 1.0}, most_faults=2, slow_seconds=1.0)
    with server(plan) as endpoint:
        answer = ask(endpoint.url, timeout=0.5 if fault == "slow" else 5.0)
    assert answer.content == {"answer": "HELLO", "score": 7}
    assert answer.attempts == endpoint.requests["hello"] == 3


@pytest.mark.parametrize("fault", ["401", "403", "404", "quota"])
def test_what_no_request_survives_ends_at_once_without_the_key(fault: str) -> None:
    with server(fake.Plan(always={"hello": fault})) as endpoint, pytest.raises(RefusedByEndpoint) as error:
        ask(endpoint.url)
    assert endpoint.requests["hello"] == 1
    assert KEY not in str(error.value) + repr(error.value)
    assert endpoint.url in str(error.value)


@pytest.mark.parametrize("fault", ["context", "length", "refusal"])
def test_what_concerns_one_item_fails_it_at_once(fault: str) -> None:
    with server(fake.Plan(always={"hello": fault})) as endpoint, pytest.raises(FailedItem) as error:
        ask(endpoint.url)
    assert error.value.attempts == endpoint.requests["hello"] == 1


def test_attempts_are_limited_and_their_tokens_counted() -> None:
    with server(fake.Plan(always={"hello": "wrong_schema"})) as endpoint, pytest.raises(FailedItem) as error:
        ask(endpoint.url, max_attempts=3)
    assert error.value.attempts == endpoint.requests["hello"] == 3
    assert "wrong schema: reply must have the keys answer, score" in error.value.reason
    assert error.value.input_tokens == 3


def test_a_fenced_reply_is_read_without_another_request() -> None:
    with server(fake.Plan(faults={"fenced": 1.0})) as endpoint:
        assert ask(endpoint.url).attempts == 1


@pytest.mark.parametrize("formats", [("json_object",), ()])
def test_servers_without_structured_output_are_asked_in_words(formats: tuple[str, ...]) -> None:
    with server(fake.Plan(formats=formats)) as endpoint:
        assert ask(endpoint.url).attempts == 1
    body = endpoint.bodies["hello"]
    assert body.get("response_format", {}).get("type") == (formats[0] if formats else None)
    assert json.dumps(SCHEMA) in body["messages"][-1]["content"]


def test_parameters_that_a_server_refuses_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    with server(fake.Plan(refused_fields=("max_tokens", "temperature"))) as endpoint:
        ask(endpoint.url)
    assert endpoint.bodies["hello"]["max_completion_tokens"] == 512
    assert "its own is used" in caplog.text


def test_retry_after_is_honoured() -> None:
    plan = fake.Plan(faults={"429_retry_after": 1.0}, most_faults=1, retry_after=0.7)
    with server(plan) as endpoint:
        started = time.monotonic()
        ask(endpoint.url)
    assert time.monotonic() - started >= 0.7


@pytest.mark.parametrize(
    ("header", "wait"),
    [
        ("2", 2.0),
        ("-5", 0.0),
        ("inf", 600.0),
        ("nan", None),
        ("5, 10", None),
        ("soon", None),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 600.0),
        ("Fri, 31 Dec 1999 23:59:59 +99999999999999999999", None),
        ("Fri, 99999999999999999999 Dec 1999 23:59:59 GMT", None),
    ],
)
def test_retry_after_is_a_number_or_a_date_or_nothing(header: str, wait: float | None) -> None:
    assert _retry_after({"retry-after": header}) == wait


@pytest.mark.parametrize("count", ["1e400", "NaN", "-5", '{"all": 7}', '"seven"', "1" + "0" * 400])
def test_a_good_reply_with_impossible_counts_is_good(count: str) -> None:
    text = f'{{"choices": [{{"message": {{"content": "x"}}}}], "usage": {{"prompt_tokens": {count}}}}}'
    assert _read_completion(text) == ({"message": {"content": "x"}}, (0, 0))


def test_an_address_where_nothing_answers_ends_the_run() -> None:
    with server() as endpoint:
        url = endpoint.url
    with pytest.raises(RefusedByEndpoint, match="Check the address"):
        ask(url, max_attempts=2)


def test_300_items_against_all_faults(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    faults = dict.fromkeys(fake.RETRIED, 0.02) | {"fenced": 0.05}
    plan = fake.Plan(faults=faults, slow_seconds=1.0, always={"item 7": "500", "item 11": "context"})
    with server(plan) as endpoint:
        summary = run(
            endpoint.url,
            tmp_path / "journal.jsonl",
            300,
            others={"timeout": 0.8, "price_input": 1.0, "price_output": 2.0},
        )
    assert (summary.done, summary.failed, summary.skipped) == (298, 2, 0)
    assert summary.attempts == sum(endpoint.requests.values())
    assert summary.cost == pytest.approx((summary.input_tokens + 2 * summary.output_tokens) / 1e6)
    entries = list(read_entries(tmp_path / "journal.jsonl"))
    assert sorted(entry["key"] for entry in entries) == sorted(item.key for item in items(300))
    assert {entry["key"] for entry in entries if entry["status"] == "failed"} == {"item 7", "item 11"}
    assert all(endpoint.faults[fault] for fault in faults)
    assert KEY not in (tmp_path / "journal.jsonl").read_text() + caplog.text


def test_a_second_run_asks_for_what_is_missing_only(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with server(fake.Plan(always={"item 3": "context"})) as endpoint:
        run(endpoint.url, path, 10)
        second = run(endpoint.url, path, 20, resume=True)
        assert (second.done, second.failed, second.skipped) == (10, 0, 10)
        assert set(endpoint.requests.values()) == {1}
    with server() as endpoint:
        third = run(endpoint.url, path, 20, resume=True, retry_failed=True)
    assert (third.done, third.skipped, dict(endpoint.requests)) == (1, 19, {"item 3": 1})


def test_an_endpoint_that_is_down_ends_the_run(tmp_path: Path) -> None:
    with (
        server(fake.Plan(faults={"500": 1.0}, most_faults=99)) as endpoint,
        pytest.raises(EndpointError, match="in a row"),
    ):
        run(endpoint.url, tmp_path / "journal.jsonl", 500, others={"max_attempts": 1}, most_failures_in_a_row=30)
    assert sum(endpoint.requests.values()) <= 30 + 8


def test_items_are_read_as_they_are_needed(tmp_path: Path) -> None:
    taken, ahead = 0, []

    def counted() -> Iterator[Item]:
        nonlocal taken
        for item in items(100):
            taken += 1
            ahead.append(taken - sum(endpoint.answered.values()))
            yield item

    with server() as endpoint, Journal(tmp_path / "j.jsonl", {}) as journal:
        run_batch(settings(endpoint.url, concurrency=4), counted(), journal, show_progress=False)
    # The server counts a reply just after the client may have it.
    assert max(ahead) <= 8


def test_an_error_in_the_items_ends_the_run_and_keeps_what_is_done(tmp_path: Path) -> None:
    def broken() -> Iterator[Item]:
        yield from items(20)
        time.sleep(0.2)
        raise ValueError("sample 20 is broken")

    with server() as endpoint:
        with Journal(tmp_path / "j.jsonl", {}) as journal, pytest.raises(ValueError, match="sample 20"):
            run_batch(settings(endpoint.url, concurrency=2), broken(), journal, show_progress=False)
        assert len(list(read_entries(tmp_path / "j.jsonl"))) >= 18
