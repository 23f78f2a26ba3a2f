"""The page in a real browser: upload, streamed answers, refusals, two models, and nothing from other servers."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from exgra_adapter.chat.server import MOST_UPLOAD_BYTES

selenium = pytest.importorskip("selenium", reason="selenium is not installed: pip install selenium")
from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402

WAIT = 60.0
# Gradio says so whenever a page is left.
GRADIO_WARNING = '"Method not implemented."'
QUESTION = "Which organ is shown?"


class Browser:
    """A headless Chromium without access to anything but this machine."""

    def __init__(self, chromium: str, driver: str, folder: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for argument in (
            "--headless=new",
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
            "--no-first-run",
            f"--user-data-dir={folder}",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        ):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        # The driver's path is given, so that selenium does not look for one elsewhere.
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(driver))
        self.driver.execute_cdp_cmd("Network.enable", {})
        self.requests: set[str] = set()
        self.problems: list[str] = []

    def open(self, address: str, width: int = 1280, height: int = 900, phone: bool = False) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.driver.get("about:blank")
        self.collect()
        self.requests.clear()
        self.problems.clear()
        self.driver.get(address)
        self.wait(lambda: self.find("#question textarea, #question input"), "the page")

    def find(self, selector: str) -> Any:
        return next(iter(self.driver.find_elements(By.CSS_SELECTOR, selector)), None)

    def wait(self, condition: Callable[[], Any], what: str, seconds: float = WAIT) -> Any:
        ends = time.monotonic() + seconds
        while True:
            try:
                value = condition()
            except selenium.common.exceptions.StaleElementReferenceException:
                value = None
            if value:
                return value
            assert time.monotonic() < ends, f"{what} did not come; the page says {self.text('body')!r}"
            time.sleep(0.05)

    def text(self, selector: str) -> str:
        return self.driver.execute_script("return document.querySelector(arguments[0])?.innerText ?? ''", selector)

    def upload(self, path: Path) -> None:
        field = self.wait(lambda: self.find("#picture input[type=file]"), "the upload")
        field.send_keys(str(path))

    def show(self, path: Path) -> None:
        self.upload(path)
        self.wait(lambda: f"{path.name}," in self.text("#status"), "the image")

    def ask(self, question: str) -> None:
        box = self.find("#question textarea, #question input")
        box.clear()
        box.send_keys(question)
        self.find("#send").click()

    def messages(self, panel: int = 0, kind: str = "bot") -> list[str]:
        script = (
            "return [...document.querySelectorAll(`#panel-${arguments[0]} .message.${arguments[1]}`)]"
            ".map(each => each.innerText.trim())"
        )
        return self.driver.execute_script(script, panel, kind)

    def answers(self, count: int, panel: int = 0) -> list[str]:
        """Waits until a panel has that many answers that no longer change."""

        def settled() -> list[str]:
            before = self.messages(panel)
            time.sleep(0.4)
            done = len(before) == count and before == self.messages(panel) and before[-1] != "…"
            return before if done else []

        return self.wait(settled, f"answer {count}")

    def collect(self) -> None:
        """Reads what the browser asked for and complained about since the last time."""
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self.requests.add(message["params"]["request"]["url"])
        said = [entry for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
        self.problems += [entry["message"] for entry in said if GRADIO_WARNING not in entry["message"]]

    def dark(self, wanted: bool) -> None:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if wanted else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def overflow(self) -> list[str]:
        """What sticks out of the window to the right, or out of its button."""
        script = (
            "return [...document.querySelectorAll('button, p, h1, input, textarea, .message, #status span')]"
            ".filter(each => each.offsetParent && (each.getBoundingClientRect().right > innerWidth + 1 "
            "|| (each.tagName === 'BUTTON' && each.innerText && each.scrollWidth > each.clientWidth + 1)))"
            ".map(each => each.outerHTML.slice(0, 200))"
        )
        return self.driver.execute_script(script)

    def picture(self, name: str) -> None:
        """Takes a picture of the page where CHAT_SCREENSHOTS names a folder to look at them."""
        folder = os.environ.get("CHAT_SCREENSHOTS")
        if folder:
            self.driver.save_screenshot(str(Path(folder) / f"{name}.png"))

    def check(self, address: str) -> None:
        """Nothing was asked of other servers, and nothing was complained about."""
        self.collect()
        local = urlsplit(address).netloc
        outside = {url for url in self.requests if urlsplit(url).scheme in ("http", "https", "ws", "wss")}
        assert {url for url in outside if urlsplit(url).netloc != local} == set()
        assert len(outside) > 5
        assert self.problems == []


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no Chromium here: apt-get install chromium chromium-driver")
    started = Browser(chromium, driver, tmp_path_factory.mktemp("chromium"))
    yield started
    started.driver.quit()


class Server:
    """The command with --web, at a free port."""

    def __init__(self, *arguments: object) -> None:
        command = [sys.executable, "-m", "exgra_adapter", "chat", "--web", "--port", "0", "--device", "cpu"]
        self.process = subprocess.Popen(
            [*command, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        found = re.search(r"Page: (http://127\.0\.0\.1:\d+/)", said)
        if found is None:
            self.process.kill()
        assert found is not None, (said, self.process.communicate()[1])
        self.address = found[1]

    def close(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGINT)
        try:
            error = self.process.communicate(timeout=60)[1]
        finally:
            self.process.kill()
        return self.process.returncode, error


@pytest.fixture(scope="module")
def served(setting) -> Iterator[Server]:
    server = Server("--model", setting.model, "--max-new-tokens", 24)
    yield server
    code, error = server.close()
    assert code == 0
    assert error.splitlines()[-1:] == ["The page is closed."]
    assert "Traceback" not in error


@pytest.fixture(scope="module")
def compared(setting) -> Iterator[Server]:
    server = Server("--model", setting.model, "--compare", setting.other, "--max-new-tokens", 24)
    yield server
    assert server.close()[0] == 0


@pytest.fixture(scope="module")
def talkative(setting) -> Iterator[Server]:
    server = Server("--model", setting.talkative, "--max-new-tokens", 1900, "--image", setting.image())
    yield server
    assert server.close()[0] == 0


def test_upload_question_answer_and_a_second_turn(browser, served, setting, make_speaker):
    browser.open(served.address)
    assert "not for clinical use" in browser.text("#notice")
    browser.show(setting.image())
    browser.ask(QUESTION)
    [first] = browser.answers(1)
    browser.ask("Is a lesion visible?")
    both = browser.answers(2)
    browser.picture("one-model")
    assert both[0] == first
    assert browser.messages(kind="user") == [QUESTION, "Is a lesion visible?"]
    assert browser.driver.execute_script("return document.querySelector('#question textarea').value") == ""
    browser.find("#new").click()
    browser.wait(lambda: not browser.messages(), "a new conversation")
    browser.ask(QUESTION)
    assert browser.answers(1) == [first]
    browser.check(served.address)


def test_answers_grow_and_stop(browser, talkative, setting):
    browser.open(talkative.address)
    browser.wait(lambda: "0.png," in browser.text("#status"), "the image of the command line")
    beside = f"gradio_api/file={setting.image('1.png')}"
    assert ask_server(talkative.address, beside)[0] in (403, 404)
    browser.ask(QUESTION)

    def growing() -> str:
        return next(iter(browser.messages()), "").strip("…")

    early = browser.wait(growing, "the first words")
    later = browser.wait(lambda: (text := growing()) != early and text, "more words")
    assert len(later) > len(early)
    browser.find("#stop").click()
    [answer] = browser.answers(1)
    assert answer.endswith("(stopped)")
    assert browser.text("#status") == "The answer was stopped."
    browser.check(talkative.address)


def test_what_is_wrong_is_said_and_the_page_goes_on(browser, served, setting):
    browser.open(served.address)
    browser.ask(QUESTION)
    browser.wait(lambda: "must follow an image" in browser.text("#status"), "the refusal")
    assert browser.driver.execute_script("return document.querySelector('#question textarea').value") == QUESTION
    browser.collect()
    browser.upload(setting.image("broken.png"))
    browser.wait(lambda: "broken.png must be a readable image" in browser.text("#status"), "the refusal")
    browser.picture("broken")
    browser.upload(setting.image("bomb.png"))
    browser.wait(lambda: "bomb.png must have at most" in browser.text("#status"), "the refusal")
    assert str(setting.images) not in browser.text("body")
    browser.show(setting.image())
    browser.ask("what is <image>?")
    browser.wait(lambda: "must not spell a special token" in browser.text("#status"), "the refusal")
    browser.ask(QUESTION)
    browser.answers(1)
    assert browser.text("#status") == ""
    browser.check(served.address)


def test_large_uploads_are_refused(browser, served, setting, tmp_path):
    large = tmp_path / "large.png"
    large.write_bytes(setting.image().read_bytes() + bytes(MOST_UPLOAD_BYTES))
    browser.open(served.address)
    browser.upload(large)
    browser.wait(lambda: "exceed the maximum allowed size" in browser.text("body"), "the refusal")
    browser.show(setting.image())


def test_two_models_answer_side_by_side(browser, compared, setting, make_speaker):
    browser.open(compared.address)
    assert "first" in browser.text("#panel-0")
    assert "second" in browser.text("#panel-1")
    browser.show(setting.image())
    browser.ask(QUESTION)
    [left], [right] = browser.answers(1, 0), browser.answers(1, 1)
    assert left != right
    browser.ask("Is a lesion visible?")
    assert browser.answers(2, 1)[0] == right
    assert browser.answers(2, 0)[0] == left
    assert browser.messages(0, "user") == browser.messages(1, "user")
    assert browser.overflow() == []
    browser.picture("two-models")
    browser.find("#new").click()
    browser.wait(lambda: not browser.messages(0) and not browser.messages(1), "a new conversation")
    browser.check(compared.address)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_examples_at_any_width_in_light_and_dark(browser, compared, scheme, width):
    browser.dark(scheme == "dark")
    browser.open(compared.address, width, 844, phone=width < 600)
    browser.find("#examples button").click()
    browser.wait(lambda: "CT-liver.png," in browser.text("#status"), "the example")
    question = "return document.querySelector('#question textarea').value"
    browser.wait(lambda: browser.driver.execute_script(question) == QUESTION, "its question")
    browser.find("#send").click()
    browser.answers(1, 1)
    assert browser.overflow() == []
    background = browser.driver.execute_script("return getComputedStyle(document.body).backgroundColor")
    red = int(re.findall(r"\d+", background)[0])
    assert red < 60 if scheme == "dark" else red > 200
    browser.picture(f"{scheme}-{width}")
    browser.check(compared.address)


def ask_server(address: str, path: str = "", method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    try:
        connection.request(method, f"/{path}", headers={name.replace("_", "-"): text for name, text in headers.items()})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def test_requests_from_elsewhere_are_refused(served):
    status, headers, page = ask_server(served.address)
    assert status == 200
    assert "default-src 'self'" in headers["content-security-policy"]
    assert re.findall(rb"<(?:script|link|img|meta)[^>]*[\"'](?:https?:)?//", page) == []
    assert ask_server(served.address, Host="evil.example")[0] == 403
    join = "gradio_api/queue/join"
    assert ask_server(served.address, join, "POST", Origin="http://evil.example", Content_Length="0")[0] == 403
    assert ask_server(served.address, join, "POST", Content_Length=str(10**9))[0] == 413
    assert ask_server(served.address, join, "POST", Transfer_Encoding="chunked")[0] == 411
    for secret in ("/etc/passwd", str(Path(__file__))):
        assert ask_server(served.address, f"gradio_api/file={secret}")[0] in (403, 404)
