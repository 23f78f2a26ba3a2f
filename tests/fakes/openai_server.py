"""A local HTTP server that speaks /v1/chat/completions and /v1/models, and misbehaves on purpose by a seeded plan."""

from __future__ import annotations

import hashlib
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

FAULTS = (
    "429",  # without Retry-After
    "429_retry_after",
    "429_retry_date",
    "500",
    "503",
    "slow",  # answers later than the client waits
    "broken_json",  # the model's text is no JSON
    "broken_body",  # the HTTP body is no JSON
    "wrong_schema",
    "no_choices",
    "empty",
    "cut",  # the connection ends before any byte
    "cut_body",  # the connection ends within the body
    "fenced",  # a good reply inside a fenced block: not to be retried
    "context",  # 400 that concerns this item only
    "length",  # cut off by max_tokens
    "refusal",
    "401",  # repeats the key in its text
    "403",
    "404",
    "quota",  # 429 that no waiting helps against
)
RETRIED = FAULTS[:13]
"""Faults after which a client should ask again."""


@dataclass(frozen=True)
class Plan:
    """How the server misbehaves.

    Attributes:
        faults: Probability of each fault, drawn anew for each request by seed, key and the key's count of requests.
        most_faults: A key gets no more retried faults than this, so that a patient client always succeeds.
        always: Keys that get a fault each time.
        formats: What is understood as response_format; others are refused with status 400.
        refused_fields: Fields of the request that are refused with status 400.
        slow_seconds: How late a slow reply is.
        retry_after: Seconds in the header.
        delay: Seconds that every good reply takes.
    """

    faults: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    most_faults: int = 4
    always: Mapping[str, str] = field(default_factory=dict)
    formats: tuple[str, ...] = ("json_schema", "json_object")
    refused_fields: tuple[str, ...] = ()
    slow_seconds: float = 1.0
    retry_after: float = 0.05
    delay: float = 0.0


class OpenAIServer:
    """Runs in threads of the test's process; use it as `with`.

    Args:
        reply: Makes the content of a good reply (an object or a text) from the request's body.
        key_of: Identifies a request by its body; by default a hash of its messages' texts.
        plan: The faults.

    Attributes:
        url: Base address, with /v1.
        requests: Requests per key.
        answered: Good replies sent per key; replies to clients that were gone do not count.
        faults: Faults made, by name.
        keys_seen: Values of the Authorization header.
        bodies: The last request of each key.
    """

    def __init__(
        self,
        reply: Callable[[dict[str, Any]], Any],
        key_of: Callable[[dict[str, Any]], str] | None = None,
        plan: Plan | None = None,
        keep_bodies: bool = True,
    ) -> None:
        self.reply, self.key_of, self.plan = reply, key_of or hash_of_messages, plan or Plan()
        self.requests: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self._retried: Counter[str] = Counter()
        self.keys_seen: set[str] = set()
        self.bodies: dict[str, dict[str, Any]] = {}
        self.keep_bodies = keep_bodies
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        server = self

        class Handler(_Handler):
            fake = server

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # clients that are killed leave broken connections

        self._http = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> OpenAIServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopping.set()
        self._http.shutdown()
        self._http.server_close()

    def fault(self, key: str) -> str | None:
        """Counts a request and draws its fault."""
        with self.lock:
            self.requests[key] += 1
            fault = self.plan.always.get(key)
            if fault is None:
                draw = random.Random(f"{self.plan.seed}/{key}/{self.requests[key]}").random()
                for name, probability in self.plan.faults.items():
                    draw -= probability
                    if draw < 0:
                        fault = name
                        break
                if fault in RETRIED:
                    if self._retried[key] >= self.plan.most_faults:
                        fault = None
                    else:
                        self._retried[key] += 1
            if fault is not None:
                self.faults[fault] += 1
            return fault


