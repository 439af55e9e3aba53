"""A browser's part in the tests of the server: real requests over loopback."""

from __future__ import annotations

import http.client
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from recorded.builders import make_recording

COOKIES = WeakKeyDictionary()


def make_view(**options):
    """A view of a small recording of random numbers."""
    from softmap.viewer.launch import View

    return View(make_recording(**options))


def token_of(view):
    """The token of a new link."""
    return urlsplit(view.url).query.removeprefix("token=")


def cookie_of(view):
    """The cookie of a browser that has opened a link, always the same one."""
    if view not in COOKIES:
        status, headers, _ = send(view, f"/?token={token_of(view)}")
        assert status == 303
        COOKIES[view] = headers["set-cookie"].split("; ")[0]
    return COOKIES[view]


def send(view, path, method="GET", **headers):
    """A request as it is given, and nothing besides: its status, headers and body."""
    connection = http.client.HTTPConnection("127.0.0.1", view.port, timeout=20)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in ({"host": f"127.0.0.1:{view.port}"} | headers).items():
            if value is not None:
                connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def get(view, path, **headers):
    """A request of one who has been let in."""
    return send(view, path, **{"cookie": cookie_of(view)} | headers)
