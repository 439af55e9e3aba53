"""Who gets in, what is given away, and how questions are answered, over real connections."""

from __future__ import annotations

import contextlib
import json
import re
import socket
from importlib.resources import files

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recorded.builders import make_recording
from serving import cookie_of, get, make_view, send, token_of

from softmap.errors import ParameterError, RecordingError
from softmap.viewer import keys, server, shipped

TILE = "/ask/tile?layer=0&head=1&zoom=0&row=0&column=0&how=max&sinks=shown&words=0"
CROSS = {"sec_fetch_site": "cross-site", "sec_fetch_dest": "document"}


@pytest.fixture(scope="module")
def view():
    with make_view() as shown:
        yield shown


# Who gets in


def test_link_lets_in_one_browser_and_says_how_another_gets_in(view):
    token = token_of(view)
    status, headers, _ = send(view, f"/?token={token}")
    assert status == 303
    cookie = headers["set-cookie"].split("; ")[0]
    for path in (f"/?token={token}", f"/ask/about?token={token}"):
        status, headers, body = send(view, path)
        assert (status, headers["set-cookie"]) == (403, None)
        assert b"expected one that opens for the first time, got one that was opened. Enter" in body
        assert token.encode() not in body
    status, headers, _ = send(view, f"/?token={token}", cookie=cookie)  # its own browser opens it again
    assert (status, headers["location"], headers["set-cookie"]) == (303, "/", None)
    assert send(view, f"/?token={token_of(view)}")[0] == 303


def test_link_is_not_used_up_by_who_gets_nothing_for_it(view):
    token = token_of(view)
    assert send(view, f"/?token={token}", "HEAD")[1]["set-cookie"] is None
    assert send(view, f"/?token={token}", "POST")[0] == 405
    assert send(view, f"/?token={token}", host="evil.example")[0] == 421
    assert send(view, f"/ask/about?token={token}", **CROSS)[0] == 403
    assert send(view, f"/?token={token}")[0] == 303


def test_cookie_is_no_link_and_no_cookie_of_another_map(view):
    value = cookie_of(view).split("=")[1]
    assert send(view, f"/?token={value}")[0] == 403
    with make_view() as other:
        assert send(other, "/", cookie=f"softmap-{other.port}={value}")[0] == 403
        assert send(other, "/", cookie=f"softmap-{view.port}={value}; {cookie_of(other)}")[0] == 200


def test_each_browser_has_a_cookie_of_its_own(view):
    cookies = {send(view, f"/?token={token_of(view)}")[1]["set-cookie"].split(";")[0] for _ in range(3)}
    assert len(cookies) == 3
    assert {send(view, "/", cookie=cookie)[0] for cookie in cookies} == {200}


def test_neither_links_nor_cookies_are_kept_without_end(monkeypatch):
    monkeypatch.setattr(keys, "LINKS", 3)
    made = keys.Keys()
    links = [made.make_link() for _ in range(5)]
    assert [made.look(link).value for link in links] == ["unknown"] * 2 + ["fresh"] * 3
    cookies = [made.use(links[-1]) for _ in range(5)]
    assert [made.look(link).value for link in links[2:]] == ["fresh"] * 2 + ["used"]
    assert [made.knows(cookie) for cookie in cookies] == [False] * 2 + [True] * 3
    assert not any(secret in str(vars(made)) for secret in links + cookies)


def test_first_visit_leaves_a_cookie_and_goes_on_without_the_token(view):
    status, headers, _ = send(view, f"/?token={token_of(view)}")
    assert (status, headers["location"]) == (303, "/")
    cookie, *attributes = headers["set-cookie"].split("; ")
    assert re.fullmatch(rf"softmap-{view.port}=[\w-]{{43}}", cookie)
    assert {each.lower() for each in attributes} == {"httponly", "path=/", "samesite=strict"}
    status, headers, body = send(view, "/", cookie=cookie)
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b"softmap.js" in body


@pytest.mark.parametrize("path", ["/", "/static/softmap.js", "/static/softmap.css", "/ask/about", "/nothing", TILE])
def test_nobody_gets_in_without_the_token(view, path):
    token = token_of(view)
    for headers in ({}, {"cookie": f"softmap-{view.port}=x"}, {"cookie": f"softmap-{view.port + 1}={token}"}):
        status, answered, body = send(view, path, **headers)
        assert status == 403
        assert "set-cookie" not in answered
        assert token.encode() not in body
        assert b"expected the token it was printed with" in body
        assert b"Open the address that `softmap view` or rec.view() printed" in body


