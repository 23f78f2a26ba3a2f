"""What the page does, without a browser: sessions, limits, where it listens, what it needs."""

from __future__ import annotations

import asyncio
import importlib.util
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from exgra_adapter.chat import page as pages
from exgra_adapter.chat import server as servers
from exgra_adapter.chat.guard import Guard, without_other_servers
from exgra_adapter.chat.page import _MOST_SESSIONS, UPLOADS, _Page, draw_examples
from exgra_adapter.chat.session import NO_ANSWER, Session
from exgra_adapter.cli import main
from exgra_adapter.data.images import ImageError, open_image

QUESTION = "Which organ is shown?"


def shown(setting, *speakers: Any) -> Session:
    session = Session(speakers)
    assert session.show(setting.image()) == "0.png, 80 x 64 pixels."
    return session


def test_models_answer_one_after_the_other_each_with_its_history(setting, make_speaker):
    session = shown(setting, make_speaker(), make_speaker(folder=setting.other))
    steps = list(session.ask(f"  {QUESTION}"))
    assert [message["role"] for message in steps[0].messages[0]] == ["user", "assistant"]
    assert steps[0].messages[1] == [{"role": "user", "content": QUESTION}]
    left, right = steps[-1].messages
    assert left[0] == right[0] == {"role": "user", "content": QUESTION}
    assert left[1]["content"] != right[1]["content"]
    both = list(session.ask("Is a lesion visible?"))[-1].messages
    assert [messages[:2] for messages in both] == [left, right]


def test_a_stop_ends_all_models_and_keeps_what_there_is(setting, make_speaker):
    speaker = make_speaker(folder=setting.talkative, max_new_tokens=1900)
    session = shown(setting, speaker, make_speaker())
    answers = session.ask(QUESTION)
    next(answers), next(answers)
    session.stop()
    last = list(answers)[-1]
    assert last.notice == "The answer was stopped."
    assert last.messages[0][1]["content"].endswith(" (stopped)")
    assert last.messages[1] == []
    assert len(list(session.ask(QUESTION))) > 0  # and the next question is answered
    session.reset()
    assert session.messages() == [[], []]


def test_a_reader_who_is_gone_leaves_no_answer_running(setting, make_speaker):
    speaker = make_speaker(folder=setting.talkative, max_new_tokens=1900)
    session = shown(setting, speaker)
    answers = session.ask(QUESTION)
    next(answers), next(answers)
    answers.close()
    session._answer._work.result(timeout=60)
    assert len(session._answer._tokens.values) < 1900


def test_forgetting_and_silence_are_said(setting, make_speaker, monkeypatch):
    session = shown(setting, make_speaker(folder=setting.forgetful, max_new_tokens=30))
    notices = {step.notice for _ in range(8) for step in session.ask(QUESTION)}
    assert "The conversation is longer than forgetful reads: its oldest questions are forgotten." in notices
    speaker = make_speaker()
    monkeypatch.setattr(speaker.model, "generate", lambda **_: None)
    session = shown(setting, speaker)
    assert list(session.ask(QUESTION))[-1].messages[0][1]["content"] == NO_ANSWER


def test_a_refused_image_is_no_image(setting, speaker):
    session = shown(setting, speaker)
    list(session.ask(QUESTION))
    with pytest.raises(ImageError, match=r"^chat: mine\.png must be a readable image") as refusal:
        session.show(setting.image("broken.png"), "mine.png")
    assert str(setting.images) not in str(refusal.value)
    assert not session.has_image
    assert session.messages() == [[]]


def request(key: str) -> Any:
    return SimpleNamespace(session_hash=key)


@pytest.fixture
def page(setting, speaker, tmp_path) -> _Page:
    (tmp_path / UPLOADS).mkdir()
    (tmp_path / UPLOADS / "a.png").write_bytes(setting.image().read_bytes())
    return _Page([speaker], draw_examples(tmp_path / "examples"), None, tmp_path / UPLOADS)


