"""A headless Chromium, driven by what a person sees: visible names."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.workflow.conftest import Clone
from tests.workflow.ports import answers, free_port

PATIENCE = 90  # seconds; a page on a busy machine
Found = TypeVar("Found")


class Page:
    """What is open in the browser. Everything waits until it is there, and fails naming what is missing."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    @property
    def text(self) -> str:
        """All that is visible."""
        return self.driver.find_element(By.TAG_NAME, "body").text

    def open(self, address: str) -> None:
        self.driver.get(address)

    def see(self, text: str) -> WebElement:
        """The visible element with exactly this text."""
        return self.wait(f"the text {text!r}", lambda: self._visible(f"normalize-space(text())={quoted(text)}"))

    def see_part(self, text: str) -> None:
        """See this anywhere in what is visible, be it in several elements."""
        self.wait(f"a text with {text!r}", lambda: text in self.text)

    def click(self, text: str) -> None:
        self.press(f"the text {text!r}", lambda: self._visible(f"normalize-space(text())={quoted(text)}"))

    def click_beside(self, text: str) -> None:
        """Click the first link, such as an icon, in the row of a list that has a cell with exactly this text."""
        row = f"tr[td[normalize-space(text())={quoted(text)}]]"
        self.press(
            f"a link beside {text!r}", lambda: next(iter(self.driver.find_elements(By.XPATH, f"//{row}//a")), None)
        )

    def click_css(self, selector: str) -> None:
        """Click what has no visible name, such as an icon; also where it is scrolled out of a list."""

        def pressed() -> bool:
            element = self.shown(selector)
            if element is not None:
                self.driver.execute_script("arguments[0].click()", element)
            return element is not None

        self.wait(selector, pressed)

    def shown(self, selector: str) -> WebElement | None:
        """The first visible element of a CSS selector, if there is one now."""
        found = self.driver.find_elements(By.CSS_SELECTOR, selector)
        return next((element for element in found if element.is_displayed()), None)

    def count(self, selector: str) -> int:
        return len(self.driver.find_elements(By.CSS_SELECTOR, selector))

    def press(self, what: str, find: Callable[[], WebElement | None]) -> None:
        """Click what `find` finds, again if the page was redrawn in between."""

        def pressed() -> bool:
            element = find()
            if element is None:
                return False
            self.driver.execute_script("arguments[0].scrollIntoView({block: 'nearest'})", element)
            element.click()
            return True

        self.wait(what, pressed)

    def wait(self, what: str, find: Callable[[], Found | None]) -> Found:
        """What `find` returns, as soon as it is not empty."""
        until, error = time.monotonic() + PATIENCE, ""
        while time.monotonic() < until:
            try:
                found = find()
                if found:
                    return found
            except (StaleElementReferenceException, WebDriverException) as caught:
                error = f" ({str(caught).splitlines()[0]})"
            time.sleep(0.2)
        pytest.fail(f"{self.driver.current_url}: {what} is not there{error}; the page says:\n{self.text[:3000]}")

    def newest_tab(self) -> None:
        """Go on in the tab that the last click opened."""
        self.wait("a new tab", lambda: len(self.driver.window_handles) > 1)
        self.driver.switch_to.window(self.driver.window_handles[-1])

    def first_tab(self) -> None:
        self.driver.close()
        self.driver.switch_to.window(self.driver.window_handles[0])

    def picture(self, name: str) -> None:
        """Save what is seen as a picture, if RDFA_SCREENSHOTS names a folder for them."""
        folder = os.environ.get("RDFA_SCREENSHOTS")
        if folder:
            time.sleep(1.5)  # animations end
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.driver.save_screenshot(str(Path(folder) / f"{name}.png"))

    def _visible(self, condition: str) -> WebElement | None:
        found = self.driver.find_elements(By.XPATH, f"//body//*[{condition}]")
        return next((element for element in found if element.is_displayed()), None)


def quoted(text: str) -> str:
    """A text as XPath writes it, whatever quotation marks are in it."""
    return "concat(" + ', "\'", '.join(f"'{part}'" for part in text.split("'")) + ", '')"


@contextmanager
def chromium(folder: Path) -> Iterator[Page]:
    """A browser with a fresh profile; the test skips where none is installed."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("no chromium with chromedriver is installed (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in (
        "--headless=new",
        "--no-sandbox",  # which root in a container cannot have
        "--disable-dev-shm-usage",
        "--window-size=1400,860",
        "--hide-scrollbars",
        "--force-prefers-reduced-motion",
        f"--user-data-dir={folder / 'profile'}",
    ):
        options.add_argument(argument)
    started = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield Page(started)
    finally:
        started.quit()


@contextmanager
def mlflow_ui(clone: Clone, store: str, log: Path) -> Iterator[str]:
    """The address of a running `mlflow ui` on a store, as a person starts it in the clone."""
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store, "--port", str(port), "--workers=1"]
    with log.open("wb") as output:
        server = subprocess.Popen(
            command, cwd=clone.root, env=clone.environment(), stdout=output, stderr=output, start_new_session=True
        )
        try:
            while not answers(f"{uri}/health"):
                assert server.poll() is None, log.read_text()
                time.sleep(0.2)
            yield uri
        finally:
            os.killpg(server.pid, 15)
            server.wait(timeout=60)
