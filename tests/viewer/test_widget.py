"""The map in a notebook: messages of the page, answered by the real widget, and the page that they make."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import comm
import numpy as np
import pytest
from recorded.builders import make_recording
from viewer.hosting import KeptComm, hosted, tell
from viewer.pages import DRAWN, chromium

from softmap.viewer.answers import Answers
from softmap.viewer.widget import MapWidget

TILE = {"layer": "0", "head": "1", "zoom": "0", "row": "0", "column": "0", "how": "max"}


@pytest.fixture
def make_widget(monkeypatch):
    """Widgets whose messages are kept, and that are closed in the end."""
    monkeypatch.setattr(comm, "create_comm", KeptComm)
    made = []

    def make(recording=None, **options):
        made.append(MapWidget(recording or make_recording(queries=30), **options))
        return made[-1]

    yield make
    for widget in made:
        widget.close()


@pytest.fixture  # for one test: where Playwright runs, the others can have no event loop of their own
def browser():
    with chromium() as browser:
        yield browser


def ask_in_loop(widget, *messages, wait=1):
    """Say these in one turn of a loop, as a kernel does, and wait for so many answers."""

    async def talk():
        for message in messages:
            tell(widget, message)
        assert widget.comm.answers == []  # nothing is said before the kernel goes on
        for _ in range(500):
            await asyncio.sleep(0.01)
            if len(widget.comm.answers) >= wait:
                return

    asyncio.run(talk())
    return widget.comm.answers


def test_numbers_come_as_bytes(make_widget):
    widget = make_widget()
    ((told, (buffer,)),) = ask_in_loop(widget, {"id": "a.0", "name": "tile", "params": TILE})
    expected = Answers(widget._recording).ask("tile", TILE).array
    assert told == {"id": "a.0", "ok": True, "dtype": "float16", "shape": (30, 30)}
    assert np.array_equal(np.frombuffer(buffer, dtype=np.float16).reshape(30, 30), expected, equal_nan=True)


def test_json_comes_as_it_is(make_widget):
    widget = make_widget(layer=1, head=2)
    ((told, buffers),) = ask_in_loop(widget, {"id": "a.0", "name": "about", "params": {}})
    assert buffers == []
    assert told["json"]["start"]["layer"] == 1
    assert told["json"]["start"]["head"] == 2


def test_an_error_says_what_to_do(make_widget):
    ((told, _),) = ask_in_loop(make_widget(), {"id": "a.0", "name": "tile", "params": TILE | {"head": "9"}})
    assert not told["ok"]
    assert told["json"]["error"]["subject"] == "head"
    assert told["json"]["error"]["message"].startswith("head: expected a whole number from 0 to 3, got '9'")


def test_a_question_that_nobody_waits_for_gets_no_answer(make_widget):
    widget = make_widget()
    messages = [{"id": f"a.{i}", "name": "tile", "params": TILE | {"head": str(i)}} for i in range(3)]
    answers = ask_in_loop(widget, *messages, {"cancel": "a.1"}, wait=2)
    assert sorted(told["id"] for told, _ in answers) == ["a.0", "a.2"]
    assert widget._asked == {}


def test_without_a_loop_the_answer_comes_at_once(make_widget):
    widget = make_widget()
    tell(widget, {"id": "a.0", "name": "starts", "params": {"of": "tokens"}})
    ((told, _),) = widget.comm.answers
    assert told["shape"] == (31,)


def test_a_failure_of_softmap_itself_is_said_and_the_widget_goes_on(make_widget, caplog):
    widget = make_widget()
    widget._answers._rows = None
    (first,) = ask_in_loop(widget, {"id": "a.0", "name": "row", "params": {"heads": "0.1", "unit": "3"}})
    assert "This is softmap's mistake" in first[0]["json"]["error"]["hint"]
    assert "could not answer" in caplog.text
    tell(widget, {"id": "a.1", "name": "about", "params": {}})
    assert widget.comm.answers[-1][0]["ok"]


def test_several_widgets_answer_for_themselves(make_widget):
    one, other = make_widget(), make_widget(make_recording(queries=12))
    for widget, keys in ((one, 30), (other, 12)):
        tell(widget, {"id": "a.0", "name": "row", "params": {"heads": "0.1", "unit": "3"}})
        assert widget.comm.answers[-1][0]["shape"] == (keys,)


def test_a_closed_widget_has_no_threads(make_widget):
    widget = make_widget()
    thread = widget._worker._soon._thread
    widget.close()
    assert not thread.is_alive()


def test_a_picture_stands_in_for_it_without_a_kernel(make_widget):
    data, *_ = make_widget()._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    assert "data:image/png;base64," in data["text/html"]
    assert data["text/plain"].startswith("MapWidget(Recording(")
    assert "text/html" not in make_widget(make_recording(keep=("summary",)))._repr_mimebundle_()[0]


@pytest.mark.slow
def test_without_anywidget_the_error_says_what_to_install():
    code = "import sys; sys.modules['anywidget'] = None; import softmap.viewer.widget"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'softmap[notebook]'" in done.stderr


def test_a_notebook_shows_several_and_keeps_nothing_of_those_it_closes(browser, make_widget, encoder):
    widgets = {"one": make_widget(encoder), "other": make_widget(make_recording(queries=40))}
    with hosted(widgets) as address:
        page, troubles = browser.new_page(viewport={"width": 1000, "height": 1300}), []
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.goto(address)
        page.wait_for_function("() => window.ready")
        before = page.evaluate("() => window.listening.size")
        for name in widgets:
            page.evaluate("(name) => window.show(name)", name)
        page.wait_for_function("() => document.querySelectorAll('.softmap .bar').length === 2")
        page.wait_for_function(DRAWN)
        assert page.locator(".softmap").first.bounding_box()["height"] == 560
        assert "loves" in page.locator(".softmap").first.locator(".panel").inner_text()
        assert page.evaluate("() => window.listening.size") > before
        page.wait_for_timeout(500)
        for name in widgets:
            page.evaluate("(name) => window.shown[name].close()", name)
        assert page.locator(".softmap").count() == 0
        assert page.evaluate("() => Object.values(window.shown).map(({ model }) => model.listeners.size)") == [0, 0]
        left = page.evaluate("() => [...window.listening].map(({ target, type }) => `${target} ${type}`)")
        assert len(left) == before, left
        page.wait_for_timeout(300)
        assert troubles == []
