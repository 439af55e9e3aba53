"""A page in Chromium: when it stands still, what it weighs, what memory its renderer takes."""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, Route, sync_playwright

QUIET = 0.5
"""Seconds without a change of the document, a request, or 50 ms of work at a stretch, after which a page stands still."""
WATCH = """
(() => {
  const seen = { last: performance.now() };
  const note = () => { seen.last = performance.now(); };
  new MutationObserver(note).observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
  let before = performance.now();
  const beat = () => { const now = performance.now(); if (now - before > 66) seen.last = now; before = now; requestAnimationFrame(beat); };
  requestAnimationFrame(beat);
  Object.defineProperty(window, "lastChange", { get: () => seen.last });
})();
"""
SCRIPTS = {
    r"require(\.min)?\.js": "requirejs/require.js",
    r"d3/.*/d3\.min": "d3/dist/d3.min.js",
    r"jquery/.*/jquery\.min": "jquery/dist/jquery.min.js",
}
"""What bertviz loads from elsewhere, and where npm puts it."""


@dataclass
class Traffic:
    """The bytes that a page fetched, when something was last fetched, and whether it came to grief.

    Attributes:
        failed: whether it crashed, or one of its scripts ended in an error.
    """

    weight: int = 0
    open: int = 0
    failed: bool = False
    last: float = field(default_factory=time.perf_counter)

    def follow(self, page: Page) -> None:
        """Count what the page asks for."""
        page.on("request", lambda _: self._note(1))
        page.on("requestfailed", lambda _: self._note(-1))
        page.on("requestfinished", self._finished)
        page.on("crash", self._fail)
        page.on("pageerror", self._fail)

    def _fail(self, _: Any) -> None:
        self.failed = True

    def _note(self, change: int) -> None:
        self.open += change
        self.last = time.perf_counter()

    def _finished(self, request: Any) -> None:
        self._note(-1)
        with contextlib.suppress(Exception):  # the page is closing
            self.weight += request.sizes()["responseBodySize"]


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A browser of its own: what one page took is not there for the next."""
    found = shutil.which("chromium")
    if found is None:
        raise SystemExit("Chromium is needed: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def new_page(browser: Browser, scripts: Path | None) -> Page:
    """A page of 1,280 x 720 that is watched; what it loads from elsewhere comes from the disk, or not at all."""
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    page.add_init_script(WATCH)

    def serve(route: Route) -> None:
        for pattern, place in SCRIPTS.items():
            if scripts is not None and re.search(pattern, route.request.url):
                route.fulfill(path=scripts / place, content_type="text/javascript")
                return
        route.abort()

    page.route(re.compile(r"^https://"), serve)
    return page


def stand_still(page: Page, traffic: Traffic, limit: float) -> float | None:
    """Seconds from navigation to the page's last change; None where it does not come to rest within the limit."""
    end = time.perf_counter() + limit
    while time.perf_counter() < end:
        with contextlib.suppress(Exception):
            now, last = page.evaluate("[performance.now(), window.lastChange]")
            quiet = min((now - last) / 1000, time.perf_counter() - traffic.last)
            if traffic.open <= 0 and quiet > QUIET:
                return float(last) / 1000
        page.wait_for_timeout(50)
    return None


def renderer_memory(browser: Browser) -> float:
    """The most memory that a renderer took, MiB."""
    processes = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    peaks = [_peak(process["id"]) for process in processes if process["type"] == "renderer"]
    return max(peaks)


def _peak(pid: int) -> float:
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        found = re.search(r"VmHWM:\s+(\d+)", status)
        return int(found[1]) / 1024 if found else 0.0
    return 0.0