@pytest.mark.parametrize("token", ["", "x", "%C3%A9", "%00", "%E6%88%91"])
def test_wrong_token_is_refused_even_with_the_cookie(view, token):
    assert get(view, f"/?token={token}")[0] == 403


def test_token_in_a_question_lets_a_script_in_which_goes_on_with_its_cookie(view):
    status, headers, body = send(view, f"/ask/about?token={token_of(view)}")
    assert status == 200
    assert json.loads(body)["tile"] == 256
    assert send(view, "/ask/about", cookie=headers["set-cookie"].split(";")[0])[0] == 200


def test_two_views_have_different_tokens(view):
    with make_view() as other:
        assert token_of(other) != token_of(view)
        assert len(token_of(other)) >= 43


@pytest.mark.parametrize(
    "host", ["evil.example:{}", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:{}", "[::1]:{}", ""]
)
def test_other_names_of_the_host_are_refused(view, host):
    status, _, body = get(view, "/ask/about", host=host.format(view.port))
    assert status == 421
    assert f"expected 127.0.0.1:{view.port} or localhost:{view.port}" in json.loads(body)["error"]["message"]


def test_localhost_is_a_name_of_the_host(view):
    assert get(view, "/ask/about", host=f"localhost:{view.port}")[0] == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "https://127.0.0.1:{}", "http://localhost:{}"]
)
def test_other_origins_are_refused(view, origin):
    status, _, body = get(view, "/ask/about", origin=origin.format(view.port))
    assert status == 403
    assert json.loads(body)["error"]["subject"] == "Origin"


def test_own_origin_is_let_in(view):
    assert get(view, "/ask/about", origin=f"http://127.0.0.1:{view.port}")[0] == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize("path", ["/", "/ask/about", "/static/softmap.js"])
def test_what_another_page_sends_is_refused_with_the_cookie(view, site, path):
    for kind in ("document", "iframe", "script", "empty"):
        assert get(view, path, sec_fetch_site=site, sec_fetch_dest=kind)[0] == 403


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_what_this_page_or_its_reader_sends_is_let_in(view, site):
    assert get(view, "/", sec_fetch_site=site)[0] == 200
    assert send(view, f"/?token={token_of(view)}", sec_fetch_site=site)[0] == 303


def test_link_from_elsewhere_with_the_token_goes_on_from_within(view):
    # after a redirect it would still be the other page's, and come without the cookie
    status, headers, body = send(view, f"/?token={token_of(view)}", **CROSS)
    assert status == 200
    assert headers["set-cookie"].startswith(f"softmap-{view.port}=")
    assert b'content="0;url=/"' in body
    assert send(view, "/?token=x", **CROSS)[0] == 403
    assert send(view, f"/ask/about?token={token_of(view)}", **CROSS)[0] == 403
    assert send(view, f"/?token={token_of(view)}", **CROSS | {"sec_fetch_dest": "iframe"})[0] == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"])
def test_nothing_can_be_written(view, method):
    status, headers, body = send(view, "/ask/about", method, cookie=cookie_of(view))
    assert (status, headers["allow"]) == (405, "GET, HEAD")
    assert json.loads(body)["error"]["got"] == method


# What is given away


def test_files_are_those_of_the_package(view):
    for path, (name, media_type) in server.FILES.items():
        status, headers, body = get(view, path)
        assert status == 200
        assert body == files("softmap.viewer").joinpath("static", name).read_bytes()
        assert headers["content-type"] == f"{media_type}; charset=utf-8"
        assert headers["cache-control"] == "no-cache"


def test_file_that_has_not_changed_is_not_sent_again(view):
    etag = get(view, "/static/softmap.js")[1]["etag"]
    for known in (etag, f'"other", W/{etag}'):
        status, headers, body = get(view, "/static/softmap.js", if_none_match=known)
        assert (status, body, headers["etag"]) == (304, b"", etag)
    assert get(view, "/static/softmap.js", if_none_match='"other"')[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/static/",
        "/static/index.html",
        "/static/../server.py",
        "/static/%2e%2e/server.py",
        "/static/..%2fserver.py",
        "/static/..%5cserver.py",
        "/static/softmap.js/",
        "/static/softmap.js%00",
        "/static//softmap.js",
        "//static/softmap.js",
        "/static/%ff",
        "/%2fetc%2fpasswd",
        "/etc/passwd",
        "/ask/../static/softmap.js",
        "/ask/a/b",
        "/ask/",
        "/favicon.ico",
    ],
)
def test_no_other_file_is_given(view, path):
    status, headers, body = get(view, path)
    assert status == 404
    assert "expected /, or /ask/ and a question" in body.decode()
    assert headers["content-type"].split(";")[0] in ("text/plain", "application/json")


