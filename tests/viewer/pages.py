"""Chromium, and pages in it that have no network."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
SOURCES = Path(str(files("softmap.viewer").joinpath("page")))
ASK = """async ([name, params]) => {
  try {
    const answer = await window.channel.ask(name, params);
    if (!answer.dtype) return answer;
    const { dtype, shape, data } = answer;
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    return { dtype, shape, bytes: btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join("")) };
  } catch (error) {
    return { refused: error.message };
  }
}"""
DRAWN = """() => [...document.querySelectorAll(".softmap canvas")].filter((canvas) => canvas.width > 100).some((canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return new Set(new Uint32Array(data.buffer)).size > 3;
})"""
"""Whether something is drawn on a large canvas: some colours."""


@contextmanager
def chromium():
    from playwright.sync_api import sync_playwright

    assert CHROMIUM, "these tests need Chromium; run the others with -m 'not browser'"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def serve_channel(browser, path):
    """The channel of an exported file, made of the page's own modules: a function that asks it."""
    page = browser.new_page()

    def serve(route):
        name = route.request.url.removeprefix("http://page.test/")
        body = path.read_bytes() if name == "map.html" else b"" if not name else SOURCES.joinpath(name).read_bytes()
        kind = "text/javascript" if name.endswith(".js") else "text/html"
        route.fulfill(body=body, content_type=f"{kind}; charset=utf-8")

    page.route("http://page.test/**", serve)
    page.goto("http://page.test/")
    page.evaluate("""async () => {
      const [{ createPieces }, { fileChannel }] = [await import("/file.js"), await import("/channel/file.js")];
      const text = await (await fetch("/map.html")).text();
      window.channel = await fileChannel(createPieces(new DOMParser().parseFromString(text, "text/html")));
    }""")

    def ask(name, params):
        return page.evaluate(ASK, [name, params])

    ask.holds = page.evaluate("""async () => {
      const { say } = await import("/strings.js");
      return window.channel.holds?.((name, values) => say("en", name, values)) ?? "";
    }""")
    yield ask
    page.close()


@contextmanager
def open_file(browser, path, **options):
    """An exported file, opened from disk: it makes no request, and has no error."""
    page, troubles = browser.new_page(**options), []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
    page.on("dialog", lambda dialog: (troubles.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda request: troubles.append(request.url) if _is_foreign(request.url, path) else None)
    page.goto(path.as_uri())
    yield page
    page.close()
    assert troubles == []


def _is_foreign(address, path):
    return address != path.as_uri() and address[:5] not in ("data:", "blob:")
