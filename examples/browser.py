"""Chromium without a window at the page of `cbtalk app`: for its image and its tests; needs selenium and Debian's
packages chromium and chromium-driver.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException

T = TypeVar("T")
SECONDS = 90.0  # a wait that only a failure takes
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


class Visitor:
    """A browser at the page; places in it are CSS selectors."""

    def __init__(self, driver: Any, address: str, downloads: Path) -> None:
        self.driver, self.address, self.downloads = driver, address, downloads

    def visit(self, tab: str) -> None:
        """Open the page anew, at one of its tabs."""
        self.driver.get(self.address)
        self.until(lambda: self.all("#animate"))
        next(button for button in self.all("button[role=tab]") if button.text == tab).click()

    def all(self, selector: str) -> list[Any]:
        """The elements at a place."""
        return list(self.driver.find_elements("css selector", selector))

    def text(self, selector: str) -> str:
        """The text at a place; empty where there is nothing."""
        return str(self.script(f"return document.querySelector('{selector}')?.innerText ?? ''")).strip()

    def script(self, text: str) -> Any:
        """The value that a script returns."""
        return self.driver.execute_script(text)

    def upload(self, place: str, *paths: Path) -> None:
        """Choose files at a place."""
        self.all(f"{place} input[type=file]")[0].send_keys("\n".join(map(str, paths)))

    def click(self, selector: str, word: str = "") -> None:
        """Click on the first visible element there that bears a word, once there is one."""

        def clicked() -> bool:
            for found in self.all(selector):
                if found.is_displayed() and word in found.text:
                    self.driver.execute_script("arguments[0].click()", found)
                    return True
            return False

        self.until(clicked)

    def until(self, wanted: Callable[[], T]) -> T:
        """The first answer that is true; AssertionError where none comes."""
        end = time.monotonic() + SECONDS
        while True:
            with suppress(StaleElementReferenceException):  # the page has replaced what was found
                found = wanted()
                if found:
                    return found
            if time.monotonic() > end:
                self.driver.save_screenshot(str(self.downloads / "failed.png"))
                raise AssertionError(f"not within {SECONDS} s; {self.downloads / 'failed.png'} shows the page")
            time.sleep(0.1)

    def requests(self) -> set[str]:
        """Addresses that the page has asked since the last call."""
        asked = set()
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                asked.add(message["params"]["request"]["url"])
        return {url for url in asked if not url.startswith(("data:", "blob:", "chrome"))}


@contextmanager
def visitor(address: str, downloads: Path, camera: Path | None = None, size: str = "1360,1000") -> Iterator[Visitor]:
    """A browser that downloads to a folder; camera: a .y4m file, which is its webcam, again and again."""
    options: Any = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    arguments = [
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-background-networking",
        "no-first-run",
        "hide-scrollbars",
    ]
    arguments += [f"window-size={size}", "autoplay-policy=no-user-gesture-required"]
    if camera is not None:
        arguments += ["use-fake-device-for-media-stream", "use-fake-ui-for-media-stream"]
        arguments.append(f"use-file-for-fake-video-capture={camera}")
    for argument in arguments:
        options.add_argument(f"--{argument}")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield Visitor(driver, address, downloads)
    finally:
        driver.quit()
