"""The server's guard and its answers, in this process: each refusal whole, each header, and who waits for what."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import Future

import numpy as np
import pytest

from softmap.errors import ParameterError, RecordingError
from softmap.viewer import server, shipped
from softmap.viewer.answers import Numbers
from softmap.viewer.asking import BusyError
from softmap.viewer.keys import Keys

HOST = "127.0.0.1:8123"


class Answering:
    """A worker that gives what a test wants, and keeps what it was asked."""

    def __init__(self, answer):
        self.answer, self.asked, self.futures = answer, [], []

    def submit(self, name, params):
        self.asked.append((name, params))
        future = Future()
        self.futures.append(future)
        if isinstance(self.answer, BaseException):
            future.set_exception(self.answer)
        elif self.answer is not None:
            future.set_result(self.answer)
        return future


class Asked:
    """What came back: a status, headers in the order in which they were sent, and a body."""

    def __init__(self, messages):
        self.status = messages[0]["status"]
        self.headers = [(name.decode(), value.decode()) for name, value in messages[0]["headers"]]
        self.body = b"".join(message.get("body", b"") for message in messages[1:])

    def header(self, name):
        (value,) = [value for own, value in self.headers if own == name]
        return value

    def error(self):
        return json.loads(self.body)["error"]


class Served:
    """The application of one worker, asked without a connection."""

    def __init__(self, answer=None, port=8123, static=shipped.STATIC):
        self.worker, self.keys = Answering(answer), Keys()
        self.app = server.application(self.worker, self.keys, port, static)

    def ask(self, path="/", query="", method="GET", receive=None, **headers):
        cookie = headers.pop("cookie", None)
        headers = {"host": HOST} | {name.replace("_", "-"): value for name, value in headers.items()}
        if cookie is not None:
            headers["cookie"] = cookie
        scope = {
            **{
                "type": "http",
                "method": method,
                "path": path,
                "raw_path": path.encode(),
                "query_string": query.encode(),
            },
            "headers": [(name.encode(), value.encode()) for name, value in headers.items() if value is not None],
        }
        messages = []

        async def send(message):
            messages.append(message)

        async def waits():
            await asyncio.sleep(60)

        asyncio.run(self.app(scope, receive or waits, send))
        self.admitted = scope.get("admitted")
        return Asked(messages)

    def cookie(self):
        found = self.ask(query=f"token={self.keys.make_link()}").header("set-cookie")
        return found.partition(";")[0]


def refused(subject, expected, got, hint):
    return {"subject": subject, "expected": expected, "got": got, "hint": hint}


NOBODY = "the token it was printed with"
ANOTHER_PAGE = f"Another page may not ask here. {server.SHOWN}"
REFUSALS = {
    "method": (
        {"method": "POST"}, 405, refused("method", "GET or HEAD", "POST", "Nothing is written here."),
    ),
    "host": (
        {"host": "evil.test:8123"}, 421,
        refused("Host", "127.0.0.1:8123 or localhost:8123", "evil.test:8123", server.SHOWN),
    ),
    "port": (
        {"host": "127.0.0.1"}, 421, refused("Host", "127.0.0.1:8123 or localhost:8123", "127.0.0.1", server.SHOWN),
    ),
    "no host": (
        {"host": None}, 421, refused("Host", "127.0.0.1:8123 or localhost:8123", "none", server.SHOWN),
    ),
    "nobody": ({}, 403, refused("address", NOBODY, "none", server.SHOWN)),
    "another token": ({"query": "token=x"}, 403, refused("address", NOBODY, "another", server.SHOWN)),
    "another cookie": ({"cookie": "softmap-8123=x"}, 403, refused("address", NOBODY, "another", server.SHOWN)),
    "origin": (
        {"origin": "http://evil.test"}, 403, refused("Origin", f"http://{HOST}", "http://evil.test", ANOTHER_PAGE),
    ),
    "site": (
        {"sec_fetch_site": "cross-site"}, 403,
        refused("Sec-Fetch-Site", "same-origin or none", "cross-site", ANOTHER_PAGE),
    ),
    "too long": (
        {"query": "a=" + "b" * 8192}, 414,
        refused("address", "8192 characters", "more", "Ask for less at a time."),
    ),
    "too many": (
        {"query": "&".join(f"a{i}=1" for i in range(33))}, 400,
        refused("parameters", "at most 32", "more", "As a browser writes it: ?layer=3&head=1"),
    ),
    "twice": (
        {"query": "a=1&layer=2&layer=3"}, 400,
        refused("parameters", "each of them once", "'layer' several times", "As a browser writes it: ?layer=3&head=1"),
    ),
    "encoding": (
        {"query": "a=%ff"}, 400,
        refused("parameters", "percent-encoded UTF-8", "another encoding", "As a browser writes it: ?layer=3&head=1"),
    ),
}  # fmt: skip


def as_text(error):
    return f"softmap: {error['subject']}: expected {error['expected']}, got {error['got']}. {error['hint']}\n"


@pytest.mark.parametrize(("asked", "status", "error"), REFUSALS.values(), ids=REFUSALS)
def test_refusal_says_what_was_expected_and_what_came(asked, status, error):
    served = Served({})
    question, page = served.ask("/ask/tile", **asked), served.ask(**asked)
    assert question.status == page.status == status
    told = question.error()
    assert {name: told[name] for name in error} == error
    assert question.header("content-type") == "application/json"
    assert page.body.decode() == as_text(error)
    assert (served.worker.asked, served.admitted) == ([], None)
    for answer in (question, page):
        assert {name: answer.header(name) for name in server.HEADERS} == server.HEADERS
        assert answer.header("cache-control") == "no-store"
        assert ("allow", "GET, HEAD") in answer.headers or status != 405
        assert not [value for name, value in answer.headers if name == "set-cookie"]


def test_address_may_be_as_long_as_is_said():
    served = Served({})
    cookie = served.cookie()
    longest = server.LONGEST - len("/ask/tile")
    assert served.ask("/ask/tile", "a=" + "b" * (longest - 2), cookie=cookie).status == 200
    assert served.ask("/ask/tile", "a=" + "b" * (longest - 1), cookie=cookie).status == 414
    most = "&".join(f"a{i}=1" for i in range(server.MOST))
    assert served.ask("/ask/tile", most, cookie=cookie).status == 200


def test_link_becomes_a_cookie_once_and_goes_on_without_its_token():
    served = Served({})
    token = served.keys.make_link()
    first = served.ask(query=f"token={token}")
    assert (first.status, first.header("location")) == (303, "/")
    name, _, rest = first.header("set-cookie").partition("=")
    assert name == "softmap-8123"
    assert rest.partition(";")[2] == " HttpOnly; Path=/; SameSite=Strict"
    cookie = f"{name}={rest.partition(';')[0]}"
    assert served.ask(cookie=cookie).status == 200
    again = served.ask("/ask/tile", f"token={token}")
    assert again.status == 403
    used = refused("address", "one that opens for the first time", "one that was opened", server.ANOTHER)
    assert {key: again.error()[key] for key in used} == used
    assert served.ask(query=f"token={token}", cookie=cookie).status == 303  # to who has it, it is no secret
    assert served.ask(query="token=x", cookie=cookie).status == 403


def test_who_asks_for_headers_leaves_the_link_to_who_looks():
    served = Served({})
    token = served.keys.make_link()
    head = served.ask(query=f"token={token}", method="HEAD")
    assert head.status == 303
    assert not [value for name, value in head.headers if name == "set-cookie"]
    assert served.ask(query=f"token={token}").header("set-cookie")


def test_link_from_elsewhere_goes_on_from_within_and_none_but_a_link_does():
    served = Served({})
    elsewhere = {"sec_fetch_site": "cross-site", "sec_fetch_dest": "document"}
    answer = served.ask(query=f"token={served.keys.make_link()}", **elsewhere)
    assert (answer.status, answer.body.decode()) == (200, server.ONWARD)
    assert answer.header("content-type") == "text/html; charset=utf-8"
    for path, asked in (
        ("/ask/tile", elsewhere),
        ("/", elsewhere | {"sec_fetch_dest": "image"}),
        ("/", elsewhere | {"sec_fetch_dest": None}),
    ):
        assert served.ask(path, f"token={served.keys.make_link()}", **asked).status == 403
    assert served.ask(**elsewhere, cookie=served.cookie()).status == 403


@pytest.mark.parametrize("site", [None, "same-origin", "none"])
@pytest.mark.parametrize("host", ["127.0.0.1:8123", "localhost:8123"])
def test_this_page_and_its_reader_are_let_in(site, host):
    served = Served({"a": 1})
    answer = served.ask(
        "/ask/tile", "x=1", cookie=served.cookie(), sec_fetch_site=site, host=host, origin=f"http://{host}"
    )
    assert (answer.status, answer.body) == (200, b'{"a": 1}')
    assert answer.header("content-type") == "application/json"
    assert served.worker.asked == [("tile", {"x": "1"})]
    assert served.admitted is True
    served.ask("/ask/tile", "x=&y", cookie=served.cookie())
    assert served.worker.asked[-1] == ("tile", {"x": "", "y": ""})


def test_token_in_a_question_is_no_parameter_of_it():
    served = Served({})
    answer = served.ask("/ask/tile", f"layer=1&token={served.keys.make_link()}")
    assert answer.status == 200
    assert answer.header("set-cookie").startswith("softmap-8123=")
    assert served.worker.asked == [("tile", {"layer": "1"})]


def test_port_80_has_names_without_a_port():
    served = Served({}, port=80)
    assert {served.ask(host=host).status for host in ("127.0.0.1", "localhost", "localhost:80")} == {403}
    assert served.ask(host="127.0.0.1:8123").status == 421


def test_numbers_are_bytes_with_their_dtype_and_shape():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    served = Served(Numbers(array))
    answer = served.ask("/ask/tile", cookie=served.cookie())
    assert answer.body == array.tobytes()
    told = {name: answer.header(name) for name in ("softmap-dtype", "softmap-shape", "content-type")}
    assert told == {"softmap-dtype": "float32", "softmap-shape": "2,3", "content-type": "application/octet-stream"}


ERRORS = {
    "wrong": (ParameterError("layer", "0 to 5", "9", "Count from 0."), "tile", 400, None),
    "unknown": (ParameterError("question", "one of these", "x", "Ask."), "nothing", 404, None),
    "damaged": (RecordingError("a", "b", "c", "d"), "tile", 409, None),
    "busy": (BusyError("a", "b", "c", "d"), "tile", 503, None),
    "files": (
        FileNotFoundError(2, "No such file"), "tile", 410,
        refused("recording", "files that can be read", "No such file", "Open it again once they are there."),
    ),
    "files, untold": (
        OSError("odd"), "tile", 410,
        refused("recording", "files that can be read", "odd", "Open it again once they are there."),
    ),
    "a mistake": (
        ZeroDivisionError("by 0"), "tile", 500,
        refused("question 'tile'", "an answer", "ZeroDivisionError: by 0", "This is softmap's mistake; the server goes on."),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("error", "question", "status", "told"), ERRORS.values(), ids=ERRORS)
def test_errors_have_a_status_and_all_that_they_say(error, question, status, told, caplog):
    served = Served(error)
    answer = served.ask(f"/ask/{question}", cookie=served.cookie())
    assert answer.status == status
    found = answer.error()
    told = told or refused(error.subject, error.expected, error.got, error.hint)
    assert {name: found[name] for name in told} == told
    assert ("retry-after", "1") in answer.headers or status != 503
    assert bool(caplog.records) == (status == 500)
    assert status != 500 or caplog.messages == ["softmap could not answer tile"]


def test_question_whose_asker_leaves_is_cancelled():
    served = Served()

    async def leaves():
        return {"type": "http.disconnect"}

    answer = served.ask("/ask/tile", cookie=served.cookie(), receive=leaves)
    told = refused("question", "an asker who waits", "one who left, or a server that ends", "Start it again.")
    assert answer.status == 503
    assert {name: answer.error()[name] for name in told} == told
    assert served.worker.futures[-1].cancelled()
    assert served.app.state.questions.pending == set()


def test_what_an_asker_sends_before_it_leaves_is_waited_out():
    served, sent = Served(), [{"type": "http.request"}, {"type": "http.request"}, {"type": "http.disconnect"}]

    async def receive():
        return sent.pop(0)

    assert served.ask("/ask/tile", cookie=served.cookie(), receive=receive).status == 503
    assert sent == []


def test_server_that_ends_lets_nobody_wait():
    served = Served()

    async def ends():
        served.app.state.questions.close()
        await asyncio.sleep(60)

    assert served.ask("/ask/tile", cookie=served.cookie(), receive=ends).status == 503
    assert served.worker.futures[-1].cancelled()


@pytest.mark.parametrize(("path", "name", "kind"), [(path, *what) for path, what in server.FILES.items()])
def test_file_is_given_once_and_then_said_to_be_the_same(path, name, kind):
    served = Served()
    cookie = served.cookie()
    first = served.ask(path, cookie=cookie)
    assert first.status == 200
    assert first.body == shipped.read(name).encode()
    assert first.header("content-type") == f"{kind}; charset=utf-8"
    assert first.header("cache-control") == "no-cache"
    etag = first.header("etag")
    assert len(etag) == 34
    for known in (etag, f"W/{etag}", f'"x", {etag}', f'"x",{etag}'):
        again = served.ask(path, cookie=cookie, if_none_match=known)
        assert (again.status, again.body, again.header("etag")) == (304, b"", etag)
        assert again.header("cache-control") == "no-cache"
    assert served.ask(path, cookie=cookie, if_none_match='"x"').status == 200


@pytest.mark.parametrize("path", ["/nothing", "/static/", "/ask/", "/ask/tile/", "/ask/a/b", "//", "/index.html"])
def test_nothing_else_is_there(path):
    served = Served({})
    answer = served.ask(path, cookie=served.cookie())
    assert answer.status == 404
    assert served.worker.asked == []
    assert {name: answer.header(name) for name in server.HEADERS} == server.HEADERS
    told = refused("address", "/, or /ask/ and a question", path, server.SHOWN)
    if path.startswith("/ask/"):
        assert {name: answer.error()[name] for name in told} == told
    else:
        assert answer.body.decode() == as_text(told)


def test_number_that_json_does_not_know_is_never_sent():
    served = Served({"weight": float("nan")})
    assert served.ask("/ask/tile", cookie=served.cookie()).status == 500
