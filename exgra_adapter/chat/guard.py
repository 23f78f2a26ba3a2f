"""What stands between a browser and the page: who may ask, how much, and that nothing comes from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; connect-src 'self'; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]
# Elements of a page that load or announce something of another server.
_OUTSIDE = re.compile(
    r"<(?P<name>script|link|meta|img)\b[^>]*\b(?:src|href|content)=[\"']?(?:https?:)?//[^>]*>(?:\s*</(?P=name)>)?"
)

_ADDRESS = re.compile(r"https?:/", re.IGNORECASE)


class Guard:
    """An application around another one.

    Args:
        app: What answers.
        hosts: The names that requests may give the server; None: any.
        most_bytes: The longest body of a request.
    """

    def __init__(self, app: App, hosts: Sequence[str] | None, most_bytes: int) -> None:
        self._app, self._most = app, most_bytes
        self._hosts = None if hosts is None else {name.lower() for name in hosts}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answers a request, or lets the application answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        status, reason = self._refusal(scope["method"], scope["path"], headers)
        if status:
            await _refuse(send, status, reason)
            return
        await self._app(scope, receive, _Cleaned(send))

    def _refusal(self, method: str, path: str, headers: dict[bytes, str]) -> tuple[int, str]:
        host = headers.get(b"host", "").lower()
        # A name that an attacker lets point to this machine would give his pages access to this one.
        if self._hosts is not None and _name(host) not in self._hosts:
            return 403, "chat: a request must name this machine. Open the address that the command printed."
        # Gradio would fetch it and hand it on.
        if _ADDRESS.search(path):
            return 403, "chat: a request must name a file of the page; got an address. Open the address itself."
        if method in ("GET", "HEAD"):
            return 0, ""
        origin = headers.get(b"origin")
        if origin is not None and origin.lower().partition("://")[2] != host:
            return 403, "chat: a request must come from the page itself."
        length = headers.get(b"content-length")
        if length is None or not length.isdecimal():
            return 411, "chat: a request must say how long it is."
        if int(length) > self._most:
            return 413, f"chat: an upload must have at most {self._most} bytes. Make the image smaller."
        return 0, ""


class _Cleaned:
    """Sends a response on, with headers of our own; in a page, without what loads from other servers."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message | None = None
        self._page: list[bytes] = []

    async def __call__(self, message: Message) -> None:
        """Takes a part of the response."""
        if message["type"] == "http.response.start":
            ours = {name for name, _ in _HEADERS}
            kept = [(name, value) for name, value in message["headers"] if name.lower() not in ours]
            message = {**message, "headers": [*kept, *_HEADERS]}
            if any(name.lower() == b"content-type" and value.startswith(b"text/html") for name, value in kept):
                self._start = message
                return
        elif message["type"] == "http.response.body" and self._start is not None:
            self._page.append(message.get("body", b""))
            if message.get("more_body"):
                return
            page = without_other_servers(b"".join(self._page).decode()).encode()
            start, self._start = self._start, None
            headers = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
            await self._send({**start, "headers": [*headers, (b"content-length", str(len(page)).encode())]})
            message = {"type": "http.response.body", "body": page}
        await self._send(message)


def without_other_servers(page: str) -> str:
    """Returns a page without the elements that load or announce something of another server.

    Example:
        >>> without_other_servers('<p>a<script src="https://example.org/a.js" async></script><a href="//b">b</a>')
        '<p>a<a href="//b">b</a>'
    """
    return _OUTSIDE.sub("", page)


def _name(host: str) -> str:
    """The name in a Host header, without the port."""
    return host.rpartition(":")[0] if re.search(r":\d*$", host) else host


async def _refuse(send: Send, status: int, reason: str) -> None:
    body = reason.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
