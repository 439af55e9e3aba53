"""What the server does with too many questions, with askers who leave, and with questions that fail."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import threading
import time
from collections import Counter

import pytest
from recorded.builders import make_recording
from serving import cookie_of, get, make_view

from softmap import masks
from softmap.viewer.asking import WAITING
from softmap.viewer.launch import View

TILE = "/ask/tile?layer=0&head={head}&zoom=0&row=0&column=0"


class Held(masks.Mask):
    """A causal mask that answers only once it is let go, or fails where it is told to."""

    def __init__(self):
        self.open, self.asked, self.error = threading.Event(), threading.Event(), None
        self.open.set()

    def visible(self, query, key):
        self.asked.set()
        assert self.open.wait(30)
        if self.error is not None:
            raise self.error
        return key <= query


@pytest.fixture
def mask():
    return Held()


@pytest.fixture
def view(mask):
    with View(make_recording(mask=mask)) as shown:
        yield shown
        mask.open.set()


def ask(view, path):
    """A question on a connection of its own, whose answer is not yet read."""
    connection = socket.create_connection(("127.0.0.1", view.port), timeout=20)
    lines = f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{view.port}", f"Cookie: {cookie_of(view)}", "Connection: close"
    connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    return connection


def status_of(connection):
    with connection:
        return int(connection.recv(12).split()[1])


async def flood(view, paths, at_once):
    """The statuses of many questions, so many of them at a time."""
    gate = asyncio.Semaphore(at_once)
    request = f"Host: 127.0.0.1:{view.port}\r\nCookie: {cookie_of(view)}\r\nConnection: close\r\n\r\n"

    async def one(path):
        async with gate:
            reader, writer = await asyncio.open_connection("127.0.0.1", view.port)
            writer.write(f"GET {path} HTTP/1.1\r\n{request}".encode())
            status = int((await reader.read()).split(b" ", 2)[1])
            writer.close()
            return status

    return Counter(await asyncio.gather(*map(one, paths)))


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.timed
@pytest.mark.usefixtures("posix")
def test_many_questions_at_once_are_answered_or_sent_away(count):
    with make_view(queries=300) as view:
        paths = [f"/ask/tile?layer={i % 2}&head={i % 4}&zoom={i % 3}&row=0&column=0" for i in range(count)]
        get(view, paths[0])
        before = _peak()
        found = asyncio.run(flood(view, paths, 400))
        assert set(found) <= {200, 503}
        assert found[200] > 0
        assert _peak() - before < 200 << 20
        start = time.perf_counter()
        assert get(view, "/ask/about")[0] == 200
        assert time.perf_counter() - start < 1


def test_question_too_many_is_sent_away_and_told_when_to_come_again(view, mask):
    mask.open.clear()
    mask.asked.clear()
    waiting = [ask(view, TILE.format(head=1))]
    assert mask.asked.wait(10)
    waiting += [ask(view, f"/ask/steps?layer=0&head=0&query={i}&key={i}") for i in range(WAITING)]
    while len(view._server.server_state.tasks) <= WAITING:
        time.sleep(0.01)
    status, headers, body = get(view, TILE.format(head=2))
    assert (status, headers["retry-after"]) == (503, "1")
    assert json.loads(body)["error"]["expected"] == f"at most {WAITING} that wait"
    mask.open.set()
    assert status_of(waiting[0]) == 200
    for connection in waiting[1:]:
        connection.close()
    assert get(view, TILE.format(head=2))[0] == 200


def test_questions_whose_askers_leave_are_cancelled(view, mask):
    mask.open.clear()
    mask.asked.clear()
    askers = [ask(view, TILE.format(head=1))]
    assert mask.asked.wait(10)
    askers.append(ask(view, TILE.format(head=2)))
    line = view._worker._soon
    waiting, running = _until(lambda: line._jobs and [line._jobs[0], line._running])
    assert not waiting.cancelled()
    assert not running.cancelled()
    for connection in askers:
        connection.close()
    _until(lambda: waiting.cancelled() and running.cancelled())
    mask.open.set()
    assert get(view, "/ask/about")[0] == 200


@pytest.mark.timed
def test_closing_does_not_wait_for_a_question_that_takes_long(mask):
    view = View(make_recording(mask=mask))
    mask.open.clear()
    mask.asked.clear()
    connection = ask(view, TILE.format(head=1))
    assert mask.asked.wait(10)
    start = time.perf_counter()
    view.close()
    assert time.perf_counter() - start < 1
    assert status_of(connection) == 503
    mask.open.set()


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (OSError(5, "Input/output error"), 410, "recording: expected files that can be read, got Input/output error"),
        (ZeroDivisionError("by nothing"), 500, "got ZeroDivisionError: by nothing. This is softmap's mistake"),
    ],
)
def test_question_that_fails_is_told_and_the_server_goes_on(view, mask, caplog, error, status, words):
    mask.error = error
    got, headers, body = get(view, TILE.format(head=1))
    assert (got, headers["content-type"]) == (status, "application/json")
    assert words in json.loads(body)["error"]["message"]
    logged = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(logged) == (status == 500)
    assert all(record.exc_info[1] is error for record in logged)
    mask.error = None
    assert get(view, TILE.format(head=1))[0] == 200


def test_what_the_recording_lacks_is_409():
    with make_view(keep=("v", "summary")) as view:
        status, _, body = get(view, TILE.format(head=0))
        assert status == 409
        assert "q and k" in json.loads(body)["error"]["message"]


def _peak():
    """The most memory that this process has had, in bytes (getrusage gives KiB, on a Mac bytes)."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << (0 if sys.platform == "darwin" else 10)


def _until(found):
    """What `found` gives as soon as it is something."""
    for _ in range(1000):
        result = found()
        if result:
            return result
        time.sleep(0.01)
    raise AssertionError("nothing came")
