"""Takes the pictures of docs/chat.md: the page of two models of the demo, in a headless Chromium.

    python -m exgra_adapter demo
    python docs/take_screenshots.py runs/demo

Needs `pip install graphmatch[chat] selenium`, and Debian's packages chromium and chromium-driver.
"""

from __future__ import annotations

import io
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By

FOLDER = Path(__file__).resolve().parent / "screenshots"
QUESTIONS = ("Which organ is shown?", "What kind of image is this?")
SIZES = {"chat": (1180, 700), "chat-phone": (390, 1180)}


def browser() -> Any:
    """Starts Chromium."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    return webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))


def wait(condition: Callable[[], Any], what: str) -> None:
    """Waits for at most a minute."""
    ends = time.monotonic() + 60
    while not condition():
        if time.monotonic() > ends:
            raise TimeoutError(f"{what} did not come")
        time.sleep(0.2)


def answers(driver: Any) -> list[str]:
    """What the models have said."""
    return [each.text for each in driver.find_elements(By.CSS_SELECTOR, ".message.bot")]


def talk(driver: Any, address: str, panels: int) -> None:
    """Takes an example and asks about it."""
    driver.get(address)
    wait(lambda: driver.find_elements(By.CSS_SELECTOR, "#examples button"), "the page")
    driver.find_element(By.CSS_SELECTOR, "#examples button").click()
    status = driver.find_element(By.CSS_SELECTOR, "#status")
    wait(lambda: "pixels" in status.text, "the image")
    for turn, question in enumerate(QUESTIONS, start=1):
        box = driver.find_element(By.CSS_SELECTOR, "#question textarea")
        box.clear()
        box.send_keys(question)
        driver.find_element(By.CSS_SELECTOR, "#send").click()
        wait(lambda count=turn * panels: len(answers(driver)) == count and "…" not in answers(driver), "an answer")
    time.sleep(1)


def save(driver: Any, name: str) -> None:
    """Writes the picture with few colours, which is a third of the size."""
    picture = Image.open(io.BytesIO(driver.get_screenshot_as_png()), formats=["PNG"]).convert("RGB")
    FOLDER.mkdir(exist_ok=True)
    picture.quantize(128, dither=Image.Dither.NONE).save(FOLDER / f"{name}.png", optimize=True)


def main(demo: Path) -> None:
    """Serves the demo's models and takes all pictures, in light and in dark."""
    models = [demo / "models" / name / "vqa" for name in ("with_alignment", "without_alignment")]
    arguments = ["--model", str(models[0]), "--compare", str(models[1]), "--web", "--port", "0"]
    server = subprocess.Popen(
        [sys.executable, "-m", "exgra_adapter", "chat", *arguments], stdout=subprocess.PIPE, text=True
    )
    driver = browser()
    try:
        said = server.stdout.readline() if server.stdout else ""
        found = re.search(r"http://\S+", said)
        if found is None:
            raise RuntimeError(f"the page did not open: {said}")
        for name, (width, height) in SIZES.items():
            metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
            for scheme in ("light", "dark"):
                feature = {"name": "prefers-color-scheme", "value": scheme}
                driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
                talk(driver, found[0], len(models))
                driver.execute_script("window.scrollTo(0, 0)")
                time.sleep(0.5)
                save(driver, name if scheme == "light" else f"{name}-dark")
    finally:
        driver.quit()
        server.send_signal(signal.SIGINT)
        server.wait(30)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
