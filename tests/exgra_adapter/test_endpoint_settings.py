"""Settings of an endpoint, the .env file, and the check of replies against a schema."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exgra_adapter.endpoint import EndpointSettings, add_endpoint_options, endpoint_settings, settings_from_options
from exgra_adapter.endpoint.client import _retry_after
from exgra_adapter.endpoint.schema import parse_json_object, schema_problem
from exgra_adapter.endpoint.settings import KEY_VARIABLE, URL_VARIABLE, read_env_file

KEY = "sk-very-secret-0123456789"
URL = "http://localhost:8000/v1"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.delenv(URL_VARIABLE, raising=False)


def test_a_flag_wins_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text(f"{URL_VARIABLE}=http://file/v1\n{KEY_VARIABLE}=file\n")
    assert endpoint_settings(model="m").base_url == "http://file/v1"
    monkeypatch.setenv(URL_VARIABLE, "http://environment/v1")
    from_environment = endpoint_settings(model="m")
    assert (from_environment.base_url, from_environment.api_key) == ("http://environment/v1", "file")
    assert endpoint_settings(model="m", base_url="http://flag/v1", api_key="flag").api_key == "flag"
    assert endpoint_settings(model="m", base_url="http://flag/v1", env_file=None).api_key == ""


def test_options_become_settings() -> None:
    parser = argparse.ArgumentParser()
    add_endpoint_options(parser)
    options = parser.parse_args(f"--endpoint {URL} --model m --concurrency 4 --price-input 0.5 --first-wait 2".split())
    settings = settings_from_options(options)
    assert settings == EndpointSettings(URL, "m", concurrency=4, price_input=0.5, first_wait=2.0)
    assert not any("key" in action.dest for action in parser._actions)


def test_the_key_is_never_shown() -> None:
    settings = EndpointSettings(URL, "m", KEY)
    assert KEY not in repr(settings) + str(settings) + json.dumps(settings.describe())


@pytest.mark.parametrize(
    "changes",
    [
        {"base_url": "localhost:8000"},
        {"base_url": "ftp://host/v1"},
        {"base_url": "http://"},
        {"base_url": "http://host:port/v1"},
        {"base_url": f"http://user:{KEY}@host/v1"},
        {"base_url": f"http://host/v1?api-key={KEY}"},
        {"api_key": f"{KEY}\n"},
        {"api_key": f"{KEY}ä"},
        {"model": ""},
        {"concurrency": 0},
        {"timeout": 0.0},
        {"timeout": float("nan")},
        {"first_wait": 0.0},
        {"temperature": -1.0},
        {"price_input": -1.0},
    ],
)
def test_bad_settings_are_refused_without_showing_the_key(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^EndpointSettings: .* must .*; got .*\. ") as error:
        EndpointSettings(**{"base_url": URL, "model": "m", **changes})
    assert KEY not in str(error.value)


def test_missing_settings_say_where_to_put_them() -> None:
    with pytest.raises(ValueError, match="Give --endpoint, or set OPENAI_BASE_URL"):
        endpoint_settings(model="m")
    with pytest.raises(ValueError, match="Give --model"):
        endpoint_settings(model=None, base_url=URL)


def test_env_files(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("\ufeff# comment\n\nA=1\nexport B = 'two words' \nC=\"x#y\"\nD=z # comment\nE=\nF=a=b\n", "utf-8")
    assert read_env_file(path) == {"A": "1", "B": "two words", "C": "x#y", "D": "z", "E": "", "F": "a=b"}
    path.write_text(f"A=1\n{KEY}\n")
    with pytest.raises(ValueError, match=r"line 2 of .* must be NAME=VALUE") as error:
        read_env_file(path)
    assert KEY not in str(error.value)
    path.write_bytes(b"\xff")
    with pytest.raises(ValueError, match="must be UTF-8"):
        read_env_file(path)


def test_costs() -> None:
    assert EndpointSettings(URL, "m", price_input=1.0).cost(10, 10) is None
    assert EndpointSettings(URL, "m", price_input=1.0, price_output=3.0).cost(1e6, 2e6) == 7.0


@pytest.mark.parametrize(
    ("value", "schema", "problem"),
    [
        (7, {"type": "integer"}, None),
        (7.0, {"type": "integer"}, None),
        (7.5, {"type": "integer"}, "must be of type integer; got a number"),
        (True, {"type": "integer"}, "got true or false"),
        (True, {"type": "boolean"}, None),
        (None, {"type": ["string", "null"]}, None),
        (0, {"minimum": 1}, "must have minimum 1; got 0"),
        (11, {"maximum": 10}, "must have maximum 10; got 11"),
        ("", {"minLength": 1}, "must have minLength 1; got 0"),
        ("c", {"enum": ["a", "b"]}, "must be one of a, b; got 'c'"),
        ([1, "x"], {"items": {"type": "number"}}, "element 1 of reply must be of type number"),
        ({"a": {"b": 1}}, {"properties": {"a": {"properties": {"b": {"type": "string"}}}}}, "key 'b' of key 'a' of"),
        ({}, {"required": ["a"]}, "must have the keys a; a missing"),
        ({"a": 1, "more": 2}, {"properties": {"a": {"type": "number"}}, "additionalProperties": False}, None),
        ([], {"type": "object"}, "must be of type object; got a list"),
    ],
)
def test_schemas(value: Any, schema: dict[str, Any], problem: str | None) -> None:
    found = schema_problem(value, schema)
    assert found is None if problem is None else problem in found


objects = st.dictionaries(
    st.text(max_size=8),
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8), st.lists, max_leaves=4),
)


@given(objects, st.sampled_from(["{}", "```json\n{}\n```", "Sure!\n{}\nIs that all?", "  {}\n", "```\n{}```"]))
def test_an_object_is_found_in_what_models_write(value: dict[str, Any], frame: str) -> None:
    text = json.dumps(value)
    if "```" in frame and "```" in text:
        return
    assert parse_json_object(frame.replace("{}", text)) == value


@pytest.mark.parametrize("text", ["", "[1]", '{"a": NaN}', '{"a": 1', "no", "{" * 5000, "```json\n[]\n```"])
def test_what_holds_no_object_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="broken JSON"):
        parse_json_object(text)


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [("2", 2, 2), ("0.5", 0.5, 0.5), ("-3", 0, 0), ("99999", 600, 600), ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0)],
)
def test_retry_after(text: str, low: float, high: float) -> None:
    assert low <= _retry_after({"retry-after": text}) <= high


@pytest.mark.parametrize("text", ["", "soon", "nan"])
def test_an_unreadable_retry_after_is_left_alone(text: str) -> None:
    assert _retry_after({"retry-after": text}) is None