@pytest.mark.parametrize("path", ["/", "/ask/about", TILE, "/ask/nothing", "/nothing", "/ask/about?x=%ff"])
def test_every_answer_forbids_what_does_not_come_from_here(view, path):
    for headers in (get(view, path)[1], send(view, path)[1], get(view, path, host="evil.example")[1]):
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert policy.pop("style-src").startswith("'self' 'sha256-")
        assert policy.pop("img-src") == "'self' blob: data:"
        assert {policy.pop(name) for name in ("script-src", "connect-src", "font-src")} == {"'self'"}
        assert policy == dict.fromkeys(("default-src", "base-uri", "form-action", "frame-ancestors"), "'none'")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cache-control"] in ("no-store", "no-cache")


def test_policy_knows_the_style_that_openseadragon_adds():
    script = files("softmap.viewer").joinpath("static", "softmap.js").read_text(encoding="utf-8")
    (text,) = re.findall(
        r"""["'`](@media ?\(hover: ?none\)[^"'`]*)["'`]""", re.sub(r"""["'`]\s*\+\s*["'`]""", "", script)
    )
    assert text == shipped.OPENSEADRAGON_STYLE


def test_page_without_its_files_is_refused(tmp_path, view):
    with pytest.raises(RecordingError, match=r"index\.html: expected a file of the package"):
        server.application(view._worker, "token", 1, tmp_path)


# Questions


def test_question_is_answered_in_json(view):
    status, headers, body = get(view, "/ask/about")
    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.loads(body)["layers"][1]["heads"] == 4


def test_numbers_come_as_their_bytes(view):
    status, headers, body = get(view, TILE)
    assert (status, headers["content-type"]) == (200, "application/octet-stream")
    assert (headers["softmap-dtype"], headers["softmap-shape"]) == ("float16", "9,9")
    tile = np.frombuffer(body, "<f2").reshape(9, 9)
    expected = make_recording().layers[0].matrix[1].dense().numpy()
    seen = np.tril(np.ones((9, 9), bool))
    assert np.isnan(tile[~seen]).all()
    np.testing.assert_allclose(tile[seen], expected[seen], atol=1e-3)


def test_head_is_an_answer_without_its_body(view):
    status, headers, body = send(view, TILE, "HEAD", cookie=cookie_of(view))
    assert (status, headers["content-length"], body) == (200, "162", b"")


@pytest.mark.parametrize(
    "path", ["/ask/tile", "/ask/tile?layer=x", TILE + "&head=1", TILE.replace("layer=0", "layer=7")]
)
def test_wrong_parameters_are_400_and_say_what_was_expected(view, path):
    status, headers, body = get(view, path)
    assert (status, headers["content-type"]) == (400, "application/json")
    error = json.loads(body)["error"]
    assert set(error) == {"message", "subject", "expected", "got", "hint"}
    assert error["message"] == f"{error['subject']}: expected {error['expected']}, got {error['got']}. {error['hint']}"


@pytest.mark.parametrize("name", ["nothing", "__init__", "%F0%9F%90%8D", "%ff", "tile%00"])
def test_unknown_question_is_404(view, name):
    status, _, body = get(view, f"/ask/{name}")
    assert status == 404
    assert "tile" in json.loads(body)["error"]["expected"]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("x=%ff", 400),
        ("x=%c3", 400),
        ("&".join(f"p{i}={i}" for i in range(40)), 400),
        ("x=" + "a" * 9000, 414),
        ("x=" + "%41" * 20000, 414),
    ],
)
def test_odd_addresses_are_refused_with_a_message(view, query, status):
    got, _, body = get(view, f"/ask/about?{query}")
    assert got == status
    assert "expected" in json.loads(body)["error"]["message"]


def test_address_beyond_all_measure_ends_its_connection_alone(view):
    connection = socket.create_connection(("127.0.0.1", view.port), timeout=20)
    with connection, contextlib.suppress(ConnectionError):
        connection.sendall(b"GET /ask/about?x=" + b"a" * 300_000)
        assert connection.recv(12) == b"HTTP/1.1 400"
    assert get(view, "/ask/about")[0] == 200


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=60))
def test_parameters_are_read_or_refused(raw):
    try:
        params = server.read_query(raw)
    except ParameterError:
        return
    assert all(isinstance(part, str) for pair in params.items() for part in pair)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40))
def test_no_address_is_an_error_of_the_server(view, path):
    assert get(view, f"/{path}")[0] in (200, 303, 400, 403, 404)
    assert get(view, f"/ask/{path}")[0] in (200, 400, 403, 404)
