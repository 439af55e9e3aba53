"""Too many connections, and ones that ask for nothing, slowly, or do not read: the server stays within its means and answers."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import resource
import socket
import subprocess
import sys
import time

import pytest
from recorded.builders import make_recording
from serving import cookie_of, get, make_view

from softmap.viewer import connections

SOON = 30  # seconds in which what should happen at once has happened, on a loaded machine too
COMMAND = [sys.executable, "-m", "softmap", "view", "--no-browser"]


@pytest.fixture
def impatient(monkeypatch):
    """A server that gives little time to ask."""
    monkeypatch.setattr(connections, "ASKING", 0.3)
    with make_view(queries=300) as shown:
        yield shown


@pytest.fixture
def small(monkeypatch):
    """A server with room for eight connections."""
    monkeypatch.setattr(connections, "MOST", 8)
    with make_view() as shown:
        yield shown


def connect(view):
    return socket.create_connection(("127.0.0.1", view.port), timeout=SOON)


def held(view):
    """How many connections the server has."""
    return len(view._server.server_state.connections)


def until(true):
    end = time.monotonic() + SOON
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def seconds_to_the_end(connection, sent=b"", often=b""):
    """How long a connection lives on which something is sent, and then something else again and again."""
    start = time.monotonic()
    connection.settimeout(0.05)
    with connection, contextlib.suppress(ConnectionError):
        connection.sendall(sent)
        while time.monotonic() - start < SOON:
            with contextlib.suppress(TimeoutError):
                if not connection.recv(4096):
                    break
            connection.sendall(often)
    return time.monotonic() - start


def request(view, cookie=True, more=()):
    lines = ["GET /ask/about HTTP/1.1", f"Host: 127.0.0.1:{view.port}", *more]
    return "\r\n".join([*lines, *([f"Cookie: {cookie_of(view)}"] if cookie else []), "", ""]).encode()


@pytest.mark.parametrize("byte", [b"", b"x"])
@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: "])
def test_who_asks_nothing_or_a_byte_at_a_time_is_cut_off(impatient, sent, byte):
    assert 0.2 < seconds_to_the_end(connect(impatient), sent, byte) < 5
    until(lambda: held(impatient) == 0)


@pytest.mark.parametrize("cookie", [True, False])
def test_who_asks_the_second_question_or_sends_a_body_a_byte_at_a_time_is_cut_off(impatient, cookie):
    for more, byte in (((), b"x"), (("Content-Length: 1000",), b"x"), ((), b"")):
        sent = request(impatient, cookie, more)
        assert 0.2 < seconds_to_the_end(connect(impatient), sent, byte) < 5
    until(lambda: held(impatient) == 0)


def test_who_does_not_read_the_answers_is_cut_off(impatient):
    question = request(impatient).replace(b"/ask/about", b"/static/softmap.js")
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", impatient.port))
        connection.sendall(question * 40)
        until(lambda: held(impatient) == 1)
        until(lambda: held(impatient) == 0)


def test_who_reads_a_long_answer_slowly_gets_it_whole(impatient):
    question = request(impatient).replace(b"/ask/about", b"/static/softmap.js")
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", impatient.port))
        connection.settimeout(SOON)
        connection.sendall(question.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        read, start = b"", time.monotonic()
        while part := connection.recv(20_000):
            read += part
            time.sleep(0.02 if time.monotonic() - start < 1.5 else 0)
    length = int(re.search(rb"content-length: (\d+)", read)[1])
    assert len(read.partition(b"\r\n\r\n")[2]) == length


def test_who_has_the_cookie_is_not_pushed_out_by_who_has_not(small):
    reader = http.client.HTTPConnection("127.0.0.1", small.port, timeout=SOON)
    for _ in range(3):
        reader.request("GET", "/ask/about", headers={"cookie": cookie_of(small)})
        own = reader.sock
        assert reader.getresponse().read()
        assert reader.sock is own  # the same connection
        idle = [connect(small) for _ in range(30)]
        until(lambda: held(small) <= 8)
        assert get(small, "/ask/about")[0] == 200  # another is let in too
        for connection in idle:
            connection.close()
    reader.close()


def test_oldest_connection_makes_room_for_one_with_the_cookie(small):
    idle = [connect(small) for _ in range(8)]
    until(lambda: held(small) == 8)
    assert get(small, "/ask/about")[0] == 200
    assert idle[0].recv(1) == b""
    idle[-1].sendall(request(small))
    assert idle[-1].recv(12) == b"HTTP/1.1 200"
    for connection in idle:
        connection.close()


def test_when_all_are_being_answered_another_is_sent_away(small, monkeypatch):
    monkeypatch.setattr(connections.Connection, "is_admitted", True)
    monkeypatch.setattr(connections.Connection, "is_busy", True)
    busy = [connect(small) for _ in range(8)]
    until(lambda: held(small) == 8)
    with connect(small) as other:
        assert other.recv(12) == b"HTTP/1.1 503"
    for connection in busy:
        connection.close()


def test_limit_leaves_files_for_all_else():
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        for allowed in (128, 256, 900):
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, most))
            assert connections.FEWEST <= connections.limit() <= max(connections.FEWEST, allowed // 2)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))
    assert connections.limit() <= connections.MOST


def test_what_is_odd_about_requests_is_said_to_who_sent_them_only(caplog, capfd):
    with make_view() as view:
        for sent in (b"nonsense\r\n\r\n", request(view, more=("Connection: upgrade", "Upgrade: websocket"))):
            with connect(view) as connection:
                connection.sendall(sent)
                assert connection.recv(5) == b"HTTP/"
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


OUT_OF_FILES = """
import os, resource, sys
sys.path.insert(0, "tests")
from recorded.builders import make_recording
from softmap.viewer.launch import View
with View(make_recording()) as view:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/dev/fd")) + 2, hard))
    print(view.port, flush=True)
    sys.stdin.readline()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    print(view.url, flush=True)
    sys.stdin.readline()