def test_every_page_has_its_own_session(page, tmp_path):
    upload = {"path": str(tmp_path / UPLOADS / "a.png"), "orig_name": "<b>mine</b>.png"}
    status = page._show(upload, request("one"))[1]
    assert "&lt;b&gt;mine&lt;/b&gt;.png, 80 x 64 pixels." in status
    list(page._ask(QUESTION, request("one")))
    refused = list(page._ask(QUESTION, request("two")))
    assert "must follow an image" in refused[-1][1]
    assert page._reset(request("one"))[1:] == [[]]
    page._forget(request("one"))
    assert set(page._sessions) == {"two"}
    for number in range(_MOST_SESSIONS + 5):
        page._stop(request(str(number)))
    assert len(page._sessions) == _MOST_SESSIONS
    assert "two" not in page._sessions


@pytest.mark.parametrize("path", ["{images}/0.png", "{uploads}/../../0.png", "", "/etc/passwd"])
def test_requests_name_uploads_and_nothing_else(page, setting, tmp_path, path):
    name = path.format(images=setting.images, uploads=tmp_path / UPLOADS)
    for upload in ({"path": name}, name):
        picture, status, *_ = page._show(upload, request("one"))
        assert picture is None
        assert "must be an upload or an example" in status


def test_a_model_that_fails_is_said_and_the_page_goes_on(page, speaker, tmp_path, monkeypatch):
    page._show({"path": str(tmp_path / UPLOADS / "a.png")}, request("one"))
    said = list(page._ask(QUESTION, request("one")))[-1][2]

    def fail(**_: object) -> None:
        raise RuntimeError("<shapes> differ")

    with monkeypatch.context() as patch:
        patch.setattr(speaker.model, "generate", fail)
        *_, (text, status, messages) = page._ask(QUESTION, request("one"))
    assert "value" not in text  # what was typed stays
    assert "role='alert'>chat: the model must be able to answer; got an error: &lt;shapes&gt; differ." in status
    assert messages == said
    assert len(list(page._ask(QUESTION, request("one")))[-1][2]) == 4


def test_beginning_anew_drops_the_answer_that_is_being_given(setting, make_speaker):
    session = shown(setting, make_speaker(folder=setting.talkative, max_new_tokens=1500))
    steps = session.ask(QUESTION)
    while not next(steps).messages[0][1]["content"].strip("…"):
        pass
    session.reset()
    assert list(steps)[-1].messages == session.messages() == [[]]
    assert session.has_image


def test_removing_the_image_begins_anew(page, tmp_path):
    page._show({"path": str(tmp_path / UPLOADS / "a.png")}, request("one"))
    assert page._session(request("one")).has_image
    page._show(None, request("one"))
    assert not page._session(request("one")).has_image
    # What a refusal says stays when the page takes the refused image away.
    assert all("value" not in update for update in page._show(None, request("one")))


def test_examples_are_images_and_always_the_same(tmp_path):
    first, second = draw_examples(tmp_path / "a"), draw_examples(tmp_path / "b")
    assert len(first) == 4
    for (left, question), (right, _) in zip(first, second, strict=True):
        assert Path(left).read_bytes() == Path(right).read_bytes()
        assert open_image(Path(left).parent, Path(left).name).size == (64, 64)
        assert question.endswith("?")


def test_the_page_asks_no_other_server(tmp_path, speaker):
    theme = pages._theme()
    assert theme._stylesheets == []
    assert not pages._Page([speaker], draw_examples(tmp_path), None, tmp_path).blocks.analytics_enabled


def test_only_uploads_are_shown(speaker, setting, tmp_path, monkeypatch):
    from starlette.testclient import TestClient

    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED"):
        monkeypatch.setenv(name, "")  # is as before after the test
    image = setting.image()
    with TestClient(servers.make_app([speaker], tmp_path, None)) as client:

        def show(path: str) -> str:
            event = {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}], "fn_index": 0, "session_hash": "a"}
            assert client.post("/gradio_api/queue/join", json=event).status_code == 200
            return client.get("/gradio_api/queue/data?session_hash=a").text

        assert "80 x 64 pixels" not in show(str(image))
        assert list(tmp_path.rglob(image.name)) == []
        upload = client.post("/gradio_api/upload", files={"files": (image.name, image.read_bytes())}).json()[0]
        assert "80 x 64 pixels" in show(upload)


