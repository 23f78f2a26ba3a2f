"""One question to an endpoint: structured output, checked, with retries."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any

from exgra_adapter.endpoint.schema import parse_json_object, schema_problem
from exgra_adapter.endpoint.settings import KEY_VARIABLE, EndpointSettings

logger = logging.getLogger(__name__)

_AGAIN = (408, 409, 425, 429)
_ABOUT_THE_ITEM = ("context_length", "context length", "content_filter", "content_policy", "maximum context")
_FORMATS = ("json_schema", "json_object", "text")
_MOST_TOKENS = 2**40  # of one request; a larger number is a mistake
_LONGEST_WAIT, _LONGEST_RETRY_AFTER = 60.0, 600.0


class EndpointError(ValueError):
    """The endpoint did not give what was asked for."""


class RefusedByEndpoint(EndpointError):  # noqa: N818
    """No request can succeed: wrong key, address, model or request. The run ends."""


class FailedItem(EndpointError):  # noqa: N818
    """One item got no usable reply.

    Attributes:
        reason: Why, without the key.
        attempts: Requests made.
        input_tokens: Input tokens that unusable replies were billed for.
        output_tokens: Output tokens of these.
    """

    def __init__(self, reason: str, attempts: int, input_tokens: int = 0, output_tokens: int = 0) -> None:
        super().__init__(f"{reason} ({attempts} attempts)")
        self.reason, self.attempts = reason, attempts
        self.input_tokens, self.output_tokens = input_tokens, output_tokens


@dataclass(frozen=True)
class Reply:
    """A reply that fits its schema.

    Attributes:
        content: The JSON object.
        input_tokens: As the endpoint counted, over all attempts; 0 where it does not count.
        output_tokens: Likewise.
        attempts: Requests made.
        seconds: From the first request to the reply, waiting included.
    """

    content: dict[str, Any]
    input_tokens: int
    output_tokens: int
    attempts: int
    seconds: float


class _AgainError(EndpointError):
    """This request failed, the next may not."""

    def __init__(self, reason: str, wait: float | None = None, unreachable: bool = False) -> None:
        super().__init__(reason)
        self.wait, self.unreachable = wait, unreachable


class _HopelessError(EndpointError):
    """This item fails each time."""


class _AdaptedError(EndpointError):
    """The server does not know a part of the request; the next request is without it."""


class ChatClient:
    """Asks an OpenAI-compatible endpoint; use it as `async with`.

    Answers of status 408, 409, 425, 429 and 5xx, timeouts, cut connections, broken JSON and a wrong schema are retried
    with waiting times that double and have a random part; `Retry-After` is honoured up to ten minutes and holds up all
    requests. A server that refuses JSON-schema output is asked for a JSON object, and one that refuses that for text.

    Args:
        settings: The endpoint.
        first_wait: Replaces that of the settings.
    """

    def __init__(self, settings: EndpointSettings, first_wait: float | None = None) -> None:
        self.settings = settings
        self._first_wait = settings.first_wait if first_wait is None else first_wait
        self._random = random.Random(settings.seed)
        self._format = 0
        self._length_name = "max_tokens"
        self._with_temperature = True
        self._answered = False
        self._not_before = 0.0
        self._client: Any = None

    async def __aenter__(self) -> ChatClient:
        import openai  # half a second

        settings = self.settings
        self._client = openai.AsyncOpenAI(
            # The package insists on a key; servers that need none ignore it.
            api_key=settings.api_key or "none",
            base_url=settings.base_url,
            timeout=settings.timeout,
            max_retries=0,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def ask(self, messages: list[dict[str, Any]], schema: dict[str, Any], name: str = "reply") -> Reply:
        """Asks until there is a reply that fits the schema.

        Args:
            messages: The chat, as `{"role": ..., "content": ...}`.
            schema: JSON schema of an object, see `exgra_adapter.endpoint.schema`. For strict output, endpoints demand
                `additionalProperties: false` and all properties in `required`.
            name: Name of the schema: letters, digits, `_` and `-`.

        Returns:
            The reply.

        Raises:
            FailedItem: There was none after all attempts, or the endpoint refuses this item only.
            RefusedByEndpoint: The endpoint refuses every request, or cannot be reached at all.
        """
        started, attempts, tokens = time.monotonic(), 0, [0, 0]
        while True:
            await asyncio.sleep(max(0.0, self._not_before - time.monotonic()))
            try:
                attempts += 1
                content = await self._attempt(messages, schema, name, tokens)
            except _AdaptedError:
                attempts -= 1
            except _HopelessError as failure:
                raise FailedItem(str(failure), attempts, *tokens) from None
            except _AgainError as failure:
                if attempts >= self.settings.max_attempts:
                    if failure.unreachable and not self._answered:
                        raise RefusedByEndpoint(
                            f"ChatClient: base_url must be an endpoint that answers; got {failure} from "
                            f"{self.settings.base_url} {attempts} times. Check the address, and whether it runs."
                        ) from None
                    raise FailedItem(str(failure), attempts, *tokens) from None
                await asyncio.sleep(self._wait(attempts, failure))
            else:
                return Reply(content, tokens[0], tokens[1], attempts, time.monotonic() - started)

    async def _attempt(
        self, messages: list[dict[str, Any]], schema: dict[str, Any], name: str, tokens: list[int]
    ) -> dict[str, Any]:
        text = await self._send(self._body(messages, schema, name))
        choice, usage = _read_completion(text)
        tokens[0] += usage[0]
        tokens[1] += usage[1]
        self._answered = True
        message = choice["message"]
        content = message.get("content")
        reason = choice.get("finish_reason")
        if message.get("refusal") or reason == "content_filter":
            raise _HopelessError("the model refused to answer")
        if not isinstance(content, str) or not content.strip():
            raise _AgainError("an empty reply")
        try:
            value = self.settings.masked(parse_json_object(content))
            json.dumps(value, ensure_ascii=False).encode("utf-8")  # half of a surrogate pair could not be written
        except ValueError:
            if reason == "length":
                raise _HopelessError("the reply was cut off; a larger --max-tokens may help") from None
            raise _AgainError("broken JSON in the reply") from None
        problem = schema_problem(value, schema)
        if problem:
            raise _AgainError(f"wrong schema: {problem}"[:300])
        return value

    def _body(self, messages: list[dict[str, Any]], schema: dict[str, Any], name: str) -> dict[str, Any]:
        settings, form = self.settings, _FORMATS[self._format]
        body: dict[str, Any] = {"model": settings.model, self._length_name: settings.max_tokens}
        if self._with_temperature:
            body["temperature"] = settings.temperature
        if form == "json_schema":
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": name, "schema": schema, "strict": True},
            }
        else:
            if form == "json_object":
                body["response_format"] = {"type": "json_object"}
            rule = f"Reply with one JSON object that fits this JSON schema, and nothing else: {json.dumps(schema)}"
            messages = [*messages, {"role": "user", "content": rule}]
            # Many chat templates refuse two messages of one role in a row.
            if len(messages) > 1 and messages[-2]["role"] == "user" and isinstance(messages[-2]["content"], str):
                messages[-2:] = [{"role": "user", "content": f"{messages[-2]['content']}\n\n{rule}"}]
        body["messages"] = messages
        return body

    async def _send(self, body: dict[str, Any]) -> str:
        import openai

        seconds = self.settings.timeout
        try:
            # The package's own limit is per piece of the reply: a server that trickles would hold a request for ever.
            raw = await asyncio.wait_for(self._client.chat.completions.with_raw_response.create(**body), seconds)
            return str(raw.text)
        except openai.APIStatusError as error:
            raise self._judge_status(error.status_code, error.body, dict(error.response.headers), body) from None
        except (openai.APITimeoutError, asyncio.TimeoutError):
            raise _AgainError(f"no reply within {seconds:g} s") from None
        except openai.APIConnectionError as error:
            kind = type(error.__cause__ or error).__name__
            raise _AgainError(f"a broken connection ({kind})", unreachable=True) from None
        except openai.APIError as error:
            raise _AgainError(f"an unreadable reply ({type(error).__name__})") from None

    def _judge_status(self, status: int, content: Any, headers: dict[str, str], body: dict[str, Any]) -> EndpointError:
        """Which error an answer of status 4xx or 5xx is."""
        inner = content.get("error", content) if isinstance(content, dict) else content
        code = str(inner.get("code") or "") if isinstance(inner, dict) else ""
        message = str(inner.get("message") or "") if isinstance(inner, dict) else str(inner or "")
        text = self.settings.masked(" ".join(message.split()))[:300]
        said = f"status {status}" + (f": {text}" if text else "")
        searched = f"{code} {message}".lower()
        if status >= 500 or (status in _AGAIN and "insufficient_quota" not in searched):
            wait = _retry_after(headers)
            if wait is not None:
                self._not_before = max(self._not_before, time.monotonic() + wait)
            return _AgainError(said, wait)
        if status in (400, 422) and self._adapt(searched, body):
            return _AdaptedError(said)
        if status in (413, 422) or (status == 400 and any(word in searched for word in _ABOUT_THE_ITEM)):
            return _HopelessError(said)
        cures = {
            400: "Check the options, and whether the model can chat",
            401: f"Check {KEY_VARIABLE}",
            403: f"Check {KEY_VARIABLE} and what it may do",
            404: "Check the address and the name of the model",
        }
        cure = cures.get(status, "Check the account and the address")
        return RefusedByEndpoint(
            f"ChatClient: the endpoint {self.settings.base_url} must accept requests for model "
            f"{self.settings.model!r}; got {said}. {cure}."
        )

    def _adapt(self, searched: str, body: dict[str, Any]) -> bool:
        """Leaves out what the server does not know; False if nothing is left to leave out."""
        if "max_completion_tokens" in searched and "max_tokens" in body:
            self._length_name = "max_completion_tokens"
            return True
        form = body.get("response_format", {}).get("type", "text")
        if form != "text" and any(word in searched for word in ("response_format", *_FORMATS[:2], "guided")):
            following = _FORMATS.index(form) + 1
            if following > self._format:
                self._format = following
                logger.warning("the endpoint refuses %s output; asking for %s instead", form, _FORMATS[following])
            return True
        if "temperature" in searched and "temperature" in body:
            if self._with_temperature:
                logger.warning("the endpoint refuses temperature %g; its own is used", self.settings.temperature)
            self._with_temperature = False
            return True
        return False

    def _wait(self, attempts: int, failure: _AgainError) -> float:
        wait = min(_LONGEST_WAIT, self._first_wait * 2 ** (attempts - 1)) * self._random.uniform(0.5, 1.0)
        # The random part keeps requests that were told the same time from coming back at once.
        return wait if failure.wait is None else failure.wait + self._random.uniform(0.0, self._first_wait / 4)


def _read_completion(text: str) -> tuple[dict[str, Any], tuple[int, int]]:
    try:
        value = json.loads(text)
        choice = value["choices"][0]
        usage = value.get("usage") or {}
        counts = (_tokens(usage.get("prompt_tokens")), _tokens(usage.get("completion_tokens")))
        choice["message"].keys()
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise _AgainError("a reply that is no chat completion") from None
    return choice, counts


def _tokens(value: Any) -> int:
    """A number of tokens; 0 where the endpoint says what none can be."""
    try:
        count = int(value or 0)
    except (ValueError, TypeError, OverflowError):
        return 0
    return count if 0 <= count <= _MOST_TOKENS else 0


def _retry_after(headers: dict[str, str]) -> float | None:
    """Seconds that the server asks to wait: a number, or the time of day of a clock that may differ from ours."""
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    try:
        wait = float(text)
    except ValueError:
        try:
            wait = parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return min(max(wait, 0.0), _LONGEST_RETRY_AFTER) if wait == wait else None
