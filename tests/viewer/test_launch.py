"""Starting and ending a view in Python, and what its server does with too much and with what fails."""

from __future__ import annotations

import gc
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import webbrowser
from pathlib import Path
from unittest.mock import Mock
from urllib.parse import unquote, urlsplit

import pytest
from recorded.builders import make_recording
from serving import cookie_of, get, make_view, send, token_of

from softmap.errors import ParameterError, RecordingError, SoftmapError
from softmap.viewer import view as view_of
from softmap.viewer.launch import View


def test_view_is_served_until_it_is_closed():
    with make_view() as shown:
        assert re.fullmatch(rf"http://127\.0\.0\.1:{shown.port}/\?token=[\w-]{{43}}", shown.url)
        assert shown.url != shown.url
        assert repr(shown) == f"View(port={shown.port})"
        assert get(shown, "/ask/about")[0] == 200
    assert repr(shown) == "View(closed)"
    with pytest.raises(ConnectionRefusedError):
        send(shown, "/")
    shown.close()


@pytest.mark.parametrize("asked", [{}, {"layer": 1, "head": 2}])
def test_view_says_what_its_page_starts_with(asked):
    with View(make_recording(), **asked) as shown:
        start = json.loads(get(shown, "/ask/about")[2])["start"]
        assert shown.start == (start["layer"], start["head"])
        assert {"layer": shown.start[0], "head": shown.start[1]}.items() >= asked.items()


def test_view_listens_on_this_machine_alone():
    with make_view() as shown:
        for connection in shown._server.servers[0].sockets:
            assert connection.getsockname()[0] == "127.0.0.1"


def test_small_answers_are_sent_at_once():
    # on a connection that stays open, the second of two answers would wait for an acknowledgment: 40 ms
    with make_view() as shown, socket.create_connection(("127.0.0.1", shown.port)) as connection:
        while not shown._server.server_state.connections:
            time.sleep(0.01)
        (accepted,) = shown._server.server_state.connections
        own = accepted.transport.get_extra_info("socket")
        assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert connection.getpeername()[1] == shown.port


def test_server_that_does_not_start_is_said_to_and_nothing_is_left_running(monkeypatch, caplog):
    async def startup(self, sockets=None):
        raise OSError("too many open files")

    monkeypatch.setattr("uvicorn.Server.startup", startup)
    before = threading.active_count()
    with pytest.raises(SoftmapError, match=r"the map's server: expected one that starts within 10 s, got none"):
        make_view()
    assert "too many open files" in caplog.text
    assert threading.active_count() == before


def test_port_is_the_one_that_is_asked_for():
    with make_view() as other:
        port = other.port
    with View(make_recording(), port=port) as shown:
        assert shown.port == port


def test_port_that_is_taken_is_said_to_be_and_nothing_is_left_running():
    with make_view() as other:
        before = threading.active_count()
        with pytest.raises(ParameterError, match=r"one that is free, got .*Leave it out"):
            View(make_recording(), port=other.port)
        assert threading.active_count() == before


@pytest.mark.parametrize("port", [-1, 65536, "80", True, 1.0])
def test_no_port_is_refused(port):
    with pytest.raises(ParameterError, match="port: expected a number from 0 to 65535"):
        View(make_recording(), port=port)


def test_batch_is_asked_for_one_of_its_sequences():
    with pytest.raises(RecordingError, match=r"one sequence, got a batch of 2. Take one: rec.batch\(0\)"):
        View(make_recording(batch=2))


@pytest.mark.parametrize(("name", "options"), [("layer", {"layer": 5}), ("head", {"layer": 0, "head": 4})])
def test_start_that_is_not_there_is_refused_and_nothing_is_left_running(name, options):
    before = threading.active_count()
    with pytest.raises(ParameterError, match=f"{name}: expected"):
        View(make_recording(), **options)
    assert threading.active_count() == before


def test_nothing_is_left_of_a_view_that_was_closed():
    before = threading.active_count()
    for _ in range(3):
        make_view().close()
    gc.collect()
    assert threading.active_count() == before


@pytest.mark.timed
def test_closing_does_not_wait_for_who_does_not_read():
    with make_view(queries=300) as shown:
        connection = socket.create_connection(("127.0.0.1", shown.port))
        question = "/ask/tile?layer=0&head=0&zoom=0&row=0&column=0"
        lines = f"GET {question} HTTP/1.1", f"Host: 127.0.0.1:{shown.port}", f"Cookie: {cookie_of(shown)}"
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode() * 50)
        time.sleep(0.3)
        start = time.perf_counter()
        shown.close()
        assert time.perf_counter() - start < 1
        connection.close()


@pytest.mark.skipif(os.name != "posix", reason="sends a signal to a thread")
def test_ctrl_c_while_one_waits_leaves_a_view_that_can_be_closed():
    before = threading.active_count()
    shown = make_view()
    interrupt = threading.Timer(0.2, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        shown.wait()
    interrupt.join()
    assert get(shown, "/ask/about")[0] == 200
    shown.close()
    assert threading.active_count() == before


@pytest.fixture
def opened(monkeypatch):
    """What browsers are started on."""
    addresses = []
    monkeypatch.setattr(webbrowser, "open", lambda url: addresses.append(url) or True)
    return addresses


def test_browser_is_opened_on_a_file_that_goes_on_to_the_address(opened):
    for view in (lambda: make_recording().view(), lambda: view_of(make_recording(), layer=1, head=2)):
        with view() as shown:
            assert isinstance(shown, View)
            file = Path(unquote(urlsplit(opened[-1]).path))
            (link,) = set(re.findall(r'http:[^"]*', file.read_text(encoding="utf-8")))
            assert send(shown, f"/?{urlsplit(link).query}")[0] == 303
            assert send(shown, f"/?token={token_of(shown)}")[0] == 303  # its link was another
        assert not file.exists()
        assert not file.parent.exists()


@pytest.mark.skipif(os.name != "posix", reason="reads a file's mode")
def test_file_that_opens_a_browser_is_its_users_own_and_its_name_says_nothing(opened):
    with make_view() as shown:
        assert shown.open()
        assert opened[0].startswith("file://")
        assert "token" not in opened[0]
        file = Path(unquote(urlsplit(opened[0]).path))
        assert [stat.S_IMODE(each.stat().st_mode) for each in (file, file.parent)] == [0o600, 0o700]


def test_no_browser_and_no_place_for_the_file_are_no_error(monkeypatch, tmp_path):
    with make_view() as shown:
        monkeypatch.setattr(webbrowser, "open", lambda url: False)
        assert shown.open() is False
        monkeypatch.setattr(tempfile, "mkdtemp", Mock(side_effect=OSError(28, "No space left on device")))
        assert shown.open() is False


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_child_of_a_process_that_shows_a_map_ends_and_leaves_it_open(opened):
    with make_view() as shown:
        shown.open()
        child = os.fork()
        if child == 0:
            shown.close()
            shown._end()
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert get(shown, "/ask/about")[0] == 200
        assert Path(unquote(urlsplit(opened[0]).path)).exists()


@pytest.mark.slow
def test_view_ends_with_python():
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from recorded.builders import make_recording\n"
        "from softmap.viewer.launch import View\n"
        "print(View(make_recording()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.startswith("View(port=")
    assert done.stderr == ""