def test_no_request_makes_the_page_fetch_an_address(speaker, setting, tmp_path, monkeypatch):
    from gradio import processing_utils, routes
    from starlette.testclient import TestClient

    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED"):
        monkeypatch.setenv(name, "")
    fetched = []

    async def fetch(address: str, *_: object, **__: object) -> Any:
        fetched.append(address)
        raise OSError("no network")

    monkeypatch.setattr(processing_utils, "async_ssrf_protected_download", fetch)
    monkeypatch.setattr(routes, "secure_url_stream_response", fetch)
    client = TestClient(servers.make_app([speaker], tmp_path, None), raise_server_exceptions=False)
    with client:
        handlers = client.get("/config").json()["dependencies"]
        for address in ("http://example.org/a.png", "https://example.org/a.png"):
            file = {"path": address, "meta": {"_type": "gradio.FileData"}}
            for place, handler in enumerate(handlers):
                if handler["inputs"]:  # a question may hold a file as well
                    data = [{"text": file} if place else file] * len(handler["inputs"])
                    event = {"data": data, "fn_index": place, "session_hash": f"{place}{address[:5]}"}
                    assert client.post("/gradio_api/queue/join", json=event).status_code == 200
                    said = client.get(f"/gradio_api/queue/data?session_hash={event['session_hash']}").text
                    assert "image must be an upload or an example; got an address. Upload the image." in said
            for route in ("file=", "file/", "proxy="):
                answer = client.get(f"/gradio_api/{route}{address}")
                assert answer.status_code == 403
                assert answer.text.startswith("chat: a request must name a file of the page; got an address.")
    assert fetched == []


def test_addresses_of_this_machine():
    assert [servers.is_loopback(host) for host in ("127.0.0.1", "::1", "127.0.0.9", "localhost")] == [True] * 4
    assert [servers.is_loopback(host) for host in ("192.168.0.1", "example.org", "::", "")] == [False] * 4


def test_an_open_page_is_said(setting, make_speaker, monkeypatch, capsys):
    import uvicorn

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(uvicorn.Server, "run", interrupted)
    monkeypatch.setattr(servers, "_listen", lambda *_: socket.socket())
    assert servers.serve([make_speaker()], "192.0.2.1", 0) == 0
    printed = capsys.readouterr()
    assert "Page: http://192.0.2.1:" in printed.out
    assert "open to everyone who reaches 192.0.2.1, without a password" in printed.err
    assert servers.serve([make_speaker()], "127.0.0.1", 0) == 0
    printed = capsys.readouterr()
    assert "not for clinical use" in printed.out
    assert "open to everyone" not in printed.err


def test_other_names_of_this_machine_keep_the_page_to_it(make_speaker, monkeypatch, capsys):
    import uvicorn

    hosts = []
    monkeypatch.setattr(servers, "make_app", lambda speakers, folder, names, image: hosts.append(names))
    monkeypatch.setattr(uvicorn.Server, "run", lambda *_, **__: None)
    assert servers.serve([make_speaker()], "127.1", 0) == 0
    assert "127.1" in hosts[0]
    assert "open to everyone" not in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_uploads_go_whatever_ends_the_page(number, speaker, monkeypatch):
    import uvicorn

    folders = []
    monkeypatch.setattr(servers, "make_app", lambda speakers, folder, *_: folders.append(folder))
    monkeypatch.setattr(uvicorn.Server, "run", lambda *_, **__: signal.raise_signal(number))
    with pytest.raises(SystemExit) as ended:
        servers.serve([speaker], "127.0.0.1", 0)
    assert ended.value.code == 128 + number
    assert not folders[0].exists()
    assert signal.getsignal(number) is signal.SIG_DFL