def hash_of_messages(body: dict[str, Any]) -> str:
    """The default key of a request."""
    texts = json.dumps([message["content"] for message in body["messages"]])
    return hashlib.blake2b(texts.encode(), digest_size=8).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    fake: OpenAIServer

    def do_GET(self) -> None:
        if self.path != "/v1/models":
            self._error(404, "no such path")
            return
        self._json(200, {"object": "list", "data": [{"id": "fake", "object": "model"}]})

    def do_POST(self) -> None:
        fake, plan = self.fake, self.fake.plan
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions":
            self._error(404, "no such path")
            return
        refused = self._refused(body)
        if refused:
            self._error(400, refused)
            return
        key = fake.key_of(body)
        fault = fake.fault(key)
        with fake.lock:
            fake.keys_seen.add(self.headers.get("Authorization", ""))
            if fake.keep_bodies:
                fake.bodies[key] = body
        if fault in ("429", "429_retry_after", "429_retry_date", "quota", "500", "503", "401", "403", "404", "context"):
            self._status(fault)
        elif fault in ("cut", "cut_body"):
            self._cut(fault)
        else:
            if fault == "slow":
                fake.stopping.wait(plan.slow_seconds)
            elif plan.delay:
                time.sleep(plan.delay)
            content = self._completion(body, fault)
            self._json(200, content, broken=fault == "broken_body")
            if fault in (None, "fenced"):
                with fake.lock:
                    fake.answered[key] += 1

    def _refused(self, body: dict[str, Any]) -> str | None:
        plan = self.fake.plan
        form = body.get("response_format", {}).get("type")
        if form is not None and form not in plan.formats:
            return f"Invalid value for response_format: '{form}' is not supported."
        for name in plan.refused_fields:
            if name in body:
                instead = " Use 'max_completion_tokens' instead." if name == "max_tokens" else ""
                return f"Unsupported parameter: '{name}'.{instead}"
        return None

    def _completion(self, body: dict[str, Any], fault: str | None) -> dict[str, Any]:
        good = self.fake.reply(body)
        text = good if isinstance(good, str) else json.dumps(good)
        message: dict[str, Any] = {"role": "assistant", "content": text}
        reason = "stop"
        if fault == "broken_json":
            message["content"] = text[: len(text) // 2]
        elif fault == "length":
            message["content"], reason = text[: len(text) // 2], "length"
        elif fault == "wrong_schema":
            message["content"] = json.dumps({"something": "else"})
        elif fault == "empty":
            message["content"] = ""
        elif fault == "refusal":
            message |= {"content": None, "refusal": "I cannot help with that."}
        elif fault == "fenced":
            message["content"] = f"Here is the answer:\n```json\n{text}\n```\nAsk again."
        words = sum(len(str(one["content"]).split()) for one in body["messages"])
        return {
            "id": "chatcmpl-fake",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [] if fault == "no_choices" else [{"index": 0, "message": message, "finish_reason": reason}],
            "usage": {
                "prompt_tokens": words,
                "completion_tokens": len(text.split()),
                "total_tokens": words + len(text.split()),
            },
        }

    def _status(self, fault: str) -> None:
        headers = {}
        code = None
        message = f"the plan says {fault}"
        if fault == "429_retry_after":
            headers["Retry-After"] = str(self.fake.plan.retry_after)
        elif fault == "429_retry_date":
            headers["Retry-After"] = formatdate(time.time() + self.fake.plan.retry_after, usegmt=True)
        elif fault == "401":
            message = f"Incorrect API key provided: {self.headers.get('Authorization', '').removeprefix('Bearer ')}"
        elif fault == "context":
            code, message = "context_length_exceeded", "This model's maximum context length is 8 tokens."
        elif fault == "quota":
            code, message = "insufficient_quota", "You exceeded your current quota."
        number = {"context": 400, "quota": 429}.get(fault) or int(fault[:3])
        self._error(number, message, headers, code)

    def _error(
        self, status: int, message: str, headers: Mapping[str, str] | None = None, code: str | None = None
    ) -> None:
        self._json(status, {"error": {"message": message, "type": "fake", "code": code}}, headers)

    def _json(self, status: int, value: Any, headers: Mapping[str, str] | None = None, broken: bool = False) -> None:
        content = json.dumps(value).encode()
        if broken:
            content = content[: len(content) // 2]
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(content)

    def _cut(self, fault: str) -> None:
        if fault == "cut_body":
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "10000")
            self.end_headers()
            self.wfile.write(b'{"choices": [{"mess')
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass
