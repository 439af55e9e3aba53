"""Text is text, whatever it is; and nobody else reads the map."""

from __future__ import annotations

import http.server
import threading
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect
from viewer.browser.hostile import HOSTILE, make_hostile
from viewer.serving import make_view

LABELS = "(all) => all.map((each) => each.textContent)"


@pytest.fixture
def watched(show, hostile):
    """The page, with what its policy refuses."""

    def open_watched(address):
        reader = show(hostile, address)
        reader.page.wait_for_load_state("networkidle")
        return reader

    return open_watched


def assert_harmless(reader):
    """Nothing of the text became an element."""
    page = reader.page
    assert page.evaluate("document.querySelectorAll('img, iframe, object, embed, base').length") == 0
    assert page.evaluate("document.scripts.length") == 1
    handlers = "[...document.querySelectorAll('*')].filter((each) => [...each.attributes].some(({name}) => name.startsWith('on')))"
    assert page.evaluate(f"{handlers}.length") == 0


class TestHostileText:
    def test_in_the_text(self, watched):
        reader = watched("words=0&layer=0&head=0&query=1")
        shown = reader.page.locator(".reader .unit").evaluate_all(LABELS)
        for word in (*HOSTILE[:2], *HOSTILE[4:]):
            assert word in shown
        assert "\x00" not in "".join(shown)
        assert "\u202e" not in "".join(shown)
        assert max(map(len, shown)) >= 10_000
        assert_harmless(reader)

    def test_does_not_make_the_page_scroll_sideways(self, watched):
        reader = watched("words=0&layer=0&head=0&query=11")
        assert reader.page.evaluate("document.documentElement.scrollWidth") <= 1280
        for pane in (".panel", ".map", ".heads", ".bar"):
            box = reader.page.locator(pane).bounding_box()
            assert box["x"] + box["width"] <= 1281

    def test_on_the_map_in_its_card_and_in_the_status_line(self, watched):
        reader = watched("words=0&layer=0&head=0&query=-1")
        for i, word in ((1, HOSTILE[0]), (2, HOSTILE[1])):
            reader.point(i, i, (12, 12))
            expect(reader.page.locator(".mapCard .pair b").first).to_have_text(word)
            expect(reader.page.locator(".status b").first).to_have_text(word)
        reader.point(11, 11, (12, 12))
        expect(reader.page.locator(".mapCard .pair b").first).to_have_text("x" * 10_000)
        box, pane = (reader.page.locator(part).bounding_box() for part in (".mapCard", ".map .pane"))
        assert box["width"] < pane["width"]
        assert_harmless(reader)

    def test_in_what_the_card_quotes_of_a_long_text(self, show):
        reader = show(make_hostile(HOSTILE * 8), "words=0&layer=0&head=0&query=-1&box=0,0,8")
        reader.point(1, 2, (81, 81))
        contexts = reader.page.locator(".mapCard .context")
        expect(contexts.first).to_contain_text(f"{HOSTILE[0]} {HOSTILE[1]}")
        expect(contexts.last).to_contain_text(HOSTILE[1])
        assert_harmless(reader)

    @pytest.mark.parametrize("form", ["columns", "arcs"])
    def test_in_the_sentence(self, watched, form):
        reader = watched("view=sentence&words=0&layer=0&head=0&query=1")
        reader.page.get_by_role("radio", name=form).click()
        titles = reader.page.locator(".sentence .word title").evaluate_all(LABELS)
        assert set(HOSTILE[:2]) <= set(titles)
        assert_harmless(reader)

    def test_in_the_steps(self, watched):
        reader = watched("view=steps&words=0&layer=0&head=0&query=1&key=2")
        reader.page.locator(".told").wait_for()
        heading = reader.page.locator(".told h2").inner_text()
        assert heading.split(" → ") == list(HOSTILE[:2])
        assert HOSTILE[1] in reader.page.locator(".told table").first.inner_text()
        assert_harmless(reader)

    def test_endless_word_leaves_the_steps_readable(self, watched):
        reader = watched("view=steps&words=0&layer=0&head=0&query=11&key=11")
        reader.page.locator(".told").wait_for()
        wide = ".told, .told h2, .told p, .told .equations"
        assert (
            reader.page.locator(wide).evaluate_all(
                "(all) => all.filter((each) => each.scrollWidth > each.clientWidth + 1).length"
            )
            == 0
        )
        assert reader.page.locator(".told h2").bounding_box()["height"] < 200

    def test_in_the_search(self, watched):
        reader = watched("words=0&layer=0&head=0&query=-1")
        field = reader.page.get_by_role("searchbox")
        for i, word in enumerate(HOSTILE[:2], start=1):
            field.fill(word)
            expect(reader.page.locator(".search output")).to_have_text("1 found")
            field.press("Enter")
            expect(reader.page.locator('.unit[data-mark~="held"]')).to_have_attribute("data-unit", str(i))
        assert_harmless(reader)

    def test_in_the_title(self, watched):
        reader = watched("words=0")
        assert reader.page.title().startswith(HOSTILE[0])
        assert_harmless(reader)

    def test_in_an_address(self, watched):
        reader = watched(
            "picked=<img src=x onerror=alert(1)>&theme=dark'><script>alert(1)</script>&lang=<svg onload=alert(1)>"
        )
        assert_harmless(reader)


def test_policy_runs_no_script_of_the_page_itself(show, sentence):
    reader = show(sentence)
    ran = reader.page.evaluate("""async () => {
      const refused = [];
      document.addEventListener("securitypolicyviolation", ({ violatedDirective }) => refused.push(violatedDirective));
      const script = Object.assign(document.createElement("script"), { textContent: "window.ran = true" });
      document.head.append(script);
      const holder = document.createElement("div");
      holder.innerHTML = "<img src='http://127.0.0.1:9/x' onerror='window.ran = true'>";
      document.body.append(holder);
      try { await fetch("http://127.0.0.1:9/"); } catch { refused.push("fetch"); }
      await new Promise((resolve) => setTimeout(resolve, 50));
      return [window.ran ?? false, refused];
    }""")
    assert ran[0] is False
    assert {"script-src-elem", "img-src", "connect-src", "fetch"} <= set(ran[1])
    reader.expect_trouble("Content Security Policy", "Content-Security-Policy")


@pytest.fixture(scope="module")
def elsewhere():
    """Another server, which gives an empty page, and keeps the addresses asked of it."""

    class Empty(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>elsewhere</title>")

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Empty)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()


class TestAnotherPage:
    """One of another origin, in the same browser, which has the map's cookie."""

    @pytest.fixture
    def page(self, show, sentence, elsewhere):
        reader = show(sentence)
        page = reader.context.new_page()
        page.goto(elsewhere)
        page.map = "http://{0.hostname}:{0.port}/".format(urlsplit(reader.page.url))
        return page

    @pytest.mark.parametrize("path", ["ask/about", "", "static/softmap.js"])
    @pytest.mark.parametrize("mode", ["cors", "no-cors"])
    def test_can_not_read_an_answer(self, page, path, mode):
        read = page.evaluate(
            """async ([address, mode]) => {
              try {
                const answer = await fetch(address, { credentials: "include", mode });
                return (await answer.text()).length;
              } catch { return "refused"; }
            }""",
            [page.map + path, mode],
        )
        assert read in ("refused", 0)

    def test_can_not_run_its_script(self, page):
        ended = page.evaluate(
            """(address) => new Promise((resolve) => {
              const script = document.createElement("script");
              Object.assign(script, { src: address, type: "module", onload: () => resolve("ran"), onerror: () => resolve("refused") });
              document.head.append(script);
            })""",
            f"{page.map}static/softmap.js",
        )
        assert ended == "refused"

    def test_can_not_frame_it(self, page, serve, sentence):
        for address in (page.map, serve(sentence).url):
            page.evaluate(
                """(address) => new Promise((resolve) => {
                  const frame = Object.assign(document.createElement("iframe"), { src: address, onload: resolve });
                  document.body.append(frame);
                })""",
                address,
            )
            frame = page.frames[-1]
            assert frame.locator(".softmap .map").count() == 0

    def test_can_not_look_into_a_window_that_it_opened(self, page, serve, sentence):
        with page.expect_popup() as opened:
            page.evaluate("(address) => { window.other = window.open(address); }", serve(sentence).url)
        opened.value.wait_for_selector(".softmap .map")
        assert page.evaluate("""() => {
          try { return window.other.closed || window.other.document === null; } catch { return true; }
        }""")

    def test_link_of_it_with_the_token_opens_the_map(self, page, serve, sentence):
        page.evaluate("(address) => { location.href = address; }", serve(sentence).url)
        page.wait_for_selector(".softmap .map")


class TestToken:
    @pytest.mark.parametrize("path", ["/", "/?token=wrong", "/?token=", "/ask/about", "/static/softmap.js"])
    def test_without_it_nobody_gets_in(self, browser, serve, sentence, path):
        place = urlsplit(serve(sentence).url)
        context = browser.new_context()
        page = context.new_page()
        response = page.goto(f"http://{place.netloc}{path}")
        assert response.status == 403
        assert "Open the address that `softmap view` or rec.view() printed" in page.locator("body").inner_text()
        assert context.cookies() == []
        context.close()

    def test_of_one_map_does_not_open_another(self, show, sentence):
        with make_view(queries=5) as other:
            reader = show(sentence)
            page = reader.context.new_page()
            assert page.goto(f"http://127.0.0.1:{other.port}/").status == 403

    def test_can_not_be_read_by_a_script(self, show, sentence):
        reader = show(sentence)
        (cookie,) = reader.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        assert reader.page.evaluate("document.cookie") == ""
        assert cookie["value"] not in reader.page.url
