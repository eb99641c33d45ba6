"""A headless Chromium that opens a page and tells what a person would see of it, over its DevTools pipe."""

import base64
import fcntl
import json
import os
import re
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
INSTALL = "apt-get install -y chromium"
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--remote-debugging-pipe"),
)
PATIENCE_S = 120.0  # of one command, on a machine that is busy
FREE_FD = 10  # above those that the browser expects
SCREEN, A4 = 1280, 680  # px: a desktop; what the margins leave of 210 mm
WIDE = """[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1)
  .map(e => e.tagName + ': ' + e.textContent.slice(0, 60))"""
HIDDEN = """[...document.querySelectorAll('section')].filter(e => !e.checkVisibility() || e.offsetHeight < 20)
  .map(e => e.id)"""
CLIPPED = """[...document.querySelectorAll('svg')].flatMap(s => { const b = s.getBoundingClientRect();
  return [...s.querySelectorAll('text')].filter(t => { const r = t.getBoundingClientRect();
    return r.left < b.left - 2 || r.right > b.right + 2 || r.top < b.top - 2 || r.bottom > b.bottom + 2; })
  .map(t => t.textContent); })"""
DOUBLE = """[...document.querySelectorAll('[id]')].map(e => e.id).filter((id, at, all) => all.indexOf(id) != at)"""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A page at one width: names of what is wrong with it, and its text."""

    too_wide: list[str]
    hidden: list[str]  # sections
    clipped: list[str]  # words of pictures


@dataclass
class Browser:
    """One tab."""

    process: subprocess.Popen[bytes]
    to: int
    of: int
    session: str = ""
    told: list[dict[str, Any]] = field(default_factory=list)  # events since the last page was opened
    _number: int = 0
    _rest: bytes = b""

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command, and its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        return self._until(lambda heard: heard.get("id") == self._number)["result"]

    def open(self, path: Path) -> None:
        """Goes to a file, and waits until it is there."""
        self.told.clear()
        self.ask("Page.navigate", url=path.as_uri())
        self._until(lambda heard: heard.get("method") == "Page.loadEventFired")

    def evaluate(self, script: str) -> Any:
        """What an expression is, in the page."""
        return self.ask("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def look(self, width: int, media: str = "") -> Seen:
        """The page at a width in px, on the screen or as it is printed."""
        metrics = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
        self.ask("Emulation.setEmulatedMedia", media=media)
        self.ask("Emulation.setDeviceMetricsOverride", **metrics)
        return Seen(too_wide=self.evaluate(WIDE), hidden=self.evaluate(HIDDEN), clipped=self.evaluate(CLIPPED))

    def screenshot(self, path: Path) -> None:
        """The whole page as a PNG file."""
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", captureBeyondViewport=True)["data"]))

    def pages(self, path: Path) -> int:
        """Prints to a PDF file, as the page's own style says, and counts its sheets."""
        answer = self.ask("Page.printToPDF", preferCSSPageSize=True, printBackground=True)
        path.write_bytes(made := base64.b64decode(answer["data"]))
        return len(re.findall(rb"/Type\s*/Page\b", made))

    @property
    def complaints(self) -> list[Any]:
        """What the console says of the page that is open."""
        kinds = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
        return [each["params"] for each in self.told if each.get("method") in kinds]

    @property
    def requests(self) -> list[str]:
        """The addresses that were asked for, but for images that the page holds itself."""
        asked = [each for each in self.told if each.get("method") == "Network.requestWillBeSent"]
        addresses = [each["params"]["request"]["url"] for each in asked]
        return [address for address in addresses if not address.startswith("data:")]

    def _until(self, holds: Any) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE_S
        while True:
            *messages, self._rest = self._rest.split(b"\0")
            for at, message in enumerate(messages):
                heard = json.loads(message)
                self.told.append(heard)
                if holds(heard):
                    self._rest = b"\0".join([*messages[at + 1 :], self._rest])
                    assert "error" not in heard, heard
                    return heard
            ready, _, _ = select.select([self.of], [], [], max(0.0, end - time.monotonic()))
            assert ready, "the browser does not answer"
            more = os.read(self.of, 1 << 20)
            assert more, "the browser is gone"
            self._rest += more


@contextmanager
def browsing(folder: Path) -> Iterator[Browser]:
    """A browser with a new profile in `folder`; where there is none the test is skipped, and says what to install."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no browser here, so nobody has looked at the page: {INSTALL}")
    theirs_in, to = os.pipe()
    of, theirs_out = os.pipe()
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, FREE_FD) for fd in (theirs_in, theirs_out)]

    def connect() -> None:  # in the child: a browser reads its commands from 3 and answers on 4
        os.dup2(high[0], 3)
        os.dup2(high[1], 4)

    with (folder / "browser.log").open("wb") as log:
        process = subprocess.Popen(
            [program, *QUIET, f"--user-data-dir={folder / 'profile'}", "about:blank"],
            stdout=log, stderr=log, start_new_session=True, pass_fds=(3, 4), preexec_fn=connect,  # noqa: PLW1509
        )  # fmt: skip
    for fd in (theirs_in, theirs_out, *high):
        os.close(fd)
    try:
        yield _tab(Browser(process, to, of))
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its own session: nothing but what it has started
        process.wait(10)
        os.close(to)
        os.close(of)


def _tab(browser: Browser) -> Browser:
    target = browser.ask("Target.createTarget", url="about:blank")["targetId"]
    browser.session = browser.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    for domain in ("Page", "Runtime", "Log", "Network"):
        browser.ask(f"{domain}.enable")
    return browser