"""


@pytest.mark.slow
def test_that_no_more_files_may_be_opened_is_said_once_and_passes():
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", OUT_OF_FILES], **options) as process:
        port = int(process.stdout.readline())
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(30)]
        time.sleep(2.5)  # asyncio tries once a second
        process.stdin.write("\n")
        process.stdin.flush()
        path = process.stdout.readline().strip().partition("/?")[2]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SOON)
        connection.request("GET", f"/ask/about?{path}")
        assert connection.getresponse().status == 200
        connection.close()
        _, said = process.communicate("\n", timeout=SOON)
        for each in idle:
            each.close()
    assert said.count("said once") == 1
    assert "Too many open files" in said
    assert len(said.splitlines()) == 1


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts another process's files")
@pytest.mark.parametrize("count", [300, pytest.param(1100, marks=pytest.mark.slow)])
def test_many_connections_while_the_command_starts_do_not_end_it_and_fill_nothing(count, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else 65536, hard))
    make_recording().save(tmp_path / "run.softmap")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # as many files as connections, and fewer than are tried
    limited = ["bash", "-c", 'ulimit -Sn 256; exec "$@"', "-", *COMMAND]
    idle, sizes = [], []
    try:
        with subprocess.Popen(
            [*limited, str(tmp_path / "run.softmap"), "--port", str(port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            while len(idle) < count:
                try:
                    idle.append(socket.create_connection(("127.0.0.1", port), timeout=SOON))
                except ConnectionRefusedError:
                    assert process.poll() is None
                    time.sleep(0.002)
            path = "/ask/about?" + process.stdout.readline().strip().partition("?")[2]
            cookie = ""
            for _ in range(4):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SOON)
                connection.request("GET", path, headers={"cookie": cookie})
                response = connection.getresponse()
                assert response.status == 200
                cookie, path = cookie or response.headers["set-cookie"].split(";")[0], "/ask/about"
                connection.close()
                sizes.append(len(os.listdir(f"/proc/{process.pid}/fd")))
                idle += [socket.create_connection(("127.0.0.1", port), timeout=SOON) for _ in range(50)]
            process.terminate()
            _, said = process.communicate(timeout=SOON)
    finally:
        for each in idle:
            each.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert max(sizes) < 200
    assert len(said) < 500, said
    assert process.returncode == 128 + 15