def test_addresses_that_cannot_be_listened_at_are_refused():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=rf"must be free to listen at; got 127\.0\.0\.1 and {port} .*--port 0"):
            servers._listen("127.0.0.1", port)
    with pytest.raises(ValueError, match="must be an address of this machine; got no such name"):
        servers._listen("no such name", 0)
    with pytest.raises(ValueError, match=r"must be an address of this machine; got a\.\.b \(no name of a host\)"):
        servers._listen("a..b", 0)


def test_without_gradio_one_sentence_says_what_to_do(setting, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == "gradio" else find(name))
    assert main(["chat", "--model", str(setting.model), "--web"]) == 1
    assert capsys.readouterr().err == (
        'Error: chat: gradio must be installed for --web; got none. Install it with `pip install "graphmatch[chat]"`, '
        "or leave --web out to chat in the terminal.\n"
    )


def test_the_terminal_needs_no_gradio():
    code = (
        "import sys; sys.modules['gradio'] = None; from exgra_adapter.chat import command, terminal, session; "
        "print('uvicorn' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ended.stdout == "False\n"


def asked(guard: Guard, method: str, headers: dict[str, str], kind: str = "http") -> list[Any]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {}

    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    asyncio.run(guard({"type": kind, "method": method, "path": "/", "headers": encoded}, receive, send))
    return sent


@pytest.mark.parametrize(
    ("hosts", "method", "headers", "status"),
    [
        (("here",), "GET", {"host": "here:80"}, 200),
        (("here", "[::1]"), "GET", {"host": "[::1]:80"}, 200),
        (("here", "Other"), "GET", {"host": "HERE:80"}, 200),
        (("here", "Other"), "GET", {"host": "other:80"}, 200),
        (("here",), "GET", {"host": "there"}, 403),
        (("here",), "GET", {}, 403),
        (None, "GET", {"host": "there"}, 200),
        (("here",), "POST", {"host": "here", "content-length": "9"}, 200),
        (("here",), "POST", {"host": "here", "content-length": "9", "origin": "http://here"}, 200),
        (("here",), "POST", {"host": "here", "content-length": "9", "origin": "http://there"}, 403),
        (("here",), "POST", {"host": "here", "content-length": "9", "origin": "null"}, 403),
        (("here",), "POST", {"host": "here", "content-length": "9", "origin": "http://["}, 403),
        (("here",), "POST", {"host": "here", "content-length": "9", "origin": "here"}, 403),
        (("here",), "POST", {"host": "HERE", "content-length": "9", "origin": "http://here"}, 200),
        (("here",), "POST", {"host": "here", "content-length": "11"}, 413),
        (("here",), "POST", {"host": "here", "content-length": "-1"}, 411),
        (("here",), "POST", {"host": "here"}, 411),
    ],
)
def test_the_guard_lets_through_what_it_should(hosts, method, headers, status):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"Content-Type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"yes"})

    sent = asked(Guard(app, hosts, 10), method, headers)
    assert sent[0]["status"] == status
    assert (sent[1]["body"] == b"yes") == (status == 200)
    assert status == 200 or sent[1]["body"].startswith(b"chat: ")


def test_pages_come_without_what_loads_from_elsewhere():
    parts = [b'<p>a</p><script src="https://exam', b'ple.org/a.js"></script><script src="./b.js"></script>']

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            headers = [(b"content-type", b"text/html; charset=utf-8"), (b"content-length", b"999")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": parts[0], "more_body": True})
            await send({"type": "http.response.body", "body": parts[1]})

    start, body = asked(Guard(app, None, 10), "GET", {})
    assert body["body"] == b'<p>a</p><script src="./b.js"></script>'
    assert (b"content-length", str(len(body["body"])).encode()) in start["headers"]
    assert b"frame-ancestors 'none'" in dict(start["headers"])[b"content-security-policy"]
    assert asked(Guard(app, None, 10), "", {}, "lifespan") == []
    page = '<meta property="og:image"\n content="https://a/b.jpg" /><link rel=preconnect href=//c><img src="d.png">'
    assert without_other_servers(page) == '<img src="d.png">'
