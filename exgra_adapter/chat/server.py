"""Serves the page of the chat until Ctrl-C."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exgra_adapter.chat.guard import Guard
from exgra_adapter.console import complain, say

if TYPE_CHECKING:
    from exgra_adapter.chat.speaker import Speaker

MOST_UPLOAD_BYTES = 20 * 2**20
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
# What of a request is not the image: names and borders.
_ENVELOPE = 2**16


def require_gradio() -> None:
    """Refuses to go on without the package that makes the page.

    Raises:
        ImportError: It is not installed.
    """
    if importlib.util.find_spec("gradio") is None:
        raise ImportError(
            'chat: gradio must be installed for --web; got none. Install it with `pip install "graphmatch[chat]"`, or '
            "leave --web out to chat in the terminal."
        )


def serve(speakers: Sequence[Speaker], host: str, port: int, image: Path | None = None) -> int:
    """Serves the page until it is interrupted.

    Args:
        speakers: One or two models.
        host: The address to listen at.
        port: The port; 0 takes a free one.
        image: Shown at the beginning.

    Returns:
        The exit code 0.

    Raises:
        SystemExit: The process was told to end, or its terminal is closed; uploads are removed before it does.
        ValueError: The address cannot be listened at.
    """
    listening = _listen(host, port)
    with listening, _ends_in_order(), tempfile.TemporaryDirectory(prefix="exgra-chat-") as folder:
        # Names such as localhost.localdomain or 127.1 are known by the address that they stand for.
        local = is_loopback(host) or is_loopback(str(listening.getsockname()[0]))
        names = (*_LOOPBACK, host, f"[{host}]") if local else None
        app = make_app(speakers, Path(folder), names, image)
        # Importing gradio imports it, and takes a second.
        import uvicorn

        number = listening.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        say(f"Page: http://{shown}:{number}/ (Ctrl-C closes it). For research, not for clinical use.")
        if not local:
            complain(
                f"The page is open to everyone who reaches {host}, without a password. "
                "Leave --host out to keep it to this machine."
            )

        class Server(uvicorn.Server):
            def handle_exit(self, sig: int, frame: Any) -> None:
                # Pages that are still open listen for answers; that they are cut off now is no error.
                logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
                super().handle_exit(sig, frame)

        settings = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=1, ws="none")
        server = Server(settings)
        try:
            server.run(sockets=[listening])
        except KeyboardInterrupt:
            complain("The page is closed.")
        finally:
            for speaker in speakers:
                speaker.stop()
    return 0


@contextmanager
def _ends_in_order() -> Iterator[None]:
    """Lets signals that would end the process at once unwind it; those that are ignored, as by nohup, stay so."""

    def end(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    wanted = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    replaced = [number for number in wanted if signal.getsignal(number) is signal.SIG_DFL]
    for number in replaced:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in replaced:
            signal.signal(number, signal.SIG_DFL)


def make_app(speakers: Sequence[Speaker], folder: Path, hosts: Sequence[str] | None, image: Path | None = None) -> Any:
    """Makes the ASGI application.

    Args:
        speakers: One or two models.
        folder: Where uploads and examples are kept.
        hosts: The names that requests may give this machine; None: any.
        image: Shown at the beginning.
    """
    # Read when gradio is imported; its statistics would go to another server.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(folder / "uploads")
    from exgra_adapter.chat.page import make_page

    page = make_page(speakers, folder, MOST_UPLOAD_BYTES, image)
    return Guard(page, hosts, MOST_UPLOAD_BYTES + _ENVELOPE)


def is_loopback(host: str) -> bool:
    """Says whether an address is that of this machine alone.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("192.168.0.7")
        (True, True, False)
    """
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:  # names that no host can have are not encoded
        reason = getattr(error, "strerror", None) or "no name of a host"
        raise ValueError(
            f"chat: --host must be an address of this machine; got {host} ({reason}). Leave it out."
        ) from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()
    except OSError as error:
        listening.close()
        raise ValueError(
            f"chat: --host and --port must be free to listen at; got {host} and {port} ({error.strerror}). "
            "Take another port; --port 0 finds one."
        ) from None
    return listening
